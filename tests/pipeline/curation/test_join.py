"""Long motions: joined from a dataset, only once, and removed together with their sources."""

import json
from pathlib import Path

import pytest
from audit_helpers import make_sample

from pipeline.audit.query import query
from pipeline.chain.work_item import WorkItem
from pipeline.curation.join import JoinConfig, join_dataset
from pipeline.curation.remove import remove
from pipeline.dataset.commits import commit
from pipeline.dataset.pack import pack
from pipeline.dataset.verify import verify
from schemas.config import parse_config
from schemas.dataset import iterate_samples, read_causes, read_description
from schemas.errors import HumoError, UsageError
from schemas.ids import digest
from schemas.ledger import read_ledger
from schemas.records import Source
from schemas.storage import Storage

SPLITS = {"train": 0.6, "val": 0.4, "test": 0.0}
LOOSE = {f"max_{name}": 1e3 for name in ("jitter", "foot_slide", "penetration", "float", "joint_limits", "physical")}
CONFIG = parse_config(
    {
        "openings": 1.0,
        "join_clips": {"min_s": 3.0, "max_s": 5.0, "max_cost_m": 5.0},
        "score_motion": LOOSE,
        "write_instructions": {"instances": {"i2lm": 1, "t2m": 1}},
    },
    JoinConfig,
    "test",
)


@pytest.fixture
def dataset(tmp_path: Path) -> str:
    """Five sources of two mocap clips each, one of them with a video clip."""
    root = tmp_path / "data"
    for number in range(5):
        source = Source(id=f"source-{number}", uri=f"/in/{number}.bvh", licence=f"L{number}", consent="given")
        work_item = WorkItem.of(source)
        work_item.sha256 = digest(source.id) * 2
        work_item.records = [make_sample("mocap", 2 * number + index, source=source) for index in (0, 1)]
        if number == 0:
            work_item.records.append(make_sample("video", 50 + number, source=source))
        commit(Storage(root), [work_item], "digest")
    pack(str(root), splits=SPLITS, shard_bytes=1_000_000)
    return str(root)


def long_metas(dataset: str) -> dict[str, dict]:
    return {
        key: json.loads(members["meta.json"]) | {"split": shard.split, "members": members}
        for shard, key, members in iterate_samples(Storage(dataset), subset="long")
    }


def test_long_motions_form_a_dataset(dataset: str, tmp_path: Path) -> None:
    out = str(tmp_path / "long")
    report = join_dataset(dataset, out, CONFIG)
    assert report.openings == 11
    assert report.created == len(long_metas(out)) > 4
    assert report.created + sum(report.rejections.values()) == report.openings
    assert verify(out).problems == []
    split_of_source = {
        json.loads(members["meta.json"])["source_id"]: shard.split
        for shard, _, members in iterate_samples(Storage(dataset))
    }
    for meta in long_metas(out).values():
        sources = {segment["source_id"] for segment in meta["segments"]}
        assert {split_of_source[source] for source in sources} == {meta["split"]}
        assert meta["licence"] == " AND ".join(sorted({segment["licence"] for segment in meta["segments"]}))
        assert 3.0 <= meta["frames"] / meta["fps"] <= 5.0
        assert json.loads(meta["members"]["instructions.json"])["instances"]
    rows = query(out, "SELECT key, sources, segments FROM samples").to_pylist()
    assert all(row["sources"] and len(row["segments"]) > 1 for row in rows)
    ledger = read_ledger(Storage(out)).to_pylist()
    assert {row["outcome"] for row in ledger} >= {"accepted"}
    assert all(row["source_id"].startswith("long-") for row in ledger)


def test_another_run_makes_no_duplicates(dataset: str, tmp_path: Path) -> None:
    out = str(tmp_path / "long")
    first = join_dataset(dataset, out, CONFIG)
    before = {path: path.read_bytes() for path in sorted((tmp_path / "long").rglob("*.tar"))}
    again = join_dataset(dataset, out, CONFIG)
    assert (again.done_before, again.created, again.withdrawn) == (first.openings, 0, 0)
    assert {path: path.read_bytes() for path in sorted((tmp_path / "long").rglob("*.tar"))} == before
    join_dataset(dataset, str(tmp_path / "other"), CONFIG)
    assert long_metas(str(tmp_path / "other")).keys() == long_metas(out).keys()


def test_removing_a_source_removes_its_long_motions(dataset: str, tmp_path: Path) -> None:
    out = str(tmp_path / "long")
    join_dataset(dataset, out, CONFIG)
    metas = long_metas(out)
    removed = next(iter(metas.values()))["segments"][-1]["source_id"]
    affected = {key for key, meta in metas.items() if removed in {segment["source_id"] for segment in meta["segments"]}}
    result = remove(out, [removed])
    assert set(result.removed) == affected
    assert result.joined == len(affected)
    assert long_metas(out).keys() == metas.keys() - affected
    assert verify(out).problems == []
    assert remove(out, [removed]).removed == []
    assert read_causes(Storage(out)) == dict.fromkeys(affected, f"source {removed}")


def test_long_motions_of_a_source_removed_from_the_clips_are_withdrawn(dataset: str, tmp_path: Path) -> None:
    out = str(tmp_path / "long")
    join_dataset(dataset, out, CONFIG)
    metas = long_metas(out)
    removed = next(iter(metas.values()))["segments"][0]["source_id"]
    assert len(remove(dataset, [removed]).removed) in (2, 3)
    report = join_dataset(dataset, out, CONFIG)
    assert report.withdrawn > 0
    assert report.created == 0
    remaining = long_metas(out)
    assert remaining.keys() < metas.keys()
    assert all(removed not in {segment["source_id"] for segment in meta["segments"]} for meta in remaining.values())
    assert verify(out).problems == []


def test_a_dataset_may_hold_its_own_long_motions(dataset: str) -> None:
    clips = read_description(Storage(dataset)).counts["live"]
    report = join_dataset(dataset, dataset, CONFIG)
    assert report.description.counts["live"] == clips + report.created
    assert join_dataset(dataset, dataset, CONFIG).created == 0
    assert verify(dataset).problems == []
    found = remove(dataset, ["source-3"])
    assert found.joined == len(found.removed) - 2 > 0
    assert verify(dataset).problems == []


def test_invalid_requests_are_reported(dataset: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no source nobody in it"):
        remove(dataset, ["source-1", "nobody"])
    with pytest.raises(HumoError, match=r"no dataset\.json"):
        join_dataset(str(tmp_path / "nothing"), str(tmp_path / "long"), CONFIG)
    join_dataset(dataset, str(tmp_path / "long"), CONFIG)
    pack(str(tmp_path / "long"), splits={"train": 1.0}, shard_bytes=1_000_000)
    with pytest.raises(HumoError, match="in two splits"):
        join_dataset(dataset, str(tmp_path / "long"), CONFIG)
