"""Checks of a dataset's tables against what they describe: catalogue rows against samples, ledger rows against parts, the proof
against the removals."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.dataset.catalogue import SINCE_VERSION_2, catalogue_table
from pipeline.dataset.purge import proof_path
from schemas.dataset import DatasetDescription, ShardEntry, read_causes, read_rules, read_table, read_tombstones
from schemas.errors import HumoError
from schemas.ledger import CHECKSUM, LEDGER, MERGED, commit_of, read_history, rows_checksum
from schemas.storage import Storage
from schemas.tables import read_parquet

_PLACE = ("part", "offset", "length", "part_sha256", "record_sha256")
"""Columns that only accepted rows have."""
_OUTCOMES = {"accepted", "rejected", "quarantined", "removed"}


def catalogue_problems(storage: Storage, shard: ShardEntry, rows: Sequence[dict[str, Any]]) -> list[str]:
    """Rows of a shard's catalogue file that differ from those of its valid samples, `rows`; columns unknown to this humo are not
    compared."""
    path = f"catalogue/{shard.subset}-{shard.path.rsplit('/', 1)[-1].removesuffix('.tar')}.parquet"
    if not rows or not storage.exists(path):
        return []  # missing samples are reported with the shard
    table = read_table(storage, path)
    if "key" not in table.column_names:
        return [f"{path}: has no column 'key'; run humo pack"]
    order = {key: index for index, key in enumerate(table.column("key").to_pylist())}
    present = [row for row in rows if row["key"] in order]
    stored = table.take(pa.array([order[row["key"]] for row in present], pa.int64()))
    rebuilt = catalogue_table(present)
    problems = []
    old = all(row["version"] == 1 for row in present)
    for name in rebuilt.column_names:
        if old and name in SINCE_VERSION_2 and name not in stored.column_names:
            continue
        if name not in stored.column_names:
            problems.append(f"{path}: has no column {name!r}; run humo pack")
            continue
        pairs = zip(stored.column(name).to_pylist(), rebuilt.column(name).to_pylist(), strict=True)
        # Compared as text, where NaN equals itself.
        keys = [
            row["key"] for row, (value, expected) in zip(present, pairs, strict=True) if repr(value) != repr(expected)
        ]
        if keys:
            problems.append(
                f"{path}: {name} of {len(keys)} samples, such as {keys[0]}, is not that of the shard; run humo pack"
            )
    return problems


def ledger_problems(storage: Storage) -> list[str]:
    """Ledger files that are not as a commit writes them, and rows that disagree with their file, their part or the removals."""
    problems = []
    removed = read_tombstones(storage)
    for path in storage.list("ledger", ".parquet"):
        name = f"{storage.uri}/{path}"
        content = storage.read_bytes(path)
        try:
            table = read_parquet(content, name, LEDGER)
            schema = pq.read_schema(pa.BufferReader(content))
        except HumoError as error:
            problems.append(str(error))
            continue
        if not schema.equals(LEDGER, check_metadata=False) or any(column.null_count for column in table.columns):
            problems.append(f"{path}: its columns are not those of a ledger; restore it from a copy")
            continue
        checksum = (schema.metadata or {}).get(CHECKSUM)
        if checksum is not None and checksum != rows_checksum(table):
            problems.append(
                f"{path}: its rows are not those that were written (checksum differs); restore it from a copy"
            )
        commits = set(table.column("commit").to_pylist())
        if not path.startswith(MERGED) and commits != {commit_of(path)}:
            problems.append(f"{path}: holds decisions of other commits; restore it from a copy")
        unknown = set(table.column("outcome").to_pylist()) - _OUTCOMES
        if unknown:
            problems.append(f"{path}: unknown outcome {min(unknown)!r}; restore it from a copy")
        rows = table.to_pylist()
        placed = [
            row["record_id"] for row in rows if row["outcome"] != "accepted" and any(row[name] for name in _PLACE)
        ]
        if placed:
            problems.append(f"{path}: {placed[0]} has a place in a part, but was not accepted; restore it from a copy")
        problems += _row_problems(storage, path, rows)
        forgotten = [
            row["record_id"] for row in rows if row["outcome"] == "removed" and row["record_id"] not in removed
        ]
        if forgotten:
            problems.append(
                f"{path}: {forgotten[0]} was removed, but tombstones.parquet does not name it; restore that file"
            )
    return problems


def _row_problems(storage: Storage, path: str, rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Accepted rows whose position or hash is not that of the sample in the part."""
    problems = []
    parts: dict[str, bytes] = {}
    for row in rows:
        if row["outcome"] != "accepted":
            continue
        part = row["part"]
        if part not in parts:
            usable = part and storage.exists(part) and storage.fs.isfile(storage.path(part))
            parts = {part: storage.read_bytes(part) if usable else b""}  # one at a time: rows of a part are adjacent
        sample = parts[part][row["offset"] : row["offset"] + row["length"]] if row["offset"] >= 0 else b""
        if hashlib.sha256(sample).hexdigest() != row["record_sha256"]:
            problems.append(
                f"{path}: {row['record_id']} is not in {part} at the recorded position with the recorded hash; restore them"
            )
    return problems


def proof_problems(storage: Storage, description: DatasetDescription) -> list[str]:
    """Whether the proof of the present removals names them with their causes, and was made of the files of this version."""
    removed = read_tombstones(storage)
    path = proof_path(removed)
    if not removed or not storage.exists(path):
        return []
    try:
        proof = json.loads(storage.read_bytes(path))
        causes = read_causes(storage)
        matches = (
            proof["removed"] == {key: causes.get(key, "") for key in removed}
            and set(proof["rules"]) <= read_rules(storage)
            and proof["found"] == 0
            and _is_scan_of(storage, proof, description)
        )
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        matches = False
    return (
        [] if matches else [f"{path}: does not prove the removals in tombstones.parquet; run humo pack, or restore it"]
    )


def _is_scan_of(storage: Storage, proof: Mapping[str, Any], description: DatasetDescription) -> bool:
    """Whether a proof lists the shards, catalogue and parts of a version with their hashes. That of an earlier version lists files
    that are gone by now."""
    if proof["version"] != description.version:
        return storage.exists(f"versions/{proof['version']}.json")
    history = read_history(storage).select(["part", "part_sha256"]).to_pylist()
    expected = {shard.path: shard.sha256 for shard in description.shards}
    expected |= {path: storage.sha256(path) for path in storage.list("catalogue", ".parquet")}
    expected |= {row["part"]: row["part_sha256"] for row in history if row["part"] in proof["scanned"]}
    # Parts of interrupted jobs, and files of the version before that are kept for a while, were scanned as well.
    complete = all(proof["scanned"].get(path) == sha256 for path, sha256 in expected.items())
    return bool(proof["humo"] == description.humo and complete)
