"""Part-aware residual quantization (PRQ, arXiv 2508.07863): motion features to codes and back.

Design choices:
- Five parts that share joints with their neighbours; each part has its own first and last convolution, the layers in
  between are shared, with the parts folded into the batch. `parts="whole"` is one stream for the whole body: VQ with one
  level, RQ with more.
- K residual levels, one codebook per level, shared by the parts.
- All convolutions are causal and padded with the first frame: a prefix of a motion has the same codes as in the whole
  motion, and step-by-step decoding (`DecoderMemory`) gives exactly the result of decoding at once.
- A step is `downsample` = prod(strides) frames.

Shape letters: B motions, N feature rows, S steps, P parts, K levels, C channels.
"""

import math
from pathlib import Path
from typing import Any, Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from pydantic import model_validator
from torch import Tensor, nn

from model import checkpoints
from model.features.humo263 import NUM_FEATURES, POSITIONS, ROOT, part_columns
from schemas.config import Config
from schemas.skeleton import PARTS

DecoderMemory = dict[nn.Module, Tensor]
"""State of streaming decoding: for each convolution, the last inputs that it still needs."""


class TokenizerConfig(Config):
    """Architecture of a motion tokenizer."""

    parts: Literal["five", "whole"] = "five"
    """`five`: one stream of codes per part (PRQ). `whole`: one stream (VQ, RQ)."""
    levels: int = 4
    """Residual quantizers, one code each per part and step."""
    codebook_size: int = 512
    """Codes per codebook."""
    code_width: int = 128
    """Dimension of a code vector."""
    width: int = 512
    """Channels of the convolutions."""
    strides: tuple[int, ...] = (2, 2)
    """Downsampling strides from frames to steps; their product is the number of frames per step."""
    dilations: tuple[int, ...] = (1, 3, 9)
    """Dilations of the residual blocks after each downsampling or upsampling."""
    share_levels: bool = False
    """Whether the levels share one codebook as well."""
    rotation_trick: bool = True
    """Gradients through the quantizer by the rotation trick (arXiv 2410.06424) instead of straight-through."""

    @model_validator(mode="after")
    def _positive(self) -> "TokenizerConfig":
        for name in ("levels", "codebook_size", "code_width", "width"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1")
        if not self.strides or min(self.strides) < 1:
            raise ValueError("strides must be a list of integers of at least 1")
        return self

    @property
    def downsample(self) -> int:
        """Frames per step."""
        return math.prod(self.strides)

    @property
    def streams(self) -> tuple[str, ...]:
        """Part names in the order of their codes."""
        return tuple(PARTS) if self.parts == "five" else ("whole",)


PRESETS = {
    "tiny": TokenizerConfig(codebook_size=128, code_width=64, width=96, dilations=(1, 3)),
    "base": TokenizerConfig(),
}
"""`tiny` trains in one or two minutes on one CPU core."""


class CausalConv(nn.Conv1d):
    """Causal convolution, padded on the left with copies of the first frame."""

    def __init__(self, inputs: int, outputs: int, kernel: int, *, stride: int = 1, dilation: int = 1) -> None:
        super().__init__(inputs, outputs, kernel, stride=stride, dilation=dilation)
        self.left_context = (kernel - 1) * dilation + 1 - stride

    def forward(  # type: ignore[override]
        self, x: Float[Tensor, "B C N"], memory: DecoderMemory | None = None
    ) -> Float[Tensor, "B D M"]:
        if not self.left_context:
            return super().forward(x)
        if memory is not None and self in memory:
            x = torch.cat([memory[self], x], dim=-1)
        else:
            x = torch.cat([x[..., :1].expand(*x.shape[:-1], self.left_context), x], dim=-1)
        if memory is not None:
            memory[self] = x[..., -self.left_context :]
        return super().forward(x)


class ResidualBlock(nn.Module):
    """ReLU, dilated convolution, ReLU, pointwise convolution, with a skip connection."""

    def __init__(self, width: int, dilation: int) -> None:
        super().__init__()
        self.wide = CausalConv(width, width, 3, dilation=dilation)
        self.point = nn.Conv1d(width, width, 1)

    def forward(self, x: Float[Tensor, "B C N"], memory: DecoderMemory | None = None) -> Float[Tensor, "B C N"]:
        return x + self.point(F.relu(self.wide(F.relu(x), memory)))


class Encoder(nn.Module):
    """Feature rows of each part to latents, one per step. The first convolution is specific to the part."""

    def __init__(self, config: TokenizerConfig, channels: list[int]) -> None:
        super().__init__()
        self.first = nn.ModuleList(CausalConv(count, config.width, 3) for count in channels)
        layers: list[nn.Module] = []
        for stride in config.strides:
            layers.append(CausalConv(config.width, config.width, 2 * stride, stride=stride))
            layers += [ResidualBlock(config.width, dilation) for dilation in config.dilations]
        self.layers = nn.Sequential(*layers)
        self.last = nn.Conv1d(config.width, config.code_width, 1)

    def forward(self, parts: list[Float[Tensor, "B _c N"]]) -> Float[Tensor, "B P S C"]:
        x = torch.stack([first(part) for first, part in zip(self.first, parts, strict=True)], dim=1)
        latents = self.last(F.relu(self.layers(x.flatten(0, 1))))
        return latents.unflatten(0, x.shape[:2]).transpose(-1, -2)


class Decoder(nn.Module):
    """Latents to feature rows of each part. The last convolution is specific to the part; a learned part embedding
    (`mark`) identifies the part to the shared layers, since the codes do not."""

    def __init__(self, config: TokenizerConfig, channels: list[int]) -> None:
        super().__init__()
        self.mark = nn.Parameter(torch.zeros(len(channels), 1, config.code_width))
        self.first = CausalConv(config.code_width, config.width, 3)
        self.strides = config.strides[::-1]
        self.blocks = nn.ModuleList(
            nn.ModuleList(ResidualBlock(config.width, dilation) for dilation in config.dilations[::-1])
            for _ in self.strides
        )
        self.merge = nn.ModuleList(CausalConv(config.width, config.width, 3) for _ in self.strides)
        self.last = nn.ModuleList(CausalConv(config.width, count, 3) for count in channels)

    def forward(
        self, latents: Float[Tensor, "B P S C"], memory: DecoderMemory | None = None
    ) -> list[Float[Tensor, "B _c N"]]:
        latents = latents + self.mark
        x = self.first(latents.flatten(0, 1).transpose(-1, -2), memory)
        for stride, blocks, merge in zip(self.strides, self.blocks, self.merge, strict=True):
            for block in blocks:  # type: ignore[attr-defined]
                x = block(x, memory)
            x = merge(x.repeat_interleave(stride, dim=-1), memory)
        x = F.relu(x).unflatten(0, latents.shape[:2])
        return [last(x[:, i], memory) for i, last in enumerate(self.last)]


class MotionTokenizer(nn.Module):
    """HuMo263 rows to codes and back. The normalisation is part of the state."""

    mean: Tensor
    std: Tensor
    column_counts: Tensor

    def __init__(self, config: TokenizerConfig) -> None:
        # Imported here because it takes seconds, and checking a config does not need it.
        from vector_quantize_pytorch import ResidualVQ

        super().__init__()
        self.config = config
        whole = torch.arange(NUM_FEATURES)
        columns = [part_columns(part) if config.parts == "five" else whole for part in config.streams]
        column_counts = torch.zeros(NUM_FEATURES).index_add_(0, torch.cat(columns), torch.ones(sum(map(len, columns))))
        for i, column in enumerate(columns):
            self.register_buffer(f"columns_{i}", column, persistent=False)
        self.register_buffer("column_counts", column_counts, persistent=False)
        self.register_buffer("mean", torch.zeros(NUM_FEATURES))
        self.register_buffer("std", torch.ones(NUM_FEATURES))
        channels = [len(column) for column in columns]
        self.encoder = Encoder(config, channels)
        self.decoder = Decoder(config, channels)
        # Losses are weighted in `forward`, not by the library; `forward` also enables quantizer dropout per step.
        self.quantizer = ResidualVQ(
            dim=config.code_width,
            num_quantizers=config.levels,
            codebook_size=config.codebook_size,
            shared_codebook=config.share_levels,
            kmeans_init=True,
            decay=0.99,
            threshold_ema_dead_code=1,
            commitment_weight=1.0,
            rotation_trick=config.rotation_trick,
            quantize_dropout=config.levels > 1,
        )

    @property
    def device(self) -> torch.device:
        return self.mean.device

    def encode(self, features: Float[Tensor, "B N 263"]) -> Int[Tensor, "B S P K"]:
        """Codes of whole steps; up to `downsample` - 1 rows at the end are dropped."""
        latents = self.latents(self.normalise(features))
        codes = self.quantizer(latents.float().flatten(0, 1))[1]
        return codes.unflatten(0, latents.shape[:2]).transpose(1, 2)

    def decode(self, codes: Int[Tensor, "B S P K"], memory: DecoderMemory | None = None) -> Float[Tensor, "B N 263"]:
        """Rows, `downsample` per step. With a memory (initially an empty dict) consecutive calls decode without seams."""
        folded = codes.transpose(1, 2).flatten(0, 1)
        latents = self.quantizer.get_output_from_indices(folded).unflatten(0, (len(codes), -1))
        return self.merge_parts(self.decoder(latents, memory)) * self.std + self.mean

    def latents(self, normalised: Float[Tensor, "B N 263"]) -> Float[Tensor, "B P S C"]:
        """Encoder output before quantization."""
        step = self.config.downsample
        trimmed = normalised[:, : normalised.shape[1] // step * step]
        return self.encoder([trimmed[..., columns].transpose(-1, -2) for columns in self._columns])

    def merge_parts(self, parts: list[Float[Tensor, "B _c N"]]) -> Float[Tensor, "B N 263"]:
        """Merge the parts into full rows, still normalised; shared columns are averaged."""
        first = parts[0]
        total = first.new_zeros(first.shape[0], first.shape[-1], NUM_FEATURES)
        for columns, part in zip(self._columns, parts, strict=True):
            total = total.index_add(-1, columns, part.transpose(-1, -2))
        return total / self.column_counts

    def normalise(self, features: Float[Tensor, "*B 263"]) -> Float[Tensor, "*B 263"]:
        return (features - self.mean) / self.std

    def forward(
        self,
        features: Float[Tensor, "B N 263"],
        weights: "LossWeights",
        drop_levels: bool = False,
        seen: Float[Tensor, "B N 5"] | None = None,
    ) -> dict[str, Tensor]:
        """Training losses: `loss` and its terms. Rows of parts whose `seen` is 0 are made up and not learned (None: all were seen;
        the root counts as seen). `drop_levels` drops a random number of the last levels (quantizer
        dropout), so that the first ones learn to work alone."""
        target = self.normalise(features)
        latents = self.latents(target)
        self.quantizer.quantize_dropout = drop_levels and self.config.levels > 1
        # The nearest-code search needs full precision.
        with torch.autocast(features.device.type, enabled=False):
            quantized, _, commitments = self.quantizer(latents.float().flatten(0, 1))
        parts = self.decoder(quantized.unflatten(0, latents.shape[:2]))
        target = target[:, : parts[0].shape[-1]]
        column_weights = target.new_ones(NUM_FEATURES)
        column_weights[ROOT] = weights.root
        mask = None if seen is None else self._column_mask(seen[:, : target.shape[1]])
        part_loss = target.new_zeros(())
        for columns, part in zip(self._columns, parts, strict=True):
            error = (part.transpose(-1, -2).float() - target[..., columns]).abs() * column_weights[columns]
            part_loss = part_loss + (error if mask is None else error * mask[..., columns]).mean() / len(parts)
        error = (self.merge_parts([part.float() for part in parts]) - target).abs()
        error = error if mask is None else error * mask
        whole = (error * column_weights).mean()
        positions = error[..., POSITIONS].mean()
        # Summed over the levels and, as in the paper, over the parts.
        commitment = commitments.sum() * len(parts)
        loss = weights.parts * part_loss + weights.whole * whole + weights.positions * positions
        loss = loss + weights.commitment * commitment
        return {"loss": loss, "parts": part_loss, "whole": whole, "positions": positions, "commitment": commitment}

    def _column_mask(self, seen: Float[Tensor, "B N 5"]) -> Float[Tensor, "B N 263"]:
        """1 for the columns of which any part was seen, and for those of the root."""
        mask = seen.new_zeros(*seen.shape[:2], NUM_FEATURES)
        for index, part in enumerate(PARTS):
            columns = part_columns(part).to(seen.device)
            mask[..., columns] = torch.maximum(mask[..., columns], seen[..., index, None])
        mask[..., ROOT] = 1.0
        return mask

    @property
    def _columns(self) -> list[Tensor]:
        return [getattr(self, f"columns_{i}") for i in range(len(self.config.streams))]


class LossWeights(Config):
    """Weights of the tokenizer's loss terms, on normalised features."""

    parts: float = 1.0
    """L1 of each part separately."""
    whole: float = 1.0
    """L1 of the merged body."""
    positions: float = 0.5
    """Additional L1 of the merged joint positions."""
    root: float = 5.0
    """Factor on the four root columns, whose errors accumulate along the root path."""
    commitment: float = 0.02
    """Commitment loss: squared distance of the latents from their codes, summed over parts and levels."""


def load_tokenizer(path: str | Path) -> tuple[MotionTokenizer, dict[str, Any]]:
    """A trained tokenizer in eval mode and its model.json. Raises HumoError if there is none."""
    folder, description = checkpoints.find(path, "tokenizer")
    tokenizer = MotionTokenizer(TokenizerConfig(**description["architecture"]))
    checkpoints.load_into(tokenizer, folder)
    return tokenizer.eval(), description
