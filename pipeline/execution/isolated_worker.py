"""A hand: a child process that holds stages, so that what they do (crash, hang, take all memory) costs one source.

The child is a fresh interpreter, started by its command line: neither Ray's workers nor threads survive a fork, and nothing
is run twice as with multiprocessing's spawn. Work items travel as pickles over a socket; the child says which stage begins, and
what went into it, so that the parent can turn a work item down there without the child's help.
"""

import json
import logging
import math
import os
import pickle
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection
from types import TracebackType
from typing import Any, Literal, Protocol

from pipeline.chain.routing import applies_to
from pipeline.chain.work_item import WorkItem
from pipeline.execution.worker_main import Message, Ready, StageStarted
from schemas.errors import HumoError
from schemas.records import Rejection
from stages.base import Stage
from stages.failures import short_paths

_ENTRY = """\
import json, sys
sys.path[:] = json.loads(sys.argv[1])
from pipeline.execution.parent_death import exit_with_parent
exit_with_parent(int(sys.argv[2]))
from schemas.offline import enforce_offline
enforce_offline()
from pipeline.execution.worker_main import serve
serve(int(sys.argv[3]))
"""
_STARTS = 3
_START_LIMIT_S = 3600.0
"""For imports and weights, which may have to be fetched."""
_TICK_S = 1.0
_END_S = 5.0
_WORDS_S = 0.5
_KEPT_LINES = 200
_LINE_BYTES = 400
_WORDS_LINES = 12
_WORDS_CHARACTERS = 1500

Build = Callable[[], Sequence[Stage[Any, Any]]]
"""Makes a chain anew; it must pickle: a function at the top of a module, or a `functools.partial` of one."""

_log = logging.getLogger(__name__)
_starter = ThreadPoolExecutor(1, "hands")
"""Starts every child: the kernel ends a child with the thread that started it, and this one lives as long as the process."""


class Faults(Protocol):
    """What a hand wants to know of `config.FaultConfig`; importing that would load every stage."""

    @property
    def time_limit_s(self) -> float: ...

    @property
    def retries(self) -> int: ...


@dataclass(frozen=True, kw_only=True)
class _Failure:
    """A try that came to no answer."""

    reason: Literal["timed_out", "worker_died"]
    at: StageStarted
    seconds: float
    """In the stage that was never left."""
    words: str


class IsolatedWorker:
    """A child process with stages in it; use it as a context, or `close` it.

    The child takes the stages of these names from the chain that `build` makes. Raises HumoError where the child's `setup`
    does, or where it cannot be started.
    """

    def __init__(self, build: Build, names: Sequence[str], faults: Faults) -> None:
        self._stages = pickle.dumps((build, list(names)))
        self._names, self._faults = list(names), faults
        self._child: _Child | None = self._start()
        self.restarts = 0
        """Children started after the first."""

    def __enter__(self) -> "IsolatedWorker":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """End the child; the hand can be used again and then starts another."""
        child, self._child = self._child, None
        if child is not None:
            child.close()

    def advance(self, work_item: WorkItem) -> WorkItem:
        """What `work_items.advance` makes of a work item with the stages, or the work item with all its records turned down.

        Each record that came into a stage in which the child died or stayed too long is rejected there, after the tries that
        `faults` allows, all of which begin with the work item as it is given. Raises HumoError if no child can be started.
        """
        if not any(applies_to(work_item.source.kind, name) for name in self._names):
            return work_item
        content = pickle.dumps(work_item, protocol=pickle.HIGHEST_PROTOCOL)
        # What ran out of time has cost the limit already and mostly does so again; one more try is for machines that
        # were busy or asleep.
        allowed = {"worker_died": self._faults.retries, "timed_out": min(1, self._faults.retries)}
        failures: Counter[str] = Counter()
        while True:
            try:
                answer = self._try(work_item, content)
            except BaseException:  # an interrupt: the child's next word would be about this work item
                self._drop()
                raise
            if isinstance(answer, WorkItem):
                return answer
            failures[answer.reason] += 1
            again = failures[answer.reason] <= allowed[answer.reason]
            what = "trying it again" if again else "giving it up"
            _log.warning("%s: %s: %s; %s", work_item.source.id, answer.at.stage, answer.words.split(":")[0], what)
            if not again:
                return self._turned_down(work_item, answer, failures.total())

    def _try(self, work_item: WorkItem, content: bytes) -> WorkItem | _Failure:
        idled = self._child is not None and self._child.lives
        if self._child is None or not idled:
            self._drop()
            self._child = self._start()
            self.restarts += 1
        child, begun = self._child, False
        first = next(name for name in self._names if applies_to(work_item.source.kind, name))
        at, since, limit_s = StageStarted.of(first, work_item), time.monotonic(), self._faults.time_limit_s
        try:
            child.connection.send_bytes(content)
            while (message := child.listen(since + (limit_s or math.inf))) is not None:
                if isinstance(message, WorkItem):
                    return message
                assert isinstance(message, StageStarted)
                at, since, begun = message, time.monotonic(), True
        except (EOFError, OSError):
            if idled and not begun:  # it died while it had nothing to do, and nobody had noticed yet
                self._drop()
                return self._try(work_item, content)
            seconds = time.monotonic() - since
            words = child.obituary()
            self._drop()
            return _Failure(reason="worker_died", at=at, seconds=seconds, words=words)
        seconds = time.monotonic() - since
        words = f"no end after {seconds:.1f} s: {child.whereabouts()}"
        self._drop()
        return _Failure(reason="timed_out", at=at, seconds=seconds, words=words)

    def _turned_down(self, work_item: WorkItem, failure: _Failure, tries: int) -> WorkItem:
        """The work item as it went into the stage that failed, each of its records rejected there."""
        at, timed_out = failure.at, failure.reason == "timed_out"
        measured = failure.seconds if timed_out else math.nan
        limit = self._faults.time_limit_s if timed_out else math.nan
        detail = f"{failure.words} ({tries} tries)" if tries > 1 else failure.words
        rejections = [
            Rejection(id=one, stage=at.stage, reason=failure.reason, detail=detail, measured=measured, limit=limit)
            for one in at.ids
        ]
        passed = at.passed | {at.stage: (len(at.ids), 0, len(rejections), failure.seconds)}
        kept = at.rejections + rejections
        return replace(work_item, records=[], rejections=kept, sha256=at.sha256, passed=passed)

    def _start(self) -> "_Child":
        for left in reversed(range(_STARTS)):
            child = _Child()
            try:
                child.connection.send_bytes(self._stages)
                message = child.listen(time.monotonic() + _START_LIMIT_S)
                words = f"not ready after {_START_LIMIT_S:g} s: {child.whereabouts()}" if message is None else ""
            except (EOFError, OSError):
                message, words = None, child.obituary()
            except BaseException:
                child.kill()
                raise
            if isinstance(message, Ready):
                return child
            child.kill()
            if isinstance(message, HumoError):
                raise message
            _log.warning("the worker of %s did not start: %s; %d tries left", self._called, words.split(":")[0], left)
        raise HumoError(
            f"the worker of {self._called} could not be started in {_STARTS} tries: {words}; mend what it says, or set "
            "engine.isolate: false to see it happen in the main process"
        )

    @property
    def process_id(self) -> int:
        """Of the child; 0 while there is none."""
        return self._child.process_id if self._child else 0

    @property
    def _called(self) -> str:
        return self._names[0] if len(self._names) == 1 else f"{self._names[0]} to {self._names[-1]}"

    def _drop(self) -> None:
        child, self._child = self._child, None
        if child is not None:
            child.kill()


class _Child:
    """The process, the socket to it, and the last lines of all that it printed."""

    def __init__(self) -> None:
        ours, theirs = socket.socketpair()
        with theirs:
            inherited = theirs.fileno()
            command = [sys.executable, "-c", _ENTRY, json.dumps(sys.path), str(os.getpid()), str(inherited)]
            self._process = _starter.submit(
                subprocess.Popen, command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                pass_fds=[inherited], start_new_session=True,
            ).result()  # fmt: skip
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._lifeline, self._output = self._process.stdin, self._process.stdout
        self.connection = Connection(ours.detach())
        self._lines: deque[str] = deque(maxlen=_KEPT_LINES)
        self._reader = threading.Thread(target=self._read, name="hand-reader", daemon=True)
        self._reader.start()

    @property
    def process_id(self) -> int:
        return self._process.pid

    @property
    def lives(self) -> bool:
        return self._process.poll() is None

    def listen(self, until: float) -> Message | None:
        """What the child says next; None if it has said nothing by then (monotonic seconds). Raises EOFError, OSError."""
        while not self.connection.poll(max(0.0, min(_TICK_S, until - time.monotonic()))):
            # Something that the child started may hold the socket open after the child's death.
            if not self.lives and not self.connection.poll():
                raise EOFError
            if time.monotonic() >= until:
                return None
        return pickle.loads(self.connection.recv_bytes())

    def obituary(self) -> str:
        """How a child that says no more has ended, and its last words."""
        try:
            status = self._process.wait(_END_S)
        except subprocess.TimeoutExpired:
            return f"hung up but did not end: {self._last_words()}"
        if status >= 0:
            return f"left with exit status {status}: {self._last_words()}"
        name = signal.Signals(-status).name if -status in set(signal.Signals) else f"signal {-status}"
        hint = ", as the kernel does where memory runs out" if -status == signal.SIGKILL else ""
        return f"killed by {name}{hint}: {self._last_words()}"

    def whereabouts(self) -> str:
        """Where in its code a child is that does not answer: the interpreter's own signal handler prints it."""
        with suppress(ProcessLookupError):
            self._process.send_signal(signal.SIGUSR1)
        return self._last_words()

    def close(self) -> None:
        """Let an idle child end by itself, or kill it."""
        self.connection.close()
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(_END_S)
        self.kill()

    def kill(self) -> None:
        """End the child and all that it has started."""
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self.connection.close()
        self._process.wait()
        self._reader.join(_WORDS_S)
        self._lifeline.close()
        if not self._reader.is_alive():
            self._output.close()

    def _last_words(self) -> str:
        self._reader.join(_WORDS_S)  # a child that lives still has this long to say something
        lines = [" ".join(line.split()) for line in [*self._lines]]
        lines = [line for line in lines if line and not line.startswith("Extension modules:")]
        dumps = [
            number for number, line in enumerate(lines) if line.startswith(("Fatal Python error", "Current thread"))
        ]
        if dumps:
            # A dump has its innermost frame first, a traceback last.
            begin = dumps[-2] if len(dumps) > 1 and dumps[-2] == dumps[-1] - 1 else dumps[-1]
            lines = lines[begin : begin + _WORDS_LINES]
        return short_paths(" | ".join(lines[-_WORDS_LINES:]))[:_WORDS_CHARACTERS] or "it said nothing"

    def _read(self) -> None:
        # Bounded reads: what prints without ever ending a line must not fill the memory.
        with suppress(ValueError, OSError):
            while line := self._output.readline(_LINE_BYTES):
                text = line.decode(errors="replace").rstrip()
                self._lines.append(text)
                _log.info("%s", text)
