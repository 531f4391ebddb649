"""From a frozen tower's tokens to inputs of the language model: the part of vision that is trained."""

import math

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

_FREQUENCIES = 12
_LONGEST_S = 64.0
"""Longest period of the sines that encode time, seconds; each next one has half of it."""


class Projector(nn.Module):
    """Two layers for each token, with an embedding of its place in the frame and one of its time.

    The tokens that sum frames up have a first layer of their own: they hold something else than those of places. Tokens are
    standardised by what `measure` saw: a tower's numbers differ in size by orders of magnitude, and a norm over a token would take
    a part of a keypoint's position from it.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self, width: int, tokens_per_frame: int, out_width: int, *, hidden: int = 0, out_std: float = 0.02
    ) -> None:
        """`out_width` is the width of the language model, `out_std` the size of its embeddings, with which this one begins."""
        super().__init__()
        hidden = hidden or out_width
        self.register_buffer("mean", torch.zeros(2, width))
        self.register_buffer("std", torch.ones(2, width))
        self.inner = nn.ModuleList([nn.Linear(width, hidden), nn.Linear(width, hidden)])
        self.place = nn.Embedding(tokens_per_frame, hidden)
        self.time = nn.Linear(2 * _FREQUENCIES, hidden, bias=False)
        self.outer = nn.Linear(hidden, out_width)
        self.pool = nn.ModuleList([nn.Linear(width, out_width), nn.Linear(width, out_width)])
        nn.init.normal_(self.place.weight, std=0.5)
        nn.init.normal_(self.outer.weight, std=out_std / math.sqrt(hidden / 4))
        nn.init.zeros_(self.outer.bias)

    @torch.no_grad()
    def measure(self, features: Float[Tensor, "V _columns"]) -> None:
        """Take mean and deviation from rows of images of the training."""
        tokens, places, _ = _columns(features)
        for kind, rows in enumerate((tokens[places == 0], tokens[places > 0])):
            if len(rows) > 1:
                self.mean[kind] = rows.mean(0)
                self.std[kind] = rows.std(0) + 1e-3 * rows.std() + 1e-6

    def forward(self, features: Float[Tensor, "V _columns"]) -> Float[Tensor, "V out"]:
        """Inputs of the language model, one per row of `VisualTokens.features` (single precision, `width` + 2 columns); rows of
        several images and clips may stand one after the other."""
        tokens, places, times_s = _columns(features)
        hidden = self._by_kind(self.inner, tokens, places == 0)
        hidden = hidden + self.place(places) + self.time(_waves(times_s).to(hidden.dtype))
        return self.outer(nn.functional.gelu(hidden))

    def pooled(self, features: Float[Tensor, "V _columns"]) -> Float[Tensor, "V out"]:
        """Vectors whose mean stands for all of an image, of size 1 or so."""
        tokens, places, _ = _columns(features)
        return self._by_kind(self.pool, tokens, places == 0)

    def _by_kind(
        self, layers: nn.ModuleList, tokens: Float[Tensor, "V width"], sums_up: Bool[Tensor, "V"]
    ) -> Float[Tensor, "V _out"]:
        """The first layer's rows where a token sums its frame up, else the second one's."""
        first, second = (
            layer((tokens - mean) / std) for layer, mean, std in zip(layers, self.mean, self.std, strict=True)
        )
        return torch.where(sums_up[:, None], first, second)


def _columns(
    features: Float[Tensor, "V _columns"],
) -> tuple[Float[Tensor, "V width"], Int[Tensor, "V"], Float[Tensor, "V"]]:
    """Tokens, places and times."""
    values = features.float()
    return values[:, :-2], values[:, -2].round().long(), values[:, -1]


def _waves(times_s: Float[Tensor, "V"]) -> Float[Tensor, "V waves"]:
    periods_s = _LONGEST_S / 2.0 ** torch.arange(_FREQUENCIES, device=times_s.device)
    angles = 2 * math.pi * times_s[:, None] / periods_s
    return torch.cat([angles.sin(), angles.cos() - 1], -1)
