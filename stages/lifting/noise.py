"""What a keypoint detector does to the truth: bias, jitter, hard stretches, exchanged limbs, drop-outs, the picture's edge.

Amounts are shares of the box's side. They follow what YOLO11n-pose does on the studio's films.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from schemas.skeleton import COCO_KEYPOINTS, keypoint
from stages.lifting.draw import chance, normal, smooth_curves, spans, uniform

_SPREAD = {
    "nose": 0.007, "eye": 0.007, "ear": 0.009, "shoulder": 0.010, "elbow": 0.011, "wrist": 0.013, "hip": 0.014,
    "knee": 0.012, "ankle": 0.013,
}  # fmt: skip
"""Typical error of a keypoint that is seen well."""
_LIMBS = (
    ("left_elbow", "left_wrist"), ("right_elbow", "right_wrist"), ("left_knee", "left_ankle"),
    ("right_knee", "right_ankle"), ("left_wrist",), ("right_wrist",), ("left_ankle",), ("right_ankle",),
    ("nose", "left_eye", "right_eye", "left_ear", "right_ear"), ("left_hip", "right_hip"),
)  # fmt: skip
_PAIRS = (
    ("elbow", "wrist"),
    ("knee", "ankle"),
    ("hip", "knee", "ankle"),
    ("shoulder", "elbow", "wrist", "hip", "knee", "ankle"),
)


@dataclass(frozen=True)
class NoiseAmounts:
    """How often and how much; shares are of windows (a limb each where limbs are meant)."""

    strength: float = 1.0
    """Factor on all errors of place; 0 leaves the truth, with confidence near one and nothing missing."""
    clean: float = 0.15
    """Windows in which nothing is degraded."""
    hard: float = 0.12
    """Limbs that are hard to see for a while: large errors, low confidence."""
    swap: float = 0.05
    """Pairs of limbs whose sides are exchanged for a moment."""
    drop: float = 0.06
    """Limbs that are missing for a while."""
    legs_missing: float = 0.05
    """Windows without knees and ankles."""


def _rows() -> tuple[Tensor, Tensor, Tensor]:
    spread = torch.tensor([_SPREAD[name.split("_")[-1]] for name in COCO_KEYPOINTS])
    limbs = torch.zeros(len(_LIMBS), 17)
    for row, names in zip(limbs, _LIMBS, strict=True):
        row[[keypoint(name) for name in names]] = 1
    swaps = torch.arange(17).repeat(len(_PAIRS), 1)
    for row, names in zip(swaps, _PAIRS, strict=True):
        for name in names:
            left, right = keypoint(f"left_{name}"), keypoint(f"right_{name}")
            row[left], row[right] = right, left
    return spread, limbs, swaps


def degrade(
    rays: Float[Tensor, "N T 17 2"],
    size: Float[Tensor, "N T"],
    half_view: Float[Tensor, "N 2"],
    amounts: NoiseAmounts,
    generator: torch.Generator,
) -> tuple[Float[Tensor, "N T 17 2"], Float[Tensor, "N T 17"]]:
    """Rays and confidence as a detector would give them, from true rays, box sizes and half the picture in rays."""
    n, frames = size.shape
    spread, limbs, swaps = (rows.to(rays.device) for rows in _rows())
    dirty = (~chance(amounts.clean, (n,), generator)).float() * amounts.strength
    strength = (0.45 * normal((n,), generator) - 0.1).exp() * dirty

    def on_limbs(share: float, lengths: tuple[int, int]) -> Bool[Tensor, "N T 17"]:
        mask = spans(share, (n, len(_LIMBS)), frames, lengths, generator) & (dirty > 0)[:, None, None]
        return torch.einsum("nlt,lk->ntk", mask.to(limbs), limbs) > 0

    constant = normal((n, 1, 17, 2), generator)
    slow = smooth_curves((n, 17, 2), frames, 12, generator).permute(0, 3, 1, 2)
    # Heavy tails: now and then a frame is off by three times as much.
    jitter = normal((n, frames, 17, 2), generator) * (1 + 2 * chance(0.04, (n, frames, 17, 1), generator))
    error = 0.55 * constant + 0.65 * slow + 0.45 * jitter
    hard = on_limbs(amounts.hard, (3, 40))
    wander = smooth_curves((n, 17, 2), frames, 8, generator).permute(0, 3, 1, 2)
    error = error * spread[:, None] + hard[..., None] * wander * uniform(0.02, 0.09, (n, 1, 17, 1), generator)
    error = error * strength[:, None, None, None]
    seen = rays + error * size[..., None, None]

    off = error.norm(dim=-1)
    certainty = 0.985 - uniform(0.5, 3.5, (n, 1, 17), generator) * off - 0.02 * normal((n, frames, 17), generator).abs()
    certainty = certainty - hard * dirty[:, None, None].clamp(max=1) * uniform(0.05, 0.65, (n, 1, 17), generator)
    certainty = certainty.clamp(0.05, 1)

    order = torch.arange(17, device=rays.device).expand(n, frames, 17)
    exchanged = spans(amounts.swap, (n, len(_PAIRS)), frames, (1, 14), generator) & (dirty > 0)[:, None, None]
    for row, mask in zip(swaps, exchanged.unbind(1), strict=True):
        order = torch.where(mask[..., None], row[order], order)
    seen = seen.gather(2, order[..., None].expand(-1, -1, -1, 2))
    doubt = torch.where(order != torch.arange(17, device=rays.device), uniform(0.5, 1, (n, 1, 1), generator), 1.0)
    certainty = certainty.gather(2, order) * doubt

    half_view = torch.where(dirty[:, None] > 0, half_view, torch.inf)[:, None, None]
    outside = (seen.abs() > half_view).any(-1)
    seen = torch.maximum(torch.minimum(seen, half_view), -half_view)
    certainty = torch.where(outside, certainty * uniform(0.0, 0.3, (n, frames, 17), generator), certainty)

    gone = on_limbs(amounts.drop, (1, 45))
    gone |= chance(0.004, (n, frames, 17), generator) & (dirty > 0)[:, None, None]
    gone |= (spans(0.05, (n,), frames, (1, 6), generator) & (dirty > 0)[:, None])[..., None]
    no_legs = chance(amounts.legs_missing, (n,), generator) & (dirty > 0)
    gone |= no_legs[:, None, None] & (limbs[2] + limbs[3] > 0)
    # A detector still says something about what it does not see, at no confidence.
    certainty = torch.where(gone, certainty * chance(0.5, (n, 1, 17), generator) * 0.15, certainty)
    return seen, certainty
