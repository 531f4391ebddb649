"""Kinematics in body coordinates over time, the input of the caption rules.

Body axes: x to the person's left, y up from the ground, z in the facing direction of the pelvis, origin below the pelvis.
The values do not depend on the person's heading or the camera.
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
"""Height of the lowest joint of the feet above the sole in the zero pose."""
_SUPPORT_S = 2.0
"""Window within which some joint touches the supporting surface."""
_HAND_SIGMA_FRAMES = 0.6
"""Smoothing of the forearms, weaker than elsewhere: a hand may wave three times a second."""


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
    """Smoothed signals at `FPS` in metres, seconds and radians."""

    joints: Float[np.ndarray, "T 24 3"]
    """World positions, heights above the supporting surface, which makes them robust to a floating or sinking fit."""
    support: Float[np.ndarray, "T"]
    """Height of the supporting surface in the world, subtracted from the heights of `joints`."""
    local: Float[np.ndarray, "T 24 3"]
    """Joint positions in body axes."""
    heading: Float[np.ndarray, "T"]
    """Yaw of the pelvis, unwrapped, positive to the left."""
    velocity: Float[np.ndarray, "T 2"]
    """Ground velocity of the pelvis: to the left and forwards."""
    pitch: Float[np.ndarray, "T"]
    """Lean of the trunk, forwards positive."""
    roll: Float[np.ndarray, "T"]
    """Lean of the trunk, to the person's left positive."""
    twist: Float[np.ndarray, "T"]
    """Yaw of the shoulders relative to the pelvis, to the left positive."""
    tilt: Float[np.ndarray, "T"]
    """Angle between trunk and vertical."""
    angular_velocity: Float[np.ndarray, "T 3"]
    """Of the pelvis about its own axes (left, up, ahead), radians a second."""
    uprightness: Float[np.ndarray, "T"]
    """Vertical component of the pelvis' up axis: 1 upright, 0 lying, -1 upside down."""
    forearm: dict[str, Float[np.ndarray, "T 3"]]
    """Elbow to hand by side, in axes that follow the shoulders' yaw, lightly smoothed."""
    elbow: dict[str, Float[np.ndarray, "T"]]
    """Flexion by side, 0 when straight."""
    knee: dict[str, Float[np.ndarray, "T"]]
    """Flexion by side, 0 when straight."""
    size: BodySize
    confidence: dict[str, Float[np.ndarray, "T"]]
    """Mean joint confidence by part, 0 to 1."""
    visible: dict[str, bool]
    """Whether a part was observed confidently enough to be described."""

    def __len__(self) -> int:
        return len(self.heading)

    def in_body(self, name: str) -> Float[np.ndarray, "T 3"]:
        """A joint in body axes."""
        return self.local[:, joint(name)]

    def in_world(self, name: str) -> Float[np.ndarray, "T 3"]:
        """A joint in the world."""
        return self.joints[:, joint(name)]


def pelvis_height(k: Kinematics) -> Float[np.ndarray, "T"]:
    """Height of the pelvis above the supporting surface."""
    return k.in_world("pelvis")[:, 1]


def feet_lift(k: Kinematics) -> Float[np.ndarray, "T"]:
    """Height of the lower foot, ankle and toe, above its height when standing."""
    lift = np.full(len(k), np.inf)
    for side in SIDES:
        lift = np.minimum(lift, k.in_world(f"{side}_ankle")[:, 1] - k.size.ankle_m)
        lift = np.minimum(lift, k.in_world(f"{side}_foot")[:, 1] - k.size.toe_m)
    return lift


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
    """Signals of a motion; Gaussian sigmas: `smoothing_s` for limbs, `travel_smoothing_s` for root path and heading."""
    # Bodies are slightly asymmetric; a symmetric rest pose makes a mirrored motion give bit-identical mirrored signals.
    order, flip = list(mirror_order(SMPL_JOINTS)), torch.tensor([-1.0, 1.0, 1.0], dtype=torch.float64)
    rest = (rest_joints.double() + rest_joints.double()[order] * flip) / 2
    with torch.no_grad():
        positions, global_rotations = forward_kinematics(rotations.double(), rest, trans.double())
    confidence = {part: _confidence(part, joint_confidence) for part in PARTS}
    return curves(
        positions.numpy(),
        global_rotations[:, 0].numpy(),
        body_size(rest.numpy()),
        confidence,
        {part: _mean_while_seen(confidence[part]) >= min_confidence for part in PARTS},
        limb_sigma=smoothing_s * FPS,
        travel_sigma=travel_smoothing_s * FPS,
    )


def curves(
    raw: Float[np.ndarray, "T 24 3"],
    pelvis_rotations: Float[np.ndarray, "T 3 3"],
    size: BodySize,
    confidence: dict[str, Float[np.ndarray, "T"]],
    visible: dict[str, bool],
    *,
    limb_sigma: float,
    travel_sigma: float,
) -> Kinematics:
    """Signals from joint positions and pelvis orientation; sigmas in frames."""
    joints = smooth_path(raw, limb_sigma)
    support = _support_height(joints, size)
    joints[..., 1] -= support[:, None]
    yaw = heading_rad(torch.from_numpy(pelvis_rotations)).numpy()
    heading = smooth_path(np.unwrap(yaw), travel_sigma)
    pelvis = joints[:, joint("pelvis")]
    local = into_body_axes(joints - pelvis[:, None] * [1.0, 0.0, 1.0], heading)
    world_velocity = derivative(smooth_path(raw[:, joint("pelvis")], travel_sigma), FPS)
    velocity = into_body_axes(world_velocity[:, None], heading)[:, 0]
    trunk = local[:, joint("neck")] - local[:, joint("pelvis")]
    up = trunk / np.linalg.norm(trunk, axis=-1, keepdims=True).clip(1e-6)
    shoulders = local[:, joint("left_shoulder")] - local[:, joint("right_shoulder")]
    twist = np.unwrap(np.arctan2(-shoulders[:, 2], shoulders[:, 0]))
    hands = into_body_axes(smooth_path(raw, _HAND_SIGMA_FRAMES)[:, _FOREARMS], heading + twist)
    return Kinematics(
        joints=joints,
        support=support,
        local=local,
        heading=heading,
        velocity=velocity[:, [0, 2]],
        pitch=np.arctan2(up[:, 2], up[:, 1]),
        roll=np.arctan2(up[:, 0], up[:, 1]),
        twist=twist,
        tilt=np.arccos(np.clip(up[:, 1], -1, 1)),
        angular_velocity=smooth_path(_angular_velocity(pelvis_rotations), limb_sigma),
        uprightness=smooth_path(pelvis_rotations[:, 1, 1], limb_sigma),
        forearm={side: hands[:, 2 * i + 1] - hands[:, 2 * i] for i, side in enumerate(SIDES)},
        elbow={side: _flexion(joints, side, ("shoulder", "elbow", "wrist")) for side in SIDES},
        knee={side: _flexion(joints, side, ("hip", "knee", "ankle")) for side in SIDES},
        size=size,
        confidence=confidence,
        visible=visible,
    )


def into_body_axes(vectors: Float[np.ndarray, "T J 3"], heading: Float[np.ndarray, "T"]) -> Float[np.ndarray, "T J 3"]:
    """World vectors rotated by the negative heading."""
    c, s = np.cos(heading)[:, None], np.sin(heading)[:, None]
    x, y, z = vectors[..., 0], vectors[..., 1], vectors[..., 2]
    return np.stack([c * x - s * z, y, s * x + c * z], axis=-1)


def body_size(rest: Float[np.ndarray, "24 3"]) -> BodySize:
    """Lengths measured on the joints of the zero pose."""

    def chain_length(*names: str) -> float:
        chains = [rest[[joint(f"{side}_{name}") for name in names]] for side in SIDES]
        return float(np.mean([np.linalg.norm(np.diff(chain, axis=0), axis=-1).sum() for chain in chains]))

    def above_ground(*names: str) -> float:
        return float(rest[[joint(name) for name in names], 1].mean() - ground)

    ground = rest[:, 1].min() - _SOLE_M
    return BodySize(
        arm_m=chain_length("shoulder", "elbow", "wrist"),
        leg_m=chain_length("hip", "knee", "ankle"),
        pelvis_m=above_ground("pelvis"),
        ankle_m=above_ground("left_ankle", "right_ankle"),
        toe_m=above_ground("left_foot", "right_foot"),
    )


def _support_height(joints: Float[np.ndarray, "T 24 3"], size: BodySize) -> Float[np.ndarray, "T"]:
    """Height of the supporting surface: the lowest joint within a window, minus its standing height above the ground."""
    lowest = minimum_filter1d(joints[..., 1].min(axis=1), round(_SUPPORT_S * FPS) + 1, mode="nearest")
    return smooth(lowest, _SUPPORT_S * FPS / 4) - size.toe_m


def _angular_velocity(rotations: Float[np.ndarray, "T 3 3"]) -> Float[np.ndarray, "T 3"]:
    """About the body's own axes; rotations between frames are small, so the antisymmetric part of the change suffices."""
    if len(rotations) < 2:
        return np.zeros((len(rotations), 3))
    change = np.swapaxes(rotations[:-1], 1, 2) @ rotations[1:]
    spin = np.stack([change[:, 2, 1], change[:, 0, 2], change[:, 1, 0]], axis=-1)
    spin -= np.stack([change[:, 1, 2], change[:, 2, 0], change[:, 0, 1]], axis=-1)
    return np.concatenate([spin, spin[-1:]]) * FPS / 2


def _flexion(joints: Float[np.ndarray, "T 24 3"], side: str, chain: tuple[str, str, str]) -> Float[np.ndarray, "T"]:
    upper, middle, lower = (joints[:, joint(f"{side}_{name}")] for name in chain)
    proximal, distal = middle - upper, lower - middle
    cosine = (proximal * distal).sum(-1) / (np.linalg.norm(proximal, axis=-1) * np.linalg.norm(distal, axis=-1)).clip(
        1e-9
    )
    return np.arccos(np.clip(cosine, -1, 1))


def _mean_while_seen(confidence: Float[np.ndarray, "T"]) -> float:
    """Mean over the frames in which a part was seen; it has no confidence in the others."""
    return float(confidence.sum() / max(1, np.count_nonzero(confidence)))


def _confidence(part: str, joint_confidence: Float[np.ndarray, "T 24"]) -> Float[np.ndarray, "T"]:
    # Shoulders and hips stay visible when the rest of a limb is hidden, so only the joints below them count.
    distal = ("elbow", "wrist", "knee", "ankle")
    joints = [joint(name) for name in PARTS[part] if part == "torso" or name.endswith(distal)]
    return joint_confidence[:, joints].mean(-1)
