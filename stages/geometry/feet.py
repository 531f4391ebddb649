"""Feet that stand, stand: contacts from their chances, the world levelled by them, what slides taken off root and legs."""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from schemas.body_model import BodyModel, PointRig
from schemas.curves import runs, smooth
from schemas.kinematics import forward_kinematics
from schemas.rotations import shortest_turn
from schemas.skeleton import joint
from stages.geometry.contacts import MIN_FRAMES, ground_height, with_hysteresis

START_CHANCE, STOP_CHANCE = 0.6, 0.4
"""A point takes hold of the ground above the first and lets go below the second."""
_SLOPE = 0.04
"""Deviation of the ground's slope before anything is seen: two degrees of a wrong idea of the vertical."""
_HEIGHT_M, _CORRELATED = 0.04, 200.0
"""Noise of a standing point's height, and how many frames of it count as one: a foot that is said to be tipped stays so as long
as it stands, and must not tip the world."""
_STAND_SMOOTH, _ROOT_SMOOTH, _LEG_SMOOTH = 10.0, 3.0, 1.0
"""Frames."""
_LEGS = tuple(tuple(joint(f"{side}_{name}") for name in ("hip", "knee", "ankle")) for side in ("left", "right"))
_REACH = 0.999
"""Share of a leg's length that it is stretched to at most."""


@dataclass(frozen=True)
class PlantedFeet:
    """A motion whose feet keep their places, T frames in its level world."""

    rotations: Float[Tensor, "T 24 3 3"]
    trans: Float[Tensor, "T 3"]
    ground_m: float


def find_planted(chance: Float[np.ndarray, "T 4"]) -> Bool[np.ndarray, "T 4"]:
    """Contacts from chances, with hysteresis (`stages.geometry.contacts.with_hysteresis`)."""
    return with_hysteresis(chance > START_CHANCE, chance > STOP_CHANCE)


def leveling_rotation(points: Float[np.ndarray, "T 4 3"], planted: Bool[np.ndarray, "T 4"]) -> Float[Tensor, "3 3"]:
    """The rotation after which the ground that feet stood on is level; near the identity where they stood in one place.

    Least squares for a plane through the standing points, with a prior on its slope. Where they are in no plane (stairs,
    a climb, hands and knees) nothing is turned.
    """
    chosen = points[planted].astype(np.float64)
    if len(chosen) < 10:
        return torch.eye(3)
    middle = chosen.mean(0)
    for _ in range(3):
        across = chosen[:, [0, 2]] - middle[[0, 2]]
        height = chosen[:, 1] - middle[1]
        weight = 1 / (_CORRELATED * _HEIGHT_M**2)
        matrix = weight * across.T @ across + np.eye(2) / _SLOPE**2
        slope = np.linalg.solve(matrix, weight * across.T @ height)
        off = np.abs(height - across @ slope)
        kept = off <= max(3 * float(np.median(off)), _HEIGHT_M)
        if kept.all() or kept.sum() < 10:
            break
        chosen = chosen[kept]
        middle = chosen.mean(0)
    if float(np.median(off)) > _HEIGHT_M:
        return torch.eye(3)
    normal = torch.tensor([-slope[0], 1.0, -slope[1]], dtype=torch.float32)
    return shortest_turn(normal, torch.tensor([0.0, 1.0, 0.0]))


def plant_feet(
    rotations: Float[Tensor, "T 24 3 3"],
    trans: Float[Tensor, "T 3"],
    betas: Float[Tensor, "10"],
    planted: Bool[np.ndarray, "T 4"],
    body: BodyModel,
    contact_rig: PointRig,
) -> PlantedFeet:
    """Every standing point at one place of the ground for as long as it stands, by moving the root slowly and bending the
    legs for the rest; in between the correction goes over from one stand to the next. `planted` are left heel, left toe,
    right heel, right toe.
    """
    rest = body.rest_joints(betas)
    joints, turns = forward_kinematics(rotations, rest, trans)
    points = contact_rig.points(turns, joints, betas).numpy().astype(np.float64)
    heights = points[..., 1][planted]
    ground = float(np.median(heights)) if len(heights) >= MIN_FRAMES else ground_height(points)
    wanted, stands = _corrections(points, planted)
    if not stands.any():
        return PlantedFeet(rotations, trans, ground)
    root = _root_correction(wanted, stands)
    legs = wanted - root[:, None]
    for side in (0, 1):
        legs[:, side] = smooth(fill_gaps(legs[:, side], stands[:, side]), _LEG_SMOOTH)
    moved = trans + torch.from_numpy(root).to(trans)
    return PlantedFeet(solve_leg_ik(rotations, joints, turns, legs), moved, ground)


def _corrections(
    points: Float[np.ndarray, "T 4 3"], planted: Bool[np.ndarray, "T 4"]
) -> tuple[Float[np.ndarray, "T 2 3"], Bool[np.ndarray, "T 2"]]:
    """How far each foot is from where it stands, mean of its standing points, and in which frames it stands.

    Where a point stands is smoothed over, not held: held over a long stand it would carry the path's error into the legs
    (3 mm of joint error on motion capture, for half a millimetre of slide).
    """
    total, count = np.zeros((len(points), 2, 3)), np.zeros((len(points), 2, 1))
    for point in range(4):
        for first, end in runs(planted[:, point]):
            seen = points[first:end, point]
            total[first:end, point // 2] += smooth(seen, _STAND_SMOOTH) - seen
            count[first:end, point // 2] += 1
    return total / np.maximum(count, 1), count[..., 0] > 0


def _root_correction(wanted: Float[np.ndarray, "T 2 3"], stands: Bool[np.ndarray, "T 2"]) -> Float[np.ndarray, "T 3"]:
    weight = stands[..., None].astype(np.float64)
    both = (wanted * weight).sum(1) / np.maximum(weight.sum(1), 1)
    return smooth(fill_gaps(both, np.asarray(stands.any(1))), _ROOT_SMOOTH)


def fill_gaps(values: Float[np.ndarray, "T 3"], known: Bool[np.ndarray, "T"]) -> Float[np.ndarray, "T 3"]:
    """Straight lines over what is not known, held at the ends."""
    frames = np.arange(len(values))
    if not known.any():
        return np.zeros_like(values)
    return np.stack([np.interp(frames, frames[known], values[known, axis]) for axis in range(3)], axis=-1)


def solve_leg_ik(
    rotations: Float[Tensor, "T 24 3 3"],
    joints: Float[Tensor, "T 24 3"],
    turns: Float[Tensor, "T 24 3 3"],
    shift: Float[np.ndarray, "T 2 3"],
) -> Float[Tensor, "T 24 3 3"]:
    """Two-bone inverse kinematics: ankles moved by `shift`, knees bent in the plane they bend in, feet turned as they were."""
    rotations = rotations.clone()
    for side, (hip, knee, ankle) in enumerate(_LEGS):
        top, middle, end = joints[:, hip], joints[:, knee], joints[:, ankle]
        target = end + torch.from_numpy(shift[:, side]).to(end)
        thigh, shin = (middle - top).norm(dim=-1), (end - middle).norm(dim=-1)
        way = target - top
        length = way.norm(dim=-1)
        reach = torch.minimum(length, _REACH * (thigh + shin)).clamp(min=1e-3)
        # A leg that is already straighter than the limit stays as straight as it is.
        reach = torch.maximum(reach, torch.minimum(length, (end - top).norm(dim=-1)))
        along = way / length.clamp(min=1e-6)[:, None]
        cosine = ((thigh**2 + reach**2 - shin**2) / (2 * thigh * reach)).clamp(-1, 1)
        pole = middle - top
        pole = pole - (pole * along).sum(-1, keepdim=True) * along
        pole = torch.nn.functional.normalize(pole, dim=-1)
        bent = top + thigh[:, None] * (cosine[:, None] * along + (1 - cosine**2).clamp(min=0).sqrt()[:, None] * pole)
        foot = top + reach[:, None] * along
        hip_turn = shortest_turn(middle - top, bent - top) @ turns[:, hip]
        knee_turn = shortest_turn(_carried(hip_turn, turns[:, hip], end - middle), foot - bent)
        knee_turn = knee_turn @ hip_turn @ turns[:, hip].mT @ turns[:, knee]
        pelvis = turns[:, 0]
        rotations[:, hip] = pelvis.mT @ hip_turn
        rotations[:, knee] = hip_turn.mT @ knee_turn
        rotations[:, ankle] = knee_turn.mT @ turns[:, ankle]
    return rotations


def _carried(turned: Tensor, before: Tensor, vector: Float[Tensor, "T 3"]) -> Float[Tensor, "T 3"]:
    return (turned @ before.mT @ vector[..., None])[..., 0]
