"""Heading of a person from 2D keypoints alone: a cost per yaw in each frame, minimised over time.

Angles are yaw in the level world of the camera: 0 faces the camera, positive is towards the right of the image.
"""

import numpy as np
from jaxtyping import Float

from schemas.curves import smooth
from schemas.skeleton import keypoint

BINS = 36
_YAWS = np.arange(BINS) * 2 * np.pi / BINS
_HEAD_TURNS = np.radians([-50.0, -25.0, 0.0, 25.0, 50.0])
_SHOULDERS, _HIPS, _NOSE, _EARS = 0.62, 0.37, 0.20, 0.29
"""Widths of shoulders and hips, distance of the nose in front of the ears, distance between the ears, in trunk lengths (shipped
body)."""
_YAW_STEP_RAD = 0.09
"""A yaw change of this size between frames (2.7 rad/s at 30 fps) costs as much as a residual of one standard deviation."""
_WIDTH_SIGMA = 0.12
"""Standard deviation of measured widths, trunk lengths: people lean, shrug and are detected imprecisely."""


def yaw_costs(keypoints: Float[np.ndarray, "T 17 3"]) -> Float[np.ndarray, "T 36"]:
    """Cost of every yaw in every frame; zero for all yaws where nothing is detected.

    The signed widths of shoulders and hips give the cosine (seen from behind, a person's left is on the left); nose and ears
    give the sine, as do knees, which bend forwards only. The head may rotate against the trunk at a cost.
    """
    xy, confidence = keypoints[..., :2].astype(np.float64), keypoints[..., 2].astype(np.float64)

    def xy_of(name: str) -> Float[np.ndarray, "T 2"]:
        return xy[:, keypoint(name)]

    def weight_of(*names: str) -> Float[np.ndarray, "T"]:
        return np.min([confidence[:, keypoint(name)] for name in names], axis=0) ** 2

    trunk = (xy_of("left_shoulder") + xy_of("right_shoulder") - xy_of("left_hip") - xy_of("right_hip")) / 2
    trunk_weight = weight_of("left_shoulder", "right_shoulder", "left_hip", "right_hip")
    length = _trunk_length(np.linalg.norm(trunk, axis=-1), trunk_weight)
    # Sideways is perpendicular to the trunk, so that it keeps its meaning when a person bends or lies.
    across = np.stack([-trunk[:, 1], trunk[:, 0]], -1)
    norm = np.linalg.norm(across, axis=-1, keepdims=True)
    across = np.where(norm > 0.3 * length[:, None], across / np.maximum(norm, 1e-9), [1.0, 0.0])

    def signed_width(vector: Float[np.ndarray, "T 2"]) -> Float[np.ndarray, "T"]:
        return (vector * across).sum(-1) / length

    cosine, sine = np.cos(_YAWS), np.sin(_YAWS)
    cost = np.zeros((len(xy), BINS))
    for name, width in (("shoulder", _SHOULDERS), ("hip", _HIPS)):
        measured = signed_width(xy_of(f"left_{name}") - xy_of(f"right_{name}"))
        weight = weight_of(f"left_{name}", f"right_{name}")
        cost += weight[:, None] * _robust((measured[:, None] - width * cosine) / _WIDTH_SIGMA)
    for name in ("left", "right"):
        knee_offset = signed_width(xy_of(f"{name}_knee") - (xy_of(f"{name}_hip") + xy_of(f"{name}_ankle")) / 2)
        weight = weight_of(f"{name}_knee", f"{name}_hip", f"{name}_ankle")
        cost -= (weight * np.clip(knee_offset / 0.25, -1, 1))[:, None] * sine

    nose = signed_width(xy_of("nose") - (xy_of("left_ear") + xy_of("right_ear")) / 2)
    ears = signed_width(xy_of("left_ear") - xy_of("right_ear"))
    ears_weight = weight_of("left_ear", "right_ear")
    # A hidden ear is located badly, but shows which side is visible; with both hidden the eyes stand in.
    ear_difference = confidence[:, keypoint("left_ear")] - confidence[:, keypoint("right_ear")]
    face = confidence[:, [keypoint("nose"), keypoint("left_eye"), keypoint("right_eye")]].mean(-1)
    head = np.maximum(face, confidence[:, [keypoint("left_ear"), keypoint("right_ear")]].max(-1))
    shoulder_centre = (xy_of("left_shoulder") + xy_of("right_shoulder")) / 2
    nose_offset = signed_width(xy_of("nose") - shoulder_centre)
    head_costs = []
    for head_yaw in _HEAD_TURNS:
        cos_head, sin_head = np.cos(_YAWS + head_yaw), np.sin(_YAWS + head_yaw)
        head_cost = weight_of("nose", "left_ear", "right_ear")[:, None] * _robust(
            (nose[:, None] - _NOSE * sin_head) / (_WIDTH_SIGMA / 2)
        )
        head_cost += ears_weight[:, None] * _robust((ears[:, None] - _EARS * cos_head) / (_WIDTH_SIGMA / 2))
        head_cost += ear_difference[:, None] * sin_head
        head_cost += (
            0.5 * weight_of("nose")[:, None] * _robust((nose_offset[:, None] - 0.25 * sin_head) / (2 * _WIDTH_SIGMA))
        )
        head_cost += (head * (0.5 - face))[:, None] * cos_head
        head_costs.append(head_cost + 0.6 * (head_yaw / np.radians(50.0)) ** 2)
    return cost + np.min(head_costs, axis=0)


def best_path(cost: Float[np.ndarray, "T 36"]) -> Float[np.ndarray, "T"]:
    """The yaw path of least cost (Viterbi), unwrapped and smoothed, radians."""
    difference = np.abs(_YAWS[:, None] - _YAWS[None])
    transition_cost = (np.minimum(difference, 2 * np.pi - difference) / _YAW_STEP_RAD) ** 2
    # Beyond 90 degrees every jump costs the same: a wrong frame must not bend the whole path.
    transition_cost = np.minimum(transition_cost, (np.pi / 2 / _YAW_STEP_RAD) ** 2)
    path_cost, backpointers = cost[0], []
    for frame_cost in cost[1:]:
        candidates = path_cost[:, None] + transition_cost
        backpointers.append(candidates.argmin(0))
        path_cost = candidates.min(0) + frame_cost
    path = [int(path_cost.argmin())]
    for pointers in reversed(backpointers):
        path.append(int(pointers[path[-1]]))
    yaw = np.unwrap(_YAWS[path[::-1]])
    return smooth(yaw, 4.0)


def _robust(residual: Float[np.ndarray, "T B"]) -> Float[np.ndarray, "T B"]:
    return 4 * residual**2 / (4 + residual**2)


def _trunk_length(length: Float[np.ndarray, "T"], weight: Float[np.ndarray, "T"]) -> Float[np.ndarray, "T"]:
    """Length of the trunk without foreshortening: the largest nearby, since people lean and approach slowly."""
    length = np.where(weight > 0.05, length, 0.0)
    radius = 45
    padded = np.pad(length, radius, mode="edge")
    windows = np.lib.stride_tricks.sliding_window_view(padded, 2 * radius + 1)
    return np.maximum(np.quantile(windows, 0.95, axis=-1), max(1.0, 0.3 * float(length.max(initial=0.0))))
