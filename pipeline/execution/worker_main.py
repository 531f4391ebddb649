"""The inner side of a hand (see `hands.py`): the loop of the child process that holds the stages."""

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
from stages.base import Stage

_OOM_SCORE = 500
"""Of at most 1000: when memory runs out, this process goes before the one that holds the job together."""


@dataclass(frozen=True, kw_only=True)
class Ready:
    """The stages are set up."""


@dataclass(frozen=True, kw_only=True)
class StageStarted:
    """How far a work item has come: all that is needed to turn it down here, should no further word come."""

    stage: str
    """The stage that begins."""
    ids: list[str]
    """Of the records that go into it."""
    rejections: list[Rejection]
    passed: dict[str, tuple[int, int, int, float]]
    sha256: str

    @classmethod
    def of(cls, stage: str, work_item: WorkItem) -> "StageStarted":
        """A copy, for the work item goes on."""
        ids = [record.id for record in work_item.records]
        return cls(
            stage=stage,
            ids=ids,
            rejections=[*work_item.rejections],
            passed={**work_item.passed},
            sha256=work_item.sha256,
        )


Message = Ready | StageStarted | HumoError | WorkItem
"""What the child says: once Ready or a HumoError of `setup`; then, for each work item, each stage's beginning and the work item."""


def serve(descriptor: int) -> None:
    """Build and set up the stages that come first over this socket, then answer work items until it is closed."""
    os.set_inheritable(descriptor, False)
    resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1]))
    with suppress(OSError):
        score = Path("/proc/self/oom_score_adj")
        score.write_text(str(max(int(score.read_text()), _OOM_SCORE)))
    faulthandler.enable(all_threads=False)
    faulthandler.register(signal.SIGUSR1, all_threads=False)  # by which the parent asks where it is
    connection = Connection(descriptor)
    try:
        stages = _set_up(*pickle.loads(connection.recv_bytes()))
    except HumoError as error:
        _say(connection, error)
        return
    _say(connection, Ready())
    with suppress(EOFError):
        while True:
            work_item = pickle.loads(connection.recv_bytes())
            advance(stages, work_item, partial(_say_begun, connection, work_item))
            _say(connection, work_item)


def _set_up(build: Callable[[], Sequence[Stage[Any, Any]]], names: Sequence[str]) -> list[Stage[Any, Any]]:
    stages = [stage for stage in build() if stage.name in names]
    for stage in stages:
        stage.setup()
    return stages


def _say_begun(connection: Connection, work_item: WorkItem, stage: str) -> None:
    _say(connection, StageStarted.of(stage, work_item))


def _say(connection: Connection, message: Message) -> None:
    connection.send_bytes(pickle.dumps(message, protocol=pickle.HIGHEST_PROTOCOL))
