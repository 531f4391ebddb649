"""Interface of fitters, so that an optimiser, a network or imported results can be behind the same stage."""

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
    """Distance between projected and detected keypoints, box heights."""
    contacts: UInt8[np.ndarray, "T 4"] | None = None
    """1 where left heel, left toe, right heel, right toe are in ground contact; None: derive them from the motion."""
    ground_m: float | None = None
    """Height of the ground in the level world; None: derive it from the motion."""
    sigma_m: Float[np.ndarray, "T 22"] | None = None
    """Expected error of each joint except the hands, relative to the pelvis; None: unknown."""
    source: str = ""
    """Origin of the fit where it differs between clips; recorded with the fitter's version."""


@dataclass(frozen=True, kw_only=True)
class NoFit:
    """Why there is no body for a clip; becomes the clip's rejection. NaN where the reason has no number."""

    reason: str
    detail: str = ""
    measured: float = math.nan
    limit: float = math.nan


@runtime_checkable
class Fitter(Protocol):
    """Recovers bodies from clips. A clip's fit must not depend on the other clips of the call."""

    version: str
    """Name and version, recorded with every motion."""

    def fit(self, clips: Sequence[Clip]) -> Sequence[Fit | NoFit]:
        """One fit per clip, or why there is none, in order."""
        ...
