"""How codebooks are used."""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from model.tokenizer.config import TokenizerConfig


class CodeCounts:
    """Counts of the codes of each level, over all parts."""

    def __init__(self, config: TokenizerConfig) -> None:
        self.counts = torch.zeros(config.levels, config.codebook_size)

    def add(self, codes: Int[Tensor, "B S P K"]) -> None:
        for level, counts in enumerate(self.counts):
            counts += torch.bincount(codes[..., level].flatten().cpu(), minlength=len(counts))

    @property
    def usage(self) -> Float[Tensor, "K"]:
        """Share of the codes that occurred."""
        return (self.counts > 0).float().mean(1)

    @property
    def dead(self) -> int:
        """Codes of all levels that never occurred."""
        return int((self.counts == 0).sum())

    @property
    def perplexity(self) -> Float[Tensor, "K"]:
        """Effective number of codes: exponential of the entropy of their distribution."""
        return self._entropy().exp()

    @property
    def entropy_bits(self) -> float:
        """Mean entropy of a code, bits: what an ideal entropy coder of single codes needs."""
        return float(self._entropy().mean() / torch.log(torch.tensor(2.0)))

    def _entropy(self) -> Float[Tensor, "K"]:
        frequencies = self.counts / self.counts.sum(1, keepdim=True).clamp(min=1)
        return -(frequencies * frequencies.clamp(min=1e-12).log()).sum(1)
