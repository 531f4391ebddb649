"""Transfer of motions from one body shape to another."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from schemas.body_model import BodyModel
from schemas.kinematics import forward_kinematics, start_at_origin
from schemas.skeleton import joint
from stages.geometry.contacts import find_contacts, ground_height

_LEG = (joint("left_hip"), joint("left_ankle"))


def transfer(
    rotations: Float[Tensor, "T 24 3 3"],
    trans: Float[Tensor, "T 3"],
    source_betas: Float[Tensor, "10"],
    betas: Float[Tensor, "10"],
    body: BodyModel,
) -> tuple[Float[Tensor, "T 24 3 3"], Float[Tensor, "T 3"], Bool[Tensor, "T 4"]]:
    """Rotations, translation (metres) and contacts on the body with `betas`: from the origin, facing +Z, soles on the ground.

    The pelvis displacement is scaled by the ratio of leg lengths, so that planted feet stay planted.
    """
    source_rest, rest = body.rest_joints(source_betas), body.rest_joints(betas)
    pelvis = (trans + source_rest[0]) * (_leg_m(rest) / _leg_m(source_rest))
    rotations, trans, _ = start_at_origin(rotations, pelvis - rest[0], rest[0])
    joints, global_rotations = forward_kinematics(rotations, rest, trans)
    feet = body.contact_rig().points(global_rotations, joints, betas).numpy()
    ground_m = ground_height(feet)
    contacts = torch.as_tensor(find_contacts(feet, ground_m).astype(bool))
    return rotations, trans - torch.tensor([0.0, ground_m, 0.0]), contacts


def _leg_m(rest: Float[Tensor, "24 3"]) -> float:
    hip, ankle = _LEG
    return float(rest[hip, 1] - rest[ankle, 1])
