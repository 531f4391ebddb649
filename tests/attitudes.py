"""Motions of bodies that turn upside down, lie or spin."""

import math

import torch
from torch import Tensor

from schemas.rotations import axis_angle_to_matrix


def turned(
    axis: tuple[float, float, float], degrees: list[float], frames: int = 90, seed: int = 0
) -> tuple[Tensor, Tensor]:
    """A body with moving limbs whose pelvis turns about an axis through the given angles, and wanders."""
    torch.manual_seed(seed)
    rotations = axis_angle_to_matrix(torch.cumsum(torch.randn(frames, 24, 3) * 0.02, 0))
    knots = torch.tensor(degrees) * math.pi / 180
    position = torch.linspace(0, len(degrees) - 1, frames)
    low = position.long().clamp(max=len(degrees) - 2)
    angles = knots[low] + (knots[low + 1] - knots[low]) * (position - low)
    rotations[:, 0] = rotations[:, 0] @ axis_angle_to_matrix(torch.tensor(axis) * angles[:, None])
    return rotations, torch.cumsum(torch.randn(frames, 3) * 0.01, 0) + torch.tensor([0.0, 0.8, 0.0])


ATTITUDES = {
    "cartwheel": turned((0.0, 0.0, 1.0), [0, 90, 180, 270, 360]),
    "cartwheel into a handstand": turned((0.0, 0.0, 1.0), [0, 180, 178, 182, 180]),
    "handstand": turned((1.0, 0.0, 0.0), [0, 170, 180, 190, 180]),
    "roll": turned((1.0, 0.0, 0.0), [0, 120, 240, 360]),
    "side-lying": turned((0.0, 0.0, 1.0), [90, 92, 88, 90]),
    "falls to the side": turned((0.0, 0.0, 1.0), [0, 0, 88, 91]),
    "pirouette": turned((0.0, 1.0, 0.0), [0, 900]),
}
