"""Where one motion can go over into another: the pair of frames that fit best, and how the second is laid onto the ground.

Two frames fit when joints are in the same places and move alike once the second body is turned and moved over the ground
as well as can be, which has a closed form (Kovar, Gleicher and Pighin, "Motion Graphs", 2002). Feet that stand in both
frames weigh more: they should not have to move.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int

from schemas.skeleton import NUM_JOINTS
from stages.joining.pieces import Piece

_AHEAD_FRAMES = 6.0
"""A difference of velocities counts as far as it leads apart in this time."""
_STANDING_WEIGHT = 8.0
"""A joint counts once, a contact point that is planted in both frames so often."""
_STEP_M = 0.03
"""What a contact point costs that is planted in one frame only."""


@dataclass(frozen=True, kw_only=True)
class Seam:
    """How a motion is followed by another."""

    last: int
    """Last frame of the first motion that is kept."""
    first: int
    """First frame of the second that is kept; it comes one frame after."""
    yaw_rad: float
    shift_m: Float[np.ndarray, "2"]
    """The second motion is turned by the yaw about the world's vertical axis, then moved by x and z."""
    cost_m: float
    """Mean distance of joints, with that of their velocities and of feet that step."""


@dataclass(frozen=True, eq=False)
class End:
    """Some frames at an end of a motion, as the search sees them."""

    frames: Int[np.ndarray, "N"]
    places: Float[np.ndarray, "N 28 3"]
    """Joints and contact points, half a frame towards the other motion."""
    steps: Float[np.ndarray, "N 28 3"]
    """Metres a frame."""
    planted: Bool[np.ndarray, "N 4"]


def tail(piece: Piece, first: int, end: int) -> End:
    """Frames after which a motion may be left; never after its last, for the next frame tells how it would go on."""
    end = max(1, min(end, len(piece) - 1))
    return _end(piece, min(first, end - 1), end, 1)


def head(piece: Piece, first: int, end: int) -> End:
    """Frames at which a motion may be entered; never at its first, for the frame before tells where it comes from."""
    first = max(first, min(1, len(piece) - 1))
    return _end(piece, first, max(end, first + 1), -1)


def _end(piece: Piece, first: int, end: int, ahead: int) -> End:
    frames = np.arange(first, end)
    places = np.concatenate([piece.joints, piece.soles], axis=1)
    here, there = places[frames], places[(frames + ahead).clip(0, len(piece) - 1)]
    return End(frames, (here + there) / 2, ahead * (there - here), piece.planted[frames])


def best_seam(left: End, entered: End) -> Seam:
    """The cheapest of all pairs of frames. Both ends hold at least one frame."""
    both = left.planted[:, None] & entered.planted[None]
    weight = np.concatenate([np.ones((*both.shape[:2], NUM_JOINTS)), _STANDING_WEIGHT * both], axis=-1)
    share = (weight / weight.sum(-1, keepdims=True))[..., None]
    one, other = left.places[:, None], entered.places[None]
    one_middle, other_middle = (share * one).sum(2), (share * other).sum(2)
    one_step, other_step = _AHEAD_FRAMES * left.steps[:, None], _AHEAD_FRAMES * entered.steps[None]
    near, far = one - one_middle[:, :, None], other - other_middle[:, :, None]
    yaw = np.arctan2(
        (share[..., 0] * (_across(near, far) + _across(one_step, other_step))).sum(-1),
        (share[..., 0] * (_along(near, far) + _along(one_step, other_step))).sum(-1),
    )
    apart = near - _turned(far, yaw)
    apart[..., 1] = (one - other)[..., 1]
    faster = one_step - _turned(np.broadcast_to(other_step, far.shape), yaw)
    distance = (np.linalg.norm(apart, axis=-1) + np.linalg.norm(faster, axis=-1))[..., :NUM_JOINTS].mean(-1)
    stepping = (left.planted[:, None] ^ entered.planted[None]).sum(-1)
    cost = distance + _STEP_M * stepping
    a, b = np.unravel_index(int(cost.argmin()), cost.shape)
    middle = _turned(other_middle[a : a + 1, b : b + 1, None], yaw[a : a + 1, b : b + 1])[0, 0, 0]
    return Seam(
        last=int(left.frames[a]),
        first=int(entered.frames[b]),
        yaw_rad=float(yaw[a, b]),
        shift_m=(one_middle[a, b] - middle)[[0, 2]],
        cost_m=float(cost[a, b]),
    )


def _across(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    return one[..., 0] * other[..., 2] - one[..., 2] * other[..., 0]


def _along(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    return one[..., 0] * other[..., 0] + one[..., 2] * other[..., 2]


def _turned(points: Float[np.ndarray, "A B P 3"], yaw_rad: Float[np.ndarray, "A B"]) -> Float[np.ndarray, "A B P 3"]:
    """As `schemas.rotations.yaw_matrix` turns, without the matrices."""
    cos, sin = np.cos(yaw_rad)[..., None], np.sin(yaw_rad)[..., None]
    x, y, z = points[..., 0], points[..., 1], points[..., 2]
    return np.stack([cos * x + sin * z, np.broadcast_to(y, (cos * x).shape), cos * z - sin * x], axis=-1)
