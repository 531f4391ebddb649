"""A causal transformer over text tokens and motion steps, with a small decoder for the codes of a step.

Design choices:
- One position is a text token or a whole motion step. A step goes in as the sum of its codes' embeddings, so a second
  of motion costs 7.5 passes of the backbone instead of the 150 that a flat sequence of codes would. Every (part, level)
  has its own embedding table, because in a sum the place of a code is lost.
- What comes out for a step is decided by a small transformer, the step decoder, K passes a step: pass k yields the
  level-k codes of all parts at once, having seen all parts' codes of the levels before (after the depth transformers
  of RQ-Transformer, arXiv 2203.01941, and Moshi, arXiv 2410.00037; parts side by side as PRQ lets them).
- The prompt's words, averaged and passed through a small network, are added to every motion position, and a given
  motion likewise to every word of an answer. What comes next shows in what was just made most of the time, so attention
  alone is slow to learn what only the prompt says, such as left or right.
- RMSNorm before each block, rotary positions, SwiGLU, no biases, a static key-value cache.
- After each motion position a logit says whether the motion ends there.

Shape letters: B sequences, L positions, D width, H heads, S motion steps, P parts, K levels.
"""

import contextlib
import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from pydantic import model_validator
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from schemas.config import Config


class LanguageModelConfig(Config):
    """The shape of the language model; what it shares with its tokenizers is given when it is built."""

    width: int = 512
    """Channels of the backbone."""
    layers: int = 8
    """Blocks of the backbone."""
    heads: int = 8
    """Attention heads of the backbone; they divide the width."""
    step_width: int = 256
    """Channels of the step decoder."""
    step_layers: int = 4
    """Blocks of the step decoder."""
    step_heads: int = 4
    """Attention heads of the step decoder; they divide its width."""
    context: int = 1024
    """Positions at most: text tokens and motion steps together."""
    dropout: float = 0.1
    """Share of residual channels dropped in training."""
    noise: float = 0.5
    """In training each sequence has up to this share of its steps' parts replaced, as input, by those of other steps:
    what was just made must not outweigh what was asked for (after T2M-GPT, arXiv 2301.06052)."""
    step_share: float = 1.0
    """Share of motion steps that the step decoder is trained on each time; fewer are quicker."""

    @model_validator(mode="after")
    def _divisible(self) -> "LanguageModelConfig":
        for width, heads in (("width", "heads"), ("step_width", "step_heads")):
            if getattr(self, width) % (2 * getattr(self, heads)):
                raise ValueError(f"{width} must be a multiple of twice {heads}")
        if not 0 <= self.noise <= 1:
            raise ValueError("noise must lie between 0 and 1")
        if not 0 < self.step_share <= 1:
            raise ValueError("step_share must lie above 0, up to 1")
        return self


PRESETS = {
    "tiny": LanguageModelConfig(
        width=128, layers=4, heads=4, step_width=96, step_layers=2, step_heads=4, context=256, step_share=0.5
    ),
    "small": LanguageModelConfig(),
    "base": LanguageModelConfig(width=1024, layers=16, heads=16, step_width=512, step_layers=4, step_heads=8),
}
"""`tiny` trains in a minute or two on one CPU core."""


_EMBEDDING_STD = 0.02


@dataclass(frozen=True, kw_only=True, eq=False)
class Batch:
    """Sequences side by side, padded on the right."""

    text: Int[Tensor, "B L"]
    """Token where a position is text; the pad token elsewhere."""
    codes: Int[Tensor, "B L P K"]
    """Codes where a position is a motion step; 0 elsewhere."""
    is_motion: Bool[Tensor, "B L"]
    is_prompt: Bool[Tensor, "B L"]
    """The words of the prompt."""
    is_given: Bool[Tensor, "B L"]
    """Motion positions of the prompt."""
    is_answer: Bool[Tensor, "B L"]
    """Where text answers the prompt: the answer token and the words after it."""
    is_target_text: Bool[Tensor, "B L"]
    """Text positions that are to be predicted."""
    is_target_motion: Bool[Tensor, "B L"]
    """Motion positions that are to be predicted."""
    is_stop: Bool[Tensor, "B L"]
    """Positions after which a motion that is to be predicted ends."""
    is_running: Bool[Tensor, "B L"]
    """Positions after which such a motion begins or goes on."""

    def to(self, device: torch.device | str) -> "Batch":
        return Batch(**{name: value.to(device, non_blocking=True) for name, value in vars(self).items()})


@dataclass(eq=False)
class Cache:
    """Keys and values of what has been seen, a pair a layer, and how many positions they hold."""

    keys: list[Float[Tensor, "B H L d"]]
    values: list[Float[Tensor, "B H L d"]]
    length: int = 0


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
            end = cache.length + x.shape[1]
            cache.keys[layer][:, :, cache.length : end] = k
            cache.values[layer][:, :, cache.length : end] = v
            k, v = cache.keys[layer][:, :, :end].to(q), cache.values[layer][:, :, :end].to(q)
        return self.out(F.scaled_dot_product_attention(q, k, v, attn_mask=mask).transpose(1, 2).flatten(2))


class Block(nn.Module):
    """Attention and SwiGLU (arXiv 2002.05202), each behind an RMSNorm and added to the stream."""

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
    """A backbone state to the codes of a step, level by level, all parts of a level at once."""

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
        """Logits of every code, given those of the levels before."""
        x = self.state(state)[:, None, None] + self.place
        if self.levels > 1:
            before = self._embed(codes[..., :-1], range(self.levels - 1))
            x = torch.cat([x[:, :1], x[:, 1:] + before], dim=1)
        x = self._run(x.flatten(1, 2), self.mask, None).unflatten(1, (self.levels, self.parts))
        return torch.einsum("nkpd,kpdc->nkpc", x, self.heads_out.to(x.dtype))

    def sample(self, state: Float[Tensor, "N D"], pick: "Picker") -> Int[Tensor, "N P K"]:
        """Codes of one step, in as many passes as there are levels."""
        shape = (len(state), self.heads, self.levels * self.parts, self.place.shape[-1] // self.heads)
        cache = Cache([state.new_empty(shape) for _ in self.blocks], [state.new_empty(shape) for _ in self.blocks])
        codes: list[Tensor] = []
        base = self.state(state)[:, None]
        for level in range(self.levels):
            x = base + self.place[level]
            if level:
                x = x + self._embed(codes[-1][..., None], range(level - 1, level))[:, 0]
            x = self._run(x, None, cache)
            cache.length += self.parts
            codes.append(pick(torch.einsum("npd,pdc->npc", x, self.heads_out[level])))
        return torch.stack(codes, dim=-1)

    def _embed(self, codes: Int[Tensor, "N P k"], levels: range) -> Float[Tensor, "N k P D"]:
        parts = torch.arange(self.parts, device=codes.device)
        level = torch.tensor(list(levels), device=codes.device)[:, None]
        return self.code[level, parts, codes.transpose(1, 2)]

    def _run(self, x: Float[Tensor, "N L D"], mask: Tensor | None, cache: Cache | None) -> Float[Tensor, "N L D"]:
        for i, block in enumerate(self.blocks):
            x = block(x, None, mask, cache, i)
        return self.norm(x)


class MotionLanguageModel(nn.Module):
    """Text tokens and motion steps in, text tokens, codes and ends out."""

    rotary: Tensor

    def __init__(
        self, config: LanguageModelConfig, *, text_tokens: int, parts: int, levels: int, codebook_size: int
    ) -> None:
        super().__init__()
        self.config, self.parts, self.levels, self.codebook_size = config, parts, levels, codebook_size
        width = config.width
        self.text = nn.Embedding(text_tokens, width)
        self.codes = nn.Parameter(torch.randn(parts * levels, codebook_size, width) * 0.02 / (parts * levels) ** 0.5)
        self.gist_of_words, self.gist_of_motion = _gist(width), _gist(width)
        self.motion_mark = nn.Parameter(torch.randn(width) * 0.02)
        self.blocks = nn.ModuleList(Block(width, config.heads, config.dropout) for _ in range(config.layers))
        self.norm = nn.RMSNorm(width)
        self.step_decoder = StepDecoder(config, parts, levels, codebook_size)
        self.stop = nn.Linear(width, 1)
        nn.init.normal_(self.text.weight, std=_EMBEDDING_STD)
        for block in self.modules():
            if isinstance(block, Block):
                # The stream's variance must not grow with the number of blocks.
                nn.init.normal_(block.attention.out.weight, std=0.02 / math.sqrt(2 * config.layers))
                nn.init.normal_(block.down.weight, std=0.02 / math.sqrt(2 * config.layers))
        angles = torch.outer(torch.arange(config.context), _frequencies(width // config.heads))
        self.register_buffer("rotary", torch.stack([angles.cos(), angles.sin()]), persistent=False)

    def embed_text(self, tokens: Int[Tensor, "B L"]) -> Float[Tensor, "B L D"]:
        return self.text(tokens)

    def word_gist(self, tokens: Int[Tensor, "B L"], chosen: Bool[Tensor, "B L"]) -> Float[Tensor, "B 1 D"]:
        """What the chosen words are about; zero where there are none."""
        return _averaged(self.gist_of_words, self.text(tokens), chosen)

    def motion_gist(self, codes: Int[Tensor, "B L P K"], chosen: Bool[Tensor, "B L"]) -> Float[Tensor, "B 1 D"]:
        """What the chosen steps are about; zero where there are none."""
        return _averaged(self.gist_of_motion, self._summed(codes), chosen)

    def embed_motion(self, codes: Int[Tensor, "B L P K"], gist: Float[Tensor, "B 1 D"]) -> Float[Tensor, "B L D"]:
        """The sum of a step's code embeddings, a mark that it is motion, and the gist of the words."""
        return self._summed(codes) + self.motion_mark + gist

    def _summed(self, codes: Int[Tensor, "B L P K"]) -> Float[Tensor, "B L D"]:
        # One bag over the tables laid end to end.
        offsets = torch.arange(self.parts * self.levels, device=codes.device) * self.codebook_size
        rows = (codes.flatten(2) + offsets).flatten(0, 1)
        return F.embedding_bag(rows, self.codes.flatten(0, 1), mode="sum").unflatten(0, codes.shape[:2])

    def backbone(self, x: Float[Tensor, "B L D"], cache: Cache | None = None) -> Float[Tensor, "B L D"]:
        """States of positions that follow those in the cache; the cache is brought up to date."""
        start, count = (cache.length if cache else 0), x.shape[1]
        rotary = self.rotary[:, start : start + count]
        mask = None
        if count > 1:
            mask = torch.ones(count, start + count, dtype=torch.bool, device=x.device).tril(start)
        for i, block in enumerate(self.blocks):
            x = block(x, rotary, mask, cache, i)
        if cache is not None:
            cache.length += count
        return self.norm(x)

    def text_logits(self, states: Float[Tensor, "*B D"]) -> Float[Tensor, "*B tokens"]:
        return F.linear(states, self.text.weight)

    def new_cache(self, batch: int) -> Cache:
        """Room for a whole context."""
        weight = self.text.weight
        heads = self.config.heads
        shape = (batch, heads, self.config.context, self.config.width // heads)
        count = self.config.layers
        return Cache([weight.new_empty(shape) for _ in range(count)], [weight.new_empty(shape) for _ in range(count)])

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """Mean losses in nats: `text` a token, `motion` a code, `stop` a step; 0 where the batch has none of a kind."""
        seen = self._noisy(batch) if self.training and self.config.noise else batch.codes
        words = self.embed_text(batch.text) + self.motion_gist(seen, batch.is_given) * batch.is_answer[..., None]
        motion_in = self.embed_motion(seen, self.word_gist(batch.text, batch.is_prompt))
        x = torch.where(batch.is_motion[..., None], motion_in, words)
        with _quick_attention(x.device):
            every = self.backbone(x)
            states = every[:, :-1]
            motion = self._motion_loss(states, batch)
        logits = self.text_logits(states[batch.is_target_text[:, 1:]]).float()
        text = F.cross_entropy(logits, batch.text[:, 1:][batch.is_target_text[:, 1:]], reduction="sum")
        ends = batch.is_stop | batch.is_running
        stop_logits = self.stop(every[ends])[..., 0].float()
        stop = F.binary_cross_entropy_with_logits(stop_logits, batch.is_stop[ends].float(), reduction="sum")
        return {"text": text / max(len(logits), 1), "motion": motion, "stop": stop / max(len(stop_logits), 1)}

    def _noisy(self, batch: Batch) -> Int[Tensor, "B L P K"]:
        shape, device = batch.codes.shape[:3], batch.codes.device
        pool = batch.codes[batch.is_motion]
        if not len(pool):
            return batch.codes
        others = pool[torch.randint(len(pool), shape, device=device), torch.arange(shape[2], device=device)]
        rate = self.config.noise * torch.rand(shape[0], 1, 1, device=device)
        return torch.where((torch.rand(shape, device=device) < rate)[..., None], others, batch.codes)

    def _motion_loss(self, states: Float[Tensor, "B M D"], batch: Batch) -> Tensor:
        chosen = batch.is_target_motion[:, 1:]
        if self.training and self.config.step_share < 1:
            chosen = chosen & (torch.rand(chosen.shape, device=chosen.device) < self.config.step_share)
        codes = batch.codes[:, 1:][chosen]
        logits = self.step_decoder(states[chosen], codes).float()
        total = F.cross_entropy(logits.flatten(0, -2), codes.transpose(1, 2).flatten(), reduction="sum")
        return total / max(codes.numel(), 1)


class Picker:
    """Draws codes from logits; the same seed, the same draw.

    Temperature 0 takes the likeliest, `top_k` 0 lets all in. With guidance other than 1 the rows come in two halves, with
    and without the text, and logits are pushed from the second towards the first and beyond (classifier-free guidance,
    arXiv 2207.12598); both halves get the same codes.
    """

    def __init__(self, temperature: float, top_k: int, guidance: float, generator: torch.Generator) -> None:
        self.temperature, self.top_k, self.guidance, self.generator = temperature, top_k, guidance, generator

    def __call__(self, logits: Float[Tensor, "B P C"]) -> Int[Tensor, "B P"]:
        logits = logits.float()
        if self.guidance != 1:
            told, untold = logits.chunk(2)
            return self._draw(untold + self.guidance * (told - untold)).repeat(2, 1)
        return self._draw(logits)

    def _draw(self, logits: Float[Tensor, "B P C"]) -> Int[Tensor, "B P"]:
        if self.temperature == 0:
            return logits.argmax(-1)
        logits = logits / self.temperature
        if 0 < self.top_k < logits.shape[-1]:
            least = logits.topk(self.top_k, dim=-1).values[..., -1:]
            logits = logits.masked_fill(logits < least, -math.inf)
        flat = logits.softmax(-1).flatten(0, -2)
        return torch.multinomial(flat, 1, generator=self.generator).view(logits.shape[:-1])


@contextlib.contextmanager
def _quick_attention(device: torch.device) -> Iterator[None]:
    """On CPUs the backward pass of the fused attention kernel is slower than plain matrix products."""
    if device.type == "cpu":
        with sdpa_kernel(SDPBackend.MATH):
            yield
    else:
        yield


def _gist(width: int) -> nn.Module:
    return nn.Sequential(nn.Linear(width, width), nn.SiLU(), nn.Linear(width, width))


def _averaged(gist: nn.Module, x: Float[Tensor, "B L D"], chosen: Bool[Tensor, "B L"]) -> Float[Tensor, "B 1 D"]:
    weight = chosen.to(x.dtype)[..., None]
    count = weight.sum(1, keepdim=True)
    # Embeddings are small: scaled to what a network is initialised for.
    return gist((x * weight).sum(1, keepdim=True) / count.clamp(min=1) / _EMBEDDING_STD) * (count > 0)


def _frequencies(width: int) -> Float[Tensor, "half"]:
    return 10_000.0 ** -(torch.arange(0, width, 2) / width)


def _rotate(x: Float[Tensor, "B H L d"], rotary: Float[Tensor, "2 L half"]) -> Float[Tensor, "B H L d"]:
    a, b = x.chunk(2, dim=-1)
    cos, sin = rotary.to(x.dtype)
    return torch.cat([a * cos - b * sin, a * sin + b * cos], dim=-1)
