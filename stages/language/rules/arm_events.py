"""Rules for an arm. Sides are told apart only by the sign of x; the more special movement comes before the more general."""

import numpy as np
from jaxtyping import Bool, Float

from schemas.records import FPS
from stages.language.rules import signals
from stages.language.rules.kinematics import Kinematics
from stages.language.rules.movements import Part, bends, change, mean_speed, path_speed
from stages.language.rules.thresholds import Thresholds


def arm_events(k: Kinematics, side: str, limits: Thresholds) -> Part:
    """Wave, punch, circle, swing, reach, raise, lower, bend, extend."""
    part = Part(f"{side}_arm", len(k), limits)
    shoulder, wrist = k.at(f"{side}_shoulder"), k.at(f"{side}_wrist")
    hand = (wrist - shoulder) * [part.sign, 1.0, 1.0]
    out, height, ahead = hand.T
    joint = f"{side}_wrist"
    going = np.linalg.norm(k.velocity, axis=-1)
    forearm = k.forearm[side] * [part.sign, 1.0, 1.0]
    _punches(part, k, hand, going, joint)
    high = height > limits.wave_lowest_ratio * k.size.arm_m
    _waves(part, forearm, high & (forearm[:, 1] > limits.wave_upright_m), limits.wave_least_m, joint)
    _waves(part, hand, height > limits.wave_overhead_ratio * k.size.arm_m, limits.wave_arm_m, joint)
    _circles(part, hand, going > limits.circle_travel_mps, joint)
    for span, width in signals.oscillations(ahead, limits.swing_least_m, 0.15 * FPS, 0.9 * FPS, 3):
        if part.free(span) and np.median(height[span[0] : span[1]]) < -0.15 * k.size.arm_m:
            part.add("swing", span, width, joint=joint, speed=path_speed(ahead, span), manner="to and fro")
    _reaches(part, k, hand, joint)
    _raises_and_lowers(part, k, hand, joint)
    for curve, manner in ((out, "side"), (ahead, "front")):
        for span in signals.sweeps(curve, limits.swing_once_m):
            if part.free(span):
                away = curve[span[1] - 1] > curve[span[0]]
                part.add("swing", span, change(curve, span), joint=joint, manner=manner if away else f"{manner} back")
    bends(part, k.elbow[side], f"{side}_elbow")
    return part


def _waves(part: Part, limb: Float[np.ndarray, "T 3"], up: Bool[np.ndarray, "T"], least: float, joint: str) -> None:
    """The forearm, or the whole arm, goes to and fro while it is up: sideways, else along the direction that it moves in
    most.

    Turning points are those of the curve itself. A filter that takes slow movement away would leave ripples where a hand
    is raised and held, which look like waving.
    """
    limits = part.limits
    edge = round(0.33 * FPS)
    for stretch in signals.spans_of(up, round(2 * limits.shortest_s * FPS), 3):
        # Raising and lowering the hand at the ends is wider than the wave itself.
        wide = stretch[1] - stretch[0] > 3 * edge
        inner = slice(stretch[0] + edge, stretch[1] - edge) if wide else slice(*stretch)
        _, _, axes = np.linalg.svd(np.diff(limb[inner], axis=0), full_matrices=False)
        for axis, narrowest in ((np.array([1.0, 0.0, 0.0]), least), (axes[0], limits.wave_other_m)):
            along = limb[slice(*stretch)] @ axis
            longest = limits.wave_longest_half_s * FPS
            for (first, last), width in signals.oscillations(along, least, 2, longest, limits.wave_halves):
                halves, unevenness = _halves(along[first:last], least)
                span = (stretch[0] + first, stretch[0] + last)
                sure = halves > limits.wave_halves or width > limits.wave_wide_m
                speed = path_speed(along, (first, last))
                even = unevenness < limits.wave_uneven and speed > limits.wave_mps
                if sure and even and width > narrowest and part.free(span, 0.1):
                    part.add("wave", span, width, joint=joint, speed=speed)


def _halves(along: Float[np.ndarray, "T"], least: float) -> tuple[int, float]:
    """How many movements to a side a wave has, and the spread of their times as a share of the mean."""
    times = np.diff(signals.turning_points(along, least))
    return len(times), float(times.std() / max(1e-9, times.mean())) if len(times) else 0.0


def _circles(part: Part, hand: Float[np.ndarray, "T 3"], going: Bool[np.ndarray, "T"], joint: str) -> None:
    """The direction of the hand's motion goes round; not in walking and running, where swinging arms draw ovals."""
    limits = part.limits
    for axes in ((2, 1), (0, 1), (0, 2)):
        curve = hand[:, axes]
        velocity = signals.derivative(curve, FPS)
        moving = np.linalg.norm(velocity, axis=-1) > 0.3
        if not (moving & ~going).any():
            continue
        angle = np.unwrap(np.arctan2(velocity[:, 1], velocity[:, 0]))
        rate = signals.smooth_path(signals.derivative(angle, FPS), 2)
        for sense in (1.0, -1.0):
            for span in signals.spans_of(moving & ~going & (sense * rate > 0.5), round(0.4 * FPS)):
                turned = abs(angle[span[1] - 1] - angle[span[0]])
                if turned < limits.circle_least_rad or not part.free(span):
                    continue
                spread = np.sqrt(np.linalg.eigvalsh(np.cov(curve[slice(*span)].T)).clip(0))
                if spread[0] > 0.5 * spread[1] and spread[1] * np.sqrt(2) > limits.circle_least_m:
                    radius = float(spread.mean() * np.sqrt(2))
                    speed = float(turned * radius * FPS / (span[1] - span[0]))
                    part.add("circle", span, radius, joint=joint, speed=speed)


def _punches(
    part: Part, k: Kinematics, hand: Float[np.ndarray, "T 3"], going: Float[np.ndarray, "T"], joint: str
) -> None:
    """A bent arm shoots out, to where shoulder or chest are high."""
    limits, arm_m, elbow = part.limits, k.size.arm_m, k.elbow[part.side]
    speed = np.linalg.norm(signals.derivative(hand, FPS), axis=-1)
    for span in signals.sweeps(elbow, limits.bend_least_rad):
        first, last = span[0], span[1] - 1
        if elbow[last] > elbow[first] or not part.free(span, 0.2):
            continue
        way = hand[last] - hand[first]
        level = np.hypot(hand[last, 0], hand[last, 2])
        # A hand that waves comes from higher up, and its elbow is bent less.
        drawn = hand[first, 1] < limits.punch_from_ratio * arm_m and elbow[first] > limits.punch_bent_rad
        aimed = abs(hand[last, 1]) < limits.punch_height_ratio * arm_m and level > limits.punch_reach_ratio * arm_m
        outwards = level - np.hypot(hand[first, 0], hand[first, 2]) > limits.punch_way_ratio * arm_m
        flat = np.hypot(way[0], way[2]) > abs(way[1])
        # A runner's arms shoot forwards too.
        calm = going[first : last + 1].mean() < limits.punch_travel_mps
        quick = (
            calm and speed[first : last + 1].max() > limits.punch_mps and last - first < limits.punch_longest_s * FPS
        )
        if drawn and aimed and outwards and flat and quick and elbow[last] < limits.punch_straight_rad:
            back = np.flatnonzero(elbow[last:] > (elbow[first] + elbow[last]) / 2)
            end = last + int(back[0]) if len(back) else span[1]
            manner = "" if hand[last, 2] > hand[last, 0] else "side"
            top = float(speed[first : last + 1].max())
            part.add("punch", (first, end), float(np.linalg.norm(way)), joint=joint, speed=top, manner=manner)


def _reaches(part: Part, k: Kinematics, hand: Float[np.ndarray, "T 3"], joint: str) -> None:
    """The wrist goes away from the body until the arm is nearly straight in front, and no higher than the shoulder."""
    limits, arm_m = part.limits, k.size.arm_m
    out, height, ahead = hand.T
    level = np.hypot(ahead, out.clip(0))
    length = np.linalg.norm(hand, axis=-1)
    for span in signals.sweeps(level, limits.reach_least_m):
        first, last = span[0], span[1] - 1
        if level[last] < level[first] or not part.free(span):
            continue
        # The way back belongs to it.
        back = np.flatnonzero(level[last:] < level[first] + 0.15 * (level[last] - level[first]))
        end = last + int(back[0]) if len(back) else len(level)
        top = first + int(np.argmax(level[first:end]))
        stretched = first + np.flatnonzero(level[first:end] > (level[first] + level[top]) / 2)
        straight = np.median(length[stretched]) > limits.reach_ratio * arm_m
        at_chest = height[top] > -0.65 * arm_m and height[first:end].max() < limits.reach_highest_ratio * arm_m
        if straight and at_chest and ahead[top] > 0.55 * arm_m and not signals.covered((first, end), part.spans):
            part.add("reach", (first, end), change(level, span), joint=joint, speed=mean_speed(level, span))


def _raises_and_lowers(part: Part, k: Kinematics, hand: Float[np.ndarray, "T 3"], joint: str) -> None:
    limits, height, arm_m = part.limits, hand[:, 1], k.size.arm_m
    low = -limits.chest_ratio * arm_m
    for span in signals.sweeps(height, limits.raise_least_m):
        first, last = span[0], span[1] - 1
        if not part.free(span, limits.raise_shared):
            continue
        if height[last] > height[first] and height[last] > low:
            part.add("raise", span, change(height, span), joint=joint, manner=_where(hand[last] / arm_m, height, span))
        elif height[last] < height[first] and height[first] > low:
            part.add("lower", span, change(height, span), joint=joint)


def _where(at: Float[np.ndarray, "3"], height: Float[np.ndarray, "T"], span: signals.Span) -> str:
    """Where a raised hand gets to, in shares of the arm from the shoulder."""
    if at[1] > 0.55:
        return "high"
    if np.linalg.norm(at) > 0.8 and at[1] > -0.35:
        return "side" if at[0] > 1.5 * abs(at[2]) else "front" if at[2] > 1.5 * abs(at[0]) else ""
    return "shoulder" if -0.25 < at[1] < 0.3 else ""
