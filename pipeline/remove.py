"""Sources out of a dataset, and everything that was made from them, joined motions too."""

from collections.abc import Sequence
from dataclasses import dataclass

from pipeline.audit.query import Questions
from pipeline.pack import is_packed, pack
from schemas.dataset import bury, read_causes, read_description, read_ledger
from schemas.errors import UsageError
from schemas.storage import Storage


@dataclass(frozen=True, kw_only=True)
class Removal:
    """What `humo remove` did."""

    sources: list[str]
    removed: list[str]
    """Keys of the samples that are gone since."""
    joined: int
    """How many of them were joined from several samples."""


def remove(dataset: str, sources: Sequence[str]) -> Removal:
    """Take every sample out of shards and catalogue that a source has a part in; running it again changes nothing.

    Removed keys stay removed when the source is ingested again. Raises UsageError for a source that is not known, HumoError
    where there is no dataset.
    """
    storage = Storage(dataset)
    description = read_description(storage)
    if not is_packed(storage, description.splits, description.shard_bytes):
        # Commits since the last packing are not in the catalogue, which tells what joined samples are made of.
        pack(dataset, splits=description.splits, shard_bytes=description.shard_bytes)
    ledger = read_ledger(storage).select(["source_id", "record_id", "outcome"]).to_pylist()
    with Questions(dataset) as questions:
        rows = questions.rows("SELECT key, sources, len(segments) AS segments FROM samples")
    made_of = {row["record_id"]: {row["source_id"]} for row in ledger if row["outcome"] == "accepted"}
    made_of |= {row["key"]: set(row["sources"]) for row in rows}
    wanted = set(sources)
    known = {row["source_id"] for row in ledger}.union(*made_of.values(), read_causes(storage).values())
    unknown = sorted(wanted - known)
    if unknown:
        raise UsageError(
            f"{dataset}: no source {', '.join(unknown)} in it; humo query {dataset} 'SELECT DISTINCT source_id FROM ledger'"
        )
    gone = bury(storage, {key: min(wanted & some) for key, some in made_of.items() if wanted & some})
    if gone:
        pack(dataset, splits=description.splits, shard_bytes=description.shard_bytes)
    joined = sum(row["key"] in gone and row["segments"] > 0 for row in rows)
    return Removal(sources=sorted(wanted), removed=sorted(gone), joined=joined)
