"""Real files of real cameras, phones and editors: each is read as it is shown, or rejected for the reason that holds."""

from itertools import pairwise

import pytest
from shared_data import SHARED_DATA

from schemas.records import Rejection, Source, Video
from stages.base import apply
from stages.media.decoding import frames
from stages.read_videos import ReadVideos

FILES = SHARED_DATA / "files" / "video"
SHOWN = {
    "androidx_rotate_and_reflect.mp4": (720, 1080, 30, {"mirrored", "rotated"}),
    "androidx_man_dog_bed_rot270.mp4": (720, 1280, 149, {"rotated"}),
    "androidx_h264_bframes_in.avi": (256, 144, 58, {"decoding_times"}),
    "fate_rv20_wedding.rm": (286, 240, 144, {"frame_numbers", "borders"}),
    "fate_242_4_sound_longer.mkv": (720, 480, 207, set()),
    "fate_frame_size_change.webm": (1920, 1080, 300, {"several_sizes"}),
    "fate_t_interlaced_mpeg2.ts": (384, 288, 353, {"interlaced", "anamorphic"}),
    "torchcodec_nasa_two_video_tracks.mp4": (480, 270, 390, {"several_tracks"}),
    "torchcodec_nasa_hevc_pq10.mp4": (320, 180, 325, set()),
    "androidx_vp9_10bit_altref.webm": (426, 240, 72, set()),
    "moviepy_no_duration.webm": (1280, 720, 74, set()),
}
"""File -> width, height, frames and what is corrected."""
REJECTED = {
    "fate_drm.wmv": "encrypted",
    "fate_pmtchange.ts": "no_frame_decodes",
    "fate_hockey_starts_without_keyframe.mp4": "too_short",
    "fate_latin1_tags_svq3.mov": "too_short",
    "pigs_dance.gif": "frame_rate_too_low",
}
pytestmark = [
    pytest.mark.shared,
    pytest.mark.skipif(not FILES.is_dir(), reason=f"{FILES} does not exist"),
]


def read(name: str) -> Video | Rejection:
    kept, rejected = apply(ReadVideos(), [Source(id="x", uri=str(FILES / name))])
    return (kept + rejected)[0]


@pytest.mark.parametrize("name", SHOWN)
def test_shown_as_a_player_shows_it(name: str) -> None:
    width, height, count, kinds = SHOWN[name]
    video = read(name)
    assert isinstance(video, Video), video
    assert (video.width, video.height) == (width, height)
    assert set(video.picture.changes) == kinds
    timed = list(frames(video.source.uri, picture=video.picture, scale_to=64))
    assert len(timed) == count
    assert all(later.time_s > earlier.time_s for earlier, later in pairwise(timed))
    assert timed[-1].time_s < video.duration_s + 1e-6


@pytest.mark.parametrize("name", REJECTED)
def test_rejected_for_the_reason_that_holds(name: str) -> None:
    rejection = read(name)
    assert isinstance(rejection, Rejection)
    assert rejection.reason == REJECTED[name]


@pytest.mark.slow
def test_a_trimmed_hdr_video_of_a_phone() -> None:
    (name,) = [path.name for path in FILES.glob("*trimmed*.mov")]
    video = read(name)
    assert isinstance(video, Video)
    assert (video.width, video.height) == (1080, 1920)
    assert set(video.picture.changes) == {"rotated", "hdr"}
    assert video.duration_s == pytest.approx(2.548, abs=0.002)
    assert sum(1 for _ in frames(video.source.uri, picture=video.picture, scale_to=64)) == 77
