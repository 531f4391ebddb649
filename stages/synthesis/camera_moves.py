"""Cameras for scenes, static or moving, at a distance from which the people are visible."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from scipy.spatial.transform import Rotation

from schemas.records import FPS
from stages.synthesis.renderer import Camera

MOVES = ("pan", "hand_held", "dolly", "arc", "push")
"""Camera moves: rotation on the spot; hand-held; travel with the people; orbit; approach or retreat."""
FULL_FRAME_DIAGONAL_MM = 43.27
_FOCAL_MM = (24.0, 70.0)
_MIN_DISTANCE_M, _MAX_DISTANCE_M = 1.6, 14.0
_MIN_PERSON_HEIGHT = 0.3
"""Smallest height of a person over that of the image; it limits the camera's distance."""
_MIN_VISIBLE = 0.97
"""Share of keypoints, over people and frames, that should be inside the image."""
_ANGLES = 10
_FRAME_STEP = 5
"""A camera is checked at every such frame."""


@dataclass(frozen=True)
class _CameraPath:
    """The movement of a camera, independent of its distance."""

    angle_rad: Float[np.ndarray, "T"]
    """Direction from the people to the camera; 0 is +Z."""
    travel: float
    """Share of the people's displacement by which the camera translates."""
    follow: float
    """Share of the people's displacement that its aim follows by rotation."""
    distance_factor: Float[np.ndarray, "T"]
    sway_m: Float[np.ndarray, "T 3"]
    image_offset: Float[np.ndarray, "T 2"]
    """Offset of the people from the image centre, shares of the image size."""
    shake_rad: Float[np.ndarray, "T 3"]
    """Small rotations about the camera's own axes."""
    height_m: float


def draw_cameras(
    points: Float[np.ndarray, "P T 17 3"],
    rng: np.random.Generator,
    width: int,
    height: int,
    *,
    move: str,
    crossing: bool,
) -> list[Camera]:
    """One camera (`move` is "") or one per frame, from a random direction, with the people inside the image most of the time.

    The direction is that of several in which people overlap least in the image, or, if `crossing`, nearest to 0.3 of the time.
    """
    diagonal = math.hypot(width, height)
    focal_mm = math.exp(rng.uniform(math.log(_FOCAL_MM[0]), math.log(_FOCAL_MM[1])))
    focal_px = focal_mm / FULL_FRAME_DIAGONAL_MM * diagonal
    distance_scale = rng.uniform(1.0, 1.35)
    best: tuple[float, list[Camera]] | None = None
    path = _draw_path(rng, points.shape[1], move)
    for angle in rng.uniform(-math.pi, math.pi, _ANGLES if len(points) > 1 else 1):
        cameras = _nearest_cameras(points, path, angle, focal_px, distance_scale, width, height)
        error = abs(_overlap(points, cameras) - (0.3 if crossing else 0.0))
        if best is None or error < best[0]:
            best = (error, cameras)
        if error < 0.02:
            break
    assert best is not None
    return best[1]


def _draw_path(rng: np.random.Generator, frames: int, move: str) -> _CameraPath:
    t = np.arange(frames) / FPS
    zeros = np.zeros(frames)
    angle, distance_factor, travel, follow = zeros, zeros + 1.0, 0.0, 0.0
    sway, shake = np.zeros((frames, 3)), np.zeros((frames, 3))
    image_offset = np.tile(rng.uniform(-0.06, 0.06, 2), (frames, 1))
    height = rng.uniform(0.4, 2.4)
    if not move:
        shake[:] = [0.0, 0.0, rng.normal(0, 0.012)]
        return _CameraPath(angle, travel, follow, distance_factor, sway, image_offset, shake, height)
    follow = rng.uniform(0.75, 1.0)
    # A hand-held camera shakes most; the other moves are steadier, yet never perfectly smooth.
    shake_scale = {"pan": 0.15, "hand_held": 1.0, "dolly": 0.25, "arc": 0.35, "push": 0.35}[move]
    shake_scale *= rng.uniform(0.7, 1.5)
    shake = np.stack([_shake(t, rng, std_rad * shake_scale) for std_rad in (0.009, 0.009, 0.006)], 1)
    shake[:, 2] += rng.normal(0, 0.02)
    sway = 0.025 * shake_scale * np.stack([_shake(t, rng, 1.0, min_hz=0.25) for _ in range(3)], 1)
    progress = t / max(t[-1], 1.0)
    if move == "pan":
        slide = rng.uniform(0.06, 0.12) * rng.choice([-1, 1])
        image_offset = image_offset + np.stack([slide * np.cos(math.pi * progress), zeros], 1)
    elif move == "hand_held":
        travel = rng.uniform(0.0, 0.4)
        sway[:, [0, 2]] += progress[:, None] * rng.normal(0, 0.12, 2)
    elif move == "dolly":
        travel, follow = rng.uniform(0.7, 1.0), 1.0
        direction = rng.uniform(-math.pi, math.pi)
        sway[:, [0, 2]] += np.outer(t * rng.uniform(0.1, 0.3), [math.sin(direction), math.cos(direction)])
    elif move == "arc":
        travel, follow = rng.uniform(0.8, 1.0), 1.0
        angle = t * rng.uniform(0.08, 0.3) * rng.choice([-1, 1])
    else:
        travel = rng.uniform(0.3, 1.0)
        change = rng.choice([-1, 1]) * rng.uniform(0.12, 0.3)
        distance_factor = 1 + change * (0.5 - 0.5 * np.cos(math.pi * progress))
    return _CameraPath(angle, travel, follow, distance_factor, sway, image_offset, shake, height)


def _shake(
    t: Float[np.ndarray, "T"], rng: np.random.Generator, std: float, *, min_hz: float = 0.5
) -> Float[np.ndarray, "T"]:
    """Six sine waves from `min_hz` up to ten times it, the slow ones larger; the standard deviation is `std`."""
    rates = min_hz * 1.6 ** np.arange(6)
    weights = 1 / rates
    waves = np.sin(2 * math.pi * (t[:, None] * rates * rng.uniform(0.85, 1.15, 6) + rng.random(6)))
    return std * (waves @ weights) / math.sqrt(0.5 * (weights**2).sum())


def _nearest_cameras(
    points: Float[np.ndarray, "P T 17 3"],
    path: _CameraPath,
    angle_rad: float,
    focal_px: float,
    distance_scale: float,
    width: int,
    height: int,
) -> list[Camera]:
    """Cameras at `distance_scale` times the smallest distance at which the people are inside the image."""
    is_static = not (path.follow or path.travel or np.ptp(path.sway_m))
    centre = points.mean((0, 2))
    if is_static:
        low, high = points.min((0, 1, 2)), points.max((0, 1, 2))
        centre = np.tile((low + high) / 2, (len(centre), 1))
    else:
        centre = _smoothed(centre)
    person_height_m = float(np.median(np.ptp(points[..., 1], axis=-1))) + 0.2

    def cameras_at(distance_m: float) -> Callable[[int], Camera]:
        return lambda frame: _camera(path, centre, frame, distance_m, angle_rad, focal_px, width, height)

    max_m = focal_px * person_height_m / (_MIN_PERSON_HEIGHT * height)
    max_m = max(_MIN_DISTANCE_M, min(_MAX_DISTANCE_M, max_m))
    checked = range(0, points.shape[1], _FRAME_STEP)
    chosen_m = max_m
    for distance_m in np.geomspace(_MIN_DISTANCE_M, max_m, 24):
        camera = cameras_at(distance_m)
        visible = [_visible_share(camera(frame), points[:, frame], width, height) for frame in checked]
        if np.mean(visible) > _MIN_VISIBLE:
            chosen_m = min(max_m, distance_scale * distance_m)
            break
    camera = cameras_at(chosen_m)
    return [camera(0)] if is_static else [camera(frame) for frame in range(points.shape[1])]


def _camera(
    path: _CameraPath,
    centre: Float[np.ndarray, "T 3"],
    frame: int,
    distance_m: float,
    angle_rad: float,
    focal_px: float,
    width: int,
    height: int,
) -> Camera:
    displacement = (centre[frame] - centre[0]) * [1.0, 0.2, 1.0]
    angle = angle_rad + path.angle_rad[frame]
    eye = centre[0] + path.travel * displacement + path.sway_m[frame]
    eye = eye + distance_m * path.distance_factor[frame] * np.array([math.sin(angle), 0.0, math.cos(angle)])
    eye[1] = max(0.15, path.height_m + path.sway_m[frame, 1])
    aim = centre[0] + max(path.travel, path.follow) * displacement
    level = Camera.look_at(eye, aim, focal_px, width, height)
    # Rotations about the camera's vertical and horizontal axes move the aim off the image centre by `image_offset`.
    yaw_rad, pitch_rad = path.image_offset[frame] * [width, height] / focal_px
    angles_rad = path.shake_rad[frame, [1, 0, 2]] + [yaw_rad, -pitch_rad, 0.0]
    R = Rotation.from_euler("YXZ", angles_rad).as_matrix() @ level.R
    return Camera(level.K, R, -R @ eye)


def _visible_share(camera: Camera, points: Float[np.ndarray, "P 17 3"], width: int, height: int) -> float:
    """Share of keypoints inside the image, with a margin for soles and hands; 0 if a person is too close."""
    depth = (points @ camera.R.T + camera.t)[..., 2]
    if (depth < 1.0).any():
        return 0.0
    pixels = camera.project(points)
    margin = np.array([0.02, 0.04]) * height
    return float(((pixels > margin) & (pixels < np.array([width, height]) - margin)).all(-1).mean())


def _overlap(points: Float[np.ndarray, "P T 17 3"], cameras: list[Camera]) -> float:
    """Share of the frames in which the horizontal extents of two people in the image overlap."""
    if len(points) < 2:
        return 0.0
    overlaps = []
    for frame in range(0, points.shape[1], _FRAME_STEP):
        x = cameras[frame if len(cameras) > 1 else 0].project(points[:, frame])[..., 0]
        min_x, max_x = x.min(1), x.max(1)
        order = np.argsort(min_x)
        overlaps.append(bool((min_x[order][1:] < max_x[order][:-1]).any()))
    return float(np.mean(overlaps))


def _smoothed(track: Float[np.ndarray, "T 3"]) -> Float[np.ndarray, "T 3"]:
    """A track smoothed over about a second, as an operator follows."""
    frames = np.arange(len(track))
    kernel = np.exp(-0.5 * ((frames[:, None] - frames) / 9.0) ** 2)
    return (kernel / kernel.sum(1, keepdims=True)) @ track
