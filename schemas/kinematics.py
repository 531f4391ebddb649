"""Forward kinematics on SMPL-24, batched over any leading dimensions."""

import torch
from jaxtyping import Float
from torch import Tensor

from schemas.rotations import heading_rad, yaw_matrix
from schemas.skeleton import SMPL_PARENTS

_LEVELS = (
    (1, 2, 3), (4, 5, 6), (7, 8, 9), (10, 11, 12, 13, 14), (15, 16, 17), (18, 19), (20, 21), (22, 23),
)  # fmt: skip
"""Joints by distance from the root: a level is computed at once."""


def forward_kinematics(
    rotations: Float[Tensor, "*B 24 3 3"], rest_joints: Float[Tensor, "*#B 24 3"], trans: Float[Tensor, "*B 3"]
) -> tuple[Float[Tensor, "*B 24 3"], Float[Tensor, "*B 24 3 3"]]:
    """Joint positions (metres) and global rotations.

    `rotations` are local, the root's being its orientation in the world. `rest_joints` are those of the body in its
    zero pose; the pelvis lands on rest_joints[pelvis] + trans, as in SMPL (Loper et al. 2015, equation 4).
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
        here = list(level)
        moved = parent_position + (parent_rotation @ offsets[..., here, :, None])[..., 0]
        turned = parent_rotation @ rotations[..., here, :, :]
        for slot, j in enumerate(level):
            position[j], rotation[j] = moved[..., slot, :], turned[..., slot, :, :]
    return torch.stack(position, dim=-2), torch.stack(rotation, dim=-3)


def start_at_origin(
    rotations: Float[Tensor, "T 24 3 3"],
    trans: Float[Tensor, "T 3"],
    pelvis_at_rest: Float[Tensor, "3"],
    ground_m: float = 0.0,
) -> tuple[Float[Tensor, "T 24 3 3"], Float[Tensor, "T 3"], Float[Tensor, "4 4"]]:
    """A motion in a world of its own: its first frame at x = z = 0 facing +Z, the ground, at height `ground_m` before, at
    y = 0. The 4x4 takes points of the new world back to the old one.
    """
    turn_back = yaw_matrix(heading_rad(rotations[0, 0]))
    # The rest pose's pelvis does not turn with the world: it is added before and taken off after.
    pelvis = trans + pelvis_at_rest
    origin = torch.stack([pelvis[0, 0], pelvis.new_tensor(ground_m), pelvis[0, 2]])
    turned = rotations.clone()
    turned[:, 0] = turn_back.T @ rotations[:, 0]
    back = torch.eye(4, dtype=trans.dtype)
    back[:3, :3], back[:3, 3] = turn_back, origin
    return turned, (pelvis - origin) @ turn_back - pelvis_at_rest, back
