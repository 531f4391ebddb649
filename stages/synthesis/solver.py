"""Controls to SMPL rotations: pelvis from the feet, legs by two-bone inverse kinematics, trunk and arms from angles."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float

from schemas.curves import smooth
from schemas.skeleton import joint
from stages.synthesis.controls import LEFT, RIGHT, Controls, Style, drift

_MAX_EXTENSION = 0.996
"""Largest hip-to-ankle distance over the leg's length: a straight knee makes the solution jump."""
_SMOOTHING_FRAMES = 3
_LEVEL_RAD = 0.008
"""Largest pitch of a foot that is in contact at both heel and toes."""
_MIRROR = np.diag([-1.0, 1.0, 1.0])
_SIDES = ("left", "right")


@dataclass(frozen=True)
class FootShape:
    """The sole of a foot in the rest pose: metres, relative to the ankle joint."""

    heel: Float[np.ndarray, "3"]
    ball: Float[np.ndarray, "3"]
    """Point on the ground below the toe joint."""
    toe: Float[np.ndarray, "3"]
    """Tip of the toes, on the ground."""
    hinge: Float[np.ndarray, "3"]
    """The toe joint itself."""


def foot_shapes(
    rest_joints: Float[np.ndarray, "24 3"], vertices: Float[np.ndarray, "V 3"], weights: Float[np.ndarray, "V 24"]
) -> tuple[FootShape, FootShape]:
    """Left and right sole of a body in its rest pose."""
    dominant = weights.argmax(1)
    shapes = []
    for side in _SIDES:
        ankle, hinge = rest_joints[joint(f"{side}_ankle")], rest_joints[joint(f"{side}_foot")]
        points = vertices[np.isin(dominant, [joint(f"{side}_ankle"), joint(f"{side}_foot")])]
        ground = points[:, 1].min()

        def at(x: float, z: float, ankle: np.ndarray = ankle, ground: float = ground) -> np.ndarray:
            return np.array([x, ground, z]) - ankle

        shapes.append(
            FootShape(
                heel=at(ankle[0], points[:, 2].min() + 0.032),
                ball=at(hinge[0], hinge[2]),
                toe=at(hinge[0], points[:, 2].max() - 0.01),
                hinge=hinge - ankle,
            )
        )
    return shapes[LEFT], shapes[RIGHT]


def rotation_x(angle: Float[np.ndarray, "*n"]) -> Float[np.ndarray, "*n 3 3"]:
    """Rotation about +X."""
    return _axis_rotation(angle, 0)


def rotation_y(angle: Float[np.ndarray, "*n"]) -> Float[np.ndarray, "*n 3 3"]:
    """Rotation about +Y."""
    return _axis_rotation(angle, 1)


def rotation_z(angle: Float[np.ndarray, "*n"]) -> Float[np.ndarray, "*n 3 3"]:
    """Rotation about +Z."""
    return _axis_rotation(angle, 2)


def _axis_rotation(angle: Float[np.ndarray, "*n"], axis: int) -> Float[np.ndarray, "*n 3 3"]:
    angle = np.asarray(angle, dtype=float)
    out = np.zeros((*angle.shape, 3, 3))
    i, j = (axis + 1) % 3, (axis + 2) % 3
    out[..., axis, axis] = 1
    out[..., i, i] = out[..., j, j] = np.cos(angle)
    out[..., j, i] = np.sin(angle)
    out[..., i, j] = -np.sin(angle)
    return out


def from_pitch_yaw_roll(angles: Float[np.ndarray, "n 3"]) -> Float[np.ndarray, "n 3 3"]:
    """Rotation matrices from pitch, yaw and roll: intrinsic rotations in the order yaw, pitch, roll."""
    return rotation_y(angles[:, 1]) @ rotation_x(angles[:, 0]) @ rotation_z(angles[:, 2])


def solve(
    controls: Controls,
    style: Style,
    rest_joints: Float[np.ndarray, "24 3"],
    soles: tuple[FootShape, FootShape],
    fps: float,
    rng: np.random.Generator,
) -> tuple[Float[np.ndarray, "n 24 3 3"], Float[np.ndarray, "n 3"], Bool[np.ndarray, "n 4"]]:
    """Local rotations, SMPL translation and contacts (columns of CONTACT_POINTS)."""
    n = len(controls)
    stride = _stride(controls, fps)
    weight = smooth(controls.planted[:, LEFT].astype(float) - controls.planted[:, RIGHT], 0.1 * fps)
    sway = drift(np.arange(n) / fps, rng, 9)

    feet, toes, ankles = zip(*(_foot(controls, side, soles[side], rest_joints) for side in (LEFT, RIGHT)), strict=True)
    swing = controls.swing_rad * stride
    # The hip of the front foot is in front too (left foot: pelvis yaw to the right); the shoulders counter-rotate.
    pelvis = controls.pelvis + np.stack([0.012 * sway[:, 0], -0.3 * swing, 0.035 * weight + 0.008 * sway[:, 1]], -1)
    spine = controls.spine + np.stack(
        [style.stoop_rad + 0.012 * sway[:, 2], 0.55 * swing + 0.025 * sway[:, 3], -0.035 * weight], -1
    )
    head = controls.head + np.stack(
        [-0.4 * spine[:, 0] + 0.03 * sway[:, 4], -0.25 * swing + 0.07 * sway[:, 5], np.zeros_like(swing)], -1
    )
    root = rotation_y(controls.heading) @ from_pitch_yaw_roll(pelvis)
    position = _pelvis(controls, root, ankles, rest_joints, weight, sway)

    out = np.broadcast_to(np.eye(3), (n, 24, 3, 3)).copy()
    out[:, 0] = root
    for side, name in enumerate(_SIDES):
        swing_weight = _ramp_inside(~controls.planted[:, side])
        thigh, shin = _leg(side, root, position, ankles[side], feet[side], swing_weight, rest_joints)
        out[:, joint(f"{name}_hip")] = _inverse(root) @ thigh
        out[:, joint(f"{name}_knee")] = _inverse(thigh) @ shin
        out[:, joint(f"{name}_ankle")] = _inverse(shin) @ feet[side]
        out[:, joint(f"{name}_foot")] = _inverse(feet[side]) @ toes[side]
    for name, share in (("spine1", 0.3), ("spine2", 0.35), ("spine3", 0.35)):
        out[:, joint(name)] = from_pitch_yaw_roll(spine * share)
    for name in ("neck", "head"):
        out[:, joint(name)] = from_pitch_yaw_roll(head * 0.5)
    for side, name in enumerate(_SIDES):
        collar, shoulder, elbow, wrist = _arm(side, controls, style, swing, sway)
        out[:, joint(f"{name}_collar")], out[:, joint(f"{name}_shoulder")] = collar, shoulder
        out[:, joint(f"{name}_elbow")], out[:, joint(f"{name}_wrist")] = elbow, wrist
    contacts = np.stack(
        [
            controls.planted[:, s] & (sign * controls.foot_pitch[:, s] > -_LEVEL_RAD)
            for s in (LEFT, RIGHT)
            for sign in (1, -1)
        ],
        -1,
    )
    return out, position - rest_joints[0], contacts


def _inverse(rotation: Float[np.ndarray, "n 3 3"]) -> Float[np.ndarray, "n 3 3"]:
    return rotation.swapaxes(-1, -2)


def _stride(controls: Controls, fps: float) -> Float[np.ndarray, "n"]:
    """Forward distance from the right to the left foot, mapped to -1 to 1 (a long step)."""
    gap = controls.foot[:, LEFT] - controls.foot[:, RIGHT]
    ahead = np.stack([np.sin(controls.heading), np.cos(controls.heading)], -1)
    return np.tanh(smooth((gap * ahead).sum(-1), 0.05 * fps) / 0.6)


def _foot(
    controls: Controls, side: int, sole: FootShape, rest_joints: Float[np.ndarray, "24 3"]
) -> tuple[Float[np.ndarray, "n 3 3"], Float[np.ndarray, "n 3 3"], Float[np.ndarray, "n 3"]]:
    """Global rotations of foot and toes, and position of the ankle."""
    pitch = controls.foot_pitch[:, side]
    yaw = rotation_y(controls.foot_yaw[:, side])
    foot = yaw @ rotation_x(-pitch)
    toes = yaw @ rotation_x(-np.where(pitch < 0, pitch * (1 - controls.toe_flat[:, side]), pitch))
    flat = np.zeros((len(pitch), 3))
    flat[:, [0, 2]] = controls.foot[:, side]
    flat[:, 1] = -sole.heel[1]
    # With toes up the foot pivots on the heel, with heel up on the toe joint while the toes stay level.
    pivot = np.where((pitch > 0)[:, None], sole.heel, sole.hinge)
    ankle = flat + (yaw @ pivot[..., None])[..., 0] - (foot @ pivot[..., None])[..., 0]
    ankle[:, 1] += controls.foot_lift[:, side]
    lowest = np.minimum.reduce(
        [
            (ankle + foot @ sole.heel)[:, 1],
            (ankle + foot @ sole.hinge + toes @ (sole.ball - sole.hinge))[:, 1],
            (ankle + foot @ sole.hinge + toes @ (sole.toe - sole.hinge))[:, 1],
        ]
    )
    ankle[:, 1] += np.where(controls.planted[:, side], 0, np.maximum(0, -lowest))
    return foot, toes, ankle


def _pelvis(
    controls: Controls,
    root: Float[np.ndarray, "n 3 3"],
    ankles: tuple[Float[np.ndarray, "n 3"], ...],
    rest_joints: Float[np.ndarray, "24 3"],
    weight: Float[np.ndarray, "n"],
    sway: Float[np.ndarray, "n 9"],
) -> Float[np.ndarray, "n 3"]:
    """Position of the pelvis above the path, shifted to the supporting leg, within reach of the planted feet."""
    left = np.stack([np.cos(controls.heading), -np.sin(controls.heading)], -1)
    ahead = np.stack([np.sin(controls.heading), np.cos(controls.heading)], -1)
    sideways = controls.pelvis_offset[:, 0] + 0.022 * weight + 0.008 * sway[:, 6]
    forwards = controls.pelvis_offset[:, 2] + 0.006 * sway[:, 7]
    position = np.zeros((len(controls), 3))
    position[:, [0, 2]] = controls.path + sideways[:, None] * left + forwards[:, None] * ahead
    height = rest_joints[0, 1] - rest_joints[joint("left_ankle"), 1] + ankles[LEFT][:, 1].min()
    target = height - 0.012 + controls.pelvis_offset[:, 1]
    max_height = np.full((len(controls), 2), np.inf)
    for side, name in enumerate(_SIDES):
        offset = root @ (rest_joints[joint(f"{name}_hip")] - rest_joints[0])
        upper, lower = _bones(name, rest_joints)
        from_ankle = position + offset - ankles[side]
        horizontal_sq = (from_ankle[:, [0, 2]] ** 2).sum(-1)
        length = (np.linalg.norm(upper) + np.linalg.norm(lower)) * _MAX_EXTENSION
        max_height[:, side] = ankles[side][:, 1] + np.sqrt(np.maximum(length**2 - horizontal_sq, 0.01)) - offset[:, 1]
    max_height[~controls.planted] = np.inf
    limited = np.minimum(target, max_height.min(1))
    position[:, 1] = np.where(controls.airborne, limited, _smoothed_minimum(limited))
    return position


def _ramp_inside(mask: Bool[np.ndarray, "n"]) -> Float[np.ndarray, "n"]:
    """0 outside the mask, rising smoothly to 1 inside it, over the window of `_smoothed_minimum`."""
    return _smoothed_minimum(mask.astype(float))


def _smoothed_minimum(values: Float[np.ndarray, "n"]) -> Float[np.ndarray, "n"]:
    """Moving minimum, then a Hann filter of no greater width: smooth, and never above the value itself."""
    padded = np.pad(values, 2 * _SMOOTHING_FRAMES, mode="edge")
    low = np.lib.stride_tricks.sliding_window_view(padded, 2 * _SMOOTHING_FRAMES + 1).min(1)
    kernel = np.hanning(2 * _SMOOTHING_FRAMES + 3)[1:-1]
    return np.convolve(low, kernel / kernel.sum(), mode="valid")


def _bones(name: str, rest_joints: Float[np.ndarray, "24 3"]) -> tuple[Float[np.ndarray, "3"], Float[np.ndarray, "3"]]:
    hip, knee, ankle = (rest_joints[joint(f"{name}_{j}")] for j in ("hip", "knee", "ankle"))
    return knee - hip, ankle - knee


def _leg(
    side: int,
    root: Float[np.ndarray, "n 3 3"],
    position: Float[np.ndarray, "n 3"],
    ankle: Float[np.ndarray, "n 3"],
    foot: Float[np.ndarray, "n 3 3"],
    swing_weight: Float[np.ndarray, "n"],
    rest_joints: Float[np.ndarray, "24 3"],
) -> tuple[Float[np.ndarray, "n 3 3"], Float[np.ndarray, "n 3 3"]]:
    """Global rotations of thigh and shin that reach the ankle position with the knee forwards (law of cosines)."""
    name = _SIDES[side]
    hip = position + root @ (rest_joints[joint(f"{name}_hip")] - rest_joints[0])
    upper, lower = _bones(name, rest_joints)
    a, b = np.linalg.norm(upper), np.linalg.norm(lower)
    hip_to_ankle = ankle - hip
    length = np.linalg.norm(hip_to_ankle, axis=-1)
    # A swinging foot is pulled in before the knee is straight; a planted one stays in place.
    extension = length / (a + b)
    eased = np.where(extension > 0.88, 0.88 + 0.1 * np.tanh((extension - 0.88) / 0.1), extension)
    d = np.clip((extension + swing_weight * (eased - extension)) * (a + b), abs(a - b) + 0.12, (a + b) * 0.9995)
    down = hip_to_ankle / length[:, None]
    # The knee points midway between the forward axes of the pelvis and of the foot (its yaw alone).
    level = np.cross(foot[..., 0], [0.0, 1.0, 0.0])
    hint = root[..., 2] * 0.5 + level * 0.5
    axis = np.cross(hint, down)
    axis = axis / np.linalg.norm(axis, axis=-1, keepdims=True)
    knee_ahead = np.cross(down, axis)
    cos = np.clip((a**2 + d**2 - b**2) / (2 * a * d), -1, 1)
    knee = a * (cos[:, None] * down + np.sqrt(1 - cos**2)[:, None] * knee_ahead)
    thigh_dir = knee / a
    shin_dir = down * d[:, None] - knee
    shin_dir /= np.linalg.norm(shin_dir, axis=-1, keepdims=True)
    thigh = _frame(thigh_dir, axis) @ _inverse(_frame(upper[None] / a, np.array([[1.0, 0, 0]])))
    shin = _frame(shin_dir, axis) @ _inverse(_frame(lower[None] / b, np.array([[1.0, 0, 0]])))
    return thigh, shin


def _frame(along: Float[np.ndarray, "n 3"], hinge: Float[np.ndarray, "n 3"]) -> Float[np.ndarray, "n 3 3"]:
    """Axes with -y along the bone and x as close to the hinge axis as possible."""
    x = hinge - (hinge * along).sum(-1, keepdims=True) * along
    x = x / np.linalg.norm(x, axis=-1, keepdims=True)
    return np.stack([x, -along, np.cross(x, -along)], -1)


def _arm(
    side: int, controls: Controls, style: Style, swing: Float[np.ndarray, "n"], sway: Float[np.ndarray, "n 9"]
) -> tuple[Float[np.ndarray, "n 3 3"], ...]:
    """Local rotations of collar, shoulder, elbow and wrist, written for the left arm and mirrored for the right."""
    free = 1 - controls.arm_busy[:, side]
    # An arm swings opposite to the leg of its side, more forwards than back; the elbow flexes in the forward swing.
    arm_swing = free * swing * (-1.0 if side == LEFT else 1.0)
    wobble = 0.02 * sway[:, 7 + side]
    flexion = controls.arm[:, side, 0] + arm_swing + 0.15 * abs(arm_swing) + wobble
    spread = controls.arm[:, side, 1] + style.spread_rad
    twist = controls.arm[:, side, 2] - 0.25 * free
    elbow = np.clip(controls.arm[:, side, 3] + style.elbow_rad + 0.5 * np.maximum(arm_swing, 0) + wobble, 0.03, 2.5)
    hang = rotation_z(np.full(len(flexion), -np.pi / 2))
    upper = rotation_x(-flexion) @ rotation_z(spread) @ rotation_y(twist) @ hang
    raised = np.arccos(np.clip(-upper[:, 1, 0], -1, 1))
    shrug = 0.3 * np.maximum(0, raised - 0.7)
    collar = rotation_z(shrug) @ rotation_y(-0.12 * np.clip(upper[:, 2, 0], 0, 1))
    shoulder = _inverse(collar) @ upper
    forearm = rotation_y(-elbow)
    wrist = rotation_y(np.full(len(flexion), -0.08))
    if side == RIGHT:
        collar, shoulder, forearm, wrist = (_MIRROR @ r @ _MIRROR for r in (collar, shoulder, forearm, wrist))
    return collar, shoulder, forearm, wrist
