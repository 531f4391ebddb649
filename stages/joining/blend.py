"""Blend two motions at a seam: both sides absorb half of the discontinuity, fading with the distance from the seam.

Two-sided inertialization (Bollo, "Inertialization: High-Performance Animation Transitions in Gears of War", 2018): half a
frame after the first motion's last frame, both motions meet at the mean of their poses and of their velocities, along the
cubic curves of least mean acceleration. Feet are handled separately: a foot planted across the seam stays in place, and the
correction goes into the nearer swing before or after.
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
"""A foot planted longer than this on both sides of a seam drifts to its new position while planted."""
_SWING_FRAMES = 12
"""Frames in which a swinging foot returns to its original trajectory."""
_ROOT_SMOOTH, _LEG_SMOOTH = 3.0, 1.0
"""Gaussian sigmas, frames."""
_FOOT_POINTS = (slice(0, 2), slice(2, 4))
"""Contact points of the left and the right foot."""
_ANKLES, _KNEES = ((joint(f"left_{name}"), joint(f"right_{name}")) for name in ("ankle", "knee"))


def join(before: Piece, after: Piece, seam: Seam, fade_frames: int) -> Piece:
    """The first motion up to the seam, then the second, blended over `fade_frames` on either side.

    Both are on the same body. The result is in the world of the first.
    """
    placed = after.transformed(seam.yaw_rad, seam.shift_m)
    kept, appended = before.between(0, seam.last + 1), placed.between(seam.first, len(placed))
    rotations, trans = _inertialized(before, placed, seam, fade_frames)
    planted = np.concatenate([kept.planted, appended.planted])
    confidence = np.concatenate([kept.confidence, appended.confidence])
    seen = np.concatenate([kept.seen, appended.seen])
    blended = Piece(rotations, trans, before.betas, planted, confidence, seen, before.body)
    return _restore_feet(blended, _Feet.of(before, placed, seam), len(kept), fade_frames)


def _inertialized(
    before: Piece, after: Piece, seam: Seam, frames: int
) -> tuple[Float[Tensor, "T 24 3 3"], Float[Tensor, "T 3"]]:
    """Rotations and translations with the discontinuity at the seam faded out."""
    a, b = seam.last, seam.first
    # Extrapolate both motions to the middle between the two frames of the seam.
    next_a, previous_b = min(a + 1, len(before) - 1), max(b - 1, 0)
    velocity_a, velocity_b = before.trans[next_a] - before.trans[a], after.trans[b] - after.trans[previous_b]
    spin_a = _rotation_between(before.rotations, a, next_a)
    spin_b = _rotation_between(after.rotations, previous_b, b)
    offset = (before.trans[a] + velocity_a / 2) - (after.trans[b] - velocity_b / 2)
    middle_a = before.rotations[a] @ axis_angle_to_matrix(spin_a / 2)
    middle_b = after.rotations[b] @ axis_angle_to_matrix(-spin_b / 2)
    rotation_offset = matrix_to_axis_angle(middle_b.mT @ middle_a)
    frames_a = min(frames, a + 1)
    frames_b = min(frames, len(after) - b)
    offset_weight_a, velocity_weight_a = _fade(frames_a)
    offset_weight_b, velocity_weight_b = _fade(frames_b)
    # Before the seam time runs backwards: the offset changes its sign, and the velocity difference changes it twice.
    rotate_a = -offset_weight_a[:, None, None] * rotation_offset + velocity_weight_a[:, None, None] * (spin_a - spin_b)
    rotate_b = offset_weight_b[:, None, None] * rotation_offset + velocity_weight_b[:, None, None] * (spin_a - spin_b)
    move_a = -offset_weight_a[:, None] * offset + velocity_weight_a[:, None] * (velocity_a - velocity_b)
    move_b = offset_weight_b[:, None] * offset + velocity_weight_b[:, None] * (velocity_a - velocity_b)
    rotations = torch.cat([before.rotations[: a + 1], after.rotations[b:]])
    trans = torch.cat([before.trans[: a + 1], after.trans[b:]])
    first, middle, end = a + 1 - frames_a, a + 1, a + 1 + frames_b
    rotations[first:middle] = rotations[first:middle] @ axis_angle_to_matrix(rotate_a.flip(0) / 2)
    rotations[middle:end] = rotations[middle:end] @ axis_angle_to_matrix(rotate_b / 2)
    trans[first:middle] += move_a.flip(0) / 2
    trans[middle:end] += move_b / 2
    return rotations, trans


def _fade(frames: int) -> tuple[Float[Tensor, "N"], Float[Tensor, "N"]]:
    """Weights of an offset and of a velocity difference at 0.5, 1.5, ... frames from the seam: the cubics with value and
    slope (1, 0) and (0, 1) at the seam, and (0, 0) at the end."""
    s = (torch.arange(frames) + 0.5) / max(frames, 1)
    return 1 - 3 * s**2 + 2 * s**3, frames * s * (1 - s) ** 2


def _rotation_between(rotations: Float[Tensor, "T 24 3 3"], first: int, last: int) -> Float[Tensor, "24 3"]:
    """Rotation vectors from one frame to another, in the joints' own axes."""
    return matrix_to_axis_angle(rotations[first].mT @ rotations[last])


def _restore_feet(blended: Piece, target: "_Feet", seam: int, fade_frames: int) -> Piece:
    """The blended motion with planted feet as before the blend, or fixed across the seam."""
    first, end = max(0, seam - _HOLD_FRAMES - _SWING_FRAMES), min(len(blended), seam + _HOLD_FRAMES + _SWING_FRAMES)
    window, target, seam = blended.between(first, end), target.between(first, end), seam - first
    planted = np.stack([window.planted[:, points].any(1) for points in _FOOT_POINTS], axis=1)
    if not planted.any():
        return blended
    holds = [_hold_profile(planted[:, foot], seam) for foot in (0, 1)]
    fixed = np.stack([_fixed(planted[:, foot], seam, max(fade_frames, holds[foot][1])) for foot in (0, 1)], axis=1)
    profiles = np.stack([profile for profile, _ in holds], axis=1)
    window = _rotate_feet(window, target, profiles, fixed, seam)
    shifts = _foot_shifts(window, target, profiles, fixed & planted, seam)
    weight = planted[..., None].astype(np.float64)
    mean_shift = (shifts * weight).sum(1) / np.maximum(weight.sum(1), 1)
    root = smooth(fill_gaps(mean_shift, np.asarray(planted.any(1) | fixed.all(1))), _ROOT_SMOOTH)
    legs = np.stack([smooth(fill_gaps(shifts[:, foot], fixed[:, foot]), _LEG_SMOOTH) for foot in (0, 1)], axis=1)
    joints, global_rotations = window.fk
    rotations, trans = blended.rotations.clone(), blended.trans.clone()
    rotations[first:end] = solve_leg_ik(window.rotations, joints, global_rotations, legs - root[:, None])
    trans[first:end] += torch.from_numpy(root).to(trans)
    return Piece(rotations, trans, blended.betas, blended.planted, blended.confidence, blended.seen, blended.body)


@dataclass(frozen=True, eq=False)
class _Feet:
    """World positions of the contact points and global rotations of the feet before a blend, and those extrapolated from
    the first motion to the first frame after the seam."""

    soles: Float[np.ndarray, "T 4 3"]
    rotations: Float[Tensor, "T 2 3 3"]
    extrapolated_soles: Float[np.ndarray, "4 3"]
    extrapolated_rotations: Float[Tensor, "2 3 3"]

    @classmethod
    def of(cls, before: Piece, after: Piece, seam: Seam) -> "_Feet":
        kept, appended, following = (
            slice(0, seam.last + 1),
            slice(seam.first, None),
            min(seam.last + 1, len(before) - 1),
        )
        rotations_a, rotations_b = (piece.fk[1][:, list(_ANKLES)] for piece in (before, after))
        return cls(
            np.concatenate([before.soles[kept], after.soles[appended]]),
            torch.cat([rotations_a[kept], rotations_b[appended]]),
            before.soles[following],
            rotations_a[following],
        )

    def between(self, first: int, end: int) -> "_Feet":
        return replace(self, soles=self.soles[first:end], rotations=self.rotations[first:end])


def _hold_profile(planted: Bool[np.ndarray, "T"], seam: int) -> tuple[Float[np.ndarray, "T"], int]:
    """Share of its jump at the seam by which a foot is shifted to stay in place, and how many frames from the seam this
    extends. A short stance is held to its end; a long one drifts to the new position."""
    profile = np.zeros(len(planted))
    if not (0 < seam < len(planted) and planted[seam - 1] and planted[seam]):
        return profile, 0
    before = int(np.argmin(planted[:seam][::-1])) if not planted[:seam].all() else len(planted)
    after = int(np.argmin(planted[seam:])) if not planted[seam:].all() else len(planted)
    if min(before, after) > _HOLD_FRAMES:
        s = ((np.arange(len(planted)) - seam + 0.5) / _HOLD_FRAMES).clip(-1, 1)
        remaining = (1 - 3 * s**2 + 2 * np.abs(s) ** 3) / 2
        return np.where(s < 0, remaining, -remaining), _HOLD_FRAMES
    if after <= before:
        profile[seam : seam + after] = -1.0
        return profile, after
    profile[seam - before : seam] = 1.0
    return profile, before


def _fixed(planted: Bool[np.ndarray, "T"], seam: int, extent: int) -> Bool[np.ndarray, "T"]:
    """Frames in which a foot's shift is determined: where it is planted, and beyond the blend, where the shift is 0."""
    fixed = planted | (np.abs(np.arange(len(planted)) - seam + 0.5) > extent + _SWING_FRAMES)
    fixed[[0, -1]] = True
    return fixed


def _rotate_feet(
    window: Piece, target: _Feet, profiles: Float[np.ndarray, "T 2"], fixed: Bool[np.ndarray, "T 2"], seam: int
) -> Piece:
    """Planted feet rotated to their target orientation; swinging feet return to their original trajectory."""
    rotations = window.rotations.clone()
    global_rotations = window.fk[1]
    for foot, (ankle, knee) in enumerate(zip(_ANKLES, _KNEES, strict=True)):
        goal = _partial_jump(target, profiles, foot, seam) @ target.rotations[:, foot]
        error = matrix_to_axis_angle(goal @ global_rotations[:, ankle].mT).numpy().astype(np.float64)
        correction = torch.from_numpy(smooth(fill_gaps(error, fixed[:, foot]), _LEG_SMOOTH)).to(global_rotations)
        rotations[:, ankle] = (
            global_rotations[:, knee].mT @ axis_angle_to_matrix(correction) @ global_rotations[:, ankle]
        )
    return Piece(rotations, window.trans, window.betas, window.planted, window.confidence, window.seen, window.body)


def _partial_jump(target: _Feet, profiles: Float[np.ndarray, "T 2"], foot: int, seam: int) -> Float[Tensor, "T 3 3"]:
    """World rotation of a foot by its profile's share of the rotation jump at the seam."""
    jump = matrix_to_axis_angle(target.rotations[seam, foot] @ target.extrapolated_rotations[foot].mT)
    return axis_angle_to_matrix(torch.from_numpy(profiles[:, foot, None]).to(jump) * jump)


def _foot_shifts(
    window: Piece, target: _Feet, profiles: Float[np.ndarray, "T 2"], planted: Bool[np.ndarray, "T 2"], seam: int
) -> Float[np.ndarray, "T 2 3"]:
    """Displacement of each planted foot to its target, mean over its points in contact; 0 elsewhere."""
    shifts = np.zeros((len(window), 2, 3))
    for foot, points in enumerate(_FOOT_POINTS):
        contact = window.planted[:, points] | ~planted[:, foot, None]
        weight = contact / np.maximum(contact.sum(1, keepdims=True), 1)
        pivots = target.extrapolated_soles[points].mean(0), target.soles[seam, points].mean(0)
        pivot = np.where((np.arange(len(window)) < seam)[:, None], pivots[0], pivots[1])
        rotation = _partial_jump(target, profiles, foot, seam).numpy().astype(np.float64)
        lever = (rotation[:, None] @ (target.soles[:, points] - pivot[:, None])[..., None])[..., 0]
        goal = (pivot + profiles[:, foot, None] * (pivots[1] - pivots[0]))[:, None] + lever
        shifts[:, foot] = (weight[..., None] * (goal - window.soles[:, points])).sum(1)
    return np.where(planted[..., None], shifts, 0.0)
