"""Rules for an arm. The sides differ only in the sign of x; specific movements take precedence over general ones."""

import numpy as np
from jaxtyping import Bool, Float
from scipy.signal import detrend

from schemas.records import FPS
from schemas.skeleton import swap_sides
from stages.language.rules import signals
from stages.language.rules.hand_events import add_claps, add_hands_to_face, add_throws
from stages.language.rules.kinematics import SIDES, Kinematics
from stages.language.rules.movements import TO_AND_FRO, PartMovements, add_bends, change, mean_speed, path_speed
from stages.language.rules.signals import Span, box_mean
from stages.language.rules.thresholds import Thresholds

_CALM_S = 1.5
"""Window within which a person stands or goes straight ahead."""
_AROUND_S = 0.25
"""Time before and after a punch in which a foot has to stand."""
_STRIDE_S = 0.15
"""Sigma over the height of the pelvis: the bounce of a stride is no change of height."""
_STRAIGHT = 0.85
"""Minimum share of the speed that is forwards while going straight ahead."""


def arm_events(k: Kinematics, engaged: list[Span], jumping: list[Span], limits: Thresholds) -> list[PartMovements]:
    """The movements of the left and the right arm. Within `engaged` spans an activity of the body explains gestures, within
    `jumping` ones circles."""
    parts = {side: PartMovements(f"{side}_arm", len(k), limits) for side in SIDES}
    for part in parts.values():
        part.spans += engaged
    calm = _calm(k, limits)
    add_claps(parts, k, calm, limits.hands)
    for part in parts.values():
        add_hands_to_face(part, k, calm, limits.hands)
        add_throws(part, k, limits.hands)
        _add_gestures(part, k, calm, jumping)
        part.spans = part.spans[len(engaged) :]
        _add_general(part, k)
    for side, other in (SIDES, SIDES[::-1]):
        _complete_lifts(parts[side], parts[other], k)
    return list(parts.values())


def _add_gestures(part: PartMovements, k: Kinematics, calm: Bool[np.ndarray, "T"], jumping: list[Span]) -> None:
    """Punch, wave, circle."""
    side, limits = part.side, part.limits
    hand = _hand(k, side)
    height = hand[:, 1]
    joint = f"{side}_wrist"
    travel_mps = np.linalg.norm(k.velocity, axis=-1)
    forearm = k.forearm[side] * [part.sign, 1.0, 1.0]
    _add_punches(part, k, hand, travel_mps, joint)
    high = height > limits.wave_lowest_ratio * k.size.arm_m
    high &= calm
    wiped = _add_waves(part, k, forearm, high & (forearm[:, 1] > limits.wave_upright_m), limits.wave_least_m, joint)
    overhead = (height > limits.wave_overhead_ratio * k.size.arm_m) & calm & ~signals.mask_of(wiped, len(k))
    _add_waves(part, k, hand, overhead, limits.wave_arm_m, joint)
    moving_on = ~calm | (travel_mps > limits.circle_travel_mps) | signals.mask_of(jumping, len(k))
    _add_circles(part, hand, moving_on, joint)


def _add_general(part: PartMovements, k: Kinematics) -> None:
    """Swing, reach, raise, lower, bend, extend."""
    side, limits = part.side, part.limits
    hand = _hand(k, side)
    out, height, ahead = hand.T
    joint = f"{side}_wrist"
    for span, width in signals.oscillations(ahead, limits.swing_least_m, 0.15 * FPS, 0.9 * FPS, 3):
        if part.is_free(span) and np.median(height[span[0] : span[1]]) < -0.15 * k.size.arm_m:
            part.add("swing", span, width, joint=joint, speed=path_speed(ahead, span), manner=TO_AND_FRO)
    _add_reaches(part, k, hand, joint)
    _add_raises_and_lowers(part, k, hand, joint)
    for curve, manner in ((out, "side"), (ahead, "front")):
        for span in signals.sweeps(curve, limits.swing_once_m):
            if part.is_free(span):
                outwards = curve[span[1] - 1] > curve[span[0]]
                part.add(
                    "swing", span, change(curve, span), joint=joint, manner=manner if outwards else f"{manner} back"
                )
    add_bends(part, k.elbow[side], f"{side}_elbow")


def _complete_lifts(part: PartMovements, other: PartMovements, k: Kinematics) -> None:
    """Add the rise of an arm that the other arm's raise shows to be one with both, though it is too small by itself."""
    height, low = _hand(k, part.side)[:, 1], -part.limits.chest_ratio * k.size.arm_m
    for event in [event for event in other.events if event.kind == "raise"]:
        span = round(event.start_s * FPS), round(event.end_s * FPS)
        rise = float(height[span[1] - 1] - height[span[0]])
        if rise > part.limits.raise_both_ratio * event.amount and height[span[1] - 1] > low and part.is_free(span):
            part.add("raise", span, rise, joint=f"{part.side}_wrist", manner=event.manner)


def _hand(k: Kinematics, side: str) -> Float[np.ndarray, "T 3"]:
    """The wrist relative to the shoulder: outwards, up, ahead."""
    sign = -1.0 if side == "right" else 1.0
    return (k.in_body(f"{side}_wrist") - k.in_body(f"{side}_shoulder")) * [sign, 1.0, 1.0]


def _calm(k: Kinematics, limits: Thresholds) -> Bool[np.ndarray, "T"]:
    """Whether the person stands, or goes straight ahead: someone who steps about and turns moves the hands with the body."""
    window = round(_CALM_S * FPS)
    speed = box_mean(np.linalg.norm(k.velocity, axis=-1), window)
    ahead = box_mean(k.velocity[:, 1], window)
    turning = abs(box_mean(signals.derivative(k.heading, FPS), window))
    standing_or_straight = (speed < limits.wave_travel_mps) | (ahead > _STRAIGHT * speed)
    return standing_or_straight & (turning < limits.wave_turn_radps)


def _add_waves(
    part: PartMovements,
    k: Kinematics,
    limb: Float[np.ndarray, "T 3"],
    raised: Bool[np.ndarray, "T"],
    min_width: float,
    joint: str,
) -> list[Span]:
    """Waves: the raised forearm or whole arm oscillates sideways, or along its principal direction of motion. The spans in which
    it does so with an elbow that goes up and down, which are no waves, are returned.

    Turning points are those of the unfiltered curve. A high-pass filter would leave ripples where a hand is raised and
    held, which look like waving.
    """
    limits, own, side = part.limits, part.limits.hands, part.side
    edge, wiped = round(0.33 * FPS), list[Span]()
    for raised_span in signals.spans_of(raised, round(2 * limits.shortest_s * FPS), 3):
        # The hand moves farther while it is raised and lowered at the ends than in the wave itself.
        has_ends = raised_span[1] - raised_span[0] > 3 * edge
        inner = slice(raised_span[0] + edge, raised_span[1] - edge) if has_ends else slice(*raised_span)
        _, _, axes = np.linalg.svd(np.diff(limb[inner], axis=0), full_matrices=False)
        for axis, min_mean_width in ((np.array([1.0, 0.0, 0.0]), min_width), (axes[0], limits.wave_other_m)):
            curve = limb[slice(*raised_span)] @ axis
            max_half_frames = limits.wave_longest_half_s * FPS
            for (first, last), width in signals.oscillations(curve, min_width, 2, max_half_frames, limits.wave_halves):
                halves, unevenness = _half_cycles(curve[first:last], min_width)
                span = (raised_span[0] + first, raised_span[0] + last)
                distinct = halves > limits.wave_halves or width > limits.wave_wide_m
                speed = path_speed(curve, (first, last))
                regular = unevenness < limits.wave_uneven and speed > limits.wave_mps
                if not (distinct and regular and width > min_mean_width and part.is_free(span, 0.1)):
                    continue
                if _elbow_rises_m(k, side, span) > own.wave_elbow_share * width:
                    wiped.append(span)
                elif _waves_at_somebody(part, k, span) and signals.covered(span, wiped) < 0.5:
                    part.add("wave", span, width, joint=joint, speed=speed)
    return wiped


def _waves_at_somebody(part: PartMovements, k: Kinematics, span: Span) -> bool:
    """Whether a hand's to and fro is its own: the body neither sinks nor rises, as that of a climber does, nor hurries on, and a
    hand below the shoulder is not one of two that move with the steps."""
    inside, own, other = slice(*span), part.limits.hands, swap_sides(part.name).removesuffix("_arm")
    height = signals.smooth_path(k.in_world("pelvis")[:, 1], _STRIDE_S * FPS)
    steady = float(np.ptp(height[inside])) < own.wave_sinks_m + own.wave_sinks_mps * (span[1] - span[0]) / FPS
    mps = float(np.linalg.norm(k.velocity[inside], axis=-1).mean())
    hand = _hand(k, part.side)[inside]
    alone = path_speed(_hand(k, other), span) < own.wave_alone_ratio * path_speed(_hand(k, part.side), span)
    low = float(np.median(hand[:, 1])) < -own.wave_low_ratio * k.size.arm_m
    return steady and mps < own.wave_hurries_mps and (alone or not low or mps < own.wave_stands_mps)


def _elbow_rises_m(k: Kinematics, side: str, span: Span) -> float:
    """Standard deviation of the elbow's height about a steady rise or fall. The hand of one who waves sways about an elbow that
    stays at its height; who wipes or climbs moves the whole arm up and down."""
    inside = slice(*span)
    height = (k.in_body(f"{side}_elbow") - k.in_body(f"{side}_shoulder"))[inside, 1]
    return float(detrend(height).std())


def _half_cycles(curve: Float[np.ndarray, "T"], min_width: float) -> tuple[int, float]:
    """Number of half cycles of a wave, and the coefficient of variation of their durations."""
    durations = np.diff(signals.turning_points(curve, min_width))
    return len(durations), float(durations.std() / max(1e-9, durations.mean())) if len(durations) else 0.0


def _add_circles(
    part: PartMovements, hand: Float[np.ndarray, "T 3"], travelling: Bool[np.ndarray, "T"], joint: str
) -> None:
    """Circles: the direction of the hand's motion rotates; not while travelling, where swinging arms draw ovals."""
    limits = part.limits
    for axes in ((2, 1), (0, 1), (0, 2)):
        curve = hand[:, axes]
        velocity = signals.derivative(curve, FPS)
        moving = np.linalg.norm(velocity, axis=-1) > 0.3
        if not (moving & ~travelling).any():
            continue
        angle = np.unwrap(np.arctan2(velocity[:, 1], velocity[:, 0]))
        rate = signals.smooth_path(signals.derivative(angle, FPS), 2)
        for sign in (1.0, -1.0):
            for span in signals.spans_of(moving & ~travelling & (sign * rate > 0.5), round(0.4 * FPS)):
                rotation = abs(angle[span[1] - 1] - angle[span[0]])
                if rotation < limits.circle_least_rad or not part.is_free(span):
                    continue
                spread = np.sqrt(np.linalg.eigvalsh(np.cov(curve[slice(*span)].T)).clip(0))
                if spread[0] > 0.5 * spread[1] and spread[1] * np.sqrt(2) > limits.circle_least_m:
                    radius = float(spread.mean() * np.sqrt(2))
                    speed = float(rotation * radius * FPS / (span[1] - span[0]))
                    part.add("circle", span, radius, joint=joint, speed=speed)


def _add_punches(
    part: PartMovements, k: Kinematics, hand: Float[np.ndarray, "T 3"], travel_mps: Float[np.ndarray, "T"], joint: str
) -> None:
    """Punches: a bent arm extends fast to about shoulder or chest height."""
    limits, arm_m, elbow = part.limits, k.size.arm_m, k.elbow[part.side]
    speed = np.linalg.norm(signals.derivative(hand, FPS), axis=-1)
    for span in signals.sweeps(elbow, limits.bend_least_rad):
        first, last = span[0], span[1] - 1
        if elbow[last] > elbow[first] or not part.is_free(span, 0.2):
            continue
        displacement = hand[last] - hand[first]
        reach = np.hypot(hand[last, 0], hand[last, 2])
        # A waving hand starts higher, with the elbow bent less.
        drawn = hand[first, 1] < limits.punch_from_ratio * arm_m and elbow[first] > limits.punch_bent_rad
        aimed = abs(hand[last, 1]) < limits.punch_height_ratio * arm_m and reach > limits.punch_reach_ratio * arm_m
        outwards = reach - np.hypot(hand[first, 0], hand[first, 2]) > limits.punch_way_ratio * arm_m
        horizontal = np.hypot(displacement[0], displacement[2]) > abs(displacement[1])
        # A runner's arms move forwards fast too.
        slow_travel = travel_mps[first : last + 1].mean() < limits.punch_travel_mps
        fast = (
            slow_travel
            and speed[first : last + 1].max() > limits.punch_mps
            and last - first < limits.punch_longest_s * FPS
        )
        if drawn and aimed and outwards and horizontal and fast and elbow[last] < limits.punch_straight_rad:
            retracted = np.flatnonzero(elbow[last:] > (elbow[first] + elbow[last]) / 2)
            returned = len(retracted) > 0 and retracted[0] < limits.hands.reclaim_s * FPS
            if not returned and speed[first : last + 1].max() < limits.hands.unreturned_mps:
                continue
            if speed[first : last + 1].max() < limits.hands.slow_punch_mps and not _is_aimed(
                part, k, (first, last + 1)
            ):
                continue
            end = last + int(retracted[0]) if len(retracted) else span[1]
            manner = "" if hand[last, 2] > hand[last, 0] else "side"
            top_speed = float(speed[first : last + 1].max())
            distance_m = float(np.linalg.norm(displacement))
            part.add("punch", (first, end), distance_m, joint=joint, speed=top_speed, manner=manner)


def _is_aimed(part: PartMovements, k: Kinematics, span: Span) -> bool:
    """Whether a slow fist is one that strikes: the arm gets straight, over a foot that stands. Dancers and climbers stretch an arm
    half while they step."""
    own = part.limits.hands
    around = slice(max(0, span[0] - round(_AROUND_S * FPS)), span[1] + round(_AROUND_S * FPS))
    ankles = [signals.derivative(k.in_world(f"{side}_ankle"), FPS) for side in SIDES]
    stands = min(float(np.linalg.norm(ankle[around], axis=-1).max()) for ankle in ankles) < own.slow_punch_foot_mps
    return stands and float(k.elbow[part.side][slice(*span)].min()) < own.slow_punch_elbow_rad


def _add_reaches(part: PartMovements, k: Kinematics, hand: Float[np.ndarray, "T 3"], joint: str) -> None:
    """Reaches: the wrist moves away until the arm is nearly straight in front, no higher than about the shoulder."""
    limits, arm_m = part.limits, k.size.arm_m
    out, height, ahead = hand.T
    reach = np.hypot(ahead, out.clip(0))
    length = np.linalg.norm(hand, axis=-1)
    for span in signals.sweeps(reach, limits.reach_least_m):
        first, last = span[0], span[1] - 1
        if reach[last] < reach[first] or not part.is_free(span):
            continue
        # The return movement is part of the reach.
        returned = np.flatnonzero(reach[last:] < reach[first] + 0.15 * (reach[last] - reach[first]))
        end = last + int(returned[0]) if len(returned) else len(reach)
        top = first + int(np.argmax(reach[first:end]))
        stretched = first + np.flatnonzero(reach[first:end] > (reach[first] + reach[top]) / 2)
        straight = np.median(length[stretched]) > limits.reach_ratio * arm_m
        at_chest = height[top] > -0.65 * arm_m and height[first:end].max() < limits.reach_highest_ratio * arm_m
        if straight and at_chest and ahead[top] > 0.55 * arm_m and not signals.covered((first, end), part.spans):
            part.add("reach", (first, end), change(reach, span), joint=joint, speed=mean_speed(reach, span))


def _add_raises_and_lowers(part: PartMovements, k: Kinematics, hand: Float[np.ndarray, "T 3"], joint: str) -> None:
    limits, height, arm_m = part.limits, hand[:, 1], k.size.arm_m
    low = -limits.chest_ratio * arm_m
    for span in signals.sweeps(height, limits.raise_least_m):
        first, last = span[0], span[1] - 1
        if not part.is_free(span, limits.raise_shared):
            continue
        if height[last] > height[first] and height[last] > low:
            part.add("raise", span, change(height, span), joint=joint, manner=_raise_manner(hand[last] / arm_m))
        elif height[last] < height[first] and height[first] > low:
            part.add("lower", span, change(height, span), joint=joint)


def _raise_manner(hand: Float[np.ndarray, "3"]) -> str:
    """Manner of a raise by its final hand position relative to the shoulder, in arm lengths."""
    if hand[1] > 0.55:
        return "high"
    if np.linalg.norm(hand) > 0.8 and hand[1] > -0.35:
        return "side" if hand[0] > 1.5 * abs(hand[2]) else "front" if hand[2] > 1.5 * abs(hand[0]) else ""
    return "shoulder" if -0.25 < hand[1] < 0.3 else ""
