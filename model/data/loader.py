"""Batches of motions and their texts from a dataset's shards, for training and evaluation.

    dataset.json, catalogue -> EpochOrder -> batches of sample numbers -> workers: ShardReader -> samples

The order of an epoch is computed before anything is read (`model.data.order`): it depends on the seed, the epoch, the ranks and
the batch size, not on the number of workers, so a batch is determined by its position alone. A resumed run reads nothing
twice, also with other workers or ranks. Samples are read at their offsets in the shards (`model.data.shard_reader`), remote
shards through a cache on the disk (`model.data.shard_cache`). Clips are skipped unless frames of them are wanted
(`model.data.frames`).

An epoch yields each sample of the split once. All ranks have equally many batches and all batches are full, so
data-parallel processes never wait for missing batches: if a rank has fewer samples or one was removed, another sample
takes its place and is marked `extra`. Training uses extra samples like any other, measurements skip them.

Tombstones are read again at each epoch and each minute: from then on samples deleted by `humo remove` are left out, without
moving the remaining ones, and repacking does not disturb a running job.

Shards are plain webdataset shards, so `webdataset.WebDataset` reads them as well. Its pipelines are not used here: they
split before they shuffle, accept truncated shards as complete and cannot resume within an epoch.
"""

import os
import time
import warnings
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Annotated, Any, Literal

import numpy as np
from jaxtyping import Int
from pydantic import Field
from torch.utils.data import DataLoader, Dataset

from model.data.dataset import MotionDataset
from model.data.frames import FrameReader
from model.data.order import Consumed, EpochOrder
from model.data.samples import MotionSample
from model.data.shard_reader import SampleRemoved
from schemas.config import Config
from schemas.errors import HumoError, UsageError
from schemas.ids import digest

_TOMBSTONES_INTERVAL_S = 60.0
_MAX_WORKERS = 8


class MotionLoader:
    """Batches of one rank, endless or for some epochs, resumable at any batch."""

    class Config(Config):
        """Dataset, order and workers of a loader."""

        dataset: str
        """A packed dataset: a folder or any fsspec path."""
        split: str = "train"
        """`train`, `val` or `test`."""
        subsets: list[str] = []
        """`video`, `mocap`; empty means all."""
        batch_size: int = Field(gt=0)
        """Samples per step and rank."""
        workers: Annotated[int, Field(ge=0)] | Literal["auto"] = 0
        """Reader processes per rank; 0 reads in the training process. All ranks together may not have more than there are
        shards; `auto` uses as many as cores and shards allow, up to 8."""
        epochs: int | None = None
        """Passes over the split; None means endless."""
        seed: int = Field(default=0, ge=0)
        """Seed of the order."""
        shuffle_window: int = Field(default=20_000, ge=0)
        """Samples per shuffle window, applied after the shards are shuffled; 0 keeps the stored order, that of the shards
        too. A window takes no memory, but its shards should fit the cache together."""
        bucket_batches: int = Field(default=0, ge=0)
        """Size of a length bucket, in batches: samples of similar length share a batch; 0 disables bucketing."""
        cache: str = ""
        """Folder for copies of remote shards; empty means humo's default."""
        cache_gib: float = Field(default=50.0, gt=0)
        """Maximum size of the cache, GiB."""
        check_hashes: bool = False
        """Whether to verify the sha256 of each local shard when it is first read; remote shards always are."""

    def __init__(
        self, config: Config, *, rank: int = 0, world_size: int = 1, frames: FrameReader | None = None
    ) -> None:
        """`frames` reads frames of clips beside the samples, in the workers.

        Raises HumoError for an unusable dataset, UsageError for more workers than shards.
        """
        self.config, self.rank, self.world_size = config, rank, world_size
        self.dataset = MotionDataset(
            config.dataset, split=config.split, subsets=config.subsets, cache=config.cache, cache_gib=config.cache_gib,
            check_hashes=config.check_hashes, frames=frames,
        )  # fmt: skip
        index = self.dataset.reader.index
        self._order = EpochOrder(
            counts=index.counts, frames=index.frames, seed=config.seed, window=config.shuffle_window,
            bucket_batches=config.bucket_batches,
        )  # fmt: skip
        hashes = [shard.sha256 for shard in self.dataset.reader.shards]
        self._order_id = digest(hashes, config.seed, config.shuffle_window, config.bucket_batches)
        self._position = _Position(0, ())
        self.workers = self._auto_workers() if config.workers == "auto" else config.workers
        self._check_workers_and_cache()

    @property
    def steps_per_epoch(self) -> int:
        """Batches per pass over the split."""
        return self._order.steps(self.world_size, self.config.batch_size)

    def __iter__(self) -> Iterator[list[MotionSample]]:
        """Batches from the current position on; `state_dict` counts a batch as consumed once it is yielded."""
        pending: deque[_Position] = deque()
        loader = DataLoader(
            _NumberedSamples(self.dataset),
            batch_sampler=self._batch_numbers(self._position, pending),  # type: ignore[arg-type]
            num_workers=self.workers,
            collate_fn=list,
        )
        batches = iter(loader)
        while True:
            try:
                batch = next(batches)
            except StopIteration:
                return
            except HumoError as error:  # torch wraps the message in the worker's traceback
                raise HumoError(str(error).strip().rsplit("HumoError: ", 1)[-1]) from None
            self._position = pending.popleft()
            yield batch

    def state_dict(self) -> dict[str, Any]:
        """Position of the loader: JSON, the same on all ranks."""
        consumed = [[part.ranks, part.batch_size, part.steps] for part in self._position.consumed]
        return {"epoch": self._position.epoch, "taken": consumed, "order": self._order_id}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Resume from a state, with the workers, ranks and batch size of this loader.

        If the shards, the seed or the shuffling differ, positions within the epoch are invalid: the next epoch is started
        instead, with a warning.
        """
        position = _Position(state["epoch"], tuple(Consumed(*part) for part in state["taken"]))
        if position.consumed and state["order"] != self._order_id:
            warnings.warn(
                f"{self.config.dataset}: repacked or shuffled differently since the checkpoint; the rest of epoch "
                f"{position.epoch} is unknown, continuing with epoch {position.epoch + 1}",
                stacklevel=2,
            )
            position = _Position(position.epoch + 1, ())
        self._position = position

    def _batch_numbers(self, position: "_Position", pending: "deque[_Position]") -> Iterator[list[tuple[int, bool]]]:
        """Batches of (number, extra); the position after each batch is appended to `pending`."""
        batch_size, window = self.config.batch_size, max(self.config.shuffle_window, self.config.batch_size)
        last_check_s = -_TOMBSTONES_INTERVAL_S
        while self.config.epochs is None or position.epoch < self.config.epochs:
            before, current = position.split(self.world_size, batch_size)
            slots = self._order.slots(
                position.epoch, rank=self.rank, ranks=self.world_size, batch_size=batch_size, consumed=before
            )
            flat = slots.reshape(-1)
            for step in range(current.steps, len(slots)):
                if step == current.steps or time.monotonic() - last_check_s > _TOMBSTONES_INTERVAL_S:
                    self.dataset.read_tombstones()
                    last_check_s = time.monotonic()
                extra = (slots[step] < 0) | self.dataset.removed[slots[step]]
                numbers = slots[step]
                if extra.any():
                    rng = np.random.default_rng((self.config.seed, position.epoch, len(before), self.rank, step))
                    first = step * batch_size // window * window
                    fillers = self._fillers(flat[first : first + window], flat)
                    numbers = np.where(extra, rng.choice(fillers, batch_size), numbers)
                if step + 1 < len(slots):
                    position = _Position(position.epoch, (*before, replace(current, steps=step + 1)))
                else:
                    position = _Position(position.epoch + 1, ())
                pending.append(position)
                yield list(zip(numbers.tolist(), extra.tolist(), strict=True))

    def _fillers(self, *choices: Int[np.ndarray, "_"]) -> Int[np.ndarray, "_"]:
        """Existing samples of the first choice that has any, else of the whole split."""
        for numbers in choices:
            existing = numbers[numbers >= 0]
            existing = existing[~self.dataset.removed[existing]]
            if len(existing):
                return existing
        return np.flatnonzero(~self.dataset.removed)

    def _auto_workers(self) -> int:
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        shards = len(self.dataset.reader.shards)
        return min(_MAX_WORKERS, cores // _local_ranks(), shards // self.world_size)

    def _check_workers_and_cache(self) -> None:
        config, shards = self.config, self.dataset.reader.shards
        samples = sum(shard.samples for shard in shards)
        if self.world_size > samples:
            raise UsageError(f"{config.dataset}: {samples} samples for {self.world_size} ranks; use fewer ranks")
        readers = self.world_size * self.workers
        if readers > len(shards):
            max_workers = len(shards) // self.world_size
            shard_bytes = sum(shard.bytes for shard in shards) // (2 * readers)
            raise UsageError(
                f"{config.dataset}: {len(shards)} shards of {config.split} for {readers} workers ({self.world_size} ranks x "
                f"{self.workers}); set workers: {max_workers}, or make more shards: humo pack {config.dataset} --shard-bytes "
                f"{shard_bytes}"
            )
        window_fraction = min(1.0, config.shuffle_window * _local_ranks() / samples)
        needed_gib = window_fraction * sum(shard.bytes for shard in shards) / 2**30
        if not self.dataset.storage.is_local and needed_gib > config.cache_gib:
            raise UsageError(
                f"{config.dataset}: a shuffle_window of {config.shuffle_window} spans {needed_gib:.1f} GiB of shards, "
                f"cache_gib is {config.cache_gib:g}; lower shuffle_window or raise cache_gib to avoid fetching shards repeatedly"
            )


def _local_ranks() -> int:
    """Ranks on this machine, as set by torchrun and Ray."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", "1"))


@dataclass(frozen=True)
class _Position:
    """Position of a loader."""

    epoch: int
    consumed: tuple[Consumed, ...]
    """Consumed parts of this epoch, one per successive set of ranks and batch size."""

    def split(self, ranks: int, batch_size: int) -> tuple[tuple[Consumed, ...], Consumed]:
        """Parts consumed with other ranks or batch sizes, and the part with the given ones."""
        if self.consumed and (self.consumed[-1].ranks, self.consumed[-1].batch_size) == (ranks, batch_size):
            return self.consumed[:-1], self.consumed[-1]
        return self.consumed, Consumed(ranks, batch_size, 0)


class _NumberedSamples(Dataset[MotionSample]):
    """Samples by (number, extra), read in the workers."""

    def __init__(self, samples: MotionDataset) -> None:
        self.samples = samples

    def __getitem__(self, item: tuple[int, bool]) -> MotionSample:
        number, extra = item
        try:
            sample = self.samples.sample(number)
        except SampleRemoved:  # removed and repacked since the batch was drawn
            sample, extra = self.samples.sample(self.samples.reader.nearest(number)), True
        return replace(sample, extra=extra)
