"""A quick stage that makes much before a slow one."""

import os
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from schemas.records import Source
from stages.base import Stage

MADE_BYTES = 4_000_000


class ReadVideos(Stage[Source, Source]):
    """Leaves a mark in the folder that a source's description names."""

    def run(self, record: Source) -> Iterator[Source]:
        Path(record.description, record.id).touch()
        yield replace(record, title=os.urandom(MADE_BYTES // 2).hex())


class TrackPeople(Stage[Source, Source]):
    """Takes its time and leaves nothing."""

    def run(self, record: Source) -> Iterator[Source]:
        time.sleep(0.05)
        yield from ()


def stages() -> list[Stage[Any, Any]]:
    return [ReadVideos(), TrackPeople()]
