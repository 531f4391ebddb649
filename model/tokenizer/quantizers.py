"""Latents to codes and back, behind one protocol.

Shape letters: B motions, S steps, P parts, K levels, C channels.
"""

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from model.tokenizer.config import TokenizerConfig


@runtime_checkable
class Quantizer(Protocol):
    """Codes of latents, one per part, step and level; a module."""

    def __call__(
        self, latents: Float[Tensor, "B P S C"], *, drop_levels: bool = False
    ) -> tuple[Float[Tensor, "B P S C"], Int[Tensor, "B S P K"], Float[Tensor, ""]]:
        """Quantized latents, codes and the commitment loss, summed over levels and parts. While training, codebooks learn from
        every call; `drop_levels` leaves out a random number of the last levels."""
        ...

    def decode(self, codes: Int[Tensor, "B S P K"]) -> Float[Tensor, "B P S C"]:
        """Quantized latents of codes."""
        ...


def build_quantizer(config: TokenizerConfig) -> "ResidualCodebooks | ResidualGrids":
    """The quantizer of a config."""
    return ResidualCodebooks(config) if config.quantizer == "residual" else ResidualGrids(config)


class ResidualCodebooks(nn.Module):
    """Residual quantization with codebooks that follow running means: VQ with one level, RQ with more, PRQ with parts."""

    def __init__(self, config: TokenizerConfig) -> None:
        # Imported here because it takes seconds, and checking a config does not need it.
        from vector_quantize_pytorch import ResidualVQ

        super().__init__()
        self.levels = config.levels
        sets = 1 if config.share_parts else len(config.streams)
        # Losses are weighted by the caller, not by the library; `forward` also enables quantizer dropout per step.
        self.sets = nn.ModuleList(
            ResidualVQ(
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
            for _ in range(sets)
        )

    def forward(
        self, latents: Float[Tensor, "B P S C"], *, drop_levels: bool = False
    ) -> tuple[Float[Tensor, "B P S C"], Int[Tensor, "B S P K"], Float[Tensor, ""]]:
        parts = latents.shape[1]
        quantized, codes, commitment = [], [], latents.new_zeros(())
        for codebooks, group in zip(self.sets, latents.chunk(len(self.sets), dim=1), strict=True):
            codebooks.quantize_dropout = drop_levels and self.levels > 1
            values, indices, losses = codebooks(group.flatten(0, 1))
            quantized.append(values.unflatten(0, group.shape[:2]))
            codes.append(indices.unflatten(0, group.shape[:2]))
            commitment = commitment + losses.sum() * (parts // len(self.sets))
        return torch.cat(quantized, 1), torch.cat(codes, 1).transpose(1, 2), commitment

    def decode(self, codes: Int[Tensor, "B S P K"]) -> Float[Tensor, "B P S C"]:
        groups: Sequence[Tensor] = codes.transpose(1, 2).chunk(len(self.sets), dim=1)
        return torch.cat(
            [
                codebooks.get_output_from_indices(group.flatten(0, 1)).unflatten(0, group.shape[:2])
                for codebooks, group in zip(self.sets, groups, strict=True)
            ],
            dim=1,
        )


class ResidualGrids(nn.Module):
    """Finite scalar quantization, residual over the levels. Nothing is committed and no code can die."""

    def __init__(self, config: TokenizerConfig) -> None:
        from vector_quantize_pytorch import ResidualFSQ

        super().__init__()
        self.levels = config.levels
        self.grids = ResidualFSQ(
            dim=config.code_width,
            levels=list(config.fsq_grid),
            num_quantizers=config.levels,
            quantize_dropout=config.levels > 1,
        )

    def forward(
        self, latents: Float[Tensor, "B P S C"], *, drop_levels: bool = False
    ) -> tuple[Float[Tensor, "B P S C"], Int[Tensor, "B S P K"], Float[Tensor, ""]]:
        self.grids.quantize_dropout = drop_levels and self.levels > 1
        values, indices = self.grids(latents.flatten(0, 1))
        shape = latents.shape[:2]
        return values.unflatten(0, shape), indices.unflatten(0, shape).transpose(1, 2), latents.new_zeros(())

    def decode(self, codes: Int[Tensor, "B S P K"]) -> Float[Tensor, "B P S C"]:
        folded = codes.transpose(1, 2)
        return self.grids.get_output_from_indices(folded.flatten(0, 1)).unflatten(0, folded.shape[:2])
