"""Publishing: compatibility with other loaders, samples left out, and resuming after a crash."""

import json
import os
import shutil
from pathlib import Path

import fsspec
import numpy as np
import pytest
import webdataset
import yaml
from audit_helpers import make_sample
from commit_helpers import Killed, killed_after, work_item

from pipeline.curation.remove import remove
from pipeline.dataset.commits import commit
from pipeline.dataset.pack import pack, repack
from pipeline.dataset.verify import verify
from pipeline.dataset.versions import current_version
from pipeline.publishing.publish import publish
from schemas.dataset import iterate_samples, read_description
from schemas.errors import UsageError
from schemas.storage import Storage

SPLITS = {"train": 0.4, "val": 0.6, "test": 0.0}


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> str:
    root = tmp_path_factory.mktemp("publish") / "data"
    for number in range(5):
        item = work_item(number)
        if number < 2:
            item.records.append(make_sample("video", 50 + number, source=item.source))
        commit(Storage(root), [item], "digest")
    pack(str(root), splits=SPLITS, shard_bytes=50_000)
    return str(root)


@pytest.fixture
def dataset(original: str, tmp_path: Path) -> str:
    return str(shutil.copytree(original, tmp_path / "data"))


def keys(dataset: str, **filters: str) -> list[str]:
    return sorted(key for _, key, _ in iterate_samples(Storage(dataset), **filters))


def test_humo_datasets_and_webdataset_read_the_copy(
    original: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = str(tmp_path / "out")
    found = publish(original, out, name="Walkers", contact="someone@example.org")
    assert (found.samples, found.removed_since, found.left_out, found.unlicensed) == (12, 0, 0, 0)
    assert found.version == current_version(Storage(original))
    assert verify(out).problems == []
    assert keys(out) == keys(original)
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    import datasets

    loaded = datasets.load_dataset(out, cache_dir=str(tmp_path / "hf"))
    for split, rows in loaded.items():
        assert sorted(rows["__key__"]) == keys(out, subset="mocap", split=split)
    videos = datasets.load_dataset(out, "video", cache_dir=str(tmp_path / "hf"))
    assert sorted(key for rows in videos.values() for key in rows["__key__"]) == keys(out, subset="video")
    shards = [f"{out}/{one.path}" for one in read_description(Storage(out)).shards]
    assert sorted(one["__key__"] for one in webdataset.WebDataset(shards, shardshuffle=False)) == keys(out)


def test_the_card_describes_the_content(original: str, tmp_path: Path) -> None:
    out = tmp_path / "out"
    publish(original, str(out), name="Walkers", contact="someone@example.org")
    text = (out / "README.md").read_text()
    front = yaml.safe_load(text.split("---\n")[1])
    assert front["license_name"] == "L0 AND L1"
    assert [one["config_name"] for one in front["configs"] if one.get("default")] == ["mocap"]
    for expected in (
        "# Walkers",
        "| L0 | given | 3 |",
        "someone@example.org",
        "| mocap | train |",
        "humo-anny-1",
        "12 samples",
    ):
        assert expected in text
    assert str(tmp_path) not in text


def test_energon_index_locates_every_sample(original: str, tmp_path: Path) -> None:
    out = tmp_path / "out"
    publish(original, str(out))
    counts = json.loads((out / ".nv-meta/.info.json").read_text())["shard_counts"]
    assert counts == {one.path: one.samples for one in read_description(Storage(out)).shards}
    assert counts == yaml.safe_load((out / ".nv-meta/.info.yaml").read_text())["shard_counts"]
    splits = yaml.safe_load((out / ".nv-meta/split.yaml").read_text())["split_parts"]
    assert sorted(path for paths in splits.values() for path in paths) == sorted(counts)
    mocap = yaml.safe_load((out / ".nv-meta/split-mocap.yaml").read_text())["split_parts"]
    assert mocap["train"] == [path for path in splits["train"] if "/mocap/" in path]
    assert yaml.safe_load((out / ".nv-meta/dataset.yaml").read_text())["__class__"] == "CrudeWebdataset"
    for path, samples in counts.items():
        content = (out / path).read_bytes()
        offsets = np.frombuffer((out / path).with_suffix(".tar.idx").read_bytes(), "<u8")
        names = [content[start : start + 24].decode() for start in offsets[:-1]]
        assert len(set(names)) == len(names) == samples
        assert content[offsets[-1] :] == bytes(1024)


def test_removed_samples_and_other_licences_are_left_out(dataset: str, tmp_path: Path) -> None:
    first, out = current_version(Storage(dataset)), str(tmp_path / "out")
    publish(dataset, out)
    removed = remove(dataset, ["source-2"]).removed
    commit(Storage(dataset), [work_item(9)], "digest")
    repack(dataset)
    found = publish(dataset, out, version=first)
    assert (found.removed_since, found.samples) == (2, 10)
    assert not set(keys(out)) & set(removed)
    assert set(keys(out)) < set(keys(dataset))
    assert found.version != first
    assert verify(out).problems == []
    found = publish(dataset, out, licences=["L1"], subsets=["mocap"])
    metas = [json.loads(members["meta.json"]) for _, _, members in iterate_samples(Storage(out))]
    assert {(meta["licence"], meta["subset"]) for meta in metas} == {("L1", "mocap")}
    assert found.left_out > 0
    assert not list(Path(out).glob("shards/video/*"))
    with pytest.raises(UsageError, match="no sample of version"):
        publish(dataset, out, licences=["GPL"])
    with pytest.raises(UsageError, match="humo ingest writes to"):
        publish(dataset, dataset)
    with pytest.raises(UsageError, match="no version 'nothing'"):
        publish(dataset, out, version="nothing")


def test_a_killed_copy_resumes(original: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    expected, out = tmp_path / "expected", tmp_path / "out"
    publish(original, str(expected), name="same")
    with monkeypatch.context() as patch:
        patch.setattr(Storage, "publish", killed_after(Storage.publish, [3]))
        with pytest.raises(Killed):
            publish(original, str(out), name="same")
    assert not (out / "README.md").exists()
    arrived = {path: os.stat(path).st_ino for path in out.rglob("*.tar")}
    found = publish(original, str(out), name="same")
    assert found.kept == len(arrived) > 0
    assert {path: os.stat(path).st_ino for path in arrived} == arrived
    contents = [
        {path.relative_to(root): path.read_bytes() for path in root.rglob("*") if path.is_file()}
        for root in (expected, out)
    ]
    assert contents[0] == contents[1]


def test_a_bucket_is_a_destination(original: str) -> None:
    try:
        found = publish(original, "memory://published")
        assert verify("memory://published").problems == []
        assert publish(original, "memory://published").kept == found.shards
    finally:
        fsspec.filesystem("memory").rm("/published", recursive=True)
