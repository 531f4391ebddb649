"""A worker process that runs stages, so that a crash, a hang or a lack of memory costs one source.

The worker is a fresh interpreter, started by its command line: neither Ray's workers nor threads survive a fork, and, unlike
with multiprocessing's spawn, the main module is not run again. Work items travel as pickles over a socket; the worker reports
each stage that begins and its input, so that the parent can reject the work item there without the worker's help. Its messages
are read as data (`messages.py`), its memory, time and files are limited and it has no network (`worker_limits.py`): remote
sources are fetched here, and it is given their copies.
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
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from multiprocessing.connection import Connection
from queue import SimpleQueue
from types import TracebackType
from typing import Any, Literal, Protocol

from pipeline.chain.routing import applies_to
from pipeline.chain.work_item import WorkItem
from pipeline.execution.messages import MAX_MESSAGE_BYTES, FileRequest, Message, Ready, StageStarted, decode
from pipeline.execution.worker_limits import WorkerLimits
from schemas.addresses import public_form
from schemas.errors import HumoError, SourceError
from schemas.network import folder_of
from schemas.records import Rejection, Source
from schemas.secrets import hide_parts, hide_secrets
from schemas.staging import SourceFiles
from stages.base import Stage
from stages.failures import is_transient, short_paths, shortened

_BOOTSTRAP = """\
import json, sys
sys.path[:] = json.loads(sys.argv[1])
from pipeline.execution.parent_death import exit_with_parent
exit_with_parent(int(sys.argv[2]))
from schemas.offline import enforce_offline
enforce_offline()
from pipeline.execution.worker_main import serve
serve(int(sys.argv[3]))
"""
_START_ATTEMPTS = 3
_START_TIMEOUT_S = 3600.0
"""For imports and weights, which may have to be downloaded."""
_POLL_S = 1.0
_EXIT_TIMEOUT_S = 5.0
_OUTPUT_WAIT_S = 0.5
_BUFFERED_LINES = 200
_MAX_LINE_BYTES = 1 << 14
"""Of a line of output, so that a long address in it is whole; the rest of the line is dropped."""
_MAX_LINE_CHARACTERS = 400
_TAIL_LINES = 12
_MAX_TAIL_CHARACTERS = 1500

ChainFactory = Callable[[], Sequence[Stage[Any, Any]]]
"""Builds a chain; must be picklable: a module-level function, or a `functools.partial` of one."""

_log = logging.getLogger(__name__)
_start_requests: SimpleQueue[tuple[Future[Any], Callable[[], Any]]] = SimpleQueue()
_start_thread: threading.Thread | None = None


def _run_in_start_thread(start: Callable[[], Any]) -> Any:
    """Start a process in the thread that starts all of them: the kernel ends a process with the thread that started it, and
    this one lives until exit.

    It is a daemon and no executor's: a signal that stops the job while an executor starts its thread leaves one behind that
    the exit would wait for without end.
    """
    global _start_thread
    if _start_thread is None:
        _start_thread = threading.Thread(target=_serve_start_requests, name="worker-start", daemon=True)
        _start_thread.start()
    future: Future[Any] = Future()
    _start_requests.put((future, start))
    return future.result()


def _serve_start_requests() -> None:
    while True:
        future, start = _start_requests.get()
        try:
            future.set_result(start())
        except BaseException as error:
            future.set_exception(error)


class FaultSettings(Protocol):
    """The part of `config.FaultConfig` that is used here; importing that module would load every stage."""

    @property
    def time_limit_s(self) -> float: ...

    @property
    def retries(self) -> int: ...


@dataclass(frozen=True, kw_only=True)
class _FailedAttempt:
    """An attempt that returned no work item."""

    reason: Literal["timed_out", "worker_died"]
    started: StageStarted
    seconds: float
    """In the stage that did not end."""
    detail: str
    limit: float
    """Seconds, of the limit that was exceeded; NaN for a death."""


class IsolatedWorker:
    """A worker process that holds stages; use it as a context manager, or `close` it.

    The process takes the stages with these names from the chain that `build` makes; `limits` are its limits, and `files` fetches
    remote sources for it. Raises HumoError where a stage's `setup` does, or where the process cannot be started.
    """

    def __init__(
        self,
        build: ChainFactory,
        names: Sequence[str],
        faults: FaultSettings,
        *,
        limits: WorkerLimits | None = None,
        files: SourceFiles | None = None,
    ) -> None:
        self._limits, self._files = limits or WorkerLimits(), files or SourceFiles()
        self._pickled_stages = pickle.dumps((build, list(names), self._limits, self._files.access))
        self._names, self._faults = list(names), faults
        self._process: _WorkerProcess | None = self._start()
        self.restarts = 0
        """Processes started after the first."""

    def __enter__(self) -> "IsolatedWorker":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """End the process; the worker can be used again and then starts another."""
        process, self._process = self._process, None
        if process is not None:
            process.close()

    def advance(self, work_item: WorkItem) -> WorkItem:
        """The result of `work_item.advance` with the stages, or the work item with all its records rejected.

        If the process dies or times out in a stage, each input record of that stage is rejected there, after the retries that
        `faults` allows; every attempt begins with the work item as given. Raises HumoError if no process can be started.
        """
        if not any(applies_to(work_item.source.kind, name) for name in self._names):
            return work_item
        content = pickle.dumps(work_item, protocol=pickle.HIGHEST_PROTOCOL)
        # A timeout has cost the limit already and usually recurs; the one retry is for machines that were busy or suspended.
        max_retries = {"worker_died": self._faults.retries, "timed_out": min(1, self._faults.retries)}
        failures: Counter[str] = Counter()
        while True:
            self._files.begin(dict(work_item.looks))
            try:
                result = self._attempt(work_item, content)
            except BaseException:  # an interrupt: the worker's next message would be about this work item
                self._kill()
                raise
            finally:
                self._files.release()
            if isinstance(result, WorkItem):
                # The rest is data of this source, whatever the worker says.
                return replace(result, source=work_item.source, generation=work_item.generation)
            failures[result.reason] += 1
            retry = failures[result.reason] <= max_retries[result.reason]
            action = "retrying" if retry else "giving up"
            _log.warning(
                "%s: %s: %s; %s", work_item.source.id, result.started.stage, result.detail.split(":")[0], action
            )
            if not retry:
                return self._rejected(work_item, result, failures.total())

    def _attempt(self, work_item: WorkItem, content: bytes) -> WorkItem | _FailedAttempt:
        was_alive = self._process is not None and self._process.is_alive
        if self._process is None or not was_alive:
            self._kill()
            self._process = self._start()
            self.restarts += 1
        process, any_started = self._process, False
        first = next(name for name in self._names if applies_to(work_item.source.kind, name))
        started, since, limit_s = StageStarted.of(first, work_item), time.monotonic(), self._faults.time_limit_s
        try:
            process.addresses.append(work_item.source.address)
            process.connection.send_bytes(content)
            while (message := process.receive(since + (limit_s or math.inf))) is not None:
                if isinstance(message, WorkItem):
                    return message
                if isinstance(message, StageStarted):
                    started, since, any_started = message, time.monotonic(), True
                elif isinstance(message, FileRequest):
                    before = time.monotonic()
                    process.connection.send_bytes(pickle.dumps(self._answer(work_item.source, message)))
                    since += time.monotonic() - before  # fetching has a limit of its own
                else:
                    raise pickle.UnpicklingError(f"a {type(message).__name__} at a wrong time")
        except pickle.UnpicklingError as error:
            detail = f"sent a message that is no data of a source ({error})"
            seconds = time.monotonic() - since
            self._kill()
            return _FailedAttempt(reason="worker_died", started=started, seconds=seconds, detail=detail, limit=math.nan)
        except (EOFError, OSError):
            if was_alive and not any_started:  # it died while idle, unnoticed until now
                self._kill()
                return self._attempt(work_item, content)
            seconds = time.monotonic() - since
            detail = process.describe_exit()
            self._kill()
            if process.used_up_cpu_time:
                return _FailedAttempt(
                    reason="timed_out", started=started, seconds=seconds, detail=f"used up its CPU time: {detail}",
                    limit=self._limits.cpu_s,
                )  # fmt: skip
            return _FailedAttempt(reason="worker_died", started=started, seconds=seconds, detail=detail, limit=math.nan)
        seconds = time.monotonic() - since
        detail = f"no end after {seconds:.1f} s: {process.dump_traceback()}"
        self._kill()
        return _FailedAttempt(reason="timed_out", started=started, seconds=seconds, detail=detail, limit=limit_s)

    def _answer(self, source: Source, request: FileRequest) -> Any:
        """A remote file that the worker needs, or the exception to raise there."""
        uri = request.uri
        try:
            if folder_of(uri) != folder_of(source.location) and not self._files.policy.is_store(uri):
                raise SourceError(
                    "address_not_allowed", f"{public_form(uri)}: it does not belong to the source {source.uri}"
                )
            return self._files.copy(uri) if request.method == "copy" else self._files.siblings(uri)
        except (SourceError, FileNotFoundError) as error:
            return error
        except HumoError:
            raise
        except Exception as error:
            # Errors of the store's library may not be picklable.
            text = hide_parts(f"{type(error).__name__}: {error}", uri)[:1000]
            return ConnectionError(text) if is_transient(error) else OSError(text)

    def _rejected(self, work_item: WorkItem, failure: _FailedAttempt, attempts: int) -> WorkItem:
        """The work item as it entered the stage that failed, with each of its records rejected there."""
        started, limit = failure.started, failure.limit
        measured = failure.seconds if failure.reason == "timed_out" else math.nan
        detail = f"{failure.detail} ({attempts} tries)" if attempts > 1 else failure.detail
        rejections = [
            Rejection(
                id=record_id, stage=started.stage, reason=failure.reason, detail=detail, measured=measured, limit=limit
            )
            for record_id in started.ids
        ]
        stage_stats = started.stage_stats | {
            started.stage: (len(started.ids), 0, len(rejections), failure.seconds),
        }
        return replace(
            work_item,
            records=[],
            rejections=started.rejections + rejections,
            sha256=started.sha256,
            stage_stats=stage_stats,
        )

    def _start(self) -> "_WorkerProcess":
        for attempts_left in reversed(range(_START_ATTEMPTS)):
            process = _WorkerProcess()
            try:
                process.connection.send_bytes(self._pickled_stages)
                message = process.receive(time.monotonic() + _START_TIMEOUT_S)
                detail = (
                    f"not ready after {_START_TIMEOUT_S:g} s: {process.dump_traceback()}" if message is None else ""
                )
            except (EOFError, OSError):
                message, detail = None, process.describe_exit()
            except pickle.UnpicklingError as error:
                message, detail = None, f"sent a message that cannot be read ({error})"
            except BaseException:
                process.kill()
                raise
            if isinstance(message, Ready):
                _log.info("the worker of %s: %s", self._label, message.description)
                return process
            process.kill()
            if isinstance(message, HumoError):
                raise message
            _log.warning(
                "the worker of %s did not start: %s; %d tries left", self._label, detail.split(":")[0], attempts_left
            )
        raise HumoError(
            f"the worker of {self._label} could not be started in {_START_ATTEMPTS} tries: {detail}; fix the cause, or set "
            "engine.isolate: false to reproduce it in the main process"
        )

    @property
    def process_id(self) -> int:
        """Of the worker process; 0 while there is none."""
        return self._process.process_id if self._process else 0

    @property
    def _label(self) -> str:
        return self._names[0] if len(self._names) == 1 else f"{self._names[0]} to {self._names[-1]}"

    def _kill(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            process.kill()


class _WorkerProcess:
    """The process, the socket to it, and the last lines of its output."""

    def __init__(self) -> None:
        parent_end, worker_end = socket.socketpair()
        with worker_end:
            inherited = worker_end.fileno()
            command = [sys.executable, "-c", _BOOTSTRAP, json.dumps(sys.path), str(os.getpid()), str(inherited)]
            start = partial(
                subprocess.Popen, command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                pass_fds=[inherited], start_new_session=True,
            )  # fmt: skip
            self._process: subprocess.Popen[bytes] = _run_in_start_thread(start)
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._lifeline, self._output = self._process.stdin, self._process.stdout
        self.connection = Connection(parent_end.detach())
        self._lines: deque[str] = deque(maxlen=_BUFFERED_LINES)
        self.addresses: deque[str] = deque(maxlen=_BUFFERED_LINES)
        """Secret forms of the latest sources' addresses, which the worker's output may mention."""
        self._reader = threading.Thread(target=self._read, name="worker-output", daemon=True)
        self._reader.start()

    @property
    def process_id(self) -> int:
        return self._process.pid

    @property
    def is_alive(self) -> bool:
        return self._process.poll() is None

    def receive(self, deadline: float) -> Message | None:
        """The worker's next message; None if there is none by the deadline (monotonic seconds). Raises EOFError, OSError;
        pickle.UnpicklingError for what is no message."""
        while not self.connection.poll(max(0.0, min(_POLL_S, deadline - time.monotonic()))):
            # A subprocess of the worker may hold the socket open after the worker's death.
            if not self.is_alive and not self.connection.poll():
                raise EOFError
            if time.monotonic() >= deadline:
                return None
        return decode(self.connection.recv_bytes(MAX_MESSAGE_BYTES))

    @property
    def used_up_cpu_time(self) -> bool:
        """Whether the kernel ended the process at its limit of CPU time."""
        return self._process.poll() == -signal.SIGXCPU

    def describe_exit(self) -> str:
        """Exit status or signal of a worker whose connection is closed, and the end of its output."""
        try:
            status = self._process.wait(_EXIT_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            return f"hung up but did not end: {self._output_tail()}"
        if status >= 0:
            return f"left with exit status {status}: {self._output_tail()}"
        name = signal.Signals(-status).name if -status in set(signal.Signals) else f"signal {-status}"
        hint = ", as the kernel does where memory runs out" if -status == signal.SIGKILL else ""
        return f"killed by {name}{hint}: {self._output_tail()}"

    def dump_traceback(self) -> str:
        """The traceback of a worker that does not respond, printed by the interpreter's own signal handler."""
        with suppress(ProcessLookupError):
            self._process.send_signal(signal.SIGUSR1)
        return self._output_tail()

    def close(self) -> None:
        """Let an idle worker exit by itself, or kill it."""
        self.connection.close()
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(_EXIT_TIMEOUT_S)
        self.kill()

    def kill(self) -> None:
        """Kill the worker and all its subprocesses."""
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self.connection.close()
        self._process.wait()
        self._reader.join(_OUTPUT_WAIT_S)
        self._lifeline.close()
        if not self._reader.is_alive():
            self._output.close()

    def _output_tail(self) -> str:
        self._reader.join(_OUTPUT_WAIT_S)  # gives a running worker this long to print
        # Hidden before lines are shortened: half a secret would not be recognised.
        hidden = (shortened(self._without_secrets(line), _MAX_LINE_CHARACTERS) for line in [*self._lines])
        lines = [" ".join(line.split()) for line in hidden]
        lines = [line for line in lines if line and not line.startswith("Extension modules:")]
        dumps = [
            number for number, line in enumerate(lines) if line.startswith(("Fatal Python error", "Current thread"))
        ]
        if dumps:
            # A dump has its innermost frame first, a traceback last.
            begin = dumps[-2] if len(dumps) > 1 and dumps[-2] == dumps[-1] - 1 else dumps[-1]
            lines = lines[begin : begin + _TAIL_LINES]
        return shortened(short_paths(" | ".join(lines[-_TAIL_LINES:])), _MAX_TAIL_CHARACTERS) or "it said nothing"

    def _read(self) -> None:
        # Bounded reads: output without line ends must not fill the memory.
        with suppress(ValueError, OSError):
            while line := self._output.readline(_MAX_LINE_BYTES):
                self._lines.append(line.decode(errors="replace").rstrip())
                while not line.endswith(b"\n") and (line := self._output.readline(_MAX_LINE_BYTES)):
                    pass  # the rest of an endless line
                if _log.isEnabledFor(logging.INFO):
                    _log.info("%s", self._without_secrets(self._lines[-1]))

    def _without_secrets(self, line: str) -> str:
        for address in dict.fromkeys(self.addresses):
            line = hide_parts(line, address)
        return hide_secrets(line)
