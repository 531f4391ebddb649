"""A whole job: what is still to do, the engine over it, then the packing. Running it again does only what is missing."""

from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from typing import Any

from pipeline.chain.config import IngestConfig
from pipeline.chain.stage_order import build_chain
from pipeline.chain.work_item import WorkItem
from pipeline.dataset.lease import Lease
from pipeline.dataset.maintenance import run_maintenance
from pipeline.dataset.pack import is_packed, pack
from pipeline.execution.engines import Engine, Outcome, run_inline
from pipeline.job.history import changes, record_job
from pipeline.job.signals import stoppable
from schemas.dataset import DatasetDescription, read_description
from schemas.errors import HumoError
from schemas.ledger import decisions, read_history
from schemas.records import Source
from schemas.storage import Storage
from stages.list_sources import list_sources


@dataclass(frozen=True, kw_only=True)
class Todo:
    """The sources of a job, apart by whether the ledger has decided on them."""

    todo: list[Source]
    done: list[Source]
    done_otherwise: int
    """How many of `done` were decided under other settings than the job's and are kept."""
    recomputed: int = 0
    """How many of `todo` were decided under other settings, or failed, and are done anew."""
    changes: list[str] = field(default_factory=list)
    """In words, how those settings differ."""
    generations: dict[str, int] = field(default_factory=dict)
    """Of the sources that are done anew: how often they were decided on before."""


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
    failed: list[str] = field(default_factory=list)
    """Sources some of which, or all, is quarantined."""


def look_ahead(config: IngestConfig, *, recompute: bool = False) -> Todo:
    """List the sources and read the ledger; starts and writes nothing. Raises UsageError for bad sources.

    With `recompute` sources that were decided under other settings are to do again; else they are kept.
    """
    storage = Storage(config.output)
    known = decisions(read_history(storage))
    sources = list_sources(config.sources)
    other = {source.id for source in sources if source.id in known and known[source.id].config_digest != config.digest}
    again = other if recompute else set()
    return Todo(
        todo=[source for source in sources if source.id not in known or source.id in again],
        done=[source for source in sources if source.id in known and source.id not in again],
        done_otherwise=0 if recompute else len(other),
        recomputed=len(again),
        changes=changes(storage, config, Counter(known[one].config_digest for one in other)) if other else [],
        generations={one: known[one].generation + 1 for one in again},
    )


def ingest(
    config: IngestConfig, on_outcome: Callable[[Outcome], None] = lambda outcome: None, *, todo: Todo | None = None
) -> IngestReport:
    """Decide on every source that the ledger does not know, then pack. `on_outcome` hears of each source once committed;
    `todo` is what `look_ahead` found, if it was asked before.

    Raises HumoError where another job is at work on the output, it cannot be written to, or too many sources fail.
    """
    with stoppable(), Lease(Storage(config.output), "ingest") as lease:
        return run_job(config, on_outcome, todo or look_ahead(config), lease)


def run_job(config: IngestConfig, on_outcome: Callable[[Outcome], None], todo: Todo, lease: Lease) -> IngestReport:
    """`ingest` under a lease that is held already."""
    kinds = {source.kind for source in todo.todo + todo.done}
    chain = build_chain(config.chain, config.stages, config.digest, kinds=kinds)
    storage = Storage(config.output)
    run_maintenance(storage)
    stages = {stage.name: StageCount() for stage in chain}
    report = IngestReport(todo=todo, stages=stages, samples=0, description=DatasetDescription())
    if todo.todo:
        record_job(storage, config)
        work_items = [WorkItem.of(source, todo.generations.get(source.id, 0)) for source in todo.todo]
        with closing(_engine(config)(config, chain, work_items)) as outcomes:
            for outcome in outcomes:
                lease.check()
                report.samples += outcome.samples
                count_outcome(stages, outcome)
                on_outcome(outcome)
                if outcome.failures:
                    report.failed.append(outcome.source_id)
                    _stop_at_too_many(config, report.failed, outcome)
    if is_packed(storage, config.splits, config.shard_bytes):
        report.description = read_description(storage)
    else:
        report.description = pack(config.output, splits=config.splits, shard_bytes=config.shard_bytes)
    return report


def _stop_at_too_many(config: IngestConfig, failed: list[str], outcome: Outcome) -> None:
    most = config.faults.max_failures
    if most and len(failed) > most:
        where, detail = next(iter(outcome.failures.items()))
        raise HumoError(
            f"{len(failed)} sources failed, more than max_failures ({most}); the last, {outcome.source_id}, in {where} "
            f"({detail[:200]}); what was committed stays: mend the cause, then humo retry {config.output}, and run this again"
        )


def _engine(config: IngestConfig) -> Engine:
    if config.engine.kind == "inline":
        return run_inline
    from pipeline.execution.ray_engine import run_ray

    return run_ray


def count_outcome(stages: Mapping[str, StageCount], outcome: Outcome) -> None:
    """Add what became of a source to the counts of the stages."""
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
        "recomputed": report.todo.recomputed,
        "samples_added": report.samples,
        "failed": report.failed,
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
