"""Deletes removed samples permanently from the parts, and proves that nothing of them is left.

Every step leaves a readable dataset and is idempotent: parts without the removed samples are written beside the old ones, then
each ledger file is replaced by one that names the new parts, then the old parts, which nothing names any more, are deleted. It
runs under a lease (`pipeline.dataset.lease`), so no commit is in progress.
"""

import hashlib
import io
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc

from pipeline import __version__
from pipeline.dataset.commits import part_path
from pipeline.dataset.maintenance import GRACE_S, older_than, orphans, unreferenced
from pipeline.dataset.shard_writer import read_sample_tar
from schemas.dataset import DatasetDescription, read_causes, read_rules, read_table, read_tombstones
from schemas.errors import HumoError
from schemas.ids import KEY_DIGITS, digest
from schemas.ledger import LEDGER, ledger_bytes, read_history, read_ledger_bytes
from schemas.shards import read_samples, write_tar
from schemas.storage import PARTIAL, Storage

_KEY = re.compile(rb"(?<![0-9a-f])[0-9a-f]{%d}(?![0-9a-f])" % KEY_DIGITS)


class _RewrittenPart(NamedTuple):
    """The replacement of a part."""

    part: str
    """Empty if no sample is left."""
    sha256: str
    spans: dict[str, tuple[int, int]]
    """Key -> offset and length."""


def purge(storage: Storage) -> int:
    """Rewrite every part that holds a removed sample, and the ledger; returns the number of rewritten parts.

    Raises HumoError if such a part is missing or altered.
    """
    removed = read_tombstones(storage)
    if not removed:
        return 0
    causes = read_causes(storage)
    tables = {
        path: read_ledger_bytes(storage.read_bytes(path), f"{storage.uri}/{path}")
        for path in storage.list("ledger", ".parquet")
    }
    rewritten: dict[str, _RewrittenPart] = {}
    for rows in _affected_parts(pa.concat_tables(tables.values() or [LEDGER.empty_table()]), removed):
        rewritten[rows[0]["part"]] = _rewrite(storage, rows, removed)
    for path, table in tables.items():
        if set(pc.unique(table.column("part")).to_pylist()) & rewritten.keys():
            storage.write_bytes(path, ledger_bytes(_updated_rows(table, rewritten, removed, causes)))
    _sweep(storage, removed)
    return len(rewritten)


def _affected_parts(ledger: pa.Table, removed: set[str]) -> Iterator[list[dict[str, Any]]]:
    """Rows of each part that holds a removed sample, by their offset."""
    accepted = ledger.filter(
        pc.and_(pc.equal(ledger.column("outcome"), "accepted"), pc.not_equal(ledger.column("part"), ""))
    )
    affected = accepted.filter(pc.is_in(accepted.column("record_id"), value_set=pa.array(sorted(removed), pa.string())))
    names = pc.unique(affected.column("part"))
    rows = accepted.filter(pc.is_in(accepted.column("part"), value_set=names)).to_pylist()
    parts: dict[str, dict[str, dict[str, Any]]] = {}
    for row in rows:  # a commit may be both in a merged file and in its own
        parts.setdefault(row["part"], {})[row["record_id"]] = row
    for _, part_rows in sorted(parts.items()):
        yield sorted(part_rows.values(), key=lambda row: row["offset"])


def _rewrite(storage: Storage, rows: list[dict[str, Any]], removed: set[str]) -> _RewrittenPart:
    kept = [row for row in rows if row["record_id"] not in removed]
    if not kept:
        return _RewrittenPart("", "", {})
    buffer = io.BytesIO()
    content = write_tar(buffer, (read_sample_tar(storage, row) for row in kept))
    part = part_path(storage, kept[0]["commit"], content.sha256)
    if not storage.exists(part):
        storage.write_bytes(part, buffer.getvalue())
    spans = {row["record_id"]: span for row, span in zip(kept, content.spans, strict=True)}
    return _RewrittenPart(part, content.sha256, spans)


def _updated_rows(
    table: pa.Table, rewritten: Mapping[str, _RewrittenPart], removed: set[str], causes: Mapping[str, str]
) -> pa.Table:
    columns = {name: table.column(name).to_pylist() for name in LEDGER.names}
    for index, (part, key, outcome) in enumerate(
        zip(columns["part"], columns["record_id"], columns["outcome"], strict=True)
    ):
        if part not in rewritten or outcome != "accepted":
            continue
        new: dict[str, Any]
        if key in removed:
            new = {"outcome": "removed", "stage": "remove", "reason": "tombstone", "detail": causes.get(key, "")}
            new |= {"part": "", "part_sha256": "", "record_sha256": "", "offset": 0, "length": 0}
        else:
            part_name, sha256, spans = rewritten[part]
            offset, length = spans[key]
            new = {"part": part_name, "part_sha256": sha256, "offset": offset, "length": length}
        for name, value in new.items():
            columns[name][index] = value
    return pa.table(columns, schema=LEDGER)


def _sweep(storage: Storage, removed: set[str]) -> None:
    """Delete orphans and unfinished files that may hold removed samples, of any age, and pages that show them."""
    paths = [
        path
        for path in orphans(storage, read_history(storage))
        if path.endswith(PARTIAL) or removed & keys_if_readable(storage, path, removed)
    ]
    storage.delete_all(paths + pages_with(storage, removed))


def delete_unreferenced(
    storage: Storage, description: DatasetDescription, *, removed: set[str], grace_s: float = GRACE_S
) -> list[str]:
    """Delete shards and tables that dataset.json does not name: those older than the grace, and at once those with removed samples.

    Returns the paths of the deleted files.
    """
    paths = unreferenced(storage, description)
    old = older_than(storage, paths, grace_s)
    old += [
        path for path in paths if path not in old and removed and removed & keys_if_readable(storage, path, removed)
    ]
    storage.delete_all(old)
    return old


def keys_if_readable(storage: Storage, path: str, default: set[str]) -> set[str]:
    """Keys in an orphan or in a table that nothing names; an unreadable one may hold any, so `default` is returned."""
    try:
        if path.endswith(".parquet"):
            return set(read_table(storage, path).column("key").to_pylist())
        return keys_of_tar(storage, path)[0]
    except FileNotFoundError:
        return set()
    except (HumoError, ValueError, KeyError):
        return default


def pages_with(storage: Storage, removed: set[str]) -> list[str]:
    """Report pages that show any of these samples."""
    names = {key.encode() for key in removed}
    pages = storage.list("report", ".html")
    return [path for path in pages if names & set(_KEY.findall(storage.read_bytes(path)))]


@dataclass(frozen=True, kw_only=True)
class Scan:
    """Scan result of one file."""

    path: str
    sha256: str
    removed_keys: list[str]
    """Keys of removed samples in the file."""


def scan(storage: Storage, removed: set[str]) -> Iterator[Scan]:
    """Scan the content of every shard, part, catalogue table and table of codes: members of tars, keys of tables."""
    for path in storage.list("shards", ".tar") + storage.list("parts", ".tar"):
        keys, sha256 = keys_of_tar(storage, path)
        yield Scan(path=path, sha256=sha256, removed_keys=sorted(keys & removed))
    for path in storage.list("catalogue", ".parquet") + storage.list("codes", ".parquet"):
        keys = set(read_table(storage, path).column("key").to_pylist())
        yield Scan(path=path, sha256=storage.sha256(path), removed_keys=sorted(keys & removed))


def proof_path(removed: Iterable[str]) -> str:
    """Path of the proof of removal of these keys."""
    return f"removals/{digest(*sorted(removed), digits=16)}.json"


def write_removal_proof(storage: Storage, version: str) -> None:
    """Scan all files for removed samples and write the result as removals/DIGEST.json.

    Raises HumoError if a removed sample is left.
    """
    removed = read_tombstones(storage)
    if not removed:
        return
    scans = list(scan(storage, removed))
    remaining = [(one.path, key) for one in scans for key in one.removed_keys]
    if remaining:
        raise HumoError(
            f"{storage.uri}/{remaining[0][0]}: still holds {remaining[0][1]}, which was removed "
            f"({len(remaining)} occurrences in all); run humo pack {storage.uri}"
        )
    causes = read_causes(storage)
    content = {
        "humo": __version__,
        "version": version,
        "removed": {key: causes.get(key, "") for key in sorted(removed)},
        "rules": sorted(read_rules(storage)),
        "scanned": {one.path: one.sha256 for one in scans},
        "found": 0,
    }
    storage.write_bytes(proof_path(removed), (json.dumps(content, indent=1, ensure_ascii=False) + "\n").encode())


def keys_of_tar(storage: Storage, path: str) -> tuple[set[str], str]:
    """Keys of the samples in a tar and its sha256, in one pass; raises HumoError for what is no tar, or a device."""
    if storage.exists(path) and not storage.fs.isfile(storage.path(path)):
        raise HumoError(f"{storage.uri}/{path}: is not a file; restore it from a copy")
    total = hashlib.sha256()
    with storage.open(path) as file:
        reader = _HashingReader(file, total)
        keys = {key for key, _ in read_samples(reader, f"{storage.uri}/{path}")}
        while reader.read(1 << 20):
            pass
    return keys, total.hexdigest()


class _HashingReader:
    """Hashes the bytes that it reads."""

    def __init__(self, file: Any, total: Any) -> None:
        self.file, self.total = file, total

    def read(self, size: int = -1, /) -> bytes:
        chunk: bytes = self.file.read(size)
        self.total.update(chunk)
        return chunk
