"""What is called seen, against people whose pose is known: triangulated ones and rendered ones."""

from pathlib import Path

import numpy as np
import pytest
from jaxtyping import Bool, Float
from shared_data import SHARED_DATA

from schemas.body_model import BodyModel
from schemas.coverage import LEFT_LEG, PART_NAMES, coverage_of
from schemas.records import Rejection, Shot, Source, Track, Video
from schemas.skeleton import COCO_KEYPOINTS
from stages.cut_clips import CutClips
from stages.media.decoding import frames
from stages.media.encoding import VideoWriter
from stages.perception.landmarks.seen import BEGINS, STAYS, fills_box, find_seen, points_of, visibility_of_parts
from stages.synthesis.motions import generate
from stages.synthesis.scenes import make_scene, shoot_scene
from stages.track_people import TrackPeople

NEAR = 0.05
"""Share of the box's longer side within which a point is right."""
WINDOW = 15


@pytest.fixture(scope="module")
def tracker() -> TrackPeople:
    stage = TrackPeople(TrackPeople.Config(landmarks="always", threads=1))
    stage.setup()
    return stage


def tracks_of(tracker: TrackPeople, path: Path, seconds: float, fps: float) -> list[Track]:
    first = next(iter(frames(str(path))))
    height, width = first.image.shape[:2]
    source = Source(id="film", uri=str(path))
    video = Video(
        source=source, sha256="0" * 64, width=width, height=height, fps=fps, duration_s=seconds, has_audio=False
    )
    found = tracker.run(Shot(video=video, index=0, start_s=0.0, end_s=seconds))
    return [track for track in found if not isinstance(track, Rejection)]


def largest(tracks: list[Track]) -> Track:
    return max(tracks, key=lambda track: float(np.median(track.boxes[:, 3] - track.boxes[:, 1])))


def seen_of(track: Track) -> np.ndarray:
    video = track.shot.video
    visibility = visibility_of_parts(track.keypoints, track.landmarks, (video.width, video.height))
    return find_seen(visibility, WINDOW)


def right_and_seen(
    track: Track, truth: Float[np.ndarray, "N 17 2"]
) -> tuple[Bool[np.ndarray, "M"], Bool[np.ndarray, "M"]]:
    """For every point of a part in every frame: whether it lies near the truth, and whether its part is called seen."""
    side = (track.boxes[:, 2:] - track.boxes[:, :2]).max(-1)
    near = np.linalg.norm(track.keypoints[..., :2] - truth, axis=-1) < NEAR * side[:, None]
    seen = seen_of(track)
    right = [near[:, list(points_of(part))] for part in PART_NAMES]
    called = [
        np.repeat(seen[:, [column]].astype(bool), len(points_of(part)), 1) for column, part in enumerate(PART_NAMES)
    ]
    return np.concatenate([one.ravel() for one in right]), np.concatenate([one.ravel() for one in called])


@pytest.mark.slow
@pytest.mark.skipif(not (SHARED_DATA / "real").is_dir(), reason="no development videos")
@pytest.mark.parametrize("camera", ["cam02", "cam03"])
def test_triangulated_people(tracker: TrackPeople, camera: str) -> None:
    known = np.load(SHARED_DATA / "real" / "balance_truth.npz")
    path = SHARED_DATA / "real" / "video" / f"balance_{camera}.mp4"
    track = largest(tracks_of(tracker, path, len(known["world_m"]) / 60, 60.0))
    numbers = np.round(track.times_s * float(known["fps"])).astype(int).clip(0, len(known["world_m"]) - 1)
    truth = np.full((len(numbers), 17, 2), np.nan)
    truth[:, [COCO_KEYPOINTS.index(str(name)) for name in known["joints"]]] = known[f"{camera}_pixels"][numbers]
    right, seen = right_and_seen(track, truth)
    assert right[seen].mean() >= 0.95
    assert seen[right].mean() >= 0.9


@pytest.mark.slow
@pytest.mark.skipif(not (SHARED_DATA / "real").is_dir(), reason="no development videos")
def test_an_upper_body_at_the_stove(tracker: TrackPeople) -> None:
    path = SHARED_DATA / "real" / "video" / "decord_pancake_upper_body.mkv"
    track = largest(tracks_of(tracker, path, 3.0, 30.0))
    (clip,) = CutClips().run(track)
    assert not isinstance(clip, Rejection)
    assert coverage_of(clip.seen) == "upper"
    assert not clip.seen[:, LEFT_LEG:].any()


@pytest.mark.slow
def test_a_rendered_person(tracker: TrackPeople, tmp_path: Path) -> None:
    body = BodyModel.load()
    motion = generate("walk", 1.5, 2, body=body)
    path = tmp_path / "film.mp4"
    with VideoWriter(path, 640, 480, 30.0) as writer:
        footage = shoot_scene(make_scene([motion], 7, body=body, camera="static"), writer, tmp_path, body=body)
    track = largest(tracks_of(tracker, path, len(footage) / 30, 30.0))
    numbers = np.round(track.times_s * 30).astype(int).clip(0, len(footage) - 1)
    right, seen = right_and_seen(track, footage.people[0].keypoints[numbers])
    assert right[seen].mean() >= 0.95
    assert seen[right].mean() >= 0.9


def test_a_part_begins_late_and_stays_long() -> None:
    visibility = np.full((120, 5), (BEGINS + STAYS) / 2)
    assert not find_seen(visibility, WINDOW).any()
    visibility[:40] = 0.9
    assert find_seen(visibility, WINDOW).all()
    visibility[80:] = 0.0
    seen = find_seen(visibility, WINDOW)
    assert seen[:75].all()
    assert not seen[85:].any()


def test_a_small_body_in_a_large_box_was_not_understood() -> None:
    body = np.random.default_rng(0).uniform(0, 1, (6, 17, 3)).astype(np.float32)
    body[:, 0], body[:, 1] = 0.0, 1.0  # the corners, so that the extent is that of the box below
    boxes = np.tile(np.array([100.0, 200.0, 300.0, 800.0], np.float32), (6, 1))
    corner, size = boxes[:, None, :2], (boxes[:, 2:] - boxes[:, :2])[:, None]

    def spanning(width: float, height: float) -> np.ndarray:
        return np.concatenate([corner + body[..., :2] * size * [width, height], body[..., 2:]], -1)

    assert fills_box(spanning(0.8, 0.85), boxes).all()
    assert fills_box(spanning(0.2, 0.85), boxes).all(), "from the side"
    assert fills_box(spanning(2.0, 3.0), boxes).all(), "legs below the picture"
    assert not fills_box(spanning(0.55, 0.6), boxes).any()
