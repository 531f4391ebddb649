"""Sources, samples or licences out of a dataset, and everything that was made from them, joined motions too."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow.compute as pc

from pipeline.audit.query import Questions
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
    """What `humo remove` did."""

    removed: list[str]
    """Keys of the samples that are gone since."""
    joined: int
    """How many of them were joined from several samples."""
    packed: bool
    """Whether their bytes are gone as well; else loaders leave them out, and the next packing deletes them."""


def remove(
    dataset: str,
    sources: Sequence[str] = (),
    *,
    keys: Sequence[str] = (),
    licences: Sequence[str] = (),
    packing: bool = True,
) -> Removal:
    """Take samples out by source, key or licence, with every joined motion that they have a part in.

    Tombstones come first: loaders leave the samples out from then on. Packing then deletes their bytes everywhere and proves
    it; a training that is under way goes on. Sources and licences stay removed: what is made of them later goes as well.
    Running it again changes nothing. Raises UsageError for what is not known, HumoError where there is no dataset or a job is
    at work on it.
    """
    storage = Storage(dataset)
    description = read_description(storage)
    rules = {f"source {name}" for name in sources} | {f"licence {name}" for name in licences}
    if not rules and not keys:
        raise UsageError(f"{dataset}: name a source, a key or a licence to remove")
    with Lease(storage, "remove"):
        samples = _samples(dataset)
        wanted = rules | {f"key {_whole_key(dataset, key, samples)}" for key in keys}
        _check_known(storage, dataset, rules, samples)
        gone = add_tombstones(
            storage, {key: min(wanted & told) for key, told in samples.items() if wanted & told}, rules
        )
        done = is_packed(storage, description.splits, description.shard_bytes)
        if packing and not done:
            pack(dataset, splits=description.splits, shard_bytes=description.shard_bytes)
    joined = sum(sum(one.startswith("key ") for one in samples[key]) > 1 for key in gone)
    return Removal(removed=sorted(gone), joined=joined, packed=packing or done)


def _samples(dataset: str) -> dict[str, set[str]]:
    """Key of every sample that was ever accepted -> all that a removal could name to mean it."""
    storage = Storage(dataset)
    history = read_history(storage)
    rows = history.filter(pc.equal(history.column("outcome"), "accepted")).select(_COLUMNS).to_pylist()
    found: dict[str, set[str]] = {}
    for row in rows:
        found.setdefault(row["record_id"], {f"key {row['record_id']}"}).update(removal_causes(row))
    with Questions(dataset) as questions:
        catalogue = questions.rows("SELECT key, source_id, sources, segments, licence FROM samples")
    for row in catalogue:
        told = found.setdefault(row["key"], {f"key {row['key']}"})
        told |= removal_causes(row) | _made_of(row["sources"], row["segments"])
    known = {row["key"] for row in catalogue}
    for row in rows:
        if row["subset"] == "long" and row["record_id"] not in known:  # committed since the last packing, or superseded
            _, members = decode_sample_bytes(read_sample_tar(storage, row), row["part"])
            segments: list[dict[str, Any]] = json.loads(members["meta.json"])["segments"]
            found[row["record_id"]] |= _made_of([s["source_id"] for s in segments], [s["key"] for s in segments])
    return found


def _made_of(sources: Sequence[str], segments: Sequence[str]) -> set[str]:
    return {f"source {name}" for name in sources} | {f"key {key}" for key in segments}


def _whole_key(dataset: str, key: str, samples: Mapping[str, set[str]]) -> str:
    """A sample's key from as much of it as makes it unique; it may be gone already."""
    known = samples.keys() | read_causes(Storage(dataset)).keys()
    found = [key] if key in known else sorted(one for one in known if key and one.startswith(key))
    if len(found) != 1:
        raise UsageError(
            f"{dataset}: {'several samples begin' if found else 'no sample begins'} with {key!r}; "
            f"humo query {dataset} 'SELECT key, caption FROM samples'"
        )
    return found[0]


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
