"""Rotations in torch: axis-angle on disk, matrices or 6D in memory. A thin layer over `roma`, which is imported at the first
rotation: it loads torch's compiler, which takes as long as torch itself.

6D is the first two *columns* of the matrix, flattened column after column: [m00, m10, m20, m01, m11, m21]
(Zhou et al., "On the Continuity of Rotation Representations in Neural Networks", 2019).
"""

import torch
from jaxtyping import Float
from torch import Tensor

_OPPOSITE = 1e-4
"""Unit vectors whose sum is shorter count as opposite."""


def axis_angle_to_matrix(axis_angle: Float[Tensor, "*B 3"]) -> Float[Tensor, "*B 3 3"]:
    """Rotation vectors (radians) to matrices."""
    import roma

    return roma.rotvec_to_rotmat(axis_angle)


def matrix_to_axis_angle(matrix: Float[Tensor, "*B 3 3"]) -> Float[Tensor, "*B 3"]:
    """Matrices to rotation vectors of length <= pi."""
    import roma

    return roma.rotmat_to_rotvec(matrix)


def matrix_to_6d(matrix: Float[Tensor, "*B 3 3"]) -> Float[Tensor, "*B 6"]:
    """The first two columns, one after the other."""
    return matrix[..., :2].transpose(-1, -2).flatten(-2)


def matrix_from_6d(six: Float[Tensor, "*B 6"]) -> Float[Tensor, "*B 3 3"]:
    """Gram-Schmidt on the two columns."""
    import roma

    return roma.special_gramschmidt(six.unflatten(-1, (2, 3)).transpose(-1, -2))


def yaw_matrix(yaw_rad: Float[Tensor, "*B"]) -> Float[Tensor, "*B 3 3"]:
    """Rotation about +Y (up); positive yaw rotates +Z towards +X, the person's left."""
    c, s, zero, one = torch.cos(yaw_rad), torch.sin(yaw_rad), torch.zeros_like(yaw_rad), torch.ones_like(yaw_rad)
    rows = torch.stack([c, zero, s, zero, one, zero, -s, zero, c], dim=-1)
    return rows.unflatten(-1, (3, 3))


def heading_rad(root: Float[Tensor, "*B 3 3"]) -> Float[Tensor, "*B"]:
    """Yaw of a pelvis orientation.

    It is the angle of the body's left axis (+X of the pelvis) projected on the ground. Unlike the facing direction it stays
    defined when a person bends, lies or somersaults; upside down it still gives the side of the body's front.
    """
    left = root[..., :, 0]
    return torch.atan2(-left[..., 2], left[..., 0])


def shortest_rotation(start: Float[Tensor, "*B 3"], end: Float[Tensor, "*B 3"]) -> Float[Tensor, "*B 3 3"]:
    """The rotation by the smallest angle that maps the direction of `start` to that of `end`.

    Opposite directions have many such rotations; one of them is returned. A zero vector gives the identity.
    """
    import roma

    start, end = torch.nn.functional.normalize(start, dim=-1), torch.nn.functional.normalize(end, dim=-1)
    # The quaternion of twice the angle is (sine times axis, cosine); halfway between it and the identity lies the result.
    quaternion = torch.cat([torch.linalg.cross(start, end), 1 + (start * end).sum(-1, keepdim=True)], dim=-1)
    smallest = torch.nn.functional.one_hot(start.abs().argmin(-1), 3).to(start)
    perpendicular = torch.nn.functional.pad(torch.linalg.cross(start, smallest), (0, 1))
    opposite = quaternion.norm(dim=-1, keepdim=True) < _OPPOSITE
    return roma.unitquat_to_rotmat(
        torch.nn.functional.normalize(torch.where(opposite, perpendicular, quaternion), dim=-1)
    )


def slerp_resample(
    matrices: Float[Tensor, "T J 3 3"], source_times: Float[Tensor, "T"], times: Float[Tensor, "N"]
) -> Float[Tensor, "N J 3 3"]:
    """Rotations at other times (seconds), by spherical interpolation; times outside the range are clamped."""
    if len(source_times) == 1:
        return matrices.expand(len(times), *matrices.shape[1:]).clone()
    right = torch.searchsorted(source_times, times).clamp(1, len(source_times) - 1)
    t0, t1 = source_times[right - 1], source_times[right]
    weight = ((times - t0) / (t1 - t0)).clamp(0, 1).to(matrices.dtype)
    step = matrix_to_axis_angle(matrices[right - 1].transpose(-1, -2) @ matrices[right])
    return matrices[right - 1] @ axis_angle_to_matrix(step * weight[:, None, None])
