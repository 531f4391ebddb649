"""A worker process that runs stages, so that a crash, a hang or a lack of memory costs one source.

Work items travel as pickles over a socket; the worker reports each stage that begins and its input, so that the parent can reject
the work item there without the worker's help. Its messages are read as data (`messages.py`), its memory, time and files are
limited and it has no network (`worker_limits.py`): remote sources are fetched here, and it is given their copies.
"""

import logging
import math
import pickle
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from types import TracebackType
from typing import Any, Literal, Protocol

from pipeline.chain.routing import applies_to
from pipeline.chain.work_item import WorkItem
from pipeline.execution.messages import FileRequest, Ready, StageStarted
from pipeline.execution.worker_limits import WorkerLimits
from pipeline.execution.worker_process import WorkerProcess
from schemas.addresses import public_form
from schemas.errors import HumoError, SourceError
from schemas.network import folder_of
from schemas.records import Rejection, Source
from schemas.secrets import hide_parts
from schemas.staging import SourceFiles
from stages.base import OUT_OF_MEMORY, Stage
from stages.failures import is_transient

_START_ATTEMPTS = 3
_START_TIMEOUT_S = 3600.0
"""For imports and weights, which may have to be downloaded."""

ChainFactory = Callable[[], Sequence[Stage[Any, Any]]]
"""Builds a chain; must be picklable: a module-level function, or a `functools.partial` of one."""

_log = logging.getLogger(__name__)


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
        self._process: WorkerProcess | None = self._start()
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
                self._files.end()
            if isinstance(result, WorkItem):
                # The rest is data of this source, whatever the worker says.
                result = replace(result, source=work_item.source, generation=work_item.generation)
                if not _ran_out_of_memory(result, work_item):
                    return result
                # The next one should not suffer from what this one has left, as this one may have from others.
                was_used = self._process is not None and self._process.served > 1
                self._kill()
                if not was_used or not self._faults.retries:
                    return self._with_limit(result)
                _log.warning("%s: memory did not suffice; retrying in another process", work_item.source.id)
                continue
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
            process.send(content)
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

    def _with_limit(self, result: WorkItem) -> WorkItem:
        """The work item with the limit of memory in the rejections that it caused."""
        limit = self._limits.memory_bytes
        remedy = f"; the limit is faults.memory_limit_gib ({limit / (1 << 30):g})" if limit else ""
        rejections = [
            replace(one, detail=one.detail + remedy) if one.reason == OUT_OF_MEMORY else one
            for one in result.rejections
        ]
        return replace(result, rejections=rejections)

    def _start(self) -> "WorkerProcess":
        for attempts_left in reversed(range(_START_ATTEMPTS)):
            process = WorkerProcess()
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


def _ran_out_of_memory(result: WorkItem, given: WorkItem) -> bool:
    return any(one.reason == OUT_OF_MEMORY for one in result.rejections[len(given.rejections) :])
