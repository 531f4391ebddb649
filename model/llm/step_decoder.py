"""The small transformer that gives the codes of a motion step from a backbone state.

Shape letters: N steps, D width of the state, W own width, P parts, K levels, H heads.
"""

from collections.abc import Callable

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from model.llm.transformer import Block, Cache, RMSNorm


class StepDecoder(nn.Module):
    """Codes of a step, level by level (after the depth transformers of RQ-Transformer, arXiv 2203.01941, and Moshi, arXiv
    2410.00037): pass k gives the level-k codes of all parts at once, conditioned on all codes of the previous levels. On the
    first level, which decides what the body does, the parts may come in turn, each conditioned on the parts before it.

    Parts whose codes are given condition all others from the beginning.
    """

    mask: Tensor

    def __init__(
        self,
        *,
        state_width: int,
        width: int,
        layers: int,
        heads: int,
        dropout: float,
        in_turn: bool,
        parts: int,
        levels: int,
        codebook_size: int,
    ) -> None:
        super().__init__()
        self.parts, self.levels, self.heads, self.in_turn = parts, levels, heads, in_turn and parts > 1
        self.state = nn.Linear(state_width, width, bias=False)
        self.given = nn.Linear(width, width, bias=False)
        self.place = nn.Parameter(torch.randn(levels, parts, width) * 0.02)
        self.code = nn.Parameter(torch.randn(max(levels - 1, 1), parts, codebook_size, width) * 0.02)
        self.blocks = nn.ModuleList(Block(width, heads, dropout) for _ in range(layers))
        self.norm = RMSNorm(width)
        self.heads_out = nn.Parameter(torch.randn(levels, parts, width, codebook_size) * width**-0.5)
        level, part = torch.arange(levels).repeat_interleave(parts), torch.arange(parts).repeat(levels)
        earlier = level[:, None] > level
        beside = (level[:, None] == level) & ((level[:, None] > 0) | (part[:, None] >= part) | (not self.in_turn))
        self.register_buffer("mask", earlier | beside, persistent=False)

    def forward(
        self, state: Float[Tensor, "N D"], codes: Int[Tensor, "N P K"], given: Bool[Tensor, "N P"] | None = None
    ) -> Float[Tensor, "N K P codes"]:
        """Logits of all codes, each conditioned on the codes before it (teacher forcing)."""
        x = self._base(state, codes, given)[:, None, None] + self.place
        if self.levels > 1:
            previous = self._embed(codes[..., :-1], range(self.levels - 1))
            x = torch.cat([x[:, :1], x[:, 1:] + previous], dim=1)
        if self.in_turn:
            before = self._embed(codes[..., :1], range(1))[:, 0, :-1]
            first = torch.cat([x[:, 0, :1], x[:, 0, 1:] + before], dim=1)
            x = torch.cat([first[:, None], x[:, 1:]], dim=1)
        x = self._run(x.flatten(1, 2), self.mask, None).unflatten(1, (self.levels, self.parts))
        return torch.einsum("nkpd,kpdc->nkpc", x, self.heads_out.to(x.dtype))

    def sample(
        self,
        state: Float[Tensor, "N D"],
        sampler: Callable[[Float[Tensor, "N p codes"]], Int[Tensor, "N p"]],
        given_codes: Int[Tensor, "N P K"] | None = None,
        given: Bool[Tensor, "N P"] | None = None,
    ) -> Int[Tensor, "N P K"]:
        """Sampled codes of one step; those of `given` parts are taken from `given_codes`."""
        shape = (len(state), self.heads, self.levels * self.parts, self.place.shape[-1] // self.heads)
        cache = Cache([state.new_empty(shape) for _ in self.blocks], [state.new_empty(shape) for _ in self.blocks])
        base = self._base(state, given_codes, given)[:, None]
        codes: list[Tensor] = []
        for level in range(self.levels):
            chosen: list[Tensor] = []
            for parts in [slice(p, p + 1) for p in range(self.parts)] if self.in_turn and not level else [slice(None)]:
                x = base + self.place[level, parts]
                if level:
                    x = x + self._embed(codes[-1][..., None], range(level - 1, level))[:, 0]
                elif chosen:
                    part = len(chosen) - 1
                    x = x + self.code[0, part, chosen[-1]]
                x = self._run(x, None, cache)
                cache.advance(x.shape[1])
                drawn = sampler(torch.einsum("npd,pdc->npc", x, self.heads_out[level, parts].to(x.dtype)))
                if given is not None and given_codes is not None:
                    drawn = torch.where(given[:, parts], given_codes[:, parts, level], drawn)
                chosen.append(drawn)
            codes.append(torch.cat(chosen, dim=1))
        return torch.stack(codes, dim=-1)

    def _base(
        self, state: Float[Tensor, "N D"], codes: Int[Tensor, "N P K"] | None, given: Bool[Tensor, "N P"] | None
    ) -> Float[Tensor, "N W"]:
        base = self.state(state)
        if given is None or codes is None:
            return base
        known = self._embed(codes[..., : len(self.code)], range(len(self.code)))
        return base + self.given((known * given[:, None, :, None]).sum((1, 2)).to(base.dtype))

    def _embed(self, codes: Int[Tensor, "N P k"], levels: range) -> Float[Tensor, "N k P W"]:
        parts = torch.arange(self.parts, device=codes.device)
        level = torch.arange(levels.start, levels.stop, device=codes.device)[:, None]
        return self.code[level, parts, codes.transpose(1, 2)]

    def _run(self, x: Float[Tensor, "N L W"], mask: Tensor | None, cache: Cache | None) -> Float[Tensor, "N L W"]:
        for i, block in enumerate(self.blocks):
            x = block(x, None, mask, cache, i)
        return self.norm(x)
