"""A lease on a dataset: only one job at a time writes to it.

`lease.json` names its holder and counts its heartbeats. A job that finds one watches it: while the count increases, the dataset
is in use; a holder that is dead or misses several beats is replaced. Only the watcher measures time, so clocks need not agree.
The consistency of commits does not depend on it (see `pipeline.dataset.commits`): a lease keeps two jobs from doing the same
work, and an orphan from being deleted while its commit is in progress.
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
"""Seconds between heartbeats."""
_MISSED_BEATS = 4
"""Missed heartbeats after which the holder counts as dead."""
_NO_LEASE = {"host": "", "pid": 0, "beat_s": 0.5}
"""Stands for an invalid lease file: without a holder, unless it is just being written."""


class Lease:
    """A context manager; raises HumoError if another job holds the lease."""

    def __init__(self, storage: Storage, purpose: str, beat_s: float = BEAT_S) -> None:
        self.storage, self.beat_s = storage, beat_s
        self._holder = _this_process() | {"purpose": purpose, "beat": 0, "beat_s": beat_s}
        self._stopped = threading.Event()
        self._new_holder = ""
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
        self._stopped.set()
        self._thread.join()
        self._release()

    def check(self) -> None:
        """Raises HumoError if another job took over the lease, for example after the machine was suspended."""
        if self._new_holder:
            raise HumoError(
                f"{self.storage.uri}: {self._new_holder} has taken the lease over, because this job sent no heartbeat; no "
                "commit is lost: run the same command again when the other job has ended"
            )

    def _acquire(self) -> None:
        try:
            for _ in range(3):
                try:
                    self.storage.create(LEASE, _encode(self._holder))
                    return
                except FileExistsError:
                    self._wait_for_release()
        except OSError as error:
            raise HumoError(
                f"output: {self.storage.uri} cannot be written to ({error}); choose another folder or fix its permissions"
            ) from None
        raise HumoError(f"{self.storage.uri}: other jobs keep taking its lease; wait until they have ended")

    def _wait_for_release(self) -> None:
        """Delete the lease of a dead holder; raises HumoError for a live one."""
        before = self._read()
        if before and not _is_dead(before):
            timeout_s = _MISSED_BEATS * float(before.get("beat_s", BEAT_S))
            deadline = time.monotonic() + timeout_s
            while time.monotonic() < deadline:
                time.sleep(min(1.0, timeout_s / 10))
                now = self._read()
                if not now:
                    return
                if now != before:
                    raise HumoError(
                        f"{self.storage.uri}: {_name(now)} is writing to it; wait until it has ended, or give another output"
                    )
        self._delete_if(before)

    def _release(self) -> None:
        with contextlib.suppress(OSError):  # the next job detects the dead holder
            if self._is_mine(self._read()):
                self.storage.delete(LEASE)

    def _delete_if(self, holder: dict[str, Any]) -> None:
        if self._read() == holder:
            with contextlib.suppress(FileNotFoundError):
                self.storage.delete(LEASE)

    def _beat(self) -> None:
        while not self._stopped.wait(self.beat_s):
            try:
                holder = self._read()
                if not self._is_mine(holder):
                    self._new_holder = _name(holder)
                    return
                self._holder["beat"] += 1
                self.storage.write_bytes(LEASE, _encode(self._holder))
            except OSError:
                continue  # the job itself reports an unreachable output

    def _is_mine(self, holder: dict[str, Any]) -> bool:
        return all(holder.get(name) == self._holder[name] for name in ("host", "pid", "started", "purpose"))

    def _read(self) -> dict[str, Any]:
        """Content of the lease; empty if there is none."""
        try:
            content = json.loads(self.storage.read_bytes(LEASE))
        except FileNotFoundError:
            return {}
        except ValueError:
            content = None
        return content if isinstance(content, dict) else _NO_LEASE


def _encode(content: dict[str, Any]) -> bytes:
    return json.dumps(content, indent=1, sort_keys=True).encode()


def _name(holder: dict[str, Any]) -> str:
    host = str(holder.get("host", "")).partition("|")[0] or "an unknown machine"
    return f"another job ({holder.get('purpose', 'unknown')}, process {holder.get('pid', '?')} on {host})"


def _this_process() -> dict[str, Any]:
    return {"host": _host(), "pid": os.getpid(), "started": psutil.Process().create_time()}


def _host() -> str:
    """Host name, boot and process namespace, within which process ids are unique."""
    parts = [socket.gethostname()]
    boot, namespace = Path("/proc/sys/kernel/random/boot_id"), Path("/proc/self/ns/pid")
    parts += [boot.read_text().strip()] if boot.exists() else []
    parts += [os.readlink(namespace)] if namespace.is_symlink() else []
    return "|".join(parts)


def _is_dead(holder: dict[str, Any]) -> bool:
    """Whether the holder ran on this host and has ended."""
    if holder.get("host") != _host():
        return False
    try:
        return psutil.Process(int(holder["pid"])).create_time() != holder["started"]
    except psutil.NoSuchProcess:
        return True
