"""The layout of a dataset on disk or in a bucket: what lies where, and the tables' columns.

dataset.json         what it is: version, body model, config digests, splits, counts, every shard with its hash
parts/*.tar          samples of one commit, written first
ledger/*.parquet     decisions on the sources of one commit, written last: this is the commit
shards/SUBSET/SPLIT-000000-DIGEST.tar    packed from the parts, split by source
catalogue/*.parquet  one row per sample
jobs/*.json          the settings that commits were made under
tombstones.parquet   what was removed, and why
versions/*.json      what each packing was made of
removals/*.json      what was looked through after removals, and that nothing of them was found
"""

import io
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from schemas.errors import HumoError
from schemas.shards import read_samples
from schemas.storage import Storage

LAYOUT_VERSION = 4
"""Raise it whenever samples or tables are laid out in another way."""
SPLITS = ("train", "val", "test")
DESCRIPTION = "dataset.json"
TOMBSTONES = "tombstones.parquet"

_TOMBSTONE = pa.schema([("key", pa.string()), ("cause", pa.string())])
"""A row without a key is a rule: whatever is made later for that cause (`source ID`, `licence NAME`) is to go as well."""


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


def add_tombstones(storage: Storage, causes: Mapping[str, str], rules: Iterable[str] = ()) -> set[str]:
    """Add keys to the removed ones, each with the cause that it had to go for, and rules for what is yet to come; packing then
    leaves them out. Returns the keys that are new."""
    known = dict.fromkeys(read_tombstones(storage), "") | read_causes(storage)
    standing = read_rules(storage)
    held = standing.union(rules)
    new = {key: cause for key, cause in causes.items() if key not in known}
    if new or held != standing:
        rows = [("", rule) for rule in sorted(held)] + sorted((known | new).items())
        table = pa.Table.from_pylist([dict(zip(_TOMBSTONE.names, row, strict=True)) for row in rows], schema=_TOMBSTONE)
        write_table(storage, TOMBSTONES, table)
    return set(new)


def read_causes(storage: Storage) -> dict[str, str]:
    """Key of a removed sample -> what it had to go for, as far as that is known."""
    return {key: cause for key, cause in _tombstones(storage) if key}


def read_rules(storage: Storage) -> set[str]:
    """Causes for which whatever comes later goes too."""
    return {cause for key, cause in _tombstones(storage) if not key}


def _tombstones(storage: Storage) -> list[tuple[str, str]]:
    if not storage.exists(TOMBSTONES):
        return []
    table = read_table(storage, TOMBSTONES)
    if "cause" not in table.column_names:
        return []
    return list(zip(table.column("key").to_pylist(), table.column("cause").to_pylist(), strict=True))


def read_tombstones(storage: Storage) -> set[str]:
    """Keys of removed samples."""
    if not storage.exists(TOMBSTONES):
        return set()
    return set(read_table(storage, TOMBSTONES).column("key").to_pylist()) - {""}


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
