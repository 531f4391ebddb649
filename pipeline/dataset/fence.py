"""The fence: what a job writes or deletes takes effect only while its lease is the latest one of the dataset.

Every lease has an epoch, a number larger than that of all leases before it, which is claimed by creating `.epochs/NUMBER` once. A
job may sleep at any point (a stopped process, a suspended machine), lose its lease meanwhile and wake up in the middle of a write:

- On a disk every write is a rename or a link out of a folder in `.epochs/NUMBER/`, and every deletion is a rename into it. Whoever
  claims a later epoch removes that folder first, so that these renames fail, whenever the sleeper wakes.
- On an object store the epochs are listed before every write, and S3's requests are sent only within two heartbeats of that: a
  sleeper's is not, and one that is still on its way is refused after 15 minutes, before anything that it names is swept. A file
  that changes is replaced only if its ETag is the one from before the listing, so such a request cannot overwrite what was written
  since. The names of shards that are to be deleted are recorded in `.condemned/` until they are, and are not used for other shards
  meanwhile: a deletion that comes late finds nothing of value.
"""

import contextlib
import errno
import json
import os
import secrets
import shutil
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

from pipeline.dataset.conditional_writes import ChangedError, LateError, is_s3, replace, revision, send_only_if
from schemas.errors import HumoError
from schemas.ids import digest
from schemas.storage import PARTIAL, Storage

LEASE = "lease.json"
EPOCHS = ".epochs"
CONDEMNED = ".condemned"
FRESH_S = 20.0
"""Age up to which a check allows a request to be sent, seconds; a lease is taken over after more than that without a heartbeat."""
_ATTEMPTS = 4
_ENDED = ".ended-"


class FencedStorage(Storage):
    """A dataset as the holder of a lease writes to it. Every change raises HumoError once a later lease has been claimed.

    It can be pickled: workers on other machines write under the same lease.
    """

    def __init__(self, storage: Storage, epoch: int, fresh_s: float = FRESH_S) -> None:
        self.__dict__.update(storage.__dict__)
        self.epoch, self.fresh_s = epoch, fresh_s
        self._checked_s = -float("inf")
        # A job that comes too late may claim a number again for a moment, which must not bring back the folder of an earlier job.
        self._staging = f"{_epoch_path(self, epoch)}/{secrets.token_hex(8)}"
        if self.is_local:
            Path(self.path(self._staging)).mkdir()

    def check(self) -> None:
        """Raises HumoError if the lease has been lost, for example because the machine was suspended."""
        now_s = _clock_s()
        if not (Path(self.path(self._staging)).is_dir() if self.is_local else top_epoch(self) == self.epoch):
            raise lost_error(self)
        self._checked_s = now_s

    def write_bytes(self, relative: str, content: bytes) -> None:
        """Publish a small file. On S3 it replaces only the version that was there when the lease was checked last."""
        if self.is_local or not is_s3(self):
            super().write_bytes(relative, content)
            return
        for attempt in range(_ATTEMPTS):
            before = revision(self, relative)
            self.check()
            try:
                with send_only_if(self, self._is_fresh):
                    replace(self, relative, content, before)
                return
            except (ChangedError, LateError) as error:
                # A request that was repeated because its answer was lost, or a worker of this lease.
                with contextlib.suppress(FileNotFoundError):
                    if self.read_bytes(relative) == content:
                        return
                if attempt == _ATTEMPTS - 1:
                    raise self._late_error(relative) from error

    @contextmanager
    def publish(self, relative: str) -> Iterator[BinaryIO]:
        try:
            with self._fenced(), super().publish(relative) as file:
                yield file
                if not self.is_local:
                    self.check()  # an error here discards the upload
        except LateError as error:
            raise self._late_error(relative) from error

    def create(self, relative: str, content: bytes) -> None:
        self._send(relative, lambda: super(FencedStorage, self).create(relative, content))

    def delete(self, relative: str) -> None:
        if not self.is_local:
            self.delete_all([relative])
            return
        path = Path(self.path(relative))
        with self._fenced():
            folder = self._staging_folder(path)
            if folder == path.parent:  # on another disk
                path.unlink()
                return
            removed = folder / f".{path.name}.{os.getpid()}-{threading.get_ident()}{PARTIAL}"
            path.rename(removed)
        removed.unlink(missing_ok=True)

    def delete_all(self, relative: Sequence[str]) -> None:
        if self.is_local or not relative:
            super().delete_all(relative)
            return
        record = f"{CONDEMNED}/{self.epoch:08d}-{digest(*relative, digits=16)}.json"
        super().write_bytes(record, json.dumps(list(relative)).encode())
        # Checked after the record is written: a later lease either reads it, or is seen here.
        for one in [*relative, record]:
            with contextlib.suppress(FileNotFoundError):
                self._send(one, partial(self.fs.rm_file, self.path(one)))

    def _staging_folder(self, target: Path) -> Path:
        folder = Path(self.path(self._staging))
        try:
            is_same_disk = folder.stat().st_dev == target.parent.stat().st_dev
        except FileNotFoundError:
            self.check()
            raise
        return folder if is_same_disk else target.parent

    @contextmanager
    def _fenced(self) -> Iterator[None]:
        self.check()
        try:
            with send_only_if(self, self._is_fresh):
                yield
        except OSError as error:
            if isinstance(error, LateError) or error.errno in (errno.ENOENT, errno.ESTALE):
                self.check()  # the staging folder is gone
            raise

    def _send(self, relative: str, change: Callable[[], None]) -> None:
        """Make a change, again if the job slept before it was sent and still has its lease."""
        for attempt in range(_ATTEMPTS):
            try:
                with self._fenced():
                    change()
                return
            except LateError as error:
                if attempt == _ATTEMPTS - 1:
                    raise self._late_error(relative) from error

    def _late_error(self, relative: str) -> HumoError:
        return HumoError(
            f"{self.uri}/{relative}: not written, because the store answers more slowly than the lease allows ({self.fresh_s:g} s)"
            "; raise HUMO_LEASE_BEAT_S, in all jobs on this dataset, and run the same command again"
        )

    def _is_fresh(self) -> bool:
        return _clock_s() - self._checked_s <= self.fresh_s


def top_epoch(storage: Storage) -> int:
    """The latest epoch; 0 where there was none."""
    if storage.is_local:
        folder = Path(storage.path(EPOCHS))
        names = os.listdir(folder) if folder.is_dir() else []
    else:
        names = [path.removeprefix(f"{EPOCHS}/").removesuffix(".json") for path in storage.list(EPOCHS, ".json")]
    return max((int(name) for name in names if name.isdigit()), default=0)


def claim_epoch(storage: Storage, epoch: int, fresh_s: float = FRESH_S) -> FencedStorage | None:
    """Begin an epoch and end all earlier ones; None if another job has begun this one or a later one. `fresh_s`: see FRESH_S."""
    path = _epoch_path(storage, epoch)
    try:
        if storage.is_local:
            Path(storage.path(EPOCHS)).mkdir(parents=True, exist_ok=True)
            Path(storage.path(path)).mkdir()
        else:
            storage.create(path, b"{}")
    except FileExistsError:
        return None
    if top_epoch(storage) != epoch:  # the number was free because an earlier job of that epoch has been ended
        _end_epoch(storage, epoch)
        return None
    _end_earlier(storage, epoch)
    try:
        return FencedStorage(storage, epoch, fresh_s)
    except FileNotFoundError:  # ended by a later one already
        return None


def condemned(storage: Storage) -> set[str]:
    """Names that a job was about to delete when it lost its lease, and may still delete."""
    if storage.is_local:
        return set()
    names: set[str] = set()
    for path in storage.list(CONDEMNED, ".json"):
        with contextlib.suppress(FileNotFoundError):
            names.update(json.loads(storage.read_bytes(path)))
    return names


def read_holder(storage: Storage) -> dict[str, Any]:
    """Content of lease.json; empty if there is none, and only a host without a name if it is invalid."""
    try:
        content = json.loads(storage.read_bytes(LEASE))
    except FileNotFoundError:
        return {}
    except ValueError:
        content = None
    # Without a holder, unless it is just being written.
    return content if isinstance(content, dict) else {"host": "", "pid": 0, "beat_s": 0.5}


def holder_name(holder: dict[str, Any]) -> str:
    """The job of a lease, for a message."""
    host = str(holder.get("host", "")).partition("|")[0] or "an unknown machine"
    return f"another job ({holder.get('purpose', 'unknown')}, process {holder.get('pid', '?')} on {host})"


def lost_error(storage: Storage) -> HumoError:
    """The error of a job that has lost its lease."""
    holder = read_holder(storage)
    is_later = holder and holder.get("epoch", storage.epoch + 1) > storage.epoch
    return HumoError(
        f"{storage.uri}: {holder_name(holder) if is_later else 'another job'} has taken the lease over, because this job sent no "
        "heartbeat; no commit is lost: run the same command again when the other job has ended"
    )


def _clock_s() -> float:
    """A clock that goes on while the machine is suspended, where there is one."""
    return time.clock_gettime(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC))


def _epoch_path(storage: Storage, epoch: int) -> str:
    return f"{EPOCHS}/{epoch:08d}" + ("" if storage.is_local else ".json")


def _end_earlier(storage: Storage, epoch: int) -> None:
    if not storage.is_local:
        for path in storage.list(EPOCHS, ".json"):
            name = path.removeprefix(f"{EPOCHS}/").removesuffix(".json")
            if name.isdigit() and int(name) < epoch:
                with contextlib.suppress(FileNotFoundError):
                    storage.delete(path)
        return
    for name in os.listdir(storage.path(EPOCHS)):
        if name.isdigit() and int(name) < epoch:
            _end_epoch(storage, int(name))
        elif name.startswith(_ENDED):  # by a job that was killed meanwhile
            shutil.rmtree(Path(storage.path(EPOCHS)) / name, ignore_errors=True)


def _end_epoch(storage: Storage, epoch: int) -> None:
    """On a disk the folder is renamed first: nothing can be added to it while it is being deleted."""
    path = storage.path(_epoch_path(storage, epoch))
    with contextlib.suppress(FileNotFoundError):
        if not storage.is_local:
            storage.delete(_epoch_path(storage, epoch))
            return
        ended = Path(storage.path(EPOCHS)) / f"{_ENDED}{epoch:08d}-{os.getpid()}-{threading.get_ident()}"
        Path(path).rename(ended)
        shutil.rmtree(ended, ignore_errors=True)
