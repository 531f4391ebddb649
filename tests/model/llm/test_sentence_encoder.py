"""The sentence encoder against the similarities that its authors publish."""

from pathlib import Path

import pytest
import torch

from model.llm.sentence_encoder import SentenceEncoder
from schemas.errors import HumoError


@pytest.fixture(scope="module")
def encoder() -> SentenceEncoder:
    torch.set_num_threads(1)
    return SentenceEncoder.load()


def test_similarities_are_those_of_the_model_card(encoder: SentenceEncoder) -> None:
    """https://huggingface.co/sentence-transformers/all-MiniLM-L6-v2, its example of sentence similarity."""
    sentences = ["That is a happy person", "That is a happy dog", "That is a very happy person", "Today is a sunny day"]
    vectors = encoder.encode(sentences)
    assert (vectors @ vectors[0]).tolist() == pytest.approx([1.0, 0.695, 0.943, 0.257], abs=6e-4)


def test_a_vector_depends_on_its_sentence_alone(encoder: SentenceEncoder) -> None:
    long = "a person walks forward slowly, turns around to the left, walks back and sits down on a chair"
    alone = SentenceEncoder.load().encode(["jumps"])[0]
    assert torch.allclose(encoder.encode([long, "jumps", "he waves"])[1], alone, atol=1e-5)
    assert encoder.encode(["jumps", "jumps"]).shape == (2, 384)


def test_a_folder_without_encoder_is_named(tmp_path: Path) -> None:
    with pytest.raises(HumoError, match="no sentence encoder"):
        SentenceEncoder.load(str(tmp_path))
