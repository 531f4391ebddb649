"""The closer look: a head on the frozen trunk of the pose detector that finds keypoints and their depths in a crop.

Design: the detector looks at a whole picture once and guesses limbs that the body hides; here a crop of one person, always of
one size, goes through the detector's own trunk, whose features are left as they are: they were learned from photographs,
the head only from drawings. Its tokens look at the whole crop (attention over 16 x 16 cells), a soft-argmax over 32 x 32 cells
says where each keypoint lies (integral regression, Sun et al. 2018), and 17 tokens, one a keypoint, settle among themselves
what is near and what is far, and how sure they are. Shapes: N crops, C channels, K keypoints.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from schemas.skeleton import COCO_KEYPOINTS, mirror_order

CROP_PX = 256
_CHANNELS = {"fine": 192, "middle": 256, "coarse": 512}
"""Of what `stages.perception.closeup.trunk` gives at strides 8, 16 and 32."""
_CELLS = {"fine": CROP_PX // 8, "middle": CROP_PX // 16, "coarse": CROP_PX // 32}
NUM_KEYPOINTS = len(COCO_KEYPOINTS)
MIRROR = mirror_order(COCO_KEYPOINTS)
_LEAST_LOG, _MOST_LOG = -6.0, 1.0
"""Bounds of the log of what is expected to be off."""


@dataclass(frozen=True)
class Seen25D:
    """What the head says of N crops, in half sides of the crop: x to the right and y down from its middle, z away from the
    camera from the middle depth of the keypoints (scaled orthographic)."""

    first: Float[Tensor, "N 17 2"]
    """Places by the heat maps alone."""
    heat: Float[Tensor, "N 17 32 32"]
    """Log of the share of each cell."""
    points: Float[Tensor, "N 17 3"]
    log_sigma: Float[Tensor, "N 17 2"]
    """Log of the expected absolute error in the picture and in depth."""


class Head(nn.Module):
    """Features of crops to keypoints."""

    def __init__(self, width: int = 128, fine_width: int = 64, layers: int = 3, token_layers: int = 2) -> None:
        super().__init__()
        self.shape = {"width": width, "fine_width": fine_width, "layers": layers, "token_layers": token_layers}
        self.fine = nn.Conv2d(_CHANNELS["fine"], width, 2, stride=2)
        self.middle = nn.Conv2d(_CHANNELS["middle"], width, 1)
        self.coarse = nn.Conv2d(_CHANNELS["coarse"], width, 1)
        self.scale = nn.ModuleList(nn.GroupNorm(8, width) for _ in range(3))
        self.place = nn.Parameter(0.02 * torch.randn(_CELLS["middle"] ** 2, width))
        self.blocks = nn.ModuleList(_Block(width, 4) for _ in range(layers))
        self.up = nn.Conv2d(width, fine_width, 1)
        self.skip = nn.Conv2d(_CHANNELS["fine"], fine_width, 1)
        self.mix = nn.Sequential(*(_Mix(fine_width) for _ in range(2)))
        self.heat = nn.Conv2d(fine_width, NUM_KEYPOINTS, 1)
        self.token = nn.Linear(fine_width + 2, width)
        self.name = nn.Parameter(0.02 * torch.randn(NUM_KEYPOINTS, width))
        self.tokens = nn.ModuleList(_Block(width, 4) for _ in range(token_layers))
        self.norm = nn.LayerNorm(width)
        self.out = nn.Linear(width, 5)
        nn.init.normal_(self.out.weight, std=0.01)
        nn.init.zeros_(self.out.bias)
        centres = (torch.arange(_CELLS["fine"]) + 0.5) / (_CELLS["fine"] / 2) - 1
        grid = torch.stack(torch.meshgrid(centres, centres, indexing="xy"), -1).flatten(0, 1)
        self.register_buffer("grid", grid, persistent=False)

    grid: Tensor

    def forward(self, fine: Tensor, middle: Tensor, coarse: Tensor) -> Seen25D:
        """Features at strides 8, 16 and 32."""
        coarse = nn.functional.interpolate(self.coarse(coarse), scale_factor=2.0, mode="nearest")
        parts = (self.fine(fine), self.middle(middle), coarse)
        x = sum(scale(part) for scale, part in zip(self.scale, parts, strict=True))
        cells = x.shape[-1]
        x = x.flatten(2).transpose(1, 2) + self.place
        for block in self.blocks:
            x = block(x)
        wide = self.up(x.transpose(1, 2).unflatten(-1, (cells, cells)))
        wide = self.mix(nn.functional.interpolate(wide, scale_factor=2.0, mode="nearest") + self.skip(fine))
        heat = self.heat(wide).float().flatten(2).log_softmax(-1)
        share = heat.exp()
        first = share @ self.grid
        found = (share.to(wide.dtype) @ wide.flatten(2).transpose(1, 2)).to(wide.dtype)
        tokens = self.token(torch.cat([found, first.to(found.dtype)], -1)) + self.name
        for block in self.tokens:
            tokens = block(tokens)
        out = self.out(self.norm(tokens)).float()
        points = torch.cat([first + out[..., :2], out[..., 2:3]], -1)
        log_sigma = (out[..., 3:] - 3.0).clamp(_LEAST_LOG, _MOST_LOG)
        return Seen25D(first, heat.unflatten(-1, (2 * cells, 2 * cells)), points, log_sigma)


class _Block(nn.Module):
    """Attention and feed-forward, each after a norm (pre-LN transformer)."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm_attention, self.norm_feed = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.join = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.feed = nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(approximate="tanh"), nn.Linear(2 * width, width))

    def forward(self, x: Float[Tensor, "N L C"]) -> Float[Tensor, "N L C"]:
        q, k, v = self.qkv(self.norm_attention(x)).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        mixed = ((q @ k.transpose(-1, -2)) * q.shape[-1] ** -0.5).softmax(-1).to(v.dtype) @ v
        x = x + self.join(mixed.transpose(1, 2).flatten(-2))
        return x + self.feed(self.norm_feed(x))


class _Mix(nn.Module):
    """Depthwise and pointwise convolution with a residual (ConvNeXt's block, Liu et al. 2022)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.around = nn.Conv2d(width, width, 5, padding=2, groups=width)
        self.norm = nn.GroupNorm(1, width)
        self.feed = nn.Sequential(nn.Conv2d(width, width, 1), nn.GELU(approximate="tanh"), nn.Conv2d(width, width, 1))

    def forward(self, x: Float[Tensor, "N C H W"]) -> Float[Tensor, "N C H W"]:
        return x + self.feed(self.norm(self.around(x)))
