"""Foot planting: contacts from probabilities, the ground levelled by them, foot slides removed from root and legs."""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from schemas.body_model import BodyModel, PointRig
from schemas.curves import runs, smooth
from schemas.kinematics import forward_kinematics
from schemas.rotations import shortest_rotation
from schemas.skeleton import joint
from stages.geometry.contacts import MIN_FRAMES, ground_height, with_hysteresis

START_PROBABILITY, STOP_PROBABILITY = 0.6, 0.4
"""A contact starts above the first and stops below the second."""
_SLOPE_SIGMA = 0.04
"""Prior standard deviation of the ground slope: an error of two degrees in the vertical."""
_HEIGHT_SIGMA_M, _CORRELATED_FRAMES = 0.04, 200.0
"""Noise of the height of a contact point, and the number of frames that count as one observation: the error of a foot's
estimated tilt lasts as long as the stance, and must not tilt the world."""
_STANCE_SIGMA, _ROOT_SIGMA, _LEG_SIGMA = 10.0, 3.0, 1.0
"""Standard deviations of the Gaussian filters, frames."""
_LEGS = tuple(tuple(joint(f"{side}_{name}") for name in ("hip", "knee", "ankle")) for side in ("left", "right"))
_MAX_EXTENSION = 0.999
"""Largest extension of a leg, as a share of its length."""


@dataclass(frozen=True)
class PlantedFeet:
    """A motion without foot slides, T frames in its level world."""

    rotations: Float[Tensor, "T 24 3 3"]
    trans: Float[Tensor, "T 3"]
    ground_m: float


def find_planted(probability: Float[np.ndarray, "T 4"]) -> Bool[np.ndarray, "T 4"]:
    """Contacts from probabilities, with hysteresis (`stages.geometry.contacts.with_hysteresis`)."""
    return with_hysteresis(probability > START_PROBABILITY, probability > STOP_PROBABILITY)


def leveling_rotation(points: Float[np.ndarray, "T 4 3"], planted: Bool[np.ndarray, "T 4"]) -> Float[Tensor, "3 3"]:
    """The rotation that makes the ground under planted feet horizontal; near the identity where all contacts are in one place.

    Least-squares plane through the contact points, with a prior on its slope. The identity where the points lie in no plane
    (stairs, climbing, hands and knees).
    """
    contacts = points[planted].astype(np.float64)
    if len(contacts) < 10:
        return torch.eye(3)
    centre = contacts.mean(0)
    for _ in range(3):
        horizontal = contacts[:, [0, 2]] - centre[[0, 2]]
        height = contacts[:, 1] - centre[1]
        weight = 1 / (_CORRELATED_FRAMES * _HEIGHT_SIGMA_M**2)
        matrix = weight * horizontal.T @ horizontal + np.eye(2) / _SLOPE_SIGMA**2
        slope = np.linalg.solve(matrix, weight * horizontal.T @ height)
        residual = np.abs(height - horizontal @ slope)
        inliers = residual <= max(3 * float(np.median(residual)), _HEIGHT_SIGMA_M)
        if inliers.all() or inliers.sum() < 10:
            break
        contacts = contacts[inliers]
        centre = contacts.mean(0)
    if float(np.median(residual)) > _HEIGHT_SIGMA_M:
        return torch.eye(3)
    normal = torch.tensor([-slope[0], 1.0, -slope[1]], dtype=torch.float32)
    return shortest_rotation(normal, torch.tensor([0.0, 1.0, 0.0]))


def plant_feet(
    rotations: Float[Tensor, "T 24 3 3"],
    trans: Float[Tensor, "T 3"],
    betas: Float[Tensor, "10"],
    planted: Bool[np.ndarray, "T 4"],
    body: BodyModel,
    contact_rig: PointRig,
) -> PlantedFeet:
    """Fix every contact point to one place on the ground for its whole stance, by a slow correction of the root and leg IK for
    the rest; between stances the correction is interpolated. `planted` are left heel, left toe, right heel, right toe."""
    rest = body.rest_joints(betas)
    joints, global_rotations = forward_kinematics(rotations, rest, trans)
    points = contact_rig.points(global_rotations, joints, betas).numpy().astype(np.float64)
    heights = points[..., 1][planted]
    ground_m = float(np.median(heights)) if len(heights) >= MIN_FRAMES else ground_height(points)
    corrections, in_stance = _corrections(points, planted)
    if not in_stance.any():
        return PlantedFeet(rotations, trans, ground_m)
    root_correction = _root_correction(corrections, in_stance)
    leg_corrections = corrections - root_correction[:, None]
    for side in (0, 1):
        leg_corrections[:, side] = smooth(fill_gaps(leg_corrections[:, side], in_stance[:, side]), _LEG_SIGMA)
    corrected_trans = trans + torch.from_numpy(root_correction).to(trans)
    return PlantedFeet(solve_leg_ik(rotations, joints, global_rotations, leg_corrections), corrected_trans, ground_m)


def _corrections(
    points: Float[np.ndarray, "T 4 3"], planted: Bool[np.ndarray, "T 4"]
) -> tuple[Float[np.ndarray, "T 2 3"], Bool[np.ndarray, "T 2"]]:
    """Displacement of each foot to its stance position, mean over its contact points, and the frames in which it is in stance.

    The stance position is a smoothed path, not a constant: over a long stance a constant would move the error of the trajectory
    into the legs (3 mm of joint error on motion capture, for half a millimetre of slide).
    """
    total, count = np.zeros((len(points), 2, 3)), np.zeros((len(points), 2, 1))
    for point in range(4):
        for first, end in runs(planted[:, point]):
            positions = points[first:end, point]
            total[first:end, point // 2] += smooth(positions, _STANCE_SIGMA) - positions
            count[first:end, point // 2] += 1
    return total / np.maximum(count, 1), count[..., 0] > 0


def _root_correction(
    corrections: Float[np.ndarray, "T 2 3"], in_stance: Bool[np.ndarray, "T 2"]
) -> Float[np.ndarray, "T 3"]:
    """Mean correction of the feet in stance, interpolated between stances and smoothed."""
    weight = in_stance[..., None].astype(np.float64)
    mean = (corrections * weight).sum(1) / np.maximum(weight.sum(1), 1)
    return smooth(fill_gaps(mean, np.asarray(in_stance.any(1))), _ROOT_SIGMA)


def fill_gaps(values: Float[np.ndarray, "T 3"], known: Bool[np.ndarray, "T"]) -> Float[np.ndarray, "T 3"]:
    """Linear interpolation over unknown values, constant beyond the first and last known one."""
    frames = np.arange(len(values))
    if not known.any():
        return np.zeros_like(values)
    return np.stack([np.interp(frames, frames[known], values[known, axis]) for axis in range(3)], axis=-1)


def solve_leg_ik(
    rotations: Float[Tensor, "T 24 3 3"],
    joints: Float[Tensor, "T 24 3"],
    global_rotations: Float[Tensor, "T 24 3 3"],
    shift: Float[np.ndarray, "T 2 3"],
) -> Float[Tensor, "T 24 3 3"]:
    """Two-bone inverse kinematics: ankles displaced by `shift`, knees bent in their current plane, global foot rotations kept."""
    rotations = rotations.clone()
    for side, (hip, knee, ankle) in enumerate(_LEGS):
        hip_xyz, knee_xyz, ankle_xyz = joints[:, hip], joints[:, knee], joints[:, ankle]
        target = ankle_xyz + torch.from_numpy(shift[:, side]).to(ankle_xyz)
        thigh, shin = (knee_xyz - hip_xyz).norm(dim=-1), (ankle_xyz - knee_xyz).norm(dim=-1)
        hip_to_target = target - hip_xyz
        distance = hip_to_target.norm(dim=-1)
        extension = torch.minimum(distance, _MAX_EXTENSION * (thigh + shin)).clamp(min=1e-3)
        # A leg that is already straighter than the limit keeps its extension.
        extension = torch.maximum(extension, torch.minimum(distance, (ankle_xyz - hip_xyz).norm(dim=-1)))
        direction = hip_to_target / distance.clamp(min=1e-6)[:, None]
        cosine = ((thigh**2 + extension**2 - shin**2) / (2 * thigh * extension)).clamp(-1, 1)
        pole = knee_xyz - hip_xyz
        pole = pole - (pole * direction).sum(-1, keepdim=True) * direction
        pole = torch.nn.functional.normalize(pole, dim=-1)
        new_knee_xyz = hip_xyz + thigh[:, None] * (
            cosine[:, None] * direction + (1 - cosine**2).clamp(min=0).sqrt()[:, None] * pole
        )
        new_ankle_xyz = hip_xyz + extension[:, None] * direction
        hip_rotation = shortest_rotation(knee_xyz - hip_xyz, new_knee_xyz - hip_xyz) @ global_rotations[:, hip]
        knee_rotation = shortest_rotation(
            _rotate_along(hip_rotation, global_rotations[:, hip], ankle_xyz - knee_xyz), new_ankle_xyz - new_knee_xyz
        )
        knee_rotation = knee_rotation @ hip_rotation @ global_rotations[:, hip].mT @ global_rotations[:, knee]
        pelvis_rotation = global_rotations[:, 0]
        rotations[:, hip] = pelvis_rotation.mT @ hip_rotation
        rotations[:, knee] = hip_rotation.mT @ knee_rotation
        rotations[:, ankle] = knee_rotation.mT @ global_rotations[:, ankle]
    return rotations


def _rotate_along(after: Tensor, before: Tensor, vector: Float[Tensor, "T 3"]) -> Float[Tensor, "T 3"]:
    """A vector that moves rigidly with a joint, after the joint's rotation changes."""
    return (after @ before.mT @ vector[..., None])[..., 0]
