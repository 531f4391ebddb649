"""What a job tidies before it begins, under its lease: orphans of jobs that were killed, and a ledger of very many files."""

import time
from dataclasses import dataclass

import pyarrow as pa

from schemas.ids import digest
from schemas.ledger import MERGED, commit_of, ledger_bytes, read_history
from schemas.storage import PARTIAL, Storage

GRACE_S = 600.0
"""Orphans younger than this are left alone, seconds: a worker that outlived its job by a moment may be about to name them."""
_MANY = 500
"""Ledger files of single commits beyond which they are merged."""


@dataclass(frozen=True, kw_only=True)
class MaintenanceReport:
    """What was done."""

    swept: list[str]
    """Files that belonged to no commit."""
    merged: int
    """Ledger files that are one since."""


def run_maintenance(storage: Storage, grace_s: float = GRACE_S, many: int = _MANY) -> MaintenanceReport:
    """Sweep and merge."""
    history = read_history(storage)
    return MaintenanceReport(swept=_sweep(storage, history, grace_s), merged=_merge(storage, many))


def orphans(storage: Storage, history: pa.Table) -> list[str]:
    """Parts that no decision names, and what was never finished."""
    named = set(history.column("part").to_pylist())
    unfinished = [path for path in storage.list("", PARTIAL, hidden=True)]
    return [path for path in storage.list("parts", ".tar") if path not in named] + unfinished


def _sweep(storage: Storage, history: pa.Table, grace_s: float) -> list[str]:
    now = time.time()
    old = [path for path in orphans(storage, history) if now - storage.modified_s(path) > grace_s]
    for path in old:
        storage.delete(path)
    return old


def _merge(storage: Storage, many: int) -> int:
    """One file in the place of many. Killed in between, both stand, and a commit in both counts once."""
    files = storage.list("ledger", ".parquet")
    single = [path for path in files if not path.startswith(MERGED)]
    if len(single) <= many:
        return 0
    history = read_history(storage)
    name = f"{MERGED}{digest(*sorted(set(history.column('commit').to_pylist())), digits=16)}.parquet"
    storage.write_bytes(name, ledger_bytes(history))
    covered = set(history.column("commit").to_pylist())
    for path in files:
        if path != name and (path.startswith(MERGED) or commit_of(path) in covered):
            storage.delete(path)
    return len(single)
