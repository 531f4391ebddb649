"""SMPL135: SMPL's own parameters as one feature row per frame, and the inverse.

Rotations are stored, positions are not, so that the columns of an arm or a leg move nothing else. T frames give T rows; a row
depends on its frame and the one before it. Row t holds:

    0:6      pelvis orientation in the heading frame of t - 1, 6D (the first two columns, concatenated)
    6:8      pelvis displacement from t - 1 to t, metres, x and z in the heading frame of t - 1
    8        pelvis height, metres
    9:135    local rotations of joints 1..21, 6D
    135:139  beside them the contacts: left heel, left toe, right heel, right toe

The heading has a memory: it follows the left axis l of the pelvis by the step `GAIN` * -l_z * (1 + l_x) / 2, in the heading frame.
The step is a smooth function of the stored orientation, so the decoder repeats it, and it vanishes where the direction of the
left axis on the ground is undefined or reversed (a body on its side, a cartwheel, a handstand): there the heading stays what
it was. A heading computed from a single orientation, like that of HuMo263, jumps there. The hands (joints 22 and 23) are not
stored.
"""

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from schemas.kinematics import forward_kinematics
from schemas.rotations import heading_rad, matrix_from_6d, matrix_to_6d, yaw_matrix
from schemas.skeleton import CONTACT_POINTS, NUM_JOINTS, PARTS, SMPL_JOINTS, joint, mirror_order

NUM_FEATURES = 139
ROOT_ROTATION = slice(0, 6)
ROOT_STEP = slice(6, 8)
HEIGHT = slice(8, 9)
ROTATIONS = slice(9, 135)
CONTACTS = slice(135, 139)
SLICES = {
    "root_rotation": ROOT_ROTATION,
    "root_step": ROOT_STEP,
    "height": HEIGHT,
    "rotations": ROTATIONS,
    "contacts": CONTACTS,
}
ROOT = slice(0, 9)
"""Columns that place the body in the world."""
MIN_STD = {"root_rotation": 0.05, "root_step": 1e-3, "height": 0.02, "rotations": 0.05, "contacts": 0.1}
"""Minimum deviation per slice, in its own unit: columns that are constant in a small dataset must not be scaled to noise."""
GAIN = 0.25
"""Share of the angle between heading and pelvis that the heading follows per frame; it keeps up with turns of 280 degrees/s."""

Memory = dict[str, Tensor]
"""State of streaming encoding: heading and pelvis after the last frame."""

_STORED_JOINTS = NUM_JOINTS - 2
_LIMB_JOINTS = _STORED_JOINTS - 1
_MIRRORED_JOINTS = mirror_order(SMPL_JOINTS)
_MIRRORED_CONTACTS = mirror_order(CONTACT_POINTS)
_FLIP_6D = (1.0, -1.0, -1.0, -1.0, 1.0, 1.0)
"""M R M with M = diag(-1, 1, 1), on the two stored columns."""


def encode(
    rotations: Float[Tensor, "*B T 24 3 3"],
    trans: Float[Tensor, "*B T 3"],
    rest_joints: Float[Tensor, "*#B 24 3"],
    contacts: Float[Tensor, "*B T 4"],
    memory: Memory | None = None,
) -> Float[Tensor, "*B T 139"]:
    """SMPL135 rows of motions; metres, `rotations` local, the root's in the world. The first row has no displacement.

    With a memory (initially an empty dict) consecutive calls, of single frames or more, give the rows of the whole motion.
    """
    root = rotations[..., 0, :, :]
    pelvis = trans + rest_joints[..., None, 0, :]
    memory = {} if memory is None else memory
    headings = _headings(root, memory.get("heading"))
    before = memory.get("pelvis", pelvis[..., :1, :])
    memory["heading"], memory["pelvis"] = headings[..., -1], pelvis[..., -1:, :]
    into_heading = yaw_matrix(-headings[..., :-1]).to(root)
    step = pelvis - torch.cat([before, pelvis[..., :-1, :]], dim=-2)
    columns = [
        matrix_to_6d(into_heading @ root),
        (into_heading @ step[..., None])[..., [0, 2], 0],
        pelvis[..., 1:2],
        matrix_to_6d(rotations[..., 1:_STORED_JOINTS, :, :]).flatten(-2),
        contacts.to(pelvis),
    ]
    return torch.cat(columns, dim=-1)


def decode(
    features: Float[Tensor, "*B N 139"],
    rest_joints: Float[Tensor, "24 3"],
    start_yaw_rad: float = 0.0,
    start_xz_m: tuple[float, float] = (0.0, 0.0),
) -> tuple[Float[Tensor, "*B N 24 3 3"], Float[Tensor, "*B N 3"]]:
    """Local rotations and translations of N frames from N rows.

    Heading and ground position are integrated from the given ones of the frame before the first.
    """
    yaw, pelvis = root_path(features, start_yaw_rad, start_xz_m)
    rotations = local_rotations(features)
    rotations[..., 0, :, :] = yaw_matrix(yaw) @ matrix_from_6d(features[..., ROOT_ROTATION])
    return rotations, pelvis - rest_joints[0]


def root_path(
    features: Float[Tensor, "*B N 139"], start_yaw_rad: float = 0.0, start_xz_m: tuple[float, float] = (0.0, 0.0)
) -> tuple[Float[Tensor, "*B N"], Float[Tensor, "*B N 3"]]:
    """Yaw (radians) of each row's heading frame and pelvis position (metres) in the world, integrated in double precision."""
    turns = _turn(matrix_from_6d(features[..., ROOT_ROTATION].double()))
    yaw = start_yaw_rad + torch.cumsum(turns, -1) - turns
    steps = features[..., ROOT_STEP].double()
    steps = torch.stack([steps[..., 0], torch.zeros_like(yaw), steps[..., 1]], dim=-1)
    ground = torch.cumsum((yaw_matrix(yaw) @ steps[..., None])[..., 0], -2)
    x, z = start_xz_m
    pelvis = torch.stack([ground[..., 0] + x, features[..., 8].double(), ground[..., 2] + z], dim=-1)
    return yaw.to(features), pelvis.to(features)


def next_start(
    features: Float[Tensor, "N 139"], start_yaw_rad: float, start_xz_m: tuple[float, float]
) -> tuple[float, tuple[float, float]]:
    """Start of the rows that follow: heading and ground position after the last row."""
    yaw, pelvis = root_path(features, start_yaw_rad, start_xz_m)
    turn = _turn(matrix_from_6d(features[-1, ROOT_ROTATION].double()))
    return yaw[-1].item() + turn.item(), (pelvis[-1, 0].item(), pelvis[-1, 2].item())


def start_after(
    rotations: Float[Tensor, "T 24 3 3"], trans: Float[Tensor, "T 3"], rest_joints: Float[Tensor, "24 3"]
) -> tuple[float, tuple[float, float]]:
    """Start of the rows that continue a motion: its heading and ground position after the last frame."""
    pelvis = trans[-1] + rest_joints[0]
    return _headings(rotations[:, 0], None)[-1].item(), (pelvis[0].item(), pelvis[2].item())


def rows_seen(seen: Float[Tensor, "*B T 5"]) -> Float[Tensor, "*B T 5"]:
    """For each row and part: 1 where the part was seen in the frame of the row and in the one before it, else 0."""
    return torch.cat([seen[..., :1, :], torch.minimum(seen[..., :-1, :], seen[..., 1:, :])], dim=-2)


def local_joints(features: Float[Tensor, "*B N 139"], rest_joints: Float[Tensor, "24 3"]) -> Float[Tensor, "*B N 22 3"]:
    """Positions of joints 0..21 in each row's heading frame, metres, by forward kinematics."""
    rotations = local_rotations(features)
    rotations[..., 0, :, :] = matrix_from_6d(features[..., ROOT_ROTATION])
    ground = torch.zeros_like(features[..., :3])
    ground[..., 1] = features[..., 8]
    return forward_kinematics(rotations, rest_joints, ground - rest_joints[0])[0][..., :_STORED_JOINTS, :]


def local_rotations(features: Float[Tensor, "*N 139"]) -> Float[Tensor, "*N 24 3 3"]:
    """Local SMPL rotations; identity for the root and the hands."""
    limbs = matrix_from_6d(features[..., ROTATIONS].unflatten(-1, (_LIMB_JOINTS, 6)))
    identity = torch.eye(3, dtype=limbs.dtype, device=limbs.device).expand(*limbs.shape[:-3], 1, 3, 3)
    return torch.cat([identity, limbs, identity, identity], dim=-3)


def mirror(features: Float[Tensor, "*N 139"]) -> Float[Tensor, "*N 139"]:
    """Mirrored motion: left and right swapped."""
    limbs = [_MIRRORED_JOINTS[j] - 1 for j in range(1, _STORED_JOINTS)]
    flip_6d = features.new_tensor(_FLIP_6D)
    columns = [
        features[..., ROOT_ROTATION] * flip_6d,
        features[..., ROOT_STEP] * features.new_tensor([-1.0, 1.0]),
        features[..., HEIGHT],
        (features[..., ROTATIONS].unflatten(-1, (_LIMB_JOINTS, 6))[..., limbs, :] * flip_6d).flatten(-2),
        features[..., CONTACTS][..., list(_MIRRORED_CONTACTS)],
    ]
    return torch.cat(columns, dim=-1)


def read_columns(part: str) -> Int[Tensor, "C"]:
    """Feature columns from which a part is encoded: those of its joints, shared ones included. Torso and legs share the pelvis and
    read the root columns; a leg reads its contacts."""
    return _columns(part, PARTS[part])


def written_columns(part: str) -> Int[Tensor, "C"]:
    """Feature columns that a part decodes to. A joint that parts share is the torso's alone, so that the codes of a limb move
    nothing outside it."""
    return _columns(part, [name for name in PARTS[part] if part == "torso" or name not in PARTS["torso"]])


def exclusive_columns(part: str) -> Int[Tensor, "C"]:
    """Feature columns of a part if joints that parts share belong to the torso alone."""
    return written_columns(part)


def _columns(part: str, names: Sequence[str]) -> Int[Tensor, "C"]:
    columns: list[int] = []
    for j in (joint(name) for name in names):
        columns += range(ROTATIONS.start + 6 * (j - 1), ROTATIONS.start + 6 * j) if j > 0 else range(ROOT.stop)
    if part.endswith("_leg"):
        side = part.removesuffix("_leg")
        columns += [CONTACTS.start + i for i, point in enumerate(CONTACT_POINTS) if point.startswith(side)]
    return torch.tensor(sorted(columns))


def _turn(root_in_heading: Float[Tensor, "*B 3 3"]) -> Float[Tensor, "*B"]:
    """Step of the heading after a pelvis orientation, radians."""
    left = root_in_heading[..., :, 0]
    return GAIN * -left[..., 2] * (1 + left[..., 0]) / 2


def _headings(root: Float[Tensor, "*B T 3 3"], start: Float[Tensor, "*B"] | None) -> Float[Tensor, "*B T+1"]:
    """Heading before each frame and after the last, radians, in double precision; by default it starts as that of the first
    frame."""
    left = root[..., :, 0].detach().double().cpu().numpy()
    heading = (heading_rad(root[..., 0, :, :]) if start is None else start).detach().double().cpu().numpy()
    headings = np.empty((*left.shape[:-2], left.shape[-2] + 1))
    for t in range(left.shape[-2]):
        headings[..., t] = heading
        cos, sin = np.cos(heading), np.sin(heading)
        x = cos * left[..., t, 0] - sin * left[..., t, 2]
        z = sin * left[..., t, 0] + cos * left[..., t, 2]
        heading = heading + GAIN * -z * (1 + x) / 2
    headings[..., -1] = heading
    return torch.from_numpy(headings).to(root.device)
