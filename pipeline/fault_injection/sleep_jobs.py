"""Stops a job in the middle of a write, lets another one take over and finish, then wakes the first: nothing of the second is lost.

    python -m pipeline.fault_injection.sleep_jobs --runs 100 --seed 0 [--store s3://bucket/trials]

Both are real processes that run `humo ingest`, `humo pack` or `humo remove` on one small dataset, with a lease of a fraction of a
second. Half of the sleepers stop themselves right before one of their changes of the store (a system call or a request of S3),
chosen among all of them; the others are stopped with SIGSTOP at a random moment. When the sleeper has ended, every file that the
other job left must have the same bytes, and the dataset must pass `humo verify`; the sleeper's error must say that its lease was
taken over. Then its command is run again: the dataset must hold the samples of the two jobs run one after the other. Exit status 1
if any run differs.
"""

import argparse
import contextlib
import hashlib
import json
import multiprocessing
import os
import random
import runpy
import shutil
import signal
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import psutil
from fsspec.asyn import sync_wrapper

from pipeline.dataset.fence import CONDEMNED, EPOCHS, LEASE
from pipeline.dataset.lease import BEAT_VARIABLE
from pipeline.dataset.verify import verify
from pipeline.fault_injection.kill_jobs import write_job
from schemas.dataset import iterate_samples
from schemas.errors import HumoError, exit_status
from schemas.ledger import read_ledger
from schemas.storage import Storage

_PROGRAM = "pipeline.commands.main"
_PRELOADED = ["pipeline.job.ingest", "pipeline.curation.remove", "stages.read_mocap", "stages.encode_clip"]
"""Imported once, before the jobs are forked."""
_BEAT_S, _BEAT_OF_STORES_S = 0.1, 1.0
"""Intervals of heartbeats on a disk and on an object store, where a request takes longer."""
_TIMEOUT_S = 600.0
_POLL_S = 0.005
_TAKES = ("walk", "wave_left", "squat", "jump", "kick_right")
_EVENTS = ("os.rename", "os.link", "os.remove", "os.mkdir", "os.rmdir", "open")
"""Audit events of Python before a change of the file system; `open` counts where it is for writing."""
_REQUESTS = ("put_object", "complete_multipart_upload", "delete_object", "delete_objects")
"""Requests that change a bucket."""
_WRITING = os.O_WRONLY | os.O_RDWR
SLEEPERS = ("ingest", "pack", "remove")
OTHERS = ("ingest", "pack", "remove")


@dataclass
class Trial:
    """One run."""

    sleeper: str
    other: str
    point: str
    """Where the sleeper was stopped."""
    sleeper_status: int | None = None
    problems: list[str] = field(default_factory=list)


def run_trials(runs: int, *, seed: int = 0, store: str = "") -> dict[str, Any]:
    """Stop and wake a job `runs` times; returns how often nothing was lost. The datasets are made in `store`, by default in a
    temporary folder. Raises HumoError if an undisturbed job fails."""
    rng = random.Random(seed)
    with tempfile.TemporaryDirectory() as temporary:
        trials = _Trials(Path(temporary), store or temporary)
        results = []
        for number in range(runs):
            sleeper, other = SLEEPERS[number % 3], OTHERS[number // 3 % 3]
            result = trials.run(number, sleeper, other, rng, at_random=number % 2 == 1)
            results.append(result)
            print(
                f"run {number}: {sleeper} stopped {result.point}, {other} took over; the sleeper ended with "
                f"{result.sleeper_status}: {result.problems or 'nothing lost'}",
                flush=True,
            )
    odd = [asdict(result) for result in results if result.problems]
    return {
        "runs": runs, "seed": seed, "intact": runs - len(odd), "refused": sum(one.sleeper_status == 1 for one in results),
        "stopped": dict(Counter(f"{one.sleeper} {one.point.split(' of ')[0]}" for one in results).most_common()), "odd": odd,
    }  # fmt: skip


class _Trials:
    """A dataset of three takes, and the commands that change it."""

    def __init__(self, home: Path, store: str) -> None:
        self.home, self.store = home, store
        self.context = multiprocessing.get_context("forkserver")
        os.environ.setdefault(
            "OMP_NUM_THREADS", "1"
        )  # for the server that forks the jobs; threads do not survive a fork
        self.context.set_forkserver_preload(_PRELOADED)
        self.settings = write_job(home, 0, "inline") | {"engine": {"kind": "inline", "isolate": False}}
        for name, takes in (("base", _TAKES[:3]), ("sleeper", _TAKES[3:4]), ("other", _TAKES[4:])):
            (home / name).mkdir()
            for take in takes:
                shutil.copy(home / "takes" / f"{take}.npz", home / name)
        self._run_to_end(self._ingest("base", "data"), "data")
        self.sources = sorted(set(read_ledger(self._storage("data")).column("source_id").to_pylist()))
        self.changes: dict[str, int] = {}
        self.lease_s: dict[str, float] = {}
        """How long each undisturbed job holds its lease."""
        self.expected: dict[tuple[str, str], list[str]] = {}

    def run(self, number: int, sleeper: str, other: str, rng: random.Random, *, at_random: bool) -> Trial:
        """Stop `sleeper`, run `other`, wake `sleeper`, and look at the dataset."""
        expected = self._expected(sleeper, other)
        data = f"run-{number}"
        self._copy(data)
        first, second = self._command(sleeper, "sleeper", data), self._command(other, "other", data)
        total = self.changes[sleeper]
        stop_at = 0 if at_random else rng.randint(1, total)
        trial = Trial(sleeper, other, f"at change {stop_at} of {total}" if stop_at else "at random")
        process = self._start(first, data, stop_at)
        try:
            if at_random:
                self._wait_for_lease(process, data)
            self._wait_until_stopped(process, rng.uniform(0.0, self.lease_s[sleeper]) if at_random else None)
            if self._run(second, data):
                trial.problems.append(f"{other} failed: {self._last_line(data, 'other')}")
            before = _content(self._storage(data))
            woken = process.is_alive()
        finally:
            _signal(process, signal.SIGCONT)
        process.join(_TIMEOUT_S)
        trial.sleeper_status = process.exitcode
        if not woken:
            trial.point += " (after its end)"
        elif process.exitcode == 0:  # it was stopped before it had the lease, or after it had released it
            pass
        elif process.exitcode != 1 or "has taken the lease over" not in self._last_line(data, "sleeper"):
            trial.problems.append(f"{sleeper} ended with {process.exitcode}: {self._last_line(data, 'sleeper')}")
        else:
            after = _content(self._storage(data))
            # A request to a store that was on its way when the job was stopped may still bring a file, which nothing names.
            new = set() if at_random and not self._storage(data).is_local else after.keys() - before.keys()
            changed = sorted(new | {path for path, content in before.items() if content != after.get(path)})
            trial.problems += [f"{path}: changed by the sleeper" for path in changed]
        trial.problems += verify(self._storage(data).uri).problems
        if self._run(first, data):
            trial.problems.append(f"{sleeper} failed when repeated: {self._last_line(data, 'other')}")
        trial.problems += verify(self._storage(data).uri).problems
        if _keys(self._storage(data)) != expected:
            trial.problems.append("the samples are not those of the two jobs")
        if not trial.problems:
            self._storage(data).fs.rm(self._storage(data).root, recursive=True)
        return trial

    def _expected(self, sleeper: str, other: str) -> list[str]:
        """Samples after both jobs; counts the sleeper's changes of the store too."""
        if (sleeper, other) not in self.expected:
            data = f"undisturbed-{sleeper}-{other}"
            self._copy(data)
            process = self._start(self._command(sleeper, "sleeper", data), data, -1)
            self._wait_for_lease(process, data)
            start = time.monotonic()
            process.join(_TIMEOUT_S)
            self.lease_s[sleeper] = time.monotonic() - start
            if process.exitcode:
                raise HumoError(f"humo {sleeper} ended with {process.exitcode}: {self._last_line(data, 'sleeper')}")
            self.changes[sleeper] = int((self.home / f"{data}.changes").read_text())
            self._run_to_end(self._command(other, "other", data), data)
            self.expected[sleeper, other] = _keys(self._storage(data))
        return self.expected[sleeper, other]

    def _storage(self, data: str) -> Storage:
        return Storage(f"{self.store}/{data}")

    def _copy(self, data: str) -> None:
        """A copy of the dataset of three takes."""
        original, copy = self._storage("data"), self._storage(data)
        for path in original.list("") + original.list("", hidden=True):
            copy.write_bytes(path, original.read_bytes(path))

    def _command(self, kind: str, role: str, data: str) -> list[str]:
        if kind == "ingest":
            return self._ingest(role, data)
        if kind == "pack":  # other sizes than before, so that the old shards are replaced
            return ["pack", self._storage(data).uri, "--shard-bytes", "60000" if role == "sleeper" else "120000"]
        return ["remove", self._storage(data).uri, "--source", self.sources[0 if role == "sleeper" else 1]]

    def _ingest(self, role: str, data: str) -> list[str]:
        path = self.home / f"{role}-{data}.json"
        sources = [{"kind": "mocap", "path": str(self.home / role), "licence": "CC0-1.0"}]
        path.write_text(
            json.dumps(self.settings | {"sources": sources, "output": self._storage(data).uri})
        )  # JSON is YAML
        return ["ingest", str(path), "--json"]

    def _start(self, command: list[str], data: str, stop_at: int, role: str = "sleeper") -> BaseProcess:
        arguments = (command, self.store, str(self.home / data), stop_at, role, {**os.environ})
        process = self.context.Process(target=run_program, args=arguments)
        process.start()
        return process

    def _run(self, command: list[str], data: str) -> int | None:
        process = self._start(command, data, 0, "other")
        process.join(_TIMEOUT_S)
        if process.is_alive():
            process.kill()
            process.join()
        return process.exitcode

    def _run_to_end(self, command: list[str], data: str) -> None:
        status = self._run(command, data)
        if status:
            raise HumoError(f"humo {' '.join(command)} ended with {status}: {self._last_line(data, 'other')}")

    def _last_line(self, data: str, role: str) -> str:
        lines = (self.home / f"{data}.{role}.txt").read_text(errors="replace").strip().splitlines()
        return lines[-1] if lines else ""

    def _wait_for_lease(self, process: BaseProcess, data: str) -> None:
        storage, deadline = self._storage(data), time.monotonic() + _TIMEOUT_S
        while process.is_alive() and time.monotonic() < deadline and not storage.exists(LEASE):
            time.sleep(_POLL_S if storage.is_local else 10 * _POLL_S)

    @staticmethod
    def _wait_until_stopped(process: BaseProcess, after_s: float | None) -> None:
        """Wait for a process that stops itself, or stop it after some time."""
        assert process.pid
        deadline = time.monotonic() + (_TIMEOUT_S if after_s is None else after_s)
        while process.is_alive() and time.monotonic() < deadline:
            with contextlib.suppress(psutil.NoSuchProcess):  # it has just ended
                if psutil.Process(process.pid).status() == psutil.STATUS_STOPPED:
                    return
            time.sleep(_POLL_S)
        _signal(process, signal.SIGSTOP)


def _signal(process: BaseProcess, number: int) -> None:
    """Send a signal to a process unless it has ended."""
    if process.is_alive() and process.pid:
        with contextlib.suppress(ProcessLookupError):
            os.kill(process.pid, number)


def run_program(command: list[str], store: str, log: str, stop_at: int, role: str, environment: dict[str, str]) -> None:
    """Run `humo COMMAND` in this process with a short lease; it stops itself before its `stop_at`-th change of the store, or counts
    them to LOG.changes if that is negative. Its output is written to LOG.ROLE.txt."""
    beat_s = _BEAT_S if Storage(store).is_local else _BEAT_OF_STORES_S
    os.environ |= environment | {BEAT_VARIABLE: str(beat_s)}
    output = os.open(f"{log}.{role}.txt", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(output, 1)
    os.dup2(output, 2)
    changes = _Changes(stop_at)
    if stop_at:
        changes.watch(store)
    sys.argv = ["humo", *command]
    try:
        runpy.run_module(_PROGRAM, run_name="__main__", alter_sys=True)
    finally:
        if stop_at < 0:
            Path(f"{log}.changes").write_text(str(changes.count))
        sys.stdout.flush()


class _Changes:
    """Counts a job's changes of its store from the claim of its lease on, heartbeats excepted, and stops the process before one."""

    def __init__(self, stop_at: int) -> None:
        self.count, self.stop_at, self.begun = 0, stop_at, False

    def watch(self, store: str) -> None:
        storage = Storage(store)
        if not storage.is_local:
            self._watch_requests(type(storage.fs))
            return

        def event(name: str, arguments: tuple[Any, ...]) -> None:
            if name not in _EVENTS or threading.current_thread() is not threading.main_thread():
                return
            if name == "open" and not (isinstance(arguments[2], int) and arguments[2] & _WRITING):
                return
            paths = [str(argument) for argument in arguments[:2] if str(argument).startswith(f"{storage.root}/")]
            if paths:
                self._add(" ".join(paths))

        sys.addaudithook(event)

    def _watch_requests(self, file_system: Any) -> None:
        call = file_system._call_s3

        async def counted(fs: Any, method: str, *arguments: Any, **named: Any) -> Any:
            key = str(named.get("Key", ""))
            if method in _REQUESTS and not key.endswith(f"/{LEASE}"):
                self._add(key)
            return await call(fs, method, *arguments, **named)

        file_system._call_s3, file_system.call_s3 = counted, sync_wrapper(counted)

    def _add(self, path: str) -> None:
        self.begun = self.begun or EPOCHS in path
        self.count += self.begun
        if self.begun and self.count == self.stop_at:
            # To this thread: of a signal to the process, another thread may hear first, while this one sends its request.
            signal.pthread_kill(threading.get_ident(), signal.SIGSTOP)


def _content(storage: Storage) -> dict[str, str]:
    """SHA-256 of every file but the lease's own."""
    paths = storage.list("") + storage.list("", hidden=True)
    return {
        path: hashlib.sha256(storage.read_bytes(path)).hexdigest()
        for path in paths
        if path != LEASE and not path.startswith((f"{EPOCHS}/", f"{CONDEMNED}/"))
    }


def _keys(storage: Storage) -> list[str]:
    """Keys of all samples in the shards, including double ones."""
    return sorted(key for _, key, _ in iterate_samples(storage))


def main(arguments: Sequence[str]) -> int:
    """The command; returns its exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m pipeline.fault_injection.sleep_jobs", description=(__doc__ or "").partition("\n")[0]
    )
    parser.add_argument("--runs", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--store", default="", help="a folder or bucket to make the datasets in, such as s3://bucket/trials"
    )
    options = vars(parser.parse_args(arguments))
    try:
        result = run_trials(**options)
    except HumoError as error:
        return exit_status(error, "sleep")
    print(json.dumps(result, indent=1))
    return 0 if result["intact"] == result["runs"] else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
