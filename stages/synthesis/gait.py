"""Going somewhere on two feet: a path, footprints along it, and feet that swing from one to the next.

A footprint is laid where the body will be a little later (`LAND_AHEAD` of the stance), which gives steps of the right
length for any speed, direction and curve, for starting and for stopping, and keeps planted feet exactly still.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from stages.synthesis.controls import LEFT, RIGHT, Controls, Style, spline, still

LAND_AHEAD = 0.4
"""The body passes over a footprint after this share of its stance."""

_KICK_OFF = 0.35
"""Speed at which a foot leaves the ground, over its mean speed in the swing."""


@dataclass(frozen=True)
class Gait:
    """Amplitudes of one way of walking."""

    duty: float
    """Share of a cycle that a foot stays on the ground."""
    lift_m: float
    strike_rad: float
    """Pitch of the foot as it lands; positive with the heel first."""
    leave_rad: float
    """Pitch of the foot as it leaves; negative with the toes last."""
    fold_rad: float
    """Pitch of the foot while it swings past."""
    drop_m: float
    """How much lower the pelvis is than in standing."""
    bob_m: float
    """Rise of the pelvis after the middle of its step; its time is `bob_phase`, in steps after a landing."""
    bob_phase: float
    swing_rad: float
    lean_rad: float
    elbow_rad: float


WALK = Gait(0.62, 0.03, 0.33, -0.95, -1.05, 0.03, 0.008, 0.62, 0.42, 0.04, 0.1)
RUN = Gait(0.36, 0.18, 0.1, -1.0, -1.4, 0.04, 0.035, 0.85, 0.75, 0.24, 1.25)
BACKWARD = Gait(0.64, 0.05, -0.3, 0.08, 0.0, 0.035, 0.004, 0.62, 0.22, 0.03, 0.1)
SHUFFLE = Gait(0.6, 0.06, -0.12, -0.25, -0.15, 0.03, 0.004, 0.62, 0.12, 0.02, 0.1)


def travel(
    seconds: float,
    fps: float,
    style: Style,
    gait: Gait,
    *,
    velocity: tuple[float, float],
    cadence: float,
    turn_rad: float = 0.0,
    first: int = LEFT,
) -> Controls:
    """Start from standing, go, and stand again.

    velocity: metres a second to the left and forwards; cadence: steps a second; turn_rad: change of heading over the
    whole way, to the left; first: the side that steps first.
    """
    n = round(seconds * fps)
    t = np.arange(n) / fps
    begin, end = 0.1, seconds - 0.3
    steps = max(2, round((end - begin) * cadence))
    beat = (end - begin) / steps
    controls = still(n, style)
    pace = spline(t, [(begin, 0), (begin + 1.4 * beat, 1), (end - 1.3 * beat, 1), (end + 0.2, 0)])
    if pace.sum() == 0:
        pace = np.ones(n)
    controls.heading[:] = turn_rad * np.concatenate([[0], np.cumsum(pace[1:])]) / pace[1:].sum()
    left = np.stack([np.cos(controls.heading), -np.sin(controls.heading)], -1)
    ahead = np.stack([np.sin(controls.heading), np.cos(controls.heading)], -1)
    speed = pace[:, None] * (velocity[0] * left + velocity[1] * ahead)
    controls.path[1:] = np.cumsum((speed[1:] + speed[:-1]) / 2, 0) / fps

    landings = begin + beat * np.arange(1, steps + 1)
    duty = np.full(steps, gait.duty)
    duty[[0, -1]] = max(gait.duty, 0.62)
    duty[[1, -2]] = max(gait.duty, min(0.55, (gait.duty + 0.62) / 2 + 0.03))
    leavings = landings - 2 * beat * (1 - duty)
    sides = (first + np.arange(steps)) % 2
    pitch = np.zeros((n, 2))
    for side in (LEFT, RIGHT):
        mine = np.flatnonzero(sides == side)
        for count, k in enumerate(mine):
            last = count + 1 == len(mine)
            until = leavings[mine[count + 1]] if not last else np.inf
            since = landings[mine[count - 1]] if count else -np.inf
            middle = seconds if last else landings[k] + LAND_AHEAD * (until - landings[k])
            width = style.stance_m if last else style.gait_m
            _swing(controls, pitch, t, side, (leavings[k], landings[k]), (since, until), middle, width, gait, style)
    controls.foot_pitch = pitch
    effort = pace * min(1.0, 0.5 + abs(velocity[1]))
    phase = (t - begin) / beat
    controls.shift[:, 1] = -gait.drop_m * pace + gait.bob_m * effort * np.cos(2 * np.pi * (phase - gait.bob_phase))
    controls.spine[:, 0] = gait.lean_rad * pace * 0.6
    controls.pelvis[:, 0] = gait.lean_rad * pace * 0.4
    controls.swing = gait.swing_rad * style.energy * pace
    controls.arm[:, :, 3] += (gait.elbow_rad * pace)[:, None]
    return controls


def _swing(
    controls: Controls,
    pitch: Float[np.ndarray, "n 2"],
    t: Float[np.ndarray, "n"],
    side: int,
    flight: tuple[float, float],
    rest: tuple[float, float],
    middle_s: float,
    width_m: float,
    gait: Gait,
    style: Style,
) -> None:
    """Write one step of one foot into the controls: where it was until it leaves, the swing, and where it lands.

    flight: times of leaving and landing; rest: landing before and leaving after it; middle_s: when the body will be
    over the new footprint.
    """
    leave, land = flight
    sign = 1.0 if side == LEFT else -1.0
    heading = np.interp(middle_s, t, controls.heading)
    body = np.array([np.interp(middle_s, t, controls.path[:, axis]) for axis in (0, 1)])
    target = body + sign * width_m / 2 * np.array([np.cos(heading), -np.sin(heading)])
    there = heading + sign * style.toe_out_rad
    u = np.clip((t - leave) / (land - leave), 0, 1)
    # Quick to leave and not there early: the leg would be out of reach behind the body first, before it later.
    ease = u**2 * (3 - 2 * u) + _KICK_OFF * u * (1 - u) ** 2
    i = max(0, int(np.searchsorted(t, leave)) - 1)
    start, start_yaw = controls.foot[i, side].copy(), controls.foot_yaw[i, side]
    controls.foot[:, side] = np.where(
        (t > leave)[:, None], start + ease[:, None] * (target - start), controls.foot[:, side]
    )
    controls.foot_yaw[:, side] = np.where(t > leave, start_yaw + ease * (there - start_yaw), controls.foot_yaw[:, side])

    swing = land - leave
    size = min(1.0, 0.35 + float(np.linalg.norm(target - start)))
    inside = (t > leave) & (t < land)
    lift = spline(t, [(leave, 0), (leave + 0.4 * swing, gait.lift_m * style.energy), (land, 0)])
    controls.foot_lift[inside, side] = lift[inside]
    roll_off = min(0.5 * (leave - rest[0]), 0.36) if np.isfinite(rest[0]) else 0.25
    roll_down = min(0.3 * (rest[1] - land), 0.12) if np.isfinite(rest[1]) else 0.12
    knots = [
        (leave - roll_off, 0.0), (leave, gait.leave_rad * size), (leave + 0.25 * swing, gait.fold_rad * size),
        (leave + 0.9 * swing, gait.strike_rad * size), (land, gait.strike_rad * size), (land + roll_down, 0.0),
    ]  # fmt: skip
    here = (t > leave - roll_off) & (t < land + roll_down)
    pitch[here, side] = spline(t, knots)[here]
    toes = spline(t, [(leave, 1), (leave + 0.5 * swing, 0.3), (land, 1)])
    controls.toe_flat[inside, side] = toes[inside]
    controls.planted[inside, side] = False
