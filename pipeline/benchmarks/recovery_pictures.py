"""Pictures of what was recovered beside the truth: over the video, from the camera's side and from the person's side."""

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import torch
from jaxtyping import Float, UInt8

from pipeline.rendering.drawing import add_caption, draw_keypoints
from schemas.body_model import BodyModel
from schemas.kinematics import forward_kinematics
from schemas.records import FPS
from stages.synthesis.motions import LabelledMotion
from stages.synthesis.outfit import Outfit
from stages.synthesis.renderer import Camera, Person, Renderer, Room, View
from stages.training.lifter.metrics import BodyMotion

Frame = UInt8[np.ndarray, "H W 3"]

WIDTH, HEIGHT = 400, 300
"""Pixels of each picture of a row."""
_APART_M = 0.75
_MARGIN = 1.35
_BODY_SHARE = 0.7
"""How much of the body and how little of the video shows where it is drawn over it."""
_BLANK = (42, 46, 52)
_GREY = Outfit(
    shirt=(0.62, 0.62, 0.62), trousers=(0.48, 0.48, 0.48), shoes=(0.36, 0.36, 0.36), skin=(0.74, 0.74, 0.74),
    hair=(0.40, 0.40, 0.40), long_sleeves=False, shorts=False, long_hair=False,
)  # fmt: skip
_CLOTHES = Outfit(
    shirt=(0.20, 0.45, 0.80), trousers=(0.13, 0.20, 0.40), shoes=(0.95, 0.60, 0.15), skin=(0.86, 0.66, 0.52),
    hair=(0.25, 0.17, 0.10), long_sleeves=False, shorts=False, long_hair=False,
)  # fmt: skip
_ROOM = Room(
    floor=((0.52, 0.55, 0.60), (0.46, 0.49, 0.54)), tile_m=0.5, wall=((0.86, 0.88, 0.90), (0.93, 0.94, 0.95)),
    wall_normal=(0.0, 1.0), wall_m=4.0, light=(0.32, 0.90, 0.30), noise=0.0,
)  # fmt: skip


@dataclass(frozen=True)
class Photograph:
    """A picture as surroundings, so that a body can be drawn into it."""

    image: Frame
    light: tuple[float, float, float] = (0.32, 0.90, 0.30)
    tint: tuple[float, float, float] = (1.0, 1.0, 1.0)
    noise: float = 0.0

    def look(self, camera: Camera, width: int, height: int) -> View:
        """The picture, whatever the camera."""
        rays = camera.rays(width, height).astype(np.float32)
        return View(self.image.astype(np.float32), rays, np.zeros((height, width), bool), None)


@dataclass(frozen=True)
class Sight:
    """What a fitter saw of one moment."""

    image: Frame | None
    """Of the video; None where there is none."""
    box: Float[np.ndarray, "4"]
    keypoints: Float[np.ndarray, "17 3"]
    intrinsics: Float[np.ndarray, "4"]
    """fx, fy, cx, cy of the recovered camera."""
    grounds_m: tuple[float, float]
    """Heights of the ground in the worlds of the recovered and the true body."""


def row(sight: Sight, said: BodyMotion, truth: BodyMotion, frame: int, body: BodyModel, note: str) -> Frame:
    """One moment: video (or nothing) with the recovered body and the seen keypoints, then recovered and true body from the
    camera's direction and from its right."""
    pictures = [
        (overlay(sight, said, frame, body), note),
        (beside(said, truth, frame, sight.grounds_m, body, aside=False), "from the camera's direction"),
        (beside(said, truth, frame, sight.grounds_m, body, aside=True), "from its right"),
    ]
    return np.concatenate([add_caption(picture, caption) for picture, caption in pictures], axis=1)


def overlay(sight: Sight, said: BodyMotion, frame: int, body: BodyModel) -> Frame:
    """The recovered body through its own camera over the video, and the keypoints that it was recovered from; cut out
    around them."""
    x0, y0, x1, y1 = (float(value) for value in sight.box)
    side = _MARGIN * max(y1 - y0, (x1 - x0) * HEIGHT / WIDTH, 40.0) / HEIGHT
    # Pixels of the picture to those of the video: the box's middle in the middle.
    corner = np.array([(x0 + x1 - side * WIDTH) / 2, (y0 + y1 - side * HEIGHT) / 2])
    image = np.full((HEIGHT, WIDTH, 3), _BLANK, np.uint8)
    if sight.image is not None:
        cut = np.array([[side, 0, corner[0]], [0, side, corner[1]]])
        how = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
        image = np.asarray(cv2.warpAffine(sight.image, cut, (WIDTH, HEIGHT), flags=how, borderValue=_BLANK), np.uint8)
    focal, centre = sight.intrinsics[:2] / side, (sight.intrinsics[2:] - corner) / side
    K = np.array([[focal[0], 0, centre[0]], [0, focal[1], centre[1]], [0, 0, 1.0]])
    turn = said.to_camera[frame].astype(np.float64)
    camera = Camera(K, turn, -turn @ said.eye[frame].astype(np.float64))
    person = Person(_still(said, frame, said.rotations[frame, 0], said.trans[frame]), _CLOTHES)
    drawn = Renderer([person], [camera], Photograph(image), body, WIDTH, HEIGHT, seed=0).render(0)
    mixed = np.asarray(cv2.addWeighted(drawn, _BODY_SHARE, image, 1 - _BODY_SHARE, 0), np.uint8)
    keypoints = sight.keypoints.copy()
    keypoints[:, :2] = (keypoints[:, :2] - corner) / side
    return draw_keypoints(mixed, keypoints)


def beside(
    said: BodyMotion, truth: BodyMotion, frame: int, grounds_m: tuple[float, float], body: BodyModel, *, aside: bool
) -> Frame:
    """Recovered body (in clothes, on the left) and true body (grey), standing side by side as the camera sees them from
    its direction but level, or, `aside`, as seen from its right."""
    people = []
    for figure, ground_m, place, outfit in zip(
        (said, truth), grounds_m, (-_APART_M, _APART_M), (_CLOTHES, _GREY), strict=True
    ):
        turn = torch.from_numpy(_towards_viewer(figure.to_camera[frame], aside=aside)).float()
        rest = body.rest_joints(figure.betas)[0]
        height = float(figure.trans[frame, 1] + rest[1]) - ground_m
        trans = torch.tensor([place, height, 0.0]) - rest
        people.append(Person(_still(figure, frame, turn @ figure.rotations[frame, 0], trans), outfit))
    camera = Camera.looking(np.array([0, 1.35, 4.6]), np.array([0, 1.0, 0.0]), 1.95 * HEIGHT, WIDTH, HEIGHT)
    return Renderer(people, [camera], _ROOM, body, WIDTH, HEIGHT, seed=0).render(0)


def paths(said: BodyMotion, truth: BodyMotion, body: BodyModel) -> tuple[list[str], str]:
    """Ways of the recovered and the true pelvis on the ground plan, aligned by place and direction of the first frames, as
    points of SVG lines, and the view box around them; metres."""
    ways = []
    for figure in (said, truth):
        joints, _ = forward_kinematics(figure.rotations, body.rest_joints(figure.betas), figure.trans)
        turn = _towards_viewer(figure.to_camera[0], aside=False)
        ways.append(((joints[:, 0] - joints[:1, 0]).numpy() @ turn.T)[:, [0, 2]])
    everything = np.concatenate(ways)
    low, high = everything.min(0) - 0.3, everything.max(0) + 0.3
    box = " ".join(f"{value:.2f}" for value in (*low, *(high - low)))
    return [" ".join(f"{x:.3f},{z:.3f}" for x, z in way) for way in ways], box


def stack(rows: Sequence[Frame]) -> bytes:
    """Rows as one JPEG."""
    picture = np.concatenate(list(rows))
    done, content = cv2.imencode(".jpg", np.ascontiguousarray(picture[..., ::-1]), [cv2.IMWRITE_JPEG_QUALITY, 85])
    assert done
    return content.tobytes()


def _still(
    figure: BodyMotion, frame: int, root: Float[torch.Tensor, "3 3"], trans: Float[torch.Tensor, "3"]
) -> LabelledMotion:
    rotations = figure.rotations[frame : frame + 1].clone()
    rotations[0, 0] = root
    contacts = torch.from_numpy(figure.contacts[frame : frame + 1])
    return LabelledMotion(rotations, trans[None], figure.betas, FPS, (), contacts)


def _towards_viewer(to_camera: Float[np.ndarray, "3 3"], *, aside: bool) -> Float[np.ndarray, "3 3"]:
    """World to axes whose x is the camera's right, y up, and z level towards the camera; `aside`: towards its right."""
    ahead = np.array([to_camera[2, 0], 0.0, to_camera[2, 2]], np.float64)
    back = -ahead / max(float(np.linalg.norm(ahead)), 1e-9)
    right = np.cross([0.0, 1.0, 0.0], back)
    return np.stack([-back, [0.0, 1.0, 0.0], right]) if aside else np.stack([right, [0.0, 1.0, 0.0], back])
