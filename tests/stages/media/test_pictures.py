"""Every kind of picture that cameras, phones and editors write, from files made here: seen as a player shows it."""

from collections import Counter
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from odd_videos import CORNERS, FPS, FRAMES, combed, corners, picture, remux, write_video

from schemas.picture import Picture
from schemas.records import Source
from stages.base import apply
from stages.media.borders import find_borders
from stages.media.decoding import frames, inspect_file
from stages.media.inspection import UnreadablePicture
from stages.media.tone_mapping import nits_to_pq, pq_to_nits, to_sdr
from stages.read_videos import ReadVideos

ONE = 1 << 16
UPRIGHT = ["red", "green", "blue", "yellow"]
MATRICES = {
    "identity": ([ONE, 0, 0, 0, ONE, 0, 0, 0, 1 << 30], UPRIGHT),
    "90 degrees clockwise": ([0, ONE, 0, -ONE, 0, 0, 0, 0, 1 << 30], ["blue", "red", "yellow", "green"]),
    "180 degrees": ([-ONE, 0, 0, 0, -ONE, 0, 0, 0, 1 << 30], ["yellow", "blue", "green", "red"]),
    "270 degrees clockwise": ([0, -ONE, 0, ONE, 0, 0, 0, 0, 1 << 30], ["green", "yellow", "red", "blue"]),
    "mirrored": ([-ONE, 0, 0, 0, ONE, 0, 0, 0, 1 << 30], ["green", "red", "yellow", "blue"]),
    "upside down": ([ONE, 0, 0, 0, -ONE, 0, 0, 0, 1 << 30], ["blue", "yellow", "red", "green"]),
    "transposed": ([0, ONE, 0, ONE, 0, 0, 0, 0, 1 << 30], ["red", "blue", "green", "yellow"]),
    "transposed and turned": ([0, -ONE, 0, -ONE, 0, 0, 0, 0, 1 << 30], ["yellow", "green", "blue", "red"]),
}
"""Name -> display matrix, and the corners of the upright picture as it displays them."""


def shown(path: Path) -> tuple[Picture, list[float], list[np.ndarray]]:
    found = inspect_file(str(path))
    timed = list(frames(str(path), picture=found))
    assert {frame.image.shape[:2] for frame in timed} == {(found.height, found.width)}
    return found, [frame.time_s for frame in timed], [frame.image for frame in timed]


@pytest.mark.parametrize("name", MATRICES)
def test_display_matrices(tmp_path: Path, name: str) -> None:
    matrix, expected = MATRICES[name]
    found, _, images = shown(write_video(tmp_path / "turned.mp4", matrix=matrix))
    assert corners(images[10]) == expected
    assert (found.width, found.height) == ((160, 240) if found.transposed else (240, 160))
    # The words say the same: mirrored first, then turned clockwise.
    told = picture()[:, ::-1] if found.mirrored else picture()
    assert corners(np.rot90(told, -found.quarter_turns)) == expected


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("h264.avi", {"options": {"bf": "2"}}),
        ("mpeg4.avi", {"codec": "mpeg4", "options": {"bf": "2"}}),
        ("mjpeg.avi", {"codec": "mjpeg", "pixels": "yuvj420p"}),
        ("h264.mp4", {}),
        ("h264.m2ts", {}),
        ("h264.flv", {}),
        ("raw.h264", {"format": "h264"}),
        ("vp8.webm", {"codec": "libvpx"}),
        ("mpeg2.mpg", {"codec": "mpeg2video"}),
        ("mpeg2.mxf", {"codec": "mpeg2video"}),
        ("wmv2.wmv", {"codec": "wmv2"}),
        ("rv20.rm", {"codec": "rv20"}),
        ("ffv1.nut", {"codec": "ffv1"}),
        ("prores.mov", {"codec": "prores_ks", "pixels": "yuv422p10le"}),
        ("moving.gif", {"codec": "gif", "pixels": "rgb8"}),
    ],
)
def test_every_frame_once_at_even_times(tmp_path: Path, name: str, settings: dict) -> None:
    _, times_s, images = shown(write_video(tmp_path / name, **settings))
    assert len(images) == FRAMES
    fps = 100 / 3 if name.endswith(".gif") else FPS  # GIF counts hundredths of a second
    assert np.diff(times_s) == pytest.approx(1 / fps, abs=0.011 if name.endswith(".gif") else 0.002)
    assert times_s[0] == 0
    bars = [np.flatnonzero(image[80, :, :].min(axis=1) > 180).mean() for image in images]
    assert np.all(np.diff(bars) > 0), "the bar moves to the right in the order of display"
    assert all(corners(image) == UPRIGHT for image in (images[0], images[-1]))


def test_spans_of_a_file_without_presentation_times(tmp_path: Path) -> None:
    path = write_video(tmp_path / "b.avi", [picture(n % FRAMES) for n in range(120)], options={"bf": "2", "g": "25"})
    found, times_s, images = shown(path)
    assert found.clock == "decoding"
    span = list(frames(str(path), picture=found, start_s=2.0, end_s=3.0))
    wanted = [index for index, time_s in enumerate(times_s) if 2.0 - 5e-4 <= time_s < 3.0 - 5e-4]
    assert [frame.time_s for frame in span] == pytest.approx([times_s[index] for index in wanted])
    np.testing.assert_array_equal(span[0].image, images[wanted[0]])


def test_uneven_times_are_kept(tmp_path: Path) -> None:
    times = np.cumsum([1, 1, 4, 1, 2] * 9) - 1
    _, times_s, _ = shown(write_video(tmp_path / "uneven.mkv", times=times.tolist()))
    assert times_s == pytest.approx(times / FPS, abs=2e-3)


def test_the_largest_default_track_is_shown(tmp_path: Path) -> None:
    small = write_video(tmp_path / "small.mp4", [picture(n, 120, 80) for n in range(FRAMES)])
    large = write_video(tmp_path / "large.mp4")
    found, _, _ = shown(remux(tmp_path / "both.mkv", [small, large]))
    assert (found.width, found.height, found.track, found.tracks) == (240, 160, 2, 2)
    assert found.changes == {"several_tracks": "picture track 2 of 2"}


def test_frames_of_other_sizes_are_fitted(tmp_path: Path) -> None:
    parts = [
        write_video(tmp_path / f"{width}.webm", [picture(n, width, 160) for n in range(20)], codec="libvpx")
        for width in (240, 160)
    ]
    path = tmp_path / "both.webm"
    with av.open(str(path), "w") as out:
        shift, stream = 0, None
        for part in parts:
            with av.open(str(part)) as one:
                stream = stream or out.add_stream_from_template(one.streams.video[0])
                for packet in one.demux(video=0):
                    if packet.dts is not None:
                        packet.pts, packet.dts, packet.stream = packet.pts + shift, packet.dts + shift, stream
                        out.mux(packet)
            shift = 667
    found, _, images = shown(path)
    assert found.size_changes
    assert len(images) == 40
    assert corners(images[-1][:, 40:200]) == UPRIGHT
    assert images[-1][:, :36].max() == 0


def test_interlaced_frames_become_whole_pictures(tmp_path: Path) -> None:
    moving = [picture(n) for n in range(2 * FRAMES)]
    pairs = [combed(moving[2 * n], moving[2 * n + 1]) for n in range(FRAMES)]
    found, times_s, images = shown(
        write_video(tmp_path / "fields.ts", pairs, options={"x264-params": "tff=1", "crf": "12"})
    )
    assert found.interlaced
    assert np.diff(times_s) == pytest.approx(1 / FPS, abs=1e-3)

    def comb(image: np.ndarray) -> float:
        lines = image[66:94].astype(float).mean(axis=2)
        return float(np.abs(2 * lines[1:-1] - lines[:-2] - lines[2:]).mean())

    assert comb(images[20]) < 0.35 * comb(pairs[20])


def test_anamorphic_pictures_get_square_pixels(tmp_path: Path) -> None:
    found, _, images = shown(write_video(tmp_path / "wide.mp4", aspect=Fraction(16, 11)))
    assert (found.width, found.height) == (349, 160)
    assert corners(images[3]) == UPRIGHT


def test_hdr_becomes_the_sdr_that_it_was_made_from(tmp_path: Path) -> None:
    """Colours below the knee of the tone curve come back; they are stored as PQ in BT.2020."""
    sdr = [(picture(n) * 0.6).astype(np.uint8) for n in range(FRAMES)]
    to_2020 = np.linalg.inv(
        [[1.660491, -0.587641, -0.07285], [-0.12455, 1.1329, -0.008349], [-0.018151, -0.100579, 1.11873]]
    )
    pq = [np.round(nits_to_pq(203 * (image / 255) ** 2.4 @ to_2020.T) * 65535).astype(np.uint16) for image in sdr]
    found, _, images = shown(
        write_video(
            tmp_path / "pq.mp4", pq, from_format="rgb48le", codec="libx265", pixels="yuv444p10le",
            colours={"color_trc": 16, "color_primaries": 9, "colorspace": 9},
            options={"crf": "8", "x265-params": "log-level=none"},
        )
    )  # fmt: skip
    assert found.transfer == "pq"
    for y, x in ((20, 30), (20, 210), (140, 30), (140, 210)):
        np.testing.assert_allclose(images[5][y, x].astype(int), sdr[5][y, x], atol=8)


def test_sdr_that_is_labelled_as_hdr_stays_as_it_is(tmp_path: Path) -> None:
    path = write_video(
        tmp_path / "label.mp4", codec="libx265", pixels="yuv420p10le",
        colours={"color_trc": 16, "color_primaries": 9, "colorspace": 1}, options={"x265-params": "log-level=none"},
    )  # fmt: skip
    found, _, images = shown(path)
    assert found.transfer == "sdr"
    assert corners(images[3]) == UPRIGHT


def test_the_tone_curve() -> None:
    nits = np.array([0.0, 1.0, 50.0, 85.0, 203.0, 500.0, 1000.0, 4000.0])
    np.testing.assert_allclose(pq_to_nits(nits_to_pq(nits)), nits, rtol=1e-6, atol=1e-6)
    grey = to_sdr(np.repeat(nits_to_pq(nits)[:, None], 3, axis=1), "pq")
    assert grey[:4, 0] ** 2.4 * 203 == pytest.approx(nits[:4], rel=1e-3, abs=1e-6)
    assert np.all(np.diff(grey[:7, 0]) > 0)
    assert grey[-2:, 1] == pytest.approx([1.0, 1.0], abs=1e-3)
    hlg = to_sdr(np.full((1, 3), 0.75), "hlg")  # diffuse white
    assert hlg == pytest.approx(grey[4:5], abs=5e-3)


def test_transparent_pixels_are_white(tmp_path: Path) -> None:
    images = []
    for number in range(FRAMES):
        alpha = np.zeros((160, 240, 1), np.uint8)
        alpha[:, :120] = 255
        images.append(np.concatenate([picture(number), alpha], axis=2))
    path = write_video(tmp_path / "cut_out.mov", images, from_format="rgba", codec="qtrle", pixels="argb")
    found, _, (first, *_) = shown(path)
    assert found.alpha
    assert first[:, 121:].min() == 255
    np.testing.assert_array_equal(first[:, :120], picture()[:, :120])


@pytest.mark.parametrize(
    ("sides", "expected"), [((40, 0), (0, 40, 0, 40)), ((0, 60), (60, 0, 60, 0)), ((20, 30), (30, 20, 30, 20))]
)
def test_black_borders_are_cut(tmp_path: Path, sides: tuple[int, int], expected: tuple[int, ...]) -> None:
    pad = ((sides[0], sides[0]), (sides[1], sides[1]), (0, 0))
    found, _, images = shown(write_video(tmp_path / "boxed.mp4", [np.pad(picture(n), pad) for n in range(FRAMES)]))
    assert found.borders == expected
    assert (found.width, found.height) == (240, 160)
    assert np.abs(images[5].astype(int) - picture(5)).mean() < 12
    small = next(iter(frames(str(tmp_path / "boxed.mp4"), scale_to=120))).image
    assert small.shape == (80, 120, 3)
    assert corners(small) == UPRIGHT


def test_what_is_only_dark_is_no_border() -> None:
    rng = np.random.default_rng(0)
    bright = [rng.integers(0, 255, (100, 100, 3), np.uint8) for _ in range(5)]
    fading = [np.clip(image * np.linspace(-0.5, 1, 100)[:, None, None], 0, 255).astype(np.uint8) for image in bright]
    one_sided = [np.concatenate([np.zeros((30, 100, 3), np.uint8), image]) for image in bright]
    once = [*bright[:-1], np.pad(bright[-1][20:-20], ((20, 20), (0, 0), (0, 0)))]
    for images in (bright, fading, one_sided, once, [0 * image for image in bright], bright[:2]):
        assert find_borders(images) == (0, 0, 0, 0)


def test_a_recording_that_starts_between_key_frames(tmp_path: Path) -> None:
    whole = write_video(tmp_path / "whole.ts", [picture(n % FRAMES) for n in range(90)], options={"g": "30", "bf": "0"})
    _, times_s, images = shown(remux(tmp_path / "late.ts", [whole], skip=10))
    assert len(images) == 60
    assert (times_s[0], times_s[-1]) == (0.0, pytest.approx(59 / 30, abs=1e-3))


def test_damage_costs_what_is_damaged(tmp_path: Path) -> None:
    path = write_video(tmp_path / "whole.mp4", [picture(n % FRAMES) for n in range(120)], options={"g": "15"})
    content = bytearray(path.read_bytes())
    with av.open(str(path)) as container:
        hit = [packet.pos for packet in container.demux(video=0) if packet.pos is not None][60]
    content[hit : hit + 200] = np.random.default_rng(0).bytes(200)
    path.write_bytes(content)
    problems: Counter[str] = Counter()
    timed = list(frames(str(path), problems=problems))
    assert 60 < len(timed) < 120
    assert problems
    assert timed[-1].time_s > 3.5
    assert corners(timed[-1].image) == UPRIGHT


def test_times_that_start_again_continue(tmp_path: Path) -> None:
    """Two recordings in one stream, as a camera writes that was reset."""
    part = write_video(tmp_path / "part.ts", options={"bf": "0"})
    (tmp_path / "joined.ts").write_bytes(part.read_bytes() * 2)
    _, times_s, images = shown(tmp_path / "joined.ts")
    assert len(images) == 2 * FRAMES
    assert np.diff(times_s) == pytest.approx(1 / FPS, abs=2e-3)
    (video,), _ = apply(ReadVideos(), [Source(id="joined", uri=str(tmp_path / "joined.ts"))])
    assert video.duration_s == pytest.approx(2 * FRAMES / FPS, abs=0.02)
    assert video.picture.changes == {"restarting_times": "times that start again made continuous"}
    late = list(frames(video.source.uri, picture=video.picture, start_s=2.0))
    assert [frame.time_s for frame in late] == [time_s for time_s in times_s if time_s > 2.0 - 5e-4]


def test_encrypted_pictures_are_called_so(tmp_path: Path) -> None:
    keys = {"encryption_scheme": "cenc-aes-ctr", "encryption_key": "0" * 32, "encryption_kid": "1" * 32}
    path = write_video(tmp_path / "locked.mp4", container=keys)
    with pytest.raises(UnreadablePicture, match="encrypted"):
        inspect_file(str(path))
    assert list(frames(str(path))) == []


def test_an_ordinary_video_is_only_decoded(tmp_path: Path) -> None:
    path = write_video(tmp_path / "plain.mp4")
    found, _, images = shown(path)
    assert found.changes == {}
    with av.open(str(path)) as container:
        for image, frame in zip(images, container.decode(video=0), strict=True):
            np.testing.assert_array_equal(image, frame.to_ndarray(format="rgb24"))
    assert set(CORNERS) == set(corners(images[0]))
