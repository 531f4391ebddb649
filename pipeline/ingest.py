"""A whole job: what is still to do, the engine over it, then the packing. Running it again does only what is missing."""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from pipeline.chain import build_chain
from pipeline.commits import done_sources
from pipeline.config import IngestConfig
from pipeline.engines import Engine, Outcome, run_inline
from pipeline.pack import is_packed, pack
from schemas.dataset import DatasetDescription, read_description
from schemas.errors import HumoError
from schemas.records import Source
from schemas.storage import Storage
from stages.list_sources import list_sources


@dataclass(frozen=True, kw_only=True)
class Todo:
    """The sources of a job, apart by whether the ledger has decided on them."""

    todo: list[Source]
    done: list[Source]
    done_otherwise: int
    """How many of `done` were decided under other settings than the job's."""


@dataclass
class StageCount:
    """What went into a stage and what came out, over all sources of a run."""

    came: int = 0
    went: int = 0
    seconds: float = 0.0
    reasons: Counter[str] = field(default_factory=Counter)


@dataclass
class IngestReport:
    """What a run did; `description` is that of the packed dataset."""

    todo: Todo
    stages: dict[str, StageCount]
    samples: int
    description: DatasetDescription


def look_ahead(config: IngestConfig) -> Todo:
    """List the sources and read the ledger; starts and writes nothing. Raises UsageError for bad sources."""
    sources = list_sources(config.sources)
    done = done_sources(Storage(config.output))
    return Todo(
        todo=[source for source in sources if source.id not in done],
        done=[source for source in sources if source.id in done],
        done_otherwise=sum(done.get(source.id, config.digest) != config.digest for source in sources),
    )


def ingest(
    config: IngestConfig, on_outcome: Callable[[Outcome], None] = lambda outcome: None, *, todo: Todo | None = None
) -> IngestReport:
    """Decide on every source that the ledger does not know, then pack. `on_outcome` hears of each source once committed;
    `todo` is what `look_ahead` found, if it was asked before."""
    todo = todo or look_ahead(config)
    kinds = {source.kind for source in todo.todo + todo.done}
    chain = build_chain(config.chain, config.stages, config.digest, kinds=kinds)
    storage = Storage(config.output)
    _check_output(storage)
    stages = {stage.name: StageCount() for stage in chain}
    samples = 0
    if todo.todo:
        for outcome in _engine(config)(config, chain, todo.todo):
            samples += outcome.samples
            _count(stages, outcome)
            on_outcome(outcome)
    if is_packed(storage, config.splits, config.shard_bytes):
        description = read_description(storage)
    else:
        description = pack(config.output, splits=config.splits, shard_bytes=config.shard_bytes)
    return IngestReport(todo=todo, stages=stages, samples=samples, description=description)


def _engine(config: IngestConfig) -> Engine:
    if config.engine.kind == "inline":
        return run_inline
    from pipeline.ray_engine import run_ray

    return run_ray


def _check_output(storage: Storage) -> None:
    """Whether the output can be written to, before anything is computed."""
    try:
        storage.write_bytes("ledger/.writable", b"")
        storage.delete("ledger/.writable")
    except (OSError, PermissionError) as error:
        raise HumoError(
            f"output: {storage.uri} cannot be written to ({error}); choose another folder or mend its rights"
        ) from None


def _count(stages: dict[str, StageCount], outcome: Outcome) -> None:
    for name, (came, went, _, seconds) in outcome.passed.items():
        stages[name].came += came
        stages[name].went += went
        stages[name].seconds += seconds
    for reason, number in outcome.reasons.items():
        stage, _, why = reason.partition(": ")
        stages[stage].reasons[why] += number


def as_json(report: IngestReport) -> dict[str, Any]:
    """The report for `--json`."""
    return {
        "sources": len(report.todo.todo) + len(report.todo.done),
        "done_before": len(report.todo.done),
        "samples_added": report.samples,
        "stages": {
            name: {
                "in": count.came,
                "out": count.went,
                "seconds": round(count.seconds, 3),
                "rejected": dict(count.reasons),
            }
            for name, count in report.stages.items()
        },
        "dataset": report.description.counts | {"version": report.description.version},
    }
