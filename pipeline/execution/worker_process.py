"""The process of an isolated worker, its socket, and what it prints.

It is a fresh interpreter, started by its command line: neither Ray's workers nor threads survive a fork, and, unlike with
multiprocessing's spawn, the main module is not run again. A guard ends it and all that it has started with this process.
"""

import json
import logging
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import deque
from contextlib import suppress
from functools import cached_property
from multiprocessing.connection import Connection

import psutil

from pipeline.execution.messages import MAX_MESSAGE_BYTES, Message, decode
from schemas.secrets import hide_parts, hide_secrets
from stages.failures import short_paths, shortened

_BOOTSTRAP = """\
import json, sys
sys.path[:] = json.loads(sys.argv[1])
from pipeline.execution.parent_death import fork_guarded
fork_guarded(int(sys.argv[2]))
from schemas.offline import enforce_offline
enforce_offline()
from pipeline.execution.worker_main import serve
serve(int(sys.argv[3]))
"""
_POLL_S = 1.0
_EXIT_TIMEOUT_S = 5.0
_SIGNALLED = 128
"""A guard's exit status is this and the number of the signal that killed the process."""
_OUTPUT_WAIT_S = 0.5
_BUFFERED_LINES = 200
_MAX_LINE_BYTES = 1 << 14
"""Of a line of output, so that a long address in it is whole; the rest of the line is dropped."""
_MAX_LINE_CHARACTERS = 400
_TAIL_LINES = 12
_MAX_TAIL_CHARACTERS = 1500

_log = logging.getLogger(__name__)


class WorkerProcess:
    """The process behind its guard, the socket to it, and the last lines of its output."""

    def __init__(self) -> None:
        parent_end, worker_end = socket.socketpair()
        with worker_end:
            inherited = worker_end.fileno()
            command = [sys.executable, "-c", _BOOTSTRAP, json.dumps(sys.path), str(os.getpid()), str(inherited)]
            self._guard = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                pass_fds=[inherited], start_new_session=True,
            )  # fmt: skip
        assert self._guard.stdin is not None
        assert self._guard.stdout is not None
        self._lifeline, self._output = self._guard.stdin, self._guard.stdout
        self.served = 0
        """Work items that it has been given."""
        self.connection = Connection(parent_end.detach())
        self._lines: deque[str] = deque(maxlen=_BUFFERED_LINES)
        self.addresses: deque[str] = deque(maxlen=_BUFFERED_LINES)
        """Secret forms of the latest sources' addresses, which the worker's output may mention."""
        self._reader = threading.Thread(target=self._read, name="worker-output", daemon=True)
        self._reader.start()

    @cached_property
    def process_id(self) -> int:
        """Of the worker, once it has sent a message: it is its guard's only child."""
        return psutil.Process(self._guard.pid).children()[0].pid

    @property
    def is_alive(self) -> bool:
        return self._guard.poll() is None

    def send(self, content: bytes) -> None:
        """Give it a work item. Raises OSError."""
        self.served += 1
        self.connection.send_bytes(content)

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
        return self._guard.poll() == _SIGNALLED + signal.SIGXCPU

    def describe_exit(self) -> str:
        """Exit status or signal of a worker whose connection is closed, and the end of its output."""
        try:
            status = self._guard.wait(_EXIT_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            return f"hung up but did not end: {self._output_tail()}"
        number = status - _SIGNALLED if status > _SIGNALLED else -status  # negative: of the guard itself
        if number <= 0:
            return f"left with exit status {status}: {self._output_tail()}"
        name = signal.Signals(number).name if number in set(signal.Signals) else f"signal {number}"
        hint = ", as the kernel does where memory runs out" if number == signal.SIGKILL else ""
        return f"killed by {name}{hint}: {self._output_tail()}"

    def dump_traceback(self) -> str:
        """The traceback of a worker that does not respond, printed by the interpreter's own signal handler."""
        with suppress(OSError, psutil.Error, IndexError):  # it has ended
            os.kill(self.process_id, signal.SIGUSR1)
        return self._output_tail()

    def close(self) -> None:
        """Let an idle worker exit by itself, or kill it."""
        self.connection.close()
        with suppress(subprocess.TimeoutExpired):
            self._guard.wait(_EXIT_TIMEOUT_S)
        self.kill()

    def kill(self) -> None:
        """Have the guard kill the worker and all its subprocesses."""
        self._lifeline.close()
        self.connection.close()
        try:
            self._guard.wait(_EXIT_TIMEOUT_S)
        except subprocess.TimeoutExpired:  # it was stopped; the kernel ends the worker with it
            self._guard.kill()
            self._guard.wait()
        self._reader.join(_OUTPUT_WAIT_S)
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
