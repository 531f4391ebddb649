"""Keypoints of a clip as estimators take them: cleaned, and as image rays."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from torch import Tensor


@dataclass(frozen=True)
class KeypointRays:
    """A clip as the optimiser wants it: image rays, weights and scales; T frames at `fps`."""

    rays: Float[Tensor, "T 17 2"]
    weight: Float[Tensor, "T 17"]
    scale: Float[Tensor, "T 1"]
    """Turns a distance of rays into box sizes."""
    planted: Float[Tensor, "T 2"]
    """How likely the left and the right foot stand still, from the image."""
    fps: float

    def every(self, stride: int) -> "KeypointRays":
        """Each `stride`-th frame."""
        return KeypointRays(
            self.rays[::stride], self.weight[::stride], self.scale[::stride], self.planted[::stride], self.fps / stride
        )


def clean_keypoints(keypoints: Float[np.ndarray, "T 17 3"]) -> Float[np.ndarray, "T 17 3"]:
    """In double precision, with confidence in 0 to 1, and 0 where a coordinate is not a number."""
    keypoints = keypoints.astype(np.float64)
    known = np.isfinite(keypoints).all(-1, keepdims=True)
    keypoints = np.where(known, keypoints, 0.0)
    keypoints[..., 2] = keypoints[..., 2].clip(0, 1)
    return keypoints
