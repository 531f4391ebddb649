"""How the pelvis is pitched, of which keypoints show next to nothing: what a recording says of it, and how it follows a
posture.

Who bends turns the pelvis with the trunk, and who lifts the knees tips it back (the lumbopelvic rhythm). What is called
level, however, is a habit of whoever placed the markers: in one set of recordings people who walk alike had pelvises
between 8 degrees back and 16 forward. A lifter cannot see that, and learns from it that posture tells nothing.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from schemas.rotations import axis_angle_to_matrix, heading_rad
from schemas.skeleton import joint

PELVIS = joint("pelvis")
_CHILDREN = tuple(joint(name) for name in ("left_hip", "right_hip", "spine1"))
_HIPS = [joint("left_hip"), joint("right_hip")]
_SPINE = [joint("spine1"), joint("spine2"), joint("spine3")]
_SPINE_LENGTHS = (0.35, 0.15, 0.5)
"""Of the trunk above the pelvis, what each of them carries up to the shoulders."""
_TRUNK_SHARE, _THIGH_SHARE = 0.59, 0.35
"""Degrees of the pelvis a degree of trunk and of thighs: least squares over how they change within each of 152 recordings
(CMU, DeepMimic), which leaves 2.5 of 6.2 degrees."""
_UPRIGHT_RAD, _BENT_RAD = 0.9, 1.3
"""Up to the first bend of pelvis, trunk or thighs the rhythm holds, beyond the second not at all."""


def about_x(angle: Float[Tensor, "*B"]) -> Float[Tensor, "*B 3 3"]:
    """Turns about X, radians: positive ones lean forward."""
    zero = torch.zeros_like(angle)
    return axis_angle_to_matrix(torch.stack([angle, zero, zero], -1))


def pitch(rotations: Float[Tensor, "*B 24 3 3"], angle: Float[Tensor, "*#B"]) -> Float[Tensor, "*B 24 3 3"]:
    """The pelvis turned about its own X, its children turned back: the rest of the body stays as it was."""
    turn = about_x(angle)
    result = rotations.clone()
    result[..., PELVIS, :, :] = rotations[..., PELVIS, :, :] @ turn
    result[..., _CHILDREN, :, :] = turn.mT[..., None, :, :] @ rotations[..., _CHILDREN, :, :]
    return result


def off_rhythm(rotations: Float[Tensor, "*B 24 3 3"]) -> tuple[Float[Tensor, "*B"], Float[Tensor, "*B"]]:
    """How much farther forward the pelvis is pitched than goes with trunk and thighs, radians, and how far that can be said.

    In the rest pose all is level. The second is 1 for a body that stands, walks or bends a little, 0 for one that lies.
    """
    root = rotations[..., PELVIS, :, :]
    ahead = heading_rad(root)
    forward = torch.stack([ahead.sin(), torch.zeros_like(ahead), ahead.cos()], -1)

    def leaning(up: Tensor) -> Tensor:
        return torch.atan2((up * forward).sum(-1), up[..., 1])

    turns, up = root, torch.zeros_like(forward)
    for place, length in zip(_SPINE, _SPINE_LENGTHS, strict=True):
        turns = turns @ rotations[..., place, :, :]
        up = up + length * turns[..., 1]
    thighs = (root[..., None, :, :] @ rotations[..., _HIPS, :, :])[..., 1].mean(-2)
    said, trunk, thigh = leaning(root[..., 1]), leaning(up), leaning(thighs)
    most = torch.stack([said, trunk, thigh]).abs().amax(0)
    share = ((_BENT_RAD - most) / (_BENT_RAD - _UPRIGHT_RAD)).clamp(0, 1)
    return said - _TRUNK_SHARE * trunk - _THIGH_SHARE * thigh, share
