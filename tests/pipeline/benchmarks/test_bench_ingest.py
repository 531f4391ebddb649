"""humo bench ingest: distinct copies, consistent results, and a job's memory."""

import json
from pathlib import Path

import pytest
from videos import noise_video

from pipeline.benchmarks.ingest import bench, bench_text, copies, measure_memory
from schemas.errors import UsageError
from schemas.records import Source
from stages.base import apply
from stages.media.decoding import frames
from stages.read_videos import ReadVideos


def test_copies_differ_in_hash_but_not_in_frames(tmp_path: Path) -> None:
    original = noise_video(tmp_path / "noise.mp4", frames=40)
    paths = copies(original, tmp_path / "copies", 3)
    videos, rejections = apply(ReadVideos(), [Source(id=path.stem, uri=str(path)) for path in paths])
    assert not rejections
    assert len({video.sha256 for video in videos}) == len({video.id for video in videos}) == 3
    assert {video.duration_s for video in videos} == {videos[0].duration_s}
    for one, other in zip(frames(str(original)), frames(str(paths[2])), strict=True):
        assert (one.image == other.image).all()


def test_invalid_arguments_are_rejected(tmp_path: Path) -> None:
    for arguments in ({"videos": 0}, {"rounds": 0}, {"memory": [20, 10]}, {"memory": [0]}):
        with pytest.raises(UsageError, match="increasing numbers"):
            bench(**arguments)
    with pytest.raises(UsageError, match="no such file"):
        bench(str(tmp_path / "gone.mp4"))


@pytest.mark.slow
def test_the_chain_is_compared_with_tracking_alone(films: Path) -> None:
    report = bench(str(films / "wave.mp4"), videos=1, rounds=1, ray=False)
    assert (report["frames"], report["samples"]) == (90, 1)
    assert set(report["fps"]) == {"chain", "tracking", "plain"}
    assert report["of_tracking"] == pytest.approx(report["fps"]["chain"] / report["fps"]["tracking"], rel=0.02)
    assert 0 < report["stage_s"]["track_people"] <= 90 / report["fps"]["chain"]
    assert json.loads(json.dumps(report, allow_nan=False)) == report
    assert "whole chain, inline" in bench_text(report)


@pytest.mark.slow
def test_the_memory_of_a_job_is_measured(tmp_path: Path) -> None:
    video = noise_video(tmp_path / "noise.mp4", frames=20)  # too short to be processed any further
    report = measure_memory(video, tmp_path, 2)
    assert report["videos"] == 2
    assert 100 < report["peak_mib"] < 8000
