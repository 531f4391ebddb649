"""What boxes and keypoints tell of a track: whether it stays with one person, and whether the picture cuts that person off."""

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy.ndimage import median_filter

from schemas.records import Clip
from schemas.skeleton import COCO_KEYPOINTS, mirror_order

SEEN = 0.3
"""Keypoints of at least this confidence count."""
LEAST_JUMP = 0.06
"""Box sizes by which half of the body's keypoints must leave their path between two sightings: no body moves all of its
limbs that suddenly."""
JUMP_RATIO = 6.0
"""How many times greater than the jumps around it, too, for people who move quickly and cameras that shake."""
LOOSER_PER_FRAME = 0.2
"""Across a gap the path is less sure: the jump must be greater by this share for every frame that is missing."""
_CLEAN_FRAMES = 5
"""Length of the median filter: what lasts at most two frames is a slip of the detector, not a change of person."""
_PATH_FRAMES = 4
"""Frames on each side over which the path's speed is taken, as the median of its steps."""
_APART_FRAMES = 8
"""Two jumps nearer than this are one change of person."""
_AROUND_FRAMES = 12
"""What counts as around a jump, frames on each side."""
_LEAST_KEYPOINTS = 4
_BODY = [index for index, name in enumerate(COCO_KEYPOINTS) if name.split("_")[-1] not in ("nose", "eye", "ear")]
_MIRRORED = list(mirror_order(tuple(COCO_KEYPOINTS[index] for index in _BODY)))
_EDGE_SHARE = 0.005
"""A box this near to the picture's edge, as a share of the picture's longer side, touches it (a pixel or two of what the
network sees)."""
_KEYPOINT_SHARE = 0.02
"""A keypoint this near to that edge, as a share of the box's longer side, is cut off or about to be: joints of a whole
person lie further inside the skin's outline."""


def identity_switches(clip: Clip) -> int:
    """How often the track seems to go over to somebody else.

    The sign is that most keypoints leave their path from one sighting to the next, by a step to another place, another size
    or another posture, which is how the person before and the person after differ, and that nothing of the kind happens
    around it: a quick person is quick for more than a frame. Slips of a frame or two are filtered out, and sides are not
    told apart, since detectors exchange the sides of one and the same person. Not seen is a change between two people of
    one size in one posture at one place.
    """
    present = np.flatnonzero(clip.keypoints[..., 2].max(-1) > 0)
    if len(present) < 2 * _PATH_FRAMES:
        return 0
    jumps = path_jumps(clip, present)
    missing = np.diff(present) - 1
    ordinary = _around(jumps)
    limit = np.maximum(LEAST_JUMP * (1 + LOOSER_PER_FRAME * missing), JUMP_RATIO * ordinary)
    switches = np.flatnonzero(jumps > limit)
    return int(1 + (np.diff(switches) >= _APART_FRAMES).sum()) if len(switches) else 0


def path_jumps(clip: Clip, present: Int[np.ndarray, "N"]) -> Float[np.ndarray, "M"]:
    """Between each sighting (frames `present`) and the next: how far half of the body's keypoints are at least from where
    their path leads, in box sizes; left and right may be exchanged."""
    seen = clip.keypoints[present][:, _BODY, 2] >= SEEN
    places = clip.keypoints[present][:, _BODY, :2].astype(np.float64)
    places = median_filter(places, (_CLEAN_FRAMES, 1, 1), mode="nearest")
    frames = np.diff(present)[:, None, None]
    expected = places[:-1] + _speed(np.diff(places, axis=0) / frames) * frames
    straight = _apart(expected, places[1:], seen[:-1] & seen[1:])
    exchanged = _apart(expected, places[1:, _MIRRORED], seen[:-1] & seen[1:, _MIRRORED])
    both = np.minimum(straight, (exchanged + exchanged[:, _MIRRORED]) / 2)
    enough = np.isfinite(both).sum(-1) >= _LEAST_KEYPOINTS
    jumps = np.zeros(len(both))
    jumps[enough] = np.nanmedian(np.where(np.isfinite(both), both, np.nan)[enough], axis=-1)
    boxes = clip.boxes[present]
    size = np.maximum(boxes[:, 2:] - boxes[:, :2], 1.0).max(-1)
    return jumps / np.minimum(size[1:], size[:-1])


def _apart(
    one: Float[np.ndarray, "M K 2"], other: Float[np.ndarray, "M K 2"], seen: Bool[np.ndarray, "M K"]
) -> Float[np.ndarray, "M K"]:
    return np.where(seen, np.linalg.norm(one - other, axis=-1), np.inf)


def _speed(steps: Float[np.ndarray, "M K 2"]) -> Float[np.ndarray, "M K 2"]:
    """What each step would be by its neighbours: the mean of the median steps before and after it."""
    reach, count = _PATH_FRAMES, len(steps)
    # Beyond the ends the steps are mirrored, without the one in question, which must not vouch for itself.
    padded = np.pad(steps, ((reach, reach), (0, 0), (0, 0)), mode="reflect")
    windows = np.lib.stride_tricks.sliding_window_view(padded, reach, axis=0)
    return (np.median(windows[:count], -1) + np.median(windows[reach + 1 : reach + 1 + count], -1)) / 2


def _around(jumps: Float[np.ndarray, "M"]) -> Float[np.ndarray, "M"]:
    """The upper quartile of the jumps around each, without those next to it."""
    reach = _AROUND_FRAMES
    padded = np.pad(jumps, reach, mode="reflect" if len(jumps) > reach else "edge")
    windows = np.lib.stride_tricks.sliding_window_view(padded, 2 * reach + 1)
    near = np.abs(np.arange(-reach, reach + 1)) <= _CLEAN_FRAMES // 2
    return np.quantile(windows[:, ~near], 0.75, axis=-1)


def truncation(clip: Clip) -> float:
    """Share of the frames in which the picture's edge cuts the person off: the box touches an edge and a keypoint lies at
    or beyond that edge. Someone who only stands at the edge keeps the joints inside."""
    frames = clip.keypoints[..., 2].max(-1) > 0
    if not frames.any():
        return 0.0
    return float(_cut(clip)[frames].mean())


def _cut(clip: Clip) -> Bool[np.ndarray, "T"]:
    video = clip.track.shot.video
    edges = np.array([0.0, 0.0, video.width, video.height])
    inward = np.array([1.0, 1.0, -1.0, -1.0])
    inside = (clip.boxes - edges) * inward
    size = (clip.boxes[:, 2:] - clip.boxes[:, :2]).max(-1)
    # (T, 17, 4): how far inside each keypoint lies of the left, upper, right and lower edge.
    depth = (np.tile(clip.keypoints[..., :2], 2) - edges) * inward
    touching = inside < _EDGE_SHARE * max(video.width, video.height)
    return (touching & (depth < _KEYPOINT_SHARE * size[:, None, None]).any(1)).any(-1)
