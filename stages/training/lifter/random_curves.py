"""Batched random numbers: uniform, normal and Bernoulli draws, smooth curves over time, and spans of frames."""

import math

import torch
from jaxtyping import Bool, Float
from torch import Tensor


def uniform(low: float, high: float, shape: tuple[int, ...], generator: torch.Generator) -> Float[Tensor, "..."]:
    """Uniform between low and high."""
    return low + (high - low) * torch.rand(*shape, generator=generator, device=generator.device)


def normal(shape: tuple[int, ...], generator: torch.Generator) -> Float[Tensor, "..."]:
    """Standard normal."""
    return torch.randn(*shape, generator=generator, device=generator.device)


def bernoulli(probability: float, shape: tuple[int, ...], generator: torch.Generator) -> Bool[Tensor, "..."]:
    """True with the given probability."""
    return torch.rand(*shape, generator=generator, device=generator.device) < probability


def smooth_curves(
    shape: tuple[int, ...], frames: int, waves: int, generator: torch.Generator
) -> Float[Tensor, "... T"]:
    """Random curves over time: sums of cosines of up to `waves` half periods whose amplitudes fall with frequency; mean 0,
    standard deviation about 1."""
    t = (torch.arange(frames, device=generator.device) + 0.5) / frames
    k = torch.arange(waves + 1, device=generator.device)
    amplitude = 1 / (1 + 0.5 * k)
    basis = torch.cos(math.pi * k[:, None] * t) * amplitude[:, None]
    # The mean square of a cosine is a half, that of the constant is one.
    energy = (amplitude**2).sum() / 2 + 0.5
    return normal((*shape, waves + 1), generator) @ (basis / energy.sqrt())


def spans(
    probability: float, shape: tuple[int, ...], frames: int, lengths: tuple[int, int], generator: torch.Generator
) -> Bool[Tensor, "... T"]:
    """With the given probability one span of frames, its length uniform between the two given."""
    length = uniform(float(lengths[0]), float(lengths[1] + 1), (*shape, 1), generator).floor()
    start = (uniform(0.0, 1.0, (*shape, 1), generator) * (frames + length) - length).floor()
    t = torch.arange(frames, device=generator.device)
    return bernoulli(probability, (*shape, 1), generator) & (t >= start) & (t < start + length)
