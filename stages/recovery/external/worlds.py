"""Conversion from the axes of a file to a world with Y up, and from there to the level world of a camera.

For a result with a body both in its world and in its camera, the camera pose of each frame follows from the two: the body moves
as in the estimator's world, and projects to where its camera saw it.
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
from stages.recovery.external.parsers import CameraTrajectory, Result, Subject, WorldAndCamera, WorldOnly
from stages.recovery.external.reading import ResultError

Rest = Callable[[Float[Tensor, "N 10"]], Float[Tensor, "N 24 3"]]
"""Maps betas to the joints of the zero pose, metres."""
_SMPLX_BONES_M = {
    "pelvis": (0.0, -0.351, 0.012), "hip": (0.061, -0.098, -0.024), "knee": (0.050, -0.371, -0.013),
    "ankle": (-0.029, -0.407, -0.026), "foot": (0.043, -0.058, 0.119), "spine1": (0.0, 0.110, -0.028),
    "spine2": (0.0, 0.132, -0.006), "spine3": (0.0, 0.052, 0.028), "neck": (0.0, 0.165, -0.032),
    "head": (0.0, 0.160, 0.021), "collar": (0.047, 0.085, -0.010), "shoulder": (0.111, 0.056, -0.014),
    "elbow": (0.263, -0.054, -0.034), "wrist": (0.251, 0.009, -0.009),
}  # fmt: skip
"""Mean neutral SMPL-X: offset from the parent joint, of the left side, averaged over both sides; the pelvis from the origin."""
_TRUNK = [joint("pelvis"), joint("neck")]
_FEET = [joint("left_foot"), joint("right_foot")]
_MAX_FOOT_STEP_M = 0.01
"""Largest displacement per frame of a standing foot."""
_FEET_SIGMA_M, _TRUNK_SIGMA_RAD = 0.02, 0.1
"""Standard deviations of standing feet from the ground plane, and of the mean trunk direction from the vertical."""
_Y_UP_FROM_Z_UP = torch.tensor([[1.0, 0, 0], [0, 0, 1], [0, -1, 0]])


@dataclass(frozen=True, kw_only=True, eq=False)
class PlacedSubject:
    """A subject in a world with Y up, in its N frames."""

    name: str
    frames: Int[np.ndarray, "N"]
    rotations: Float[Tensor, "N 24 3 3"]
    """Local rotations; the root's is its orientation in the world."""
    pelvis: Float[Tensor, "N 3"]
    betas: Float[Tensor, "10"]
    to_camera: Float[Tensor, "N 3 3"] | None
    """World to camera axes; None where the file has no camera."""
    camera_position: Float[Tensor, "N 3"] | None


@functools.cache
def mean_offsets(body: str) -> Float[np.ndarray, "22 3"]:
    """Offset of each joint from its parent in the zero pose of the mean body, metres; the pelvis from the origin. `body` is
    smpl (also for smplh, which has SMPL's shape) or smplx."""
    if body != "smplx":
        archive = io.BytesIO()
        np.savez(archive, poses=np.zeros((1, 66)), trans=np.zeros((1, 3)), mocap_framerate=30.0)
        return parse_amass("rest", archive.getvalue()).offsets
    offsets = []
    for name in SMPL_JOINTS[:22]:
        side, _, bare = name.rpartition("_")
        x, y, z = _SMPLX_BONES_M[bare]
        offsets.append((-x if side == "right" else x, y, z))
    return np.array(offsets)


def rest_of_body(body: BodyModel) -> Rest:
    """Rest joints of a body model as a function of the betas."""
    return body.rest_joints


def rest_of_mean(body: str) -> Rest:
    """Rest joints of a mean body for any betas; hands at the wrists."""
    joints = np.zeros((24, 3))
    for index, offset in enumerate(mean_offsets(body)):
        joints[index] = offset + (joints[SMPL_PARENTS[index]] if index else 0)
    joints[22:] = joints[20:22]
    return lambda betas: torch.from_numpy(joints).float().expand(len(betas), 24, 3)


def place_subjects(result: Result, rest: Rest) -> list[PlacedSubject]:
    """All subjects of a result. Raises ResultError for a world that is not upright."""
    subjects = [_place_subject(subject, rest) for subject in result.subjects]
    if any(isinstance(subject.view, CameraTrajectory) and not subject.view.y_up for subject in result.subjects):
        up = _estimate_up(subjects, rest)
        subjects = [_rotate_world(subject, _rotation_to_y_up(up)) for subject in subjects]
    for subject in subjects:
        _check_upright(result, subject, rest)
    return subjects


def _place_subject(subject: Subject, rest: Rest) -> PlacedSubject:
    rest_joints = rest(subject.betas)
    pelvis_at_rest = rest_joints[:, joint("pelvis")]
    to_camera: Tensor | None = None
    camera_position: Tensor | None = None
    match subject.view:
        case WorldAndCamera(world=world, camera=camera, hips_centred=hips_centred):
            root = world.rotations
            pelvis = world.trans + pelvis_at_rest
            if hips_centred:
                hips = rest_joints[:, [joint("left_hip"), joint("right_hip")]].mean(1)
                pelvis = world.trans - _rotate(root, hips - pelvis_at_rest)
            to_camera = camera.rotations @ root.mT
            camera_position = pelvis - _rotate(to_camera.mT, camera.trans + pelvis_at_rest)
        case CameraTrajectory(camera=camera, to_world=to_world, position=position):
            root, to_camera, camera_position = to_world @ camera.rotations, to_world.mT, position
            pelvis = _rotate(to_world, camera.trans + pelvis_at_rest) + position
        case WorldOnly(world=world):
            root = _Y_UP_FROM_Z_UP @ world.rotations
            pelvis = (world.trans + pelvis_at_rest) @ _Y_UP_FROM_Z_UP.T
    rotations = subject.joints.clone()
    rotations[:, 0] = root
    return PlacedSubject(
        name=subject.name, frames=subject.frames, rotations=rotations, pelvis=pelvis, betas=subject.betas.mean(0),
        to_camera=to_camera, camera_position=camera_position,
    )  # fmt: skip


def _rotate(rotations: Float[Tensor, "N 3 3"], vectors: Float[Tensor, "N 3"]) -> Float[Tensor, "N 3"]:
    return (rotations @ vectors[..., None])[..., 0]


def _rotate_world(placed: PlacedSubject, rotation: Float[Tensor, "3 3"]) -> PlacedSubject:
    """The subject after a rotation of the world."""
    assert placed.to_camera is not None
    assert placed.camera_position is not None
    rotations = placed.rotations.clone()
    rotations[:, 0] = rotation @ rotations[:, 0]
    return replace(
        placed, rotations=rotations, pelvis=placed.pelvis @ rotation.T, to_camera=placed.to_camera @ rotation.T,
        camera_position=placed.camera_position @ rotation.T,
    )  # fmt: skip


def _joints(placed: PlacedSubject, rest: Rest) -> Float[Tensor, "N 24 3"]:
    """World positions of a subject's joints."""
    rest_joints = rest(placed.betas[None])[0]
    return forward_kinematics(placed.rotations, rest_joints, placed.pelvis - rest_joints[0])[0]


def _trunk(joints: Float[Tensor, "N 24 3"]) -> Float[Tensor, "N 3"]:
    """Unit vector from the pelvis to the neck."""
    low, high = joints[:, _TRUNK].unbind(1)
    return torch.nn.functional.normalize(high - low, dim=-1)


def _estimate_up(placed: list[PlacedSubject], rest: Rest) -> Float[Tensor, "3"]:
    """The vertical from the plane of standing feet and from the mean trunk direction.

    With S the covariance of the positions of the feet and u the trunk direction, the n that minimises n.S.n / a^2 + |n - u|^2 /
    b^2: the plane decides where people have walked about, the trunks where they have not.
    """
    joints_of_subjects = [_joints(subject, rest) for subject in placed]
    trunk = torch.nn.functional.normalize(torch.cat([_trunk(joints) for joints in joints_of_subjects]).mean(0), dim=0)
    standing = []
    for subject, joints in zip(placed, joints_of_subjects, strict=True):
        feet = joints[:, _FEET]
        consecutive = torch.from_numpy(np.diff(subject.frames) == 1)
        is_standing = (feet[1:] - feet[:-1]).norm(dim=-1) < _MAX_FOOT_STEP_M
        standing.append(feet[1:][is_standing & consecutive[:, None]])
    points = torch.cat(standing).double()
    covariance = torch.cov(points.T, correction=0) if len(points) > 2 else torch.zeros(3, 3, dtype=torch.float64)
    precision = covariance / _FEET_SIGMA_M**2 + torch.eye(3, dtype=torch.float64) / _TRUNK_SIGMA_RAD**2
    return torch.nn.functional.normalize(torch.linalg.solve(precision, trunk.double()), dim=0).float()


def _rotation_to_y_up(up: Float[Tensor, "3"]) -> Float[Tensor, "3 3"]:
    """A rotation that maps a direction to +Y."""
    helper = torch.eye(3)[int(up.abs().argmin())]
    right = torch.nn.functional.normalize(torch.linalg.cross(up, helper), dim=0)
    return torch.stack([right, up, torch.linalg.cross(right, up)])


def _check_upright(result: Result, placed: PlacedSubject, rest: Rest) -> None:
    trunk = _trunk(_joints(placed, rest)).mean(0)
    if result.layout == "amass" and -trunk[2] > 0.7:
        raise ResultError(
            "not_upright",
            f"{result.file}: its body stands along +Y ({-trunk[2]:.2f}), AMASS has Z up; rotate root and trans by 90 degrees"
            " about X and save it again",
        )
    if trunk[1] < -0.5:
        raise ResultError(
            "not_upright",
            f"{result.file}: {placed.name} is upside down (trunk {trunk[1]:.2f} along up); the world of this version of"
            f" {result.layout} has Y down: run a newer one, or rotate it by 180 degrees about X",
        )


def level_world(
    to_camera: Float[Tensor, "T 3 3"], camera_position: Float[Tensor, "T 3"]
) -> tuple[Float[Tensor, "3 3"], Float[Tensor, "3"]]:
    """Rotation and origin of the transform p -> rotation (p - origin) from a world with Y up to the level world of the first
    camera (see `stages.geometry.cameras`)."""
    up = torch.tensor([0.0, 1.0, 0.0])
    right, _, forward = to_camera[0]
    back = -forward * torch.tensor([1.0, 0.0, 1.0])
    # For a camera that looks straight down or up, its right axis determines the horizontal direction of back.
    back = back if back.norm() > 1e-3 else torch.linalg.cross(right, up)
    back = torch.nn.functional.normalize(back, dim=0)
    return torch.stack([torch.linalg.cross(up, back), up, back]), camera_position[0]
