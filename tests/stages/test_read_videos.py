import math
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from videos import noise, sound_only, tagged, turned, uneven

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
    whole = noise(path, frames=120)
    whole.write_bytes(whole.read_bytes()[: int(whole.stat().st_size * 0.6)])
    return whole


def made(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda path: made(path, b""), "not_a_video"),
        (lambda path: made(path, b"hello, I am a text\n" * 99), "not_a_video"),
        (truncated, "not_a_video"),
        (sound_only, "no_picture_stream"),
        (lambda path: noise(path, frames=1), "single_frame"),
        (lambda path: noise(path, frames=15), "too_short"),
        (lambda path: noise(path, fps=5.0), "frame_rate_too_low"),
        (lambda path: noise(path, width=64, height=48), "picture_too_small"),
        (lambda path: path / "missing.mp4", "missing"),
    ],
)
def test_bad_files_are_rejected_with_a_reason(tmp_path: Path, make: Callable[[Path], Path], reason: str) -> None:
    found = read(make(tmp_path / "video.mp4"))
    assert isinstance(found, Rejection)
    assert found.reason == reason


def test_a_file_cut_short_behind_its_index_is_truncated(tmp_path: Path) -> None:
    """With the index in front the container still opens and announces the full length."""
    import av

    whole = noise(tmp_path / "whole.mp4", frames=120)
    front = tmp_path / "front.mp4"
    with av.open(str(whole)) as source, av.open(str(front), "w", options={"movflags": "faststart"}) as out:
        stream = out.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(video=0):
            if packet.dts is not None:
                packet.stream = stream
                out.mux(packet)
    front.write_bytes(front.read_bytes()[: int(front.stat().st_size * 0.5)])
    found = read(front)
    assert isinstance(found, Rejection)
    assert found.reason == "truncated"
    assert found.measured < found.limit


@pytest.mark.parametrize("name", ["a.b", "a/b", "a\nb", "", "x" * 200])
def test_bad_ids(tmp_path: Path, name: str) -> None:
    found = read(noise(tmp_path / "video.mp4"), name)
    assert isinstance(found, Rejection)
    assert found.reason == "bad_id"


def test_a_folder_in_place_of_a_file(tmp_path: Path) -> None:
    found = read(tmp_path)
    assert isinstance(found, Rejection)
    assert found.reason == "unreadable"


def test_a_video_is_described(tmp_path: Path) -> None:
    found = read(noise(tmp_path / "video.mp4", frames=75, width=322, height=178, fps=25.0))
    assert isinstance(found, Video)
    assert (found.width, found.height, found.has_audio) == (322, 178, False)
    assert found.fps == pytest.approx(25, abs=1e-3)
    assert found.duration_s == pytest.approx(3, abs=1e-3)


def test_uneven_frames_keep_their_times(tmp_path: Path) -> None:
    times_s = [0.0]
    for number in range(89):
        times_s.append(times_s[-1] + (1 / 30 if number % 7 else 4 / 30))
    path = uneven(tmp_path / "uneven.mp4", times_s)
    found = read(path)
    assert isinstance(found, Video)
    assert found.fps == pytest.approx(30, abs=0.1)
    np.testing.assert_allclose([frame.time_s for frame in frames(str(path))], times_s, atol=1e-3)


def test_a_turned_video_is_shown_upright(tmp_path: Path) -> None:
    picture = np.zeros((120, 200, 3), np.uint8)
    picture[:60, :100] = 255  # white in the top left: a quarter clockwise takes it to the top right
    with VideoWriter(tmp_path / "flat.mp4", 200, 120, 30.0) as out:
        for _ in range(40):
            out.write(picture)
    path = turned(tmp_path / "turned.mp4", tmp_path / "flat.mp4")
    found = read(path)
    assert isinstance(found, Video)
    assert (found.width, found.height) == (120, 200)
    image = next(frames(str(path))).image
    corners = image[20, 20].mean(), image[20, 100].mean(), image[180, 20].mean(), image[180, 100].mean()
    assert np.argmax(corners) == 1


def test_spans_and_thinning(tmp_path: Path) -> None:
    path = str(noise(tmp_path / "video.mp4", frames=120))
    whole = list(frames(path))
    some = list(frames(path, start_s=2.0, end_s=3.0))
    assert [round(frame.time_s * 30) for frame in some] == list(range(60, 90))
    np.testing.assert_array_equal(some[0].image, whole[60].image)
    assert [round(frame.time_s * 30) for frame in frames(path, start_s=1.0, end_s=2.0, max_fps=10)] == list(
        range(30, 60, 3)
    )


@pytest.mark.parametrize("place", ["moov", "trak"])
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
def test_the_focal_length_that_a_phone_wrote_is_read(tmp_path: Path, place: str, kind: int, value: bytes) -> None:
    path = tagged(tmp_path / "tagged.mov", noise(tmp_path / "plain.mp4"), place, kind, value)
    found = read(path)
    assert isinstance(found, Video)
    millimetres = 27.0 if kind in (21, 22) else 26.5
    assert found.focal_px == pytest.approx(millimetres * math.hypot(320, 240) / math.hypot(36, 24))


def test_focal_lengths_as_tags_of_other_containers(tmp_path: Path) -> None:
    import av

    plain, path = noise(tmp_path / "plain.mp4"), tmp_path / "tagged.mkv"
    with av.open(str(plain)) as source, av.open(str(path), "w") as out:
        stream = out.add_stream_from_template(source.streams.video[0])
        out.metadata["FocalLengthIn35mmFilm"] = "50"
        for packet in source.demux(video=0):
            if packet.dts is not None:
                packet.stream = stream
                out.mux(packet)
    found = read(path)
    assert isinstance(found, Video)
    assert found.focal_px == pytest.approx(50 / 43.267 * 400, rel=1e-4)


@pytest.mark.parametrize("value", [b"48388 mm", b"0", b"wide", b"1/0", b"", b"\xff\xff"])
def test_nonsense_for_a_focal_length_is_not_known(tmp_path: Path, value: bytes) -> None:
    found = read(tagged(tmp_path / "tagged.mov", noise(tmp_path / "plain.mp4"), "trak", 1, value))
    assert isinstance(found, Video)
    assert found.focal_px == 0.0


def test_the_manifest_knows_better_than_the_file(tmp_path: Path) -> None:
    path = tagged(tmp_path / "tagged.mov", noise(tmp_path / "plain.mp4"), "trak", 1, b"26mm")
    (found,), _ = apply(ReadVideos(), [Source(id="x", uri=str(path), focal_35mm=85.0)])
    assert found.focal_px == pytest.approx(focal_px(85.0, 320, 240))


def test_thirty_five_millimetres_are_by_the_diagonal() -> None:
    """On the film's own format, pixels a millimetre times millimetres; the same for a picture stood on end."""
    assert focal_px(35.0, 3600, 2400) == pytest.approx(3500)
    assert focal_px(35.0, 1080, 1920) == focal_px(35.0, 1920, 1080)
