"""When feet stand on the ground, and where the ground is."""

import numpy as np
from jaxtyping import Bool, Float, UInt8
from scipy.ndimage import minimum_filter1d

from schemas.curves import runs, smooth
from schemas.records import FPS

START_SPEED_MPS, STOP_SPEED_MPS = 0.25, 0.45
START_HEIGHT_M, STOP_HEIGHT_M = 0.05, 0.09
"""A point takes hold of the ground below the first of each pair and lets go above the second. Wider than what motion
capture allows (1 cm a frame, 2 cm), since heights from one camera are less certain."""
MIN_FRAMES = 3
"""Shorter contacts and shorter gaps between contacts are noise."""
_RUN_MPS, _RUN_SHARE = 1.5, 0.3
"""Of somebody who moves faster than the first, a foot stands that is slower than this share of the body."""
_BODY_FRAMES, _REACH_FRAMES = 8.0, 15
"""Over how long the body's speed and height are taken, and within how many frames, on both sides, a runner touches ground."""


def point_speed(points: Float[np.ndarray, "T 4 3"]) -> Float[np.ndarray, "T 4"]:
    """Metres a second, over the two neighbouring frames."""
    if len(points) < 2:
        return np.zeros(points.shape[:2])
    return np.linalg.norm(np.gradient(points.astype(np.float64), axis=0), axis=-1) * FPS


def ground_height(points: Float[np.ndarray, "T 4 3"]) -> float:
    """Height of the ground, metres, from the points that stand still and are the lowest of their frame.

    A slow point may also be a raised foot and a low one a bad frame, so the height is a median, refined once by leaving
    out what lies more than 6 cm off it.
    """
    speed = point_speed(points)
    lowest = points[..., 1].min(1, keepdims=True)
    standing = points[..., 1][(speed < STOP_SPEED_MPS) & (points[..., 1] < lowest + 0.03)]
    if len(standing) < 5:
        # Nobody stands (a run seen from its middle, a swim): the low end of what the feet reach.
        return float(np.quantile(lowest, 0.1))
    middle = float(np.quantile(standing, 0.4, method="nearest"))
    return float(np.median(standing[np.abs(standing - middle) < 0.06]))


def find_contacts(points: Float[np.ndarray, "T 4 3"], ground_m: float) -> UInt8[np.ndarray, "T 4"]:
    """1 where a point is slow and low, with hysteresis; points are left heel, left toe, right heel, right toe."""
    speed, height = point_speed(points), points[..., 1] - ground_m
    begins = (speed < START_SPEED_MPS) & (height < START_HEIGHT_M)
    stays = (speed < STOP_SPEED_MPS) & (height < STOP_HEIGHT_M)
    return with_hysteresis(begins, stays).astype(np.uint8)


def find_steps(points: Float[np.ndarray, "T 4 3"], pelvis: Float[np.ndarray, "T 3"]) -> Bool[np.ndarray, "T 4"]:
    """Where feet of somebody who runs stand, on a path that may yet be wrong.

    A foot that pushes off rolls, and an error of the path is an error of the foot: `find_contacts` misses most of a run's
    steps. Against the body, though, a foot that stands is slow, and low where it is near the lowest of the feet around, as
    heights below the pelvis, so that a path which climbs by mistake hides no step. Empty where nobody runs.
    """
    if len(points) < 2:
        return np.zeros(points.shape[:2], bool)
    body = smooth(pelvis.astype(np.float64), _BODY_FRAMES, ends="continued")
    body_speed = np.linalg.norm(np.gradient(body[:, [0, 2]], axis=0), axis=-1, keepdims=True) * FPS
    below = points[..., 1] - body[:, 1:2]
    ground = minimum_filter1d(below.min(1), 2 * _REACH_FRAMES + 1, mode="nearest")
    height = below - smooth(ground, _REACH_FRAMES / 3)[:, None]
    slow = (point_speed(points) < _RUN_SHARE * body_speed) & (body_speed > _RUN_MPS)
    return with_hysteresis(slow & (height < START_HEIGHT_M), slow & (height < STOP_HEIGHT_M))


def with_hysteresis(begins: Bool[np.ndarray, "T C"], stays: Bool[np.ndarray, "T C"]) -> Bool[np.ndarray, "T C"]:
    """With hysteresis: where a point stays, from the first frame on in which it also begins.

    Gaps shorter than `MIN_FRAMES` are closed, then contacts shorter than that dropped, except at the ends of the clip.
    """
    on = np.zeros(stays.shape, bool)
    for column in range(stays.shape[1]):
        for first, end in runs(stays[:, column]):
            starts = np.flatnonzero(begins[first:end, column])
            if len(starts):
                on[first + starts[0] : end, column] = True
        for value in (False, True):
            for first, end in runs(on[:, column] == value):
                inside = first > 0 and end < len(on)
                if inside and end - first < MIN_FRAMES:
                    on[first:end, column] = not value
    return on
