"""Noise model of a keypoint detector: offsets on the body, slow errors, jitter, occluded faces, hard stretches, swapped
limbs, dropouts, the image border.

Amounts follow YOLO11n-pose on plain rendered videos: its hips and shoulders lie some 2 cm off in the body, errors drift slowly
(1% of the box's side) with little jitter (0.4%), and eyes and ears lose confidence when the head turns away, while shoulders
and hips keep theirs. In furnished scenes its errors are larger and depend on the pose: those are sampled from a learned model
(`stages.training.lifter.detector_errors`).
"""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from schemas.skeleton import COCO_KEYPOINTS, keypoint
from stages.training.lifter.random_curves import bernoulli, normal, smooth_curves, spans, uniform

_SPREAD = {
    "nose": 0.003, "eye": 0.003, "ear": 0.006, "shoulder": 0.008, "elbow": 0.010, "wrist": 0.010, "hip": 0.010,
    "knee": 0.011, "ankle": 0.013,
}  # fmt: skip
"""Scale of the error of a clearly visible keypoint, box sides."""
_OFFSET_M = {
    "nose": 0.008, "eye": 0.008, "ear": 0.014, "shoulder": 0.020, "elbow": 0.014, "wrist": 0.014, "hip": 0.025,
    "knee": 0.016, "ankle": 0.018,
}  # fmt: skip
"""Standard deviation of the offset between a detector's keypoint and the body model's, in each of the pelvis' axes."""
_MEAN_OFFSET_UP_M = {"hip": 0.012, "ankle": -0.008}
"""Mean of that offset, upwards."""
_OUTWARD = {
    "nose": (0.0, 0.0, 1.0), "left_eye": (0.45, 0.0, 0.9), "right_eye": (-0.45, 0.0, 0.9), "left_ear": (0.97, 0.0, 0.25),
    "right_ear": (-0.97, 0.0, 0.25),
}  # fmt: skip
"""Outward normal of the skin at the keypoint, in the head's axes."""
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
    """Frequency and strength of the noise; shares are of windows (per limb where limbs are meant)."""

    strength: float = 1.0
    """Factor on all position errors; 0: exact keypoints, with confidence near one and none missing."""
    clean: float = 0.3
    """Windows without any degradation."""
    hard: float = 0.12
    """Limbs with large errors and low confidence for a while."""
    swap: float = 0.05
    """Pairs of limbs with left and right swapped for a moment."""
    drop: float = 0.06
    """Limbs that are missing for a while."""
    legs_missing: float = 0.05
    """Windows without knees and ankles."""


@dataclass(frozen=True)
class DetectorOutput:
    """Detections sampled from learned errors, and the windows that use them."""

    rays: Float[Tensor, "N T 17 2"]
    confidence: Float[Tensor, "N T 17"]
    depths: Float[Tensor, "N T 17 3"]
    """As in `Observation`."""
    windows: Bool[Tensor, "N"]


def draw_strength(count: int, amounts: NoiseAmounts, generator: torch.Generator) -> Float[Tensor, "N"]:
    """Noise strength of each window: 0 for the clean ones, about `amounts.strength` for the rest."""
    degraded = (~bernoulli(amounts.clean, (count,), generator)).float() * amounts.strength
    return (0.45 * normal((count,), generator) - 0.1).exp() * degraded


def keypoint_offsets(strength: Float[Tensor, "N"], generator: torch.Generator) -> Float[Tensor, "N 1 17 3"]:
    """Offsets of keypoints on the body, metres, in the pelvis' axes; constant throughout a window."""
    names = [name.split("_")[-1] for name in COCO_KEYPOINTS]
    spread = torch.tensor([_OFFSET_M[name] for name in names], device=generator.device)
    offsets = normal((len(strength), 1, 17, 3), generator) * spread[:, None]
    offsets[..., 1] += torch.tensor([_MEAN_OFFSET_UP_M.get(name, 0.0) for name in names], device=generator.device)
    return offsets * strength.clamp(max=1.5)[:, None, None, None]


def facing_cosine(head: Float[Tensor, "N T 3 3"], eye_direction: Float[Tensor, "N T 3"]) -> Float[Tensor, "N T 17"]:
    """Cosine between the outward normal of each keypoint of the face and the direction to the camera; 1 for other keypoints.

    `head` is the head's orientation in the axes of `eye_direction`, the direction to the camera.
    """
    outward = torch.zeros(17, 3, device=head.device)
    for name, direction in _OUTWARD.items():
        outward[keypoint(name)] = torch.tensor(direction, device=head.device)
    facing = torch.einsum("ntij,kj,nti->ntk", head, outward, eye_direction)
    return torch.where((outward == 0).all(-1), 1.0, facing)


def _keypoint_tables() -> tuple[Tensor, Tensor, Tensor]:
    """Error scale per keypoint (17), masks of the limbs (10, 17), permutations that swap sides (4, 17)."""
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
    facing: Float[Tensor, "N T 17"],
    strength: Float[Tensor, "N"],
    amounts: NoiseAmounts,
    generator: torch.Generator,
    learned: DetectorOutput | None = None,
) -> tuple[Float[Tensor, "N T 17 2"], Float[Tensor, "N T 17"], Float[Tensor, "N T 17 3"]]:
    """Rays, confidence and depths of a simulated detector, from true rays, box sizes, half the image in rays,
    `facing_cosine` and `draw_strength`; the windows of `learned`, where given, use its errors."""
    n, frames = size.shape
    spread, limbs, swaps = (table.to(rays.device) for table in _keypoint_tables())
    degraded = strength > 0

    def on_limbs(share: float, lengths: tuple[int, int]) -> Bool[Tensor, "N T 17"]:
        mask = spans(share, (n, len(_LIMBS)), frames, lengths, generator) & degraded[:, None, None]
        return torch.einsum("nlt,lk->ntk", mask.to(limbs), limbs) > 0

    constant = normal((n, 1, 17, 2), generator)
    slow = smooth_curves((n, 17, 2), frames, 12, generator).permute(0, 3, 1, 2)
    # Heavy tails: a few frames have three times the error.
    jitter = normal((n, frames, 17, 2), generator) * (1 + 2 * bernoulli(0.04, (n, frames, 17, 1), generator))
    error = 0.5 * constant + 0.9 * slow + 0.4 * jitter
    hard = on_limbs(amounts.hard, (3, 40))
    wander = smooth_curves((n, 17, 2), frames, 8, generator).permute(0, 3, 1, 2)
    # Other sources of keypoints (projections, say) have full confidence everywhere: so do some of the clean windows.
    informative = degraded | bernoulli(0.5, (n,), generator)
    hidden = ((0.1 - facing) / 0.12).sigmoid() * informative[:, None, None]
    error = error * spread[:, None] * (1 + hidden[..., None]) + hard[..., None] * wander * uniform(
        0.02, 0.09, (n, 1, 17, 1), generator
    )
    error = error * strength[:, None, None, None]
    noisy = rays + error * size[..., None, None]

    distance = error.norm(dim=-1)
    confidence = 0.99 - uniform(0.2, 2.5, (n, 1, 17), generator) * distance
    confidence = confidence - 0.015 * normal((n, frames, 17), generator).abs()
    confidence = confidence - hard * uniform(0.05, 0.65, (n, 1, 17), generator)
    # An eye on the far side is placed correctly but with low confidence, which reveals where people face.
    confidence = confidence * (1 - hidden * uniform(0.5, 1.0, (n, 1, 17), generator))
    confidence = confidence.clamp(0.01, 1)
    depths = torch.zeros_like(noisy[..., :1]).expand(-1, -1, -1, 3)
    if learned is not None:
        replaced = learned.windows & degraded
        noisy = torch.where(replaced[:, None, None, None], learned.rays, noisy)
        confidence = torch.where(replaced[:, None, None], learned.confidence, confidence)
        depths = torch.where(replaced[:, None, None, None], learned.depths, depths)

    order = torch.arange(17, device=rays.device).expand(n, frames, 17)
    swapped = spans(amounts.swap, (n, len(_PAIRS)), frames, (1, 14), generator) & degraded[:, None, None]
    for row, mask in zip(swaps, swapped.unbind(1), strict=True):
        order = torch.where(mask[..., None], row[order], order)
    noisy = noisy.gather(2, order[..., None].expand(-1, -1, -1, 2))
    depths = depths.gather(2, order[..., None].expand(-1, -1, -1, 3))
    swap_factor = torch.where(
        order != torch.arange(17, device=rays.device), uniform(0.5, 1.0, (n, 1, 1), generator), 1.0
    )
    confidence = confidence.gather(2, order) * swap_factor

    half_view = torch.where(degraded[:, None], half_view, torch.inf)[:, None, None]
    outside = (noisy.abs() > half_view).any(-1)
    noisy = torch.maximum(torch.minimum(noisy, half_view), -half_view)
    confidence = torch.where(outside, confidence * uniform(0.0, 0.3, (n, frames, 17), generator), confidence)

    missing = on_limbs(amounts.drop, (1, 45))
    missing |= bernoulli(0.004, (n, frames, 17), generator) & degraded[:, None, None]
    missing |= (spans(0.05, (n,), frames, (1, 6), generator) & degraded[:, None])[..., None]
    no_legs = bernoulli(amounts.legs_missing, (n,), generator) & degraded
    missing |= no_legs[:, None, None] & (limbs[2] + limbs[3] > 0)
    # A detector still reports a position for a keypoint that it does not see, at hardly any confidence.
    confidence = torch.where(missing, confidence * bernoulli(0.5, (n, 1, 17), generator) * 0.15, confidence)
    return noisy, confidence, depths
