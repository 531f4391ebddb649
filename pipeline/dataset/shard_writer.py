"""Samples out of parts into shards of about one size, a split and subset each, with their catalogue."""

import hashlib
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from pipeline.dataset.catalogue import catalogue_row, catalogue_table, tallied
from schemas.dataset import SPLITS, ShardEntry, write_table
from schemas.errors import HumoError
from schemas.ids import digest, unit_interval
from schemas.shards import write_tar
from schemas.storage import Storage


@dataclass
class Packed:
    """What was written."""

    shards: list[ShardEntry] = field(default_factory=list)
    tables: list[str] = field(default_factory=list)
    """Files of the catalogue."""
    body_models: set[str] = field(default_factory=set)
    described: Counter[str] = field(default_factory=Counter)
    """What the describers did, see `catalogue.tallied`."""
    kept: int = 0
    """Shards that were there already with these very bytes."""


def split_of(sha256: str, shares: Mapping[str, float]) -> str:
    """Split of a source by its content, so that two copies of a video never part."""
    place, edge = unit_interval("split", sha256), 0.0
    for split in SPLITS:
        edge += shares.get(split, 0.0)
        if place < edge:
            return split
    return next(split for split in SPLITS if shares.get(split, 0.0) > 0)


def write_shards(
    parts: Storage,
    rows: Iterable[Mapping[str, Any]],
    target: Storage,
    *,
    splits: Mapping[str, float],
    shard_bytes: int,
    plain_names: bool = False,
) -> Packed:
    """Shards and catalogue of accepted ledger rows, in the order of their keys; a shard begins anew at `shard_bytes`.

    Names end in a digest of what a shard holds, so that packing anew leaves the old shards readable until they are deleted;
    with `plain_names` they are only numbered, a shard that is there already with these bytes is left, and every hash is compared
    with what arrived. Raises HumoError where a part is missing or altered.
    """
    groups: dict[tuple[str, str], list[Mapping[str, Any]]] = defaultdict(list)
    for row in sorted(rows, key=lambda row: row["record_id"]):
        groups[row["subset"], split_of(row["sha256"], splits)].append(row)
    made = Packed()
    for (subset, split), members in sorted(groups.items()):
        for number, some in enumerate(_fill(members, shard_bytes)):
            name = f"{split}-{number:06d}" if plain_names else f"{split}-{number:06d}-{_digest(some)}"
            _write(parts, target, subset, split, name, some, made, compare=plain_names)
    return made


def read_sample_tar(storage: Storage, row: Mapping[str, Any]) -> bytes:
    """The bytes of one sample in its part; raises HumoError where they are not there."""
    try:
        stretch = storage.read_bytes(row["part"], row["offset"], row["offset"] + row["length"])
    except FileNotFoundError:
        stretch = b""
    if hashlib.sha256(stretch).hexdigest() != row["record_sha256"]:
        raise HumoError(
            f"{storage.uri}/{row['part']}: does not hold sample {row['record_id']} where the ledger says; "
            f"restore the file, or delete ledger/{row['commit']}.parquet and run humo ingest again"
        )
    return stretch


def _fill(rows: list[Mapping[str, Any]], shard_bytes: int) -> Iterator[list[Mapping[str, Any]]]:
    some: list[Mapping[str, Any]] = []
    size = 0
    for row in rows:
        if some and size + row["length"] > shard_bytes:
            yield some
            some, size = [], 0
        some.append(row)
        size += row["length"]
    if some:
        yield some


def _digest(rows: list[Mapping[str, Any]]) -> str:
    """Of what a shard holds, however its samples were committed."""
    return digest(*(row["record_sha256"] for row in rows), digits=8)


def _write(
    parts: Storage, target: Storage, subset: str, split: str, name: str, rows: list[Mapping[str, Any]], made: Packed,
    *, compare: bool,
) -> None:  # fmt: skip
    path, table = f"shards/{subset}/{name}.tar", f"catalogue/{subset}-{name}.parquet"
    entries: list[dict[str, Any]] = []

    def stretches() -> Iterator[bytes]:
        entries.clear()
        for row in rows:
            stretch = read_sample_tar(parts, row)
            entries.append(catalogue_row(stretch, subset, split, path))
            yield stretch

    content = write_tar(_Nowhere(), stretches()) if compare and target.exists(path) else None
    if content and target.sha256(path) == content.sha256:
        made.kept += 1
    else:
        with target.publish(path) as file:
            content = write_tar(file, stretches())
        if compare and target.sha256(path) != content.sha256:
            raise HumoError(f"{target.uri}/{path}: what arrived is not what was sent (sha256 differs); run it again")
    catalogue = catalogue_table(entries)
    write_table(target, table, catalogue)
    made.shards.append(
        ShardEntry(
            path=path, subset=subset, split=split, samples=len(rows), bytes=content.bytes, sha256=content.sha256,
            hours=sum(row["seconds"] for row in rows) / 3600,
        )
    )  # fmt: skip
    made.tables.append(table)
    made.body_models.update(catalogue.column("body_model").to_pylist())
    made.described.update(tallied(catalogue))


class _Nowhere:
    """Takes bytes and keeps none, where only their hash is wanted."""

    def write(self, data: bytes, /) -> int:
        return len(data)
