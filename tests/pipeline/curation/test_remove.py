"""Removals: effective at once, permanent and proven after packing, and safe to interrupt."""

import itertools
import json
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from audit_helpers import make_sample
from commit_helpers import SPLITS, Killed, keys_by_source, killed_after, work_item

from pipeline.chain.work_item import WorkItem
from pipeline.curation.remove import remove
from pipeline.dataset.commits import commit, done_sources
from pipeline.dataset.lease import Lease
from pipeline.dataset.maintenance import run_maintenance
from pipeline.dataset.pack import is_packed, pack, repack
from pipeline.dataset.purge import scan
from pipeline.dataset.verify import verify
from schemas.dataset import (
    codes_path,
    iterate_samples,
    read_causes,
    read_description,
    read_table,
    read_tombstones,
    table_path,
)
from schemas.errors import HumoError, UsageError
from schemas.ledger import read_ledger
from schemas.records import Source
from schemas.sample import encode_json
from schemas.shards import decode_sample_bytes
from schemas.storage import Storage
from schemas.tables import parquet_bytes


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four sources of two samples each; the last two were committed together."""
    root = tmp_path_factory.mktemp("data") / "data"
    for numbers in ([0], [1], [2, 3]):
        commit(Storage(root), [work_item(number) for number in numbers], "digest")
    pack(str(root), splits=SPLITS, shard_bytes=60_000)
    return root


@pytest.fixture
def dataset(original: Path, tmp_path: Path) -> str:
    shutil.copytree(original, tmp_path / "data")
    return str(tmp_path / "data")


def test_codes_of_removed_samples_go_with_them(dataset: str) -> None:
    """What humo tokenize writes is derived from the samples."""
    storage = Storage(dataset)
    for shard in read_description(storage).shards:
        keys = read_table(storage, table_path(shard.path)).select(["key"])
        storage.write_bytes(codes_path("f1", shard.path), parquet_bytes(keys))
    kept = len(storage.list("codes", ".parquet"))
    removed = remove(dataset, ["source-2"], packing=False).removed
    assert [one for one in scan(storage, set(removed)) if one.removed_keys and one.path.startswith("codes/")]
    assert any("was removed" in problem for problem in verify(dataset).problems)
    repack(dataset)
    left = storage.list("codes", ".parquet")
    assert 0 < len(left) < kept
    assert not [one for one in scan(storage, set(removed)) if one.removed_keys]
    assert verify(dataset).problems == []


def tar_bytes(dataset: str) -> bytes:
    """Content of all tars; their headers contain keys in plain text, so remains of a sample can be found."""
    return b"".join(path.read_bytes() for path in sorted(Path(dataset).rglob("*.tar")))


def test_tombstones_hide_samples_at_once_and_packing_deletes_them(dataset: str) -> None:
    before = keys_by_source(dataset)
    found = remove(dataset, ["source-2"], packing=False)
    assert (sorted(found.removed), found.packed) == (sorted(before["source-2"]), False)
    assert "source-2" not in keys_by_source(dataset)
    assert all(key.encode() in tar_bytes(dataset) for key in found.removed)
    assert any("was removed" in problem for problem in verify(dataset).problems)
    repack(dataset)
    assert not any(key.encode() in tar_bytes(dataset) for key in found.removed)
    assert keys_by_source(dataset) == {name: source_keys for name, source_keys in before.items() if name != "source-2"}
    assert verify(dataset).problems == []
    rows = [row for row in read_ledger(Storage(dataset)).to_pylist() if row["source_id"] == "source-2"]
    assert {(row["outcome"], row["part"], row["detail"]) for row in rows} == {("removed", "", "source source-2")}
    assert "source-2" in done_sources(Storage(dataset))


def test_a_joined_motion_committed_after_the_last_packing_is_removed_too(dataset: str) -> None:
    first, second = (key for name, (key, _) in keys_by_source(dataset).items() if name in ("source-0", "source-1"))
    item = WorkItem.of(Source(id="joined", uri="joined", licence="L0 AND L1"))
    joined = make_sample("mocap", 90, source=item.source)
    meta = json.loads(joined.members["meta.json"]) | {"subset": "long"}
    meta["segments"] = [{"key": first, "source_id": "source-0"}, {"key": second, "source_id": "source-1"}]
    item.records = [replace(joined, subset="long", members=joined.members | {"meta.json": encode_json(meta)})]
    commit(Storage(dataset), [item], "digest")
    found = remove(dataset, ["source-1"], packing=False)
    assert joined.key in found.removed
    assert found.joined == 1


def test_the_proof_names_keys_causes_and_every_file(dataset: str) -> None:
    removed = remove(dataset, licences=["L1"]).removed
    path = next((Path(dataset) / "removals").iterdir())
    proof = json.loads(path.read_text())
    assert proof["removed"] == dict.fromkeys(sorted(removed), "licence L1")
    assert (proof["version"], proof["rules"]) == (read_description(Storage(dataset)).version, ["licence L1"])
    storage = Storage(dataset)
    assert proof["scanned"] == {file: storage.sha256(file) for file in proof["scanned"]}
    files = storage.list("shards") + storage.list("parts") + storage.list("catalogue")
    assert sorted(proof["scanned"]) == sorted(files)
    path.unlink()
    assert not is_packed(storage, SPLITS, 60_000)
    assert any("proof" in problem for problem in verify(dataset).problems)


def test_removal_by_key_or_prefix_and_unknown_names(dataset: str) -> None:
    key, other = keys_by_source(dataset)["source-0"]
    assert remove(dataset, keys=[key[:12]]).removed == [key]
    assert read_causes(Storage(dataset)) == {key: f"key {key}"}
    assert keys_by_source(dataset)["source-0"] == [other]
    assert remove(dataset, keys=[key]).removed == []
    for request, message in (({"sources": ["nobody"]}, "no source nobody"), ({"licences": ["GPL"]}, "no licence GPL"),
                       ({"keys": ["zz"]}, "no sample begins"), ({"keys": [""]}, "no sample"), ({}, "name a source")):  # fmt: skip
        with pytest.raises(UsageError, match=message):
            remove(dataset, **request)  # type: ignore[arg-type]


def test_a_removed_source_stays_removed_when_it_is_processed_again(dataset: str) -> None:
    """Another generation has other samples, whose keys no removal has named."""
    remove(dataset, ["source-1"])
    commit(Storage(dataset), [work_item(1, generation=1, samples=5)], "other digest")
    repack(dataset)
    assert "source-1" not in keys_by_source(dataset)
    assert len(read_tombstones(Storage(dataset))) == 7
    assert verify(dataset).problems == []


def test_superseded_samples_and_merged_ledgers_are_purged_too(dataset: str) -> None:
    old = keys_by_source(dataset)["source-0"]
    commit(Storage(dataset), [work_item(0, generation=1, samples=5)], "other digest")
    repack(dataset)
    run_maintenance(Storage(dataset), max_files=1)
    assert [path.name[:6] for path in (Path(dataset) / "ledger").iterdir()] == ["merged"]
    removed = remove(dataset, ["source-0"]).removed
    assert set(old) < set(removed)
    assert not any(key.encode() in tar_bytes(dataset) for key in removed)
    assert "source-0" in done_sources(Storage(dataset))
    assert verify(dataset).problems == []


def test_pages_that_show_a_removed_sample_are_deleted(dataset: str) -> None:
    (key, _), (other, _) = keys_by_source(dataset)["source-0"], keys_by_source(dataset)["source-1"]
    report = Path(dataset) / "report"
    report.mkdir()
    (report / "a.html").write_text(f"<code>{key}</code>")
    (report / "b.html").write_text(f"<code>{other}</code>")
    remove(dataset, keys=[key])
    assert [path.name for path in report.iterdir()] == ["b.html"]


def test_orphans_that_hold_removed_samples_are_deleted(dataset: str) -> None:
    part = Path(dataset, next(row["part"] for row in read_ledger(Storage(dataset)).to_pylist() if row["part"]))
    shutil.copy(part, part.with_name("aaaaaaaaaaaaaaaa-000000000000.tar"))
    part.with_name(".b.tar.1.partial").write_bytes(part.read_bytes())
    removed = remove(dataset, ["source-0", "source-1", "source-2", "source-3"]).removed
    assert not list(files_with(dataset, removed))
    assert list((Path(dataset) / "parts").iterdir()) == []
    assert verify(dataset).problems == []


def files_with(dataset: str, removed: list[str]) -> Iterator[str]:
    return (result.path for result in scan(Storage(dataset), set(removed)) if result.removed_keys)


def test_packing_killed_at_any_step_leaves_a_readable_dataset_and_can_be_repeated(
    dataset: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    removed = remove(dataset, ["source-2"], packing=False).removed
    untouched = shutil.copytree(dataset, tmp_path / "untouched")
    pack(dataset, splits=SPLITS, shard_bytes=10_000_000)
    expected = {
        path.relative_to(dataset): path.read_bytes() for path in sorted(Path(dataset).rglob("*")) if path.is_file()
    }
    steps = 0
    while True:
        copy = Path(shutil.copytree(untouched, tmp_path / f"killed-{steps}"))
        calls_left = [steps]
        with monkeypatch.context() as patch:
            for name in ("publish", "delete"):
                patch.setattr(Storage, name, killed_after(getattr(Storage, name), calls_left))
            try:
                pack(str(copy), splits=SPLITS, shard_bytes=10_000_000)
            except Killed:
                pass
            else:
                break
        storage = Storage(copy)
        for row in read_ledger(storage).to_pylist():  # current samples are readable
            if row["outcome"] == "accepted":
                content = storage.read_bytes(row["part"], row["offset"], row["offset"] + row["length"])
                assert decode_sample_bytes(content)[0] == row["record_id"]
        assert len([key for _, key, _ in iterate_samples(storage)]) == 6
        assert not is_packed(storage, SPLITS, 10_000_000)
        pack(str(copy), splits=SPLITS, shard_bytes=10_000_000)
        after = {path.relative_to(copy): path.read_bytes() for path in sorted(copy.rglob("*")) if path.is_file()}
        assert after == expected
        shutil.rmtree(copy)
        steps += 1
    assert steps > 8
    assert not any(key.encode() in tar_bytes(dataset) for key in removed)


def test_a_second_writer_is_refused(dataset: str) -> None:
    with Lease(Storage(dataset), "ingest", beat_s=0.05):
        with pytest.raises(HumoError, match="ingest"):
            remove(dataset, ["source-0"])
        with pytest.raises(HumoError, match="ingest"):
            repack(dataset)
    assert "source-0" in keys_by_source(dataset)


@pytest.mark.parametrize("workers", [0, 2])
def test_training_continues_while_samples_are_removed_and_the_dataset_is_packed(dataset: str, workers: int) -> None:
    from model.data.loader import MotionLoader

    repack(dataset, shard_bytes=20_000)
    before = keys_by_source(dataset)
    config = MotionLoader.Config(dataset=dataset, batch_size=1, workers=workers, epochs=3, shuffle_window=0)
    batches = iter(MotionLoader(config))
    first = [sample.key for batch in itertools.islice(batches, 2) for sample in batch]
    shards = {shard.path for shard in read_description(Storage(dataset)).shards}
    removed = set(remove(dataset, ["source-2"]).removed)
    assert len(shards - {shard.path for shard in read_description(Storage(dataset)).shards}) > 1
    rest = [sample.key for batch in batches for sample in batch]
    assert len(first + rest) == 3 * 8
    kept = {key for name, source_keys in before.items() if name != "source-2" for key in source_keys}
    assert kept <= set(rest)
    assert not removed & set(rest[-8:])  # prefetched batches may come from shards that were still open


def test_training_on_a_bucket_continues(dataset: str, tmp_path: Path) -> None:
    import fsspec

    from model.data.dataset import MotionDataset

    fsspec.filesystem("memory").put(dataset, "/going", recursive=True)
    try:
        samples = MotionDataset("memory://going", cache=str(tmp_path / "cache"))
        removed = set(remove("memory://going", ["source-2"]).removed)
        found = [
            samples.sample(number).key
            for number in range(8)
            if samples.reader.index.keys[number].decode() not in removed
        ]
        assert sorted(found) == sorted(
            key for source_keys in keys_by_source("memory://going").values() for key in source_keys
        )
    finally:
        fsspec.filesystem("memory").rm("/going", recursive=True)
