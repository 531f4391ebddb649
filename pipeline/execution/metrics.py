"""Metrics of a running job, counted in every worker; configs/grafana.json displays them.

Counted when a source is committed, from its work item. Under Ray they are exported by Ray's own endpoint, where every name begins
with `ray_` and counters end with `_total`.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from pipeline.chain.work_item import WorkItem
from stages.base import QUARANTINE_REASONS


@dataclass(frozen=True, kw_only=True)
class MetricSpec:
    """A Prometheus metric: counters never decrease, a histogram has upper bounds of its buckets."""

    name: str
    kind: Literal["counter", "histogram"]
    description: str
    tags: tuple[str, ...] = ()
    bounds: tuple[float, ...] = ()


METRICS = (
    MetricSpec(
        name="humo_sources", kind="counter", tags=("outcome",),
        description="Sources decided on: accepted (at least one sample), rejected or quarantined (something failed).",
    ),
    MetricSpec(
        name="humo_records_in", kind="counter", tags=("stage",),
        description="Input records of a stage.",
    ),
    MetricSpec(
        name="humo_records_out", kind="counter", tags=("stage",),
        description="Output records of a stage.",
    ),
    MetricSpec(
        name="humo_rejections", kind="counter", tags=("stage", "reason"),
        description="Records rejected by a stage, including failures.",
    ),
    MetricSpec(
        name="humo_quarantined", kind="counter", tags=("stage", "reason"),
        description="Records rejected because of a failure.",
    ),
    MetricSpec(
        name="humo_stage_seconds", kind="histogram", tags=("stage",),
        bounds=(0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0, 300.0, 1000.0, 3000.0),
        description="Time of one source in a stage, seconds.",
    ),
    MetricSpec(name="humo_samples", kind="counter", description="Samples committed."),
    MetricSpec(name="humo_sample_bytes", kind="counter", description="Size of the committed samples, bytes."),
    MetricSpec(
        name="humo_hand_restarts", kind="counter", tags=("stage",),
        description="Restarts of a worker process after it died or hung; `stage` is its first stage.",
    ),
)  # fmt: skip
"""All metrics; a test compares the dashboard with them."""

Add = Callable[[float, Mapping[str, str]], None]


class Metrics:
    """Counts work items; `create` returns the function that adds to a metric, so that this module depends on no engine."""

    def __init__(self, create: Callable[[MetricSpec], Add]) -> None:
        self._add_functions = {spec.name: create(spec) for spec in METRICS}

    def count(self, work_item: WorkItem) -> None:
        """Count a committed source."""
        self._add("humo_sources", 1, outcome=outcome_of(work_item))
        for stage, (records_in, records_out, _, seconds) in work_item.stage_stats.items():
            self._add("humo_records_in", records_in, stage=stage)
            self._add("humo_records_out", records_out, stage=stage)
            self._add("humo_stage_seconds", seconds, stage=stage)
        for rejection in work_item.rejections:
            self._add("humo_rejections", 1, stage=rejection.stage, reason=rejection.reason)
            if rejection.reason in QUARANTINE_REASONS:
                self._add("humo_quarantined", 1, stage=rejection.stage, reason=rejection.reason)
        self._add("humo_samples", len(work_item.samples))
        self._add(
            "humo_sample_bytes",
            sum(len(content) for sample in work_item.samples for content in sample.members.values()),
        )

    def count_restarts(self, stage: str, number: int) -> None:
        """Count restarts of the worker process whose first stage this is."""
        self._add("humo_hand_restarts", number, stage=stage)

    def _add(self, name: str, value: float, **tags: str) -> None:
        if value > 0:  # counters accept positive values only
            self._add_functions[name](value, tags)


def outcome_of(work_item: WorkItem) -> str:
    """The outcome of a source as a whole: quarantined if anything failed, else accepted if it has samples, else rejected."""
    if any(rejection.reason in QUARANTINE_REASONS for rejection in work_item.rejections):
        return "quarantined"
    return "accepted" if work_item.samples else "rejected"


def exported_names(spec: MetricSpec) -> tuple[str, ...]:
    """Names of a metric at Ray's endpoint."""
    name = f"ray_{spec.name}"
    return (f"{name}_total",) if spec.kind == "counter" else (f"{name}_bucket", f"{name}_sum", f"{name}_count")


def ray_metric(ray_metrics: Any, spec: MetricSpec) -> Add:
    """A metric of `ray.util.metrics`, a module that the caller passes in: only `ray_engine` imports Ray."""
    if spec.kind == "histogram":
        return ray_metrics.Histogram(spec.name, spec.description, list(spec.bounds), spec.tags).observe
    return ray_metrics.Counter(spec.name, spec.description, spec.tags).inc
