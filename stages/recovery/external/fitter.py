"""Results of other estimators as fits: matching results to videos and subjects to tracks, resampled to the clip's timeline."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import fsspec
import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from schemas.body_model import NUM_SHAPES, BodyModel
from schemas.errors import HumoError
from schemas.kinematics import forward_kinematics
from schemas.records import FPS, Camera, Clip, Track, Video
from schemas.rotations import slerp_resample
from schemas.skeleton import joint
from stages.geometry.cameras import box_heights_px, guess_intrinsics, intrinsics_of, reprojection_error
from stages.geometry.keypoints import clean_keypoints
from stages.recovery.external.files import find_result, names_of, read_result
from stages.recovery.external.parsers import Result
from stages.recovery.external.reading import ResultError
from stages.recovery.external.resection import find_camera
from stages.recovery.external.retarget import to_other_body
from stages.recovery.external.worlds import PlacedSubject, level_world, place_subjects, rest_of_body, rest_of_mean
from stages.recovery.protocol import Fit, NoFit

MAX_GAP_S = 0.35
"""Longest gap between two frames of a subject that is interpolated, as in `cut_clips`."""
MAX_OUTSIDE_S = 0.1
"""Longest extent of a clip beyond a subject's first or last frame, which is then repeated."""
MAX_DISTANCE = 0.25
"""Median distance between a subject's projected keypoints and the track's, in box heights, above which they are different
people."""
MIN_CONFIDENCE = 0.3
"""Lowest confidence of a keypoint that counts."""
_MAX_CACHED_VIDEOS = 2
"""Videos whose results stay in memory: clips arrive video by video."""


@dataclass(frozen=True, kw_only=True, eq=False)
class _OpenResult:
    result: Result
    placed: list[PlacedSubject]
    native: bool
    """Whether the result's body is the dataset's, so that its betas are valid."""


class ImportFitter:
    """Imports results of WHAM, GVHMR, GEM, TRAM or AMASS-like files as fits (see `stages.recovery.external.parsers`).

    A clip whose video has no result, or whose person is not in it, gets NoFit with the reason; so do all clips of a video whose
    result cannot be read.
    """

    version = "imported 1"

    def __init__(self, body: BodyModel, *, results: str, body_file: str = "", retarget: bool = False) -> None:
        """`results`: a folder with a sub-folder or file per video, named by the video's source id or file name. `body_file`:
        the file of `body`, whose name may contain its gender. `retarget`: transfer results for other body models to `body`.
        Raises HumoError where the folder does not exist."""
        if not results:
            raise HumoError(
                "fit_smpl: fitter is 'imported' and results is empty; set it to the folder with the estimator's results"
            )
        fs, root = fsspec.core.url_to_fs(results)
        if not fs.isdir(root):
            raise HumoError(f"{results}: fit_smpl.results is no folder; set it to the one with a result for each video")
        self.body, self.results, self.retarget = body, results, retarget
        self._body_gender = _gender_in(Path(body_file).stem)
        self._keypoint_rig = body.keypoint_rig()
        self._opened: dict[str, _OpenResult | ResultError] = {}

    def fit(self, clips: Sequence[Clip]) -> list[Fit | NoFit]:
        """One fit per clip, or why there is none, in order."""
        return [self._fit_one(clip) for clip in clips]

    def _fit_one(self, clip: Clip) -> Fit | NoFit:
        try:
            opened = self._open(clip.track.shot.video)
            fps = opened.result.fps or frame_rate(clip.track)
            _check_length(opened.result, clip.track.shot.video, fps)
            intrinsics = _intrinsics(opened.result, clip.track.shot.video)
        except ResultError as error:
            return NoFit(reason=error.reason, detail=str(error)[:2000])
        frame_positions = (clip.start_s + np.arange(len(clip.keypoints)) / FPS) * fps
        coverage = [_coverage(subject.frames, frame_positions, fps) for subject in opened.placed]
        if not coverage or max(coverage) < 1:
            return NoFit(
                reason="frames_not_covered",
                detail=f"{opened.result.file}: share of the clip's frames that its best subject has",
                measured=max(coverage, default=0.0),
                limit=1.0,
            )
        covered = [subject for subject, share in zip(opened.placed, coverage, strict=True) if share == 1]
        fits = [self._fit_subject(clip, opened, subject, frame_positions, intrinsics) for subject in covered]
        visible = clean_keypoints(clip.keypoints)[..., 2] >= MIN_CONFIDENCE
        distances = [float(np.median(fit.reprojection[visible])) if fit and visible.any() else np.inf for fit in fits]
        best = int(np.argmin(distances))
        fit = fits[best]
        if fit is None or distances[best] > MAX_DISTANCE:
            return NoFit(
                reason="no_matching_subject",
                detail=f"{opened.result.file}: nearest is {covered[best].name} of {len(opened.placed)}; box heights",
                measured=min(distances[best], 1e6),
                limit=MAX_DISTANCE,
            )
        return fit

    def _open(self, video: Video) -> _OpenResult:
        """The result of a video, read once. Raises its ResultError for each clip."""
        if video.id not in self._opened:
            while len(self._opened) >= _MAX_CACHED_VIDEOS:
                self._opened.pop(next(iter(self._opened)))
            try:
                self._opened[video.id] = self._read(video)
            except ResultError as error:
                self._opened[video.id] = error
        opened = self._opened[video.id]
        if isinstance(opened, ResultError):
            raise opened
        return opened

    def _read(self, video: Video) -> _OpenResult:
        result = read_result(find_result(self.results, names_of(video)))
        genders = {self._body_gender, result.gender} - {"unknown"}
        native = self.body.id.startswith("smpl-") and result.body in ("smpl", "smplh") and len(genders) < 2
        if not native and not self.retarget:
            model = {"smpl": "SMPL", "smplh": "SMPL-H", "smplx": "SMPL-X"}[result.body]
            licensed = (
                "" if result.body == "smplx" else f"set fit_smpl.body_model to that {result.gender} SMPL file, or "
            )
            raise ResultError(
                "other_body_model",
                f"{result.file}: its parameters are for {model} ({result.gender}), the dataset's body is {self.body.id};"
                f" {licensed}set fit_smpl.retarget to true, which transfers the rotations without the shape",
            )
        rest = rest_of_body(self.body) if native else rest_of_mean(result.body)
        return _OpenResult(result=result, placed=place_subjects(result, rest), native=native)

    def _fit_subject(
        self,
        clip: Clip,
        opened: _OpenResult,
        subject: PlacedSubject,
        frame_positions: Float[np.ndarray, "T"],
        intrinsics: Float[np.ndarray, "4"],
    ) -> Fit | None:
        """A subject on the clip's timeline; None where its camera cannot be estimated."""
        source_frames, target_frames = torch.from_numpy(subject.frames).double(), torch.from_numpy(frame_positions)
        rotations = slerp_resample(subject.rotations, source_frames, target_frames)
        pelvis = _interpolate(subject.pelvis, subject.frames, frame_positions)
        betas, scale = subject.betas, 1.0
        if not opened.native:
            betas = torch.zeros(NUM_SHAPES)
            rotations, pelvis, scale = to_other_body(rotations, pelvis, opened.result.body, self.body)
        if subject.to_camera is None or subject.camera_position is None:
            points = self._keypoints(rotations, pelvis, betas).double().numpy()
            keypoints = clean_keypoints(clip.keypoints)
            visible = keypoints[..., 2] >= MIN_CONFIDENCE
            camera = find_camera(
                points, keypoints[..., :2], visible, box_heights_px(clip.boxes), intrinsics.astype(np.float64)
            )
            if camera is None:
                return None
            to_camera, camera_position = (
                torch.from_numpy(value.copy()).float() for value in (camera.rotation, camera.position)
            )
        else:
            to_camera = slerp_resample(subject.to_camera[:, None], source_frames, target_frames)[:, 0]
            camera_position = _interpolate(subject.camera_position, subject.frames, frame_positions) * scale
        to_level, origin = level_world(to_camera, camera_position)
        rotations = rotations.clone()
        rotations[:, 0] = to_level @ rotations[:, 0]
        pelvis = (pelvis - origin) @ to_level.T
        camera = Camera(
            rotation=(to_camera @ to_level.T).numpy(),
            position=((camera_position - origin) @ to_level.T).numpy(),
            intrinsics=intrinsics.astype(np.float32),
        )
        points = self._keypoints(rotations, pelvis, betas).numpy()
        result = opened.result
        return Fit(
            rotations=rotations,
            trans=pelvis - self.body.rest_joints(betas)[joint("pelvis")],
            betas=betas,
            camera=camera,
            reprojection=reprojection_error(points, camera, clip),
            source=f"{result.layout} {result.digest}{'' if opened.native else ' retargeted'}",
        )

    def _keypoints(
        self, rotations: Float[Tensor, "T 24 3 3"], pelvis: Float[Tensor, "T 3"], betas: Float[Tensor, "10"]
    ) -> Float[Tensor, "T 17 3"]:
        rest = self.body.rest_joints(betas)
        joints, global_rotations = forward_kinematics(rotations, rest, pelvis - rest[joint("pelvis")])
        return self._keypoint_rig.points(global_rotations, joints, betas)


def frame_rate(track: Track) -> float:
    """Decoded frames a second, from the track's timestamps: in containers that store whole milliseconds, the median step, and
    with it `Video.fps`, is wrong by up to one percent."""
    fps = track.shot.video.fps
    steps = np.round(np.diff(track.times_s) * fps)
    seconds = float(track.times_s[-1] - track.times_s[0])
    if seconds < 1 or (steps < 1).any():
        return fps
    rate = float(steps.sum()) / seconds
    return rate if abs(rate / fps - 1) < 0.03 else fps


def _gender_in(name: str) -> str:
    words = [("female", "female"), ("neutral", "neutral"), ("male", "male"), ("_f_", "female"), ("_m_", "male")]
    return next((gender for word, gender in words if re.search(word, name.lower())), "unknown")


def _check_length(result: Result, video: Video, fps: float) -> None:
    """Rejects frame counts that are not the video's: the result of another video, or of a copy at another rate."""
    frames = video.duration_s * fps
    tolerance = max(3.0, 0.02 * frames)
    last = max((int(subject.frames[-1]) + 1 for subject in result.subjects), default=0)
    count = result.frame_count or last
    if count > frames + tolerance or (result.frame_count and count < frames - tolerance):
        raise ResultError(
            "wrong_frame_count",
            f"{result.file}: it has {count} frames, the video has {frames:.0f} ({video.duration_s:.2f} s at {fps:.2f} a"
            " second); run the estimator on the video itself, not on a copy that was cut or converted to another rate",
        )


def _intrinsics(result: Result, video: Video) -> Float[np.ndarray, "4"]:
    """fx, fy, cx, cy for the video's frames; those of a smaller copy are scaled."""
    intrinsics = result.intrinsics
    left, top, right, bottom = video.picture.borders if video.picture else (0, 0, 0, 0)
    width, height = video.width + left + right, video.height + top + bottom  # estimators see the black borders too
    if intrinsics is None and result.layout == "amass":
        return intrinsics_of(video)
    if intrinsics is None:
        intrinsics, scale = guess_intrinsics(width, height), 1.0
    else:
        scale, scale_y = width / (2 * intrinsics[2]), height / (2 * intrinsics[3])
        if not 0.98 < scale / scale_y < 1.02:
            raise ResultError(
                "other_picture",
                f"{result.file}: made from frames of {2 * intrinsics[2]:.0f}x{2 * intrinsics[3]:.0f}, the video has"
                f" {width}x{height}; run the estimator on the video itself, neither rotated nor cropped",
            )
    return (intrinsics * scale - np.array([0, 0, left, top])).astype(np.float32)


def _coverage(frames: np.ndarray, frame_positions: Float[np.ndarray, "T"], fps: float) -> float:
    """Share of the requested frames that are between a subject's own."""
    right = np.searchsorted(frames, frame_positions).clip(1, max(len(frames) - 1, 1))
    in_short_gap = frames[np.minimum(right, len(frames) - 1)] - frames[right - 1] <= max(MAX_GAP_S * fps, 1)
    outside = np.maximum(frames[0] - frame_positions, frame_positions - frames[-1])
    return float(np.where(outside > 0, outside <= max(MAX_OUTSIDE_S * fps, 1.0), in_short_gap).mean())


def _interpolate(
    values: Float[Tensor, "N 3"], frames: np.ndarray, frame_positions: Float[np.ndarray, "T"]
) -> Float[Tensor, "T 3"]:
    columns = [np.interp(frame_positions, frames, column) for column in values.double().numpy().T]
    return torch.from_numpy(np.stack(columns, -1)).float()
