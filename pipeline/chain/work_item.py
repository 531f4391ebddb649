"""A source on its way through the chain with all its records and rejections: the unit of work and of commitment.

Keeping the records of a source together needs no barrier before the commit: once a work item has passed the last stage, the source
is done.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from pipeline.chain.routing import applies_to
from schemas.records import Motion, Rejection, Sample, Source
from schemas.secrets import hide_parts
from schemas.staging import Look, source_files
from stages.base import Stage, apply


@dataclass
class WorkItem:
    """A source's current records, and the rejections so far."""

    source: Source
    records: list[Any]
    rejections: list[Rejection] = field(default_factory=list)
    sha256: str = ""
    """Hash of the source's content, once a stage has read it."""
    looks: dict[str, Look] = field(default_factory=dict, repr=False)
    """Location of a file, which may hold secrets -> what it was when it was first read."""
    generation: int = 0
    """Number of earlier decisions on the source."""
    stage_stats: dict[str, tuple[int, int, int, float]] = field(default_factory=dict)
    """Stage -> records in, records out, rejections, seconds."""

    @classmethod
    def of(cls, source: Source, generation: int = 0) -> "WorkItem":
        return cls(source=source, records=[source], generation=generation)

    @property
    def samples(self) -> list[Sample]:
        return [record for record in self.records if isinstance(record, Sample)]


def without_secrets(rejection: Rejection, source: Source) -> Rejection:
    """A rejection whose text holds nothing of its source's secret address, wherever the failing library puts it."""
    if not source.address:
        return rejection
    return replace(rejection, detail=hide_parts(rejection.detail, source.address))


def advance(
    stages: Sequence[Stage[Any, Any]], work_item: WorkItem, on_stage_start: Callable[[str], None] = lambda name: None
) -> WorkItem:
    """Run a work item through the stages that apply to its kind of source, in place; `on_stage_start` is called with each stage's
    name before it runs."""
    files = source_files()
    files.begin(work_item.looks)
    try:
        for stage in stages:
            if applies_to(work_item.source.kind, stage.name):
                on_stage_start(stage.name)
                _pass(stage, work_item)
    finally:
        files.end()
    return work_item


def _pass(stage: Stage[Any, Any], work_item: WorkItem) -> None:
    start = time.perf_counter()
    records_in = len(work_item.records)
    results, rejections = apply(stage, work_item.records)
    work_item.records = results
    work_item.rejections += [without_secrets(rejection, work_item.source) for rejection in rejections]
    work_item.stage_stats[stage.name] = (records_in, len(results), len(rejections), time.perf_counter() - start)
    for record in results:
        origin = record.provenance if isinstance(record, Motion) else record
        work_item.sha256 = work_item.sha256 or getattr(origin, "sha256", "")
