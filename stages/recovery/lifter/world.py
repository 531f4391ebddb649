"""From a body in camera axes to one in the world: gravity, trajectory and planted feet.

The lifter predicts the vertical and the contacts in every frame. The trajectory is solved twice: first with the predicted
contacts, then with the ground levelled and with contacts added where feet are slow and low on the first trajectory.
"""

from dataclasses import dataclass
from itertools import accumulate

import torch
from jaxtyping import Float
from torch import Tensor, nn

from schemas.kinematics import forward_kinematics
from schemas.rotations import heading_rad, matrix_from_6d, yaw_matrix
from schemas.skeleton import joint
from stages.geometry.contacts import find_contacts, find_steps, ground_height
from stages.geometry.feet import find_planted, leveling_rotation, plant_feet
from stages.recovery.lifter.features import FOCAL_KNOWN, Observation, with_focal_length
from stages.recovery.lifter.network import LifterOutput
from stages.recovery.lifter.refine import Pose
from stages.recovery.lifter.rigs import Rigs
from stages.recovery.lifter.trajectory import TrajectorySettings, solve_path

_PELVIS = joint("pelvis")
_CONTACT_PROBABILITY, _STEP_PROBABILITY = 0.9, 0.65
"""Probability of contacts found on the first trajectory: of points that are slow and low, enough to be planted; and of points
that are so relative to the body of a running person, enough to be constrained loosely, as the foot rolls."""


@dataclass(frozen=True)
class ClipObservation:
    """Observation of a person over T frames by a calibrated camera."""

    rays: Float[Tensor, "T 17 2"]
    """Rays of the keypoints (see `stages.recovery.lifter.features`)."""
    confidence: Float[Tensor, "T 17"]
    camera_from_first: Float[Tensor, "T 3 3"] | None = None
    """Rotation from the camera axes of the first frame to those of each; None for a static camera."""
    depths: Float[Tensor, "T 17 3"] | None = None
    """As in `Observation`; None where no landmark network was taken."""
    focal_deviation: float = FOCAL_KNOWN
    """Standard deviation of the log of the focal length used for the rays."""
    feet_seen: Float[Tensor, "T 4"] | None = None
    """1 where the foot of a contact point was seen, else 0; None: all the time. Unseen feet are not planted and hold no path."""

    def with_focal_ratio(self, ratio: float, focal_deviation: float) -> "ClipObservation":
        """The observation for a focal length of `ratio` times the assumed one."""
        camera_from_first = None
        if self.camera_from_first is not None:
            rotations = with_focal_length(self._frame_rotations()[None], torch.tensor([[1 / ratio]]))[0]
            camera_from_first = torch.stack(list(accumulate(rotations, lambda previous, rotation: rotation @ previous)))
        depths = None if self.depths is None else self.depths / ratio
        rays = self.rays / ratio
        return ClipObservation(rays, self.confidence, camera_from_first, depths, focal_deviation, self.feet_seen)

    def _frame_rotations(self) -> Float[Tensor, "T 3 3"]:
        """Camera rotation from the previous frame to each, the identity in the first."""
        rotations = torch.eye(3).repeat(len(self.rays), 1, 1)
        if self.camera_from_first is not None:
            rotations[1:] = self.camera_from_first[1:] @ self.camera_from_first[:-1].mT
        return rotations

    def observation(self, device: torch.device) -> Observation:
        """The input of the network's features."""
        frames = len(self.rays)
        valid = torch.ones(1, frames, dtype=torch.bool)
        depths = torch.zeros(frames, 17, 3) if self.depths is None else self.depths
        parts = (self.rays[None], self.confidence[None], self._frame_rotations()[None], valid, depths[None])
        focal_deviation = torch.tensor([self.focal_deviation], dtype=torch.float32)
        return Observation(*(value.to(device) for value in (*parts, focal_deviation)))


@dataclass(frozen=True)
class WorldMotion:
    """A body over T frames in the level world of the camera's first frame, with the origin at the camera's centre in that
    frame."""

    rotations: Float[Tensor, "T 24 3 3"]
    """Local rotations; the root's is its orientation in the level world."""
    trans: Float[Tensor, "T 3"]
    betas: Float[Tensor, "10"]
    to_camera: Float[Tensor, "T 3 3"]
    """Level world to camera axes; constant for a static camera."""
    camera_position: Float[Tensor, "T 3"]
    """Position of the camera in the level world; the origin in all frames for a static camera."""
    contacts: Float[Tensor, "T 4"]
    """Probability that left heel, left toe, right heel, right toe are in ground contact."""
    sigma_m: Float[Tensor, "T 22"]
    """Expected error of each joint except the hands, relative to the pelvis, metres."""
    ground_m: float
    """Height of the ground."""


def into_world(
    observation: ClipObservation,
    size: Float[Tensor, "T"],
    output: LifterOutput,
    pose: Pose,
    body_rotation: Float[Tensor, "T 3 3"],
    rigs: Rigs,
    settings: TrajectorySettings,
    *,
    plant: bool,
) -> WorldMotion:
    """One clip's `pose` in the level world. `size` are the box sides over the focal length, `output` is the network's output,
    `body_rotation` the rotation of the whole body by refinement, in camera axes. With `plant`, feet are planted; without, they
    may slide."""
    betas = pose.betas[0]
    root_level = matrix_from_6d(output.root_level[0]).cpu()
    # The predicted vertical is relative to the body and rotates with it.
    root_camera = body_rotation @ matrix_from_6d(output.root_camera[0]).cpu()
    to_camera = camera_attitude(root_camera, root_level, observation.camera_from_first)
    feet_seen = torch.ones(len(root_level), 4) if observation.feet_seen is None else observation.feet_seen
    contacts = output.contacts[0].sigmoid().cpu() * feet_seen
    rest = rigs.body.rest_joints(betas)
    velocity = output.velocity[0].cpu()

    def solve(to_camera: Tensor, contacts: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        rotations = pose.rotations.clone()
        rotations[:, _PELVIS] = to_camera.mT @ pose.rotations[:, _PELVIS]
        joints, global_rotations = forward_kinematics(rotations, rest, -rest[_PELVIS].expand(len(rotations), 3))
        keypoints, feet = (rig.points(global_rotations, joints, betas) for rig in (rigs.keypoints, rigs.contacts))
        initial = (to_camera.mT @ pose.pelvis[..., None])[..., 0]
        if len(initial) < 2:
            return rotations, initial, torch.zeros_like(initial), feet + initial[:, None]
        velocity_world = (yaw_matrix(heading_rad(rotations[:, _PELVIS])) @ velocity[..., None])[..., 0]
        pelvis, camera_position = solve_path(
            keypoints, observation.rays, observation.confidence, size, initial, to_camera, velocity_world, feet, contacts,
            settings, moving_camera=observation.camera_from_first is not None,
        )  # fmt: skip
        return rotations, pelvis, camera_position, feet + pelvis[:, None]

    rotations, pelvis, camera_position, feet = solve(to_camera, contacts)
    if plant:
        points = feet.numpy()
        slow_and_low = torch.from_numpy(find_contacts(points, ground_height(points))).to(contacts)
        run_steps = torch.from_numpy(find_steps(points, pelvis.numpy())).to(contacts)
        contacts = torch.stack([contacts, _CONTACT_PROBABILITY * slow_and_low, _STEP_PROBABILITY * run_steps]).amax(0)
        contacts = contacts * feet_seen
        # The ground under planted feet gives the vertical more precisely than a single frame.
        to_camera = to_camera @ leveling_rotation(points, find_planted(contacts.numpy())).mT
        rotations, pelvis, camera_position, feet = solve(to_camera, contacts)
    trans = pelvis - rest[_PELVIS]
    ground_m = ground_height(feet.numpy())
    if plant:
        planted_feet = plant_feet(rotations, trans, betas, find_planted(contacts.numpy()), rigs.body, rigs.contacts)
        rotations, trans, ground_m = planted_feet.rotations, planted_feet.trans, planted_feet.ground_m
    sigma = output.log_sigma[0].exp().cpu()
    return WorldMotion(rotations, trans, betas, to_camera, camera_position, contacts, sigma, ground_m)


def camera_attitude(
    root_camera: Float[Tensor, "T 3 3"],
    root_level: Float[Tensor, "T 3 3"],
    camera_from_first: Float[Tensor, "T 3 3"] | None,
) -> Float[Tensor, "T 3 3"]:
    """Level world of the first frame to camera axes, from the two predicted orientations of the pelvis. A static camera gets
    their median, a rotating one the median after its rotation is undone."""
    camera_from_first = torch.eye(3).expand(len(root_camera), 3, 3) if camera_from_first is None else camera_from_first
    # Vertical in camera axes of each frame, rotated back to the first.
    up = (camera_from_first.mT @ root_camera @ root_level[:, 1, :, None])[..., 0]
    up = nn.functional.normalize(up.median(0).values, dim=0)
    forward = torch.tensor([0.0, 0.0, 1.0])
    back = nn.functional.normalize(up * (up @ forward) - forward, dim=0)
    right = torch.linalg.cross(up, back)
    first = torch.stack([right, up, back], dim=-1)
    return camera_from_first @ first
