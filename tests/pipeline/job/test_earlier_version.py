"""Datasets of the earlier sample version, which has no masks: read everywhere, but never mixed."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from mocap_files import body_motion, write_known_bvh

from model.data.dataset import MotionDataset
from pipeline.audit.query import query
from pipeline.audit.statistics import compute_statistics
from pipeline.chain.config import IngestConfig
from pipeline.dataset.catalogue import SINCE_VERSION_2
from pipeline.dataset.pack import repack
from pipeline.dataset.verify import verify
from pipeline.job.ingest import ingest, make_worklist
from pipeline.planning.plan import make_plan
from schemas.config import parse_config
from schemas.dataset import LAYOUT_VERSION, read_description, read_table, write_table
from schemas.errors import HumoError
from schemas.records import Sample
from schemas.sample import decode_npz, encode_json, encode_npz, encode_sample_record
from schemas.storage import Storage
from stages import encode_clip


def earlier_record(*arguments: Any, **options: Any) -> Sample:
    """A sample as version 1 has it."""
    sample = encode_sample_record(*arguments, **options)
    motion, meta = decode_npz(sample.members["motion.npz"]), json.loads(sample.members["meta.json"])
    del motion["seen"], meta["version"], meta["coverage"], meta["shot"]
    members = {**sample.members, "motion.npz": encode_npz(motion), "meta.json": encode_json(meta)}
    if "keypoints.npz" in members:
        keypoints = decode_npz(members["keypoints.npz"])
        del keypoints["landmarks"], keypoints["landmarks_m"]
        keypoints["intrinsics"] = keypoints["intrinsics"][0]
        members["keypoints.npz"] = encode_npz(keypoints)
    return replace(sample, members=members)


@pytest.fixture
def job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A function that makes jobs; the dataset of its output is of the earlier version."""
    folder = tmp_path / "in"
    folder.mkdir()
    for name, action in (("first", "walk"), ("second", "wave_left")):
        write_known_bvh(folder / f"{name}.bvh", body_motion(action, 3.0), "cmu_bvh")

    def make(**stages: Any) -> IngestConfig:
        content = {
            "sources": [{"kind": "mocap", "path": f"{folder}/*.bvh"}],
            "output": str(tmp_path / "data"),
            "engine": {"kind": "inline", "isolate": False},
            "splits": {"train": 1.0},
            "stages": stages,
        }
        return parse_config(content, IngestConfig, "job.yaml")

    with monkeypatch.context() as patched:
        patched.setattr(encode_clip, "encode_sample_record", earlier_record)
        ingest(make())
    return make


def test_it_is_read_everywhere(job: Any) -> None:
    storage = Storage(job().output)
    assert read_description(storage).layout == LAYOUT_VERSION - 1
    for path in storage.list("catalogue", ".parquet"):
        write_table(storage, path, read_table(storage, path).drop_columns(list(SINCE_VERSION_2)))
    assert verify(storage.uri).problems == []
    assert len(MotionDataset(storage.uri)) == 2
    assert all(sample.motion.seen.all() for sample in MotionDataset(storage.uri))
    assert query(storage.uri, "SELECT count(*) FROM samples").to_pydict() == {"count_star()": [2]}
    assert query(storage.uri, "SELECT DISTINCT coalesce(coverage, 'whole') AS c FROM samples").to_pylist() == [
        {"c": "whole"}
    ]
    assert compute_statistics(storage.uri)["coverages"]["whole"]["samples"] == 2
    assert repack(storage.uri).layout == LAYOUT_VERSION - 1
    assert verify(storage.uri).problems == []


def test_nothing_of_a_later_version_is_added_to_it(job: Any, tmp_path: Path) -> None:
    write_known_bvh(tmp_path / "in" / "third.bvh", body_motion("squat", 3.0), "cmu_bvh")
    settings = {"score_motion": {"max_jitter": 123.0}}  # other settings, as another version of humo has
    with pytest.raises(
        HumoError, match=r"earlier version \(layout 4\).*2 such sources: run humo ingest with --recompute"
    ):
        ingest(job(**settings))
    assert "would be refused" in make_plan(job(**settings))["remarks"]["output"]
    assert len(MotionDataset(job().output)) == 2
    (tmp_path / "in" / "first.bvh").rename(tmp_path / "elsewhere.bvh")
    partial = job(**settings)
    with pytest.raises(HumoError, match=r"list its other sources too \(such as first"):
        ingest(partial, worklist=make_worklist(partial, recompute=True))
    (tmp_path / "elsewhere.bvh").rename(tmp_path / "in" / "first.bvh")
    report = ingest(job(**settings), worklist=make_worklist(job(**settings), recompute=True))
    assert report.samples == 3
    assert report.description.layout == LAYOUT_VERSION
    assert verify(job().output).problems == []
    assert query(job().output, "SELECT DISTINCT version, coverage FROM samples").to_pylist() == [
        {"version": 2, "coverage": "whole"}
    ]
