"""Foot contacts and the ground: every definition of contact that the stages use.

A foot is in contact where it is slow and low. What differs is what is known about it:

- `find_contacts`: points in the world, above a known ground. Labels that samples store; hysteresis.
- `contact_probability`: the same as a smooth target for training, with limits between those at which hysteresis begins and ends.
- `find_steps`: a running person on a path that may be wrong; slow and low relative to the body.
- `planted_in_image`: 2D keypoints alone, before there is a body; in units of the person's box.
- `can_push`: whether the ground may push at a point at all. Wider than the others, for plausibility must not reject a contact
  whose position is a little off, and for any point of the body.

Results of other estimators come without a ground: there slow feet alone tell it (`stages.recovery.external.worlds`).
"""

import numpy as np
import torch
from jaxtyping import Bool, Float, UInt8
from scipy.ndimage import minimum_filter1d
from torch import Tensor

from schemas.coverage import LEFT_LEG, RIGHT_LEG
from schemas.curves import runs, smooth
from schemas.records import FPS
from schemas.skeleton import keypoint

START_SPEED_MPS, STOP_SPEED_MPS = 0.25, 0.45
START_HEIGHT_M, STOP_HEIGHT_M = 0.05, 0.09
"""A point takes hold of the ground below the first of each pair and lets go above the second. Wider than what motion
capture allows (1 cm a frame, 2 cm), since heights from one camera are less certain."""
SOFT_SPEED_MPS, SOFT_SPEED_WIDTH_MPS = 0.3, 0.06
SOFT_HEIGHT_M, SOFT_HEIGHT_WIDTH_M = 0.06, 0.012
"""Middle and width of the sigmoids of `contact_probability`."""
PUSH_SPEED_MPS, PUSH_HEIGHT_M = 0.8, 0.06
"""Limits of `can_push`."""
IMAGE_SPEED, IMAGE_SPEED_WIDTH = 0.25, 0.05
IMAGE_HEIGHT, IMAGE_HEIGHT_WIDTH = 0.12, 0.02
"""Middle and width of the sigmoids of `planted_in_image`: box sides a second, box sides."""
ANKLES = [keypoint("left_ankle"), keypoint("right_ankle")]
MIN_FRAMES = 3
"""Shorter contacts and shorter gaps between contacts are noise."""
_RUN_MPS, _RUN_SHARE = 1.5, 0.3
"""Of somebody who moves faster than the first, a foot stands that is slower than this share of the body."""
_BODY_FRAMES, _REACH_FRAMES = 8.0, 15
"""Over how long the body's speed and height are taken, and within how many frames, on both sides, a runner touches ground."""


def point_speed(points: Float[np.ndarray, "T K 3"]) -> Float[np.ndarray, "T K"]:
    """Metres a second, over the two neighbouring frames."""
    if len(points) < 2:
        return np.zeros(points.shape[:2])
    return np.linalg.norm(np.gradient(points.astype(np.float64), axis=0), axis=-1) * FPS


def ground_height(points: Float[np.ndarray, "T 4 3"]) -> float:
    """Height of the ground, metres, from the points that stand still and are the lowest of their frame.

    A slow point may also be a raised foot and a low one a bad frame, so the height is a median, refined once by leaving
    out what lies more than 6 cm off it.
    """
    speed = point_speed(points)
    lowest = points[..., 1].min(1, keepdims=True)
    standing = points[..., 1][(speed < STOP_SPEED_MPS) & (points[..., 1] < lowest + 0.03)]
    if len(standing) < 5:
        # Nobody stands (a run seen from its middle, a swim): the low end of what the feet reach.
        return float(np.quantile(lowest, 0.1))
    middle = float(np.quantile(standing, 0.4, method="nearest"))
    return float(np.median(standing[np.abs(standing - middle) < 0.06]))


def ground_of_seen(points: Float[np.ndarray, "T 4 3"], seen: UInt8[np.ndarray, "T 5"]) -> float:
    """`ground_height` from the frames in which both legs were seen, or one; where none ever was, the median height of the lowest
    point: the made-up legs then stand on the ground, without jumping up and down with it."""
    legs = seen[:, [LEFT_LEG, RIGHT_LEG]]
    for frames in (legs.all(1), legs.any(1)):
        if frames.sum() >= MIN_FRAMES:
            return ground_height(points[frames])
    return float(np.median(points[..., 1].min(1)))


def find_contacts(points: Float[np.ndarray, "T 4 3"], ground_m: float) -> UInt8[np.ndarray, "T 4"]:
    """1 where a point is slow and low, with hysteresis; points are left heel, left toe, right heel, right toe."""
    speed, height = point_speed(points), points[..., 1] - ground_m
    begins = (speed < START_SPEED_MPS) & (height < START_HEIGHT_M)
    stays = (speed < STOP_SPEED_MPS) & (height < STOP_HEIGHT_M)
    return with_hysteresis(begins, stays).astype(np.uint8)


def contact_probability(points: Float[Tensor, "*B T 4 3"]) -> Float[Tensor, "*B T 4"]:
    """Near 1 where a point above the ground y = 0 is slow and low, falling off smoothly."""
    step = (points[..., 1:, :, :] - points[..., :-1, :, :]).norm(dim=-1) * FPS
    speed = torch.cat([step[..., :1, :], (step[..., 1:, :] + step[..., :-1, :]) / 2, step[..., -1:, :]], dim=-2)
    slow = ((SOFT_SPEED_MPS - speed) / SOFT_SPEED_WIDTH_MPS).sigmoid()
    return slow * ((SOFT_HEIGHT_M - points[..., 1]) / SOFT_HEIGHT_WIDTH_M).sigmoid()


def can_push(points: Float[np.ndarray, "T K 3"]) -> Bool[np.ndarray, "T K"]:
    """Where the ground y = 0 may push at points of the body."""
    return (points[..., 1] < PUSH_HEIGHT_M) & (point_speed(points) < PUSH_SPEED_MPS)


def planted_in_image(keypoints: Float[np.ndarray, "T 17 3"], sizes: Float[np.ndarray, "T"]) -> Float[np.ndarray, "T 2"]:
    """How likely the left and the right foot are planted, 0 to 1: the ankle is visible, hardly moves and is not far above the
    other one. `keypoints` are x, y, confidence in pixels, `sizes` the longer sides of the boxes."""
    ankles = smooth(keypoints[:, ANKLES, :2], 1.5)
    if len(ankles) < 2:
        return np.zeros((len(ankles), 2))
    speed = np.linalg.norm(np.gradient(ankles, axis=0), axis=-1) * FPS / sizes[:, None]
    lifted = (ankles[..., 1].max(-1, keepdims=True) - ankles[..., 1]) / sizes[:, None]
    slow = 1 / (1 + np.exp(np.clip((speed - IMAGE_SPEED) / IMAGE_SPEED_WIDTH, -30, 30)))
    low = 1 / (1 + np.exp(np.clip((lifted - IMAGE_HEIGHT) / IMAGE_HEIGHT_WIDTH, -30, 30)))
    return keypoints[:, ANKLES, 2] * slow * low


def find_steps(points: Float[np.ndarray, "T 4 3"], pelvis: Float[np.ndarray, "T 3"]) -> Bool[np.ndarray, "T 4"]:
    """Where feet of somebody who runs stand, on a path that may yet be wrong.

    A foot that pushes off rolls, and an error of the path is an error of the foot: `find_contacts` misses most of a run's
    steps. Against the body, though, a foot that stands is slow, and low where it is near the lowest of the feet around, as
    heights below the pelvis, so that a path which climbs by mistake hides no step. Empty where nobody runs.
    """
    if len(points) < 2:
        return np.zeros(points.shape[:2], bool)
    body = smooth(pelvis.astype(np.float64), _BODY_FRAMES, padding="odd")
    body_speed = np.linalg.norm(np.gradient(body[:, [0, 2]], axis=0), axis=-1, keepdims=True) * FPS
    below = points[..., 1] - body[:, 1:2]
    ground = minimum_filter1d(below.min(1), 2 * _REACH_FRAMES + 1, mode="nearest")
    height = below - smooth(ground, _REACH_FRAMES / 3)[:, None]
    slow = (point_speed(points) < _RUN_SHARE * body_speed) & (body_speed > _RUN_MPS)
    return with_hysteresis(slow & (height < START_HEIGHT_M), slow & (height < STOP_HEIGHT_M))


def with_hysteresis(begins: Bool[np.ndarray, "T C"], stays: Bool[np.ndarray, "T C"]) -> Bool[np.ndarray, "T C"]:
    """With hysteresis: where a point stays, from the first frame on in which it also begins.

    Gaps shorter than `MIN_FRAMES` are closed, then contacts shorter than that dropped, except at the ends of the clip.
    """
    on = np.zeros(stays.shape, bool)
    for column in range(stays.shape[1]):
        for first, end in runs(stays[:, column]):
            starts = np.flatnonzero(begins[first:end, column])
            if len(starts):
                on[first + starts[0] : end, column] = True
        for value in (False, True):
            for first, end in runs(on[:, column] == value):
                inside = first > 0 and end < len(on)
                if inside and end - first < MIN_FRAMES:
                    on[first:end, column] = not value
    return on
