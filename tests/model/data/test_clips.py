"""Frames by their times, fitted into squares; pictures and videos of users."""

from pathlib import Path

import numpy as np
import pytest
from motion_datasets import brightness, brightness_clip
from PIL import Image
from videos import audio_only, uneven_video

from model.data.clips import clip_frames, fit_square, read_pictures
from schemas.errors import HumoError
from schemas.records import FPS


def left_side(image: np.ndarray) -> float:
    """Brightness in the middle of the left half."""
    side = len(image)
    return float(image[side // 2 - 4 : side // 2 + 4, side // 4 - 4 : side // 4 + 4].mean())


def test_frames_are_those_shown_at_the_times() -> None:
    clip = brightness_clip(60)
    numbers = [0, 1, 17, 17, 40, 59]
    frames = clip_frames(clip, [number / FPS for number in numbers], 64)
    assert frames.shape == (6, 64, 64, 3)
    assert [left_side(frame) for frame in frames] == pytest.approx([brightness(one) for one in numbers], abs=1.5)
    # between two frames the earlier one is shown, behind the last one the last
    late = clip_frames(clip, [20.9 / FPS, 500 / FPS], 64)
    assert [left_side(frame) for frame in late] == pytest.approx([brightness(20), brightness(59)], abs=1.5)
    assert clip_frames(clip, [], 64).shape == (0, 64, 64, 3)


def test_times_count_not_numbers(tmp_path: Path) -> None:
    path = uneven_video(tmp_path / "uneven.mp4", [0.0, 0.1, 1.0, 1.05])
    early, late, second = clip_frames(path.read_bytes(), [0.5, 1.02, 1.06], 320)
    assert np.abs(early.astype(int) - late).mean() > 10
    assert np.abs(second.astype(int) - late).mean() > 10


def test_a_clip_that_breaks_off_shows_what_it_has() -> None:
    clip = brightness_clip(60)
    with pytest.raises(HumoError, match=r"^key\.clip\.mp4: does not decode .*humo verify"):
        clip_frames(clip[: len(clip) // 2], [0.0], 64, name="key.clip.mp4")
    with pytest.raises(HumoError, match="does not decode"):
        clip_frames(b"", [0.0], 64)


def test_an_image_keeps_its_shape_in_the_square() -> None:
    square = fit_square(np.full((30, 60, 3), 200, np.uint8), 64)
    assert (square[16:48] == 200).all()
    assert (square[:16] == 114).all()
    assert (square[48:] == 114).all()
    assert fit_square(np.full((1, 900, 3), 9, np.uint8), 64).shape == (64, 64, 3)


def test_pictures_of_users_are_upright_and_videos_are_read(tmp_path: Path) -> None:
    image = np.zeros((40, 80, 3), np.uint8)
    image[:, :40] = 250
    picture = Image.fromarray(image)
    exif = picture.getexif()
    exif[0x0112] = 6  # shown after a quarter turn clockwise
    picture.save(tmp_path / "turned.jpg", exif=exif, quality=95)
    turned = read_pictures(str(tmp_path / "turned.jpg"), [0.0, 1.0], 64)
    assert turned.shape == (1, 64, 64, 3)
    assert turned[0, 10, 32].mean() > 230  # what was left is above
    assert turned[0, 54, 32].mean() < 20
    Image.fromarray(image[..., 0]).save(tmp_path / "grey.png")
    assert read_pictures(str(tmp_path / "grey.png"), [0.0], 64)[0, 32, 10].tolist() == [250, 250, 250]
    picture.save(tmp_path / "still.webp", lossless=True)
    assert read_pictures(str(tmp_path / "still.webp"), [0.0], 64)[0, 32, 10].tolist() == [250, 250, 250]
    (tmp_path / "clip.mp4").write_bytes(brightness_clip(60))
    frames = read_pictures(str(tmp_path / "clip.mp4"), [0.0, 1.0], 64)
    assert [left_side(frame) for frame in frames] == pytest.approx([brightness(0), brightness(30)], abs=1.5)


def test_what_is_no_picture_is_named(tmp_path: Path) -> None:
    with pytest.raises(HumoError, match=r"none\.png: no such picture"):
        read_pictures(str(tmp_path / "none.png"), [0.0], 64)
    (tmp_path / "text.png").write_text("no picture")
    with pytest.raises(HumoError, match=r"text\.png: is no picture, and no video"):
        read_pictures(str(tmp_path / "text.png"), [0.0], 64)
    (tmp_path / "cut.jpg").write_bytes(b"\xff\xd8\xff\xe0" + bytes(40))
    with pytest.raises(HumoError, match=r"cut\.jpg: does not decode; save it again"):
        read_pictures(str(tmp_path / "cut.jpg"), [0.0], 64)
    audio_only(tmp_path / "sound.mp4")
    with pytest.raises(HumoError, match="no picture track"):
        read_pictures(str(tmp_path / "sound.mp4"), [0.0], 64)
