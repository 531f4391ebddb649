"""Causal convolutions from feature rows to latents and back.

Shape letters: B motions, N frames, S steps, P parts, C channels.
"""

import math
from typing import cast

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from model.tokenizer.config import TokenizerConfig

Memory = dict[nn.Module, Tensor]
"""State of streaming: for each convolution, the last inputs that it still needs."""


class CausalConv(nn.Conv1d):
    """Causal convolution, padded on the left with copies of the first frame."""

    def __init__(self, inputs: int, outputs: int, kernel: int, *, stride: int = 1, dilation: int = 1) -> None:
        super().__init__(inputs, outputs, kernel, stride=stride, dilation=dilation)
        self.left_context = (kernel - 1) * dilation + 1 - stride

    def forward(  # type: ignore[override]
        self, x: Float[Tensor, "B C N"], memory: Memory | None = None
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
    """ReLU, dilated convolution, ReLU, pointwise convolution, with a skip connection.

    With `parts` above 1 the convolution reaches over neighbouring parts as well: three by three, over parts and time.
    """

    def __init__(self, width: int, dilation: int, parts: int = 1) -> None:
        super().__init__()
        self.parts = parts
        self.wide = CausalConv(width * (3 if parts > 1 else 1), width, 3, dilation=dilation)
        self.point = nn.Conv1d(width, width, 1)

    def forward(self, x: Float[Tensor, "B C N"], memory: Memory | None = None) -> Float[Tensor, "B C N"]:
        active = F.relu(x)
        if self.parts > 1:
            padded = F.pad(active.unflatten(0, (-1, self.parts)), (0, 0, 0, 0, 1, 1))
            active = torch.cat([padded[:, :-2], padded[:, 1:-1], padded[:, 2:]], dim=2).flatten(0, 1)
        return x + self.point(F.relu(self.wide(active, memory)))


class Encoder(nn.Module):
    """Feature rows of each part to latents, one per step. The first convolution is specific to the part."""

    def __init__(self, config: TokenizerConfig, channels: list[int]) -> None:
        super().__init__()
        self.patch = config.patch
        mixed = len(channels) if config.mix_parts else 1
        self.first = nn.ModuleList(CausalConv(count * config.patch, config.width, 3) for count in channels)
        layers: list[nn.Module] = []
        for stride in config.strides:
            layers.append(CausalConv(config.width, config.width, 2 * stride, stride=stride))
            layers += [ResidualBlock(config.width, dilation, mixed) for dilation in config.dilations]
        self.layers = nn.ModuleList(layers)
        self.last = nn.Conv1d(config.width, config.code_width, 1)
        self.direct = _direct(config, [(count * config.patch, config.code_width) for count in channels])

    def forward(self, parts: list[Float[Tensor, "B _c N"]], memory: Memory | None = None) -> Float[Tensor, "B P S C"]:
        patches = [part.unflatten(-1, (-1, self.patch)).transpose(-1, -2).flatten(1, 2) for part in parts]
        x = torch.stack([first(patch, memory) for first, patch in zip(self.first, patches, strict=True)], dim=1)
        hidden = x.flatten(0, 1)
        for layer in self.layers:
            hidden = layer(hidden, memory)
        latents = self.last(F.relu(hidden)).unflatten(0, x.shape[:2])
        if self.direct is not None:
            latents = latents + torch.stack([a(b) for a, b in zip(self.direct, patches, strict=True)], dim=1)
        return latents.transpose(-1, -2)


class Decoder(nn.Module):
    """Latents to feature rows of each part. The last convolution is specific to the part; a learned part embedding
    (`mark`) identifies the part to the shared layers, since the codes do not."""

    def __init__(self, config: TokenizerConfig, channels: list[int]) -> None:
        super().__init__()
        self.patch, self.lookahead = config.patch, config.lookahead
        mixed = len(channels) if config.mix_parts else 1
        self.mark = nn.Parameter(torch.zeros(len(channels), 1, config.code_width))
        self.first = CausalConv(config.code_width, config.width, 3)
        self.strides = config.strides[::-1]
        self.blocks = nn.ModuleList(
            nn.ModuleList(ResidualBlock(config.width, dilation, mixed) for dilation in config.dilations[::-1])
            for _ in self.strides
        )
        self.merge = nn.ModuleList(CausalConv(config.width, config.width, 3) for _ in self.strides)
        self.last = nn.ModuleList(CausalConv(config.width, count * config.patch, 3) for count in channels)
        self.direct = _direct(config, [(config.code_width, count * config.patch) for count in channels])

    def forward(self, latents: Float[Tensor, "B P S C"], memory: Memory | None = None) -> list[Float[Tensor, "B _c N"]]:
        """Rows of each part. With a `lookahead` the convolutions see that many steps after the one whose rows they give: without
        a memory the last step stands for those that follow it, with one the rows of the last steps come with later calls."""
        decoded, following = latents, latents
        if self.lookahead and memory is None:
            following = torch.cat([latents, latents[:, :, -1:].expand(-1, -1, self.lookahead, -1)], dim=2)
        elif self.lookahead and memory is not None:
            decoded = torch.cat([memory[self], latents], dim=2) if self in memory else latents
            memory[self] = decoded[:, :, -self.lookahead :]
            decoded = decoded[:, :, : max(decoded.shape[2] - self.lookahead, 0)]
        x = self.first((following + self.mark).flatten(0, 1).transpose(-1, -2), memory)
        for stride, blocks, merge in zip(self.strides, self.blocks, self.merge, strict=True):
            for block in cast(nn.ModuleList, blocks):
                x = block(x, memory)
            x = merge(x.repeat_interleave(stride, dim=-1), memory)
        x = F.relu(x).unflatten(0, latents.shape[:2])
        count = decoded.shape[2] * math.prod(self.strides)
        patches = [last(x[:, i], memory)[..., x.shape[-1] - count :] for i, last in enumerate(self.last)]
        if self.direct is not None and count:
            codes = decoded.transpose(-1, -2)
            patches = [patch + self.direct[i](codes[:, i]) for i, patch in enumerate(patches)]
        return [patch.unflatten(1, (-1, self.patch)).transpose(-1, -2).flatten(2) for patch in patches]

    def pending(self, memory: Memory) -> Float[Tensor, "B P S C"] | None:
        """Latents whose rows wait for the steps that follow; None if there are none."""
        return memory.get(self)


def _direct(config: TokenizerConfig, shapes: list[tuple[int, int]]) -> nn.ModuleList | None:
    """Linear maps beside the convolutions where a step is a patch: they learn at once what the convolutions then refine."""
    if config.patch == 1 or math.prod(config.strides) > 1:
        return None
    return nn.ModuleList(nn.Conv1d(inputs, outputs, 1) for inputs, outputs in shapes)
