"""Codes drawn from logits."""

import math

import torch
from jaxtyping import Float, Int
from torch import Tensor


class CodeSampler:
    """Samples codes from logits, reproducibly for a given generator state.

    Temperature 0 takes the most likely code, `top_k` 0 samples among all. With guidance other than 1 the batch has two
    halves, with and without the text, and logits are extrapolated from the second half through the first (classifier-free
    guidance, arXiv 2207.12598); both halves get the same codes.
    """

    def __init__(self, temperature: float, top_k: int, guidance: float, generator: torch.Generator) -> None:
        self.temperature, self.top_k, self.guidance, self.generator = temperature, top_k, guidance, generator

    def __call__(self, logits: Float[Tensor, "B P C"]) -> Int[Tensor, "B P"]:
        logits = logits.float()
        if self.guidance != 1:
            conditional, unconditional = logits.chunk(2)
            return self._sample(unconditional + self.guidance * (conditional - unconditional)).repeat(2, 1)
        return self._sample(logits)

    def _sample(self, logits: Float[Tensor, "B P C"]) -> Int[Tensor, "B P"]:
        if self.temperature == 0:
            return logits.argmax(-1)
        logits = logits / self.temperature
        if 0 < self.top_k < logits.shape[-1]:
            threshold = logits.topk(self.top_k, dim=-1).values[..., -1:]
            logits = logits.masked_fill(logits < threshold, -math.inf)
        flat = logits.softmax(-1).flatten(0, -2)
        if flat.device.type == "cuda":
            # The same distribution as that of multinomial, which waits for the device and cannot be captured in a graph.
            return (
                (flat / torch.empty_like(flat).exponential_(generator=self.generator))
                .argmax(-1)
                .view(logits.shape[:-1])
            )
        return torch.multinomial(flat, 1, generator=self.generator).view(logits.shape[:-1])
