"""Totals from samples: right on average, as unsure as they say, exact when nothing is left to guess."""

import math

import numpy as np
import pytest

from pipeline.planning.estimate import NOTHING, Estimate, ratio_total, total_length


def test_what_is_known_in_full_is_exact() -> None:
    lengths = [3.0, 10.0, 0.0, 7.0]
    assert total_length(lengths, 4) == Estimate(value=20.0, margin=0.0)
    values = [1.0, 5.0, 0.0, 2.0]
    found = ratio_total(values, lengths, lengths, 4)
    assert found.value == pytest.approx(8.0)
    assert found.low == found.high == found.value


def test_intervals_hold_the_truth_about_as_often_as_they_say() -> None:
    rng = np.random.default_rng(1)
    held, errors, by_mean = [], [], []
    for _ in range(400):
        lengths = rng.lognormal(3.0, 0.8, 300)
        values = lengths * rng.gamma(8.0, 0.1, 300)
        asked = rng.permutation(300)[:80]
        measured = asked[:15]
        found = ratio_total(values[measured], lengths[measured], lengths[asked], 300)
        held.append(found.low <= values.sum() <= found.high)
        errors.append(found.value / values.sum() - 1)
        by_mean.append(values[measured].mean() * 300 / values.sum() - 1)
    assert 0.83 <= np.mean(held) <= 0.97
    assert abs(np.mean(errors)) < 0.03
    assert np.std(errors) < 0.7 * np.std(by_mean), "lengths should help"


def test_one_source_tells_a_total_and_no_interval() -> None:
    found = ratio_total([4.0], [2.0], [2.0, 6.0], 10)
    assert found.value == pytest.approx(80.0)
    assert math.isnan(found.margin)
    assert ratio_total([4.0], [2.0], [2.0], 1) == Estimate(value=4.0)


def test_sources_that_do_not_open_count_by_number() -> None:
    assert ratio_total([0.5, 0.7], [0.0, 0.0], [0.0] * 10, 10).value == pytest.approx(6.0)
    assert ratio_total([0.0, 6.0], [0.0, 3.0], [0.0, 3.0, 0.0, 3.0], 4).value == pytest.approx(12.0)


def test_kinds_add_up_in_any_order() -> None:
    one, two = Estimate(value=10.0, margin=3.0), Estimate(value=5.0, margin=4.0)
    assert one + two == two + one == Estimate(value=15.0, margin=5.0)
    assert one + NOTHING == one
    assert one.times(2) == Estimate(value=20.0, margin=6.0)
    assert Estimate(value=1.0, margin=3.0).low == 0.0


def test_nothing_known_of_something_is_an_error() -> None:
    assert total_length([], 0) == NOTHING
    with pytest.raises(ValueError, match="none of 3"):
        total_length([], 3)
