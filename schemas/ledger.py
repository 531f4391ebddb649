"""The ledger: the decisions on every source, one row each, in Parquet files that only a removal changes.

`ledger/COMMIT.parquet` holds the decisions of one commit. `ledger/merged-*.parquet` holds those of many and takes precedence
for the commits it contains. A source that was processed again (a retry, other settings) has several commits: the one of the
highest generation is current; among these that of the highest epoch, so that nothing replaces a decision that was made under a
later lease; and of two workers that raced, the one whose name sorts first.

A permanent removal replaces the file of the commit, atomically and under the same name: the rows of removed samples then have
outcome `removed` and no part, so the source stays decided and versions can still name the commit (`pipeline.dataset.purge`).
"""

import hashlib
import json
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from schemas.storage import Storage
from schemas.tables import parquet_bytes, read_parquet

LEDGER = pa.schema(
    [
        ("source_id", pa.string()), ("uri", pa.string()), ("sha256", pa.string()), ("licence", pa.string()),
        ("outcome", pa.string()), ("record_id", pa.string()), ("subset", pa.string()), ("stage", pa.string()),
        ("reason", pa.string()), ("detail", pa.string()), ("measured", pa.float64()), ("limit", pa.float64()),
        ("part", pa.string()), ("offset", pa.int64()), ("length", pa.int64()), ("part_sha256", pa.string()),
        ("record_sha256", pa.string()), ("commit", pa.string()), ("config_digest", pa.string()), ("generation", pa.int64()),
        ("seconds", pa.float64()), ("epoch", pa.int64()),
    ]
)  # fmt: skip
"""One row per decision. outcome is `accepted` (record_id is the sample's key; part, offset and length locate its bytes in a
tar, record_sha256 is their hash), `rejected` (stage, reason, detail, measured and limit give the cause), `quarantined`
(failed: the same columns describe the failure; `humo retry` tries again) or `removed` (accepted earlier, removed since).
generation counts the earlier decisions on the source. seconds: length of the motion. epoch: number of the lease that the commit was
made under; 0 where it is not known."""

MERGED = "ledger/merged-"
CHECKSUM = b"humo.rows_sha256"
"""Key of a ledger file's metadata: `rows_checksum`. Files of earlier versions have none."""
_CURRENT_FIRST = ("ascending", "descending", "descending", "ascending")
"""Order of source, generation, epoch and commit in which the current commit of a source comes first."""
_BATCH = 512
_ATTEMPTS = 4
_ORDER = [(name, "ascending") for name in ("source_id", "outcome", "record_id", "stage", "reason", "detail", "commit")]


class Decision(NamedTuple):
    """The current decision on one source."""

    config_digest: str
    generation: int
    commit: str


def read_ledger(storage: Storage) -> pa.Table:
    """The current decisions, sorted by source and record, independent of the order of commits."""
    return current_rows(read_history(storage)).sort_by(_ORDER)


def read_history(storage: Storage) -> pa.Table:
    """All decisions, including superseded ones, each commit once."""
    for _ in range(_ATTEMPTS):
        try:
            return _read_history(storage)
        except FileNotFoundError:
            continue  # merged between listing and reading
    return _read_history(storage)


def _read_history(storage: Storage) -> pa.Table:
    files = storage.list("ledger", ".parquet")
    merged = [name for name in files if name.startswith(MERGED)]
    tables: list[pa.Table] = []
    known: set[str] = set()
    for table in _read(storage, merged):
        new = np.array([name not in known for name in table.column("commit").to_pylist()], bool)
        tables.append(table.filter(pa.array(new)))
        known.update(tables[-1].column("commit").to_pylist())
    tables += _read(storage, [name for name in files if name not in merged and commit_of(name) not in known])
    return pa.concat_tables(tables or [LEDGER.empty_table()])


def current_rows(history: pa.Table) -> pa.Table:
    """Of every source, the rows of its current commit."""
    keys = ["source_id", "generation", "epoch", "commit"]
    ordered = history.select(keys).group_by(keys).aggregate([]).sort_by(list(zip(keys, _CURRENT_FIRST, strict=True)))
    if not len(ordered):
        return history
    ids = ordered.column("source_id").to_numpy()
    is_first = np.concatenate([[True], ids[1:] != ids[:-1]])
    if is_first.all():
        return history
    current = ordered.filter(pa.array(is_first)).select(["source_id", "commit"])
    return history.join(current, keys=["source_id", "commit"], join_type="left semi").select(LEDGER.names)


def decisions(history: pa.Table) -> dict[str, Decision]:
    """Source -> its current decision."""
    table = current_rows(history).select(["source_id", "config_digest", "generation", "commit"])
    columns = (table.column(name).to_pylist() for name in table.column_names)
    return {source: Decision(*decision) for source, *decision in zip(*columns, strict=True)}


def commit_of(path: str) -> str:
    """Name of the commit of a ledger file."""
    return path.rsplit("/", 1)[-1].removesuffix(".parquet")


def ledger_bytes(rows: Iterable[dict[str, Any]] | pa.Table) -> bytes:
    """Rows as one Parquet file with their checksum: of a rejection, no other file holds the reason."""
    table = rows if isinstance(rows, pa.Table) else pa.Table.from_pylist(list(rows), schema=LEDGER)
    return parquet_bytes(table.replace_schema_metadata({CHECKSUM: rows_checksum(table)}))


def rows_checksum(table: pa.Table) -> bytes:
    """Hexadecimal SHA-256 of the values of a ledger's rows, in their order."""
    rows = table.select(LEDGER.names).to_pylist()
    return hashlib.sha256(json.dumps(rows, sort_keys=True).encode()).hexdigest().encode()


def read_ledger_bytes(content: bytes, name: str) -> pa.Table:
    """The rows of one Parquet file, with an epoch of 0 where it has none. Raises HumoError, which says `name`, if it is damaged."""
    table = read_parquet(content, name, LEDGER)
    index = table.schema.get_field_index("epoch")
    return table.set_column(index, LEDGER.field(index), pc.fill_null(table.column(index), 0))


def _read(storage: Storage, files: Sequence[str]) -> Iterator[pa.Table]:
    for start in range(0, len(files), _BATCH):
        batch = files[start : start + _BATCH]
        for name, content in zip(batch, storage.read_many(batch), strict=True):
            yield read_ledger_bytes(content, f"{storage.uri}/{name}")
