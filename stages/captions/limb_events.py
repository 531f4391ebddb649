"""Rules for the parts: what the trunk, an arm or a leg does. Sides are told apart only by the sign of x."""

import numpy as np
from jaxtyping import Bool, Float

from schemas.records import FPS, Event
from stages.captions import signals
from stages.captions.kinematics import Kinematics
from stages.captions.signals import Span
from stages.captions.thresholds import Thresholds

_MOSTLY = 0.5
"""Share of a movement that another one must cover to explain it."""
_PAUSE_S = 0.4
"""Longest pause of a foot in the air within one movement."""


def event(
    part: str, kind: str, span: Span, amount: float, *, joint: str, side: str = "none", speed: float | None = None
) -> Event:
    """An event from frames; its speed is the amount over its time unless it is given."""
    start_s, end_s = span[0] / FPS, span[1] / FPS
    mean = amount / max(end_s - start_s, 1 / FPS)
    return Event(
        part=part, joint=joint, kind=kind, side=side, start_s=round(start_s, 3), end_s=round(end_s, 3),
        amount=round(float(amount), 3), speed=round(float(mean if speed is None else speed), 3), text="",
    )  # fmt: skip


class Part:
    """The events of one part, with which frames they already explain."""

    def __init__(self, name: str, length: int, limits: Thresholds) -> None:
        self.name, self.length, self.limits = name, length, limits
        self.side = name.split("_")[0] if "_" in name else "none"
        self.sign = -1.0 if self.side == "right" else 1.0
        self.events: list[Event] = []
        self.spans: list[Span] = []

    def free(self, span: Span, most: float = _MOSTLY) -> bool:
        """Whether nothing found so far explains the span, and it is long enough to be more than noise."""
        return span[1] - span[0] >= self.limits.shortest_s * FPS and signals.covered(span, self.spans) < most

    def add(self, kind: str, span: Span, amount: float, *, joint: str, speed: float | None = None) -> None:
        span = (max(0, span[0]), min(self.length, span[1]))
        self.events.append(event(self.name, kind, span, amount, joint=joint, side=self.side, speed=speed))
        self.spans.append(span)


def arm_events(k: Kinematics, side: str, limits: Thresholds) -> Part:
    """Wave, circle, swing, punch, reach, raise, lower, bend, extend; the more special before the more general."""
    part = Part(f"{side}_arm", len(k), limits)
    shoulder, elbow, wrist = k.at(f"{side}_shoulder"), k.at(f"{side}_elbow"), k.at(f"{side}_wrist")
    hand = (wrist - shoulder) * [part.sign, 1.0, 1.0]
    out, height, ahead = hand.T
    joint = f"{side}_wrist"
    _punches(part, k, hand, joint)
    _waves(part, (k.at(f"{side}_hand") - elbow) * [part.sign, 1.0, 1.0], height > -0.5 * k.size.arm_m, joint)
    _circles(part, hand, np.linalg.norm(k.velocity, axis=-1) > limits.circle_travel_mps, joint)
    for span, width in signals.oscillations(ahead, limits.swing_least_m, 0.15 * FPS, 0.9 * FPS, 3):
        if part.free(span) and np.median(height[span[0] : span[1]]) < -0.15 * k.size.arm_m:
            part.add("swing", span, width, joint=joint, speed=_path_speed(ahead, span))
    _reaches(part, k, hand, joint)
    _raises_and_lowers(part, k, hand, joint)
    for curve in (out, ahead):
        for span in signals.sweeps(curve, limits.swing_once_m):
            if part.free(span):
                part.add("swing", span, _change(curve, span), joint=joint)
    _bends(part, k.elbow[side], f"{side}_elbow")
    return part


def _waves(part: Part, forearm: Float[np.ndarray, "T 3"], high: Bool[np.ndarray, "T"], joint: str) -> None:
    """The forearm goes to and fro along its own main direction while the hand is up."""
    limits = part.limits
    quick = forearm - signals.smooth_path(forearm, limits.wave_longest_half_s * 0.8 * FPS)
    edge = round(0.33 * FPS)
    for up in signals.spans_of(high & (forearm[:, 1] > -0.05), round(2 * limits.shortest_s * FPS), 3):
        # Raising and lowering the hand at the ends is wider than the wave itself.
        inner = slice(up[0] + edge, up[1] - edge) if up[1] - up[0] > 3 * edge else slice(*up)
        _, _, axes = np.linalg.svd(quick[inner], full_matrices=False)
        along = quick[slice(*up)] @ axes[0]
        longest = limits.wave_longest_half_s * FPS
        for (first, last), width in signals.oscillations(along, limits.wave_least_m, 2, longest, limits.wave_halves):
            span = (up[0] + first, up[0] + last)
            if part.free(span, 0.1):
                part.add("wave", span, width, joint=joint, speed=_path_speed(along, (first, last)))


def _circles(part: Part, hand: Float[np.ndarray, "T 3"], going: Bool[np.ndarray, "T"], joint: str) -> None:
    """The direction of the hand's motion goes round; not in walking and running, where swinging arms draw ovals."""
    limits = part.limits
    for axes in ((2, 1), (0, 1), (0, 2)):
        curve = hand[:, axes]
        velocity = signals.derivative(curve, FPS)
        moving = np.linalg.norm(velocity, axis=-1) > 0.3
        angle = np.unwrap(np.arctan2(velocity[:, 1], velocity[:, 0]))
        rate = signals.smooth_path(signals.derivative(angle, FPS), 2)
        for sense in (1.0, -1.0):
            for span in signals.spans_of(moving & ~going & (sense * rate > 0.5), round(0.4 * FPS)):
                inside = slice(*span)
                turned = abs(angle[span[1] - 1] - angle[span[0]])
                spread = np.sqrt(np.linalg.eigvalsh(np.cov(curve[inside].T)).clip(0))
                round_enough = spread[0] > 0.5 * spread[1] and spread[1] * np.sqrt(2) > limits.circle_least_m
                if turned >= limits.circle_least_rad and round_enough and part.free(span):
                    radius = float(spread.mean() * np.sqrt(2))
                    part.add(
                        "circle", span, radius, joint=joint, speed=float(turned * radius * FPS / (span[1] - span[0]))
                    )


def _punches(part: Part, k: Kinematics, hand: Float[np.ndarray, "T 3"], joint: str) -> None:
    """A bent arm shoots forwards."""
    limits, arm_m, elbow = part.limits, k.size.arm_m, k.elbow[part.side]
    speed = signals.derivative(k.at(joint)[:, 2], FPS)
    for span in signals.sweeps(elbow, limits.bend_least_rad):
        first, last = span[0], span[1] - 1
        if elbow[last] > elbow[first] or speed[first : last + 1].max() < limits.punch_mps or not part.free(span):
            continue
        if abs(hand[last, 1]) < 0.5 * arm_m and hand[last, 2] > 0.6 * arm_m:
            back = np.flatnonzero(elbow[last:] > (elbow[first] + elbow[last]) / 2)
            end = last + int(back[0]) if len(back) else span[1]
            way = float(np.linalg.norm(hand[last] - hand[first]))
            part.add("punch", (first, end), way, joint=joint, speed=float(speed[first : last + 1].max()))


def _reaches(part: Part, k: Kinematics, hand: Float[np.ndarray, "T 3"], joint: str) -> None:
    """The wrist goes away from the body until the arm is nearly straight in front."""
    limits, arm_m = part.limits, k.size.arm_m
    out, height, ahead = hand.T
    level = np.hypot(ahead, out.clip(0))
    for span in signals.sweeps(level, limits.reach_least_m):
        first, last = span[0], span[1] - 1
        if level[last] < level[first] or not part.free(span):
            continue
        # The way back belongs to it.
        back = np.flatnonzero(level[last:] < level[first] + 0.15 * (level[last] - level[first]))
        end = last + int(back[0]) if len(back) else len(level)
        top = first + int(np.argmax(level[first:end]))
        straight = np.linalg.norm(hand[top]) > limits.reach_ratio * arm_m
        at_chest = height[top] > -0.65 * arm_m and height[first:end].max() < 0.5 * arm_m
        if straight and at_chest and ahead[top] > 0.55 * arm_m and not signals.covered((first, end), part.spans):
            part.add("reach", (first, end), _change(level, span), joint=joint, speed=_mean_speed(level, span))


def _raises_and_lowers(part: Part, k: Kinematics, hand: Float[np.ndarray, "T 3"], joint: str) -> None:
    limits, height = part.limits, hand[:, 1]
    low = -limits.chest_ratio * k.size.arm_m
    for span in signals.sweeps(height, limits.raise_least_m):
        first, last = span[0], span[1] - 1
        if not part.free(span):
            continue
        if height[last] > height[first] and height[last] > low:
            part.add("raise", span, _change(height, span), joint=joint)
        elif height[last] < height[first] and height[first] > low:
            part.add("lower", span, _change(height, span), joint=joint)


def _bends(part: Part, flexion: Float[np.ndarray, "T"], joint: str) -> None:
    for span in signals.sweeps(flexion, part.limits.bend_least_rad):
        if part.free(span, 0.3):
            kind = "bend" if flexion[span[1] - 1] > flexion[span[0]] else "extend"
            part.add(kind, span, _change(flexion, span), joint=joint)


def leg_events(k: Kinematics, side: str, airborne: list[Span], limits: Thresholds) -> Part:
    """Kick, step, swing, raise, lower, bend, extend; nothing but bend and extend while the body is in a jump."""
    part = Part(f"{side}_leg", len(k), limits)
    part.spans += airborne
    ankle = k.in_world(f"{side}_ankle")
    lift = ankle[:, 1] - k.size.ankle_m
    lift = lift - min(0.0, float(np.percentile(lift, 10)))
    speed = np.linalg.norm(signals.derivative(signals.smooth_path(ankle, limits.smoothing_s * FPS), FPS), axis=-1)
    ahead = (k.at(f"{side}_ankle") - k.at(f"{side}_hip"))[:, 2]
    joint = f"{side}_ankle"
    # A foot that stands still in a jittery fit is not still: what it does for a fifth of the time is its noise.
    floor = float(np.percentile(speed, 20))
    on, off = max(limits.foot_on_mps, 2.5 * floor), max(limits.foot_off_mps, 1.6 * floor)
    for span in _through_the_air(signals.hysteresis(speed, on, off, 3, 2), lift > limits.lift_least_m):
        if not part.free(span):
            continue
        first, last = span[0], span[1] - 1
        inside = slice(*span)
        moved = float(np.linalg.norm((ankle[last] - ankle[first])[[0, 2]]))
        astray = float(np.linalg.norm((ankle[inside] - ankle[first])[:, [0, 2]], axis=-1).max())
        lifted = float(lift[inside].max() - min(lift[first], lift[last]))
        front = first + int(np.argmax(lift[inside] * (ahead[inside] > limits.kick_ahead_ratio * k.size.leg_m)))
        kicked = (
            lift[front] > limits.kick_lift_m
            and ahead[front] > limits.kick_ahead_ratio * k.size.leg_m
            and speed[inside].max() > limits.kick_mps
            and k.knee[side][front] < limits.kick_knee_rad
            and moved < max(0.25, 0.5 * astray)
        )
        if kicked:
            part.add("kick", span, lift[front], joint=joint, speed=float(speed[inside].max()))
        elif moved >= limits.step_least_m:
            part.add("step", span, moved, joint=joint)
        elif astray >= 0.3:
            part.add("swing", span, astray, joint=joint, speed=_path_speed(ankle, span))
        elif lifted >= limits.lift_least_m:
            top = first + int(np.argmax(lift[inside]))
            part.add("raise", (first, max(top + 1, first + 2)), lifted, joint=joint)
            if lift[last] < lift[top] - limits.lift_least_m and last > top:
                part.add("lower", (top, last + 1), lift[top] - lift[last], joint=joint)
    part.spans = part.spans[len(airborne) :]
    _bends(part, k.knee[side], f"{side}_knee")
    return part


def _through_the_air(spans: list[Span], up: Bool[np.ndarray, "T"]) -> list[Span]:
    """A foot that pauses in the air for a moment, as at the top of a kick, is still on the same way."""
    merged: list[Span] = []
    for first, last in spans:
        if merged and first - merged[-1][1] < _PAUSE_S * FPS and up[merged[-1][1] - 1 : first + 1].all():
            merged[-1] = (merged[-1][0], last)
        else:
            merged.append((first, last))
    return merged


def torso_events(k: Kinematics, lying: list[Span], limits: Thresholds) -> Part:
    """Bend and extend (forwards, backwards, sideways), and swing for a twist; not while lying, where a lean is none."""
    part = Part("torso", len(k), limits)
    part.spans += lying
    for curve, least, kinds, joint in (
        (k.pitch, limits.torso_least_rad, ("bend", "extend"), "spine1"),
        (k.roll, limits.torso_least_rad, ("bend", "extend"), "spine2"),
        (k.twist, limits.twist_least_rad, ("swing", "swing"), "spine3"),
    ):
        for span in signals.sweeps(curve, least):
            if part.free(span):
                away = abs(curve[span[1] - 1]) >= abs(curve[span[0]])
                part.add(kinds[0] if away else kinds[1], span, _change(curve, span), joint=joint)
                if joint != "spine1":
                    # Which way it goes cannot be read from the size; the side says it.
                    towards = curve[span[1] - 1] - curve[span[0]]
                    side = "left" if (towards > 0) == (away or joint == "spine3") else "right"
                    last = part.events[-1]
                    part.events[-1] = event(
                        "torso", last.kind, span, last.amount, joint=joint, side=side, speed=last.speed
                    )
                elif away and curve[span[1] - 1] < 0:
                    part.events[-1] = event("torso", "bend", span, _change(curve, span), joint="neck")
    part.spans = part.spans[len(lying) :]
    return part


def _change(curve: Float[np.ndarray, "T"], span: Span) -> float:
    return float(abs(curve[span[1] - 1] - curve[span[0]]))


def _mean_speed(curve: Float[np.ndarray, "T"], span: Span) -> float:
    return _change(curve, span) * FPS / max(1, span[1] - 1 - span[0])


def _path_speed(curve: Float[np.ndarray, "T *C"], span: Span) -> float:
    steps = np.diff(curve[span[0] : span[1]].reshape(span[1] - span[0], -1), axis=0)
    return float(np.linalg.norm(steps, axis=-1).sum() * FPS / max(1, len(steps)))
