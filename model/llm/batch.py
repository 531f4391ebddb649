"""Sequences as tensors: what stands at each position, and what is learned there.

Shape letters: B sequences, L positions, P parts, K levels, C numbers of a part's latent.
"""

from dataclasses import dataclass, field, fields
from enum import IntEnum
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor


class Marker(IntEnum):
    """Positions that are neither text nor motion: they say what follows."""

    START = 0
    MOTION = 1
    ANSWER = 2
    POSE = 3
    GAP = 4
    IMAGE = 5
    CLIP = 6


@dataclass(frozen=True, kw_only=True, eq=False)
class Batch:
    """A batch of sequences, padded on the right."""

    text: Int[Tensor, "B L"]
    """Token ids at text positions; the pad token elsewhere."""
    markers: Int[Tensor, "B L"]
    """`Marker` at its positions; -1 elsewhere."""
    codes: Int[Tensor, "B L P K"]
    """Codes at motion positions; 0 elsewhere."""
    latents: Float[Tensor, "B L P C"]
    """What the codes stand for: quantized latents at motion positions; 0 elsewhere."""
    shown: Bool[Tensor, "B L P"]
    """Parts of motion positions that are shown; the others are hidden from the model."""
    is_motion: Bool[Tensor, "B L"]
    is_prompt: Bool[Tensor, "B L"]
    """Words of the prompt, as tokens or as features, and pictures."""
    is_input_motion: Bool[Tensor, "B L"]
    """Motion positions of the prompt."""
    is_answer: Bool[Tensor, "B L"]
    """Text positions of an answer, and the answer marker before them."""
    is_target_text: Bool[Tensor, "B L"]
    """Text positions to be predicted."""
    is_target_motion: Bool[Tensor, "B L"]
    """Motion positions to be predicted."""
    is_stop: Bool[Tensor, "B L"]
    """Positions after which a target motion ends."""
    is_continue: Bool[Tensor, "B L"]
    """Positions after which a target motion starts or continues."""
    learned: Bool[Tensor, "B L P"] | None = None
    """Parts of target motions that are predicted; the others are given or were not seen. None: all of them."""
    given: Bool[Tensor, "B L P"] | None = None
    """Parts of target motions whose codes are known before the others are drawn. None: none of them."""
    features: dict[str, tuple[Bool[Tensor, "B L"], Float[Tensor, "n _width"]]] = field(default_factory=dict)
    """Name of a frozen encoder -> its positions and what it gave for them, row by row."""

    def is_adapted(self) -> Bool[Tensor, "B L"]:
        """Positions from the first one on that is not a text token."""
        other = (self.markers >= 0) | self.is_motion
        for mask, _ in self.features.values():
            other = other | mask
        return other.cumsum(1) > 0

    def to(self, device: torch.device | str) -> "Batch":
        moved: dict[str, Any] = {}
        for one in fields(self):
            value = getattr(self, one.name)
            if isinstance(value, dict):
                moved[one.name] = {name: tuple(part.to(device) for part in pair) for name, pair in value.items()}
            else:
                moved[one.name] = None if value is None else value.to(device, non_blocking=True)
        return Batch(**moved)
