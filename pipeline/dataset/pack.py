"""Builds shards, catalogue and dataset.json from the commits: the same commits always give the same bytes.

Removed samples are purged from the parts first (`pipeline.dataset.purge`). New shards are then written beside the old ones, under
other names if their content differs, and dataset.json is replaced atomically: concurrent readers finish the files they have
open in the old version and find the new one afterwards. Old shards are deleted last, those younger than the grace of all sweeps by
a later job unless they hold removed samples, and a proof is written that nothing of the removed samples is left.
"""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import pyarrow as pa

from pipeline import __version__
from pipeline.chain.config import IngestConfig
from pipeline.dataset.lease import Lease
from pipeline.dataset.maintenance import GRACE_S
from pipeline.dataset.purge import delete_unreferenced, proof_path, purge, write_removal_proof
from pipeline.dataset.redact import redact
from pipeline.dataset.shard_writer import PackedShards, write_shards
from pipeline.dataset.versions import record_version, version_id
from schemas.dataset import (
    DESCRIPTION,
    DatasetDescription,
    add_tombstones,
    layout_of,
    read_description,
    read_rules,
    read_tombstones,
    write_description,
)
from schemas.errors import HumoError
from schemas.ledger import current_rows, read_history, read_ledger
from schemas.storage import Storage


def repack(dataset: str, *, shard_bytes: int = 0, redacting: bool = False) -> DatasetDescription:
    """Pack a dataset again with its previous settings, under a lease; `shard_bytes` 0 keeps the shard size too. With `redacting`,
    secrets of addresses are taken out first."""
    defaults = IngestConfig.model_fields
    splits, size = defaults["splits"].default, defaults["shard_bytes"].default
    storage = Storage(dataset)
    with Lease(storage, "pack") as lease:
        if storage.exists(DESCRIPTION):
            before = read_description(storage)
            splits, size = before.splits or splits, before.shard_bytes or size
        if redacting:
            redact(lease.storage)
        grace_s = -math.inf if redacting else GRACE_S  # old shards have the secrets
        return pack(lease.storage, splits=splits, shard_bytes=shard_bytes or size, grace_s=grace_s)


def pack(
    dataset: str | Storage, *, splits: Mapping[str, float], shard_bytes: int, grace_s: float = GRACE_S
) -> DatasetDescription:
    """Write shards, catalogue and dataset.json; removed samples are deleted permanently, replaced shards when they are older than
    `grace_s`. The caller holds the dataset's lease and gives its `storage`: otherwise nothing stops a packing whose lease is lost.

    Raises HumoError if the ledger is empty, a part is missing or altered, or the lease has been lost.
    """
    storage = dataset if isinstance(dataset, Storage) else Storage(dataset)
    before = read_description(storage).version if storage.exists(DESCRIPTION) else ""
    _apply_removal_rules(storage)
    purge(storage)
    ledger = read_ledger(storage)
    if not len(ledger):
        raise HumoError(f"{storage.uri}: its ledger is empty; run humo ingest first")
    removed = read_tombstones(storage)
    rows = live_rows(ledger.to_pylist(), removed)
    packed = write_shards(storage, rows, storage, splits=splits, shard_bytes=shard_bytes)
    description = replace(
        describe(ledger, rows, packed, splits, shard_bytes), version=version_id(ledger, removed, splits, shard_bytes)
    )
    record_version(storage, description, ledger, before)
    write_description(storage, description)
    delete_unreferenced(storage, description, removed=removed, grace_s=grace_s)
    write_removal_proof(storage, description.version)
    return description


def is_packed(storage: Storage, splits: Mapping[str, float], shard_bytes: int) -> bool:
    """Whether dataset.json describes the current commits with these settings, and all removals have a proof."""
    if not storage.exists(DESCRIPTION):
        return False
    removed = read_tombstones(storage)
    ledger = current_rows(read_history(storage))
    packed = read_description(storage).version == version_id(ledger, removed, splits, shard_bytes)
    return packed and (not removed or storage.exists(proof_path(removed)))


def _apply_removal_rules(storage: Storage) -> None:
    """Add tombstones for samples that were committed after their source or licence was removed."""
    rules = read_rules(storage)
    if rules:
        rows = read_history(storage).select(["record_id", "source_id", "licence", "outcome"]).to_pylist()
        add_tombstones(
            storage,
            {
                row["record_id"]: cause
                for row in rows
                if row["outcome"] == "accepted"
                for cause in rules & removal_causes(row)
            },
        )


def removal_causes(row: Mapping[str, Any]) -> set[str]:
    """Removal causes that match this row of ledger or catalogue; a joined sample has several licences."""
    return {f"source {row['source_id']}"} | {f"licence {name}" for name in row["licence"].split(" AND ")}


def live_rows(rows: Sequence[dict[str, Any]], removed: set[str]) -> list[dict[str, Any]]:
    """Accepted rows without the removed ones; a key of two sources (the same content twice) occurs once."""
    live: dict[str, dict[str, Any]] = {}
    for row in rows:
        if row["outcome"] == "accepted" and row["record_id"] not in removed:
            live.setdefault(row["record_id"], row)
    return list(live.values())


def describe(
    ledger: pa.Table,
    rows: Sequence[Mapping[str, Any]],
    packed: PackedShards,
    splits: Mapping[str, float],
    shard_bytes: int,
) -> DatasetDescription:
    """Description of shards packed from the live rows of a ledger, without a version."""
    outcomes = Counter(ledger.column("outcome").to_pylist())
    samples: Counter[str] = Counter()
    for shard in packed.shards:
        samples[f"{shard.subset}/{shard.split}"] += shard.samples
    return DatasetDescription(
        layout=layout_of(packed.versions),
        humo=__version__,
        config_digests=sorted(set(ledger.column("config_digest").to_pylist())),
        counts={
            "sources": len(set(ledger.column("source_id").to_pylist())),
            "sources_with_samples": len({row["source_id"] for row in rows}),
            "accepted": outcomes["accepted"],
            "rejected": outcomes["rejected"],
            "quarantined": outcomes["quarantined"],
            "removed": outcomes["removed"],
            "live": len(rows),
            "samples": dict(sorted(samples.items())),
            "hours": round(sum(shard.hours for shard in packed.shards), 6),
            "describers": {
                "answered": packed.describer_totals["describer_answered"],
                "skipped": packed.describer_totals["describer_skipped"],
                "failed": packed.describer_totals["describer_failed"],
                "sentences_added": packed.describer_totals["sentences_added"],
                "sentences_rejected": packed.describer_totals["sentences_rejected"],
                "tokens": packed.describer_totals["describer_tokens"],
                "usd": round(float(packed.describer_totals["describer_usd"]), 6),
            },
        },
        shards=packed.shards,
        body_models=sorted(packed.body_models),
        splits=dict(splits),
        shard_bytes=shard_bytes,
    )
