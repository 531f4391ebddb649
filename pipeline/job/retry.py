"""Retries sources that failed, or that were rejected for given reasons."""

from collections.abc import Callable, Sequence

import pyarrow as pa

from pipeline.chain.config import IngestConfig
from pipeline.dataset.lease import Lease
from pipeline.execution.engines import Outcome
from pipeline.job.history import RecordedJob, recorded_jobs
from pipeline.job.ingest import IngestReport, Worklist, run_job
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
    """Process some decided sources again, each under the settings of the job that decided on it, with `overrides` on top.

    `reasons` are `reason` or `stage:reason`, of rejections too; none: everything quarantined. `sources` restricts it to these ids.
    The new results replace the old ones. Addresses, with their signatures of today, come from the sources of the recorded job, such
    as its manifest. Returns one report per job; none if there is nothing to retry. Raises UsageError for reasons and ids that do
    not occur and for credentials that the record lacks, HumoError if no record of the settings or sources is left.
    """
    storage = Storage(dataset)
    history = read_history(storage)
    table = current_rows(history)
    remaining = _select_sources(table, reasons, sources, dataset)
    if not remaining:
        return []
    decided = decisions(table)
    reports: list[IngestReport] = []
    with stoppable(), Lease(storage, "retry") as lease:
        for job in recorded_jobs(storage):
            source_ids = {source_id for source_id in remaining if decided[source_id].config_digest == job.digest}
            if not source_ids:
                continue
            _check_left_out(job, storage, overrides)
            config = _with_overrides(job.config, dataset, overrides)
            listed = [source for source in list_sources(config.sources) if source.id in source_ids]
            if listed:
                worklist = _worklist(listed, {source_id: decided[source_id].generation + 1 for source_id in source_ids})
                reports.append(run_job(config, on_outcome, worklist, lease))
                remaining -= {source.id for source in listed}
        if remaining:
            raise HumoError(
                f"{dataset}: {len(remaining)} sources, such as {min(remaining)}, are listed by no job that is recorded there "
                "(jobs/*.json): restore their manifest, or ingest them with --recompute"
            )
    return reports


def _select_sources(table: pa.Table, reasons: Sequence[str], sources: Sequence[str], dataset: str) -> set[str]:
    rows = table.select(["source_id", "outcome", "stage", "reason"]).to_pylist()
    failed = [row for row in rows if row["outcome"] in ("quarantined", "rejected")]
    if reasons:
        known = {row["reason"] for row in failed} | {f"{row['stage']}:{row['reason']}" for row in failed}
        unknown = sorted(set(reasons) - known)
        if unknown:
            raise UsageError(
                f"{dataset}: nothing was rejected for {', '.join(unknown)}; known reasons: {', '.join(sorted(known)) or 'none'}"
            )
        failed = [row for row in failed if {row["reason"], f"{row['stage']}:{row['reason']}"} & set(reasons)]
    else:
        failed = [row for row in failed if row["outcome"] == "quarantined"]
    unknown = sorted(set(sources) - {row["source_id"] for row in rows})
    if unknown:
        raise UsageError(
            f"{dataset}: it has no source {', '.join(unknown)}; list its sources with "
            f"humo query {dataset} 'SELECT DISTINCT source_id FROM ledger'"
        )
    selected = {row["source_id"] for row in failed}
    return selected & set(sources) if sources else selected


def _check_left_out(job: RecordedJob, storage: Storage, overrides: Sequence[str]) -> None:
    """Raise UsageError where the record lacks credentials that the job had, unless the overrides give them."""
    given = {override.partition("=")[0].strip() for override in overrides}
    missing = [name for name in job.left_out if name != "output" and name not in given]
    if missing:
        again = " ".join(f"--set {name}=..." for name in missing)
        raise UsageError(
            f"{storage.uri}/{job.path}: {', '.join(missing)} had credentials, which are not recorded; give them again with "
            f"humo retry {storage.uri} {again}, or put signed addresses into a manifest, which is read again"
        )


def _with_overrides(job: IngestConfig, dataset: str, overrides: Sequence[str]) -> IngestConfig:
    """The job's settings with overrides, and the dataset's current location as output."""
    settings = job.model_dump(mode="json") | {"output": dataset}
    return parse_config(apply_overrides(settings, overrides), IngestConfig, "--set")


def _worklist(listed: list[Source], generations: dict[str, int]) -> Worklist:
    return Worklist(
        pending=listed, done=[], done_under_other_settings=0, recomputed=len(listed), generations=generations
    )
