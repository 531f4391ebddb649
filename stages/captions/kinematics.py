"""A motion as the person's own coordinates over time: what the caption rules look at.

Body axes: x to the person's left, y up from the ground, z where the pelvis faces, origin under the pelvis. A person who
is turned or filmed from another side has the same numbers.
"""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from schemas.kinematics import forward_kinematics
from schemas.records import FPS
from schemas.rotations import heading_rad
from schemas.skeleton import PARTS, joint
from stages.captions.signals import derivative, smooth_path

SIDES = ("left", "right")
_SOLE_M = 0.03
"""How far the sole lies under the lowest joint of the feet in the zero pose."""


@dataclass(frozen=True, kw_only=True)
class BodySize:
    """Lengths of one body, metres."""

    arm_m: float
    """Shoulder to wrist along the bones."""
    leg_m: float
    """Hip to ankle along the bones."""
    pelvis_m: float
    """Height of the pelvis when standing."""
    ankle_m: float
    """Height of the ankle when standing."""
    toe_m: float
    """Height of the toe joint when standing."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Kinematics:
    """Smoothed curves at `FPS`, metres, seconds and radians."""

    joints: Float[np.ndarray, "T 24 3"]
    """In the world."""
    local: Float[np.ndarray, "T 24 3"]
    """In body axes."""
    heading: Float[np.ndarray, "T"]
    """Yaw of the pelvis, unwrapped, positive to the left."""
    velocity: Float[np.ndarray, "T 2"]
    """Of the pelvis over the ground: to the left and forwards."""
    pitch: Float[np.ndarray, "T"]
    """Lean of the trunk, forwards positive."""
    roll: Float[np.ndarray, "T"]
    """Lean of the trunk, to the person's left positive."""
    twist: Float[np.ndarray, "T"]
    """Yaw of the shoulders against the pelvis, to the left positive."""
    tilt: Float[np.ndarray, "T"]
    """Angle between trunk and vertical."""
    elbow: dict[str, Float[np.ndarray, "T"]]
    """Flexion by side, 0 when straight."""
    knee: dict[str, Float[np.ndarray, "T"]]
    size: BodySize
    seen: dict[str, bool]
    """Whether a part was seen well enough to say something about it."""

    def __len__(self) -> int:
        return len(self.heading)

    def at(self, name: str) -> Float[np.ndarray, "T 3"]:
        """A joint in body axes."""
        return self.local[:, joint(name)]

    def in_world(self, name: str) -> Float[np.ndarray, "T 3"]:
        """A joint in the world."""
        return self.joints[:, joint(name)]


def kinematics(
    rotations: Float[Tensor, "T 24 3 3"],
    trans: Float[Tensor, "T 3"],
    rest_joints: Float[Tensor, "24 3"],
    joint_confidence: Float[np.ndarray, "T 24"],
    *,
    smoothing_s: float,
    travel_smoothing_s: float,
    min_confidence: float,
) -> Kinematics:
    """Curves of a motion; `smoothing_s` for limbs, `travel_smoothing_s` for the way and the heading (Gaussian sigmas)."""
    with torch.no_grad():
        positions, turns = forward_kinematics(rotations.double(), rest_joints.double(), trans.double())
    return curves(
        positions.numpy(),
        heading_rad(turns[:, 0]).numpy(),
        body_size(rest_joints.double().numpy()),
        {part: _seen(part, joint_confidence) >= min_confidence for part in PARTS},
        limb_sigma=smoothing_s * FPS,
        travel_sigma=travel_smoothing_s * FPS,
    )


def curves(
    raw: Float[np.ndarray, "T 24 3"],
    yaw: Float[np.ndarray, "T"],
    size: BodySize,
    seen: dict[str, bool],
    *,
    limb_sigma: float,
    travel_sigma: float,
) -> Kinematics:
    """Curves from joint positions and the pelvis' yaw; sigmas in frames."""
    joints = smooth_path(raw, limb_sigma)
    heading = smooth_path(np.unwrap(yaw), travel_sigma)
    pelvis = joints[:, joint("pelvis")]
    local = into_body_axes(joints - pelvis[:, None] * [1.0, 0.0, 1.0], heading)
    way = derivative(smooth_path(raw[:, joint("pelvis")], travel_sigma), FPS)
    velocity = into_body_axes(way[:, None], heading)[:, 0]
    trunk = local[:, joint("neck")] - local[:, joint("pelvis")]
    up = trunk / np.linalg.norm(trunk, axis=-1, keepdims=True).clip(1e-6)
    shoulders = local[:, joint("left_shoulder")] - local[:, joint("right_shoulder")]
    return Kinematics(
        joints=joints,
        local=local,
        heading=heading,
        velocity=velocity[:, [0, 2]],
        pitch=np.arctan2(up[:, 2], up[:, 1]),
        roll=np.arctan2(up[:, 0], up[:, 1]),
        twist=np.unwrap(np.arctan2(-shoulders[:, 2], shoulders[:, 0])),
        tilt=np.arccos(np.clip(up[:, 1], -1, 1)),
        elbow={side: _flexion(joints, side, ("shoulder", "elbow", "wrist")) for side in SIDES},
        knee={side: _flexion(joints, side, ("hip", "knee", "ankle")) for side in SIDES},
        size=size,
        seen=seen,
    )


def into_body_axes(vectors: Float[np.ndarray, "T J 3"], heading: Float[np.ndarray, "T"]) -> Float[np.ndarray, "T J 3"]:
    """World vectors turned back by the heading."""
    c, s = np.cos(heading)[:, None], np.sin(heading)[:, None]
    x, y, z = vectors[..., 0], vectors[..., 1], vectors[..., 2]
    return np.stack([c * x - s * z, y, s * x + c * z], axis=-1)


def body_size(rest: Float[np.ndarray, "24 3"]) -> BodySize:
    """Lengths from the joints of the zero pose."""

    def along(*names: str) -> float:
        places = rest[[joint(name) for name in names]]
        return float(np.linalg.norm(np.diff(places, axis=0), axis=-1).sum())

    ground = rest[:, 1].min() - _SOLE_M
    return BodySize(
        arm_m=along("left_shoulder", "left_elbow", "left_wrist"),
        leg_m=along("left_hip", "left_knee", "left_ankle"),
        pelvis_m=float(rest[joint("pelvis"), 1] - ground),
        ankle_m=float(rest[joint("left_ankle"), 1] - ground),
        toe_m=float(rest[joint("left_foot"), 1] - ground),
    )


def _flexion(joints: Float[np.ndarray, "T 24 3"], side: str, chain: tuple[str, str, str]) -> Float[np.ndarray, "T"]:
    upper, middle, lower = (joints[:, joint(f"{side}_{name}")] for name in chain)
    one, two = middle - upper, lower - middle
    cosine = (one * two).sum(-1) / (np.linalg.norm(one, axis=-1) * np.linalg.norm(two, axis=-1)).clip(1e-9)
    return np.arccos(np.clip(cosine, -1, 1))


def _seen(part: str, confidence: Float[np.ndarray, "T 24"]) -> float:
    # The joint that a part shares with its neighbour says nothing about the part.
    own = [joint(name) for name in PARTS[part]] if part == "torso" else [joint(name) for name in PARTS[part][2:]]
    return float(confidence[:, own].mean())
