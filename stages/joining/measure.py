"""How a joined motion does at its seams, beside how it does elsewhere."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from schemas.records import FPS
from stages.joining.pieces import Piece


@dataclass(frozen=True, kw_only=True)
class Roughness:
    """Means over frames."""

    acceleration_mps2: float
    """Of the joints."""
    slide_mm: float
    """Level way a frame of contact points that are planted in this frame and the one before; NaN where none is."""


@dataclass(frozen=True, kw_only=True)
class SeamReport:
    """Around the seams, and everywhere else."""

    seams: Roughness
    inside: Roughness


def measure(joined: Piece, seams: Sequence[int], around_frames: int) -> SeamReport:
    """Frames that lie `around_frames` or less from a seam, against the others. A seam is the first frame of a segment."""
    near = np.zeros(len(joined), bool)
    for seam in seams:
        near[max(0, seam - around_frames) : seam + around_frames] = True
    acceleration = np.full(len(joined), np.nan)
    second = np.diff(joined.joints, n=2, axis=0) * FPS**2
    acceleration[1:-1] = np.linalg.norm(second, axis=-1).mean(-1)
    slides = np.full((len(joined), 4), np.nan)
    level = np.linalg.norm(np.diff(joined.soles[..., [0, 2]], axis=0), axis=-1) * 1000
    slides[1:] = np.where(joined.planted[1:] & joined.planted[:-1], level, np.nan)
    return SeamReport(
        seams=Roughness(acceleration_mps2=_mean(acceleration[near]), slide_mm=_mean(slides[near])),
        inside=Roughness(acceleration_mps2=_mean(acceleration[~near]), slide_mm=_mean(slides[~near])),
    )


def _mean(values: np.ndarray) -> float:
    known = values[np.isfinite(values)]
    return float(known.mean()) if known.size else float("nan")
