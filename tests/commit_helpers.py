"""Committed work items of synthetic motion capture, and a process that is killed between two writes."""

import json
from collections.abc import Callable
from typing import Any

from audit_helpers import make_sample

from pipeline.chain.work_item import WorkItem
from schemas.dataset import iterate_samples
from schemas.ids import digest
from schemas.records import Source
from schemas.storage import Storage

SPLITS = {"train": 1.0, "val": 0.0, "test": 0.0}


def work_item(number: int, generation: int = 0, samples: int = 2) -> WorkItem:
    """Finished work item of `source-NUMBER` with licence L0 or L1."""
    source = Source(id=f"source-{number}", uri=f"/in/{number}.bvh", licence=f"L{number % 2}", consent="given")
    item = WorkItem.of(source, generation)
    item.sha256 = digest(source.id) * 2
    item.records = [make_sample("mocap", samples * number + index, source=source) for index in range(samples)]
    return item


def keys_by_source(dataset: str) -> dict[str, list[str]]:
    """Source -> keys of its live samples."""
    keys: dict[str, list[str]] = {}
    for _, key, members in iterate_samples(Storage(dataset)):
        keys.setdefault(json.loads(members["meta.json"])["source_id"], []).append(key)
    return keys


class Killed(BaseException):
    """Simulates the death of the process."""


def killed_after(original: Callable[..., Any], calls_left: list[int]) -> Callable[..., Any]:
    """A wrapper that raises Killed once `calls_left[0]` calls were made; the counter may be shared between wrappers."""

    def counted(*arguments: Any, **named: Any) -> Any:
        if calls_left[0] == 0:
            raise Killed
        calls_left[0] -= 1
        return original(*arguments, **named)

    return counted
