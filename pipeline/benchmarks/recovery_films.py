"""Films whose every body is known, and the video stages over them, compared with that truth by time.

Films show one person, every fourth of them two (who cross in every other such film). Each motion is filmed twice, on the
same body in the same clothes: by a camera that stands still and by one that moves.
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
from stages.synthesis.scenes import GivenMotion, Movement, film_scene, make_scene
from stages.track_people import TrackPeople
from stages.training.lifter.evaluate import group_of, spread
from stages.training.lifter.metrics import BodyMotion, measure
from stages.training.lifter.motion_dataset import MotionDataset

SEED = 700_000
"""Of bodies, clothes, places, cameras and companions; trainings take small seeds."""
SECONDS = 5.0
CAMERAS: tuple[Literal["static", "moving"], ...] = ("static", "moving")
KEYPOINTS_OFF = "keypoints_off"
"""Figure of a clip beside those of `measure`: how far its keypoints lie from the true ones, in percent of the box's height,
median over those that are seen with confidence and are there to be seen."""
FOCAL_OFF = "focal_off"
"""Likewise: how far the focal length that was taken lies from the true one, in percent of it."""
_LEAST_FRAMES = 90
_SURE = 0.3
_SAME_BOX = 0.3
"""Overlap (intersection over union) from which a tracked box shows a person."""


@dataclass(frozen=True)
class Film:
    """A film and the truth about it."""

    name: str
    group: str
    """What is done in it."""
    camera: str
    """One of CAMERAS."""
    footage: Footage


@dataclass(frozen=True)
class Sighting:
    """What the stages before the fit made of a film."""

    film: Film
    tracks: tuple[Track, ...]
    clips: tuple[Clip, ...]
    rejections: tuple[Rejection, ...]
    seconds: Mapping[str, float]
    """Wall-clock time of each stage, by its name."""


@dataclass(frozen=True)
class Outcome:
    """What one fitter made of one clip of a film."""

    film: Film
    clip: Clip
    person: int
    """Whom the clip shows most, or -1."""
    motion: Motion | None
    rejection: Rejection | None
    first: int
    """The film's frame with which the motion begins."""
    said: BodyMotion | None
    truth: BodyMotion | None
    row: Mapping[str, float] | None
    """What `measure` says; None where there is no motion, or nobody whom it could be."""


class FitGiven(FitSmpl):
    """The stage with a fitter that is there already."""

    def __init__(self, fitter: Fitter) -> None:
        super().__init__()
        self._given = fitter

    def _make_fitter(self) -> Fitter:
        return self._given


def make_films(dataset: MotionDataset, count: int, folder: Path, body: BodyModel) -> list[Film]:
    """`count` motions of a dataset, up to five seconds from the middle of each, before each kind of camera."""
    long_enough = [number for number, length in enumerate(dataset.lengths.tolist()) if length >= _LEAST_FRAMES]
    if not long_enough:
        return []
    rest = body.rest_joints(torch.zeros(10))[joint("pelvis")]
    most = round(SECONDS * FPS)
    films = []
    for number in range(count):
        chosen = long_enough[spread(len(long_enough), max(count, 1))[number]]
        rotations, pelvis = dataset.motion(chosen)
        start = max(0, (len(pelvis) - most) // 2)
        frames = slice(start, start + most)
        motions: list[Movement] = [GivenMotion(rotations[frames], pelvis[frames] - rest)]
        if number % 4 == 3:
            seconds = max(MIN_SECONDS, len(motions[0].trans) / FPS + 0.2)
            action = ACTIONS[SEED // 7 * number % len(ACTIONS)]
            companion = generate(action, seconds, SEED + number, body=body, betas=torch.zeros(10))
            motions.append(GivenMotion(companion.rotations, companion.trans))
        group = group_of(dataset.names[chosen])
        for camera in CAMERAS:
            name = re.sub(r"[^A-Za-z0-9-]+", "-", f"{number:03d}-{group}-{camera}")
            scene = make_scene(motions, SEED + number, body=body, camera=camera, crossing=number % 8 == 7)
            films.append(Film(name, group, camera, film_scene(scene, folder / f"{name}.mp4", body=body)))
    return films


def video_stages(closeup: Literal["auto", "always", "never"] = "auto") -> list[Stage[Any, Any]]:
    """The stages from a file to clips, ready to run; `closeup` as in `TrackPeople.Config`."""
    tracking = TrackPeople(TrackPeople.Config(closeup=closeup))
    stages: list[Stage[Any, Any]] = [ReadVideos(), SplitShots(), tracking, CutClips()]
    for stage in stages:
        stage.setup()
    return stages


def look(film: Film, stages: Sequence[Stage[Any, Any]], *, focal_told: bool = False) -> Sighting:
    """A film through the stages, which are told its focal length, or not."""
    footage = film.footage
    diagonals = footage.K[0, 0] / math.hypot(footage.width, footage.height)
    focal_35mm = float(diagonals * FILM_DIAGONAL_MM) if focal_told else 0.0
    records: list[Any] = [Source(id=film.name, uri=str(footage.path), focal_35mm=focal_35mm)]
    tracks: tuple[Track, ...] = ()
    rejections: list[Rejection] = []
    seconds = {}
    for stage in stages:
        began = time.perf_counter()
        records, refused = apply(stage, records)
        seconds[stage.name] = time.perf_counter() - began
        rejections += refused
        if stage.yields is Track:
            tracks = tuple(records)
    return Sighting(film, tracks, tuple(records), tuple(rejections), seconds)


def recover(sighting: Sighting, clip: Clip, stage: FitGiven, body: BodyModel) -> Outcome:
    """A clip of the film through the fitting stage, beside the truth at the same times."""
    film, footage = sighting.film, sighting.film.footage
    began = time.process_time()
    motions, rejections = apply(stage, [clip])
    seconds = time.process_time() - began
    first = round(clip.start_s * footage.fps)
    shown = whose(clip.track, footage)[(clip.track.times_s >= clip.start_s) & (clip.track.times_s < clip.end_s)]
    person = _most(shown)
    if not motions or person < 0:
        refusal = rejections[0] if rejections else None
        return Outcome(film, clip, person, motions[0] if motions else None, refusal, first, None, None, None)
    motion = motions[0]
    count = min(len(motion.poses), len(footage) - first)
    said, truth = _said(motion, count), true_figure(footage, person, body, slice(first, first + count))
    row = {
        **measure(said, truth, body),
        KEYPOINTS_OFF: _keypoints_off(clip, footage, person),
        FOCAL_OFF: _focal_off(motion, footage),
        "_seconds": seconds,
    }
    return Outcome(film, clip, person, motion, None, first, said, truth, row)


def with_true_keypoints(clip: Clip, footage: Footage) -> Clip:
    """The clip as a tracker without error, and without a closer look, would have made it; confidence is how much of each
    keypoint can be seen."""
    person = _most(whose(clip.track, footage))
    if person < 0:
        return clip
    filmed, track = footage.people[person], clip.track
    keypoints = np.concatenate([filmed.keypoints, filmed.visibility[..., None]], axis=-1).astype(np.float32)
    boxes = filmed.boxes.clip(0, np.array([footage.width, footage.height] * 2)).astype(np.float32)
    there, here = _frames(track.times_s, footage), _frames(_times_s(clip), footage)
    exact = replace(track, keypoints=keypoints[there], boxes=boxes[there], closeup=None)
    return replace(clip, track=exact, keypoints=keypoints[here], boxes=boxes[here], closeup=None)


def true_figure(footage: Footage, person: int, body: BodyModel, frames: slice) -> BodyMotion:
    """A filmed person over some frames; contacts are found as `film_studio` finds them."""
    filmed = footage.people[person]
    joints, turns = forward_kinematics(filmed.rotations, body.rest_joints(filmed.betas), filmed.trans)
    feet = body.contact_rig().points(turns, joints, filmed.betas).numpy()
    eye = -np.einsum("tij,ti->tj", footage.R, footage.t)
    return BodyMotion(
        rotations=filmed.rotations[frames],
        trans=filmed.trans[frames],
        betas=filmed.betas,
        to_camera=footage.R[frames],
        eye=eye[frames],
        contacts=find_contacts(feet, 0.0).astype(bool)[frames],
    )


def whose(track: Track, footage: Footage) -> Int[np.ndarray, "N"]:
    """Whom each box of a track shows, -1 where it is nobody."""
    frames = _frames(track.times_s, footage)
    edge = np.array([footage.width, footage.height] * 2)
    shares = np.stack(
        [_overlap(track.boxes.astype(np.float64), one.boxes[frames].clip(0, edge)) for one in footage.people]
    )
    return np.where(shares.max(0) >= _SAME_BOX, shares.argmax(0), -1)


def identities(sighting: Sighting) -> dict[str, float]:
    """People nobody tracked, tracks beyond one a person, and changes of person inside a track."""
    shown = [whose(track, sighting.film.footage) for track in sighting.tracks]
    tracks_of = Counter(_most(one) for one in shown)
    people = range(len(sighting.film.footage.people))
    return {
        "people": float(len(people)),
        "missed": float(sum(tracks_of[person] == 0 for person in people)),
        "switches": float(sum(max(0, tracks_of[person] - 1) for person in people)),
        "changes": float(sum(a != b for one in shown for a, b in pairwise(one[one >= 0].tolist()))),
        "strangers": float(tracks_of[-1]),
    }


def covered(film: Film, outcomes: Sequence[Outcome]) -> tuple[int, int]:
    """Frames of the film's people that are in an accepted motion of theirs, and all of them."""
    frames = len(film.footage)
    seen = np.zeros((len(film.footage.people), frames), bool)
    for outcome in outcomes:
        if outcome.film is film and outcome.row is not None:
            seen[outcome.person, outcome.first : outcome.first + int(outcome.row["frames"])] = True
    return int(seen.sum()), seen.size


def _said(motion: Motion, count: int) -> BodyMotion:
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


def _keypoints_off(clip: Clip, footage: Footage, person: int) -> float:
    filmed, frames = footage.people[person], _frames(_times_s(clip), footage)
    apart = np.linalg.norm(clip.keypoints[..., :2] - filmed.keypoints[frames], axis=-1)
    height = np.maximum(clip.boxes[:, 3] - clip.boxes[:, 1], 1.0)
    seen = (clip.keypoints[..., 2] >= _SURE) & (filmed.visibility[frames] >= _SURE)
    return 100 * float(np.median((apart / height[:, None])[seen])) if seen.any() else float("nan")


def _focal_off(motion: Motion, footage: Footage) -> float:
    assert motion.footage is not None
    return 100 * abs(float(motion.footage.camera.intrinsics[0] / footage.K[0, 0]) - 1)


def _times_s(clip: Clip) -> Float[np.ndarray, "T"]:
    return clip.start_s + np.arange(len(clip.keypoints)) / FPS


def _frames(times_s: Float[np.ndarray, "N"], footage: Footage) -> Int[np.ndarray, "N"]:
    """Numbers of the film's frames."""
    return np.round(times_s * footage.fps).astype(int).clip(0, len(footage) - 1)


def _most(shown: Int[np.ndarray, "N"]) -> int:
    """The person in most of the frames that show one; -1 if none does."""
    known = shown[shown >= 0]
    return int(np.bincount(known).argmax()) if len(known) else -1


def _overlap(a: Float[np.ndarray, "N 4"], b: Float[np.ndarray, "N 4"]) -> Float[np.ndarray, "N"]:
    """Intersection over union."""
    sides = (np.minimum(a[:, 2:], b[:, 2:]) - np.maximum(a[:, :2], b[:, :2])).clip(0)
    common = sides.prod(1)
    areas = [(box[:, 2:] - box[:, :2]).clip(0).prod(1) for box in (a, b)]
    return common / np.maximum(areas[0] + areas[1] - common, 1e-9)
