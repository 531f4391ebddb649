"""Maintenance at the start of a job, under its lease: delete orphans of killed jobs, merge small ledger files."""

import time
from dataclasses import dataclass

import pyarrow as pa

from schemas.ids import digest
from schemas.ledger import MERGED, commit_of, ledger_bytes, read_history
from schemas.storage import PARTIAL, Storage

GRACE_S = 600.0
"""Minimum age of deleted orphans, seconds: a worker that briefly outlives its job may still commit younger ones."""
_MAX_FILES = 500
"""Number of single-commit ledger files above which they are merged."""


@dataclass(frozen=True, kw_only=True)
class MaintenanceReport:
    """Result of maintenance."""

    swept: list[str]
    """Deleted files that belonged to no commit."""
    merged: int
    """Number of ledger files merged into one."""


def run_maintenance(storage: Storage, grace_s: float = GRACE_S, max_files: int = _MAX_FILES) -> MaintenanceReport:
    """Delete orphans and merge ledger files."""
    history = read_history(storage)
    return MaintenanceReport(swept=_sweep(storage, history, grace_s), merged=_merge(storage, max_files))


def orphans(storage: Storage, history: pa.Table) -> list[str]:
    """Parts that no decision names, and unfinished files."""
    named = set(history.column("part").to_pylist())
    unfinished = [path for path in storage.list("", PARTIAL, hidden=True)]
    return [path for path in storage.list("parts", ".tar") if path not in named] + unfinished


def _sweep(storage: Storage, history: pa.Table, grace_s: float) -> list[str]:
    now = time.time()
    old = [path for path in orphans(storage, history) if now - storage.modified_s(path) > grace_s]
    for path in old:
        storage.delete(path)
    return old


def _merge(storage: Storage, max_files: int) -> int:
    """Merge ledger files into one. If killed in between, both exist, and a commit in both counts once."""
    files = storage.list("ledger", ".parquet")
    single = [path for path in files if not path.startswith(MERGED)]
    if len(single) <= max_files:
        return 0
    history = read_history(storage)
    name = f"{MERGED}{digest(*sorted(set(history.column('commit').to_pylist())), digits=16)}.parquet"
    storage.write_bytes(name, ledger_bytes(history))
    covered = set(history.column("commit").to_pylist())
    for path in files:
        if path != name and (path.startswith(MERGED) or commit_of(path) in covered):
            storage.delete(path)
    return len(single)
