"""What a fitter is and what it hands back, so that an optimiser or a network can stand behind the same stage."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float, UInt8
from torch import Tensor

from schemas.records import Camera, Clip


@dataclass(frozen=True, kw_only=True, eq=False)
class Fit:
    """A body in the level world of its camera's first frame (see `stages.geometry.cameras`), T frames, on the CPU."""

    rotations: Float[Tensor, "T 24 3 3"]
    """Local rotations; the root's is its orientation in the level world."""
    trans: Float[Tensor, "T 3"]
    betas: Float[Tensor, "10"]
    camera: Camera
    reprojection: Float[np.ndarray, "T 17"]
    """Distance of each projected keypoint from the one seen, in box heights."""
    contacts: UInt8[np.ndarray, "T 4"] | None = None
    """1 where left heel, left toe, right heel, right toe stand on the ground; None: to be found from how they move."""
    ground_m: float | None = None
    """Height of the ground in the level world; None: to be found."""
    sigma_m: Float[np.ndarray, "T 22"] | None = None
    """Expected error of each joint but the hands relative to the pelvis; None: not known."""
    source: str = ""
    """Where it comes from, if that differs from clip to clip; noted with the fitter's version."""


@dataclass(frozen=True, kw_only=True)
class NoFit:
    """Why there is no body for a clip; it becomes the clip's rejection. NaN where the reason has no number."""

    reason: str
    detail: str = ""
    measured: float = math.nan
    limit: float = math.nan


@runtime_checkable
class Fitter(Protocol):
    """Recovers bodies from clips. A clip's fit must not depend on the other clips of the call."""

    version: str
    """Name and version, noted with every motion."""

    def fit(self, clips: Sequence[Clip]) -> Sequence[Fit | NoFit]:
        """One fit a clip, or why there is none, in order."""
        ...
