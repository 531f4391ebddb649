"""Videos of synthetic people with ground truth for everything that the pipeline recovers from them."""

import multiprocessing
import pickle
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from schemas.body_model import BodyModel
from schemas.errors import HumoError
from schemas.kinematics import forward_kinematics
from stages.media.encoding import VideoWriter
from stages.synthesis.framing import choose_cameras, choose_room
from stages.synthesis.motions import Label, generate
from stages.synthesis.outfit import Outfit
from stages.synthesis.renderer import Camera, Environment, Person, Renderer


@dataclass(frozen=True)
class FilmedPerson:
    """Ground truth of one person in a film."""

    rotations: Float[Tensor, "T 24 3 3"]
    trans: Float[Tensor, "T 3"]
    betas: Float[Tensor, "10"]
    keypoints: Float[np.ndarray, "T 17 2"]
    """COCO-17, pixels."""
    keypoints_3d: Float[np.ndarray, "T 17 3"]
    """COCO-17 in the world, metres."""
    boxes: Float[np.ndarray, "T 4"]
    """x0, y0, x1, y1 of the body's vertices, pixels, not clipped to the image."""
    visibility: Float[np.ndarray, "T 17"]
    """Of each keypoint, 0 to 1: 0 outside the image or behind furniture or another person; self-occlusion is ignored (see
    `Renderer.visibility`)."""
    labels: tuple[Label, ...]


@dataclass(frozen=True)
class Footage:
    """A video file and its ground truth."""

    path: Path
    width: int
    height: int
    fps: float
    people: tuple[FilmedPerson, ...]
    K: Float[np.ndarray, "3 3"]
    R: Float[np.ndarray, "T 3 3"]
    """World to camera."""
    t: Float[np.ndarray, "T 3"]

    def __len__(self) -> int:
        return len(self.t)


def film(
    people: Sequence[Person],
    path: str | Path,
    *,
    width: int = 640,
    height: int = 480,
    fps: float = 30.0,
    seed: int = 0,
    body: BodyModel | None = None,
    cameras: Sequence[Camera] | None = None,
    may_rotate: bool = True,
) -> Footage:
    """Render people into an H.264 file; the same arguments give the same bytes.

    Without `cameras` (one, or one per frame) the seed chooses a position from which everybody is visible; if that is too
    far away and `may_rotate` is set, the camera rotates to follow. Raises HumoError for a motion of another rate than `fps`.
    """
    for person in people:
        if person.motion.fps != fps:
            raise HumoError(
                f"film: a motion has {person.motion.fps} fps, the film {fps} fps; generate the motion at the rate of the film"
            )
    body = body or BodyModel.load()
    rng = np.random.default_rng([seed, 3])
    frames = max(len(person.motion) for person in people)
    points = np.stack([keypoints_of(person, body, frames) for person in people])
    cameras = list(cameras) if cameras else choose_cameras(points, rng, width, height, fps, may_rotate=may_rotate)
    room = choose_room(points, cameras, rng)
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    with VideoWriter(path, width, height, fps) as writer:
        return shoot(people, cameras, room, writer, seed, body, path=Path(path))


def shoot(
    people: Sequence[Person],
    cameras: Sequence[Camera],
    environment: Environment,
    writer: VideoWriter,
    seed: int,
    body: BodyModel,
    *,
    path: Path,
) -> Footage:
    """Render people as seen by cameras (one, or one per frame) into an open video, to which more can be appended."""
    width, height = writer.width, writer.height
    frames = max(len(person.motion) for person in people)
    points = np.stack([keypoints_of(person, body, frames) for person in people])
    renderer = Renderer(people, cameras, environment, body, width, height, seed)
    boxes, visibility = np.zeros((len(people), frames, 4)), np.zeros((len(people), frames, points.shape[2]))
    frame_cameras = cameras if len(cameras) > 1 else list(cameras) * frames
    for frame in range(frames):
        writer.write(renderer.render(frame))
        visibility[:, frame] = renderer.visibility(frame, points[:, frame])
        for i, vertices in enumerate(renderer.vertices(frame)):
            pixels = frame_cameras[frame].project(vertices)
            boxes[i, frame] = [*pixels.min(0), *pixels.max(0)]
    filmed_people = []
    for i, person in enumerate(people):
        motion = person.placed(body)
        pixels = np.stack([camera.project(p) for camera, p in zip(frame_cameras, points[i], strict=True)])
        filmed_people.append(
            FilmedPerson(
                motion.rotations, motion.trans, motion.betas, pixels, points[i], boxes[i], visibility[i], motion.labels
            )
        )
    return Footage(
        path,
        width,
        height,
        writer.fps,
        tuple(filmed_people),
        cameras[0].K,
        np.stack([c.R for c in frame_cameras]),
        np.stack([c.t for c in frame_cameras]),
    )


def keypoints_of(person: Person, body: BodyModel, frames: int) -> Float[np.ndarray, "T 17 3"]:
    """COCO-17 in the world, metres; frames after the end of the motion repeat its last one."""
    motion = person.placed(body)
    joints, rotations = forward_kinematics(motion.rotations, body.rest_joints(motion.betas), motion.trans)
    points = body.keypoint_rig().points(rotations, joints, motion.betas).double().numpy()
    return points[np.minimum(np.arange(frames), len(points) - 1)]


class DemoFilm(NamedTuple):
    """A rendered video with a title and description."""

    path: Path
    title: str
    description: str
    footage: Footage


@dataclass(frozen=True)
class _Scene:
    name: str
    title: str
    description: str
    actions: tuple[str, ...]
    """One per person, in the order of the description."""
    seconds: float
    women: tuple[bool, ...]
    portrait: bool = False


_DEMO = (
    _Scene("walk_turn", "Walking and turning", "A man walks forward and turns to the left.", ("walk_turn_left",), 5.0, (False,)),
    _Scene("run", "Running", "A woman runs across the hall.", ("run",), 2.6, (True,)),
    _Scene("wave_left", "Hello", "A woman stands and waves with her left hand.", ("wave_left",), 4.0, (True,)),
    _Scene("wave_right", "Goodbye", "A man stands and waves with his right hand.", ("wave_right",), 4.0, (False,), portrait=True),
    _Scene("raise", "Arms up", "A man raises both arms over his head and lowers them.", ("raise_both",), 4.0, (False,)),
    _Scene("squat", "Squats", "A woman squats down twice and stands up again.", ("squat",), 5.0, (True,)),
    _Scene("jump", "Jumping", "A man bends his knees and jumps up.", ("jump",), 4.5, (False,)),
    _Scene("kick", "A kick", "A woman kicks with her right foot.", ("kick_right",), 4.5, (True,)),
    _Scene("walk_wave", "Walking by", "A woman walks and waves with her left hand.", ("walk_wave_left",), 4.5, (True,)),
    _Scene(
        "two_people", "Two people exercise", "A man raises his right arm while a woman beside him bows.",
        ("raise_right", "bow"), 5.0, (False, True),
    ),
)  # fmt: skip
_WOMAN = (-0.5, 0.8, 0.0, 1.0)
"""Betas that give the shipped body a female shape; their negatives give a male one."""


def demo_films(out_dir: str | Path, seed: int = 0, *, processes: int = 2, names: Sequence[str] = ()) -> list[DemoFilm]:
    """Ten short demonstration videos: gaits, gestures, exercises; one in portrait format, one of two people.

    The seed changes bodies, clothes, motions, rooms and cameras; the number of processes changes nothing. `names` selects
    some of them by the names of their files.
    """
    jobs = [(scene, str(Path(out_dir)), seed + i) for i, scene in enumerate(_DEMO) if not names or scene.name in names]
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(processes, mp_context=context) as pool:
        # Pickled explicitly: torch would otherwise pass tensors through shared memory that is freed with the process.
        return [pickle.loads(result) for result in pool.map(_film_scene, jobs)]


def _film_scene(job: tuple[_Scene, str, int]) -> bytes:
    scene, out_dir, seed = job
    torch.set_num_threads(1)
    body = BodyModel.load()
    people = []
    for i, (action, woman) in enumerate(zip(scene.actions, scene.women, strict=True)):
        rng = np.random.default_rng([seed, i])
        betas = torch.as_tensor(rng.normal(0, 0.35, 10), dtype=torch.float32)
        betas[: len(_WOMAN)] += torch.tensor(_WOMAN) * (1 if woman else -1)
        motion = generate(action, scene.seconds, seed + 100 * i, body=body, betas=betas)
        offset_x = 1.5 * (i - (len(scene.actions) - 1) / 2)
        people.append(Person(motion, Outfit.draw(seed + 100 * i, long_hair=woman), offset=(offset_x, 0.0)))
    width, height = (480, 640) if scene.portrait else (640, 480)
    path = Path(out_dir) / f"{scene.name}.mp4"
    # The chain assumes a static camera.
    footage = film(people, path, width=width, height=height, seed=seed, body=body, may_rotate=False)
    return pickle.dumps(DemoFilm(path, scene.title, scene.description, footage))
