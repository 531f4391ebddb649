"""In which order the samples of a split come to each rank: numbers in, numbers out, nothing is read.

    stored order -> shards shuffled -> a stretch for each rank -> windows shuffled -> like lengths together -> batches

The order follows from the seed, the epoch, the ranks and the batch size. Workers do not enter into it, and neither do
removed samples: they are left out when a batch is drawn, so that removing some never moves the others. A rank's stretch
lies in few shards, so each shard is read by one rank or two. Ranks have equally many batches; what is missing at the end
of a stretch is -1, to be filled by the loader.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Int


@dataclass(frozen=True)
class Taken:
    """A part of an epoch that has been handed out."""

    ranks: int
    batch_size: int
    steps: int
    """Batches that every rank has had."""


@dataclass(frozen=True, kw_only=True, eq=False)
class EpochOrder:
    """The order of one split, for any epoch."""

    counts: Int[np.ndarray, "shards"]
    """Samples of each shard, in stored order."""
    frames: Int[np.ndarray, "samples"]
    """Length of each sample."""
    seed: int
    window: int
    """Neighbouring samples of a rank's stretch that are mixed; 0 keeps the stored order, of shards as well."""
    bucket_batches: int
    """Batches' worth of samples among which those of like length share a batch; 0 and 1 leave them as they come."""

    def steps(self, ranks: int, batch_size: int) -> int:
        """Batches of a whole epoch, the same for every rank."""
        return _batches(int(self.counts.sum()), ranks, batch_size)

    def slots(
        self, epoch: int, *, rank: int, ranks: int, batch_size: int, taken: Sequence[Taken] = ()
    ) -> Int[np.ndarray, "steps batch"]:
        """Numbers of a rank's samples, a row for each batch; -1 where there is none. What is `taken` does not come again,
        by however many ranks and in whatever batches it was handed out."""
        rest: np.ndarray | None = None
        for generation, part in enumerate(taken):
            pieces = [
                self._piece(epoch, generation, rest, one, part.ranks, part.batch_size) for one in range(part.ranks)
            ]
            rest = np.concatenate([piece[part.steps * part.batch_size :] for piece in pieces])
        samples = int(self.counts.sum()) if rest is None else len(rest)
        piece = self._piece(epoch, len(taken), rest, rank, ranks, batch_size)
        slots = np.full(_batches(samples, ranks, batch_size) * batch_size, -1)
        slots[: len(piece)] = piece
        return slots.reshape(-1, batch_size)

    def _piece(
        self, epoch: int, generation: int, rest: np.ndarray | None, rank: int, ranks: int, batch_size: int
    ) -> np.ndarray:
        """A rank's samples in the order in which they come."""
        total = int(self.counts.sum()) if rest is None else len(rest)
        begin, end = rank * total // ranks, (rank + 1) * total // ranks
        piece = self._stretch(epoch, begin, end) if rest is None else rest[begin:end].copy()
        if self.window:
            rng = np.random.default_rng((self.seed, epoch, generation, 1 + rank))
            for start in range(0, len(piece), self.window):
                rng.shuffle(piece[start : start + self.window])
        if self.bucket_batches > 1:
            # The same for all ranks: where batches differ in length, those of one step should not.
            rng = np.random.default_rng((self.seed, epoch, generation, 0))
            size = self.bucket_batches * batch_size
            for start in range(0, len(piece), size):
                some = piece[start : start + size]
                some[:] = _by_length(some, self.frames[some], batch_size, rng)
        return piece

    def _stretch(self, epoch: int, begin: int, end: int) -> np.ndarray:
        """Numbers from place `begin` up to `end` of the epoch's row of shards; only these are laid out."""
        shards = np.arange(len(self.counts))
        if self.window:
            shards = np.random.default_rng((self.seed, epoch)).permutation(shards)
        first = np.cumsum(self.counts) - self.counts
        ends = np.cumsum(self.counts[shards])
        runs = []
        for place in range(int(np.searchsorted(ends, begin, "right")), len(shards)):
            shard = shards[place]
            start = int(ends[place] - self.counts[shard])
            if start >= end:
                break
            runs.append(np.arange(max(begin, start), min(end, ends[place])) - start + first[shard])
        return np.concatenate(runs or [np.empty(0, np.int64)])


def _batches(samples: int, ranks: int, batch_size: int) -> int:
    return -(-samples // (ranks * batch_size))


def _by_length(some: np.ndarray, frames: np.ndarray, batch_size: int, rng: np.random.Generator) -> np.ndarray:
    """The samples in batches of like length, batches in random order; an incomplete one stays last."""
    ordered = some[np.argsort(frames, kind="stable")]
    whole = len(ordered) // batch_size * batch_size
    batches = rng.permutation(ordered[:whole].reshape(-1, batch_size)).reshape(-1)
    return np.concatenate([batches, ordered[whole:]])
