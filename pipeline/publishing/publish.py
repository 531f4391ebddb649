"""Publishes a version of a dataset: Hugging Face's layout, a card, and metadata for Megatron Energon.

Shards are built from the commits of the version, without samples removed since, and the hash of every written shard is verified.
Another run keeps existing shards. README.md is written last: a copy without it, or whose README names another version than its
dataset.json, is incomplete.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.dataset.lease import Lease
from pipeline.dataset.pack import describe, live_rows
from pipeline.dataset.purge import delete_unreferenced
from pipeline.dataset.shard_writer import write_shards
from pipeline.dataset.versions import Version, current_version, read_version, rows_of
from pipeline.publishing.card import card_text
from pipeline.publishing.energon import write_energon
from schemas.addresses import public_form
from schemas.dataset import DESCRIPTION, read_tombstones, write_description
from schemas.errors import HumoError, UsageError
from schemas.ids import digest
from schemas.storage import Storage

CARD = "README.md"


@dataclass(frozen=True, kw_only=True)
class Publication:
    """Result of `humo publish`."""

    version: str
    """The requested version, or a digest if part of it was left out."""
    samples: int
    hours: float
    shards: int
    kept: int
    """Shards that already existed."""
    removed_since: int
    """Samples of the version that were removed since and are left out."""
    left_out: int
    """Samples of other subsets or licences than requested."""
    unlicensed: int
    """Published samples with unknown licence."""


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
    """Copy a version, by default the current one, to a folder or fsspec path; empty `licences` and `subsets` mean all.

    Raises UsageError for an unknown version, a destination that humo ingest writes to, or if no samples are left to publish;
    HumoError if parts are missing, or hold secrets of addresses.
    """
    storage, target = Storage(dataset), Storage(destination)
    selected_version = read_version(storage, version or current_version(storage))
    if target.list("ledger", ".parquet"):
        raise UsageError(f"{destination}: is a dataset that humo ingest writes to; publish into another folder")
    ledger = rows_of(storage, selected_version)
    rows = live_rows(ledger.to_pylist(), read_tombstones(storage))
    selected = [row for row in rows if _is_selected(row["subset"], row["licence"], subsets, licences)]
    if not selected:
        raise UsageError(
            f"{dataset}: no sample of version {selected_version.version} is of subset {', '.join(subsets) or 'any'} and licence "
            f"{', '.join(licences) or 'any'}; humo query {dataset} 'SELECT subset, licence, count(*) FROM samples GROUP BY ALL'"
        )
    secret = [row["record_id"] for row in selected if public_form(row["uri"]) != row["uri"]]
    if secret:
        raise HumoError(
            f"{storage.uri}: {len(secret)} samples, such as {secret[0]}, hold addresses with passwords or signatures; run "
            f"humo pack {storage.uri} --redact first"
        )
    with Lease(target, "publish") as lease:
        target = lease.storage
        if target.exists(CARD):
            target.delete(CARD)
        packed = write_shards(
            storage,
            selected,
            target,
            splits=selected_version.splits,
            shard_bytes=selected_version.shard_bytes,
            plain_names=True,
        )
        selected_ledger = ledger.filter(
            pc.is_in(ledger.column("record_id"), value_set=pa.array([row["record_id"] for row in selected]))
        )
        description = replace(
            describe(selected_ledger, selected, packed, selected_version.splits, selected_version.shard_bytes),
            version=_published_version(selected_version, len(selected), subsets, licences, storage),
        )
        write_energon(target, packed.shards, packed.tables)
        write_description(target, description)
        # Of any age: who loads a copy by its folder would load old shards too.
        delete_unreferenced(target, description, removed=set(), grace_s=-math.inf)
        named = {shard.path for shard in packed.shards}
        target.delete_all(
            [path for path in target.list("shards", ".tar.idx") if path.removesuffix(".idx") not in named]
        )
        card = card_text(target, description, name=name, contact=contact)
        target.write_bytes(CARD, card.encode())
    removed_since = selected_version.counts["live"] - len(rows)
    return Publication(
        version=description.version, samples=len(selected), hours=description.counts["hours"], shards=len(packed.shards),
        kept=packed.kept, removed_since=removed_since, left_out=len(rows) - len(selected),
        unlicensed=sum("unknown" in row["licence"].split(" AND ") for row in selected),
    )  # fmt: skip


def _is_selected(subset: str, licence: str, subsets: Sequence[str], licences: Sequence[str]) -> bool:
    return (not subsets or subset in subsets) and (not licences or set(licence.split(" AND ")) <= set(licences))


def _published_version(
    version: Version, samples: int, subsets: Sequence[str], licences: Sequence[str], storage: Storage
) -> str:
    if samples == version.counts["live"]:
        return version.version
    removed = sorted(read_tombstones(storage))
    return digest(version.version, sorted(subsets), sorted(licences), removed, digits=16)


def publication_text(publication: Publication, destination: str) -> str:
    """The report for a terminal."""
    lines = [
        f"{publication.samples:,} samples, {publication.hours:.4f} hours in {publication.shards} shards: {destination}"
    ]
    lines[0] += f" ({publication.kept} shards already existed)" if publication.kept else ""
    if publication.removed_since:
        lines.append(f"{publication.removed_since} samples of that version were removed since and are left out")
    if publication.left_out:
        lines.append(f"{publication.left_out} samples of other subsets or licences are left out")
    if publication.unlicensed:
        lines.append(f"the licence of {publication.unlicensed} samples is unknown; the card notes this")
    lines.append(f"version {publication.version}; see {DESCRIPTION} and {CARD}, which should be reviewed")
    return "\n".join(lines)
