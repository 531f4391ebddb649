"""What a keypoint detector does to the truth: other places on the body, wandering, jitter, hidden faces, hard stretches,
exchanged limbs, drop-outs, the picture's edge.

Amounts follow what YOLO11n-pose does on plain films of the studio: what it calls a hip or a shoulder lies some 2 cm off in
the body, errors wander slowly (1% of the box's side) and hardly jitter (0.4%), and eyes and ears lose their confidence when
the head turns away, while shoulders and hips keep theirs. In furnished scenes it errs more, and as the pose has it: those
errors are drawn from what was learned of them (`stages.training.lifter.detector_errors`).
"""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from schemas.skeleton import COCO_KEYPOINTS, keypoint
from stages.training.lifter.random_curves import chance, normal, smooth_curves, spans, uniform

_SPREAD = {
    "nose": 0.003, "eye": 0.003, "ear": 0.006, "shoulder": 0.008, "elbow": 0.010, "wrist": 0.010, "hip": 0.010,
    "knee": 0.011, "ankle": 0.013,
}  # fmt: skip
"""How far a keypoint that is seen well wanders, in box sides."""
_OFFSET_M = {
    "nose": 0.008, "eye": 0.008, "ear": 0.014, "shoulder": 0.020, "elbow": 0.014, "wrist": 0.014, "hip": 0.025,
    "knee": 0.016, "ankle": 0.018,
}  # fmt: skip
"""How far the place that a detector calls by a name lies from the body model's, deviation in each of the pelvis' axes."""
_HIGHER_M = {"hip": 0.012, "ankle": -0.008}
"""And where it lies on average, upwards."""
_OUTWARD = {
    "nose": (0.0, 0.0, 1.0), "left_eye": (0.45, 0.0, 0.9), "right_eye": (-0.45, 0.0, 0.9), "left_ear": (0.97, 0.0, 0.25),
    "right_ear": (-0.97, 0.0, 0.25),
}  # fmt: skip
"""Which way the skin faces there, in the head's axes."""
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
    clean: float = 0.3
    """Windows in which nothing is degraded."""
    hard: float = 0.12
    """Limbs that are hard to see for a while: large errors, low confidence."""
    swap: float = 0.05
    """Pairs of limbs whose sides are exchanged for a moment."""
    drop: float = 0.06
    """Limbs that are missing for a while."""
    legs_missing: float = 0.05
    """Windows without knees and ankles."""


@dataclass(frozen=True)
class DetectorOutput:
    """What a detector says by learned errors, and for which windows it is taken."""

    rays: Float[Tensor, "N T 17 2"]
    confidence: Float[Tensor, "N T 17"]
    closeup: Float[Tensor, "N T 17 3"]
    """As in `Observation`."""
    windows: Bool[Tensor, "N"]


def draw_strength(count: int, amounts: NoiseAmounts, generator: torch.Generator) -> Float[Tensor, "N"]:
    """How strongly each window is degraded: 0 for the clean ones, about `amounts.strength` for the others."""
    dirty = (~chance(amounts.clean, (count,), generator)).float() * amounts.strength
    return (0.45 * normal((count,), generator) - 0.1).exp() * dirty


def place_offsets(strength: Float[Tensor, "N"], generator: torch.Generator) -> Float[Tensor, "N 1 17 3"]:
    """Metres by which keypoints lie elsewhere on the body, in the pelvis' axes; the same throughout a window."""
    names = [name.split("_")[-1] for name in COCO_KEYPOINTS]
    spread = torch.tensor([_OFFSET_M[name] for name in names], device=generator.device)
    offsets = normal((len(strength), 1, 17, 3), generator) * spread[:, None]
    offsets[..., 1] += torch.tensor([_HIGHER_M.get(name, 0.0) for name in names], device=generator.device)
    return offsets * strength.clamp(max=1.5)[:, None, None, None]


def face_towards(head: Float[Tensor, "N T 3 3"], eye_direction: Float[Tensor, "N T 3"]) -> Float[Tensor, "N T 17"]:
    """How squarely each keypoint of the face looks at the camera, -1 to 1; 1 elsewhere.

    `head` is the head's orientation in the axes in which `eye_direction` points to the camera.
    """
    outward = torch.zeros(17, 3, device=head.device)
    for name, direction in _OUTWARD.items():
        outward[keypoint(name)] = torch.tensor(direction, device=head.device)
    facing = torch.einsum("ntij,kj,nti->ntk", head, outward, eye_direction)
    return torch.where((outward == 0).all(-1), 1.0, facing)


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
    facing: Float[Tensor, "N T 17"],
    strength: Float[Tensor, "N"],
    amounts: NoiseAmounts,
    generator: torch.Generator,
    learned: DetectorOutput | None = None,
) -> tuple[Float[Tensor, "N T 17 2"], Float[Tensor, "N T 17"], Float[Tensor, "N T 17 3"]]:
    """Rays, confidence and what a closer look tells, as a detector would give them, from true rays, box sizes, half the picture
    in rays, what `face_towards` says and `draw_strength`; in some windows, where they are given, from learned errors."""
    n, frames = size.shape
    spread, limbs, swaps = (rows.to(rays.device) for rows in _rows())
    dirty = strength > 0

    def on_limbs(share: float, lengths: tuple[int, int]) -> Bool[Tensor, "N T 17"]:
        mask = spans(share, (n, len(_LIMBS)), frames, lengths, generator) & dirty[:, None, None]
        return torch.einsum("nlt,lk->ntk", mask.to(limbs), limbs) > 0

    constant = normal((n, 1, 17, 2), generator)
    slow = smooth_curves((n, 17, 2), frames, 12, generator).permute(0, 3, 1, 2)
    # Heavy tails: now and then a frame is off by three times as much.
    jitter = normal((n, frames, 17, 2), generator) * (1 + 2 * chance(0.04, (n, frames, 17, 1), generator))
    error = 0.5 * constant + 0.9 * slow + 0.4 * jitter
    hard = on_limbs(amounts.hard, (3, 40))
    wander = smooth_curves((n, 17, 2), frames, 8, generator).permute(0, 3, 1, 2)
    # Other sources of keypoints (projections, say) are sure of every one: some of the clean windows are like that.
    tells = dirty | chance(0.5, (n,), generator)
    hidden = ((0.1 - facing) / 0.12).sigmoid() * tells[:, None, None]
    error = error * spread[:, None] * (1 + hidden[..., None]) + hard[..., None] * wander * uniform(
        0.02, 0.09, (n, 1, 17, 1), generator
    )
    error = error * strength[:, None, None, None]
    seen = rays + error * size[..., None, None]

    off = error.norm(dim=-1)
    certainty = 0.99 - uniform(0.2, 2.5, (n, 1, 17), generator) * off - 0.015 * normal((n, frames, 17), generator).abs()
    certainty = certainty - hard * uniform(0.05, 0.65, (n, 1, 17), generator)
    # An eye on the far side is guessed rightly but without conviction; this tells where people face.
    certainty = certainty * (1 - hidden * uniform(0.5, 1.0, (n, 1, 17), generator))
    certainty = certainty.clamp(0.01, 1)
    closeup = torch.zeros_like(seen[..., :1]).expand(-1, -1, -1, 3)
    if learned is not None:
        here = learned.windows & dirty
        seen = torch.where(here[:, None, None, None], learned.rays, seen)
        certainty = torch.where(here[:, None, None], learned.confidence, certainty)
        closeup = torch.where(here[:, None, None, None], learned.closeup, closeup)

    order = torch.arange(17, device=rays.device).expand(n, frames, 17)
    exchanged = spans(amounts.swap, (n, len(_PAIRS)), frames, (1, 14), generator) & dirty[:, None, None]
    for row, mask in zip(swaps, exchanged.unbind(1), strict=True):
        order = torch.where(mask[..., None], row[order], order)
    seen = seen.gather(2, order[..., None].expand(-1, -1, -1, 2))
    closeup = closeup.gather(2, order[..., None].expand(-1, -1, -1, 3))
    doubt = torch.where(order != torch.arange(17, device=rays.device), uniform(0.5, 1.0, (n, 1, 1), generator), 1.0)
    certainty = certainty.gather(2, order) * doubt

    half_view = torch.where(dirty[:, None], half_view, torch.inf)[:, None, None]
    outside = (seen.abs() > half_view).any(-1)
    seen = torch.maximum(torch.minimum(seen, half_view), -half_view)
    certainty = torch.where(outside, certainty * uniform(0.0, 0.3, (n, frames, 17), generator), certainty)

    gone = on_limbs(amounts.drop, (1, 45))
    gone |= chance(0.004, (n, frames, 17), generator) & dirty[:, None, None]
    gone |= (spans(0.05, (n,), frames, (1, 6), generator) & dirty[:, None])[..., None]
    no_legs = chance(amounts.legs_missing, (n,), generator) & dirty
    gone |= no_legs[:, None, None] & (limbs[2] + limbs[3] > 0)
    # A detector still says something about what it does not see, at no confidence.
    certainty = torch.where(gone, certainty * chance(0.5, (n, 1, 17), generator) * 0.15, certainty)
    return seen, certainty, closeup
