"""The flat layout: every code of a motion that is to be predicted is a position of its own (arXiv 2508.07863).

A step is written in the order of `MotionVocabulary`, part by part and the levels of a part in order, so a step of five parts and
four levels takes twenty passes of the backbone. The motion of a prompt enters as in the other layout, a position a step.

Shape letters: B sequences, L positions, M positions with codes spread out, N codes, D width, P parts, K levels.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from model.llm.backbones import EMBEDDING_STD


class FlatCodes(nn.Module):
    """Embeddings and logits of single codes; a token names part and code, its level follows from its place in the step."""

    def __init__(self, parts: int, levels: int, codebook_size: int, width: int) -> None:
        super().__init__()
        self.parts, self.levels, self.codebook_size = parts, levels, codebook_size
        self.tokens = nn.Embedding(parts * codebook_size, width)
        self.place = nn.Parameter(torch.randn(parts * levels, width) * EMBEDDING_STD)
        self.heads = nn.Parameter(torch.randn(parts, width, codebook_size) * width**-0.5)
        nn.init.normal_(self.tokens.weight, std=EMBEDDING_STD)

    @property
    def places(self) -> int:
        """Positions of a step."""
        return self.parts * self.levels

    def embed(self, codes: Int[Tensor, "*N"], places: Int[Tensor, "*N"]) -> Float[Tensor, "*N D"]:
        """Inputs of codes at their places in a step."""
        return self.tokens(places // self.levels * self.codebook_size + codes) + self.place[places]

    def logits(self, states: Float[Tensor, "N D"], place: Int[Tensor, ""]) -> Float[Tensor, "N codes"]:
        """Logits of the codes at one place, from the states of the position before."""
        return states @ self.heads[place // self.levels].to(states.dtype)

    def step_logits(self, states: Float[Tensor, "steps_places D"]) -> Float[Tensor, "steps P K codes"]:
        """Logits of all codes of whole steps, from the states of the positions before each of them."""
        steps = states.unflatten(0, (-1, self.parts, self.levels))
        return torch.einsum("spkd,pdc->spkc", steps, self.heads.to(states.dtype))

    def sample(
        self,
        states: list[Float[Tensor, "1 D"]],
        sampler: Callable[[Float[Tensor, "B 1 codes"]], Int[Tensor, "B 1"]],
        advance: Callable[[Float[Tensor, "1 1 D"], int], Float[Tensor, "1 D"]],
        known: tuple[Int[Tensor, "P K"], Bool[Tensor, "P"]] | None = None,
    ) -> Int[Tensor, "B P K"]:
        """Codes of a step. `advance` passes an input to the backbone of one sequence and gives its state; the last code is left for
        the caller to pass on. Codes of parts that are `known` are not drawn."""
        rows, drawn = list(states), []
        for number in range(self.places):
            place = torch.tensor(number, device=states[0].device)
            code = sampler(self.logits(torch.cat(rows), place)[:, None])[:, 0]
            part, level = divmod(number, self.levels)
            if known is not None:
                code = torch.where(known[1][part], known[0][part, level], code)
            drawn.append(code)
            if number + 1 < self.places:
                x = self.embed(code, place.expand_as(code))
                rows = [advance(x[row : row + 1, None], row) for row in range(len(rows))]
        return torch.stack(drawn, -1).unflatten(-1, (self.parts, self.levels))


@dataclass(frozen=True, eq=False)
class Spread:
    """Where the positions of a batch are after the codes of target motions are spread out."""

    source: Int[Tensor, "B M"]
    """The position that each comes from."""
    place: Int[Tensor, "B M"]
    """The place of a code in its step; 0 elsewhere."""
    is_code: Bool[Tensor, "B M"]
    is_last: Bool[Tensor, "B M"]
    """Last codes of steps, and all positions that are no codes."""

    @classmethod
    def of(cls, is_target: Bool[Tensor, "B L"], places: int) -> "Spread":
        """`places` positions for one that is a target, one for any other."""
        counts = torch.where(is_target, places, 1)
        ends = counts.cumsum(1)
        positions = torch.arange(int(ends[:, -1].max()), device=is_target.device).expand(len(ends), -1).contiguous()
        source = torch.searchsorted(ends, positions, right=True)
        is_real = source < is_target.shape[1]
        source = source.clamp(max=is_target.shape[1] - 1)
        is_code = is_target.gather(1, source) & is_real
        place = torch.where(is_code, positions - (ends - counts).gather(1, source), 0)
        return cls(source, place, is_code, is_real & (~is_code | (place == places - 1)))

    def flags(self, values: Bool[Tensor, "B L"]) -> Bool[Tensor, "B M"]:
        """Flags of positions, at the last code of a step."""
        return values.gather(1, self.source) & self.is_last

    def rows(self, values: Float[Tensor, "B L D"]) -> Float[Tensor, "B M D"]:
        """Vectors of positions, the same at all codes of a step."""
        return values.gather(1, self.source[..., None].expand(-1, -1, values.shape[-1]))

    def numbers(self, values: Int[Tensor, "B L"]) -> Int[Tensor, "B M"]:
        """Numbers of positions, the same at all codes of a step."""
        return values.gather(1, self.source)
