"""The loss: where joints come out counts most, then orientation, picture, motion over the ground.

Without joint losses through forward kinematics small errors of many rotations add up unseen.
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
from stages.training.lifter.examples import Examples, Truth
from stages.training.lifter.settings import LossWeights

_LEAST_ERROR_M = 0.002
"""Errors are taken to be no smaller when they are to be expected: the pelvis' own, which is none, has no end otherwise."""
_LEAST_NOISE = 0.003
"""Likewise of keypoints, box sides."""
_FAR = [joint(f"{side}_{name}") for side in ("left", "right") for name in ("elbow", "wrist", "ankle")]
_HALF_SECOND, _SECOND = round(FPS / 2), round(FPS)


def losses(lifted: LifterOutput, examples: Examples, rigs: Rigs, weights: LossWeights) -> dict[str, Tensor]:
    """Each term, weighted, as its mean over the valid frames."""
    truth, boxes, valid = examples.truth, examples.boxes, examples.seen.valid
    said = make_bodies(lifted, rigs)
    both = valid[:, 1:] & valid[:, :-1]
    far = torch.ones(NUM_MEASURED, device=valid.device)
    far[_FAR] = weights.hands
    far = far / far.mean()

    def mean(value: Tensor, where: Bool[Tensor, "N S"] = valid) -> Tensor:
        return (value * where).sum() / where.sum().clamp(min=1)

    def apart(a: Tensor, b: Tensor) -> Tensor:
        return (a - b)[:, :, :NUM_MEASURED].square().sum(-1).add(1e-8).sqrt()

    in_camera = (said.joints @ said.root_camera.transpose(-1, -2), truth.joints @ truth.root_camera.transpose(-1, -2))
    # Each frame has a level world of its own; the truth tells how they lie in the one world.
    world_root = (truth.rotations[:, :, 0] @ truth.root_level.transpose(-1, -2)) @ said.root_level
    in_level = (said.joints @ world_root.transpose(-1, -2), truth.joints @ truth.rotations[:, :, 0].transpose(-1, -2))
    camera_error = apart(*in_camera)
    terms = {
        "rotation": mean((said.rotations - truth.rotations)[:, :, 1:22].square().sum((-1, -2)).mean(-1)),
        "root": mean(_turned(said.root_camera, truth.root_camera) + _turned(said.root_level, truth.root_level)),
        "joints_body": mean((apart(said.joints, truth.joints) * far).mean(-1)),
        "joints_camera": mean((camera_error * far).mean(-1)),
        "joints_level": mean((apart(*in_level) * far).mean(-1)),
        # The world's vertical in the pelvis' axes is the middle row.
        "tilt": mean(_distance(said.root_level[..., 1, :], truth.root_level[..., 1, :])),
        "vertical": mean(_distance(_vertical(said), _vertical(truth))),
    }

    half = boxes.size / 2
    pelvis = pelvis_in_camera(lifted.place, boxes.centre, boxes.size)
    points = said.keypoints @ said.root_camera.transpose(-1, -2) + pelvis[:, :, None]
    rays = points[..., :2] / points[..., 2:].clamp(min=0.2)
    terms["reprojection"] = mean(((rays - truth.rays) / half[..., None, None]).abs().clamp(max=2).mean((-1, -2)))
    true_depth = truth.pelvis_camera[..., 2].clamp(min=0.2)
    shift = (truth.pelvis_camera[..., :2] / true_depth[..., None] - boxes.centre) / half[..., None]
    place = torch.cat([shift.clamp(-3, 3), (true_depth * boxes.size).log()[..., None].clamp(-3, 3)], dim=-1)
    terms["place"] = mean((lifted.place - place).abs().sum(-1))

    terms["velocity"] = mean((lifted.velocity - truth.velocity).square().sum(-1).add(1e-4).sqrt())
    steps = [
        (yaw_matrix(heading_rad(root)) @ velocity[..., None])[..., 0] / FPS
        for root, velocity in ((world_root, lifted.velocity), (truth.rotations[:, :, 0], truth.velocity))
    ]
    gone = ((steps[0] - steps[1]) * valid[..., None]).cumsum(1)
    terms["path"] = sum(
        (
            mean((gone[:, n:] - gone[:, :-n]).norm(dim=-1), valid[:, n:] & valid[:, :-n])
            for n in (_HALF_SECOND, _SECOND)
        ),
        start=torch.zeros((), device=valid.device),
    )
    speeds = [(level[:, 1:] - level[:, :-1]) * FPS for level in in_level]
    terms["joint_velocity"] = mean(apart(*speeds).mean(-1), both)

    terms["contacts"] = mean(
        functional.binary_cross_entropy_with_logits(lifted.contacts, truth.contacts, reduction="none").mean(-1)
    )
    feet = said.contact_points @ world_root.transpose(-1, -2)
    slip = (feet[:, 1:] - feet[:, :-1] + steps[0][:, :-1, None]) * FPS
    planted = torch.minimum(truth.contacts[:, 1:], truth.contacts[:, :-1])
    terms["slide"] = mean((slip.square().sum(-1).add(1e-4).sqrt() * planted).mean(-1), both)
    terms["betas"] = (lifted.betas[:, 0] - truth.betas).square().mean()
    # Laplace's likelihood, of which the expected error is the maximum; unlike Gauss's it bears outliers.
    over = camera_error.detach().clamp(min=_LEAST_ERROR_M) * (-lifted.log_sigma).exp()
    terms["sigma"] = mean((over + lifted.log_sigma - math.log(0.1)).mean(-1))
    off = (examples.seen.rays - truth.rays).norm(dim=-1) / boxes.size[..., None]
    over = off.clamp(min=_LEAST_NOISE) * (-lifted.log_noise).exp()
    terms["noise"] = mean((over + lifted.log_noise - math.log(_LEAST_NOISE)).mean(-1))
    return {name: getattr(weights, name) * value for name, value in terms.items()}


def _turned(a: Tensor, b: Tensor) -> Tensor:
    return (a - b).square().sum((-1, -2))


def _distance(a: Float[Tensor, "N T 3"], b: Float[Tensor, "N T 3"]) -> Float[Tensor, "N T"]:
    return (a - b).square().sum(-1).add(1e-6).sqrt()


def _vertical(root: Bodies | Truth) -> Float[Tensor, "N T 3"]:
    """What is up for the camera."""
    return (root.root_camera @ root.root_level[..., 1, :, None])[..., 0]
