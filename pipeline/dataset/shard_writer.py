"""Writes samples from parts into shards of about equal size, one split and subset each, with their catalogue."""

import hashlib
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from pipeline.dataset.catalogue import catalogue_row, catalogue_table, describer_totals
from pipeline.dataset.fence import condemned
from schemas.dataset import SPLITS, ShardEntry, table_path, write_table
from schemas.errors import HumoError
from schemas.ids import digest, unit_interval
from schemas.shards import write_tar
from schemas.storage import Storage


@dataclass
class PackedShards:
    """Written shards and catalogue."""

    shards: list[ShardEntry] = field(default_factory=list)
    tables: list[str] = field(default_factory=list)
    """Paths of the catalogue files."""
    body_models: set[str] = field(default_factory=set)
    describer_totals: Counter[str] = field(default_factory=Counter)
    """See `catalogue.describer_totals`."""
    versions: set[int] = field(default_factory=set)
    """Versions of the samples."""
    kept: int = 0
    """Number of shards that already existed with the same bytes."""


def split_of(sha256: str, shares: Mapping[str, float]) -> str:
    """Split of a source by its content, so that copies of a video share a split."""
    position, edge = unit_interval("split", sha256), 0.0
    for split in SPLITS:
        edge += shares.get(split, 0.0)
        if position < edge:
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
) -> PackedShards:
    """Write shards and catalogue of accepted ledger rows, sorted by key; a new shard begins at `shard_bytes`.

    Names end in a digest of the content, so that repacking leaves the old shards readable until they are deleted, and in the
    lease's epoch too where a job that has lost its lease may still delete a file of that name (`pipeline.dataset.fence`); with
    `plain_names` they are only numbered, an existing shard with the same bytes is kept, and the hash of every written shard is
    verified. Raises HumoError if a part is missing or altered.
    """
    groups: dict[tuple[str, str], list[Mapping[str, Any]]] = defaultdict(list)
    for row in sorted(rows, key=lambda row: row["record_id"]):
        groups[row["subset"], split_of(row["sha256"], splits)].append(row)
    packed = PackedShards()
    taken = set() if plain_names else condemned(target)
    for (subset, split), members in sorted(groups.items()):
        for number, shard_rows in enumerate(_chunks(members, shard_bytes)):
            name = f"{split}-{number:06d}" if plain_names else f"{split}-{number:06d}-{_digest(shard_rows)}"
            if taken & {path := f"shards/{subset}/{name}.tar", table_path(path)}:
                name += f"-{target.epoch}"
            _write(parts, target, subset, split, name, shard_rows, packed, compare=plain_names)
    return packed


def read_sample_tar(storage: Storage, row: Mapping[str, Any]) -> bytes:
    """The bytes of one sample in its part; raises HumoError if they are missing or altered."""
    try:
        content = storage.read_bytes(row["part"], row["offset"], row["offset"] + row["length"])
    except FileNotFoundError:
        content = b""
    if hashlib.sha256(content).hexdigest() != row["record_sha256"]:
        raise HumoError(
            f"{storage.uri}/{row['part']}: does not hold sample {row['record_id']} at the position in the ledger; "
            f"restore the file, or delete ledger/{row['commit']}.parquet and run humo ingest again"
        )
    return content


def _chunks(rows: list[Mapping[str, Any]], shard_bytes: int) -> Iterator[list[Mapping[str, Any]]]:
    chunk: list[Mapping[str, Any]] = []
    size = 0
    for row in rows:
        if chunk and size + row["length"] > shard_bytes:
            yield chunk
            chunk, size = [], 0
        chunk.append(row)
        size += row["length"]
    if chunk:
        yield chunk


def _digest(rows: list[Mapping[str, Any]]) -> str:
    """Digest of a shard's content, independent of how its samples were committed."""
    return digest(*(row["record_sha256"] for row in rows), digits=8)


def _write(
    parts: Storage, target: Storage, subset: str, split: str, name: str, rows: list[Mapping[str, Any]], packed: PackedShards,
    *, compare: bool,
) -> None:  # fmt: skip
    path = f"shards/{subset}/{name}.tar"
    table = table_path(path)
    entries: list[dict[str, Any]] = []

    def encoded_samples() -> Iterator[bytes]:
        entries.clear()
        for row in rows:
            sample = read_sample_tar(parts, row)
            entries.append(catalogue_row(sample, subset, split, path))
            yield sample

    content = write_tar(_NullSink(), encoded_samples()) if compare and target.exists(path) else None
    if content and target.sha256(path) == content.sha256:
        packed.kept += 1
    else:
        with target.publish(path) as file:
            content = write_tar(file, encoded_samples())
        if compare and target.sha256(path) != content.sha256:
            raise HumoError(f"{target.uri}/{path}: the written file has another sha256; run the command again")
    catalogue = catalogue_table(entries)
    write_table(target, table, catalogue)
    packed.shards.append(
        ShardEntry(
            path=path, subset=subset, split=split, samples=len(rows), bytes=content.bytes, sha256=content.sha256,
            hours=sum(row["seconds"] for row in rows) / 3600,
        )
    )  # fmt: skip
    packed.tables.append(table)
    packed.body_models.update(catalogue.column("body_model").to_pylist())
    packed.versions.update(catalogue.column("version").to_pylist())
    packed.describer_totals.update(describer_totals(catalogue))


class _NullSink:
    """Discards written bytes, for computing only their hash."""

    def write(self, data: bytes, /) -> int:
        return len(data)
