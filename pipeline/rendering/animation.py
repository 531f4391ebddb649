"""Renders a motion as a video: a figure on a ground grid, seen by a camera that follows.

The camera views the person from the front left, slightly from above, at a distance that keeps all joints in every frame.
"""

import base64
import importlib.util
import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float

from pipeline.rendering.drawing import DARK, MIDDLE, SMPL_EDGES, Frame, add_caption, caption_height, edge_colour
from schemas.body_model import BodyModel
from schemas.curves import smooth
from schemas.kinematics import forward_kinematics
from schemas.records import FPS
from schemas.rotations import axis_angle_to_matrix
from schemas.sample import MotionArrays
from schemas.skeleton import SMPL_JOINTS, joint
from stages.media.encoding import VideoWriter

_BACKGROUND = np.array((30, 34, 41), np.float64)
_GRID = np.array((72, 80, 92), np.float64)
_FOLLOW_S = 0.6
"""Standard deviation of the smoothing of the camera's path, seconds."""
_AZIMUTH_RAD = 0.6
_ELEVATION_RAD = 0.2
_GRID_M = 0.5
_GRID_LINES = 8
"""Grid lines on each side of the person."""
_SUPERSAMPLING = 2
_TRUNK = ("left_shoulder", "right_shoulder", "left_hip", "right_hip", "left_collar", "right_collar")
_RADIUS_M = {"head": 0.045, "pelvis": 0.075, "neck": 0.045, "collar": 0.05, "spine": 0.075, "hip": 0.075}
_LIMB_RADIUS_M = {"knee": 0.062, "ankle": 0.045, "foot": 0.035, "shoulder": 0.05, "elbow": 0.042, "wrist": 0.034}


def motion_joints(motion: MotionArrays, body: BodyModel | None = None) -> Float[np.ndarray, "T 24 3"]:
    """Joints of a motion in its world, metres; with the shipped body by default."""
    model = body or BodyModel.load()
    rest = model.rest_joints(torch.from_numpy(motion.betas))
    rotations = axis_angle_to_matrix(torch.from_numpy(motion.poses))
    return forward_kinematics(rotations, rest, torch.from_numpy(motion.trans))[0].numpy()


def pack_joints(joints: Float[np.ndarray, "T 24 3"], every: int = 1) -> dict[str, object]:
    """Joints for the player of a web page: every `every`-th frame as 16-bit integers, with their unit in metres."""
    kept = joints[::every]
    unit = max(float(np.abs(kept).max()) / 32767, 1e-4)
    return {
        "fps": FPS / every,
        "unit": unit,
        "frames": len(kept),
        "data": base64.b64encode(np.round(kept / unit).astype("<i2").tobytes()).decode(),
    }


def render_motion_video(
    motion: MotionArrays | Float[np.ndarray, "T 24 3"],
    path: str | Path,
    caption: str = "",
    *,
    width: int = 640,
    height: int = 480,
) -> int:
    """Write an mp4 (H.264, 30 fps) of a motion, or of joints in metres; returns the number of frames.

    A motion is rendered as a skinned body if Embree is installed, joints as a stick figure.
    """
    joints = motion_joints(motion) if isinstance(motion, MotionArrays) else np.asarray(motion, np.float64)
    if joints.ndim != 3 or joints.shape[1:] != (24, 3) or not len(joints):
        raise ValueError(f"joints are {joints.shape}, expected (T, 24, 3) with at least one frame")
    image_height = height - caption_height(width, caption)
    if isinstance(motion, MotionArrays) and importlib.util.find_spec("embreex"):
        frames = body_frames(motion, width=width, height=image_height)
    else:
        frames = stick_frames(joints, width=width, height=image_height)
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    with VideoWriter(Path(path), width, height, FPS) as video:
        for frame in frames:
            video.write(add_caption(frame, caption))
    return video.frames


def stick_frames(joints: Float[np.ndarray, "T 24 3"], *, width: int = 640, height: int = 480) -> Iterator[Frame]:
    """Images of a stick figure, one per frame."""
    import cv2

    large = (width * _SUPERSAMPLING, height * _SUPERSAMPLING)
    views = following_views(joints, width=large[0], height=large[1])
    trail = joints[:, 0] * (1, 0, 1)
    for number, (row, view) in enumerate(zip(joints, views, strict=True)):
        image = np.full((large[1], large[0], 3), _BACKGROUND, np.uint8)
        _draw_grid(image, view)
        _draw_path(image, view, trail[: number + 1])
        _draw_figure(image, view, row * (1, 0, 1), shadow=True)
        _draw_figure(image, view, row, shadow=False)
        yield cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)


def body_frames(motion: MotionArrays, *, width: int = 640, height: int = 480) -> Iterator[Frame]:
    """Images of a skinned body in a plain room, one per frame; needs embreex."""
    from stages.synthesis.motions import LabelledMotion
    from stages.synthesis.outfit import Outfit
    from stages.synthesis.renderer import Camera, Person, Renderer, Room

    body = BodyModel.load()
    labelled = LabelledMotion(
        rotations=axis_angle_to_matrix(torch.from_numpy(motion.poses)),
        trans=torch.from_numpy(motion.trans),
        betas=torch.from_numpy(motion.betas),
        fps=FPS,
        labels=(),
        contacts=torch.from_numpy(motion.contacts.astype(bool)),
    )
    views = following_views(motion_joints(motion, body), width=width, height=height)
    cameras = []
    for view in views:
        K = np.array([[view.focal, 0, view.centre[0]], [0, view.focal, view.centre[1]], [0, 0, 1]])
        cameras.append(Camera(K, view.rotation, -view.rotation @ view.position))
    # The wall is behind the whole motion, as seen from the first camera.
    ahead = views[0].rotation[2][[0, 2]] / np.linalg.norm(views[0].rotation[2][[0, 2]])
    room = Room(
        floor=((0.46, 0.49, 0.54), (0.42, 0.45, 0.50)), tile_m=_GRID_M, wall=((0.72, 0.75, 0.79), (0.80, 0.83, 0.87)),
        wall_normal=(float(-ahead[0]), float(-ahead[1])),
        wall_m=float((motion.trans[:, [0, 2]] @ ahead).max()) + 4.0, light=(0.32, 0.90, 0.30), noise=0.0,
    )  # fmt: skip
    outfit = Outfit(
        shirt=(0.25, 0.48, 0.78), trousers=(0.16, 0.19, 0.27), shoes=(0.9, 0.9, 0.9), skin=(0.80, 0.62, 0.50),
        hair=(0.20, 0.15, 0.12), long_sleeves=False, shorts=False, long_hair=False,
    )  # fmt: skip
    renderer = Renderer([Person(labelled, outfit)], cameras, room, body, width, height, seed=0)
    for number in range(len(views)):
        yield renderer.render(number)


@dataclass(frozen=True)
class View:
    """A camera at one frame: world to pixels."""

    rotation: Float[np.ndarray, "3 3"]
    """World to camera axes: x right, y down, z forward."""
    position: Float[np.ndarray, "3"]
    focal: float
    """Pixels."""
    centre: tuple[float, float]

    def depth(self, points: Float[np.ndarray, "N 3"]) -> Float[np.ndarray, "N"]:
        """Metres in front of the camera."""
        return (points - self.position) @ self.rotation[2]

    def project(self, points: Float[np.ndarray, "N 3"]) -> Float[np.ndarray, "N 2"]:
        """Pixels; only for points in front of the camera."""
        in_camera = (points - self.position) @ self.rotation.T
        return in_camera[:, :2] / in_camera[:, 2:] * self.focal + self.centre


def following_views(joints: Float[np.ndarray, "T 24 3"], *, width: int, height: int) -> list[View]:
    """One camera per frame: it follows the person smoothly at the minimum distance with all joints in the image."""
    target = smooth(joints[:, 0] * (1, 0, 1), _FOLLOW_S * FPS, padding="odd")
    middle = float((joints[..., 1].min() + joints[..., 1].max()) / 2)
    target[:, 1] = middle
    # The initial heading sets the azimuth, so that the view does not rotate with the person.
    left = joints[0, joint("left_hip")] - joints[0, joint("right_hip")]
    azimuth = float(np.arctan2(-left[2], left[0])) + _AZIMUTH_RAD
    outward = np.array(
        [np.sin(azimuth) * np.cos(_ELEVATION_RAD), np.sin(_ELEVATION_RAD), np.cos(azimuth) * np.cos(_ELEVATION_RAD)]
    )
    right = np.cross(-outward, (0.0, 1.0, 0.0))
    right /= np.linalg.norm(right)
    rotation = np.stack([right, np.cross(-outward, right), -outward])
    focal = 1.4 * height
    relative = (joints - target[:, None]) @ rotation.T
    half_size = np.array([width, height]) * 0.42
    # A joint at camera offset (x, y, z) from the target stays inside when focal * |x| / (distance + z) < half_size.
    distance = float((focal * np.abs(relative[..., :2]) / half_size - relative[..., 2:]).max())
    distance = max(distance, float(-relative[..., 2].min()) + 0.5, 2.0)
    return [View(rotation, position + distance * outward, focal, (width / 2, height / 2)) for position in target]


def _draw_grid(image: Frame, view: View) -> None:
    import cv2

    ground_point = view.position + view.rotation[2] * (view.position[1] / -view.rotation[2, 1])
    grid_centre = np.round(ground_point[[0, 2]] / _GRID_M) * _GRID_M
    ticks = np.arange(-_GRID_LINES, _GRID_LINES + 1) * _GRID_M
    for fixed in ticks:
        for start, stop in itertools.pairwise(ticks):
            for swapped in (False, True):
                ends = np.array([[fixed, 0, start], [fixed, 0, stop]])
                if swapped:
                    ends = ends[:, ::-1]
                ends = ends + np.array([grid_centre[0], 0, grid_centre[1]])
                if view.depth(ends).min() < 0.2:
                    continue
                fade = max(
                    0.0, float(1 - np.linalg.norm((ends.mean(0) - ground_point)[[0, 2]]) / (_GRID_LINES * _GRID_M))
                )
                colour = _BACKGROUND + (_GRID - _BACKGROUND) * fade
                a, b = _pixels(view.project(ends))
                cv2.line(image, a, b, tuple(float(v) for v in colour), _SUPERSAMPLING, cv2.LINE_AA)


def _draw_path(image: Frame, view: View, trail: Float[np.ndarray, "N 3"]) -> None:
    import cv2

    visible = trail[view.depth(trail) > 0.2]
    if len(visible) > 1:
        line = np.array(_pixels(view.project(visible)), np.int32)
        cv2.polylines(image, [line], False, (104, 116, 132), 2 * _SUPERSAMPLING, cv2.LINE_AA)


def _draw_figure(image: Frame, view: View, row: Float[np.ndarray, "24 3"], *, shadow: bool) -> None:
    """Draw limbs as round bars, far ones first; dark for a shadow."""
    import cv2

    depth = view.depth(row)
    pixels = _pixels(view.project(row))
    if not shadow:
        trunk = np.array([pixels[joint(name)] for name in _TRUNK], np.int32)
        cv2.fillConvexPoly(image, cv2.convexHull(trunk), (176, 182, 190), cv2.LINE_AA)
    for parent, child in sorted(SMPL_EDGES, key=lambda edge: -max(depth[edge[0]], depth[edge[1]])):
        names = SMPL_JOINTS[parent], SMPL_JOINTS[child]
        distance = (depth[parent] + depth[child]) / 2
        thickness = max(2, round(2 * _radius_m(names[1]) * view.focal / distance))
        if shadow:
            cv2.line(image, pixels[parent], pixels[child], (20, 23, 28), thickness, cv2.LINE_AA)
            continue
        colour = edge_colour(*names)
        cv2.line(image, pixels[parent], pixels[child], DARK, thickness + 2 * _SUPERSAMPLING, cv2.LINE_AA)
        cv2.line(image, pixels[parent], pixels[child], colour, thickness, cv2.LINE_AA)
    head = joint("head")
    up = row[head] - row[joint("neck")]
    middle = row[head] + 0.09 * up / max(float(np.linalg.norm(up)), 1e-6) * (0 if shadow else 1)
    radius = max(3, round(0.105 * view.focal / depth[head]))
    head_pixel = _pixels(view.project(middle[None]))[0]
    if shadow:
        cv2.ellipse(image, head_pixel, (radius, radius // 3), 0, 0, 360, (20, 23, 28), -1, cv2.LINE_AA)
    else:
        cv2.circle(image, head_pixel, radius + _SUPERSAMPLING, DARK, -1, cv2.LINE_AA)
        cv2.circle(image, head_pixel, radius, MIDDLE, -1, cv2.LINE_AA)


def _radius_m(name: str) -> float:
    kind = name.removeprefix("left_").removeprefix("right_").rstrip("123")
    return {**_RADIUS_M, **_LIMB_RADIUS_M}.get(kind, 0.03)


def _pixels(points: Float[np.ndarray, "N 2"]) -> list[tuple[int, int]]:
    return [(int(x), int(y)) for x, y in np.clip(points, -30000, 30000).round()]
