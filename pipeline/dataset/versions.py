"""Versions of a dataset: each packing records its list of commits, so that versions can be listed, compared and rebuilt."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.dataset.purge import proof_path
from schemas.dataset import DatasetDescription, ShardEntry, parse_description, read_description, read_tombstones
from schemas.errors import HumoError, UsageError
from schemas.ids import digest
from schemas.ledger import current_rows, read_history
from schemas.storage import Storage


@dataclass(frozen=True, kw_only=True)
class Version:
    """Content of versions/VERSION.json."""

    version: str
    before: str
    """The previous version of the dataset; empty for the first."""
    humo: str
    commits: list[str]
    """The current commits at that time."""
    tombstones: int
    """Number of samples removed by then."""
    removals: str
    """Path of the proof that lists their keys; empty if there were none."""
    splits: dict[str, float]
    shard_bytes: int
    config_digests: list[str]
    body_models: list[str]
    counts: dict[str, Any] = field(default_factory=dict)
    shards: list[ShardEntry] = field(default_factory=list)
    checksum: str = ""
    """Of all the rest (`encode_version`); empty in files that were written without one."""


@dataclass(frozen=True, kw_only=True)
class Difference:
    """Sources and samples added and removed between two versions."""

    sources_came: list[str]
    sources_went: list[str]
    sources_changed: list[str]
    """In both, but from different commits."""
    samples_came: list[str]
    samples_went: list[str]


def version_id(ledger: pa.Table, removed: set[str], splits: Mapping[str, float], shard_bytes: int) -> str:
    """Digest of everything a packed dataset depends on: current commits, removals and packing settings."""
    return digest(*commits_of(ledger), sorted(removed), sorted(splits.items()), shard_bytes, digits=16)


def commits_of(ledger: pa.Table) -> list[str]:
    """Sorted names of all commits with a row in the ledger."""
    return sorted(pc.unique(ledger.column("commit")).to_pylist())


def record_version(storage: Storage, description: DatasetDescription, ledger: pa.Table, before: str) -> None:
    """Record the commits of this packing, unless the version is already recorded with these shards."""
    path = _path(description.version)
    if storage.exists(path):
        recorded = read_version(storage, description.version)
        if recorded.shards == description.shards:
            return
        before = recorded.before  # names of shards may differ: see `write_shards`
    removed = read_tombstones(storage)
    record = Version(
        version=description.version, before="" if before == description.version else before, humo=description.humo,
        commits=commits_of(ledger), tombstones=len(removed), removals=proof_path(removed) if removed else "",
        splits=description.splits, shard_bytes=description.shard_bytes, config_digests=description.config_digests,
        body_models=description.body_models, counts=description.counts, shards=description.shards,
    )  # fmt: skip
    storage.write_bytes(path, encode_version(asdict(record)))


def encode_version(content: Mapping[str, Any]) -> bytes:
    """The file of a version, with its checksum."""
    content = {**content, "checksum": checksum(content)}
    return (json.dumps(content, indent=1, sort_keys=True, ensure_ascii=False) + "\n").encode()


def checksum(content: Mapping[str, Any]) -> str:
    """Digest of a version's content besides its checksum. Nothing else names an earlier version's counts and shards, so that a
    changed value would go unnoticed."""
    rest = {name: value for name, value in content.items() if name != "checksum"}
    return digest(json.dumps(rest, sort_keys=True), digits=32)


def read_version(storage: Storage, name: str) -> Version:
    """One version by its name or a prefix of it; raises UsageError if none or several match."""
    names = [path.removeprefix("versions/").removesuffix(".json") for path in storage.list("versions", ".json")]
    matches = [one for one in names if one == name] or [one for one in names if name and one.startswith(name)]
    if len(matches) != 1:
        problem = "several versions begin with" if matches else "no version"
        known = ", ".join(matches or names) or "none; run humo pack"
        raise UsageError(f"{storage.uri}: {problem} {name!r}; known: {known}")
    try:
        return parse_description(json.loads(storage.read_bytes(_path(matches[0]))), _path(matches[0]), Version)
    except (ValueError, RecursionError) as error:
        raise HumoError(
            f"{storage.uri}/{_path(matches[0])}: not a version ({error}); delete it and run humo pack"
        ) from None


def list_versions(storage: Storage) -> list[Version]:
    """All versions, each after its predecessor, so that the current one is usually last."""
    paths = storage.list("versions", ".json")
    known = {one.version: one for one in (read_version(storage, path[len("versions/") : -5]) for path in paths)}
    ordered: list[Version] = []
    while known:
        placed = {one.version for one in ordered}
        ready = [one for one in known.values() if one.before in placed or one.before not in known]
        one = min(ready or known.values(), key=lambda version: version.version)
        ordered.append(known.pop(one.version))
    return ordered


def rows_of(storage: Storage, version: Version) -> pa.Table:
    """Decisions of a version, with their outcomes in the present ledger (samples removed since are `removed`).

    Raises HumoError if the ledger no longer has a commit of the version.
    """
    history = read_history(storage)
    missing = sorted(set(version.commits) - set(commits_of(history)))
    if missing:
        raise HumoError(
            f"{storage.uri}: {len(missing)} commits of version {version.version}, such as {missing[0]}, are missing from the "
            "ledger; restore ledger/ from a copy"
        )
    return current_rows(
        history.filter(pc.is_in(history.column("commit"), value_set=pa.array(version.commits, pa.string())))
    )


def difference(storage: Storage, one: str, other: str) -> Difference:
    """Differences from version `one` to version `other`."""
    (sources_a, samples_a), (sources_b, samples_b) = (
        _sources_and_samples(storage, read_version(storage, name)) for name in (one, other)
    )
    return Difference(
        sources_came=sorted(sources_b.keys() - sources_a.keys()),
        sources_went=sorted(sources_a.keys() - sources_b.keys()),
        sources_changed=sorted(
            name for name in sources_a.keys() & sources_b.keys() if sources_a[name] != sources_b[name]
        ),
        samples_came=sorted(samples_b - samples_a),
        samples_went=sorted(samples_a - samples_b),
    )


def _sources_and_samples(storage: Storage, version: Version) -> tuple[dict[str, str], set[str]]:
    """Source with samples -> its commit, and the keys of the samples."""
    rows = rows_of(storage, version).select(["source_id", "record_id", "outcome", "commit"]).to_pylist()
    removed = _removed_by(storage, version)
    live = [row for row in rows if row["outcome"] in ("accepted", "removed") and row["record_id"] not in removed]
    return {row["source_id"]: row["commit"] for row in live}, {row["record_id"] for row in live}


def _removed_by(storage: Storage, version: Version) -> set[str]:
    if not version.removals:
        return set()
    try:
        return set(json.loads(storage.read_bytes(version.removals))["removed"])
    except (FileNotFoundError, ValueError, KeyError):
        raise HumoError(
            f"{storage.uri}/{version.removals}: missing or unreadable, so the samples of version {version.version} are "
            "unknown; restore it from a copy"
        ) from None


def versions_text(versions: Sequence[Version], current: str) -> str:
    """One line per version; the current one is marked."""
    lines = [f"  {'version':16}  {'from':16}  {'samples':>9}  {'hours':>9}  {'commits':>8}  {'removed':>8}"]
    for one in versions:
        mark = "*" if one.version == current else " "
        live, hours = one.counts.get("live", 0), one.counts.get("hours", 0.0)
        sizes = f"{live:>9,}  {hours:>9,.3f}  {len(one.commits):>8,}  {one.tombstones:>8,}"
        lines.append(f"{mark} {one.version:16}  {one.before or '-':16}  {sizes}")
    return "\n".join(lines)


def difference_text(changes: Difference, max_shown: int = 20) -> str:
    """Differences for a terminal, with the first names of each kind."""
    lines = []
    for name, items in asdict(changes).items():
        shown = ", ".join(items[:max_shown]) + (f" and {len(items) - max_shown} more" if len(items) > max_shown else "")
        lines.append(f"{name.replace('_', ' ')}: {len(items)}" + (f"  {shown}" if items else ""))
    return "\n".join(lines)


def current_version(storage: Storage) -> str:
    """Version of the packed dataset."""
    return read_description(storage).version


def _path(name: str) -> str:
    return f"versions/{name}.json"
