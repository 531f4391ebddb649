"""Images of a recovered body beside its ground truth: over the video, from the camera's side and from the person's side."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

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
from stages.synthesis.renderer import Background, Camera, Person, Renderer, Room
from stages.training.lifter.metrics import BodyMotion

Frame = UInt8[np.ndarray, "H W 3"]

WIDTH, HEIGHT = 400, 300
"""Size of each image of a row, pixels."""
_HALF_SPACING_M = 0.75
_MARGIN = 1.35
_BODY_OPACITY = 0.7
"""Opacity of the body when drawn over the video."""
_BLANK = (42, 46, 52)
_TARGET_OUTFIT = Outfit(
    shirt=(0.62, 0.62, 0.62), trousers=(0.48, 0.48, 0.48), shoes=(0.36, 0.36, 0.36), skin=(0.74, 0.74, 0.74),
    hair=(0.40, 0.40, 0.40), long_sleeves=False, shorts=False, long_hair=False,
)  # fmt: skip
_PREDICTED_OUTFIT = Outfit(
    shirt=(0.20, 0.45, 0.80), trousers=(0.13, 0.20, 0.40), shoes=(0.95, 0.60, 0.15), skin=(0.86, 0.66, 0.52),
    hair=(0.25, 0.17, 0.10), long_sleeves=False, shorts=False, long_hair=False,
)  # fmt: skip
_ROOM = Room(
    floor=((0.52, 0.55, 0.60), (0.46, 0.49, 0.54)), tile_m=0.5, wall=((0.86, 0.88, 0.90), (0.93, 0.94, 0.95)),
    wall_normal=(0.0, 1.0), wall_m=4.0, light=(0.32, 0.90, 0.30), noise=0.0,
)  # fmt: skip


@dataclass(frozen=True)
class PhotoBackground:
    """A photo as the surroundings of a rendering."""

    image: Frame
    light: tuple[float, float, float] = (0.32, 0.90, 0.30)
    tint: tuple[float, float, float] = (1.0, 1.0, 1.0)
    noise: float = 0.0

    def render_background(self, camera: Camera, width: int, height: int) -> Background:
        """The photo, for any camera."""
        rays = camera.rays(width, height).astype(np.float32)
        return Background(self.image.astype(np.float32), rays, np.zeros((height, width), bool), None)


@dataclass(frozen=True)
class FrameView:
    """Input of a fitter for one frame."""

    image: Frame | None
    """Of the video; None if there is none."""
    box: Float[np.ndarray, "4"]
    keypoints: Float[np.ndarray, "17 3"]
    intrinsics: Float[np.ndarray, "4"]
    """fx, fy, cx, cy of the recovered camera."""
    grounds_m: tuple[float, float]
    """Ground heights in the worlds of the recovered and the target body."""


def render_row(
    view: FrameView, predicted: BodyMotion, target: BodyMotion, frame: int, body: BodyModel, note: str
) -> Frame:
    """One frame: video (or blank) with the recovered body and the detected keypoints, then recovered and target body from the
    camera's direction and from its right."""
    compare = partial(render_side_by_side, predicted, target, frame, view.grounds_m, body)
    images = [
        (overlay(view, predicted, frame, body), note),
        (compare(from_right=False), "from the camera's direction"),
        (compare(from_right=True), "from its right"),
    ]
    return np.concatenate([add_caption(image, caption) for image, caption in images], axis=1)


def overlay(view: FrameView, predicted: BodyMotion, frame: int, body: BodyModel) -> Frame:
    """The recovered body through its own camera over the video, with the keypoints that it was recovered from; cropped around
    them."""
    x0, y0, x1, y1 = (float(value) for value in view.box)
    scale = _MARGIN * max(y1 - y0, (x1 - x0) * HEIGHT / WIDTH, 40.0) / HEIGHT
    # Maps pixels of the image to those of the video, with the box centred.
    corner = np.array([(x0 + x1 - scale * WIDTH) / 2, (y0 + y1 - scale * HEIGHT) / 2])
    image = np.full((HEIGHT, WIDTH, 3), _BLANK, np.uint8)
    if view.image is not None:
        to_video = np.array([[scale, 0, corner[0]], [0, scale, corner[1]]])
        flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
        image = np.asarray(
            cv2.warpAffine(view.image, to_video, (WIDTH, HEIGHT), flags=flags, borderValue=_BLANK), np.uint8
        )
    focal, centre = view.intrinsics[:2] / scale, (view.intrinsics[2:] - corner) / scale
    K = np.array([[focal[0], 0, centre[0]], [0, focal[1], centre[1]], [0, 0, 1.0]])
    rotation = predicted.to_camera[frame].astype(np.float64)
    camera = Camera(K, rotation, -rotation @ predicted.eye[frame].astype(np.float64))
    person = Person(
        _single_frame(predicted, frame, predicted.rotations[frame, 0], predicted.trans[frame]), _PREDICTED_OUTFIT
    )
    rendered = Renderer([person], [camera], PhotoBackground(image), body, WIDTH, HEIGHT, seed=0).render(0)
    blended = np.asarray(cv2.addWeighted(rendered, _BODY_OPACITY, image, 1 - _BODY_OPACITY, 0), np.uint8)
    keypoints = view.keypoints.copy()
    keypoints[:, :2] = (keypoints[:, :2] - corner) / scale
    return draw_keypoints(blended, keypoints)


def render_side_by_side(
    predicted: BodyMotion,
    target: BodyMotion,
    frame: int,
    grounds_m: tuple[float, float],
    body: BodyModel,
    *,
    from_right: bool,
) -> Frame:
    """Recovered body (coloured, on the left) and target body (grey), side by side, from the camera's direction but level, or from
    its right if `from_right`."""
    people = []
    for motion, ground_m, x, outfit in zip(
        (predicted, target),
        grounds_m,
        (-_HALF_SPACING_M, _HALF_SPACING_M),
        (_PREDICTED_OUTFIT, _TARGET_OUTFIT),
        strict=True,
    ):
        view_rotation = torch.from_numpy(_view_axes(motion.to_camera[frame], from_right=from_right)).float()
        rest = body.rest_joints(motion.betas)[0]
        pelvis_height = float(motion.trans[frame, 1] + rest[1]) - ground_m
        trans = torch.tensor([x, pelvis_height, 0.0]) - rest
        people.append(Person(_single_frame(motion, frame, view_rotation @ motion.rotations[frame, 0], trans), outfit))
    camera = Camera.look_at(np.array([0, 1.35, 4.6]), np.array([0, 1.0, 0.0]), 1.95 * HEIGHT, WIDTH, HEIGHT)
    return Renderer(people, [camera], _ROOM, body, WIDTH, HEIGHT, seed=0).render(0)


def ground_paths(predicted: BodyMotion, target: BodyMotion, body: BodyModel) -> tuple[list[str], str]:
    """Ground paths of the recovered and the target pelvis, aligned by position and direction of the first frames, as points of SVG
    lines, and the view box around them; metres."""
    paths = []
    for motion in (predicted, target):
        joints, _ = forward_kinematics(motion.rotations, body.rest_joints(motion.betas), motion.trans)
        view_rotation = _view_axes(motion.to_camera[0], from_right=False)
        paths.append(((joints[:, 0] - joints[:1, 0]).numpy() @ view_rotation.T)[:, [0, 2]])
    points = np.concatenate(paths)
    low, high = points.min(0) - 0.3, points.max(0) + 0.3
    box = " ".join(f"{value:.2f}" for value in (*low, *(high - low)))
    return [" ".join(f"{x:.3f},{z:.3f}" for x, z in path) for path in paths], box


def encode_rows(rows: Sequence[Frame]) -> bytes:
    """Rows as one JPEG."""
    image = np.concatenate(list(rows))
    done, content = cv2.imencode(".jpg", np.ascontiguousarray(image[..., ::-1]), [cv2.IMWRITE_JPEG_QUALITY, 85])
    assert done
    return content.tobytes()


def _single_frame(
    motion: BodyMotion, frame: int, root: Float[torch.Tensor, "3 3"], trans: Float[torch.Tensor, "3"]
) -> LabelledMotion:
    rotations = motion.rotations[frame : frame + 1].clone()
    rotations[0, 0] = root
    contacts = torch.from_numpy(motion.contacts[frame : frame + 1])
    return LabelledMotion(rotations, trans[None], motion.betas, FPS, (), contacts)


def _view_axes(to_camera: Float[np.ndarray, "3 3"], *, from_right: bool) -> Float[np.ndarray, "3 3"]:
    """World to axes whose x is the camera's right, y up, and z level towards the camera; with `from_right`, z is towards its
    right."""
    ahead = np.array([to_camera[2, 0], 0.0, to_camera[2, 2]], np.float64)
    back = -ahead / max(float(np.linalg.norm(ahead)), 1e-9)
    right = np.cross([0.0, 1.0, 0.0], back)
    return np.stack([-back, [0.0, 1.0, 0.0], right]) if from_right else np.stack([right, [0.0, 1.0, 0.0], back])
