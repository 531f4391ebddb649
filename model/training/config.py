"""Training configs of `model.train_tokenizer` and `model.train_llm`."""

from typing import Annotated, Any, Literal

from pydantic import Field, field_validator

from model.llm.language_model import PRESETS as LANGUAGE_MODELS
from model.llm.language_model import LanguageModelConfig
from model.tokenizer.config import PRESETS as TOKENIZERS
from model.tokenizer.config import TokenizerConfig
from model.tokenizer.losses import LossWeights
from model.vision.config import VisionConfig
from schemas.config import Config


class Optimisation(Config):
    """AdamW with betas 0.9 and 0.99, linear warm-up, cosine decay to a tenth of the peak."""

    steps: int = Field(default=100_000, gt=0)
    """Total optimiser steps."""
    batch_size: int = Field(default=64, gt=0)
    """Samples per step and process."""
    learning_rate: float = Field(default=2e-4, gt=0)
    """Peak learning rate."""
    warmup_steps: int = Field(default=1000, ge=0)
    """Steps of linear warm-up."""
    weight_decay: float = Field(default=0.0, ge=0)
    """AdamW weight decay, applied to matrices only."""
    clip_norm: float = Field(default=1.0, gt=0)
    """Maximum gradient norm."""
    accumulate: int = Field(default=1, gt=0)
    """Batches whose gradients are averaged before each step."""
    ema: float = Field(default=0.0, ge=0, lt=1)
    """Decay of the running means of the weights, which the checkpoints then hold; 0: the weights themselves."""
    bf16: bool = True
    """Autocast to bfloat16; faster on GPUs and on CPUs that support it."""


class Run(Config):
    """Settings common to both trainings."""

    dataset: str
    """A packed dataset: a folder or any fsspec path."""
    output: str
    """Folder or bucket (any fsspec path) for checkpoints, metrics.jsonl and curve.png."""
    subsets: list[str] = []
    """`video`, `mocap`; empty means all."""
    body_model: str = ""
    """Path of the body model file that the dataset was built with; empty means the shipped one."""
    optimisation: Optimisation = Optimisation()
    """Steps, batch size, learning rate."""
    seed: int = Field(default=0, ge=0)
    """Seed of weights, sample order and noise."""
    device: str = "auto"
    """`auto` uses a GPU if there is one; otherwise a torch device such as `cpu` or `cuda:1`."""
    workers: Annotated[int, Field(ge=0)] | Literal["auto"] = "auto"
    """Reader processes per rank, in total at most the number of shards; 0 reads in the training process, `auto` uses as
    many as cores and shards allow, up to 8."""
    shuffle_window: int = Field(default=20_000, ge=0)
    """Samples per shuffle window, applied after the shards are shuffled; the shards of a window should fit the cache."""
    bucket_batches: int = Field(default=0, ge=0)
    """Size of a length bucket, in batches: samples of similar length share a batch; 0 disables bucketing."""
    cache: str = ""
    """Folder for copies of remote shards; empty means humo's default."""
    cache_gib: float = Field(default=50.0, gt=0)
    """Maximum size of that folder, GiB; the least recently used shards go first."""
    check_hashes: bool = False
    """Whether to verify the sha256 of each local shard when it is first read."""
    mirror: bool = True
    """Whether to mirror half of the samples, texts included."""
    log_every: int = Field(default=50, gt=0)
    """Steps between lines of metrics.jsonl."""
    tensorboard: bool = False
    """Whether to write TensorBoard's event files too, into `events`; needs the package tensorboard."""
    validate_every: int = Field(default=0, ge=0)
    """Steps between measurements on the val split, on steps that are logged; 0: none."""
    validation_samples: int = Field(default=64, gt=0)
    """Motions of the val split that are measured."""
    save_every: int = Field(default=5000, gt=0)
    """Steps between checkpoints; the last step always saves one."""
    keep: int = Field(default=2, gt=0)
    """Number of checkpoints to keep."""
    resume: bool = True
    """Resume from the newest checkpoint in `output`, if there is one of the same architecture, with the statistics, the text
    vocabulary and the tokenizer that the run began with."""


class TokenizerTraining(Run):
    """Training of the motion tokenizer."""

    architecture: TokenizerConfig = TokenizerConfig()
    """Tokenizer architecture: keys, or the name of a preset (`tiny`, `base`)."""
    weights: LossWeights = LossWeights()
    """Weights of the loss terms."""
    window: int = Field(default=64, gt=0)
    """Frames per training window; shorter motions are skipped."""
    windows_per_sample: int = Field(default=1, gt=0)
    """Windows cropped from each sample; more save reading, fewer make batches more diverse. A batch has `batch_size`
    times this many windows."""
    drop_levels: float = Field(default=0.2, ge=0, le=1)
    """Fraction of steps with quantizer dropout (only the first few levels are used)."""
    decoder_of: str = ""
    """Checkpoint of a tokenizer whose decoder alone is trained on: codes and language models on them stay valid. Empty: all is
    trained."""
    continuous_steps: int = Field(default=0, ge=0)
    """First steps without quantization; the codebooks then start from the latents of a trained encoder."""
    statistics_samples: int = Field(default=2000, gt=0)
    """Motions, drawn from the whole training split, from which feature mean and deviation are computed before the first step."""

    @field_validator("architecture", mode="before")
    @classmethod
    def _preset(cls, value: Any) -> Any:
        return _expand(value, TOKENIZERS)


class LanguageModelTraining(Run):
    """Training of the language model on a tokenizer's codes."""

    tokenizer: str
    """Checkpoint folder of the motion tokenizer; it is copied into the language model's checkpoint."""
    architecture: LanguageModelConfig = LanguageModelConfig()
    """Model architecture: keys, or the name of a preset (`tiny`, `small`, `base`)."""
    initial: str = ""
    """Checkpoint of an earlier stage whose weights are the start; with it, its text vocabulary. Empty: none."""
    text_vocabulary: int = Field(default=4096, ge=300)
    """Maximum number of text tokens, learned from the dataset's sentences."""
    text_samples: int = Field(default=20_000, gt=0)
    """Samples, drawn from the whole training split, from whose sentences the text tokens are learned."""
    caption_share: float = Field(default=0.5, ge=0, le=1)
    """Fraction of examples that pair a caption with its motion; the rest are the samples' instructions."""
    tasks: list[str] = []
    """Tasks of instructions.json to train on; empty means all that consist of text and motion."""
    sentence_encoder: str = ""
    """Folder of the sentence encoder for `architecture.prompts: minilm`; empty means the installed package."""
    vision: VisionConfig | None = None
    """The vision tower by which the model sees first frames of clips; null: it takes no pictures."""
    latent_noise: float = Field(default=0.0, ge=0)
    """Largest deviation of the disturbance of motion histories, in units of latents: the codes then show how to come back from
    what sampling may do."""
    drop_text: float = Field(default=0.1, ge=0, le=1)
    """Fraction of motions trained without their text, for classifier-free guidance."""
    drop_words: float = Field(default=0.1, ge=0, le=1)
    """Fraction of prompt tokens dropped, because users write more tersely than captions do."""
    text_weight: float = Field(default=1.0, ge=0)
    """Loss weight of text tokens, prompts included."""
    stop_weight: float = Field(default=0.1, ge=0)
    """Loss weight of the end-of-motion logit."""
    sharded: bool = False
    """Whether several processes split the parameters, their gradients and the optimiser's state (FSDP2), for models of which a
    device does not hold a copy; else each has one (DDP)."""
    max_steps: int = Field(default=128, gt=0)
    """Maximum motion steps of an example; longer motions are truncated."""

    @field_validator("architecture", mode="before")
    @classmethod
    def _preset(cls, value: Any) -> Any:
        return _expand(value, LANGUAGE_MODELS)


def _expand(value: Any, presets: dict[str, Any]) -> Any:
    """Replace a preset's name by its config; in a mapping, the other keys override those of `preset`."""
    if isinstance(value, str):
        value = {"preset": value}
    if isinstance(value, dict) and "preset" in value:
        name = value["preset"]
        if name not in presets:
            raise ValueError(f"no such preset; known presets: {', '.join(presets)}")
        return {**presets[name].model_dump(), **{key: override for key, override in value.items() if key != "preset"}}
    return value
