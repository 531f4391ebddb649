"""Which way a person faces, from keypoints alone: evidence in every frame, agreed on over time.

Angles are yaw in the level world of the camera: 0 faces the camera, positive turns to the image's right.
"""

import numpy as np
from jaxtyping import Float

from schemas.curves import smooth
from schemas.skeleton import keypoint

BINS = 36
_YAWS = np.arange(BINS) * 2 * np.pi / BINS
_HEAD_TURNS = np.radians([-50.0, -25.0, 0.0, 25.0, 50.0])
_SHOULDERS, _HIPS, _NOSE, _EARS = 0.62, 0.37, 0.20, 0.29
"""Widths of shoulders and hips, nose before the ears, and between the ears, in lengths of the trunk (shipped body)."""
_TURN_RAD_PER_FRAME = 0.09
"""A turn of this size from frame to frame (2.7 rad/s at 30 fps) costs as much as a residual of one spread."""
_SPREAD = 0.12
"""Of measured widths, in trunk lengths: people lean, shrug and are seen imprecisely."""


def yaw_evidence(keypoints: Float[np.ndarray, "T 17 3"]) -> Float[np.ndarray, "T 36"]:
    """Cost of every yaw in every frame; zero everywhere where nothing was seen.

    The signed widths of shoulders and hips tell the cosine (a back has its left on the left), nose and ears the sine and
    knees, which bend forwards only, tell it too. The head may turn against the trunk at a price.
    """
    xy, seen = keypoints[..., :2].astype(np.float64), keypoints[..., 2].astype(np.float64)

    def at(name: str) -> Float[np.ndarray, "T 2"]:
        return xy[:, keypoint(name)]

    def sure(*names: str) -> Float[np.ndarray, "T"]:
        return np.min([seen[:, keypoint(name)] for name in names], axis=0) ** 2

    trunk = (at("left_shoulder") + at("right_shoulder") - at("left_hip") - at("right_hip")) / 2
    trunk_sure = sure("left_shoulder", "right_shoulder", "left_hip", "right_hip")
    length = _longest(np.linalg.norm(trunk, axis=-1), trunk_sure)
    # Sideways is measured across the trunk, so that it means the same when a person bends or lies.
    across = np.stack([-trunk[:, 1], trunk[:, 0]], -1)
    norm = np.linalg.norm(across, axis=-1, keepdims=True)
    across = np.where(norm > 0.3 * length[:, None], across / np.maximum(norm, 1e-9), [1.0, 0.0])

    def side(vector: Float[np.ndarray, "T 2"]) -> Float[np.ndarray, "T"]:
        return (vector * across).sum(-1) / length

    cosine, sine = np.cos(_YAWS), np.sin(_YAWS)
    cost = np.zeros((len(xy), BINS))
    for name, width in (("shoulder", _SHOULDERS), ("hip", _HIPS)):
        measured = side(at(f"left_{name}") - at(f"right_{name}"))
        weight = sure(f"left_{name}", f"right_{name}")
        cost += weight[:, None] * _robust((measured[:, None] - width * cosine) / _SPREAD)
    for name in ("left", "right"):
        bend = side(at(f"{name}_knee") - (at(f"{name}_hip") + at(f"{name}_ankle")) / 2)
        weight = sure(f"{name}_knee", f"{name}_hip", f"{name}_ankle")
        cost -= (weight * np.clip(bend / 0.25, -1, 1))[:, None] * sine

    nose = side(at("nose") - (at("left_ear") + at("right_ear")) / 2)
    ears = side(at("left_ear") - at("right_ear"))
    ears_sure = sure("left_ear", "right_ear")
    # An ear that is hidden is not placed well but says which side is seen; with both hidden the eyes stand in.
    hidden = seen[:, keypoint("left_ear")] - seen[:, keypoint("right_ear")]
    face = seen[:, [keypoint("nose"), keypoint("left_eye"), keypoint("right_eye")]].mean(-1)
    anyone = np.maximum(face, seen[:, [keypoint("left_ear"), keypoint("right_ear")]].max(-1))
    shoulders_middle = (at("left_shoulder") + at("right_shoulder")) / 2
    nose_ahead = side(at("nose") - shoulders_middle)
    head_costs = []
    for turn in _HEAD_TURNS:
        c, s = np.cos(_YAWS + turn), np.sin(_YAWS + turn)
        one = (sure("nose", "left_ear", "right_ear"))[:, None] * _robust((nose[:, None] - _NOSE * s) / (_SPREAD / 2))
        one += ears_sure[:, None] * _robust((ears[:, None] - _EARS * c) / (_SPREAD / 2))
        one += hidden[:, None] * s
        one += 0.5 * sure("nose")[:, None] * _robust((nose_ahead[:, None] - 0.25 * s) / (2 * _SPREAD))
        one += (anyone * (0.5 - face))[:, None] * c
        head_costs.append(one + 0.6 * (turn / np.radians(50.0)) ** 2)
    return cost + np.min(head_costs, axis=0)


def best_path(cost: Float[np.ndarray, "T 36"]) -> Float[np.ndarray, "T"]:
    """The cheapest yaw over time (Viterbi), unwrapped and smoothed, radians."""
    apart = np.abs(_YAWS[:, None] - _YAWS[None])
    step = (np.minimum(apart, 2 * np.pi - apart) / _TURN_RAD_PER_FRAME) ** 2
    # Beyond a quarter turn every jump costs the same: a wrong frame must not bend a whole path.
    step = np.minimum(step, (np.pi / 2 / _TURN_RAD_PER_FRAME) ** 2)
    total, came_from = cost[0], []
    for here in cost[1:]:
        reach = total[:, None] + step
        came_from.append(reach.argmin(0))
        total = reach.min(0) + here
    path = [int(total.argmin())]
    for back in reversed(came_from):
        path.append(int(back[path[-1]]))
    yaw = np.unwrap(_YAWS[path[::-1]])
    return smooth(yaw, 4.0)


def _robust(residual: Float[np.ndarray, "T B"]) -> Float[np.ndarray, "T B"]:
    return 4 * residual**2 / (4 + residual**2)


def _longest(length: Float[np.ndarray, "T"], sure: Float[np.ndarray, "T"]) -> Float[np.ndarray, "T"]:
    """Length of the trunk when it is not foreshortened: the largest nearby, since people lean and come nearer slowly."""
    length = np.where(sure > 0.05, length, 0.0)
    reach = 45
    padded = np.pad(length, reach, mode="edge")
    windows = np.lib.stride_tricks.sliding_window_view(padded, 2 * reach + 1)
    return np.maximum(np.quantile(windows, 0.95, axis=-1), max(1.0, 0.3 * float(length.max(initial=0.0))))
