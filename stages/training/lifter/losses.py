"""The lifter's loss: joint positions weigh most, then orientation, reprojection and motion over the ground.

Without joint losses through forward kinematics, small errors of many rotations accumulate unpenalised.
"""

import math

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional

from schemas.records import FPS
from schemas.rotations import heading_rad, yaw_matrix
from schemas.skeleton import joint
from stages.recovery.lifter.bodies import NUM_MEASURED, Bodies, make_bodies, pelvis_in_camera
from stages.recovery.lifter.network import LifterOutput
from stages.recovery.lifter.rigs import Rigs
from stages.training.lifter.examples import Examples, Targets
from stages.training.lifter.settings import LossWeights

_MIN_ERROR_M = 0.002
"""Lower bound of the errors in their likelihood, which is unbounded otherwise: the pelvis' own error is zero."""
_MIN_NOISE = 0.003
"""The same for keypoints, box sides."""
_LIMBS = [joint(f"{side}_{name}") for side in ("left", "right") for name in ("elbow", "wrist", "ankle")]
_HALF_SECOND, _SECOND = round(FPS / 2), round(FPS)


def losses(output: LifterOutput, examples: Examples, rigs: Rigs, weights: LossWeights) -> dict[str, Tensor]:
    """Each term, weighted, as its mean over the valid frames."""
    targets, boxes, valid = examples.targets, examples.boxes, examples.observation.valid
    predicted = make_bodies(output, rigs)
    valid_pairs = valid[:, 1:] & valid[:, :-1]
    joint_weights = torch.ones(NUM_MEASURED, device=valid.device)
    joint_weights[_LIMBS] = weights.hands
    joint_weights = joint_weights / joint_weights.mean()

    def mean(value: Tensor, where: Bool[Tensor, "N S"] = valid) -> Tensor:
        return (value * where).sum() / where.sum().clamp(min=1)

    def joint_distance(a: Tensor, b: Tensor) -> Tensor:
        return (a - b)[:, :, :NUM_MEASURED].square().sum(-1).add(1e-8).sqrt()

    in_camera = (
        predicted.joints @ predicted.root_camera.transpose(-1, -2),
        targets.joints @ targets.root_camera.transpose(-1, -2),
    )
    # Each frame has its own level world; the targets give its rotation to the common world.
    world_root = (targets.rotations[:, :, 0] @ targets.root_level.transpose(-1, -2)) @ predicted.root_level
    in_world = (
        predicted.joints @ world_root.transpose(-1, -2),
        targets.joints @ targets.rotations[:, :, 0].transpose(-1, -2),
    )
    camera_error = joint_distance(*in_camera)
    terms = {
        "rotation": mean((predicted.rotations - targets.rotations)[:, :, 1:22].square().sum((-1, -2)).mean(-1)),
        "root": mean(
            _squared_distance(predicted.root_camera, targets.root_camera)
            + _squared_distance(predicted.root_level, targets.root_level)
        ),
        "joints_body": mean((joint_distance(predicted.joints, targets.joints) * joint_weights).mean(-1)),
        "joints_camera": mean((camera_error * joint_weights).mean(-1)),
        "joints_level": mean((joint_distance(*in_world) * joint_weights).mean(-1)),
        # The world's vertical in the pelvis' axes is the middle row.
        "tilt": mean(_distance(predicted.root_level[..., 1, :], targets.root_level[..., 1, :])),
        "vertical": mean(_distance(_vertical(predicted), _vertical(targets))),
    }

    half = boxes.size / 2
    pelvis = pelvis_in_camera(output.place, boxes.centre, boxes.size)
    points = predicted.keypoints @ predicted.root_camera.transpose(-1, -2) + pelvis[:, :, None]
    rays = points[..., :2] / points[..., 2:].clamp(min=0.2)
    terms["reprojection"] = mean(((rays - targets.rays) / half[..., None, None]).abs().clamp(max=2).mean((-1, -2)))
    target_depth = targets.pelvis_camera[..., 2].clamp(min=0.2)
    offset = (targets.pelvis_camera[..., :2] / target_depth[..., None] - boxes.centre) / half[..., None]
    place = torch.cat([offset.clamp(-3, 3), (target_depth * boxes.size).log()[..., None].clamp(-3, 3)], dim=-1)
    terms["place"] = mean((output.place - place).abs().sum(-1))

    terms["velocity"] = mean((output.velocity - targets.velocity).square().sum(-1).add(1e-4).sqrt())
    steps = [
        (yaw_matrix(heading_rad(root)) @ velocity[..., None])[..., 0] / FPS
        for root, velocity in ((world_root, output.velocity), (targets.rotations[:, :, 0], targets.velocity))
    ]
    path_error = ((steps[0] - steps[1]) * valid[..., None]).cumsum(1)
    terms["path"] = sum(
        (
            mean((path_error[:, n:] - path_error[:, :-n]).norm(dim=-1), valid[:, n:] & valid[:, :-n])
            for n in (_HALF_SECOND, _SECOND)
        ),
        start=torch.zeros((), device=valid.device),
    )
    velocities = [(joints[:, 1:] - joints[:, :-1]) * FPS for joints in in_world]
    terms["joint_velocity"] = mean(joint_distance(*velocities).mean(-1), valid_pairs)

    terms["contacts"] = mean(
        functional.binary_cross_entropy_with_logits(output.contacts, targets.contacts, reduction="none").mean(-1)
    )
    feet = predicted.contact_points @ world_root.transpose(-1, -2)
    foot_velocity = (feet[:, 1:] - feet[:, :-1] + steps[0][:, :-1, None]) * FPS
    planted = torch.minimum(targets.contacts[:, 1:], targets.contacts[:, :-1])
    terms["slide"] = mean((foot_velocity.square().sum(-1).add(1e-4).sqrt() * planted).mean(-1), valid_pairs)
    terms["betas"] = (output.betas[:, 0] - targets.betas).square().mean()
    # Laplace likelihood: its maximum is at the expected error, and unlike a Gaussian it tolerates outliers.
    ratio = camera_error.detach().clamp(min=_MIN_ERROR_M) * (-output.log_sigma).exp()
    terms["sigma"] = mean((ratio + output.log_sigma - math.log(0.1)).mean(-1))
    keypoint_error = (examples.observation.rays - targets.rays).norm(dim=-1) / boxes.size[..., None]
    ratio = keypoint_error.clamp(min=_MIN_NOISE) * (-output.log_noise).exp()
    terms["noise"] = mean((ratio + output.log_noise - math.log(_MIN_NOISE)).mean(-1))
    return {name: getattr(weights, name) * value for name, value in terms.items()}


def _squared_distance(a: Tensor, b: Tensor) -> Tensor:
    return (a - b).square().sum((-1, -2))


def _distance(a: Float[Tensor, "N T 3"], b: Float[Tensor, "N T 3"]) -> Float[Tensor, "N T"]:
    return (a - b).square().sum(-1).add(1e-6).sqrt()


def _vertical(root: Bodies | Targets) -> Float[Tensor, "N T 3"]:
    """The up direction in camera axes."""
    return (root.root_camera @ root.root_level[..., 1, :, None])[..., 0]
