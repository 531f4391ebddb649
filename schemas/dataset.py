"""The layout of a dataset on disk or in a bucket: its files and the columns of its tables.

dataset.json         what it is: version, body model, config digests, splits, counts, every shard with its hash
parts/*.tar          samples of one commit, written first
ledger/*.parquet     decisions on the sources of one commit, written last: it completes the commit
shards/SUBSET/SPLIT-000000-DIGEST.tar    packed from the parts, split by source
catalogue/*.parquet  one row per sample
codes/TOKENIZER/*.parquet    the codes of one shard by a motion tokenizer, if humo tokenize wrote them
jobs/*.json          the settings that commits were made with
tombstones.parquet   keys of removed samples, and why they were removed
versions/*.json      the commits that each packing contains
removals/*.json      proofs: the files scanned after a removal, none of which holds a removed sample
lease.json, .epochs/ who writes now, and the number of that lease (`pipeline.dataset.fence`)
"""

import functools
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, TypeVar, cast

import pyarrow as pa
from pydantic import TypeAdapter

from schemas.errors import HumoError
from schemas.shards import read_samples
from schemas.storage import Storage
from schemas.tables import parquet_bytes, read_parquet

Described = TypeVar("Described")

LAYOUT_VERSION = 5
"""Increase it whenever the layout of samples or tables changes. Layout 5 has samples of version 2 (`schemas.sample`)."""
READ_LAYOUTS = (4, LAYOUT_VERSION)
"""Layouts that are read. A dataset of layout 4 has samples of version 1; nothing of a later layout is added to it."""
SPLITS = ("train", "val", "test")
DESCRIPTION = "dataset.json"
TOMBSTONES = "tombstones.parquet"

_TOMBSTONE = pa.schema([("key", pa.string()), ("cause", pa.string())])
"""A row without a key is a rule: later samples with that cause (`source ID`, `licence NAME`) are removed as well."""


@dataclass(frozen=True, kw_only=True)
class ShardEntry:
    """One shard as listed in dataset.json; path is relative to the dataset."""

    path: str
    subset: str
    split: str
    samples: int
    bytes: int
    sha256: str
    hours: float


@dataclass(frozen=True, kw_only=True)
class DatasetDescription:
    """Content of dataset.json."""

    layout: int = LAYOUT_VERSION
    version: str = ""
    """Digest of the packed commits."""
    humo: str = ""
    body_models: list[str] = field(default_factory=list)
    config_digests: list[str] = field(default_factory=list)
    splits: dict[str, float] = field(default_factory=dict)
    """Split -> share of the sources."""
    shard_bytes: int = 0
    counts: dict[str, Any] = field(default_factory=dict)
    """sources, accepted, rejected, samples by subset and split, hours, and outcomes and cost of describers."""
    shards: list[ShardEntry] = field(default_factory=list)


def read_description(storage: Storage) -> DatasetDescription:
    """dataset.json of a packed dataset; raises HumoError if it is missing or has another layout version."""
    try:
        content = json.loads(storage.read_bytes(DESCRIPTION))
    except FileNotFoundError:
        raise HumoError(
            f"{storage.uri}: no {DESCRIPTION} in it; give a dataset that humo ingest or humo pack has completed"
        ) from None
    except (ValueError, RecursionError) as error:
        raise HumoError(f"{storage.uri}/{DESCRIPTION}: not JSON ({error}); run humo pack {storage.uri}") from None
    layout = content.get("layout") if isinstance(content, dict) else None
    if layout not in READ_LAYOUTS:
        raise HumoError(
            f"{storage.uri}: layout is {layout!r}, this humo reads {READ_LAYOUTS[0]} to {READ_LAYOUTS[-1]}; ingest its sources "
            "again"
        )
    return parse_description(content, f"{storage.uri}/{DESCRIPTION}", DatasetDescription)


def layout_of(versions: Iterable[int]) -> int:
    """Layout of a dataset with samples of these versions: the latest, unless some are older."""
    return READ_LAYOUTS[0] if 1 in set(versions) else LAYOUT_VERSION


def parse_description(content: Any, name: str, kind: type[Described]) -> Described:
    """A description with its shards from parsed JSON; raises HumoError if a field is missing, unknown or of another type."""
    try:
        value = kind(**{**content, "shards": [ShardEntry(**shard) for shard in content["shards"]]})
        validated: Described = _adapter(cast(Any, kind)).validate_json(
            json.dumps(asdict(cast(Any, value))), strict=True
        )
        return validated
    except (TypeError, KeyError, ValueError) as error:
        reason = " ".join(str(error).split())[:300]
        raise HumoError(f"{name}: not as humo writes it ({reason}); run humo pack, or fetch it again") from None


@functools.cache
def _adapter(kind: Any) -> Any:
    return TypeAdapter(kind)


def write_description(storage: Storage, description: DatasetDescription) -> None:
    """Publish dataset.json."""
    text = json.dumps(asdict(description), indent=1, sort_keys=True, ensure_ascii=False)
    storage.write_bytes(DESCRIPTION, (text + "\n").encode())


def table_path(shard: str) -> str:
    """Path of the catalogue table of a shard, given by its path: shards/SUBSET/NAME.tar has catalogue/SUBSET-NAME.parquet."""
    _, subset, name = shard.split("/")
    return f"catalogue/{subset}-{name.removesuffix('.tar')}.parquet"


def codes_path(tokenizer: str, shard: str) -> str:
    """Path of the codes of a shard by the tokenizer with this fingerprint; named like the shard's catalogue table."""
    return f"codes/{tokenizer}/{table_path(shard).removeprefix('catalogue/')}"


def read_table(storage: Storage, relative: str) -> pa.Table:
    """Read one Parquet file; raises HumoError if it is damaged."""
    return read_parquet(storage.read_bytes(relative), f"{storage.uri}/{relative}")


def write_table(storage: Storage, relative: str, table: pa.Table) -> None:
    """Publish one Parquet file."""
    storage.write_bytes(relative, parquet_bytes(table))


def add_tombstones(storage: Storage, causes: Mapping[str, str], rules: Iterable[str] = ()) -> set[str]:
    """Add removed keys, each with its cause, and rules for future samples; packing then leaves them out. Returns the keys that
    are new."""
    known = dict.fromkeys(read_tombstones(storage), "") | read_causes(storage)
    known_rules = read_rules(storage)
    all_rules = known_rules.union(rules)
    new = {key: cause for key, cause in causes.items() if key not in known}
    if new or all_rules != known_rules:
        rows = [("", rule) for rule in sorted(all_rules)] + sorted((known | new).items())
        table = pa.Table.from_pylist([dict(zip(_TOMBSTONE.names, row, strict=True)) for row in rows], schema=_TOMBSTONE)
        write_table(storage, TOMBSTONES, table)
    return set(new)


def read_causes(storage: Storage) -> dict[str, str]:
    """Key of a removed sample -> cause of its removal, where known."""
    return {key: cause for key, cause in _tombstones(storage) if key}


def read_rules(storage: Storage) -> set[str]:
    """Causes that also remove later samples."""
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
