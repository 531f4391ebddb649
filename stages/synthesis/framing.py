"""Placement of a camera from which everybody is visible, and of the room around the people."""

import math
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from stages.synthesis.renderer import Camera, Room

_MIN_PERSON_HEIGHT = 0.36
"""Height of a person over that of the image, below which another position or a rotating camera is tried."""
_ANGLES = 8
_FRAME_STEP = 4
"""A rotating camera hardly moves within this many frames: one of them is checked."""


def choose_cameras(
    points: Float[np.ndarray, "P T 17 3"],
    rng: np.random.Generator,
    width: int,
    height: int,
    fps: float,
    *,
    may_rotate: bool = True,
) -> list[Camera]:
    """One static camera, or one per frame that rotates to follow the people (keypoints of P persons, metres).

    Tries `_ANGLES` directions, mostly from the front, and takes the first from which nobody is too small.
    """
    low, high = points.min((0, 1, 2)), points.max((0, 1, 2))
    centre = np.array([(low[0] + high[0]) / 2, 0.52 * high[1], (low[2] + high[2]) / 2])
    focal = math.hypot(width, height) * rng.uniform(0.9, 1.25)
    height_m, distance_scale, rotates = rng.uniform(0.9, 2.0), rng.uniform(1.0, 1.5), rng.random() < 0.15
    aim = points.mean((0, 2))
    aim[:, 1] = centre[1]
    candidates = []
    for angle in rng.uniform(-1.3, 1.3, _ANGLES):
        distance_scale = max(1.0, 0.93 * distance_scale)
        for aims in (centre[None], _moving_average(aim, fps))[int(rotates and may_rotate) : 2 if may_rotate else 1]:
            cameras, person_height = _nearest_cameras(
                points, centre, aims, angle, height_m, distance_scale, focal, width, height
            )
            candidates.append((person_height, cameras))
            if person_height > _MIN_PERSON_HEIGHT:
                return cameras
    return max(candidates, key=lambda candidate: candidate[0])[1]


def _nearest_cameras(
    points: Float[np.ndarray, "P T 17 3"],
    centre: Float[np.ndarray, "3"],
    aims: Float[np.ndarray, "A 3"],
    angle_rad: float,
    height_m: float,
    distance_scale: float,
    focal_px: float,
    width: int,
    height: int,
) -> tuple[list[Camera], float]:
    """Cameras (one per aim) at the smallest distance with everybody inside the image, and the height of the smallest person
    over that of the image."""
    direction = np.array([math.sin(angle_rad), 0.0, math.cos(angle_rad)])
    cameras: list[Camera] = []
    for distance in np.arange(2.2, 16.0, 0.2):
        eye = centre + direction * distance * distance_scale
        eye[1] = height_m
        cameras = [Camera.look_at(eye, aim, focal_px, width, height) for aim in aims]
        checked = range(0, len(cameras), _FRAME_STEP)
        chunks = [points] if len(cameras) == 1 else [points[:, i : i + _FRAME_STEP] for i in checked]
        heights = [
            _min_person_height(cameras[i], chunk, width, height) for i, chunk in zip(checked, chunks, strict=True)
        ]
        if None not in heights:
            return cameras, min(h for h in heights if h is not None)
    return cameras, 0.0


def _moving_average(track: Float[np.ndarray, "T 3"], fps: float) -> Float[np.ndarray, "T 3"]:
    """Moving average over a second; the ends are extrapolated by point reflection."""
    half = min(round(fps / 2), len(track) - 1)
    before = 2 * track[0] - track[half:0:-1]
    after = 2 * track[-1] - track[-2 : -2 - half : -1]
    padded = np.concatenate([before, track, after])
    return np.stack([padded[i : i + 2 * half + 1].mean(0) for i in range(len(track))])


def _min_person_height(camera: Camera, points: Float[np.ndarray, "P T 17 3"], width: int, height: int) -> float | None:
    """Smallest height of a person over that of the image; None if a person leaves the image or comes too close.

    It is reduced if people overlap.
    """
    if ((points @ camera.R.T + camera.t)[..., 2] < 1.2).any():
        return None
    pixels = camera.project(points)
    person_px = pixels[..., 1].max(-1) - pixels[..., 1].min(-1)
    # Keypoints end at ankles, wrists and eyes: soles, fingers and hair need a margin.
    margin = np.array([0.18, 0.1]) * person_px.max()
    inside = (pixels > margin).all() and (pixels < np.array([width, height]) - margin).all()
    if not inside:
        return None
    min_x, max_x = pixels[..., 0].min(-1), pixels[..., 0].max(-1)
    order = np.argsort(min_x, axis=0)
    gap = np.take_along_axis(min_x, order, 0)[1:] - np.take_along_axis(max_x, order, 0)[:-1]
    overlapping = len(points) > 1 and gap.min() < 0.02 * width
    return float(person_px.min() / height) * (0.3 if overlapping else 1.0)


def choose_room(points: Float[np.ndarray, "P T 17 3"], cameras: Sequence[Camera], rng: np.random.Generator) -> Room:
    """A room whose wall is behind everybody."""
    view_xz = np.mean([camera.R[2] for camera in cameras], 0)[[0, 2]]
    view_xz /= np.linalg.norm(view_xz)
    return Room.draw(rng, view_xz=view_xz, clear_m=float((points[..., [0, 2]] @ view_xz).max()))
