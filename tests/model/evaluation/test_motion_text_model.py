"""Padding and length traps of the evaluator, and what its loss takes for negatives."""

import pytest
import torch
from torch import Tensor

from model.evaluation.motion_text_model import EvaluatorConfig, MotionTextModel, contrastive_loss
from model.llm.sentence_encoder import same_meaning

SMALL = EvaluatorConfig(latent=8, width=16, layers=2, heads=2, patch=4, max_frames=40, min_frames=8)


@pytest.fixture(scope="module")
def model() -> MotionTextModel:
    torch.manual_seed(0)
    model = MotionTextModel(SMALL).eval()
    model.mean.copy_(torch.randn(263))
    model.std.copy_(torch.rand(263) + 0.5)
    return model


def _motion(length: int, seed: int = 0) -> Tensor:
    return torch.randn(length, 263, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("length", [8, 9, 11, 12, 33, 40])
def test_padding_changes_nothing_whatever_is_in_it(model: MotionTextModel, length: int) -> None:
    rows, lengths = _motion(length)[None], torch.tensor([length])
    with torch.inference_mode():
        alone = model.motion_vectors(rows, lengths)
        for padding in (torch.zeros(1, 17, 263), 100.0 * torch.randn(1, 3, 263), torch.full((1, 2, 263), torch.nan)):
            padded = model.motion_vectors(torch.cat([rows, padding], 1), lengths)
            assert torch.allclose(padded, alone, atol=1e-5)


def test_a_batch_of_several_lengths_equals_each_alone(model: MotionTextModel) -> None:
    motions = [_motion(length, length) for length in (31, 8, 40, 17, 9)]
    together = model.embed_motions(motions, batch=2)
    for motion, vector in zip(motions, together, strict=True):
        assert torch.allclose(model.embed_motions([motion])[0], vector, atol=1e-5)


def test_every_frame_within_the_length_counts_and_none_beyond_the_longest(model: MotionTextModel) -> None:
    """Lengths are frames: dividing them by the patch twice would lose the end of a motion."""
    motion = _motion(40)
    before = model.embed_motions([motion])[0]
    for frame in (0, 20, 39):
        changed = motion.clone()
        changed[frame] += 5.0
        assert (model.embed_motions([changed])[0] - before).norm() > 1e-3
    longer = torch.cat([motion, _motion(30, 1)])
    assert torch.allclose(model.embed_motions([longer])[0], before, atol=1e-5)
    assert (model.embed_motions([motion[:36]])[0] - before).norm() > 1e-3


def test_loss_by_hand() -> None:
    """Two pairs of right angles: each logit is 1 or 0 over the temperature."""
    unit = torch.eye(2)
    loss, accuracy = contrastive_loss(3 * unit, unit, torch.eye(2, dtype=torch.bool), 0.5)
    assert loss.item() == pytest.approx(-torch.log_softmax(torch.tensor([2.0, 0.0]), 0)[0].item(), rel=1e-5)
    assert accuracy == 1.0
    swapped, accuracy = contrastive_loss(unit.flip(0), unit, torch.eye(2, dtype=torch.bool), 0.5)
    assert swapped > loss
    assert accuracy == 0.0
    # Two texts that say the same are no negatives of each other, so nothing is left to be wrong about.
    same, _ = contrastive_loss(unit.flip(0), unit, torch.ones(2, 2, dtype=torch.bool), 0.5)
    assert same.item() == pytest.approx(0.0)


def test_sentences_that_name_other_sides_never_mean_the_same() -> None:
    vectors = torch.nn.functional.normalize(torch.tensor([[1.0, 0.0], [1.0, 0.1], [1.0, 0.05], [0.0, 1.0]]), dim=-1)
    texts = [
        "a man waves the left hand",
        "someone waves his left hand",
        "a man waves the right hand",
        "he sits on the left",
    ]
    expected = torch.tensor([[1, 1, 0, 0], [1, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]], dtype=torch.bool)
    padded = torch.nn.functional.pad(vectors, (0, 382))
    assert torch.equal(same_meaning(texts, padded, 0.85), expected)
