"""Training examples out of nothing but motions: a batch of windows, filmed by made-up cameras, seen by a made-up detector."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from schemas.body_model import BodyModel, PointRig
from schemas.kinematics import forward_kinematics
from schemas.records import FPS
from schemas.rotations import heading_rad, yaw_matrix
from schemas.skeleton import joint
from stages.lifting.augment import Shares, Windows, draw_windows, mirror, vary
from stages.lifting.bank import Bank
from stages.lifting.cameras import draw_cameras
from stages.lifting.detector_errors import DetectorErrors, load_detector_errors
from stages.lifting.draw import chance, normal
from stages.lifting.features import Boxes, Observation, find_boxes
from stages.lifting.noise import NoiseAmounts, Said, degrade, draw_strength, face_towards, place_offsets
from stages.lifting.settings import Augmentation

_PELVIS, _HEAD = joint("pelvis"), joint("head")
_LEG = (joint("left_hip"), joint("left_ankle"))


@dataclass(frozen=True)
class Rigs:
    """The body, with its keypoints and contact points ready to be posed."""

    body: BodyModel
    keypoints: PointRig
    contacts: PointRig

    @classmethod
    def of(cls, body: BodyModel, device: torch.device | str = "cpu") -> "Rigs":
        """On a device."""
        return cls(body.to(device), body.keypoint_rig().to(device), body.contact_rig().to(device))


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
    bank: Bank, count: int, frames: int, rigs: Rigs, augmentation: Augmentation, generator: torch.Generator
) -> Examples:
    """Windows of the bank with everything varied."""
    windows = draw_windows(bank, count, frames, (augmentation.slowest, augmentation.fastest), generator)
    windows = mirror(windows, chance(0.5, (count,), generator))
    names = ("gestures", "kicks", "recombined", "perturbed")
    windows = vary(windows, Shares(**{name: getattr(augmentation, name) for name in names}), generator)
    betas = normal((count, 10), generator).clamp(-2.5, 2.5) * augmentation.shape_spread
    amounts = NoiseAmounts(strength=augmentation.noise)
    detector = load_detector_errors().to(generator.device) if augmentation.detector else None
    return film(
        windows, betas, rigs, augmentation.moving_cameras, amounts, augmentation.focal_error, generator, detector,
        augmentation.detector,
    )  # fmt: skip


def film(
    windows: Windows,
    betas: Float[Tensor, "N 10"],
    rigs: Rigs,
    moving_share: float,
    amounts: NoiseAmounts,
    focal_error: float,
    generator: torch.Generator,
    detector: DetectorErrors | None = None,
    detector_share: float = 0.0,
) -> Examples:
    """Windows on bodies, seen by cameras and a detector. Longer legs make longer ways, so that feet stay where they stand.

    In a share of the degraded windows errors are those learned from a detector.
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
    assumed = cameras.focal * (focal_error * normal(cameras.focal.shape, generator)).clamp(-0.5, 0.5).exp()
    wrong = (cameras.focal / assumed)[:, None, None]

    def to_rays(points: Tensor) -> Tensor:
        return points[..., :2] / points[..., 2:].clamp(min=0.1) * wrong[..., None]

    points = cameras.see(world)
    rays, shown = to_rays(points), to_rays(cameras.see(in_world(keypoints + elsewhere)))
    in_camera = cameras.see(pelvis[:, :, None])[:, :, 0]
    # With a focal length taken too long everything is farther away, and as large in the picture.
    in_camera = torch.cat([in_camera[..., :2], in_camera[..., 2:] / wrong], dim=-1)

    still = torch.ones(rays.shape[:3], device=rays.device)
    turn = cameras.turn()
    boxes = find_boxes(Observation(rays, still, turn, windows.valid))
    half_view = cameras.half_size / assumed[:, None]
    towards = -in_camera / in_camera.norm(dim=-1, keepdim=True).clamp(min=0.1)
    facing = face_towards(cameras.rotation @ root @ turns[:, :, _HEAD], towards)
    said = None
    if detector is not None:
        errors, sure = detector.draw(points, boxes.size / (2 * half_view.amax(-1, keepdim=True)), generator)
        chosen = chance(detector_share, (len(betas),), generator)
        said = Said(rays + errors * boxes.size[..., None, None], sure, chosen)
    noisy, confidence = degrade(shown, boxes.size, half_view, facing, strength, amounts, generator, said)
    seen = Observation(noisy, confidence * windows.valid[..., None], turn, windows.valid)
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


def standing(feet: Float[Tensor, "N T 4 3"]) -> Float[Tensor, "N T 4"]:
    """Near 1 where a point is slow (0.3 m/s) and low (6 cm), falling off smoothly as neither limit is sharp."""
    step = (feet[:, 1:] - feet[:, :-1]).norm(dim=-1) * FPS
    speed = torch.cat([step[:, :1], (step[:, 1:] + step[:, :-1]) / 2, step[:, -1:]], dim=1)
    return ((0.3 - speed) / 0.06).sigmoid() * ((0.06 - feet[..., 1]) / 0.012).sigmoid()


def _leg(rest: Float[Tensor, "N 24 3"]) -> Float[Tensor, "N"]:
    return (rest[:, _LEG[0], 1] - rest[:, _LEG[1], 1]).abs()
