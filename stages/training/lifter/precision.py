"""Precision matrix of the lifter's joint errors, with which refinement weights its output."""

import torch
from jaxtyping import Float
from torch import Tensor

from schemas.kinematics import forward_kinematics
from stages.recovery.lifter.bodies import make_bodies
from stages.recovery.lifter.network import LifterOutput
from stages.recovery.lifter.refine import NUM_ROTATION_PARAMETERS, rotation_errors
from stages.recovery.lifter.rigs import Rigs
from stages.training.lifter.examples import Examples

_MIN_DEVIATION_RAD = 0.01
"""Lower bound of the standard deviation of each joint's error."""


@torch.no_grad()
def error_precision(output: LifterOutput, examples: Examples, rigs: Rigs) -> Float[Tensor, "48 48"]:
    """Inverse covariance of the errors of the refined joints' rotations, about the camera's axes, radians."""
    predicted = make_bodies(output, rigs)
    rotations, target = predicted.rotations.clone(), examples.targets.rotations.clone()
    rotations[:, :, 0], target[:, :, 0] = predicted.root_camera, examples.targets.root_camera
    at_origin = torch.zeros(24, 3, device=rotations.device)
    _, global_rotations = forward_kinematics(rotations, at_origin, torch.zeros_like(rotations[:, :, 0, 0]))
    errors = rotation_errors(rotations, target, global_rotations)[examples.observation.valid]
    covariance = errors.T @ errors / len(errors)
    return torch.linalg.inv(
        covariance + _MIN_DEVIATION_RAD**2 * torch.eye(NUM_ROTATION_PARAMETERS, device=errors.device)
    )
