"""Recovered bodies in videos of calibrated cameras, against triangulated joints: real people whose truth is known.

A folder holds `views.json` and the videos that it names:

    {"fps": 60, "truth": "truth.npz", "cameras": [
        {"name": "cam02", "video": "cam02.mp4", "intrinsics": [fx, fy, cx, cy], "up_in_camera": [x, y, z]}, ...]}

The truth has `joints` (names of COCO keypoints) and, for each camera, `NAME_camera_m` (T, J, 3), metres in camera axes (x right, y
down, z forward), and `NAME_pixels` (T, J, 2), at `fps` from the first frame on. Each view is recovered by itself, from the video
alone; the body's own COCO keypoints are compared with the joints.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float

from schemas.body_model import BodyModel
from schemas.errors import UsageError
from schemas.kinematics import forward_kinematics
from schemas.records import FPS, CaptionedMotion, Clip, Motion, Source
from schemas.rotations import axis_angle_to_matrix
from schemas.skeleton import keypoint
from stages.base import Stage, apply
from stages.cut_clips import CutClips
from stages.fit_smpl import FitSmpl
from stages.read_videos import ReadVideos
from stages.score_motion import ScoreMotion
from stages.split_shots import SplitShots
from stages.track_people import TrackPeople
from stages.training.lifter.metrics import pa_mpjpe
from stages.write_captions import WriteCaptions

DEFINITIONS = {
    "keypoints": "% of the person's box; median distance of detected keypoints from the joints",
    "keypoints_off": "% of them more than 5% of the box away",
    "mpjpe": "mm; joints relative to the middle of the hips, in camera axes",
    "pa_mpjpe": "mm; joints after the similarity that fits each frame best",
    "wrists": "mm; as mpjpe, of both wrists",
    "gravity": "degrees between the recovered vertical and the camera's own",
}
"""Metric -> unit and meaning."""
_MIN_S = 1.0
"""Least length of shots, tracks and clips, seconds."""
_FILE = "views.json"


@dataclass(frozen=True)
class View:
    """One calibrated camera and its video."""

    name: str
    video: Path
    intrinsics: tuple[float, float, float, float]
    up_in_camera: Float[np.ndarray, "3"]
    joints: tuple[int, ...]
    """COCO keypoints of the true joints."""
    camera_m: Float[np.ndarray, "T J 3"]
    pixels: Float[np.ndarray, "T J 2"]
    fps: float


def read_views(folder: str | Path) -> list[View]:
    """The views of a folder. Raises UsageError where a file or an entry is missing or does not fit."""
    folder = Path(folder)
    path = folder / _FILE
    try:
        described = json.loads(path.read_text())
        with np.load(folder / described["truth"]) as truth:
            joints = tuple(keypoint(str(name)) for name in truth["joints"])
            views = [
                View(
                    name=camera["name"],
                    video=folder / camera["video"],
                    intrinsics=tuple(float(value) for value in camera["intrinsics"]),
                    up_in_camera=np.array(camera["up_in_camera"], np.float64),
                    joints=joints,
                    camera_m=truth[f"{camera['name']}_camera_m"].astype(np.float64),
                    pixels=truth[f"{camera['name']}_pixels"].astype(np.float64),
                    fps=float(described["fps"]),
                )
                for camera in described["cameras"]
            ]
    except (OSError, ValueError, KeyError, TypeError) as error:
        reason = f"{type(error).__name__}: {error}"
        raise UsageError(f"{path}: {reason}; `humo bench recovery --help` names what the file holds") from error
    for view in views:
        shape = (len(view.pixels), len(joints))
        if len(view.intrinsics) != 4 or view.up_in_camera.shape != (3,) or view.camera_m.shape != (*shape, 3):
            raise UsageError(
                f"{path}: {view.name}: intrinsics are fx, fy, cx, cy, up_in_camera has three numbers, and the truth has as many "
                f"frames and joints in camera axes as in pixels"
            )
    return views


def bench(folder: str | Path, *, focal_known: bool = False) -> dict[str, Any]:
    """Errors of every view, and what both say: `views` name -> metrics and captions, `events` told by all views, by some only.

    `focal_known`: focal lengths are given, as a phone's metadata does.
    """
    views = read_views(folder)
    body = BodyModel.load()
    stages = _stages()
    rows: dict[str, dict[str, Any]] = {}
    told: list[set[str]] = []
    for view in views:
        captioned = _recover(view, stages, focal_known=focal_known)
        if captioned is None:
            rows[view.name] = {"found": False}
            continue
        events = {f"{event.part}:{event.kind}" for event in captioned.captions.events}
        told.append(events)
        rows[view.name] = {
            "found": True,
            **_errors(captioned.scored.motion, view, body),
            "body": list(captioned.captions.body),
            "events": sorted(events),
        }
    agreed = set.intersection(*told) if told else set()
    return {"views": rows, "agreed": sorted(agreed), "disputed": sorted(set().union(*told) - agreed)}


def bench_text(report: dict[str, Any]) -> str:
    """The results for a terminal."""
    lines = ["view            2D %  >5% %  MPJPE     PA  wrists  gravity"]
    for name, row in report["views"].items():
        if not row["found"]:
            lines.append(f"{name:14s} nobody was recovered")
            continue
        numbers = f"{row['keypoints']:6.2f} {row['keypoints_off']:6.1f} {row['mpjpe']:6.0f} {row['pa_mpjpe']:6.0f}"
        lines.append(f"{name:14s}{numbers} {row['wrists']:7.0f} {row['gravity']:8.1f}  {row['body'][-1]}")
    lines.append(f"all views say: {', '.join(report['agreed']) or 'nothing'}")
    lines.append(f"only some say: {', '.join(report['disputed']) or 'nothing'}")
    return "\n".join(lines)


def _stages() -> list[Stage[Any, Any]]:
    stages: list[Stage[Any, Any]] = [
        ReadVideos(ReadVideos.Config(min_s=_MIN_S)), SplitShots(SplitShots.Config(min_s=_MIN_S)),
        TrackPeople(TrackPeople.Config(min_s=_MIN_S)), CutClips(CutClips.Config(min_s=_MIN_S)), FitSmpl(),
        ScoreMotion(ScoreMotion.Config()), WriteCaptions(),
    ]  # fmt: skip
    for stage in stages:
        stage.setup()
    return stages


def _recover(view: View, stages: Sequence[Stage[Any, Any]], *, focal_known: bool) -> CaptionedMotion | None:
    """The clip that shows the person of the truth, as captioned; None where none does or none was recovered."""
    focal_35mm = 0.0
    if focal_known:
        fx, _, cx, cy = view.intrinsics
        focal_35mm = float(fx / np.hypot(2 * cx, 2 * cy) * np.hypot(36.0, 24.0))
    records: list[Any] = [Source(id=view.name, uri=str(view.video), focal_35mm=focal_35mm)]
    for stage in stages:
        records, _ = apply(stage, records)
        if stage.yields is Clip and records:
            records = [min(records, key=lambda clip: _keypoint_errors(clip, view).mean())]
            if _keypoint_errors(records[0], view).mean() > 0.5:
                return None
    return records[0] if records else None


def _frames(start_s: float, count: int, view: View) -> np.ndarray:
    times_s = start_s + np.arange(count) / FPS
    return (times_s * view.fps).round().astype(int).clip(0, len(view.pixels) - 1)


def _keypoint_errors(clip: Clip, view: View) -> Float[np.ndarray, "T J"]:
    """Distances from the true joints, sides of the person's box."""
    frames = _frames(clip.start_s, len(clip.keypoints), view)
    distance = np.linalg.norm(clip.keypoints[:, list(view.joints), :2] - view.pixels[frames], axis=-1)
    return distance / (clip.boxes[:, 2:] - clip.boxes[:, :2]).max(1, keepdims=True)


def _errors(motion: Motion, view: View, body: BodyModel) -> dict[str, float]:
    assert motion.footage is not None
    rotations = axis_angle_to_matrix(torch.from_numpy(motion.poses).float())
    betas = torch.from_numpy(motion.betas)
    joints, global_rotations = forward_kinematics(rotations, body.rest_joints(betas), torch.from_numpy(motion.trans))
    points = body.keypoint_rig().points(global_rotations, joints, betas).numpy().astype(np.float64)
    camera = motion.footage.camera
    in_camera = np.einsum("tij,tkj->tki", camera.rotation, points - camera.position[:, None])
    target = view.camera_m[_frames(motion.provenance.start_s, len(points), view)]
    predicted = in_camera[:, list(view.joints)]
    hips = [view.joints.index(keypoint(name)) for name in ("left_hip", "right_hip")]
    wrists = [view.joints.index(keypoint(name)) for name in ("left_wrist", "right_wrist")]
    difference = _about(predicted, hips) - _about(target, hips)
    distance_mm = 1000 * np.linalg.norm(difference, axis=-1)
    up = camera.rotation[:, :, 1].mean(0)
    cosine = float(up @ view.up_in_camera / np.linalg.norm(up) / np.linalg.norm(view.up_in_camera))
    keypoint_errors = _keypoint_errors(motion.footage.clip, view)
    values = {
        "keypoints": 100 * float(np.median(keypoint_errors)),
        "keypoints_off": 100 * float((keypoint_errors > 0.05).mean()),
        "mpjpe": float(distance_mm.mean()),
        "pa_mpjpe": float(pa_mpjpe(predicted, target).mean()),
        "wrists": float(distance_mm[:, wrists].mean()),
        "gravity": float(np.degrees(np.arccos(np.clip(cosine, -1, 1)))),
    }
    return {name: round(value, 2) for name, value in values.items()}


def _about(points: Float[np.ndarray, "T J 3"], hips: Sequence[int]) -> Float[np.ndarray, "T J 3"]:
    return points - points[:, hips].mean(1, keepdims=True)
