"""The person detector as a tower: its deepest feature map around the person, and the person's keypoints.

The network is YOLO11's pose model, which the stages track people with. Its deepest feature map (stride 32) is sampled on a
grid over a square around the person, so that a token shows the same place of a body wherever that stands in the frame. The token
that sums a frame up has the keypoints in that square, each position also times its confidence; where the person is in the frame;
and what the keypoints were computed from. Without a person the square is the frame, the keypoints are 0.
"""

from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, UInt8
from torch import Tensor

from schemas.errors import HumoError
from schemas.ids import digest
from schemas.offline import enforce_offline
from schemas.pose_weights import default_weights, load_pose_network
from schemas.skeleton import COCO_KEYPOINTS
from schemas.storage import file_digest

_VERSION = "1"
"""Of the tokens' layout."""
_MIN_SCORE = 0.1
"""Score from which a candidate is a person."""
_MARGIN = 1.1
"""Side of the square around a person, as a multiple of the longer side of its box."""
_BATCH = 64
"""Frames at a time on CUDA."""


class DetectorTower:
    """A frozen pose detector."""

    def __init__(self, weights: str = "", *, px: int = 256, grid: int = 4, device: str | torch.device = "cpu") -> None:
        """Raises HumoError for weights that are missing or of another kind of network."""
        file = Path(weights) if weights else default_weights("vision.weights")
        if not file.is_file():
            raise HumoError(f"vision: weights {file} does not exist; give a YOLO pose file (.pt) in vision.weights")
        enforce_offline()
        # float32 on CUDA, too: the tokens are those of a CPU but for rounding
        self._network: Any = load_pose_network(file, "cpu").float().requires_grad_(False).to(device)
        self._head = self._network.model[-1]
        if tuple(self._head.kpt_shape) != (len(COCO_KEYPOINTS), 3):
            raise HumoError(f"vision: weights {file} gives keypoints {self._head.kpt_shape}; COCO's (17, 3) are needed")
        self.px, self.grid, self.device = px, grid, torch.device(device)
        sha256 = file_digest(file)
        self.name = f"{file.stem} {sha256[:12]}"
        self.fingerprint = digest("detector", _VERSION, sha256, px, grid, digits=12)
        self.tokens_per_frame = 1 + grid**2
        self._maps: list[Tensor] = []
        self._head.register_forward_pre_hook(lambda _, inputs: self._maps.extend(inputs[0]))
        self.width = self(torch.zeros(1, px, px, 3, dtype=torch.uint8)).shape[-1]

    @torch.no_grad()
    def __call__(self, frames: UInt8[Tensor, "n px px 3"]) -> Float[Tensor, "n t width"]:
        """The person's keypoints, then the grid over the square around the person."""
        parts = frames.split(_BATCH if self.device.type == "cuda" else 1)
        with torch.autocast(self.device.type, enabled=False):
            return torch.cat([self._tokens(part) for part in parts])

    def _tokens(self, frames: UInt8[Tensor, "b px px 3"]) -> Float[Tensor, "b t width"]:
        self._maps.clear()
        output = self._network(frames.to(self.device).permute(0, 3, 1, 2).float() / 255)
        candidates: Float[Tensor, "b 56 a"] = output[0] if isinstance(output, (tuple, list)) else output
        maps = list(self._maps)
        boxes, scores, keypoints, best = _clearest_person(candidates, self.px)
        square = boxes[:, 2:].amax(1) * _MARGIN
        places = self._sampled(maps[-1], boxes, square).flatten(2).mT
        behind = torch.cat([branch[:-1](one).flatten(2) for branch, one in zip(self._head.cv4, maps, strict=True)], 2)
        confidence = keypoints[..., 2:]
        positions = 4 * (keypoints[..., :2] - boxes[:, None, :2]) / square[:, None, None] * (scores > 0)[:, None, None]
        summary = torch.cat(
            [
                positions.flatten(1), (positions * confidence).flatten(1), 2 * confidence.flatten(1) - 1,
                boxes / self.px, scores[:, None],
                behind.gather(2, best[:, None, None].expand(-1, behind.shape[1], 1))[..., 0],
            ],
            1,
        )  # fmt: skip
        return torch.cat([F.pad(summary, (0, places.shape[-1] - summary.shape[-1]))[:, None], places], 1)

    def _sampled(
        self, features: Float[Tensor, "b c h w"], boxes: Float[Tensor, "b 4"], square: Float[Tensor, "b"]
    ) -> Float[Tensor, "b c g g"]:
        """A feature map at the middles of the cells of a grid over the squares around the boxes."""
        cells = (torch.arange(self.grid, device=self.device) + 0.5) / self.grid - 0.5
        y, x = torch.meshgrid(cells, cells, indexing="ij")
        points = boxes[:, None, None, :2] + torch.stack([x, y], -1) * square[:, None, None, None]
        return F.grid_sample(features, points / self.px * 2 - 1, align_corners=False, padding_mode="border")


def _clearest_person(
    candidates: Float[Tensor, "b 56 a"], px: int
) -> tuple[Float[Tensor, "b 4"], Float[Tensor, "b"], Float[Tensor, "b 17 3"], Tensor]:
    """Boxes (centre and size, pixels), scores, keypoints and numbers of the candidates that are large and sure; the whole frame
    with score and keypoints 0 where nobody is."""
    sizes, scores = candidates[:, 2:4], candidates[:, 4]
    best = (scores * sizes.prod(1).clamp(min=1).sqrt()).argmax(1)
    rows = candidates.gather(2, best[:, None, None].expand(-1, candidates.shape[1], 1))[..., 0]
    found = rows[:, 4] >= _MIN_SCORE
    frame = rows.new_tensor([px / 2, px / 2, px, px])
    keypoints = rows[:, 5:].reshape(-1, len(COCO_KEYPOINTS), 3) * found[:, None, None]
    return torch.where(found[:, None], rows[:, :4], frame), rows[:, 4] * found, keypoints, best
