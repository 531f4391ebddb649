"""From a frozen tower's tokens to inputs of the language model: the part of vision that is trained."""

import math

import torch
from jaxtyping import Float
from torch import Tensor, nn

_FREQUENCIES = 12
_LONGEST_S = 64.0
"""Longest period of the sines that encode time, seconds; each next one has half of it."""


class Projector(nn.Module):
    """Two layers for each token, with an embedding of its place in the frame and one of its time.

    The tokens that sum frames up have a first layer of their own: they hold something else than those of places.
    """

    def __init__(
        self, width: int, tokens_per_frame: int, out_width: int, *, hidden: int = 0, out_std: float = 0.02
    ) -> None:
        """`out_width` is the width of the language model, `out_std` the size of its embeddings, with which this one begins."""
        super().__init__()
        hidden = hidden or out_width
        self.norm = nn.ModuleList([nn.LayerNorm(width), nn.LayerNorm(width)])
        self.inner = nn.ModuleList([nn.Linear(width, hidden), nn.Linear(width, hidden)])
        self.place = nn.Embedding(tokens_per_frame, hidden)
        self.time = nn.Linear(2 * _FREQUENCIES, hidden, bias=False)
        self.outer = nn.Linear(hidden, out_width)
        nn.init.normal_(self.place.weight, std=0.5)
        nn.init.normal_(self.outer.weight, std=out_std / math.sqrt(hidden / 2))
        nn.init.zeros_(self.outer.bias)

    def forward(self, features: Float[Tensor, "V _columns"]) -> Float[Tensor, "V out"]:
        """Inputs of the language model, one per row of `VisualTokens.features` (single precision, `width` + 2 columns); rows of
        several images and clips may stand one after the other."""
        tokens, places, times_s = features[:, :-2], features[:, -2].round().long(), features[:, -1]
        sums, grid = (inner(norm(tokens)) for norm, inner in zip(self.norm, self.inner, strict=True))
        hidden = torch.where((places == 0)[:, None], sums, grid)
        hidden = hidden + self.place(places) + self.time(_waves(times_s).to(hidden.dtype))
        return self.outer(nn.functional.gelu(hidden))


def _waves(times_s: Float[Tensor, "V"]) -> Float[Tensor, "V waves"]:
    periods_s = _LONGEST_S / 2.0 ** torch.arange(_FREQUENCIES, device=times_s.device)
    angles = 2 * math.pi * times_s[:, None].float() / periods_s
    return torch.cat([angles.sin(), angles.cos() - 1], -1)
