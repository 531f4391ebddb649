"""HuMo263: one feature row of 263 numbers per frame, and the inverse to SMPL rotations.

The layout is that of HumanML3D (Guo et al. 2022, "Generating Diverse and Natural 3D Human Motions from Text"), sign
conventions included, but the rotations are SMPL's own instead of inverse kinematics, and the heading is that of the pelvis, not
smoothed. T frames give T - 1 rows. The heading frame of a row has its origin on the ground below the pelvis, y up, +Z forward.
Row t holds, for frames t and t + 1:

    0        minus half the yaw step, radians (the half angle of the rotation *into* the heading frame)
    1:3      pelvis displacement, metres, x and z in the heading frame of t + 1
    3        pelvis height, metres
    4:67     positions of joints 1..21, metres, in the heading frame of t
    67:193   local rotations of joints 1..21, 6D (the first two columns, concatenated)
    193:259  velocities of joints 0..21, metres per frame, in the heading frame of t
    259:263  contacts: left heel, left toe, right heel, right toe

Pelvis pitch and roll are not stored: they follow from the positions (Kabsch 1976). The hands (joints 22 and 23) are not
stored. A row depends on its two frames alone as long as the left axis of the pelvis lies within `LEVEL` of the ground. Where it
is steeper (a body on its side, a cartwheel), its direction on the ground means little and reverses upside down: there the heading
stays what it was, and once the pelvis is upright again it turns back to the pelvis by `CATCH_UP_RAD` a frame.
"""

import math
from collections.abc import Sequence

import numpy as np
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
"""Columns that place the body in the world."""
MIN_STD = {
    "yaw_step": 1e-3, "root_step": 1e-3, "height": 0.02, "positions": 0.02, "rotations": 0.05, "velocities": 1e-3,
    "contacts": 0.1,
}  # fmt: skip
"""Minimum deviation per slice, in its own unit: columns that are constant in a small dataset must not be scaled to noise."""

LEVEL = (0.4, 0.6)
"""Length of the left axis of the pelvis on the ground, of 1, up to which the heading ignores it and from which it follows it."""
CATCH_UP_RAD = math.radians(10)
"""Largest step of the heading towards the pelvis, beyond the pelvis' own turn."""

_STORED_JOINTS = NUM_JOINTS - 2
_LIMB_JOINTS = _STORED_JOINTS - 1
_MIRRORED_JOINTS = mirror_order(SMPL_JOINTS)
_MIRRORED_CONTACTS = mirror_order(CONTACT_POINTS)


def encode(
    rotations: Float[Tensor, "*B T 24 3 3"],
    trans: Float[Tensor, "*B T 3"],
    rest_joints: Float[Tensor, "*#B 24 3"],
    contacts: Float[Tensor, "*B T 4"],
) -> Float[Tensor, "*B T-1 263"]:
    """HuMo263 rows of motions of at least two frames; metres, `rotations` local, the root's in the world."""
    joints = forward_kinematics(rotations, rest_joints[..., None, :, :], trans)[0][..., :_STORED_JOINTS, :]
    yaw = _headings(rotations[..., 0, :, :])
    # Wrapped to [-pi, pi): otherwise the half angle has the wrong direction at the wrap-around.
    yaw_step = torch.remainder(yaw[..., 1:] - yaw[..., :-1] + torch.pi, 2 * torch.pi) - torch.pi
    into_heading = yaw_matrix(-yaw)
    current, following = joints[..., :-1, :, :], joints[..., 1:, :, :]
    root_step = (into_heading[..., 1:, :, :] @ (following - current)[..., 0, :, None])[..., 0]
    ground = current[..., :1, :] * joints.new_tensor([1.0, 0.0, 1.0])
    to_heading_t = into_heading[..., :-1, :, :].mT
    columns = [
        -yaw_step[..., None] / 2,
        root_step[..., [0, 2]],
        current[..., 0, 1:2],
        ((current[..., 1:, :] - ground) @ to_heading_t).flatten(-2),
        matrix_to_6d(rotations[..., :-1, 1:_STORED_JOINTS, :, :]).flatten(-2),
        ((following - current) @ to_heading_t).flatten(-2),
        contacts[..., :-1, :].to(joints),
    ]
    return torch.cat(columns, dim=-1)


def decode(
    features: Float[Tensor, "N 263"],
    rest_joints: Float[Tensor, "24 3"],
    start_yaw_rad: float = 0.0,
    start_xz_m: tuple[float, float] = (0.0, 0.0),
) -> tuple[Float[Tensor, "N 24 3 3"], Float[Tensor, "N 3"]]:
    """Local rotations and translations of N frames from N rows.

    Yaw and ground position are integrated from the given start, without inverse kinematics.
    """
    yaw, pelvis = root_path(features, start_yaw_rad, start_xz_m)
    rotations = local_rotations(features)
    rotations[:, 0] = yaw_matrix(yaw) @ _root_in_heading(features, rotations, rest_joints)
    return rotations, pelvis - rest_joints[0]


def root_path(
    features: Float[Tensor, "*B N 263"], start_yaw_rad: float = 0.0, start_xz_m: tuple[float, float] = (0.0, 0.0)
) -> tuple[Float[Tensor, "*B N"], Float[Tensor, "*B N 3"]]:
    """Yaw (radians) and pelvis position (metres) in the world, integrated in double precision."""
    yaw_steps = -2.0 * features[..., 0].double()
    yaw = start_yaw_rad + torch.cumsum(yaw_steps, -1) - yaw_steps
    steps = torch.nn.functional.pad(features[..., :-1, ROOT_STEP].double(), (0, 0, 1, 0))
    steps = torch.stack([steps[..., 0], torch.zeros_like(yaw), steps[..., 1]], dim=-1)
    ground = torch.cumsum((yaw_matrix(yaw) @ steps[..., None])[..., 0], -2)
    x, z = start_xz_m
    pelvis = torch.stack([ground[..., 0] + x, features[..., 3].double(), ground[..., 2] + z], dim=-1)
    return yaw.to(features), pelvis.to(features)


def next_start(
    features: Float[Tensor, "N 263"], start_yaw_rad: float, start_xz_m: tuple[float, float]
) -> tuple[float, tuple[float, float]]:
    """Start of the rows that follow: heading and ground position of the frame after the last row."""
    yaw, pelvis = root_path(torch.cat([features, features[-1:]]), start_yaw_rad, start_xz_m)
    return yaw[-1].item(), (pelvis[-1, 0].item(), pelvis[-1, 2].item())


def start_after(
    rotations: Float[Tensor, "T 24 3 3"], trans: Float[Tensor, "T 3"], rest_joints: Float[Tensor, "24 3"]
) -> tuple[float, tuple[float, float]]:
    """Start of the rows that continue a motion: heading and ground position of its last frame, which has no row of its own."""
    pelvis = trans[-1] + rest_joints[0]
    return _headings(rotations[:, 0])[-1].item(), (pelvis[0].item(), pelvis[2].item())


def rows_seen(seen: Float[Tensor, "*B T 5"]) -> Float[Tensor, "*B T-1 5"]:
    """For each row and part: 1 where the part was seen in both frames of the row, else 0."""
    return torch.minimum(seen[..., :-1, :], seen[..., 1:, :])


def local_joints(features: Float[Tensor, "*N 263"], rest_joints: Float[Tensor, "24 3"]) -> Float[Tensor, "*N 22 3"]:
    """Positions of joints 0..21 in the heading frame, metres; the body that they were made of is not needed."""
    return positions(features)


def positions(features: Float[Tensor, "*N 263"]) -> Float[Tensor, "*N 22 3"]:
    """Positions of joints 0..21 in the heading frame, metres, from the position columns."""
    limbs = features[..., POSITIONS].unflatten(-1, (_LIMB_JOINTS, 3))
    pelvis = torch.zeros_like(limbs[..., :1, :])
    pelvis[..., 0, 1] = features[..., 3]
    return torch.cat([pelvis, limbs], dim=-2)


def local_rotations(features: Float[Tensor, "*N 263"]) -> Float[Tensor, "*N 24 3 3"]:
    """Local SMPL rotations; identity for the root and the hands."""
    limbs = matrix_from_6d(features[..., ROTATIONS].unflatten(-1, (_LIMB_JOINTS, 6)))
    identity = torch.eye(3, dtype=limbs.dtype, device=limbs.device).expand(*limbs.shape[:-3], 1, 3, 3)
    return torch.cat([identity, limbs, identity, identity], dim=-3)


def _headings(root: Float[Tensor, "*B T 3 3"]) -> Float[Tensor, "*B T"]:
    """Yaw of the heading frames, radians: that of the pelvis, plus a lag while and after its left axis is steep."""
    own = heading_rad(root)
    left = root[..., :, 0]
    low, high = LEVEL
    clear = ((left[..., [0, 2]].norm(dim=-1) - low) / (high - low)).clamp(0, 1)
    turns = torch.remainder(own[..., 1:] - own[..., :-1] + torch.pi, 2 * torch.pi) - torch.pi
    # No body turns by more than a right angle in a frame: that is the left axis passing the vertical.
    followed = torch.minimum(clear[..., 1:], clear[..., :-1]) * (turns.abs() < torch.pi / 2)
    if bool((followed == 1).all()):
        return own
    ignored, clear, up = (
        one.detach().double().cpu().numpy() for one in (turns * (1 - followed), clear, root[..., 1, 1])
    )
    lag = np.zeros_like(up)
    for t in range(1, lag.shape[-1]):
        lag[..., t] = np.remainder(lag[..., t - 1] - ignored[..., t - 1] + np.pi, 2 * np.pi) - np.pi
        is_upright = (up[..., t] > 0) | (np.abs(lag[..., t]) < np.pi / 2)
        step = CATCH_UP_RAD * clear[..., t] * is_upright
        lag[..., t] -= np.clip(lag[..., t], -step, step)
    return own + torch.from_numpy(lag).to(own)


def _root_in_heading(
    features: Float[Tensor, "N 263"], rotations: Float[Tensor, "N 24 3 3"], rest_joints: Float[Tensor, "24 3"]
) -> Float[Tensor, "N 3 3"]:
    """Pelvis orientation in the heading frame: the rotation that aligns the body, posed by its local rotations with an
    upright pelvis, with the position columns (Kabsch 1976).

    Joints 1, 2 and 3 alone determine it, since they are rigid with the pelvis. The other joints are further away, so that
    a millimetre of noise in them rotates the body less.
    """
    upright = rotations.clone()
    upright[:, 0] = torch.eye(3, dtype=rotations.dtype, device=rotations.device)
    posed = forward_kinematics(upright, rest_joints, torch.zeros_like(features[:, :3]))[0][:, :_STORED_JOINTS]
    target = positions(features)
    covariance = (target - target[:, :1]).mT @ (posed - posed[:, :1])
    u, _, vh = torch.linalg.svd(covariance.float())
    signs = torch.ones_like(u[..., 0])
    signs[:, 2] = torch.det(u @ vh).sign()
    return ((u * signs[:, None, :]) @ vh).to(features)


def mirror(features: Float[Tensor, "*N 263"]) -> Float[Tensor, "*N 263"]:
    """Mirrored motion: left and right swapped."""
    limbs = [_MIRRORED_JOINTS[j] - 1 for j in range(1, _STORED_JOINTS)]
    joints = [_MIRRORED_JOINTS[j] for j in range(_STORED_JOINTS)]
    flip = features.new_tensor([-1.0, 1.0, 1.0])
    # M R M with M = diag(-1, 1, 1), on the two stored columns.
    flip_6d = features.new_tensor([1.0, -1.0, -1.0, -1.0, 1.0, 1.0])
    columns = [
        -features[..., YAW_STEP],
        features[..., ROOT_STEP] * flip[:2],
        features[..., HEIGHT],
        (features[..., POSITIONS].unflatten(-1, (_LIMB_JOINTS, 3))[..., limbs, :] * flip).flatten(-2),
        (features[..., ROTATIONS].unflatten(-1, (_LIMB_JOINTS, 6))[..., limbs, :] * flip_6d).flatten(-2),
        (features[..., VELOCITIES].unflatten(-1, (_STORED_JOINTS, 3))[..., joints, :] * flip).flatten(-2),
        features[..., CONTACTS][..., list(_MIRRORED_CONTACTS)],
    ]
    return torch.cat(columns, dim=-1)


def part_columns(part: str) -> Int[Tensor, "C"]:
    """Feature columns of a part: those of its joints; the torso also has the root columns, a leg its contacts.

    The columns of a joint that two parts share are in both.
    """
    return _columns(part, PARTS[part])


def read_columns(part: str) -> Int[Tensor, "C"]:
    """Feature columns from which a part is encoded: its own and, for a leg, those of the root."""
    columns = part_columns(part).tolist()
    return torch.tensor(sorted({*columns, *range(ROOT.stop)} if part.endswith("_leg") else columns))


def written_columns(part: str) -> Int[Tensor, "C"]:
    """Feature columns that a part decodes to; shared ones are in both parts."""
    return part_columns(part)


def exclusive_columns(part: str) -> Int[Tensor, "C"]:
    """Feature columns of a part if joints that parts share belong to the torso alone."""
    return _columns(part, [name for name in PARTS[part] if part == "torso" or name not in PARTS["torso"]])


def _columns(part: str, names: Sequence[str]) -> Int[Tensor, "C"]:
    columns = list(range(*ROOT.indices(NUM_FEATURES))) if part == "torso" else []
    for j in (joint(name) for name in names):
        if j > 0:
            columns += range(POSITIONS.start + 3 * (j - 1), POSITIONS.start + 3 * j)
            columns += range(ROTATIONS.start + 6 * (j - 1), ROTATIONS.start + 6 * j)
        columns += range(VELOCITIES.start + 3 * j, VELOCITIES.start + 3 * j + 3)
    if part.endswith("_leg"):
        side = part.removesuffix("_leg")
        columns += [CONTACTS.start + i for i, point in enumerate(CONTACT_POINTS) if point.startswith(side)]
    return torch.tensor(sorted(columns))
