"""Extrapolated totals: unbiased, with calibrated intervals, exact where all sources are measured."""

import math

import numpy as np
import pytest

from pipeline.planning.estimate import ZERO, Estimate, ratio_total, total_length


def test_complete_measurements_are_exact() -> None:
    lengths = [3.0, 10.0, 0.0, 7.0]
    assert total_length(lengths, 4) == Estimate(value=20.0, margin=0.0)
    values = [1.0, 5.0, 0.0, 2.0]
    estimate = ratio_total(values, lengths, lengths, 4)
    assert estimate.value == pytest.approx(8.0)
    assert estimate.low == estimate.high == estimate.value


def test_intervals_are_calibrated() -> None:
    rng = np.random.default_rng(1)
    covered, errors, by_mean = [], [], []
    for _ in range(400):
        lengths = rng.lognormal(3.0, 0.8, 300)
        values = lengths * rng.gamma(8.0, 0.1, 300)
        probed = rng.permutation(300)[:80]
        measured = probed[:15]
        estimate = ratio_total(values[measured], lengths[measured], lengths[probed], 300)
        covered.append(estimate.low <= values.sum() <= estimate.high)
        errors.append(estimate.value / values.sum() - 1)
        by_mean.append(values[measured].mean() * 300 / values.sum() - 1)
    assert 0.83 <= np.mean(covered) <= 0.97
    assert abs(np.mean(errors)) < 0.03
    assert np.std(errors) < 0.7 * np.std(by_mean), "lengths should help"


def test_one_source_gives_a_total_without_interval() -> None:
    estimate = ratio_total([4.0], [2.0], [2.0, 6.0], 10)
    assert estimate.value == pytest.approx(80.0)
    assert math.isnan(estimate.margin)
    assert ratio_total([4.0], [2.0], [2.0], 1) == Estimate(value=4.0)


def test_unreadable_sources_count_by_number() -> None:
    assert ratio_total([0.5, 0.7], [0.0, 0.0], [0.0] * 10, 10).value == pytest.approx(6.0)
    assert ratio_total([0.0, 6.0], [0.0, 3.0], [0.0, 3.0, 0.0, 3.0], 4).value == pytest.approx(12.0)


def test_kinds_add_up_in_any_order() -> None:
    one, two = Estimate(value=10.0, margin=3.0), Estimate(value=5.0, margin=4.0)
    assert one + two == two + one == Estimate(value=15.0, margin=5.0)
    assert one + ZERO == one
    assert one.times(2) == Estimate(value=20.0, margin=6.0)
    assert Estimate(value=1.0, margin=3.0).low == 0.0


def test_no_known_length_is_an_error() -> None:
    assert total_length([], 0) == ZERO
    with pytest.raises(ValueError, match="none of 3"):
        total_length([], 3)
