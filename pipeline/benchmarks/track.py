"""humo bench track: the tracking stage against the loop of ultralytics' documentation, with the same weights."""

import os
import platform
import tempfile
import time
from collections import Counter
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from schemas.errors import HumoError
from schemas.offline import enforce_offline
from schemas.pose_weights import default_weights
from schemas.records import Shot, Source, Track, Video
from schemas.torchvision_ops import ensure_operators
from stages.base import apply
from stages.media.decoding import frames
from stages.read_videos import ReadVideos
from stages.track_people import TrackPeople

TrackedFrames = list[tuple[float, dict[int, np.ndarray]]]
"""Per frame: time, and track id -> keypoints (17, 3)."""


def bench(video: str = "", *, rounds: int = 3) -> dict[str, Any]:
    """Frames per second of both, alternating in this process, and the distance between their keypoints of the same people.

    Times include decoding, detection and tracking, but not loading and exporting weights and a warm-up. The stage is compared
    without the landmark network, which the loop does not have; its cost is reported separately.
    """
    with tempfile.TemporaryDirectory() as work:
        path = video or render(Path(work))
        shot = whole_shot(path)
        stage, landmark_stage = (
            TrackPeople(TrackPeople.Config(landmarks=landmarks)) for landmarks in ("never", "always")
        )
        for tracking_stage in (stage, landmark_stage):
            tracking_stage.setup()
            run_stage(tracking_stage, shot)
        stage_s, plain_s, landmarks_s = [], [], []
        tracks: list[Track] = []
        plain_frames: TrackedFrames = []
        plain = load_plain()
        run_plain(plain, path, max_frames=5)
        for _ in range(rounds):
            start = time.perf_counter()
            plain_frames = run_plain(plain, path)
            plain_s.append(time.perf_counter() - start)
            start = time.perf_counter()
            tracks = run_stage(stage, shot)
            stage_s.append(time.perf_counter() - start)
            start = time.perf_counter()
            run_stage(landmark_stage, shot)
            landmarks_s.append(time.perf_counter() - start)
    frame_count = len(plain_frames)
    ratios = [plain_round_s / stage_round_s for plain_round_s, stage_round_s in zip(plain_s, stage_s, strict=True)]
    return {
        "video": Path(path).name,
        "frames": frame_count,
        "stage_fps": round(frame_count / median(stage_s), 2),
        "plain_fps": round(frame_count / median(plain_s), 2),
        "landmarks_fps": round(frame_count / median(landmarks_s), 2),
        "ratio": round(median(ratios), 3),
        "ratios": [round(ratio, 3) for ratio in ratios],
        **_compare(tracks, plain_frames),
        "weights": stage.detector.version,
        "machine": f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores",
    }


def bench_text(report: dict[str, Any]) -> str:
    """The results for a terminal."""
    return (
        f"{report['video']}, {report['frames']} frames, {report['weights']}, {report['machine']}\n"
        f"tracking stage {report['stage_fps']} frames/s, plain model.track loop {report['plain_fps']} frames/s: "
        f"{report['ratio']} times as fast (rounds: {', '.join(map(str, report['ratios']))}); with the landmark network "
        f"{report['landmarks_fps']} frames/s\n"
        f"people tracked by the loop that the stage tracks too: {report['people_matched']:.1%}; "
        f"mean keypoint distance {report['keypoint_distance']:.2%} of the box height"
    )


def render(work: Path) -> str:
    """Render a video of two people; returns its path."""
    from stages.synthesis.film import demo_films

    return str(demo_films(work, seed=0, names=["two_people"])[0].path)


def whole_shot(path: str) -> Shot:
    """A whole video as one shot. Raises HumoError for a file that is no video."""
    videos, rejections = apply(ReadVideos(), [Source(id="bench", uri=str(path))])
    if rejections:
        raise HumoError(f"{path}: {rejections[0].reason} {rejections[0].detail}; give a video that plays")
    video: Video = videos[0]
    return Shot(video=video, index=0, start_s=0.0, end_s=video.duration_s + 1.0)


def run_stage(stage: TrackPeople, shot: Shot) -> list[Track]:
    """Tracks of the tracking stage in a shot."""
    return [item for item in stage.run(shot) if isinstance(item, Track)]


def load_plain() -> Any:
    """The stage's default weights, loaded by ultralytics."""
    enforce_offline()
    ensure_operators()
    from ultralytics import YOLO

    return YOLO(str(default_weights("track_people.weights")), task="pose")


def run_plain(model: Any, path: str, max_frames: int | None = None) -> TrackedFrames:
    """Detections of a new `model.track` run."""
    if model.predictor is not None:
        model.predictor.trackers = []
    tracked = []
    for index, frame in enumerate(frames(str(path))):
        if index == max_frames:
            break
        result = model.track(frame.image[..., ::-1], persist=True, verbose=False, tracker="bytetrack.yaml")[0]
        ids = result.boxes.id
        people = {} if ids is None else dict(zip(ids.int().tolist(), result.keypoints.data.cpu().numpy(), strict=True))
        tracked.append((frame.time_s, people))
    return tracked


def _compare(tracks: list[Track], plain_frames: TrackedFrames) -> dict[str, float]:
    """Share of the loop's people (those tracked in 30 frames or more) that the stage tracks in the same frames too, and the
    distance of confident keypoints in box heights."""
    by_time: dict[float, list[tuple[np.ndarray, float]]] = {}
    for track in tracks:
        for time_s, box, keypoints in zip(track.times_s, track.boxes, track.keypoints, strict=True):
            by_time.setdefault(round(float(time_s), 4), []).append((keypoints, float(box[3] - box[1])))
    frames_of_track = Counter(track_id for _, people in plain_frames for track_id in people)
    total, matched, distances = 0, 0, []
    for time_s, people in plain_frames:
        for track_id, keypoints in people.items():
            if frames_of_track[track_id] < 30:
                continue
            total += 1
            confident = keypoints[:, 2] >= 0.5
            distances_to_stage = [
                float(np.linalg.norm(stage_keypoints[confident, :2] - keypoints[confident, :2], axis=1).mean()) / height
                for stage_keypoints, height in by_time.get(round(time_s, 4), [])
                if confident.any()
            ]
            if distances_to_stage and min(distances_to_stage) < 0.2:
                matched += 1
                distances.append(min(distances_to_stage))
    return {
        "people_matched": round(matched / total, 4) if total else 0.0,
        "keypoint_distance": round(float(np.mean(distances)), 5) if distances else 0.0,
    }
