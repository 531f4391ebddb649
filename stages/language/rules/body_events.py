"""Rules for the whole body: postures, jumps, squats, bows and tumbles."""

from itertools import pairwise

import numpy as np
from jaxtyping import Bool, Float

from schemas.records import FPS
from stages.language.rules import signals
from stages.language.rules.gaits import gaits, path_length_m, spans, turns
from stages.language.rules.kinematics import SIDES, Kinematics
from stages.language.rules.movements import Movement, movement
from stages.language.rules.signals import Span
from stages.language.rules.thresholds import Thresholds

_JUMP_MARGIN_S = 0.45
"""Time for take-off and landing around a flight, part of the jump."""


def body_events(k: Kinematics, limits: Thresholds) -> list[Movement]:
    """Events of the whole body; never empty."""
    tumbles = _tumbles(k, limits)
    tumbling = signals.mask_of(spans(tumbles, "roll", "flip", "cartwheel"), len(k))
    postures = _postures(k, limits, tumbling)
    busy = tumbling | signals.mask_of([span for _, span in postures], len(k))
    turn_events = turns(k, limits, busy)
    # In a spin the velocity in body axes rotates, which is neither sidestepping nor walking backwards.
    gait_events = gaits(k, limits, busy | signals.mask_of(spans(turn_events, "spin"), len(k)))
    jumps = _jumps(k, limits, gait_events, tumbling) if _legs_visible(k) else []
    jumping = signals.mask_of([span for span, _ in jumps], len(k))
    events = tumbles + [movement("body", kind, span, path_length_m(k, span), joint="pelvis") for kind, span in postures]
    events += [
        movement("body", "get_up", span, amount, joint="pelvis") for span, amount in _get_ups(k, limits, postures)
    ]
    events += [
        movement("body", "jump", span, amount, joint="pelvis", manner=_jump_manner(k, span)) for span, amount in jumps
    ]
    bows = _bows(k, limits, busy | jumping)
    bowing = signals.mask_of([span for span, _, _ in bows], len(k))
    events += [movement("body", "bow", span, amount, joint="spine1", manner=manner) for span, amount, manner in bows]
    squats = _squats(k, limits, busy | jumping | bowing) if _legs_visible(k) else []
    events += [movement("body", "squat", span, amount, joint="pelvis") for span, amount in squats]
    events += [event for event in gait_events if jumping[slice(*spans([event], event.kind)[0])].mean() <= 0.5]
    events += turn_events
    events += _stands(k, limits, events)
    return events or [_fallback(k, limits)]


def _legs_visible(k: Kinematics) -> bool:
    return k.visible["left_leg"] or k.visible["right_leg"]


def _pelvis_height(k: Kinematics) -> Float[np.ndarray, "T"]:
    return k.in_world("pelvis")[:, 1]


def _tumbles(k: Kinematics, limits: Thresholds) -> list[Movement]:
    """Rolls on the ground, flips through the air, and cartwheels over the hands."""
    events = []
    for first, last in signals.spans_of(k.uprightness < limits.upside_down, 2, round(0.2 * FPS)):
        upright = np.flatnonzero(k.uprightness > limits.upright_again)
        begin = int(upright[upright < first][-1]) if (upright < first).any() else 0
        end = int(upright[upright > last][0]) + 1 if (upright > last).any() else len(k)
        # Unlike a headstand, a tumble is a full rotation.
        angle = np.abs(k.angular_velocity[begin:end].sum(axis=0) / FPS)
        if max(angle[0], angle[2]) < limits.tumble_least_rad:
            continue
        low = float(_pelvis_height(k)[begin:end].min()) < limits.roll_ratio * k.size.pelvis_m
        hands_m = min(float(k.in_world(f"{side}_wrist")[first:last, 1].min()) for side in SIDES)
        kind = "roll" if low else "cartwheel" if hands_m < limits.hands_down_m else "flip"
        span = (begin, end)
        forwards = float(k.angular_velocity[begin:end, 0].sum()) > 0
        manner = "" if kind == "cartwheel" or angle[2] > angle[0] else "front" if forwards else "back"
        events.append(movement("body", kind, span, float(max(angle[0], angle[2])), joint="pelvis", manner=manner))
    return [event for i, event in enumerate(events) if not i or event.start_s >= events[i - 1].end_s]


def _jumps(
    k: Kinematics, limits: Thresholds, gait_events: list[Movement], tumbling: Bool[np.ndarray, "T"]
) -> list[tuple[Span, float]]:
    """Flights of both feet that lift the pelvis, with the legs pushing off; while running, far higher than in a stride."""
    lift = np.full(len(k), np.inf)
    for side in SIDES:
        lift = np.minimum(lift, k.in_world(f"{side}_ankle")[:, 1] - k.size.ankle_m)
        lift = np.minimum(lift, k.in_world(f"{side}_foot")[:, 1] - k.size.toe_m)
    height, margin = _pelvis_height(k), round(_JUMP_MARGIN_S * FPS)
    knees = np.maximum(k.knee["left"], k.knee["right"])
    walks, runs = spans(gait_events, "walk", "walk_backward"), spans(gait_events, "run")
    found = []
    for span in signals.hysteresis(lift, 1.4 * limits.flight_m, 0.5 * limits.flight_m, round(limits.flight_s * FPS)):
        wide = (max(0, span[0] - margin), min(len(k), span[1] + margin))
        rise = float(height[slice(*span)].max() - np.median(height[slice(*wide)]))
        running, walking = signals.covered(span, runs) > 0.5, signals.covered(span, walks) > 0.5
        min_rise = limits.jump_least_m * (limits.leap_factor if running else 1.2 if walking else 0.6)
        pushed = float(np.ptp(knees[slice(*wide)])) > limits.jump_knee_rad
        upright = np.median(k.tilt[slice(*span)]) < limits.upright_rad
        high = height[slice(*span)].max() > limits.jump_pelvis_ratio * k.size.pelvis_m
        if rise > min_rise and pushed and upright and high and not tumbling[slice(*span)].any():
            edge = height[[span[0], span[1] - 1]].min()
            found.append((wide, float(height[slice(*span)].max() - edge + lift[slice(*span)].min())))
    return _without_overlaps(found)


def _jump_manner(k: Kinematics, span: Span) -> str:
    """`ahead` for a jump with a forward displacement."""
    displacement = k.in_world("pelvis")[span[1] - 1] - k.in_world("pelvis")[span[0]]
    heading = float(np.mean(k.heading[slice(*span)]))
    forward_m = displacement[0] * np.sin(heading) + displacement[2] * np.cos(heading)
    return "ahead" if forward_m > 0.6 else ""


def _without_overlaps(found: list[tuple[Span, float]]) -> list[tuple[Span, float]]:
    """Overlapping neighbours are cut in the middle of their overlap."""
    found = sorted(found)
    for i in range(1, len(found)):
        (a, b), (c, d) = found[i - 1][0], found[i][0]
        if c < b:
            middle = (b + c) // 2
            found[i - 1], found[i] = ((a, middle), found[i - 1][1]), ((middle, d), found[i][1])
    return found


def _squats(k: Kinematics, limits: Thresholds, busy: Bool[np.ndarray, "T"]) -> list[tuple[Span, float]]:
    height = _pelvis_height(k)
    around = round(0.3 * FPS)
    knees = np.minimum(k.knee["left"], k.knee["right"])
    top = max(float(np.percentile(height, 90)), 0.85 * k.size.pelvis_m)
    found = []
    for span in signals.hysteresis(top - height, limits.squat_least_m, 0.3 * limits.squat_least_m, round(0.4 * FPS)):
        # Repeated squats need not return to a full stand: split at the maxima between them.
        points = signals.turning_points(height[slice(*span)], 0.7 * limits.squat_least_m)
        tops = [p for p in points[1:-1] if height[span[0] + p] > height[span[0] : span[1]].mean()]
        edges = [span[0], *(span[0] + p for p in tops), span[1]]
        for piece in pairwise(edges):
            inside = slice(*piece)
            bottom = piece[0] + int(np.argmin(height[inside]))
            bent = knees[bottom] > limits.squat_knee_rad and k.tilt[bottom] < limits.upright_rad + 0.3
            around_bottom = slice(max(0, bottom - around), bottom + around)
            if (
                bent
                and busy[inside].mean() < 0.3
                and not busy[around_bottom].any()
                and top - height[bottom] >= limits.squat_least_m
            ):
                found.append((piece, float(top - height[bottom])))
    return found


def _bows(k: Kinematics, limits: Thresholds, busy: Bool[np.ndarray, "T"]) -> list[tuple[Span, float, str]]:
    """Leaning forwards and straightening up; the manner is `down` where the pelvis sinks too, which is no bow."""
    upright = float(np.percentile(k.pitch, 20))
    lean = k.pitch - max(0.0, min(upright, 0.2))
    height = _pelvis_height(k) / k.size.pelvis_m
    slow = np.linalg.norm(k.velocity, axis=-1) < limits.bow_slow_mps
    found = []
    for span in signals.hysteresis(lean, limits.bow_least_rad, 0.4 * limits.bow_least_rad, round(0.4 * FPS)):
        inside = slice(*span)
        deepest = span[0] + int(np.argmax(lean[inside]))
        tall = height[deepest] > limits.bow_pelvis_ratio
        down = not tall and lean[deepest] > limits.bend_down_rad
        if (tall or down) and busy[inside].mean() < 0.3 and slow[inside].mean() > 0.7:
            manner = "down" if down else "deep" if lean[deepest] > limits.bow_deep_rad else ""
            found.append((span, float(lean[inside].max()), manner))
    return found


def _postures(k: Kinematics, limits: Thresholds, tumbling: Bool[np.ndarray, "T"]) -> list[tuple[str, Span]]:
    """Spans of lying, crawling and sitting."""
    height, neck = _pelvis_height(k) / k.size.pelvis_m, k.in_world("neck")[:, 1] / k.size.pelvis_m
    ankles_ahead = (k.in_body("left_ankle") + k.in_body("right_ankle"))[:, 2] / 2
    hands = np.maximum(k.in_world("left_wrist")[:, 1], k.in_world("right_wrist")[:, 1])
    flat = (height < limits.lie_ratio) & (neck < limits.lie_ratio) & (k.tilt > limits.upright_rad)
    on_all_fours = (k.tilt > limits.upright_rad) & (height < 0.9) & (hands < limits.hands_down_m)
    speed = np.linalg.norm(signals.smooth_path(k.velocity, 0.2 * FPS), axis=-1)
    crawling = on_all_fours & (speed > np.where(flat, limits.creep_mps, limits.crawl_mps)) & ~tumbling
    crawls = [
        span
        for span in signals.spans_of(crawling, round(limits.posture_least_s * FPS), round(0.5 * FPS))
        if path_length_m(k, span) > limits.crawl_least_m
    ]
    lying = flat & ~signals.mask_of(crawls, len(k)) & ~tumbling
    behind = (ankles_ahead > limits.sit_behind_ratio * k.size.leg_m) | (height < limits.lie_ratio)
    sitting = (height < limits.sit_ratio) & (k.tilt < limits.upright_rad) & behind & ~tumbling
    min_frames, max_gap = round(limits.posture_least_s * FPS), round(0.3 * FPS)
    found: list[tuple[str, Span]] = [("crawl", span) for span in crawls]
    for kind, flags in (("lie", lying), ("sit", sitting)):
        if kind == "sit" and not _legs_visible(k):
            continue
        found += [(kind, span) for span in signals.spans_of(flags, min_frames, max_gap)]
    return sorted(found, key=lambda posture: posture[1])


def _get_ups(k: Kinematics, limits: Thresholds, postures: list[tuple[str, Span]]) -> list[tuple[Span, float]]:
    """Spans from the end of a low posture to standing, with the rise of the pelvis."""
    height = _pelvis_height(k)
    standing = (height > 0.85 * k.size.pelvis_m) & (k.tilt < limits.upright_rad)
    found = []
    for i, (_, (_, last)) in enumerate(postures):
        until = postures[i + 1][1][0] if i + 1 < len(postures) else len(k)
        upright = np.flatnonzero(standing[last:until])
        if len(upright) and upright[0] >= 2:
            begin = max(0, last - round(0.2 * FPS))
            found.append(((begin, last + int(upright[0])), float(height[last + upright[0]] - height[begin])))
    return found


def _stands(k: Kinematics, limits: Thresholds, events: list[Movement]) -> list[Movement]:
    busy = np.zeros(len(k), bool)
    for event in events:
        busy[round(event.start_s * FPS) : round(event.end_s * FPS)] = True
    tall = (_pelvis_height(k) > 0.85 * k.size.pelvis_m) & (k.tilt < limits.upright_rad)
    free = signals.spans_of(tall & ~busy, round(limits.stand_least_s * FPS))
    if not events and tall.mean() > 0.5:
        free = [(0, len(k))]
    return [movement("body", "stand", span, path_length_m(k, span), joint="pelvis") for span in free]


def _fallback(k: Kinematics, limits: Thresholds) -> Movement:
    """The predominant posture, for a motion without any other event."""
    height = float(np.median(_pelvis_height(k)) / k.size.pelvis_m)
    tilted = float(np.median(k.tilt)) > limits.upright_rad
    if not _legs_visible(k):
        kind = "stand"
    elif tilted:
        kind = "lie" if height < limits.lie_ratio else "bow"
    else:
        kind = "stand" if height > 0.8 else "squat" if height > limits.lie_ratio else "sit"
    return movement("body", kind, (0, len(k)), path_length_m(k, (0, len(k))), joint="pelvis")
