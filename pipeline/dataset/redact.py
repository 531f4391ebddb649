"""Takes secrets of addresses out of a dataset that was written with them: out of ledger, parts, versions, proofs, jobs and pages.

Shards and catalogue follow with the next packing. Keys of samples stay. Ids that were derived from an address with secrets, and
names of commits, which digest it, are derived anew from the public form.

A plan of the new names is written first and deleted last, so that a run that was killed is completed by the next one under the
same names. New parts and ledger files are written beside the old ones, then everything that names a commit or source is changed,
then the old files are deleted. It runs under a lease, so no commit is in progress.
"""

import contextlib
import hashlib
import html
import io
import json
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import pyarrow as pa

from pipeline.dataset.commits import commit_name
from pipeline.dataset.job_records import jobs_with_secrets, redact_jobs
from pipeline.dataset.maintenance import orphans
from pipeline.dataset.shard_writer import read_sample_tar
from pipeline.dataset.versions import encode_version
from schemas.addresses import public_form
from schemas.dataset import TOMBSTONES, read_table, write_table
from schemas.errors import HumoError
from schemas.ids import digest, readable_id, source_id
from schemas.ledger import MERGED, ledger_bytes, read_history, read_ledger_bytes
from schemas.sample import encode_json
from schemas.secrets import hide_credentials, hide_parts, holds_secret_address
from schemas.shards import decode_sample_bytes, encode_sample, read_samples, write_tar
from schemas.storage import PARTIAL, Storage

PLAN = "redaction.json"
_STUDIO = "studio-"
"""Prefix of the ids of films."""

Row = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class _Plan:
    """New names: of sources whose id was derived from a secret form, and of commits with something to take out."""

    sources: dict[str, str] = field(default_factory=dict)
    commits: dict[str, str] = field(default_factory=dict)


def redact(storage: Storage) -> int:
    """Take all secrets out; returns the number of commits written anew. Raises HumoError if one of their parts is missing or
    altered."""
    tables = {
        path: read_ledger_bytes(storage.read_bytes(path), f"{storage.uri}/{path}").to_pylist()
        for path in storage.list("ledger", ".parquet")
    }
    plan = _read_plan(storage) or _make_plan(storage, [row for rows in tables.values() for row in rows])
    if plan.commits:
        storage.write_bytes(PLAN, json.dumps(asdict(plan), indent=1, sort_keys=True).encode())
        old_files, old_parts = set(), set()
        for path, rows in tables.items():
            affected = [row for row in rows if row["commit"] in plan.commits]
            if affected:
                old_files.add(path)
                old_parts |= {row["part"] for row in affected if row["part"]}
                _write_ledger(storage, path, _new_rows(storage, rows, plan))
        _rename_elsewhere(storage, plan)
        for path in sorted(old_files | old_parts):
            with contextlib.suppress(FileNotFoundError):
                storage.delete(path)
    redact_jobs(storage)
    for path in [*_orphans_with_secrets(storage), *pages_with_secrets(storage)]:
        storage.delete(path)
    if storage.exists(PLAN):
        storage.delete(PLAN)
    return len(plan.commits)


def secret_problems(storage: Storage, history: pa.Table) -> list[str]:
    """Rows of the ledger and files beside it that hold secrets, for `humo verify`."""
    rows = [row for row in history.select(["uri", "detail", "source_id", "part"]).to_pylist() if _row_secrets(row)]
    problems = []
    if rows:
        columns = ", ".join(sorted({name for row in rows for name in _row_secrets(row)}))
        parts = sorted({row["part"] for row in rows if row["part"]})
        also = f", and so do the samples of {len(parts)} parts, such as {parts[0]}" if parts else ""
        first = min(_derived_id(row["source_id"], row["uri"]) for row in rows)
        problems.append(
            f"ledger: {len(rows)} rows, such as that of source {first}, hold secrets in {columns}{also}; run humo pack --redact"
        )
    problems += [
        f"{path}: holds secrets in {', '.join(names)}; run humo pack --redact"
        for path, names in jobs_with_secrets(storage)
    ]
    problems += [
        f"{path}: shows an address with secrets; run humo pack --redact" for path in pages_with_secrets(storage)
    ]
    if storage.exists(PLAN):
        problems.append(f"{PLAN}: taking out secrets was interrupted; run humo pack --redact")
    return problems


def secret_members(members: Mapping[str, bytes]) -> list[str]:
    """Members of a sample that hold secrets, as `member: field`."""
    found = []
    for name in _json_members(members):
        before = json.loads(members[name])
        after = _public(before, {})
        if before != after:
            fields = [key for key in before if before[key] != after[key]] if isinstance(before, dict) else []
            found += [f"{name}: {key}" for key in fields] or [name]
    return found


def pages_with_secrets(storage: Storage) -> list[str]:
    """Pages of report/ that show an address with secrets."""
    pages = storage.list("report", ".html")
    return [
        path for path in pages if holds_secret_address(html.unescape(storage.read_bytes(path).decode(errors="replace")))
    ]


def _row_secrets(row: Mapping[str, Any]) -> list[str]:
    found = ["source_id"] if _derived_id(row["source_id"], row["uri"]) != row["source_id"] else []
    found += ["uri"] if public_form(row["uri"]) != row["uri"] else []
    return found + (["detail"] if hide_parts(row["detail"], row["uri"]) != row["detail"] else [])


def _make_plan(storage: Storage, rows: list[Row]) -> _Plan:
    sources = _new_ids(rows)
    by_commit: dict[str, dict[tuple[str, str], Row]] = defaultdict(dict)
    for number, row in enumerate(rows):  # a commit may be both in a merged file and in its own
        by_commit[row["commit"]].setdefault((row["source_id"], row["record_id"] or str(number)), row)
    affected_parts = {part for part in {row["part"] for row in rows} - {""} if _holds_secrets(storage, part)}
    commits: dict[str, str] = {}
    taken = set(by_commit)
    for name, of_commit in sorted(by_commit.items()):
        if not any(
            _row_secrets(row)
            or row["part"] in affected_parts
            or (row["outcome"] == "removed" and _new_cause(row["detail"], sources) != row["detail"])
            for row in of_commit.values()
        ):
            continue
        identities = {
            (_new_id(row, sources), public_form(row["uri"]), row["sha256"], row["generation"])
            for row in of_commit.values()
        }
        config_digest = next(iter(of_commit.values()))["config_digest"]
        new = commit_name(config_digest, sorted(identities))
        while new in taken:
            new = digest("commit", new, digits=16)
        taken.add(new)
        commits[name] = new
    return _Plan(sources=sources, commits=commits)


def _new_ids(rows: list[Row]) -> dict[str, str]:
    """New ids of sources whose id was derived from a secret form. Several that would be one are told apart by their content."""
    derived = {row["source_id"]: (_derived_id(row["source_id"], row["uri"]), row["sha256"]) for row in rows}
    derived = {old: new for old, new in derived.items() if new[0] != old}
    count = Counter(new for new, _ in derived.values()) + Counter({row["source_id"] for row in rows} - derived.keys())
    new_ids: dict[str, str] = {}
    taken = {row["source_id"] for row in rows}
    for number, (old, (new, sha256)) in enumerate(sorted(derived.items(), key=lambda one: (one[1], one[0]))):
        new = new if count[new] == 1 else f"{new}-{sha256[:8] or number}"
        new_ids[old] = f"{new}-{number}" if new in taken else new
        taken.add(new_ids[old])
    return new_ids


def _derived_id(name: str, uri: str) -> str:
    """The id that a source has now if its `name` was derived from the whole address `uri`; otherwise the name."""
    for prefix in ("", _STUDIO):
        if name == prefix + readable_id(uri) and uri != public_form(uri):
            return prefix + source_id(uri)
    return public_form(name)


def _new_id(row: Mapping[str, Any], sources: Mapping[str, str]) -> str:
    return sources.get(row["source_id"]) or _derived_id(row["source_id"], row["uri"])


def _new_rows(storage: Storage, rows: list[Row], plan: _Plan) -> list[Row]:
    parts: dict[str, dict[str, Row]] = defaultdict(dict)
    for row in rows:
        if row["commit"] in plan.commits and row["part"]:
            parts[row["part"]][row["record_id"]] = row
    places = {part: _rewrite_part(storage, list(of_part.values()), plan) for part, of_part in sorted(parts.items())}
    new_rows = []
    for row in rows:
        if row["commit"] in plan.commits:
            new_id = _new_id(row, plan.sources)
            texts = {name: row[name].replace(row["source_id"], new_id) for name in ("record_id", "detail")}
            is_removed = row["outcome"] == "removed"
            texts["detail"] = (
                _new_cause(row["detail"], plan.sources) if is_removed else hide_parts(texts["detail"], row["uri"])
            )
            new = {"source_id": new_id, "uri": public_form(row["uri"]), "commit": plan.commits[row["commit"]], **texts}
            row = row | new | places.get(row["part"], {}).get(row["record_id"], {})
        new_rows.append(row)
    return new_rows


def _rewrite_part(storage: Storage, rows: list[Row], plan: _Plan) -> dict[str, Row]:
    """Write a part without secrets; returns key -> the columns that locate its samples."""
    rows = sorted(rows, key=lambda row: row["offset"])
    samples = []
    for row in rows:
        key, members = decode_sample_bytes(read_sample_tar(storage, row), row["part"])
        samples.append(encode_sample(key, _public_members(members, plan.sources, row["uri"])))
    buffer = io.BytesIO()
    content = write_tar(buffer, samples)
    part = f"parts/{plan.commits[rows[0]['commit']]}-{content.sha256[:12]}.tar"
    storage.write_bytes(part, buffer.getvalue())
    return {
        row["record_id"]: {
            "part": part, "offset": offset, "length": length, "part_sha256": content.sha256,
            "record_sha256": hashlib.sha256(sample).hexdigest(),
        }
        for row, (offset, length), sample in zip(rows, content.spans, samples, strict=True)
    }  # fmt: skip


def _write_ledger(storage: Storage, path: str, rows: list[Row]) -> None:
    names = sorted({row["commit"] for row in rows})
    new = f"{MERGED}{digest(*names, digits=16)}.parquet" if path.startswith(MERGED) else f"ledger/{names[0]}.parquet"
    storage.write_bytes(new, ledger_bytes(rows))


def _rename_elsewhere(storage: Storage, plan: _Plan) -> None:
    """New names in versions, causes of removals and their proofs."""
    for path in storage.list("versions", ".json"):
        version = json.loads(storage.read_bytes(path))
        commits = sorted({plan.commits.get(name, name) for name in version["commits"]})
        if commits != version["commits"]:
            storage.write_bytes(path, encode_version(version | {"commits": commits}))
    if storage.exists(TOMBSTONES):
        table = read_table(storage, TOMBSTONES)
        if "cause" in table.column_names:
            causes = [_new_cause(cause, plan.sources) for cause in table.column("cause").to_pylist()]
            column = pa.array(causes, pa.string())
            write_table(storage, TOMBSTONES, table.set_column(table.column_names.index("cause"), "cause", column))
    for path in storage.list("removals", ".json"):
        proof = json.loads(storage.read_bytes(path))
        proof["removed"] = {key: _new_cause(cause, plan.sources) for key, cause in proof["removed"].items()}
        proof["rules"] = sorted(_new_cause(rule, plan.sources) for rule in proof["rules"])
        proof["scanned"] = {_new_path(scanned, plan): sha256 for scanned, sha256 in proof["scanned"].items()}
        storage.write_bytes(path, (json.dumps(proof, indent=1, ensure_ascii=False) + "\n").encode())


def _new_cause(cause: str, sources: Mapping[str, str]) -> str:
    """A cause of removal, `source ID` or another."""
    kind, _, name = cause.partition(" ")
    return f"source {sources.get(name, name)}" if kind == "source" else cause


def _new_path(path: str, plan: _Plan) -> str:
    folder, _, name = path.rpartition("/")
    commit, sign, rest = name.partition("-")
    return f"{folder}/{plan.commits.get(commit, commit)}{sign}{rest}" if folder == "parts" else path


def _read_plan(storage: Storage) -> _Plan | None:
    if not storage.exists(PLAN):
        return None
    try:
        return _Plan(**json.loads(storage.read_bytes(PLAN)))
    except (ValueError, TypeError) as error:
        raise HumoError(
            f"{storage.uri}/{PLAN}: not a plan ({error}); delete it and run humo pack --redact again"
        ) from None


def _orphans_with_secrets(storage: Storage) -> Iterator[str]:
    for path in orphans(storage, read_history(storage)):
        if path.endswith(PARTIAL) or _holds_secrets(storage, path):
            yield path


def _holds_secrets(storage: Storage, part: str) -> bool:
    try:
        with storage.open(part) as file:
            return any(secret_members(members) for _, members in read_samples(file, f"{storage.uri}/{part}"))
    except FileNotFoundError:
        return False  # of a run that was interrupted, or missing: reading its samples reports it
    except HumoError:
        return True  # unreadable: reading its samples reports it


def _json_members(members: Mapping[str, bytes]) -> list[str]:
    return [name for name in members if name.endswith(".json")]


def _public_members(members: Mapping[str, bytes], sources: Mapping[str, str], address: str) -> dict[str, bytes]:
    """Members of a sample without secrets; those without any keep their bytes."""
    new = dict(members)
    for name in _json_members(members):
        before = json.loads(members[name])
        after = _public(before, sources, address)
        if before != after:
            new[name] = encode_json(after)
    return new


def _public(value: Any, sources: Mapping[str, str], address: str = "") -> Any:
    """A JSON value of a sample without secrets. Error messages, as in `why` and `models`, lose all that the address hides."""
    if isinstance(value, dict):
        new: dict[str, Any] = {}
        for name, inner in value.items():
            if name == "uri":
                new[name] = public_form(inner)
            elif name == "source_id":
                new[name] = _new_id({"source_id": inner, "uri": value.get("uri", "")}, sources)
            elif name == "why":
                new[name] = hide_parts(inner, address)
            elif name == "models":
                new[name] = {model: hide_parts(version, address) for model, version in inner.items()}
            else:
                new[name] = _public(inner, sources, address)
        return new
    if isinstance(value, list):
        return [_public(inner, sources, address) for inner in value]
    return hide_credentials(value) if isinstance(value, str) else value
