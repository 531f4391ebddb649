"""Removes sources, samples or licences from a dataset, and everything derived from them, including joined motions."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow.compute as pc

from pipeline.audit.query import QuerySession
from pipeline.dataset.lease import Lease
from pipeline.dataset.pack import is_packed, pack, removal_causes
from pipeline.dataset.shard_writer import read_sample_tar
from schemas.dataset import add_tombstones, read_causes, read_description, read_rules
from schemas.errors import UsageError
from schemas.ledger import read_history
from schemas.shards import decode_sample_bytes
from schemas.storage import Storage

_COLUMNS = ["source_id", "record_id", "licence", "subset", "part", "offset", "length", "record_sha256", "commit"]


@dataclass(frozen=True, kw_only=True)
class Removal:
    """Result of `humo remove`."""

    removed: list[str]
    """Keys of the removed samples."""
    joined: int
    """How many of them were joined from several samples."""
    packed: bool
    """Whether their bytes are deleted; otherwise loaders skip them, and the next packing deletes them."""


def remove(
    dataset: str,
    sources: Sequence[str] = (),
    *,
    keys: Sequence[str] = (),
    licences: Sequence[str] = (),
    packing: bool = True,
) -> Removal:
    """Remove samples by source, key or licence, with every joined motion that contains them.

    Tombstones are written first: loaders skip the samples from then on. Packing then deletes their bytes everywhere and proves
    it; a running training continues. Sources and licences stay removed: later samples of them are removed as well. Idempotent.
    Raises UsageError for unknown names, HumoError if there is no dataset or another job is writing to it.
    """
    storage = Storage(dataset)
    description = read_description(storage)
    rules = {f"source {name}" for name in sources} | {f"licence {name}" for name in licences}
    if not rules and not keys:
        raise UsageError(f"{dataset}: name a source, a key or a licence to remove")
    with Lease(storage, "remove") as lease:
        storage = lease.storage
        samples = _causes_by_sample(dataset)
        requested = rules | {f"key {_resolve_key(dataset, key, samples)}" for key in keys}
        _check_known(storage, dataset, rules, samples)
        removed = add_tombstones(
            storage, {key: min(requested & causes) for key, causes in samples.items() if requested & causes}, rules
        )
        done = is_packed(storage, description.splits, description.shard_bytes)
        if packing and not done:
            pack(storage, splits=description.splits, shard_bytes=description.shard_bytes)
    joined = sum(sum(cause.startswith("key ") for cause in samples[key]) > 1 for key in removed)
    return Removal(removed=sorted(removed), joined=joined, packed=packing or done)


def _causes_by_sample(dataset: str) -> dict[str, set[str]]:
    """Key of every sample that was ever accepted -> all removal causes that match it."""
    storage = Storage(dataset)
    history = read_history(storage)
    rows = history.filter(pc.equal(history.column("outcome"), "accepted")).select(_COLUMNS).to_pylist()
    causes: dict[str, set[str]] = {}
    for row in rows:
        causes.setdefault(row["record_id"], {f"key {row['record_id']}"}).update(removal_causes(row))
    with QuerySession(dataset) as session:
        catalogue = session.rows("SELECT key, source_id, sources, segments, licence FROM samples")
    for row in catalogue:
        sample_causes = causes.setdefault(row["key"], {f"key {row['key']}"})
        sample_causes |= removal_causes(row) | _component_causes(row["sources"], row["segments"])
    catalogued = {row["key"] for row in catalogue}
    for row in rows:
        if (
            row["subset"] == "long" and row["record_id"] not in catalogued
        ):  # committed since the last packing, or superseded
            _, members = decode_sample_bytes(read_sample_tar(storage, row), row["part"])
            segments: list[dict[str, Any]] = json.loads(members["meta.json"])["segments"]
            causes[row["record_id"]] |= _component_causes(
                [s["source_id"] for s in segments], [s["key"] for s in segments]
            )
    return causes


def _component_causes(sources: Sequence[str], segments: Sequence[str]) -> set[str]:
    return {f"source {name}" for name in sources} | {f"key {key}" for key in segments}


def _resolve_key(dataset: str, key: str, samples: Mapping[str, set[str]]) -> str:
    """Full key of a sample from a unique prefix; the sample may be removed already."""
    known = samples.keys() | read_causes(Storage(dataset)).keys()
    matches = [key] if key in known else sorted(one for one in known if key and one.startswith(key))
    if len(matches) != 1:
        raise UsageError(
            f"{dataset}: {'several samples begin' if matches else 'no sample begins'} with {key!r}; "
            f"humo query {dataset} 'SELECT key, caption FROM samples'"
        )
    return matches[0]


def _check_known(storage: Storage, dataset: str, rules: set[str], samples: Mapping[str, set[str]]) -> None:
    known = read_rules(storage).union(*samples.values())
    for row in read_history(storage).select(["source_id", "licence"]).to_pylist():
        known |= removal_causes(row)
    unknown = sorted(rules - known)
    if unknown:
        column = unknown[0].partition(" ")[0].replace("source", "source_id")
        raise UsageError(
            f"{dataset}: no {', no '.join(unknown)} in it; humo query {dataset} 'SELECT DISTINCT {column} FROM ledger'"
        )
