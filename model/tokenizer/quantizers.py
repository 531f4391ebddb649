"""Latents to codes and back, behind one protocol.

Shape letters: B motions, S steps, P parts, K levels, C channels.
"""

from collections.abc import Sequence
from typing import Any, Protocol, cast, runtime_checkable

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from model.tokenizer.config import TokenizerConfig
from model.tokenizer.convolutions import Memory


@runtime_checkable
class Quantizer(Protocol):
    """Codes of latents, one per part, step and level; a module."""

    def __call__(
        self,
        latents: Float[Tensor, "B P S C"],
        *,
        drop_levels: bool = False,
        memory: Memory | None = None,
        noise: float = 0.0,
        levels: int | None = None,
    ) -> tuple[Float[Tensor, "B P S C"], Int[Tensor, "B S P K"], Float[Tensor, ""]]:
        """Quantized latents, codes and the commitment loss, summed over levels and parts. While training, codebooks learn from
        every call; `drop_levels` leaves out a random number of the last levels. With a memory (initially an empty dict)
        consecutive calls quantize without seams. `noise` disturbs the quantized latents, each sequence by a deviation up to it;
        what is predicted from them makes up for it. `levels` uses the first levels alone, when not training."""
        ...

    def decode(self, codes: Int[Tensor, "B S P K"], memory: Memory | None = None) -> Float[Tensor, "B P S C"]:
        """Quantized latents of codes."""
        ...


def build_quantizer(config: TokenizerConfig) -> "ResidualCodebooks | ResidualGrids":
    """The quantizer of a config."""
    return ResidualCodebooks(config) if config.quantizer == "residual" else ResidualGrids(config)


class ResidualCodebooks(nn.Module):
    """Residual quantization with codebooks that follow running means: VQ with one level, RQ with more, PRQ with parts.

    With `predict` a step is predicted from the quantized steps before it, and the difference is quantized.
    """

    def __init__(self, config: TokenizerConfig) -> None:
        # Imported here because it takes seconds, and checking a config does not need it.
        from vector_quantize_pytorch import ResidualVQ

        super().__init__()
        self.levels, self.order, self.beam, self.width = config.levels, config.predict, config.beam, config.code_width
        parts = len(config.streams)
        if self.order:
            self.prediction = nn.Parameter(torch.zeros(parts, self.order * self.width, self.width))
        # Losses are weighted by the caller, not by the library; `forward` also enables quantizer dropout per step.
        self.sets = nn.ModuleList(
            ResidualVQ(
                dim=config.code_width,
                num_quantizers=config.levels,
                codebook_size=config.codebook_size,
                shared_codebook=config.share_levels,
                kmeans_init=True,
                decay=0.99,
                threshold_ema_dead_code=config.replace_below,
                commitment_weight=1.0,
                rotation_trick=config.rotation_trick and not config.predict,
                quantize_dropout=config.levels > 1,
            )
            for _ in range(1 if config.share_parts else parts)
        )

    def forward(
        self,
        latents: Float[Tensor, "B P S C"],
        *,
        drop_levels: bool = False,
        memory: Memory | None = None,
        noise: float = 0.0,
        levels: int | None = None,
    ) -> tuple[Float[Tensor, "B P S C"], Int[Tensor, "B S P K"], Float[Tensor, ""]]:
        if self.training and not self.order:
            return self._learn(latents, drop_levels and self.levels > 1)
        levels = levels or self.levels
        if drop_levels and self.levels > 1:
            levels = int(torch.randint(1, self.levels + 1, ()))
        books = [cast(Any, codebooks).codebooks[:levels] for codebooks in self.sets]
        if not self.order:
            return self._at_once(latents, books, noise)
        history = self._history(latents, memory)
        amount = noise * torch.rand(len(latents), 1, 1, device=latents.device)
        values, codes, differences, errors = [], [], [], latents.new_zeros(())
        for step in range(latents.shape[2]):
            predicted = self.predict(history)
            difference = latents[:, :, step] - predicted
            nearest, chosen = self._search(difference.detach(), books)
            errors = errors + (difference - nearest).square().mean()
            # Straight through: the decoder gets the code, the encoder the decoder's gradient.
            value = predicted + difference + (nearest - difference).detach()
            if noise:
                value = value + amount * torch.randn_like(value)
            history = self.append(history, value)
            values.append(value)
            codes.append(chosen)
            differences.append(difference.detach())
        if memory is not None and history is not None:
            memory[self] = history
        if self.training:
            self._learn(torch.stack(differences, 2), False)
        # Like the library's losses: a mean over numbers, summed over parts.
        commitment = errors * latents.shape[1] / latents.shape[2]
        return torch.stack(values, 2), torch.stack(codes, 1), commitment

    def _at_once(
        self, latents: Float[Tensor, "B P S C"], books: Sequence[Float[Tensor, "K V C"]], noise: float
    ) -> tuple[Float[Tensor, "B P S C"], Int[Tensor, "B S P K"], Float[Tensor, ""]]:
        """Steps that do not depend on each other."""
        folded = latents.transpose(1, 2).flatten(0, 1)
        nearest, chosen = self._search(folded.detach(), books)
        commitment = (folded - nearest).square().mean() * latents.shape[1]
        values = (folded + (nearest - folded).detach()).unflatten(0, (len(latents), -1))
        if noise:
            amount = noise * torch.rand(len(latents), 1, 1, 1, device=latents.device)
            values = values + amount * torch.randn_like(values)
        return values.transpose(1, 2), chosen.unflatten(0, (len(latents), -1)), commitment

    def decode(self, codes: Int[Tensor, "B S P K"], memory: Memory | None = None) -> Float[Tensor, "B P S C"]:
        groups: Sequence[Tensor] = codes.transpose(1, 2).chunk(len(self.sets), dim=1)
        nearest = torch.cat(
            [
                cast(Any, codebooks).get_output_from_indices(group.flatten(0, 1)).unflatten(0, group.shape[:2])
                for codebooks, group in zip(self.sets, groups, strict=True)
            ],
            dim=1,
        )
        if not self.order:
            return nearest
        history = self._history(nearest, memory)
        values = []
        for step in range(nearest.shape[2]):
            values.append(self.predict(history) + nearest[:, :, step])
            history = self.append(history, values[-1])
        if memory is not None and history is not None:
            memory[self] = history
        return torch.stack(values, 2)

    def _learn(
        self, latents: Float[Tensor, "B P S C"], drop_levels: bool
    ) -> tuple[Float[Tensor, "B P S C"], Int[Tensor, "B S P K"], Float[Tensor, ""]]:
        """Quantize all at once and move the codebooks."""
        parts = latents.shape[1]
        quantized, codes, commitment = [], [], latents.new_zeros(())
        for codebooks, group in zip(self.sets, latents.chunk(len(self.sets), dim=1), strict=True):
            cast(Any, codebooks).quantize_dropout = drop_levels
            values, indices, losses = codebooks(group.flatten(0, 1))
            quantized.append(values.unflatten(0, group.shape[:2]))
            codes.append(indices.unflatten(0, group.shape[:2]))
            commitment = commitment + losses.sum() * (parts // len(self.sets))
        return torch.cat(quantized, 1), torch.cat(codes, 1).transpose(1, 2), commitment

    def _history(self, like: Float[Tensor, "B P S C"], memory: Memory | None) -> Float[Tensor, "B P H"] | None:
        """The last quantized steps, latest first; None before the first step."""
        return memory.get(self) if memory is not None and self.order else None

    def predict(self, history: Float[Tensor, "B P H"] | None) -> Float[Tensor, "..."] | float:
        """The next step; zero before the first one."""
        if history is None or not self.order:
            return 0.0
        return torch.einsum("bph,phc->bpc", history, self.prediction)

    def append(
        self, history: Float[Tensor, "B P H"] | None, value: Float[Tensor, "B P C"]
    ) -> Float[Tensor, "B P H"] | None:
        """The first step also stands for those before it."""
        if not self.order:
            return None
        if history is None:
            return value.repeat(1, 1, self.order)
        return torch.cat([value, history[..., : -self.width]], dim=-1)

    @torch.no_grad()
    def _search(
        self, wanted: Float[Tensor, "B P C"], books: Sequence[Float[Tensor, "K V C"]]
    ) -> tuple[Float[Tensor, "B P C"], Int[Tensor, "B P K"]]:
        groups = torch.stack(wanted.chunk(len(books), dim=1)).flatten(1, 2)
        nearest, chosen = nearest_codes(groups, torch.stack(list(books)), self.beam)
        shape = (len(books), len(wanted), -1)
        return (
            nearest.unflatten(1, shape[1:]).transpose(0, 1).flatten(1, 2),
            chosen.unflatten(1, shape[1:]).transpose(0, 1).flatten(1, 2),
        )


def nearest_codes(
    wanted: Float[Tensor, "G M C"], books: Float[Tensor, "G K V C"], beam: int
) -> tuple[Float[Tensor, "G M C"], Int[Tensor, "G M K"]]:
    """Codes, one of each book, whose sum is near to what is wanted, and the sum; `beam` candidates are kept from book to book. G
    sets of books serve as many groups of vectors."""
    size, levels = books.shape[2], books.shape[1]
    missing = wanted[:, :, None]
    codes = torch.empty(*wanted.shape[:2], 1, 0, dtype=torch.long, device=wanted.device)
    squares_of_books = books.square().sum(-1)
    for level in range(levels):
        book = books[:, level]
        products = torch.bmm(missing.flatten(1, 2), book.mT).unflatten(1, missing.shape[1:3])
        squares = missing.square().sum(-1, keepdim=True) + squares_of_books[:, level, None, None] - 2 * products
        kept = 1 if level + 1 == levels else min(beam, squares.shape[2] * size)
        best = squares.flatten(2).topk(kept, largest=False).indices
        origin, code = best.div(size, rounding_mode="floor"), best % size
        chosen = book.gather(1, code.flatten(1)[..., None].expand(-1, -1, book.shape[-1])).unflatten(1, code.shape[1:])
        missing = missing.gather(2, origin[..., None].expand(-1, -1, -1, missing.shape[-1])) - chosen
        codes = torch.cat([codes.gather(2, origin[..., None].expand(-1, -1, -1, level)), code[..., None]], dim=-1)
    return wanted - missing[:, :, 0], codes[:, :, 0]


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
        self,
        latents: Float[Tensor, "B P S C"],
        *,
        drop_levels: bool = False,
        memory: Memory | None = None,
        noise: float = 0.0,
        levels: int | None = None,
    ) -> tuple[Float[Tensor, "B P S C"], Int[Tensor, "B S P K"], Float[Tensor, ""]]:
        self.grids.quantize_dropout = drop_levels and self.levels > 1
        values, indices = self.grids(latents.flatten(0, 1))
        shape = latents.shape[:2]
        if noise:
            amount = noise * torch.rand(shape[0], device=latents.device).repeat_interleave(shape[1])
            values = values + amount[:, None, None] * torch.randn_like(values)
        values, codes = values.unflatten(0, shape), indices.unflatten(0, shape).transpose(1, 2)
        if levels is not None and levels < self.levels:
            codes = codes[..., :levels]
            self.grids.quantize_dropout = True  # the library decodes fewer levels only then
            values = self.decode(codes)
        return values, codes, latents.new_zeros(())

    def decode(self, codes: Int[Tensor, "B S P K"], memory: Memory | None = None) -> Float[Tensor, "B P S C"]:
        folded = codes.transpose(1, 2)
        return self.grids.get_output_from_indices(folded.flatten(0, 1)).unflatten(0, folded.shape[:2])
