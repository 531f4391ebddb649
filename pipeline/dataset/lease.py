"""A lease on a dataset: one job at a time writes to it.

`lease.json` names its holder and counts its signs of life. Whoever finds one watches it: while the count goes on the dataset is
taken; a holder that is dead, or silent for as long as it takes to miss several beats, is replaced. Time is measured by the
watcher alone, so clocks need not agree. Nothing that was committed depends on it (see `pipeline.dataset.commits`): a lease keeps
two jobs from doing the same work, and an orphan from being swept while its commit is under way.
"""

import contextlib
import json
import os
import socket
import threading
import time
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import psutil

from schemas.errors import HumoError
from schemas.storage import Storage

LEASE = "lease.json"
BEAT_S = 10.0
"""Seconds between signs of life."""
_MISSED_BEATS = 4
"""So many beats without a sign mean that the holder is gone."""
_NO_LEASE = {"host": "", "pid": 0, "beat_s": 0.5}
"""What a file counts as that is no lease: nobody's, but for one who writes it this very moment."""


class Lease:
    """Held as a context; raises HumoError where another job holds it."""

    def __init__(self, storage: Storage, purpose: str, beat_s: float = BEAT_S) -> None:
        self.storage, self.beat_s = storage, beat_s
        self._mine = _this_process() | {"purpose": purpose, "beat": 0, "beat_s": beat_s}
        self._ended = threading.Event()
        self._lost = ""
        self._thread = threading.Thread(target=self._beat, daemon=True, name="lease")

    def __enter__(self) -> Self:
        try:
            self._acquire()
            self._thread.start()
        except BaseException:
            self._release()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        self._thread.join()
        self._release()

    def check(self) -> None:
        """Raises HumoError where the lease was lost to another job, as after a long sleep of the machine."""
        if self._lost:
            raise HumoError(
                f"{self.storage.uri}: {self._lost} has taken the lease over, for this job gave no sign of life; nothing is "
                "lost: run the same command again when that one has ended"
            )

    def _acquire(self) -> None:
        try:
            for _ in range(3):
                try:
                    self.storage.create(LEASE, _encode(self._mine))
                    return
                except FileExistsError:
                    self._wait_for_its_end()
        except OSError as error:
            raise HumoError(
                f"output: {self.storage.uri} cannot be written to ({error}); choose another folder or mend its rights"
            ) from None
        raise HumoError(f"{self.storage.uri}: other jobs keep taking its lease; let them end first")

    def _wait_for_its_end(self) -> None:
        """Deletes the lease of a holder that is gone; raises HumoError for one that lives."""
        before = self._read()
        if before and not _is_dead(before):
            patience = _MISSED_BEATS * float(before.get("beat_s", BEAT_S))
            deadline = time.monotonic() + patience
            while time.monotonic() < deadline:
                time.sleep(min(1.0, patience / 10))
                now = self._read()
                if not now:
                    return
                if now != before:
                    raise HumoError(
                        f"{self.storage.uri}: {_name(now)} is at work on it; wait until it has ended, or give another output"
                    )
        self._delete_if(before)

    def _release(self) -> None:
        with contextlib.suppress(OSError):  # whoever comes next sees that the holder is gone
            if self._is_mine(self._read()):
                self.storage.delete(LEASE)

    def _delete_if(self, holder: dict[str, Any]) -> None:
        if self._read() == holder:
            with contextlib.suppress(FileNotFoundError):
                self.storage.delete(LEASE)

    def _beat(self) -> None:
        while not self._ended.wait(self.beat_s):
            try:
                found = self._read()
                if not self._is_mine(found):
                    self._lost = _name(found)
                    return
                self._mine["beat"] += 1
                self.storage.write_bytes(LEASE, _encode(self._mine))
            except OSError:
                continue  # the job itself will say that the output cannot be reached

    def _is_mine(self, found: dict[str, Any]) -> bool:
        return all(found.get(name) == self._mine[name] for name in ("host", "pid", "started", "purpose"))

    def _read(self) -> dict[str, Any]:
        """What the lease says; empty where there is none or it is no lease."""
        try:
            found = json.loads(self.storage.read_bytes(LEASE))
        except FileNotFoundError:
            return {}
        except ValueError:
            found = None
        return found if isinstance(found, dict) else _NO_LEASE


def _encode(content: dict[str, Any]) -> bytes:
    return json.dumps(content, indent=1, sort_keys=True).encode()


def _name(holder: dict[str, Any]) -> str:
    host = str(holder.get("host", "")).partition("|")[0] or "an unknown machine"
    return f"another job ({holder.get('purpose', 'unknown')}, process {holder.get('pid', '?')} on {host})"


def _this_process() -> dict[str, Any]:
    return {"host": _host(), "pid": os.getpid(), "started": psutil.Process().create_time()}


def _host() -> str:
    """The machine since its start, and the container in it: process numbers mean something only there."""
    told = [socket.gethostname()]
    boot, space = Path("/proc/sys/kernel/random/boot_id"), Path("/proc/self/ns/pid")
    told += [boot.read_text().strip()] if boot.exists() else []
    told += [os.readlink(space)] if space.is_symlink() else []
    return "|".join(told)


def _is_dead(holder: dict[str, Any]) -> bool:
    """Whether it ran here and runs no more."""
    if holder.get("host") != _host():
        return False
    try:
        return psutil.Process(int(holder["pid"])).create_time() != holder["started"]
    except psutil.NoSuchProcess:
        return True
