"""What a prompt and an answer consist of.

Shape letters: S motion steps, P parts, K levels, C numbers of a part's latent.
"""

from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor


@dataclass(frozen=True, kw_only=True, eq=False)
class Words:
    """Text of a prompt."""

    text: str


@dataclass(frozen=True, kw_only=True, eq=False)
class Motion:
    """Motion steps, of which only some parts may be shown."""

    codes: Int[Tensor, "S P K"]
    latents: Float[Tensor, "S P C"]
    shown: Bool[Tensor, "P"] | None = None
    """Parts that the model sees; None: all of them."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Pose:
    """One pose, as the latents of a body that stays in it."""

    latents: Float[Tensor, "1 P C"]


@dataclass(frozen=True, kw_only=True, eq=False)
class Gap:
    """Missing motion of a known length."""

    steps: int


@dataclass(frozen=True, kw_only=True, eq=False)
class Picture:
    """An image or the frames of a clip, as tokens of a frozen vision tower."""

    features: Float[Tensor, "n _width"]
    moving: bool = False
    """Whether it is a clip."""


Segment = Words | Motion | Pose | Gap | Picture


@dataclass(frozen=True, kw_only=True, eq=False)
class MotionAnswer:
    """Motion to be predicted."""

    codes: Int[Tensor, "S P K"]
    latents: Float[Tensor, "S P C"]
    learned: Bool[Tensor, "S P"] | None = None
    """Parts that are predicted; None: all of them."""
    given: Bool[Tensor, "P"] | None = None
    """Parts that are known before; None: none of them."""
    ends: bool = True
    """Whether the motion ends with the last step."""

    @classmethod
    def unknown(cls, parts: int, levels: int, code_width: int) -> "MotionAnswer":
        """An answer that is yet to be drawn."""
        return cls(
            codes=torch.zeros(0, parts, levels, dtype=torch.long), latents=torch.zeros(0, parts, code_width), ends=False
        )


@dataclass(frozen=True, kw_only=True, eq=False)
class TextAnswer:
    """Text to be predicted."""

    text: str


@dataclass(frozen=True, kw_only=True, eq=False)
class Example:
    """A prompt and its answer."""

    task: str
    prompt: tuple[Segment, ...]
    answer: MotionAnswer | TextAnswer

    def without_words(self) -> "Example":
        """The same without the text of the prompt, for guidance."""
        return replace(self, prompt=tuple(one for one in self.prompt if not isinstance(one, Words)))
