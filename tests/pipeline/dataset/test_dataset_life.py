"""Life of a dataset: commits, kills, packing, corruption, repacking. A cheap stage replaces the slow ones."""

import io
import json
import os
import shutil
import tarfile
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest
from audit_helpers import make_sample

from pipeline.chain.work_item import WorkItem, advance
from pipeline.dataset.commits import commit, done_sources
from pipeline.dataset.pack import is_packed, pack
from pipeline.dataset.shard_writer import split_of
from pipeline.dataset.verify import verify
from schemas.dataset import read_description
from schemas.errors import HumoError
from schemas.ledger import read_ledger
from schemas.records import Rejection, Sample, Source
from schemas.storage import Storage
from stages.base import Stage

SPLITS = {"train": 0.6, "val": 0.4, "test": 0.0}


class MakeSamples(Stage[Source, Sample]):
    """Samples of a source by its number: every fifth is rejected, every seventh raises an error."""

    def run(self, record: Source) -> Iterable[Sample | Rejection]:
        number = int(record.id.split("-")[1])
        if number % 7 == 3:
            raise ValueError("poison")
        if number % 5 == 4:
            yield self.reject(record, "dull", measured=0.0, limit=1.0)
            return
        yield make_sample("mocap", number, source=record)
        if number % 2:
            yield make_sample("video", 100 + number, source=record)


def sources(count: int) -> list[Source]:
    return [
        Source(id=f"source-{number:02d}", uri=f"/videos/{number}.mp4", licence="CC0-1.0") for number in range(count)
    ]


def commit_sources(root: Path, selected: list[Source], batch: int = 1) -> Storage:
    storage = Storage(root)
    work_items = [advance([MakeSamples()], WorkItem.of(source)) for source in selected]
    for work_item in work_items:
        work_item.sha256 = f"{work_item.source.id:0>64}"
    for start in range(0, len(work_items), batch):
        commit(storage, work_items[start : start + batch], "digest")
    return storage


def content(root: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(root)): path.read_bytes()
        for folder in ("shards", "catalogue")
        for path in sorted((root / folder).rglob("*"))
        if path.is_file()
    }


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    commit_sources(tmp_path / "data", sources(12))
    pack(str(tmp_path / "data"), splits=SPLITS, shard_bytes=1_000_000)
    return tmp_path / "data"


def test_every_source_is_in_the_ledger(dataset: Path) -> None:
    ledger = read_ledger(Storage(dataset)).to_pylist()
    assert {row["source_id"] for row in ledger} == {source.id for source in sources(12)}
    by_source = {row["source_id"]: row for row in ledger}
    assert by_source["source-04"]["reason"] == "dull"
    assert by_source["source-03"]["reason"] == "error"
    assert "ValueError: poison" in by_source["source-03"]["detail"]
    assert done_sources(Storage(dataset)) == dict.fromkeys((source.id for source in sources(12)), "digest")
    assert verify(str(dataset)).problems == []


def test_same_bytes_for_any_order_and_size_of_commits(tmp_path: Path, dataset: Path) -> None:
    commit_sources(tmp_path / "other", sources(12)[::-1], batch=5)
    pack(str(tmp_path / "other"), splits=SPLITS, shard_bytes=1_000_000)
    ours, other = content(dataset), content(tmp_path / "other")
    assert ours == other
    assert len([name for name in ours if name.endswith(".tar")]) >= 2


def test_a_commit_killed_before_its_ledger_file_is_repeated(tmp_path: Path, dataset: Path) -> None:
    """The part exists, the source is not done, and processing it again gives the same dataset."""
    storage = commit_sources(tmp_path / "data2", sources(12))
    ledger = sorted((tmp_path / "data2" / "ledger").iterdir())
    lost = {row["source_id"] for row in read_ledger(storage).to_pylist() if row["commit"] == ledger[0].stem}
    ledger[0].unlink()
    (tmp_path / "data2" / "parts" / ".half.tar.1.partial").write_bytes(b"x" * 100)
    assert set(done_sources(storage)) == {source.id for source in sources(12)} - lost
    commit_sources(tmp_path / "data2", [source for source in sources(12) if source.id in lost])
    pack(str(tmp_path / "data2"), splits=SPLITS, shard_bytes=1_000_000)
    assert content(tmp_path / "data2") == content(dataset)


def test_repacking_replaces_shards(dataset: Path) -> None:
    storage = Storage(dataset)
    assert is_packed(storage, SPLITS, 1_000_000)
    assert not is_packed(storage, SPLITS, 2_000_000)
    for name in ("train-000098.tar", "train-000099.tar"):
        (dataset / "shards" / "mocap" / name).write_bytes(b"stale")
    os.utime(dataset / "shards" / "mocap" / "train-000099.tar", (1.0, 1.0))
    pack(str(dataset), splits={"train": 1.0}, shard_bytes=2_000_000)
    assert {shard.split for shard in read_description(storage).shards} == {"train"}
    assert not (dataset / "shards" / "mocap" / "train-000099.tar").exists()
    assert (dataset / "shards" / "mocap" / "train-000098.tar").exists(), "a reader may still use a young one"
    assert verify(str(dataset)).problems == []


def test_shards_are_sorted_by_key(dataset: Path) -> None:
    pack(str(dataset), splits={"train": 1.0}, shard_bytes=20_000)
    names = []
    for shard in read_description(Storage(dataset)).shards:
        with tarfile.open(dataset / shard.path) as tar:
            keys = list(dict.fromkeys(name.split(".")[0] for name in tar.getnames()))
            headers = tar.getmembers()
        assert all((header.mtime, header.uid, header.uname) == (0, 0, "") for header in headers)
        names += [(shard.subset, key) for key in keys]
    assert names == sorted(names)


def test_copies_of_a_video_share_a_split() -> None:
    assert split_of("a" * 64, SPLITS) == split_of("a" * 64, SPLITS)
    shares = [split_of(str(number), SPLITS) for number in range(2000)]
    assert shares.count("train") / 2000 == pytest.approx(0.6, abs=0.05)
    assert "test" not in shares


@pytest.mark.parametrize("alteration", ["flip", "truncate", "delete", "swap", "catalogue"])
def test_verify_finds_alterations(dataset: Path, alteration: str) -> None:
    shard = dataset / read_description(Storage(dataset)).shards[0].path
    content = bytearray(shard.read_bytes())
    if alteration == "flip":
        content[len(content) // 2] ^= 1
        shard.write_bytes(content)
    elif alteration == "truncate":
        shard.write_bytes(content[: len(content) // 2])
    elif alteration == "delete":
        shard.unlink()
    elif alteration == "swap":
        others = [dataset / entry.path for entry in read_description(Storage(dataset)).shards[1:]]
        shutil.copy(others[0], shard)
    else:
        next((dataset / "catalogue").iterdir()).unlink()
    assert verify(str(dataset)).problems


def test_an_altered_part_is_named(dataset: Path) -> None:
    part = next((dataset / "parts").iterdir())
    part.write_bytes(b"\0" * part.stat().st_size)
    with pytest.raises(HumoError, match=f"parts/{part.name}: does not hold sample"):
        pack(str(dataset), splits=SPLITS, shard_bytes=1_000_000)


def test_plain_tarfile_and_numpy_read_a_sample(dataset: Path) -> None:
    entry = next(shard for shard in read_description(Storage(dataset)).shards if shard.subset == "video")
    with tarfile.open(dataset / entry.path) as tar:
        members = {name: tar.extractfile(name).read() for name in tar.getnames()}  # type: ignore[union-attr]
    key = next(iter(members)).split(".")[0]
    motion = np.load(io.BytesIO(members[f"{key}.motion.npz"]))
    assert motion["poses"].shape == (json.loads(members[f"{key}.meta.json"])["frames"], 24, 3)
