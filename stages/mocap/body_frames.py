"""Orientations of a body's joints from positions alone.

A frame's axes are the body's in its T-pose: x to its left, y up, z ahead. Bones give two of three angles; the third is that of
the knee's and elbow's hinge where the limb is bent, and follows the trunk where it is straight.
"""

from collections.abc import Mapping

import numpy as np
import torch
from jaxtyping import Float

from schemas.rotations import axis_angle_to_matrix, matrix_to_axis_angle, shortest_rotation
from schemas.skeleton import SMPL_JOINTS, SMPL_PARENTS

Points = Mapping[str, Float[np.ndarray, "T 3"]]
"""SMPL joint -> its positions."""
Frames = dict[str, Float[np.ndarray, "T 3 3"]]
_STRAIGHT, _BENT = np.sin(np.radians(8)), np.sin(np.radians(25))
"""Below the first a hinge tells nothing, above the second it decides alone."""
_LEFT, _UP, _AHEAD = np.eye(3)
SOLE = np.array([0.0, -0.4, 0.92]) / np.linalg.norm([0.0, -0.4, 0.92])
"""Direction from the ankle to the ball of a flat foot."""


def body_frames(points: Points) -> Frames:
    """Frames of the pelvis, the chest (`spine3`), the limbs and, where their points are given, collars, feet and head."""
    hips = (points["left_hip"] + points["right_hip"]) / 2
    shoulders = (points["left_shoulder"] + points["right_shoulder"]) / 2
    low = points.get("spine1", shoulders)
    high = points.get("neck", shoulders)
    frames: Frames = {
        "pelvis": _frame(x=points["left_hip"] - points["right_hip"], y=low - hips, first="x"),
        "spine3": _frame(x=points["left_shoulder"] - points["right_shoulder"], y=high - hips, first="x"),
    }
    for name, share in (("spine1", 1 / 3), ("spine2", 2 / 3)):
        frames[name] = interpolate(frames["pelvis"], frames["spine3"], share)
    frames["neck"] = frames["head"] = frames["spine3"]
    if "head" in points and "neck" in points:
        frames["head"] = frames["neck"] = _swing_from_mean(frames["spine3"], points["head"] - points["neck"])
    for side, sign in (("left", 1.0), ("right", -1.0)):
        _leg(points, frames, side)
        _arm(points, frames, side, sign)
    return frames


def _leg(points: Points, frames: Frames, side: str) -> None:
    hip, knee, ankle = (points[f"{side}_{part}"] for part in ("hip", "knee", "ankle"))
    hinge = np.cross(knee - hip, ankle - knee)
    straight = swing(frames["pelvis"], -_UP, knee - hip)[..., 0]
    x = _hinge(hinge, straight, knee - hip, ankle - knee)
    frames[f"{side}_hip"] = _frame(x=x, y=hip - knee, first="y")
    frames[f"{side}_knee"] = _frame(x=x, y=knee - ankle, first="y")
    frames[f"{side}_ankle"] = frames[f"{side}_foot"] = frames[f"{side}_knee"]
    if f"{side}_foot" in points:
        frames[f"{side}_ankle"] = swing(frames[f"{side}_knee"], SOLE, points[f"{side}_foot"] - ankle)
        frames[f"{side}_foot"] = frames[f"{side}_ankle"]


def _arm(points: Points, frames: Frames, side: str, sign: float) -> None:
    shoulder, elbow, wrist = (points[f"{side}_{part}"] for part in ("shoulder", "elbow", "wrist"))
    chest = frames["spine3"]
    frames[f"{side}_collar"] = chest
    if f"{side}_collar" in points:
        frames[f"{side}_collar"] = _swing_from_mean(chest, shoulder - points[f"{side}_collar"])
    hinge = np.cross(elbow - shoulder, wrist - elbow) * -sign
    straight = swing(chest, sign * _LEFT, elbow - shoulder)[..., 1]
    y = _hinge(hinge, straight, elbow - shoulder, wrist - elbow)
    frames[f"{side}_shoulder"] = _frame(x=(elbow - shoulder) * sign, y=y, first="x")
    frames[f"{side}_elbow"] = _frame(x=(wrist - elbow) * sign, y=y, first="x")
    frames[f"{side}_wrist"] = frames[f"{side}_hand"] = frames[f"{side}_elbow"]
    if f"{side}_hand" in points:
        frames[f"{side}_wrist"] = swing(frames[f"{side}_elbow"], sign * _LEFT, points[f"{side}_hand"] - wrist)
        frames[f"{side}_hand"] = frames[f"{side}_wrist"]


def _hinge(hinge: np.ndarray, straight: np.ndarray, upper: np.ndarray, lower: np.ndarray) -> Float[np.ndarray, "T 3"]:
    sine = np.linalg.norm(hinge, axis=-1) / np.maximum(
        np.linalg.norm(upper, axis=-1) * np.linalg.norm(lower, axis=-1), 1e-12
    )
    share = np.clip((sine - _STRAIGHT) / (_BENT - _STRAIGHT), 0, 1)[:, None]
    # A limb that is bent the wrong way (past straight) would turn it over.
    agrees = ((hinge * straight).sum(-1) > 0)[:, None]
    return np.where(agrees, share * unit(hinge) + (1 - share) * straight, straight)


def hinge_sine(points: Points, side: str, limb: str) -> Float[np.ndarray, "T"]:
    """Sine of the bend of a knee (`leg`) or elbow (`arm`)."""
    first, middle, last = (
        points[f"{side}_{part}"]
        for part in (("hip", "knee", "ankle") if limb == "leg" else ("shoulder", "elbow", "wrist"))
    )
    return np.linalg.norm(np.cross(unit(middle - first), unit(last - middle)), axis=-1)


def unit(vectors: Float[np.ndarray, "*B 3"]) -> Float[np.ndarray, "*B 3"]:
    """Vectors of length one; zero stays zero."""
    return vectors / np.maximum(np.linalg.norm(vectors, axis=-1, keepdims=True), 1e-12)


def _frame(*, x: np.ndarray, y: np.ndarray, first: str) -> Float[np.ndarray, "*B 3 3"]:
    """Axes from two directions; the `first` is kept, the other made perpendicular to it."""
    if first == "x":
        x = unit(x)
        z = unit(np.cross(x, y))
        return np.stack([x, np.cross(z, x), z], -1)
    y = unit(y)
    z = unit(np.cross(x, y))
    return np.stack([np.cross(y, z), y, z], -1)


def swing(
    frames: Float[np.ndarray, "T 3 3"], axis: Float[np.ndarray, "3"], bone: np.ndarray
) -> Float[np.ndarray, "T 3 3"]:
    """Frames turned the shortest way so that their `axis` has the direction of the bone."""
    turn = shortest_rotation(torch.from_numpy(frames @ axis), torch.from_numpy(np.ascontiguousarray(bone)))
    return turn.numpy() @ frames


def _swing_from_mean(frames: Float[np.ndarray, "T 3 3"], bone: Float[np.ndarray, "T 3"]) -> Float[np.ndarray, "T 3 3"]:
    """Frames that follow a bone from its mean direction in them."""
    local = np.einsum("tba,tb->ta", frames, unit(bone)).mean(0)
    return swing(frames, unit(local), bone)


def interpolate(start: np.ndarray, end: np.ndarray, share: float) -> Float[np.ndarray, "T 3 3"]:
    """Rotations a share of the way from one to the other."""
    first, last = torch.from_numpy(np.ascontiguousarray(start)), torch.from_numpy(np.ascontiguousarray(end))
    step = matrix_to_axis_angle(first.transpose(-1, -2) @ last)
    return (first @ axis_angle_to_matrix(step * share)).numpy()


def mean_rotation(
    rotations: Float[np.ndarray, "T 3 3"], weights: Float[np.ndarray, "T"] | None = None
) -> Float[np.ndarray, "3 3"]:
    """The rotation nearest to the weighted mean of matrices."""
    total = np.average(rotations, axis=0, weights=weights) if weights is not None else rotations.mean(0)
    u, _, vt = np.linalg.svd(total)
    return u @ np.diag([1, 1, np.sign(np.linalg.det(u @ vt))]) @ vt


def parent_frame(name: str) -> str:
    """The SMPL joint that a joint follows."""
    return SMPL_JOINTS[SMPL_PARENTS[SMPL_JOINTS.index(name)]]
