"""How well the lifter knows each joint: the inverse covariance of its errors, which refinement weighs its output with."""

import torch
from jaxtyping import Float
from torch import Tensor

from schemas.kinematics import forward_kinematics
from stages.recovery.lifter.bodies import make_bodies
from stages.recovery.lifter.network import LifterOutput
from stages.recovery.lifter.refine import NUM_TURNS, rotation_errors
from stages.recovery.lifter.rigs import Rigs
from stages.training.lifter.examples import Examples

_LEAST_RAD = 0.01
"""No joint is known better."""


@torch.no_grad()
def measure_errors(lifted: LifterOutput, examples: Examples, rigs: Rigs) -> Float[Tensor, "48 48"]:
    """Inverse covariance of what the lifter gets wrong: rotations of the turned joints about the camera's axes, radians."""
    said = make_bodies(lifted, rigs)
    rotations, truth = said.rotations.clone(), examples.truth.rotations.clone()
    rotations[:, :, 0], truth[:, :, 0] = said.root_camera, examples.truth.root_camera
    at_origin = torch.zeros(24, 3, device=rotations.device)
    _, turns = forward_kinematics(rotations, at_origin, torch.zeros_like(rotations[:, :, 0, 0]))
    errors = rotation_errors(rotations, truth, turns)[examples.seen.valid]
    covariance = errors.T @ errors / len(errors)
    return torch.linalg.inv(covariance + _LEAST_RAD**2 * torch.eye(NUM_TURNS, device=errors.device))
