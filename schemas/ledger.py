"""The ledger: what was decided on every source, a row a decision, in Parquet files that only a removal changes.

`ledger/COMMIT.parquet` holds the decisions of one commit. `ledger/merged-*.parquet` holds those of many; a commit that stands
there counts from there. A source that was done again (a retry, other settings) has several commits: the one of the highest
generation stands, and where two jobs raced each other, the one whose name comes first.

Removing samples for good replaces the file of their commit, in one step and under the same name: their rows say `removed`
from then on and name no part, so the source stays decided and versions can still name the commit (see `pipeline.purge`).
"""

import io
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from schemas.storage import Storage

LEDGER = pa.schema(
    [
        ("source_id", pa.string()), ("uri", pa.string()), ("sha256", pa.string()), ("licence", pa.string()),
        ("outcome", pa.string()), ("record_id", pa.string()), ("subset", pa.string()), ("stage", pa.string()),
        ("reason", pa.string()), ("detail", pa.string()), ("measured", pa.float64()), ("limit", pa.float64()),
        ("part", pa.string()), ("offset", pa.int64()), ("length", pa.int64()), ("part_sha256", pa.string()),
        ("record_sha256", pa.string()), ("commit", pa.string()), ("config_digest", pa.string()), ("generation", pa.int64()),
        ("seconds", pa.float64()),
    ]
)  # fmt: skip
"""A row per decision. outcome is `accepted` (record_id is the sample's key; part, offset and length say where its tar
stretch lies, record_sha256 what it holds), `rejected` (judged: stage, reason, detail, measured and limit say why),
`quarantined` (failed: the same columns say where and how; `humo retry` tries again) or `removed` (accepted once, taken
out since). generation counts how often the source had been decided on before. seconds: length of the motion."""

MERGED = "ledger/merged-"
_AT_A_TIME = 512
_TRIES = 4
_ORDER = [(name, "ascending") for name in ("source_id", "outcome", "record_id", "stage", "reason", "detail", "commit")]


class Decision(NamedTuple):
    """What stands about one source."""

    config_digest: str
    generation: int
    commit: str


def read_ledger(storage: Storage) -> pa.Table:
    """The decisions that stand, in the order of sources and records, whatever order they were made in."""
    return current_rows(read_history(storage)).sort_by(_ORDER)


def read_history(storage: Storage) -> pa.Table:
    """All decisions that were ever made, superseded ones too, each commit once."""
    for _ in range(_TRIES):
        try:
            return _read_history(storage)
        except FileNotFoundError:
            continue  # merged with others between the listing and the reading
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
    """Of every source the rows of the one commit that counts."""
    commits = history.select(["source_id", "generation", "commit"]).group_by(["source_id", "generation", "commit"])
    ordered = commits.aggregate([]).sort_by(
        [("source_id", "ascending"), ("generation", "descending"), ("commit", "ascending")]
    )
    if not len(ordered):
        return history
    ids = ordered.column("source_id").to_numpy()
    first = np.concatenate([[True], ids[1:] != ids[:-1]])
    if first.all():
        return history
    chosen = ordered.filter(pa.array(first)).select(["source_id", "commit"])
    return history.join(chosen, keys=["source_id", "commit"], join_type="left semi").select(LEDGER.names)


def decisions(history: pa.Table) -> dict[str, Decision]:
    """Source -> the decision that stands."""
    table = current_rows(history).select(["source_id", "config_digest", "generation", "commit"])
    columns = (table.column(name).to_pylist() for name in table.column_names)
    return {source: Decision(*decision) for source, *decision in zip(*columns, strict=True)}


def commit_of(path: str) -> str:
    """Name of the commit whose ledger file this is."""
    return path.rsplit("/", 1)[-1].removesuffix(".parquet")


def ledger_bytes(rows: Iterable[dict[str, Any]] | pa.Table) -> bytes:
    """Rows as one Parquet file."""
    table = rows if isinstance(rows, pa.Table) else pa.Table.from_pylist(list(rows), schema=LEDGER)
    buffer = io.BytesIO()
    pq.write_table(table, buffer, compression="zstd")
    return buffer.getvalue()


def _read(storage: Storage, files: Sequence[str]) -> Iterator[pa.Table]:
    for start in range(0, len(files), _AT_A_TIME):
        for content in storage.read_many(files[start : start + _AT_A_TIME]):
            yield pq.read_table(io.BytesIO(content), schema=LEDGER)
