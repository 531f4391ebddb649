"""Training examples out of nothing but motions: a batch of windows, filmed by made-up cameras, seen by a made-up detector."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from schemas.kinematics import forward_kinematics
from schemas.records import FPS
from schemas.rotations import heading_rad, yaw_matrix
from schemas.skeleton import joint
from stages.recovery.lifter.features import (
    FOCAL_GUESSED,
    FOCAL_KNOWN,
    Boxes,
    Observation,
    find_boxes,
    with_focal_length,
)
from stages.recovery.lifter.rigs import Rigs
from stages.training.lifter.augment import Windows, draw_windows, mirror, vary
from stages.training.lifter.camera_sampler import draw_cameras
from stages.training.lifter.detector_errors import SHIPPED_CLOSEUP, DetectorErrors, load_detector_errors
from stages.training.lifter.motion_dataset import MotionDataset
from stages.training.lifter.noise import (
    DetectorOutput,
    NoiseAmounts,
    degrade,
    draw_strength,
    face_towards,
    place_offsets,
)
from stages.training.lifter.random_curves import chance, normal, uniform
from stages.training.lifter.settings import Augmentation

_PELVIS, _HEAD = joint("pelvis"), joint("head")
_LEG = (joint("left_hip"), joint("left_ankle"))


@dataclass(frozen=True)
class Lenses:
    """How well focal lengths are known."""

    guessed: float = 0.0
    """Share of windows in which the image's diagonal is taken for it."""
    most: float = 0.0
    """Greatest deviation of its log in the others, 0 where they are right; the least is that of one that is told."""
    told: float = 0.4
    """Share of the others with that least one."""

    def assumed(
        self, focal: Float[Tensor, "N"], generator: torch.Generator
    ) -> tuple[Float[Tensor, "N"], Float[Tensor, "N"]]:
        """The focal length that is taken for each true one, over the diagonal, and its expected deviation."""
        share = uniform(1 - 1 / (1 - self.told), 1.0, focal.shape, generator).clamp(min=0)
        off = FOCAL_KNOWN + max(0.0, self.most - FOCAL_KNOWN) * share
        wrong = (off if self.most else 0.0) * normal(focal.shape, generator).clamp(-2.5, 2.5)
        guessed = chance(self.guessed, focal.shape, generator)
        return torch.where(guessed, 1.0, focal * wrong.exp()), torch.where(guessed, FOCAL_GUESSED, off)


@dataclass(frozen=True)
class Truth:
    """What the lifter should have said, N windows of T frames. Points are relative to the pelvis, in its own axes."""

    rotations: Float[Tensor, "N T 24 3 3"]
    """Local; the first is the orientation in the world."""
    betas: Float[Tensor, "N 10"]
    joints: Float[Tensor, "N T 24 3"]
    contact_points: Float[Tensor, "N T 4 3"]
    root_camera: Float[Tensor, "N T 3 3"]
    root_level: Float[Tensor, "N T 3 3"]
    velocity: Float[Tensor, "N T 3"]
    """In the heading's frame, metres a second, towards the next frame."""
    pelvis_camera: Float[Tensor, "N T 3"]
    """Metres, as a camera of the assumed focal length would have it."""
    rays: Float[Tensor, "N T 17 2"]
    """Of the keypoints, without noise, through the assumed focal length."""
    contacts: Float[Tensor, "N T 4"]
    """How much each point stands on the ground, 0 to 1."""


@dataclass(frozen=True)
class Examples:
    """A batch."""

    seen: Observation
    boxes: Boxes
    truth: Truth


def draw_examples(
    dataset: MotionDataset, count: int, frames: int, rigs: Rigs, augmentation: Augmentation, generator: torch.Generator
) -> Examples:
    """Windows of the dataset with everything varied."""
    windows = varied_windows(dataset, count, frames, augmentation, generator)
    betas = normal((count, 10), generator).clamp(-2.5, 2.5) * augmentation.shape_spread
    amounts = NoiseAmounts(strength=augmentation.noise)
    detectors = []
    if augmentation.detector:
        shares = {None: 1 - augmentation.closeup, SHIPPED_CLOSEUP: augmentation.closeup}
        detectors = [
            (load_detector_errors(path).to(generator.device), augmentation.detector * share)
            for path, share in shares.items()
            if share
        ]
    lenses = Lenses(augmentation.focal_guessed, augmentation.focal_error)
    return film(windows, betas, rigs, augmentation.moving_cameras, amounts, lenses, generator, detectors)


def varied_windows(
    dataset: MotionDataset, count: int, frames: int, augmentation: Augmentation, generator: torch.Generator
) -> Windows:
    """Windows of the dataset at various speeds, half of them mirrored, some with other limbs."""
    windows = draw_windows(dataset, count, frames, (augmentation.slowest, augmentation.fastest), generator)
    return vary(mirror(windows, chance(0.5, (count,), generator)), augmentation.shares(), generator)


def film(
    windows: Windows,
    betas: Float[Tensor, "N 10"],
    rigs: Rigs,
    moving_share: float,
    amounts: NoiseAmounts,
    lenses: Lenses,
    generator: torch.Generator,
    detectors: Sequence[tuple[DetectorErrors, float]] = (),
) -> Examples:
    """Windows on bodies, seen by cameras and a detector. Longer legs make longer ways, so that feet stay where they stand.

    Each of `detectors` says how one errs, as was learned, and in what share of the degraded windows that is taken.
    """
    body = rigs.body
    rest = body.rest_joints(betas)
    size = _leg(rest) / _leg(body.joint_template[None])
    pelvis = windows.pelvis * size[:, None, None]
    root = windows.rotations[:, :, 0]
    unturned = windows.rotations.clone()
    unturned[:, :, 0] = torch.eye(3, device=root.device)
    shape = betas[:, None]
    joints, turns = forward_kinematics(unturned, rest[:, None], -rest[:, None, _PELVIS].expand_as(pelvis))
    keypoints, feet = rigs.keypoints.points(turns, joints, shape), rigs.contacts.points(turns, joints, shape)

    def in_world(points: Tensor) -> Tensor:
        return points @ root.transpose(-1, -2) + pelvis[:, :, None]

    strength = draw_strength(len(betas), amounts, generator)
    elsewhere = place_offsets(strength, generator)
    world = in_world(keypoints)
    cameras = draw_cameras(world, moving_share, generator)
    assumed, focal_off = lenses.assumed(cameras.focal, generator)
    wrong = (cameras.focal / assumed)[:, None, None]

    def to_rays(points: Tensor) -> Tensor:
        return points[..., :2] / points[..., 2:].clamp(min=0.1) * wrong[..., None]

    points = cameras.see(world)
    rays, shown = to_rays(points), to_rays(cameras.see(in_world(keypoints + elsewhere)))
    in_camera = cameras.see(pelvis[:, :, None])[:, :, 0]
    # With a focal length taken too long everything is farther away, and as large in the picture.
    in_camera = torch.cat([in_camera[..., :2], in_camera[..., 2:] / wrong], dim=-1)

    still = torch.ones(rays.shape[:3], device=rays.device)
    turn = with_focal_length(cameras.turn(), wrong[..., 0])
    boxes = find_boxes(Observation(rays, still, turn, windows.valid, torch.zeros_like(points), focal_off))
    half_view = cameras.half_size / assumed[:, None]
    towards = -in_camera / in_camera.norm(dim=-1, keepdim=True).clamp(min=0.1)
    facing = face_towards(cameras.rotation @ root @ turns[:, :, _HEAD], towards)
    said = None
    if detectors:
        middle = points[..., 2].mean(-1, keepdim=True).clamp(min=0.1)
        depth = (points[..., 2] / middle - 1) * wrong
        said = _said(detectors, points, rays, depth, boxes, half_view, generator)
    noisy, confidence, closeup = degrade(shown, boxes.size, half_view, facing, strength, amounts, generator, said)
    seen = Observation(noisy, confidence * windows.valid[..., None], turn, windows.valid, closeup, focal_off)
    step = torch.cat([pelvis[:, 1:] - pelvis[:, :-1], (pelvis[:, -1:] - pelvis[:, -2:-1])], dim=1) * FPS
    heading = yaw_matrix(heading_rad(root))
    truth = Truth(
        rotations=windows.rotations,
        betas=betas,
        joints=joints,
        contact_points=feet,
        root_camera=cameras.rotation @ root,
        root_level=cameras.level() @ root,
        velocity=(heading.transpose(-1, -2) @ step[..., None])[..., 0],
        pelvis_camera=in_camera,
        rays=rays,
        contacts=standing(in_world(feet)),
    )
    return Examples(seen, find_boxes(seen), truth)


def _said(
    detectors: Sequence[tuple[DetectorErrors, float]],
    points: Float[Tensor, "N T 17 3"],
    rays: Float[Tensor, "N T 17 2"],
    depth: Float[Tensor, "N T 17"],
    boxes: Boxes,
    half_view: Float[Tensor, "N 2"],
    generator: torch.Generator,
) -> DetectorOutput:
    """What the detectors say, each of windows of its own; `depth` is the true one as `Observation.closeup` has it."""
    lot = uniform(0.0, 1.0, (len(points),), generator)
    size = boxes.size[..., None, None]
    seen, sure, told = rays, torch.ones_like(depth), torch.zeros_like(points)
    below = 0.0
    for detector, share in detectors:
        drawn = detector.draw(points, boxes.size / (2 * half_view.amax(-1, keepdim=True)), generator)
        mine = ((lot >= below) & (lot < below + share))[:, None, None]
        looked = (drawn.closeup[..., 1:] > 0).all(-1)
        closer = torch.cat([depth[..., None] + drawn.closeup[..., :1] * size, drawn.closeup[..., 1:] * size], dim=-1)
        seen = torch.where(mine[..., None], rays + drawn.error * size, seen)
        sure = torch.where(mine, drawn.confidence, sure)
        told = torch.where((mine & looked)[..., None], closer, told)
        below += share
    return DetectorOutput(seen, sure, told, lot < below)


def standing(feet: Float[Tensor, "N T 4 3"]) -> Float[Tensor, "N T 4"]:
    """Near 1 where a point is slow (0.3 m/s) and low (6 cm), falling off smoothly as neither limit is sharp."""
    step = (feet[:, 1:] - feet[:, :-1]).norm(dim=-1) * FPS
    speed = torch.cat([step[:, :1], (step[:, 1:] + step[:, :-1]) / 2, step[:, -1:]], dim=1)
    return ((0.3 - speed) / 0.06).sigmoid() * ((0.06 - feet[..., 1]) / 0.012).sigmoid()


def _leg(rest: Float[Tensor, "N 24 3"]) -> Float[Tensor, "N"]:
    return (rest[:, _LEG[0], 1] - rest[:, _LEG[1], 1]).abs()
