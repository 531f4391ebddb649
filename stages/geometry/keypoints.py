"""Keypoints of a clip as input for estimators: cleaned, and as image rays."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from torch import Tensor

from schemas.skeleton import LANDMARK_OF_KEYPOINT


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


POSITION_ERROR, DEPTH_ERROR = 0.012, 0.04
"""Typical absolute errors of a landmark's position and of its depth, box sides: of BlazePose heavy on triangulated footage."""


def keypoint_depths(
    keypoints: Float[np.ndarray, "T 17 3"], landmarks_m: Float[np.ndarray, "T 33 3"]
) -> Float[np.ndarray, "T 17 3"]:
    """Depth of each keypoint relative to the mean of all, and the expected absolute errors of its position and depth, pixels.

    The metric landmarks are scaled to the keypoints of the image by least squares (scaled orthographic projection); a frame
    without landmarks is 0.
    """
    metric = landmarks_m[:, list(LANDMARK_OF_KEYPOINT)].astype(np.float64)
    metric = metric - metric.mean(1, keepdims=True)
    points = keypoints[..., :2] - keypoints[..., :2].mean(1, keepdims=True)
    flat = (metric[..., :2] ** 2).sum((1, 2))
    scale = np.divide((metric[..., :2] * points).sum((1, 2)), flat, out=np.zeros_like(flat), where=flat > 0).clip(0)
    size = np.ptp(keypoints[..., :2], axis=1).max(-1)
    known = (scale > 0)[:, None]
    errors = [np.where(known, error * size[:, None], 0.0).repeat(17, 1) for error in (POSITION_ERROR, DEPTH_ERROR)]
    return np.stack([metric[..., 2] * scale[:, None], *errors], -1)
