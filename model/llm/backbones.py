"""Causal transformers behind one protocol: embeddings in, states out, with a key-value cache.

Shape letters: B sequences, L positions, D width.
"""

import math
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from model.llm.transformer import Block, Cache, RMSNorm, rotary_frequencies

EMBEDDING_STD = 0.02


@runtime_checkable
class Backbone(Protocol):
    """A causal language model without its sequences; a module."""

    width: int
    context: int
    """Largest number of positions."""

    def __call__(
        self, x: Float[Tensor, "B L D"], cache: Any = None, adapted: Bool[Tensor, "B L"] | None = None
    ) -> Float[Tensor, "B L D"]:
        """States of the positions that follow the cached ones; updates the cache. A pretrained model passes positions that are not
        `adapted` as it did before it was trained for motion; None: all of them are."""
        ...

    def new_cache(self, batch: int) -> Any:
        """An empty cache for a whole context."""
        ...

    def embed_text(self, tokens: Int[Tensor, "B L"]) -> Float[Tensor, "B L D"]: ...

    def text_logits(self, states: Float[Tensor, "*B D"]) -> Float[Tensor, "*B tokens"]: ...


class OwnBackbone(nn.Module):
    """A small transformer with word embeddings that are tied to its logits."""

    rotary: Tensor

    def __init__(self, *, width: int, layers: int, heads: int, context: int, dropout: float, text_tokens: int) -> None:
        super().__init__()
        self.width, self.heads, self.context = width, heads, context
        self.text = nn.Embedding(text_tokens, width)
        self.blocks = nn.ModuleList(Block(width, heads, dropout) for _ in range(layers))
        self.norm = RMSNorm(width)
        nn.init.normal_(self.text.weight, std=EMBEDDING_STD)
        for block in self.blocks:
            assert isinstance(block, Block)
            # The variance of the residual stream must not grow with the number of blocks.
            nn.init.normal_(block.attention.out.weight, std=0.02 / math.sqrt(2 * layers))
            nn.init.normal_(block.down.weight, std=0.02 / math.sqrt(2 * layers))
        angles = torch.outer(torch.arange(context), rotary_frequencies(width // heads))
        self.register_buffer("rotary", torch.stack([angles.cos(), angles.sin()]), persistent=False)

    def forward(
        self, x: Float[Tensor, "B L D"], cache: Cache | None = None, adapted: Bool[Tensor, "B L"] | None = None
    ) -> Float[Tensor, "B L D"]:
        rotary, mask = (cache if cache is not None else Cache([], [])).view(self.rotary, x.shape[1])
        for i, block in enumerate(self.blocks):
            x = block(x, rotary, mask, cache, i)
        if cache is not None:
            cache.advance(x.shape[1])
        return self.norm(x)

    def new_cache(self, batch: int) -> Cache:
        shape = (batch, self.heads, self.context, self.width // self.heads)
        weight = self.text.weight
        return Cache([weight.new_empty(shape) for _ in self.blocks], [weight.new_empty(shape) for _ in self.blocks])

    def embed_text(self, tokens: Int[Tensor, "B L"]) -> Float[Tensor, "B L D"]:
        return self.text(tokens)

    def text_logits(self, states: Float[Tensor, "*B D"]) -> Float[Tensor, "*B tokens"]:
        return nn.functional.linear(states, self.text.weight)
