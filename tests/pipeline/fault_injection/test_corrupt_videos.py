import json
from pathlib import Path

import av
import numpy as np
import pytest
from videos import noise_video

from pipeline.fault_injection.corrupt_videos import CORRUPTIONS, ENCODINGS, main, make_files
from stages.media.decoding import TimedFrame, frames, open_container, video_stream

COUNT = 80


@pytest.fixture(scope="module")
def timed_frames(tmp_path_factory: pytest.TempPathFactory) -> list[TimedFrame]:
    return list(
        frames(str(noise_video(tmp_path_factory.mktemp("whole") / "noise.mp4", frames=12, width=160, height=120)))
    )


@pytest.fixture(scope="module")
def files(timed_frames: list[TimedFrame]) -> dict[str, bytes]:
    return make_files(timed_frames, COUNT, seed=3)


def test_the_same_seed_gives_the_same_bytes(timed_frames: list[TimedFrame], files: dict[str, bytes]) -> None:
    assert len(files) == COUNT
    assert make_files(timed_frames, COUNT, seed=3) == files
    other = make_files(timed_frames, COUNT, seed=4)
    assert sum(other.get(name) == content for name, content in files.items()) < COUNT / 2


@pytest.mark.parametrize("extension", ENCODINGS)
def test_intact_files_can_be_decoded(
    timed_frames: list[TimedFrame], files: dict[str, bytes], tmp_path: Path, extension: str
) -> None:
    path = tmp_path / f"whole.{extension}"
    path.write_bytes(next(content for name, content in files.items() if name.endswith(path.name)))
    with open_container(str(path)) as container:
        assert video_stream(container) is not None
        assert len(container.streams.audio) == bool(ENCODINGS[extension].audio_codec)
        decoded = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    assert len(decoded) == len(timed_frames)
    assert decoded[0].shape == timed_frames[0].image.shape
    assert np.abs(decoded[0].astype(float) - timed_frames[0].image).mean() < 60


def test_all_corruptions_are_applied(files: dict[str, bytes]) -> None:
    names = {name.partition("-")[2].partition(".")[0] for name in files}
    assert names >= {corruption.__name__ for corruption in CORRUPTIONS}
    intact = {content for name, content in files.items() if "whole" in name}
    corrupted = [content for name, content in files.items() if any(f"-{one.__name__}." in name for one in CORRUPTIONS)]
    assert sum(content in intact for content in corrupted) <= len(corrupted) // 10


def test_some_files_can_be_opened_and_some_cannot(files: dict[str, bytes], tmp_path: Path) -> None:
    outcomes = set()
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
        try:
            with av.open(str(tmp_path / name)) as container:
                outcomes.add(bool(container.streams.video))
        except (av.FFmpegError, OSError):
            outcomes.add(None)
    assert outcomes == {True, False, None}


def test_the_manifest_lists_the_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    video = noise_video(tmp_path / "noise.mp4", frames=12, width=160, height=120)
    assert main([str(tmp_path / "out"), "--video", str(video), "--count", "5"]) == 0
    rows = [json.loads(line) for line in (tmp_path / "out" / "manifest.jsonl").read_text().splitlines()]
    assert len(rows) == 5
    assert all((tmp_path / "out" / row["uri"]).is_file() for row in rows)
    assert main([str(tmp_path / "out"), "--video", str(tmp_path / "gone.mp4")]) == 1
    assert "gone.mp4 cannot be read" in capsys.readouterr().err
