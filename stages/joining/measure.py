"""Smoothness of a joined motion at its seams, compared with the rest of it."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from schemas.records import FPS
from stages.joining.pieces import Piece


@dataclass(frozen=True, kw_only=True)
class MotionMetrics:
    """Means over frames."""

    acceleration_mps2: float
    """Mean over joints."""
    slide_mm: float
    """Horizontal displacement a frame of contact points planted in this frame and the previous one; NaN without any."""


@dataclass(frozen=True, kw_only=True)
class SeamReport:
    """Metrics near the seams, and everywhere else."""

    seams: MotionMetrics
    inside: MotionMetrics


def measure_seams(joined: Piece, seams: Sequence[int], window_frames: int) -> SeamReport:
    """Metrics of frames within `window_frames` of a seam and of all other frames. A seam is the first frame of a segment."""
    near = np.zeros(len(joined), bool)
    for seam in seams:
        near[max(0, seam - window_frames) : seam + window_frames] = True
    acceleration = np.full(len(joined), np.nan)
    joint_acceleration = np.diff(joined.joints, n=2, axis=0) * FPS**2
    acceleration[1:-1] = np.linalg.norm(joint_acceleration, axis=-1).mean(-1)
    slide = np.full((len(joined), 4), np.nan)
    horizontal = np.linalg.norm(np.diff(joined.soles[..., [0, 2]], axis=0), axis=-1) * 1000
    slide[1:] = np.where(joined.planted[1:] & joined.planted[:-1], horizontal, np.nan)
    return SeamReport(
        seams=MotionMetrics(acceleration_mps2=_mean(acceleration[near]), slide_mm=_mean(slide[near])),
        inside=MotionMetrics(acceleration_mps2=_mean(acceleration[~near]), slide_mm=_mean(slide[~near])),
    )


def _mean(values: np.ndarray) -> float:
    finite = values[np.isfinite(values)]
    return float(finite.mean()) if finite.size else float("nan")
