"""Short glitches of a recording: a joint that jumps faster than a body can and is back a moment later.

Marker swaps and Euler angles that were smoothed across a pole do this for a few frames at a time. Such a stretch is
bridged; a jump that stays is left for the scores to judge.
"""

import numpy as np
import torch
from jaxtyping import Bool, Float

from schemas.rotations import slerp_resample
from schemas.skeleton import NUM_JOINTS

MAX_ROOT_SPEED_RADPS, MAX_JOINT_SPEED_RADPS = 25.0, 55.0
"""Faster than somersaults and than punches and kicks, measured between two frames of the source."""
_LONGEST_S = 0.25
_CALM_S, _RUN_UP_S = 0.035, 0.15
"""The run-up to a pole is wrong already: a glitch reaches to where the joint has been calm (below a quarter of the
limit) for the first of these, but no further than the second."""


def mend(
    local: Float[np.ndarray, "T 24 3 3"], times_s: Float[np.ndarray, "T"]
) -> tuple[Float[np.ndarray, "T 24 3 3"], Bool[np.ndarray, "T 24"]]:
    """Rotations with glitches bridged by spherical interpolation, and which of them were."""
    mended = np.zeros(local.shape[:2], bool)
    if len(local) < 3:
        return local, mended
    speed = _angle(local[:-1], local[1:]) / np.diff(times_s)[:, None]
    limits = np.full(NUM_JOINTS, MAX_JOINT_SPEED_RADPS)
    limits[0] = MAX_ROOT_SPEED_RADPS
    result = local.copy()
    for column in np.flatnonzero((speed > limits).any(0)):
        jumps = np.flatnonzero(speed[:, column] > limits[column])
        for group in np.split(jumps, np.flatnonzero(np.diff(times_s[jumps]) > _LONGEST_S) + 1):
            fast = speed[:, column] > limits[column] / 4
            start = _calm(fast, times_s, int(group[0]), -1)
            end = _calm(fast, times_s, int(group[-1]) + 1, +1)
            gap_s = times_s[end] - times_s[start]
            across = _angle(local[start, column], local[end, column])
            if len(group) < 2 or gap_s > 2 * _LONGEST_S or across > limits[column] / 2 * gap_s:
                continue
            ends = torch.from_numpy(local[[start, end]][:, column : column + 1])
            inside = torch.from_numpy(times_s[start + 1 : end])
            bridge = slerp_resample(ends, torch.from_numpy(times_s[[start, end]]), inside)
            result[start + 1 : end, column] = bridge[:, 0].numpy()
            mended[start + 1 : end, column] = True
    return result, mended


def _calm(fast: Bool[np.ndarray, "N"], times_s: Float[np.ndarray, "T"], frame: int, way: int) -> int:
    """The frame, from `frame` on backwards (way -1) or forwards (+1), where the run-up ends."""
    edge = here = frame
    while 0 < here < len(times_s) - 1:
        here += way
        if abs(times_s[here] - times_s[frame]) > _RUN_UP_S or abs(times_s[here] - times_s[edge]) > _CALM_S:
            break
        if fast[min(here, here - way)]:
            edge = here
    return edge


def _angle(a: Float[np.ndarray, "*B 3 3"], b: Float[np.ndarray, "*B 3 3"]) -> Float[np.ndarray, "*B"]:
    cos = (np.einsum("...ab,...ab->...", a, b) - 1) / 2
    return np.asarray(np.arccos(np.clip(cos, -1, 1)))
