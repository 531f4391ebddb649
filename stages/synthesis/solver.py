"""From controls to SMPL rotations: pelvis from the feet, legs by two-bone inverse kinematics, trunk and arms by angles."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float

from schemas.curves import smooth
from schemas.skeleton import joint
from stages.synthesis.controls import LEFT, RIGHT, Controls, Style, drift

_REACH = 0.996
"""Legs are never straighter than this share of their length: a straight knee makes the solution jump."""
_CAP_FRAMES = 3
_LEVEL_RAD = 0.008
"""A foot tilted by less stands on both heel and toes."""
_MIRROR = np.diag([-1.0, 1.0, 1.0])
_SIDES = ("left", "right")


@dataclass(frozen=True)
class FootShape:
    """The sole under an ankle, in the resting body: metres, relative to the ankle joint."""

    heel: Float[np.ndarray, "3"]
    ball: Float[np.ndarray, "3"]
    """Ground under the toe joint."""
    toe: Float[np.ndarray, "3"]
    """Tip of the toes, on the ground."""
    hinge: Float[np.ndarray, "3"]
    """The toe joint itself."""


def foot_shapes(
    rest_joints: Float[np.ndarray, "24 3"], vertices: Float[np.ndarray, "V 3"], weights: Float[np.ndarray, "V 24"]
) -> tuple[FootShape, FootShape]:
    """Left and right sole of a resting body."""
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


def turn_x(angle: Float[np.ndarray, "*n"]) -> Float[np.ndarray, "*n 3 3"]:
    """Rotation about +X."""
    return _about(angle, 0)


def turn_y(angle: Float[np.ndarray, "*n"]) -> Float[np.ndarray, "*n 3 3"]:
    """Rotation about +Y."""
    return _about(angle, 1)


def turn_z(angle: Float[np.ndarray, "*n"]) -> Float[np.ndarray, "*n 3 3"]:
    """Rotation about +Z."""
    return _about(angle, 2)


def _about(angle: Float[np.ndarray, "*n"], axis: int) -> Float[np.ndarray, "*n 3 3"]:
    angle = np.asarray(angle, dtype=float)
    out = np.zeros((*angle.shape, 3, 3))
    i, j = (axis + 1) % 3, (axis + 2) % 3
    out[..., axis, axis] = 1
    out[..., i, i] = out[..., j, j] = np.cos(angle)
    out[..., j, i] = np.sin(angle)
    out[..., i, j] = -np.sin(angle)
    return out


def bend(angles: Float[np.ndarray, "n 3"]) -> Float[np.ndarray, "n 3 3"]:
    """Pitch, yaw, roll to a matrix: yaw first, then pitch, then roll, each about the axes turned so far."""
    return turn_y(angles[:, 1]) @ turn_x(angles[:, 0]) @ turn_z(angles[:, 2])


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
    idle = drift(np.arange(n) / fps, rng, 9)

    feet, toes, ankles = zip(*(_foot(controls, side, soles[side], rest_joints) for side in (LEFT, RIGHT)), strict=True)
    amount = controls.swing * stride
    # With the left foot in front the left hip is in front too (a turn to the right), the shoulders the other way.
    pelvis = controls.pelvis + np.stack([0.012 * idle[:, 0], -0.3 * amount, 0.035 * weight + 0.008 * idle[:, 1]], -1)
    spine = controls.spine + np.stack(
        [style.stoop_rad + 0.012 * idle[:, 2], 0.55 * amount + 0.025 * idle[:, 3], -0.035 * weight], -1
    )
    head = controls.head + np.stack(
        [-0.4 * spine[:, 0] + 0.03 * idle[:, 4], -0.25 * amount + 0.07 * idle[:, 5], np.zeros_like(amount)], -1
    )
    root = turn_y(controls.heading) @ bend(pelvis)
    position = _pelvis(controls, root, ankles, rest_joints, weight, idle, fps)

    out = np.broadcast_to(np.eye(3), (n, 24, 3, 3)).copy()
    out[:, 0] = root
    for side, name in enumerate(_SIDES):
        free = _well_inside(~controls.planted[:, side])
        thigh, shin = _leg(side, root, position, ankles[side], feet[side], free, rest_joints)
        out[:, joint(f"{name}_hip")] = _inverse(root) @ thigh
        out[:, joint(f"{name}_knee")] = _inverse(thigh) @ shin
        out[:, joint(f"{name}_ankle")] = _inverse(shin) @ feet[side]
        out[:, joint(f"{name}_foot")] = _inverse(feet[side]) @ toes[side]
    for name, share in (("spine1", 0.3), ("spine2", 0.35), ("spine3", 0.35)):
        out[:, joint(name)] = bend(spine * share)
    for name in ("neck", "head"):
        out[:, joint(name)] = bend(head * 0.5)
    for side, name in enumerate(_SIDES):
        collar, shoulder, elbow, wrist = _arm(side, controls, style, amount, idle)
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
    """How far the left foot is in front of the right one, from -1 to 1 for a long step."""
    gap = controls.foot[:, LEFT] - controls.foot[:, RIGHT]
    ahead = np.stack([np.sin(controls.heading), np.cos(controls.heading)], -1)
    return np.tanh(smooth((gap * ahead).sum(-1), 0.05 * fps) / 0.6)


def _foot(
    controls: Controls, side: int, sole: FootShape, rest_joints: Float[np.ndarray, "24 3"]
) -> tuple[Float[np.ndarray, "n 3 3"], Float[np.ndarray, "n 3 3"], Float[np.ndarray, "n 3"]]:
    """Global rotation of the foot and of the toes, and position of the ankle."""
    pitch = controls.foot_pitch[:, side]
    yaw = turn_y(controls.foot_yaw[:, side])
    foot = yaw @ turn_x(-pitch)
    toes = yaw @ turn_x(-np.where(pitch < 0, pitch * (1 - controls.toe_flat[:, side]), pitch))
    flat = np.zeros((len(pitch), 3))
    flat[:, [0, 2]] = controls.foot[:, side]
    flat[:, 1] = -sole.heel[1]
    # The heel turns about its point on the ground, the raised heel about the toe joint, whose toes stay level.
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
    idle: Float[np.ndarray, "n 9"],
    fps: float,
) -> Float[np.ndarray, "n 3"]:
    """Pelvis over the path, towards the standing leg, never higher than planted feet allow."""
    left = np.stack([np.cos(controls.heading), -np.sin(controls.heading)], -1)
    ahead = np.stack([np.sin(controls.heading), np.cos(controls.heading)], -1)
    sway = controls.shift[:, 0] + 0.022 * weight + 0.008 * idle[:, 6]
    surge = controls.shift[:, 2] + 0.006 * idle[:, 7]
    position = np.zeros((len(controls), 3))
    position[:, [0, 2]] = controls.path + sway[:, None] * left + surge[:, None] * ahead
    height = rest_joints[0, 1] - rest_joints[joint("left_ankle"), 1] + ankles[LEFT][:, 1].min()
    wanted = height - 0.012 + controls.shift[:, 1]
    cap = np.full((len(controls), 2), np.inf)
    for side, name in enumerate(_SIDES):
        offset = root @ (rest_joints[joint(f"{name}_hip")] - rest_joints[0])
        upper, lower = _bones(name, rest_joints)
        away = position + offset - ankles[side]
        flat_sq = (away[:, [0, 2]] ** 2).sum(-1)
        length = (np.linalg.norm(upper) + np.linalg.norm(lower)) * _REACH
        cap[:, side] = ankles[side][:, 1] + np.sqrt(np.maximum(length**2 - flat_sq, 0.01)) - offset[:, 1]
    cap[~controls.planted] = np.inf
    limit = cap.min(1)
    soft = _lowest_smoothed(np.minimum(wanted, limit))
    position[:, 1] = np.where(controls.airborne, np.minimum(wanted, limit), soft)
    return position


def _well_inside(mask: Bool[np.ndarray, "n"]) -> Float[np.ndarray, "n"]:
    """0 outside the mask, rising to 1 within `_CAP_FRAMES` frames inside it."""
    return _lowest_smoothed(mask.astype(float))


def _lowest_smoothed(values: Float[np.ndarray, "n"]) -> Float[np.ndarray, "n"]:
    """The lowest value nearby, then smoothed over no more than "nearby": smooth, and never above the value itself."""
    padded = np.pad(values, 2 * _CAP_FRAMES, mode="edge")
    low = np.lib.stride_tricks.sliding_window_view(padded, 2 * _CAP_FRAMES + 1).min(1)
    kernel = np.hanning(2 * _CAP_FRAMES + 3)[1:-1]
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
    free: Float[np.ndarray, "n"],
    rest_joints: Float[np.ndarray, "24 3"],
) -> tuple[Float[np.ndarray, "n 3 3"], Float[np.ndarray, "n 3 3"]]:
    """Global rotations of thigh and shin that bring the ankle to its place, knees forwards (law of cosines)."""
    name = _SIDES[side]
    hip = position + root @ (rest_joints[joint(f"{name}_hip")] - rest_joints[0])
    upper, lower = _bones(name, rest_joints)
    a, b = np.linalg.norm(upper), np.linalg.norm(lower)
    away = ankle - hip
    length = np.linalg.norm(away, axis=-1)
    # A swinging foot gives way before the knee is straight; a planted one stays where it is.
    share = length / (a + b)
    eased = np.where(share > 0.88, 0.88 + 0.1 * np.tanh((share - 0.88) / 0.1), share)
    d = np.clip((share + free * (eased - share)) * (a + b), abs(a - b) + 0.12, (a + b) * 0.9995)
    down = away / length[:, None]
    # The knee points between where the pelvis and where the foot (its yaw alone) look.
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
    """Axes with -y along the bone and x as near to the hinge as it can be."""
    x = hinge - (hinge * along).sum(-1, keepdims=True) * along
    x = x / np.linalg.norm(x, axis=-1, keepdims=True)
    return np.stack([x, -along, np.cross(x, -along)], -1)


def _arm(
    side: int, controls: Controls, style: Style, amount: Float[np.ndarray, "n"], idle: Float[np.ndarray, "n 9"]
) -> tuple[Float[np.ndarray, "n 3 3"], ...]:
    """Local rotations of collar, shoulder, elbow and wrist, written for the left arm and mirrored for the right."""
    free = 1 - controls.hold[:, side]
    # An arm swings against its own leg, more forwards than back; the elbow bends as it comes forward.
    beat = free * amount * (-1.0 if side == LEFT else 1.0)
    wobble = 0.02 * idle[:, 7 + side]
    swing = controls.arm[:, side, 0] + beat + 0.15 * abs(beat) + wobble
    spread = controls.arm[:, side, 1] + style.spread_rad
    twist = controls.arm[:, side, 2] - 0.25 * free
    elbow = np.clip(controls.arm[:, side, 3] + style.elbow_rad + 0.5 * np.maximum(beat, 0) + wobble, 0.03, 2.5)
    hang = turn_z(np.full(len(swing), -np.pi / 2))
    upper = turn_x(-swing) @ turn_z(spread) @ turn_y(twist) @ hang
    raised = np.arccos(np.clip(-upper[:, 1, 0], -1, 1))
    shrug = 0.3 * np.maximum(0, raised - 0.7)
    collar = turn_z(shrug) @ turn_y(-0.12 * np.clip(upper[:, 2, 0], 0, 1))
    shoulder = _inverse(collar) @ upper
    forearm = turn_y(-elbow)
    wrist = turn_y(np.full(len(swing), -0.08))
    if side == RIGHT:
        collar, shoulder, forearm, wrist = (_MIRROR @ r @ _MIRROR for r in (collar, shoulder, forearm, wrist))
    return collar, shoulder, forearm, wrist
