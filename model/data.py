"""Motions and their texts from a dataset's shards: single samples, or batches for training and evaluation.

    dataset.json, catalogue -> EpochOrder -> batches of sample numbers -> workers: ShardReader -> samples

The order of an epoch is computed before anything is read (`model.order`): it depends on the seed, the epoch, the ranks and
the batch size, not on the number of workers, so a batch is determined by its position alone. A resumed run reads nothing
twice, also with other workers or ranks. Samples are read at their offsets in the shards (`model.shard_reader`), remote
shards through a cache on the disk (`model.shard_cache`).

An epoch yields each sample of the split once. All ranks have equally many batches and all batches are full, so
data-parallel processes never wait for missing batches: if a rank has fewer samples or one was removed, another sample
takes its place and is marked `extra`. Training uses extra samples like any other, measurements skip them.

Tombstones are read again at each epoch and each minute: from then on samples deleted by `humo remove` are left out, without
moving the remaining ones, and repacking does not disturb a running job.

Shards are plain webdataset shards, so `webdataset.WebDataset` reads them as well. Its pipelines are not used here: they
split before they shuffle, accept truncated shards as complete and cannot resume within an epoch.
"""

import json
import os
import re
import time
import warnings
import zipfile
import zlib
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import torch
from jaxtyping import Float, Int
from pydantic import Field
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from model import features
from model.order import Consumed, EpochOrder
from model.shard_cache import ShardCache
from model.shard_reader import SampleRemoved, ShardReader
from schemas.body_model import BodyModel
from schemas.config import Config
from schemas.dataset import read_description, read_tombstones
from schemas.errors import HumoError, UsageError
from schemas.ids import digest
from schemas.offline import cache_folder
from schemas.records import Instruction, InstructionInput
from schemas.rotations import axis_angle_to_matrix
from schemas.sample import MotionArrays, decode_motion
from schemas.storage import Storage

_DIRECTIONS = re.compile(r"\b(left|right)(?=\b|wards?\b)|\b(counter-?|anti-?)?(clockwise)\b", re.IGNORECASE)
_MEMBERS = frozenset({"motion.npz", "text.json", "instructions.json", "meta.json"})
_TOMBSTONES_INTERVAL_S = 60.0
_MAX_WORKERS = 8


@dataclass(frozen=True, kw_only=True, eq=False)
class MotionSample:
    """Decoded members of a sample that training needs."""

    key: str
    motion: MotionArrays
    body: tuple[str, ...]
    """Sentences about the whole body."""
    parts: dict[str, tuple[str, ...]]
    instructions: tuple[Instruction, ...]
    meta: dict[str, Any]
    extra: bool = False
    """Whether the sample only fills a batch and also occurs elsewhere in the epoch."""


class MotionDataset(Dataset[MotionSample]):
    """Samples of a split in stored order, without removed ones; works with any torch sampler and loader."""

    def __init__(
        self,
        dataset: str,
        *,
        split: str = "train",
        subsets: Sequence[str] = (),
        cache: str = "",
        cache_gib: float = 50.0,
        check_hashes: bool = False,
    ) -> None:
        """Empty `subsets` means all. `cache` is a folder for remote shards, of `cache_gib` GiB at most; empty means humo's
        default. `check_hashes` verifies the sha256 of each local shard when it is first read.

        Raises HumoError if the path is not a dataset or the split is empty.
        """
        self.storage = Storage(dataset)
        description = read_description(self.storage)
        shards = [
            shard for shard in description.shards if shard.split == split and (not subsets or shard.subset in subsets)
        ]
        if not any(shard.samples for shard in shards):
            existing = sorted({f"{shard.subset}/{shard.split}" for shard in description.shards}) or ["no shards"]
            requested = f"{'/'.join(subsets) or 'any subset'}, split {split}"
            raise HumoError(
                f"{dataset}: no samples of {requested}; it holds {', '.join(existing)}; ingest more or select another"
            )
        folder = Path(cache) if cache else cache_folder() / "shards"
        self.reader = ShardReader(
            self.storage, shards, cache=ShardCache(folder, int(cache_gib * 2**30)), check_hashes=check_hashes
        )
        self._tombstones: set[str] = set()
        self.removed = np.zeros(len(self.reader.index.keys), bool)
        self.read_tombstones()
        self._live = np.flatnonzero(~self.removed)

    def read_tombstones(self) -> None:
        """Update `removed`, one flag per sample in the shards; dataset indices stay the same. Raises HumoError if no sample
        is left."""
        tombstones = read_tombstones(Storage(self.storage.address))
        if tombstones != self._tombstones:
            self._tombstones = tombstones
            self.removed = np.isin(self.reader.index.keys, np.array([key.encode() for key in tombstones]))
        if self.removed.all():
            raise HumoError(f"{self.storage.uri}: every sample of the split was removed; run humo pack or ingest more")

    def __len__(self) -> int:
        return len(self._live)

    def __getitem__(self, index: int) -> MotionSample:
        return self.sample(int(self._live[index]))

    def __iter__(self) -> Iterator[MotionSample]:
        return (self[index] for index in range(len(self)))

    def sample(self, number: int) -> MotionSample:
        """A sample by its number in the shards, which counts removed samples too."""
        return decode_sample(*self.reader.read(number, _MEMBERS))


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

    def __init__(self, config: Config, *, rank: int = 0, world_size: int = 1) -> None:
        """Raises HumoError for an unusable dataset, UsageError for more workers than shards."""
        self.config, self.rank, self.world_size = config, rank, world_size
        self.dataset = MotionDataset(
            config.dataset, split=config.split, subsets=config.subsets, cache=config.cache, cache_gib=config.cache_gib,
            check_hashes=config.check_hashes,
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


def decode_sample(key: str, members: dict[str, bytes]) -> MotionSample:
    """Decode the members of a sample, except the clip and the keypoints."""
    try:
        text = json.loads(members["text.json"])
        instances = json.loads(members["instructions.json"])["instances"]
        return MotionSample(
            key=key,
            motion=decode_motion(members["motion.npz"], f"{key}.motion.npz"),
            body=tuple(text["body"]),
            parts={part: tuple(sentences) for part, sentences in text["parts"].items()},
            instructions=tuple(_instruction(instance) for instance in instances),
            meta=json.loads(members["meta.json"]),
        )
    except (KeyError, TypeError, ValueError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise HumoError(f"{key}: not a valid humo sample ({type(error).__name__}: {error}); run humo verify") from None


def _instruction(instance: dict[str, Any]) -> Instruction:
    shared = {
        "inputs": _shared_input(**instance["inputs"]),
        "target": _shared_input(**instance["target"]),
        "parts": _shared_parts(*instance["parts"]),
    }
    return Instruction(**{**instance, **shared})


# Most instructions of a sample have these in common: a shared object is created and pickled from worker to trainer once.
_shared_input = lru_cache(maxsize=1024)(InstructionInput)
_shared_parts = lru_cache(maxsize=64)(lambda *parts: parts)


def motion_features(motions: Sequence[MotionArrays], body: BodyModel) -> Float[Tensor, "B N 263"]:
    """HuMo263 rows of motions of equal length, on the mean body, so that learning does not depend on body shape."""

    def stacked(name: str) -> Tensor:
        return torch.from_numpy(np.stack([getattr(motion, name) for motion in motions]))

    betas = stacked("betas")
    rest, source_rest = body.rest_joints(torch.zeros(betas.shape[1])), body.rest_joints(betas)
    trans = features.retarget_translation(stacked("trans"), source_rest, rest)
    return features.encode(axis_angle_to_matrix(stacked("poses")), trans, rest, stacked("contacts").float())


def motion_seen(motions: Sequence[MotionArrays]) -> Float[Tensor, "B N 5"]:
    """For the rows of `motion_features` and each part: 1 where it was seen in both frames of the row, else 0."""
    seen = torch.from_numpy(np.stack([motion.seen for motion in motions])).float()
    return torch.minimum(seen[:, :-1], seen[:, 1:])


def feature_rows(motion: MotionArrays) -> Float[np.ndarray, "N 263"]:
    """HuMo263 rows of one motion, on the shipped body; dataset statistics are computed from them."""
    return motion_features([motion], BodyModel.load())[0].numpy()


def slice_frames(motion: MotionArrays, start: int, end: int) -> MotionArrays:
    """Frames from `start` to `end`, exclusive."""
    arrays = {name: value if name == "betas" else value[start:end] for name, value in vars(motion).items()}
    return MotionArrays(**arrays)


def check_body_model(dataset: str, body: BodyModel) -> None:
    """Raise HumoError if a dataset's motions use another body, whose betas and rest axes differ."""
    models = read_description(Storage(dataset)).body_models
    if models and models != [body.id]:
        raise HumoError(
            f"{dataset}: its motions use the body {', '.join(models)}, this run uses {body.id}; set body_model to that body's "
            "file or use another dataset"
        )


def mirror_text(text: str) -> str:
    """The sentence of the mirrored motion: left and right, clockwise and counterclockwise are swapped."""

    def swap(match: re.Match[str]) -> str:
        side, counter, clockwise = match.groups()
        if clockwise:
            return clockwise if counter else f"counter{clockwise}"
        other = "right" if side.lower() == "left" else "left"
        return other.upper() if side.isupper() else other.capitalize() if side[0].isupper() else other

    return _DIRECTIONS.sub(swap, text)
