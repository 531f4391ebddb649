"""Recovered bodies in videos of calibrated cameras: real people whose joints are known, or triangulated from the keypoints that the
chain itself detects in all views, whose videos then begin at the same time.

Each view is recovered by itself, from the video alone; the body's own COCO keypoints are compared with the joints.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float

from pipeline.benchmarks.calibrations import triangulate
from pipeline.benchmarks.view_folders import TrueJoints, View, read_views
from schemas.body_model import BodyModel
from schemas.errors import UsageError
from schemas.kinematics import forward_kinematics
from schemas.records import FPS, CaptionedMotion, Clip, Footage, Motion, Source
from schemas.rotations import axis_angle_to_matrix
from schemas.skeleton import COCO_KEYPOINTS, keypoint
from stages.base import Stage, apply
from stages.cut_clips import CutClips
from stages.fit_smpl import FitSmpl
from stages.read_videos import ReadVideos
from stages.score_motion import ScoreMotion
from stages.split_shots import SplitShots
from stages.track_people import TrackPeople
from stages.training.lifter.metrics import pa_mpjpe, world_mpjpe
from stages.write_captions import WriteCaptions

DEFINITIONS = {
    "keypoints": "% of the person's box; median distance of detected keypoints from the joints",
    "keypoints_off": "% of them more than 5% of the box away",
    "mpjpe": "mm; joints relative to the middle of the hips, in camera axes",
    "pa_mpjpe": "mm; joints after the similarity that fits each frame best",
    "wrists": "mm; as mpjpe, of both wrists",
    "gravity": "degrees between the recovered vertical and the camera's own",
    "w_mpjpe100": "mm; joints in the world, segments of 100 frames aligned rigidly by their first two frames",
    "wa_mpjpe100": "mm; the same, aligned by all their frames",
    "planted": "mm per frame that true ankles move while their foot is recovered in contact with the ground",
}
"""Metric -> unit and meaning."""
_MIN_S = 1.0
"""Least length of shots, tracks and clips, seconds."""
_SAME_PERSON = 0.5
"""Largest mean distance from the true joints of the person who is meant, sides of their box."""
_MIN_CONFIDENCE = 0.5
"""Lowest confidence of a keypoint from which joints are triangulated."""
_MIN_FRAMES = 3
"""Fewest frames with a whole truth that are measured."""
_LIMBS = tuple(index for index, name in enumerate(COCO_KEYPOINTS) if name.split("_")[-1] not in ("nose", "eye", "ear"))
"""Keypoints that are triangulated: shoulders, elbows, wrists, hips, knees, ankles."""


def bench(folder: str | Path, *, focal_known: bool = False) -> dict[str, Any]:
    """Errors of every view, and what they say: `truth` where the joints come from, `views` name -> metrics and captions, `agreed`
    movements that all views tell, `disputed` those that only some do, `contacts_agree` the share of frames.

    `focal_known`: focal lengths are given, as a phone's metadata does.
    """
    found = read_views(folder)
    body = BodyModel.load()
    stages = _stages()
    truth, source = dict(found.truth), "given"
    recovered = {
        view.name: _recover(view, stages, truth.get(view.name), focal_known=focal_known) for view in found.views
    }
    clips = {name: _footage(captioned).clip for name, captioned in recovered.items() if captioned}
    if not truth and len(clips) > 1:
        truth, error_px = _triangulated([view for view in found.views if view.name in clips], clips)
        models = ", ".join(sorted({clip.track.models["detector"] for clip in clips.values()}))
        source = (
            f"triangulated from the keypoints of {len(clips)} views ({models}), which lie {error_px:.1f} px from it"
        )
    rows: dict[str, dict[str, Any]] = {}
    told: list[set[str]] = []
    for view in found.views:
        captioned = recovered[view.name]
        if captioned is None:
            rows[view.name] = {"found": False}
            continue
        events = {f"{event.part}:{event.kind}" for event in captioned.captions.events}
        told.append(events)
        rows[view.name] = {
            "found": True,
            **(_errors(captioned.scored.motion, view, truth[view.name], body) if view.name in truth else {}),
            "body": list(captioned.captions.body),
            "events": sorted(events),
        }
    agreed = set.intersection(*told) if told else set()
    return {
        "truth": source,
        "views": rows,
        "agreed": sorted(agreed),
        "disputed": sorted(set().union(*told) - agreed),
        "contacts_agree": _contacts_agree([captioned for captioned in recovered.values() if captioned]),
    }


def bench_text(report: dict[str, Any]) -> str:
    """The results for a terminal."""
    lines = [f"truth: {report['truth']}"]
    lines.append("view            2D %  >5% %  MPJPE     PA  wrists  gravity   W100  WA100  planted")
    for name, row in report["views"].items():
        if not row["found"]:
            lines.append(f"{name:14s} nobody was recovered")
        elif "mpjpe" not in row:
            lines.append(f"{name:14s} no truth  {row['body'][-1]}")
        else:
            pixels = f"{row['keypoints']:6.2f} {row['keypoints_off']:6.1f}"
            joints = f"{row['mpjpe']:6.0f} {row['pa_mpjpe']:6.0f} {row['wrists']:7.0f} {row['gravity']:8.1f}"
            world = f"{row['w_mpjpe100']:6.0f} {row['wa_mpjpe100']:6.0f} {row['planted']:8.1f}"
            lines.append(f"{name:14s}{pixels} {joints} {world}  {row['body'][-1]}")
    lines.append(f"all views say: {', '.join(report['agreed']) or 'nothing'}")
    lines.append(f"only some say: {', '.join(report['disputed']) or 'nothing'}")
    if (share := report["contacts_agree"]) is not None:
        lines.append(f"contacts of heels and toes are the same in {share:.0%} of the frames")
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


def _recover(
    view: View, stages: Sequence[Stage[Any, Any]], truth: TrueJoints | None, *, focal_known: bool
) -> CaptionedMotion | None:
    """The clip that shows the person of the truth, or the largest person for longest, as captioned; None where nobody is."""
    focal_35mm = 0.0
    if focal_known:
        fx, _, cx, cy = view.intrinsics
        focal_35mm = float(fx / np.hypot(2 * cx, 2 * cy) * np.hypot(36.0, 24.0))
    records: list[Any] = [Source(id=view.name, uri=str(view.video), focal_35mm=focal_35mm)]
    for stage in stages:
        records, _ = apply(stage, records)
        if stage.yields is Clip and records and truth:
            records = [min(records, key=lambda clip: np.nanmean(_keypoint_errors(clip, truth)))]
            if np.nanmean(_keypoint_errors(records[0], truth)) > _SAME_PERSON:
                return None
        elif stage.yields is Clip and records:
            records = [max(records, key=lambda clip: float(np.sum(clip.boxes[:, 3] - clip.boxes[:, 1])))]
    return records[0] if records else None


def _footage(captioned: CaptionedMotion) -> Footage:
    footage = captioned.scored.motion.footage
    assert footage is not None
    return footage


def _triangulated(views: Sequence[View], clips: dict[str, Clip]) -> tuple[dict[str, TrueJoints], float]:
    """Limb joints at FPS for every view, from the keypoints of all, and their median distance from these, pixels."""
    frames = max(round(clip.start_s * FPS) + len(clip.keypoints) for clip in clips.values())
    seen = np.zeros((len(views), frames, len(_LIMBS), 3))
    for row, view in zip(seen, views, strict=True):
        clip = clips[view.name]
        first = round(clip.start_s * FPS)
        row[first : first + len(clip.keypoints)] = clip.keypoints[:, list(_LIMBS)]
    confidence = np.where(seen[..., 2] >= _MIN_CONFIDENCE, seen[..., 2], 0.0)
    cameras = [view.calibration for view in views if view.calibration]
    world = triangulate(cameras, seen[..., :2], confidence)
    truth = {
        view.name: TrueJoints(_LIMBS, camera.to_camera(world), camera.project(world), FPS)
        for view, camera in zip(views, cameras, strict=True)
    }
    distance = np.stack([truth[view.name].pixels for view in views]) - seen[..., :2]
    used = (confidence > 0) & np.isfinite(distance).all(-1)
    if not used.any():
        raise UsageError("no joint was seen by two cameras at the same time; are the videos synchronised?")
    return truth, float(np.median(np.linalg.norm(distance[used], axis=-1)))


def _keypoint_errors(clip: Clip, truth: TrueJoints) -> Float[np.ndarray, "T J"]:
    """Distances from the true joints, sides of the person's box."""
    frames = truth.frames(clip.start_s, len(clip.keypoints))
    distance = np.linalg.norm(clip.keypoints[:, list(truth.joints), :2] - truth.pixels[frames], axis=-1)
    return distance / (clip.boxes[:, 2:] - clip.boxes[:, :2]).max(1, keepdims=True)


def _errors(motion: Motion, view: View, truth: TrueJoints, body: BodyModel) -> dict[str, float]:
    assert motion.footage is not None
    rotations = axis_angle_to_matrix(torch.from_numpy(motion.poses).float())
    betas = torch.from_numpy(motion.betas)
    joints, global_rotations = forward_kinematics(rotations, body.rest_joints(betas), torch.from_numpy(motion.trans))
    points = body.keypoint_rig().points(global_rotations, joints, betas).numpy().astype(np.float64)
    camera = motion.footage.camera
    in_camera = np.einsum("tij,tkj->tki", camera.rotation, points - camera.position[:, None])
    target = truth.camera_m[truth.frames(motion.provenance.start_s, len(points))]
    known = np.isfinite(target).all((1, 2))
    if known.sum() < _MIN_FRAMES:
        return {}
    hips = [truth.joints.index(keypoint(name)) for name in ("left_hip", "right_hip")]
    wrists = [truth.joints.index(keypoint(name)) for name in ("left_wrist", "right_wrist")]
    predicted = in_camera[:, list(truth.joints)]
    difference = _about(predicted[known], hips) - _about(target[known], hips)
    distance_mm = 1000 * np.linalg.norm(difference, axis=-1)
    up = camera.rotation[:, :, 1].mean(0)
    cosine = float(up @ view.up_in_camera / np.linalg.norm(up) / np.linalg.norm(view.up_in_camera))
    keypoint_errors = _keypoint_errors(motion.footage.clip, truth)
    # A still camera's axes are a world too, up to the rigid alignment of these metrics.
    world = points[:, list(truth.joints)][known], target[known]
    values = {
        "keypoints": 100 * float(np.nanmedian(keypoint_errors)),
        "keypoints_off": 100 * float((keypoint_errors[np.isfinite(keypoint_errors)] > 0.05).mean()),
        "mpjpe": float(distance_mm.mean()),
        "pa_mpjpe": float(pa_mpjpe(predicted[known], target[known]).mean()),
        "wrists": float(distance_mm[:, wrists].mean()),
        "gravity": float(np.degrees(np.arccos(np.clip(cosine, -1, 1)))),
        "w_mpjpe100": float(np.mean(world_mpjpe(*world, first=2))),
        "wa_mpjpe100": float(np.mean(world_mpjpe(*world, first=None))),
        "planted": _ankle_speed(target, motion.contacts.astype(bool), truth.joints),
    }
    return {name: round(value, 2) for name, value in values.items()}


def _ankle_speed(target: Float[np.ndarray, "T J 3"], contacts: Bool[np.ndarray, "T 4"], joints: Sequence[int]) -> float:
    """Millimetres per frame that true ankles move while heel or toe is in contact before and after; NaN without any contact."""
    moved: list[np.ndarray] = []
    for side, name in enumerate(("left_ankle", "right_ankle")):
        step_mm = 1000 * np.linalg.norm(np.diff(target[:, joints.index(keypoint(name))], axis=0), axis=-1)
        stands = contacts[:, 2 * side : 2 * side + 2]
        planted = (stands[1:] & stands[:-1]).any(1) & np.isfinite(step_mm)
        moved.append(step_mm[planted])
    steps = np.concatenate(moved)
    return float(steps.mean()) if len(steps) else float("nan")


def _contacts_agree(recovered: Sequence[CaptionedMotion]) -> float | None:
    """Share of frames and points in which all views tell the same contacts; None for less than two views."""
    if len(recovered) < 2:
        return None
    motions = [captioned.scored.motion for captioned in recovered]
    firsts = [round(motion.provenance.start_s * FPS) for motion in motions]
    begin = max(firsts)
    end = min(first + len(motion.contacts) for first, motion in zip(firsts, motions, strict=True))
    if end <= begin:
        return None
    told = np.stack(
        [motion.contacts[begin - first : end - first] for first, motion in zip(firsts, motions, strict=True)]
    )
    return round(float((told == told[0]).all(0).mean()), 3)


def _about(points: Float[np.ndarray, "T J 3"], hips: Sequence[int]) -> Float[np.ndarray, "T J 3"]:
    return points - points[:, hips].mean(1, keepdims=True)
