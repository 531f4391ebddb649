"""Rules for a leg. Sides are told apart only by the sign of x."""

import numpy as np
from jaxtyping import Bool, Float

from schemas.records import FPS
from stages.language.rules import signals
from stages.language.rules.kinematics import Kinematics
from stages.language.rules.movements import Part, bends, path_speed
from stages.language.rules.signals import Span
from stages.language.rules.thresholds import Thresholds

_PAUSE_S = 0.4
"""Longest pause of a foot in the air within one movement."""


def leg_events(k: Kinematics, side: str, airborne: list[Span], running: list[Span], limits: Thresholds) -> Part:
    """Kick, step, swing, raise, lower, bend, extend; nothing but kick, bend and extend while the body is in a jump."""
    part = Part(f"{side}_leg", len(k), limits)
    ankle = k.in_world(f"{side}_ankle")
    lift = ankle[:, 1] - k.size.ankle_m
    joint = f"{side}_ankle"
    _kicks(part, k, lift, running, joint)
    kicks = len(part.spans)
    part.spans += airborne
    speed = np.linalg.norm(signals.derivative(signals.smooth_path(ankle, limits.smoothing_s * FPS), FPS), axis=-1)
    # A foot that stands still in a jittery fit is not still: what it does for a fifth of the time is its noise.
    floor = min(float(np.percentile(speed, 20)), limits.foot_noise_mps)
    # The standing foot of somebody who runs is never quite still, but much slower than the body.
    speed = speed - limits.foot_going_share * np.linalg.norm(k.velocity, axis=-1)
    on, off = max(limits.foot_on_mps, 2.5 * floor), max(limits.foot_off_mps, 1.6 * floor)
    for span in _through_the_air(signals.hysteresis(speed, on, off, 3, 2), lift > limits.lift_least_m):
        if not part.free(span):
            continue
        first, last = span[0], span[1] - 1
        inside = slice(*span)
        moved = float(np.linalg.norm((ankle[last] - ankle[first])[[0, 2]]))
        astray = float(np.linalg.norm((ankle[inside] - ankle[first])[:, [0, 2]], axis=-1).max())
        lifted = float(lift[inside].max() - min(lift[first], lift[last]))
        if moved >= limits.step_least_m:
            part.add("step", span, moved, joint=joint)
        elif astray >= limits.leg_swing_m:
            part.add("swing", span, astray, joint=joint, speed=path_speed(ankle, span))
        elif lifted >= limits.lift_least_m:
            top = first + int(np.argmax(lift[inside]))
            part.add("raise", (first, max(top + 1, first + 2)), lifted, joint=joint)
            if lift[last] < lift[top] - limits.lift_least_m and last > top:
                part.add("lower", (top, last + 1), lift[top] - lift[last], joint=joint)
    part.spans = part.spans[:kicks] + part.spans[kicks + len(airborne) :]
    bends(part, k.knee[side], f"{side}_knee")
    return part


def _kicks(part: Part, k: Kinematics, lift: Float[np.ndarray, "T"], running: list[Span], joint: str) -> None:
    """A foot that shoots off the ground until the leg is nearly straight, ahead of the hip or out to its side."""
    limits, leg_m = part.limits, k.size.leg_m
    foot = (k.at(joint) - k.at(f"{part.side}_hip")) * [part.sign, 1.0, 1.0]
    speed = np.linalg.norm(signals.derivative(foot, FPS), axis=-1)
    away = np.hypot(foot[:, 2].clip(0), foot[:, 0])
    stretched = np.linalg.norm(foot, axis=-1) > limits.kick_straight_ratio * leg_m
    around = round(0.3 * FPS)
    going = np.linalg.norm(k.velocity, axis=-1)
    for span in signals.spans_of(lift > limits.lift_least_m, 3, 2):
        # Of somebody who stays where they are a foot that shoots up in front is a kick, though a fit may see little of it.
        stays = float(going[slice(*span)].max()) < limits.kick_standing_mps
        slack = limits.kick_standing_ratio if stays else 1.0
        aimed = np.where((lift > slack * limits.kick_lift_m) & stretched, away, -1.0)[slice(*span)]
        top = span[0] + int(np.argmax(aimed))
        quick = float(speed[max(0, top - around) : top + 1].max())
        # A runner's feet are quick and may swing up in front; a kick goes higher than that.
        least = limits.kick_lift_m * (2.0 if signals.covered(span, running) > 0.5 else slack)
        if away[top] > limits.kick_away_ratio * leg_m and quick > slack * limits.kick_mps and lift[top] > least:
            if aimed[top - span[0]] < 0 or not part.free(span, 0.3):
                continue
            manner = "high" if lift[top] > 0.9 * leg_m else "side" if foot[top, 0] > 1.2 * foot[top, 2] else ""
            part.add("kick", _kick_span(span, top), float(lift[top]), joint=joint, speed=quick, manner=manner)


def _kick_span(span: Span, top: int) -> Span:
    """A kick lasts a second at most on either side of its top, however long the foot is in the air."""
    return max(span[0], top - round(FPS)), min(span[1], top + round(FPS))


def _through_the_air(spans: list[Span], up: Bool[np.ndarray, "T"]) -> list[Span]:
    """A foot that pauses in the air for a moment, as at the top of a kick, is still on the same way."""
    merged: list[Span] = []
    for first, last in spans:
        if merged and first - merged[-1][1] < _PAUSE_S * FPS and up[merged[-1][1] - 1 : first + 1].all():
            merged[-1] = (merged[-1][0], last)
        else:
            merged.append((first, last))
    return merged
