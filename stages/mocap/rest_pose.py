"""The vertical, the sides and the T-pose of an unknown skeleton, found from its data.

The world's up is the axis along which bodies are upright most of the time. The zero pose serves as T-pose where it is one of a
body, lying or standing (it is turned); else the first frame, if it is a T-pose; else the joints' axes are calibrated from the
motion: bones, hinges and standing feet tell them.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Float

from schemas.rotations import shortest_rotation
from stages.mocap.body_frames import Points, body_frames, mean_rotation, unit
from stages.mocap.recognition import Found
from stages.mocap.skeletons import TO_Y_UP, Up
from stages.mocap.take import MocapError, Take

_SNAP = np.cos(np.radians(18))
"""A direction nearer to an axis counts as that axis."""
_UPRIGHT = 0.75
"""Mean cosine between body and up axis above which no other evidence is asked for."""


@dataclass(frozen=True)
class BodyPose:
    """Whether a pose is one to start from, and how it lies in its axes."""

    faults: tuple[str, ...]
    """What keeps it from being an upright body with straight limbs; empty where it is one."""
    to_canonical: Float[np.ndarray, "3 3"]
    """Rotation to Y up, facing +Z."""
    arms: str
    """`T`, `A` or `down`."""


def joint_points(found: Found, positions: Float[np.ndarray, "*B J 3"]) -> dict[str, np.ndarray]:
    """Positions by SMPL joint, of those that were found."""
    points = {name: positions[..., joint, :] for name, joint in found.limbs.items()}
    if found.spine:
        points["spine1"] = positions[..., found.spine[0], :]
    if found.head is not None:
        points["head"] = positions[..., found.head, :]
        if found.neck:
            points["neck"] = positions[..., found.neck[0], :]
    return points


def find_up(name: str, found: Found) -> Up:
    """The axis of the file's world that points up, a key of `TO_Y_UP`. Raises MocapError where the data do not tell."""
    points = joint_points(found, found.tree.positions)
    hips, shoulders, ankles = (
        (points[f"left_{part}"] + points[f"right_{part}"]) / 2 for part in ("hip", "shoulder", "ankle")
    )
    upright = unit(unit(shoulders - hips) + unit(hips - ankles)).mean(0)
    scores: dict[Up, float] = {axis: float(matrix.T[:, 1] @ upright) for axis, matrix in TO_Y_UP.items()}
    ranked = sorted(scores, key=lambda axis: -scores[axis])
    if scores[ranked[0]] >= _UPRIGHT:
        return ranked[0]
    # Nobody stands for long: the axis along which the lowest point of the body stays on a floor, and the zero pose, count too.
    leg = float(np.linalg.norm(points["left_hip"] - points["left_knee"], axis=-1).mean())
    rest = body_pose(found, zero_pose(found.tree.take))
    for axis, matrix in TO_Y_UP.items():
        heights = (found.tree.positions @ matrix.T)[..., 1].min(1)
        scores[axis] -= 0.5 * float(np.quantile(heights, 0.9) - np.quantile(heights, 0.1)) / leg
        if not rest.faults and (rest.to_canonical @ matrix.T)[1, 1] > 0.9:
            scores[axis] += 0.4
    ranked = sorted(scores, key=lambda axis: -scores[axis])
    if scores[ranked[0]] - scores[ranked[1]] < 0.05:
        raise MocapError(
            "unknown_up_axis",
            f"{name}: {ranked[0]} and {ranked[1]} both could point up, nobody stands in it; name the axis as `up` in a joint map",
        )
    return ranked[0]


def with_sides(name: str, found: Found) -> Found:
    """Limbs that were paired by shape get their sides: left is where up x ahead points. Raises MocapError for a mirrored skeleton.

    Ahead is where toes point, knees bend and elbows do not.
    """
    points = joint_points(found, found.tree.positions)
    hips, shoulders = ((points[f"left_{part}"] + points[f"right_{part}"]) / 2 for part in ("hip", "shoulder"))
    lateral = unit(points["left_hip"] - points["right_hip"])
    ahead = unit(np.cross(lateral, shoulders - hips))
    leg = np.linalg.norm(points["left_hip"] - points["left_ankle"], axis=-1).max()
    votes = []
    for side in ("left", "right"):
        hip, knee, ankle = (points[f"{side}_{part}"] for part in ("hip", "knee", "ankle"))
        bend = ((knee - (hip + ankle) / 2) * ahead).sum(-1).mean() / leg
        shoulder, elbow, wrist = (points[f"{side}_{part}"] for part in ("shoulder", "elbow", "wrist"))
        bend -= 0.3 * ((elbow - (shoulder + wrist) / 2) * ahead).sum(-1).mean() / leg
        toe = _toe(found, side)
        toes = 0.0 if toe is None else (unit(found.tree.positions[:, toe] - ankle) * ahead).sum(-1).mean()
        votes.append(float(toes) + 4 * float(bend))
    vote = sum(votes) / 2
    by_shape = {limb: found.by.get(f"left_{limb}") == "shape" for limb in ("hip", "shoulder")}
    if not by_shape["hip"]:
        if vote < -0.5:
            raise MocapError(
                "mirrored",
                f"{name}: toes and knees point backwards if its left side is left; its axes are left-handed or its sides are"
                " swapped: mirror one axis when exporting it",
            )
    elif vote < 0:
        found = _swapped(found, ("hip", "knee", "ankle", "foot"))
    if by_shape["shoulder"]:
        points = joint_points(found, found.tree.positions)
        same = ((points["left_shoulder"] - points["right_shoulder"]) * (points["left_hip"] - points["right_hip"])).sum(
            -1
        )
        if same.mean() < 0:
            found = _swapped(found, ("collar", "shoulder", "elbow", "wrist", "hand"))
    return found


def _toe(found: Found, side: str) -> int | None:
    """The foot joint, or the end of the bone that begins at the ankle."""
    ankle = found.limbs[f"{side}_ankle"]
    if f"{side}_foot" in found.limbs:
        return found.limbs[f"{side}_foot"]
    below = [joint for joint in found.tree.children[ankle] if found.tree.distance(ankle, joint) > found.tree.tiny]
    return below[0] if below else None


def _swapped(found: Found, parts: tuple[str, ...]) -> Found:
    limbs = dict(found.limbs)
    for part in parts:
        pair = {
            f"{side}_{part}": found.limbs.get(f"{other}_{part}")
            for side, other in (("left", "right"), ("right", "left"))
        }
        for name, joint in pair.items():
            if joint is None:
                limbs.pop(name, None)
            else:
                limbs[name] = joint
    return replace(found, limbs=limbs)


def zero_pose(take: Take) -> Float[np.ndarray, "J 3"]:
    """Positions of all joints with every rotation at zero, the roots at the origin."""
    positions = np.zeros((len(take.names), 3))
    for joint, parent in enumerate(take.parents):
        if parent >= 0:
            moving = take.moving_offsets.get(joint)
            positions[joint] = positions[parent] + (take.offsets[joint] if moving is None else np.median(moving, 0))
    return positions


def body_pose(found: Found, positions: Float[np.ndarray, "J 3"]) -> BodyPose:
    """Whether the positions are those of an upright body with straight limbs, symmetric, arms not above the head."""
    at = joint_points(found, positions)
    hips, shoulders, ankles = ((at[f"left_{part}"] + at[f"right_{part}"]) / 2 for part in ("hip", "shoulder", "ankle"))
    up = _snapped(unit(unit(shoulders - hips) + unit(hips - ankles)))
    lateral = at["left_hip"] - at["right_hip"]
    left = _snapped(unit(lateral - (lateral @ up) * up))
    if abs(left @ up) > 1e-6 or not left.any():
        left = unit(left - (left @ up) * up)
    if not up.any() or not left.any():
        return BodyPose(("hips, shoulders or ankles are in one place",), np.eye(3), "T")
    ahead = np.cross(left, up)
    axes = np.stack([left, up, ahead])
    bones = {
        f"{side}_{start}": unit(axes @ (at[f"{side}_{end}"] - at[f"{side}_{start}"]))
        for side in ("left", "right")
        for start, end in (("hip", "knee"), ("knee", "ankle"), ("shoulder", "elbow"), ("elbow", "wrist"))
    }
    mirror = np.array([-1.0, 1, 1])
    thighs, shanks, upper_arms, forearms = (
        [bones[f"{side}_{part}"] for side in ("left", "right")] for part in ("hip", "knee", "shoulder", "elbow")
    )
    arm = bones["left_shoulder"]
    faults = [
        text
        for bad, text in (
            (unit(shoulders - hips) @ up < 0.85, "the trunk is not upright over the legs"),
            (min(-bone[1] for bone in (*thighs, *shanks)) < 0.75, "legs do not hang"),
            (abs(unit(lateral) @ up) > 0.35, "the hips are not level"),
            (min(one @ other for one, other in zip(thighs, shanks, strict=True)) < 0.9, "knees are bent"),
            (min(one @ other for one, other in zip(upper_arms, forearms, strict=True)) < 0.7, "elbows are bent"),
            (min(one @ (other * mirror) for one, other in (thighs, shanks, upper_arms, forearms)) < 0.95,
             "the sides are not symmetric"),
            (arm[1] > 0.6, "arms are raised"),
            (arm[0] < -0.3 or abs(arm[2]) > 0.75, "arms are not at the sides"),
        )
        if bad
    ]  # fmt: skip
    toes = [_toe(found, side) for side in ("left", "right")]
    forward = [
        float(unit(positions[toe] - at[f"{side}_ankle"]) @ ahead)
        for side, toe in zip(("left", "right"), toes, strict=True)
        if toe is not None
    ]
    if forward and min(forward) < -0.2:
        faults.append("toes point backwards")
    return BodyPose(tuple(faults), axes, "down" if arm[1] < -0.85 else "A" if arm[1] < -0.35 else "T")


def _snapped(direction: Float[np.ndarray, "3"]) -> Float[np.ndarray, "3"]:
    axis = int(np.abs(direction).argmax())
    snapped = np.zeros(3)
    snapped[axis] = np.sign(direction[axis])
    return snapped if abs(direction[axis]) > _SNAP else direction


def feet_follow_shanks(found: Found, pose: BodyPose, positions: Float[np.ndarray, "J 3"]) -> bool:
    """Whether feet of legs that stand apart are tilted with the shanks instead of flat on the ground."""
    tilts = []
    for side in ("left", "right"):
        toe = _toe(found, side)
        if toe is None:
            continue
        knee, ankle = (positions[found.limbs[f"{side}_{part}"]] for part in ("knee", "ankle"))
        shank, foot = pose.to_canonical @ (ankle - knee), pose.to_canonical @ (positions[toe] - ankle)
        if abs(shank[0]) / max(abs(shank[1]), 1e-9) < np.tan(np.radians(8)):
            return False
        upright = shortest_rotation(
            torch.from_numpy(shank), torch.tensor([0.0, -1.0, 0.0], dtype=torch.float64)
        ).numpy()
        tilts.append(abs((upright @ foot)[0]) < abs(foot[0]))
    return bool(tilts) and all(tilts)


def calibrated_axes(found: Found, up: Float[np.ndarray, "3 3"]) -> dict[int, Float[np.ndarray, "3 3"]]:
    """Global axes of all joints in a T-pose, from the motion alone. `up`: rotation of the file's world to Y up."""
    tree = found.tree
    positions, rotations = tree.positions @ up.T, up @ tree.rotations
    points = joint_points(found, positions)
    frames = body_frames(points)
    driven = {joint: name for name, joint in found.limbs.items() if name in frames and joint not in tree.take.ends}
    driven[found.pelvis] = "pelvis"
    for place, joint in enumerate(found.spine, start=1):
        driven[joint] = "spine3" if joint == found.chest else "spine1" if place == 1 else "spine2"
    for joint in found.neck:
        driven[joint] = "neck"
    if found.head is not None:
        driven[found.head] = "head"
    axes: dict[int, np.ndarray] = {}
    for joint in range(tree.count):
        parent = tree.parents[joint]
        if joint not in driven:
            if parent < 0:
                axes[joint] = mean_rotation(rotations[:, joint].swapaxes(-1, -2)).T if tree.count == 1 else np.eye(3)
            else:
                relative = mean_rotation(rotations[:, parent].swapaxes(-1, -2) @ rotations[:, joint])
                axes[joint] = axes[parent] @ relative
            continue
        name = driven[joint]
        target = frames[name]
        if name.endswith(("_ankle", "_foot")):
            target = _level_feet(points, frames, name.partition("_")[0])
        weights = _stance(points, name.partition("_")[0]) if name.endswith(("_ankle", "_foot")) else None
        constant = mean_rotation(rotations[:, joint].swapaxes(-1, -2) @ target, weights)
        axes[joint] = _with_exact_bone(found, joint, name, constant, rotations, positions).T
    return axes


_NEXT = {"hip": "knee", "knee": "ankle", "shoulder": "elbow", "elbow": "wrist"}


def _with_exact_bone(
    found: Found, joint: int, name: str, constant: np.ndarray, rotations: np.ndarray, positions: np.ndarray
) -> Float[np.ndarray, "3 3"]:
    """The constant turned so that the limb's bone lies exactly along the axis that it has in the T-pose."""
    side, _, part = name.partition("_")
    if part not in _NEXT:
        return constant
    bone = positions[:, found.limbs[f"{side}_{_NEXT[part]}"]] - positions[:, joint]
    local = unit(np.einsum("tba,tb->ta", rotations[:, joint], bone).mean(0))
    axis = np.array([0.0, -1, 0]) if part in ("hip", "knee") else np.array([1.0 if side == "left" else -1.0, 0, 0])
    turn = shortest_rotation(torch.from_numpy(constant @ axis), torch.from_numpy(local)).numpy()
    return turn @ constant


def _level_feet(points: Points, frames: Mapping[str, np.ndarray], side: str) -> Float[np.ndarray, "T 3 3"]:
    """Frames of a foot that stands flat: up is the world's, ahead the foot's."""
    toes = points.get(f"{side}_foot")
    bone = frames[f"{side}_knee"][..., 2] if toes is None else toes - points[f"{side}_ankle"]
    ahead = unit(bone * [1.0, 0, 1])
    up = np.broadcast_to([0.0, 1, 0], ahead.shape)
    return np.stack([np.cross(up, ahead), up, ahead], -1)


def _stance(points: Points, side: str) -> Float[np.ndarray, "T"]:
    """Weights of the frames in which a foot most likely stands: its ankle is low, slow and under the hip."""
    ankle = points[f"{side}_ankle"]
    leg = np.linalg.norm(points[f"{side}_hip"] - ankle, axis=-1).max()
    height = (ankle[:, 1] - np.quantile(ankle[:, 1], 0.1)) / leg
    speed = np.linalg.norm(np.gradient(ankle, axis=0), axis=-1) / leg if len(ankle) > 2 else np.zeros(len(ankle))
    slow = speed <= np.quantile(speed, 0.4)
    return 1e-6 + slow * np.exp(-((height / 0.05) ** 2))
