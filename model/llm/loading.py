"""A trained language model with what it needs."""

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from model import checkpoints
from model.llm.backbones import EMBEDDING_STD
from model.llm.huggingface import HuggingFaceBackbone, read_vocabulary
from model.llm.language_model import LanguageModelConfig, MotionLanguageModel
from model.llm.packing import MINILM, VISION, Packer
from model.llm.sentence_encoder import WIDTH, SentenceEncoder
from model.llm.vocabulary import TextVocabulary
from model.tokenizer.motion_tokenizer import MotionTokenizer, load_tokenizer
from model.vision.config import VisionConfig
from model.vision.frame_tokens import FrameTokens
from model.vision.projector import Projector
from model.vision.tower import VisionTower
from schemas.config import Config
from schemas.errors import HumoError, UsageError

TEXT_VOCABULARY, TOKENIZER = "text_vocabulary.json", "tokenizer"
"""File and folder of a checkpoint."""


def build_model(
    architecture: LanguageModelConfig,
    tokenizer: MotionTokenizer,
    vocabulary: TextVocabulary,
    vision: "SeenBy | None" = None,
) -> MotionLanguageModel:
    """An untrained model for a tokenizer and a text vocabulary; with `vision` it takes pictures."""
    shape = tokenizer.config
    own = {} if architecture.prompts == "tokens" else {MINILM: WIDTH}
    model = MotionLanguageModel(
        architecture,
        text_tokens=len(vocabulary),
        parts=len(shape.streams),
        levels=shape.levels,
        codebook_size=shape.codebook_size,
        code_width=shape.code_width,
        features=own,
        backbone=_pretrained(architecture),
    )
    if vision is not None:
        width, hidden = model.text_model.width, vision.config.hidden
        model.projectors[VISION] = Projector(
            vision.width, vision.tokens_per_frame, width, hidden=hidden, out_std=EMBEDDING_STD
        )
    return model


def _pretrained(architecture: LanguageModelConfig) -> nn.Module | None:
    if not architecture.backbone:
        return None
    return HuggingFaceBackbone(
        architecture.backbone,
        adaptation=architecture.adaptation,
        rank=architecture.lora_rank,
        alpha=architecture.lora_alpha,
        checkpointing=architecture.checkpointing,
    )


def describe_backbone(model: MotionLanguageModel) -> dict[str, str]:
    """Name and hash of the pretrained weights that a model was built on; empty for our own backbone."""
    backbone = model.backbone
    return {"name": backbone.name, "hash": backbone.hash} if isinstance(backbone, HuggingFaceBackbone) else {}


def build_packer(
    model: MotionLanguageModel, tokenizer: MotionTokenizer, vocabulary: TextVocabulary, sentence_encoder: str = ""
) -> Packer:
    """What packs examples for a model. `sentence_encoder` is a folder, empty for the installed package; it is loaded only where
    prompts need it."""
    prompts, shape = model.config.prompts, tokenizer.config
    encoder = None if prompts == "tokens" else SentenceEncoder.load(sentence_encoder)
    return Packer(
        vocabulary,
        len(shape.streams),
        shape.levels,
        shape.code_width,
        model.context,
        model.positions_per_step,
        encoder,
        tokens=prompts != "minilm",
    )


class SeenBy(Config):
    """The vision tower of a model, as a checkpoint names it; its weights are not part of the checkpoint."""

    config: VisionConfig
    name: str
    fingerprint: str
    width: int
    tokens_per_frame: int

    @classmethod
    def of(cls, config: VisionConfig, tower: VisionTower) -> "SeenBy":
        """A tower that has been opened; where its tokens are cached does not matter."""
        return cls(
            config=config.model_copy(update={"cache": "", "cache_gib": VisionConfig().cache_gib}), name=tower.name,
            fingerprint=tower.fingerprint, width=tower.width, tokens_per_frame=tower.tokens_per_frame,
        )  # fmt: skip

    def open(self, device: str | torch.device = "cpu") -> FrameTokens:
        """Raises HumoError if the tower is missing or another one."""
        tokens = FrameTokens.open(self.config, device)
        if tokens.tower.fingerprint != self.fingerprint:
            raise HumoError(f"the model sees by {self.name} ({self.fingerprint}); here is {tokens.tower.fingerprint}")
        return tokens


@dataclass(frozen=True, eq=False)
class LoadedModel:
    """A language model with its tokenizer, its packer and the id of the body model that its motions use."""

    model: MotionLanguageModel
    tokenizer: MotionTokenizer
    packer: Packer
    body_model: str
    vision: SeenBy | None = None
    """The tower by which it sees; None: it takes no pictures."""

    @property
    def vocabulary(self) -> TextVocabulary:
        """The text vocabulary."""
        return self.packer.vocabulary


def export(path: str | Path, folder: str | Path, *, tokenizer: str | Path = "") -> Path:
    """A trained language model without what resuming needs, its weights in half precision, in a folder that `load_llm` reads.

    `tokenizer` is a checkpoint to put in place of the one it was trained on; it must give the same codes (see `decoder_of` of
    tokenizer trainings). Raises HumoError if there is no model, UsageError for a tokenizer of other codes.
    """
    source, description = checkpoints.find(path, "language_model")
    target = Path(folder)
    begun, own = load_tokenizer(source / TOKENIZER)
    if tokenizer:
        other, own = load_tokenizer(tokenizer)
        states = [one.state_dict() for one in (begun, other)]
        coding = [name for name in states[0] if not name.startswith("decoder.")]
        if begun.config != other.config or any(not torch.equal(states[0][name], states[1][name]) for name in coding):
            raise UsageError(f"{tokenizer}: its codes are others than those that {path} was trained on")
        begun = other
    kept = {name: value for name, value in description.items() if name != "training"}
    checkpoints.save_model(target, kept, checkpoints.halved(checkpoints.read_state(source)))
    checkpoints.save_model(
        target / TOKENIZER,
        {name: value for name, value in own.items() if name != "training"},
        checkpoints.halved(begun.state_dict()),
    )
    (target / TEXT_VOCABULARY).write_text((source / TEXT_VOCABULARY).read_text())
    return target


def load_llm(path: str | Path, *, sentence_encoder: str = "") -> LoadedModel:
    """A trained language model in eval mode. Raises HumoError if there is none."""
    folder, description = checkpoints.find(path, "language_model")
    tokenizer, _ = load_tokenizer(folder / TOKENIZER)
    vocabulary = read_vocabulary((folder / TEXT_VOCABULARY).read_text())
    vision = SeenBy(**description["vision"]) if description.get("vision") else None
    model = build_model(LanguageModelConfig(**description["architecture"]), tokenizer, vocabulary, vision)
    before, now = description.get("backbone") or {}, describe_backbone(model)
    if before != now:
        raise HumoError(
            f"{folder}: trained on {before.get('name')} with weights {before.get('hash')}, now {now.get('hash')}; restore them"
        )
    checkpoints.load_into(model, folder)
    packer = build_packer(model, tokenizer, vocabulary, sentence_encoder)
    return LoadedModel(model.eval(), tokenizer, packer, description["body_model"], vision)
