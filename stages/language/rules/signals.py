"""Finding stretches and turning points in noisy curves over frames. All spans are [first, last) in frames."""

from itertools import pairwise

import numpy as np
from jaxtyping import Bool, Float

from schemas.curves import runs, smooth

Span = tuple[int, int]


def smooth_path(values: Float[np.ndarray, "T *C"], sigma_frames: float) -> Float[np.ndarray, "T *C"]:
    """Gaussian filter whose ends go on as they were going, so that speeds there are not lost."""
    return smooth(values, sigma_frames, ends="continued")


def derivative(values: Float[np.ndarray, "T *C"], fps: float) -> Float[np.ndarray, "T *C"]:
    """Change per second, by central differences."""
    return np.gradient(values, axis=0) * fps if len(values) > 1 else np.zeros_like(values)


def spans_of(flags: Bool[np.ndarray, "T"], shortest: int = 1, longest_gap: int = 0) -> list[Span]:
    """Stretches where the flag is up; gaps of at most `longest_gap` frames are bridged, short stretches dropped."""
    merged: list[Span] = []
    for first, last in runs(flags):
        if merged and first - merged[-1][1] <= longest_gap:
            merged[-1] = (merged[-1][0], last)
        else:
            merged.append((first, last))
    return [span for span in merged if span[1] - span[0] >= shortest]


def hysteresis(
    values: Float[np.ndarray, "T"], on: float, off: float, shortest: int = 1, longest_gap: int = 0
) -> list[Span]:
    """Stretches above `off` that somewhere exceed `on`."""
    return [span for span in spans_of(values > off, shortest, longest_gap) if values[span[0] : span[1]].max() > on]


def turning_points(values: Float[np.ndarray, "T"], least: float) -> list[int]:
    """Frames between which the curve goes up and down by at least `least`, the first and the last frame included."""
    if not len(values):
        return []
    points, low, high, direction = [0], 0, 0, 0
    curve = values.tolist()  # a loop over plain numbers is ten times as fast
    bottom = top = curve[0]
    for i, value in enumerate(curve):
        if value > top:
            high, top = i, value
        if value < bottom:
            low, bottom = i, value
        if direction >= 0 and top - value >= least:
            points += [high] if high != points[-1] else []
            direction, low, high, bottom, top = -1, i, i, value, value
        elif direction <= 0 and value - bottom >= least:
            points += [low] if low != points[-1] else []
            direction, low, high, bottom, top = 1, i, i, value, value
    last = high if direction > 0 else low if direction < 0 else len(values) - 1
    for point in (last, len(values) - 1):
        if point > points[-1]:
            points.append(point)
    return points


def sweeps(values: Float[np.ndarray, "T"], least: float, trim: float = 0.06) -> list[Span]:
    """Stretches in which the curve changes by at least `least` in one direction, without their slow ends.

    `trim` is the share of the change that is cut off at either end. The last frame of a span belongs to it.
    """
    points = turning_points(values, least)
    found = []
    for first, last in pairwise(points):
        change = values[last] - values[first]
        if abs(change) < least:
            continue
        progress = (values[first : last + 1] - values[first]) / change
        begin = int(np.flatnonzero(progress <= trim)[-1])
        end = int(np.flatnonzero(progress >= 1 - trim)[0])
        found.append((first + begin, first + max(begin, end) + 1))
    return found


def oscillations(
    values: Float[np.ndarray, "T"], least: float, shortest_half: float, longest_half: float, halves: int
) -> list[tuple[Span, float]]:
    """Stretches of at least `halves` half cycles, each of `shortest_half` to `longest_half` frames and at least `least` wide.

    With each its mean width from crest to trough.
    """
    points = turning_points(values, least)
    runs: list[list[int]] = [[]]
    for first, last in pairwise(points):
        if shortest_half <= last - first <= longest_half and abs(values[last] - values[first]) >= least:
            runs[-1] = runs[-1] or [first]
            runs[-1].append(last)
        elif runs[-1]:
            runs.append([])
    found = []
    for run in runs:
        if len(run) > halves:
            found.append(((run[0], run[-1] + 1), float(np.abs(np.diff(values[run])).mean())))
    return found


def overlap(one: Span, other: Span) -> float:
    """Share of the first span that the second covers."""
    return max(0, min(one[1], other[1]) - max(one[0], other[0])) / max(1, one[1] - one[0])


def covered(span: Span, others: list[Span]) -> float:
    """Share of a span that the others cover together."""
    flags = np.zeros(max(1, span[1] - span[0]), bool)
    for first, last in others:
        flags[max(0, first - span[0]) : max(0, last - span[0])] = True
    return float(flags.mean())


def flags_of(spans: list[Span], length: int) -> Bool[np.ndarray, "T"]:
    """True inside any of the spans."""
    flags = np.zeros(length, bool)
    for first, last in spans:
        flags[first:last] = True
    return flags
