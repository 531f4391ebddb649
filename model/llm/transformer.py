"""Transformer blocks: pre-norm with RMSNorm, rotary positions, SwiGLU, no biases, and a key-value cache.

Shape letters: B sequences, L positions, D width, H heads.
"""

import contextlib
import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel


@dataclass(eq=False)
class Cache:
    """Key-value cache: keys and values per layer, and the number of cached positions."""

    keys: list[Float[Tensor, "B H L d"]]
    values: list[Float[Tensor, "B H L d"]]
    length: int = 0

    def view(
        self, rotary: Float[Tensor, "2 L half"], count: int
    ) -> tuple[Float[Tensor, "2 ..."], Bool[Tensor, "..."] | None]:
        """Rotary angles of the next `count` positions, and which positions each of them attends to; None: all."""
        start, mask = self.length, None
        if count > 1:
            mask = torch.ones(count, start + count, dtype=torch.bool, device=rotary.device).tril(start)
        return rotary[:, start : start + count], mask

    def extend(
        self, layer: int, k: Float[Tensor, "B H n d"], v: Float[Tensor, "B H n d"]
    ) -> tuple[Float[Tensor, "B H M d"], Float[Tensor, "B H M d"]]:
        """Store keys and values of the next positions; those of all positions up to them."""
        end = self.length + k.shape[2]
        self.keys[layer][:, :, self.length : end] = k
        self.values[layer][:, :, self.length : end] = v
        return self.keys[layer][:, :, :end].to(k), self.values[layer][:, :, :end].to(k)

    def advance(self, count: int) -> None:
        """Count positions that all layers have stored."""
        self.length += count


class RMSNorm(nn.RMSNorm):
    """With its weight in the precision of the input, for which there is a fused kernel also under autocast."""

    def forward(self, x: Float[Tensor, "*B D"]) -> Float[Tensor, "*B D"]:
        weight = None if self.weight is None else self.weight.to(x.dtype)
        return F.rms_norm(x, self.normalized_shape, weight, self.eps)


class Attention(nn.Module):
    """Multi-head attention with rotary positions (arXiv 2104.09864)."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.out = nn.Linear(width, width, bias=False)

    def forward(
        self, x: Float[Tensor, "B L D"], rotary: Tensor | None, mask: Tensor | None, cache: Cache | None, layer: int
    ) -> Float[Tensor, "B L D"]:
        q, k, v = self.qkv(x).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        if rotary is not None:
            q, k = rotate(q, rotary), rotate(k, rotary)
        if cache is not None:
            k, v = cache.extend(layer, k, v)
        return self.out(F.scaled_dot_product_attention(q, k, v, attn_mask=mask).transpose(1, 2).flatten(2))


class Block(nn.Module):
    """Attention and SwiGLU (arXiv 2002.05202), each with pre-norm (RMSNorm) and a residual connection."""

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        hidden = math.ceil(width * 8 / 3 / 32) * 32
        self.norm_attention, self.norm_mlp = RMSNorm(width), RMSNorm(width)
        self.attention = Attention(width, heads)
        self.gate_up = nn.Linear(width, 2 * hidden, bias=False)
        self.down = nn.Linear(hidden, width, bias=False)
        self.dropout = nn.Dropout(dropout)

    def forward(
        self, x: Float[Tensor, "B L D"], rotary: Tensor | None, mask: Tensor | None, cache: Cache | None, layer: int
    ) -> Float[Tensor, "B L D"]:
        x = x + self.dropout(self.attention(self.norm_attention(x), rotary, mask, cache, layer))
        gate, up = self.gate_up(self.norm_mlp(x)).chunk(2, dim=-1)
        return x + self.dropout(self.down(F.silu(gate) * up))


@contextlib.contextmanager
def fast_attention(device: torch.device) -> Iterator[None]:
    """Plain matrix products on CPUs, where the backward pass of the fused attention kernel is slower."""
    if device.type == "cpu":
        with sdpa_kernel(SDPBackend.MATH):
            yield
    else:
        yield


def rotary_frequencies(width: int) -> Float[Tensor, "half"]:
    return 10_000.0 ** -(torch.arange(0, width, 2) / width)


def rotate(x: Float[Tensor, "B H L d"], rotary: Float[Tensor, "2 *L half"]) -> Float[Tensor, "B H L d"]:
    a, b = x.chunk(2, dim=-1)
    cos, sin = rotary.to(x.dtype)
    return torch.cat([a * cos - b * sin, a * sin + b * cos], dim=-1)
