"""What a running job counts, worker by worker, for whoever watches it; configs/grafana.json shows it.

Counted where a source is committed, from what its work item says of every stage. Under Ray the counts leave through Ray's
own endpoint, where every name begins with `ray_` and counters end with `_total`.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from pipeline.chain.work_item import WorkItem
from stages.base import QUARANTINE_REASONS


@dataclass(frozen=True, kw_only=True)
class Meter:
    """A metric as Prometheus knows it: no counter ever falls, a histogram has upper bounds of its buckets."""

    name: str
    kind: Literal["counter", "histogram"]
    description: str
    tags: tuple[str, ...] = ()
    bounds: tuple[float, ...] = ()


METERS = (
    Meter(
        name="humo_sources", kind="counter", tags=("outcome",),
        description="Sources decided on: accepted (at least one sample), rejected or quarantined (something failed).",
    ),
    Meter(
        name="humo_records_in", kind="counter", tags=("stage",),
        description="Records that went into a stage.",
    ),
    Meter(
        name="humo_records_out", kind="counter", tags=("stage",),
        description="Records that came out of a stage.",
    ),
    Meter(
        name="humo_rejections", kind="counter", tags=("stage", "reason"),
        description="Records that went no further, failures among them.",
    ),
    Meter(
        name="humo_quarantined", kind="counter", tags=("stage", "reason"),
        description="Records that failed rather than were turned down.",
    ),
    Meter(
        name="humo_stage_seconds", kind="histogram", tags=("stage",),
        bounds=(0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0, 300.0, 1000.0, 3000.0),
        description="Time of one source in a stage, seconds.",
    ),
    Meter(name="humo_samples", kind="counter", description="Samples committed."),
    Meter(name="humo_sample_bytes", kind="counter", description="Content of the samples committed, bytes."),
    Meter(
        name="humo_hand_restarts", kind="counter", tags=("stage",),
        description="Times that the process of the stages was started anew after it died or hung; its first stage.",
    ),
)  # fmt: skip
"""All of them; the test of the dashboard holds it against these."""

Add = Callable[[float, Mapping[str, str]], None]


class Metrics:
    """Counts work items; `make` gives for each meter what adds to it, so that no engine is known here."""

    def __init__(self, make: Callable[[Meter], Add]) -> None:
        self._add = {meter.name: make(meter) for meter in METERS}

    def count(self, work_item: WorkItem) -> None:
        """A source that has been committed."""
        self._plus("humo_sources", 1, outcome=outcome_of(work_item))
        for stage, (came, went, _, seconds) in work_item.passed.items():
            self._plus("humo_records_in", came, stage=stage)
            self._plus("humo_records_out", went, stage=stage)
            self._plus("humo_stage_seconds", seconds, stage=stage)
        for one in work_item.rejections:
            self._plus("humo_rejections", 1, stage=one.stage, reason=one.reason)
            if one.reason in QUARANTINE_REASONS:
                self._plus("humo_quarantined", 1, stage=one.stage, reason=one.reason)
        self._plus("humo_samples", len(work_item.samples))
        self._plus(
            "humo_sample_bytes", sum(len(one) for sample in work_item.samples for one in sample.members.values())
        )

    def count_restarts(self, stage: str, number: int) -> None:
        """A hand whose first stage this is was started anew so many times."""
        self._plus("humo_hand_restarts", number, stage=stage)

    def _plus(self, name: str, value: float, **tags: str) -> None:
        if value > 0:  # counters know no other, and adding nothing says nothing
            self._add[name](value, tags)


def outcome_of(work_item: WorkItem) -> str:
    """What became of a source as a whole: something of it failed, or was kept, or nothing was."""
    if any(one.reason in QUARANTINE_REASONS for one in work_item.rejections):
        return "quarantined"
    return "accepted" if work_item.samples else "rejected"


def exported(meter: Meter) -> tuple[str, ...]:
    """Names under which Ray's endpoint shows a meter."""
    name = f"ray_{meter.name}"
    return (f"{name}_total",) if meter.kind == "counter" else (f"{name}_bucket", f"{name}_sum", f"{name}_count")


def ray_meter(make: Any, meter: Meter) -> Add:
    """A meter of `ray.util.metrics`, which the caller gives: only the engine knows Ray."""
    if meter.kind == "histogram":
        return make.Histogram(meter.name, meter.description, list(meter.bounds), meter.tags).observe
    return make.Counter(meter.name, meter.description, meter.tags).inc
