"""From the axes of a file to a world with Y up, and from there to the level world of a camera.

For a result that gives a body both in its world and in its camera, the camera is what leads from one to the other in each
frame: the body moves as the estimator's world says, and projects to where its camera saw it.
"""

import functools
import io
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from schemas.body_model import BodyModel
from schemas.kinematics import forward_kinematics
from schemas.skeleton import SMPL_JOINTS, SMPL_PARENTS, joint
from stages.mocap.amass import parse_amass
from stages.recovery.external.parsers import NotSeen, Result, SeenBothWays, SeenFromPath, Subject
from stages.recovery.external.reading import ResultError

Rest = Callable[[Float[Tensor, "N 10"]], Float[Tensor, "N 24 3"]]
"""Betas to joints of the zero pose, metres."""
_SMPLX_BONES_M = {
    "pelvis": (0.0, -0.351, 0.012), "hip": (0.061, -0.098, -0.024), "knee": (0.050, -0.371, -0.013),
    "ankle": (-0.029, -0.407, -0.026), "foot": (0.043, -0.058, 0.119), "spine1": (0.0, 0.110, -0.028),
    "spine2": (0.0, 0.132, -0.006), "spine3": (0.0, 0.052, 0.028), "neck": (0.0, 0.165, -0.032),
    "head": (0.0, 0.160, 0.021), "collar": (0.047, 0.085, -0.010), "shoulder": (0.111, 0.056, -0.014),
    "elbow": (0.263, -0.054, -0.034), "wrist": (0.251, 0.009, -0.009),
}  # fmt: skip
"""Mean neutral SMPL-X: from the parent joint, of the left side, both sides averaged; the pelvis from the origin."""
_TRUNK = [joint("pelvis"), joint("neck")]
_FEET = [joint("left_foot"), joint("right_foot")]
_STANDING_M = 0.01
"""A foot that moves less than this from frame to frame stands."""
_FEET_SIGMA_M, _LEAN_SIGMA_RAD = 0.02, 0.1
"""How far standing feet are off the ground's plane, and how far trunks lean on average."""
_Y_UP_FROM_Z_UP = torch.tensor([[1.0, 0, 0], [0, 0, 1], [0, -1, 0]])


@dataclass(frozen=True, kw_only=True, eq=False)
class Placed:
    """A subject in a world with Y up, at its own N frames."""

    name: str
    frames: Int[np.ndarray, "N"]
    rotations: Float[Tensor, "N 24 3 3"]
    """Local; the root's in the world."""
    pelvis: Float[Tensor, "N 3"]
    betas: Float[Tensor, "10"]
    to_camera: Float[Tensor, "N 3 3"] | None
    """World to camera axes; None where the file knows no camera."""
    camera_place: Float[Tensor, "N 3"] | None


@functools.cache
def mean_offsets(body: str) -> Float[np.ndarray, "22 3"]:
    """From each joint's parent in the zero pose of the mean body, metres; the pelvis from the origin. `body` is smpl (also
    for smplh, whose shape is SMPL's) or smplx."""
    if body != "smplx":
        still = io.BytesIO()
        np.savez(still, poses=np.zeros((1, 66)), trans=np.zeros((1, 3)), mocap_framerate=30.0)
        return parse_amass("rest", still.getvalue()).offsets
    offsets = []
    for name in SMPL_JOINTS[:22]:
        side, _, bare = name.rpartition("_")
        x, y, z = _SMPLX_BONES_M[bare]
        offsets.append((-x if side == "right" else x, y, z))
    return np.array(offsets)


def rest_of_body(body: BodyModel) -> Rest:
    """The joints of a body whose betas are at hand."""
    return body.rest_joints


def rest_of_mean(body: str) -> Rest:
    """Those of a mean body, whatever the betas; hands at the wrists."""
    places = np.zeros((24, 3))
    for here, offset in enumerate(mean_offsets(body)):
        places[here] = offset + (places[SMPL_PARENTS[here]] if here else 0)
    places[22:] = places[20:22]
    return lambda betas: torch.from_numpy(places).float().expand(len(betas), 24, 3)


def place(result: Result, rest: Rest) -> list[Placed]:
    """All subjects of a result. Raises ResultError for a world that is not upright."""
    placed = [_place(subject, rest) for subject in result.subjects]
    if any(isinstance(subject.view, SeenFromPath) and not subject.view.y_up for subject in result.subjects):
        up = _find_up(placed, rest)
        placed = [_turned(each, _to_y_up(up)) for each in placed]
    for each in placed:
        _check_upright(result, each, rest)
    return placed


def _place(subject: Subject, rest: Rest) -> Placed:
    at_rest = rest(subject.betas)
    pelvis_at_rest = at_rest[:, joint("pelvis")]
    to_camera: Tensor | None = None
    camera_place: Tensor | None = None
    match subject.view:
        case SeenBothWays(world=world, camera=seen, hips_centred=hips_centred):
            root = world.turns
            pelvis = world.trans + pelvis_at_rest
            if hips_centred:
                hips = at_rest[:, [joint("left_hip"), joint("right_hip")]].mean(1)
                pelvis = world.trans - _turn(root, hips - pelvis_at_rest)
            to_camera = seen.turns @ root.mT
            camera_place = pelvis - _turn(to_camera.mT, seen.trans + pelvis_at_rest)
        case SeenFromPath(camera=seen, to_world=to_world, position=position):
            root, to_camera, camera_place = to_world @ seen.turns, to_world.mT, position
            pelvis = _turn(to_world, seen.trans + pelvis_at_rest) + position
        case NotSeen(world=world):
            root = _Y_UP_FROM_Z_UP @ world.turns
            pelvis = (world.trans + pelvis_at_rest) @ _Y_UP_FROM_Z_UP.T
    rotations = subject.joints.clone()
    rotations[:, 0] = root
    return Placed(
        name=subject.name, frames=subject.frames, rotations=rotations, pelvis=pelvis, betas=subject.betas.mean(0),
        to_camera=to_camera, camera_place=camera_place,
    )  # fmt: skip


def _turn(turns: Float[Tensor, "N 3 3"], vectors: Float[Tensor, "N 3"]) -> Float[Tensor, "N 3"]:
    return (turns @ vectors[..., None])[..., 0]


def _turned(placed: Placed, turn: Float[Tensor, "3 3"]) -> Placed:
    """In axes that `turn` leads to."""
    assert placed.to_camera is not None
    assert placed.camera_place is not None
    rotations = placed.rotations.clone()
    rotations[:, 0] = turn @ rotations[:, 0]
    return replace(
        placed, rotations=rotations, pelvis=placed.pelvis @ turn.T, to_camera=placed.to_camera @ turn.T,
        camera_place=placed.camera_place @ turn.T,
    )  # fmt: skip


def _joints(placed: Placed, rest: Rest) -> Float[Tensor, "N 24 3"]:
    at_rest = rest(placed.betas[None])[0]
    return forward_kinematics(placed.rotations, at_rest, placed.pelvis - at_rest[0])[0]


def _trunk(joints: Float[Tensor, "N 24 3"]) -> Float[Tensor, "N 3"]:
    low, high = joints[:, _TRUNK].unbind(1)
    return torch.nn.functional.normalize(high - low, dim=-1)


def _find_up(placed: list[Placed], rest: Rest) -> Float[Tensor, "3"]:
    """Up from the plane that standing feet span and from how trunks stand on average.

    With S the covariance of the feet's places and u the trunks' direction, the n that is the least sum of n.S.n / a^2 and
    |n - u|^2 / b^2: the plane tells where people have walked about, the trunks where they have not.
    """
    bodies = [_joints(each, rest) for each in placed]
    trunk = torch.nn.functional.normalize(torch.cat([_trunk(joints) for joints in bodies]).mean(0), dim=0)
    standing = []
    for each, joints in zip(placed, bodies, strict=True):
        feet = joints[:, _FEET]
        next_frame = torch.from_numpy(np.diff(each.frames) == 1)
        slow = (feet[1:] - feet[:-1]).norm(dim=-1) < _STANDING_M
        standing.append(feet[1:][slow & next_frame[:, None]])
    points = torch.cat(standing).double()
    spread = torch.cov(points.T, correction=0) if len(points) > 2 else torch.zeros(3, 3, dtype=torch.float64)
    precision = spread / _FEET_SIGMA_M**2 + torch.eye(3, dtype=torch.float64) / _LEAN_SIGMA_RAD**2
    return torch.nn.functional.normalize(torch.linalg.solve(precision, trunk.double()), dim=0).float()


def _to_y_up(up: Float[Tensor, "3"]) -> Float[Tensor, "3 3"]:
    """A rotation that takes a direction to +Y."""
    helper = torch.eye(3)[int(up.abs().argmin())]
    right = torch.nn.functional.normalize(torch.linalg.cross(up, helper), dim=0)
    return torch.stack([right, up, torch.linalg.cross(right, up)])


def _check_upright(result: Result, placed: Placed, rest: Rest) -> None:
    trunk = _trunk(_joints(placed, rest)).mean(0)
    if result.layout == "amass" and -trunk[2] > 0.7:
        raise ResultError(
            "not_upright",
            f"{result.file}: its body stands along +Y ({-trunk[2]:.2f}), AMASS has Z up; turn root and trans by 90 degrees"
            " about X and save it again",
        )
    if trunk[1] < -0.5:
        raise ResultError(
            "not_upright",
            f"{result.file}: {placed.name} is upside down (trunk {trunk[1]:.2f} along up); the world of this version of"
            f" {result.layout} has Y down: run a newer one, or turn it by 180 degrees about X",
        )


def level_world(
    to_camera: Float[Tensor, "T 3 3"], camera_place: Float[Tensor, "T 3"]
) -> tuple[Float[Tensor, "3 3"], Float[Tensor, "3"]]:
    """Turn and origin that lead from a world with Y up to the level world of the first camera (see
    `stages.geometry.cameras`): p -> turn (p - origin)."""
    up = torch.tensor([0.0, 1.0, 0.0])
    right, _, forward = to_camera[0]
    back = -forward * torch.tensor([1.0, 0.0, 1.0])
    # A camera that looks straight down or up tells by its right where level back is.
    back = back if back.norm() > 1e-3 else torch.linalg.cross(right, up)
    back = torch.nn.functional.normalize(back, dim=0)
    return torch.stack([torch.linalg.cross(up, back), up, back]), camera_place[0]
