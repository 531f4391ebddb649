"""Proof that a dataset is whole: every shard, every sample, every member, and the books agree."""

import contextlib
import io
import json
from collections import defaultdict
from dataclasses import dataclass, field
from typing import Any

import av

from pipeline.dataset.purge import keys_of_tar, pages_with, proof_path, scan
from pipeline.dataset.versions import list_versions, rows_of
from schemas.dataset import DatasetDescription, ShardEntry, read_description, read_table, read_tombstones
from schemas.errors import HumoError
from schemas.ledger import read_history, read_ledger
from schemas.sample import contents_of, sample_problems
from schemas.shards import read_samples
from schemas.storage import Storage


@dataclass
class VerifyReport:
    """What `humo verify` found."""

    shards: int = 0
    samples: int = 0
    parts: int = 0
    problems: list[str] = field(default_factory=list)


def verify(dataset: str) -> VerifyReport:
    """Check hashes, counts, schema, that every member decodes, that catalogue, ledger and parts tell the same, the splits, that
    nothing is left of what was removed, and the versions."""
    storage = Storage(dataset)
    description = read_description(storage)
    verdict = VerifyReport()
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
    _check_removals(storage, verdict)
    if storage.list("ledger", ".parquet"):  # a published copy has none
        _check_parts(storage, verdict)
        _check_versions(storage, description, verdict)
    return verdict


def _check_shard(storage: Storage, shard: ShardEntry, verdict: VerifyReport) -> list[tuple[str, dict[str, Any]]]:
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


def _check_books(storage: Storage, found: dict[str, str], verdict: VerifyReport) -> None:
    """Catalogue and ledger against what is in the shards."""
    tables = [_pairs(read_table(storage, path)) for path in storage.list("catalogue", ".parquet")]
    catalogue = {key: shard for pairs in tables for key, shard in pairs}
    if sum(map(len, tables)) != len(catalogue):
        verdict.problems.append("catalogue: has samples twice; run humo pack")
    if catalogue != found:
        odd = sorted(set(catalogue.items()) ^ set(found.items()))
        verdict.problems.append(f"catalogue and shards disagree on {len(odd)} entries, first {odd[0]}; run humo pack")
    ledger = read_ledger(storage).select(["record_id", "outcome"]).to_pylist()
    accepted = {row["record_id"] for row in ledger if row["outcome"] == "accepted"}
    odd_keys = sorted((accepted ^ set(found)) - read_tombstones(storage)) if ledger else []
    if odd_keys:
        verdict.problems.append(
            f"ledger and shards disagree on {len(odd_keys)} keys, first {odd_keys[0]}; run humo pack"
        )


def _check_parts(storage: Storage, verdict: VerifyReport) -> None:
    """Every part that the ledger names: there, with its very bytes and samples."""
    rows = read_history(storage).select(["part", "part_sha256", "record_id"]).to_pylist()
    named: dict[str, tuple[str, set[str]]] = {}
    for row in rows:
        if row["part"]:
            named.setdefault(row["part"], (row["part_sha256"], set()))[1].add(row["record_id"])
    for part, (sha256, keys) in sorted(named.items()):
        verdict.parts += 1
        try:
            there, found = keys_of_tar(storage, part)
        except FileNotFoundError:
            verdict.problems.append(f"{part}: is missing, though the ledger names it; restore it from a copy")
            continue
        except HumoError as error:
            verdict.problems.append(str(error))
            continue
        if found != sha256:
            verdict.problems.append(f"{part}: its bytes are not those that were committed (sha256 differs); restore it")
        if there != keys:
            odd = sorted(there ^ keys)
            verdict.problems.append(f"{part}: ledger and part disagree on {len(odd)} samples, first {odd[0]}")


def _check_removals(storage: Storage, verdict: VerifyReport) -> None:
    """Nothing is left of what was removed, and there is a proof of it."""
    removed = read_tombstones(storage)
    if not removed:
        return
    left = []
    with contextlib.suppress(HumoError):  # a file that does not read is told of already
        left = [one for one in scan(storage, removed) if one.found]
    keys = {key for one in left for key in one.found}
    if keys:
        verdict.problems.append(
            f"{left[0].path}: still holds {min(left[0].found)}, which was removed ({len(keys)} such samples in {len(left)} "
            "files); run humo pack"
        )
    elif not storage.exists(proof_path(removed)):
        verdict.problems.append(f"{proof_path(removed)}: the proof of the last removal is missing; run humo pack")
    for page in pages_with(storage, removed):
        verdict.problems.append(f"{page}: shows a sample that was removed; run humo pack, or delete it")


def _check_versions(storage: Storage, description: DatasetDescription, verdict: VerifyReport) -> None:
    """The dataset's own version is on record, and every version can still be told."""
    versions = list_versions(storage)
    for one in versions:
        try:
            rows_of(storage, one)
        except HumoError as error:
            verdict.problems.append(str(error))
    mine = [one for one in versions if one.version == description.version]
    if not mine:
        verdict.problems.append(f"versions/{description.version}.json: is missing; run humo pack")
    elif (mine[0].shards, mine[0].counts) != (description.shards, description.counts):
        verdict.problems.append(f"versions/{description.version}.json and dataset.json disagree; run humo pack")


def _pairs(table: Any) -> list[tuple[str, str]]:
    return list(zip(table.column("key").to_pylist(), table.column("shard").to_pylist(), strict=True))
