"""Anatomical joint limits."""

JOINT_LIMITS_RAD: dict[str, tuple[tuple[float, float, float], tuple[float, float, float]]] = {
    "hip": ((-2.4, -0.95, -0.5), (0.6, 0.95, 1.3)),
    "knee": ((-0.1, -0.6, -0.3), (2.75, 0.6, 0.3)),
    "ankle": ((-0.8, -0.75, -0.65), (1.0, 0.75, 0.65)),
    "foot": ((-1.2, -0.3, -0.3), (1.2, 0.3, 0.3)),
    "spine1": ((-0.5, -0.5, -0.5), (1.2, 0.5, 0.5)),
    "spine2": ((-0.5, -0.5, -0.5), (1.0, 0.5, 0.5)),
    "spine3": ((-0.6, -0.5, -0.5), (0.9, 0.5, 0.5)),
    "neck": ((-0.8, -0.9, -0.7), (0.9, 0.9, 0.7)),
    "head": ((-0.8, -0.9, -0.7), (0.9, 0.9, 0.7)),
    "collar": ((-0.5, -0.6, -0.5), (0.5, 0.6, 0.8)),
    "shoulder": ((-2.1, -2.4, -1.8), (1.8, 1.1, 1.8)),
    "elbow": ((-1.6, -2.7, -0.35), (1.6, 0.15, 1.3)),
    "wrist": ((-1.8, -1.2, -1.2), (1.8, 1.2, 1.35)),
    "hand": ((-0.7, -0.7, -0.7), (0.7, 0.7, 0.7)),
}
"""Lowest and highest rotation about x, y, z in the axes of the T-pose, radians, for joints of the left or the middle; right sides
mirror y and z.

+x flexes knees and spine and points the toes, -x lifts thighs and toes; -y flexes elbows and leads arms forward; +z abducts
legs and arms. The magnitudes follow the ranges of motion of the American Academy of Orthopaedic Surgeons ("Joint Motion:
Method of Measuring and Recording", 1965: knee 0 to 135 degrees, elbow 0 to 150, hip 120 of flexion and 30 of extension, ...),
which were measured joint by joint on the bones. Where skeletons divide a movement differently (forearm rotation between elbow
and wrist, hinges that are oblique in a T-pose, dancers' hips) the limit is what whole collections of motion capture keep, so
that only what no healthy joint does lies beyond it.
"""
