"""Films with known bodies, the video stages over them, and the comparison with the ground truth at the same times.

Films show one person, every fourth of them two (whose paths cross in every other such film). Each motion is filmed twice, on the
same body in the same clothes: by a static camera and by a moving one.
"""

import math
import re
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Float, Int

from schemas.body_model import BodyModel
from schemas.kinematics import forward_kinematics
from schemas.records import FPS, Clip, Motion, Rejection, Source, Track
from schemas.rotations import axis_angle_to_matrix
from schemas.skeleton import joint
from stages.base import Stage, apply
from stages.cut_clips import CutClips
from stages.fit_smpl import FitSmpl
from stages.geometry.contacts import find_contacts
from stages.media.focal_length import FILM_DIAGONAL_MM
from stages.read_videos import ReadVideos
from stages.recovery.protocol import Fitter
from stages.split_shots import SplitShots
from stages.synthesis import MIN_SECONDS
from stages.synthesis.film import Footage
from stages.synthesis.motions import ACTIONS, generate
from stages.synthesis.scenes import MotionLike, UnlabelledMotion, film_scene, make_scene
from stages.track_people import TrackPeople
from stages.training.lifter.evaluate import evenly_spaced, group_of
from stages.training.lifter.metrics import BodyMotion, measure
from stages.training.lifter.motion_dataset import MotionDataset

SEED = 700_000
"""Of bodies, clothes, places, cameras and companions; trainings use small seeds."""
SECONDS = 5.0
CAMERAS: tuple[Literal["static", "moving"], ...] = ("static", "moving")
KEYPOINT_ERROR = "keypoints_off"
"""Metric of a clip in addition to those of `measure`: distance of its keypoints from the projected ground truth, in percent of the
box's height, median over those that are detected with confidence and visible."""
FOCAL_ERROR = "focal_off"
"""Likewise: error of the focal length, in percent."""
_MIN_FRAMES = 90
_MIN_CONFIDENCE = 0.3
_MIN_IOU = 0.3
"""Intersection over union from which a tracked box is matched to a person."""


@dataclass(frozen=True)
class Film:
    """A film and its ground truth."""

    name: str
    group: str
    """Group of its action."""
    camera: str
    """One of CAMERAS."""
    footage: Footage


@dataclass(frozen=True)
class TrackedFilm:
    """Output of the stages before the fit for a film."""

    film: Film
    tracks: tuple[Track, ...]
    clips: tuple[Clip, ...]
    rejections: tuple[Rejection, ...]
    seconds: Mapping[str, float]
    """Wall-clock time of each stage, by its name."""


@dataclass(frozen=True)
class ClipResult:
    """Result of one fitter for one clip of a film."""

    film: Film
    clip: Clip
    person: int
    """The person in most frames of the clip, or -1."""
    motion: Motion | None
    rejection: Rejection | None
    first_frame: int
    """The film's frame at which the motion begins."""
    predicted: BodyMotion | None
    target: BodyMotion | None
    row: Mapping[str, float] | None
    """Metrics of `measure`; None if there is no motion, or no person that it matches."""


class FitWithFitter(FitSmpl):
    """The stage with an existing fitter."""

    def __init__(self, fitter: Fitter) -> None:
        super().__init__()
        self._given = fitter

    def _make_fitter(self) -> Fitter:
        return self._given


def make_films(dataset: MotionDataset, count: int, folder: Path, body: BodyModel) -> list[Film]:
    """`count` motions of a dataset, up to five seconds from the middle of each, filmed by each kind of camera."""
    candidates = [number for number, length in enumerate(dataset.lengths.tolist()) if length >= _MIN_FRAMES]
    if not candidates:
        return []
    rest = body.rest_joints(torch.zeros(10))[joint("pelvis")]
    max_frames = round(SECONDS * FPS)
    films = []
    for number in range(count):
        chosen = candidates[evenly_spaced(len(candidates), max(count, 1))[number]]
        rotations, pelvis = dataset.motion(chosen)
        start = max(0, (len(pelvis) - max_frames) // 2)
        frames = slice(start, start + max_frames)
        motions: list[MotionLike] = [UnlabelledMotion(rotations[frames], pelvis[frames] - rest)]
        if number % 4 == 3:
            seconds = max(MIN_SECONDS, len(motions[0].trans) / FPS + 0.2)
            action = ACTIONS[SEED // 7 * number % len(ACTIONS)]
            companion = generate(action, seconds, SEED + number, body=body, betas=torch.zeros(10))
            motions.append(UnlabelledMotion(companion.rotations, companion.trans))
        group = group_of(dataset.names[chosen])
        for camera in CAMERAS:
            name = re.sub(r"[^A-Za-z0-9-]+", "-", f"{number:03d}-{group}-{camera}")
            scene = make_scene(motions, SEED + number, body=body, camera=camera, crossing=number % 8 == 7)
            films.append(Film(name, group, camera, film_scene(scene, folder / f"{name}.mp4", body=body)))
    return films


def video_stages(landmarks: Literal["auto", "always", "never"] = "auto") -> list[Stage[Any, Any]]:
    """The stages from a file to clips, after setup; `landmarks` as in `TrackPeople.Config`."""
    tracking = TrackPeople(TrackPeople.Config(landmarks=landmarks))
    stages: list[Stage[Any, Any]] = [ReadVideos(), SplitShots(), tracking, CutClips()]
    for stage in stages:
        stage.setup()
    return stages


def track_film(film: Film, stages: Sequence[Stage[Any, Any]], *, focal_known: bool = False) -> TrackedFilm:
    """Run a film through the stages, with or without its focal length as metadata."""
    footage = film.footage
    diagonals = footage.K[0, 0] / math.hypot(footage.width, footage.height)
    focal_35mm = float(diagonals * FILM_DIAGONAL_MM) if focal_known else 0.0
    records: list[Any] = [Source(id=film.name, uri=str(footage.path), focal_35mm=focal_35mm)]
    tracks: tuple[Track, ...] = ()
    rejections: list[Rejection] = []
    seconds = {}
    for stage in stages:
        start = time.perf_counter()
        records, rejected = apply(stage, records)
        seconds[stage.name] = time.perf_counter() - start
        rejections += rejected
        if stage.yields is Track:
            tracks = tuple(records)
    return TrackedFilm(film, tracks, tuple(records), tuple(rejections), seconds)


def recover_clip(tracked_film: TrackedFilm, clip: Clip, stage: FitWithFitter, body: BodyModel) -> ClipResult:
    """Run a clip of the film through the fitting stage, and compare it with the ground truth at the same times."""
    film, footage = tracked_film.film, tracked_film.film.footage
    start = time.process_time()
    motions, rejections = apply(stage, [clip])
    seconds = time.process_time() - start
    first_frame = round(clip.start_s * footage.fps)
    people = match_people(clip.track, footage)[(clip.track.times_s >= clip.start_s) & (clip.track.times_s < clip.end_s)]
    person = _most_frequent(people)
    if not motions or person < 0:
        rejection = rejections[0] if rejections else None
        return ClipResult(film, clip, person, motions[0] if motions else None, rejection, first_frame, None, None, None)
    motion = motions[0]
    count = min(len(motion.poses), len(footage) - first_frame)
    predicted = _predicted_motion(motion, count)
    target = target_motion(footage, person, body, slice(first_frame, first_frame + count))
    row = {
        **measure(predicted, target, body),
        KEYPOINT_ERROR: _keypoint_error(clip, footage, person),
        FOCAL_ERROR: _focal_error(motion, footage),
        "_seconds": seconds,
    }
    return ClipResult(film, clip, person, motion, None, first_frame, predicted, target, row)


def with_target_keypoints(clip: Clip, footage: Footage) -> Clip:
    """The clip with ground-truth boxes and keypoints, without landmarks; confidence is the visibility of each keypoint."""
    person = _most_frequent(match_people(clip.track, footage))
    if person < 0:
        return clip
    filmed, track = footage.people[person], clip.track
    keypoints = np.concatenate([filmed.keypoints, filmed.visibility[..., None]], axis=-1).astype(np.float32)
    boxes = filmed.boxes.clip(0, np.array([footage.width, footage.height] * 2)).astype(np.float32)
    track_frames, clip_frames = _frames(track.times_s, footage), _frames(_times_s(clip), footage)
    exact = replace(
        track, keypoints=keypoints[track_frames], boxes=boxes[track_frames], landmarks=None, landmarks_m=None
    )
    return replace(
        clip, track=exact, keypoints=keypoints[clip_frames], boxes=boxes[clip_frames], landmarks=None, landmarks_m=None
    )


def target_motion(footage: Footage, person: int, body: BodyModel, frames: slice) -> BodyMotion:
    """Ground truth of a filmed person over some frames; contacts are detected as in `film_studio`."""
    filmed = footage.people[person]
    joints, world_rotations = forward_kinematics(filmed.rotations, body.rest_joints(filmed.betas), filmed.trans)
    feet = body.contact_rig().points(world_rotations, joints, filmed.betas).numpy()
    eye = -np.einsum("tij,ti->tj", footage.R, footage.t)
    return BodyMotion(
        rotations=filmed.rotations[frames],
        trans=filmed.trans[frames],
        betas=filmed.betas,
        to_camera=footage.R[frames],
        eye=eye[frames],
        contacts=find_contacts(feet, 0.0).astype(bool)[frames],
    )


def match_people(track: Track, footage: Footage) -> Int[np.ndarray, "N"]:
    """The person in each box of a track, -1 where there is none."""
    frames = _frames(track.times_s, footage)
    image_max = np.array([footage.width, footage.height] * 2)
    iou = np.stack(
        [_iou(track.boxes.astype(np.float64), person.boxes[frames].clip(0, image_max)) for person in footage.people]
    )
    return np.where(iou.max(0) >= _MIN_IOU, iou.argmax(0), -1)


def identity_counts(tracked_film: TrackedFilm) -> dict[str, float]:
    """People without a track, tracks beyond one per person, and changes of person within a track."""
    people_by_track = [match_people(track, tracked_film.film.footage) for track in tracked_film.tracks]
    tracks_per_person = Counter(_most_frequent(matched) for matched in people_by_track)
    people = range(len(tracked_film.film.footage.people))
    return {
        "people": float(len(people)),
        "missed": float(sum(tracks_per_person[person] == 0 for person in people)),
        "switches": float(sum(max(0, tracks_per_person[person] - 1) for person in people)),
        "changes": float(
            sum(a != b for matched in people_by_track for a, b in pairwise(matched[matched >= 0].tolist()))
        ),
        "strangers": float(tracks_per_person[-1]),
    }


def covered_frames(film: Film, results: Sequence[ClipResult]) -> tuple[int, int]:
    """Person frames of the film that are in an accepted motion of that person, and the total."""
    frames = len(film.footage)
    in_motion = np.zeros((len(film.footage.people), frames), bool)
    for result in results:
        if result.film is film and result.row is not None:
            in_motion[result.person, result.first_frame : result.first_frame + int(result.row["frames"])] = True
    return int(in_motion.sum()), in_motion.size


def _predicted_motion(motion: Motion, count: int) -> BodyMotion:
    assert motion.footage is not None
    camera = motion.footage.camera
    return BodyMotion(
        rotations=axis_angle_to_matrix(torch.from_numpy(motion.poses[:count])),
        trans=torch.from_numpy(motion.trans[:count]),
        betas=torch.from_numpy(motion.betas),
        to_camera=camera.rotation[:count],
        eye=camera.position[:count],
        contacts=motion.contacts[:count].astype(bool),
    )


def _keypoint_error(clip: Clip, footage: Footage, person: int) -> float:
    filmed, frames = footage.people[person], _frames(_times_s(clip), footage)
    distance = np.linalg.norm(clip.keypoints[..., :2] - filmed.keypoints[frames], axis=-1)
    height = np.maximum(clip.boxes[:, 3] - clip.boxes[:, 1], 1.0)
    valid = (clip.keypoints[..., 2] >= _MIN_CONFIDENCE) & (filmed.visibility[frames] >= _MIN_CONFIDENCE)
    return 100 * float(np.median((distance / height[:, None])[valid])) if valid.any() else float("nan")


def _focal_error(motion: Motion, footage: Footage) -> float:
    assert motion.footage is not None
    return 100 * abs(float(motion.footage.camera.intrinsics[0] / footage.K[0, 0]) - 1)


def _times_s(clip: Clip) -> Float[np.ndarray, "T"]:
    return clip.start_s + np.arange(len(clip.keypoints)) / FPS


def _frames(times_s: Float[np.ndarray, "N"], footage: Footage) -> Int[np.ndarray, "N"]:
    """Frame indices of the film."""
    return np.round(times_s * footage.fps).astype(int).clip(0, len(footage) - 1)


def _most_frequent(people: Int[np.ndarray, "N"]) -> int:
    """The person in most of the frames that show one; -1 if none does."""
    matched = people[people >= 0]
    return int(np.bincount(matched).argmax()) if len(matched) else -1


def _iou(a: Float[np.ndarray, "N 4"], b: Float[np.ndarray, "N 4"]) -> Float[np.ndarray, "N"]:
    """Intersection over union."""
    overlap_sides = (np.minimum(a[:, 2:], b[:, 2:]) - np.maximum(a[:, :2], b[:, :2])).clip(0)
    intersection = overlap_sides.prod(1)
    areas = [(box[:, 2:] - box[:, :2]).clip(0).prod(1) for box in (a, b)]
    return intersection / np.maximum(areas[0] + areas[1] - intersection, 1e-9)
