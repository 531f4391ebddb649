"""Local disk cache of remote shards: fetched whole, verified by hash, evicted when space runs out.

A file is named by the hash of its content, so a cached shard is never stale and several datasets, runs and processes can
share one folder. The first process that needs a shard fetches it under a lock while other processes wait. A shard that
is evicted while in use stays readable through its open file descriptors.
"""

import errno
import hashlib
import os
import time
from collections.abc import Iterator
from pathlib import Path

from filelock import FileLock, Timeout

from schemas.dataset import ShardEntry
from schemas.errors import HumoError
from schemas.storage import Storage

_CHUNK_BYTES = 8 << 20


class ShardMissing(HumoError):
    """A shard listed in dataset.json no longer exists."""


class ShardCache:
    """A folder of shards with a size limit."""

    def __init__(self, folder: Path, limit_bytes: int) -> None:
        self.folder, self.limit_bytes = folder, limit_bytes

    def open(self, storage: Storage, shard: ShardEntry) -> int:
        """A file descriptor of the shard's local copy, fetched if missing.

        Raises HumoError if the shard is larger than the cache, cannot be fetched or does not match dataset.json.
        """
        path = self.folder / f"{shard.sha256}.tar"
        while True:
            try:
                descriptor = os.open(path, os.O_RDONLY)
            except FileNotFoundError:
                self._fetch(storage, shard, path)
            else:
                now_ns = time.time_ns()  # os.utime(path) alone has the resolution of the kernel's tick
                os.utime(path, ns=(now_ns, now_ns))  # least recently opened shards are evicted first
                return descriptor

    def _fetch(self, storage: Storage, shard: ShardEntry, path: Path) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        with FileLock(path.with_suffix(".lock")):
            if path.exists():
                return
            partial = path.with_suffix(".partial")
            try:
                self._reserve(shard, partial)
                sha256 = _copy(storage, shard, partial)
                if sha256 != shard.sha256:
                    raise HumoError(
                        f"{storage.uri}/{shard.path}: its sha256 is {sha256[:12]}..., dataset.json lists "
                        f"{shard.sha256[:12]}...; run humo verify {storage.uri}, then humo pack"
                    )
                partial.replace(path)
            except OSError as error:
                if error.errno != errno.ENOSPC:
                    raise
                raise HumoError(
                    f"{self.folder}: the disk is full; lower cache_gib or set cache to another folder"
                ) from None
            finally:
                partial.unlink(missing_ok=True)

    def _reserve(self, shard: ShardEntry, partial: Path) -> None:
        """Evict shards until this one fits, then reserve its space with an empty file of its size."""
        if shard.bytes > self.limit_bytes:
            raise HumoError(
                f"{shard.path}: {shard.bytes:,} bytes exceed the cache of {self.limit_bytes:,} bytes; raise cache_gib"
            )
        with FileLock(self.folder / "room.lock"):
            sizes = {path: (stat.st_mtime_ns, stat.st_size) for path, stat in self._files()}
            free_bytes = self.limit_bytes - sum(size for _, size in sizes.values())
            for path, (_, size) in sorted(sizes.items(), key=lambda item: item[1]):
                if free_bytes >= shard.bytes:
                    break
                if path.suffix == ".tar" or _is_abandoned(path):
                    path.unlink(missing_ok=True)
                    free_bytes += size
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
    """Copy a shard in chunks; returns its sha256."""
    sha256 = hashlib.sha256()
    try:
        with storage.fs.open(storage.path(shard.path), "rb") as source, target.open("r+b") as file:
            while chunk := source.read(_CHUNK_BYTES):
                sha256.update(chunk)
                file.write(chunk)
            file.truncate()
    except FileNotFoundError:
        raise ShardMissing(
            f"{storage.uri}/{shard.path}: does not exist, though dataset.json lists it; run humo pack"
        ) from None
    return sha256.hexdigest()


def _is_abandoned(partial: Path) -> bool:
    """Whether the downloading process died: no process holds the lock."""
    try:
        with FileLock(partial.with_suffix(".lock"), timeout=0):
            return True
    except Timeout:
        return False
