"""Remote shards on the local disk: fetched whole, checked against their hash, dropped when room runs out.

A file is named by the hash of its content, so a cached shard is never stale and several datasets, runs and processes can
share one folder. Whoever needs a shard first fetches it under a lock, the others wait. A shard that is dropped while
others read it stays readable for them: they have it open.
"""

import errno
import hashlib
import os
from collections.abc import Iterator
from pathlib import Path

from filelock import FileLock, Timeout

from schemas.dataset import ShardEntry
from schemas.errors import HumoError
from schemas.storage import Storage

_CHUNK_BYTES = 8 << 20


class ShardGone(HumoError):
    """A shard that dataset.json listed is there no more."""


class ShardCache:
    """A folder of shards that keeps to a size."""

    def __init__(self, folder: Path, limit_bytes: int) -> None:
        self.folder, self.limit_bytes = folder, limit_bytes

    def open(self, storage: Storage, shard: ShardEntry) -> int:
        """A file descriptor of the shard's local copy, fetched if it is not there.

        Raises HumoError where it is bigger than the cache, cannot be fetched or is not what dataset.json lists.
        """
        path = self.folder / f"{shard.sha256}.tar"
        while True:
            try:
                descriptor = os.open(path, os.O_RDONLY)
            except FileNotFoundError:
                self._fetch(storage, shard, path)
            else:
                os.utime(path)  # what was opened last is dropped last
                return descriptor

    def _fetch(self, storage: Storage, shard: ShardEntry, path: Path) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        with FileLock(path.with_suffix(".lock")):
            if path.exists():
                return
            partial = path.with_suffix(".partial")
            try:
                self._reserve(shard, partial)
                found = _copy(storage, shard, partial)
                if found != shard.sha256:
                    raise HumoError(
                        f"{storage.uri}/{shard.path}: its sha256 is {found[:12]}..., dataset.json says "
                        f"{shard.sha256[:12]}...; run humo verify {storage.uri}, then humo pack"
                    )
                partial.replace(path)
            except OSError as error:
                if error.errno != errno.ENOSPC:
                    raise
                raise HumoError(
                    f"{self.folder}: the disk is full; lower cache_gib, or name another folder as cache"
                ) from None
            finally:
                partial.unlink(missing_ok=True)

    def _reserve(self, shard: ShardEntry, partial: Path) -> None:
        """Make room and take it, by a file of the shard's size that has no content yet."""
        if shard.bytes > self.limit_bytes:
            raise HumoError(
                f"{shard.path}: {shard.bytes:,} bytes do not fit a cache of {self.limit_bytes:,}; raise cache_gib"
            )
        with FileLock(self.folder / "room.lock"):
            sizes = {path: (stat.st_mtime_ns, stat.st_size) for path, stat in self._files()}
            room = self.limit_bytes - sum(size for _, size in sizes.values())
            for path, (_, size) in sorted(sizes.items(), key=lambda item: item[1]):
                if room >= shard.bytes:
                    break
                if path.suffix == ".tar" or _is_abandoned(path):
                    path.unlink(missing_ok=True)
                    room += size
            with partial.open("wb") as file:
                file.truncate(shard.bytes)

    def _files(self) -> Iterator[tuple[Path, os.stat_result]]:
        for entry in os.scandir(self.folder):
            if entry.name.endswith((".tar", ".partial")):
                try:
                    yield Path(entry.path), entry.stat()
                except FileNotFoundError:
                    continue


def _copy(storage: Storage, shard: ShardEntry, target: Path) -> str:
    """Fetch a shard, piece by piece; returns its sha256."""
    total = hashlib.sha256()
    try:
        with storage.fs.open(storage.path(shard.path), "rb") as source, target.open("r+b") as file:
            while piece := source.read(_CHUNK_BYTES):
                total.update(piece)
                file.write(piece)
            file.truncate()
    except FileNotFoundError:
        raise ShardGone(
            f"{storage.uri}/{shard.path}: is not there, though dataset.json lists it; run humo pack"
        ) from None
    return total.hexdigest()


def _is_abandoned(partial: Path) -> bool:
    """Whether a download's process died: nobody holds its lock."""
    try:
        with FileLock(partial.with_suffix(".lock"), timeout=0):
            return True
    except Timeout:
        return False
