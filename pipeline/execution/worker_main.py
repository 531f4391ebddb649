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

from pipeline.chain.work_item import Bundle, advance
from schemas.errors import HumoError
from schemas.records import Rejection
from stages.base import Stage

_OOM_SCORE = 500
"""Of at most 1000: when memory runs out, this process goes before the one that holds the job together."""


@dataclass(frozen=True, kw_only=True)
class Ready:
    """The stages are set up."""


@dataclass(frozen=True, kw_only=True)
class Begun:
    """How far a bundle has come: all that is needed to turn it down here, should no further word come."""

    stage: str
    """The stage that begins."""
    ids: list[str]
    """Of the records that go into it."""
    rejections: list[Rejection]
    passed: dict[str, tuple[int, int, int, float]]
    sha256: str

    @classmethod
    def of(cls, stage: str, bundle: Bundle) -> "Begun":
        """A copy, for the bundle goes on."""
        ids = [record.id for record in bundle.records]
        return cls(
            stage=stage, ids=ids, rejections=[*bundle.rejections], passed={**bundle.passed}, sha256=bundle.sha256
        )


Message = Ready | Begun | HumoError | Bundle
"""What the child says: once Ready or a HumoError of `setup`; then, for each bundle, each stage's beginning and the bundle."""


def serve(descriptor: int) -> None:
    """Build and set up the stages that come first over this socket, then answer bundles until it is closed."""
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
            bundle = pickle.loads(connection.recv_bytes())
            advance(stages, bundle, partial(_say_begun, connection, bundle))
            _say(connection, bundle)


def _set_up(build: Callable[[], Sequence[Stage[Any, Any]]], names: Sequence[str]) -> list[Stage[Any, Any]]:
    stages = [stage for stage in build() if stage.name in names]
    for stage in stages:
        stage.setup()
    return stages


def _say_begun(connection: Connection, bundle: Bundle, stage: str) -> None:
    _say(connection, Begun.of(stage, bundle))


def _say(connection: Connection, message: Message) -> None:
    connection.send_bytes(pickle.dumps(message, protocol=pickle.HIGHEST_PROTOCOL))
