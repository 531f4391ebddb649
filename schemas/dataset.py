"""The layout of a dataset on disk or in a bucket: what lies where, and the tables' columns.

dataset.json         what it is: version, body model, config digests, splits, counts, every shard with its hash
parts/*.tar          samples of one commit, written first
ledger/*.parquet     decisions on the sources of one commit, written last: this is the commit
shards/SUBSET/SPLIT-000000.tar    packed from the parts, split by source
catalogue/*.parquet  one row per sample
tombstones.parquet   what was removed
"""

import io
import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from schemas.errors import HumoError
from schemas.shards import read_samples
from schemas.storage import Storage

LAYOUT_VERSION = 2
"""Raise it whenever samples or tables are laid out in another way."""
SPLITS = ("train", "val", "test")
DESCRIPTION = "dataset.json"
TOMBSTONES = "tombstones.parquet"

_TOMBSTONE = pa.schema([("key", pa.string()), ("source_id", pa.string())])
LEDGER = pa.schema(
    [
        ("source_id", pa.string()), ("uri", pa.string()), ("sha256", pa.string()), ("licence", pa.string()),
        ("outcome", pa.string()), ("record_id", pa.string()), ("subset", pa.string()), ("stage", pa.string()),
        ("reason", pa.string()), ("detail", pa.string()), ("measured", pa.float64()), ("limit", pa.float64()),
        ("part", pa.string()), ("offset", pa.int64()), ("length", pa.int64()), ("part_sha256", pa.string()),
        ("commit", pa.string()), ("config_digest", pa.string()), ("seconds", pa.float64()),
    ]
)  # fmt: skip
"""A row per decision. outcome is `accepted` (record_id is the sample's key; part, offset and length say where its tar
stretch lies) or `rejected` (stage, reason, detail, measured and limit say why). seconds: length of the motion."""


@dataclass(frozen=True, kw_only=True)
class ShardEntry:
    """One shard as dataset.json lists it; path is relative to the dataset."""

    path: str
    subset: str
    split: str
    samples: int
    bytes: int
    sha256: str
    hours: float


@dataclass(frozen=True, kw_only=True)
class DatasetDescription:
    """dataset.json."""

    layout: int = LAYOUT_VERSION
    version: str = ""
    """Digest of the commits that it was packed from."""
    humo: str = ""
    body_models: list[str] = field(default_factory=list)
    config_digests: list[str] = field(default_factory=list)
    splits: dict[str, float] = field(default_factory=dict)
    """Shares that the sources were split by."""
    shard_bytes: int = 0
    counts: dict[str, Any] = field(default_factory=dict)
    """sources, accepted, rejected, samples by subset and split, hours, and what describers did and took."""
    shards: list[ShardEntry] = field(default_factory=list)


def read_description(storage: Storage) -> DatasetDescription:
    """dataset.json of a packed dataset; raises HumoError where there is none or it is of another layout."""
    try:
        content = json.loads(storage.read_bytes(DESCRIPTION))
    except FileNotFoundError:
        raise HumoError(
            f"{storage.uri}: no {DESCRIPTION} in it; give a dataset that humo ingest or humo pack has finished"
        ) from None
    except ValueError as error:
        raise HumoError(f"{storage.uri}/{DESCRIPTION}: not JSON ({error}); run humo pack {storage.uri}") from None
    if content.get("layout") != LAYOUT_VERSION:
        raise HumoError(
            f"{storage.uri}: layout is {content.get('layout')}, this humo reads {LAYOUT_VERSION}; ingest its sources anew"
        )
    return DatasetDescription(**{**content, "shards": [ShardEntry(**shard) for shard in content["shards"]]})


def write_description(storage: Storage, description: DatasetDescription) -> None:
    """Publish dataset.json."""
    text = json.dumps(asdict(description), indent=1, sort_keys=True, ensure_ascii=False)
    storage.write_bytes(DESCRIPTION, (text + "\n").encode())


def read_table(storage: Storage, relative: str) -> pa.Table:
    """One Parquet file."""
    return pq.read_table(io.BytesIO(storage.read_bytes(relative)))


def write_table(storage: Storage, relative: str, table: pa.Table) -> None:
    """Publish one Parquet file."""
    buffer = io.BytesIO()
    pq.write_table(table, buffer, compression="zstd")
    storage.write_bytes(relative, buffer.getvalue())


def read_ledger(storage: Storage) -> pa.Table:
    """All decisions, in the order of sources and records, whatever order they were made in."""
    tables = [read_table(storage, path) for path in storage.list("ledger", ".parquet")]
    return pa.concat_tables(tables or [LEDGER.empty_table()]).sort_by(
        [("source_id", "ascending"), ("outcome", "ascending"), ("record_id", "ascending"), ("commit", "ascending")]
    )


def bury(storage: Storage, causes: Mapping[str, str]) -> set[str]:
    """Add keys to the removed ones, each with the source that it had to go for; packing then leaves them out. Returns the
    keys that are new."""
    known = dict.fromkeys(read_tombstones(storage), "") | read_causes(storage)
    new = {key: cause for key, cause in causes.items() if key not in known}
    if new:
        rows = [{"key": key, "source_id": cause} for key, cause in sorted((known | new).items())]
        write_table(storage, TOMBSTONES, pa.Table.from_pylist(rows, schema=_TOMBSTONE))
    return set(new)


def read_causes(storage: Storage) -> dict[str, str]:
    """Key of a removed sample -> the source that it had to go for, as far as that is known."""
    if not storage.exists(TOMBSTONES):
        return {}
    table = read_table(storage, TOMBSTONES)
    if "source_id" not in table.column_names:
        return {}
    return dict(zip(table.column("key").to_pylist(), table.column("source_id").to_pylist(), strict=True))


def read_tombstones(storage: Storage) -> set[str]:
    """Keys of removed samples."""
    if not storage.exists(TOMBSTONES):
        return set()
    return set(read_table(storage, TOMBSTONES).column("key").to_pylist())


def iterate_samples(
    storage: Storage, *, subset: str | None = None, split: str | None = None
) -> Iterator[tuple[ShardEntry, str, dict[str, bytes]]]:
    """(shard, key, members) of every live sample, shard after shard."""
    removed = read_tombstones(storage)
    for shard in read_description(storage).shards:
        if (subset and shard.subset != subset) or (split and shard.split != split):
            continue
        with storage.open(shard.path) as file:
            for key, members in read_samples(file, f"{storage.uri}/{shard.path}"):
                if key not in removed:
                    yield shard, key, members
