"""humo bench track: the tracking stage against the loop that ultralytics' own documentation shows, over the same weights."""

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
from schemas.records import Shot, Source, Track, Video
from schemas.torchvision_ops import ensure_operators
from stages.base import apply
from stages.media.decoding import frames
from stages.perception.detector import default_weights
from stages.read_videos import ReadVideos
from stages.track_people import TrackPeople

Seen = list[tuple[float, dict[int, np.ndarray]]]
"""For each frame its time and identity -> keypoints (17, 3)."""


def bench(video: str = "", *, rounds: int = 3) -> dict[str, Any]:
    """Frames a second of both, in turns in this process, and how far their keypoints lie apart on the same people.

    Times cover decoding, detection and tracking; loading and exporting weights and a warm-up are left out. The stage is
    compared without the closer look, which the loop does not take; what it costs is told beside.
    """
    with tempfile.TemporaryDirectory() as work:
        path = video or render(Path(work))
        shot = whole_shot(path)
        stage, closer = (TrackPeople(TrackPeople.Config(closeup=closeup)) for closeup in ("never", "always"))
        for one in (stage, closer):
            one.setup()
            run_stage(one, shot)
        ours, rival, closely = [], [], []
        tracks: list[Track] = []
        theirs: Seen = []
        plain = load_plain()
        run_plain(plain, path, most=5)
        for _ in range(rounds):
            start = time.perf_counter()
            theirs = run_plain(plain, path)
            rival.append(time.perf_counter() - start)
            start = time.perf_counter()
            tracks = run_stage(stage, shot)
            ours.append(time.perf_counter() - start)
            start = time.perf_counter()
            run_stage(closer, shot)
            closely.append(time.perf_counter() - start)
    number = len(theirs)
    return {
        "video": Path(path).name,
        "frames": number,
        "stage_fps": round(number / median(ours), 2),
        "plain_fps": round(number / median(rival), 2),
        "closeup_fps": round(number / median(closely), 2),
        "ratio": round(median(theirs_s / ours_s for theirs_s, ours_s in zip(rival, ours, strict=True)), 3),
        "ratios": [round(theirs_s / ours_s, 3) for theirs_s, ours_s in zip(rival, ours, strict=True)],
        **_compare(tracks, theirs),
        "weights": stage.detector.version,
        "machine": f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores",
    }


def bench_text(found: dict[str, Any]) -> str:
    """The figures for a terminal."""
    return (
        f"{found['video']}, {found['frames']} frames, {found['weights']}, {found['machine']}\n"
        f"tracking stage {found['stage_fps']} frames/s, plain model.track loop {found['plain_fps']} frames/s: "
        f"{found['ratio']} times as fast (rounds: {', '.join(map(str, found['ratios']))}); with the closer look "
        f"{found['closeup_fps']} frames/s\n"
        f"people seen by the loop that the stage sees too: {found['people_matched']:.1%}; "
        f"mean keypoint distance {found['keypoint_distance']:.2%} of the box height"
    )


def render(work: Path) -> str:
    """A video of two people for want of another; its path."""
    from stages.synthesis.film import demo_films

    return str(demo_films(work, seed=0, names=["two_people"])[0].path)


def whole_shot(path: str) -> Shot:
    """All of a video as one shot. Raises HumoError for a file that is none."""
    videos, rejections = apply(ReadVideos(), [Source(id="bench", uri=str(path))])
    if rejections:
        raise HumoError(f"{path}: {rejections[0].reason} {rejections[0].detail}; give a video that plays")
    video: Video = videos[0]
    return Shot(video=video, index=0, start_s=0.0, end_s=video.duration_s + 1.0)


def run_stage(stage: TrackPeople, shot: Shot) -> list[Track]:
    """What the tracking stage finds in a shot."""
    return [item for item in stage.run(shot) if isinstance(item, Track)]


def load_plain() -> Any:
    """The stage's default weights as ultralytics loads them."""
    enforce_offline()
    ensure_operators()
    from ultralytics import YOLO

    return YOLO(str(default_weights()), task="pose")


def run_plain(model: Any, path: str, most: int | None = None) -> Seen:
    """What a fresh `model.track` run sees."""
    if model.predictor is not None:
        model.predictor.trackers = []
    seen = []
    for number, frame in enumerate(frames(str(path))):
        if number == most:
            break
        result = model.track(frame.image[..., ::-1], persist=True, verbose=False, tracker="bytetrack.yaml")[0]
        ids = result.boxes.id
        people = {} if ids is None else dict(zip(ids.int().tolist(), result.keypoints.data.cpu().numpy(), strict=True))
        seen.append((frame.time_s, people))
    return seen


def _compare(tracks: list[Track], theirs: Seen) -> dict[str, float]:
    """Share of the loop's people (those seen in 30 frames or more) whom the stage sees in the same frames too, and the
    distance of sure keypoints in box heights."""
    by_time: dict[float, list[tuple[np.ndarray, float]]] = {}
    for track in tracks:
        for time_s, box, keypoints in zip(track.times_s, track.boxes, track.keypoints, strict=True):
            by_time.setdefault(round(float(time_s), 4), []).append((keypoints, float(box[3] - box[1])))
    frames_of = Counter(identity for _, people in theirs for identity in people)
    there, matched, distances = 0, 0, []
    for time_s, people in theirs:
        for identity, keypoints in people.items():
            if frames_of[identity] < 30:
                continue
            there += 1
            sure = keypoints[:, 2] >= 0.5
            near = [
                float(np.linalg.norm(mine[sure, :2] - keypoints[sure, :2], axis=1).mean()) / height
                for mine, height in by_time.get(round(time_s, 4), [])
                if sure.any()
            ]
            if near and min(near) < 0.2:
                matched += 1
                distances.append(min(near))
    return {
        "people_matched": round(matched / there, 4) if there else 0.0,
        "keypoint_distance": round(float(np.mean(distances)), 5) if distances else 0.0,
    }
