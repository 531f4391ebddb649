"""Where the ground is under a generated motion."""

import torch
from jaxtyping import Float
from torch import Tensor

from schemas.body_model import BodyModel
from schemas.kinematics import forward_kinematics
from schemas.records import FPS
from schemas.skeleton import joint

_FLESH_M = {
    joint(name): radius
    for names, radius in (
        (("pelvis", "spine1", "spine2", "spine3"), 0.1),
        (("left_shoulder", "right_shoulder", "head"), 0.07),
        (("left_knee", "right_knee"), 0.05),
        (("left_elbow", "right_elbow", "left_wrist", "right_wrist", "left_hand", "right_hand"), 0.03),
    )
    for name in names
}
"""Joint -> distance of the skin from it, metres, roughly."""


def align_to_ground(
    rotations: Float[Tensor, "T 24 3 3"], trans: Float[Tensor, "T 3"], body: BodyModel
) -> tuple[Float[Tensor, "T 3"], Tensor]:
    """Translations shifted vertically so that the body is on the ground, and the ground contacts of the soles.

    The ground is the lower quartile of each frame's lowest point, so that neither a jump nor a few frames below the ground
    determine it. The lowest point is a sole or, for a body on its hands, knees, back or side, another joint with the flesh around
    it. A sole is in contact within 3 cm of the ground and below 0.3 m/s.
    """
    betas = torch.zeros(10)
    joints, global_rotations = forward_kinematics(rotations, body.rest_joints(betas), trans)
    soles = body.contact_rig().points(global_rotations, joints, betas)
    around = joints[..., list(_FLESH_M), 1] - joints.new_tensor(list(_FLESH_M.values()))
    ground_y = torch.cat([soles[..., 1], around], dim=-1).min(-1).values.quantile(0.25)
    speed = torch.zeros_like(soles[..., 0])
    if len(soles) > 1:
        speed[1:] = (soles[1:] - soles[:-1]).norm(dim=-1) * FPS
    contacts = (soles[..., 1] - ground_y < 0.03) & (speed < 0.3)
    return trans - torch.tensor([0.0, 1.0, 0.0]) * ground_y, contacts
