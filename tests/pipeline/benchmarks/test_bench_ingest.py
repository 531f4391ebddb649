"""humo bench ingest: copies that are told apart, figures that hold together, and a job's memory."""

import json
from pathlib import Path

import pytest
from videos import noise

from pipeline.benchmarks.ingest import bench, bench_text, copies, measure_memory
from schemas.errors import UsageError
from schemas.records import Source
from stages.base import apply
from stages.media.decoding import frames
from stages.read_videos import ReadVideos


def test_copies_differ_and_play_alike(tmp_path: Path) -> None:
    original = noise(tmp_path / "noise.mp4", frames=40)
    made = copies(original, tmp_path / "copies", 3)
    videos, rejections = apply(ReadVideos(), [Source(id=path.stem, uri=str(path)) for path in made])
    assert not rejections
    assert len({video.sha256 for video in videos}) == len({video.id for video in videos}) == 3
    assert {video.duration_s for video in videos} == {videos[0].duration_s}
    for one, other in zip(frames(str(original)), frames(str(made[2])), strict=True):
        assert (one.image == other.image).all()


def test_misuse_is_told(tmp_path: Path) -> None:
    for wrong in ({"videos": 0}, {"rounds": 0}, {"memory": [20, 10]}, {"memory": [0]}):
        with pytest.raises(UsageError, match="numbers that grow"):
            bench(**wrong)
    with pytest.raises(UsageError, match="no such file"):
        bench(str(tmp_path / "gone.mp4"))


@pytest.mark.slow
def test_the_chain_is_held_against_tracking_alone(films: Path) -> None:
    found = bench(str(films / "wave.mp4"), videos=1, rounds=1, ray=False)
    assert (found["frames"], found["samples"]) == (90, 1)
    assert set(found["fps"]) == {"chain", "tracking", "plain"}
    assert found["of_tracking"] == pytest.approx(found["fps"]["chain"] / found["fps"]["tracking"], rel=0.02)
    assert 0 < found["stage_s"]["track_people"] <= 90 / found["fps"]["chain"]
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    assert "whole chain, inline" in bench_text(found)


@pytest.mark.slow
def test_the_memory_of_a_job_is_seen(tmp_path: Path) -> None:
    still = noise(tmp_path / "noise.mp4", frames=20)  # too short to be looked at any further
    found = measure_memory(still, tmp_path, 2)
    assert found["videos"] == 2
    assert 100 < found["peak_mib"] < 8000
