"""SMPL-24 joints, COCO-17 keypoints and the five parts, by name.

Left and right are the person's own. The joint order is SMPL's; the first 22 joints are those of HumanML3D.
"""

SMPL_JOINTS = (
    "pelvis", "left_hip", "right_hip", "spine1", "left_knee", "right_knee", "spine2", "left_ankle", "right_ankle",
    "spine3", "left_foot", "right_foot", "neck", "left_collar", "right_collar", "head", "left_shoulder",
    "right_shoulder", "left_elbow", "right_elbow", "left_wrist", "right_wrist", "left_hand", "right_hand",
)  # fmt: skip
SMPL_PARENTS = (-1, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 9, 9, 12, 13, 14, 16, 17, 18, 19, 20, 21)
NUM_JOINTS = len(SMPL_JOINTS)

COCO_KEYPOINTS = (
    "nose", "left_eye", "right_eye", "left_ear", "right_ear", "left_shoulder", "right_shoulder", "left_elbow",
    "right_elbow", "left_wrist", "right_wrist", "left_hip", "right_hip", "left_knee", "right_knee", "left_ankle",
    "right_ankle",
)  # fmt: skip
COCO_EDGES = tuple(
    (COCO_KEYPOINTS.index(a), COCO_KEYPOINTS.index(b))
    for a, b in (
        ("left_ankle", "left_knee"), ("left_knee", "left_hip"), ("right_ankle", "right_knee"),
        ("right_knee", "right_hip"), ("left_hip", "right_hip"), ("left_shoulder", "left_hip"),
        ("right_shoulder", "right_hip"), ("left_shoulder", "right_shoulder"), ("left_shoulder", "left_elbow"),
        ("right_shoulder", "right_elbow"), ("left_elbow", "left_wrist"), ("right_elbow", "right_wrist"),
        ("nose", "left_eye"), ("nose", "right_eye"), ("left_eye", "left_ear"), ("right_eye", "right_ear"),
    )
)  # fmt: skip

LANDMARKS = (
    "nose", "left_eye_inner", "left_eye", "left_eye_outer", "right_eye_inner", "right_eye", "right_eye_outer", "left_ear",
    "right_ear", "left_mouth", "right_mouth", "left_shoulder", "right_shoulder", "left_elbow", "right_elbow", "left_wrist",
    "right_wrist", "left_pinky", "right_pinky", "left_index", "right_index", "left_thumb", "right_thumb", "left_hip",
    "right_hip", "left_knee", "right_knee", "left_ankle", "right_ankle", "left_heel", "right_heel", "left_toe", "right_toe",
)  # fmt: skip
"""The 33 landmarks of BlazePose (arXiv 2006.10204)."""
LANDMARK_OF_KEYPOINT = tuple(LANDMARKS.index(name) for name in COCO_KEYPOINTS)
"""For each COCO keypoint its landmark."""

CONTACT_POINTS = ("left_heel", "left_toe", "right_heel", "right_toe")
"""Columns of a contact array (T, 4)."""

PARTS: dict[str, tuple[str, ...]] = {
    "torso": ("pelvis", "spine1", "spine2", "spine3", "neck", "head"),
    "left_arm": ("spine3", "left_collar", "left_shoulder", "left_elbow", "left_wrist"),
    "right_arm": ("spine3", "right_collar", "right_shoulder", "right_elbow", "right_wrist"),
    "left_leg": ("pelvis", "left_hip", "left_knee", "left_ankle", "left_foot"),
    "right_leg": ("pelvis", "right_hip", "right_knee", "right_ankle", "right_foot"),
}
"""Part -> its joints. Neighbouring parts share one joint: arms the upper spine, legs the pelvis (ParCo's split)."""


def joint(name: str) -> int:
    """Index of a joint in SMPL-24."""
    return SMPL_JOINTS.index(name)


def keypoint(name: str) -> int:
    """Index of a keypoint in COCO-17."""
    return COCO_KEYPOINTS.index(name)


def swap_sides(name: str) -> str:
    """`left_knee` -> `right_knee` and back; a name without a side is unchanged."""
    if name.startswith("left_"):
        return "right_" + name[5:]
    if name.startswith("right_"):
        return "left_" + name[6:]
    return name


def mirror_order(names: tuple[str, ...]) -> tuple[int, ...]:
    """For each name the index of its mirrored counterpart, so that `x[:, mirror_order(names)]` swaps the sides."""
    return tuple(names.index(swap_sides(name)) for name in names)
