import json
from pathlib import Path

import av
import numpy as np
import pytest
from videos import noise

from pipeline.fault_injection.corrupt_videos import DAMAGES, DRESSES, main, mutate
from stages.media.decoding import TimedFrame, frames, open_container, picture_stream

COUNT = 80


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> list[TimedFrame]:
    return list(frames(str(noise(tmp_path_factory.mktemp("whole") / "noise.mp4", frames=12, width=160, height=120))))


@pytest.fixture(scope="module")
def mutated(pictures: list[TimedFrame]) -> dict[str, bytes]:
    return mutate(pictures, COUNT, seed=3)


def test_the_same_seed_gives_the_same_bytes(pictures: list[TimedFrame], mutated: dict[str, bytes]) -> None:
    assert len(mutated) == COUNT
    assert mutate(pictures, COUNT, seed=3) == mutated
    other = mutate(pictures, COUNT, seed=4)
    assert sum(other.get(name) == content for name, content in mutated.items()) < COUNT / 2


@pytest.mark.parametrize("ending", DRESSES)
def test_whole_files_are_whole(
    pictures: list[TimedFrame], mutated: dict[str, bytes], tmp_path: Path, ending: str
) -> None:
    path = tmp_path / f"whole.{ending}"
    path.write_bytes(next(content for name, content in mutated.items() if name.endswith(path.name)))
    with open_container(str(path)) as container:
        assert picture_stream(container) is not None
        assert len(container.streams.audio) == bool(DRESSES[ending].sound)
        shown = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    assert len(shown) == len(pictures)
    assert shown[0].shape == pictures[0].image.shape
    assert np.abs(shown[0].astype(float) - pictures[0].image).mean() < 60


def test_all_kinds_of_damage_are_done(mutated: dict[str, bytes]) -> None:
    names = {name.partition("-")[2].partition(".")[0] for name in mutated}
    assert names >= {damage.__name__ for damage in DAMAGES}
    whole = {content for name, content in mutated.items() if "whole" in name}
    damaged = [content for name, content in mutated.items() if any(f"-{one.__name__}." in name for one in DAMAGES)]
    assert sum(content in whole for content in damaged) <= len(damaged) // 10


def test_some_can_be_opened_and_some_cannot(mutated: dict[str, bytes], tmp_path: Path) -> None:
    outcomes = set()
    for name, content in mutated.items():
        (tmp_path / name).write_bytes(content)
        try:
            with av.open(str(tmp_path / name)) as container:
                outcomes.add(bool(container.streams.video))
        except (av.FFmpegError, OSError):
            outcomes.add(None)
    assert outcomes == {True, False, None}


def test_a_manifest_lists_them(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    video = noise(tmp_path / "noise.mp4", frames=12, width=160, height=120)
    assert main([str(tmp_path / "out"), "--video", str(video), "--count", "5"]) == 0
    rows = [json.loads(line) for line in (tmp_path / "out" / "manifest.jsonl").read_text().splitlines()]
    assert len(rows) == 5
    assert all((tmp_path / "out" / row["uri"]).is_file() for row in rows)
    assert main([str(tmp_path / "out"), "--video", str(tmp_path / "gone.mp4")]) == 1
    assert "gone.mp4 cannot be read" in capsys.readouterr().err
