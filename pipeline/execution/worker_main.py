"""Main loop of the worker process that holds the stages (see `isolated_worker.py`)."""

import faulthandler
import os
import pickle
import resource
import signal
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from pipeline.chain.work_item import WorkItem, advance
from pipeline.execution.messages import FileRequest, Message, Ready, StageStarted, encode
from pipeline.execution.worker_limits import WorkerLimits
from schemas.errors import HumoError
from schemas.secrets import hide_secrets_in_output
from schemas.staging import SourceFiles, use_source_files
from stages.base import Stage

_OOM_SCORE = 500
"""Of a maximum of 1000: when memory runs out, the kernel kills this process before the job's main process."""


def serve(descriptor: int) -> None:
    """Build and set up the stages named in the first message on this socket, then process work items until it closes."""
    hide_secrets_in_output()
    os.set_inheritable(descriptor, False)
    resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1]))
    with suppress(OSError):
        score = Path("/proc/self/oom_score_adj")
        score.write_text(str(max(int(score.read_text()), _OOM_SCORE)))
    faulthandler.enable(all_threads=False)
    faulthandler.register(signal.SIGUSR1, all_threads=False)  # the parent requests a traceback with it
    connection = Connection(descriptor)
    try:
        build, names, limits, access = pickle.loads(connection.recv_bytes())
        stages = _set_up(build, names)
    except HumoError as error:
        _send(connection, error)
        return
    _send(connection, Ready(description=limits.apply()))
    with suppress(EOFError), use_source_files(SourceFiles(access, partial(_ask, connection))):
        while True:
            work_item = pickle.loads(connection.recv_bytes())
            advance(stages, work_item, partial(_begin_stage, connection, limits, work_item))
            _send(connection, work_item)


def _ask(connection: Connection, method: str, uri: str) -> Any:
    """What the parent's `SourceFiles` returns; raises what it raises."""
    _send(connection, FileRequest(method=method, uri=uri))
    answer = pickle.loads(connection.recv_bytes())
    if isinstance(answer, Exception):
        raise answer
    return answer


def _set_up(build: Callable[[], Sequence[Stage[Any, Any]]], names: Sequence[str]) -> list[Stage[Any, Any]]:
    stages = [stage for stage in build() if stage.name in names]
    for stage in stages:
        stage.setup()
    return stages


def _begin_stage(connection: Connection, limits: WorkerLimits, work_item: WorkItem, stage: str) -> None:
    _send(connection, StageStarted.of(stage, work_item))
    limits.begin_stage()


def _send(connection: Connection, message: Message) -> None:
    connection.send_bytes(encode(message))
