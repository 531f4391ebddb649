"""The field's measures on vectors of which the answer is known."""

import numpy as np
import pytest
import torch
from scipy import linalg
from torch import Tensor

from model.evaluation.protocol import Interval, diversity, fid, fid_warning, multimodality, retrieval, split_fid
from schemas.errors import HumoError


def _vectors(count: int, width: int, seed: int) -> Tensor:
    return torch.randn(count, width, generator=torch.Generator().manual_seed(seed))


def test_perfect_pairs_are_found_and_random_ones_are_at_chance() -> None:
    motions = _vectors(320, 16, 0)
    perfect = retrieval(motions, 3.0 * motions)
    assert [one.mean for one in perfect.r_precision] == [1.0, 1.0, 1.0]
    assert perfect.mm_dist.mean == pytest.approx(0.0, abs=1e-5)
    assert perfect.batch == 32
    random = retrieval(motions, _vectors(320, 16, 1))
    for rank, value in enumerate(random.r_precision, start=1):
        assert value.mean == pytest.approx(rank / 32, abs=0.02)
    assert random.chance == 1 / 32
    assert random.mm_dist.mean == pytest.approx(2**0.5, abs=0.05)


def test_constant_vectors_do_not_look_perfect() -> None:
    constant = torch.ones(64, 8)
    assert retrieval(constant, constant).r_precision[2].mean == 0.0


def test_distinct_batches_hold_each_sentence_once() -> None:
    """Ten motions of each of four sentences: a text cannot tell ten from one another, but well four from one another."""
    centres = torch.eye(4).repeat_interleave(10, 0)
    motions = centres + 0.01 * _vectors(40, 4, 0)
    kinds = torch.arange(40) // 10
    distinct = retrieval(motions, centres, kinds[:, None] == kinds)
    assert (distinct.batch, distinct.chance) == (4.0, 0.25)
    assert distinct.r_precision[0].mean == 1.0
    assert retrieval(motions, centres).r_precision[0].mean < 0.3


def test_fid_is_that_of_the_definition() -> None:
    first, second = _vectors(400, 8, 0), 1.7 * _vectors(300, 8, 1) + 0.4
    a, b = (np.cov(one.double().numpy(), rowvar=False) for one in (first, second))
    shift = np.square(first.double().numpy().mean(0) - second.double().numpy().mean(0)).sum()
    expected = shift + np.trace(a + b - 2 * linalg.sqrtm(a @ b).real)
    assert fid(first, second) == pytest.approx(expected, rel=1e-6)
    assert fid(first, first) == pytest.approx(0.0, abs=1e-9)
    assert fid(first, second) == pytest.approx(fid(second, first), rel=1e-9)
    # Not of normalised vectors: scale counts.
    assert fid(first, 2 * first) > 1.0


def test_fid_of_fewer_vectors_than_numbers_is_finite_and_is_warned_of() -> None:
    assert fid(_vectors(10, 32, 0), _vectors(10, 32, 1)) > 0
    assert "640" in fid_warning(639, 128)
    assert fid_warning(640, 128) == ""


def test_split_fid_falls_with_the_number_of_motions() -> None:
    few, many = (split_fid(_vectors(count, 8, 0)).mean for count in (80, 1600))
    assert 0 < many < few / 5


def test_diversity_and_multimodality_by_hand() -> None:
    pair = torch.tensor([[0.0, 0.0], [3.0, 4.0]])
    assert diversity(pair).mean == pytest.approx(5.0)
    several = multimodality([pair, pair + 100.0, pair[:1]])
    assert several is not None
    assert (several.mean, several.half_width) == (pytest.approx(5.0), pytest.approx(0.0))
    assert multimodality([pair[:1], pair[1:]]) is None


def test_intervals() -> None:
    interval = Interval.of([1.0, 3.0])
    assert interval.mean == 2.0
    assert interval.half_width == pytest.approx(1.96 / 2**0.5)


def test_the_same_seed_gives_the_same_figures() -> None:
    motions, texts = _vectors(100, 8, 0), _vectors(100, 8, 0) + _vectors(100, 8, 1)
    once, again, other = (retrieval(motions, texts, seed=seed) for seed in (1, 1, 2))
    assert once == again != other


def test_unusable_vectors_are_named() -> None:
    broken = _vectors(40, 8, 0)
    broken[7, 3] = torch.nan
    with pytest.raises(HumoError, match="vector 7 holds NaN"):
        fid(broken, _vectors(40, 8, 1))
    with pytest.raises(HumoError, match="FID needs two"):
        fid(broken[:1], broken[:1])
    with pytest.raises(HumoError, match="of one meaning"):
        retrieval(broken[8:], broken[8:], torch.ones(32, 32, dtype=torch.bool))
    with pytest.raises(HumoError, match="diversity needs two"):
        diversity(broken[:1])
