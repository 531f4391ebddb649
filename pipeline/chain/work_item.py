"""A source on its way through the chain, together with all that has become of it: the unit of work and of commitment.

Keeping what came of one source together needs no barrier before the commit: when a work item has passed the last stage, the
source is done.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from pipeline.chain.routing import applies_to
from schemas.records import Motion, Rejection, Sample, Source
from stages.base import Stage, apply


@dataclass
class WorkItem:
    """What there is of a source so far, and what has been turned down."""

    source: Source
    records: list[Any]
    rejections: list[Rejection] = field(default_factory=list)
    sha256: str = ""
    """Of the source's content, once a stage has read it."""
    generation: int = 0
    """How often the source was decided on before."""
    passed: dict[str, tuple[int, int, int, float]] = field(default_factory=dict)
    """Stage -> records in, records out, rejections, seconds."""

    @classmethod
    def of(cls, source: Source, generation: int = 0) -> "WorkItem":
        return cls(source=source, records=[source], generation=generation)

    @property
    def samples(self) -> list[Sample]:
        return [record for record in self.records if isinstance(record, Sample)]


def advance(
    stages: Sequence[Stage[Any, Any]], work_item: WorkItem, on_stage: Callable[[str], None] = lambda name: None
) -> WorkItem:
    """Take a work item through those of the stages that its kind of source passes, in place; `on_stage` hears of each before
    it begins."""
    for stage in stages:
        if not applies_to(work_item.source.kind, stage.name):
            continue
        on_stage(stage.name)
        start = time.perf_counter()
        number = len(work_item.records)
        results, rejections = apply(stage, work_item.records)
        work_item.records = results
        work_item.rejections += rejections
        work_item.passed[stage.name] = (number, len(results), len(rejections), time.perf_counter() - start)
        for record in results:
            known = record.provenance if isinstance(record, Motion) else record
            work_item.sha256 = work_item.sha256 or getattr(known, "sha256", "")
    return work_item
