"""Things people do without going anywhere, each written once for the left side.

A gesture adds to controls that stand or walk and says when it happened. Those that repeat do so until the time is up.
"""

from collections.abc import Callable

import numpy as np
from jaxtyping import Float

from stages.synthesis.controls import LEFT, RIGHT, Controls, Style, spline

Span = tuple[float, float]
Gesture = Callable[[Controls, Float[np.ndarray, "n"], Style, np.random.Generator], list[Span]]
"""Writes into the controls, given the times of their frames; returns when it happened, seconds."""

_GRAVITY_MPS2 = 9.81


def repeats(seconds: float, each_s: float, rng: np.random.Generator) -> list[Span]:
    """Spans of about `each_s` that fill the time, a short rest between them; at least one."""
    rest = rng.uniform(0.15, 0.4)
    count = max(1, int((seconds - 0.3 + rest) // (each_s + rest)))
    length = min(each_s, seconds - 0.3)
    spare = (seconds - count * length - (count - 1) * rest) / 2
    begin = max(0.1, min(spare, rng.uniform(0.15, 0.5)))
    return [(begin + i * (length + rest), begin + i * (length + rest) + length) for i in range(count)]


def _busy(seconds: float, rng: np.random.Generator) -> tuple[float, float, float, float]:
    """Times of leaving rest, being there, leaving there and being back."""
    up, down = rng.uniform(0.45, 0.7), rng.uniform(0.5, 0.75)
    begin = rng.uniform(0.1, 0.4)
    end = seconds - rng.uniform(0.1, 0.3)
    scale = min(1.0, (end - begin) / (up + down + 0.3))
    return begin, begin + up * scale, end - down * scale, end


def _envelope(t: Float[np.ndarray, "n"], times: tuple[float, float, float, float]) -> Float[np.ndarray, "n"]:
    return spline(t, [(times[0], 0), (times[1], 1), (times[2], 1), (times[3], 0)])


def wave(controls: Controls, t: Float[np.ndarray, "n"], style: Style, rng: np.random.Generator) -> list[Span]:
    """Upper arm out and up, forearm upright, moving from side to side."""
    times = _busy(t[-1], rng)
    on = _envelope(t, times)
    rate, size = rng.uniform(1.4, 2.3), rng.uniform(0.3, 0.5) * style.energy
    beat = np.sin(2 * np.pi * rate * (t - times[1])) * spline(
        t, [(times[1] - 0.15, 0), (times[1] + 0.1, 1), (times[2] - 0.1, 1), (times[2] + 0.15, 0)]
    )
    high = rng.uniform(0, 1)
    controls.arm[:, LEFT, 0] += on * rng.uniform(0.1, 0.35)
    controls.arm[:, LEFT, 1] += on * (1.05 + 0.7 * high) + 0.06 * beat
    controls.arm[:, LEFT, 2] += on * rng.uniform(1.3, 1.6) + 0.2 * beat
    controls.arm[:, LEFT, 3] += on * (1.3 - 0.6 * high - style.elbow_rad) + size * beat
    controls.hold[:, LEFT] = np.maximum(controls.hold[:, LEFT], on)
    controls.spine[:, 2] += 0.04 * on
    return [(times[0], times[3])]


def raise_arm(controls: Controls, t: Float[np.ndarray, "n"], style: Style, rng: np.random.Generator) -> list[Span]:
    """Straight up over the front or the side, held, and down again."""
    times = _busy(t[-1], rng)
    on = _envelope(t, times)
    top = rng.uniform(2.4, 2.85)
    if rng.random() < 0.5:
        controls.arm[:, LEFT, 0] += on * top
        controls.arm[:, LEFT, 1] += on * rng.uniform(-0.05, 0.1)
    else:
        controls.arm[:, LEFT, 1] += on * (top - style.spread_rad)
        controls.arm[:, LEFT, 2] += on * rng.uniform(0.4, 1.0)
    controls.arm[:, LEFT, 3] += on * (rng.uniform(0.08, 0.25) - style.elbow_rad)
    controls.hold[:, LEFT] = np.maximum(controls.hold[:, LEFT], on)
    controls.spine[:, 2] += 0.05 * on
    return [(times[0], times[3])]


def reach(controls: Controls, t: Float[np.ndarray, "n"], style: Style, rng: np.random.Generator) -> list[Span]:
    """The arm stretches out in front to take something, the trunk follows it."""
    spans = repeats(t[-1], rng.uniform(1.6, 2.2), rng)
    for begin, end in spans:
        on = spline(t, [(begin, 0), (begin + 0.45 * (end - begin), 1), (begin + 0.6 * (end - begin), 1), (end, 0)])
        controls.arm[:, LEFT, 0] += on * rng.uniform(1.2, 1.7)
        controls.arm[:, LEFT, 3] += on * (0.15 - style.elbow_rad) + 0.9 * on * (1 - on)
        controls.hold[:, LEFT] = np.maximum(controls.hold[:, LEFT], on)
        controls.spine += on[:, None] * [0.22, -0.3, 0.0]
        controls.pelvis += on[:, None] * [0.08, -0.1, 0.0]
        controls.shift[:, 2] += 0.05 * on
        controls.head[:, 0] += 0.1 * on
    return spans


def punch(controls: Controls, t: Float[np.ndarray, "n"], style: Style, rng: np.random.Generator) -> list[Span]:
    """Both fists up in guard; one shoots forwards with a turn of the trunk."""
    times = _busy(t[-1], rng)
    guard = _envelope(t, times)
    for side, more in ((LEFT, 0.0), (RIGHT, 0.1)):
        controls.arm[:, side, 0] += guard * (0.55 + more)
        controls.arm[:, side, 1] += guard * 0.05
        controls.arm[:, side, 2] += guard * -0.3
        controls.arm[:, side, 3] += guard * (2.05 - style.elbow_rad)
        controls.hold[:, side] = np.maximum(controls.hold[:, side], guard)
    controls.shift[:, 1] -= 0.05 * guard
    controls.spine[:, 0] += 0.1 * guard
    length = max(0.3, times[2] - times[1])
    blows = [(times[1] + a, times[1] + b) for a, b in repeats(length, 0.65, rng) if times[1] + b <= times[2] + 0.2]
    blows = blows or [(times[1], times[1] + min(0.65, length))]
    for begin, end in blows:
        out = spline(t, [(begin, 0), (begin + 0.32 * (end - begin), 1), (begin + 0.42 * (end - begin), 1), (end, 0)])
        controls.arm[:, LEFT, 0] += out * rng.uniform(0.85, 1.0)
        controls.arm[:, LEFT, 1] -= out * 0.15
        controls.arm[:, LEFT, 3] -= out * 1.9
        controls.spine[:, 1] -= out * 0.45
        controls.pelvis[:, 1] -= out * 0.2
        controls.shift[:, 2] += out * 0.05
    return blows


def squat(controls: Controls, t: Float[np.ndarray, "n"], style: Style, rng: np.random.Generator) -> list[Span]:
    """Down with flat feet, trunk leaning, arms out in front, and up."""
    spans = repeats(t[-1], rng.uniform(1.7, 2.3) / style.tempo, rng)
    arms = rng.uniform(0.8, 1.35)
    for begin, end in spans:
        depth = float(np.clip(rng.uniform(0.26, 0.42) * style.energy, 0.22, 0.44))
        down = spline(t, [(begin, 0), (begin + 0.42 * (end - begin), 1), (begin + 0.52 * (end - begin), 1), (end, 0)])
        controls.shift[:, 1] -= depth * down
        controls.shift[:, 2] -= 0.28 * depth * down
        controls.pelvis[:, 0] += 0.95 * depth * down
        controls.spine[:, 0] += 0.75 * depth * down
        controls.head[:, 0] -= 0.3 * depth * down
        # The trunk leans, so that arms out in front of the person are higher in front of the chest.
        controls.arm[:, :, 0] += ((arms + 1.3 * depth) * down)[:, None]
        controls.arm[:, :, 3] += ((0.1 - style.elbow_rad) * down)[:, None]
        controls.hold = np.maximum(controls.hold, down[:, None])
    return spans


def bow(controls: Controls, t: Float[np.ndarray, "n"], style: Style, rng: np.random.Generator) -> list[Span]:
    """From the hips, the seat moving back so that the balance is kept."""
    spans = repeats(t[-1], rng.uniform(1.8, 2.4) / style.tempo, rng)
    for begin, end in spans:
        size = rng.uniform(0.6, 1.1)
        down = size * spline(
            t, [(begin, 0), (begin + 0.4 * (end - begin), 1), (begin + 0.55 * (end - begin), 1), (end, 0)]
        )
        controls.pelvis[:, 0] += 0.55 * down
        controls.spine[:, 0] += 0.5 * down
        controls.head[:, 0] += 0.45 * down
        controls.shift[:, 2] -= 0.13 * down
        controls.arm[:, :, 0] += (0.75 * down)[:, None]
    return spans


def jump(controls: Controls, t: Float[np.ndarray, "n"], style: Style, rng: np.random.Generator) -> list[Span]:
    """Crouch, push off with arms swinging up, fly a parabola, land on the balls of the feet, give way and rise."""
    height = float(np.clip(rng.uniform(0.14, 0.3) * style.energy, 0.12, 0.34))
    crouch, rise, give = rng.uniform(0.2, 0.28), 0.05, rng.uniform(0.16, 0.24)
    leap_mps = np.sqrt(2 * _GRAVITY_MPS2 * height)
    push_s, fly_s, land_s = 2 * (crouch + rise) / leap_mps, 2 * leap_mps / _GRAVITY_MPS2, 2 * (give + rise) / leap_mps
    total = 0.4 + push_s + fly_s + land_s + 0.4
    spans = []
    for begin, _ in repeats(t[-1], min(total, t[-1] - 0.35), rng):
        go = begin + 0.4
        fly, land = go + push_s, go + push_s + fly_s
        rest, end = land + land_s, land + land_s + 0.4
        lean = spline(t, [(begin, 0), (go, 1), (fly, 0.05), (land, 0.1), (rest, 0.8), (end, 0)])
        up = spline(t, [(begin, 0), (go, -crouch)])
        up = np.where(t > go, -crouch + (crouch + rise) * ((t - go) / push_s) ** 2, up)
        flight = rise + leap_mps * (t - fly) - _GRAVITY_MPS2 * (t - fly) ** 2 / 2
        up = np.where(t > fly, flight, up)
        up = np.where(t > land, -give + (give + rise) * (1 - (t - land) / land_s) ** 2, up)
        up = np.where(t > rest, spline(t, [(rest, -give), (end, 0)]), up)
        inside = (t >= begin) & (t <= end)
        controls.shift[inside, 1] += up[inside]
        controls.airborne |= (t > go) & (t < rest)
        air = (t > fly) & (t < land)
        controls.planted[air] = False
        controls.foot_lift[air] = np.maximum(0, flight - rise)[air, None]
        controls.foot_pitch += spline(
            t, [(fly - 0.16, 0), (fly, -0.7), (fly + 0.1, -0.8), (land, -0.45), (land + 0.1, 0)]
        )[:, None]
        controls.toe_flat *= 1 - spline(t, [(fly, 0), (fly + 0.12, 0.8), (land - 0.1, 0.8), (land, 0)])[:, None]
        controls.pelvis[:, 0] += 0.3 * lean
        controls.spine[:, 0] += 0.35 * lean
        controls.shift[:, 2] -= 0.05 * lean
        arms = spline(
            t, [(begin, 0), (go - 0.12, -0.5), (fly, 1.0), (fly + 0.6 * fly_s, 1.6), (land + 0.1, 0.9), (end, 0)]
        )
        controls.arm[:, :, 0] += (arms * style.energy)[:, None]
        controls.arm[:, :, 3] += spline(t, [(begin, 0), (fly, 0.5), (land, 0.3), (end, 0)])[:, None]
        spans.append((begin, end))
    return spans


def kick(controls: Controls, t: Float[np.ndarray, "n"], style: Style, rng: np.random.Generator) -> list[Span]:
    """Weight on the other leg, the foot drawn back, swung forwards and up, and set down where it was."""
    spans = repeats(t[-1], rng.uniform(1.6, 1.9) / style.tempo, rng)
    high, far = rng.uniform(0.3, 0.75) * style.energy, rng.uniform(0.68, 0.85)
    for begin, end in spans:
        at = [begin + share * (end - begin) for share in (0, 0.18, 0.4, 0.56, 0.64, 0.9, 1)]
        controls.foot[:, LEFT, 1] += spline(t, [(at[1], 0), (at[2], -0.32), (at[3], far), (at[4], far), (at[5], 0)])
        controls.foot[:, LEFT, 0] -= spline(t, [(at[1], 0), (at[3], 0.03), (at[5], 0)])
        lift = spline(t, [(at[1], 0), (at[2], 0.16), (at[3], high), (at[4], high), (at[5], 0)])
        controls.foot_lift[:, LEFT] += lift
        pitch = [(at[0], 0), (at[1], -0.3), (at[2], -0.9), (at[3], 0.15), (at[4], 0.2), (at[5], -0.1), (at[6], 0)]
        controls.foot_pitch[:, LEFT] += spline(t, pitch)
        air = (t > at[1]) & (t < at[5])
        controls.planted[air, LEFT] = False
        controls.toe_flat[:, LEFT] *= 1 - spline(t, [(at[1], 0), (at[2], 0.9), (at[4], 0.9), (at[5], 0)])
        over = spline(t, [(at[0] - 0.2, 0), (at[1], 1), (at[5], 1), (at[6] + 0.2, 0)])
        controls.shift[:, 0] -= (style.stance_m / 2 - 0.025) * over
        controls.shift[:, 1] -= 0.025 * over
        lean = spline(t, [(at[0], 0), (at[2], 0.12), (at[3], -0.22), (at[4], -0.22), (at[6], 0)])
        controls.pelvis[:, 0] += lean
        controls.spine[:, 0] -= 0.3 * lean
        beat = spline(t, [(at[0], 0), (at[2], -1), (at[3], 1), (at[4], 1), (at[6], 0)])
        controls.arm[:, LEFT, 0] -= 0.5 * beat
        controls.arm[:, RIGHT, 0] += 0.6 * beat
        controls.arm[:, :, 1] += 0.35 * over[:, None]
        controls.pelvis[:, 1] -= 0.15 * beat
        controls.spine[:, 1] += 0.25 * beat
    return spans


def shift_weight(controls: Controls, t: Float[np.ndarray, "n"], style: Style, rng: np.random.Generator) -> list[Span]:
    """Standing at ease: from one leg to the other now and then, looking about."""
    knots = [(0.0, 0.0)]
    while knots[-1][0] < t[-1] - 2:
        knots.append((knots[-1][0] + rng.uniform(1.0, 1.8), rng.uniform(-1, 1)))
    knots.append((t[-1], 0.0))
    lean = spline(t, knots)
    controls.shift[:, 0] += 0.045 * lean
    controls.shift[:, 1] -= 0.012 * abs(lean)
    controls.pelvis[:, 2] += 0.05 * lean
    controls.spine[:, 2] -= 0.06 * lean
    controls.head[:, 1] += 0.35 * style.energy * spline(t, [(x, y * rng.uniform(-1, 1)) for x, y in knots])
    return [(0.0, float(t[-1]))]
