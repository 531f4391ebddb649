"""What a vision tower is, and the one that a config names."""

from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from model.vision.config import VisionConfig


@runtime_checkable
class VisionTower(Protocol):
    """A frozen network that turns frames into tokens; it takes no gradient.

    The first token of a frame sums it up: it stands for the frame where there is room for one token only. The others show places of
    the frame, row by row.
    """

    @property
    def name(self) -> str:
        """The network and its version."""
        ...

    @property
    def fingerprint(self) -> str:
        """Twelve hex digits: towers that have the same give the same tokens."""
        ...

    @property
    def px(self) -> int:
        """Side of the square frames that it takes, pixels."""
        ...

    @property
    def width(self) -> int:
        """Numbers per token."""
        ...

    @property
    def tokens_per_frame(self) -> int: ...

    @property
    def device(self) -> torch.device: ...

    def __call__(self, frames: UInt8[Tensor, "n px px 3"]) -> Float[Tensor, "n t width"]:
        """Tokens of RGB frames, single precision, on the tower's device. On a CPU a frame's tokens do not depend on the others."""
        ...


def open_tower(config: VisionConfig, device: str | torch.device = "cpu") -> VisionTower:
    """The tower of a config. Raises HumoError if its weights are missing or do not load."""
    if config.tower == "open_clip":
        from model.vision.open_clip_tower import OpenClipTower

        return OpenClipTower(config.model, config.weights, grid=config.grid, device=device)
    from model.vision.detector_tower import DetectorTower

    return DetectorTower(config.weights, px=config.px, grid=config.grid, device=device)
