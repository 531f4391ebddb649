"""A fast stage with large outputs before a slow one."""

import os
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from schemas.records import Source
from stages.base import Stage

RECORD_BYTES = 4_000_000


class ReadVideos(Stage[Source, Source]):
    """Creates a marker file in the folder given by the source's description."""

    def run(self, record: Source) -> Iterator[Source]:
        Path(record.description, record.id).touch()
        yield replace(record, title=os.urandom(RECORD_BYTES // 2).hex())


class TrackPeople(Stage[Source, Source]):
    """Is slow and yields nothing."""

    def run(self, record: Source) -> Iterator[Source]:
        time.sleep(0.05)
        yield from ()


def stages() -> list[Stage[Any, Any]]:
    return [ReadVideos(), TrackPeople()]
