"""A lease on a dataset: only one job at a time writes to it.

`lease.json` names its holder and counts its heartbeats. A job that finds one watches it: while the count increases, the dataset
is in use; a holder that is dead or misses several beats is replaced. Only the watcher measures time, so clocks need not agree.
A holder that was replaced but only slept cannot write or delete any more: `Lease.storage` is the dataset behind a fence
(`pipeline.dataset.fence`), through which everything under the lease has to be written.
"""

import contextlib
import json
import logging
import os
import secrets
import socket
import threading
import time
from pathlib import Path
from types import TracebackType
from typing import Any, Self, cast

import psutil

from pipeline.dataset.conditional_writes import Guarantees, delete_unchanged, is_s3, probe, replace, revision
from pipeline.dataset.fence import LEASE, FencedStorage, claim_epoch, holder_name, lost_error, read_holder, top_epoch
from schemas.errors import HumoError, UsageError
from schemas.storage import Storage

__all__ = ["BEAT_S", "BEAT_VARIABLE", "LEASE", "Lease"]

BEAT_S = 10.0
"""Seconds between heartbeats."""
BEAT_VARIABLE = "HUMO_LEASE_BEAT_S"
"""Environment variable with another interval, seconds, for stores or tests where the default is too long or too short."""
_MISSED_BEATS = 4
"""Missed heartbeats after which the holder counts as dead."""
_FRESH_BEATS = 2
"""Heartbeats after which what was known of the lease may no longer hold; see `fence.FRESH_S`."""
_ATTEMPTS = 5

_log = logging.getLogger(__name__)


class Lease:
    """A context manager; raises HumoError if another job holds the lease."""

    def __init__(self, storage: Storage, purpose: str, beat_s: float | None = None) -> None:
        self.storage, self.beat_s = storage, _beat_s() if beat_s is None else beat_s
        """`storage`: the dataset; within the context behind the fence of this lease."""
        self.took_over = False
        """Whether another job had not released the lease: it may have committed until a moment ago."""
        self.guarantees = Guarantees(create=True, replace=True, delete=True)
        """The conditional writes of the store."""
        self._plain = storage
        self._holder = _this_process() | {"purpose": purpose, "beat": 0, "beat_s": self.beat_s, "epoch": 0}
        self._stopped = threading.Event()
        self._lost: HumoError | None = None
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
        lost = self._loss() if isinstance(error, (HumoError, OSError)) else None
        self._release()
        if lost:  # whatever was missing or other than expected was changed by the job that took over
            raise lost from error

    def check(self) -> None:
        """Raises HumoError if another job took over the lease, for example after the machine was suspended."""
        if self._lost:
            raise self._lost

    def check_several_writers(self) -> None:
        """Raises HumoError if the store cannot keep several writers apart."""
        if not self.guarantees.create:
            raise HumoError(
                f"{self._plain.uri}: this store has no {self.guarantees.missing()}, so several workers cannot commit to it safely; "
                "use engine.kind: inline, or a local folder or a bucket with conditional writes as output"
            )

    def _acquire(self) -> None:
        try:
            self.guarantees = probe(self._plain)
            for _ in range(_ATTEMPTS):
                # Read before the lease, so that the claim fails if any other job gets ahead in between.
                self._holder["epoch"] = top_epoch(self._plain) + 1
                try:
                    self._plain.create(LEASE, _encode(self._holder))
                    self.took_over = False
                except FileExistsError:
                    if not self._is_abandoned():
                        continue
                    self.took_over = True
                fenced = claim_epoch(self._plain, self._holder["epoch"], fresh_s=_FRESH_BEATS * self.beat_s)
                if fenced is not None:
                    self.storage = fenced
                    fenced.write_bytes(LEASE, _encode(self._holder))
                    self._warn_of_missing_guarantees()
                    return
        except OSError as error:
            raise HumoError(
                f"output: {self._plain.uri} cannot be written to ({error}); choose another folder or fix its permissions"
            ) from None
        raise HumoError(f"{self._plain.uri}: other jobs keep taking its lease; wait until they have ended")

    def _is_abandoned(self) -> bool:
        """Whether the lease's holder is dead or silent; False if the lease is gone. Raises HumoError for a live holder."""
        before = read_holder(self._plain)
        if not before:
            return False
        if _is_dead(before):
            return True
        timeout_s = _MISSED_BEATS * float(before.get("beat_s", BEAT_S))
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline:
            time.sleep(min(1.0, timeout_s / 10))
            now = read_holder(self._plain)
            if not now:
                return False
            if now != before:
                raise HumoError(
                    f"{self._plain.uri}: {holder_name(now)} is writing to it; wait until it has ended, or give another output"
                )
        if not self.guarantees.create:
            raise HumoError(
                f"{self._plain.uri}: {holder_name(before)} sends no heartbeat, but this store has no {self.guarantees.missing()}, "
                f"so it could not be kept out if it only sleeps; make sure that it has ended, then delete {LEASE} there"
            )
        return True

    def _warn_of_missing_guarantees(self) -> None:
        missing = self.guarantees.missing()
        if missing:
            _log.warning(
                "%s: this store has no %s; a job that loses its lease in the middle of a write is not kept from finishing that "
                "write: let only one job at a time write to it",
                self._plain.uri, missing,
            )  # fmt: skip

    def _release(self) -> None:
        with contextlib.suppress(OSError, HumoError):  # the next job detects the dead holder
            before = revision(self._plain, LEASE) if is_s3(self._plain) else ""
            if not self._is_mine(read_holder(self._plain)):
                return
            if not before:
                # Not through `delete_all`, whose record would be another write.
                self.storage.delete(LEASE) if self._plain.is_local else self._plain.delete(LEASE)
            elif self.guarantees.delete:
                delete_unchanged(self._plain, LEASE, before)
            else:  # the next job takes over at once
                replace(self._plain, LEASE, _encode({"released": True, "epoch": self._holder["epoch"]}), before)

    def _beat(self) -> None:
        while not self._stopped.wait(self.beat_s):
            try:
                holder = read_holder(self._plain)
                # A lease of an earlier epoch, or none, is what a job left that woke up in the middle of a write.
                if self._is_mine(holder) or not holder or holder.get("epoch", self.storage.epoch) < self.storage.epoch:
                    self._holder["beat"] += 1
                    self.storage.write_bytes(LEASE, _encode(self._holder))
                else:
                    self._lost = lost_error(self.storage)
            except OSError:
                continue  # the job itself reports an unreachable output
            except HumoError as error:
                self._lost = error
            if self._lost:
                return

    def _loss(self) -> HumoError | None:
        """The error of a lease that is lost by now."""
        if self._lost:
            return self._lost
        try:
            cast(FencedStorage, self.storage).check()
        except HumoError as lost:
            return lost
        except OSError:
            return None
        return None

    def _is_mine(self, holder: dict[str, Any]) -> bool:
        return holder.get("nonce") == self._holder["nonce"]


def _encode(content: dict[str, Any]) -> bytes:
    return json.dumps(content, indent=1, sort_keys=True).encode()


def _beat_s() -> float:
    value = os.environ.get(BEAT_VARIABLE, "")
    try:
        seconds = float(value or BEAT_S)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds < float("inf"):
        raise UsageError(
            f"{BEAT_VARIABLE} is {value!r}; give seconds between heartbeats, such as {BEAT_S:g}, or unset it"
        )
    return seconds


def _this_process() -> dict[str, Any]:
    started = psutil.Process().create_time()
    return {"host": _host(), "pid": os.getpid(), "started": started, "nonce": secrets.token_hex(8)}


def _host() -> str:
    """Host name, boot and process namespace, within which process ids are unique."""
    parts = [socket.gethostname()]
    boot, namespace = Path("/proc/sys/kernel/random/boot_id"), Path("/proc/self/ns/pid")
    parts += [boot.read_text().strip()] if boot.exists() else []
    parts += [os.readlink(namespace)] if namespace.is_symlink() else []
    return "|".join(parts)


def _is_dead(holder: dict[str, Any]) -> bool:
    """Whether the holder released the lease, or ran on this host and has ended."""
    if holder.get("released"):
        return True
    if holder.get("host") != _host():
        return False
    try:
        return psutil.Process(int(holder["pid"])).create_time() != holder["started"]
    except psutil.NoSuchProcess:
        return True
