"""A neutral pose for parts that nobody saw: arms that hang, legs that stand straight below the pelvis."""

import numpy as np
import torch
from jaxtyping import Bool, Float, UInt8
from scipy.ndimage import distance_transform_edt
from torch import Tensor

from schemas.coverage import PART_NAMES
from schemas.rotations import axis_angle_to_matrix, matrix_to_axis_angle
from schemas.skeleton import NUM_JOINTS, joint

BLEND_FRAMES = 8
"""Frames within an unseen span over which the pose fades from the recovered one to the neutral one, and back."""
_HANGING_RAD, _ELBOW_RAD = 1.25, 0.2
"""Rotation of the upper arms down from the T-pose, and the flexion of the elbows."""
_MOVED = {"arm": ("collar", "shoulder", "elbow", "wrist", "hand"), "leg": ("hip", "knee", "ankle", "foot")}
"""Joints whose rotations are replaced; the trunk always keeps its own, as everything hangs on it."""


def _neutral() -> Float[np.ndarray, "24 3"]:
    pose = np.zeros((NUM_JOINTS, 3), np.float32)
    for side, sign in (("left", 1.0), ("right", -1.0)):
        pose[joint(f"{side}_shoulder")] = 0, 0, -sign * _HANGING_RAD
        pose[joint(f"{side}_elbow")] = 0, -sign * _ELBOW_RAD, 0
    return pose


NEUTRAL = _neutral()
"""Axis-angle of every joint, for a body whose zero pose is a T-pose."""


def with_neutral_parts(
    rotations: Float[Tensor, "T 24 3 3"], seen: UInt8[np.ndarray, "T 5"]
) -> Float[Tensor, "T 24 3 3"]:
    """The motion with the neutral pose for unseen limbs. Frames in which a limb is seen stay as they are."""
    result = rotations.clone()
    for column, part in enumerate(PART_NAMES):
        hidden = seen[:, column] == 0
        if part == "torso" or not hidden.any():
            continue
        side, limb = part.split("_")
        joints = [joint(f"{side}_{name}") for name in _MOVED[limb]]
        target = axis_angle_to_matrix(torch.from_numpy(NEUTRAL[joints])).to(rotations)
        share = torch.from_numpy(_share(hidden)).to(rotations)[:, None, None]
        turn = matrix_to_axis_angle(rotations[:, joints].mT @ target)
        result[:, joints] = torch.where(
            torch.from_numpy(hidden)[:, None, None, None],
            rotations[:, joints] @ axis_angle_to_matrix(turn * share),
            rotations[:, joints],
        )
    return result


def _share(hidden: Bool[np.ndarray, "T"]) -> Float[np.ndarray, "T"]:
    """Share of the neutral pose in each frame: 0 where seen, rising to 1 at `BLEND_FRAMES` from the nearest seen frame."""
    if hidden.all():
        return np.ones(len(hidden), np.float32)
    ramp = np.minimum(distance_transform_edt(hidden) / BLEND_FRAMES, 1.0)
    return (ramp * ramp * (3 - 2 * ramp)).astype(np.float32)
