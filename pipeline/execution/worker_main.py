"""Main loop of the worker process that holds the stages (see `isolated_worker.py`)."""

import faulthandler
import os
import pickle
import resource
import signal
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from pipeline.chain.work_item import WorkItem, advance
from schemas.errors import HumoError
from schemas.records import Rejection
from schemas.secrets import hide_secrets_in_output
from stages.base import Stage

_OOM_SCORE = 500
"""Of a maximum of 1000: when memory runs out, the kernel kills this process before the job's main process."""


@dataclass(frozen=True, kw_only=True)
class Ready:
    """The stages are set up."""


@dataclass(frozen=True, kw_only=True)
class StageStarted:
    """Progress of a work item: all that is needed to reject it at this stage if no further message arrives."""

    stage: str
    """The stage that begins."""
    ids: list[str]
    """Of the stage's input records."""
    rejections: list[Rejection]
    stage_stats: dict[str, tuple[int, int, int, float]]
    sha256: str

    @classmethod
    def of(cls, stage: str, work_item: WorkItem) -> "StageStarted":
        """A snapshot, as the work item changes later."""
        ids = [record.id for record in work_item.records]
        return cls(
            stage=stage,
            ids=ids,
            rejections=[*work_item.rejections],
            stage_stats={**work_item.stage_stats},
            sha256=work_item.sha256,
        )


Message = Ready | StageStarted | HumoError | WorkItem
"""Sent by the worker: Ready or a HumoError of `setup` once; then, for each work item, StageStarted per stage and the work item."""


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
        stages = _set_up(*pickle.loads(connection.recv_bytes()))
    except HumoError as error:
        _send(connection, error)
        return
    _send(connection, Ready())
    with suppress(EOFError):
        while True:
            work_item = pickle.loads(connection.recv_bytes())
            advance(stages, work_item, partial(_send_stage_started, connection, work_item))
            _send(connection, work_item)


def _set_up(build: Callable[[], Sequence[Stage[Any, Any]]], names: Sequence[str]) -> list[Stage[Any, Any]]:
    stages = [stage for stage in build() if stage.name in names]
    for stage in stages:
        stage.setup()
    return stages


def _send_stage_started(connection: Connection, work_item: WorkItem, stage: str) -> None:
    _send(connection, StageStarted.of(stage, work_item))


def _send(connection: Connection, message: Message) -> None:
    connection.send_bytes(pickle.dumps(message, protocol=pickle.HIGHEST_PROTOCOL))
