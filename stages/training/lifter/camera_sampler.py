"""Random cameras that film a motion: static, panning and moving ones.

The unit of length in an image is its diagonal, so a focal length of 1 is the default where none is known. 24 to 70 mm
equivalents are 0.55 to 1.62 of it.
"""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from schemas.rotations import axis_angle_to_matrix
from stages.training.lifter.random_curves import normal, smooth_curves, uniform

_FOCAL = (24 / 43.27, 70 / 43.27)
_NEAR_M, _FAR_M = 1.0, 12.0
_ASPECTS = (16 / 9, 4 / 3, 1.0, 9 / 16)
_MAX_ATTEMPTS = 5


@dataclass(frozen=True)
class Cameras:
    """One camera per window, x right, y down, z forward."""

    rotation: Float[Tensor, "N T 3 3"]
    """World to camera."""
    position: Float[Tensor, "N T 3"]
    focal: Float[Tensor, "N"]
    """Over the image's diagonal."""
    half_size: Float[Tensor, "N 2"]
    """Half of width and height, over the image's diagonal."""

    def to_camera(self, points: Float[Tensor, "N T K 3"]) -> Float[Tensor, "N T K 3"]:
        """World points in camera axes."""
        return (points - self.position[:, :, None]) @ self.rotation.transpose(-1, -2)

    def level_rotation(self) -> Float[Tensor, "N T 3 3"]:
        """World to each frame's level world: a rotation about Y after which the image's right is +X."""
        right = self.rotation[..., 0, :]
        cos, sin = right[..., 0], -right[..., 2]
        length = torch.hypot(cos, sin).clamp(min=1e-6)
        cos, sin = cos / length, sin / length
        zero, one = torch.zeros_like(cos), torch.ones_like(cos)
        # Maps the horizontal part of `right` to +X: yaw by minus its own angle.
        return torch.stack([cos, zero, -sin, zero, one, zero, sin, zero, cos], -1).unflatten(-1, (3, 3))

    def relative_rotation(self) -> Float[Tensor, "N T 3 3"]:
        """Rotation from the previous frame to each frame, in camera axes; the identity in the first."""
        relative = torch.eye(3, device=self.rotation.device).expand_as(self.rotation).clone()
        relative[:, 1:] = self.rotation[:, 1:] @ self.rotation[:, :-1].transpose(-1, -2)
        return relative


def draw_cameras(keypoints: Float[Tensor, "N T 17 3"], moving_share: float, generator: torch.Generator) -> Cameras:
    """Cameras from any side that see most of a motion's keypoints most of the time.

    Two out of three are at the heights of hand-held cameras (0.3 to 4 m) and look towards the person; the rest look up or down
    by N(5, 22) degrees. A camera with too much out of the image moves back.
    """
    device, (n, frames) = keypoints.device, keypoints.shape[:2]

    def rand(low: float, high: float, *shape: int) -> Tensor:
        return uniform(low, high, shape or (n,), generator)

    aspect = torch.tensor(_ASPECTS, device=device)[
        torch.randint(len(_ASPECTS), (n,), generator=generator, device=device)
    ]
    height = 1 / torch.sqrt(1 + aspect**2)
    half_size = torch.stack([aspect * height, height], -1) / 2
    focal = _FOCAL[0] * (_FOCAL[1] / _FOCAL[0]) ** rand(0.0, 1.0)
    depth = _NEAR_M * (_FAR_M / _NEAR_M) ** rand(0.0, 1.0)
    # A filmed person takes up at least an eighth of the image's height.
    depth = torch.minimum(depth, 1.7 * focal / (0.12 * height))

    centre = keypoints.mean(2)
    mean_centre = centre.mean(1)
    moving = rand(0.0, 1.0) < moving_share
    pan_share = torch.where(moving, rand(-0.3, 1.0).clamp(min=0), 0.0)
    travel_share = torch.where(moving, rand(-1.0, 1.0).clamp(min=0), 0.0)
    shake = torch.where(moving, rand(0.0, 1.0), 0.0)
    path = _smoothed(centre - mean_centre[:, None])
    drift = smooth_curves((n, 3), frames, 4, generator).transpose(1, 2) * 0.25 * shake[:, None, None]
    wobble = smooth_curves((n, 3), frames, 8, generator).transpose(1, 2)
    wobble = wobble * torch.tensor([0.03, 0.05, 0.02], device=device) * shake[:, None, None]

    yaw = rand(-math.pi, math.pi)
    roll = normal((n,), generator) * 0.02
    eye_m = (0.45 * normal((n,), generator) + math.log(1.45)).exp().clamp(0.3, 4.0)
    free_pitch = (math.radians(5) + math.radians(22) * normal((n,), generator)).clamp(
        math.radians(-35), math.radians(65)
    )
    natural = rand(0.0, 1.0) < 0.67
    ray_xy = (rand(-1.0, 1.0, n, 2)) * torch.tensor([0.6, 0.35], device=device) * half_size / focal[:, None]
    rotation = position = torch.empty(0)
    for _ in range(_MAX_ATTEMPTS):
        descent = torch.atan2(eye_m - mean_centre[:, 1], depth)
        pitch = torch.where(natural, descent - torch.atan(ray_xy[:, 1]), free_pitch)
        base = _attitude(yaw, pitch, roll)
        # The person's position in camera axes, rotated to the world.
        ray = torch.cat([ray_xy, torch.ones_like(depth)[:, None]], -1) * depth[:, None]
        eye = mean_centre - (ray[:, None] @ base)[:, 0]
        travel = path * travel_share[:, None, None] * torch.tensor([1.0, 0.3, 1.0], device=device)
        position = eye[:, None] + travel + drift
        towards = mean_centre[:, None] + path * torch.maximum(pan_share, travel_share)[:, None, None] - position
        start = mean_centre - eye
        pan = torch.atan2(towards[..., 0], towards[..., 2]) - torch.atan2(start[:, 0], start[:, 2])[:, None]
        pan = torch.atan2(pan.sin(), pan.cos()) * (pan_share > 0)[:, None]
        # Rotating the camera by +pan about Y rotates its view by -pan.
        about_y = torch.stack([torch.zeros_like(pan), pan, torch.zeros_like(pan)], -1)
        rotation = axis_angle_to_matrix(wobble) @ base[:, None] @ axis_angle_to_matrix(about_y).transpose(-1, -2)
        cameras = Cameras(rotation, position, focal, half_size)
        points = cameras.to_camera(keypoints)
        z = points[..., 2]
        inside = ((points[..., :2] / z[..., None].clamp(min=0.1)).abs() * focal[:, None, None, None]) < half_size[
            :, None, None
        ]
        visible_share = (inside.all(-1) & (z > 0.3)).float().mean((1, 2))
        far_enough = (z.amin((1, 2)) > 0.4) & (visible_share > 0.75)
        depth = torch.where(far_enough, depth, depth * 1.45 + 0.3)
    return Cameras(rotation, position, focal, half_size)


def _attitude(yaw: Tensor, pitch: Tensor, roll: Tensor) -> Float[Tensor, "N 3 3"]:
    """World to camera for a camera that looks along -Z at yaw 0, down by pitch, and rolls about its axis."""
    zero, one = torch.zeros_like(yaw), torch.ones_like(yaw)
    c, s = yaw.cos(), yaw.sin()
    yaw_rotation = torch.stack([c, zero, s, zero, one, zero, -s, zero, c], -1).unflatten(-1, (3, 3))
    c, s = pitch.cos(), pitch.sin()
    pitch_rotation = torch.stack([one, zero, zero, zero, -c, s, zero, -s, -c], -1).unflatten(-1, (3, 3))
    c, s = roll.cos(), roll.sin()
    roll_rotation = torch.stack([c, -s, zero, s, c, zero, zero, zero, one], -1).unflatten(-1, (3, 3))
    return roll_rotation @ pitch_rotation @ yaw_rotation


def _smoothed(path: Float[Tensor, "N T 3"]) -> Float[Tensor, "N T 3"]:
    """Smoothed over about a second, as an operator follows a person."""
    frames = torch.arange(path.shape[1], device=path.device, dtype=path.dtype)
    kernel = torch.exp(-0.5 * ((frames[:, None] - frames) / 8) ** 2)
    return (kernel / kernel.sum(-1, keepdim=True)) @ path
