"""From a few sources to all of them: totals with 90% intervals, by ratios to the seconds of media.

What a job takes and gives grows with the length of its sources, and lengths are cheap to learn. So there are two samples, one
inside the other, both drawn at random without replacement: some sources are only asked for their length, and of these a few
go through the chain. The total of a quantity y over N sources is N times the mean length of those asked, times the ratio of
summed y to summed length x over those measured: the ratio estimator in double sampling (W. G. Cochran, Sampling Techniques,
3rd edition, section 12.9). With m asked, n measured and residuals d = y - ratio x, its variance is taken as
N^2 [(1/m - 1/N) ratio^2 s_x^2 + (1/n - 1/N) s_d^2], lengths and residuals being unrelated. Each term's margin is its standard
error times Student's quantile for its own sample, and the two add as squares. It is an approximation that wants more than a
handful of sources; of a single one nothing can be said about the spread.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from scipy.stats import t as student

CONFIDENCE = 0.9
"""Share of intervals that should hold the truth."""


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """A total, and how far it may be off to either side; NaN where one source tells nothing about the spread."""

    value: float
    margin: float = 0.0

    @property
    def low(self) -> float:
        """No total is below nothing."""
        return max(0.0, self.value - self.margin)

    @property
    def high(self) -> float:
        return self.value + self.margin

    def __add__(self, other: "Estimate") -> "Estimate":
        """Of two kinds of source, which are sampled apart, so that their errors do not go together."""
        return Estimate(value=self.value + other.value, margin=math.hypot(self.margin, other.margin))

    def times(self, factor: float) -> "Estimate":
        """In another unit."""
        return Estimate(value=self.value * factor, margin=self.margin * abs(factor))


NOTHING = Estimate(value=0.0)


def total_length(lengths_s: Sequence[float], population: int) -> Estimate:
    """Seconds of all sources from the lengths of some; exact where all were asked. Raises ValueError for none of some."""
    if not population:
        return NOTHING
    if not lengths_s:
        raise ValueError(f"the length of none of {population} sources is known")
    mean = float(np.mean(lengths_s))
    return Estimate(value=population * mean, margin=_margin(np.asarray(lengths_s), population))


def ratio_total(
    values: Sequence[float], lengths_s: Sequence[float], asked_s: Sequence[float], population: int
) -> Estimate:
    """The total of a quantity over all sources of a kind.

    `values` and `lengths_s` belong to the measured sources, `asked_s` holds the lengths of all that were asked, the measured
    ones among them. Where the measured ones have no length at all (none of them opens) their mean stands for every source.
    """
    y, x = np.asarray(values, np.float64), np.asarray(lengths_s, np.float64)
    if not population or not len(y):
        return NOTHING
    if x.sum() <= 0:
        x, asked = np.ones(len(y)), np.ones(len(asked_s))
    else:
        asked = np.asarray(asked_s, np.float64)
    ratio = y.sum() / x.sum()
    margin = math.hypot(abs(ratio) * _margin(asked, population), _margin(y - ratio * x, population))
    return Estimate(value=population * float(asked.mean()) * ratio, margin=margin)


def _margin(sample: Float[np.ndarray, "n"], population: int) -> float:
    """Half the interval of `population` times the mean of a sample drawn from it."""
    count = len(sample)
    if count == population:
        return 0.0
    if count == 1:
        return math.nan
    variance = population**2 * (1 / count - 1 / population) * float(sample.var(ddof=1))
    return float(student.ppf(0.5 + CONFIDENCE / 2, count - 1)) * math.sqrt(variance)
