from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from schemas.coverage import coverage_of
from schemas.records import FPS, Clip, Rejection, Shot, Source, Track, Video
from schemas.skeleton import COCO_KEYPOINTS
from stages.base import apply
from stages.cut_clips import CutClips
from stages.encode_clip import crop_box


def track(times_s: np.ndarray, *, height: float = 200.0, confidence: float | np.ndarray = 0.9) -> Track:
    """A person moving to the right at 30 pixels per second."""
    n = len(times_s)
    video = Video(
        source=Source(id="v", uri="v.mp4"),
        sha256="0" * 64,
        width=1920,
        height=480,
        fps=30.0,
        duration_s=60.0,
        has_audio=False,
    )
    x = 100 + 30 * times_s
    boxes = np.stack([x, np.full(n, 100.0), x + 80, np.full(n, 100.0 + height)], axis=1)
    keypoints = np.zeros((n, 17, 3), np.float32)
    keypoints[..., 0], keypoints[..., 1] = x[:, None] + 40, 100 + np.linspace(0, height, 17)
    keypoints[..., 2] = np.broadcast_to(confidence, (17, n)).T if np.ndim(confidence) else confidence
    return Track(
        shot=Shot(video=video, index=0, start_s=0.0, end_s=60.0),
        person=0,
        times_s=times_s,
        boxes=boxes.astype(np.float32),
        keypoints=keypoints,
        models={},
    )


def cut(record: Track, **settings_: float) -> tuple[list[Clip], list[Rejection]]:
    return apply(CutClips(CutClips.Config(**settings_)), [record])


@pytest.mark.parametrize("fps", [15.0, 24.0, 25.0, 30.0, 29.97, 60.0])
def test_clips_have_thirty_frames_per_second(fps: float) -> None:
    times_s = np.arange(0, 5, 1 / fps)
    (clip,), rejected = cut(track(times_s))
    assert not rejected
    assert len(clip.boxes) == len(clip.keypoints) == round((clip.end_s - clip.start_s) * FPS)
    expected = 100 + 30 * np.arange(len(clip.boxes)) / FPS
    np.testing.assert_allclose(clip.boxes[:, 0], expected, atol=1e-2)
    assert (clip.keypoints[..., 2] > 0.8).all()


@given(st.floats(2.1, 45.0))
@settings(max_examples=25, deadline=None)
def test_long_tracks_are_cut_into_equal_pieces_without_loss(seconds: float) -> None:
    record = track(np.arange(0, seconds, 1 / 30))
    clips, rejected = cut(record)
    assert not rejected
    lengths = [len(clip.boxes) for clip in clips]
    assert max(lengths) <= 301
    assert max(lengths) - min(lengths) <= 1
    assert sum(lengths) == len(record.times_s)
    assert all(a.end_s == pytest.approx(b.start_s, abs=1e-6) for a, b in pairwise(clips))


def test_short_gaps_are_bridged_without_confidence_and_long_ones_split() -> None:
    times_s = np.arange(0, 6, 1 / 30)
    bridged, _ = cut(track(np.delete(times_s, slice(60, 66))))
    assert len(bridged) == 1
    without_confidence = (bridged[0].keypoints[..., 2] == 0).all(axis=1)
    assert without_confidence.nonzero()[0].tolist() == list(range(60, 66))
    split, _ = cut(track(np.delete(times_s, slice(80, 100))))
    assert len(split) == 2


def test_hidden_bodies_small_people_and_short_tracks_are_rejected() -> None:
    times_s = np.arange(0, 5, 1 / 30)
    for record, reason in (
        (track(times_s, confidence=0.1), "body_not_visible"),
        (track(times_s, height=40.0), "person_too_small"),
        (track(times_s[:40]), "body_not_visible"),
    ):
        clips, (rejection,) = cut(record)
        assert not clips
        assert rejection.reason == reason
        assert rejection.measured < rejection.limit


def test_a_flicker_of_visibility_cuts_nothing() -> None:
    times_s = np.arange(0, 5, 1 / 30)
    confidence = np.full(len(times_s), 0.9)
    confidence[[30, 31, 80, 120, 121]] = 0.1
    clips, _ = cut(track(times_s, confidence=confidence))
    assert [len(clip.boxes) for clip in clips] == [150]


@pytest.mark.parametrize("fps", [12.0, 25.0, 30.0, 59.94])
def test_camera_rotations_are_relative_to_each_clips_first_frame(fps: float) -> None:
    def rotations(times_s: np.ndarray) -> Rotation:
        return Rotation.from_rotvec(np.outer(times_s, np.radians([0, 20, 0])) + np.radians([10, 0, 5]))

    times_s = np.arange(0, 13, 1 / fps)
    clips, _ = cut(replace(track(times_s), camera_turn=rotations(times_s).as_rotvec().astype(np.float32)))
    assert len(clips) == 2
    for clip in clips:
        target = rotations(clip.start_s + np.arange(len(clip.boxes)) / FPS)
        rotation = Rotation.from_rotvec(clip.camera_turn)
        assert not clip.camera_turn[0].any()
        assert np.degrees((rotation * (target * target[0].inv()).inv()).magnitude()).max() < 0.05


@pytest.mark.parametrize("fps", [25.0, 30.0, 59.94])
def test_landmarks_are_cut_with_the_keypoints(fps: float) -> None:
    times_s = np.arange(0, 13, 1 / fps)
    values = (
        np.stack([times_s, np.ones_like(times_s), 2 + times_s, times_s], -1)[:, None].repeat(33, 1).astype(np.float32)
    )
    clips, _ = cut(replace(track(times_s), landmarks=values, landmarks_m=values[..., 1:]))
    assert len(clips) == 2
    for clip in clips:
        assert clip.landmarks is not None
        assert clip.landmarks_m is not None
        frame_s = clip.start_s + np.arange(len(clip.boxes)) / FPS
        np.testing.assert_allclose(clip.landmarks[:, 3, 0], frame_s, atol=1e-3)
        np.testing.assert_allclose(clip.landmarks_m[:, 7, 1] - clip.landmarks[:, 7, 0], 2, atol=1e-3)
    (clip,), _ = cut(track(times_s[: round(5 * fps)]))
    assert clip.landmarks is None
    assert clip.landmarks_m is None


def test_landmarks_inside_a_gap_are_neither_visible_nor_present() -> None:
    times_s = np.concatenate([np.arange(0, 2, 1 / FPS), np.arange(2.2, 4, 1 / FPS)])
    values = np.ones((len(times_s), 33, 4), np.float32)
    (clip,), _ = cut(replace(track(times_s), landmarks=values, landmarks_m=values[..., 1:]))
    assert clip.landmarks is not None
    hidden = clip.landmarks[:, :, 2] == 0
    assert 4 <= hidden.all(1).sum() <= 7
    np.testing.assert_array_equal(hidden, clip.landmarks[:, :, 3] == 0)
    np.testing.assert_array_equal(hidden[:, :17], clip.keypoints[..., 2] == 0)


def test_static_and_unknown_cameras_stay_so() -> None:
    times_s = np.arange(0, 4, 1 / 25)
    (static,), _ = cut(replace(track(times_s), camera_turn=np.zeros((len(times_s), 3), np.float32)))
    assert static.camera_turn.shape == (len(static.boxes), 3)
    assert not static.camera_turn.any()
    (unknown,), _ = cut(track(times_s))
    assert unknown.camera_turn is None


def test_crops_are_even_and_inside() -> None:
    (clip,), _ = cut(track(np.arange(0, 5, 1 / 30)))
    x0, y0, x1, y1 = crop_box(clip, 0.5)
    assert all(side % 2 == 0 for side in (x0, y0, x1, y1))
    assert x0 >= 0
    assert y0 >= 0
    assert x1 <= 1920
    assert y1 <= 480
    assert (clip.boxes[:, 0] >= x0).all()
    assert (clip.boxes[:, 2] <= x1).all()


def hidden(record: Track, *names: str, frames: slice = slice(None)) -> Track:
    """The track with these joints of both sides, or of one, hidden."""
    keypoints = record.keypoints.copy()
    columns = [index for index, name in enumerate(COCO_KEYPOINTS) if name.endswith(names)]
    keypoints[frames, columns, 2] = 0.05
    return replace(record, keypoints=keypoints)


def test_upper_bodies_are_kept_and_told_apart() -> None:
    record = hidden(track(np.arange(0, 4, 1 / FPS)), "knee", "ankle")
    (clip,), rejected = cut(record)
    assert not rejected
    assert clip.seen.dtype == np.uint8
    assert clip.seen.all(0).tolist() == [True, True, True, False, False]
    assert not clip.seen[:, 3:].any()
    assert coverage_of(clip.seen) == "upper"
    assert coverage_of(cut(track(record.times_s))[0][0].seen) == "whole"
    assert coverage_of(cut(hidden(track(record.times_s), "left_ankle", "left_knee"))[0][0].seen) == "partial"
    assert [rejection.reason for rejection in cut(record, coverage="whole")[1]] == ["body_not_visible"]
    legs_only = hidden(track(record.times_s), "elbow", "wrist")
    assert len(cut(legs_only)[0]) == 1
    assert [rejection.reason for rejection in cut(legs_only, coverage="upper")[1]] == ["body_not_visible"]


def test_nobody_is_seen_outside_the_image() -> None:
    record = track(np.arange(0, 4, 1 / FPS))
    keypoints = record.keypoints.copy()
    keypoints[:, -4:, 1] += record.shot.video.height
    (clip,), _ = cut(replace(record, keypoints=keypoints))
    assert coverage_of(clip.seen) == "upper"


def test_a_part_that_flickers_stays_and_one_that_is_hidden_for_long_goes() -> None:
    record = track(np.arange(0, 6, 1 / FPS))
    (flickers,), _ = cut(hidden(record, "left_wrist", "left_elbow", frames=slice(60, 64)))
    assert flickers.seen.all()
    (goes,), _ = cut(hidden(record, "left_wrist", "left_elbow", frames=slice(60, 120)))
    gone = np.flatnonzero(goes.seen[:, 1] == 0)
    assert np.ptp(gone) + 1 == len(gone)
    assert abs(gone[0] - 60) <= 5
    assert abs(gone[-1] - 119) <= 5
    assert goes.seen[:, [0, 2, 3, 4]].all()


@pytest.mark.parametrize(("visibility", "seen"), [(0.3, False), (0.55, True)])
def test_landmarks_say_more_than_a_detectors_confidence(visibility: float, seen: bool) -> None:
    record = track(np.arange(0, 4, 1 / FPS))
    keypoints = record.keypoints.copy()
    keypoints[:, -4:, 2] = visibility
    landmarks = np.ones((len(keypoints), 33, 4), np.float32)
    looked = replace(record, keypoints=keypoints, landmarks=landmarks, landmarks_m=landmarks[..., :3])
    (clip,), _ = cut(looked)
    assert clip.seen[:, 3:].all() == seen
    (detected,), _ = cut(replace(record, keypoints=keypoints))
    assert not detected.seen[:, 3:].any()


def test_legs_of_a_body_much_smaller_than_its_box_were_not_seen() -> None:
    record = track(np.arange(90) / 30)
    keypoints = record.keypoints.copy()
    keypoints[..., 1] = 200 + 0.5 * (keypoints[..., 1] - 200)
    (whole,), _ = cut(record)
    (small,), _ = cut(replace(record, keypoints=keypoints))
    assert whole.seen.all()
    assert small.seen[:, :3].all()
    assert not small.seen[:, 3:].any()
