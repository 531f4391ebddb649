"""Conversion of the lifter's output to bodies: rotations, joints, keypoints and contact points."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from schemas.kinematics import forward_kinematics
from schemas.rotations import matrix_from_6d
from stages.recovery.lifter.network import NUM_POSED, LifterOutput
from stages.recovery.lifter.rigs import Rigs

NUM_MEASURED = 22
"""Joints without the hands, which are not recovered."""


@dataclass(frozen=True)
class Bodies:
    """The network's output as posed bodies. Points are relative to the pelvis, in its axes."""

    rotations: Float[Tensor, "N T 24 3 3"]
    """Local; the root's is the identity."""
    root_camera: Float[Tensor, "N T 3 3"]
    root_level: Float[Tensor, "N T 3 3"]
    joints: Float[Tensor, "N T 24 3"]
    keypoints: Float[Tensor, "N T 17 3"]
    contact_points: Float[Tensor, "N T 4 3"]


def make_bodies(output: LifterOutput, rigs: Rigs) -> Bodies:
    """Orthonormal rotations, joints and points; one shape per window."""
    posed = matrix_from_6d(output.pose.unflatten(-1, (NUM_POSED, 6)))
    identity = torch.eye(3, device=posed.device).expand(*posed.shape[:2], 1, 3, 3)
    rotations = torch.cat([identity, posed, identity, identity], dim=2)
    betas = output.betas[:, :1]
    rest = rigs.body.rest_joints(betas)
    joints, global_rotations = forward_kinematics(rotations, rest, -rest[..., 0, :].expand(*posed.shape[:2], 3))
    return Bodies(
        rotations=rotations,
        root_camera=matrix_from_6d(output.root_camera),
        root_level=matrix_from_6d(output.root_level),
        joints=joints,
        keypoints=rigs.keypoints.points(global_rotations, joints, betas),
        contact_points=rigs.contacts.points(global_rotations, joints, betas),
    )


def pelvis_in_camera(
    place: Float[Tensor, "N T 3"], centre: Float[Tensor, "N T 2"], size: Float[Tensor, "N T"]
) -> Float[Tensor, "N T 3"]:
    """The network's pelvis position (`LifterOutput.place`) in metres."""
    depth = place[..., 2].clamp(-3, 3).exp() / size
    ray = centre + place[..., :2] * (size / 2)[..., None]
    return torch.cat([ray, torch.ones_like(depth)[..., None]], dim=-1) * depth[..., None]
