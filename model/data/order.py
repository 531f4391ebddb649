"""The order of a split's samples on each rank, computed on sample numbers without reading data.

    stored order -> shuffled shards -> contiguous slice per rank -> shuffled windows -> length buckets -> batches

The order depends on the seed, the epoch, the ranks and the batch size, but neither on the workers nor on removed samples:
those are skipped when a batch is drawn, so that a removal never moves the other samples. The slice of a rank lies in few
shards, so each shard is read by one or two ranks. All ranks have equally many batches; missing samples at the end of a
slice are -1, to be filled by the loader.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Int


@dataclass(frozen=True)
class Consumed:
    """A part of an epoch that has been yielded with a given number of ranks and batch size."""

    ranks: int
    batch_size: int
    steps: int
    """Batches that every rank has received."""


@dataclass(frozen=True, kw_only=True, eq=False)
class EpochOrder:
    """The order of one split, for any epoch."""

    counts: Int[np.ndarray, "shards"]
    """Samples per shard, in stored order."""
    frames: Int[np.ndarray, "samples"]
    """Frames per sample."""
    seed: int
    window: int
    """Samples per shuffle window within a rank's slice; 0 keeps the stored order, that of the shards too."""
    bucket_batches: int
    """Size of a length bucket, in batches: samples of similar length share a batch; 0 and 1 disable bucketing."""

    def steps(self, ranks: int, batch_size: int) -> int:
        """Batches per epoch, the same for every rank."""
        return _batches(int(self.counts.sum()), ranks, batch_size)

    def slots(
        self, epoch: int, *, rank: int, ranks: int, batch_size: int, consumed: Sequence[Consumed] = ()
    ) -> Int[np.ndarray, "steps batch"]:
        """Sample numbers of a rank, one row per batch; -1 where there is none. Samples in `consumed` do not recur, whatever
        the number of ranks and the batch size they were yielded with."""
        remaining: np.ndarray | None = None
        for generation, part in enumerate(consumed):
            per_rank = [
                self._rank_samples(epoch, generation, remaining, other, part.ranks, part.batch_size)
                for other in range(part.ranks)
            ]
            remaining = np.concatenate([samples[part.steps * part.batch_size :] for samples in per_rank])
        total = int(self.counts.sum()) if remaining is None else len(remaining)
        samples = self._rank_samples(epoch, len(consumed), remaining, rank, ranks, batch_size)
        slots = np.full(_batches(total, ranks, batch_size) * batch_size, -1)
        slots[: len(samples)] = samples
        return slots.reshape(-1, batch_size)

    def _rank_samples(
        self, epoch: int, generation: int, remaining: np.ndarray | None, rank: int, ranks: int, batch_size: int
    ) -> np.ndarray:
        """Samples of a rank in order."""
        total = int(self.counts.sum()) if remaining is None else len(remaining)
        begin, end = rank * total // ranks, (rank + 1) * total // ranks
        samples = self._slice(epoch, begin, end) if remaining is None else remaining[begin:end].copy()
        if self.window:
            rng = np.random.default_rng((self.seed, epoch, generation, 1 + rank))
            for start in range(0, len(samples), self.window):
                rng.shuffle(samples[start : start + self.window])
        if self.bucket_batches > 1:
            # The same generator for all ranks, so that batches of one step have similar length on all of them.
            rng = np.random.default_rng((self.seed, epoch, generation, 0))
            size = self.bucket_batches * batch_size
            for start in range(0, len(samples), size):
                bucket = samples[start : start + size]
                bucket[:] = _by_length(bucket, self.frames[bucket], batch_size, rng)
        return samples

    def _slice(self, epoch: int, begin: int, end: int) -> np.ndarray:
        """Sample numbers at positions `begin` to `end` of the epoch's shuffled shards; only these are materialised."""
        shards = np.arange(len(self.counts))
        if self.window:
            shards = np.random.default_rng((self.seed, epoch)).permutation(shards)
        first = np.cumsum(self.counts) - self.counts
        ends = np.cumsum(self.counts[shards])
        runs = []
        for i in range(int(np.searchsorted(ends, begin, "right")), len(shards)):
            shard = shards[i]
            start = int(ends[i] - self.counts[shard])
            if start >= end:
                break
            runs.append(np.arange(max(begin, start), min(end, ends[i])) - start + first[shard])
        return np.concatenate(runs or [np.empty(0, np.int64)])


def _batches(samples: int, ranks: int, batch_size: int) -> int:
    return -(-samples // (ranks * batch_size))


def _by_length(bucket: np.ndarray, frames: np.ndarray, batch_size: int, rng: np.random.Generator) -> np.ndarray:
    """The bucket in batches of similar length, in random order; an incomplete batch stays last."""
    ordered = bucket[np.argsort(frames, kind="stable")]
    whole = len(ordered) // batch_size * batch_size
    batches = rng.permutation(ordered[:whole].reshape(-1, batch_size)).reshape(-1)
    return np.concatenate([batches, ordered[whole:]])
