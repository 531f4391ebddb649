"""Verifies a dataset: shards, samples, members, and that catalogue, ledger and parts are consistent."""

import contextlib
import io
import json
from collections import defaultdict
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from functools import partial
from typing import Any

import av
import pyarrow as pa

from pipeline.dataset.catalogue import catalogue_row
from pipeline.dataset.purge import keys_of_tar, pages_with, proof_path, scan
from pipeline.dataset.redact import secret_members, secret_problems
from pipeline.dataset.table_checks import catalogue_problems, ledger_problems, proof_problems
from pipeline.dataset.versions import checksum, list_versions, rows_of
from schemas.containers import CLIP_FORMATS, open_media
from schemas.dataset import DatasetDescription, ShardEntry, read_description, read_table, read_tombstones
from schemas.errors import HumoError
from schemas.ledger import read_history, read_ledger
from schemas.sample import contents_of, sample_problems
from schemas.shards import encode_sample, read_samples
from schemas.storage import Storage

_MAX_CLIP_SIDE_PX = 4096
_MAX_CLIP_FRAMES = 100_000
"""Far beyond what `encode_clip` writes; a clip that claims more is not decoded to its end."""


_VERSIONED = ("shards", "counts", "humo", "splits", "shard_bytes", "config_digests", "body_models")
"""Fields that dataset.json and its version have in common."""


@dataclass
class VerifyReport:
    """Result of `humo verify`."""

    shards: int = 0
    samples: int = 0
    parts: int = 0
    problems: list[str] = field(default_factory=list)


def verify(dataset: str) -> VerifyReport:
    """Check hashes, counts, schema, decoding of every member, consistency of catalogue, ledger and parts, splits, removals and
    versions."""
    storage = Storage(dataset)
    description = read_description(storage)
    report = VerifyReport()
    split_by_source: dict[str, set[str]] = defaultdict(set)
    shard_of: dict[str, str] = {}
    for shard in description.shards:
        report.shards += 1
        for key, meta in _check_shard(storage, shard, report):
            if key in shard_of:
                report.problems.append(f"{shard.path}: sample {key} is also in {shard_of[key]}")
            shard_of[key] = shard.path
            for sha256 in contents_of(meta) if meta else ():
                split_by_source[sha256].add(shard.split)
    report.samples = len(shard_of)
    for sha256, splits in split_by_source.items():
        if len(splits) > 1:
            report.problems.append(
                f"source with content hash {sha256[:12]} is in several splits: {', '.join(sorted(splits))}"
            )
    checks: list[Callable[[], list[str] | None]] = [
        partial(_check_tables, storage, description, shard_of, report),
        partial(_check_removals, storage, report),
        lambda: secret_problems(storage, read_history(storage)),
        partial(proof_problems, storage, description),
    ]
    if storage.list("ledger", ".parquet"):  # a published copy has none
        checks += [
            partial(ledger_problems, storage),
            partial(_check_parts, storage, report),
            partial(_check_versions, storage, description, report),
        ]
    for check in checks:
        try:
            report.problems += check() or []
        except (
            HumoError,
            OSError,
            ValueError,
            LookupError,
            TypeError,
            pa.ArrowException,
        ) as error:  # other checks go on
            problem = " ".join(str(error).split())[:1000]
            report.problems.append(problem if isinstance(error, HumoError) else f"{type(error).__name__}: {problem}")
    report.problems = list(dict.fromkeys(report.problems))
    return report


def _check_shard(storage: Storage, shard: ShardEntry, report: VerifyReport) -> list[tuple[str, dict[str, Any]]]:
    if not storage.exists(shard.path):
        report.problems.append(f"{shard.path}: is missing; run humo pack")
        return []
    if not storage.fs.isfile(storage.path(shard.path)):
        report.problems.append(f"{shard.path}: is not a file; run humo pack")
        return []
    size = storage.fs.size(storage.path(shard.path))
    if size != shard.bytes:
        report.problems.append(f"{shard.path}: has {size} bytes, dataset.json says {shard.bytes}; run humo pack")
    if storage.sha256(shard.path) != shard.sha256:
        report.problems.append(f"{shard.path}: its bytes differ from the packed ones (sha256 differs); run humo pack")
    checked: list[tuple[str, dict[str, Any]]] = []
    rows: list[dict[str, Any]] = []
    secrets: list[tuple[str, str]] = []
    try:
        with storage.open(shard.path) as file:
            for key, members in read_samples(file, shard.path):
                problems = sample_problems(key, members, shard.subset)
                if not problems and "clip.mp4" in members:
                    problems = clip_problems(members["clip.mp4"])
                report.problems += [f"{shard.path}: sample {key}: {problem}" for problem in problems]
                secrets += [(key, member) for member in ([] if problems else secret_members(members))]
                checked.append((key, {} if problems else json.loads(members["meta.json"])))
                if not problems:
                    rows.append(catalogue_row(encode_sample(key, members), shard.subset, shard.split, shard.path))
        report.problems += catalogue_problems(storage, shard, rows)
    except (HumoError, OSError, ValueError, LookupError, TypeError, pa.ArrowException) as error:
        report.problems.append(str(error) if isinstance(error, HumoError) else f"{shard.path}: {error!r}")
    if secrets:
        report.problems.append(
            f"{shard.path}: {len({key for key, _ in secrets})} samples, such as {secrets[0][0]}, hold secrets in "
            f"{', '.join(sorted({member for _, member in secrets}))}; run humo pack --redact"
        )
    if len(checked) != shard.samples:
        report.problems.append(
            f"{shard.path}: holds {len(checked)} samples, dataset.json says {shard.samples}; run humo pack"
        )
    return checked


def clip_problems(content: bytes) -> list[str]:
    """Problems that decoding the whole clip reveals."""
    try:
        with open_media(io.BytesIO(content), CLIP_FORMATS) as container:
            frames = 0
            for frame in container.decode(video=0):
                frames += 1
                if max(frame.width, frame.height) > _MAX_CLIP_SIDE_PX or frames > _MAX_CLIP_FRAMES:
                    return [f"clip.mp4 has a frame {frames} of {frame.width} x {frame.height} pixels"]
    except (av.FFmpegError, IndexError, ValueError, MemoryError) as error:
        return [f"clip.mp4 does not decode: {error}"]
    return [] if frames else ["clip.mp4 holds no frame"]


def _check_tables(
    storage: Storage, description: DatasetDescription, shard_of: dict[str, str], report: VerifyReport
) -> None:
    """Compare catalogue and ledger with the shards."""
    named = {shard.path for shard in description.shards}  # tables of replaced shards are deleted later
    tables = [
        [pair for pair in _key_shard_pairs(read_table(storage, path)) if pair[1] in named]
        for path in storage.list("catalogue", ".parquet")
    ]
    catalogue = {key: shard for pairs in tables for key, shard in pairs}
    if sum(map(len, tables)) != len(catalogue):
        report.problems.append("catalogue: has duplicate samples; run humo pack")
    if catalogue != shard_of:
        differing = sorted(set(catalogue.items()) ^ set(shard_of.items()))
        report.problems.append(
            f"catalogue and shards disagree on {len(differing)} entries, first {differing[0]}; run humo pack"
        )
    ledger = read_ledger(storage).select(["record_id", "outcome"]).to_pylist()
    accepted = {row["record_id"] for row in ledger if row["outcome"] == "accepted"}
    differing_keys = sorted((accepted ^ set(shard_of)) - read_tombstones(storage)) if ledger else []
    if differing_keys:
        report.problems.append(
            f"ledger and shards disagree on {len(differing_keys)} keys, first {differing_keys[0]}; run humo pack"
        )


def _check_parts(storage: Storage, report: VerifyReport) -> None:
    """Check every part in the ledger: it exists with the recorded bytes and samples."""
    rows = read_history(storage).select(["part", "part_sha256", "record_id"]).to_pylist()
    parts: dict[str, tuple[str, set[str]]] = {}
    for row in rows:
        if row["part"]:
            parts.setdefault(row["part"], (row["part_sha256"], set()))[1].add(row["record_id"])
    for part, (sha256, keys) in sorted(parts.items()):
        report.parts += 1
        try:
            actual_keys, actual_sha256 = keys_of_tar(storage, part)
        except FileNotFoundError:
            report.problems.append(f"{part}: is missing, but the ledger names it; restore it from a copy")
            continue
        except HumoError as error:
            report.problems.append(str(error))
            continue
        if actual_sha256 != sha256:
            report.problems.append(f"{part}: its bytes differ from the committed ones (sha256 differs); restore it")
        if actual_keys != keys:
            differing = sorted(actual_keys ^ keys)
            report.problems.append(
                f"{part}: ledger and part disagree on {len(differing)} samples, first {differing[0]}"
            )


def _check_removals(storage: Storage, report: VerifyReport) -> None:
    """Check that nothing of removed samples is left and that the proof of removal exists."""
    removed = read_tombstones(storage)
    if not removed:
        return
    remaining = []
    with contextlib.suppress(HumoError):  # unreadable files are already reported
        remaining = [one for one in scan(storage, removed) if one.removed_keys]
    keys = {key for one in remaining for key in one.removed_keys}
    if keys:
        report.problems.append(
            f"{remaining[0].path}: still holds {min(remaining[0].removed_keys)}, which was removed "
            f"({len(keys)} such samples in {len(remaining)} files); run humo pack"
        )
    elif not storage.exists(proof_path(removed)):
        report.problems.append(f"{proof_path(removed)}: the proof of the last removal is missing; run humo pack")
    for page in pages_with(storage, removed):
        report.problems.append(f"{page}: shows a sample that was removed; run humo pack, or delete it")


def _check_versions(storage: Storage, description: DatasetDescription, report: VerifyReport) -> None:
    """Check that versions are as they were written, the current one is recorded, and the ledger still has all their commits."""
    versions = list_versions(storage)
    for one in versions:
        if one.checksum and one.checksum != checksum(asdict(one)):
            report.problems.append(f"versions/{one.version}.json: was changed; restore it from a copy")
        try:
            rows_of(storage, one)
        except HumoError as error:
            report.problems.append(str(error))
    names = {one.version for one in versions}
    report.problems += [
        f"versions/{one.before}.json: is missing, though {one.version} was made from it; restore it from a copy"
        for one in versions
        if one.before and one.before not in names
    ]
    current = [one for one in versions if one.version == description.version]
    if not current:
        report.problems.append(f"versions/{description.version}.json: is missing; run humo pack")
    elif any(getattr(current[0], name) != getattr(description, name) for name in _VERSIONED):
        report.problems.append(f"versions/{description.version}.json and dataset.json disagree; run humo pack")


def _key_shard_pairs(table: Any) -> list[tuple[str, str]]:
    return list(zip(table.column("key").to_pylist(), table.column("shard").to_pylist(), strict=True))
