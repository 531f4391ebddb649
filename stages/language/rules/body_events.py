"""Rules for the whole body: all its events in order of precedence; jumps and tumbles."""

import numpy as np
from jaxtyping import Bool, Float
from scipy.ndimage import minimum_filter1d

from schemas.records import FPS
from stages.language.rules import signals
from stages.language.rules.activities import activities, held_up
from stages.language.rules.bends import bows, pick_ups, squats
from stages.language.rules.gaits import gaits, path_length_m, spans, turns
from stages.language.rules.kinematics import SIDES, Kinematics, feet_lift, pelvis_height
from stages.language.rules.movements import Movement, movement
from stages.language.rules.postures import fallback, get_ups, postures, speaks_of_visible, stands
from stages.language.rules.signals import Span
from stages.language.rules.thresholds import Thresholds

_JUMP_MARGIN_S = 0.45
"""Time for take-off and landing around a flight, part of the jump."""
_LANDING_S = 0.6
"""Time before and after a frame of a flight within which the feet are on the ground."""


def body_events(k: Kinematics, limits: Thresholds) -> list[Movement]:
    """Events of the whole body; never empty."""
    tumbles = _tumbles(k, limits)
    tumbling = signals.mask_of(spans(tumbles, "roll", "flip", "cartwheel"), len(k))
    active = activities(k, limits.activities, tumbling, held_up(k, limits))
    lifted = signals.mask_of(spans(active, "climb", "hang", "ride", "handstand"), len(k))
    low = [(kind, span) for kind, span in postures(k, limits, tumbling) if lifted[slice(*span)].mean() < 0.5]
    busy = tumbling | lifted | signals.mask_of([span for _, span in low], len(k))
    turn_events = turns(k, limits, busy)
    # In a spin the velocity in body axes rotates, which is neither sidestepping nor walking backwards.
    gait_events = gaits(k, limits, busy | signals.mask_of(spans(turn_events, "spin"), len(k)))
    dancing = signals.mask_of(spans(active, "dance"), len(k))
    jumps = [
        (span, amount)
        for span, amount in _jumps(k, limits, gait_events, tumbling | lifted)
        if dancing[slice(*span)].mean() < 0.5 or amount > limits.activities.dance_jump_m
    ]
    jumping = signals.mask_of([span for span, _ in jumps], len(k))
    events = tumbles + active
    events += [movement("body", kind, span, path_length_m(k, span), joint="pelvis") for kind, span in low]
    events += [movement("body", "get_up", span, amount, joint="pelvis") for span, amount in get_ups(k, limits, low)]
    events += [
        movement("body", "jump", span, amount, joint="pelvis", manner=_jump_manner(k, span)) for span, amount in jumps
    ]
    picks = pick_ups(k, limits, busy | jumping | dancing)
    events += [
        movement("body", "pick_up", span, float(np.ptp(pelvis_height(k)[slice(*span)])), joint="pelvis", side=side)
        for span, side in picks
    ]
    busy_or_dancing = busy | jumping | dancing | signals.mask_of([span for span, _ in picks], len(k))
    # The trunk of who walks on leans to and fro, which is no bow.
    going = signals.mask_of(spans(gait_events, *(event.kind for event in gait_events)), len(k))
    bow_spans = bows(k, limits, busy_or_dancing | going)
    bowing = signals.mask_of([span for span, _, _ in bow_spans], len(k))
    events += [
        movement("body", "bow", span, amount, joint="spine1", manner=manner) for span, amount, manner in bow_spans
    ]
    squat_spans = squats(k, limits, busy_or_dancing | bowing)
    events += [movement("body", "squat", span, amount, joint="pelvis") for span, amount in squat_spans]
    for event in gait_events:
        inside = slice(*spans([event], event.kind)[0])
        if jumping[inside].mean() <= 0.5 and not (event.kind == "run" and dancing[inside].mean() > 0.5):
            events.append(event)
    events += turn_events
    events = [event for event in events if speaks_of_visible(k, event.kind)]
    events += stands(k, limits, events)
    return events or [fallback(k, limits)]


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
        low = float(pelvis_height(k)[begin:end].min()) < limits.roll_ratio * k.size.pelvis_m
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
    lift, held = feet_lift(k), held_up(k, limits)
    on, off, least = 1.4 * limits.flight_m, 0.5 * limits.flight_m, round(limits.flight_s * FPS)
    flights = _repeated(signals.hysteresis(_above_landings(lift), on, off, least), held)
    flights += [span for span in signals.hysteresis(lift, on, off, least) if not held[slice(*span)].any()]
    height, margin = pelvis_height(k), round(_JUMP_MARGIN_S * FPS)
    knees = np.maximum(k.knee["left"], k.knee["right"])
    walks, runs = spans(gait_events, "walk", "walk_backward"), spans(gait_events, "run")
    found: dict[Span, tuple[Span, float]] = {}
    for span in flights:
        if signals.covered(span, list(found)) > 0:
            continue
        wide = (max(0, span[0] - margin), min(len(k), span[1] + margin))
        rise = float(height[slice(*span)].max() - np.median(height[slice(*wide)]))
        running, walking = signals.covered(span, runs) > 0.5, signals.covered(span, walks) > 0.5
        min_rise = limits.jump_least_m * (limits.leap_factor if running else 1.2 if walking else 0.6)
        pushed = float(np.ptp(knees[slice(*wide)])) > limits.jump_knee_rad
        upright = np.median(k.tilt[slice(*span)]) < limits.upright_rad
        high = height[slice(*span)].max() > limits.jump_pelvis_ratio * k.size.pelvis_m
        if rise > min_rise and pushed and upright and high and not tumbling[slice(*span)].any():
            edge = height[[span[0], span[1] - 1]].min()
            found[span] = wide, float(height[slice(*span)].max() - edge + lift[slice(*span)].min())
    return _without_overlaps(list(found.values()))


def _repeated(flights: list[Span], held: Bool[np.ndarray, "T"]) -> list[Span]:
    """Flights, of those within a time in the air only ones that follow each other: who swings on something is lifted once."""

    def follows(one: Span, other: Span) -> bool:
        return one != other and max(one[0], other[0]) - min(one[1], other[1]) <= _LANDING_S * FPS

    return [one for one in flights if not held[slice(*one)].any() or any(follows(one, other) for other in flights)]


def _above_landings(lift: Float[np.ndarray, "T"]) -> Float[np.ndarray, "T"]:
    """Height of the feet above where they land: above the higher of the lowest points shortly before and after. Something soft, or
    an estimate that drifts, is not equally high at every landing of one who hops, and who is pulled up does not land at all."""
    window = round(_LANDING_S * FPS)
    before = minimum_filter1d(lift, window, origin=(window - 1) // 2, mode="nearest")
    after = minimum_filter1d(lift, window, origin=-(window // 2), mode="nearest")
    return lift - np.maximum(0.0, np.maximum(before, after))


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
