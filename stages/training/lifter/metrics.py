"""Errors of a recovered motion against its target: per frame, over the ground, and by body part.

Joints are all 24 of SMPL, relative positions are from the pelvis joint, and means are over frames. Definitions follow the
evaluation code of WHAM (Shin et al. 2024, lib/eval), which took the world ones from SLAHMR (Ye et al. 2023). Differences:
W and WA align rigidly, while WHAM also fits a scale and so forgives a wrong distance or size; WHAM takes the midpoint of the
hips for the pelvis; and a last segment of under 50 frames is left out here.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from schemas.body_model import BodyModel
from schemas.kinematics import forward_kinematics
from schemas.records import FPS
from schemas.skeleton import joint

SEGMENT_FRAMES = 100
MIN_PATH_M = 2.0
"""Shortest path of a motion that counts for the errors in percent of the path."""
STATIONARY_M = 0.01
"""A point is stationary if its target moves less than this between frames (WHAM's limit)."""
_VERTEX_STRIDE = 5
"""Vertices are compared in every fifth frame."""
_WRISTS = [joint("left_wrist"), joint("right_wrist")]

DEFINITIONS = {
    "pa_mpjpe": "mm; joints, after the similarity that fits each frame best",
    "mpjpe": "mm; joints relative to the pelvis, in camera axes",
    "pve": "mm; vertices relative to the pelvis, in camera axes, every 5th frame",
    "wrists": "mm; as mpjpe, of both wrists",
    "body": "mm; joints relative to the pelvis, in pelvis axes: the pose without the root orientation",
    "accel": "m/s^2; difference of the joints' second differences, relative to the pelvis, in camera axes",
    "tilt": "degrees between the up axes of the two pelvises",
    "root": "degrees between the two pelvis orientations, in camera axes",
    "w_mpjpe100": "mm in the world, segments of 100 frames aligned rigidly by their first two frames, no scale",
    "wa_mpjpe100": "mm in the world, segments of 100 frames aligned rigidly by all their frames, no scale",
    "root_m": "m; position of the pelvis in the camera frame, no alignment",
    "rte": "% of the path: pelvis after rigid alignment by the whole path, mean over frames; motions of 2 m or more",
    "drift": "% of the path: pelvis at the end, aligned by the first two frames; motions of 2 m or more",
    "speed": "m/s between the pelvis velocities, aligned by the first two frames",
    "slide": "mm per frame that heels and toes move while in predicted contact, before and after",
    "slide_true": "mm per frame that predicted heels and toes move where the true ones move less than 10 mm (WHAM's foot sliding)",
    "contact_f1": "F1 of the predicted contacts of heels and toes, 0 to 1, over all frames",
    "fps": "frames per second of processor time of fitting alone, one thread",
}
"""Metric -> unit and meaning."""


@dataclass(frozen=True)
class BodyMotion:
    """A body over T frames and its camera, in a world whose y axis is up. On the CPU."""

    rotations: Float[Tensor, "T 24 3 3"]
    """Local; the root's is its orientation in the world."""
    trans: Float[Tensor, "T 3"]
    betas: Float[Tensor, "10"]
    to_camera: Float[np.ndarray, "T 3 3"]
    """World to camera axes."""
    eye: Float[np.ndarray, "T 3"]
    """Position of the camera."""
    contacts: Bool[np.ndarray, "T 4"]
    """Ground contact of left heel, left toe, right heel, right toe."""


@dataclass(frozen=True)
class _Points:
    """Points of a body in its world, metres, double precision."""

    joints: Float[np.ndarray, "T 24 3"]
    feet: Float[np.ndarray, "T 4 3"]
    vertices: Float[np.ndarray, "S V 3"]
    root: Float[np.ndarray, "T 3 3"]


def similarity(
    source: Float[np.ndarray, "N K 3"], target: Float[np.ndarray, "N K 3"], *, scale: bool
) -> tuple[Float[np.ndarray, "N"], Float[np.ndarray, "N 3 3"], Float[np.ndarray, "N 3"]]:
    """Scale, rotation and translation that align source points with target points in least squares (Umeyama 1991)."""
    mean_s, mean_t = source.mean(1, keepdims=True), target.mean(1, keepdims=True)
    a, b = source - mean_s, target - mean_t
    u, s, vt = np.linalg.svd(np.einsum("nki,nkj->nij", b, a))
    sign = np.ones_like(s)
    sign[:, 2] = np.sign(np.linalg.det(u @ vt))
    rotation = (u * sign[:, None]) @ vt
    factor = (s * sign).sum(-1) / np.maximum((a**2).sum((1, 2)), 1e-12) if scale else np.ones(len(source))
    translation = mean_t[:, 0] - factor[:, None] * (rotation @ mean_s[:, 0, :, None])[..., 0]
    return factor, rotation, translation


def pa_mpjpe(predicted: Float[np.ndarray, "T J 3"], target: Float[np.ndarray, "T J 3"]) -> Float[np.ndarray, "T"]:
    """Millimetres per frame, after alignment by a similarity."""
    return _mean_norm_mm(_apply(predicted, *similarity(predicted, target, scale=True)) - target)


def acceleration_error(predicted: Float[np.ndarray, "T J 3"], target: Float[np.ndarray, "T J 3"]) -> float:
    """Mean of |x(t-1) - 2 x(t) + x(t+1)| FPS^2, where x is the difference of the two, m/s^2; 0 for fewer than three frames."""
    second = np.diff(predicted - target, n=2, axis=0)
    return float(np.linalg.norm(second, axis=-1).mean() * FPS**2) if len(second) else 0.0


def world_mpjpe(
    predicted: Float[np.ndarray, "T J 3"], target: Float[np.ndarray, "T J 3"], *, first: int | None
) -> float:
    """Millimetres, in segments of 100 frames that are aligned rigidly by their `first` frames (None: by all)."""
    errors = []
    for start in range(0, len(predicted), SEGMENT_FRAMES):
        a, b = predicted[start : start + SEGMENT_FRAMES], target[start : start + SEGMENT_FRAMES]
        if start and len(a) < SEGMENT_FRAMES // 2:
            continue
        aligned = slice(None, first)
        transform = similarity(a[aligned].reshape(1, -1, 3), b[aligned].reshape(1, -1, 3), scale=False)
        errors.append(1000 * np.linalg.norm(_apply(a.reshape(1, -1, 3), *transform)[0] - b.reshape(-1, 3), axis=-1))
    return float(np.concatenate(errors).mean())


def in_camera(points: Float[np.ndarray, "T K 3"], motion: BodyMotion) -> Float[np.ndarray, "T K 3"]:
    """World points of a motion in its camera frame."""
    return (points - motion.eye[:, None]) @ motion.to_camera.swapaxes(-1, -2)


def mpjpe_by_frame(predicted: BodyMotion, target: BodyMotion, body: BodyModel) -> Float[np.ndarray, "T"]:
    """`mpjpe`, millimetres per frame."""
    joints = [_relative_to_pelvis(in_camera(_posed(motion, body).joints, motion)) for motion in (predicted, target)]
    return _mean_norm_mm(joints[0] - joints[1])


def measure(predicted: BodyMotion, target: BodyMotion, body: BodyModel) -> dict[str, float]:
    """All errors of one motion (see DEFINITIONS), and the inputs of `summarise`: sums and counts of feet, path in metres."""
    a, b = _posed(predicted, body), _posed(target, body)
    camera_a, camera_b = in_camera(a.joints, predicted), in_camera(b.joints, target)
    joint_error = _relative_to_pelvis(camera_a) - _relative_to_pelvis(camera_b)
    vertices = [
        (points.vertices - points.joints[::_VERTEX_STRIDE, :1]) @ motion.to_camera[::_VERTEX_STRIDE].swapaxes(-1, -2)
        for points, motion in ((a, predicted), (b, target))
    ]
    up_cosine = (a.root[:, 1] * b.root[:, 1]).sum(-1).clip(-1, 1)
    trace = np.einsum("tij,tij->t", predicted.to_camera @ a.root, target.to_camera @ b.root)
    return {
        "pa_mpjpe": float(pa_mpjpe(camera_a, camera_b).mean()),
        "mpjpe": float(_mean_norm_mm(joint_error).mean()),
        "pve": float(_mean_norm_mm(vertices[0] - vertices[1]).mean()),
        "wrists": float(_mean_norm_mm(joint_error[:, _WRISTS]).mean()),
        "body": float(
            _mean_norm_mm(_relative_to_pelvis(a.joints) @ a.root - _relative_to_pelvis(b.joints) @ b.root).mean()
        ),
        "accel": acceleration_error(_relative_to_pelvis(camera_a), _relative_to_pelvis(camera_b)),
        "tilt": float(np.degrees(np.arccos(up_cosine)).mean()),
        "root": float(np.degrees(np.arccos(((trace - 1) / 2).clip(-1, 1))).mean()),
        "w_mpjpe100": world_mpjpe(a.joints, b.joints, first=2),
        "wa_mpjpe100": world_mpjpe(a.joints, b.joints, first=None),
        "root_m": float(np.linalg.norm(camera_a[:, 0] - camera_b[:, 0], axis=-1).mean()),
        **_path_errors(a.joints, b.joints),
        **_foot_sums(a.feet, b.feet, predicted.contacts, target.contacts),
        "frames": float(len(a.joints)),
    }


def summarise(rows: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Means over motions of equal weight; foot metrics over all frames together; percentages of the path over long paths only."""
    if not rows:
        return {}
    mean = {name: float(np.mean([row[name] for row in rows])) for name in rows[0] if not name.startswith("_")}
    total = {name: float(np.sum([row[name] for row in rows])) for name in rows[0] if name.startswith("_")}
    far = [row for row in rows if row["path_m"] >= MIN_PATH_M]
    for name, error in (("rte", "rte_m"), ("drift", "end_m")):
        mean[name] = 100 * float(np.mean([row[error] / row["path_m"] for row in far])) if far else float("nan")
    mean["slide"] = _ratio(total["_slide_mm"], total["_slide_steps"])
    mean["slide_true"] = _ratio(total["_stationary_mm"], total["_stationary_steps"])
    mean["contact_f1"] = _ratio(2 * total["_true_positive"], total["_predicted_positive"] + total["_target_positive"])
    if "_seconds" in total:
        mean["fps"] = _ratio(sum(row["frames"] for row in rows), total["_seconds"])
    return {**mean, "clips": float(len(rows)), "far_clips": float(len(far))}


def _posed(motion: BodyMotion, body: BodyModel) -> _Points:
    rest = body.rest_joints(motion.betas)
    joints, global_rotations = forward_kinematics(motion.rotations, rest, motion.trans)
    feet = body.contact_rig().points(global_rotations, joints, motion.betas)
    sampled = slice(None, None, _VERTEX_STRIDE)
    with torch.no_grad():
        vertices = body.vertices(motion.rotations[sampled], motion.betas, motion.trans[sampled])
    points = (value.double().numpy() for value in (joints, feet, vertices, motion.rotations[:, 0]))
    return _Points(*points)


def _path_errors(predicted: Float[np.ndarray, "T 24 3"], target: Float[np.ndarray, "T 24 3"]) -> dict[str, float]:
    """Errors of the pelvis: aligned like WHAM's root translation error, and by the first two frames."""
    roots = predicted[None, :, 0], target[None, :, 0]
    whole = _apply(roots[0], *similarity(*roots, scale=False))[0]
    start = similarity(predicted[:2].reshape(1, -1, 3), target[:2].reshape(1, -1, 3), scale=False)
    from_start = _apply(roots[0], *start)[0]
    steps = np.diff(from_start, axis=0), np.diff(target[:, 0], axis=0)
    return {
        "rte_m": float(np.linalg.norm(whole - target[:, 0], axis=-1).mean()),
        "end_m": float(np.linalg.norm(from_start[-1] - target[-1, 0])),
        "path_m": float(np.linalg.norm(steps[1], axis=-1).sum()),
        "speed": float(np.linalg.norm(steps[0] - steps[1], axis=-1).mean() * FPS) if len(steps[0]) else 0.0,
    }


def _foot_sums(
    predicted: Float[np.ndarray, "T 4 3"],
    target: Float[np.ndarray, "T 4 3"],
    predicted_contacts: Bool[np.ndarray, "T 4"],
    target_contacts: Bool[np.ndarray, "T 4"],
) -> dict[str, float]:
    """Sums and counts from which means over many motions are computed."""
    step, target_step = (np.linalg.norm(np.diff(points, axis=0), axis=-1) for points in (predicted, target))
    planted = predicted_contacts[1:] & predicted_contacts[:-1]
    stationary = target_step < STATIONARY_M
    return {
        "_slide_mm": 1000 * float(step[planted].sum()),
        "_slide_steps": float(planted.sum()),
        "_stationary_mm": 1000 * float(step[stationary].sum()),
        "_stationary_steps": float(stationary.sum()),
        "_true_positive": float((predicted_contacts & target_contacts).sum()),
        "_predicted_positive": float(predicted_contacts.sum()),
        "_target_positive": float(target_contacts.sum()),
    }


def _relative_to_pelvis(points: Float[np.ndarray, "T J 3"]) -> Float[np.ndarray, "T J 3"]:
    return points - points[:, :1]


def _mean_norm_mm(difference: Float[np.ndarray, "T J 3"]) -> Float[np.ndarray, "T"]:
    return 1000 * np.linalg.norm(difference, axis=-1).mean(-1)


def _apply(points: np.ndarray, factor: np.ndarray, rotation: np.ndarray, translation: np.ndarray) -> np.ndarray:
    return factor[:, None, None] * np.einsum("nij,nkj->nki", rotation, points) + translation[:, None]


def _ratio(numerator: float, denominator: float) -> float:
    return numerator / denominator if denominator else float("nan")
