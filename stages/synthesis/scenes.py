"""Scenes: any motion, on any body, in a furnished place, before a still or a moving camera, with all of it known exactly.

    scene = make_scene([motion], seed=1, body=body, camera="moving", occluders=1)
    footage = film_scene(scene, "one.mp4", body=body)

A motion is anything with `rotations` and `trans` at 30 frames a second: from the generator, from `stages.mocap`, from a
shard (see `GivenMotion`).
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
from stages.synthesis.film import Footage, keypoints_of, shoot
from stages.synthesis.furniture import place_around, place_occluders
from stages.synthesis.motions import LabelledMotion
from stages.synthesis.moves import MOVES, draw_cameras
from stages.synthesis.outfit import Outfit
from stages.synthesis.place import MATERIALS, Place
from stages.synthesis.renderer import Camera, Person

SHAPE_SPREAD = 0.8
"""Standard deviation of the betas of bodies that a seed draws; they are cut off at 2."""
_APART_M = 0.4
"""Least distance between keypoints of two people on the ground plan."""
_TRIES = 80


@runtime_checkable
class Movement(Protocol):
    """SMPL motion at `FPS`; `betas` too, where it was made for a body (the mean one otherwise)."""

    @property
    def rotations(self) -> Float[Tensor, "T 24 3 3"]:
        """Local, the root's in a world with Y up."""

    @property
    def trans(self) -> Float[Tensor, "T 3"]:
        """Metres."""


@dataclass(frozen=True)
class GivenMotion:
    """A motion without more."""

    rotations: Float[Tensor, "T 24 3 3"]
    trans: Float[Tensor, "T 3"]
    betas: Float[Tensor, "10"] | None = None
    """Of the body that it was made for; None is the mean one, and then a scene puts it on a body of its own choice."""


@dataclass(frozen=True)
class Scene:
    """Everything that a film shows, before it is filmed."""

    people: tuple[Person, ...]
    cameras: tuple[Camera, ...]
    """One that stands still, or one a frame."""
    place: Place
    occluders: int
    """How many pieces of furniture stand in the way; fewer than asked for where there was no room."""
    width: int
    height: int
    seed: int

    def __len__(self) -> int:
        return len(self.people[0].motion)


def make_scene(
    motions: Sequence[Movement],
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
    """One person a motion, as long as the shortest; clothes, light, place and camera come from the seed.

    A motion with betas of its own keeps that body, one without gets a body from the seed; `betas`, one a motion, overrules
    both. Whoever changes bodies makes steps as long as their legs (see `onto_body`). People stand apart unless `crossing`:
    then they are placed so that one passes before the other. `move` is one of MOVES, for a moving camera; the seed chooses
    if it is empty. Raises HumoError for a motion at another rate than 30 frames a second, and for an unknown `move`.
    """
    _check(motions, move)
    body = body or BodyModel.load()
    rng = np.random.default_rng([seed, 21])
    frames = min(len(motion.trans) for motion in motions)
    actors = []
    for number, motion in enumerate(motions):
        drawn = torch.as_tensor((SHAPE_SPREAD * rng.standard_normal(NUM_SHAPES)).clip(-2, 2), dtype=torch.float32)
        shape = betas[number] if betas is not None else getattr(motion, "betas", None)
        actors.append(_first(onto_body(motion, drawn if shape is None else shape, body), frames))
    outfits = [Outfit.draw(int(rng.integers(2**31))) for _ in actors]
    people = [Person(actor, outfit) for actor, outfit in zip(actors, outfits, strict=True)]
    offsets = _spread([keypoints_of(person, body, frames) for person in people], rng, crossing=crossing)
    people = [
        Person(person.motion, person.outfit, (float(x), float(z)), float(yaw))
        for person, (x, z, yaw) in zip(people, offsets, strict=True)
    ]
    points = np.stack([keypoints_of(person, body, frames) for person in people])
    if camera == "moving":
        move = move or str(rng.choice(MOVES))
    cameras = draw_cameras(points, rng, width, height, move=move if camera == "moving" else "", crossing=crossing)
    place, in_the_way = _furnish(points, cameras, occluders, rng)
    return Scene(tuple(people), tuple(cameras), place, in_the_way, width, height, seed)


def film_scene(scene: Scene, path: str | Path, *, body: BodyModel | None = None) -> Footage:
    """Render a scene into an H.264 file of its own; the same scene gives the same bytes."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with VideoWriter(path, scene.width, scene.height, FPS) as writer:
        return shoot_scene(scene, writer, path, body=body)


def shoot_scene(scene: Scene, writer: VideoWriter, path: Path, *, body: BodyModel | None = None) -> Footage:
    """As `film_scene`, at the end of a video that may hold others before and after; times count from the scene's start."""
    return shoot(scene.people, scene.cameras, scene.place, writer, scene.seed, body or BodyModel.load(), path=path)


def onto_body(motion: Movement, betas: Float[Tensor, "10"], body: BodyModel) -> LabelledMotion:
    """A motion on another body, with its labels; see `stages.geometry.body_transfer`."""
    own = getattr(motion, "betas", None)
    source_betas = torch.zeros(NUM_SHAPES) if own is None else own
    if isinstance(motion, LabelledMotion) and torch.equal(source_betas, betas):
        return motion
    rotations, trans, contacts = transfer(motion.rotations, motion.trans, source_betas, betas, body)
    return LabelledMotion(rotations, trans, betas, FPS, getattr(motion, "labels", ()), contacts)


def _check(motions: Sequence[Movement], move: str) -> None:
    if not motions:
        raise HumoError("make_scene: no motion was given; a scene needs one a person")
    if move and move not in MOVES:
        raise HumoError(f"make_scene: {move!r} is no move; use one of: {', '.join(MOVES)}")
    for number, motion in enumerate(motions):
        fps = getattr(motion, "fps", FPS)
        if fps != FPS:
            raise HumoError(f"make_scene: motion {number} has {fps} frames a second; resample it to {FPS:g}")


def _first(motion: LabelledMotion, frames: int) -> LabelledMotion:
    end_s = frames / FPS
    labels = tuple(label for label in motion.labels if label.start_s < end_s)
    return LabelledMotion(
        motion.rotations[:frames], motion.trans[:frames], motion.betas, FPS, labels, motion.contacts[:frames]
    )


def _spread(
    paths: Sequence[Float[np.ndarray, "T 17 3"]], rng: np.random.Generator, *, crossing: bool
) -> list[tuple[float, float, float]]:
    """x, z and yaw for each person, so that no two come into each other."""
    placed: list[Float[np.ndarray, "T 17 3"]] = []
    offsets = []
    for path in paths:
        best = -1.0
        for attempt in range(_TRIES):
            yaw = rng.uniform(-math.pi, math.pi)
            turned = path @ yaw_matrix(torch.tensor(yaw)).numpy().T
            shift = np.zeros(3)
            if placed:
                others = np.concatenate(placed).mean((0, 1))
                reach = (0.3 if crossing else 0.9) + 0.06 * attempt
                way = rng.uniform(-math.pi, math.pi)
                shift = others + reach * np.array([math.sin(way), 0.0, math.cos(way)]) - turned.mean((0, 1))
                shift[1] = 0.0
            gap = min((_gap_m(turned + shift, other) for other in placed), default=math.inf)
            if gap > best:
                best, here, offset = gap, turned + shift, (float(shift[0]), float(shift[2]), yaw)
            if gap > _APART_M:
                break
        placed.append(here)
        offsets.append(offset)
    return offsets


def _gap_m(one: Float[np.ndarray, "T 17 3"], other: Float[np.ndarray, "T 17 3"]) -> float:
    """Least distance on the ground plan over all frames."""
    a, b = one[:, :, None, [0, 2]], other[:, None, :, [0, 2]]
    return float(np.linalg.norm(a - b, axis=-1).min())


def _furnish(
    points: Float[np.ndarray, "P T 17 3"], cameras: Sequence[Camera], occluders: int, rng: np.random.Generator
) -> tuple[Place, int]:
    """A place large enough for people and camera, with things in the way and around."""
    eyes = np.stack([camera.eye for camera in cameras])
    eyes = eyes if len(eyes) > 1 else eyes.repeat(points.shape[1], axis=0)
    everything = np.concatenate([points.reshape(-1, 3), eyes])
    outdoors = bool(rng.random() < 0.3)
    reach = (10.0, 16.0) if outdoors else (0.9, 3.5)
    low, high = everything.min(0) - rng.uniform(*reach, 3), everything.max(0) + rng.uniform(*reach, 3)
    low[1] = 0.0
    high[1] = 16.0 if outdoors else max(everything[:, 1].max() + 0.4, rng.uniform(2.6, 3.6))
    pieces = place_occluders(occluders, points, eyes, rng, materials=MATERIALS)
    bounds = np.stack([everything.min(0) - 3.0, everything.max(0) + 3.0])
    bounds = np.clip(bounds, low + 0.3, high - 0.3)[:, [0, 2]]
    around = place_around(int(rng.integers(2, 8)), points, eyes, bounds, rng, materials=MATERIALS)
    return Place.draw(rng, low, high, [*pieces, *around], outdoors=outdoors), len(pieces)
