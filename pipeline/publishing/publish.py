"""A version of a dataset as others get it: the layout that Hugging Face reads, a card, and what Megatron Energon wants.

Shards are made from the commits of the version, without what was removed since, and every hash is compared with what arrived.
Running it again leaves the shards that are there. README.md comes last: a copy without it, or whose README names another
version than its dataset.json, is not finished.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.dataset.lease import Lease
from pipeline.dataset.pack import delete_unreferenced, describe, live_rows
from pipeline.dataset.shard_writer import write_shards
from pipeline.dataset.versions import Version, current_version, read_version, rows_of
from pipeline.publishing.card import card_text
from pipeline.publishing.energon import write_energon
from schemas.dataset import DESCRIPTION, read_tombstones, write_description
from schemas.errors import UsageError
from schemas.ids import digest
from schemas.storage import Storage

CARD = "README.md"


@dataclass(frozen=True, kw_only=True)
class Publication:
    """What was published."""

    version: str
    """The one asked for, or a digest where something of it was left out."""
    samples: int
    hours: float
    shards: int
    kept: int
    """Shards that were there already."""
    removed_since: int
    """Samples of the version that were removed since, and are left out."""
    left_out: int
    """Samples that are not of the subsets or licences asked for."""
    unlicensed: int
    """Published samples whose licence nobody knows."""


def publish(
    dataset: str,
    destination: str,
    *,
    version: str = "",
    subsets: Sequence[str] = (),
    licences: Sequence[str] = (),
    name: str = "",
    contact: str = "",
) -> Publication:
    """Copy a version, the dataset's own if none is named, to any folder or fsspec path; `licences` and `subsets` empty mean all.

    Raises UsageError for a version that is not known, a destination that is a dataset of its own, or where nothing is left to
    publish; HumoError where parts are missing.
    """
    storage, target = Storage(dataset), Storage(destination)
    chosen = read_version(storage, version or current_version(storage))
    if target.list("ledger", ".parquet"):
        raise UsageError(f"{destination}: is a dataset that humo ingest writes to; publish into another folder")
    ledger = rows_of(storage, chosen)
    rows = live_rows(ledger.to_pylist(), read_tombstones(storage))
    wanted = [row for row in rows if _is_wanted(row["subset"], row["licence"], subsets, licences)]
    if not wanted:
        raise UsageError(
            f"{dataset}: no sample of version {chosen.version} is of subset {', '.join(subsets) or 'any'} and licence "
            f"{', '.join(licences) or 'any'}; humo query {dataset} 'SELECT subset, licence, count(*) FROM samples GROUP BY ALL'"
        )
    with Lease(target, "publish"):
        if target.exists(CARD):
            target.delete(CARD)
        packed = write_shards(
            storage, wanted, target, splits=chosen.splits, shard_bytes=chosen.shard_bytes, plain_names=True
        )
        held = ledger.filter(
            pc.is_in(ledger.column("record_id"), value_set=pa.array([row["record_id"] for row in wanted]))
        )
        description = replace(
            describe(held, wanted, packed, chosen.splits, chosen.shard_bytes),
            version=_version(chosen, len(wanted), subsets, licences, storage),
        )
        write_energon(target, packed.shards, packed.tables)
        write_description(target, description)
        delete_unreferenced(target, packed)
        for path in target.list("shards", ".tar.idx"):
            if path.removesuffix(".idx") not in {shard.path for shard in packed.shards}:
                target.delete(path)
        card = card_text(target, description, name=name, contact=contact)
        target.write_bytes(CARD, card.encode())
    since = chosen.counts["live"] - len(rows)
    return Publication(
        version=description.version, samples=len(wanted), hours=description.counts["hours"], shards=len(packed.shards),
        kept=packed.kept, removed_since=since, left_out=len(rows) - len(wanted),
        unlicensed=sum("unknown" in row["licence"].split(" AND ") for row in wanted),
    )  # fmt: skip


def _is_wanted(subset: str, licence: str, subsets: Sequence[str], licences: Sequence[str]) -> bool:
    return (not subsets or subset in subsets) and (not licences or set(licence.split(" AND ")) <= set(licences))


def _version(chosen: Version, samples: int, subsets: Sequence[str], licences: Sequence[str], storage: Storage) -> str:
    if samples == chosen.counts["live"]:
        return chosen.version
    removed = sorted(read_tombstones(storage))
    return digest(chosen.version, sorted(subsets), sorted(licences), removed, digits=16)


def publication_text(found: Publication, destination: str) -> str:
    """The report for a terminal."""
    lines = [f"{found.samples:,} samples, {found.hours:.4f} hours in {found.shards} shards: {destination}"]
    lines[0] += f" ({found.kept} shards were there)" if found.kept else ""
    if found.removed_since:
        lines.append(f"{found.removed_since} samples of that version were removed since, and are not in it")
    if found.left_out:
        lines.append(f"{found.left_out} samples of other subsets or licences are not in it")
    if found.unlicensed:
        lines.append(f"nobody knows the licence of {found.unlicensed} samples; the card says so")
    lines.append(f"version {found.version}; see {DESCRIPTION} and {CARD}, which a person should read through")
    return "\n".join(lines)
