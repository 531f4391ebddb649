"""Proof that a dataset is whole: every shard, every sample, every member, and the books agree."""

import io
import json
from collections import defaultdict
from dataclasses import dataclass, field
from typing import Any

import av

from schemas.dataset import ShardEntry, read_description, read_ledger, read_table, read_tombstones
from schemas.errors import HumoError
from schemas.sample import contents_of, sample_problems
from schemas.shards import read_samples
from schemas.storage import Storage


@dataclass
class Verdict:
    """What `humo verify` found."""

    shards: int = 0
    samples: int = 0
    problems: list[str] = field(default_factory=list)


def verify(dataset: str) -> Verdict:
    """Check hashes, counts, schema, that every member decodes, that catalogue and ledger tell the same, and the splits."""
    storage = Storage(dataset)
    description = read_description(storage)
    verdict = Verdict()
    split_by_source: dict[str, set[str]] = defaultdict(set)
    found: dict[str, str] = {}
    for shard in description.shards:
        verdict.shards += 1
        for key, meta in _check_shard(storage, shard, verdict):
            if key in found:
                verdict.problems.append(f"{shard.path}: sample {key} is also in {found[key]}")
            found[key] = shard.path
            for sha256 in contents_of(meta) if meta else ():
                split_by_source[sha256].add(shard.split)
    verdict.samples = len(found)
    for sha256, splits in split_by_source.items():
        if len(splits) > 1:
            verdict.problems.append(
                f"source with content {sha256[:12]} is in several splits: {', '.join(sorted(splits))}"
            )
    _check_books(storage, found, verdict)
    return verdict


def _check_shard(storage: Storage, shard: ShardEntry, verdict: Verdict) -> list[tuple[str, dict[str, Any]]]:
    if not storage.exists(shard.path):
        verdict.problems.append(f"{shard.path}: is missing; run humo pack")
        return []
    if storage.sha256(shard.path) != shard.sha256:
        verdict.problems.append(
            f"{shard.path}: its bytes are not those that were packed (sha256 differs); run humo pack"
        )
    seen = []
    try:
        with storage.open(shard.path) as file:
            for key, members in read_samples(file, shard.path):
                problems = sample_problems(key, members, shard.subset)
                if not problems and "clip.mp4" in members:
                    problems = clip_problems(members["clip.mp4"])
                verdict.problems += [f"{shard.path}: sample {key}: {problem}" for problem in problems]
                seen.append((key, {} if problems else json.loads(members["meta.json"])))
    except (HumoError, OSError) as error:
        verdict.problems.append(str(error))
    if len(seen) != shard.samples:
        verdict.problems.append(
            f"{shard.path}: holds {len(seen)} samples, dataset.json says {shard.samples}; run humo pack"
        )
    return seen


def clip_problems(content: bytes) -> list[str]:
    """Whether the clip decodes to its end."""
    try:
        with av.open(io.BytesIO(content), "r") as container:
            number = len([frame.pts for frame in container.decode(video=0)])
    except (av.FFmpegError, IndexError) as error:
        return [f"clip.mp4 does not decode: {error}"]
    return [] if number else ["clip.mp4 holds no frame"]


def _check_books(storage: Storage, found: dict[str, str], verdict: Verdict) -> None:
    """Catalogue and ledger against what is in the shards."""
    catalogue = {
        key: shard for path in storage.list("catalogue", ".parquet") for key, shard in _pairs(read_table(storage, path))
    }
    if catalogue != found:
        odd = sorted(set(catalogue.items()) ^ set(found.items()))
        verdict.problems.append(f"catalogue and shards disagree on {len(odd)} entries, first {odd[0]}; run humo pack")
    ledger = read_ledger(storage)
    accepted = {
        row["record_id"] for row in ledger.select(["record_id", "outcome"]).to_pylist() if row["outcome"] == "accepted"
    } - read_tombstones(storage)
    if len(ledger) and accepted != set(found):
        odd_keys = sorted(accepted ^ set(found))
        verdict.problems.append(
            f"ledger and shards disagree on {len(odd_keys)} keys, first {odd_keys[0]}; run humo pack"
        )


def _pairs(table: Any) -> list[tuple[str, str]]:
    return list(zip(table.column("key").to_pylist(), table.column("shard").to_pylist(), strict=True))
