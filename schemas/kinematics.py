"""Forward kinematics on SMPL-24, batched over any leading dimensions."""

import torch
from jaxtyping import Float
from torch import Tensor

from schemas.rotations import heading_rad, yaw_matrix
from schemas.skeleton import SMPL_PARENTS

_LEVELS = (
    (1, 2, 3), (4, 5, 6), (7, 8, 9), (10, 11, 12, 13, 14), (15, 16, 17), (18, 19), (20, 21), (22, 23),
)  # fmt: skip
"""Joints by depth in the tree; the joints of a level are computed together."""


def forward_kinematics(
    rotations: Float[Tensor, "*B 24 3 3"], rest_joints: Float[Tensor, "*#B 24 3"], trans: Float[Tensor, "*B 3"]
) -> tuple[Float[Tensor, "*B 24 3"], Float[Tensor, "*B 24 3 3"]]:
    """Joint positions (metres) and global rotations.

    `rotations` are local; the root's is its orientation in the world. `rest_joints` are the joints of the body in its zero
    pose; the pelvis is at rest_joints[pelvis] + trans, as in SMPL (Loper et al. 2015, equation 4).
    """
    offsets = rest_joints.clone()
    offsets[..., 1:, :] = rest_joints[..., 1:, :] - rest_joints[..., SMPL_PARENTS[1:], :]
    offsets = offsets.expand(*rotations.shape[:-2], 3)
    position: list[Tensor] = [offsets[..., 0, :] + trans] + [trans] * 23
    rotation: list[Tensor] = [rotations[..., 0, :, :]] * 24
    for level in _LEVELS:
        parents = [SMPL_PARENTS[j] for j in level]
        parent_rotation = torch.stack([rotation[p] for p in parents], dim=-3)
        parent_position = torch.stack([position[p] for p in parents], dim=-2)
        joints = list(level)
        level_position = parent_position + (parent_rotation @ offsets[..., joints, :, None])[..., 0]
        level_rotation = parent_rotation @ rotations[..., joints, :, :]
        for index, j in enumerate(level):
            position[j], rotation[j] = level_position[..., index, :], level_rotation[..., index, :, :]
    return torch.stack(position, dim=-2), torch.stack(rotation, dim=-3)


def start_at_origin(
    rotations: Float[Tensor, "T 24 3 3"],
    trans: Float[Tensor, "T 3"],
    pelvis_at_rest: Float[Tensor, "3"],
    ground_m: float = 0.0,
) -> tuple[Float[Tensor, "T 24 3 3"], Float[Tensor, "T 3"], Float[Tensor, "4 4"]]:
    """Move a motion to its canonical world: first frame at x = z = 0 facing +Z, the ground (at height `ground_m` in the input)
    at y = 0. The returned 4x4 maps points of the canonical world back to the input world.
    """
    yaw = yaw_matrix(heading_rad(rotations[0, 0]))
    # `trans` excludes the rest pose's pelvis, which does not rotate with the world: add it before, subtract it afterwards.
    pelvis = trans + pelvis_at_rest
    origin = torch.stack([pelvis[0, 0], pelvis.new_tensor(ground_m), pelvis[0, 2]])
    canonical = rotations.clone()
    canonical[:, 0] = yaw.T @ rotations[:, 0]
    to_input = torch.eye(4, dtype=trans.dtype)
    to_input[:3, :3], to_input[:3, 3] = yaw, origin
    return canonical, (pelvis - origin) @ yaw - pelvis_at_rest, to_input
