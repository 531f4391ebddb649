"""Where a camera stands, so that everybody is seen, and the room around them."""

import math
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from stages.synthesis.renderer import Camera, Room

_SMALLEST = 0.36
"""A person who would be lower than this share of the picture is filmed from elsewhere, or followed by the camera."""
_ANGLES = 8
_EVERY = 4
"""A turning camera hardly moves within so many frames: one of them is checked."""


def choose_cameras(
    points: Float[np.ndarray, "P T 17 3"],
    rng: np.random.Generator,
    width: int,
    height: int,
    fps: float,
    *,
    may_turn: bool = True,
) -> list[Camera]:
    """One camera that stands still, or one a frame that turns after the people (P persons' keypoints, metres).

    Tries `_ANGLES` directions, mostly from the front, and takes the first from which nobody is too small.
    """
    low, high = points.min((0, 1, 2)), points.max((0, 1, 2))
    centre = np.array([(low[0] + high[0]) / 2, 0.52 * high[1], (low[2] + high[2]) / 2])
    focal = math.hypot(width, height) * rng.uniform(0.9, 1.25)
    rise, slack, turns = rng.uniform(0.9, 2.0), rng.uniform(1.0, 1.5), rng.random() < 0.15
    aim = points.mean((0, 2))
    aim[:, 1] = centre[1]
    shots = []
    for angle in rng.uniform(-1.3, 1.3, _ANGLES):
        slack = max(1.0, 0.93 * slack)
        for aims in (centre[None], _slow(aim, fps))[int(turns and may_turn) : 2 if may_turn else 1]:
            cameras, tall = _back_off(points, centre, aims, angle, rise, slack, focal, width, height)
            shots.append((tall, cameras))
            if tall > _SMALLEST:
                return cameras
    return max(shots, key=lambda shot: shot[0])[1]


def _back_off(
    points: Float[np.ndarray, "P T 17 3"],
    centre: Float[np.ndarray, "3"],
    aims: Float[np.ndarray, "A 3"],
    angle_rad: float,
    rise_m: float,
    slack: float,
    focal_px: float,
    width: int,
    height: int,
) -> tuple[list[Camera], float]:
    """The nearest place from which all is seen, with one camera an aim, and how tall the smallest person is there."""
    towards = np.array([math.sin(angle_rad), 0.0, math.cos(angle_rad)])
    cameras: list[Camera] = []
    for distance in np.arange(2.2, 16.0, 0.2):
        eye = centre + towards * distance * slack
        eye[1] = rise_m
        cameras = [Camera.looking(eye, aim, focal_px, width, height) for aim in aims]
        looks = range(0, len(cameras), _EVERY)
        shown = [points] if len(cameras) == 1 else [points[:, i : i + _EVERY] for i in looks]
        tall = [_extent(cameras[i], part, width, height) for i, part in zip(looks, shown, strict=True)]
        if None not in tall:
            return cameras, min(t for t in tall if t is not None)
    return cameras, 0.0


def _slow(track: Float[np.ndarray, "T 3"], fps: float) -> Float[np.ndarray, "T 3"]:
    """Moving average over a second, the ends continued as they were going."""
    reach = min(round(fps / 2), len(track) - 1)
    before = 2 * track[0] - track[reach:0:-1]
    after = 2 * track[-1] - track[-2 : -2 - reach : -1]
    padded = np.concatenate([before, track, after])
    return np.stack([padded[i : i + 2 * reach + 1].mean(0) for i in range(len(track))])


def _extent(camera: Camera, points: Float[np.ndarray, "P T 17 3"], width: int, height: int) -> float | None:
    """Smallest height of a person over the picture's; None when somebody leaves it or comes too near.

    It counts for less when people hide each other.
    """
    if ((points @ camera.R.T + camera.t)[..., 2] < 1.2).any():
        return None
    pixels = camera.project(points)
    tall = pixels[..., 1].max(-1) - pixels[..., 1].min(-1)
    # Keypoints end at ankles, wrists and eyes: soles, fingers and hair need some more.
    margin = np.array([0.18, 0.1]) * tall.max()
    inside = (pixels > margin).all() and (pixels < np.array([width, height]) - margin).all()
    if not inside:
        return None
    left, right = pixels[..., 0].min(-1), pixels[..., 0].max(-1)
    order = np.argsort(left, axis=0)
    gap = np.take_along_axis(left, order, 0)[1:] - np.take_along_axis(right, order, 0)[:-1]
    hidden = len(points) > 1 and gap.min() < 0.02 * width
    return float(tall.min() / height) * (0.3 if hidden else 1.0)


def choose_room(points: Float[np.ndarray, "P T 17 3"], cameras: Sequence[Camera], rng: np.random.Generator) -> Room:
    """A room whose wall is behind everybody."""
    view = np.mean([camera.R[2] for camera in cameras], 0)[[0, 2]]
    view /= np.linalg.norm(view)
    return Room.draw(rng, view_xz=view, clear_m=float((points[..., [0, 2]] @ view).max()))
