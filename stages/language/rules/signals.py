"""Spans, turning points and oscillations in noisy signals over frames. All spans are [first, last) in frames."""

from itertools import pairwise

import numpy as np
from jaxtyping import Bool, Float
from scipy.ndimage import uniform_filter1d

from schemas.curves import runs, smooth

Span = tuple[int, int]


def smooth_path(values: Float[np.ndarray, "T *C"], sigma_frames: float) -> Float[np.ndarray, "T *C"]:
    """Gaussian filter with odd reflection at the ends, which preserves the speeds there."""
    return smooth(values, sigma_frames, padding="odd")


def box_mean(values: Float[np.ndarray, "T *C"], window: int) -> Float[np.ndarray, "T *C"]:
    """Running mean over a window of frames, the ends repeated."""
    return uniform_filter1d(values, max(1, min(window, len(values))), axis=0, mode="nearest")


def derivative(values: Float[np.ndarray, "T *C"], fps: float) -> Float[np.ndarray, "T *C"]:
    """Change per second, by central differences."""
    return np.gradient(values, axis=0) * fps if len(values) > 1 else np.zeros_like(values)


def spans_of(flags: Bool[np.ndarray, "T"], min_frames: int = 1, max_gap: int = 0) -> list[Span]:
    """Spans where the flag is set; gaps up to `max_gap` frames are bridged, spans shorter than `min_frames` dropped."""
    merged: list[Span] = []
    for first, last in runs(flags):
        if merged and first - merged[-1][1] <= max_gap:
            merged[-1] = (merged[-1][0], last)
        else:
            merged.append((first, last))
    return [span for span in merged if span[1] - span[0] >= min_frames]


def hysteresis(
    values: Float[np.ndarray, "T"], on: float, off: float, min_frames: int = 1, max_gap: int = 0
) -> list[Span]:
    """Spans above `off` whose maximum exceeds `on`."""
    return [span for span in spans_of(values > off, min_frames, max_gap) if values[span[0] : span[1]].max() > on]


def turning_points(values: Float[np.ndarray, "T"], min_change: float) -> list[int]:
    """Frames between which the signal alternately rises and falls by at least `min_change`, first and last frame included."""
    if not len(values):
        return []
    points, low, high, direction = [0], 0, 0, 0
    curve = values.tolist()  # a loop over Python floats is ten times as fast
    bottom = top = curve[0]
    for i, value in enumerate(curve):
        if value > top:
            high, top = i, value
        if value < bottom:
            low, bottom = i, value
        if direction >= 0 and top - value >= min_change:
            points += [high] if high != points[-1] else []
            direction, low, high, bottom, top = -1, i, i, value, value
        elif direction <= 0 and value - bottom >= min_change:
            points += [low] if low != points[-1] else []
            direction, low, high, bottom, top = 1, i, i, value, value
    last = high if direction > 0 else low if direction < 0 else len(values) - 1
    for point in (last, len(values) - 1):
        if point > points[-1]:
            points.append(point)
    return points


def sweeps(values: Float[np.ndarray, "T"], min_change: float, trim: float = 0.06) -> list[Span]:
    """Monotonic changes by at least `min_change`, without their slow ends.

    `trim` is the share of the change that is cut off at either end. The frame that completes the change is in the span.
    """
    points = turning_points(values, min_change)
    spans = []
    for first, last in pairwise(points):
        change = values[last] - values[first]
        if abs(change) < min_change:
            continue
        progress = (values[first : last + 1] - values[first]) / change
        begin = int(np.flatnonzero(progress <= trim)[-1])
        end = int(np.flatnonzero(progress >= 1 - trim)[0])
        spans.append((first + begin, first + max(begin, end) + 1))
    return spans


def oscillations(
    values: Float[np.ndarray, "T"], min_width: float, min_half_frames: float, max_half_frames: float, min_halves: int
) -> list[tuple[Span, float]]:
    """Oscillations of at least `min_halves` half cycles, each `min_half_frames` to `max_half_frames` long and at least
    `min_width` wide, with their mean peak-to-peak width."""
    points = turning_points(values, min_width)
    runs: list[list[int]] = [[]]
    for first, last in pairwise(points):
        if min_half_frames <= last - first <= max_half_frames and abs(values[last] - values[first]) >= min_width:
            runs[-1] = runs[-1] or [first]
            runs[-1].append(last)
        elif runs[-1]:
            runs.append([])
    found = []
    for run in runs:
        if len(run) > min_halves:
            found.append(((run[0], run[-1] + 1), float(np.abs(np.diff(values[run])).mean())))
    return found


def covered(span: Span, others: list[Span]) -> float:
    """Share of a span covered by the union of the others."""
    flags = np.zeros(max(1, span[1] - span[0]), bool)
    for first, last in others:
        flags[max(0, first - span[0]) : max(0, last - span[0])] = True
    return float(flags.mean())


def mask_of(spans: list[Span], length: int) -> Bool[np.ndarray, "T"]:
    """True inside any of the spans, false elsewhere."""
    mask = np.zeros(length, bool)
    for first, last in spans:
        mask[first:last] = True
    return mask
