"""When feet stand on the ground, and where the ground is."""

import numpy as np
from jaxtyping import Bool, Float, UInt8

from schemas.records import FPS

START_SPEED_MPS, STOP_SPEED_MPS = 0.25, 0.45
START_HEIGHT_M, STOP_HEIGHT_M = 0.05, 0.09
"""A point takes hold of the ground below the first of each pair and lets go above the second. Wider than what motion
capture allows (1 cm a frame, 2 cm), since heights from one camera are less certain."""
MIN_FRAMES = 3
"""Shorter contacts and shorter gaps between contacts are noise."""


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
    contacts = np.zeros(speed.shape, np.uint8)
    for column in range(4):
        held = False
        for frame in range(len(points)):
            held = bool(stays[frame, column]) and (held or bool(begins[frame, column]))
            contacts[frame, column] = held
        contacts[:, column] = _without_short_runs(contacts[:, column].astype(bool))
    return contacts


def _without_short_runs(on: Bool[np.ndarray, "T"]) -> Bool[np.ndarray, "T"]:
    """Gaps shorter than `MIN_FRAMES` closed, then contacts shorter than that dropped."""
    on = on.copy()
    for value in (False, True):
        edges = np.flatnonzero(np.diff(on)) + 1
        starts, ends = np.r_[0, edges], np.r_[edges, len(on)]
        for start, end in zip(starts, ends, strict=True):
            inside = start > 0 and end < len(on)
            if on[start] == value and end - start < MIN_FRAMES and inside:
                on[start:end] = not value
    return on
