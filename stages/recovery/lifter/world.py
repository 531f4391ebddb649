"""From a body in camera axes to one in the world: gravity, the path over the ground, feet that stand.

Which way is up the lifter says in every frame; where feet stand it says too, and where it is in doubt the path itself does,
which is found twice: first with what the lifter says, then with the ground levelled and the feet held that stood in the
first.
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
from stages.recovery.lifter.trajectory import Certainty, solve_path

_PELVIS = joint("pelvis")
_STILL_CHANCE, _STEP_CHANCE = 0.9, 0.65
"""That a point stands which is slow and low on the path as it was found at first, and which is that compared with a body
that runs: enough to be planted, and to be held loosely, as it rolls."""


@dataclass(frozen=True)
class ClipObservation:
    """A person over T frames of a camera that is calibrated."""

    rays: Float[Tensor, "T 17 2"]
    """Of the keypoints (see `stages.recovery.lifter.features`)."""
    confidence: Float[Tensor, "T 17"]
    since: Float[Tensor, "T 3 3"] | None = None
    """From the camera's axes in the first frame to those in each; None while it stands still."""
    closeup: Float[Tensor, "T 17 3"] | None = None
    """As in `Observation`; None where nobody looked closer."""
    focal_off: float = FOCAL_KNOWN
    """Expected deviation of the log of the focal length by which the rays were made from the true one."""

    def through(self, ratio: float, focal_off: float) -> "ClipObservation":
        """As a camera saw it whose focal length is `ratio` times the one that was assumed."""
        since = None
        if self.since is not None:
            turns = with_focal_length(self._turn()[None], torch.tensor([[1 / ratio]]))[0]
            since = torch.stack(list(accumulate(turns, lambda before, turn: turn @ before)))
        closeup = None if self.closeup is None else self.closeup / ratio
        return ClipObservation(self.rays / ratio, self.confidence, since, closeup, focal_off)

    def _turn(self) -> Float[Tensor, "T 3 3"]:
        """From the frame before to each, the identity in the first."""
        turn = torch.eye(3).repeat(len(self.rays), 1, 1)
        if self.since is not None:
            turn[1:] = self.since[1:] @ self.since[:-1].mT
        return turn

    def observation(self, device: torch.device) -> Observation:
        """As the network's features are made from."""
        frames = len(self.rays)
        valid = torch.ones(1, frames, dtype=torch.bool)
        closeup = torch.zeros(frames, 17, 3) if self.closeup is None else self.closeup
        parts = (self.rays[None], self.confidence[None], self._turn()[None], valid, closeup[None])
        focal_off = torch.tensor([self.focal_off], dtype=torch.float32)
        return Observation(*(value.to(device) for value in (*parts, focal_off)))


@dataclass(frozen=True)
class WorldMotion:
    """A body over T frames in the level world of the camera's first frame, whose origin is the camera's centre then."""

    rotations: Float[Tensor, "T 24 3 3"]
    """Local; the root's is its orientation in the level world."""
    trans: Float[Tensor, "T 3"]
    betas: Float[Tensor, "10"]
    to_camera: Float[Tensor, "T 3 3"]
    """Level world to camera axes; the same in all frames while the camera stands still."""
    camera: Float[Tensor, "T 3"]
    """The camera's place in the level world; the origin in all frames while it stands still."""
    contacts: Float[Tensor, "T 4"]
    """Chance that left heel, left toe, right heel, right toe stand on the ground."""
    sigma_m: Float[Tensor, "T 22"]
    """Expected error of each joint but the hands relative to the pelvis, metres."""
    ground_m: float
    """Height of the ground."""


def into_world(
    sight: ClipObservation,
    size: Float[Tensor, "T"],
    lifted: LifterOutput,
    pose: Pose,
    turned: Float[Tensor, "T 3 3"],
    rigs: Rigs,
    certainty: Certainty,
    *,
    planted: bool,
) -> WorldMotion:
    """One clip's `pose` in the level world; `size` are the boxes' sides over the focal length, `lifted` what the network
    said of it, `turned` how its body was turned as a whole since, in camera axes. Feet are `planted`, or left where they
    slide."""
    betas = pose.betas[0]
    root_level = matrix_from_6d(lifted.root_level[0]).cpu()
    # What is up was read off the body: it turns with it.
    root_camera = turned @ matrix_from_6d(lifted.root_camera[0]).cpu()
    to_camera = camera_attitude(root_camera, root_level, sight.since)
    contacts = lifted.contacts[0].sigmoid().cpu()
    rest = rigs.body.rest_joints(betas)
    velocity = lifted.velocity[0].cpu()

    def walk(to_camera: Tensor, contacts: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        rotations = pose.rotations.clone()
        rotations[:, _PELVIS] = to_camera.mT @ pose.rotations[:, _PELVIS]
        joints, turns = forward_kinematics(rotations, rest, -rest[_PELVIS].expand(len(rotations), 3))
        keypoints, feet = (rig.points(turns, joints, betas) for rig in (rigs.keypoints, rigs.contacts))
        guess = (to_camera.mT @ pose.pelvis[..., None])[..., 0]
        if len(guess) < 2:
            return rotations, guess, torch.zeros_like(guess), feet + guess[:, None]
        steps = (yaw_matrix(heading_rad(rotations[:, _PELVIS])) @ velocity[..., None])[..., 0]
        pelvis, camera = solve_path(
            keypoints, sight.rays, sight.confidence, size, guess, to_camera, steps, feet, contacts, certainty,
            carried=sight.since is not None,
        )  # fmt: skip
        return rotations, pelvis, camera, feet + pelvis[:, None]

    rotations, pelvis, camera, feet = walk(to_camera, contacts)
    if planted:
        points = feet.numpy()
        still = torch.from_numpy(find_contacts(points, ground_height(points))).to(contacts)
        steps = torch.from_numpy(find_steps(points, pelvis.numpy())).to(contacts)
        contacts = torch.stack([contacts, _STILL_CHANCE * still, _STEP_CHANCE * steps]).amax(0)
        # The ground on which feet stood tells the vertical better than any one frame.
        to_camera = to_camera @ leveling_rotation(points, find_planted(contacts.numpy())).mT
        rotations, pelvis, camera, feet = walk(to_camera, contacts)
    trans = pelvis - rest[_PELVIS]
    ground = ground_height(feet.numpy())
    if planted:
        settled = plant_feet(rotations, trans, betas, find_planted(contacts.numpy()), rigs.body, rigs.contacts)
        rotations, trans, ground = settled.rotations, settled.trans, settled.ground_m
    sigma = lifted.log_sigma[0].exp().cpu()
    return WorldMotion(rotations, trans, betas, to_camera, camera, contacts, sigma, ground)


def camera_attitude(
    root_camera: Float[Tensor, "T 3 3"], root_level: Float[Tensor, "T 3 3"], since: Float[Tensor, "T 3 3"] | None
) -> Float[Tensor, "T 3 3"]:
    """Level world of the first frame to camera axes: each frame's two orientations of the pelvis say it; a camera that
    stands still has their median, one that turns the median after taking its turns back."""
    since = torch.eye(3).expand(len(root_camera), 3, 3) if since is None else since
    # Gravity as the camera sees it in each frame, brought back to the first.
    up = (since.mT @ root_camera @ root_level[:, 1, :, None])[..., 0]
    up = nn.functional.normalize(up.median(0).values, dim=0)
    forward = torch.tensor([0.0, 0.0, 1.0])
    back = nn.functional.normalize(up * (up @ forward) - forward, dim=0)
    right = torch.linalg.cross(up, back)
    first = torch.stack([right, up, back], dim=-1)
    return since @ first
