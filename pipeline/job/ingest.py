"""A whole job: list the pending sources, run the engine over them, then pack. A second run does only what is missing."""

from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import dataclass, field, replace
from typing import Any

from pipeline.chain.config import IngestConfig
from pipeline.chain.stage_order import build_chain
from pipeline.chain.work_item import WorkItem
from pipeline.dataset.lease import Lease
from pipeline.dataset.maintenance import run_maintenance
from pipeline.dataset.pack import is_packed, pack
from pipeline.execution.engines import Engine, Outcome, run_inline
from pipeline.job.history import describe_changes, record_job
from pipeline.job.signals import stoppable
from schemas.dataset import DESCRIPTION, LAYOUT_VERSION, DatasetDescription, read_description
from schemas.errors import HumoError
from schemas.ledger import decisions, read_history
from schemas.records import Source
from schemas.storage import Storage
from stages.list_sources import list_sources


@dataclass(frozen=True, kw_only=True)
class Worklist:
    """The sources of a job, divided by whether the ledger has a decision on them."""

    pending: list[Source]
    done: list[Source]
    done_under_other_settings: int
    """Number of `done` sources that were decided under other settings and are kept."""
    recomputed: int = 0
    """Number of `pending` sources that were decided under other settings, or failed, and are processed again."""
    changes: list[str] = field(default_factory=list)
    """The differences of those settings, as text."""
    generations: dict[str, int] = field(default_factory=dict)
    """Number of earlier decisions on each source that is processed again."""


@dataclass
class StageCount:
    """Records in and out of a stage, over all sources of a run."""

    records_in: int = 0
    records_out: int = 0
    seconds: float = 0.0
    reasons: Counter[str] = field(default_factory=Counter)


@dataclass
class IngestReport:
    """The result of a run; `description` is that of the packed dataset."""

    worklist: Worklist
    stages: dict[str, StageCount]
    samples: int
    description: DatasetDescription
    failed: list[str] = field(default_factory=list)
    """Sources of which a part or all is quarantined."""


def make_worklist(config: IngestConfig, *, recompute: bool = False) -> Worklist:
    """List the sources and read the ledger; starts and writes nothing. Raises UsageError for bad sources.

    With `recompute`, sources that were decided under other settings are pending again; otherwise they are kept.
    """
    storage = Storage(config.output)
    decided = decisions(read_history(storage))
    sources = list_sources(config.sources)
    outdated = {
        source.id for source in sources if source.id in decided and decided[source.id].config_digest != config.digest
    }
    repeated = outdated if recompute else set()
    return Worklist(
        pending=[source for source in sources if source.id not in decided or source.id in repeated],
        done=[source for source in sources if source.id in decided and source.id not in repeated],
        done_under_other_settings=0 if recompute else len(outdated),
        recomputed=len(repeated),
        changes=describe_changes(storage, config, Counter(decided[source_id].config_digest for source_id in outdated))
        if outdated
        else [],
        generations={source_id: decided[source_id].generation + 1 for source_id in repeated},
    )


def ingest(
    config: IngestConfig,
    on_outcome: Callable[[Outcome], None] = lambda outcome: None,
    *,
    worklist: Worklist | None = None,
) -> IngestReport:
    """Process every source that the ledger has no decision on, then pack. `on_outcome` is called with each source once it is
    committed; `worklist` is the result of `make_worklist`, if it exists already.

    Raises HumoError if another job works on the output, it cannot be written to, or too many sources fail.
    """
    with stoppable(), Lease(Storage(config.output), "ingest") as lease:
        return run_job(config, on_outcome, worklist or make_worklist(config), lease)


def run_job(
    config: IngestConfig, on_outcome: Callable[[Outcome], None], worklist: Worklist, lease: Lease
) -> IngestReport:
    """`ingest` under a lease that is already held."""
    problem = layout_problem(lease.storage, config, worklist)
    if problem:
        raise HumoError(problem)
    kinds = {source.kind for source in worklist.pending + worklist.done}
    chain = build_chain(config.chain, config.stages, config.digest, kinds=kinds)
    if config.engine.kind == "ray":
        lease.check_several_writers()
    storage = lease.storage
    run_maintenance(storage)
    if lease.took_over:
        worklist = _without_decided(worklist, storage)
    stages = {stage.name: StageCount() for stage in chain}
    report = IngestReport(worklist=worklist, stages=stages, samples=0, description=DatasetDescription())
    if worklist.pending:
        record_job(storage, config)
        work_items = [WorkItem.of(source, worklist.generations.get(source.id, 0)) for source in worklist.pending]
        with closing(_engine(config)(config, chain, work_items, storage=storage)) as outcomes:
            for outcome in outcomes:
                lease.check()
                report.samples += outcome.samples
                count_outcome(stages, outcome)
                on_outcome(outcome)
                if outcome.failures:
                    report.failed.append(outcome.source_id)
                    _check_max_failures(config, report.failed, outcome)
    if is_packed(storage, config.splits, config.shard_bytes):
        report.description = read_description(storage)
    else:
        report.description = pack(storage, splits=config.splits, shard_bytes=config.shard_bytes)
    return report


def layout_problem(storage: Storage, config: IngestConfig, worklist: Worklist) -> str:
    """Why this job is refused if samples of this layout would come beside those of an earlier one: one dataset has one kind of
    samples; "" if they would not."""
    layout = read_description(storage).layout if storage.exists(DESCRIPTION) else LAYOUT_VERSION
    if layout == LAYOUT_VERSION or not worklist.pending:
        return ""
    pending = {source.id for source in worklist.pending}
    decided = decisions(read_history(storage))
    kept = sorted(
        source_id
        for source_id, decision in decided.items()
        if source_id not in pending and decision.config_digest != config.digest
    )
    if not kept:
        return ""
    listed = {source.id for source in worklist.done}
    others = [source_id for source_id in kept if source_id not in listed]
    remedy = (
        f"list its other sources too (such as {others[0]}) and run humo ingest with --recompute"
        if others
        else "run humo ingest with --recompute"
    )
    return (
        f"{storage.uri}: holds samples of an earlier version (layout {layout}), which tell nothing about unseen parts; this "
        f"job would add samples of layout {LAYOUT_VERSION} to {len(kept)} such sources: {remedy}, or choose another output"
    )


def _without_decided(worklist: Worklist, storage: Storage) -> Worklist:
    """The worklist without the sources that the earlier holder of the lease has decided on since it was made."""
    decided = decisions(read_history(storage))
    done = {
        source.id
        for source in worklist.pending
        if source.id in decided and decided[source.id].generation >= worklist.generations.get(source.id, 0)
    }
    return replace(
        worklist,
        pending=[source for source in worklist.pending if source.id not in done],
        done=worklist.done + [source for source in worklist.pending if source.id in done],
    )


def _check_max_failures(config: IngestConfig, failed: list[str], outcome: Outcome) -> None:
    max_failures = config.faults.max_failures
    if max_failures and len(failed) > max_failures:
        reason, detail = next(iter(outcome.failures.items()))
        raise HumoError(
            f"{len(failed)} sources failed, more than max_failures ({max_failures}); the last, {outcome.source_id}, in {reason} "
            f"({detail[:200]}); committed sources are kept: fix the cause, then humo retry {config.output}, and run this again"
        )


def _engine(config: IngestConfig) -> Engine:
    if config.engine.kind == "inline":
        return run_inline
    from pipeline.execution.ray_engine import run_ray

    return run_ray


def count_outcome(stages: Mapping[str, StageCount], outcome: Outcome) -> None:
    """Add a source's outcome to the counts of the stages."""
    for name, (records_in, records_out, _, seconds) in outcome.stage_stats.items():
        stages[name].records_in += records_in
        stages[name].records_out += records_out
        stages[name].seconds += seconds
    for reason, number in outcome.reasons.items():
        stage, _, rejection_reason = reason.partition(": ")
        stages[stage].reasons[rejection_reason] += number


def as_json(report: IngestReport) -> dict[str, Any]:
    """The report for `--json`."""
    return {
        "sources": len(report.worklist.pending) + len(report.worklist.done),
        "done_before": len(report.worklist.done),
        "recomputed": report.worklist.recomputed,
        "samples_added": report.samples,
        "failed": report.failed,
        "stages": {
            name: {
                "in": count.records_in,
                "out": count.records_out,
                "seconds": round(count.seconds, 3),
                "rejected": dict(count.reasons),
            }
            for name, count in report.stages.items()
        },
        "dataset": report.description.counts | {"version": report.description.version},
    }
