"""Maintenance at the start of a job, under its lease: delete what killed and replaced jobs left, merge small ledger files."""

import contextlib
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import PurePosixPath

import pyarrow as pa

from pipeline.dataset.fence import CONDEMNED, EPOCHS
from schemas.dataset import DESCRIPTION, DatasetDescription, read_description, table_path
from schemas.ids import digest
from schemas.ledger import MERGED, commit_of, ledger_bytes, read_history
from schemas.storage import PARTIAL, Storage

GRACE_S = 3600.0
"""Minimum age of what is swept, seconds: orphaned parts, unfinished files, shards and tables that dataset.json does not name.

Readers may still use younger ones, and a request of a job that lost its lease may still arrive and name them: a store refuses one
that was signed more than 15 minutes ago."""
_MAX_FILES = 500
"""Number of single-commit ledger files above which they are merged."""


@dataclass(frozen=True, kw_only=True)
class MaintenanceReport:
    """Result of maintenance."""

    swept: list[str]
    """Deleted files that belonged to no commit and to no packing."""
    merged: int
    """Number of ledger files merged into one."""


def run_maintenance(storage: Storage, grace_s: float = GRACE_S, max_files: int = _MAX_FILES) -> MaintenanceReport:
    """Delete orphans and replaced shards, and merge ledger files. Raises HumoError if the lease of `storage` has been lost."""
    history = read_history(storage)
    return MaintenanceReport(swept=_sweep(storage, history, grace_s), merged=_merge(storage, max_files))


def orphans(storage: Storage, history: pa.Table) -> list[str]:
    """Parts that no decision names, and unfinished files, except those that are being written under this lease."""
    named = set(history.column("part").to_pylist())
    # What is in the folder of an epoch goes with that when the next one begins.
    unfinished = [path for path in storage.list("", PARTIAL, hidden=True) if not path.startswith(f"{EPOCHS}/")]
    return [path for path in storage.list("parts", ".tar") if path not in named] + unfinished


def unreferenced(storage: Storage, description: DatasetDescription) -> list[str]:
    """Shards, tables and codes that belong to no shard of dataset.json: of earlier packings, and of those that did not get to its
    end."""
    named = {shard.path for shard in description.shards} | {table_path(shard.path) for shard in description.shards}
    found = storage.list("shards", ".tar") + storage.list("catalogue", ".parquet")
    tables = {PurePosixPath(path).name for path in named}
    codes = [path for path in storage.list("codes", ".parquet") if PurePosixPath(path).name not in tables]
    return [path for path in found if path not in named] + codes


def older_than(storage: Storage, paths: Iterable[str], grace_s: float) -> list[str]:
    """The files whose age exceeds the grace."""
    now, old = time.time(), []
    for path in paths:
        with contextlib.suppress(FileNotFoundError):  # another process has finished or deleted it
            if now - storage.modified_s(path) > grace_s:
                old.append(path)
    return old


def _sweep(storage: Storage, history: pa.Table, grace_s: float) -> list[str]:
    paths = orphans(storage, history)
    if storage.exists(DESCRIPTION):
        paths += unreferenced(storage, read_description(storage))
    if not storage.is_local:
        paths += storage.list(CONDEMNED, ".json")
    old = older_than(storage, paths, grace_s)
    storage.delete_all(old)
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
    storage.delete_all(
        [path for path in files if path != name and (path.startswith(MERGED) or commit_of(path) in covered)]
    )
    return len(single)
