"""Stages that fail as a decoder fails on a corrupt file: depending on a source's title they crash, hang, print or exhaust
memory."""

import os
import re
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from schemas.errors import HumoError, UsageError
from schemas.records import Rejection, Source
from stages.base import Stage, StageConfig

_kept: list[bytearray] = []


class Split(Stage[Source, Source]):
    """Yields two records and a rejection per source."""

    def run(self, record: Source) -> Iterator[Source | Rejection]:
        for letter in "ab":
            yield replace(record, id=f"{record.id}-{letter}")
        yield self.reject(replace(record, id=f"{record.id}-c"), "odd", "as they are", measured=3.0, limit=2.0)


class Act(Stage[Source, Source]):
    """Calls the method named by the title. The description names a file with one line per call."""

    def run(self, record: Source) -> Iterator[Source]:
        if record.description:
            with Path(record.description).open("a") as file:
                file.write("once\n")
        getattr(self, record.title)(record)
        yield record

    def nothing(self, record: Source) -> None:
        pass

    def segfault(self, record: Source) -> None:
        os.kill(os.getpid(), signal.SIGSEGV)

    def killed(self, record: Source) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    def exit(self, record: Source) -> None:
        print("out of patience", file=sys.stderr, flush=True)
        os._exit(7)

    def die_once(self, record: Source) -> None:
        if len(Path(record.description).read_text().split()) == 1:
            os._exit(1)

    def c_loop(self, record: Source) -> None:
        re.match(r"(a+)+$", "a" * 60 + "b")

    def sleep(self, record: Source) -> None:
        time.sleep(600)

    def fork(self, record: Source) -> None:
        """Leaves a subprocess that keeps all inherited descriptors open while its parent dies."""
        if os.fork() == 0:
            Path(record.description).write_text(str(os.getpid()))
            time.sleep(600)
        while not Path(record.description).read_text().isdigit():
            time.sleep(0.01)
        os._exit(2)

    def talk(self, record: Source) -> None:
        print("to stdout")
        os.write(1, b"straight to descriptor 1\n" * 2000)

    def memory(self, record: Source) -> None:
        used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        before = resource.getrlimit(resource.RLIMIT_AS)
        resource.setrlimit(resource.RLIMIT_AS, (used + (64 << 20), before[1]))
        try:
            bytearray(1 << 30)
        finally:
            resource.setrlimit(resource.RLIMIT_AS, before)

    def keep(self, record: Source) -> None:
        """Keeps 80 MB for good; there are two records."""
        _kept.append(bytearray(80_000_000))

    def need(self, record: Source) -> None:
        bytearray(160_000_000)

    def need_more(self, record: Source) -> None:
        bytearray(320_000_000)

    def start(self, record: Source) -> None:
        """Starts a subprocess, writes its id to the description's file, and never ends."""
        helper = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
        Path(record.description).write_text(str(helper.pid))
        time.sleep(600)

    def fail(self, record: Source) -> None:
        raise ValueError("no good")


class Last(Stage[Source, Source]):
    """Passes everything on."""

    def run(self, record: Source) -> Iterator[Source]:
        yield record


class Unready(Stage[Source, Source]):
    """Fails in `setup`."""

    class Config(StageConfig):
        """How it fails."""

        by: str = "usage"
        """usage, missing, or exit."""

    def setup(self) -> None:
        if self.config.by == "usage":
            raise UsageError("unready: by: choose another one")
        if self.config.by == "missing":
            raise HumoError("unready: weights.pt is not there; fetch it")
        print("libnothing.so.3: cannot open shared object file", file=sys.stderr, flush=True)
        os._exit(127)

    def run(self, record: Source) -> Iterator[Source]:
        yield record


@dataclass(frozen=True, kw_only=True)
class Limits:
    """The settings of a worker; importing the whole config would take every process seconds."""

    time_limit_s: float = 0.0
    retries: int = 0


def stages() -> list[Stage]:
    return [Split(), Act(), Last()]


def unready(by: str) -> list[Stage]:
    return [Unready(Unready.Config(by=by))]


def main() -> None:
    """Run a worker with the stage behaviour of the first argument, on a source whose description is the second; prints the worker's
    process id first."""
    from pipeline.chain.work_item import WorkItem
    from pipeline.execution.isolated_worker import IsolatedWorker

    with IsolatedWorker(stages, ["split", "act", "last"], Limits()) as worker:
        print(worker.process_id, flush=True)
        source = Source(id="one", uri="nowhere", title=sys.argv[1], description="".join(sys.argv[2:]))
        worker.advance(WorkItem.of(source))


if __name__ == "__main__":
    from misbehaving import main as importable  # pickled objects must not belong to __main__

    importable()
