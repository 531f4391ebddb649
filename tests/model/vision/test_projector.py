"""Which tokens of a clip are read, and the projector."""

import numpy as np
import pytest
import torch

from model.vision.config import VisionConfig
from model.vision.projector import Projector
from model.vision.slow_fast import VisualTokens, even_frames, most_tokens, visual_tokens

CONFIG = VisionConfig(slow_frames=2, fast_frames=5)


def numbered(frames: int, per_frame: int = 3) -> torch.Tensor:
    """Tokens (frames, per_frame, 2): number of the frame, of the token in it."""
    return torch.stack(torch.meshgrid(torch.arange(frames), torch.arange(per_frame), indexing="ij"), -1).float()


def features(tokens: torch.Tensor, places: torch.Tensor, times_s: torch.Tensor) -> torch.Tensor:
    return VisualTokens(tokens=tokens, places=places, times_s=times_s).features


def test_an_image_has_all_its_tokens() -> None:
    image = visual_tokens(numbered(1), np.array([0.7]), CONFIG)
    assert image.tokens.tolist() == [[0, 0], [0, 1], [0, 2]]
    assert image.places.tolist() == [0, 1, 2]
    assert image.times_s.tolist() == [0, 0, 0]


def test_of_a_clip_some_frames_are_slow_and_the_others_fast() -> None:
    clip = visual_tokens(numbered(9), np.arange(9) / 2 + 3, CONFIG)
    # five of nine frames, the first and the last of them slow
    assert clip.tokens.tolist() == [[0, 0], [0, 1], [0, 2], [2, 0], [4, 0], [6, 0], [8, 0], [8, 1], [8, 2]]
    assert clip.places.tolist() == clip.tokens[:, 1].tolist()
    assert clip.times_s.tolist() == [0, 0, 0, 1, 2, 3, 4, 4, 4]
    assert len(clip) == most_tokens(CONFIG, 3)
    assert len(visual_tokens(numbered(2), np.array([0.0, 1.0]), CONFIG)) == 6


def test_frames_are_spread_evenly_from_the_first() -> None:
    assert even_frames(np.array([4, 9]), 3).tolist() == [4, 9]
    assert even_frames(np.arange(7), 3).tolist() == [0, 3, 6]
    assert even_frames(np.arange(7), 1).tolist() == [0]


@pytest.mark.parametrize("out_std", [0.02, 1.0])
def test_outputs_begin_as_large_as_embeddings(out_std: float) -> None:
    torch.manual_seed(0)
    projector = Projector(40, 5, 64, hidden=96, out_std=out_std)
    seen = features(5 * torch.randn(200, 40) + 30, torch.arange(200) % 5, torch.rand(200) * 10)
    projector.measure(seen)
    out = projector(seen)
    assert out.shape == (200, 64)
    assert 0.5 * out_std < float(out.detach().std()) < 2 * out_std
    assert 0.3 < float(projector.pooled(seen).detach().std()) < 2


def test_content_place_and_time_all_count_and_rows_do_not_mix() -> None:
    torch.manual_seed(0)
    projector = Projector(8, 3, 16)
    tokens, places, times_s = torch.randn(6, 8), torch.tensor([0, 1, 2, 0, 1, 2]), torch.tensor([0.0] * 3 + [2.0] * 3)
    base = projector(features(tokens, places, times_s))
    for changed in (
        (tokens.index_fill(0, torch.tensor([4]), 3.0).cumsum(1), places, times_s),
        (tokens, torch.tensor([0, 1, 2, 0, 0, 2]), times_s),
        (tokens, places, torch.tensor([0.0, 0, 0, 2, 2.1, 2])),
    ):
        assert not torch.allclose(projector(features(*changed))[4], base[4], atol=1e-4)
    alone = projector(features(tokens, places, times_s)[4:5])
    torch.testing.assert_close(alone[0], base[4])
    (base.square().sum() + projector.pooled(features(tokens, places, times_s)).square().sum()).backward()
    assert all(parameter.grad is not None and parameter.grad.any() for parameter in projector.parameters())


def test_each_kind_of_token_is_standardised_by_itself() -> None:
    torch.manual_seed(0)
    projector, places = Projector(3, 4, 8), torch.arange(400) % 4
    tokens = torch.where((places == 0)[:, None], 100 + 7 * torch.randn(400, 3), 0.01 * torch.randn(400, 3))
    tokens[:, 2] = 5.0  # a number that is always the same, such as padding
    projector.measure(features(tokens, places, torch.zeros(400)))
    for kind, rows in enumerate((tokens[places == 0], tokens[places > 0])):
        standardised = (rows - projector.mean[kind]) / projector.std[kind]
        assert standardised.abs().max() < 6
        torch.testing.assert_close(standardised.std(0)[:2], torch.ones(2), atol=0.4, rtol=0)
        assert not standardised[:, 2].any()
    before = projector.std.clone()
    projector.measure(features(tokens[:1], places[:1], torch.zeros(1)))  # one row has no deviation
    assert torch.equal(projector.std, before)


def test_it_learns_a_posture_from_tokens() -> None:
    torch.manual_seed(0)
    projector = Projector(8, 1, 4, hidden=32)
    tokens = torch.randn(256, 8)
    wanted = tokens[:, :4] * tokens[:, 4:]
    optimiser = torch.optim.Adam(projector.parameters(), lr=1e-2)
    zeros, times_s = torch.zeros(256, dtype=torch.long), torch.zeros(256)
    errors = []
    for _ in range(150):
        error = (projector(features(tokens, zeros, times_s)) - wanted).square().mean()
        optimiser.zero_grad()
        error.backward()
        optimiser.step()
        errors.append(float(error.detach()))
    assert errors[-1] < 0.3 * errors[0]
