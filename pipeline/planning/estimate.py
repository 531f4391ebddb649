"""Extrapolates from a few sources to all: totals with 90% intervals, by ratios to the seconds of media.

The cost and yield of a job grow with the length of its sources, and lengths are cheap to read. So there are two nested samples,
both drawn at random without replacement: the lengths of some sources are probed, and of these a few go through the chain. The total
of a quantity y over N sources is N times the mean length of the probed ones, times the ratio of summed y to summed length x over
the measured ones: the ratio estimator in double sampling (W. G. Cochran, Sampling Techniques, 3rd edition, section 12.9). With m
probed, n measured and residuals d = y - ratio x, its variance is taken as N^2 [(1/m - 1/N) ratio^2 s_x^2 + (1/n - 1/N) s_d^2],
assuming that lengths and residuals are uncorrelated. Each term's margin is its standard error times Student's quantile for its own
sample, and the two add in quadrature. It is an approximation that needs more than a handful of sources; a single source gives no
estimate of the spread.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from scipy.stats import t as student

CONFIDENCE = 0.9
"""Share of intervals that should contain the true value."""


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """A total and its margin of error on either side; the margin is NaN if one source gives no estimate of the spread."""

    value: float
    margin: float = 0.0

    @property
    def low(self) -> float:
        """Lower bound, clipped at 0."""
        return max(0.0, self.value - self.margin)

    @property
    def high(self) -> float:
        return self.value + self.margin

    def __add__(self, other: "Estimate") -> "Estimate":
        """Sum of estimates for two kinds of source, which are sampled independently."""
        return Estimate(value=self.value + other.value, margin=math.hypot(self.margin, other.margin))

    def times(self, factor: float) -> "Estimate":
        """The estimate in another unit."""
        return Estimate(value=self.value * factor, margin=self.margin * abs(factor))


ZERO = Estimate(value=0.0)


def total_length(lengths_s: Sequence[float], population: int) -> Estimate:
    """Seconds of all sources from the lengths of some; exact if all are known. Raises ValueError if none is."""
    if not population:
        return ZERO
    if not lengths_s:
        raise ValueError(f"the length of none of {population} sources is known")
    mean = float(np.mean(lengths_s))
    return Estimate(value=population * mean, margin=_margin(np.asarray(lengths_s), population))


def ratio_total(
    values: Sequence[float], lengths_s: Sequence[float], probed_s: Sequence[float], population: int
) -> Estimate:
    """The total of a quantity over all sources of a kind.

    `values` and `lengths_s` belong to the measured sources; `probed_s` holds the lengths of all probed ones, including the measured
    ones. If the measured ones have no length at all (none of them opens), their mean applies to every source.
    """
    y, x = np.asarray(values, np.float64), np.asarray(lengths_s, np.float64)
    if not population or not len(y):
        return ZERO
    if x.sum() <= 0:
        x, probed = np.ones(len(y)), np.ones(len(probed_s))
    else:
        probed = np.asarray(probed_s, np.float64)
    ratio = y.sum() / x.sum()
    margin = math.hypot(abs(ratio) * _margin(probed, population), _margin(y - ratio * x, population))
    return Estimate(value=population * float(probed.mean()) * ratio, margin=margin)


def _margin(sample: Float[np.ndarray, "n"], population: int) -> float:
    """Half the confidence interval of `population` times the mean of a sample drawn from it."""
    count = len(sample)
    if count == population:
        return 0.0
    if count == 1:
        return math.nan
    variance = population**2 * (1 / count - 1 / population) * float(sample.var(ddof=1))
    return float(student.ppf(0.5 + CONFIDENCE / 2, count - 1)) * math.sqrt(variance)
