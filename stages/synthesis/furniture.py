"""Furniture made of boxes, in the background of a scene and as occluders of its people."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float


@dataclass(frozen=True)
class Box:
    """An upright box."""

    centre: tuple[float, float, float]
    """Metres."""
    half_extents: tuple[float, float, float]
    """Half of width, height and depth, metres."""
    yaw_rad: float
    material: int
    """Index of its texture among the environment's materials."""

    def to_local(self, points: Float[np.ndarray, "*B 3"]) -> Float[np.ndarray, "*B 3"]:
        """World points in the box's axes."""
        return (points - np.array(self.centre)) @ self.axes.T

    @property
    def axes(self) -> Float[np.ndarray, "3 3"]:
        """World to box."""
        c, s = math.cos(self.yaw_rad), math.sin(self.yaw_rad)
        return np.array([[c, 0, -s], [0, 1, 0], [s, 0, c]])

    @property
    def corners(self) -> Float[np.ndarray, "8 3"]:
        """World positions."""
        signs = np.array([[x, y, z] for x in (-1, 1) for y in (-1, 1) for z in (-1, 1)])
        return (signs * self.half_extents) @ self.axes + self.centre

    def intersect(
        self, start: Float[np.ndarray, "3"], directions: Float[np.ndarray, "*B 3"]
    ) -> tuple[Float[np.ndarray, "*B"], Float[np.ndarray, "*B"]]:
        """Entry and exit of rays, in lengths of their directions; a ray that misses has its entry after its exit."""
        origin = self.to_local(start)
        local = directions @ self.axes.T
        local = np.where(np.abs(local) < 1e-9, 1e-9, local)
        half = np.array(self.half_extents)
        first, second = (-half - origin) / local, (half - origin) / local
        return np.minimum(first, second).max(-1), np.maximum(first, second).min(-1)

    def ground_distance(self, points: Float[np.ndarray, "*B 3"]) -> Float[np.ndarray, "*B"]:
        """Horizontal distance from points to the box, metres; 0 above or below it."""
        outside = np.abs(self.to_local(points)[..., [0, 2]]) - np.array(self.half_extents)[[0, 2]]
        return np.linalg.norm(np.maximum(outside, 0), axis=-1)


Piece = tuple[Box, ...]
"""The boxes of one piece of furniture."""
_Part = tuple[tuple[float, float, float], tuple[float, float, float], int]
"""Centre and size of a box, metres, and its material."""


def occluded_points(
    pieces: Sequence[Piece], eyes: Float[np.ndarray, "T 3"], points: Float[np.ndarray, "*P T K 3"]
) -> Bool[np.ndarray, "*P T K"]:
    """Mask of the points that are behind a piece, seen from each frame's camera position."""
    occluded = np.zeros(points.shape[:-1], bool)
    for box in (box for piece in pieces for box in piece):
        for frame, eye in enumerate(eyes):
            entry, exit_ = box.intersect(eye, points[..., frame, :, :] - eye)
            occluded[..., frame, :] |= (entry < exit_) & (exit_ > 0) & (entry < 1)
    return occluded


def draw_piece(rng: np.random.Generator, at_xz: Float[np.ndarray, "2"], yaw_rad: float, *, materials: int) -> Piece:
    """A random pillar, screen, table, chair, sideboard, shelf or stack of crates."""
    kind = _KINDS[rng.integers(len(_KINDS))]
    main, other = (int(value) for value in rng.integers(materials, size=2))
    wide, deep = rng.uniform(0.9, 1.7), rng.uniform(0.45, 0.8)
    parts: list[_Part]
    if kind == "table":
        top = rng.uniform(0.68, 0.78)
        parts = [((0, top, 0), (wide, 0.04, deep), main)]
        parts += [
            ((x * (wide / 2 - 0.05), (top - 0.02) / 2, z * (deep / 2 - 0.05)), (0.05, top - 0.02, 0.05), other)
            for x in (-1, 1)
            for z in (-1, 1)
        ]
    elif kind == "chair":
        seat, side = rng.uniform(0.42, 0.48), rng.uniform(0.4, 0.5)
        parts = [
            ((0, seat, 0), (side, 0.05, side), main),
            ((0, seat + 0.25, -side / 2), (side, 0.45, 0.04), main),
        ]
        parts += [
            ((x * (side / 2 - 0.02), seat / 2, z * (side / 2 - 0.02)), (0.04, seat, 0.04), other)
            for x in (-1, 1)
            for z in (-1, 1)
        ]
    elif kind == "crates":
        sizes = rng.uniform(0.3, 0.55, 3)
        heights = np.cumsum([0.0, *0.7 * sizes[:2]])
        parts = [
            (
                (float(rng.normal(0, 0.04)), base + 0.35 * size, float(rng.normal(0, 0.04))),
                (size, 0.7 * size, size),
                material,
            )
            for base, size, material in zip(heights[: rng.integers(1, 4)], sizes, (main, other, main), strict=False)
        ]
    else:
        size = {
            "pillar": (rng.uniform(0.2, 0.4), rng.uniform(2.2, 2.5), rng.uniform(0.2, 0.4)),
            "screen": (rng.uniform(0.6, 1.1), rng.uniform(1.2, 1.8), 0.05),
            "sideboard": (wide, rng.uniform(0.6, 1.0), 0.42),
            "shelf": (rng.uniform(0.5, 1.0), rng.uniform(1.5, 2.1), 0.3),
        }[kind]
        parts = [((0, size[1] / 2, 0), size, main)]
    c, s = math.cos(yaw_rad), math.sin(yaw_rad)
    return tuple(
        Box(
            (at_xz[0] + c * centre[0] + s * centre[2], centre[1], at_xz[1] - s * centre[0] + c * centre[2]),
            (size[0] / 2, size[1] / 2, size[2] / 2),
            yaw_rad,
            material,
        )
        for centre, size, material in parts
    )


_KINDS = ("pillar", "pillar", "screen", "table", "chair", "sideboard", "shelf", "crates")
_PERSON_CLEARANCE_M, _CAMERA_CLEARANCE_M = 0.35, 0.5
"""Smallest horizontal distance of furniture from people's keypoints and from the camera."""
_TRIES = 40


def place_occluders(
    count: int,
    points: Float[np.ndarray, "P T 17 3"],
    eyes: Float[np.ndarray, "T 3"],
    rng: np.random.Generator,
    *,
    materials: int,
) -> list[Piece]:
    """Furniture between camera and people: each piece occludes something, all together less than half of any person.

    Fewer than `count` pieces if people and camera leave no room for more.
    """
    pieces: list[Piece] = []
    sampled = slice(None, None, max(1, len(eyes) // 12))
    for _ in range(count):
        for _ in range(_TRIES):
            person, frame = rng.integers(len(points)), rng.integers(len(eyes))
            share = rng.uniform(0.35, 0.85)
            target = points[person, frame].mean(0)
            point = (1 - share) * eyes[frame] + share * target
            sideways = np.cross(target - eyes[frame], [0.0, 1.0, 0.0])[[0, 2]]
            at_xz = point[[0, 2]] + sideways / np.linalg.norm(sideways) * rng.normal(0, 0.3)
            piece = draw_piece(rng, at_xz, rng.uniform(-math.pi, math.pi), materials=materials)
            if not _is_clear(piece, points, eyes):
                continue
            added = occluded_points([piece], eyes[sampled], points[:, sampled]).mean((1, 2))
            total = occluded_points([*pieces, piece], eyes[sampled], points[:, sampled]).mean((1, 2))
            if added.max() > 0.04 and total.max() < 0.45:
                pieces.append(piece)
                break
    return pieces


def place_background(
    count: int,
    points: Float[np.ndarray, "P T 17 3"],
    eyes: Float[np.ndarray, "T 3"],
    bounds: Float[np.ndarray, "2 2"],
    rng: np.random.Generator,
    *,
    materials: int,
) -> list[Piece]:
    """Furniture inside `bounds` (min and max x, z) that occludes nobody."""
    pieces: list[Piece] = []
    sampled = slice(None, None, max(1, len(eyes) // 12))
    for _ in range(count * 4):
        at_xz = rng.uniform(bounds[0] + 0.4, bounds[1] - 0.4)
        piece = draw_piece(rng, at_xz, rng.integers(4) * math.pi / 2 + rng.normal(0, 0.1), materials=materials)
        if _is_clear(piece, points, eyes) and not occluded_points([piece], eyes[sampled], points[:, sampled]).any():
            pieces.append(piece)
        if len(pieces) == count:
            break
    return pieces


def _is_clear(piece: Piece, points: Float[np.ndarray, "P T 17 3"], eyes: Float[np.ndarray, "T 3"]) -> bool:
    return all(
        box.ground_distance(points[:, ::3]).min() > _PERSON_CLEARANCE_M
        and box.ground_distance(eyes[::3]).min() > _CAMERA_CLEARANCE_M
        for box in piece
    )
