"""Locomotion: a path, footprints along it, and feet that swing from one to the next.

A footprint is placed where the body will be after `LAND_AHEAD` of the stance, which gives the right step length for any
speed, direction and curve, for starting and stopping, and keeps planted feet exactly fixed.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from stages.synthesis.controls import LEFT, RIGHT, Controls, Style, spline, standing

LAND_AHEAD = 0.4
"""The body passes over a footprint after this share of its stance."""

_TOE_OFF_SPEED = 0.35
"""Speed of a foot at toe-off, over its mean speed in the swing."""


@dataclass(frozen=True)
class Gait:
    """Parameters of one gait."""

    duty_factor: float
    """Share of a gait cycle during which a foot is on the ground."""
    lift_m: float
    strike_rad: float
    """Pitch of the foot at landing; positive with the heel first."""
    toe_off_rad: float
    """Pitch of the foot at toe-off; negative with the toes last."""
    mid_swing_rad: float
    """Pitch of the foot in the middle of its swing."""
    drop_m: float
    """Height of the standing pelvis minus its mean height in this gait."""
    bob_m: float
    """Amplitude of the pelvis' vertical oscillation, which peaks `bob_phase` steps after a landing."""
    bob_phase: float
    swing_rad: float
    lean_rad: float
    elbow_rad: float


WALK = Gait(0.62, 0.03, 0.33, -0.95, -1.05, 0.03, 0.008, 0.62, 0.42, 0.04, 0.1)
RUN = Gait(0.36, 0.18, 0.1, -1.0, -1.4, 0.04, 0.035, 0.85, 0.75, 0.24, 1.25)
BACKWARD = Gait(0.64, 0.05, -0.3, 0.08, 0.0, 0.035, 0.004, 0.62, 0.22, 0.03, 0.1)
SHUFFLE = Gait(0.6, 0.06, -0.12, -0.25, -0.15, 0.03, 0.004, 0.62, 0.12, 0.02, 0.1)


def locomotion(
    seconds: float,
    fps: float,
    style: Style,
    gait: Gait,
    *,
    velocity: tuple[float, float],
    cadence: float,
    turn_rad: float = 0.0,
    first_side: int = LEFT,
) -> Controls:
    """Controls that start from standing, move along a path, and stop in standing.

    velocity: m/s to the left and forwards; cadence: steps per second; turn_rad: total change of heading, positive to the
    left; first_side: the side that steps first.
    """
    n = round(seconds * fps)
    t = np.arange(n) / fps
    begin, end = 0.1, seconds - 0.3
    steps = max(2, round((end - begin) * cadence))
    step_s = (end - begin) / steps
    controls = standing(n, style)
    pace = spline(t, [(begin, 0), (begin + 1.4 * step_s, 1), (end - 1.3 * step_s, 1), (end + 0.2, 0)])
    if pace.sum() == 0:
        pace = np.ones(n)
    controls.heading[:] = turn_rad * np.concatenate([[0], np.cumsum(pace[1:])]) / pace[1:].sum()
    left = np.stack([np.cos(controls.heading), -np.sin(controls.heading)], -1)
    ahead = np.stack([np.sin(controls.heading), np.cos(controls.heading)], -1)
    speed = pace[:, None] * (velocity[0] * left + velocity[1] * ahead)
    controls.path[1:] = np.cumsum((speed[1:] + speed[:-1]) / 2, 0) / fps

    landings_s = begin + step_s * np.arange(1, steps + 1)
    duty = np.full(steps, gait.duty_factor)
    duty[[0, -1]] = max(gait.duty_factor, 0.62)
    duty[[1, -2]] = max(gait.duty_factor, min(0.55, (gait.duty_factor + 0.62) / 2 + 0.03))
    toe_offs_s = landings_s - 2 * step_s * (1 - duty)
    sides = (first_side + np.arange(steps)) % 2
    pitch = np.zeros((n, 2))
    for side in (LEFT, RIGHT):
        side_steps = np.flatnonzero(sides == side)
        for count, k in enumerate(side_steps):
            last = count + 1 == len(side_steps)
            next_toe_off_s = toe_offs_s[side_steps[count + 1]] if not last else np.inf
            last_landing_s = landings_s[side_steps[count - 1]] if count else -np.inf
            swing_span, ground_span = (toe_offs_s[k], landings_s[k]), (last_landing_s, next_toe_off_s)
            passing_s = seconds if last else landings_s[k] + LAND_AHEAD * (next_toe_off_s - landings_s[k])
            width_m = style.stance_m if last else style.gait_m
            _swing(controls, pitch, t, side, swing_span, ground_span, passing_s, width_m, gait, style)
    controls.foot_pitch = pitch
    effort = pace * min(1.0, 0.5 + abs(velocity[1]))
    phase = (t - begin) / step_s
    controls.pelvis_offset[:, 1] = -gait.drop_m * pace + gait.bob_m * effort * np.cos(
        2 * np.pi * (phase - gait.bob_phase)
    )
    controls.spine[:, 0] = gait.lean_rad * pace * 0.6
    controls.pelvis[:, 0] = gait.lean_rad * pace * 0.4
    controls.swing_rad = gait.swing_rad * style.energy * pace
    controls.arm[:, :, 3] += (gait.elbow_rad * pace)[:, None]
    return controls


def _swing(
    controls: Controls,
    pitch: Float[np.ndarray, "n 2"],
    t: Float[np.ndarray, "n"],
    side: int,
    swing_span: tuple[float, float],
    ground_span: tuple[float, float],
    passing_s: float,
    width_m: float,
    gait: Gait,
    style: Style,
) -> None:
    """Write one step of one foot into the controls: its position before toe-off, the swing, and the new footprint.

    swing_span: times of toe-off and landing; ground_span: the landing before and the toe-off after them; passing_s: when
    the body passes over the new footprint. All in seconds.
    """
    leave, land = swing_span
    sign = 1.0 if side == LEFT else -1.0
    heading = np.interp(passing_s, t, controls.heading)
    body = np.array([np.interp(passing_s, t, controls.path[:, axis]) for axis in (0, 1)])
    target = body + sign * width_m / 2 * np.array([np.cos(heading), -np.sin(heading)])
    target_yaw = heading + sign * style.toe_out_rad
    u = np.clip((t - leave) / (land - leave), 0, 1)
    # Fast toe-off without early arrival: otherwise the foot is out of reach, first behind the body, later ahead of it.
    ease = u**2 * (3 - 2 * u) + _TOE_OFF_SPEED * u * (1 - u) ** 2
    i = max(0, int(np.searchsorted(t, leave)) - 1)
    start, start_yaw = controls.foot[i, side].copy(), controls.foot_yaw[i, side]
    controls.foot[:, side] = np.where(
        (t > leave)[:, None], start + ease[:, None] * (target - start), controls.foot[:, side]
    )
    controls.foot_yaw[:, side] = np.where(
        t > leave, start_yaw + ease * (target_yaw - start_yaw), controls.foot_yaw[:, side]
    )

    swing_s = land - leave
    size = min(1.0, 0.35 + float(np.linalg.norm(target - start)))
    inside = (t > leave) & (t < land)
    lift = spline(t, [(leave, 0), (leave + 0.4 * swing_s, gait.lift_m * style.energy), (land, 0)])
    controls.foot_lift[inside, side] = lift[inside]
    roll_off_s = min(0.5 * (leave - ground_span[0]), 0.36) if np.isfinite(ground_span[0]) else 0.25
    roll_down_s = min(0.3 * (ground_span[1] - land), 0.12) if np.isfinite(ground_span[1]) else 0.12
    knots = [
        (leave - roll_off_s, 0.0), (leave, gait.toe_off_rad * size), (leave + 0.25 * swing_s, gait.mid_swing_rad * size),
        (leave + 0.9 * swing_s, gait.strike_rad * size), (land, gait.strike_rad * size), (land + roll_down_s, 0.0),
    ]  # fmt: skip
    pitched = (t > leave - roll_off_s) & (t < land + roll_down_s)
    pitch[pitched, side] = spline(t, knots)[pitched]
    toes = spline(t, [(leave, 1), (leave + 0.5 * swing_s, 0.3), (land, 1)])
    controls.toe_flat[inside, side] = toes[inside]
    controls.planted[inside, side] = False
