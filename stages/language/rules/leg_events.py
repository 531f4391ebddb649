"""Rules for a leg. The sides differ only in the sign of x."""

import numpy as np
from jaxtyping import Bool, Float

from schemas.records import FPS
from schemas.skeleton import swap_sides
from stages.language.rules import signals
from stages.language.rules.kinematics import Kinematics
from stages.language.rules.movements import PartMovements, add_bends, path_speed
from stages.language.rules.signals import Span
from stages.language.rules.thresholds import Thresholds

_PAUSE_S = 0.4
"""Maximum pause of a foot in the air within one movement."""


def leg_events(
    k: Kinematics, side: str, airborne: list[Span], running: list[Span], engaged: list[Span], limits: Thresholds
) -> PartMovements:
    """Kick, step, swing, raise, lower, bend, extend; only kick, bend and extend while the body is airborne;
    no kick within `engaged` spans, where an activity of the body explains it."""
    part = PartMovements(f"{side}_leg", len(k), limits)
    ankle = k.in_world(f"{side}_ankle")
    lift = ankle[:, 1] - k.size.ankle_m
    joint = f"{side}_ankle"
    part.spans += engaged
    _add_kicks(part, k, lift, running, joint)
    part.spans = part.spans[len(engaged) :]
    kicks = len(part.spans)
    part.spans += airborne
    speed = np.linalg.norm(signals.derivative(signals.smooth_path(ankle, limits.smoothing_s * FPS), FPS), axis=-1)
    # In a jittery fit a planted foot moves too: the 20th percentile of the speed estimates this noise.
    noise_mps = min(float(np.percentile(speed, 20)), limits.foot_noise_mps)
    # The stance foot of a running person is never at rest, but much slower than the body.
    speed = speed - limits.foot_going_share * np.linalg.norm(k.velocity, axis=-1)
    on, off = max(limits.foot_on_mps, 2.5 * noise_mps), max(limits.foot_off_mps, 1.6 * noise_mps)
    for span in _merged_in_air(signals.hysteresis(speed, on, off, 3, 2), lift > limits.lift_least_m):
        if not part.is_free(span):
            continue
        first, last = span[0], span[1] - 1
        inside = slice(*span)
        distance_m = float(np.linalg.norm((ankle[last] - ankle[first])[[0, 2]]))
        excursion_m = float(np.linalg.norm((ankle[inside] - ankle[first])[:, [0, 2]], axis=-1).max())
        lift_m = float(lift[inside].max() - min(lift[first], lift[last]))
        lifted = distance_m >= limits.step_sure_m or float(np.ptp(lift[inside])) >= limits.step_lift_m
        top = first + int(np.argmax(lift[inside]))
        held_out = lift_m >= limits.strides.raised_m and _is_held_out(k, side, top, limits)
        if held_out and signals.covered(span, running) < 0.5:
            _add_raise(part, span, top, lift, joint)
        elif distance_m >= limits.step_least_m and lifted:
            part.add("step", span, distance_m, joint=joint)
        elif excursion_m >= limits.leg_swing_m:
            part.add("swing", span, excursion_m, joint=joint, speed=path_speed(ankle, span))
        elif lift_m >= limits.lift_least_m:
            _add_raise(part, span, top, lift, joint)
    part.spans = part.spans[:kicks] + part.spans[kicks + len(airborne) :]
    add_bends(part, k.knee[side], f"{side}_knee")
    return part


def _is_held_out(k: Kinematics, side: str, frame: int, limits: Thresholds) -> bool:
    """Whether a foot is far to the side of its hip or ahead of it: a leg that is lifted; the foot of a step passes below."""
    foot = (k.in_body(f"{side}_ankle") - k.in_body(f"{side}_hip"))[frame]
    out = foot[0] if side == "left" else -foot[0]
    return bool(max(out, foot[2]) > limits.strides.held_out_ratio * k.size.leg_m)


def _add_raise(part: PartMovements, span: Span, top: int, lift: Float[np.ndarray, "T"], joint: str) -> None:
    """A foot that is lifted, and lowered if it comes down again within the span."""
    (first, end), last = span, span[1] - 1
    part.add(
        "raise", (first, max(top + 1, first + 2)), lift[first:end].max() - min(lift[first], lift[last]), joint=joint
    )
    if lift[last] < lift[top] - part.limits.lift_least_m and last > top:
        part.add("lower", (top, end), lift[top] - lift[last], joint=joint)


def _add_kicks(
    part: PartMovements, k: Kinematics, lift: Float[np.ndarray, "T"], running: list[Span], joint: str
) -> None:
    """Kicks: a foot moves off the ground fast until the leg is nearly straight, ahead of the hip or to its side."""
    limits, leg_m = part.limits, k.size.leg_m
    foot = (k.in_body(joint) - k.in_body(f"{part.side}_hip")) * [part.sign, 1.0, 1.0]
    speed = np.linalg.norm(signals.derivative(foot, FPS), axis=-1)
    away = np.hypot(foot[:, 2].clip(0), foot[:, 0])
    stretched = np.linalg.norm(foot, axis=-1) > limits.kick_straight_ratio * leg_m
    around = round(0.3 * FPS)
    travel_mps = np.linalg.norm(k.velocity, axis=-1)
    other_mps = np.linalg.norm(signals.derivative(k.in_world(swap_sides(joint)), FPS), axis=-1)
    for span in signals.spans_of(lift > limits.lift_least_m, 3, 2):
        # A standing person who moves a foot up fast kicks, even if the fit recovers only part of the movement.
        standing = float(travel_mps[slice(*span)].max()) < limits.kick_standing_mps
        scale = limits.kick_standing_ratio if standing else 1.0
        reach = np.where((lift > scale * limits.kick_lift_m) & stretched, away, -1.0)[slice(*span)]
        top = span[0] + int(np.argmax(reach))
        top_speed = float(speed[max(0, top - around) : top + 1].max())
        # A runner's feet are fast and may swing up in front; a kick is higher.
        min_lift = limits.kick_lift_m * (2.0 if signals.covered(span, running) > 0.5 else scale)
        if away[top] > limits.kick_away_ratio * leg_m and top_speed > scale * limits.kick_mps and lift[top] > min_lift:
            if reach[top - span[0]] < 0 or not part.is_free(span, 0.3):
                continue
            # The other foot bears the body meanwhile, or goes on with it.
            if top_speed < limits.strides.kick_ratio * float(other_mps[slice(*_kick_span(span, top))].mean()):
                continue
            manner = "high" if lift[top] > 0.9 * leg_m else "side" if foot[top, 0] > 1.2 * foot[top, 2] else ""
            part.add("kick", _kick_span(span, top), float(lift[top]), joint=joint, speed=top_speed, manner=manner)


def _kick_span(span: Span, top: int) -> Span:
    """The span of a kick, limited to one second on either side of its top."""
    return max(span[0], top - round(FPS)), min(span[1], top + round(FPS))


def _merged_in_air(spans: list[Span], lifted: Bool[np.ndarray, "T"]) -> list[Span]:
    """Spans merged across a short pause of the foot in the air, as at the top of a kick."""
    merged: list[Span] = []
    for first, last in spans:
        if merged and first - merged[-1][1] < _PAUSE_S * FPS and lifted[merged[-1][1] - 1 : first + 1].all():
            merged[-1] = (merged[-1][0], last)
        else:
            merged.append((first, last))
    return merged
