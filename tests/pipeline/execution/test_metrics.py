"""The metrics of a job, and that the dashboard and Ray's endpoint use the same names."""

import json
import re
from collections import Counter
from collections.abc import Mapping

from pipeline import PROJECT_ROOT
from pipeline.chain.work_item import WorkItem
from pipeline.execution.metrics import METRICS, Add, Metrics, MetricSpec, exported_names
from schemas.records import Rejection, Sample, Source

DASHBOARD = PROJECT_ROOT / "configs" / "grafana.json"


class Recorder:
    """Sums the added values by metric and tags."""

    def __init__(self) -> None:
        self.sums: Counter[tuple[object, ...]] = Counter()
        self.metrics = Metrics(self.create)

    def create(self, spec: MetricSpec) -> Add:
        def add(value: float, tags: Mapping[str, str]) -> None:
            assert tuple(sorted(tags)) == tuple(sorted(spec.tags)), f"{spec.name} is given {tags}"
            assert value > 0, "Ray's counters accept positive values only"
            self.sums[spec.name, *(tags[name] for name in spec.tags)] += value

        return add


def work_item(name: str, samples: int = 0, *reasons: str) -> WorkItem:
    source = Source(id=name, uri=name)
    records = [
        Sample(key=f"{name}{number}", subset="video", source_id=name, members={"a": b"12345"})
        for number in range(samples)
    ]
    rejections = [Rejection(id=name, stage="fit", reason=reason) for reason in reasons]
    stage_stats = {"read": (1, 2, 0, 0.5), "fit": (2, samples, len(reasons), 1.5)}
    return WorkItem(source=source, records=list(records), rejections=rejections, stage_stats=stage_stats)


def test_all_metrics_are_counted() -> None:
    recorder = Recorder()
    for one in (work_item("a", 2), work_item("b", 1, "too_short"), work_item("c", 0, "too_short", "too_long")):
        recorder.metrics.count(one)
    recorder.metrics.count(work_item("d", 1, "worker_died"))
    recorder.metrics.count_restarts("read", 0)
    recorder.metrics.count_restarts("read", 2)
    assert recorder.sums == {
        ("humo_sources", "accepted"): 2, ("humo_sources", "rejected"): 1, ("humo_sources", "quarantined"): 1,
        ("humo_records_in", "read"): 4, ("humo_records_out", "read"): 8,
        ("humo_records_in", "fit"): 8, ("humo_records_out", "fit"): 4,
        ("humo_stage_seconds", "read"): 2.0, ("humo_stage_seconds", "fit"): 6.0,
        ("humo_rejections", "fit", "too_short"): 2, ("humo_rejections", "fit", "too_long"): 1,
        ("humo_rejections", "fit", "worker_died"): 1, ("humo_quarantined", "fit", "worker_died"): 1,
        ("humo_samples",): 4, ("humo_sample_bytes",): 20, ("humo_hand_restarts", "read"): 2,
    }  # fmt: skip


def test_order_does_not_matter() -> None:
    work_items = [work_item("a", 2), work_item("b", 1, "too_short"), work_item("d", 0, "timed_out")]
    forward, backward = Recorder(), Recorder()
    for one, other in zip(work_items, reversed(work_items), strict=True):
        forward.metrics.count(one)
        backward.metrics.count(other)
    assert forward.sums == backward.sums


def test_the_dashboard_shows_exactly_these_names() -> None:
    dashboard = json.loads(DASHBOARD.read_text())
    queries = [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]
    displayed = set(re.findall(r"ray_\w+", " ".join(queries)))
    known = {name: spec for spec in METRICS for name in exported_names(spec)}
    assert displayed <= set(known), f"no such metrics: {displayed - set(known)}"
    assert {known[name].name for name in displayed} == {spec.name for spec in METRICS}, "a metric that is not displayed"


def test_the_dashboard_groups_by_existing_tags() -> None:
    known = {name: spec for spec in METRICS for name in exported_names(spec)}
    for panel in json.loads(DASHBOARD.read_text())["panels"]:
        for target in panel["targets"]:
            tags = {tag for name in re.findall(r"ray_\w+", target["expr"]) for tag in known[name].tags} | {"le"}
            used = {tag for group in re.findall(r"by \(([^)]*)\)", target["expr"]) for tag in group.split(", ")}
            used |= set(re.findall(r"{{(\w+)}}", target["legendFormat"]))
            assert used <= tags, f"{panel['title']}: {used - tags}"


def test_panels_do_not_overlap() -> None:
    taken: set[tuple[int, int]] = set()
    for panel in json.loads(DASHBOARD.read_text())["panels"]:
        position = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(position["x"], position["x"] + position["w"])
            for y in range(position["y"], position["y"] + position["h"])
        }
        assert not cells & taken
        assert position["x"] + position["w"] <= 24
        taken |= cells
