"""Signals over frames: smoothing, interpolation between frames, and runs of true flags."""

from typing import Literal

import numpy as np
from jaxtyping import Bool, Float
from scipy.ndimage import gaussian_filter1d

_TRUNCATE = 3.0
"""Where the Gaussian is truncated, in standard deviations."""


def smooth(
    values: Float[np.ndarray, "T *C"], sigma_frames: float, *, padding: Literal["edge", "odd"] = "edge"
) -> Float[np.ndarray, "T *C"]:
    """Gaussian filter along the first axis.

    `edge` pads with the first and last value, `odd` by point reflection about them, which preserves slopes at the ends.
    """
    if sigma_frames <= 0 or len(values) < 3:
        return values.copy()
    if padding == "edge":
        return gaussian_filter1d(values, sigma_frames, axis=0, mode="nearest", truncate=_TRUNCATE)
    width = min(max(1, round(_TRUNCATE * sigma_frames)), len(values) - 1)
    head = 2 * values[:1] - values[width:0:-1]
    tail = 2 * values[-1:] - values[-2 : -width - 2 : -1]
    padded = np.concatenate([head, values, tail])
    return gaussian_filter1d(padded, sigma_frames, axis=0, mode="nearest", truncate=_TRUNCATE)[
        width : width + len(values)
    ]


def interpolate_at(values: Float[np.ndarray, "T *C"], positions: Float[np.ndarray, "N"]) -> Float[np.ndarray, "N *C"]:
    """Linear interpolation at fractional frame positions in 0 .. T - 1."""
    low = np.clip(positions.astype(int), 0, max(len(values) - 2, 0))
    weight = (positions - low).astype(np.float32).reshape(-1, *[1] * (values.ndim - 1))
    return values[low] * (1 - weight) + values[np.minimum(low + 1, len(values) - 1)] * weight


def runs(flags: Bool[np.ndarray, "T"]) -> list[tuple[int, int]]:
    """(first, one past the last) of every run of true values."""
    edges = np.flatnonzero(np.diff(np.concatenate([[0], flags.astype(np.int8), [0]])))
    return [(int(first), int(last)) for first, last in edges.reshape(-1, 2)]
