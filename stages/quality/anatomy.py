"""Anatomical plausibility: joint rotations as twist about the bone and swing of the bone, compared with joint limits."""

import numpy as np
import torch
from jaxtyping import Float

from schemas.skeleton import NUM_JOINTS, SMPL_JOINTS
from stages.geometry.joint_limits import JOINT_LIMITS_RAD

MARGIN_RAD = 0.175
"""Tolerance beyond the limits, radians (10 degrees): people differ, and so do the rest poses of their skeletons."""
_BONE_AXES = {"shoulder": 0, "elbow": 0, "wrist": 0, "hand": 0, "collar": 0}
"""Joint -> axis of the T-pose along its bone (0: X, sideways); Y for all others."""


def beyond_limits(rotations: Float[torch.Tensor, "T 24 3 3"]) -> Float[np.ndarray, "T 23"]:
    """Excess of each joint below the root beyond its limits on the worst axis, radians; 0 inside."""
    vectors = swing_and_twist(rotations)
    return np.maximum(np.maximum(_LOW - vectors, vectors - _HIGH), 0).max(-1)


def share_beyond_limits(rotations: Float[torch.Tensor, "T 24 3 3"]) -> float:
    """Share of the frames in which any joint is beyond its limits by more than `MARGIN_RAD`."""
    return float((beyond_limits(rotations) > MARGIN_RAD).any(-1).mean())


def swing_and_twist(rotations: Float[torch.Tensor, "T 24 3 3"]) -> Float[np.ndarray, "T 23 3"]:
    """Joints below the root as rotation vectors (radians, axes of the T-pose) of the swing, with the twist in the component of
    the bone's axis, where the swing is zero. Right joints are mirrored to the left.

    rotation = swing * twist: the bone is rotated about itself, then to its direction (Dobrowolski, "Swing-twist decomposition
    in Clifford algebra", 2015).
    """
    import roma

    quaternions = roma.rotmat_to_unitquat(rotations[:, 1:].double())
    bone_axis = torch.zeros(NUM_JOINTS - 1, 3, dtype=torch.float64)
    mirror = torch.ones(NUM_JOINTS - 1, 3, dtype=torch.float64)
    for index, name in enumerate(SMPL_JOINTS[1:]):
        bone_axis[index, _BONE_AXES.get(name.split("_")[-1], 1)] = 1
        if name.startswith("right_"):
            mirror[index] = torch.tensor([1.0, -1.0, -1.0])
    twist = torch.cat([quaternions[..., :3] * bone_axis, quaternions[..., 3:]], -1)
    length = twist.norm(dim=-1, keepdim=True)
    # The twist is undefined for a swing of 180 degrees: it is set to zero there.
    identity = torch.tensor([0.0, 0.0, 0.0, 1.0], dtype=torch.float64)
    twist = torch.where(length > 1e-6, twist / length.clamp(min=1e-6), identity)
    swing = roma.quat_product(quaternions, roma.quat_conjugation(twist))
    vectors = roma.unitquat_to_rotvec(swing) * (1 - bone_axis) + roma.unitquat_to_rotvec(twist) * bone_axis
    return (vectors * mirror).numpy()


def _table(bound: int) -> Float[np.ndarray, "23 3"]:
    return np.array(
        [JOINT_LIMITS_RAD[name.removeprefix("left_").removeprefix("right_")][bound] for name in SMPL_JOINTS[1:]]
    )


_LOW, _HIGH = _table(0), _table(1)
