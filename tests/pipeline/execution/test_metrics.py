"""What a job counts, and whether the dashboard and Ray's endpoint know the same names."""

import json
import re
from collections import Counter
from collections.abc import Mapping

from pipeline import PROJECT_ROOT
from pipeline.chain.work_item import WorkItem
from pipeline.execution.metrics import METERS, Add, Meter, Metrics, exported
from schemas.records import Rejection, Sample, Source

DASHBOARD = PROJECT_ROOT / "configs" / "grafana.json"


class Book:
    """Keeps what is added, by meter and tags."""

    def __init__(self) -> None:
        self.sums: Counter[tuple[object, ...]] = Counter()
        self.metrics = Metrics(self.meter)

    def meter(self, meter: Meter) -> Add:
        def add(value: float, tags: Mapping[str, str]) -> None:
            assert tuple(sorted(tags)) == tuple(sorted(meter.tags)), f"{meter.name} is given {tags}"
            assert value > 0, "Ray's counters take nothing else"
            self.sums[meter.name, *(tags[name] for name in meter.tags)] += value

        return add


def work_item(name: str, samples: int = 0, *reasons: str) -> WorkItem:
    source = Source(id=name, uri=name)
    records = [
        Sample(key=f"{name}{number}", subset="video", source_id=name, members={"a": b"12345"})
        for number in range(samples)
    ]
    rejections = [Rejection(id=name, stage="fit", reason=reason) for reason in reasons]
    passed = {"read": (1, 2, 0, 0.5), "fit": (2, samples, len(reasons), 1.5)}
    return WorkItem(source=source, records=list(records), rejections=rejections, passed=passed)


def test_everything_is_counted() -> None:
    book = Book()
    for one in (work_item("a", 2), work_item("b", 1, "too_short"), work_item("c", 0, "too_short", "too_long")):
        book.metrics.count(one)
    book.metrics.count(work_item("d", 1, "worker_died"))
    book.metrics.count_restarts("read", 0)
    book.metrics.count_restarts("read", 2)
    assert book.sums == {
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
    forth, back = Book(), Book()
    for one, other in zip(work_items, reversed(work_items), strict=True):
        forth.metrics.count(one)
        back.metrics.count(other)
    assert forth.sums == back.sums


def test_the_dashboard_shows_exactly_these_names() -> None:
    dashboard = json.loads(DASHBOARD.read_text())
    queries = [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]
    shown = set(re.findall(r"ray_\w+", " ".join(queries)))
    known = {name: meter for meter in METERS for name in exported(meter)}
    assert shown <= set(known), f"no such metrics: {shown - set(known)}"
    assert {known[name].name for name in shown} == {meter.name for meter in METERS}, "a metric that nobody sees"


def test_the_dashboard_groups_by_tags_that_are_there() -> None:
    known = {name: meter for meter in METERS for name in exported(meter)}
    for panel in json.loads(DASHBOARD.read_text())["panels"]:
        for target in panel["targets"]:
            tags = {tag for name in re.findall(r"ray_\w+", target["expr"]) for tag in known[name].tags} | {"le"}
            used = {tag for group in re.findall(r"by \(([^)]*)\)", target["expr"]) for tag in group.split(", ")}
            used |= set(re.findall(r"{{(\w+)}}", target["legendFormat"]))
            assert used <= tags, f"{panel['title']}: {used - tags}"


def test_panels_do_not_overlap() -> None:
    taken: set[tuple[int, int]] = set()
    for panel in json.loads(DASHBOARD.read_text())["panels"]:
        place = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not cells & taken
        assert place["x"] + place["w"] <= 24
        taken |= cells
