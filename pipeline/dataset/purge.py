"""Removed samples out of the parts for good, and the proof that nothing of them is left.

Every step leaves a dataset that reads, and is found done when it is run again: parts without the removed samples are written
beside the old ones, then each ledger file is replaced by one that names them, then the old parts go, which nothing names any
more. It is done under a lease (`pipeline.dataset.lease`), so no commit is under way meanwhile.
"""

import contextlib
import hashlib
import io
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipeline import __version__
from pipeline.dataset.maintenance import orphans
from pipeline.dataset.shard_writer import read_sample_tar
from schemas.dataset import read_causes, read_rules, read_table, read_tombstones
from schemas.errors import HumoError
from schemas.ids import KEY_DIGITS, digest
from schemas.ledger import LEDGER, ledger_bytes, read_history
from schemas.shards import read_samples, write_tar
from schemas.storage import PARTIAL, Storage

_KEY = re.compile(rb"(?<![0-9a-f])[0-9a-f]{%d}(?![0-9a-f])" % KEY_DIGITS)


class _Renewed(NamedTuple):
    """The part that takes another's place."""

    part: str
    """Empty where no sample was left."""
    sha256: str
    spans: dict[str, tuple[int, int]]
    """Key -> offset and length."""


def purge(storage: Storage) -> int:
    """Rewrite every part that holds a removed sample, and the ledger with it; returns how many parts were rewritten.

    Raises HumoError where such a part is missing or altered.
    """
    removed = read_tombstones(storage)
    if not removed:
        return 0
    causes = read_causes(storage)
    tables = {
        path: pq.read_table(io.BytesIO(storage.read_bytes(path)), schema=LEDGER)
        for path in storage.list("ledger", ".parquet")
    }
    renewed: dict[str, _Renewed] = {}
    for rows in _touched(pa.concat_tables(tables.values() or [LEDGER.empty_table()]), removed):
        renewed[rows[0]["part"]] = _renew(storage, rows, removed)
    for path, table in tables.items():
        if set(pc.unique(table.column("part")).to_pylist()) & renewed.keys():
            storage.write_bytes(path, ledger_bytes(_amended(table, renewed, removed, causes)))
    _sweep(storage, removed)
    return len(renewed)


def _touched(ledger: pa.Table, removed: set[str]) -> Iterator[list[dict[str, Any]]]:
    """The rows of each part that holds a removed sample, in their order in it."""
    held = ledger.filter(
        pc.and_(pc.equal(ledger.column("outcome"), "accepted"), pc.not_equal(ledger.column("part"), ""))
    )
    gone = held.filter(pc.is_in(held.column("record_id"), value_set=pa.array(sorted(removed), pa.string())))
    names = pc.unique(gone.column("part"))
    rows = held.filter(pc.is_in(held.column("part"), value_set=names)).to_pylist()
    parts: dict[str, dict[str, dict[str, Any]]] = {}
    for row in rows:  # a commit may stand in a merged file and in its own
        parts.setdefault(row["part"], {})[row["record_id"]] = row
    for _, found in sorted(parts.items()):
        yield sorted(found.values(), key=lambda row: row["offset"])


def _renew(storage: Storage, rows: list[dict[str, Any]], removed: set[str]) -> _Renewed:
    kept = [row for row in rows if row["record_id"] not in removed]
    if not kept:
        return _Renewed("", "", {})
    buffer = io.BytesIO()
    content = write_tar(buffer, (read_sample_tar(storage, row) for row in kept))
    part = f"parts/{kept[0]['commit']}-{content.sha256[:12]}.tar"
    if not storage.exists(part):
        storage.write_bytes(part, buffer.getvalue())
    spans = {row["record_id"]: span for row, span in zip(kept, content.spans, strict=True)}
    return _Renewed(part, content.sha256, spans)


def _amended(
    table: pa.Table, renewed: Mapping[str, _Renewed], removed: set[str], causes: Mapping[str, str]
) -> pa.Table:
    columns = {name: table.column(name).to_pylist() for name in LEDGER.names}
    for place, (part, key, outcome) in enumerate(
        zip(columns["part"], columns["record_id"], columns["outcome"], strict=True)
    ):
        if part not in renewed or outcome != "accepted":
            continue
        new: dict[str, Any]
        if key in removed:
            new = {"outcome": "removed", "stage": "remove", "reason": "tombstone", "detail": causes.get(key, "")}
            new |= {"part": "", "part_sha256": "", "record_sha256": "", "offset": 0, "length": 0}
        else:
            offset, length = renewed[part].spans[key]
            new = {"part": renewed[part].part, "part_sha256": renewed[part].sha256, "offset": offset, "length": length}
        for name, value in new.items():
            columns[name][place] = value
    return pa.table(columns, schema=LEDGER)


def _sweep(storage: Storage, removed: set[str]) -> None:
    """Delete what no commit names and what was never finished, where it may hold removed samples; pages that show them."""
    for path in orphans(storage, read_history(storage)):
        if path.endswith(PARTIAL) or removed & _keys_if_whole(storage, path, removed):
            with contextlib.suppress(FileNotFoundError):
                storage.delete(path)
    for path in pages_with(storage, removed):
        storage.delete(path)


def _keys_if_whole(storage: Storage, path: str, otherwise: set[str]) -> set[str]:
    """Of an orphan; one that does not read may hold anything."""
    try:
        return keys_of_tar(storage, path)[0]
    except HumoError:
        return otherwise


def pages_with(storage: Storage, removed: set[str]) -> list[str]:
    """Pages in the dataset that show any of these samples."""
    names = {key.encode() for key in removed}
    pages = storage.list("report", ".html")
    return [path for path in pages if names & set(_KEY.findall(storage.read_bytes(path)))]


@dataclass(frozen=True, kw_only=True)
class Scan:
    """One file as it was looked through."""

    path: str
    sha256: str
    found: list[str]
    """Keys of removed samples in it."""


def scan(storage: Storage, removed: set[str]) -> Iterator[Scan]:
    """Look through every shard, part and table of the catalogue, by content: members of tars, keys of tables."""
    for path in storage.list("shards", ".tar") + storage.list("parts", ".tar"):
        keys, sha256 = keys_of_tar(storage, path)
        yield Scan(path=path, sha256=sha256, found=sorted(keys & removed))
    for path in storage.list("catalogue", ".parquet"):
        keys = set(read_table(storage, path).column("key").to_pylist())
        yield Scan(path=path, sha256=storage.sha256(path), found=sorted(keys & removed))


def proof_path(removed: Iterable[str]) -> str:
    """Where the proof lies that these keys are gone."""
    return f"removals/{digest(*sorted(removed), digits=16)}.json"


def prove(storage: Storage, version: str) -> None:
    """Look through everything for removed samples and keep what was looked at and found as removals/DIGEST.json.

    Raises HumoError where anything of them is left.
    """
    removed = read_tombstones(storage)
    if not removed:
        return
    scans = list(scan(storage, removed))
    left = [(one.path, key) for one in scans for key in one.found]
    if left:
        raise HumoError(
            f"{storage.uri}/{left[0][0]}: still holds {left[0][1]}, which was removed ({len(left)} such finds in all); "
            f"run humo pack {storage.uri}"
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
    """Keys of the samples in a tar and its sha256, in one reading."""
    total = hashlib.sha256()
    with storage.open(path) as file:
        reader = _Hashing(file, total)
        keys = {key for key, _ in read_samples(reader, f"{storage.uri}/{path}")}
        while reader.read(1 << 20):
            pass
    return keys, total.hexdigest()


class _Hashing:
    """Reads and hashes at once."""

    def __init__(self, file: Any, total: Any) -> None:
        self.file, self.total = file, total

    def read(self, size: int = -1, /) -> bytes:
        piece: bytes = self.file.read(size)
        self.total.update(piece)
        return piece
