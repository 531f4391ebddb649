"""Repair of short glitches: a joint that jumps faster than a body can and returns shortly afterwards.

Marker swaps and Euler angles smoothed across a singularity cause them for a few frames at a time. Such a span is
interpolated; a jump without return is left to the quality scores.
"""

import numpy as np
import torch
from jaxtyping import Bool, Float

from schemas.rotations import slerp_resample
from schemas.skeleton import NUM_JOINTS

MAX_ROOT_SPEED_RADPS, MAX_JOINT_SPEED_RADPS = 25.0, 55.0
"""Above the speeds of somersaults and of punches and kicks; measured between adjacent frames of the source."""
_MAX_GAP_S = 0.25
_CALM_S, _MAX_EXTENSION_S = 0.035, 0.15
"""Frames next to a singularity are wrong too: a glitch extends to where the joint has been slow (below a quarter of the
limit) for the first duration, but by no more than the second."""


def repair_glitches(
    local: Float[np.ndarray, "T 24 3 3"], times_s: Float[np.ndarray, "T"]
) -> tuple[Float[np.ndarray, "T 24 3 3"], Bool[np.ndarray, "T 24"]]:
    """Rotations with glitches replaced by spherical interpolation, and the mask of the replaced ones."""
    repaired = np.zeros(local.shape[:2], bool)
    if len(local) < 3:
        return local, repaired
    speed = _angle(local[:-1], local[1:]) / np.diff(times_s)[:, None]
    limits = np.full(NUM_JOINTS, MAX_JOINT_SPEED_RADPS)
    limits[0] = MAX_ROOT_SPEED_RADPS
    result = local.copy()
    for column in np.flatnonzero((speed > limits).any(0)):
        jumps = np.flatnonzero(speed[:, column] > limits[column])
        for group in np.split(jumps, np.flatnonzero(np.diff(times_s[jumps]) > _MAX_GAP_S) + 1):
            fast = speed[:, column] > limits[column] / 4
            start = _glitch_end(fast, times_s, int(group[0]), -1)
            end = _glitch_end(fast, times_s, int(group[-1]) + 1, +1)
            gap_s = times_s[end] - times_s[start]
            angle = _angle(local[start, column], local[end, column])
            if len(group) < 2 or gap_s > 2 * _MAX_GAP_S or angle > limits[column] / 2 * gap_s:
                continue
            ends = torch.from_numpy(local[[start, end]][:, column : column + 1])
            inside_s = torch.from_numpy(times_s[start + 1 : end])
            interpolated = slerp_resample(ends, torch.from_numpy(times_s[[start, end]]), inside_s)
            result[start + 1 : end, column] = interpolated[:, 0].numpy()
            repaired[start + 1 : end, column] = True
    return result, repaired


def _glitch_end(fast: Bool[np.ndarray, "N"], times_s: Float[np.ndarray, "T"], frame: int, step: int) -> int:
    """The frame, searched from `frame` backwards (step -1) or forwards (+1), at which the glitch ends."""
    end = current = frame
    while 0 < current < len(times_s) - 1:
        current += step
        if abs(times_s[current] - times_s[frame]) > _MAX_EXTENSION_S or abs(times_s[current] - times_s[end]) > _CALM_S:
            break
        if fast[min(current, current - step)]:
            end = current
    return end


def _angle(a: Float[np.ndarray, "*B 3 3"], b: Float[np.ndarray, "*B 3 3"]) -> Float[np.ndarray, "*B"]:
    cos = (np.einsum("...ab,...ab->...", a, b) - 1) / 2
    return np.asarray(np.arccos(np.clip(cos, -1, 1)))
