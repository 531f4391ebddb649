"""Tracks that are spliced, shaken, interrupted or at the picture's edge, made so that the answer is known."""

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
"""COCO-17 of a person of height 1, from the crown down, the person's left at the right of the picture."""
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
    """Somebody who walks through a 640 x 480 picture with swinging arms and legs; one pixel of noise."""
    phase = np.arange(frames) / 30 * 2 * np.pi * 1.2 + seed
    points = np.tile(_STANDING, (frames, 1, 1))
    for index, name in enumerate(COCO_KEYPOINTS):
        reach = {"elbow": 0.5, "wrist": 1.0, "knee": 0.5, "ankle": 1.0}.get(name.split("_")[-1], 0.0)
        points[:, index, 0] += swing * reach * np.sin(phase) * (1 if name.startswith("left") else -1)
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
    """One person until `at`, the other from then on, with `gap` frames between that are interpolated and unseen."""
    keypoints = np.concatenate([before.keypoints[:at], after.keypoints[at:]])
    boxes = np.concatenate([before.boxes[:at], after.boxes[at:]])
    for step in range(gap):
        weight = (step + 1) / (gap + 1)
        keypoints[at + step] = (1 - weight) * keypoints[at - 1] + weight * keypoints[at + gap]
        boxes[at + step] = (1 - weight) * boxes[at - 1] + weight * boxes[at + gap]
        keypoints[at + step, :, 2] = 0.0
    return replace(before, keypoints=keypoints, boxes=boxes)


@pytest.mark.parametrize("seed", range(4))
def test_one_person_is_one_person(seed: int) -> None:
    assert identity_switches(person(seed=seed)) == 0
    assert identity_switches(person(seed=seed, speed=12.0, swing=0.3)) == 0


@pytest.mark.parametrize("at", [10, 45, 80])
@pytest.mark.parametrize("gap", [0, 5])
def test_two_people_in_one_track_are_one_switch(at: int, gap: int) -> None:
    if at + gap > 80:
        gap = 0
    beside, nearer = person(x=360, seed=1), person(height=330, y=60, seed=2)
    assert identity_switches(spliced(person(), beside, at, gap)) == 1
    assert identity_switches(spliced(person(), nearer, at, gap)) == 1


def test_there_and_back_again_are_two() -> None:
    one, other = person(), person(x=380, seed=1)
    assert identity_switches(spliced(spliced(one, other, 30), one, 60)) == 2


def test_exchanged_sides_are_still_the_same_person() -> None:
    one = person()
    keypoints = one.keypoints.copy()
    keypoints[40:] = keypoints[40:, _MIRRORED]
    assert identity_switches(replace(one, keypoints=keypoints)) == 0


def test_a_slip_of_two_frames_is_no_switch() -> None:
    one, other = person(), person(x=380, seed=1)
    assert identity_switches(spliced(spliced(one, other, 40), one, 42)) == 0


def test_a_shaken_camera_is_no_switch() -> None:
    one = person()
    shake = np.random.default_rng(3).normal(0, 6, (90, 1, 2)).cumsum(0) * 0.5
    keypoints = one.keypoints.copy()
    keypoints[..., :2] += shake
    boxes = one.boxes + np.tile(shake[:, 0], 2)
    assert identity_switches(replace(one, keypoints=keypoints, boxes=boxes.astype(np.float32))) == 0


def test_a_gap_alone_is_no_switch() -> None:
    one = person(speed=5.0)
    keypoints = one.keypoints.copy()
    keypoints[30:38, :, 2] = 0.0
    assert identity_switches(replace(one, keypoints=keypoints)) == 0


def test_nothing_seen_nothing_told() -> None:
    one = person(frames=20)
    unseen = replace(one, keypoints=one.keypoints * np.array([1, 1, 0], np.float32))
    assert identity_switches(unseen) == 0
    assert truncation(unseen) == 0.0
    assert identity_switches(person(frames=3)) == 0


def inside(one: Clip) -> Clip:
    """What a detector would say: nothing lies outside of the picture."""
    keypoints, size = one.keypoints.copy(), np.array([640, 480])
    keypoints[..., :2] = keypoints[..., :2].clip(0, size)
    return replace(one, keypoints=keypoints, boxes=one.boxes.clip(0, np.tile(size, 2)))


def test_cut_off_at_each_edge() -> None:
    for place in ({"x": 5}, {"x": 630}, {"y": -40}, {"y": 330}):
        assert truncation(inside(person(speed=0.0, **place))) == 1.0
    assert truncation(inside(person(speed=0.0))) == 0.0


def test_walking_out_of_the_picture_counts_the_frames_in_which_it_cuts() -> None:
    leaving = person(frames=100, x=500, speed=2.0, swing=0.0)  # The outer hand reaches the edge after 100 px of 200.
    assert truncation(inside(leaving)) == pytest.approx(0.5, abs=0.05)


def test_standing_at_the_edge_is_not_being_cut_off() -> None:
    one = person(speed=0.0, swing=0.0, y=480 - 200 * 1.0)
    boxes = one.boxes.copy()
    boxes[:, 3] = 480
    assert truncation(replace(one, boxes=boxes)) == 0.0
