import math
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from videos import audio_only, noise_video, rotated_video, tagged_video, uneven_video

from schemas.records import Rejection, Source, Video
from stages.base import apply
from stages.media.decoding import frames
from stages.media.encoding import VideoWriter
from stages.media.focal_length import focal_px
from stages.read_videos import ReadVideos


def read(path: Path | str, name: str = "x") -> Video | Rejection:
    kept, rejected = apply(ReadVideos(), [Source(id=name, uri=str(path))])
    assert len(kept) + len(rejected) == 1
    return (kept + rejected)[0]


def truncated(path: Path) -> Path:
    whole = noise_video(path, frames=120)
    whole.write_bytes(whole.read_bytes()[: int(whole.stat().st_size * 0.6)])
    return whole


def written(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda path: written(path, b""), "not_a_video"),
        (lambda path: written(path, b"hello, I am a text\n" * 99), "not_a_video"),
        (truncated, "not_a_video"),
        (audio_only, "no_picture_stream"),
        (lambda path: noise_video(path, frames=1), "single_frame"),
        (lambda path: noise_video(path, frames=15), "too_short"),
        (lambda path: noise_video(path, fps=5.0), "frame_rate_too_low"),
        (lambda path: noise_video(path, width=64, height=48), "picture_too_small"),
        (lambda path: path / "missing.mp4", "missing"),
    ],
)
def test_bad_files_are_rejected_with_a_reason(tmp_path: Path, make: Callable[[Path], Path], reason: str) -> None:
    result = read(make(tmp_path / "video.mp4"))
    assert isinstance(result, Rejection)
    assert result.reason == reason


def test_a_file_truncated_after_its_index(tmp_path: Path) -> None:
    """With the index at the front, the container still opens and declares the full duration."""
    import av

    whole = noise_video(tmp_path / "whole.mp4", frames=120)
    front = tmp_path / "front.mp4"
    with av.open(str(whole)) as source, av.open(str(front), "w", options={"movflags": "faststart"}) as out:
        stream = out.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(video=0):
            if packet.dts is not None:
                packet.stream = stream
                out.mux(packet)
    front.write_bytes(front.read_bytes()[: int(front.stat().st_size * 0.5)])
    result = read(front)
    assert isinstance(result, Rejection)
    assert result.reason == "truncated"
    assert result.measured < result.limit


@pytest.mark.parametrize("name", ["a.b", "a/b", "a\nb", "", "x" * 200])
def test_bad_ids(tmp_path: Path, name: str) -> None:
    result = read(noise_video(tmp_path / "video.mp4"), name)
    assert isinstance(result, Rejection)
    assert result.reason == "bad_id"


def test_a_folder_is_rejected_as_unreadable(tmp_path: Path) -> None:
    result = read(tmp_path)
    assert isinstance(result, Rejection)
    assert result.reason == "unreadable"


def test_properties_of_a_video(tmp_path: Path) -> None:
    result = read(noise_video(tmp_path / "video.mp4", frames=75, width=322, height=178, fps=25.0))
    assert isinstance(result, Video)
    assert (result.width, result.height, result.has_audio) == (322, 178, False)
    assert result.fps == pytest.approx(25, abs=1e-3)
    assert result.duration_s == pytest.approx(3, abs=1e-3)


def test_uneven_frame_times_are_preserved(tmp_path: Path) -> None:
    times_s = [0.0]
    for number in range(89):
        times_s.append(times_s[-1] + (1 / 30 if number % 7 else 4 / 30))
    path = uneven_video(tmp_path / "uneven.mp4", times_s)
    result = read(path)
    assert isinstance(result, Video)
    assert result.fps == pytest.approx(30, abs=0.1)
    np.testing.assert_allclose([frame.time_s for frame in frames(str(path))], times_s, atol=1e-3)


def test_a_rotated_video_is_decoded_upright(tmp_path: Path) -> None:
    image = np.zeros((120, 200, 3), np.uint8)
    image[:60, :100] = 255  # white in the top left; a rotation of 90 degrees clockwise moves it to the top right
    with VideoWriter(tmp_path / "flat.mp4", 200, 120, 30.0) as out:
        for _ in range(40):
            out.write(image)
    path = rotated_video(tmp_path / "rotated.mp4", tmp_path / "flat.mp4")
    result = read(path)
    assert isinstance(result, Video)
    assert (result.width, result.height) == (120, 200)
    image = next(frames(str(path))).image
    corners = image[20, 20].mean(), image[20, 100].mean(), image[180, 20].mean(), image[180, 100].mean()
    assert np.argmax(corners) == 1


def test_time_spans_and_subsampling(tmp_path: Path) -> None:
    path = str(noise_video(tmp_path / "video.mp4", frames=120))
    all_frames = list(frames(path))
    span = list(frames(path, start_s=2.0, end_s=3.0))
    assert [round(frame.time_s * 30) for frame in span] == list(range(60, 90))
    np.testing.assert_array_equal(span[0].image, all_frames[60].image)
    assert [round(frame.time_s * 30) for frame in frames(path, start_s=1.0, end_s=2.0, max_fps=10)] == list(
        range(30, 60, 3)
    )


@pytest.mark.parametrize("parent", ["moov", "trak"])
@pytest.mark.parametrize(
    ("kind", "value"),
    [
        (1, b"26.50mm"),
        (1, b"53/2"),
        (21, (27).to_bytes(4, "big")),
        (22, bytes([27])),
        (23, struct.pack(">f", 26.5)),
        (24, struct.pack(">d", 26.5)),
    ],
)
def test_focal_length_in_quicktime_metadata(tmp_path: Path, parent: str, kind: int, value: bytes) -> None:
    path = tagged_video(tmp_path / "tagged.mov", noise_video(tmp_path / "plain.mp4"), parent, kind, value)
    result = read(path)
    assert isinstance(result, Video)
    millimetres = 27.0 if kind in (21, 22) else 26.5
    assert result.focal_px == pytest.approx(millimetres * math.hypot(320, 240) / math.hypot(36, 24))


def test_focal_length_as_a_tag_of_other_containers(tmp_path: Path) -> None:
    import av

    plain, path = noise_video(tmp_path / "plain.mp4"), tmp_path / "tagged.mkv"
    with av.open(str(plain)) as source, av.open(str(path), "w") as out:
        stream = out.add_stream_from_template(source.streams.video[0])
        out.metadata["FocalLengthIn35mmFilm"] = "50"
        for packet in source.demux(video=0):
            if packet.dts is not None:
                packet.stream = stream
                out.mux(packet)
    result = read(path)
    assert isinstance(result, Video)
    assert result.focal_px == pytest.approx(50 / 43.267 * 400, rel=1e-4)


@pytest.mark.parametrize("value", [b"48388 mm", b"0", b"wide", b"1/0", b"", b"\xff\xff"])
def test_implausible_focal_length_is_ignored(tmp_path: Path, value: bytes) -> None:
    result = read(tagged_video(tmp_path / "tagged.mov", noise_video(tmp_path / "plain.mp4"), "trak", 1, value))
    assert isinstance(result, Video)
    assert result.focal_px == 0.0


def test_the_manifest_overrides_the_focal_length_of_the_file(tmp_path: Path) -> None:
    path = tagged_video(tmp_path / "tagged.mov", noise_video(tmp_path / "plain.mp4"), "trak", 1, b"26mm")
    (result,), _ = apply(ReadVideos(), [Source(id="x", uri=str(path), focal_35mm=85.0)])
    assert result.focal_px == pytest.approx(focal_px(85.0, 320, 240))


def test_focal_length_follows_the_diagonal() -> None:
    """For the 3:2 format of film, pixels per millimetre times millimetres; the same in portrait format."""
    assert focal_px(35.0, 3600, 2400) == pytest.approx(3500)
    assert focal_px(35.0, 1080, 1920) == focal_px(35.0, 1920, 1080)
