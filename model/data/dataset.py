"""The samples of a split in stored order."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from torch.utils.data import Dataset

from model.data.frames import FrameReader
from model.data.samples import MotionSample, decode_sample
from model.data.shard_cache import ShardCache
from model.data.shard_reader import ShardReader
from schemas.body_model import BodyModel
from schemas.dataset import read_description, read_table, read_tombstones, table_path
from schemas.errors import HumoError
from schemas.offline import cache_folder
from schemas.storage import Storage

_CLIP = "clip.mp4"
_MEMBERS = frozenset({"motion.npz", "text.json", "instructions.json", "meta.json"})


class NoSamples(HumoError):
    """A dataset has no samples of a split and its subsets."""


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
        frames: FrameReader | None = None,
    ) -> None:
        """Empty `subsets` means all. `cache` is a folder for remote shards, of `cache_gib` GiB at most; empty means humo's
        default. `check_hashes` verifies the sha256 of each local shard when it is first read. `frames` reads frames of clips
        beside the samples; without it clips are skipped.

        Raises HumoError if the path is not a dataset, NoSamples if the split is empty.
        """
        self.storage, self.frames = Storage(dataset), frames
        description = read_description(self.storage)
        shards = [
            shard for shard in description.shards if shard.split == split and (not subsets or shard.subset in subsets)
        ]
        if not any(shard.samples for shard in shards):
            existing = sorted({f"{shard.subset}/{shard.split}" for shard in description.shards}) or ["no shards"]
            requested = f"{'/'.join(subsets) or 'any subset'}, split {split}"
            raise NoSamples(
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
        sample = decode_sample(*self.reader.read(number, _MEMBERS))
        if self.frames is None or sample.meta.get("subset") != "video":
            return sample
        wanted = self.frames.wanted(len(sample.motion.poses), sample.instructions)

        def read_clip() -> bytes:
            return self.reader.read(number, {_CLIP})[1][_CLIP]

        return replace(sample, frames=self.frames.read(sample.key, sample.meta, wanted, read_clip))


def check_body_model(dataset: str, body: BodyModel) -> None:
    """Raise HumoError if a dataset's motions use another body, whose betas and rest axes differ."""
    models = read_description(Storage(dataset)).body_models
    if models and models != [body.id]:
        raise HumoError(
            f"{dataset}: its motions use the body {', '.join(models)}, this run uses {body.id}; set body_model to that body's "
            "file or use another dataset"
        )


def licences(dataset: str, subsets: Sequence[str] = (), split: str = "train") -> list[str]:
    """Licences of a split's motions, by the catalogue or, where a shard has none, by its samples."""
    storage = Storage(dataset)
    samples = MotionDataset(dataset, split=split, subsets=subsets)
    found: set[str] = set()
    first = 0
    for shard in samples.reader.shards:
        path = table_path(shard.path)
        if storage.exists(path):
            names = read_table(storage, path)["licence"].unique().to_pylist()
        else:
            numbers = range(first, first + shard.samples)
            names = [samples.sample(number).meta["licence"] for number in numbers if not samples.removed[number]]
        first += shard.samples
        found |= {name for row in names for name in row.split(" AND ")}
    return sorted(found)
