"""A furnished room or a yard, all of it covered with pictures, that can be looked at from anywhere inside.

Six flat faces and boxes are simple enough to find what a pixel sees in closed form, so a frame costs a few operations on
whole pictures. Pictures are kept at halving sizes side by side in one sheet (mip maps), and a pixel takes its colour from
the two sizes that fit the distance: nothing flickers while the camera moves.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from jaxtyping import Float

from stages.synthesis import textures
from stages.synthesis.furniture import Box, Piece
from stages.synthesis.outfit import Colour
from stages.synthesis.renderer import Camera, View

_LEVELS = 5
_FINEST_PX_PER_M = 110.0
_LARGEST_PX = 1600
_MATERIAL_M = 3.0
"""Side of the picture that furniture is cut out of, metres; nothing is longer."""
MATERIALS = len(textures.MATERIALS)
_FACES = ("left", "right", "floor", "ceiling", "back", "front")
"""Of the room: x low and high, y low and high, z low and high."""
_SIDE_SHADE = (0.82, 1.08, 0.92)
"""How bright a box's sides are: across x, y (the top), z."""
_IN_SHADE = 0.62


@dataclass(frozen=True)
class Place:
    """Everything in a scene that is not a person."""

    low: Float[np.ndarray, "3"]
    high: Float[np.ndarray, "3"]
    """Corners of the room, metres; its floor is y = 0."""
    pieces: tuple[Piece, ...]
    outdoors: bool
    light: tuple[float, float, float]
    """Towards the light, of length 1."""
    tint: Colour
    """Colour and strength of the light."""
    noise: float
    """Sensor noise, standard deviation in grey levels."""
    seed: int

    @classmethod
    def draw(
        cls,
        rng: np.random.Generator,
        low: Float[np.ndarray, "3"],
        high: Float[np.ndarray, "3"],
        pieces: Sequence[Piece],
        *,
        outdoors: bool,
    ) -> "Place":
        """Light, noise and pictures from a generator."""
        away, lean = rng.uniform(0, 2 * math.pi), rng.uniform(0.3, 0.9)
        light = np.array([lean * math.cos(away), 1.0, lean * math.sin(away)])
        warmth = rng.normal(0, 0.07)
        tint = rng.uniform(0.72, 1.12) * np.array([1 + warmth, 1.0, 1 - warmth])
        return cls(
            low, high, tuple(pieces), outdoors, tuple(light / np.linalg.norm(light)), tuple(tint),
            float(rng.uniform(1.0, 4.0)), int(rng.integers(2**31)),
        )  # fmt: skip

    def look(self, camera: Camera, width: int, height: int) -> View:
        """The picture without people, and how deep it is."""
        rays, (x, y, z) = _rays(camera, width, height)
        eye = camera.eye.astype(np.float32)
        steps = [
            np.where(d > 0, np.float32(high - e), np.float32(low - e)) / np.where(np.abs(d) < 1e-6, np.float32(1e-6), d)
            for d, e, low, high in zip((x, y, z), eye, self.low, self.high, strict=True)
        ]
        depth = np.minimum(np.minimum(steps[0], steps[1]), steps[2])
        axis = np.where(depth == steps[0], 0, np.where(depth == steps[1], 1, 2)).astype(np.int8)
        face = 2 * axis + (np.where(axis == 0, x, np.where(axis == 1, y, z)) > 0)
        across = np.where(axis == 0, eye[2] + depth * z, eye[0] + depth * x)
        down = np.where(axis == 1, eye[2] + depth * z, eye[1] + depth * y)
        slant = np.abs(np.where(axis == 0, x, np.where(axis == 1, y, z)))
        floor = face == _FACES.index("floor")
        shade: Float[np.ndarray, "H W"] | None = None
        boxes = [(number, box) for number, box in enumerate(box for piece in self.pieces for box in piece)]
        for number, box in boxes:
            area = _area(camera, box, width, height)
            if area is None:
                continue
            shade = np.ones_like(depth) if shade is None else shade
            layers = (depth, face, across, down, slant, floor, shade)
            self._add_box(
                number, box, camera.eye, [part[area] for part in (x, y, z)], [layer[area] for layer in layers]
            )
        image = self._coloured(
            face, across, down, depth / np.sqrt(np.maximum(slant, 0.05)) / np.float32(camera.K[0, 0])
        )
        if shade is not None:
            image *= shade[..., None]
        return View(image, rays, floor, depth)

    def _add_box(
        self, number: int, box: Box, eye: Float[np.ndarray, "3"], rays: list[np.ndarray], layers: list[np.ndarray]
    ) -> None:
        """Puts a box into the layers of a picture (views, changed in place) where it is nearest."""
        depth, face, across, down, slant, floor, shade = layers
        origin = box.inside(eye).astype(np.float32)
        half = np.array(box.half, np.float32)
        c, s = np.float32(math.cos(box.yaw_rad)), np.float32(math.sin(box.yaw_rad))
        along = [c * rays[0] - s * rays[2], rays[1], s * rays[0] + c * rays[2]]
        along = [np.where(np.abs(ray) < 1e-6, np.float32(1e-6), ray) for ray in along]
        ahead = [np.copysign(h, ray) for h, ray in zip(half, along, strict=True)]
        enters = [(-h - o) / ray for h, o, ray in zip(ahead, origin, along, strict=True)]
        leaves = [(h - o) / ray for h, o, ray in zip(ahead, origin, along, strict=True)]
        first, last = np.maximum.reduce(enters), np.minimum.reduce(leaves)
        hit = (first < last) & (first > 0) & (first < depth)
        if not hit.any():
            return
        t, ray = first[hit], np.stack([one[hit] for one in along], -1)
        axis = np.stack([one[hit] for one in enters], -1).argmax(-1)
        spot = origin + t[:, None] * ray + half
        # A place of its own in the material for every box, so that two of a kind differ.
        shift = np.random.default_rng([self.seed, number]).uniform(0, _MATERIAL_M - 2 * half.max(), 2)
        depth[hit], face[hit], floor[hit] = t, len(_FACES) + box.material, False
        across[hit] = np.where(axis == 0, spot[:, 2], spot[:, 0]) + shift[0]
        down[hit] = np.where(axis == 1, spot[:, 2], spot[:, 1]) + shift[1]
        slant[hit] = np.abs(np.take_along_axis(ray, axis[:, None], 1)[:, 0])
        shade[hit] = np.array(_SIDE_SHADE, np.float32)[axis]

    def _coloured(
        self, face: np.ndarray, across: np.ndarray, down: np.ndarray, metres_per_px: np.ndarray
    ) -> Float[np.ndarray, "H W 3"]:
        """Colours from the sheet, between the two sizes of picture nearest to the pixel's own."""
        import cv2

        sheet = self._sheet
        finest = sheet.finest[face]
        level = np.log2(np.maximum(metres_per_px * finest, np.float32(1)), dtype=np.float32)
        level = np.minimum(level, np.float32(_LEVELS - 1.001))
        lower = level.astype(np.int8)
        share = level - lower
        shots = []
        for step in (0, 1):
            which = face * _LEVELS + lower + step
            scale = finest * sheet.shrink[lower + step]
            u = sheet.sign[0][face] * (across - sheet.start[0][face]) * scale - np.float32(0.5)
            v = sheet.sign[1][face] * (down - sheet.start[1][face]) * scale - np.float32(0.5)
            u = np.minimum(np.maximum(u, 0), sheet.last[0][which]) + sheet.place[0][which]
            v = np.minimum(np.maximum(v, 0), sheet.last[1][which]) + sheet.place[1][which]
            shots.append(cv2.remap(sheet.image, u, v, cv2.INTER_LINEAR))
        return cv2.blendLinear(shots[0], shots[1], 1 - share, share).astype(np.float32)

    @cached_property
    def _sheet(self) -> "_Sheet":
        rng = np.random.default_rng([self.seed, 5])
        faces = []
        for axis in range(3):
            wide, tall = ((2, 1), (0, 2), (0, 1))[axis]
            size = (self.high - self.low)[[wide, tall]]
            for far in (False, True):
                make = self._maker(rng, axis, far)
                px_per_m = min(_FINEST_PX_PER_M, _LARGEST_PX / float(size.max()))
                image = make(rng, max(2, round(size[1] * px_per_m)), max(2, round(size[0] * px_per_m)), px_per_m)
                if axis == 1 and not far:
                    image = self._with_shadows(image, px_per_m)
                # Row 0 of what stands is its top.
                down = (-1.0, self.high[tall]) if axis != 1 else (1.0, self.low[tall])
                faces.append(_Face(self._lit(image), px_per_m, (1.0, down[0]), (self.low[wide], down[1])))
        for make in textures.MATERIALS:
            side = round(_MATERIAL_M * _FINEST_PX_PER_M)
            image = self._lit(make(rng, side, side, _FINEST_PX_PER_M))
            faces.append(_Face(image, _FINEST_PX_PER_M, (1.0, -1.0), (0.0, _MATERIAL_M)))
        return _Sheet.of(faces)

    def _maker(self, rng: np.random.Generator, axis: int, far: bool) -> Callable[..., textures.Picture]:
        if axis != 1:
            return textures.skyline if self.outdoors else textures.wall
        if far:
            return textures.plain
        pool = textures.YARDS if self.outdoors else textures.FLOORS
        return pool[rng.integers(len(pool))]

    def _lit(self, image: textures.Picture) -> textures.Picture:
        return np.clip(image * np.array(self.tint), 0, 255).astype(np.uint8)

    def _with_shadows(self, image: textures.Picture, px_per_m: float) -> textures.Picture:
        """The floor with the shadows of the furniture."""
        import cv2

        dark = np.zeros(image.shape[:2], np.uint8)
        for box in (box for piece in self.pieces for box in piece):
            fallen = box.corners - (box.corners[:, 1:2] / self.light[1]) * np.array(self.light)
            spots = (fallen[:, [0, 2]] - self.low[[0, 2]]) * px_per_m
            cv2.fillConvexPoly(dark, cv2.convexHull(spots.astype(np.float32)).astype(np.int32), 255)
        soft = cv2.GaussianBlur(dark, (0, 0), 0.03 * px_per_m).astype(np.float32)[..., None] / 255
        return (image * (1 - (1 - _IN_SHADE) * soft)).astype(np.uint8)


@dataclass(frozen=True)
class _Face:
    """A picture with how metres become its pixels: sign * (metres - start) * px_per_m, across and down."""

    image: textures.Picture
    px_per_m: float
    sign: tuple[float, float]
    start: tuple[float, float]


@dataclass(frozen=True)
class _Sheet:
    """All pictures in all sizes in one, with tables of where they are; arrays by face, or by face and size."""

    image: textures.Picture
    finest: Float[np.ndarray, "F"]
    """Pixels a metre of the largest size."""
    sign: tuple[np.ndarray, np.ndarray]
    start: tuple[np.ndarray, np.ndarray]
    shrink: Float[np.ndarray, "L"]
    last: tuple[np.ndarray, np.ndarray]
    place: tuple[np.ndarray, np.ndarray]

    @classmethod
    def of(cls, faces: Sequence[_Face]) -> "_Sheet":
        """Each face is a band of the sheet: its sizes side by side."""
        import cv2

        bands, last, place, top = [], [], [], 0
        wide = 2 * max(face.image.shape[1] for face in faces) + 2 * _LEVELS
        for face in faces:
            band = np.zeros((face.image.shape[0] + 1, wide, 3), np.uint8)
            left, image = 0, face.image
            for level in range(_LEVELS):
                if level:
                    size = [max(2, side // 2) for side in image.shape[1::-1]]
                    image = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
                rows, columns = image.shape[:2]
                band[:rows, left : left + columns] = image
                last.append((columns - 1.01, rows - 1.01))
                place.append((left, top))
                left += columns + 1
            bands.append(band)
            top += len(band)

        def both(values: Sequence[tuple[float, float]]) -> tuple[np.ndarray, np.ndarray]:
            array = np.array(values, np.float32)
            return np.ascontiguousarray(array[:, 0]), np.ascontiguousarray(array[:, 1])

        return cls(
            np.concatenate(bands), np.array([face.px_per_m for face in faces], np.float32),
            both([face.sign for face in faces]), both([face.start for face in faces]),
            np.float32(0.5) ** np.arange(_LEVELS, dtype=np.float32), both(last), both(place),
        )  # fmt: skip


def _rays(
    camera: Camera, width: int, height: int
) -> tuple[Float[np.ndarray, "H W 3"], tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """As `Camera.rays` in single precision, and the same by axis."""
    turn = (np.linalg.inv(camera.K).T @ camera.R).astype(np.float32)
    u, v = (np.arange(side, dtype=np.float32)[:, None] + np.float32(0.5) for side in (width, height))
    rays = (v * turn[1])[:, None] + (u * turn[0] + turn[2])[None]
    x, y, z = (np.ascontiguousarray(rays[..., axis]) for axis in range(3))
    return rays, (x, y, z)


def _area(camera: Camera, box: Box, width: int, height: int) -> tuple[slice, slice] | None:
    """Rows and columns in which a box can be; None where it cannot be seen."""
    corners = box.corners @ camera.R.T + camera.t
    if (corners[:, 2] < 0.05).all():
        return None
    if (corners[:, 2] < 0.05).any():
        return slice(0, height), slice(0, width)
    pixels = camera.project(box.corners)
    (x0, y0), (x1, y1) = np.floor(pixels.min(0)).astype(int), np.ceil(pixels.max(0)).astype(int) + 1
    if x1 <= 0 or y1 <= 0 or x0 >= width or y0 >= height:
        return None
    return slice(max(0, y0), min(height, y1)), slice(max(0, x0), min(width, x1))
