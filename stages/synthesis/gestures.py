"""Gestures on the spot, each written once for the left side.

A gesture adds to controls of standing or walking and returns its time spans. Repeated gestures fill the available time.
"""

from collections.abc import Callable

import numpy as np
from jaxtyping import Float

from stages.synthesis.controls import LEFT, RIGHT, Controls, Style, spline

Span = tuple[float, float]
Gesture = Callable[[Controls, Float[np.ndarray, "n"], Style, np.random.Generator], list[Span]]
"""Modifies the controls in place, given the times of their frames; returns its spans, seconds."""

_GRAVITY_MPS2 = 9.81


def repetitions(seconds: float, each_s: float, rng: np.random.Generator) -> list[Span]:
    """Spans of about `each_s` that fill the time, with short pauses between them; at least one."""
    pause = rng.uniform(0.15, 0.4)
    count = max(1, int((seconds - 0.3 + pause) // (each_s + pause)))
    length = min(each_s, seconds - 0.3)
    spare = (seconds - count * length - (count - 1) * pause) / 2
    begin = max(0.1, min(spare, rng.uniform(0.15, 0.5)))
    return [(begin + i * (length + pause), begin + i * (length + pause) + length) for i in range(count)]


def _envelope_times(seconds: float, rng: np.random.Generator) -> tuple[float, float, float, float]:
    """Start of the rise, end of the rise, start of the return and end of the return, seconds."""
    up, down = rng.uniform(0.45, 0.7), rng.uniform(0.5, 0.75)
    begin = rng.uniform(0.1, 0.4)
    end = seconds - rng.uniform(0.1, 0.3)
    scale = min(1.0, (end - begin) / (up + down + 0.3))
    return begin, begin + up * scale, end - down * scale, end


def _envelope(t: Float[np.ndarray, "n"], times: tuple[float, float, float, float]) -> Float[np.ndarray, "n"]:
    return spline(t, [(times[0], 0), (times[1], 1), (times[2], 1), (times[3], 0)])


def wave(controls: Controls, t: Float[np.ndarray, "n"], style: Style, rng: np.random.Generator) -> list[Span]:
    """Upper arm raised sideways, forearm upright and swinging from side to side."""
    times = _envelope_times(t[-1], rng)
    on = _envelope(t, times)
    rate, size = rng.uniform(1.4, 2.3), rng.uniform(0.3, 0.5) * style.energy
    beat = np.sin(2 * np.pi * rate * (t - times[1])) * spline(
        t, [(times[1] - 0.15, 0), (times[1] + 0.1, 1), (times[2] - 0.1, 1), (times[2] + 0.15, 0)]
    )
    raised = rng.uniform(0, 1)
    controls.arm[:, LEFT, 0] += on * rng.uniform(0.1, 0.35)
    controls.arm[:, LEFT, 1] += on * (1.05 + 0.7 * raised) + 0.06 * beat
    controls.arm[:, LEFT, 2] += on * rng.uniform(1.3, 1.6) + 0.2 * beat
    controls.arm[:, LEFT, 3] += on * (1.3 - 0.6 * raised - style.elbow_rad) + size * beat
    controls.arm_busy[:, LEFT] = np.maximum(controls.arm_busy[:, LEFT], on)
    controls.spine[:, 2] += 0.04 * on
    return [(times[0], times[3])]


def raise_arm(controls: Controls, t: Float[np.ndarray, "n"], style: Style, rng: np.random.Generator) -> list[Span]:
    """The arm raised straight up through the front or the side, held, and lowered."""
    times = _envelope_times(t[-1], rng)
    on = _envelope(t, times)
    top = rng.uniform(2.4, 2.85)
    if rng.random() < 0.5:
        controls.arm[:, LEFT, 0] += on * top
        controls.arm[:, LEFT, 1] += on * rng.uniform(-0.05, 0.1)
    else:
        controls.arm[:, LEFT, 1] += on * (top - style.spread_rad)
        controls.arm[:, LEFT, 2] += on * rng.uniform(0.4, 1.0)
    controls.arm[:, LEFT, 3] += on * (rng.uniform(0.08, 0.25) - style.elbow_rad)
    controls.arm_busy[:, LEFT] = np.maximum(controls.arm_busy[:, LEFT], on)
    controls.spine[:, 2] += 0.05 * on
    return [(times[0], times[3])]


def reach(controls: Controls, t: Float[np.ndarray, "n"], style: Style, rng: np.random.Generator) -> list[Span]:
    """The arm stretches forwards to take something, and the trunk follows."""
    spans = repetitions(t[-1], rng.uniform(1.6, 2.2), rng)
    for begin, end in spans:
        on = spline(t, [(begin, 0), (begin + 0.45 * (end - begin), 1), (begin + 0.6 * (end - begin), 1), (end, 0)])
        controls.arm[:, LEFT, 0] += on * rng.uniform(1.2, 1.7)
        controls.arm[:, LEFT, 3] += on * (0.15 - style.elbow_rad) + 0.9 * on * (1 - on)
        controls.arm_busy[:, LEFT] = np.maximum(controls.arm_busy[:, LEFT], on)
        controls.spine += on[:, None] * [0.22, -0.3, 0.0]
        controls.pelvis += on[:, None] * [0.08, -0.1, 0.0]
        controls.pelvis_offset[:, 2] += 0.05 * on
        controls.head[:, 0] += 0.1 * on
    return spans


def punch(controls: Controls, t: Float[np.ndarray, "n"], style: Style, rng: np.random.Generator) -> list[Span]:
    """Both fists raised in guard; one punches forwards with a rotation of the trunk."""
    times = _envelope_times(t[-1], rng)
    guard = _envelope(t, times)
    for side, extra in ((LEFT, 0.0), (RIGHT, 0.1)):
        controls.arm[:, side, 0] += guard * (0.55 + extra)
        controls.arm[:, side, 1] += guard * 0.05
        controls.arm[:, side, 2] += guard * -0.3
        controls.arm[:, side, 3] += guard * (2.05 - style.elbow_rad)
        controls.arm_busy[:, side] = np.maximum(controls.arm_busy[:, side], guard)
    controls.pelvis_offset[:, 1] -= 0.05 * guard
    controls.spine[:, 0] += 0.1 * guard
    length = max(0.3, times[2] - times[1])
    fitting = [(a, b) for a, b in repetitions(length, 0.65, rng) if b - a >= 0.2 and times[1] + b <= times[2] + 0.2]
    spans = [(times[1] + a, times[1] + b) for a, b in fitting]
    spans = spans or [(times[1], times[1] + min(0.65, length))]
    for begin, end in spans:
        on = spline(t, [(begin, 0), (begin + 0.32 * (end - begin), 1), (begin + 0.42 * (end - begin), 1), (end, 0)])
        controls.arm[:, LEFT, 0] += on * rng.uniform(0.85, 1.0)
        controls.arm[:, LEFT, 1] -= on * 0.15
        controls.arm[:, LEFT, 3] -= on * 1.9
        controls.spine[:, 1] -= on * 0.45
        controls.pelvis[:, 1] -= on * 0.2
        controls.pelvis_offset[:, 2] += on * 0.05
    return spans


def squat(controls: Controls, t: Float[np.ndarray, "n"], style: Style, rng: np.random.Generator) -> list[Span]:
    """Down with flat feet, trunk leaning, arms extended forwards, and up."""
    spans = repetitions(t[-1], rng.uniform(1.7, 2.3) / style.tempo, rng)
    arms = rng.uniform(0.8, 1.35)
    for begin, end in spans:
        depth = float(np.clip(rng.uniform(0.26, 0.42) * style.energy, 0.22, 0.44))
        down = spline(t, [(begin, 0), (begin + 0.42 * (end - begin), 1), (begin + 0.52 * (end - begin), 1), (end, 0)])
        controls.pelvis_offset[:, 1] -= depth * down
        controls.pelvis_offset[:, 2] -= 0.28 * depth * down
        controls.pelvis[:, 0] += 0.95 * depth * down
        controls.spine[:, 0] += 0.75 * depth * down
        controls.head[:, 0] -= 0.3 * depth * down
        # The trunk leans, so arms that are level in the world are raised further relative to the chest.
        controls.arm[:, :, 0] += ((arms + 1.3 * depth) * down)[:, None]
        controls.arm[:, :, 3] += ((0.1 - style.elbow_rad) * down)[:, None]
        controls.arm_busy = np.maximum(controls.arm_busy, down[:, None])
    return spans


def bow(controls: Controls, t: Float[np.ndarray, "n"], style: Style, rng: np.random.Generator) -> list[Span]:
    """A bow from the hips; the pelvis moves back to keep the balance."""
    spans = repetitions(t[-1], rng.uniform(1.8, 2.4) / style.tempo, rng)
    for begin, end in spans:
        size = rng.uniform(0.6, 1.1)
        down = size * spline(
            t, [(begin, 0), (begin + 0.4 * (end - begin), 1), (begin + 0.55 * (end - begin), 1), (end, 0)]
        )
        controls.pelvis[:, 0] += 0.55 * down
        controls.spine[:, 0] += 0.5 * down
        controls.head[:, 0] += 0.45 * down
        controls.pelvis_offset[:, 2] -= 0.13 * down
        controls.arm[:, :, 0] += (0.75 * down)[:, None]
    return spans


def jump(controls: Controls, t: Float[np.ndarray, "n"], style: Style, rng: np.random.Generator) -> list[Span]:
    """Crouch, push off with arms swinging up, ballistic flight, landing on the balls of the feet, absorb and rise."""
    height = float(np.clip(rng.uniform(0.14, 0.3) * style.energy, 0.12, 0.34))
    crouch, rise, absorb = rng.uniform(0.2, 0.28), 0.05, rng.uniform(0.16, 0.24)
    takeoff_mps = np.sqrt(2 * _GRAVITY_MPS2 * height)
    push_s, flight_s = 2 * (crouch + rise) / takeoff_mps, 2 * takeoff_mps / _GRAVITY_MPS2
    landing_s = 2 * (absorb + rise) / takeoff_mps
    total = 0.4 + push_s + flight_s + landing_s + 0.4
    spans = []
    for begin, _ in repetitions(t[-1], min(total, t[-1] - 0.35), rng):
        push = begin + 0.4
        takeoff, land = push + push_s, push + push_s + flight_s
        lowest, end = land + landing_s, land + landing_s + 0.4
        lean = spline(t, [(begin, 0), (push, 1), (takeoff, 0.05), (land, 0.1), (lowest, 0.8), (end, 0)])
        up = spline(t, [(begin, 0), (push, -crouch)])
        up = np.where(t > push, -crouch + (crouch + rise) * ((t - push) / push_s) ** 2, up)
        flight = rise + takeoff_mps * (t - takeoff) - _GRAVITY_MPS2 * (t - takeoff) ** 2 / 2
        up = np.where(t > takeoff, flight, up)
        up = np.where(t > land, -absorb + (absorb + rise) * (1 - (t - land) / landing_s) ** 2, up)
        up = np.where(t > lowest, spline(t, [(lowest, -absorb), (end, 0)]), up)
        inside = (t >= begin) & (t <= end)
        controls.pelvis_offset[inside, 1] += up[inside]
        controls.airborne |= (t > push) & (t < lowest)
        air = (t > takeoff) & (t < land)
        controls.planted[air] = False
        controls.foot_lift[air] = np.maximum(0, flight - rise)[air, None]
        controls.foot_pitch += spline(
            t, [(takeoff - 0.16, 0), (takeoff, -0.7), (takeoff + 0.1, -0.8), (land, -0.45), (land + 0.1, 0)]
        )[:, None]
        point = spline(t, [(takeoff, 0), (takeoff + 0.12, 0.8), (land - 0.1, 0.8), (land, 0)])
        controls.toe_flat *= 1 - point[:, None]
        controls.pelvis[:, 0] += 0.3 * lean
        controls.spine[:, 0] += 0.35 * lean
        controls.pelvis_offset[:, 2] -= 0.05 * lean
        top = takeoff + 0.6 * flight_s
        arms = spline(t, [(begin, 0), (push - 0.12, -0.5), (takeoff, 1.0), (top, 1.6), (land + 0.1, 0.9), (end, 0)])
        controls.arm[:, :, 0] += (arms * style.energy)[:, None]
        controls.arm[:, :, 3] += spline(t, [(begin, 0), (takeoff, 0.5), (land, 0.3), (end, 0)])[:, None]
        spans.append((begin, end))
    return spans


def kick(controls: Controls, t: Float[np.ndarray, "n"], style: Style, rng: np.random.Generator) -> list[Span]:
    """Weight on the right leg; the left foot is drawn back, swung forwards and up, and put back in place."""
    spans = repetitions(t[-1], rng.uniform(1.6, 1.9) / style.tempo, rng)
    height, reach_m = rng.uniform(0.3, 0.75) * style.energy, rng.uniform(0.68, 0.85)
    for begin, end in spans:
        at = [begin + share * (end - begin) for share in (0, 0.18, 0.4, 0.56, 0.64, 0.9, 1)]
        controls.foot[:, LEFT, 1] += spline(
            t, [(at[1], 0), (at[2], -0.32), (at[3], reach_m), (at[4], reach_m), (at[5], 0)]
        )
        controls.foot[:, LEFT, 0] -= spline(t, [(at[1], 0), (at[3], 0.03), (at[5], 0)])
        lift = spline(t, [(at[1], 0), (at[2], 0.16), (at[3], height), (at[4], height), (at[5], 0)])
        controls.foot_lift[:, LEFT] += lift
        pitch = [(at[0], 0), (at[1], -0.3), (at[2], -0.9), (at[3], 0.15), (at[4], 0.2), (at[5], -0.1), (at[6], 0)]
        controls.foot_pitch[:, LEFT] += spline(t, pitch)
        air = (t > at[1]) & (t < at[5])
        controls.planted[air, LEFT] = False
        controls.toe_flat[:, LEFT] *= 1 - spline(t, [(at[1], 0), (at[2], 0.9), (at[4], 0.9), (at[5], 0)])
        support = spline(t, [(at[0] - 0.2, 0), (at[1], 1), (at[5], 1), (at[6] + 0.2, 0)])
        controls.pelvis_offset[:, 0] -= (style.stance_m / 2 - 0.025) * support
        controls.pelvis_offset[:, 1] -= 0.025 * support
        lean = spline(t, [(at[0], 0), (at[2], 0.12), (at[3], -0.22), (at[4], -0.22), (at[6], 0)])
        controls.pelvis[:, 0] += lean
        controls.spine[:, 0] -= 0.3 * lean
        counter = spline(t, [(at[0], 0), (at[2], -1), (at[3], 1), (at[4], 1), (at[6], 0)])
        controls.arm[:, LEFT, 0] -= 0.5 * counter
        controls.arm[:, RIGHT, 0] += 0.6 * counter
        controls.arm[:, :, 1] += 0.35 * support[:, None]
        controls.pelvis[:, 1] -= 0.15 * counter
        controls.spine[:, 1] += 0.25 * counter
    return spans


def shift_weight(controls: Controls, t: Float[np.ndarray, "n"], style: Style, rng: np.random.Generator) -> list[Span]:
    """Standing at ease: occasional weight shifts from one leg to the other, and head turns."""
    knots = [(0.0, 0.0)]
    while knots[-1][0] < t[-1] - 2:
        knots.append((knots[-1][0] + rng.uniform(1.0, 1.8), rng.uniform(-1, 1)))
    knots.append((t[-1], 0.0))
    lean = spline(t, knots)
    controls.pelvis_offset[:, 0] += 0.045 * lean
    controls.pelvis_offset[:, 1] -= 0.012 * abs(lean)
    controls.pelvis[:, 2] += 0.05 * lean
    controls.spine[:, 2] -= 0.06 * lean
    controls.head[:, 1] += 0.35 * style.energy * spline(t, [(x, y * rng.uniform(-1, 1)) for x, y in knots])
    return [(0.0, float(t[-1]))]
