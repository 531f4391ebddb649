"""Part-aware residual quantization (PRQ, arXiv 2508.07863) and its rivals: motion features to codes and back.

Design choices:
- Five parts that share joints with their neighbours; each part has its own first and last convolution, the layers in
  between are shared, with the parts folded into the batch. `parts="whole"` is one stream for the whole body: VQ with one
  level, RQ with more.
- K residual levels, one codebook per level, shared by the parts.
- All convolutions are causal and padded with the first frame: a prefix of a motion has the same codes as in the whole
  motion, and encoding or decoding step by step (`Memory`) gives exactly the result of doing it at once.
- A step is `downsample` = patch * prod(strides) frames; `preroll` steps come before the first frame.

Shape letters: B motions, N feature rows, F features, S steps, P parts, K levels, C channels.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from model import checkpoints
from model.features.layouts import LAYOUTS
from model.tokenizer.config import TokenizerConfig
from model.tokenizer.convolutions import Decoder, Encoder, Memory
from model.tokenizer.losses import LossWeights, joint_losses
from model.tokenizer.quantizers import build_quantizer
from schemas.skeleton import PARTS


@dataclass(frozen=True, kw_only=True, eq=False)
class Batch:
    """Feature rows to learn from."""

    features: Float[Tensor, "B N F"]
    seen: Float[Tensor, "B N 5"] | None = None
    """0 where a part is made up and not learned (the root counts as seen); None: all were seen."""
    rest_joints: Float[Tensor, "24 3"] | None = None
    """Joints of the body at rest; needed by losses of joints alone."""


class MotionTokenizer(nn.Module):
    """Feature rows to codes and back. The normalisation is part of the state."""

    mean: Tensor
    std: Tensor
    column_counts: Tensor

    def __init__(self, config: TokenizerConfig) -> None:
        super().__init__()
        self.config = config
        self.codes_are_fixed = False
        self.features = LAYOUTS[config.features]
        width = self.features.NUM_FEATURES
        read, written = self._part_columns()
        counts = torch.zeros(width).index_add_(0, torch.cat(written), torch.ones(sum(map(len, written))))
        for i, (inputs, outputs) in enumerate(zip(read, written, strict=True)):
            self.register_buffer(f"read_{i}", inputs, persistent=False)
            self.register_buffer(f"written_{i}", outputs, persistent=False)
        self.register_buffer("column_counts", counts, persistent=False)
        self.register_buffer("mean", torch.zeros(width))
        self.register_buffer("std", torch.ones(width))
        self.encoder = Encoder(config, [len(columns) for columns in read])
        self.decoder = Decoder(config, [len(columns) for columns in written])
        self.quantizer = build_quantizer(config)

    def save_pretrained(self, folder: str | Path, description: dict[str, Any]) -> None:
        """Write weights (safetensors), statistics and config into a folder that `from_pretrained` reads. `description` is the
        model.json of the checkpoint it was trained to: body model, dataset version, licences of the motions."""
        entries = {**description, "kind": "tokenizer", "architecture": self.config.model_dump()}
        checkpoints.save_model(Path(folder), entries, self.state_dict())

    @classmethod
    def from_pretrained(cls, folder: str | Path) -> "MotionTokenizer":
        """A trained tokenizer in eval mode, from a checkpoint, a training's output or `save_pretrained`. Raises HumoError if there
        is none."""
        return load_tokenizer(folder)[0]

    def fix_codes(self) -> "MotionTokenizer":
        """From now on only the decoder learns: motions keep their codes."""
        self.codes_are_fixed = True
        for part in (self.encoder, self.quantizer):
            part.eval().requires_grad_(False)
        return self

    def train(self, mode: bool = True) -> "MotionTokenizer":
        super().train(mode)
        if self.codes_are_fixed:
            self.encoder.eval()
            self.quantizer.eval()
        return self

    @property
    def device(self) -> torch.device:
        return self.mean.device

    @property
    def read(self) -> list[Int[Tensor, "_"]]:
        """For each stream the columns that it is encoded from."""
        return [getattr(self, f"read_{i}") for i in range(len(self.config.streams))]

    @property
    def written(self) -> list[Int[Tensor, "_"]]:
        """For each stream the columns that it decodes to."""
        return [getattr(self, f"written_{i}") for i in range(len(self.config.streams))]

    def encode(self, features: Float[Tensor, "B N F"], memory: Memory | None = None) -> Int[Tensor, "B S P K"]:
        """Codes of whole steps, after those of the preroll; up to `downsample` - 1 rows at the end are dropped. With a memory
        (initially an empty dict) consecutive calls with whole steps encode without seams."""
        return self.quantize(features, memory)[0]

    def quantize(
        self, features: Float[Tensor, "B N F"], memory: Memory | None = None, *, noise: float = 0.0
    ) -> tuple[Int[Tensor, "B S P K"], Float[Tensor, "B S P C"]]:
        """Codes as of `encode`, and the quantized latents that they stand for. With `noise` every sequence gets an own amount of
        disturbance, up to that deviation, in the steps that later ones are predicted from; the latents include it."""
        latents = self.latents(self.normalise(features if memory else self.with_preroll(features)), memory)
        values, codes, _ = self.quantizer(latents.float(), memory=memory, noise=noise)
        return codes, values.transpose(1, 2)

    def decode(self, codes: Int[Tensor, "B S P K"], memory: Memory | None = None) -> Float[Tensor, "B N F"]:
        """Rows, `downsample` per step. With a memory (initially an empty dict) consecutive calls decode without seams; the rows of
        the last `lookahead` steps then come with the next call, or with `finish`."""
        return self.reconstruct_motion(self.quantizer.decode(codes, memory), memory)

    def reconstruct_motion(
        self, latents: Float[Tensor, "B P S C"], memory: Memory | None = None
    ) -> Float[Tensor, "B N F"]:
        """Rows of quantized latents that begin with a preroll; see `decode`."""
        rows = self.reconstruct(latents, memory)
        preroll = self.config.preroll * self.config.downsample
        if memory is None:
            return rows[:, preroll:]
        before = int(memory[self]) if self in memory else 0
        memory[self] = torch.tensor(before + rows.shape[1])
        return rows[:, min(max(preroll - before, 0), rows.shape[1]) :]

    def with_preroll(self, features: Float[Tensor, "B N F"]) -> Float[Tensor, "B M F"]:
        """Rows, normalised or not, after copies of their first one."""
        count = self.config.preroll * self.config.downsample
        return torch.cat([features[:, :1].expand(-1, count, -1), features], dim=1) if count else features

    def finish(self, memory: Memory) -> Float[Tensor, "B N F"]:
        """The rows that a memory still holds back, when no step follows; none without a `lookahead`."""
        pending = self.decoder.pending(memory)
        if pending is None:
            return self.mean.new_zeros(1, 0, len(self.mean))
        return self.reconstruct_motion(pending[:, :, -1:].expand(-1, -1, self.config.lookahead, -1), memory)

    def latents(self, normalised: Float[Tensor, "B N F"], memory: Memory | None = None) -> Float[Tensor, "B P S C"]:
        """Encoder output before quantization."""
        step = self.config.downsample
        trimmed = normalised[:, : normalised.shape[1] // step * step]
        return self.encoder([trimmed[..., columns].transpose(-1, -2) for columns in self.read], memory)

    def reconstruct(self, latents: Float[Tensor, "B P S C"], memory: Memory | None = None) -> Float[Tensor, "B N F"]:
        """Rows of latents, quantized or not."""
        return self.merge_parts(self.decoder(latents, memory)) * self.std + self.mean

    def merge_parts(self, parts: list[Float[Tensor, "B _c N"]]) -> Float[Tensor, "B N F"]:
        """Merge the parts into full rows, still normalised; shared columns are averaged."""
        first = parts[0]
        total = first.new_zeros(first.shape[0], first.shape[-1], len(self.mean))
        for columns, part in zip(self.written, parts, strict=True):
            total = total.index_add(-1, columns, part.transpose(-1, -2))
        return total / self.column_counts

    def normalise(self, features: Float[Tensor, "*B F"]) -> Float[Tensor, "*B F"]:
        return (features - self.mean) / self.std

    def forward(
        self, batch: Batch, weights: LossWeights, *, drop_levels: bool = False, quantize: bool = True
    ) -> dict[str, Tensor]:
        """Training losses: `loss` and its terms. `drop_levels` drops a random number of the last levels (quantizer
        dropout), so that the first ones learn to work alone; without `quantize` the latents are decoded as they are."""
        target = self.normalise(batch.features)
        latents = self.latents(self.with_preroll(target))
        # The nearest-code search needs full precision, and so do losses in metres.
        with torch.autocast(batch.features.device.type, enabled=False):
            values, commitment = latents.float(), latents.new_zeros((), dtype=torch.float32)
            if quantize:
                values, _, commitment = self.quantizer(values, drop_levels=drop_levels)
        preroll = self.config.preroll * self.config.downsample
        parts = [part[..., preroll:].float() for part in self.decoder(values)]
        with torch.autocast(batch.features.device.type, enabled=False):
            return self._losses(parts, target[:, : parts[0].shape[-1]], commitment, batch, weights)

    def _losses(
        self,
        parts: list[Float[Tensor, "B _c N"]],
        target: Float[Tensor, "B N F"],
        commitment: Float[Tensor, ""],
        batch: Batch,
        weights: LossWeights,
    ) -> dict[str, Tensor]:
        column_weights = target.new_ones(target.shape[-1])
        column_weights[self.features.ROOT] = weights.root
        seen = None if batch.seen is None else batch.seen[:, : target.shape[1]]
        mask = None if seen is None else self._column_mask(seen)
        part_loss = target.new_zeros(())
        for columns, part in zip(self.written, parts, strict=True):
            error = (part.transpose(-1, -2) - target[..., columns]).abs() * column_weights[columns]
            part_loss = part_loss + (error if mask is None else error * mask[..., columns]).mean() / len(parts)
        merged = self.merge_parts(parts)
        error = (merged - target).abs()
        error = error if mask is None else error * mask
        terms = {"parts": part_loss, "whole": (error * column_weights).mean(), "commitment": commitment}
        if "positions" in self.features.SLICES:
            terms["positions"] = error[..., self.features.SLICES["positions"]].mean()
        if weights.need_joints:
            if batch.rest_joints is None:
                raise ValueError("losses of joints need rest_joints in the batch")
            rows = (merged * self.std + self.mean, target * self.std + self.mean)
            terms |= joint_losses(*rows, weights, self.features, batch.rest_joints, seen)
        loss = torch.stack([getattr(weights, name) * term for name, term in terms.items()]).sum()
        return {"loss": loss, **terms}

    def _column_mask(self, seen: Float[Tensor, "B N 5"]) -> Float[Tensor, "B N F"]:
        """1 for the columns of which any part was seen, and for those of the root."""
        mask = seen.new_zeros(*seen.shape[:2], len(self.mean))
        for index, part in enumerate(PARTS):
            columns = self.features.written_columns(part).to(seen.device)
            mask[..., columns] = torch.maximum(mask[..., columns], seen[..., index, None])
        mask[..., self.features.ROOT] = 1.0
        return mask

    def _part_columns(self) -> tuple[list[Tensor], list[Tensor]]:
        config, features = self.config, self.features
        if config.parts == "whole":
            whole = [torch.arange(features.NUM_FEATURES)]
            return whole, whole
        if not config.share_joints:
            exclusive = [features.exclusive_columns(part) for part in config.streams]
            return exclusive, exclusive
        read = [features.read_columns(part) for part in config.streams]
        return read, [features.written_columns(part) for part in config.streams]


def load_tokenizer(path: str | Path) -> tuple[MotionTokenizer, dict[str, Any]]:
    """A trained tokenizer in eval mode and its model.json. Raises HumoError if there is none."""
    folder, description = checkpoints.find(path, "tokenizer")
    tokenizer = MotionTokenizer(TokenizerConfig(**description["architecture"]))
    checkpoints.load_into(tokenizer, folder)
    return tokenizer.eval(), description
