"""Square crops about people: where they lie, how pictures are warped into them, and the way back.

Coordinates are continuous: pixel (0, 0) of a picture covers 0 to 1. A place in a crop is told in half sides from its middle.
"""

import math

import cv2
import numpy as np
from jaxtyping import Float, UInt8

from stages.perception.closeup.network import CROP_PX

MARGIN = 1.25
"""Side of a crop in longer sides of the person's box."""
_GREY = (114, 114, 114)


def square_about(box: Float[np.ndarray, "4"]) -> tuple[Float[np.ndarray, "2"], float]:
    """Middle and side of the crop for a box (x0, y0, x1, y1), pixels."""
    corners = box.astype(np.float64)
    size = max(1.0, float((corners[2:] - corners[:2]).max()))
    return (corners[:2] + corners[2:]) / 2, MARGIN * size


def into_crop(
    centre: Float[np.ndarray, "2"], side: float, angle_rad: float = 0.0, size_px: int = CROP_PX
) -> Float[np.ndarray, "2 3"]:
    """The map from a picture's coordinates to the crop's pixels; the crop is turned by `angle_rad` about its middle."""
    scale = size_px / side
    cos, sin = scale * math.cos(angle_rad), scale * math.sin(angle_rad)
    turn = np.array([[cos, -sin], [sin, cos]])
    return np.concatenate([turn, (size_px / 2 - turn @ centre)[:, None]], 1)


def warp(image: UInt8[np.ndarray, "H W 3"], matrix: Float[np.ndarray, "2 3"], size_px: int = CROP_PX) -> np.ndarray:
    """What a map shows of a picture, grey beyond its edges."""
    scale = float(np.hypot(*matrix[:, 0]))
    # OpenCV's coordinates are those of pixels' middles.
    moved = matrix.copy()
    moved[:, 2] += matrix[:, :2] @ [0.5, 0.5] - 0.5
    if scale < 0.5:  # a mean over what falls into a pixel; warping alone would skip
        shrink = 2 * scale
        image = cv2.resize(image, None, fx=shrink, fy=shrink, interpolation=cv2.INTER_AREA)
        moved = matrix.copy()
        moved[:, :2] /= shrink
        moved[:, 2] += moved[:, :2] @ [0.5, 0.5] - 0.5
    return cv2.warpAffine(image, moved, (size_px, size_px), flags=cv2.INTER_LINEAR, borderValue=_GREY)


def moved_by(matrix: Float[np.ndarray, "2 3"], points: Float[np.ndarray, "*B 2"]) -> Float[np.ndarray, "*B 2"]:
    """Points through a map."""
    return points @ matrix[:, :2].T + matrix[:, 2]
