"""Training examples from motions alone: batches of windows, seen by random cameras and a simulated detector."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from schemas.kinematics import forward_kinematics
from schemas.records import FPS
from schemas.rotations import heading_rad, yaw_matrix
from schemas.skeleton import joint
from stages.geometry.contacts import contact_probability
from stages.recovery.lifter.features import (
    FOCAL_GUESSED,
    FOCAL_KNOWN,
    Boxes,
    Observation,
    find_boxes,
    with_focal_length,
)
from stages.recovery.lifter.rigs import Rigs
from stages.training.lifter.augment import Windows, augment, draw_windows, mirror
from stages.training.lifter.camera_sampler import draw_cameras
from stages.training.lifter.detector_errors import SHIPPED_LANDMARKS, DetectorErrors, load_detector_errors
from stages.training.lifter.motion_dataset import MotionDataset
from stages.training.lifter.noise import (
    DetectorOutput,
    NoiseAmounts,
    degrade,
    draw_strength,
    facing_cosine,
    keypoint_offsets,
)
from stages.training.lifter.random_curves import bernoulli, normal, uniform
from stages.training.lifter.settings import Augmentation

_PELVIS, _HEAD = joint("pelvis"), joint("head")
_LEG = (joint("left_hip"), joint("left_ankle"))


@dataclass(frozen=True)
class FocalLengthNoise:
    """Errors of the assumed focal lengths."""

    unknown_share: float = 0.0
    """Share of windows for which the image's diagonal is assumed."""
    max_deviation: float = 0.0
    """Largest standard deviation of the log focal length in the rest, 0: exact; the smallest is that of a known one."""
    known_share: float = 0.4
    """Share of the rest with that smallest deviation."""

    def draw(
        self, focal: Float[Tensor, "N"], generator: torch.Generator
    ) -> tuple[Float[Tensor, "N"], Float[Tensor, "N"]]:
        """The focal length assumed for each true one, over the diagonal, and the expected deviation of its log."""
        share = uniform(1 - 1 / (1 - self.known_share), 1.0, focal.shape, generator).clamp(min=0)
        deviation = FOCAL_KNOWN + max(0.0, self.max_deviation - FOCAL_KNOWN) * share
        log_error = (deviation if self.max_deviation else 0.0) * normal(focal.shape, generator).clamp(-2.5, 2.5)
        unknown = bernoulli(self.unknown_share, focal.shape, generator)
        return torch.where(unknown, 1.0, focal * log_error.exp()), torch.where(unknown, FOCAL_GUESSED, deviation)


@dataclass(frozen=True)
class Targets:
    """Targets of the lifter, N windows of T frames. Points are relative to the pelvis, in its own axes."""

    rotations: Float[Tensor, "N T 24 3 3"]
    """Local; the first is the orientation in the world."""
    betas: Float[Tensor, "N 10"]
    joints: Float[Tensor, "N T 24 3"]
    contact_points: Float[Tensor, "N T 4 3"]
    root_camera: Float[Tensor, "N T 3 3"]
    root_level: Float[Tensor, "N T 3 3"]
    velocity: Float[Tensor, "N T 3"]
    """In the heading's frame, metres per second, towards the next frame."""
    pelvis_camera: Float[Tensor, "N T 3"]
    """Metres, in the frame of a camera with the assumed focal length."""
    rays: Float[Tensor, "N T 17 2"]
    """Of the keypoints, without noise, through the assumed focal length."""
    contacts: Float[Tensor, "N T 4"]
    """Ground contact of each point, 0 to 1."""


@dataclass(frozen=True)
class Examples:
    """A batch."""

    observation: Observation
    boxes: Boxes
    targets: Targets


def draw_examples(
    dataset: MotionDataset, count: int, frames: int, rigs: Rigs, augmentation: Augmentation, generator: torch.Generator
) -> Examples:
    """A batch of augmented windows of the dataset with random bodies, cameras and detections."""
    windows = draw_augmented_windows(dataset, count, frames, augmentation, generator)
    betas = normal((count, 10), generator).clamp(-2.5, 2.5) * augmentation.shape_spread
    amounts = NoiseAmounts(strength=augmentation.noise)
    detectors = []
    if augmentation.detector:
        shares = {None: 1 - augmentation.landmarks, SHIPPED_LANDMARKS: augmentation.landmarks}
        detectors = [
            (load_detector_errors(path).to(generator.device), augmentation.detector * share)
            for path, share in shares.items()
            if share
        ]
    focal_noise = FocalLengthNoise(augmentation.focal_guessed, augmentation.focal_error)
    return film(windows, betas, rigs, augmentation.moving_cameras, amounts, focal_noise, generator, detectors)


def draw_augmented_windows(
    dataset: MotionDataset, count: int, frames: int, augmentation: Augmentation, generator: torch.Generator
) -> Windows:
    """Windows of the dataset at various speeds, half of them mirrored, some with synthetic or recombined limbs."""
    windows = draw_windows(dataset, count, frames, (augmentation.slowest, augmentation.fastest), generator)
    return augment(mirror(windows, bernoulli(0.5, (count,), generator)), augmentation.shares(), generator)


def film(
    windows: Windows,
    betas: Float[Tensor, "N 10"],
    rigs: Rigs,
    moving_share: float,
    amounts: NoiseAmounts,
    focal_noise: FocalLengthNoise,
    generator: torch.Generator,
    detectors: Sequence[tuple[DetectorErrors, float]] = (),
) -> Examples:
    """Windows on bodies, seen by cameras and a detector. Paths scale with the length of the legs, so that planted feet stay put.

    `detectors` are learned error models, each with the share of the degraded windows that use it.
    """
    body = rigs.body
    rest = body.rest_joints(betas)
    scale = _leg_length(rest) / _leg_length(body.joint_template[None])
    pelvis = windows.pelvis * scale[:, None, None]
    root = windows.rotations[:, :, 0]
    rotations = windows.rotations.clone()
    rotations[:, :, 0] = torch.eye(3, device=root.device)
    shape = betas[:, None]
    joints, global_rotations = forward_kinematics(rotations, rest[:, None], -rest[:, None, _PELVIS].expand_as(pelvis))
    keypoints = rigs.keypoints.points(global_rotations, joints, shape)
    feet = rigs.contacts.points(global_rotations, joints, shape)

    def in_world(points: Tensor) -> Tensor:
        return points @ root.transpose(-1, -2) + pelvis[:, :, None]

    strength = draw_strength(len(betas), amounts, generator)
    offsets = keypoint_offsets(strength, generator)
    world = in_world(keypoints)
    cameras = draw_cameras(world, moving_share, generator)
    assumed, focal_deviation = focal_noise.draw(cameras.focal, generator)
    focal_ratio = (cameras.focal / assumed)[:, None, None]

    def to_rays(points: Tensor) -> Tensor:
        return points[..., :2] / points[..., 2:].clamp(min=0.1) * focal_ratio[..., None]

    points = cameras.to_camera(world)
    rays, offset_rays = to_rays(points), to_rays(cameras.to_camera(in_world(keypoints + offsets)))
    pelvis_camera = cameras.to_camera(pelvis[:, :, None])[:, :, 0]
    # With too long an assumed focal length everything is farther away, and of the same size in the image.
    pelvis_camera = torch.cat([pelvis_camera[..., :2], pelvis_camera[..., 2:] / focal_ratio], dim=-1)

    full_confidence = torch.ones(rays.shape[:3], device=rays.device)
    camera_rotation = with_focal_length(cameras.relative_rotation(), focal_ratio[..., 0])
    no_depths = torch.zeros_like(points)
    boxes = find_boxes(Observation(rays, full_confidence, camera_rotation, windows.valid, no_depths, focal_deviation))
    half_view = cameras.half_size / assumed[:, None]
    towards = -pelvis_camera / pelvis_camera.norm(dim=-1, keepdim=True).clamp(min=0.1)
    facing = facing_cosine(cameras.rotation @ root @ global_rotations[:, :, _HEAD], towards)
    learned = None
    if detectors:
        mean_depth = points[..., 2].mean(-1, keepdim=True).clamp(min=0.1)
        depth = (points[..., 2] / mean_depth - 1) * focal_ratio
        learned = _draw_detections(detectors, points, rays, depth, boxes, half_view, generator)
    noisy_rays, confidence, depths = degrade(
        offset_rays, boxes.size, half_view, facing, strength, amounts, generator, learned
    )
    observation = Observation(
        noisy_rays,
        confidence * windows.valid[..., None],
        camera_rotation,
        windows.valid,
        depths,
        focal_deviation,
    )
    step = torch.cat([pelvis[:, 1:] - pelvis[:, :-1], (pelvis[:, -1:] - pelvis[:, -2:-1])], dim=1) * FPS
    heading = yaw_matrix(heading_rad(root))
    targets = Targets(
        rotations=windows.rotations,
        betas=betas,
        joints=joints,
        contact_points=feet,
        root_camera=cameras.rotation @ root,
        root_level=cameras.level_rotation() @ root,
        velocity=(heading.transpose(-1, -2) @ step[..., None])[..., 0],
        pelvis_camera=pelvis_camera,
        rays=rays,
        contacts=contact_probability(in_world(feet)),
    )
    return Examples(observation, find_boxes(observation), targets)


def _draw_detections(
    detectors: Sequence[tuple[DetectorErrors, float]],
    points: Float[Tensor, "N T 17 3"],
    rays: Float[Tensor, "N T 17 2"],
    depth: Float[Tensor, "N T 17"],
    boxes: Boxes,
    half_view: Float[Tensor, "N 2"],
    generator: torch.Generator,
) -> DetectorOutput:
    """Detections sampled from the error models, each for its own windows; `depth` is the true one in the unit of
    `Observation.depths`."""
    selector = uniform(0.0, 1.0, (len(points),), generator)
    size = boxes.size[..., None, None]
    detected_rays, confidence, depths = rays, torch.ones_like(depth), torch.zeros_like(points)
    lower = 0.0
    for detector, share in detectors:
        sample = detector.sample(points, boxes.size / (2 * half_view.amax(-1, keepdim=True)), generator)
        selected = ((selector >= lower) & (selector < lower + share))[:, None, None]
        has_depths = (sample.depths[..., 1:] > 0).all(-1)
        sampled_depths = torch.cat(
            [depth[..., None] + sample.depths[..., :1] * size, sample.depths[..., 1:] * size], dim=-1
        )
        detected_rays = torch.where(selected[..., None], rays + sample.error * size, detected_rays)
        confidence = torch.where(selected, sample.confidence, confidence)
        depths = torch.where((selected & has_depths)[..., None], sampled_depths, depths)
        lower += share
    return DetectorOutput(detected_rays, confidence, depths, selector < lower)


def _leg_length(rest: Float[Tensor, "N 24 3"]) -> Float[Tensor, "N"]:
    return (rest[:, _LEG[0], 1] - rest[:, _LEG[1], 1]).abs()
