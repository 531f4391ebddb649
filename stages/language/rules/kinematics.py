"""A motion as the person's own coordinates over time: what the caption rules look at.

Body axes: x to the person's left, y up from the ground, z where the pelvis faces, origin under the pelvis. A person who
is turned or filmed from another side has the same numbers.
"""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from scipy.ndimage import minimum_filter1d
from torch import Tensor

from schemas.curves import smooth
from schemas.kinematics import forward_kinematics
from schemas.records import FPS
from schemas.rotations import heading_rad
from schemas.skeleton import PARTS, SMPL_JOINTS, joint, mirror_order
from stages.language.rules.signals import derivative, smooth_path

SIDES = ("left", "right")
_FOREARMS = [joint(f"{side}_{name}") for side in SIDES for name in ("elbow", "hand")]
_SOLE_M = 0.03
"""How far the sole lies under the lowest joint of the feet in the zero pose."""
_SUPPORT_S = 2.0
"""Within this time something of the body touches what carries it."""
_HAND_SIGMA_FRAMES = 0.6
"""Smoothing of the forearms, less than of the rest: a hand may wave three times a second."""


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
    """In the world, heights above what carries the body, so that a fit that floats or sinks is none the worse for it."""
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
    tumbling: Float[np.ndarray, "T 3"]
    """How fast the pelvis turns about its own axes: to the left, up and ahead, radians a second."""
    inverted: Float[np.ndarray, "T"]
    """Height of the pelvis' own up axis: 1 upright, 0 lying, -1 upside down."""
    forearm: dict[str, Float[np.ndarray, "T 3"]]
    """Elbow to hand by side, in axes that turn with the shoulders, hardly smoothed."""
    elbow: dict[str, Float[np.ndarray, "T"]]
    """Flexion by side, 0 when straight."""
    knee: dict[str, Float[np.ndarray, "T"]]
    size: BodySize
    confidence: dict[str, Float[np.ndarray, "T"]]
    """How surely a part was seen, 0 to 1."""
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
    # Bodies are a little lopsided; with both sides alike the mirrored motion has the mirrored curves to the last digit.
    order, flip = list(mirror_order(SMPL_JOINTS)), torch.tensor([-1.0, 1.0, 1.0], dtype=torch.float64)
    rest = (rest_joints.double() + rest_joints.double()[order] * flip) / 2
    with torch.no_grad():
        positions, turns = forward_kinematics(rotations.double(), rest, trans.double())
    confidence = {part: _confidence(part, joint_confidence) for part in PARTS}
    return curves(
        positions.numpy(),
        turns[:, 0].numpy(),
        body_size(rest.numpy()),
        confidence,
        {part: float(confidence[part].mean()) >= min_confidence for part in PARTS},
        limb_sigma=smoothing_s * FPS,
        travel_sigma=travel_smoothing_s * FPS,
    )


def curves(
    raw: Float[np.ndarray, "T 24 3"],
    pelvis_turn: Float[np.ndarray, "T 3 3"],
    size: BodySize,
    confidence: dict[str, Float[np.ndarray, "T"]],
    seen: dict[str, bool],
    *,
    limb_sigma: float,
    travel_sigma: float,
) -> Kinematics:
    """Curves from joint positions and the pelvis' orientation; sigmas in frames."""
    joints = smooth_path(raw, limb_sigma)
    joints[..., 1] -= _support(joints, size)[:, None]
    yaw = heading_rad(torch.from_numpy(pelvis_turn)).numpy()
    heading = smooth_path(np.unwrap(yaw), travel_sigma)
    pelvis = joints[:, joint("pelvis")]
    local = into_body_axes(joints - pelvis[:, None] * [1.0, 0.0, 1.0], heading)
    way = derivative(smooth_path(raw[:, joint("pelvis")], travel_sigma), FPS)
    velocity = into_body_axes(way[:, None], heading)[:, 0]
    trunk = local[:, joint("neck")] - local[:, joint("pelvis")]
    up = trunk / np.linalg.norm(trunk, axis=-1, keepdims=True).clip(1e-6)
    shoulders = local[:, joint("left_shoulder")] - local[:, joint("right_shoulder")]
    twist = np.unwrap(np.arctan2(-shoulders[:, 2], shoulders[:, 0]))
    hands = into_body_axes(smooth_path(raw, _HAND_SIGMA_FRAMES)[:, _FOREARMS], heading + twist)
    return Kinematics(
        joints=joints,
        local=local,
        heading=heading,
        velocity=velocity[:, [0, 2]],
        pitch=np.arctan2(up[:, 2], up[:, 1]),
        roll=np.arctan2(up[:, 0], up[:, 1]),
        twist=twist,
        tilt=np.arccos(np.clip(up[:, 1], -1, 1)),
        tumbling=smooth_path(_angular_velocity(pelvis_turn), limb_sigma),
        inverted=smooth_path(pelvis_turn[:, 1, 1], limb_sigma),
        forearm={side: hands[:, 2 * i + 1] - hands[:, 2 * i] for i, side in enumerate(SIDES)},
        elbow={side: _flexion(joints, side, ("shoulder", "elbow", "wrist")) for side in SIDES},
        knee={side: _flexion(joints, side, ("hip", "knee", "ankle")) for side in SIDES},
        size=size,
        confidence=confidence,
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
        limbs = [rest[[joint(f"{side}_{name}") for name in names]] for side in SIDES]
        return float(np.mean([np.linalg.norm(np.diff(places, axis=0), axis=-1).sum() for places in limbs]))

    def above_ground(*names: str) -> float:
        return float(rest[[joint(name) for name in names], 1].mean() - ground)

    ground = rest[:, 1].min() - _SOLE_M
    return BodySize(
        arm_m=along("shoulder", "elbow", "wrist"),
        leg_m=along("hip", "knee", "ankle"),
        pelvis_m=above_ground("pelvis"),
        ankle_m=above_ground("left_ankle", "right_ankle"),
        toe_m=above_ground("left_foot", "right_foot"),
    )


def _support(joints: Float[np.ndarray, "T 24 3"], size: BodySize) -> Float[np.ndarray, "T"]:
    """Height of what carries the body: the lowest joint of some time around, less than it has above the ground."""
    lowest = minimum_filter1d(joints[..., 1].min(axis=1), round(_SUPPORT_S * FPS) + 1, mode="nearest")
    return smooth(lowest, _SUPPORT_S * FPS / 4) - size.toe_m


def _angular_velocity(turns: Float[np.ndarray, "T 3 3"]) -> Float[np.ndarray, "T 3"]:
    """Of the body about its own axes; small turns from frame to frame, so the antisymmetric part of the change is enough."""
    if len(turns) < 2:
        return np.zeros((len(turns), 3))
    change = np.swapaxes(turns[:-1], 1, 2) @ turns[1:]
    spin = np.stack([change[:, 2, 1], change[:, 0, 2], change[:, 1, 0]], axis=-1)
    spin -= np.stack([change[:, 1, 2], change[:, 2, 0], change[:, 0, 1]], axis=-1)
    return np.concatenate([spin, spin[-1:]]) * FPS / 2


def _flexion(joints: Float[np.ndarray, "T 24 3"], side: str, chain: tuple[str, str, str]) -> Float[np.ndarray, "T"]:
    upper, middle, lower = (joints[:, joint(f"{side}_{name}")] for name in chain)
    one, two = middle - upper, lower - middle
    cosine = (one * two).sum(-1) / (np.linalg.norm(one, axis=-1) * np.linalg.norm(two, axis=-1)).clip(1e-9)
    return np.arccos(np.clip(cosine, -1, 1))


def _confidence(part: str, of_joints: Float[np.ndarray, "T 24"]) -> Float[np.ndarray, "T"]:
    # What a limb does is where it bends and ends; shoulders and hips are seen when all else of it is hidden.
    telling = ("elbow", "wrist", "knee", "ankle")
    own = [joint(name) for name in PARTS[part] if part == "torso" or name.endswith(telling)]
    return of_joints[:, own].mean(-1)
