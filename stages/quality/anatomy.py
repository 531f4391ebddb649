"""Whether joints stay where anatomy lets them: rotations as twist along a bone and swing of that bone, against limits."""

import numpy as np
import roma
import torch
from jaxtyping import Float

from schemas.skeleton import NUM_JOINTS, SMPL_JOINTS

MARGIN_RAD = 0.175
"""Limits may be passed by this much, radians (10 degrees): people differ, and so do the rest poses of their skeletons."""
_LIMITS: dict[str, tuple[tuple[float, float, float], tuple[float, float, float]]] = {
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
"""Least and greatest (x, y, z) of `swing_and_twist` for joints of the left or the middle, radians.

+x bends knees and spine and points the toes, -x lifts thighs and toes; -y bends elbows and leads arms forward; +z leads
legs and arms out and up. The order of magnitude is that of the ranges of motion of the American Academy of Orthopaedic
Surgeons ("Joint Motion: Method of Measuring and Recording", 1965: knee 0 to 135 degrees, elbow 0 to 150, hip 120 of flexion
and 30 of extension, ...), which were measured joint by joint on the bones. Where skeletons divide a movement otherwise
(forearm rotation between elbow and wrist, hinges that lie askew in a T-pose, dancers' hips) the limit is what whole
collections of motion capture keep, so that only what no healthy joint does lies beyond it.
"""
_AXES = {"shoulder": 0, "elbow": 0, "wrist": 0, "hand": 0, "collar": 0}
"""Joint -> the axis of the T-pose along which its bone lies (0: X, sideways); all others lie along Y."""


def beyond_limits(rotations: Float[torch.Tensor, "T 24 3 3"]) -> Float[np.ndarray, "T 23"]:
    """How far each joint below the root is beyond the nearer limit of its worst axis, radians; 0 inside."""
    vectors = swing_and_twist(rotations)
    return np.maximum(np.maximum(_LOW - vectors, vectors - _HIGH), 0).max(-1)


def share_beyond_limits(rotations: Float[torch.Tensor, "T 24 3 3"]) -> float:
    """Share of the frames in which some joint is beyond its limits by more than `MARGIN_RAD`."""
    return float((beyond_limits(rotations) > MARGIN_RAD).any(-1).mean())


def swing_and_twist(rotations: Float[torch.Tensor, "T 24 3 3"]) -> Float[np.ndarray, "T 23 3"]:
    """Joints below the root as rotation vectors (radians, axes of the T-pose) of a swing, with the twist in the place of
    the bone's own axis, where the swing has nothing. Right joints are mirrored to the left.

    rotation = swing * twist: the bone is turned about itself, then led to its direction (Dobrowolski, "Swing-twist
    decomposition in Clifford algebra", 2015).
    """
    quaternions = roma.rotmat_to_unitquat(rotations[:, 1:].double())
    along = torch.zeros(NUM_JOINTS - 1, 3, dtype=torch.float64)
    mirror = torch.ones(NUM_JOINTS - 1, 3, dtype=torch.float64)
    for index, name in enumerate(SMPL_JOINTS[1:]):
        along[index, _AXES.get(name.split("_")[-1], 1)] = 1
        if name.startswith("right_"):
            mirror[index] = torch.tensor([1.0, -1.0, -1.0])
    twist = torch.cat([quaternions[..., :3] * along, quaternions[..., 3:]], -1)
    length = twist.norm(dim=-1, keepdim=True)
    # Half a turn of swing leaves the twist undefined: none, then.
    still = torch.tensor([0.0, 0.0, 0.0, 1.0], dtype=torch.float64)
    twist = torch.where(length > 1e-6, twist / length.clamp(min=1e-6), still)
    swing = roma.quat_product(quaternions, roma.quat_conjugation(twist))
    vectors = roma.unitquat_to_rotvec(swing) * (1 - along) + roma.unitquat_to_rotvec(twist) * along
    return (vectors * mirror).numpy()


def _table(which: int) -> Float[np.ndarray, "23 3"]:
    return np.array([_LIMITS[name.removeprefix("left_").removeprefix("right_")][which] for name in SMPL_JOINTS[1:]])


_LOW, _HIGH = _table(0), _table(1)
