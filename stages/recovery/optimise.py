"""Fitting by optimisation alone: find the pose whose keypoints fall where they were seen and which a body would take.

One clip at a time, so that a clip's fit depends on nothing else; its hypotheses about facing are optimised side by side
on every third frame, the best one then on all frames. Everything runs on one thread with fixed steps: the same clip gives
the same bits.
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
from stages.geometry.keypoints import KeypointRays, clean_keypoints
from stages.recovery import facing, priors
from stages.recovery.initialization import (
    ANKLES,
    PITCH_MEAN_RAD,
    PITCH_SPREAD_RAD,
    bone_depth,
    closed_form_place,
    ground_line,
    prepare,
)
from stages.recovery.protocol import Fit


@dataclass(frozen=True)
class Weights:
    """How much each part of the cost counts, per frame."""

    pose: float = 0.02
    """Of `priors.pose_cost`."""
    tilt: float = 0.6
    """Of the pelvis against upright, in units of 0.35 rad."""
    shape: float = 0.05
    """Squared betas."""
    pitch: float = 0.5
    """Squared distance from the usual pitch, in spreads."""
    acceleration: float = 1.5e-3
    """Mean over joints of (m/s^2)^2; along the line of sight ten times that."""
    usual_mps2: float = 20.0
    """Beyond this an acceleration costs in proportion: legs that run are not to be slowed down."""
    turning: float = 2e-4
    """Angular acceleration, (rad/s^2)^2 summed over joints / 24."""
    slide: float = 1.0
    """Of a planted foot, robust: half of it at 0.3 m/s."""
    height: float = 1.0
    """Of a planted foot over or under the ground, in units of 5 cm."""
    sink: float = 500.0
    """Squared metres below the ground, summed over heels and toes."""


@dataclass
class Unknowns:
    """What is solved for, H hypotheses side by side."""

    yaw: Float[Tensor, "H T"]
    tilt: Float[Tensor, "H T 2"]
    """Rotation vector of the pelvis after its yaw, about x (forwards) and z (to the right)."""
    pose: Float[Tensor, "H T 23 3"]
    place: Float[Tensor, "H T 3"]
    """Pelvis: ray x, ray y and logarithm of depth, in the camera."""
    betas: Float[Tensor, "H 10"]
    pitch: Float[Tensor, "H"]
    drop: Float[Tensor, "H"]
    """The ground passes below the camera's axis at `depth_m` by this share of it: image row and depth of where people
    stand are known well, while its height hangs on the pitch."""
    depth_m: Float[Tensor, "H"]
    """Held fixed: how far away the person is, about."""

    def each(self) -> list[Tensor]:
        """All that is optimised."""
        return [self.yaw, self.tilt, self.pose, self.place, self.betas, self.pitch, self.drop]

    def pick(self, hypothesis: int) -> "Unknowns":
        """One hypothesis alone."""
        picked = {name: value.detach()[hypothesis : hypothesis + 1].clone() for name, value in vars(self).items()}
        return Unknowns(**picked)

    def resample(self, stride: int, frames: int) -> "Unknowns":
        """From every `stride`-th frame to all, linearly."""
        at = torch.arange(frames) / stride
        low = at.long().clamp(max=self.yaw.shape[1] - 1)
        high = (low + 1).clamp(max=self.yaw.shape[1] - 1)
        part = at - low

        def between(value: Tensor) -> Tensor:
            w = part.reshape(-1, *[1] * (value.ndim - 2))
            return value[:, low] * (1 - w) + value[:, high] * w

        moving = ("yaw", "tilt", "pose", "place")
        return Unknowns(**{name: between(v) if name in moving else v.clone() for name, v in vars(self).items()})

    def ground(self) -> Float[Tensor, "H"]:
        """Height of the ground in the level world, metres."""
        return -self.depth_m * (self.drop * torch.cos(self.pitch) + torch.sin(self.pitch))


@dataclass(frozen=True)
class Posed:
    """The unknowns made into a body in the level world."""

    rotations: Float[Tensor, "H T 24 3 3"]
    joints: Float[Tensor, "H T 24 3"]
    points: Float[Tensor, "H T 21 3"]
    """17 keypoints, then the 4 contact points."""
    in_camera: Float[Tensor, "H T 17 3"]


class OptimiseFitter:
    """SMPLify's idea (Bogo et al. 2016) over time, with facing from evidence and a ground to stand on."""

    version = "optimise 1"
    stride = 3

    def __init__(self, body: BodyModel, *, coarse_steps: int, fine_steps: int) -> None:
        self.body = body
        self.coarse_steps, self.fine_steps = coarse_steps, fine_steps
        self.rig = PointRig(body, torch.cat([body.keypoint_regressor, body.contact_regressor]))
        self.weights = Weights()

    def fit(self, clips: Sequence[Clip]) -> list[Fit]:
        """One fit a clip; each is solved alone, so its bits do not depend on the others."""
        return [self._fit_one(clip) for clip in clips]

    def _fit_one(self, clip: Clip) -> Fit:
        intrinsics = intrinsics_of(clip.track.shot.video)
        seen = prepare(clip, intrinsics)
        coarse = seen.every(self.stride)
        unknowns = self._start(clip, coarse)
        costs = self._solve(unknowns, coarse, self.coarse_steps, sharpness=(0.25, 0.05), late_ground=True)
        best = unknowns.pick(int(costs.argmin())).resample(self.stride, len(seen.rays))
        self._solve(best, seen, self.fine_steps, sharpness=(0.05, 0.04), pace=0.4)
        return self._finish(clip, best, intrinsics)

    def _start(self, clip: Clip, seen: KeypointRays) -> Unknowns:
        """Standing people that face as the evidence says, or its mirror image in depth, put where they were seen."""
        path = facing.best_path(facing.yaw_evidence(clean_keypoints(clip.keypoints)))
        # The mirror image explains the same widths: only nose, ears and knees tell them apart, often barely.
        paths = np.stack([path, -path])
        yaw = torch.from_numpy(paths).float()[:, :: self.stride].contiguous()
        hypotheses, frames = yaw.shape
        unknowns = Unknowns(
            yaw=yaw,
            tilt=torch.zeros(hypotheses, frames, 2),
            pose=priors.MEAN.expand(hypotheses, frames, -1, -1).clone(),
            place=torch.zeros(hypotheses, frames, 3),
            betas=torch.zeros(hypotheses, 10),
            pitch=torch.full((hypotheses,), PITCH_MEAN_RAD),
            drop=torch.zeros(hypotheses),
            depth_m=torch.ones(hypotheses),
        )
        with torch.no_grad():
            # With the pelvis one metre ahead, what is relative to it is what remains without that metre.
            relative = self._pose(unknowns).in_camera - torch.tensor([0.0, 0.0, 1.0])
            template = self.body.keypoint_regressor @ self.body.template
            unknowns.place = closed_form_place(relative, bone_depth(template, seen), seen)
            depth = self._pose(unknowns).in_camera[..., ANKLES, 2]
            unknowns.pitch, unknowns.drop, unknowns.depth_m = ground_line(depth, seen)
        return unknowns

    def _pose(self, unknowns: Unknowns) -> Posed:
        forwards, sideways = unknowns.tilt.unbind(-1)
        tilt = torch.stack([forwards, torch.zeros_like(forwards), sideways], -1)
        root = yaw_matrix(unknowns.yaw) @ axis_angle_to_matrix(tilt)
        local = priors.HANGING @ axis_angle_to_matrix(unknowns.pose)
        rotations = torch.cat([root[..., None, :, :], local], dim=-3)
        depth = unknowns.place[..., 2:].exp()
        pelvis_in_camera = torch.cat([unknowns.place[..., :2] * depth, depth], dim=-1)
        to_camera = level_to_camera(unknowns.pitch)[:, None]
        pelvis = pelvis_in_camera @ to_camera[:, 0]
        rest = self.body.rest_joints(unknowns.betas)[:, None]
        joints, turns = forward_kinematics(rotations, rest, pelvis - rest[..., 0, :])
        points = self.rig.points(turns, joints, unknowns.betas[:, None])
        in_camera = points[..., :17, :] @ to_camera.transpose(-1, -2)
        return Posed(rotations, joints, points, in_camera)

    def _solve(
        self,
        unknowns: Unknowns,
        seen: KeypointRays,
        steps: int,
        *,
        sharpness: tuple[float, float],
        pace: float = 1.0,
        late_ground: bool = False,
    ) -> Float[Tensor, "H"]:
        """Adam on all unknowns at once, in place; the final cost of each hypothesis.

        sharpness: where the robust reprojection lets go, in box sizes, at the first and from the middle step on.
        late_ground: whether the ground comes in only on the way; stiff against legs that are still straight, it would keep
        them from bending.
        """
        rates = (0.03, 0.03, 0.04, 0.01, 0.02, 0.01, 0.02)
        groups = [
            {"params": [value.requires_grad_(True)], "lr": rate * pace}
            for value, rate in zip(unknowns.each(), rates, strict=True)
        ]
        optimiser = torch.optim.Adam(groups, betas=(0.9, 0.99), foreach=False)
        for step in range(steps):
            progress = step / steps
            sigma = sharpness[0] * (sharpness[1] / sharpness[0]) ** min(1.0, 2 * progress)
            for group, rate in zip(optimiser.param_groups, rates, strict=True):
                group["lr"] = rate * pace * (0.02 + 0.98 * np.cos(np.pi / 2 * progress) ** 2)
            optimiser.zero_grad(set_to_none=True)
            self._cost(unknowns, seen, sigma, _ramp(progress) if late_ground else 1.0).sum().backward()
            optimiser.step()
        for value in unknowns.each():
            value.requires_grad_(False)
        with torch.no_grad():
            return self._cost(unknowns, seen, sharpness[1])

    def _cost(self, unknowns: Unknowns, seen: KeypointRays, sigma: float, ground: float = 1.0) -> Float[Tensor, "H"]:
        w = self.weights
        posed = self._pose(unknowns)
        depth = posed.in_camera[..., 2:].clamp(min=MIN_DEPTH_M)
        apart = (posed.in_camera[..., :2] / depth - seen.rays).square().sum(-1) * (seen.scale / sigma) ** 2
        # Geman and McClure's: a keypoint that lies far off counts 1 however far it lies.
        total = (seen.weight * apart / (1 + apart)).sum(-1).mean(-1)

        total = total + w.pose * priors.pose_cost(unknowns.pose).mean(-1)
        total = total + w.tilt * _gentle(unknowns.tilt / 0.35).sum(-1).mean(-1)
        total = total + w.shape * unknowns.betas.square().sum(-1)
        total = total + w.pitch * ((unknowns.pitch - PITCH_MEAN_RAD) / PITCH_SPREAD_RAD) ** 2

        if posed.joints.shape[1] > 2:
            joints = posed.joints
            acceleration = (joints[:, 2:] - 2 * joints[:, 1:-1] + joints[:, :-2]) * seen.fps**2
            axis = torch.tensor([1.0, 1.0, 10.0])
            squared = (acceleration.square() * axis).sum(-1)
            total = total + w.acceleration * _beyond(squared, w.usual_mps2).mean((-1, -2))
            turning = _second(unknowns.pose, seen.fps).sum(-1) + _second(unknowns.tilt, seen.fps)
            turning = turning + _second(unknowns.yaw[..., None], seen.fps)
            total = total + w.turning * turning.mean(-1) / 24

        feet = posed.points[..., 17:, :].unflatten(-2, (2, 2))
        above = feet[..., 1] - unknowns.ground()[:, None, None, None]
        total = total + ground * w.height * (seen.planted * _gentle(above / 0.05).mean(-1)).sum(-1).mean(-1) / 2
        total = total + ground * w.sink * torch.relu(-above).square().sum((-1, -2)).mean(-1)
        slide = (feet[:, 1:] - feet[:, :-1]).square().sum(-1).mean(-1) * seen.fps**2
        both = torch.minimum(seen.planted[1:], seen.planted[:-1])
        return total + ground * w.slide * (both * slide / (0.09 + slide)).sum(-1).sum(-1) / len(seen.rays)

    def _finish(self, clip: Clip, unknowns: Unknowns, intrinsics: Float[np.ndarray, "4"]) -> Fit:
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


def _second(values: Tensor, fps: float) -> Tensor:
    """Squared second derivative over time (the second axis), summed over the last axis."""
    return ((values[:, 2:] - 2 * values[:, 1:-1] + values[:, :-2]) * fps**2).square().sum(-1)


def _beyond(squared: Tensor, usual: float) -> Tensor:
    """A square that becomes linear beyond `usual` (pseudo-Huber)."""
    return 2 * usual**2 * ((1 + squared / usual**2).sqrt() - 1)


def _ramp(progress: float) -> float:
    """0 for the first third of the way, 1 for the last."""
    return min(1.0, max(0.0, 3 * progress - 1))


def _gentle(apart: Tensor) -> Tensor:
    """Quadratic near zero, linear beyond one (Huber)."""
    size = apart.abs()
    return torch.where(size < 1, apart**2, 2 * size - 1)
