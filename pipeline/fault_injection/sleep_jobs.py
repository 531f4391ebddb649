"""Stops a job in the middle of a write, lets another one take over and finish, then wakes the first: nothing of the second is lost.

    python -m pipeline.fault_injection.sleep_jobs --runs 100 --seed 0

Both are real processes that run `humo ingest`, `humo pack` or `humo remove` on one small dataset, with a lease of a fraction of a
second. Half of the sleepers stop themselves right before one of their changes of the file system, chosen among all of them; the
others are stopped with SIGSTOP at a random moment. When the sleeper has ended, every file that the other job left must have the
same bytes, and the dataset must pass `humo verify`; the sleeper's error must say that its lease was taken over. Then its command is
run again: the dataset must hold the samples of the two jobs run one after the other. Exit status 1 if any run differs.
"""

import argparse
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

from pipeline.dataset.fence import EPOCHS, LEASE
from pipeline.dataset.lease import BEAT_VARIABLE
from pipeline.dataset.verify import verify
from pipeline.fault_injection.kill_jobs import write_job
from schemas.dataset import iterate_samples
from schemas.errors import HumoError, exit_status
from schemas.ledger import read_ledger
from schemas.storage import Storage

_PROGRAM = "pipeline.commands.main"
_PRELOADED = [_PROGRAM, "pipeline.job.ingest", "pipeline.curation.remove", "stages.read_mocap", "stages.encode_clip"]
"""Imported once, before the jobs are forked."""
_BEAT_S = 0.1
_TIMEOUT_S = 120.0
_POLL_S = 0.002
_TAKES = ("walk", "wave_left", "squat", "jump", "kick_right")
_EVENTS = ("os.rename", "os.link", "os.remove", "os.mkdir", "os.rmdir", "open")
"""Audit events of Python before a change of the file system; `open` counts where it is for writing."""
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


def run_trials(runs: int, *, seed: int = 0) -> dict[str, Any]:
    """Stop and wake a job `runs` times; returns how often nothing was lost. Raises HumoError if an undisturbed job fails."""
    rng = random.Random(seed)
    with tempfile.TemporaryDirectory() as temporary:
        trials = _Trials(Path(temporary))
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

    def __init__(self, home: Path) -> None:
        self.home = home
        self.context = multiprocessing.get_context("forkserver")
        self.context.set_forkserver_preload(_PRELOADED)
        self.settings = write_job(home, 0, "inline") | {"engine": {"kind": "inline", "isolate": False}}
        for name, takes in (("base", _TAKES[:3]), ("sleeper", _TAKES[3:4]), ("other", _TAKES[4:])):
            (home / name).mkdir()
            for take in takes:
                shutil.copy(home / "takes" / f"{take}.npz", home / name)
        self._run_to_end(self._ingest("base", home / "data"), home)
        self.sources = sorted(set(read_ledger(Storage(home / "data")).column("source_id").to_pylist()))
        self.changes: dict[str, int] = {}
        self.expected: dict[tuple[str, str], list[str]] = {}

    def run(self, number: int, sleeper: str, other: str, rng: random.Random, *, at_random: bool) -> Trial:
        """Stop `sleeper`, run `other`, wake `sleeper`, and look at the dataset."""
        expected = self._expected(sleeper, other)
        data = self.home / f"run-{number}"
        shutil.copytree(self.home / "data", data)
        first, second = self._command(sleeper, "sleeper", data), self._command(other, "other", data)
        total = self.changes[sleeper]
        stop_at = 0 if at_random else rng.randint(1, total)
        trial = Trial(sleeper, other, f"at change {stop_at} of {total}" if stop_at else "at random")
        process = self._start(first, data, stop_at)
        try:
            self._wait_until_stopped(process, rng.uniform(0.0, 1.0) if at_random else None)
            if self._run(second, data):
                trial.problems.append(f"{other} failed: {_last_line(data, 'other')}")
            before = _content(data)
            woken = process.is_alive()
        finally:
            if process.is_alive() and process.pid:
                os.kill(process.pid, signal.SIGCONT)
        process.join(_TIMEOUT_S)
        trial.sleeper_status = process.exitcode
        if not woken:
            trial.point += " (after its end)"
        elif process.exitcode == 0:  # it was stopped before it had the lease, or after it had released it
            pass
        elif process.exitcode != 1 or "has taken the lease over" not in _last_line(data, "sleeper"):
            trial.problems.append(f"{sleeper} ended with {process.exitcode}: {_last_line(data, 'sleeper')}")
        else:
            after = _content(data)
            changed = sorted(path for path in before.keys() | after.keys() if before.get(path) != after.get(path))
            trial.problems += [f"{path}: changed by the sleeper" for path in changed]
        trial.problems += verify(str(data)).problems
        if self._run(first, data):
            trial.problems.append(f"{sleeper} failed when repeated: {_last_line(data, 'other')}")
        trial.problems += verify(str(data)).problems
        if _keys(data) != expected:
            trial.problems.append("the samples are not those of the two jobs")
        if not trial.problems:
            shutil.rmtree(data)
        return trial

    def _expected(self, sleeper: str, other: str) -> list[str]:
        """Samples after both jobs; counts the sleeper's changes of the file system too."""
        if (sleeper, other) not in self.expected:
            data = self.home / "undisturbed"
            shutil.copytree(self.home / "data", data)
            self._run_to_end(self._command(sleeper, "sleeper", data), data, count=True)
            self.changes[sleeper] = int((self.home / "undisturbed.changes").read_text())
            self._run_to_end(self._command(other, "other", data), data)
            self.expected[sleeper, other] = _keys(data)
            shutil.rmtree(data)
        return self.expected[sleeper, other]

    def _command(self, kind: str, role: str, data: Path) -> list[str]:
        if kind == "ingest":
            return self._ingest(role, data)
        if kind == "pack":  # other sizes than before, so that the old shards are replaced
            return ["pack", str(data), "--shard-bytes", "60000" if role == "sleeper" else "120000"]
        return ["remove", str(data), "--source", self.sources[0 if role == "sleeper" else 1]]

    def _ingest(self, role: str, data: Path) -> list[str]:
        path = self.home / f"{role}-{data.name}.json"
        sources = [{"kind": "mocap", "path": str(self.home / role), "licence": "CC0-1.0"}]
        path.write_text(json.dumps(self.settings | {"sources": sources, "output": str(data)}))  # JSON is YAML
        return ["ingest", str(path), "--json"]

    def _start(self, command: list[str], data: Path, stop_at: int, role: str = "sleeper") -> BaseProcess:
        process = self.context.Process(target=run_program, args=(command, str(data), stop_at, role))
        process.start()
        return process

    def _run(self, command: list[str], data: Path, *, count: bool = False) -> int | None:
        process = self._start(command, data, -1 if count else 0, "other")
        process.join(_TIMEOUT_S)
        if process.is_alive():
            process.kill()
            process.join()
        return process.exitcode

    def _run_to_end(self, command: list[str], data: Path, *, count: bool = False) -> None:
        status = self._run(command, data, count=count)
        if status:
            raise HumoError(f"humo {' '.join(command)} ended with {status}: {_last_line(data, 'other')}")

    @staticmethod
    def _wait_until_stopped(process: BaseProcess, after_s: float | None) -> None:
        """Wait for a process that stops itself, or stop it after some time."""
        assert process.pid
        deadline = time.monotonic() + (_TIMEOUT_S if after_s is None else after_s)
        while process.is_alive() and time.monotonic() < deadline:
            if psutil.Process(process.pid).status() == psutil.STATUS_STOPPED:
                return
            time.sleep(_POLL_S)
        if process.is_alive():
            os.kill(process.pid, signal.SIGSTOP)


def run_program(command: list[str], data: str, stop_at: int, role: str) -> None:
    """Run `humo COMMAND` in this process with a short lease; it stops itself before its `stop_at`-th change of the file system, or
    counts them to DATA.changes if that is negative. Its output is written to DATA.ROLE.txt."""
    os.environ |= {BEAT_VARIABLE: str(_BEAT_S), "OMP_NUM_THREADS": "1"}
    output = os.open(f"{data}.{role}.txt", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(output, 1)
    os.dup2(output, 2)
    changes = 0

    def count(event: str, arguments: tuple[Any, ...]) -> None:
        nonlocal changes
        if event not in _EVENTS or threading.current_thread() is not threading.main_thread():
            return
        if event == "open" and not (isinstance(arguments[2], int) and arguments[2] & _WRITING):
            return
        if any(str(argument).startswith(f"{data}/") for argument in arguments[:2]):
            changes += 1
            if changes == stop_at:
                os.kill(os.getpid(), signal.SIGSTOP)

    if stop_at:
        sys.addaudithook(count)
    sys.argv = ["humo", *command]
    try:
        runpy.run_module(_PROGRAM, run_name="__main__", alter_sys=True)
    finally:
        if stop_at < 0:
            Path(f"{data}.changes").write_text(str(changes))
        sys.stdout.flush()


def _content(data: Path) -> dict[str, str]:
    """SHA-256 of every file but the lease's own."""
    return {
        str(path.relative_to(data)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(data.rglob("*"))
        if path.is_file() and path.name != LEASE and EPOCHS not in path.parts
    }


def _keys(data: Path) -> list[str]:
    """Keys of all samples in the shards, including double ones."""
    return sorted(key for _, key, _ in iterate_samples(Storage(data)))


def _last_line(data: Path, role: str) -> str:
    lines = Path(f"{data}.{role}.txt").read_text(errors="replace").strip().splitlines()
    return lines[-1] if lines else ""


def main(arguments: Sequence[str]) -> int:
    """The command; returns its exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m pipeline.fault_injection.sleep_jobs", description=(__doc__ or "").partition("\n")[0]
    )
    parser.add_argument("--runs", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    options = vars(parser.parse_args(arguments))
    try:
        result = run_trials(**options)
    except HumoError as error:
        return exit_status(error, "sleep")
    print(json.dumps(result, indent=1))
    return 0 if result["intact"] == result["runs"] else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
