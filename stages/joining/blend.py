"""From one motion into another without a jolt: what is apart at the seam is shared by both sides and fades away.

Inertialisation (Bollo, "Inertialization: High-Performance Animation Transitions in Gears of War", 2018) to both sides: half
a frame after the first motion's last frame, both are led to the mean of their places and of their velocities, along cubic
curves of least mean acceleration. The feet are led apart from that: one that stands through the seam stays where it stood
and makes up for the difference in the swing before or after, whichever is nearer.
"""

from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from schemas.curves import smooth
from schemas.rotations import axis_angle_to_matrix, matrix_to_axis_angle
from schemas.skeleton import joint
from stages.geometry.feet import fill_gaps, solve_leg_ik
from stages.joining.pieces import Piece
from stages.joining.seams import Seam

_HOLD_FRAMES = 150
"""A foot that stands longer than this to both sides of a seam goes over to its new place while it stands."""
_SWING_FRAMES = 12
"""Frames in which a foot in the air comes back to its own way."""
_ROOT_SMOOTH, _LEG_SMOOTH = 3.0, 1.0
"""Frames."""
_SIDES = (slice(0, 2), slice(2, 4))
"""Contact points of either foot."""
_ANKLES, _KNEES = ((joint(f"left_{name}"), joint(f"right_{name}")) for name in ("ankle", "knee"))


def join(before: Piece, after: Piece, seam: Seam, fade_frames: int) -> Piece:
    """The first motion up to the seam, then the second; `fade_frames` to either side are bent towards each other.

    Both are on the same body. The result is in the world of the first.
    """
    laid = after.placed(seam.yaw_rad, seam.shift_m)
    kept, followed = before.between(0, seam.last + 1), laid.between(seam.first, len(laid))
    rotations, trans = _faded(before, laid, seam, fade_frames)
    planted = np.concatenate([kept.planted, followed.planted])
    confidence = np.concatenate([kept.confidence, followed.confidence])
    bent = Piece(rotations, trans, before.betas, planted, confidence, before.body)
    return _feet_kept(bent, _Feet.of(before, laid, seam), len(kept), fade_frames)


def _faded(
    before: Piece, after: Piece, seam: Seam, frames: int
) -> tuple[Float[Tensor, "T 24 3 3"], Float[Tensor, "T 3"]]:
    """Rotations and translations, the differences at the seam faded out."""
    a, b = seam.last, seam.first
    # What each would have done between the frames of the seam.
    next_a, before_b = min(a + 1, len(before) - 1), max(b - 1, 0)
    step_a, step_b = before.trans[next_a] - before.trans[a], after.trans[b] - after.trans[before_b]
    turn_a, turn_b = _turn(before.rotations, a, next_a), _turn(after.rotations, before_b, b)
    apart = (before.trans[a] + step_a / 2) - (after.trans[b] - step_b / 2)
    here = before.rotations[a] @ axis_angle_to_matrix(turn_a / 2)
    there = after.rotations[b] @ axis_angle_to_matrix(-turn_b / 2)
    twisted = matrix_to_axis_angle(there.mT @ here)
    back = min(frames, a + 1)
    on = min(frames, len(after) - b)
    place_a, speed_a = _fade(back)
    place_b, speed_b = _fade(on)
    # Backwards in time what is apart changes its sign and so does time.
    lead_a = (-place_a[:, None, None] * twisted + speed_a[:, None, None] * (turn_a - turn_b)).flip(0) / 2
    lead_b = (place_b[:, None, None] * twisted + speed_b[:, None, None] * (turn_a - turn_b)) / 2
    move_a = (-place_a[:, None] * apart + speed_a[:, None] * (step_a - step_b)).flip(0) / 2
    move_b = (place_b[:, None] * apart + speed_b[:, None] * (step_a - step_b)) / 2
    rotations = torch.cat([before.rotations[: a + 1], after.rotations[b:]])
    trans = torch.cat([before.trans[: a + 1], after.trans[b:]])
    first, middle, end = a + 1 - back, a + 1, a + 1 + on
    rotations[first:middle] = rotations[first:middle] @ axis_angle_to_matrix(lead_a)
    rotations[middle:end] = rotations[middle:end] @ axis_angle_to_matrix(lead_b)
    trans[first:middle] += move_a
    trans[middle:end] += move_b
    return rotations, trans


def _fade(frames: int) -> tuple[Float[Tensor, "N"], Float[Tensor, "N"]]:
    """Shares of a difference of places, and of a difference of steps, that are left at half a frame after the seam, one and
    a half, and so on; the cubics with values and slopes 1, 0 at the seam, or 0, 1, and 0, 0 at the end."""
    s = (torch.arange(frames) + 0.5) / max(frames, 1)
    return 1 - 3 * s**2 + 2 * s**3, frames * s * (1 - s) ** 2


def _turn(rotations: Float[Tensor, "T 24 3 3"], first: int, last: int) -> Float[Tensor, "24 3"]:
    """Rotation vectors from one frame to another, in the joints' own axes."""
    return matrix_to_axis_angle(rotations[first].mT @ rotations[last])


def _feet_kept(bent: Piece, meant: "_Feet", middle: int, fade_frames: int) -> Piece:
    """The blended motion with its feet back where and as they stood before it was blended, or staying through the seam."""
    first, end = max(0, middle - _HOLD_FRAMES - _SWING_FRAMES), min(len(bent), middle + _HOLD_FRAMES + _SWING_FRAMES)
    some, meant, middle = bent.between(first, end), meant.between(first, end), middle - first
    stands = np.stack([some.planted[:, side].any(1) for side in _SIDES], axis=1)
    if not stands.any():
        return bent
    held = [_held(stands[:, foot], middle) for foot in (0, 1)]
    known = np.stack([_known(stands[:, foot], middle, max(fade_frames, held[foot][1])) for foot in (0, 1)], axis=1)
    profiles = np.stack([profile for profile, _ in held], axis=1)
    some = _turned_feet(some, meant, profiles, known, middle)
    wanted = _wanted(some, meant, profiles, known & stands, middle)
    weight = stands[..., None].astype(np.float64)
    both = (wanted * weight).sum(1) / np.maximum(weight.sum(1), 1)
    root = smooth(fill_gaps(both, np.asarray(stands.any(1) | known.all(1))), _ROOT_SMOOTH)
    legs = np.stack([smooth(fill_gaps(wanted[:, foot], known[:, foot]), _LEG_SMOOTH) for foot in (0, 1)], axis=1)
    joints, turns = some.posed
    rotations, trans = bent.rotations.clone(), bent.trans.clone()
    rotations[first:end] = solve_leg_ik(some.rotations, joints, turns, legs - root[:, None])
    trans[first:end] += torch.from_numpy(root).to(trans)
    return Piece(rotations, trans, bent.betas, bent.planted, bent.confidence, bent.body)


@dataclass(frozen=True, eq=False)
class _Feet:
    """Where the soles' points are and how the feet are turned in the world, before a blend; and where they would be in the
    first frame after the seam if the first motion went on."""

    soles: Float[np.ndarray, "T 4 3"]
    turns: Float[Tensor, "T 2 3 3"]
    expected_soles: Float[np.ndarray, "4 3"]
    expected_turns: Float[Tensor, "2 3 3"]

    @classmethod
    def of(cls, before: Piece, after: Piece, seam: Seam) -> "_Feet":
        kept, entered, expected = slice(0, seam.last + 1), slice(seam.first, None), min(seam.last + 1, len(before) - 1)
        turns, other_turns = (piece.posed[1][:, list(_ANKLES)] for piece in (before, after))
        return cls(
            np.concatenate([before.soles[kept], after.soles[entered]]),
            torch.cat([turns[kept], other_turns[entered]]),
            before.soles[expected],
            turns[expected],
        )

    def between(self, first: int, end: int) -> "_Feet":
        return replace(self, soles=self.soles[first:end], turns=self.turns[first:end])


def _held(stands: Bool[np.ndarray, "T"], middle: int) -> tuple[Float[np.ndarray, "T"], int]:
    """Which share of its jump at the seam a foot is moved by to stay in one place, and how far from the seam that reaches,
    frames. A stance that ends soon is held to its end; one that does not goes over to the new place slowly."""
    moved = np.zeros(len(stands))
    if not (0 < middle < len(stands) and stands[middle - 1] and stands[middle]):
        return moved, 0
    before = int(np.argmin(stands[:middle][::-1])) if not stands[:middle].all() else len(stands)
    after = int(np.argmin(stands[middle:])) if not stands[middle:].all() else len(stands)
    if min(before, after) > _HOLD_FRAMES:
        s = ((np.arange(len(stands)) - middle + 0.5) / _HOLD_FRAMES).clip(-1, 1)
        left = (1 - 3 * s**2 + 2 * np.abs(s) ** 3) / 2
        return np.where(s < 0, left, -left), _HOLD_FRAMES
    if after <= before:
        moved[middle : middle + after] = -1.0
        return moved, after
    moved[middle - before : middle] = 1.0
    return moved, before


def _known(stands: Bool[np.ndarray, "T"], middle: int, reach: int) -> Bool[np.ndarray, "T"]:
    """Frames in which it is known how far a foot is to be moved: where it stands, and, not at all, beyond the blend."""
    known = stands | (np.abs(np.arange(len(stands)) - middle + 0.5) > reach + _SWING_FRAMES)
    known[[0, -1]] = True
    return known


def _turned_feet(
    some: Piece, meant: _Feet, profiles: Float[np.ndarray, "T 2"], known: Bool[np.ndarray, "T 2"], middle: int
) -> Piece:
    """The feet turned as meant; in the air they come back to their own ways."""
    rotations = some.rotations.clone()
    turns = some.posed[1]
    for foot, (ankle, knee) in enumerate(zip(_ANKLES, _KNEES, strict=True)):
        goal = _partly(meant, profiles, foot, middle) @ meant.turns[:, foot]
        off = matrix_to_axis_angle(goal @ turns[:, ankle].mT).numpy().astype(np.float64)
        more = torch.from_numpy(smooth(fill_gaps(off, known[:, foot]), _LEG_SMOOTH)).to(turns)
        rotations[:, ankle] = turns[:, knee].mT @ axis_angle_to_matrix(more) @ turns[:, ankle]
    return Piece(rotations, some.trans, some.betas, some.planted, some.confidence, some.body)


def _partly(meant: _Feet, profiles: Float[np.ndarray, "T 2"], foot: int, middle: int) -> Float[Tensor, "T 3 3"]:
    """What of its turn at the seam a foot is turned by, in the world."""
    jump = matrix_to_axis_angle(meant.turns[middle, foot] @ meant.expected_turns[foot].mT)
    return axis_angle_to_matrix(torch.from_numpy(profiles[:, foot, None]).to(jump) * jump)


def _wanted(
    some: Piece, meant: _Feet, profiles: Float[np.ndarray, "T 2"], stands: Bool[np.ndarray, "T 2"], middle: int
) -> Float[np.ndarray, "T 2 3"]:
    """How far each foot is to be moved where it stands, the mean of its points that touch the ground; else 0."""
    wanted = np.zeros((len(some), 2, 3))
    for foot, points in enumerate(_SIDES):
        touching = some.planted[:, points] | ~stands[:, foot, None]
        weight = touching / np.maximum(touching.sum(1, keepdims=True), 1)
        pivots = meant.expected_soles[points].mean(0), meant.soles[middle, points].mean(0)
        pivot = np.where((np.arange(len(some)) < middle)[:, None], pivots[0], pivots[1])
        turn = _partly(meant, profiles, foot, middle).numpy().astype(np.float64)
        lever = (turn[:, None] @ (meant.soles[:, points] - pivot[:, None])[..., None])[..., 0]
        goal = (pivot + profiles[:, foot, None] * (pivots[1] - pivots[0]))[:, None] + lever
        wanted[:, foot] = (weight[..., None] * (goal - some.soles[:, points])).sum(1)
    return np.where(stands[..., None], wanted, 0.0)
