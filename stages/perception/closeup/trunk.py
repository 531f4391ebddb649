"""The pose detector's trunk, frozen: features of crops for the head to read."""

from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn

from schemas.offline import enforce_offline
from schemas.torchvision_ops import ensure_operators
from stages.perception.detector import load_torch_model

_LAYERS = {"fine": (4, 16), "middle": (6, 19), "coarse": (10, 22)}
"""Outputs of the detector's layers (YOLO11: backbone and neck at strides 8, 16 and 32) that the head reads."""


class Trunk(nn.Module):
    """The detector's layers before its own heads, frozen."""

    def __init__(self, detector: nn.Module) -> None:
        super().__init__()
        self.layers = nn.ModuleList(list(detector.model)[:-1])  # type: ignore[arg-type]
        self.kept = sorted({layer for pair in _LAYERS.values() for layer in pair})
        self.requires_grad_(False)
        self.eval()

    def forward(self, pixels: Float[Tensor, "N 3 256 256"]) -> tuple[Tensor, Tensor, Tensor]:
        """Features at strides 8, 16 and 32; pixels are RGB, 0 to 1."""
        out: list[Tensor] = []
        x = pixels
        for layer in self.layers:
            source: Any = layer.f
            if isinstance(source, list):
                x = layer([x if place == -1 else out[place] for place in source])
            else:
                x = layer(x if source == -1 else out[source])
            out.append(x)
        fine, middle, coarse = (torch.cat([out[layer] for layer in pair], 1) for pair in _LAYERS.values())
        return fine, middle, coarse


def load_trunk(weights: Path) -> Trunk:
    """The trunk of a detector's weights (YOLO11n-pose's layers)."""
    enforce_offline()
    ensure_operators()
    return Trunk(load_torch_model(weights, "cpu").float())


@torch.no_grad()
def features(trunk: Trunk, pixels: UInt8[Tensor, "N 256 256 3"]) -> tuple[Tensor, ...]:
    """The trunk's features of crops, in half the bytes."""
    values = pixels.permute(0, 3, 1, 2).float() / 255
    with torch.autocast(values.device.type, torch.bfloat16):
        return tuple(part.bfloat16() for part in trunk(values))
