"""Fitting by optimisation alone: the most plausible pose whose keypoints project onto the detected ones.

Clips are fitted one at a time, so that a fit depends on its clip only. The hypotheses about heading are optimised together on
every third frame, then the best one on all frames. Everything runs on one thread with a fixed number of steps, so the same clip
gives the same bits.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from schemas.body_model import BodyModel, PointRig
from schemas.kinematics import forward_kinematics
from schemas.records import Camera, Clip
from schemas.rotations import axis_angle_to_matrix, yaw_matrix
from schemas.skeleton import joint
from stages.geometry.cameras import MIN_DEPTH_M, intrinsics_of, level_to_camera, reprojection_error
from stages.geometry.contacts import ANKLES
from stages.geometry.keypoints import KeypointRays, clean_keypoints
from stages.recovery import facing, priors
from stages.recovery.initialization import (
    PITCH_MEAN_RAD,
    PITCH_SPREAD_RAD,
    bone_depth,
    closed_form_position,
    ground_line,
    prepare,
)
from stages.recovery.protocol import Fit


@dataclass(frozen=True)
class Weights:
    """Weights of the cost terms, per frame."""

    pose: float = 0.02
    """`priors.pose_cost`."""
    tilt: float = 0.6
    """Tilt of the pelvis from upright, in units of 0.35 rad."""
    shape: float = 0.05
    """Squared betas."""
    pitch: float = 0.5
    """Squared distance from the mean pitch, in standard deviations."""
    acceleration: float = 1.5e-3
    """Mean over joints of (m/s^2)^2; ten times as much along the line of sight."""
    acceleration_limit_mps2: float = 20.0
    """Above this, the cost of an acceleration is linear, so that running legs are not slowed down."""
    angular_acceleration: float = 2e-4
    """Angular acceleration, (rad/s^2)^2 summed over joints / 24."""
    slide: float = 1.0
    """Speed of a planted foot, robust: half the weight at 0.3 m/s."""
    height: float = 1.0
    """Distance of a planted foot from the ground, in units of 5 cm."""
    penetration: float = 500.0
    """Squared metres below the ground, summed over heels and toes."""


@dataclass
class Unknowns:
    """Optimised variables, H hypotheses in parallel."""

    yaw: Float[Tensor, "H T"]
    tilt: Float[Tensor, "H T 2"]
    """Rotation vector of the pelvis after its yaw, about x (forwards) and z (to the right)."""
    pose: Float[Tensor, "H T 23 3"]
    position: Float[Tensor, "H T 3"]
    """Pelvis in the camera: ray x, ray y and log depth."""
    betas: Float[Tensor, "H 10"]
    pitch: Float[Tensor, "H"]
    ground_ray: Float[Tensor, "H"]
    """Ray y at which the camera sees the ground at `depth_m`: image row and depth of people's feet are well observed, while the
    height of the ground depends on the pitch."""
    depth_m: Float[Tensor, "H"]
    """Approximate distance of the person; not optimised."""

    def optimised(self) -> list[Tensor]:
        """All optimised tensors."""
        return [self.yaw, self.tilt, self.pose, self.position, self.betas, self.pitch, self.ground_ray]

    def select(self, hypothesis: int) -> "Unknowns":
        """A single hypothesis."""
        selected = {name: value.detach()[hypothesis : hypothesis + 1].clone() for name, value in vars(self).items()}
        return Unknowns(**selected)

    def resample(self, stride: int, frames: int) -> "Unknowns":
        """Linear interpolation from every `stride`-th frame to all."""
        time = torch.arange(frames) / stride
        low = time.long().clamp(max=self.yaw.shape[1] - 1)
        high = (low + 1).clamp(max=self.yaw.shape[1] - 1)
        fraction = time - low

        def interpolated(value: Tensor) -> Tensor:
            weight = fraction.reshape(-1, *[1] * (value.ndim - 2))
            return value[:, low] * (1 - weight) + value[:, high] * weight

        moving = ("yaw", "tilt", "pose", "position")
        return Unknowns(
            **{name: interpolated(value) if name in moving else value.clone() for name, value in vars(self).items()}
        )

    def ground(self) -> Float[Tensor, "H"]:
        """Height of the ground in the level world, metres."""
        return -self.depth_m * (self.ground_ray * torch.cos(self.pitch) + torch.sin(self.pitch))


@dataclass(frozen=True)
class Posed:
    """The body of the unknowns, in the level world."""

    rotations: Float[Tensor, "H T 24 3 3"]
    joints: Float[Tensor, "H T 24 3"]
    points: Float[Tensor, "H T 21 3"]
    """17 keypoints, then the 4 contact points."""
    in_camera: Float[Tensor, "H T 17 3"]


class OptimiseFitter:
    """SMPLify (Bogo et al. 2016) over time, with heading from keypoints and a ground plane."""

    version = "optimise 1"
    stride = 3

    def __init__(self, body: BodyModel, *, coarse_steps: int, fine_steps: int) -> None:
        self.body = body
        self.coarse_steps, self.fine_steps = coarse_steps, fine_steps
        self.rig = PointRig(body, torch.cat([body.keypoint_regressor, body.contact_regressor]))
        self.weights = Weights()

    def fit(self, clips: Sequence[Clip]) -> list[Fit]:
        """One fit per clip; each is solved alone, so that its bits do not depend on the others."""
        return [self._fit_one(clip) for clip in clips]

    def _fit_one(self, clip: Clip) -> Fit:
        intrinsics = intrinsics_of(clip.track.shot.video)
        keypoints = prepare(clip, intrinsics)
        coarse = keypoints.subsample(self.stride)
        unknowns = self._initialise(clip, coarse)
        costs = self._solve(unknowns, coarse, self.coarse_steps, sigmas=(0.25, 0.05), ramp_ground=True)
        best = unknowns.select(int(costs.argmin())).resample(self.stride, len(keypoints.rays))
        self._solve(best, keypoints, self.fine_steps, sigmas=(0.05, 0.04), rate_scale=0.4)
        return self._to_fit(clip, best, intrinsics)

    def _initialise(self, clip: Clip, keypoints: KeypointRays) -> Unknowns:
        """Standing people at their position, facing by the keypoints, and their mirror image in depth."""
        path = facing.best_path(facing.yaw_costs(clean_keypoints(clip.keypoints)))
        # The mirror image has the same widths: only nose, ears and knees differ, often barely.
        paths = np.stack([path, -path])
        yaw = torch.from_numpy(paths).float()[:, :: self.stride].contiguous()
        hypotheses, frames = yaw.shape
        unknowns = Unknowns(
            yaw=yaw,
            tilt=torch.zeros(hypotheses, frames, 2),
            pose=priors.MEAN.expand(hypotheses, frames, -1, -1).clone(),
            position=torch.zeros(hypotheses, frames, 3),
            betas=torch.zeros(hypotheses, 10),
            pitch=torch.full((hypotheses,), PITCH_MEAN_RAD),
            ground_ray=torch.zeros(hypotheses),
            depth_m=torch.ones(hypotheses),
        )
        with torch.no_grad():
            # With the pelvis at a depth of one metre, subtracting it leaves the relative points.
            relative = self._pose(unknowns).in_camera - torch.tensor([0.0, 0.0, 1.0])
            template = self.body.keypoint_regressor @ self.body.template
            unknowns.position = closed_form_position(relative, bone_depth(template, keypoints), keypoints)
            depth = self._pose(unknowns).in_camera[..., ANKLES, 2]
            unknowns.pitch, unknowns.ground_ray, unknowns.depth_m = ground_line(depth, keypoints)
        return unknowns

    def _pose(self, unknowns: Unknowns) -> Posed:
        forwards, sideways = unknowns.tilt.unbind(-1)
        tilt = torch.stack([forwards, torch.zeros_like(forwards), sideways], -1)
        root = yaw_matrix(unknowns.yaw) @ axis_angle_to_matrix(tilt)
        local = priors.HANGING @ axis_angle_to_matrix(unknowns.pose)
        rotations = torch.cat([root[..., None, :, :], local], dim=-3)
        depth = unknowns.position[..., 2:].exp()
        pelvis_in_camera = torch.cat([unknowns.position[..., :2] * depth, depth], dim=-1)
        to_camera = level_to_camera(unknowns.pitch)[:, None]
        pelvis = pelvis_in_camera @ to_camera[:, 0]
        rest = self.body.rest_joints(unknowns.betas)[:, None]
        joints, global_rotations = forward_kinematics(rotations, rest, pelvis - rest[..., 0, :])
        points = self.rig.points(global_rotations, joints, unknowns.betas[:, None])
        in_camera = points[..., :17, :] @ to_camera.transpose(-1, -2)
        return Posed(rotations, joints, points, in_camera)

    def _solve(
        self,
        unknowns: Unknowns,
        keypoints: KeypointRays,
        steps: int,
        *,
        sigmas: tuple[float, float],
        rate_scale: float = 1.0,
        ramp_ground: bool = False,
    ) -> Float[Tensor, "H"]:
        """Adam on all unknowns together, in place; returns the final cost of each hypothesis.

        `sigmas` are the scales of the robust reprojection error, in box sizes, at the first step and from the middle step on.
        `ramp_ground` starts the weight of the ground at 0; at full weight it would keep legs that are still straight from
        bending.
        """
        rates = (0.03, 0.03, 0.04, 0.01, 0.02, 0.01, 0.02)
        groups = [
            {"params": [value.requires_grad_(True)], "lr": rate * rate_scale}
            for value, rate in zip(unknowns.optimised(), rates, strict=True)
        ]
        optimiser = torch.optim.Adam(groups, betas=(0.9, 0.99), foreach=False)
        for step in range(steps):
            progress = step / steps
            sigma = sigmas[0] * (sigmas[1] / sigmas[0]) ** min(1.0, 2 * progress)
            for group, rate in zip(optimiser.param_groups, rates, strict=True):
                group["lr"] = rate * rate_scale * (0.02 + 0.98 * np.cos(np.pi / 2 * progress) ** 2)
            optimiser.zero_grad(set_to_none=True)
            self._cost(unknowns, keypoints, sigma, _ramp(progress) if ramp_ground else 1.0).sum().backward()
            optimiser.step()
        for value in unknowns.optimised():
            value.requires_grad_(False)
        with torch.no_grad():
            return self._cost(unknowns, keypoints, sigmas[1])

    def _cost(
        self, unknowns: Unknowns, keypoints: KeypointRays, sigma: float, ground_weight: float = 1.0
    ) -> Float[Tensor, "H"]:
        w, fps, planted = self.weights, keypoints.fps, keypoints.planted
        posed = self._pose(unknowns)
        depth = posed.in_camera[..., 2:].clamp(min=MIN_DEPTH_M)
        residual = (posed.in_camera[..., :2] / depth - keypoints.rays).square().sum(-1) * (keypoints.scale / sigma) ** 2
        # Geman-McClure: an outlier costs at most 1, whatever its distance.
        total = (keypoints.weight * residual / (1 + residual)).sum(-1).mean(-1)

        total = total + w.pose * priors.pose_cost(unknowns.pose).mean(-1)
        total = total + w.tilt * _huber(unknowns.tilt / 0.35).sum(-1).mean(-1)
        total = total + w.shape * unknowns.betas.square().sum(-1)
        total = total + w.pitch * ((unknowns.pitch - PITCH_MEAN_RAD) / PITCH_SPREAD_RAD) ** 2

        if posed.joints.shape[1] > 2:
            joints = posed.joints
            acceleration = (joints[:, 2:] - 2 * joints[:, 1:-1] + joints[:, :-2]) * fps**2
            axis = torch.tensor([1.0, 1.0, 10.0])
            squared = (acceleration.square() * axis).sum(-1)
            total = total + w.acceleration * _pseudo_huber(squared, w.acceleration_limit_mps2).mean((-1, -2))
            angular = _squared_acceleration(unknowns.pose, fps).sum(-1) + _squared_acceleration(unknowns.tilt, fps)
            angular = angular + _squared_acceleration(unknowns.yaw[..., None], fps)
            total = total + w.angular_acceleration * angular.mean(-1) / 24

        feet = posed.points[..., 17:, :].unflatten(-2, (2, 2))
        height = feet[..., 1] - unknowns.ground()[:, None, None, None]
        height_cost = (planted * _huber(height / 0.05).mean(-1)).sum(-1).mean(-1)
        total = total + ground_weight * w.height * height_cost / 2
        total = total + ground_weight * w.penetration * torch.relu(-height).square().sum((-1, -2)).mean(-1)
        slide = (feet[:, 1:] - feet[:, :-1]).square().sum(-1).mean(-1) * fps**2
        both_frames = torch.minimum(planted[1:], planted[:-1])
        slide_cost = (both_frames * slide / (0.09 + slide)).sum(-1).sum(-1)
        return total + ground_weight * w.slide * slide_cost / len(planted)

    def _to_fit(self, clip: Clip, unknowns: Unknowns, intrinsics: Float[np.ndarray, "4"]) -> Fit:
        with torch.no_grad():
            posed = self._pose(unknowns)
            to_camera = level_to_camera(unknowns.pitch)[0]
            rest = self.body.rest_joints(unknowns.betas[0])
        frames = len(clip.keypoints)
        camera = Camera(
            rotation=np.repeat(to_camera.numpy()[None], frames, 0),
            position=np.zeros((frames, 3), np.float32),
            intrinsics=intrinsics,
        )
        return Fit(
            rotations=posed.rotations[0],
            trans=posed.joints[0, :, joint("pelvis")] - rest[joint("pelvis")],
            betas=unknowns.betas[0],
            camera=camera,
            reprojection=reprojection_error(posed.points[0, :, :17].numpy(), camera, clip),
        )


def _squared_acceleration(values: Tensor, fps: float) -> Tensor:
    """Squared second derivative over time (the second axis), summed over the last axis."""
    return ((values[:, 2:] - 2 * values[:, 1:-1] + values[:, :-2]) * fps**2).square().sum(-1)


def _pseudo_huber(squared: Tensor, limit: float) -> Tensor:
    """Quadratic up to about `limit`, linear above (pseudo-Huber)."""
    return 2 * limit**2 * ((1 + squared / limit**2).sqrt() - 1)


def _ramp(progress: float) -> float:
    """0 in the first third, 1 in the last, linear between."""
    return min(1.0, max(0.0, 3 * progress - 1))


def _huber(values: Tensor) -> Tensor:
    """Quadratic near zero, linear above one (Huber)."""
    magnitude = values.abs()
    return torch.where(magnitude < 1, values**2, 2 * magnitude - 1)
