"""Cut tracks into clips of a few seconds in which enough of the body is seen, at the frame rate of all stored data."""

import math
from collections.abc import Iterable
from itertools import pairwise
from typing import Literal

import numpy as np
from jaxtyping import Float
from scipy.spatial.transform import Rotation

from schemas.coverage import LEFT_LEG, shows
from schemas.curves import runs
from schemas.records import FPS, Clip, Rejection, Track
from schemas.skeleton import COCO_KEYPOINTS
from stages.base import Stage, StageConfig
from stages.perception.camera_motion import rotations_at
from stages.perception.landmarks.seen import fills_box, find_seen, majority, visibility_of_parts

_BODY = [index for index, name in enumerate(COCO_KEYPOINTS) if name.split("_")[-1] not in ("nose", "eye", "ear")]


class CutClips(Stage[Track, Clip]):
    """Keep the segments of a track that show enough of the body for long enough, with the parts that are seen in each frame."""

    class Config(StageConfig):
        """Limits on length and visibility of clips."""

        min_s: float = 2.0
        """Shortest clip, seconds."""
        max_s: float = 10.0
        """Longest clip, seconds; a longer segment is cut into equal pieces."""
        max_gap_s: float = 0.35
        """Longest gap in a track that is bridged, seconds."""
        min_height_px: float = 80.0
        """Lowest median height of the person's box, pixels."""
        min_height_share: float = 0.0
        """The same as a share of the image height; 0: whoever is high enough in pixels is kept, however large the picture."""
        min_confidence: float = 0.3
        """Lowest confidence of a visible keypoint."""
        coverage: Literal["any", "upper", "whole"] = "any"
        """Which parts must be seen: `any` (trunk and a limb), `upper` (trunk and an arm) or `whole` (trunk, both legs and an
        arm)."""
        min_visible: float = 0.0
        """Share of the twelve keypoints from shoulders to ankles that must be visible in a frame, beside `coverage`."""
        settle_s: float = 0.5
        """Window of the majority filter on visibility, seconds, so that a flicker cuts nothing and hides no part."""

    def run(self, record: Track) -> Iterable[Clip | Rejection]:
        limits = self.config
        height = float(np.median(record.boxes[:, 3] - record.boxes[:, 1]))
        min_height = max(limits.min_height_px, limits.min_height_share * record.shot.video.height)
        if height < min_height:
            yield self.reject(
                record, "person_too_small", "median box height, pixels", measured=height, limit=min_height
            )
            return
        times_s, boxes, keypoints, landmarks, gap_s = _resample(record)
        tracked = gap_s <= limits.max_gap_s
        visible_share = (keypoints[:, _BODY, 2] >= limits.min_confidence).mean(axis=1)
        settle_frames = round(limits.settle_s * FPS)
        video = record.shot.video
        visibility = visibility_of_parts(keypoints, landmarks, (video.width, video.height))
        visibility[~fills_box(keypoints, boxes), LEFT_LEG:] = 0.0
        seen = find_seen(visibility, settle_frames)
        enough = majority(visible_share >= limits.min_visible, settle_frames)
        usable = tracked & enough & majority(shows(seen, limits.coverage), settle_frames)
        keypoints[gap_s > 0, :, 2] = 0.0
        if landmarks is not None:
            landmarks[gap_s > 0, :, 2:4] = 0.0
        segments = runs(usable)
        longest_s = max((end - start for start, end in segments), default=0) / FPS
        if longest_s < limits.min_s:
            share = float(usable.mean())
            detail = f"the body is visible in {share:.0%} of the track; longest stretch in seconds"
            yield self.reject(record, "body_not_visible", detail, measured=longest_s, limit=limits.min_s)
            return
        for start, end in segments:
            seconds = (end - start) / FPS
            pieces = max(1, math.ceil(seconds / limits.max_s - 1e-9))
            edges = [start + round(piece * (end - start) / pieces) for piece in range(pieces + 1)]
            for first, last in pairwise(edges):
                clip = Clip(
                    track=record,
                    start_s=float(times_s[first]),
                    end_s=float(times_s[first] + (last - first) / FPS),
                    boxes=boxes[first:last],
                    keypoints=keypoints[first:last],
                    camera_turn=_camera_rotation(record, times_s[first:last]),
                    landmarks=None if landmarks is None else landmarks[first:last, :, :4],
                    landmarks_m=None if landmarks is None else landmarks[first:last, :, 4:],
                    seen=seen[first:last],
                )
                if seconds < limits.min_s:
                    yield self.reject(clip, "clip_too_short", measured=seconds, limit=limits.min_s)
                else:
                    yield clip


def _resample(
    track: Track,
) -> tuple[
    Float[np.ndarray, "T"],
    Float[np.ndarray, "T 4"],
    Float[np.ndarray, "T 17 3"],
    Float[np.ndarray, "T 33 7"] | None,
    Float[np.ndarray, "T"],
]:
    """Times, boxes, keypoints and landmarks (in the image, then metric) at FPS by linear interpolation, and the length of the gap
    around each frame, seconds.

    A keypoint between two detections has the lower of their confidences; outside gaps the length is 0.
    """
    source_s = track.times_s
    frames = max(1, math.floor((source_s[-1] - source_s[0]) * FPS + 1e-6) + 1)
    times_s = source_s[0] + np.arange(frames) / FPS
    right = np.searchsorted(source_s, times_s - 1e-6).clip(min(1, len(source_s) - 1), len(source_s) - 1)
    left = np.maximum(right - 1, 0)
    span_s = source_s[right] - source_s[left]
    weight = np.divide(times_s - source_s[left], span_s, out=np.zeros_like(times_s), where=span_s > 0)
    weight = weight.clip(0, 1).astype(np.float32)
    at_left, at_right = np.isclose(weight, 0, atol=1e-3), np.isclose(weight, 1, atol=1e-3)

    def interpolate(values: Float[np.ndarray, "N *B"]) -> Float[np.ndarray, "T *B"]:
        share = weight.reshape(-1, *[1] * (values.ndim - 1))
        result = values[left] + share * (values[right] - values[left])
        result[at_left], result[at_right] = values[left][at_left], values[right][at_right]
        return result.astype(np.float32)

    keypoints = interpolate(track.keypoints)
    confidence = np.minimum(track.keypoints[left][..., 2], track.keypoints[right][..., 2])
    between = ~at_left & ~at_right
    keypoints[between, :, 2] = confidence[between]
    landmarks = None
    if track.landmarks is not None and track.landmarks_m is not None:
        landmarks = interpolate(np.concatenate([track.landmarks, track.landmarks_m], axis=-1))
    frame_s = float(np.median(np.diff(source_s))) if len(source_s) > 1 else 1 / FPS
    in_gap = (span_s > 1.5 * frame_s) & between
    return times_s, interpolate(track.boxes), keypoints, landmarks, np.where(in_gap, span_s, 0.0)


def _camera_rotation(track: Track, times_s: Float[np.ndarray, "T"]) -> Float[np.ndarray, "T 3"] | None:
    """Camera rotations at the clip's times, relative to the first of them."""
    if track.camera_turn is None or not track.camera_turn.any():
        return None if track.camera_turn is None else np.zeros((len(times_s), 3), np.float32)
    return rotations_at(track.times_s, Rotation.from_rotvec(track.camera_turn), times_s)
