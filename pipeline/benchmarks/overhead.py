"""humo bench overhead: cost per item of the engine and its commits, compared with a plain program that writes as many files.

The stages do almost nothing, so that only the overhead of humo is measured: work items, worker processes, the commit protocol, Ray.
"""

import os
import platform
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from pathlib import Path
from typing import Any

from pipeline.chain.config import IngestConfig
from pipeline.chain.work_item import WorkItem
from pipeline.dataset.commits import done_sources
from pipeline.execution.engines import Engine, run_inline
from schemas.config import parse_config
from schemas.errors import HumoError, UsageError
from schemas.ids import digest
from schemas.records import Sample, Source
from schemas.sample import encode_json
from schemas.storage import Storage
from stages.base import Stage

_META = encode_json({"frames": 30, "fps": 30.0})


class Look(Stage[Source, Source]):
    """Passes a source on."""

    def run(self, record: Source) -> Iterable[Source]:
        yield record


class Weigh(Stage[Source, Source]):
    """Hashes a source's id and passes it on."""

    def run(self, record: Source) -> Iterable[Source]:
        digest(record.id, digits=16)
        yield record


class Seal(Stage[Source, Sample]):
    """Makes a sample of two small members."""

    def run(self, record: Source) -> Iterable[Sample]:
        members = {"meta.json": _META, "text.json": encode_json({"of": record.id})}
        yield Sample(key=record.id, subset="bench", source_id=record.id, members=members)


def trivial_chain() -> list[Stage[Any, Any]]:
    """Three stages that do almost nothing."""
    return [Look(), Weigh(), Seal()]


def bench(sizes: str, *, engine: str = "inline", sources_per_commit: int = 100, isolate: bool = True) -> dict[str, Any]:
    """Milliseconds per item by number of items, of humo and of a plain program, alternating.

    `start_s` is the time to the first commit: processes start and load what they need. `ms` is the time per item after that, and is
    constant if nothing grows faster than the number of items; `overhead_ms` is `ms` without the stages' own time. `resume_s`:
    reading the ledger, as the next run does. Raises UsageError for sizes that do not increase, or that fit in one commit, and for
    an unknown engine.
    """
    counts = [int(item) if item.strip().isdecimal() else 0 for item in sizes.split(",")]
    if sorted(set(counts)) != counts or counts[0] <= max(0, sources_per_commit):
        raise UsageError(
            f"--sizes: {sizes!r} must be increasing whole numbers, each larger than one commit ({sources_per_commit} items), "
            "such as 1000,10000"
        )
    runs: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as work:
        settings = {
            "sources": [{"kind": "studio", "path": "generated"}], "output": work, "sources_per_commit": sources_per_commit,
            "engine": {"kind": engine, "isolate": isolate},
        }  # fmt: skip
        config = parse_config(settings, IngestConfig, "--sizes")
        with _shared_ray(config):
            _measure(config, Path(work) / "warm", 2 * sources_per_commit)  # imports, and first disk access
            for size in counts:
                runs.append(_measure(config, Path(work) / str(size), size))
    return {
        "engine": engine, "isolate": isolate, "sources_per_commit": sources_per_commit, "runs": runs,
        "machine": f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores",
    }  # fmt: skip


def bench_text(report: dict[str, Any]) -> str:
    """The results for a terminal."""
    setup = f"{report['engine']}, stages {'in worker processes' if report['isolate'] else 'in the same process'}"
    lines = [
        f"{setup}, {report['sources_per_commit']} sources a commit, {report['machine']}",
        f"{'items':>8}{'start s':>10}{'ms an item':>12}{'overhead ms':>13}{'plain: start':>16}{'ms an item':>12}{'resuming':>12}",
    ]
    lines += [
        f"{run['items']:>8}{run['start_s']:>10.2f}{run['ms']:>12.3f}{run['overhead_ms']:>13.3f}{run['plain_start_s']:>16.2f}"
        f"{run['plain_ms']:>12.3f}{run['resume_s']:>12.2f}"
        for run in report["runs"]
    ]
    return "\n".join(lines)


def _measure(config: IngestConfig, folder: Path, size: int) -> dict[str, Any]:
    work_items = [
        WorkItem.of(Source(id=f"item-{number:08d}", uri=f"bench:{number}", kind="mocap")) for number in range(size)
    ]
    humo_config = config.model_copy(update={"output": str(folder / "humo")})
    stage_seconds: list[float] = []

    def outcomes() -> Iterator[int]:
        for outcome in _engine(config)(humo_config, trivial_chain(), work_items):
            stage_seconds.extend(seconds for *_, seconds in outcome.stage_stats.values())
            yield outcome.samples

    humo = _timed(outcomes(), size, config.sources_per_commit)
    start = time.perf_counter()
    decided = len(done_sources(Storage(humo_config.output)))
    resume_s = time.perf_counter() - start
    plain = _timed(
        _plain(humo_config, work_items, partial(write_plain, folder / "plain")), size, config.sources_per_commit
    )
    if decided != size:
        raise HumoError(f"the ledger has decisions on {decided} of {size} items")
    stages_ms = 1e3 * sum(stage_seconds) / size
    return {
        "items": size, "start_s": round(humo[0], 3), "ms": round(humo[1], 4), "stages_ms": round(stages_ms, 4),
        "overhead_ms": round(humo[1] - stages_ms, 4), "plain_start_s": round(plain[0], 3), "plain_ms": round(plain[1], 4),
        "resume_s": round(resume_s, 4),
    }  # fmt: skip


def _timed(counts: Iterable[int], size: int, first: int) -> tuple[float, float]:
    """(seconds to the first `first` items, milliseconds for each of the others)."""
    total, start_s, start = 0, 0.0, time.perf_counter()
    first_total = 0
    for count in counts:
        total += count
        if not first_total and total >= first:
            start_s, first_total = time.perf_counter() - start, total
    total_s = time.perf_counter() - start
    if total != size:
        raise HumoError(f"{total} of {size} items were processed")
    return start_s, 1e3 * (total_s - start_s) / (size - first_total)


def _shared_ray(config: IngestConfig) -> AbstractContextManager[None]:
    """Ray is started once for all sizes."""
    if config.engine.kind == "inline":
        return nullcontext()
    from pipeline.execution.ray_engine import local_ray

    return local_ray(config)


def _engine(config: IngestConfig) -> Engine:
    if config.engine.kind == "inline":
        return partial(run_inline, build=trivial_chain)
    from pipeline.execution.ray_engine import run_ray

    return partial(run_ray, build=trivial_chain)


def _plain(
    config: IngestConfig, work_items: Sequence[WorkItem], write: Callable[[Sequence[WorkItem]], int]
) -> Iterable[int]:
    if config.engine.kind == "ray":
        from pipeline.execution.ray_engine import plain_ray

        return plain_ray(config, work_items, write)
    size = config.sources_per_commit
    return (write(work_items[start : start + size]) for start in range(0, len(work_items), size))


def write_plain(folder: Path, work_items: Sequence[WorkItem]) -> int:
    """The stages' output for these sources, in two files as in a commit: the content, and a list of its names."""
    contents: dict[str, bytes] = {}
    for work_item in work_items:
        records: list[Any] = work_item.records
        for stage in trivial_chain():
            records = [result for record in records for result in stage.run(record)]
        contents |= {f"{sample.key}.{name}": content for sample in records for name, content in sample.members.items()}
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{work_items[0].source.id}.bin").write_bytes(b"".join(contents.values()))
    (folder / f"{work_items[0].source.id}.txt").write_text("\n".join(contents))
    return len(work_items)
