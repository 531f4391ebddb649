"""Motions and their texts out of a dataset's shards, in an order that depends on the seed alone.

    shards -> shuffle by (seed, epoch) -> split over ranks and workers -> samples -> bounded shuffle buffer

Shuffling comes before splitting, so that every rank meets other shards in each epoch. Where there are fewer shards than
readers, every reader goes through all of them and keeps each n-th sample: more reading, but nobody stays without work.
An epoch is the same number of samples for every reader, so ranks never wait for one another; a reader that has fewer
starts over, one that has more leaves the rest to the next epoch.

The shuffle buffer is webdataset's. Its tar reader and its pipelines are not used: they take a shard that was cut short
for a whole one, split before they shuffle and reach buckets through shell commands; `schemas.shards` and fsspec do
better. Shards stay plain webdataset shards, so `webdataset.WebDataset` reads them as well.
"""

import itertools
import json
import random
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset, get_worker_info
from webdataset.filters import shuffle

from model import features
from schemas.body_model import BodyModel
from schemas.dataset import read_description, read_tombstones
from schemas.errors import HumoError
from schemas.records import Given, Instruction
from schemas.rotations import axis_angle_to_matrix
from schemas.sample import MotionArrays, decode_motion
from schemas.shards import read_samples
from schemas.storage import Storage

_T = TypeVar("_T")
_SIDES = re.compile(r"\b(left|right)(?=\b|wards?\b)|\b(counter-?|anti-?)?(clockwise)\b", re.IGNORECASE)


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


class MotionDataset(IterableDataset[MotionSample]):
    """The samples of one split, endlessly (`epochs=None`) or for a number of epochs.

    With one epoch, one reader and no shuffling it is the split in stored order, each sample once.
    """

    def __init__(
        self,
        dataset: str,
        *,
        split: str = "train",
        subsets: Sequence[str] = (),
        seed: int = 0,
        shuffle_buffer: int = 1000,
        epochs: int | None = None,
        rank: int = 0,
        world_size: int = 1,
        skip: int = 0,
    ) -> None:
        """`subsets` empty means all. `shuffle_buffer` counts samples held in memory a reader; 0 keeps the stored order.
        `skip` samples that each reader leaves out at the start, to go on where a run stopped.

        Raises HumoError where the dataset is not one or the split is empty.
        """
        self.storage = Storage(dataset)
        description = read_description(self.storage)
        self.shards = tuple(
            shard for shard in description.shards if shard.split == split and (not subsets or shard.subset in subsets)
        )
        self.removed = read_tombstones(self.storage)
        self.samples = sum(shard.samples for shard in self.shards)
        if not self.samples:
            found = sorted({f"{shard.subset}/{shard.split}" for shard in description.shards}) or ["no shards at all"]
            wanted = f"{'/'.join(subsets) or 'any subset'}, split {split}"
            raise HumoError(
                f"{dataset}: no samples of {wanted}; it holds {', '.join(found)}; ingest more or name another"
            )
        self.seed, self.shuffle_buffer, self.epochs = seed, shuffle_buffer, epochs
        self.rank, self.world_size, self.skip = rank, world_size, skip

    def __iter__(self) -> Iterator[MotionSample]:
        worker = get_worker_info()
        workers, index = (worker.num_workers, worker.id) if worker else (1, 0)
        readers, reader = self.world_size * workers, self.rank * workers + index
        if readers > self.samples:
            raise HumoError(
                f"{self.storage.uri}: {self.samples} samples for {readers} readers ({self.world_size} ranks x {workers} "
                "workers); use fewer workers"
            )
        share = self._share(readers, reader)
        first, offset = divmod(self.skip, share)
        epochs = itertools.count(first) if self.epochs is None else range(first, self.epochs)
        for epoch in epochs:
            start = offset if epoch == first else 0
            for key, members in itertools.islice(self._epoch(epoch, readers, reader, share), start, None):
                yield decode_sample(key, members)

    def _share(self, readers: int, reader: int) -> int:
        """Samples an epoch has for this reader: equal for all, except that a single pass must not lose any."""
        if self.epochs is not None:
            return self.samples // readers + (reader < self.samples % readers)
        return max(1, self.samples // readers)

    def _epoch(self, epoch: int, readers: int, reader: int, share: int) -> Iterator[tuple[str, dict[str, bytes]]]:
        rng = random.Random(f"{self.seed}/{epoch}/{reader}")
        stream = self._read(epoch, readers, reader)
        if self.shuffle_buffer:
            stream = shuffle(self.shuffle_buffer, initial=self.shuffle_buffer, rng=rng)(stream)
        if self.epochs is not None:
            yield from stream
            return
        given = 0
        while given < share:
            before = given
            for item in itertools.islice(stream, share - given):
                given += 1
                yield item
            if given == before:
                raise HumoError(f"{self.storage.uri}: every sample of a reader's shards is removed; run humo pack")
            stream = self._read(epoch, readers, reader)

    def _read(self, epoch: int, readers: int, reader: int) -> Iterator[tuple[str, dict[str, bytes]]]:
        order = list(self.shards)
        if self.shuffle_buffer:
            random.Random(f"{self.seed}/{epoch}").shuffle(order)
        whole_shards = len(order) >= readers and self.epochs is None
        count = 0
        for shard in order[reader::readers] if whole_shards else order:
            with self.storage.open(shard.path) as file:
                for key, members in read_samples(file, f"{self.storage.uri}/{shard.path}"):
                    if key in self.removed:
                        continue
                    count += 1
                    if whole_shards or (count - 1) % readers == reader:
                        yield key, members


class MotionLoader:
    """Batches of samples, endlessly, that can go on where they stopped."""

    def __init__(self, *, batch_size: int, workers: int, **dataset: Any) -> None:
        """`batch_size` is one rank's; `dataset` is what `MotionDataset` takes. A set of few samples gets fewer workers than
        asked for, so that each has one at least."""
        self.batch_size, self.batches = batch_size, 0
        self._dataset = dataset
        self._set = MotionDataset(**dataset)
        self.workers = min(workers, self._set.samples // self._set.world_size)

    @property
    def steps_per_epoch(self) -> int:
        """Batches in which as many samples pass as the split holds."""
        return max(1, self._set.samples // (self.batch_size * self._set.world_size))

    def __iter__(self) -> Iterator[list[MotionSample]]:
        # Worker w hands out batches w, w + W, ...: each leaves out what it had handed out by itself, and the first
        # batch after a stop comes from the worker whose turn it was only if whole rounds are left out.
        readers = max(1, self.workers)
        rounds, extra = divmod(self.batches, readers)
        stream = MotionDataset(**{**self._dataset, "skip": rounds * self.batch_size})
        loader = DataLoader(stream, batch_size=self.batch_size, num_workers=self.workers, collate_fn=_as_list)
        for batch in itertools.islice(loader, extra, None):
            self.batches += 1
            yield batch

    def state_dict(self) -> dict[str, int]:
        return {"batches": self.batches}

    def load_state_dict(self, state: dict[str, int]) -> None:
        self.batches = state["batches"]


def _as_list(samples: list[_T]) -> list[_T]:
    return samples


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
    except (KeyError, TypeError, ValueError) as error:
        raise HumoError(f"{key}: not a humo sample ({type(error).__name__}: {error}); run humo verify") from None


def _instruction(one: dict[str, Any]) -> Instruction:
    inner = {"inputs": Given(**one["inputs"]), "target": Given(**one["target"]), "parts": tuple(one["parts"])}
    return Instruction(**{**one, **inner})


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
