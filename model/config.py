"""What a training run is told. `model.train_tokenizer` and `model.train_llm` take one of these each."""

from typing import Annotated, Any, Literal

from pydantic import Field, field_validator

from model.language_model import PRESETS as LANGUAGE_MODELS
from model.language_model import LanguageModelConfig
from model.tokenizer import PRESETS as TOKENIZERS
from model.tokenizer import LossWeights, TokenizerConfig
from schemas.config import Config


class Optimisation(Config):
    """AdamW with betas .9 and .99, a linear warm-up and a cosine down to a tenth."""

    steps: int = Field(default=100_000, gt=0)
    """Optimiser steps in all."""
    batch_size: int = Field(default=64, gt=0)
    """Samples a step and process."""
    learning_rate: float = Field(default=2e-4, gt=0)
    """At its highest."""
    warmup_steps: int = Field(default=1000, ge=0)
    """Steps in which the learning rate rises."""
    weight_decay: float = Field(default=0.0, ge=0)
    """AdamW's, on matrices only."""
    clip_norm: float = Field(default=1.0, gt=0)
    """Largest norm of the gradient."""
    bf16: bool = True
    """Compute in bfloat16 where it is safe; quicker on GPUs and on CPUs that know it."""


class Run(Config):
    """What both trainings share."""

    dataset: str
    """A packed dataset: a folder or any fsspec path."""
    output: str
    """Folder for checkpoints, metrics.jsonl and curve.png."""
    subsets: list[str] = []
    """`video`, `mocap`; empty means all."""
    body_model: str = ""
    """Path of the body model's file that the dataset was made with; empty means the shipped one."""
    optimisation: Optimisation = Optimisation()
    """Steps, batch, learning rate."""
    seed: int = Field(default=0, ge=0)
    """Of weights, order and noise."""
    device: str = "auto"
    """`auto` takes a GPU where there is one; else a torch device such as `cpu` or `cuda:1`."""
    workers: Annotated[int, Field(ge=0)] | Literal["auto"] = "auto"
    """Processes a rank that read shards, not more in all than there are shards; 0 reads in the trainer itself, `auto` takes
    as many as cores and shards allow, eight at most."""
    shuffle_window: int = Field(default=20_000, ge=0)
    """Neighbouring samples that are mixed with one another, after the shards; the shards that hold them should fit the
    cache."""
    bucket_batches: int = Field(default=0, ge=0)
    """Batches' worth of samples among which those of like length share a batch; 0 leaves them as they come."""
    cache: str = ""
    """Folder for shards that are fetched from afar; empty means humo's own."""
    cache_gib: float = Field(default=50.0, gt=0)
    """Size of that folder, GiB; what was used last stays."""
    check_hashes: bool = False
    """Whether each local shard is compared with its sha256 when it is first read."""
    mirror: bool = True
    """Whether half of the samples are mirrored, their texts with them."""
    log_every: int = Field(default=50, gt=0)
    """Steps between lines of metrics."""
    save_every: int = Field(default=5000, gt=0)
    """Steps between checkpoints; the last step always makes one."""
    keep: int = Field(default=2, gt=0)
    """Checkpoints that stay."""
    resume: bool = True
    """Go on from the newest checkpoint in `output`, if there is one of the same architecture."""


class TokenizerTraining(Run):
    """Training of the motion tokenizer."""

    architecture: TokenizerConfig = TokenizerConfig()
    """The tokenizer's shape: keys, or a preset's name (`tiny`, `base`)."""
    weights: LossWeights = LossWeights()
    """Of the loss terms."""
    window: int = Field(default=64, gt=0)
    """Frames of a training window; shorter motions are left out."""
    windows_per_sample: int = Field(default=1, gt=0)
    """Windows cut from a sample each time; more spare reading, fewer mix the batch better. A batch has `batch_size`
    times as many windows."""
    drop_levels: float = Field(default=0.2, ge=0, le=1)
    """Share of steps in which only the first few levels are used."""
    statistics_samples: int = Field(default=2000, gt=0)
    """Motions that mean and deviation are measured on before the first step."""

    @field_validator("architecture", mode="before")
    @classmethod
    def _preset(cls, value: Any) -> Any:
        return _expand(value, TOKENIZERS)


class LanguageModelTraining(Run):
    """Training of the language model on a tokenizer's codes."""

    tokenizer: str
    """Checkpoint folder of the motion tokenizer; a copy goes into the language model's checkpoint."""
    architecture: LanguageModelConfig = LanguageModelConfig()
    """The model's shape: keys, or a preset's name (`tiny`, `small`, `base`)."""
    text_vocabulary: int = Field(default=4096, ge=300)
    """Text tokens at most, learned from the dataset's sentences."""
    text_samples: int = Field(default=20_000, gt=0)
    """Samples whose sentences the text tokens are learned from."""
    caption_share: float = Field(default=0.5, ge=0, le=1)
    """Share of examples that are a bare sentence and its motion; the rest are the samples' instructions."""
    tasks: list[str] = []
    """Tasks of instructions.json to train on; empty means all that are made of text and motion."""
    drop_text: float = Field(default=0.1, ge=0, le=1)
    """Share of motions that are learned without their text, so that generation can weigh it (guidance)."""
    drop_words: float = Field(default=0.1, ge=0, le=1)
    """Share of a prompt's tokens that are left out, for people write more tersely than captions do."""
    text_weight: float = Field(default=1.0, ge=0)
    """Weight of the loss on text tokens, prompts included."""
    stop_weight: float = Field(default=0.1, ge=0)
    """Weight of the loss on where motions end."""
    max_steps: int = Field(default=128, gt=0)
    """Motion steps of an example at most; longer ones are cut."""

    @field_validator("architecture", mode="before")
    @classmethod
    def _preset(cls, value: Any) -> Any:
        return _expand(value, LANGUAGE_MODELS)


def _expand(value: Any, presets: dict[str, Any]) -> Any:
    """A preset's name stands for its config; `preset` inside a mapping is what the other keys change."""
    if isinstance(value, str):
        value = {"preset": value}
    if isinstance(value, dict) and "preset" in value:
        name = value["preset"]
        if name not in presets:
            raise ValueError(f"no such preset; there are {', '.join(presets)}")
        return {**presets[name].model_dump(), **{key: inner for key, inner in value.items() if key != "preset"}}
    return value
