"""Synthetic tracks that are spliced, shaken, interrupted or at the image border, with known scores."""

from dataclasses import replace

import numpy as np
import pytest

from schemas.records import Clip, Shot, Source, Track, Video
from schemas.skeleton import COCO_KEYPOINTS, mirror_order
from stages.quality.tracking import identity_switches, truncation

_STANDING = np.array(
    [
        [0, 0.05], [0.02, 0.03], [-0.02, 0.03], [0.05, 0.05], [-0.05, 0.05], [0.12, 0.18], [-0.12, 0.18], [0.17, 0.35],
        [-0.17, 0.35], [0.19, 0.5], [-0.19, 0.5], [0.08, 0.52], [-0.08, 0.52], [0.09, 0.75], [-0.09, 0.75], [0.1, 0.95],
        [-0.1, 0.95],
    ]
)  # fmt: skip
"""COCO-17 of a person of height 1, from the crown down, the person's left on the right of the image."""
_MIRRORED = list(mirror_order(COCO_KEYPOINTS))


def person(
    frames: int = 90,
    *,
    x: float = 300,
    y: float = 100,
    height: float = 200,
    speed: float = 2.0,
    swing: float = 0.1,
    seed: int = 0,
) -> Clip:
    """A person who walks through a 640 x 480 image with swinging arms and legs; one pixel of noise."""
    phase = np.arange(frames) / 30 * 2 * np.pi * 1.2 + seed
    points = np.tile(_STANDING, (frames, 1, 1))
    for index, name in enumerate(COCO_KEYPOINTS):
        amplitude = {"elbow": 0.5, "wrist": 1.0, "knee": 0.5, "ankle": 1.0}.get(name.split("_")[-1], 0.0)
        points[:, index, 0] += swing * amplitude * np.sin(phase) * (1 if name.startswith("left") else -1)
    points = points * height + np.array([x, y]) + np.stack([np.arange(frames) * speed, np.zeros(frames)], -1)[:, None]
    low, high = points.min(1) - 0.05 * height, points.max(1) + 0.05 * height
    points += np.random.default_rng(seed).normal(0, height / 200, points.shape)
    keypoints = np.concatenate([points, np.full((frames, 17, 1), 0.9)], -1).astype(np.float32)
    return clip(keypoints, np.concatenate([low, high], -1).astype(np.float32))


def clip(keypoints: np.ndarray, boxes: np.ndarray, width: int = 640, height: int = 480) -> Clip:
    source = Source(id="film", uri="film.mp4")
    video = Video(source=source, sha256="", width=width, height=height, fps=30.0, duration_s=3.0, has_audio=False)
    shot = Shot(video=video, index=0, start_s=0.0, end_s=3.0)
    times_s = np.arange(len(boxes)) / 30
    track = Track(shot=shot, person=0, times_s=times_s, boxes=boxes, keypoints=keypoints, models={})
    return Clip(track=track, start_s=0.0, end_s=len(boxes) / 30, boxes=boxes, keypoints=keypoints)


def spliced(before: Clip, after: Clip, at: int, gap: int = 0) -> Clip:
    """One person until `at`, then the other, with `gap` frames between that are interpolated and not detected."""
    keypoints = np.concatenate([before.keypoints[:at], after.keypoints[at:]])
    boxes = np.concatenate([before.boxes[:at], after.boxes[at:]])
    for step in range(gap):
        weight = (step + 1) / (gap + 1)
        keypoints[at + step] = (1 - weight) * keypoints[at - 1] + weight * keypoints[at + gap]
        boxes[at + step] = (1 - weight) * boxes[at - 1] + weight * boxes[at + gap]
        keypoints[at + step, :, 2] = 0.0
    return replace(before, keypoints=keypoints, boxes=boxes)


@pytest.mark.parametrize("seed", range(4))
def test_one_person_has_no_switch(seed: int) -> None:
    assert identity_switches(person(seed=seed)) == 0
    assert identity_switches(person(seed=seed, speed=12.0, swing=0.3)) == 0


@pytest.mark.parametrize("at", [10, 45, 80])
@pytest.mark.parametrize("gap", [0, 5])
def test_a_change_of_person_is_one_switch(at: int, gap: int) -> None:
    if at + gap > 80:
        gap = 0
    beside, closer = person(x=360, seed=1), person(height=330, y=60, seed=2)
    assert identity_switches(spliced(person(), beside, at, gap)) == 1
    assert identity_switches(spliced(person(), closer, at, gap)) == 1


def test_a_change_and_a_change_back_are_two_switches() -> None:
    first, second = person(), person(x=380, seed=1)
    assert identity_switches(spliced(spliced(first, second, 30), first, 60)) == 2


def test_swapped_sides_are_no_switch() -> None:
    track = person()
    keypoints = track.keypoints.copy()
    keypoints[40:] = keypoints[40:, _MIRRORED]
    assert identity_switches(replace(track, keypoints=keypoints)) == 0


def test_a_detector_error_of_two_frames_is_no_switch() -> None:
    first, second = person(), person(x=380, seed=1)
    assert identity_switches(spliced(spliced(first, second, 40), first, 42)) == 0


def test_a_shaking_camera_is_no_switch() -> None:
    track = person()
    shake = np.random.default_rng(3).normal(0, 6, (90, 1, 2)).cumsum(0) * 0.5
    keypoints = track.keypoints.copy()
    keypoints[..., :2] += shake
    boxes = track.boxes + np.tile(shake[:, 0], 2)
    assert identity_switches(replace(track, keypoints=keypoints, boxes=boxes.astype(np.float32))) == 0


def test_a_gap_alone_is_no_switch() -> None:
    track = person(speed=5.0)
    keypoints = track.keypoints.copy()
    keypoints[30:38, :, 2] = 0.0
    assert identity_switches(replace(track, keypoints=keypoints)) == 0


def test_tracks_without_detections_score_zero() -> None:
    track = person(frames=20)
    undetected = replace(track, keypoints=track.keypoints * np.array([1, 1, 0], np.float32))
    assert identity_switches(undetected) == 0
    assert truncation(undetected) == 0.0
    assert identity_switches(person(frames=3)) == 0


def clipped_to_image(track: Clip) -> Clip:
    """As a detector would output it: nothing is outside the image."""
    keypoints, size = track.keypoints.copy(), np.array([640, 480])
    keypoints[..., :2] = keypoints[..., :2].clip(0, size)
    return replace(track, keypoints=keypoints, boxes=track.boxes.clip(0, np.tile(size, 2)))


def test_truncation_at_each_border() -> None:
    for position in ({"x": 5}, {"x": 630}, {"y": -40}, {"y": 330}):
        assert truncation(clipped_to_image(person(speed=0.0, **position))) == 1.0
    assert truncation(clipped_to_image(person(speed=0.0))) == 0.0


def test_truncation_counts_frames_of_a_person_who_leaves() -> None:
    leaving = person(frames=100, x=500, speed=2.0, swing=0.0)  # The outer hand reaches the border after 100 px of 200.
    assert truncation(clipped_to_image(leaving)) == pytest.approx(0.5, abs=0.05)


def test_standing_at_the_border_is_no_truncation() -> None:
    track = person(speed=0.0, swing=0.0, y=480 - 200 * 1.0)
    boxes = track.boxes.copy()
    boxes[:, 3] = 480
    assert truncation(replace(track, boxes=boxes)) == 0.0
