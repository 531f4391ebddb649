"""Single samples out of shards, by number, without reading what lies beside them.

Where a sample begins is told by the catalogue, or by walking once over a shard's headers where there is none that fits.
Then a sample costs a few reads at known places: members that nobody asks for, clips above all, are stepped over, and no
more than the wanted members is ever in memory.

A dataset that is packed anew meanwhile goes on being read: its samples keep their numbers here, and are looked for in the new
shards once an old one is gone.
"""

import json
import os
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any, NamedTuple

import numpy as np
import pyarrow.compute as pc
import pyarrow.dataset
import torch
from jaxtyping import Int, Shaped

from model.shard_cache import ShardCache, ShardGone
from schemas.dataset import ShardEntry, read_description
from schemas.errors import HumoError
from schemas.shards import END_OF_ARCHIVE
from schemas.storage import Storage, stream_sha256

_BLOCK = 512
_OPEN_FILES = 64
"""Shards that a process keeps open."""
_REGULAR = (b"0", b"\0")

ReadAt = Callable[[int, int], bytes]
"""(offset, bytes) -> content; shorter at the end of the file."""


@dataclass(frozen=True, eq=False)
class ShardIndex:
    """Where the samples of some shards lie, numbered through."""

    counts: Int[np.ndarray, "shards"]
    """Samples of each shard."""
    keys: Shaped[np.ndarray, "samples"]
    """As bytes."""
    offsets: Int[np.ndarray, "samples"]
    """Of the sample's first header in its shard."""
    frames: Int[np.ndarray, "samples"]


class SampleGone(HumoError):
    """A sample is in the dataset no more: it was removed, and the dataset packed anew."""


class ShardReader:
    """Samples of some shards by number, from a disk directly and from elsewhere through the cache.

    It can be handed to other processes, by fork or by pickling: each opens its files by itself.
    """

    def __init__(
        self, storage: Storage, shards: Sequence[ShardEntry], *, cache: ShardCache, check_hashes: bool = False
    ) -> None:
        """`check_hashes` compares each shard with its sha256 when it is first opened; what comes through the cache is
        compared in any case. Raises HumoError for shards that are not what dataset.json lists."""
        self.storage, self.shards, self.cache = storage, tuple(shards), cache
        self._unchecked = torch.full((len(shards),), check_hashes and storage.is_local)
        if self._unchecked.any():
            self._unchecked.share_memory_()  # so that one process's check is enough for all
        self._files: dict[int, int] = {}
        self._owner = os.getpid()
        self.index = self._read_index()
        self._place = np.repeat(np.arange(len(self.index.counts)), self.index.counts)
        self._offset = self.index.offsets

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_files": {}}

    def __del__(self) -> None:
        self._close()

    def read(self, number: int, wanted: Collection[str]) -> tuple[str, dict[str, bytes]]:
        """(key, members) of a sample, of its members those that are wanted and there.

        Raises SampleGone where it was removed and the dataset packed anew, HumoError where the shard does not hold it at its
        place.
        """
        try:
            return self._read(number, wanted)
        except ShardGone as error:
            if not self._find_again():
                raise HumoError(str(error)) from None
        return self._read(number, wanted)

    def nearest(self, number: int) -> int:
        """The next sample that is still there, when one is gone; around the end to the first."""
        left = np.flatnonzero(self._place >= 0)
        if not len(left):
            raise HumoError(f"{self.storage.uri}: every sample of the split is removed; ingest more")
        return int(left[np.searchsorted(left, number) % len(left)])

    def _read(self, number: int, wanted: Collection[str]) -> tuple[str, dict[str, bytes]]:
        shard = int(self._place[number])
        if shard < 0:
            raise SampleGone(f"{self.storage.uri}: {self.index.keys[number].decode()} was removed meanwhile")
        key = self.index.keys[number].decode()
        descriptor = self._file(shard)
        members = {}
        for entry in _entries(lambda offset, size: os.pread(descriptor, size, offset), int(self._offset[number])):
            if entry.key != key:
                break
            if entry.member in wanted:
                members[entry.member] = os.pread(descriptor, entry.size, entry.offset)
                if len(members[entry.member]) < entry.size:
                    raise HumoError(self._broken(shard, f"ends inside {key}.{entry.member}"))
        if not members:
            raise HumoError(self._broken(shard, f"does not hold {key} where the catalogue says"))
        return key, members

    def _broken(self, shard: int, what: str) -> str:
        uri = self.storage.uri
        return f"{uri}/{self.shards[shard].path}: {what}; start again if it was packed meanwhile, else run humo verify {uri}"

    def _file(self, shard: int) -> int:
        """The shard, opened; of many open ones the first is closed."""
        if shard not in self._files:
            if len(self._files) >= _OPEN_FILES:
                os.close(self._files.pop(next(iter(self._files))))
            self._files[shard] = self._open(shard)
        return self._files[shard]

    def _open(self, shard: int) -> int:
        entry = self.shards[shard]
        if not self.storage.is_local:
            if self._owner != os.getpid():  # a remote file system's threads do not live on in a forked process
                self.storage, self._owner = Storage(self.storage.uri), os.getpid()
            return self.cache.open(self.storage, entry)
        try:
            descriptor = os.open(self.storage.path(entry.path), os.O_RDONLY)
        except FileNotFoundError:
            raise ShardGone(self._broken(shard, "is not there, though dataset.json lists it")) from None
        found = os.fstat(descriptor).st_size
        if found != entry.bytes:
            raise HumoError(self._broken(shard, f"has {found:,} bytes, dataset.json says {entry.bytes:,}"))
        if self._unchecked[shard]:
            with self.storage.open(entry.path) as file:
                found_hash = stream_sha256(file)
            if found_hash != entry.sha256:
                raise HumoError(
                    self._broken(shard, f"its sha256 is {found_hash[:12]}..., dataset.json says {entry.sha256[:12]}...")
                )
            self._unchecked[shard] = False
        return descriptor

    def _find_again(self) -> bool:
        """Look for the samples in the shards that the dataset has now; whether it has others than before."""
        shards = read_description(Storage(self.storage.uri)).shards
        if {shard.path for shard in shards} == {shard.path for shard in self.shards}:
            return False
        found = _catalogue(self.storage, shards)
        known = [(number, found[shard.path]) for number, shard in enumerate(shards) if shard.path in found]
        keys = np.concatenate([rows.keys for _, rows in known] or [np.zeros(0, "S1")])
        places = np.concatenate([np.full(len(rows.keys), number) for number, rows in known] or [np.zeros(0, np.int64)])
        offsets = np.concatenate([rows.offsets for _, rows in known] or [np.zeros(0, np.int64)])
        order = np.argsort(keys)
        at = np.searchsorted(keys, self.index.keys, sorter=order)
        same = at < len(keys)
        same[same] = keys[order[at[same]]] == self.index.keys[same]
        self._place, self._offset = np.full(len(same), -1), np.zeros(len(same), np.int64)
        self._place[same], self._offset[same] = places[order[at[same]]], offsets[order[at[same]]]
        self._close()
        self.shards, self._unchecked = tuple(shards), torch.zeros(len(shards), dtype=torch.bool)
        return True

    def _close(self) -> None:
        for descriptor in self.__dict__.get("_files", {}).values():
            os.close(descriptor)
        self._files = {}

    def _read_index(self) -> ShardIndex:
        known = _catalogue(self.storage, self.shards)
        keys, offsets, frames = [], [], []
        for number, shard in enumerate(self.shards):
            rows = known.get(shard.path)
            if rows is None or len(rows.keys) != shard.samples or rows.end + len(END_OF_ARCHIVE) != shard.bytes:
                rows = self._walk(number)
            keys.append(rows.keys)
            offsets.append(rows.offsets)
            frames.append(rows.frames)
        return ShardIndex(
            np.array([shard.samples for shard in self.shards]),
            np.concatenate(keys),
            np.concatenate(offsets),
            np.concatenate(frames),
        )

    def _walk(self, shard: int) -> "_Rows":
        """The samples of a shard by its headers, their lengths by meta.json."""
        descriptor = self._file(shard)
        keys, offsets, frames = [], [], []

        def read_at(offset: int, size: int) -> bytes:
            return os.pread(descriptor, size, offset)

        for key, entries in groupby(_entries(read_at, 0), key=lambda entry: entry.key):
            for place, entry in enumerate(entries):
                if place == 0:
                    keys.append(key.encode())
                    offsets.append(entry.offset - _BLOCK)
                if entry.member == "meta.json":
                    try:
                        frames.append(int(json.loads(read_at(entry.offset, entry.size))["frames"]))
                    except (KeyError, TypeError, ValueError):
                        raise HumoError(self._broken(shard, f"{key}.meta.json does not tell its frames")) from None
        if not len(keys) == len(frames) == self.shards[shard].samples:
            listed = self.shards[shard].samples
            raise HumoError(self._broken(shard, f"holds {len(keys)} samples, dataset.json says {listed}"))
        return _Rows(np.array(keys), np.array(offsets), np.array(frames), end=0)


class _Rows(NamedTuple):
    """One shard's part of the index."""

    keys: np.ndarray
    offsets: np.ndarray
    frames: np.ndarray
    end: int
    """Where the last sample ends."""


class _Entry(NamedTuple):
    """One member of one sample."""

    key: str
    member: str
    offset: int
    """Of its content."""
    size: int


def _entries(read_at: ReadAt, offset: int) -> Iterator[_Entry]:
    """The members from an offset on, to the end of the archive; headers as `schemas.shards` writes them (USTAR)."""
    while True:
        header = read_at(offset, _BLOCK)
        if len(header) < _BLOCK or not header[0]:
            return
        if header[257:262] != b"ustar":
            return
        size = int(header[124:136].strip(b" \0") or b"0", 8)
        offset += _BLOCK
        if header[156:157] in _REGULAR:
            name = header[:100].split(b"\0", 1)[0].decode()
            key, _, member = name.rsplit("/", 1)[-1].partition(".")
            yield _Entry(key, member, offset, size)
        offset += size + -size % _BLOCK


def _catalogue(storage: Storage, shards: Sequence[ShardEntry]) -> dict[str, _Rows]:
    """What the catalogue knows of shards: their samples lie in its order, one behind the other."""
    files = [storage.path(path) for path in storage.list("catalogue", ".parquet")]
    if not files:
        return {}
    table = pyarrow.dataset.dataset(files, filesystem=storage.fs, format="parquet").to_table(
        columns=["shard", "key", "frames", "bytes"], filter=pc.field("shard").isin([shard.path for shard in shards])
    )
    keys = np.array(table.column("key").to_pylist(), dtype=np.bytes_)
    frames, sizes = (table.column(name).to_numpy() for name in ("frames", "bytes"))
    found, start = {}, 0
    for shard, rows in groupby(table.column("shard").to_pylist()):
        span = slice(start, start := start + sum(1 for _ in rows))
        ends = np.cumsum(sizes[span])
        found[shard] = _Rows(keys[span], ends - sizes[span], frames[span], int(ends[-1]))
    return found
