"""humo bench overhead: what the engine and its commits cost an item, beside a plain program that writes as many files.

The stages do next to nothing, so that all that is measured is what humo adds: work items, hands, the commit protocol, Ray.
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
    """Reads a source's name and passes it on."""

    def run(self, record: Source) -> Iterable[Source]:
        digest(record.id, digits=16)
        yield record


class Seal(Stage[Source, Sample]):
    """Makes a sample of two small members."""

    def run(self, record: Source) -> Iterable[Sample]:
        members = {"meta.json": _META, "text.json": encode_json({"of": record.id})}
        yield Sample(key=record.id, subset="bench", source_id=record.id, members=members)


def trivial_chain() -> list[Stage[Any, Any]]:
    """Three stages that do next to nothing."""
    return [Look(), Weigh(), Seal()]


def bench(sizes: str, *, engine: str = "inline", sources_per_commit: int = 100, isolate: bool = True) -> dict[str, Any]:
    """Milliseconds an item by number of items, of humo and of a plain program, in turns.

    `start_s` is the time until the first commit: processes start and load what they need. `ms` is what each item after that
    takes, and stays the same where nothing grows faster than the number of items; `overhead_ms` is that less the stages'
    own time. `resume_s`: reading the ledger, as the next run does. Raises UsageError for sizes that do not grow, or that
    one commit would hold, and for an engine that is not there.
    """
    numbers = [int(one) if one.strip().isdecimal() else 0 for one in sizes.split(",")]
    if sorted(set(numbers)) != numbers or numbers[0] <= max(0, sources_per_commit):
        raise UsageError(
            f"--sizes: {sizes!r} must be whole numbers that grow, each of more than one commit ({sources_per_commit} items), "
            "such as 1000,10000"
        )
    runs: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as work:
        settings = {
            "sources": [{"kind": "studio", "path": "generated"}], "output": work, "sources_per_commit": sources_per_commit,
            "engine": {"kind": engine, "isolate": isolate},
        }  # fmt: skip
        config = parse_config(settings, IngestConfig, "--sizes")
        with _running(config):
            _measure(config, Path(work) / "warm", 2 * sources_per_commit)  # imports, and the disk's first touch
            for size in numbers:
                runs.append(_measure(config, Path(work) / str(size), size))
    return {
        "engine": engine, "isolate": isolate, "sources_per_commit": sources_per_commit, "runs": runs,
        "machine": f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores",
    }  # fmt: skip


def bench_text(found: dict[str, Any]) -> str:
    """The figures for a terminal."""
    where = f"{found['engine']}, stages {'in processes of their own' if found['isolate'] else 'in the same process'}"
    lines = [
        f"{where}, {found['sources_per_commit']} sources a commit, {found['machine']}",
        f"{'items':>8}{'start s':>10}{'ms an item':>12}{'overhead ms':>13}{'plain: start':>16}{'ms an item':>12}{'resuming':>12}",
    ]
    lines += [
        f"{one['items']:>8}{one['start_s']:>10.2f}{one['ms']:>12.3f}{one['overhead_ms']:>13.3f}{one['plain_start_s']:>16.2f}"
        f"{one['plain_ms']:>12.3f}{one['resume_s']:>12.2f}"
        for one in found["runs"]
    ]
    return "\n".join(lines)


def _measure(config: IngestConfig, folder: Path, size: int) -> dict[str, Any]:
    work_items = [
        WorkItem.of(Source(id=f"item-{number:08d}", uri=f"bench:{number}", kind="mocap")) for number in range(size)
    ]
    ours = config.model_copy(update={"output": str(folder / "humo")})
    passed: list[float] = []

    def outcomes() -> Iterator[int]:
        for outcome in _engine(config)(ours, trivial_chain(), work_items):
            passed.extend(seconds for *_, seconds in outcome.passed.values())
            yield outcome.samples

    humo = _timed(outcomes(), size, config.sources_per_commit)
    began = time.perf_counter()
    known = len(done_sources(Storage(ours.output)))
    resume_s = time.perf_counter() - began
    plain = _timed(_plain(ours, work_items, partial(write_plain, folder / "plain")), size, config.sources_per_commit)
    if known != size:
        raise HumoError(f"of {size} items the ledger knows {known}")
    stages_ms = 1e3 * sum(passed) / size
    return {
        "items": size, "start_s": round(humo[0], 3), "ms": round(humo[1], 4), "stages_ms": round(stages_ms, 4),
        "overhead_ms": round(humo[1] - stages_ms, 4), "plain_start_s": round(plain[0], 3), "plain_ms": round(plain[1], 4),
        "resume_s": round(resume_s, 4),
    }  # fmt: skip


def _timed(counts: Iterable[int], size: int, first: int) -> tuple[float, float]:
    """(seconds until the first so many items, milliseconds for each of the others)."""
    seen, start_s, began = 0, 0.0, time.perf_counter()
    before = 0
    for count in counts:
        seen += count
        if not before and seen >= first:
            start_s, before = time.perf_counter() - began, seen
    whole_s = time.perf_counter() - began
    if seen != size:
        raise HumoError(f"of {size} items {seen} came out")
    return start_s, 1e3 * (whole_s - start_s) / (size - before)


def _running(config: IngestConfig) -> AbstractContextManager[None]:
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
    """What the same stages make of sources, in two files as a commit has them: the content, and a list of what is in it."""
    made: dict[str, bytes] = {}
    for work_item in work_items:
        records: list[Any] = work_item.records
        for stage in trivial_chain():
            records = [result for record in records for result in stage.run(record)]
        made |= {f"{one.key}.{name}": content for one in records for name, content in one.members.items()}
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{work_items[0].source.id}.bin").write_bytes(b"".join(made.values()))
    (folder / f"{work_items[0].source.id}.txt").write_text("\n".join(made))
    return len(work_items)
