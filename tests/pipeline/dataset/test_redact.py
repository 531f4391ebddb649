"""Secrets of addresses in a dataset that was written with them: named by verify, taken out by pack --redact."""

import io
import json
import math
import shutil
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from commit_helpers import SPLITS, Killed, killed_after, work_item

from pipeline.chain.work_item import WorkItem
from pipeline.dataset.commits import commit
from pipeline.dataset.job_records import digest_of_job
from pipeline.dataset.maintenance import run_maintenance
from pipeline.dataset.pack import pack, repack
from pipeline.dataset.redact import redact
from pipeline.dataset.verify import verify
from pipeline.dataset.versions import list_versions, rows_of
from pipeline.publishing.publish import publish
from schemas.dataset import add_tombstones, iterate_samples, read_description
from schemas.errors import HumoError
from schemas.ids import readable_id, source_id
from schemas.ledger import read_ledger
from schemas.records import Rejection, Source
from schemas.sample import encode_json
from schemas.storage import Storage

SECRETS = ("CANARYUSER", "CANARYWORD", "CANARYSIG", "CANARYFRAGMENT")
ADDRESS = "https://CANARYUSER:CANARYWORD@host/{}.bvh?X-Amz-Signature=CANARYSIG.x{}#CANARYFRAGMENT"


def written_as_given(source: Source, uri: str) -> None:
    """Give a source a secret form as the `uri` that is written, past its constructor."""
    object.__setattr__(source, "uri", uri)


def old_item(number: int, name: str, uri: str, generation: int = 0) -> WorkItem:
    """A finished work item, as a version of humo without public forms made it."""
    item = work_item(number, generation)
    object.__setattr__(item.source, "id", name)
    written_as_given(item.source, uri)
    for sample in item.records:
        meta = json.loads(sample.members["meta.json"]) | {"uri": uri, "source_id": name, "description": f"from {uri}"}
        sample.members["meta.json"] = encode_json(meta)
    rejection = Rejection(id=f"{name}-s1", stage="read_mocap", reason="unreadable")
    object.__setattr__(rejection, "detail", f"cannot open {uri}: CANARYSIG.x{number}")
    item.rejections = [rejection]
    return item


@pytest.fixture
def old_dataset(tmp_path: Path) -> Path:
    """Sources with given and derived ids, one of them twice under two signatures; a removal, a job, a page, two versions."""
    storage = Storage(tmp_path / "data")
    addresses = {number: ADDRESS.format("take" if number in (1, 2) else f"take{number}", number) for number in range(4)}
    commit(storage, [old_item(0, "given", addresses[0])], "digest")
    commit(storage, [old_item(1, readable_id(addresses[1]), addresses[1])], "digest")
    pack(storage.uri, splits=SPLITS, shard_bytes=1_000_000)
    commit(storage, [old_item(2, readable_id(addresses[2]), addresses[2]), work_item(5)], "digest")
    commit(storage, [old_item(3, readable_id(addresses[3]), addresses[3])], "digest")
    commit(storage, [work_item(6)], "digest")
    removed = work_item(0).records[0].key
    add_tombstones(storage, {removed: f"source {readable_id(addresses[3])}"}, [f"source {readable_id(addresses[3])}"])
    job = {
        "sources": [{"path": addresses[0]}],
        "chain": [],
        "stages": {},
        "output": "s3://CANARYUSER:CANARYWORD@bucket/data",
    }
    storage.write_bytes("jobs/digest-0123.json", json.dumps(job).encode())
    pack(storage.uri, splits=SPLITS, shard_bytes=1_000_000)
    storage.write_bytes("report/view.html", f"<p>{addresses[0].replace('&', '&amp;')}</p>".encode())
    storage.write_bytes("report/index.html", b"<p>https://host/take.bvh</p>")
    return tmp_path / "data"


def readable_bytes(folder: Path) -> dict[str, bytes]:
    """Content of all files; of tables also the columns as text, as Parquet compresses them."""
    content = {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    tables = {name: pq.read_table(io.BytesIO(data)) for name, data in content.items() if name.endswith(".parquet")}
    return content | {name: repr(table.to_pydict()).encode() for name, table in tables.items()}


def leaks(folder: Path) -> list[str]:
    content = readable_bytes(folder)
    return [name for name, data in content.items() if any(one.encode() in name.encode() + data for one in SECRETS)]


def samples(folder: Path) -> dict[str, dict[str, Any]]:
    """Key -> its members, meta.json decoded."""
    return {key: members for _, key, members in iterate_samples(Storage(folder))}


def test_secrets_are_named_and_taken_out(old_dataset: Path, tmp_path: Path) -> None:
    before = samples(old_dataset)
    problems = "\n".join(verify(str(old_dataset)).problems)
    for expected in (
        "ledger: 12 rows, such as that of source given, hold secrets in detail, source_id, uri, and so do the samples of 3 parts",
        "5 samples, such as ",
        "hold secrets in meta.json: description, meta.json: source_id, meta.json: uri; run humo pack --redact",
        "jobs/digest-0123.json: holds secrets in sources.0.path, output",
        "report/view.html: shows an address with secrets",
    ):
        assert expected in problems, problems
    assert not any(secret in problems for secret in SECRETS)
    with pytest.raises(
        HumoError, match=r"hold addresses with passwords or signatures; run humo pack .* --redact first"
    ):
        publish(str(old_dataset), str(tmp_path / "copy"))
    assert len(leaks(old_dataset)) > 8

    repack(str(old_dataset), redacting=True)

    assert leaks(old_dataset) == []
    assert verify(str(old_dataset)).problems == []
    after = samples(old_dataset)
    assert after.keys() == before.keys()
    for key, members in after.items():
        changed = {name for name, content in members.items() if content != before[key][name]}
        assert changed <= {"meta.json"}
    metas = [json.loads(members["meta.json"]) for members in after.values()]
    assert {meta["uri"] for meta in metas} >= {"https://host/take0.bvh", "https://host/take.bvh", "/in/6.bvh"}
    publish(str(old_dataset), str(tmp_path / "copy"))
    assert leaks(tmp_path / "copy") == []


def test_derived_ids_are_those_of_the_public_form(old_dataset: Path) -> None:
    repack(str(old_dataset), redacting=True)
    rows = read_ledger(Storage(old_dataset)).to_pylist()
    ids = {row["source_id"] for row in rows}
    assert {"given", source_id("https://host/take3.bvh"), "source-5", "source-6"} <= ids
    twice = [name for name in ids if name.startswith(source_id("https://host/take.bvh"))]
    assert len(twice) == 2
    assert all(row["record_id"].startswith(row["source_id"]) for row in rows if row["outcome"] == "rejected")
    (path,) = (old_dataset / "jobs").iterdir()
    record = json.loads(path.read_text())
    assert record["left_out"] == ["output", "sources.0.path"]
    assert digest_of_job(f"jobs/{path.name}") == "digest"


def test_earlier_versions_can_still_be_read(old_dataset: Path) -> None:
    storage = Storage(old_dataset)
    before = {one.version: len(rows_of(storage, one)) for one in list_versions(storage)}
    repack(str(old_dataset), redacting=True)
    after = {one.version: len(rows_of(storage, one)) for one in list_versions(storage)}
    assert before.items() <= after.items()
    assert read_description(storage).version in after.keys() - before.keys()


def test_merged_ledgers_are_rewritten(old_dataset: Path) -> None:
    run_maintenance(Storage(old_dataset), max_files=1)
    repack(str(old_dataset), redacting=True)
    assert leaks(old_dataset) == []
    assert verify(str(old_dataset)).problems == []


def test_nothing_changes_where_there_is_nothing_to_take_out(old_dataset: Path) -> None:
    repack(str(old_dataset), redacting=True)
    before = readable_bytes(old_dataset)
    repack(str(old_dataset), redacting=True)
    assert readable_bytes(old_dataset) == before


def test_a_killed_run_is_completed(old_dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Killed before one of its writes and deletions: the next run ends as an undisturbed one, byte for byte."""
    reference, calls = tmp_path / "reference", [1000]
    shutil.copytree(old_dataset, reference)
    run_killed(reference, calls, monkeypatch)
    total, expected = 1000 - calls[0], without_versions(reference)
    assert total > 20
    for allowed in range(1, total, total // 7):
        copy = tmp_path / f"copy-{allowed}"
        shutil.copytree(old_dataset, copy)
        with pytest.raises(Killed):
            run_killed(copy, [allowed], monkeypatch)
        redact(Storage(copy))
        pack(str(copy), splits=SPLITS, shard_bytes=1_000_000, grace_s=-math.inf)
        assert leaks(copy) == []
        assert without_versions(copy) == expected, f"killed after {allowed} of {total}"


def run_killed(dataset: Path, calls_left: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patched:
        for name in ("write_bytes", "delete"):
            patched.setattr(Storage, name, killed_after(getattr(Storage, name), calls_left))
        redact(Storage(dataset))
        pack(str(dataset), splits=SPLITS, shard_bytes=1_000_000, grace_s=-math.inf)


def without_versions(dataset: Path) -> dict[str, bytes]:
    """All files but the records of versions, which name the packing before them."""
    return {name: content for name, content in readable_bytes(dataset).items() if not name.startswith("versions/")}
