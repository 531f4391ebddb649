"""Removals: honoured at once, gone for good after packing, proven, and nothing breaks in between."""

import itertools
import json
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from audit_helpers import make_sample

from pipeline.chain.work_item import WorkItem
from pipeline.curation.remove import remove
from pipeline.dataset.commits import commit, done_sources
from pipeline.dataset.lease import Lease
from pipeline.dataset.maintenance import run_maintenance
from pipeline.dataset.pack import is_packed, pack, repack
from pipeline.dataset.purge import scan
from pipeline.dataset.verify import verify
from schemas.dataset import iterate_samples, read_causes, read_description, read_tombstones
from schemas.errors import HumoError, UsageError
from schemas.ids import digest
from schemas.ledger import read_ledger
from schemas.records import Source
from schemas.sample import encode_json
from schemas.shards import decode_sample_bytes
from schemas.storage import Storage

SHARES = {"train": 1.0, "val": 0.0, "test": 0.0}


def source(number: int) -> Source:
    return Source(id=f"source-{number}", uri=f"/in/{number}.bvh", licence=f"L{number % 2}", consent="given")


def work_item(number: int, generation: int = 0, samples: int = 2) -> WorkItem:
    made = WorkItem.of(source(number), generation)
    made.sha256 = digest(made.source.id) * 2
    made.records = [make_sample("mocap", samples * number + place, source=made.source) for place in range(samples)]
    return made


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four sources of two samples each; the last two were committed together."""
    root = tmp_path_factory.mktemp("data") / "data"
    for some in ([0], [1], [2, 3]):
        commit(Storage(root), [work_item(number) for number in some], "digest")
    pack(str(root), splits=SHARES, shard_bytes=60_000)
    return root


@pytest.fixture
def dataset(original: Path, tmp_path: Path) -> str:
    shutil.copytree(original, tmp_path / "data")
    return str(tmp_path / "data")


def keys(dataset: str) -> dict[str, list[str]]:
    """Source -> keys of its live samples."""
    found: dict[str, list[str]] = {}
    for _, key, members in iterate_samples(Storage(dataset)):
        found.setdefault(json.loads(members["meta.json"])["source_id"], []).append(key)
    return found


def every_byte(dataset: str) -> bytes:
    """Tar headers hold keys in plain text, so what is left of a sample would be seen."""
    return b"".join(path.read_bytes() for path in sorted(Path(dataset).rglob("*.tar")))


def test_a_tombstone_is_honoured_at_once_and_packing_deletes_for_good(dataset: str) -> None:
    before = keys(dataset)
    found = remove(dataset, ["source-2"], packing=False)
    assert (sorted(found.removed), found.packed) == (sorted(before["source-2"]), False)
    assert "source-2" not in keys(dataset)
    assert all(key.encode() in every_byte(dataset) for key in found.removed)
    assert any("was removed" in problem for problem in verify(dataset).problems)
    repack(dataset)
    assert not any(key.encode() in every_byte(dataset) for key in found.removed)
    assert keys(dataset) == {name: some for name, some in before.items() if name != "source-2"}
    assert verify(dataset).problems == []
    rows = [row for row in read_ledger(Storage(dataset)).to_pylist() if row["source_id"] == "source-2"]
    assert {(row["outcome"], row["part"], row["detail"]) for row in rows} == {("removed", "", "source source-2")}
    assert "source-2" in done_sources(Storage(dataset))


def test_a_joined_motion_that_no_packing_knows_yet_goes_too(dataset: str) -> None:
    one, other = (key for name, (key, _) in keys(dataset).items() if name in ("source-0", "source-1"))
    made = WorkItem.of(Source(id="joined", uri="joined", licence="L0 AND L1"))
    joined = make_sample("mocap", 90, source=made.source)
    meta = json.loads(joined.members["meta.json"]) | {"subset": "long"}
    meta["segments"] = [{"key": one, "source_id": "source-0"}, {"key": other, "source_id": "source-1"}]
    made.records = [replace(joined, subset="long", members=joined.members | {"meta.json": encode_json(meta)})]
    commit(Storage(dataset), [made], "digest")
    found = remove(dataset, ["source-1"], packing=False)
    assert joined.key in found.removed
    assert found.joined == 1


def test_the_proof_names_keys_causes_and_every_file(dataset: str) -> None:
    gone = remove(dataset, licences=["L1"]).removed
    path = next((Path(dataset) / "removals").iterdir())
    proof = json.loads(path.read_text())
    assert proof["removed"] == dict.fromkeys(sorted(gone), "licence L1")
    assert (proof["version"], proof["rules"]) == (read_description(Storage(dataset)).version, ["licence L1"])
    storage = Storage(dataset)
    assert proof["scanned"] == {one: storage.sha256(one) for one in proof["scanned"]}
    files = storage.list("shards") + storage.list("parts") + storage.list("catalogue")
    assert sorted(proof["scanned"]) == sorted(files)
    path.unlink()
    assert not is_packed(storage, SHARES, 60_000)
    assert any("proof" in problem for problem in verify(dataset).problems)


def test_by_key_by_the_beginning_of_a_key_and_what_is_unknown(dataset: str) -> None:
    key, other = keys(dataset)["source-0"]
    assert remove(dataset, keys=[key[:12]]).removed == [key]
    assert read_causes(Storage(dataset)) == {key: f"key {key}"}
    assert keys(dataset)["source-0"] == [other]
    assert remove(dataset, keys=[key]).removed == []
    for asked, why in (({"sources": ["nobody"]}, "no source nobody"), ({"licences": ["GPL"]}, "no licence GPL"),
                       ({"keys": ["zz"]}, "no sample begins"), ({"keys": [""]}, "no sample"), ({}, "name a source")):  # fmt: skip
        with pytest.raises(UsageError, match=why):
            remove(dataset, **asked)  # type: ignore[arg-type]


def test_a_removed_source_stays_removed_when_it_is_done_anew(dataset: str) -> None:
    """Another generation has other samples, which nobody has named by key."""
    remove(dataset, ["source-1"])
    commit(Storage(dataset), [work_item(1, generation=1, samples=5)], "other digest")
    repack(dataset)
    assert "source-1" not in keys(dataset)
    assert len(read_tombstones(Storage(dataset))) == 7
    assert verify(dataset).problems == []


def test_superseded_samples_and_merged_ledgers_are_purged_too(dataset: str) -> None:
    old = keys(dataset)["source-0"]
    commit(Storage(dataset), [work_item(0, generation=1, samples=5)], "other digest")
    repack(dataset)
    run_maintenance(Storage(dataset), many=1)
    assert [path.name[:6] for path in (Path(dataset) / "ledger").iterdir()] == ["merged"]
    gone = remove(dataset, ["source-0"]).removed
    assert set(old) < set(gone)
    assert not any(key.encode() in every_byte(dataset) for key in gone)
    assert "source-0" in done_sources(Storage(dataset))
    assert verify(dataset).problems == []


def test_pages_that_show_a_removed_sample_go_with_it(dataset: str) -> None:
    (key, _), (other, _) = keys(dataset)["source-0"], keys(dataset)["source-1"]
    report = Path(dataset) / "report"
    report.mkdir()
    (report / "a.html").write_text(f"<code>{key}</code>")
    (report / "b.html").write_text(f"<code>{other}</code>")
    remove(dataset, keys=[key])
    assert [path.name for path in report.iterdir()] == ["b.html"]


def test_orphans_that_hold_removed_samples_go(dataset: str) -> None:
    part = Path(dataset, next(row["part"] for row in read_ledger(Storage(dataset)).to_pylist() if row["part"]))
    shutil.copy(part, part.with_name("aaaaaaaaaaaaaaaa-000000000000.tar"))
    part.with_name(".b.tar.1.partial").write_bytes(part.read_bytes())
    gone = remove(dataset, ["source-0", "source-1", "source-2", "source-3"]).removed
    assert not list(scan_finds(dataset, gone))
    assert list((Path(dataset) / "parts").iterdir()) == []
    assert verify(dataset).problems == []


def scan_finds(dataset: str, gone: list[str]) -> Iterator[str]:
    return (one.path for one in scan(Storage(dataset), set(gone)) if one.found)


class Killed(BaseException):
    """Stands for a process that dies."""


def test_killed_between_any_two_steps_it_reads_and_is_finished_by_the_next(
    dataset: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gone = remove(dataset, ["source-2"], packing=False).removed
    untouched = shutil.copytree(dataset, tmp_path / "untouched")
    pack(dataset, splits=SHARES, shard_bytes=10_000_000)
    whole = {
        path.relative_to(dataset): path.read_bytes() for path in sorted(Path(dataset).rglob("*")) if path.is_file()
    }
    steps = 0
    while True:
        copy = Path(shutil.copytree(untouched, tmp_path / f"killed-{steps}"))
        left = [steps]
        with monkeypatch.context() as patch:
            for name in ("publish", "delete"):
                patch.setattr(Storage, name, _until_killed(getattr(Storage, name), left))
            try:
                pack(str(copy), splits=SHARES, shard_bytes=10_000_000)
            except Killed:
                pass
            else:
                break
        storage = Storage(copy)
        for row in read_ledger(storage).to_pylist():  # what stands can be read
            if row["outcome"] == "accepted":
                stretch = storage.read_bytes(row["part"], row["offset"], row["offset"] + row["length"])
                assert decode_sample_bytes(stretch)[0] == row["record_id"]
        assert len([key for _, key, _ in iterate_samples(storage)]) == 6
        assert not is_packed(storage, SHARES, 10_000_000)
        pack(str(copy), splits=SHARES, shard_bytes=10_000_000)
        after = {path.relative_to(copy): path.read_bytes() for path in sorted(copy.rglob("*")) if path.is_file()}
        assert after == whole
        shutil.rmtree(copy)
        steps += 1
    assert steps > 8
    assert not any(key.encode() in every_byte(dataset) for key in gone)


def _until_killed(original, left):
    def counted(self, *arguments, **named):
        if left[0] == 0:
            raise Killed
        left[0] -= 1
        return original(self, *arguments, **named)

    return counted


def test_one_at_a_time(dataset: str) -> None:
    with Lease(Storage(dataset), "ingest", beat_s=0.05):
        with pytest.raises(HumoError, match="ingest"):
            remove(dataset, ["source-0"])
        with pytest.raises(HumoError, match="ingest"):
            repack(dataset)
    assert "source-0" in keys(dataset)


@pytest.mark.parametrize("workers", [0, 2])
def test_a_training_goes_on_while_samples_are_removed_and_the_dataset_is_packed(dataset: str, workers: int) -> None:
    from model.data import MotionLoader

    repack(dataset, shard_bytes=20_000)
    before = keys(dataset)
    config = MotionLoader.Config(dataset=dataset, batch_size=1, workers=workers, epochs=3, shuffle_window=0)
    batches = iter(MotionLoader(config))
    first = [sample.key for batch in itertools.islice(batches, 2) for sample in batch]
    shards = {shard.path for shard in read_description(Storage(dataset)).shards}
    gone = set(remove(dataset, ["source-2"]).removed)
    assert len(shards - {shard.path for shard in read_description(Storage(dataset)).shards}) > 1
    rest = [sample.key for batch in batches for sample in batch]
    assert len(first + rest) == 3 * 8
    kept = {key for name, some in before.items() if name != "source-2" for key in some}
    assert kept <= set(rest)
    assert not gone & set(rest[-8:])  # what was drawn ahead may still have been open


def test_a_training_on_a_bucket_goes_on_too(dataset: str, tmp_path: Path) -> None:
    import fsspec

    from model.data import MotionDataset

    fsspec.filesystem("memory").put(dataset, "/going", recursive=True)
    try:
        samples = MotionDataset("memory://going", cache=str(tmp_path / "cache"))
        gone = set(remove("memory://going", ["source-2"]).removed)
        found = [
            samples.sample(number).key for number in range(8) if samples.reader.index.keys[number].decode() not in gone
        ]
        assert sorted(found) == sorted(key for some in keys("memory://going").values() for key in some)
    finally:
        fsspec.filesystem("memory").rm("/going", recursive=True)
