"""Scenes: any motion on any body in a furnished environment, with a static or moving camera and exact ground truth.

    scene = make_scene([motion], seed=1, body=body, camera="moving", occluders=1)
    footage = film_scene(scene, "one.mp4", body=body)

A motion is anything with `rotations` and `trans` at 30 frames/s: from the generator, from `stages.mocap`, or from a shard
(see `UnlabelledMotion`).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from schemas.body_model import NUM_SHAPES, BodyModel
from schemas.errors import HumoError
from schemas.records import FPS
from schemas.rotations import yaw_matrix
from stages.geometry.body_transfer import transfer
from stages.media.encoding import VideoWriter
from stages.synthesis.camera_moves import MOVES, draw_cameras
from stages.synthesis.environment import MATERIALS, TexturedEnvironment
from stages.synthesis.film import Footage, keypoints_of, shoot
from stages.synthesis.furniture import place_background, place_occluders
from stages.synthesis.motions import LabelledMotion
from stages.synthesis.outfit import Outfit
from stages.synthesis.renderer import Camera, Person

SHAPE_SPREAD = 0.8
"""Standard deviation of the betas of randomly drawn bodies; they are clipped at 2."""
_MIN_GAP_M = 0.4
"""Smallest horizontal distance between keypoints of two people."""
_TRIES = 80


@runtime_checkable
class MotionLike(Protocol):
    """SMPL motion at `FPS`, with `betas` if it belongs to a certain body (the mean body otherwise)."""

    @property
    def rotations(self) -> Float[Tensor, "T 24 3 3"]:
        """Local; the root's is in a world with Y up."""

    @property
    def trans(self) -> Float[Tensor, "T 3"]:
        """Metres."""


@dataclass(frozen=True)
class UnlabelledMotion:
    """A motion without labels and contacts."""

    rotations: Float[Tensor, "T 24 3 3"]
    trans: Float[Tensor, "T 3"]
    betas: Float[Tensor, "10"] | None = None
    """Shape of the motion's body; None means the mean body, and a scene then transfers the motion to a random body."""


@dataclass(frozen=True)
class Scene:
    """Everything that a film shows."""

    people: tuple[Person, ...]
    cameras: tuple[Camera, ...]
    """One static camera, or one per frame."""
    environment: TexturedEnvironment
    occluders: int
    """Number of pieces of furniture that occlude people; less than requested if there is no room."""
    width: int
    height: int
    seed: int

    def __len__(self) -> int:
        return len(self.people[0].motion)


def make_scene(
    motions: Sequence[MotionLike],
    seed: int,
    *,
    body: BodyModel | None = None,
    betas: Sequence[Float[Tensor, "10"]] | None = None,
    camera: Literal["static", "moving"] = "static",
    move: str = "",
    occluders: int = 0,
    crossing: bool = False,
    width: int = 640,
    height: int = 480,
) -> Scene:
    """One person per motion, as long as the shortest motion; clothes, light, environment and camera come from the seed.

    A motion with betas keeps its body, one without gets a body from the seed; `betas`, one per motion, overrides both. A
    motion on another body has its steps scaled to the length of the legs (see `transfer_to_body`). People keep apart unless
    `crossing`: then they are placed so that one passes in front of the other. `move` is one of MOVES, for a moving camera; if
    empty, the seed chooses. Raises HumoError for a motion at another rate than 30 frames/s and for an unknown `move`.
    """
    _check(motions, move)
    body = body or BodyModel.load()
    rng = np.random.default_rng([seed, 21])
    frames = min(len(motion.trans) for motion in motions)
    actors = []
    for number, motion in enumerate(motions):
        drawn = torch.as_tensor((SHAPE_SPREAD * rng.standard_normal(NUM_SHAPES)).clip(-2, 2), dtype=torch.float32)
        shape = betas[number] if betas is not None else getattr(motion, "betas", None)
        actors.append(_truncated(transfer_to_body(motion, drawn if shape is None else shape, body), frames))
    outfits = [Outfit.draw(int(rng.integers(2**31))) for _ in actors]
    people = [Person(actor, outfit) for actor, outfit in zip(actors, outfits, strict=True)]
    placements = _arrange([keypoints_of(person, body, frames) for person in people], rng, crossing=crossing)
    people = [
        Person(person.motion, person.outfit, (float(x), float(z)), float(yaw))
        for person, (x, z, yaw) in zip(people, placements, strict=True)
    ]
    points = np.stack([keypoints_of(person, body, frames) for person in people])
    if camera == "moving":
        move = move or str(rng.choice(MOVES))
    cameras = draw_cameras(points, rng, width, height, move=move if camera == "moving" else "", crossing=crossing)
    environment, placed_occluders = _draw_environment(points, cameras, occluders, rng)
    return Scene(tuple(people), tuple(cameras), environment, placed_occluders, width, height, seed)


def film_scene(scene: Scene, path: str | Path, *, body: BodyModel | None = None) -> Footage:
    """Render a scene into an H.264 file; the same scene gives the same bytes."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with VideoWriter(path, scene.width, scene.height, FPS) as writer:
        return shoot_scene(scene, writer, path, body=body)


def shoot_scene(scene: Scene, writer: VideoWriter, path: Path, *, body: BodyModel | None = None) -> Footage:
    """As `film_scene`, appended to an open video; times are relative to the start of the scene."""
    return shoot(
        scene.people, scene.cameras, scene.environment, writer, scene.seed, body or BodyModel.load(), path=path
    )


def transfer_to_body(motion: MotionLike, betas: Float[Tensor, "10"], body: BodyModel) -> LabelledMotion:
    """A motion on another body, with its labels; see `stages.geometry.body_transfer`."""
    motion_betas = getattr(motion, "betas", None)
    source_betas = torch.zeros(NUM_SHAPES) if motion_betas is None else motion_betas
    if isinstance(motion, LabelledMotion) and torch.equal(source_betas, betas):
        return motion
    rotations, trans, contacts = transfer(motion.rotations, motion.trans, source_betas, betas, body)
    return LabelledMotion(rotations, trans, betas, FPS, getattr(motion, "labels", ()), contacts)


def _check(motions: Sequence[MotionLike], move: str) -> None:
    if not motions:
        raise HumoError("make_scene: no motion was given; pass one per person")
    if move and move not in MOVES:
        raise HumoError(f"make_scene: {move!r} is no camera move; use one of: {', '.join(MOVES)}")
    for number, motion in enumerate(motions):
        fps = getattr(motion, "fps", FPS)
        if fps != FPS:
            raise HumoError(f"make_scene: motion {number} has {fps} frames/s; resample it to {FPS:g}")


def _truncated(motion: LabelledMotion, frames: int) -> LabelledMotion:
    end_s = frames / FPS
    labels = tuple(label for label in motion.labels if label.start_s < end_s)
    return LabelledMotion(
        motion.rotations[:frames], motion.trans[:frames], motion.betas, FPS, labels, motion.contacts[:frames]
    )


def _arrange(
    paths: Sequence[Float[np.ndarray, "T 17 3"]], rng: np.random.Generator, *, crossing: bool
) -> list[tuple[float, float, float]]:
    """x, z and yaw of each person, so that no two collide."""
    placed: list[Float[np.ndarray, "T 17 3"]] = []
    offsets = []
    for path in paths:
        best = -1.0
        for attempt in range(_TRIES):
            yaw = rng.uniform(-math.pi, math.pi)
            rotated = path @ yaw_matrix(torch.tensor(yaw)).numpy().T
            shift = np.zeros(3)
            if placed:
                others = np.concatenate(placed).mean((0, 1))
                reach = (0.3 if crossing else 0.9) + 0.06 * attempt
                direction = rng.uniform(-math.pi, math.pi)
                shift = (
                    others + reach * np.array([math.sin(direction), 0.0, math.cos(direction)]) - rotated.mean((0, 1))
                )
                shift[1] = 0.0
            gap = min((_min_distance_m(rotated + shift, other) for other in placed), default=math.inf)
            if gap > best:
                best, best_path, offset = gap, rotated + shift, (float(shift[0]), float(shift[2]), yaw)
            if gap > _MIN_GAP_M:
                break
        placed.append(best_path)
        offsets.append(offset)
    return offsets


def _min_distance_m(one: Float[np.ndarray, "T 17 3"], other: Float[np.ndarray, "T 17 3"]) -> float:
    """Smallest horizontal distance over all frames."""
    a, b = one[:, :, None, [0, 2]], other[:, None, :, [0, 2]]
    return float(np.linalg.norm(a - b, axis=-1).min())


def _draw_environment(
    points: Float[np.ndarray, "P T 17 3"], cameras: Sequence[Camera], occluders: int, rng: np.random.Generator
) -> tuple[TexturedEnvironment, int]:
    """An environment large enough for people and camera, with furniture, and the number of its occluders."""
    eyes = np.stack([camera.eye for camera in cameras])
    eyes = eyes if len(eyes) > 1 else eyes.repeat(points.shape[1], axis=0)
    occupied = np.concatenate([points.reshape(-1, 3), eyes])
    outdoors = bool(rng.random() < 0.3)
    margin_m = (10.0, 16.0) if outdoors else (0.9, 3.5)
    low, high = occupied.min(0) - rng.uniform(*margin_m, 3), occupied.max(0) + rng.uniform(*margin_m, 3)
    low[1] = 0.0
    high[1] = 16.0 if outdoors else max(occupied[:, 1].max() + 0.4, rng.uniform(2.6, 3.6))
    pieces = place_occluders(occluders, points, eyes, rng, materials=MATERIALS)
    bounds = np.stack([occupied.min(0) - 3.0, occupied.max(0) + 3.0])
    bounds = np.clip(bounds, low + 0.3, high - 0.3)[:, [0, 2]]
    background = place_background(int(rng.integers(2, 8)), points, eyes, bounds, rng, materials=MATERIALS)
    return TexturedEnvironment.draw(rng, low, high, [*pieces, *background], outdoors=outdoors), len(pieces)
