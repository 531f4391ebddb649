"""HuMo263: one row of 263 numbers a frame, and back to SMPL rotations.

The layout is that of HumanML3D (Guo et al. 2022, "Generating Diverse and Natural 3D Human Motions from Text"), sign
conventions included, but the rotations are SMPL's own instead of inverse kinematics, and nothing looks ahead of the
next frame: the heading is read off the pelvis, not smoothed. T frames give T - 1 rows. The heading frame of a row sits
under the pelvis, y up, +Z ahead. Row t holds, for frames t and t + 1:

    0        minus half the step of yaw, radians (the half angle of the turn *into* the heading frame)
    1:3      step of the pelvis, metres, x and z in the heading frame of t + 1
    3        height of the pelvis, metres
    4:67     joints 1..21, metres, in the heading frame of t
    67:193   local rotations of joints 1..21, 6D (the first two columns, one after the other)
    193:259  steps of joints 0..21, metres a frame, turned into the heading frame of t
    259:263  contacts: left heel, left toe, right heel, right toe

The pelvis' pitch and roll have no slot of their own: they follow from the positions (Kabsch 1976). The hands (joints 22
and 23) are not kept.
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from schemas.kinematics import forward_kinematics
from schemas.rotations import heading_rad, matrix_from_6d, matrix_to_6d, yaw_matrix
from schemas.skeleton import CONTACT_POINTS, NUM_JOINTS, PARTS, SMPL_JOINTS, joint, mirror_order

NUM_FEATURES = 263
YAW_STEP = slice(0, 1)
ROOT_STEP = slice(1, 3)
HEIGHT = slice(3, 4)
POSITIONS = slice(4, 67)
ROTATIONS = slice(67, 193)
VELOCITIES = slice(193, 259)
CONTACTS = slice(259, 263)
SLICES = {
    "yaw_step": YAW_STEP, "root_step": ROOT_STEP, "height": HEIGHT, "positions": POSITIONS, "rotations": ROTATIONS,
    "velocities": VELOCITIES, "contacts": CONTACTS,
}  # fmt: skip
ROOT = slice(0, 4)
"""The slots that place the body in the world."""

_KEPT = NUM_JOINTS - 2
_LIMBS = _KEPT - 1
_MIRRORED_JOINTS = mirror_order(SMPL_JOINTS)
_MIRRORED_CONTACTS = mirror_order(CONTACT_POINTS)
_LEGS = tuple((joint(f"{side}_{upper}"), joint(f"{side}_{lower}"))
              for side in ("left", "right") for upper, lower in (("hip", "knee"), ("knee", "ankle")))  # fmt: skip


def encode(
    rotations: Float[Tensor, "*B T 24 3 3"],
    trans: Float[Tensor, "*B T 3"],
    rest_joints: Float[Tensor, "*#B 24 3"],
    contacts: Float[Tensor, "*B T 4"],
) -> Float[Tensor, "*B T-1 263"]:
    """Motions of at least two frames as HuMo263 rows; metres, `rotations` local, the root's in the world."""
    joints = forward_kinematics(rotations, rest_joints[..., None, :, :], trans)[0][..., :_KEPT, :]
    yaw = heading_rad(rotations[..., 0, :, :])
    # Wrapped into [-pi, pi), or the half angle would turn the wrong way round at the seam.
    step = torch.remainder(yaw[..., 1:] - yaw[..., :-1] + torch.pi, 2 * torch.pi) - torch.pi
    into_heading = yaw_matrix(-yaw)
    now, after = joints[..., :-1, :, :], joints[..., 1:, :, :]
    root_step = (into_heading[..., 1:, :, :] @ (after - now)[..., 0, :, None])[..., 0]
    ground = now[..., :1, :] * joints.new_tensor([1.0, 0.0, 1.0])
    turned = into_heading[..., :-1, :, :].mT
    columns = [
        -step[..., None] / 2,
        root_step[..., [0, 2]],
        now[..., 0, 1:2],
        ((now[..., 1:, :] - ground) @ turned).flatten(-2),
        matrix_to_6d(rotations[..., :-1, 1:_KEPT, :, :]).flatten(-2),
        ((after - now) @ turned).flatten(-2),
        contacts[..., :-1, :].to(joints),
    ]
    return torch.cat(columns, dim=-1)


def decode(
    features: Float[Tensor, "N 263"],
    rest_joints: Float[Tensor, "24 3"],
    start_yaw_rad: float = 0.0,
    start_xz_m: tuple[float, float] = (0.0, 0.0),
) -> tuple[Float[Tensor, "N 24 3 3"], Float[Tensor, "N 3"]]:
    """Local rotations and translations of the frames that the rows describe: N rows give N frames.

    Yaw and ground position are integrated from the given start; there is no inverse kinematics.
    """
    yaw, pelvis = root_path(features, start_yaw_rad, start_xz_m)
    rotations = local_rotations(features)
    rotations[:, 0] = yaw_matrix(yaw) @ _root_in_heading(features, rotations, rest_joints)
    return rotations, pelvis - rest_joints[0]


def root_path(
    features: Float[Tensor, "N 263"], start_yaw_rad: float = 0.0, start_xz_m: tuple[float, float] = (0.0, 0.0)
) -> tuple[Float[Tensor, "N"], Float[Tensor, "N 3"]]:
    """Yaw (radians) and pelvis (metres) in the world, summed up in double precision from the steps."""
    turns = -2.0 * features[:, 0].double()
    yaw = start_yaw_rad + torch.cumsum(turns, 0) - turns
    steps = torch.nn.functional.pad(features[:-1, ROOT_STEP].double(), (0, 0, 1, 0))
    steps = torch.stack([steps[:, 0], torch.zeros_like(yaw), steps[:, 1]], dim=-1)
    ground = torch.cumsum((yaw_matrix(yaw) @ steps[..., None])[..., 0], 0)
    x, z = start_xz_m
    pelvis = torch.stack([ground[:, 0] + x, features[:, 3].double(), ground[:, 2] + z], dim=-1)
    return yaw.to(features), pelvis.to(features)


def positions(features: Float[Tensor, "*N 263"]) -> Float[Tensor, "*N 22 3"]:
    """Joints 0..21 in the heading frame, metres, as the position block has them."""
    limbs = features[..., POSITIONS].unflatten(-1, (_LIMBS, 3))
    pelvis = torch.zeros_like(limbs[..., :1, :])
    pelvis[..., 0, 1] = features[..., 3]
    return torch.cat([pelvis, limbs], dim=-2)


def local_rotations(features: Float[Tensor, "*N 263"]) -> Float[Tensor, "*N 24 3 3"]:
    """SMPL's local rotations; those of the root and of the hands are the identity."""
    kept = matrix_from_6d(features[..., ROTATIONS].unflatten(-1, (_LIMBS, 6)))
    identity = torch.eye(3, dtype=kept.dtype, device=kept.device).expand(*kept.shape[:-3], 1, 3, 3)
    return torch.cat([identity, kept, identity, identity], dim=-3)


def _root_in_heading(
    features: Float[Tensor, "N 263"], rotations: Float[Tensor, "N 24 3 3"], rest_joints: Float[Tensor, "24 3"]
) -> Float[Tensor, "N 3 3"]:
    """The pelvis' orientation in the heading frame: the rotation that takes the body, posed by its local rotations with an
    upright pelvis, onto the position block (Kabsch 1976).

    Joints 1, 2 and 3 alone determine it, for they are rigid with the pelvis. The others are further away, so that a
    millimetre of noise in them turns the body less.
    """
    upright = rotations.clone()
    upright[:, 0] = torch.eye(3, dtype=rotations.dtype, device=rotations.device)
    posed = forward_kinematics(upright, rest_joints, torch.zeros_like(features[:, :3]))[0][:, :_KEPT]
    seen = positions(features)
    covariance = (seen - seen[:, :1]).mT @ (posed - posed[:, :1])
    u, _, vh = torch.linalg.svd(covariance.float())
    signs = torch.ones_like(u[..., 0])
    signs[:, 2] = torch.det(u @ vh).sign()
    return ((u * signs[:, None, :]) @ vh).to(features)


def mirror(features: Float[Tensor, "*N 263"]) -> Float[Tensor, "*N 263"]:
    """The motion as a mirror shows it: left and right change places."""
    limbs = [_MIRRORED_JOINTS[j] - 1 for j in range(1, _KEPT)]
    joints = [_MIRRORED_JOINTS[j] for j in range(_KEPT)]
    flip = features.new_tensor([-1.0, 1.0, 1.0])
    # M R M with M = diag(-1, 1, 1), written out on the two columns that are kept.
    flip_6d = features.new_tensor([1.0, -1.0, -1.0, -1.0, 1.0, 1.0])
    columns = [
        -features[..., YAW_STEP],
        features[..., ROOT_STEP] * flip[:2],
        features[..., HEIGHT],
        (features[..., POSITIONS].unflatten(-1, (_LIMBS, 3))[..., limbs, :] * flip).flatten(-2),
        (features[..., ROTATIONS].unflatten(-1, (_LIMBS, 6))[..., limbs, :] * flip_6d).flatten(-2),
        (features[..., VELOCITIES].unflatten(-1, (_KEPT, 3))[..., joints, :] * flip).flatten(-2),
        features[..., CONTACTS][..., list(_MIRRORED_CONTACTS)],
    ]
    return torch.cat(columns, dim=-1)


def part_columns(part: str) -> Int[Tensor, "C"]:
    """Columns that belong to a part: all that its joints have; the torso also carries the root, a leg its contacts.

    A joint that two parts share has its columns in both.
    """
    members = [joint(name) for name in PARTS[part]]
    columns = list(range(*ROOT.indices(NUM_FEATURES))) if part == "torso" else []
    for j in members:
        if j > 0:
            columns += range(POSITIONS.start + 3 * (j - 1), POSITIONS.start + 3 * j)
            columns += range(ROTATIONS.start + 6 * (j - 1), ROTATIONS.start + 6 * j)
        columns += range(VELOCITIES.start + 3 * j, VELOCITIES.start + 3 * j + 3)
    if part.endswith("_leg"):
        side = part.removesuffix("_leg")
        columns += [CONTACTS.start + i for i, point in enumerate(CONTACT_POINTS) if point.startswith(side)]
    return torch.tensor(sorted(columns))


def onto_body(
    trans: Float[Tensor, "*B T 3"], own_rest: Float[Tensor, "*B 24 3"], rest: Float[Tensor, "24 3"]
) -> Float[Tensor, "*B T 3"]:
    """Translations for the same rotations on another body: paths scale with the length of the legs, so feet keep to the
    ground and steps keep their rhythm (what HumanML3D calls a uniform skeleton)."""
    scale = (_leg_length(rest) / _leg_length(own_rest))[..., None, None]
    return (trans + own_rest[..., :1, :]) * scale - rest[0]


def _leg_length(rest_joints: Float[Tensor, "*B 24 3"]) -> Float[Tensor, "*B"]:
    bones = [rest_joints[..., a, :] - rest_joints[..., b, :] for a, b in _LEGS]
    return torch.stack(bones).norm(dim=-1).sum(0)
