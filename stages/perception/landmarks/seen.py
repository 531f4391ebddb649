"""Which parts of a person were seen, from the visibility of their landmarks, or from a detector's confidence where there are none.

A part is seen where its defining points lie in the image and are visible on average: a network or a detector places the others by
guess. The limits are calibrated on triangulated people and on rendered films (`tests/stages/perception/test_seen.py`): at least
95% of the points of seen parts lie within 5% of the longer side of the person's box from the truth, and at least 90% of all points
that do are called seen.
"""

import numpy as np
from jaxtyping import Bool, Float, UInt8
from scipy.ndimage import uniform_filter1d

from schemas.coverage import PART_NAMES
from schemas.curves import runs
from schemas.skeleton import keypoint

BEGINS, STAYS = 0.5, 0.35
"""Mean visibility of a part's points above which it begins to be seen, and below which it stops."""
CONFIDENCE_BEGINS = 0.6
"""The first for a detector's confidence, which stays high for guessed points."""
_FILLS_SIDE, _FILLS_AREA = 0.68, 0.42
"""Share of the longer filled side of the person's box, and of its area, that the keypoints span in a person who was understood."""
_JOINTS = {"torso": ("shoulder", "hip"), "arm": ("elbow", "wrist"), "leg": ("knee", "ankle")}


def points_of(part: str) -> tuple[int, ...]:
    """The COCO keypoints that define a part: shoulders and hips, elbow and wrist, or knee and ankle."""
    side, _, limb = part.rpartition("_")
    sides = (side,) if side else ("left", "right")
    return tuple(keypoint(f"{one}_{name}") for name in _JOINTS[limb] for one in sides)


def visibility_of_parts(
    keypoints: Float[np.ndarray, "T 17 3"],
    landmarks: Float[np.ndarray, "T 33 _"] | None,
    size: tuple[int, int],
) -> Float[np.ndarray, "T 5"]:
    """Mean visibility of each part's points, 0 outside the image. `keypoints` are x, y, confidence in pixels of an image of `size`
    (width, height); where there are landmarks, their visibility is the keypoints' confidence, elsewhere the detector's is scaled
    to its limit."""
    inside = ((keypoints[..., :2] >= 0) & (keypoints[..., :2] < size)).all(-1)
    visibility = np.where(inside, np.nan_to_num(keypoints[..., 2]).clip(0, 1), 0.0)
    looked = np.zeros(len(keypoints), bool) if landmarks is None else landmarks.any((1, 2))
    scale = np.where(looked, 1.0, BEGINS / CONFIDENCE_BEGINS)
    return np.stack([visibility[:, list(points_of(part))].mean(-1) * scale for part in PART_NAMES], -1)


def fills_box(keypoints: Float[np.ndarray, "T 17 3"], boxes: Float[np.ndarray, "T 4"]) -> Bool[np.ndarray, "T"]:
    """Whether the keypoints span the person's box, `boxes` x0, y0, x1, y1. A network that takes a part for the whole, as a child's
    arms for its legs, draws a small body into a large box, and is sure of it."""
    low, high = boxes[:, None, :2], boxes[:, None, 2:]
    span = np.ptp(keypoints[..., :2].clip(low, high), axis=1) / (high - low)[:, 0].clip(1.0)
    return (span.max(-1) >= _FILLS_SIDE) | (span.prod(-1) >= _FILLS_AREA)


def find_seen(visibility: Float[np.ndarray, "T 5"], window: int) -> UInt8[np.ndarray, "T 5"]:
    """The mask from the visibility of the parts, averaged over `window` frames so that a flicker does nothing, with hysteresis."""
    steady = uniform_filter1d(visibility, max(1, window), axis=0, mode="nearest")
    seen = np.zeros(visibility.shape, np.uint8)
    for column in range(len(PART_NAMES)):
        for first, end in runs(steady[:, column] > STAYS):
            begins = np.flatnonzero(steady[first:end, column] >= BEGINS)
            if len(begins):
                seen[first:end, column] = 1
    return seen


def majority(flags: Bool[np.ndarray, "T"], window: int) -> Bool[np.ndarray, "T"]:
    """The more frequent value within `window` frames."""
    if window < 2:
        return flags
    ones = np.ones(window)
    return np.convolve(flags, ones, "same") * 2 > np.convolve(np.ones(len(flags)), ones, "same")
