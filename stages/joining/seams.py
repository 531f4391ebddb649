"""Seam search: the pair of frames where one motion best continues as another, and the second motion's ground transform.

Two frames match when their joint positions and velocities agree after the second body is rotated about the vertical and
translated over the ground optimally, which has a closed form (Kovar, Gleicher and Pighin, "Motion Graphs", 2002). Feet
planted in both frames weigh more, as they should not slide.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int

from schemas.skeleton import NUM_JOINTS
from stages.joining.pieces import Piece

_VELOCITY_FRAMES = 6.0
"""A velocity difference costs the distance that it accumulates over this many frames."""
_PLANTED_WEIGHT = 8.0
"""Weight of a contact point planted in both frames, relative to a joint."""
_CONTACT_CHANGE_M = 0.03
"""Cost of a contact point planted in one of the two frames only."""


@dataclass(frozen=True, kw_only=True)
class Seam:
    """Transition from one motion to another."""

    last: int
    """Last kept frame of the first motion."""
    first: int
    """First kept frame of the second motion; it follows one frame later."""
    yaw_rad: float
    shift_m: Float[np.ndarray, "2"]
    """The second motion is rotated by the yaw about the world's vertical axis, then translated by x and z."""
    cost_m: float
    """Mean joint distance, plus the costs of velocity differences and contact changes."""


@dataclass(frozen=True, eq=False)
class SeamCandidates:
    """Candidate frames near one end of a motion, for the seam search."""

    frames: Int[np.ndarray, "N"]
    points: Float[np.ndarray, "N 28 3"]
    """Joints and contact points, half a frame towards the other motion."""
    velocities: Float[np.ndarray, "N 28 3"]
    """Metres a frame."""
    planted: Bool[np.ndarray, "N 4"]


def exit_candidates(piece: Piece, first: int, end: int) -> SeamCandidates:
    """Frames after which a motion may be left; never its last one, whose velocity would need the next frame."""
    end = max(1, min(end, len(piece) - 1))
    return _candidates(piece, min(first, end - 1), end, 1)


def entry_candidates(piece: Piece, first: int, end: int) -> SeamCandidates:
    """Frames at which a motion may be entered; never its first one, whose velocity would need the previous frame."""
    first = max(first, min(1, len(piece) - 1))
    return _candidates(piece, first, max(end, first + 1), -1)


def _candidates(piece: Piece, first: int, end: int, step: int) -> SeamCandidates:
    frames = np.arange(first, end)
    points = np.concatenate([piece.joints, piece.soles], axis=1)
    current, adjacent = points[frames], points[(frames + step).clip(0, len(piece) - 1)]
    return SeamCandidates(frames, (current + adjacent) / 2, step * (adjacent - current), piece.planted[frames])


def best_seam(exits: SeamCandidates, entries: SeamCandidates) -> Seam:
    """The cheapest pair of frames. Both sides need at least one candidate."""
    both_planted = exits.planted[:, None] & entries.planted[None]
    weight = np.concatenate([np.ones((*both_planted.shape[:2], NUM_JOINTS)), _PLANTED_WEIGHT * both_planted], axis=-1)
    weight = (weight / weight.sum(-1, keepdims=True))[..., None]
    points_a, points_b = exits.points[:, None], entries.points[None]
    centroid_a, centroid_b = (weight * points_a).sum(2), (weight * points_b).sum(2)
    velocity_a, velocity_b = _VELOCITY_FRAMES * exits.velocities[:, None], _VELOCITY_FRAMES * entries.velocities[None]
    centred_a, centred_b = points_a - centroid_a[:, :, None], points_b - centroid_b[:, :, None]
    yaw = np.arctan2(
        (weight[..., 0] * (_ground_cross(centred_a, centred_b) + _ground_cross(velocity_a, velocity_b))).sum(-1),
        (weight[..., 0] * (_ground_dot(centred_a, centred_b) + _ground_dot(velocity_a, velocity_b))).sum(-1),
    )
    position_error = centred_a - _rotated(centred_b, yaw)
    position_error[..., 1] = (points_a - points_b)[..., 1]
    velocity_error = velocity_a - _rotated(np.broadcast_to(velocity_b, centred_b.shape), yaw)
    error = np.linalg.norm(position_error, axis=-1) + np.linalg.norm(velocity_error, axis=-1)
    contact_changes = (exits.planted[:, None] ^ entries.planted[None]).sum(-1)
    cost = error[..., :NUM_JOINTS].mean(-1) + _CONTACT_CHANGE_M * contact_changes
    a, b = np.unravel_index(int(cost.argmin()), cost.shape)
    rotated_centroid = _rotated(centroid_b[a : a + 1, b : b + 1, None], yaw[a : a + 1, b : b + 1])[0, 0, 0]
    return Seam(
        last=int(exits.frames[a]),
        first=int(entries.frames[b]),
        yaw_rad=float(yaw[a, b]),
        shift_m=(centroid_a[a, b] - rotated_centroid)[[0, 2]],
        cost_m=float(cost[a, b]),
    )


def _ground_cross(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return a[..., 0] * b[..., 2] - a[..., 2] * b[..., 0]


def _ground_dot(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return a[..., 0] * b[..., 0] + a[..., 2] * b[..., 2]


def _rotated(points: Float[np.ndarray, "A B P 3"], yaw_rad: Float[np.ndarray, "A B"]) -> Float[np.ndarray, "A B P 3"]:
    """Points rotated as by `schemas.rotations.yaw_matrix`, without building the matrices."""
    cos, sin = np.cos(yaw_rad)[..., None], np.sin(yaw_rad)[..., None]
    x, y, z = points[..., 0], points[..., 1], points[..., 2]
    return np.stack([cos * x + sin * z, np.broadcast_to(y, (cos * x).shape), cos * z - sin * x], axis=-1)
