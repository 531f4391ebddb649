"""What a fitter is and what it hands back, so that an optimiser or a network can stand behind the same stage."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float
from torch import Tensor

from schemas.records import Camera, Clip


@dataclass(frozen=True, kw_only=True, eq=False)
class Fit:
    """A body in the level world of its camera's first frame (see `stages.fitting.cameras`), T frames, on the CPU."""

    rotations: Float[Tensor, "T 24 3 3"]
    """Local rotations; the root's is its orientation in the level world."""
    trans: Float[Tensor, "T 3"]
    betas: Float[Tensor, "10"]
    camera: Camera
    reprojection: Float[np.ndarray, "T 17"]
    """Distance of each projected keypoint from the one seen, in box heights."""


@runtime_checkable
class Fitter(Protocol):
    """Recovers bodies from clips. A clip's fit must not depend on the other clips of the call."""

    version: str
    """Name and version, noted with every motion."""

    def fit(self, clips: Sequence[Clip]) -> list[Fit]:
        """One fit a clip, in order."""
        ...
