"""Keypoints of a clip as input for estimators: cleaned, and as image rays."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from torch import Tensor


@dataclass(frozen=True)
class KeypointRays:
    """Input of the optimiser: image rays, weights and scales; T frames at `fps`."""

    rays: Float[Tensor, "T 17 2"]
    weight: Float[Tensor, "T 17"]
    scale: Float[Tensor, "T 1"]
    """Converts a distance between rays to box sizes."""
    planted: Float[Tensor, "T 2"]
    """Probability that the left and the right foot are planted, from the image."""
    fps: float

    def subsample(self, stride: int) -> "KeypointRays":
        """Every `stride`-th frame."""
        return KeypointRays(
            self.rays[::stride], self.weight[::stride], self.scale[::stride], self.planted[::stride], self.fps / stride
        )


def clean_keypoints(keypoints: Float[np.ndarray, "T 17 3"]) -> Float[np.ndarray, "T 17 3"]:
    """In double precision, with confidence clipped to 0 .. 1 and set to 0 where a coordinate is not finite."""
    keypoints = keypoints.astype(np.float64)
    finite = np.isfinite(keypoints).all(-1, keepdims=True)
    keypoints = np.where(finite, keypoints, 0.0)
    keypoints[..., 2] = keypoints[..., 2].clip(0, 1)
    return keypoints
