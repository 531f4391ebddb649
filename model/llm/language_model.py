"""A causal transformer over text tokens and motion steps, with a small decoder for the codes of a step.

Design choices:
- One position is a text token or a whole motion step. The input of a step is the sum of its code embeddings, so a second
  of motion takes 7.5 backbone passes instead of 150 for a flat sequence of codes. Every (part, level) has its own
  embedding table, because a sum does not preserve the position of a code.
- A small transformer, the step decoder, predicts the codes of a step in K passes: pass k outputs the level-k codes of all
  parts at once, conditioned on all parts' codes of the previous levels (after the depth transformers of RQ-Transformer,
  arXiv 2203.01941, and Moshi, arXiv 2410.00037; parts in parallel as in PRQ).
- The mean-pooled embedding of the prompt, passed through an MLP, is added to every motion position, and that of an input
  motion to every text position of an answer. The previous steps predict the next one most of the time, so attention
  alone is slow to learn what only the prompt specifies, such as left or right.
- Pre-norm blocks with RMSNorm, rotary positions, SwiGLU, no biases, a static key-value cache.
- After each motion position a logit predicts whether the motion ends there.

Shape letters: B sequences, L positions, D width, H heads, S motion steps, P parts, K levels.
"""

import contextlib
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from pydantic import model_validator
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from schemas.config import Config


class LanguageModelConfig(Config):
    """Architecture of the language model; sizes shared with the tokenizers are passed to the constructor."""

    width: int = 512
    """Width of the backbone."""
    layers: int = 8
    """Transformer blocks of the backbone."""
    heads: int = 8
    """Attention heads of the backbone; `width` is a multiple of twice this number."""
    step_width: int = 256
    """Width of the step decoder."""
    step_layers: int = 4
    """Transformer blocks of the step decoder."""
    step_heads: int = 4
    """Attention heads of the step decoder; `step_width` is a multiple of twice this number."""
    context: int = 1024
    """Maximum positions: text tokens plus motion steps."""
    dropout: float = 0.1
    """Dropout rate on the residual branches."""
    noise: float = 0.5
    """Maximum fraction of each training sequence's input part codes replaced by those of other steps, so that the motion
    history does not outweigh the prompt (after T2M-GPT, arXiv 2301.06052)."""
    step_share: float = 1.0
    """Fraction of motion steps on which the step decoder is trained per batch; a smaller one is faster."""

    @model_validator(mode="after")
    def _divisible(self) -> "LanguageModelConfig":
        for width, heads in (("width", "heads"), ("step_width", "step_heads")):
            if getattr(self, width) % (2 * getattr(self, heads)):
                raise ValueError(f"{width} must be a multiple of twice {heads}")
        if not 0 <= self.noise <= 1:
            raise ValueError("noise must be between 0 and 1")
        if not 0 < self.step_share <= 1:
            raise ValueError("step_share must be above 0 and at most 1")
        return self


PRESETS = {
    "tiny": LanguageModelConfig(
        width=128, layers=4, heads=4, step_width=96, step_layers=2, step_heads=4, context=256, step_share=0.5
    ),
    "small": LanguageModelConfig(),
    "base": LanguageModelConfig(width=1024, layers=16, heads=16, step_width=512, step_layers=4, step_heads=8),
}
"""`tiny` trains in one or two minutes on one CPU core."""


_EMBEDDING_STD = 0.02


@dataclass(frozen=True, kw_only=True, eq=False)
class Batch:
    """A batch of sequences, padded on the right."""

    text: Int[Tensor, "B L"]
    """Token ids at text positions; the pad token elsewhere."""
    codes: Int[Tensor, "B L P K"]
    """Codes at motion positions; 0 elsewhere."""
    is_motion: Bool[Tensor, "B L"]
    is_prompt: Bool[Tensor, "B L"]
    """Text positions of the prompt."""
    is_input_motion: Bool[Tensor, "B L"]
    """Motion positions of the prompt."""
    is_answer: Bool[Tensor, "B L"]
    """Text positions of an answer: the answer token and the text after it."""
    is_target_text: Bool[Tensor, "B L"]
    """Text positions to be predicted."""
    is_target_motion: Bool[Tensor, "B L"]
    """Motion positions to be predicted."""
    is_stop: Bool[Tensor, "B L"]
    """Positions after which a target motion ends."""
    is_continue: Bool[Tensor, "B L"]
    """Positions after which a target motion starts or continues."""
    seen: Bool[Tensor, "B L P"] | None = None
    """Parts of target motions that were seen: the others' codes are made up and not learned. None: all of them."""

    def to(self, device: torch.device | str) -> "Batch":
        moved: dict[str, Any] = {
            name: None if value is None else value.to(device, non_blocking=True) for name, value in vars(self).items()
        }
        return Batch(**moved)


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
            q, k = _rotate(q, rotary), _rotate(k, rotary)
        if cache is not None:
            k, v = cache.extend(layer, k, v)
        return self.out(F.scaled_dot_product_attention(q, k, v, attn_mask=mask).transpose(1, 2).flatten(2))


class Block(nn.Module):
    """Attention and SwiGLU (arXiv 2002.05202), each with pre-norm (RMSNorm) and a residual connection."""

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        hidden = math.ceil(width * 8 / 3 / 32) * 32
        self.norm_attention, self.norm_mlp = nn.RMSNorm(width), nn.RMSNorm(width)
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


class StepDecoder(nn.Module):
    """Codes of a step from a backbone state, level by level, all parts of a level at once."""

    mask: Tensor

    def __init__(self, config: LanguageModelConfig, parts: int, levels: int, codebook_size: int) -> None:
        super().__init__()
        self.parts, self.levels, self.heads = parts, levels, config.step_heads
        width = config.step_width
        self.state = nn.Linear(config.width, width, bias=False)
        self.place = nn.Parameter(torch.randn(levels, parts, width) * 0.02)
        self.code = nn.Parameter(torch.randn(max(levels - 1, 1), parts, codebook_size, width) * 0.02)
        self.blocks = nn.ModuleList(Block(width, config.step_heads, config.dropout) for _ in range(config.step_layers))
        self.norm = nn.RMSNorm(width)
        self.heads_out = nn.Parameter(torch.randn(levels, parts, width, codebook_size) * width**-0.5)
        level = torch.arange(levels).repeat_interleave(parts)
        self.register_buffer("mask", level[:, None] >= level, persistent=False)

    def forward(self, state: Float[Tensor, "N D"], codes: Int[Tensor, "N P K"]) -> Float[Tensor, "N K P codes"]:
        """Logits of all codes, conditioned on the codes of the previous levels (teacher forcing)."""
        x = self.state(state)[:, None, None] + self.place
        if self.levels > 1:
            previous = self._embed(codes[..., :-1], range(self.levels - 1))
            x = torch.cat([x[:, :1], x[:, 1:] + previous], dim=1)
        x = self._run(x.flatten(1, 2), self.mask, None).unflatten(1, (self.levels, self.parts))
        return torch.einsum("nkpd,kpdc->nkpc", x, self.heads_out.to(x.dtype))

    def sample(self, state: Float[Tensor, "N D"], sampler: "CodeSampler") -> Int[Tensor, "N P K"]:
        """Sampled codes of one step, one pass per level."""
        shape = (len(state), self.heads, self.levels * self.parts, self.place.shape[-1] // self.heads)
        cache = Cache([state.new_empty(shape) for _ in self.blocks], [state.new_empty(shape) for _ in self.blocks])
        codes: list[Tensor] = []
        base = self.state(state)[:, None]
        for level in range(self.levels):
            x = base + self.place[level]
            if level:
                x = x + self._embed(codes[-1][..., None], range(level - 1, level))[:, 0]
            x = self._run(x, None, cache)
            cache.advance(self.parts)
            codes.append(sampler(torch.einsum("npd,pdc->npc", x, self.heads_out[level])))
        return torch.stack(codes, dim=-1)

    def _embed(self, codes: Int[Tensor, "N P k"], levels: range) -> Float[Tensor, "N k P D"]:
        parts = torch.arange(self.parts, device=codes.device)
        level = torch.arange(levels.start, levels.stop, device=codes.device)[:, None]
        return self.code[level, parts, codes.transpose(1, 2)]

    def _run(self, x: Float[Tensor, "N L D"], mask: Tensor | None, cache: Cache | None) -> Float[Tensor, "N L D"]:
        for i, block in enumerate(self.blocks):
            x = block(x, None, mask, cache, i)
        return self.norm(x)


class MotionLanguageModel(nn.Module):
    """Predicts text tokens, motion codes and motion ends from text tokens and motion steps."""

    rotary: Tensor

    def __init__(
        self, config: LanguageModelConfig, *, text_tokens: int, parts: int, levels: int, codebook_size: int
    ) -> None:
        super().__init__()
        self.config, self.parts, self.levels, self.codebook_size = config, parts, levels, codebook_size
        width = config.width
        self.text = nn.Embedding(text_tokens, width)
        self.codes = nn.Parameter(torch.randn(parts * levels, codebook_size, width) * 0.02 / (parts * levels) ** 0.5)
        # MLPs on the mean-pooled embeddings of the prompt and of the input motion.
        self.gist_of_words, self.gist_of_motion = _mlp(width), _mlp(width)
        self.motion_mark = nn.Parameter(torch.randn(width) * 0.02)
        self.blocks = nn.ModuleList(Block(width, config.heads, config.dropout) for _ in range(config.layers))
        self.norm = nn.RMSNorm(width)
        self.step_decoder = StepDecoder(config, parts, levels, codebook_size)
        self.stop = nn.Linear(width, 1)
        nn.init.normal_(self.text.weight, std=_EMBEDDING_STD)
        for block in self.modules():
            if isinstance(block, Block):
                # The variance of the residual stream must not grow with the number of blocks.
                nn.init.normal_(block.attention.out.weight, std=0.02 / math.sqrt(2 * config.layers))
                nn.init.normal_(block.down.weight, std=0.02 / math.sqrt(2 * config.layers))
        angles = torch.outer(torch.arange(config.context), _frequencies(width // config.heads))
        self.register_buffer("rotary", torch.stack([angles.cos(), angles.sin()]), persistent=False)

    def embed_text(self, tokens: Int[Tensor, "B L"]) -> Float[Tensor, "B L D"]:
        return self.text(tokens)

    def pool_text(self, tokens: Int[Tensor, "B L"], mask: Bool[Tensor, "B L"]) -> Float[Tensor, "B 1 D"]:
        """Pooled embedding of the masked text tokens; zero if there are none."""
        return _pooled(self.gist_of_words, self.text(tokens), mask)

    def pool_motion(self, codes: Int[Tensor, "B L P K"], mask: Bool[Tensor, "B L"]) -> Float[Tensor, "B 1 D"]:
        """Pooled embedding of the masked motion steps; zero if there are none."""
        return _pooled(self.gist_of_motion, self._code_sum(codes), mask)

    def embed_motion(
        self, codes: Int[Tensor, "B L P K"], pooled_prompt: Float[Tensor, "B 1 D"]
    ) -> Float[Tensor, "B L D"]:
        """Sum of a step's code embeddings, the embedding of the motion type and the pooled prompt."""
        return self._code_sum(codes) + self.motion_mark + pooled_prompt

    def _code_sum(self, codes: Int[Tensor, "B L P K"]) -> Float[Tensor, "B L D"]:
        # One embedding bag over the concatenated tables.
        offsets = torch.arange(self.parts * self.levels, device=codes.device) * self.codebook_size
        rows = (codes.flatten(2) + offsets).flatten(0, 1)
        return F.embedding_bag(rows, self.codes.flatten(0, 1), mode="sum").unflatten(0, codes.shape[:2])

    def backbone(self, x: Float[Tensor, "B L D"], cache: Cache | None = None) -> Float[Tensor, "B L D"]:
        """States of the positions that follow the cached ones; updates the cache."""
        rotary, mask = (cache if cache is not None else Cache([], [])).view(self.rotary, x.shape[1])
        for i, block in enumerate(self.blocks):
            x = block(x, rotary, mask, cache, i)
        if cache is not None:
            cache.advance(x.shape[1])
        return self.norm(x)

    def text_logits(self, states: Float[Tensor, "*B D"]) -> Float[Tensor, "*B tokens"]:
        return F.linear(states, self.text.weight)

    def new_cache(self, batch: int) -> Cache:
        """An empty key-value cache for a whole context."""
        weight = self.text.weight
        heads = self.config.heads
        shape = (batch, heads, self.config.context, self.config.width // heads)
        count = self.config.layers
        return Cache([weight.new_empty(shape) for _ in range(count)], [weight.new_empty(shape) for _ in range(count)])

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """Mean losses in nats: `text` per token, `motion` per code, `stop` per step; 0 if the batch has none of a kind."""
        codes = self._noisy(batch) if self.training and self.config.noise else batch.codes
        text_in = (
            self.embed_text(batch.text) + self.pool_motion(codes, batch.is_input_motion) * batch.is_answer[..., None]
        )
        motion_in = self.embed_motion(codes, self.pool_text(batch.text, batch.is_prompt))
        x = torch.where(batch.is_motion[..., None], motion_in, text_in)
        with _fast_attention(x.device):
            all_states = self.backbone(x)
            states = all_states[:, :-1]
            motion = self._motion_loss(states, batch)
        logits = self.text_logits(states[batch.is_target_text[:, 1:]]).float()
        text = F.cross_entropy(logits, batch.text[:, 1:][batch.is_target_text[:, 1:]], reduction="sum")
        has_stop_target = batch.is_stop | batch.is_continue
        stop_logits = self.stop(all_states[has_stop_target])[..., 0].float()
        stop = F.binary_cross_entropy_with_logits(stop_logits, batch.is_stop[has_stop_target].float(), reduction="sum")
        return {"text": text / max(len(logits), 1), "motion": motion, "stop": stop / max(len(stop_logits), 1)}

    def _noisy(self, batch: Batch) -> Int[Tensor, "B L P K"]:
        shape, device = batch.codes.shape[:3], batch.codes.device
        pool = batch.codes[batch.is_motion]
        if not len(pool):
            return batch.codes
        replacements = pool[torch.randint(len(pool), shape, device=device), torch.arange(shape[2], device=device)]
        rate = self.config.noise * torch.rand(shape[0], 1, 1, device=device)
        return torch.where((torch.rand(shape, device=device) < rate)[..., None], replacements, batch.codes)

    def _motion_loss(self, states: Float[Tensor, "B M D"], batch: Batch) -> Tensor:
        mask = batch.is_target_motion[:, 1:]
        if self.training and self.config.step_share < 1:
            mask = mask & (torch.rand(mask.shape, device=mask.device) < self.config.step_share)
        codes = batch.codes[:, 1:][mask]
        logits = self.step_decoder(states[mask], codes).float()
        targets = codes.transpose(1, 2)
        if batch.seen is not None:
            seen = batch.seen[:, 1:][mask][:, None].expand_as(targets)
            total = F.cross_entropy(logits[seen], targets[seen], reduction="sum")
            return total / seen.sum().clamp(min=1)
        total = F.cross_entropy(logits.flatten(0, -2), targets.flatten(), reduction="sum")
        return total / max(codes.numel(), 1)


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


@contextlib.contextmanager
def _fast_attention(device: torch.device) -> Iterator[None]:
    """Plain matrix products on CPUs, where the backward pass of the fused attention kernel is slower."""
    if device.type == "cpu":
        with sdpa_kernel(SDPBackend.MATH):
            yield
    else:
        yield


def _mlp(width: int) -> nn.Module:
    return nn.Sequential(nn.Linear(width, width), nn.SiLU(), nn.Linear(width, width))


def _pooled(mlp: nn.Module, x: Float[Tensor, "B L D"], mask: Bool[Tensor, "B L"]) -> Float[Tensor, "B 1 D"]:
    weight = mask.to(x.dtype)[..., None]
    count = weight.sum(1, keepdim=True)
    # Embeddings are small: rescaled to the range that the MLP is initialised for.
    return mlp((x * weight).sum(1, keepdim=True) / count.clamp(min=1) / _EMBEDDING_STD) * (count > 0)


def _frequencies(width: int) -> Float[Tensor, "half"]:
    return 10_000.0 ** -(torch.arange(0, width, 2) / width)


def _rotate(x: Float[Tensor, "B H L d"], rotary: Float[Tensor, "2 *L half"]) -> Float[Tensor, "B H L d"]:
    a, b = x.chunk(2, dim=-1)
    cos, sin = rotary.to(x.dtype)
    return torch.cat([a * cos - b * sin, a * sin + b * cos], dim=-1)
