"""A trained language model with what it needs."""

from dataclasses import dataclass
from pathlib import Path

from model import checkpoints
from model.llm.language_model import LanguageModelConfig, MotionLanguageModel
from model.llm.vocabulary import TextVocabulary
from model.tokenizer.motion_tokenizer import MotionTokenizer, load_tokenizer

TEXT_VOCABULARY, TOKENIZER = "text_vocabulary.json", "tokenizer"
"""File and folder of a checkpoint."""


def build_model(
    architecture: LanguageModelConfig, tokenizer: MotionTokenizer, vocabulary: TextVocabulary
) -> MotionLanguageModel:
    """An untrained model for a tokenizer and a text vocabulary."""
    shape = tokenizer.config
    return MotionLanguageModel(
        architecture,
        text_tokens=len(vocabulary),
        parts=len(shape.streams),
        levels=shape.levels,
        codebook_size=shape.codebook_size,
    )


@dataclass(frozen=True, eq=False)
class LoadedModel:
    """A language model with its tokenizer and text vocabulary."""

    model: MotionLanguageModel
    tokenizer: MotionTokenizer
    vocabulary: TextVocabulary
    body_model: str
    """Id of the body model that its motions use."""


def load_llm(path: str | Path) -> LoadedModel:
    """A trained language model in eval mode. Raises HumoError if there is none."""
    folder, description = checkpoints.find(path, "language_model")
    tokenizer, _ = load_tokenizer(folder / TOKENIZER)
    vocabulary = TextVocabulary.from_json((folder / TEXT_VOCABULARY).read_text())
    model = build_model(LanguageModelConfig(**description["architecture"]), tokenizer, vocabulary)
    checkpoints.load_into(model, folder)
    return LoadedModel(model.eval(), tokenizer, vocabulary, description["body_model"])
