"""Track quality from boxes and keypoints: identity switches, and truncation by the image border."""

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy.ndimage import median_filter

from schemas.records import Clip
from schemas.skeleton import COCO_KEYPOINTS, mirror_order

MIN_CONFIDENCE = 0.3
"""Lowest confidence of a keypoint that counts."""
MIN_JUMP = 0.06
"""Smallest median deviation of the body's keypoints from their path between two detections that is a jump, box sizes: no body
moves all of its limbs that suddenly."""
JUMP_RATIO = 6.0
"""Smallest ratio of a jump to the deviations around it, for people who move fast and shaking cameras."""
TOLERANCE_PER_MISSING_FRAME = 0.2
"""Relative increase of the smallest jump per missing frame: across a gap the path is less certain."""
_MEDIAN_FRAMES = 5
"""Length of the median filter: a change of up to two frames is a detector error, not a change of person."""
_VELOCITY_FRAMES = 4
"""Frames on each side for the velocity of the path, the median of its steps."""
_MERGE_FRAMES = 8
"""Jumps closer than this are one change of person."""
_BASELINE_FRAMES = 12
"""Frames on each side for the baseline of a jump."""
_MIN_KEYPOINTS = 4
_BODY = [index for index, name in enumerate(COCO_KEYPOINTS) if name.split("_")[-1] not in ("nose", "eye", "ear")]
_MIRRORED = list(mirror_order(tuple(COCO_KEYPOINTS[index] for index in _BODY)))
_BORDER_SHARE = 0.005
"""Distance from the image border within which a box touches it, as a share of the longer image side (one or two pixels of the
network's input)."""
_KEYPOINT_BORDER_SHARE = 0.02
"""Distance from that border within which a keypoint is truncated or about to be, as a share of the longer box side: joints of a
fully visible person are further inside the outline."""


def identity_switches(clip: Clip) -> int:
    """Number of times that the track seems to change to another person.

    A switch is detected where most keypoints leave their path from one detection to the next, by a step to another position,
    size or posture, as two people differ, and nothing similar happens around it: a person who moves fast does so for more than
    a frame. Detector errors of one or two frames are filtered out, and left and right are not distinguished, since detectors
    swap the sides of the same person. A change between two people of the same size and posture at the same position is not
    detected.
    """
    detected = np.flatnonzero(clip.keypoints[..., 2].max(-1) > 0)
    if len(detected) < 2 * _VELOCITY_FRAMES:
        return 0
    jumps = path_jumps(clip, detected)
    missing = np.diff(detected) - 1
    baseline = _baseline(jumps)
    threshold = np.maximum(MIN_JUMP * (1 + TOLERANCE_PER_MISSING_FRAME * missing), JUMP_RATIO * baseline)
    switches = np.flatnonzero(jumps > threshold)
    return int(1 + (np.diff(switches) >= _MERGE_FRAMES).sum()) if len(switches) else 0


def path_jumps(clip: Clip, detected: Int[np.ndarray, "N"]) -> Float[np.ndarray, "M"]:
    """Between each detection (frames `detected`) and the next: median distance of the body's keypoints from their extrapolated
    path, in box sizes; left and right may be swapped."""
    visible = clip.keypoints[detected][:, _BODY, 2] >= MIN_CONFIDENCE
    positions = clip.keypoints[detected][:, _BODY, :2].astype(np.float64)
    positions = median_filter(positions, (_MEDIAN_FRAMES, 1, 1), mode="nearest")
    frame_steps = np.diff(detected)[:, None, None]
    expected = positions[:-1] + _expected_step(np.diff(positions, axis=0) / frame_steps) * frame_steps
    distance = _distance(expected, positions[1:], visible[:-1] & visible[1:])
    swapped = _distance(expected, positions[1:, _MIRRORED], visible[:-1] & visible[1:, _MIRRORED])
    lowest = np.minimum(distance, (swapped + swapped[:, _MIRRORED]) / 2)
    enough = np.isfinite(lowest).sum(-1) >= _MIN_KEYPOINTS
    jumps = np.zeros(len(lowest))
    jumps[enough] = np.nanmedian(np.where(np.isfinite(lowest), lowest, np.nan)[enough], axis=-1)
    boxes = clip.boxes[detected]
    size = np.maximum(boxes[:, 2:] - boxes[:, :2], 1.0).max(-1)
    return jumps / np.minimum(size[1:], size[:-1])


def _distance(
    a: Float[np.ndarray, "M K 2"], b: Float[np.ndarray, "M K 2"], visible: Bool[np.ndarray, "M K"]
) -> Float[np.ndarray, "M K"]:
    """Distance between keypoints, infinite where one of them is not visible."""
    return np.where(visible, np.linalg.norm(a - b, axis=-1), np.inf)


def _expected_step(steps: Float[np.ndarray, "M K 2"]) -> Float[np.ndarray, "M K 2"]:
    """Step predicted by its neighbours: the mean of the median steps before and after it."""
    radius, count = _VELOCITY_FRAMES, len(steps)
    # Steps are mirrored at the ends without the one in question, which must not predict itself.
    padded = np.pad(steps, ((radius, radius), (0, 0), (0, 0)), mode="reflect")
    windows = np.lib.stride_tricks.sliding_window_view(padded, radius, axis=0)
    return (np.median(windows[:count], -1) + np.median(windows[radius + 1 : radius + 1 + count], -1)) / 2


def _baseline(jumps: Float[np.ndarray, "M"]) -> Float[np.ndarray, "M"]:
    """Upper quartile of the jumps around each, without those next to it."""
    radius = _BASELINE_FRAMES
    padded = np.pad(jumps, radius, mode="reflect" if len(jumps) > radius else "edge")
    windows = np.lib.stride_tricks.sliding_window_view(padded, 2 * radius + 1)
    adjacent = np.abs(np.arange(-radius, radius + 1)) <= _MEDIAN_FRAMES // 2
    return np.quantile(windows[:, ~adjacent], 0.75, axis=-1)


def truncation(clip: Clip) -> float:
    """Share of the frames in which the image border truncates the person: the box touches the border and a keypoint is at or
    beyond it. A person who only stands at the border keeps the joints inside."""
    detected = clip.keypoints[..., 2].max(-1) > 0
    if not detected.any():
        return 0.0
    return float(_is_truncated(clip)[detected].mean())


def _is_truncated(clip: Clip) -> Bool[np.ndarray, "T"]:
    video = clip.track.shot.video
    borders = np.array([0.0, 0.0, video.width, video.height])
    inward = np.array([1.0, 1.0, -1.0, -1.0])
    box_distance = (clip.boxes - borders) * inward
    size = (clip.boxes[:, 2:] - clip.boxes[:, :2]).max(-1)
    # (T, 17, 4): distance of each keypoint to the left, upper, right and lower border, positive inside.
    keypoint_distance = (np.tile(clip.keypoints[..., :2], 2) - borders) * inward
    touching = box_distance < _BORDER_SHARE * max(video.width, video.height)
    return (touching & (keypoint_distance < _KEYPOINT_BORDER_SHARE * size[:, None, None]).any(1)).any(-1)
