"""Curves over frames: smoothing, values between frames, and the stretches in which something holds."""

from typing import Literal

import numpy as np
from jaxtyping import Bool, Float
from scipy.ndimage import gaussian_filter1d

_REACH = 3.0
"""Where the Gaussian is cut off, in its deviations."""


def smooth(
    values: Float[np.ndarray, "T *C"], sigma_frames: float, *, ends: Literal["held", "continued"] = "held"
) -> Float[np.ndarray, "T *C"]:
    """Gaussian filter along the first axis.

    Beyond its ends a curve is held at its last value, or continued by point reflection, so that slopes survive.
    """
    if sigma_frames <= 0 or len(values) < 3:
        return values.copy()
    if ends == "held":
        return gaussian_filter1d(values, sigma_frames, axis=0, mode="nearest", truncate=_REACH)
    reach = min(max(1, round(_REACH * sigma_frames)), len(values) - 1)
    head = 2 * values[:1] - values[reach:0:-1]
    tail = 2 * values[-1:] - values[-2 : -reach - 2 : -1]
    padded = np.concatenate([head, values, tail])
    return gaussian_filter1d(padded, sigma_frames, axis=0, mode="nearest", truncate=_REACH)[reach : reach + len(values)]


def interpolate_at(values: Float[np.ndarray, "T *C"], places: Float[np.ndarray, "N"]) -> Float[np.ndarray, "N *C"]:
    """Values at places between frames, on the straight line between neighbours; places lie in 0 .. T - 1."""
    low = np.clip(places.astype(int), 0, max(len(values) - 2, 0))
    share = (places - low).astype(np.float32).reshape(-1, *[1] * (values.ndim - 1))
    return values[low] * (1 - share) + values[np.minimum(low + 1, len(values) - 1)] * share


def runs(flags: Bool[np.ndarray, "T"]) -> list[tuple[int, int]]:
    """(first, one past the last) of every stretch of true."""
    edges = np.flatnonzero(np.diff(np.concatenate([[0], flags.astype(np.int8), [0]])))
    return [(int(first), int(last)) for first, last in edges.reshape(-1, 2)]
