"""The image encoder of a CLIP or SigLIP model as a tower: its last layer's patches, pooled to a grid, and their mean."""

import torch
import torch.nn.functional as F
from jaxtyping import Float, UInt8
from torch import Tensor

from schemas.errors import HumoError
from schemas.ids import digest
from schemas.offline import enforce_offline
from schemas.open_clip_weights import load_open_clip

_VERSION = "1"
"""Of the tokens' layout."""
_BATCH = 64
"""Frames at a time on CUDA."""


class OpenClipTower:
    """A frozen image encoder of open_clip."""

    def __init__(self, model: str, weights: str = "", *, grid: int = 4, device: str | torch.device = "cpu") -> None:
        """Raises HumoError if the model is missing or gives no features of patches."""
        enforce_offline()
        loaded = load_open_clip(model, weights, str(device), setting="vision")
        self._visual = loaded.model.visual.float().eval().requires_grad_(False)
        if not hasattr(self._visual, "forward_intermediates"):
            raise HumoError(f"vision: model {model!r} gives no features of patches; use a ViT or ConvNeXt of open_clip")
        size = self._visual.image_size
        self.px = int(size if isinstance(size, int) else max(size))
        mean, std = getattr(self._visual, "image_mean", None), getattr(self._visual, "image_std", None)
        self._mean = torch.tensor(mean or (0.48145466, 0.4578275, 0.40821073), device=device).view(3, 1, 1)
        self._std = torch.tensor(std or (0.26862954, 0.26130258, 0.27577711), device=device).view(3, 1, 1)
        self.grid, self.device, self.name = grid, torch.device(device), loaded.label
        self.fingerprint = digest("open_clip", _VERSION, self.name, self.px, grid, digits=12)
        self.tokens_per_frame = 1 + grid**2
        self.width = self(torch.zeros(1, self.px, self.px, 3, dtype=torch.uint8)).shape[-1]

    @torch.no_grad()
    def __call__(self, frames: UInt8[Tensor, "n px px 3"]) -> Float[Tensor, "n t width"]:
        """Mean of the patches, then the grid."""
        return torch.cat([self._tokens(part) for part in frames.split(_BATCH if self.device.type == "cuda" else 1)])

    def _tokens(self, frames: UInt8[Tensor, "b px px 3"]) -> Float[Tensor, "b t width"]:
        images = (frames.to(self.device).permute(0, 3, 1, 2).float() / 255 - self._mean) / self._std
        with torch.autocast(self.device.type, enabled=False):
            patches = self._visual.forward_intermediates(
                images, indices=1, normalize_intermediates=True, intermediates_only=True, output_fmt="NCHW"
            )["image_intermediates"][-1].float()
        places = F.adaptive_avg_pool2d(patches, self.grid).flatten(2).mT
        return torch.cat([patches.mean((2, 3))[:, None], places], 1)
