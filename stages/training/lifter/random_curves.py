"""Random numbers in batches: uniform ones, smooth curves over time, and spans of frames."""

import math

import torch
from jaxtyping import Bool, Float
from torch import Tensor


def uniform(low: float, high: float, shape: tuple[int, ...], generator: torch.Generator) -> Float[Tensor, "..."]:
    """Evenly between low and high."""
    return low + (high - low) * torch.rand(*shape, generator=generator, device=generator.device)


def normal(shape: tuple[int, ...], generator: torch.Generator) -> Float[Tensor, "..."]:
    """Of mean 0 and deviation 1."""
    return torch.randn(*shape, generator=generator, device=generator.device)


def chance(share: float, shape: tuple[int, ...], generator: torch.Generator) -> Bool[Tensor, "..."]:
    """True for a share of the places."""
    return torch.rand(*shape, generator=generator, device=generator.device) < share


def smooth_curves(
    shape: tuple[int, ...], frames: int, waves: int, generator: torch.Generator
) -> Float[Tensor, "... T"]:
    """Curves over time: cosines of up to `waves` half periods, the lower the stronger; mean 0, deviation about 1."""
    t = (torch.arange(frames, device=generator.device) + 0.5) / frames
    k = torch.arange(waves + 1, device=generator.device)
    falling = 1 / (1 + 0.5 * k)
    basis = torch.cos(math.pi * k[:, None] * t) * falling[:, None]
    # Cosines have a mean square of a half, the constant of one.
    energy = (falling**2).sum() / 2 + 0.5
    return normal((*shape, waves + 1), generator) @ (basis / energy.sqrt())


def spans(
    share: float, shape: tuple[int, ...], frames: int, lengths: tuple[int, int], generator: torch.Generator
) -> Bool[Tensor, "... T"]:
    """For a share of the places one span of frames, its length evenly between the two given."""
    length = uniform(float(lengths[0]), float(lengths[1] + 1), (*shape, 1), generator).floor()
    start = (uniform(0.0, 1.0, (*shape, 1), generator) * (frames + length) - length).floor()
    t = torch.arange(frames, device=generator.device)
    return chance(share, (*shape, 1), generator) & (t >= start) & (t < start + length)
