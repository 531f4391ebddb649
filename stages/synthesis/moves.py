"""Cameras for scenes: on a tripod or moving as people move cameras, so far away that the people can be seen."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from scipy.spatial.transform import Rotation

from schemas.records import FPS
from stages.synthesis.renderer import Camera

MOVES = ("pan", "hand_held", "dolly", "arc", "push")
"""How a moving camera moves: turns on the spot; is held; is carried along; goes around; comes nearer or backs off."""
FULL_FRAME_DIAGONAL_MM = 43.27
_FOCAL_MM = (24.0, 70.0)
_NEAREST_M, _FARTHEST_M = 1.6, 14.0
_SMALLEST = 0.3
"""A camera does not back off further than to where a person is as high as this share of the picture."""
_WANTED = 0.97
"""Share of keypoints, over people and frames, that should be in the picture."""
_ANGLES = 10
_EVERY = 5
"""Frames between those at which a camera is tried."""


@dataclass(frozen=True)
class _Plan:
    """How a camera moves, for any distance."""

    angle_rad: Float[np.ndarray, "T"]
    """Direction from the people to the camera; 0 is +Z."""
    carry: float
    """Share of the people's way that the camera makes too."""
    follow: float
    """Share of the people's way that it turns after."""
    nearer: Float[np.ndarray, "T"]
    """Factor on the distance."""
    sway_m: Float[np.ndarray, "T 3"]
    aside: Float[np.ndarray, "T 2"]
    """Where the people are in the picture, shares of its size from the middle."""
    shake_rad: Float[np.ndarray, "T 3"]
    """Small turns about the camera's own axes."""
    rise_m: float


def draw_cameras(
    points: Float[np.ndarray, "P T 17 3"],
    rng: np.random.Generator,
    width: int,
    height: int,
    *,
    move: str,
    crossing: bool,
) -> list[Camera]:
    """One camera (`move` is "") or one a frame that see the people most of the time from a direction of any kind.

    Of several directions that one is taken from which people hide each other least, or, if `crossing`, some of the time.
    """
    diagonal = math.hypot(width, height)
    focal_mm = math.exp(rng.uniform(math.log(_FOCAL_MM[0]), math.log(_FOCAL_MM[1])))
    focal_px = focal_mm / FULL_FRAME_DIAGONAL_MM * diagonal
    slack, smallest = rng.uniform(1.0, 1.35), _SMALLEST
    best: tuple[float, list[Camera]] | None = None
    plan = _draw_plan(rng, points.shape[1], move)
    for angle in rng.uniform(-math.pi, math.pi, _ANGLES if len(points) > 1 else 1):
        cameras = _back_off(points, plan, angle, focal_px, slack, smallest, width, height)
        missed = abs(_overlap(points, cameras) - (0.3 if crossing else 0.0))
        if best is None or missed < best[0]:
            best = (missed, cameras)
        if missed < 0.02:
            break
    assert best is not None
    return best[1]


def _draw_plan(rng: np.random.Generator, frames: int, move: str) -> _Plan:
    t = np.arange(frames) / FPS
    still = np.zeros(frames)
    angle, nearer, carry, follow = still, still + 1.0, 0.0, 0.0
    sway, shake = np.zeros((frames, 3)), np.zeros((frames, 3))
    aside = np.tile(rng.uniform(-0.06, 0.06, 2), (frames, 1))
    rise = rng.uniform(0.4, 2.4)
    if not move:
        shake[:] = [0.0, 0.0, rng.normal(0, 0.012)]
        return _Plan(angle, carry, follow, nearer, sway, aside, shake, rise)
    follow = rng.uniform(0.75, 1.0)
    # A held camera trembles; a carried one is steadier, yet never quite still.
    held = {"pan": 0.15, "hand_held": 1.0, "dolly": 0.25, "arc": 0.35, "push": 0.35}[move] * rng.uniform(0.7, 1.5)
    shake = np.stack(
        [_tremble(t, rng, 0.009 * held), _tremble(t, rng, 0.009 * held), _tremble(t, rng, 0.006 * held)], 1
    )
    shake[:, 2] += rng.normal(0, 0.02)
    sway = 0.025 * held * np.stack([_tremble(t, rng, 1.0, slowest=0.25) for _ in range(3)], 1)
    share = t / max(t[-1], 1.0)
    if move == "pan":
        slide = rng.uniform(0.06, 0.12) * rng.choice([-1, 1])
        aside = aside + np.stack([slide * np.cos(math.pi * share), still], 1)
    elif move == "hand_held":
        carry = rng.uniform(0.0, 0.4)
        sway[:, [0, 2]] += share[:, None] * rng.normal(0, 0.12, 2)
    elif move == "dolly":
        carry, follow = rng.uniform(0.7, 1.0), 1.0
        way = rng.uniform(-math.pi, math.pi)
        sway[:, [0, 2]] += np.outer(t * rng.uniform(0.1, 0.3), [math.sin(way), math.cos(way)])
    elif move == "arc":
        carry, follow = rng.uniform(0.8, 1.0), 1.0
        angle = t * rng.uniform(0.08, 0.3) * rng.choice([-1, 1])
    else:
        carry = rng.uniform(0.3, 1.0)
        nearer = 1 + rng.choice([-1, 1]) * rng.uniform(0.12, 0.3) * (0.5 - 0.5 * np.cos(math.pi * share))
    return _Plan(angle, carry, follow, nearer, sway, aside, shake, rise)


def _tremble(
    t: Float[np.ndarray, "T"], rng: np.random.Generator, size: float, *, slowest: float = 0.5
) -> Float[np.ndarray, "T"]:
    """A sum of waves of 0.5 to 5 Hz, the slow ones larger; its standard deviation is `size`."""
    rates = slowest * 1.6 ** np.arange(6)
    weights = 1 / rates
    waves = np.sin(2 * math.pi * (t[:, None] * rates * rng.uniform(0.85, 1.15, 6) + rng.random(6)))
    return size * (waves @ weights) / math.sqrt(0.5 * (weights**2).sum())


def _back_off(
    points: Float[np.ndarray, "P T 17 3"],
    plan: _Plan,
    angle_rad: float,
    focal_px: float,
    slack: float,
    smallest: float,
    width: int,
    height: int,
) -> list[Camera]:
    """The nearest cameras that have people in the picture, `slack` times as far away."""
    still = not (plan.follow or plan.carry or np.ptp(plan.sway_m))
    centre = points.mean((0, 2))
    if still:
        low, high = points.min((0, 1, 2)), points.max((0, 1, 2))
        centre = np.tile((low + high) / 2, (len(centre), 1))
    else:
        centre = _slow(centre)
    tall_m = float(np.median(np.ptp(points[..., 1], axis=-1))) + 0.2

    def film(distance_m: float) -> Callable[[int], Camera]:
        return lambda frame: _camera(plan, centre, frame, distance_m, angle_rad, focal_px, width, height)

    most_m = max(_NEAREST_M, min(_FARTHEST_M, focal_px * tall_m / (smallest * height)))
    tried = range(0, points.shape[1], _EVERY)
    chosen = most_m
    for distance in np.geomspace(_NEAREST_M, most_m, 24):
        shown = [_shown(film(distance)(frame), points[:, frame], width, height) for frame in tried]
        if np.mean(shown) > _WANTED:
            chosen = min(most_m, slack * distance)
            break
    at = film(chosen)
    return [at(0)] if still else [at(frame) for frame in range(points.shape[1])]


def _camera(
    plan: _Plan,
    centre: Float[np.ndarray, "T 3"],
    frame: int,
    distance_m: float,
    angle_rad: float,
    focal_px: float,
    width: int,
    height: int,
) -> Camera:
    moved = (centre[frame] - centre[0]) * [1.0, 0.2, 1.0]
    angle = angle_rad + plan.angle_rad[frame]
    eye = centre[0] + plan.carry * moved + plan.sway_m[frame]
    eye = eye + distance_m * plan.nearer[frame] * np.array([math.sin(angle), 0.0, math.cos(angle)])
    eye[1] = max(0.15, plan.rise_m + plan.sway_m[frame, 1])
    aim = centre[0] + max(plan.carry, plan.follow) * moved
    level = Camera.looking(eye, aim, focal_px, width, height)
    # The aim belongs `aside` of the middle: turn about the camera's upright and level axes.
    across, down = plan.aside[frame] * [width, height] / focal_px
    turn = Rotation.from_euler("YXZ", plan.shake_rad[frame, [1, 0, 2]] + [across, -down, 0.0]).as_matrix()
    R = turn @ level.R
    return Camera(level.K, R, -R @ eye)


def _shown(camera: Camera, points: Float[np.ndarray, "P 17 3"], width: int, height: int) -> float:
    """Share of keypoints in the picture, with some room for soles and hands; 0 where somebody comes too near."""
    depth = (points @ camera.R.T + camera.t)[..., 2]
    if (depth < 1.0).any():
        return 0.0
    pixels = camera.project(points)
    margin = np.array([0.02, 0.04]) * height
    return float(((pixels > margin) & (pixels < np.array([width, height]) - margin)).all(-1).mean())


def _overlap(points: Float[np.ndarray, "P T 17 3"], cameras: list[Camera]) -> float:
    """Share of the frames in which two people's extents in the picture touch."""
    if len(points) < 2:
        return 0.0
    touching = []
    for frame in range(0, points.shape[1], _EVERY):
        x = cameras[frame if len(cameras) > 1 else 0].project(points[:, frame])[..., 0]
        low, high = x.min(1), x.max(1)
        order = np.argsort(low)
        touching.append(bool((low[order][1:] < high[order][:-1]).any()))
    return float(np.mean(touching))


def _slow(track: Float[np.ndarray, "T 3"]) -> Float[np.ndarray, "T 3"]:
    """As an operator follows: smoothed over about a second."""
    frames = np.arange(len(track))
    kernel = np.exp(-0.5 * ((frames[:, None] - frames) / 9.0) ** 2)
    return (kernel / kernel.sum(1, keepdims=True)) @ track
