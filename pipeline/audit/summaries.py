"""Mergeable summaries: merging in any order and grouping gives the same result.

Counts and histogram bins are integers, so their merges are exact. Moments are floating-point; they are kept per shard and
merged in the order of shard names, so they are reproducible to the last bit.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Float

ACCURACY = 0.01
"""Largest relative error of a quantile."""
_LOG_GAMMA = math.log((1 + ACCURACY) / (1 - ACCURACY))
_SMALLEST = 1e-9
"""Smaller magnitudes count as zero."""


@dataclass
class Count:
    """Occurrences, samples that contain them, and frames of those samples."""

    occurrences: int = 0
    samples: int = 0
    frames: int = 0

    def add(self, other: "Count") -> None:
        self.occurrences += other.occurrences
        self.samples += other.samples
        self.frames += other.frames


@dataclass
class Histogram:
    """Counts of numbers in bins of equal ratio, which gives quantiles with relative error `ACCURACY`.

    The sketch of Masson, Rim and Lee ("DDSketch: a fast and fully-mergeable quantile sketch", 2019): bin i holds
    gamma**(i-1) < x <= gamma**i with gamma = (1 + a) / (1 - a); negative numbers have separate, mirrored bins.
    """

    positive: dict[int, int] = field(default_factory=dict)
    negative: dict[int, int] = field(default_factory=dict)
    zeros: int = 0
    smallest: float = math.inf
    largest: float = -math.inf

    def observe(self, value: float, count: int = 1) -> None:
        """Count a finite number."""
        if abs(value) < _SMALLEST:
            self.zeros += count
        else:
            bins = self.positive if value > 0 else self.negative
            index = math.ceil(math.log(abs(value)) / _LOG_GAMMA)
            bins[index] = bins.get(index, 0) + count
        self.smallest = min(self.smallest, value)
        self.largest = max(self.largest, value)

    def add(self, other: "Histogram") -> None:
        for bins, other_bins in ((self.positive, other.positive), (self.negative, other.negative)):
            for index, count in other_bins.items():
                bins[index] = bins.get(index, 0) + count
        self.zeros += other.zeros
        self.smallest = min(self.smallest, other.smallest)
        self.largest = max(self.largest, other.largest)

    @property
    def count(self) -> int:
        return self.zeros + sum(self.positive.values()) + sum(self.negative.values())

    def quantile(self, share: float) -> float:
        """The number below which this share (0 to 1) lies; raises ValueError for an empty histogram."""
        count = self.count
        if not count:
            raise ValueError("quantile of an empty histogram")
        rank = share * (count - 1)
        cumulative = 0
        ordered = [(-_middle(index), self.negative[index]) for index in sorted(self.negative, reverse=True)]
        ordered += [(0.0, self.zeros)]
        ordered += [(_middle(index), self.positive[index]) for index in sorted(self.positive)]
        for value, bin_count in ordered:
            cumulative += bin_count
            if cumulative > rank:
                return min(max(value, self.smallest), self.largest)
        return self.largest

    def describe(self) -> dict[str, float]:
        """Count, extremes and common quantiles, to four significant digits."""
        shares = {"p05": 0.05, "p25": 0.25, "p50": 0.5, "p75": 0.75, "p95": 0.95}
        values = {"min": self.smallest, **{name: self.quantile(share) for name, share in shares.items()}}
        values["max"] = self.largest
        return {"count": self.count, **{name: float(f"{value:.4g}") for name, value in values.items()}}


def _middle(index: int) -> float:
    """The number with equal relative distance to both ends of a bin."""
    return 2 * math.exp(index * _LOG_GAMMA) / (1 + math.exp(_LOG_GAMMA))


@dataclass(frozen=True, eq=False)
class Moments:
    """Count, mean and sum of squared deviations of vectors, float64."""

    count: int
    mean: Float[np.ndarray, "D"]
    squares: Float[np.ndarray, "D"]

    @classmethod
    def of(cls, rows: Float[np.ndarray, "N D"]) -> "Moments":
        wide = np.asarray(rows, np.float64)
        if not len(wide):
            return cls(0, np.zeros(wide.shape[1]), np.zeros(wide.shape[1]))
        mean = wide.mean(0)
        return cls(len(wide), mean, np.square(wide - mean).sum(0))

    def merged(self, other: "Moments") -> "Moments":
        """Combined moments (Chan, Golub, LeVeque: "Updating formulae and a pairwise algorithm", 1979)."""
        count = self.count + other.count
        if not count:
            return self
        shift = other.mean - self.mean
        mean = self.mean + shift * (other.count / count)
        return Moments(count, mean, self.squares + other.squares + shift**2 * (self.count * other.count / count))

    @property
    def deviation(self) -> Float[np.ndarray, "D"]:
        """Standard deviation of the population."""
        return np.sqrt(self.squares / max(self.count, 1))


@dataclass(frozen=True)
class MomentsByShard:
    """Moments of each shard, merged only in `total`, so the order of arrival has no effect."""

    shards: dict[str, Moments] = field(default_factory=dict)

    def add(self, other: "MomentsByShard") -> None:
        self.shards.update(other.shards)

    def total(self) -> Moments:
        ordered = [self.shards[name] for name in sorted(self.shards)]
        total = ordered[0]
        for one in ordered[1:]:
            total = total.merged(one)
        return total


Summary = Count | Histogram | MomentsByShard


def merge(summaries: Iterable[Summary]) -> Summary:
    """Merge summaries of one type into a new one; inputs are not modified."""
    iterator = iter(summaries)
    first = next(iterator)
    total = type(first)()
    total.add(first)  # type: ignore[arg-type]
    for one in iterator:
        total.add(one)  # type: ignore[arg-type]
    return total
