"""Motions and their texts out of a dataset's shards: one by one, or in batches for training and evaluation.

    dataset.json, catalogue -> EpochOrder -> batches of numbers -> workers: ShardReader -> samples

The order of an epoch is worked out before anything is read (`model.order`): it follows from the seed, the epoch, the ranks
and the batch size, whatever the number of workers. So a batch is known by its place alone. Going on where a run stopped
reads nothing twice, the workers may be others, and so may the ranks. Samples are read at their places in the shards
(`model.shard_reader`), remote shards through a cache on the disk (`model.shard_cache`).

An epoch hands out each sample of the split once. Ranks have equally many batches and all batches are full, so processes
that train together never wait for one another: where a rank has fewer samples, or one was removed, the place is taken by
another sample that is marked `extra`. Training takes extras as they come, a measurement leaves them out.

Tombstones are read again at each epoch and each minute: what `humo remove` takes away stays away from then on, without
moving what remains, and packing anew does not disturb a run that is under way.

Shards stay plain webdataset shards, so `webdataset.WebDataset` reads them as well. Its pipelines are not used here: they
split before they shuffle, take a shard that was cut short for a whole one and cannot go on within an epoch.
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
from model.order import EpochOrder, Taken
from model.shard_cache import ShardCache
from model.shard_reader import SampleGone, ShardReader
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

_SIDES = re.compile(r"\b(left|right)(?=\b|wards?\b)|\b(counter-?|anti-?)?(clockwise)\b", re.IGNORECASE)
_MEMBERS = frozenset({"motion.npz", "text.json", "instructions.json", "meta.json"})
_TOMBSTONES_EVERY_S = 60.0
_MOST_WORKERS = 8


@dataclass(frozen=True, kw_only=True, eq=False)
class MotionSample:
    """What training needs of a sample, decoded."""

    key: str
    motion: MotionArrays
    body: tuple[str, ...]
    """Sentences about the whole body."""
    parts: dict[str, tuple[str, ...]]
    instructions: tuple[Instruction, ...]
    meta: dict[str, Any]
    extra: bool = False
    """Whether it only fills a place and comes elsewhere in the epoch as well."""


class MotionDataset(Dataset[MotionSample]):
    """The samples of a split in stored order, removed ones left out; any of torch's samplers and loaders takes it."""

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
        """`subsets` empty means all. `cache` is a folder for remote shards, at most `cache_gib` GiB of them; empty means
        humo's own. `check_hashes` compares each local shard with its sha256 when it is first read.

        Raises HumoError where the dataset is not one or the split is empty.
        """
        self.storage = Storage(dataset)
        description = read_description(self.storage)
        shards = [one for one in description.shards if one.split == split and (not subsets or one.subset in subsets)]
        if not any(shard.samples for shard in shards):
            found = sorted({f"{shard.subset}/{shard.split}" for shard in description.shards}) or ["no shards at all"]
            wanted = f"{'/'.join(subsets) or 'any subset'}, split {split}"
            raise HumoError(
                f"{dataset}: no samples of {wanted}; it holds {', '.join(found)}; ingest more or name another"
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
        """Note in `removed`, a flag for each sample in the shards, what has been removed by now; the samples that indexes
        name stay. Raises HumoError where nothing is left."""
        found = read_tombstones(Storage(self.storage.uri))
        if found != self._tombstones:
            self._tombstones = found
            self.removed = np.isin(self.reader.index.keys, np.array([key.encode() for key in found]))
        if self.removed.all():
            raise HumoError(f"{self.storage.uri}: every sample of the split is removed; run humo pack, or ingest more")

    def __len__(self) -> int:
        return len(self._live)

    def __getitem__(self, index: int) -> MotionSample:
        return self.sample(int(self._live[index]))

    def __iter__(self) -> Iterator[MotionSample]:
        return (self[index] for index in range(len(self)))

    def sample(self, number: int) -> MotionSample:
        """A sample by its number in the shards, removed ones counted."""
        return decode_sample(*self.reader.read(number, _MEMBERS))


class MotionLoader:
    """Batches of one rank, endlessly or for some epochs, that can go on where they stopped."""

    class Config(Config):
        """What is loaded, in which order, by how many."""

        dataset: str
        """A packed dataset: a folder or any fsspec path."""
        split: str = "train"
        """`train`, `val` or `test`."""
        subsets: list[str] = []
        """`video`, `mocap`; empty means all."""
        batch_size: int = Field(gt=0)
        """Samples a step and rank."""
        workers: Annotated[int, Field(ge=0)] | Literal["auto"] = 0
        """Processes a rank that read; 0 reads in the trainer itself. All ranks together may not have more than there are
        shards; `auto` takes as many as cores and shards allow, eight at most."""
        epochs: int | None = None
        """Passes over the split; none means endlessly."""
        seed: int = Field(default=0, ge=0)
        """Of the order."""
        shuffle_window: int = Field(default=20_000, ge=0)
        """Neighbouring samples that are mixed with one another, after the shards; 0 keeps the stored order, of shards as
        well. It takes no memory, but the shards that hold a window should fit the cache together."""
        bucket_batches: int = Field(default=0, ge=0)
        """Batches' worth of samples among which those of like length share a batch; 0 leaves them as they come."""
        cache: str = ""
        """Folder for remote shards; empty means humo's own."""
        cache_gib: float = Field(default=50.0, gt=0)
        """Size of the cache, GiB."""
        check_hashes: bool = False
        """Whether each local shard is compared with its sha256 when it is first read; what comes from afar always is."""

    def __init__(self, config: Config, *, rank: int = 0, world_size: int = 1) -> None:
        """Raises HumoError for a dataset that does not serve, UsageError for more workers than shards."""
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
        self._place = _Place(0, ())
        self.workers = self._spare_workers() if config.workers == "auto" else config.workers
        self._check_readers()

    @property
    def steps_per_epoch(self) -> int:
        """Batches in which all samples of the split pass."""
        return self._order.steps(self.world_size, self.config.batch_size)

    def __iter__(self) -> Iterator[list[MotionSample]]:
        """Batches from where the loader stands; `state_dict` counts a batch as handed out once it is."""
        ahead: deque[_Place] = deque()
        loader = DataLoader(
            _Numbered(self.dataset),
            batch_sampler=self._draw(self._place, ahead),  # type: ignore[arg-type]
            num_workers=self.workers,
            collate_fn=list,
        )
        batches = iter(loader)
        while True:
            try:
                batch = next(batches)
            except StopIteration:
                return
            except HumoError as error:  # torch puts a worker's traceback around the message
                raise HumoError(str(error).strip().rsplit("HumoError: ", 1)[-1]) from None
            self._place = ahead.popleft()
            yield batch

    def state_dict(self) -> dict[str, Any]:
        """Where the loader stands: the same on all ranks, and JSON."""
        taken = [[part.ranks, part.batch_size, part.steps] for part in self._place.taken]
        return {"epoch": self._place.epoch, "taken": taken, "order": self._order_id}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a state, with as many workers and ranks and in such batches as this loader has.

        Where the shards, the seed or the way of shuffling are others, places within the epoch mean nothing any more: the
        next epoch is begun instead, with a warning.
        """
        place = _Place(state["epoch"], tuple(Taken(*part) for part in state["taken"]))
        if place.taken and state["order"] != self._order_id:
            warnings.warn(
                f"{self.config.dataset}: packed anew or shuffled otherwise since the checkpoint; what was left of epoch "
                f"{place.epoch} cannot be told, epoch {place.epoch + 1} begins",
                stacklevel=2,
            )
            place = _Place(place.epoch + 1, ())
        self._place = place

    def _draw(self, place: "_Place", ahead: "deque[_Place]") -> Iterator[list[tuple[int, bool]]]:
        """Batches of (number, extra), and beside each the place behind it."""
        batch_size, window = self.config.batch_size, max(self.config.shuffle_window, self.config.batch_size)
        looked = -_TOMBSTONES_EVERY_S
        while self.config.epochs is None or place.epoch < self.config.epochs:
            before, now = place.split(self.world_size, batch_size)
            slots = self._order.slots(
                place.epoch, rank=self.rank, ranks=self.world_size, batch_size=batch_size, taken=before
            )
            flat = slots.reshape(-1)
            for step in range(now.steps, len(slots)):
                if step == now.steps or time.monotonic() - looked > _TOMBSTONES_EVERY_S:
                    self.dataset.read_tombstones()
                    looked = time.monotonic()
                extra = (slots[step] < 0) | self.dataset.removed[slots[step]]
                numbers = slots[step]
                if extra.any():
                    rng = np.random.default_rng((self.config.seed, place.epoch, len(before), self.rank, step))
                    first = step * batch_size // window * window
                    fillers = self._fillers(flat[first : first + window], flat)
                    numbers = np.where(extra, rng.choice(fillers, batch_size), numbers)
                done = replace(now, steps=step + 1)
                place = _Place(place.epoch, (*before, done)) if step + 1 < len(slots) else _Place(place.epoch + 1, ())
                ahead.append(place)
                yield list(zip(numbers.tolist(), extra.tolist(), strict=True))

    def _fillers(self, *choices: Int[np.ndarray, "_"]) -> Int[np.ndarray, "_"]:
        """The samples that are there in the first of the choices that has any, else all of the split."""
        for some in choices:
            there = some[some >= 0]
            there = there[~self.dataset.removed[there]]
            if len(there):
                return there
        return np.flatnonzero(~self.dataset.removed)

    def _spare_workers(self) -> int:
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        shards = len(self.dataset.reader.shards)
        return min(_MOST_WORKERS, cores // _local_ranks(), shards // self.world_size)

    def _check_readers(self) -> None:
        config, shards = self.config, self.dataset.reader.shards
        samples = sum(shard.samples for shard in shards)
        if self.world_size > samples:
            raise UsageError(f"{config.dataset}: {samples} samples for {self.world_size} ranks; use fewer ranks")
        readers = self.world_size * self.workers
        if readers > len(shards):
            remedy = f"workers: {len(shards) // self.world_size}"
            smaller = sum(shard.bytes for shard in shards) // (2 * readers)
            raise UsageError(
                f"{config.dataset}: {len(shards)} shards of {config.split} for {readers} workers ({self.world_size} ranks x "
                f"{self.workers}); give {remedy}, or make more shards: humo pack {config.dataset} --shard-bytes {smaller}"
            )
        share = min(1.0, config.shuffle_window * _local_ranks() / samples)
        needed_gib = share * sum(shard.bytes for shard in shards) / 2**30
        if not self.dataset.storage.is_local and needed_gib > config.cache_gib:
            raise UsageError(
                f"{config.dataset}: a shuffle_window of {config.shuffle_window} spans {needed_gib:.1f} GiB of shards, "
                f"cache_gib is {config.cache_gib:g}; lower the one or raise the other, or each shard is fetched many times"
            )


def _local_ranks() -> int:
    """Ranks on this machine, as torchrun and Ray tell."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", "1"))


@dataclass(frozen=True)
class _Place:
    """How far a loader has come."""

    epoch: int
    taken: tuple[Taken, ...]
    """What was handed out of this epoch, by one set of ranks after the other."""

    def split(self, ranks: int, batch_size: int) -> tuple[tuple[Taken, ...], Taken]:
        """What was handed out by others, and by these ranks in such batches."""
        if self.taken and (self.taken[-1].ranks, self.taken[-1].batch_size) == (ranks, batch_size):
            return self.taken[:-1], self.taken[-1]
        return self.taken, Taken(ranks, batch_size, 0)


class _Numbered(Dataset[MotionSample]):
    """What workers do: (number, extra) to samples."""

    def __init__(self, samples: MotionDataset) -> None:
        self.samples = samples

    def __getitem__(self, place: tuple[int, bool]) -> MotionSample:
        number, extra = place
        try:
            sample = self.samples.sample(number)
        except SampleGone:  # removed, and packed anew, since the batch was drawn
            sample, extra = self.samples.sample(self.samples.reader.nearest(number)), True
        return replace(sample, extra=extra)


def decode_sample(key: str, members: dict[str, bytes]) -> MotionSample:
    """The members of a sample, decoded; the clip and the keypoints stay where they are."""
    try:
        text = json.loads(members["text.json"])
        instances = json.loads(members["instructions.json"])["instances"]
        return MotionSample(
            key=key,
            motion=decode_motion(members["motion.npz"], f"{key}.motion.npz"),
            body=tuple(text["body"]),
            parts={part: tuple(sentences) for part, sentences in text["parts"].items()},
            instructions=tuple(_instruction(one) for one in instances),
            meta=json.loads(members["meta.json"]),
        )
    except (KeyError, TypeError, ValueError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise HumoError(f"{key}: not a humo sample ({type(error).__name__}: {error}); run humo verify") from None


def _instruction(one: dict[str, Any]) -> Instruction:
    inner = {"inputs": _given(**one["inputs"]), "target": _given(**one["target"]), "parts": _parts(*one["parts"])}
    return Instruction(**{**one, **inner})


# Most instructions of a sample share these; one object for all is made and handed from worker to trainer once.
_given = lru_cache(maxsize=1024)(InstructionInput)
_parts = lru_cache(maxsize=64)(lambda *parts: parts)


def motion_features(motions: Sequence[MotionArrays], body: BodyModel) -> Float[Tensor, "B N 263"]:
    """HuMo263 rows of motions of one length, on the mean body, so that what is learned does not depend on who moved."""

    def stacked(name: str) -> Tensor:
        return torch.from_numpy(np.stack([getattr(motion, name) for motion in motions]))

    betas = stacked("betas")
    rest, own_rest = body.rest_joints(torch.zeros(betas.shape[1])), body.rest_joints(betas)
    trans = features.onto_body(stacked("trans"), own_rest, rest)
    return features.encode(axis_angle_to_matrix(stacked("poses")), trans, rest, stacked("contacts").float())


def feature_rows(motion: MotionArrays) -> Float[np.ndarray, "N 263"]:
    """HuMo263 rows of one motion, on the shipped body; what dataset statistics are taken over."""
    return motion_features([motion], BodyModel.load())[0].numpy()


def cut(motion: MotionArrays, start: int, end: int) -> MotionArrays:
    """Frames from start up to end."""
    arrays = {name: value if name == "betas" else value[start:end] for name, value in vars(motion).items()}
    return MotionArrays(**arrays)


def check_body_model(dataset: str, body: BodyModel) -> None:
    """HumoError where a dataset's motions are for another body, whose betas and rest axes differ."""
    models = read_description(Storage(dataset)).body_models
    if models and models != [body.id]:
        raise HumoError(
            f"{dataset}: its motions are for {', '.join(models)}, this run uses {body.id}; give that body model's file "
            "(body_model: PATH) or another dataset"
        )


def mirror_text(text: str) -> str:
    """The sentence as a mirror shows it: left and right, clockwise and counterclockwise change places."""

    def swap(found: re.Match[str]) -> str:
        side, counter, turn = found.groups()
        if turn:
            return turn if counter else f"counter{turn}"
        other = "right" if side.lower() == "left" else "left"
        return other.upper() if side.isupper() else other.capitalize() if side[0].isupper() else other

    return _SIDES.sub(swap, text)
