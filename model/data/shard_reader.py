"""Random access to single samples in shards, by number, without reading their neighbours.

The offset of a sample comes from the catalogue, or from one scan of the shard's headers if no catalogue matches. A sample
then costs a few reads at known offsets: members that are not requested, clips above all, are skipped, and only requested
members are ever in memory.

Reading continues when the dataset is repacked meanwhile: samples keep their numbers here, and are located in the new shards
once an old shard is missing.
"""

import json
import os
import sys
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any, NamedTuple

import numpy as np
import pyarrow.compute as pc
import pyarrow.dataset
import torch
from jaxtyping import Int, Shaped

from model.data.shard_cache import ShardCache, ShardMissing
from schemas.dataset import ShardEntry, read_description
from schemas.errors import HumoError
from schemas.shards import END_OF_ARCHIVE
from schemas.storage import Storage, stream_sha256

_BLOCK = 512
_OPEN_FILES = 64
"""Maximum open shards per process."""
_REGULAR = (b"0", b"\0")

ReadAt = Callable[[int, int], bytes]
"""(offset, bytes) -> content; shorter at the end of the file."""


@dataclass(frozen=True, eq=False)
class ShardIndex:
    """Locations of the samples of several shards, numbered consecutively."""

    counts: Int[np.ndarray, "shards"]
    """Samples per shard."""
    keys: Shaped[np.ndarray, "samples"]
    """Sample keys as bytes."""
    offsets: Int[np.ndarray, "samples"]
    """Offset of the sample's first header in its shard, bytes."""
    frames: Int[np.ndarray, "samples"]


class SampleRemoved(HumoError):
    """A sample is no longer in the dataset: it was removed and the dataset repacked."""


class ShardReader:
    """Samples of several shards by number, read directly from a local disk and through the cache from remote storage.

    It can be passed to other processes by fork or pickling: each process opens its own files.
    """

    def __init__(
        self, storage: Storage, shards: Sequence[ShardEntry], *, cache: ShardCache, check_hashes: bool = False
    ) -> None:
        """`check_hashes` verifies the sha256 of each shard when it is first opened; cached shards are always verified.
        Raises HumoError for shards that do not match dataset.json."""
        self.storage, self.shards, self.cache = storage, tuple(shards), cache
        self._unchecked = torch.full((len(shards),), check_hashes and storage.is_local)
        if self._unchecked.any():
            self._unchecked.share_memory_()  # one process's check is enough for all
        self._files: dict[int, int] = {}
        self._owner = os.getpid()
        self.index = self._read_index()
        self._shard_numbers = np.repeat(np.arange(len(self.index.counts)), self.index.counts)
        self._offsets = self.index.offsets

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_files": {}}

    def __del__(self) -> None:
        if not sys.is_finalizing():  # os.close may be gone then, and the system closes the files
            self._close()

    def read(self, number: int, requested: Collection[str]) -> tuple[str, dict[str, bytes]]:
        """(key, members) of a sample, with those of the requested members that exist.

        Raises SampleRemoved if the sample was removed and the dataset repacked, HumoError if the shard does not hold it at its
        offset.
        """
        try:
            return self._read(number, requested)
        except ShardMissing as error:
            if not self._relocate():
                raise HumoError(str(error)) from None
        return self._read(number, requested)

    def nearest(self, number: int) -> int:
        """The given sample if it still exists, else the next one that does, wrapping around at the end."""
        existing = np.flatnonzero(self._shard_numbers >= 0)
        if not len(existing):
            raise HumoError(f"{self.storage.uri}: every sample of the split is removed; ingest more")
        return int(existing[np.searchsorted(existing, number) % len(existing)])

    def _read(self, number: int, requested: Collection[str]) -> tuple[str, dict[str, bytes]]:
        shard = int(self._shard_numbers[number])
        if shard < 0:
            raise SampleRemoved(f"{self.storage.uri}: {self.index.keys[number].decode()} was removed during the run")
        key = self.index.keys[number].decode()
        descriptor = self._file(shard)
        members = {}
        for entry in _entries(lambda offset, size: os.pread(descriptor, size, offset), int(self._offsets[number])):
            if entry.key != key:
                break
            if entry.member in requested:
                members[entry.member] = os.pread(descriptor, entry.size, entry.offset)
                if len(members[entry.member]) < entry.size:
                    raise HumoError(self._error(shard, f"ends inside {key}.{entry.member}"))
        if not members:
            raise HumoError(self._error(shard, f"does not hold {key} at its offset in the catalogue"))
        return key, members

    def _error(self, shard: int, problem: str) -> str:
        uri = self.storage.uri
        return f"{uri}/{self.shards[shard].path}: {problem}; restart if the dataset was repacked, otherwise run humo verify {uri}"

    def _file(self, shard: int) -> int:
        """The descriptor of an open shard; the oldest one is closed at the limit."""
        if shard not in self._files:
            if len(self._files) >= _OPEN_FILES:
                os.close(self._files.pop(next(iter(self._files))))
            self._files[shard] = self._open(shard)
        return self._files[shard]

    def _open(self, shard: int) -> int:
        entry = self.shards[shard]
        if not self.storage.is_local:
            if self._owner != os.getpid():  # a remote file system's threads do not survive a fork
                self.storage, self._owner = Storage(self.storage.address), os.getpid()
            return self.cache.open(self.storage, entry)
        try:
            descriptor = os.open(self.storage.path(entry.path), os.O_RDONLY)
        except FileNotFoundError:
            raise ShardMissing(self._error(shard, "does not exist, though dataset.json lists it")) from None
        size = os.fstat(descriptor).st_size
        if size != entry.bytes:
            raise HumoError(self._error(shard, f"has {size:,} bytes, dataset.json lists {entry.bytes:,}"))
        if self._unchecked[shard]:
            with self.storage.open(entry.path) as file:
                sha256 = stream_sha256(file)
            if sha256 != entry.sha256:
                raise HumoError(
                    self._error(shard, f"its sha256 is {sha256[:12]}..., dataset.json lists {entry.sha256[:12]}...")
                )
            self._unchecked[shard] = False
        return descriptor

    def _relocate(self) -> bool:
        """Locate the samples in the dataset's current shards; returns whether the shards have changed."""
        shards = read_description(Storage(self.storage.address)).shards
        if {shard.path for shard in shards} == {shard.path for shard in self.shards}:
            return False
        catalogue = _read_catalogue(self.storage, shards)
        listed = [(number, catalogue[shard.path]) for number, shard in enumerate(shards) if shard.path in catalogue]
        keys = np.concatenate([rows.keys for _, rows in listed] or [np.zeros(0, "S1")])
        shard_of = np.concatenate(
            [np.full(len(rows.keys), number) for number, rows in listed] or [np.zeros(0, np.int64)]
        )
        offsets = np.concatenate([rows.offsets for _, rows in listed] or [np.zeros(0, np.int64)])
        order = np.argsort(keys)
        at = np.searchsorted(keys, self.index.keys, sorter=order)
        exists = at < len(keys)
        exists[exists] = keys[order[at[exists]]] == self.index.keys[exists]
        self._shard_numbers, self._offsets = np.full(len(exists), -1), np.zeros(len(exists), np.int64)
        self._shard_numbers[exists], self._offsets[exists] = shard_of[order[at[exists]]], offsets[order[at[exists]]]
        self._close()
        self.shards, self._unchecked = tuple(shards), torch.zeros(len(shards), dtype=torch.bool)
        return True

    def _close(self) -> None:
        for descriptor in self.__dict__.get("_files", {}).values():
            os.close(descriptor)
        self._files = {}

    def _read_index(self) -> ShardIndex:
        catalogue = _read_catalogue(self.storage, self.shards)
        keys, offsets, frames = [], [], []
        for number, shard in enumerate(self.shards):
            rows = catalogue.get(shard.path)
            if rows is None or len(rows.keys) != shard.samples or rows.end + len(END_OF_ARCHIVE) != shard.bytes:
                rows = self._scan(number)
            keys.append(rows.keys)
            offsets.append(rows.offsets)
            frames.append(rows.frames)
        return ShardIndex(
            np.array([shard.samples for shard in self.shards]),
            np.concatenate(keys),
            np.concatenate(offsets),
            np.concatenate(frames),
        )

    def _scan(self, shard: int) -> "_Rows":
        """The samples of a shard from its headers, their lengths from meta.json."""
        descriptor = self._file(shard)
        keys, offsets, frames = [], [], []

        def read_at(offset: int, size: int) -> bytes:
            return os.pread(descriptor, size, offset)

        for key, entries in groupby(_entries(read_at, 0), key=lambda entry: entry.key):
            for i, entry in enumerate(entries):
                if i == 0:
                    keys.append(key.encode())
                    offsets.append(entry.offset - _BLOCK)
                if entry.member == "meta.json":
                    try:
                        frames.append(int(json.loads(read_at(entry.offset, entry.size))["frames"]))
                    except (KeyError, TypeError, ValueError):
                        raise HumoError(self._error(shard, f"{key}.meta.json has no valid frames")) from None
        if not len(keys) == len(frames) == self.shards[shard].samples:
            listed = self.shards[shard].samples
            raise HumoError(self._error(shard, f"holds {len(keys)} samples, dataset.json lists {listed}"))
        return _Rows(np.array(keys), np.array(offsets), np.array(frames), end=0)


class _Rows(NamedTuple):
    """Index rows of one shard."""

    keys: np.ndarray
    offsets: np.ndarray
    frames: np.ndarray
    end: int
    """End offset of the last sample, bytes."""


class _Entry(NamedTuple):
    """One member of one sample."""

    key: str
    member: str
    offset: int
    """Offset of the content, bytes."""
    size: int


def _entries(read_at: ReadAt, offset: int) -> Iterator[_Entry]:
    """Members from an offset to the end of the archive; headers are USTAR, as `schemas.shards` writes them."""
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


def _read_catalogue(storage: Storage, shards: Sequence[ShardEntry]) -> dict[str, _Rows]:
    """Catalogue rows by shard path: samples are contiguous in a shard, in the order of the catalogue."""
    files = [storage.path(path) for path in storage.list("catalogue", ".parquet")]
    if not files:
        return {}
    table = pyarrow.dataset.dataset(files, filesystem=storage.fs, format="parquet").to_table(
        columns=["shard", "key", "frames", "bytes"], filter=pc.field("shard").isin([shard.path for shard in shards])
    )
    keys = np.array(table.column("key").to_pylist(), dtype=np.bytes_)
    frames, sizes = (table.column(name).to_numpy() for name in ("frames", "bytes"))
    by_shard, start = {}, 0
    for shard, rows in groupby(table.column("shard").to_pylist()):
        span = slice(start, start := start + sum(1 for _ in rows))
        ends = np.cumsum(sizes[span])
        by_shard[shard] = _Rows(keys[span], ends - sizes[span], frames[span], int(ends[-1]))
    return by_shard
