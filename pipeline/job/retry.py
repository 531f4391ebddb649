"""Another try for sources that failed, or that were turned down for reasons which no longer hold."""

from collections.abc import Callable, Sequence

import pyarrow as pa

from pipeline.chain.config import IngestConfig
from pipeline.dataset.lease import Lease
from pipeline.execution.engines import Outcome
from pipeline.job.history import recorded_jobs
from pipeline.job.ingest import IngestReport, Todo, run_job
from pipeline.job.signals import stoppable
from schemas.config import apply_overrides, parse_config
from schemas.errors import HumoError, UsageError
from schemas.ledger import current_rows, decisions, read_history
from schemas.records import Source
from schemas.storage import Storage
from stages.list_sources import list_sources


def retry(
    dataset: str,
    *,
    reasons: Sequence[str] = (),
    sources: Sequence[str] = (),
    overrides: Sequence[str] = (),
    on_outcome: Callable[[Outcome], None] = lambda outcome: None,
) -> list[IngestReport]:
    """Do some decided sources again, each under the job that decided on it, with `overrides` over its settings.

    `reasons` are `reason` or `stage:reason`, of rejections too; none: whatever is quarantined. `sources` narrows it to some
    ids. What comes of it takes the place of what stood. One report a job; none where nothing is to be tried again. Raises
    UsageError for reasons and ids that stand nowhere, HumoError where no record of the settings or sources is left.
    """
    storage = Storage(dataset)
    history = read_history(storage)
    table = current_rows(history)
    wanted = _chosen(table, reasons, sources, dataset)
    if not wanted:
        return []
    known = decisions(table)
    reports: list[IngestReport] = []
    with stoppable(), Lease(storage, "retry") as lease:
        for digest, job in recorded_jobs(storage):
            mine = {one for one in wanted if known[one].config_digest == digest}
            listed = [source for source in list_sources(job.sources) if source.id in mine] if mine else []
            if listed:
                again = _with(job, dataset, overrides)
                todo = _todo(listed, {one: known[one].generation + 1 for one in mine})
                reports.append(run_job(again, on_outcome, todo, lease))
                wanted -= {source.id for source in listed}
        if wanted:
            raise HumoError(
                f"{dataset}: {len(wanted)} sources, such as {min(wanted)}, are named by no job that is recorded there "
                "(jobs/*.json) any more: put their manifest back, or ingest them with --recompute"
            )
    return reports


def _chosen(table: pa.Table, reasons: Sequence[str], sources: Sequence[str], dataset: str) -> set[str]:
    rows = table.select(["source_id", "outcome", "stage", "reason"]).to_pylist()
    failed = [row for row in rows if row["outcome"] in ("quarantined", "rejected")]
    if reasons:
        there = {row["reason"] for row in failed} | {f"{row['stage']}:{row['reason']}" for row in failed}
        unknown = sorted(set(reasons) - there)
        if unknown:
            raise UsageError(
                f"{dataset}: nothing was turned down for {', '.join(unknown)}; there is {', '.join(sorted(there)) or 'nothing'}"
            )
        failed = [row for row in failed if {row["reason"], f"{row['stage']}:{row['reason']}"} & set(reasons)]
    else:
        failed = [row for row in failed if row["outcome"] == "quarantined"]
    unknown = sorted(set(sources) - {row["source_id"] for row in rows})
    if unknown:
        raise UsageError(
            f"{dataset}: no source {', '.join(unknown)} in it; humo query {dataset} 'SELECT DISTINCT source_id FROM ledger'"
        )
    found = {row["source_id"] for row in failed}
    return found & set(sources) if sources else found


def _with(job: IngestConfig, dataset: str, overrides: Sequence[str]) -> IngestConfig:
    """The job, writing to where the dataset is now."""
    settings = job.model_dump(mode="json") | {"output": dataset}
    return parse_config(apply_overrides(settings, overrides), IngestConfig, "--set")


def _todo(listed: list[Source], generations: dict[str, int]) -> Todo:
    return Todo(todo=listed, done=[], done_otherwise=0, recomputed=len(listed), generations=generations)
