"""The fence: a job that has lost its lease changes nothing any more, on a disk and on an S3 server; stores without conditions."""

import contextvars
import json
import logging
import os
import pickle
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from commit_helpers import SPLITS, keys_by_source, work_item
from s3_server import s3_bucket

from pipeline.dataset import fence
from pipeline.dataset.commits import commit
from pipeline.dataset.conditional_writes import ChangedError, delete_unchanged, probe, replace, revision
from pipeline.dataset.fence import CONDEMNED, FencedStorage, claim_epoch, condemned, top_epoch
from pipeline.dataset.lease import LEASE, Lease
from pipeline.dataset.maintenance import run_maintenance
from pipeline.dataset.pack import is_packed, pack
from pipeline.dataset.verify import verify
from schemas.dataset import DESCRIPTION, add_tombstones, read_description
from schemas.errors import HumoError
from schemas.ledger import decisions, read_history, read_ledger
from schemas.storage import Storage

TAKEN = "has taken the lease over"


@pytest.fixture(scope="module")
def bucket() -> Iterator[str]:
    with s3_bucket("fence") as address:
        yield address


@pytest.fixture(params=["disk", "s3"])
def root(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """An empty folder on each kind of store."""
    if request.param == "disk":
        return str(tmp_path / "data")
    return f"{request.getfixturevalue('bucket')}/{request.node.name.replace('[', '-').strip(']')}"


def claim(root: str) -> FencedStorage:
    """The folder as the next holder of a lease writes to it."""
    storage = Storage(root)
    fenced = claim_epoch(storage, top_epoch(storage) + 1)
    assert fenced is not None
    return fenced


def contents(storage: Storage) -> dict[str, bytes]:
    return {path: storage.read_bytes(path) for path in storage.list("") if not path.startswith(".")}


def test_one_of_many_claims_succeeds_and_ends_the_earlier_ones(root: str) -> None:
    first = claim(root)
    with ThreadPoolExecutor(6) as pool:
        claims = [one for one in pool.map(lambda _: claim_epoch(Storage(root), 2), range(6)) if one]
    assert [one.epoch for one in claims] == [2]
    claims[0].check()
    with pytest.raises(HumoError, match=TAKEN):
        first.check()
    assert claim_epoch(Storage(root), 1) is None, "its number is free again, but a later one exists"
    claims[0].check()
    assert top_epoch(Storage(root)) == 2


WRITES: dict[str, Callable[[Storage], Any]] = {
    "write_bytes": lambda storage: storage.write_bytes("kept", b"of the sleeper"),
    "create": lambda storage: storage.create("new", b"of the sleeper"),
    "delete": lambda storage: storage.delete("kept"),
    "delete_all": lambda storage: storage.delete_all(["kept"]),
    "tombstones": lambda storage: add_tombstones(storage, {"a": "key a"}),
    "commit": lambda storage: commit(storage, [work_item(0)], "digest"),
    "maintenance": lambda storage: run_maintenance(storage, grace_s=-1e6),
}


@pytest.mark.parametrize("write", WRITES)
def test_nothing_is_written_or_deleted_after_the_lease_is_lost(root: str, write: str) -> None:
    sleeper, other = claim(root), claim(root)
    other.write_bytes("kept", b"of the other")
    other.write_bytes("parts/orphan.tar", b"of the other")
    before = contents(other)
    with pytest.raises(HumoError, match=TAKEN):
        WRITES[write](sleeper)
    assert contents(other) == before
    WRITES[write](other)


@pytest.mark.parametrize("error", [HumoError("no such table"), FileNotFoundError("ledger/1.parquet")])
def test_errors_of_a_job_that_lost_its_lease_say_so(root: str, error: Exception) -> None:
    """What it read was changed by the other job; its own errors stay what they are."""

    def run(is_lost: bool) -> None:
        with Lease(Storage(root), "remove"):
            if is_lost:
                claim(root)
            raise error

    with pytest.raises(type(error), match=str(error)):
        run(is_lost=False)
    with pytest.raises(HumoError, match=TAKEN) as raised:
        run(is_lost=True)
    assert raised.value.__cause__ is error


def test_a_file_that_was_begun_before_the_lease_was_lost_is_not_published(root: str) -> None:
    sleeper = claim(root)
    others: list[FencedStorage] = []

    def publish() -> None:
        with sleeper.publish("shard") as file:
            file.write(b"x" * 100)
            others.append(claim(root))

    with pytest.raises(HumoError, match=TAKEN):
        publish()
    assert contents(others[0]) == {}


@pytest.mark.parametrize(
    ("write", "owner", "call"), [("write_bytes", Path, "replace"), ("create", os, "link"), ("delete", Path, "rename")]
)
def test_a_disk_refuses_what_was_checked_before_the_lease_was_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, write: str, owner: Any, call: str
) -> None:
    """The lease is lost right before the system call, after every check: the call itself fails."""
    sleeper = claim(str(tmp_path))
    (tmp_path / "kept").write_bytes(b"of the other")
    original = getattr(owner, call)
    others: list[FencedStorage | None] = []

    def late(*arguments: Any) -> Any:
        if not others:
            others.append(None)
            others.append(claim(str(tmp_path)))
        return original(*arguments)

    monkeypatch.setattr(owner, call, late)
    with pytest.raises(HumoError, match=TAKEN):
        WRITES[write](sleeper)
    assert others
    assert contents(Storage(tmp_path)) == {"kept": b"of the other"}


def test_s3_replaces_only_what_was_there_when_the_lease_was_checked(
    bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The lease is lost between the check and the request: the request itself fails."""
    sleeper = claim(f"{bucket}/replace")
    sleeper.write_bytes(DESCRIPTION, b"before")
    with monkeypatch.context() as patch:

        def late(storage: Storage, relative: str, content: bytes, before: str) -> None:
            if content == b"of the sleeper" and top_epoch(storage) == 1:
                claim(storage.uri).write_bytes(relative, b"of the other")
            replace(storage, relative, content, before)

        patch.setattr(fence, "replace", late)
        with pytest.raises(HumoError, match=TAKEN):
            sleeper.write_bytes(DESCRIPTION, b"of the sleeper")
    assert sleeper.read_bytes(DESCRIPTION) == b"of the other"


def test_s3_is_not_sent_what_was_checked_before_a_sleep(bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A job sleeps between the check and the request, and only then: it goes on if it still has the lease."""
    root, original = f"{bucket}/late", Storage.create_directly
    sleeper = claim(root)
    sleeps = ["first", "second"]

    def late(storage: Storage, relative: str, content: bytes) -> None:
        if relative in sleeps:
            sleeps.remove(relative)
            sleeper._checked_s = -float("inf")  # long ago
            if relative == "second":
                contextvars.Context().run(claim, root)  # another process
        original(storage, relative, content)

    monkeypatch.setattr(Storage, "create_directly", late)
    sleeper.create("first", b"")
    with pytest.raises(HumoError, match=TAKEN):
        sleeper.create("second", b"")
    assert not sleeps
    assert list(contents(Storage(root))) == ["first"]


def test_conditional_writes_of_s3(bucket: str) -> None:
    storage = Storage(f"{bucket}/conditions")
    assert revision(storage, "file") == ""
    replace(storage, "file", b"one", "")
    first = revision(storage, "file")
    with pytest.raises(ChangedError):
        replace(storage, "file", b"two", "")
    replace(storage, "file", b"two", first)
    for write in (lambda: replace(storage, "file", b"three", first), lambda: delete_unchanged(storage, "file", first)):
        with pytest.raises(ChangedError, match="has changed"):
            write()
    assert storage.read_bytes("file") == b"two"
    delete_unchanged(storage, "file", revision(storage, "file"))
    assert not storage.exists("file")


def test_a_condemned_name_is_not_used_for_another_shard(bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A job lost its lease right before a deletion: the next one packs the same samples under other names."""
    root = f"{bucket}/condemned"
    holder = claim(root)
    commit(holder, [work_item(0), work_item(1)], "digest")
    pack(holder, splits=SPLITS, shard_bytes=10_000_000)
    doomed = [shard.path for shard in read_description(holder).shards]
    with monkeypatch.context() as patch:
        patch.setattr(holder.fs, "rm_file", lambda path: pytest.fail("it sleeps here"))
        with pytest.raises(pytest.fail.Exception):
            holder.delete_all(doomed)
    other = claim(root)
    assert condemned(other) == set(doomed)
    pack(other, splits=SPLITS, shard_bytes=10_000_000)
    for path in doomed:  # the sleeper's request arrives
        other.fs.rm_file(other.path(path))
    assert verify(root).problems == []
    assert is_packed(other, SPLITS, 10_000_000)
    run_maintenance(other, grace_s=-1e6)
    assert other.list(CONDEMNED) == []
    assert verify(root).problems == []


def test_a_late_commit_of_a_decided_source_does_not_double_it(root: str) -> None:
    """Two leases decided on a source, whatever their commits are called: the later lease counts."""
    for digest in ("first", "second", "third"):
        commit(claim(root), [work_item(0, samples=2)], digest)
    storage = Storage(root)
    assert decisions(read_history(storage))["source-0"].config_digest == "third"
    assert len(read_ledger(storage)) == 2
    pack(claim(root), splits=SPLITS, shard_bytes=10_000_000)
    assert [len(keys) for keys in keys_by_source(root).values()] == [2]


def test_workers_write_under_the_lease_of_their_job(root: str) -> None:
    worker = pickle.loads(pickle.dumps(claim(root)))
    name = commit(worker, [work_item(0)], "digest")
    claim(root)
    with pytest.raises(HumoError, match=TAKEN):
        commit(worker, [work_item(1)], "digest")
    assert {row["commit"] for row in read_ledger(Storage(root)).to_pylist()} == {name}


def test_young_leftovers_stay_and_old_ones_are_swept(root: str) -> None:
    holder = claim(root)
    commit(holder, [work_item(0)], "digest")
    pack(holder, splits=SPLITS, shard_bytes=10_000_000)
    left = [
        "catalogue/mocap-train-000009-1a2b3c4d.parquet",
        "parts/orphan.tar",
        "shards/mocap/train-000009-1a2b3c4d.tar",
    ]
    for path in left:
        holder.write_bytes(path, b"left by a killed job")
    assert run_maintenance(holder).swept == []
    assert sorted(run_maintenance(holder, grace_s=-1e6).swept) == left
    assert verify(root).problems == []


def test_a_file_that_is_being_written_is_not_swept(root: str) -> None:
    """A heartbeat is written while the job sweeps."""
    holder = claim(root)
    with holder.publish("file") as file:
        file.write(b"complete")
        assert run_maintenance(holder, grace_s=-1e6).swept == []
    assert contents(holder) == {"file": b"complete"}


def test_a_job_that_slept_is_refused_and_leaves_the_lease_alone(root: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.dataset.lease._FRESH_BEATS", 1000)  # a busy machine answers late
    storage = Storage(root)
    with Lease(storage, "first", beat_s=0.05) as lease:
        lease._stopped.set()  # no heartbeats, as if the process were stopped
        lease._thread.join()
        content = json.loads(storage.read_bytes(LEASE)) | {"host": "elsewhere"}
        storage.write_bytes(LEASE, json.dumps(content).encode())
        with Lease(storage, "second", beat_s=0.05) as other:
            assert other.took_over
            with pytest.raises(HumoError, match=r"another job \(second, .* has taken the lease over"):
                lease.storage.write_bytes("file", b"")
            lease._release()
            assert json.loads(storage.read_bytes(LEASE))["purpose"] == "second"
            other.storage.write_bytes("file", b"of the other")
    assert not storage.exists(LEASE)
    assert storage.read_bytes("file") == b"of the other"


def test_a_store_without_conditions_is_found_out(caplog: pytest.LogCaptureFixture, tmp_path: Path) -> None:
    with s3_bucket("plain", conditional=False) as address:
        storage = Storage(f"{address}/data")
        assert probe(storage).missing() == "exclusive creation and conditional replacement"
        with caplog.at_level(logging.WARNING), Lease(storage, "ingest", beat_s=0.05) as lease:
            guarantees = lease.guarantees
        assert not guarantees.create
        with pytest.raises(HumoError, match=rf"{address}/data: this store has no exclusive creation .* engine.kind"):
            lease.check_several_writers()
        assert f"{address}/data: this store has no exclusive creation" in caplog.text
        storage.write_bytes(LEASE, json.dumps({"host": "elsewhere", "pid": 1, "beat_s": 0.05}).encode())
        with pytest.raises(HumoError, match=r"make sure that it has ended, then delete lease.json"):
            Lease(storage, "pack", beat_s=0.05).__enter__()
        assert not [path for path in storage.list("", hidden=True) if "probe" in path]


def test_a_store_with_conditions_passes_the_probe(bucket: str, tmp_path: Path) -> None:
    for address in (f"{bucket}/probe", str(tmp_path)):
        assert probe(Storage(address)).missing() == ""
    assert probe(Storage("memory://probe")).missing() == "conditional replacement"
