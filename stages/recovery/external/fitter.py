"""Results of other estimators as fits: which result is a video's, which subject a track's, and onto the clip's timeline."""

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
from stages.geometry.cameras import guess_intrinsics, heights_px, intrinsics_of, reprojection_error
from stages.geometry.keypoints import clean_keypoints
from stages.recovery.external.files import find_result, names_of, read_result
from stages.recovery.external.parsers import Result
from stages.recovery.external.reading import ResultError
from stages.recovery.external.resection import find_camera
from stages.recovery.external.retarget import to_other_body
from stages.recovery.external.worlds import Placed, level_world, place, rest_of_body, rest_of_mean
from stages.recovery.protocol import Fit, NoFit

MAX_GAP_S = 0.35
"""Longest gap between two frames of a subject that is bridged, as in `cut_clips`."""
MAX_OUTSIDE_S = 0.1
"""How far a clip may reach beyond a subject's first or last frame, which is then held."""
MAX_DISTANCE = 0.25
"""Median distance of a subject's projected keypoints from the track's, in box heights, from which on it is somebody else."""
SEEN = 0.3
"""From this confidence on a keypoint counts."""
_KEPT = 2
"""Videos whose results stay in memory: clips come video by video."""


@dataclass(frozen=True, kw_only=True, eq=False)
class _Opened:
    result: Result
    placed: list[Placed]
    native: bool
    """Whether the result's body is the dataset's, so that its betas count."""


class ImportFitter:
    """Takes WHAM's, GVHMR's, GEM's, TRAM's or AMASS-like results as fits (see `stages.recovery.external.parsers`).

    A clip whose video has no result, or whose person is not in it, has no fit, with the reason; so have all clips of a
    video whose result cannot be read.
    """

    version = "imported 1"

    def __init__(self, body: BodyModel, *, results: str, body_file: str = "", retarget: bool = False) -> None:
        """`results`: a folder with a sub-folder or file a video, named by the video's source id or file name.
        `body_file`: where `body` comes from, whose name may tell its gender. `retarget`: take results for other body
        models over onto `body`. Raises HumoError where there is no such folder."""
        if not results:
            raise HumoError(
                "fit_smpl: fitter is 'imported' and results is empty; name the folder with the estimator's results"
            )
        fs, root = fsspec.core.url_to_fs(results)
        if not fs.isdir(root):
            raise HumoError(f"{results}: fit_smpl.results is no folder; name the one with a result for each video")
        self.body, self.results, self.retarget = body, results, retarget
        self._body_gender = _gender_in(Path(body_file).stem)
        self._keypoint_rig = body.keypoint_rig()
        self._opened: dict[str, _Opened | ResultError] = {}

    def fit(self, clips: Sequence[Clip]) -> list[Fit | NoFit]:
        """One fit a clip, or why there is none, in order."""
        return [self._fit_one(clip) for clip in clips]

    def _fit_one(self, clip: Clip) -> Fit | NoFit:
        try:
            opened = self._open(clip.track.shot.video)
            rate = opened.result.fps or frame_rate(clip.track)
            _check_length(opened.result, clip.track.shot.video, rate)
            intrinsics = _intrinsics(opened.result, clip.track.shot.video)
        except ResultError as error:
            return NoFit(reason=error.reason, detail=str(error)[:2000])
        wanted = (clip.start_s + np.arange(len(clip.keypoints)) / FPS) * rate
        covered = [_covered(each.frames, wanted, rate) for each in opened.placed]
        if not covered or max(covered) < 1:
            return NoFit(
                reason="frames_not_covered",
                detail=f"{opened.result.file}: share of the clip's frames that its best subject has",
                measured=max(covered, default=0.0),
                limit=1.0,
            )
        present = [each for each, share in zip(opened.placed, covered, strict=True) if share == 1]
        found = [self._fit_subject(clip, opened, each, wanted, intrinsics) for each in present]
        seen = clean_keypoints(clip.keypoints)[..., 2] >= SEEN
        distances = [float(np.median(fit.reprojection[seen])) if fit and seen.any() else np.inf for fit in found]
        best = int(np.argmin(distances))
        fit = found[best]
        if fit is None or distances[best] > MAX_DISTANCE:
            return NoFit(
                reason="no_matching_subject",
                detail=f"{opened.result.file}: nearest is {present[best].name} of {len(opened.placed)}; box heights",
                measured=min(distances[best], 1e6),
                limit=MAX_DISTANCE,
            )
        return fit

    def _open(self, video: Video) -> _Opened:
        """The result of a video, read once. Raises ResultError, again for each clip."""
        if video.id not in self._opened:
            while len(self._opened) >= _KEPT:
                self._opened.pop(next(iter(self._opened)))
            try:
                self._opened[video.id] = self._read(video)
            except ResultError as error:
                self._opened[video.id] = error
        opened = self._opened[video.id]
        if isinstance(opened, ResultError):
            raise opened
        return opened

    def _read(self, video: Video) -> _Opened:
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
                f"{result.file}: its numbers are for {model} ({result.gender}), the dataset's body is {self.body.id};"
                f" {licensed}set fit_smpl.retarget to true, which takes the rotations over and leaves the shape",
            )
        rest = rest_of_body(self.body) if native else rest_of_mean(result.body)
        return _Opened(result=result, placed=place(result, rest), native=native)

    def _fit_subject(
        self,
        clip: Clip,
        opened: _Opened,
        subject: Placed,
        wanted: Float[np.ndarray, "T"],
        intrinsics: Float[np.ndarray, "4"],
    ) -> Fit | None:
        """A subject on the clip's timeline; None where no camera can be found for it."""
        frames, times = torch.from_numpy(subject.frames).double(), torch.from_numpy(wanted)
        rotations = slerp_resample(subject.rotations, frames, times)
        pelvis = _interpolated(subject.pelvis, subject.frames, wanted)
        betas, grown = subject.betas, 1.0
        if not opened.native:
            betas = torch.zeros(NUM_SHAPES)
            rotations, pelvis, grown = to_other_body(rotations, pelvis, opened.result.body, self.body)
        if subject.to_camera is None or subject.camera_place is None:
            points = self._keypoints(rotations, pelvis, betas).double().numpy()
            keypoints = clean_keypoints(clip.keypoints)
            seen = keypoints[..., 2] >= SEEN
            camera = find_camera(
                points, keypoints[..., :2], seen, heights_px(clip.boxes), intrinsics.astype(np.float64)
            )
            if camera is None:
                return None
            to_camera, camera_place = (
                torch.from_numpy(value.copy()).float() for value in (camera.rotation, camera.position)
            )
        else:
            to_camera = slerp_resample(subject.to_camera[:, None], frames, times)[:, 0]
            camera_place = _interpolated(subject.camera_place, subject.frames, wanted) * grown
        turn, origin = level_world(to_camera, camera_place)
        rotations = rotations.clone()
        rotations[:, 0] = turn @ rotations[:, 0]
        pelvis = (pelvis - origin) @ turn.T
        camera = Camera(
            rotation=(to_camera @ turn.T).numpy(),
            position=((camera_place - origin) @ turn.T).numpy(),
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
        joints, turns = forward_kinematics(rotations, rest, pelvis - rest[joint("pelvis")])
        return self._keypoint_rig.points(turns, joints, betas)


def frame_rate(track: Track) -> float:
    """Decoded frames a second, from the times at which the tracker saw them: containers that keep whole milliseconds make
    the median step, and with it `Video.fps`, wrong by as much as one percent."""
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


def _check_length(result: Result, video: Video, rate: float) -> None:
    """Refuses numbers of frames that are not the video's: another video's result, or one of a copy at another rate."""
    frames = video.duration_s * rate
    slack = max(3.0, 0.02 * frames)
    last = max((int(subject.frames[-1]) + 1 for subject in result.subjects), default=0)
    told = result.frame_count or last
    if told > frames + slack or (result.frame_count and told < frames - slack):
        raise ResultError(
            "wrong_frame_count",
            f"{result.file}: it counts {told} frames, the video has {frames:.0f} ({video.duration_s:.2f} s at {rate:.2f} a"
            " second); run the estimator on the video itself, not on a copy that was cut or brought to another rate",
        )


def _intrinsics(result: Result, video: Video) -> Float[np.ndarray, "4"]:
    """fx, fy, cx, cy for the video's picture; a result of a smaller copy is scaled."""
    told = result.intrinsics
    if told is None:
        return intrinsics_of(video) if result.layout == "amass" else guess_intrinsics(video.width, video.height)
    across, down = video.width / (2 * told[2]), video.height / (2 * told[3])
    if not 0.98 < across / down < 1.02:
        raise ResultError(
            "other_picture",
            f"{result.file}: made from a picture of {2 * told[2]:.0f}x{2 * told[3]:.0f}, the video has"
            f" {video.width}x{video.height}; run the estimator on the video itself, neither turned nor cropped",
        )
    return (told * across).astype(np.float32)


def _covered(frames: np.ndarray, wanted: Float[np.ndarray, "T"], rate: float) -> float:
    """Share of the wanted frames that lie between a subject's own."""
    right = np.searchsorted(frames, wanted).clip(1, max(len(frames) - 1, 1))
    near = frames[np.minimum(right, len(frames) - 1)] - frames[right - 1] <= max(MAX_GAP_S * rate, 1)
    beyond = np.maximum(frames[0] - wanted, wanted - frames[-1])
    return float(np.where(beyond > 0, beyond <= max(MAX_OUTSIDE_S * rate, 1.0), near).mean())


def _interpolated(
    values: Float[Tensor, "N 3"], frames: np.ndarray, wanted: Float[np.ndarray, "T"]
) -> Float[Tensor, "T 3"]:
    columns = [np.interp(wanted, frames, column) for column in values.double().numpy().T]
    return torch.from_numpy(np.stack(columns, -1)).float()
