"""Square crops around people: their placement, warping of images into them, and the inverse map.

Coordinates are continuous: pixel (0, 0) of an image covers 0 to 1.
"""

import math
from dataclasses import dataclass

import cv2
import numpy as np
from jaxtyping import Float, UInt8

from schemas.skeleton import keypoint

CROP_PX = 256
"""Side of the network's input, pixels."""
_MARGIN = 1.25
"""Half side of a crop over the distance from the hips to the farthest keypoint."""
_CIRCLE_MARGIN = 1.1
"""Half side of a crop over the radius of the circle around the body that the network predicts."""
_BODY_OVER_TRUNK = 1.56
"""Distance from the hips to the farthest keypoint of a standing person over the length of the trunk, where the legs are hidden."""
_VISIBLE = 0.3
"""Lowest confidence of a detector's keypoint that a crop must contain."""
_MAX_SHIFT, _MAX_SCALE, _MAX_ROLL_RAD = 0.08, 1.2, 0.35
"""Differences of two crops up to which their landmarks are equally good: of the centre in sides, the ratio of the sides, and
the angle."""


@dataclass(frozen=True, eq=False)
class Crop:
    """A square of an image, rotated by `roll_rad` (clockwise) so that the trunk is upright in it."""

    centre: Float[np.ndarray, "2"]
    side: float
    roll_rad: float

    def matrix(self, size_px: int = CROP_PX) -> Float[np.ndarray, "2 3"]:
        """The affine map from the image's coordinates to the crop's pixels."""
        scale = size_px / self.side
        cos, sin = scale * math.cos(self.roll_rad), scale * math.sin(self.roll_rad)
        rotation = np.array([[cos, sin], [-sin, cos]])
        return np.concatenate([rotation, (size_px / 2 - rotation @ self.centre)[:, None]], 1)

    def bounds(self) -> Float[np.ndarray, "4"]:
        """The upright rectangle around the crop: x0, y0, x1, y1."""
        reach = self.side / 2 * (abs(math.cos(self.roll_rad)) + abs(math.sin(self.roll_rad)))
        return np.concatenate([self.centre - reach, self.centre + reach])

    def is_near(self, other: "Crop") -> bool:
        """Whether the network predicts as well from this crop as from the other."""
        shift = float(np.linalg.norm(self.centre - other.centre)) / other.side
        scale = max(self.side / other.side, other.side / self.side)
        roll = abs((self.roll_rad - other.roll_rad + math.pi) % (2 * math.pi) - math.pi)
        return shift <= _MAX_SHIFT and scale <= _MAX_SCALE and roll <= _MAX_ROLL_RAD


def crop_of_keypoints(keypoints: Float[np.ndarray, "17 3"], box: Float[np.ndarray, "4"]) -> Crop:
    """The crop for a detector's keypoints (x, y, confidence) and box: centred on the hips, trunk upright."""
    points, confidence = keypoints[:, :2].astype(np.float64), keypoints[:, 2]
    hips = (points[keypoint("left_hip")] + points[keypoint("right_hip")]) / 2
    shoulders = (points[keypoint("left_shoulder")] + points[keypoint("right_shoulder")]) / 2
    trunk = shoulders - hips
    corners = box.astype(np.float64)
    least = float((corners[2:] - corners[:2]).max()) / 4
    visible = confidence >= _VISIBLE
    farthest = float(np.linalg.norm(points[visible] - hips, axis=1).max()) if visible.any() else 0.0
    radius = max(farthest, _BODY_OVER_TRUNK * float(np.linalg.norm(trunk)), least, 1.0)
    return Crop(hips, 2 * _MARGIN * radius, math.atan2(trunk[0], -trunk[1]))


def crop_of_circle(centre: Float[np.ndarray, "2"], top: Float[np.ndarray, "2"]) -> Crop:
    """The crop for the two points by which the network predicts where its next crop should be: the middle of the hips, and the
    point of the circle around the body that lies above the trunk."""
    up = (top - centre).astype(np.float64)
    radius = max(1.0, float(np.linalg.norm(up)))
    return Crop(centre.astype(np.float64), 2 * _CIRCLE_MARGIN * radius, math.atan2(up[0], -up[1]))


def warp(image: UInt8[np.ndarray, "H W 3"], matrix: Float[np.ndarray, "2 3"], size_px: int = CROP_PX) -> np.ndarray:
    """The crop's pixels by `Crop.matrix`; black beyond the edges of the image, as in the network's training."""
    scale = float(np.hypot(*matrix[:, 0]))
    moved = matrix.copy()
    if scale < 0.5:  # averaging over the pixels that fall into one; warping alone would skip most of them
        shrink = 2 * scale
        size = max(1, round(image.shape[1] * shrink)), max(1, round(image.shape[0] * shrink))
        moved[:, :2] /= np.array(size) / [image.shape[1], image.shape[0]]
        image = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
    moved[:, 2] += moved[:, :2] @ [0.5, 0.5] - 0.5  # OpenCV's coordinates are those of pixel centres
    return cv2.warpAffine(image, moved, (size_px, size_px), flags=cv2.INTER_LINEAR, borderValue=(0, 0, 0))


def invert(matrix: Float[np.ndarray, "2 3"], points: Float[np.ndarray, "*B 2"]) -> Float[np.ndarray, "*B 2"]:
    """Points of the crop in the image."""
    return (points - matrix[:, 2]) @ np.linalg.inv(matrix[:, :2]).T
