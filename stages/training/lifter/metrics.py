"""How far a recovered motion is from the true one: by frame, over the ground, and by body part.

Joints are all 24 of SMPL, relative positions are from the pelvis joint, and means are over frames. Definitions follow the
evaluation code of WHAM (Shin et al. 2024, lib/eval), which took the world ones from SLAHMR (Ye et al. 2023). Where they
differ from it: W and WA align rigidly, while WHAM also fits a scale and so forgives a wrong distance or size; it takes the
hips' middle for the pelvis; and a last piece of under 50 frames is left out here.
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

PIECE_FRAMES = 100
FAR_M = 2.0
"""Errors in percent of the path are only taken of motions that go at least so far."""
STILL_M = 0.01
"""A point that truly moves less than this from frame to frame stands (WHAM's limit)."""
_SKIN_EVERY = 5
"""The skin is compared in every fifth frame."""
_WRISTS = [joint("left_wrist"), joint("right_wrist")]

DEFINITIONS = {
    "pa_mpjpe": "mm; joints, after the similarity that fits each frame best",
    "mpjpe": "mm; joints relative to the pelvis, in the camera's axes",
    "pve": "mm; the skin's vertices relative to the pelvis, in the camera's axes, every 5th frame",
    "wrists": "mm; as mpjpe, of both wrists",
    "body": "mm; joints relative to the pelvis, in the pelvis' axes: the pose without the root's orientation",
    "accel": "m/s^2; difference of the joints' second differences, relative to the pelvis, in the camera's axes",
    "tilt": "degrees between what is up for the two pelvises",
    "root": "degrees between the two pelvis orientations, in the camera's axes",
    "w_mpjpe100": "mm in the world, pieces of 100 frames aligned rigidly by their first two frames, no scale",
    "wa_mpjpe100": "mm in the world, pieces of 100 frames aligned rigidly by all their frames, no scale",
    "root_m": "m; place of the pelvis in the camera's frame, nothing aligned",
    "rte": "% of the path: pelvis after rigid alignment by the whole path, mean over frames; motions of 2 m or more",
    "drift": "% of the path: pelvis at the end, aligned by the first two frames; motions of 2 m or more",
    "speed": "m/s between the pelvis' velocities, aligned by the first two frames",
    "slide": "mm a frame that heels and toes move where they are said to stand, before and after",
    "slide_true": "mm a frame that said heels and toes move where the true ones move less than 10 mm (WHAM's foot sliding)",
    "contact_f1": "F1 of said contacts of heels and toes, 0 to 1, over all frames",
    "fps": "frames a second of processor time of fitting alone, one thread",
}
"""Figure -> unit and meaning."""


@dataclass(frozen=True)
class BodyMotion:
    """A body over T frames before a camera, in a world whose y axis is up. On the CPU."""

    rotations: Float[Tensor, "T 24 3 3"]
    """Local; the root's is its orientation in the world."""
    trans: Float[Tensor, "T 3"]
    betas: Float[Tensor, "10"]
    to_camera: Float[np.ndarray, "T 3 3"]
    """World to camera axes."""
    eye: Float[np.ndarray, "T 3"]
    """The camera's place."""
    contacts: Bool[np.ndarray, "T 4"]
    """Whether left heel, left toe, right heel, right toe stand on the ground."""


@dataclass(frozen=True)
class _Points:
    """A figure's points in its world, metres, double precision."""

    joints: Float[np.ndarray, "T 24 3"]
    feet: Float[np.ndarray, "T 4 3"]
    skin: Float[np.ndarray, "S V 3"]
    root: Float[np.ndarray, "T 3 3"]


def similarity(
    source: Float[np.ndarray, "N K 3"], target: Float[np.ndarray, "N K 3"], *, scale: bool
) -> tuple[Float[np.ndarray, "N"], Float[np.ndarray, "N 3 3"], Float[np.ndarray, "N 3"]]:
    """Scale, rotation and shift that bring source points nearest to target points (Umeyama 1991)."""
    mean_s, mean_t = source.mean(1, keepdims=True), target.mean(1, keepdims=True)
    a, b = source - mean_s, target - mean_t
    u, s, vt = np.linalg.svd(np.einsum("nki,nkj->nij", b, a))
    sign = np.ones_like(s)
    sign[:, 2] = np.sign(np.linalg.det(u @ vt))
    rotation = (u * sign[:, None]) @ vt
    factor = (s * sign).sum(-1) / np.maximum((a**2).sum((1, 2)), 1e-12) if scale else np.ones(len(source))
    shift = mean_t[:, 0] - factor[:, None] * (rotation @ mean_s[:, 0, :, None])[..., 0]
    return factor, rotation, shift


def pa_mpjpe(said: Float[np.ndarray, "T J 3"], truth: Float[np.ndarray, "T J 3"]) -> Float[np.ndarray, "T"]:
    """Millimetres a frame, after a similarity."""
    return _mm(_apply(said, *similarity(said, truth, scale=True)) - truth)


def acceleration_error(said: Float[np.ndarray, "T J 3"], truth: Float[np.ndarray, "T J 3"]) -> float:
    """Mean of |x(t-1) - 2 x(t) + x(t+1)| FPS^2 for x the difference of the two, m/s^2; 0 for fewer than three frames."""
    second = np.diff(said - truth, n=2, axis=0)
    return float(np.linalg.norm(second, axis=-1).mean() * FPS**2) if len(second) else 0.0


def world_mpjpe(said: Float[np.ndarray, "T J 3"], truth: Float[np.ndarray, "T J 3"], *, first: int | None) -> float:
    """Millimetres, in pieces of 100 frames that are aligned rigidly by their `first` frames (None: by all)."""
    errors = []
    for start in range(0, len(said), PIECE_FRAMES):
        a, b = said[start : start + PIECE_FRAMES], truth[start : start + PIECE_FRAMES]
        if start and len(a) < PIECE_FRAMES // 2:
            continue
        here = slice(None, first)
        move = similarity(a[here].reshape(1, -1, 3), b[here].reshape(1, -1, 3), scale=False)
        errors.append(1000 * np.linalg.norm(_apply(a.reshape(1, -1, 3), *move)[0] - b.reshape(-1, 3), axis=-1))
    return float(np.concatenate(errors).mean())


def in_camera(points: Float[np.ndarray, "T K 3"], figure: BodyMotion) -> Float[np.ndarray, "T K 3"]:
    """Points of a figure's world in its camera's frame."""
    return (points - figure.eye[:, None]) @ figure.to_camera.swapaxes(-1, -2)


def mpjpe_by_frame(said: BodyMotion, truth: BodyMotion, body: BodyModel) -> Float[np.ndarray, "T"]:
    """`mpjpe`, millimetres a frame."""
    seen = [_from_pelvis(in_camera(_pose(figure, body).joints, figure)) for figure in (said, truth)]
    return _mm(seen[0] - seen[1])


def measure(said: BodyMotion, truth: BodyMotion, body: BodyModel) -> dict[str, float]:
    """All errors of one motion (see DEFINITIONS), and what `summarise` needs: sums and counts of feet, metres of path."""
    a, b = _pose(said, body), _pose(truth, body)
    camera_a, camera_b = in_camera(a.joints, said), in_camera(b.joints, truth)
    apart = _from_pelvis(camera_a) - _from_pelvis(camera_b)
    skins = [
        (points.skin - points.joints[::_SKIN_EVERY, :1]) @ figure.to_camera[::_SKIN_EVERY].swapaxes(-1, -2)
        for points, figure in ((a, said), (b, truth))
    ]
    upright = (a.root[:, 1] * b.root[:, 1]).sum(-1).clip(-1, 1)
    turned = np.einsum("tij,tij->t", said.to_camera @ a.root, truth.to_camera @ b.root)
    return {
        "pa_mpjpe": float(pa_mpjpe(camera_a, camera_b).mean()),
        "mpjpe": float(_mm(apart).mean()),
        "pve": float(_mm(skins[0] - skins[1]).mean()),
        "wrists": float(_mm(apart[:, _WRISTS]).mean()),
        "body": float(_mm(_from_pelvis(a.joints) @ a.root - _from_pelvis(b.joints) @ b.root).mean()),
        "accel": acceleration_error(_from_pelvis(camera_a), _from_pelvis(camera_b)),
        "tilt": float(np.degrees(np.arccos(upright)).mean()),
        "root": float(np.degrees(np.arccos(((turned - 1) / 2).clip(-1, 1))).mean()),
        "w_mpjpe100": world_mpjpe(a.joints, b.joints, first=2),
        "wa_mpjpe100": world_mpjpe(a.joints, b.joints, first=None),
        "root_m": float(np.linalg.norm(camera_a[:, 0] - camera_b[:, 0], axis=-1).mean()),
        **_path_errors(a.joints, b.joints),
        **_foot_sums(a.feet, b.feet, said.contacts, truth.contacts),
        "frames": float(len(a.joints)),
    }


def summarise(rows: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Means over motions, each counting once; feet over all frames together; shares of the path over those that go far."""
    if not rows:
        return {}
    mean = {name: float(np.mean([row[name] for row in rows])) for name in rows[0] if not name.startswith("_")}
    total = {name: float(np.sum([row[name] for row in rows])) for name in rows[0] if name.startswith("_")}
    far = [row for row in rows if row["path_m"] >= FAR_M]
    for name, of in (("rte", "rte_m"), ("drift", "end_m")):
        mean[name] = 100 * float(np.mean([row[of] / row["path_m"] for row in far])) if far else float("nan")
    mean["slide"] = _ratio(total["_slide_mm"], total["_slide_steps"])
    mean["slide_true"] = _ratio(total["_still_mm"], total["_still_steps"])
    mean["contact_f1"] = _ratio(2 * total["_both"], total["_said"] + total["_true"])
    if "_seconds" in total:
        mean["fps"] = _ratio(sum(row["frames"] for row in rows), total["_seconds"])
    return {**mean, "clips": float(len(rows)), "far_clips": float(len(far))}


def _pose(figure: BodyMotion, body: BodyModel) -> _Points:
    rest = body.rest_joints(figure.betas)
    joints, turns = forward_kinematics(figure.rotations, rest, figure.trans)
    feet = body.contact_rig().points(turns, joints, figure.betas)
    some = slice(None, None, _SKIN_EVERY)
    with torch.no_grad():
        skin = body.vertices(figure.rotations[some], figure.betas, figure.trans[some])
    points = (value.double().numpy() for value in (joints, feet, skin, figure.rotations[:, 0]))
    return _Points(*points)


def _path_errors(said: Float[np.ndarray, "T 24 3"], truth: Float[np.ndarray, "T 24 3"]) -> dict[str, float]:
    """Of the pelvis: aligned as WHAM's root translation error is, and by the first two frames."""
    roots = said[None, :, 0], truth[None, :, 0]
    whole = _apply(roots[0], *similarity(*roots, scale=False))[0]
    start = similarity(said[:2].reshape(1, -1, 3), truth[:2].reshape(1, -1, 3), scale=False)
    begun = _apply(roots[0], *start)[0]
    steps = np.diff(begun, axis=0), np.diff(truth[:, 0], axis=0)
    return {
        "rte_m": float(np.linalg.norm(whole - truth[:, 0], axis=-1).mean()),
        "end_m": float(np.linalg.norm(begun[-1] - truth[-1, 0])),
        "path_m": float(np.linalg.norm(steps[1], axis=-1).sum()),
        "speed": float(np.linalg.norm(steps[0] - steps[1], axis=-1).mean() * FPS) if len(steps[0]) else 0.0,
    }


def _foot_sums(
    said: Float[np.ndarray, "T 4 3"],
    truth: Float[np.ndarray, "T 4 3"],
    said_contacts: Bool[np.ndarray, "T 4"],
    true_contacts: Bool[np.ndarray, "T 4"],
) -> dict[str, float]:
    """Sums and counts, from which means over many motions are made."""
    moved, truly = (np.linalg.norm(np.diff(points, axis=0), axis=-1) for points in (said, truth))
    held = said_contacts[1:] & said_contacts[:-1]
    still = truly < STILL_M
    return {
        "_slide_mm": 1000 * float(moved[held].sum()),
        "_slide_steps": float(held.sum()),
        "_still_mm": 1000 * float(moved[still].sum()),
        "_still_steps": float(still.sum()),
        "_both": float((said_contacts & true_contacts).sum()),
        "_said": float(said_contacts.sum()),
        "_true": float(true_contacts.sum()),
    }


def _from_pelvis(points: Float[np.ndarray, "T J 3"]) -> Float[np.ndarray, "T J 3"]:
    return points - points[:, :1]


def _mm(apart: Float[np.ndarray, "T J 3"]) -> Float[np.ndarray, "T"]:
    return 1000 * np.linalg.norm(apart, axis=-1).mean(-1)


def _apply(points: np.ndarray, factor: np.ndarray, rotation: np.ndarray, shift: np.ndarray) -> np.ndarray:
    return factor[:, None, None] * np.einsum("nij,nkj->nki", rotation, points) + shift[:, None]


def _ratio(of: float, to: float) -> float:
    return of / to if to else float("nan")
