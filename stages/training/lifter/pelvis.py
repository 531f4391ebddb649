"""Pitch of the pelvis, which keypoints hardly show: a recording's pitch, and the pitch that its posture implies.

Bending tips the pelvis forward with the trunk, raising the knees tips it back (the lumbopelvic rhythm). Which pitch counts as
level, however, depends on how the markers were placed: within one set of recordings, people with the same gait had pelvises
between 8 degrees back and 16 forward. A lifter cannot see that offset, and learns from it that posture carries no information.
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
"""Lengths of the trunk's segments from each joint upwards to the shoulders, as shares of the trunk above the pelvis."""
_TRUNK_SHARE, _THIGH_SHARE = 0.59, 0.35
"""Degrees of pelvic pitch per degree of trunk and of thigh pitch: least squares over the changes within each of 152 recordings
(CMU, DeepMimic), which leaves 2.5 of 6.2 degrees."""
_UPRIGHT_RAD, _BENT_RAD = 0.9, 1.3
"""The rhythm holds up to the first pitch of pelvis, trunk or thighs, and not at all beyond the second."""


def rotation_about_x(angle: Float[Tensor, "*B"]) -> Float[Tensor, "*B 3 3"]:
    """Rotations about X, radians: positive angles lean forward."""
    zero = torch.zeros_like(angle)
    return axis_angle_to_matrix(torch.stack([angle, zero, zero], -1))


def pitch_pelvis(rotations: Float[Tensor, "*B 24 3 3"], angle: Float[Tensor, "*#B"]) -> Float[Tensor, "*B 24 3 3"]:
    """Rotate the pelvis about its own X and its children back, so that the rest of the body stays as it was."""
    delta = rotation_about_x(angle)
    result = rotations.clone()
    result[..., PELVIS, :, :] = rotations[..., PELVIS, :, :] @ delta
    result[..., _CHILDREN, :, :] = delta.mT[..., None, :, :] @ rotations[..., _CHILDREN, :, :]
    return result


def pelvic_pitch_residual(
    rotations: Float[Tensor, "*B 24 3 3"],
) -> tuple[Float[Tensor, "*B"], Float[Tensor, "*B"]]:
    """Forward pitch of the pelvis beyond what the pitches of trunk and thighs imply, radians, and its validity.

    All pitches are 0 in the rest pose. The validity is 1 for a body that stands, walks or bends a little, 0 for one that lies.
    """
    root = rotations[..., PELVIS, :, :]
    heading = heading_rad(root)
    forward = torch.stack([heading.sin(), torch.zeros_like(heading), heading.cos()], -1)

    def pitch_of(up: Tensor) -> Tensor:
        return torch.atan2((up * forward).sum(-1), up[..., 1])

    global_rotation, up = root, torch.zeros_like(forward)
    for index, length in zip(_SPINE, _SPINE_LENGTHS, strict=True):
        global_rotation = global_rotation @ rotations[..., index, :, :]
        up = up + length * global_rotation[..., 1]
    thighs = (root[..., None, :, :] @ rotations[..., _HIPS, :, :])[..., 1].mean(-2)
    pelvis, trunk, thigh = pitch_of(root[..., 1]), pitch_of(up), pitch_of(thighs)
    max_pitch = torch.stack([pelvis, trunk, thigh]).abs().amax(0)
    validity = ((_BENT_RAD - max_pitch) / (_BENT_RAD - _UPRIGHT_RAD)).clamp(0, 1)
    return pelvis - _TRUNK_SHARE * trunk - _THIGH_SHARE * thigh, validity
