"""A furnished, fully textured room or yard that can be rendered from any point inside it.

Six planes and boxes have closed-form ray intersections, so a frame costs a few operations on whole images. Textures are
stored with their mip maps in one atlas, and a pixel is interpolated between the two levels that fit its distance, so that
nothing flickers while the camera moves.
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
from stages.synthesis.renderer import Background, Camera

_LEVELS = 5
_FINEST_PX_PER_M = 110.0
_LARGEST_PX = 1600
_MATERIAL_M = 3.0
"""Side of a material's texture, metres; no furniture is longer."""
MATERIALS = len(textures.MATERIALS)
_FACES = ("left", "right", "floor", "ceiling", "back", "front")
"""The planes of the room: x min and max, y min and max, z min and max."""
_SIDE_SHADE = (0.82, 1.08, 0.92)
"""Brightness of a box's faces, by their normal: x, y (the top), z."""
_SHADOW_BRIGHTNESS = 0.62


@dataclass(frozen=True)
class TexturedEnvironment:
    """The environment of a scene: a room or yard, its furniture and its light."""

    low: Float[np.ndarray, "3"]
    high: Float[np.ndarray, "3"]
    """Corners of the room, metres; its floor is y = 0."""
    pieces: tuple[Piece, ...]
    outdoors: bool
    light: tuple[float, float, float]
    """Unit vector towards the light."""
    tint: Colour
    """Colour and intensity of the light."""
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
    ) -> "TexturedEnvironment":
        """Random light, noise and textures."""
        azimuth, tilt = rng.uniform(0, 2 * math.pi), rng.uniform(0.3, 0.9)
        light = np.array([tilt * math.cos(azimuth), 1.0, tilt * math.sin(azimuth)])
        warmth = rng.normal(0, 0.07)
        tint = rng.uniform(0.72, 1.12) * np.array([1 + warmth, 1.0, 1 - warmth])
        return cls(
            low, high, tuple(pieces), outdoors, tuple(light / np.linalg.norm(light)), tuple(tint),
            float(rng.uniform(1.0, 4.0)), int(rng.integers(2**31)),
        )  # fmt: skip

    def render_background(self, camera: Camera, width: int, height: int) -> Background:
        """The image without people, and its depth."""
        rays, (x, y, z) = _rays(camera, width, height)
        eye = camera.eye.astype(np.float32)
        distances = [
            np.where(d > 0, np.float32(high - e), np.float32(low - e)) / np.where(np.abs(d) < 1e-6, np.float32(1e-6), d)
            for d, e, low, high in zip((x, y, z), eye, self.low, self.high, strict=True)
        ]
        depth = np.minimum(np.minimum(distances[0], distances[1]), distances[2])
        axis = np.where(depth == distances[0], 0, np.where(depth == distances[1], 1, 2)).astype(np.int8)
        face = 2 * axis + (np.where(axis == 0, x, np.where(axis == 1, y, z)) > 0)
        u_m = np.where(axis == 0, eye[2] + depth * z, eye[0] + depth * x)
        v_m = np.where(axis == 1, eye[2] + depth * z, eye[1] + depth * y)
        slant = np.abs(np.where(axis == 0, x, np.where(axis == 1, y, z)))
        floor = face == _FACES.index("floor")
        shade: Float[np.ndarray, "H W"] | None = None
        boxes = [(number, box) for number, box in enumerate(box for piece in self.pieces for box in piece)]
        for number, box in boxes:
            area = _image_area(camera, box, width, height)
            if area is None:
                continue
            shade = np.ones_like(depth) if shade is None else shade
            layers = (depth, face, u_m, v_m, slant, floor, shade)
            self._add_box(
                number, box, camera.eye, [component[area] for component in (x, y, z)], [layer[area] for layer in layers]
            )
        image = self._sample_textures(
            face, u_m, v_m, depth / np.sqrt(np.maximum(slant, 0.05)) / np.float32(camera.K[0, 0])
        )
        if shade is not None:
            image *= shade[..., None]
        return Background(image, rays, floor, depth)

    def _add_box(
        self, number: int, box: Box, eye: Float[np.ndarray, "3"], rays: list[np.ndarray], layers: list[np.ndarray]
    ) -> None:
        """Draws a box into the layers of an image (array views, modified in place) where it is nearest."""
        depth, face, u_m, v_m, slant, floor, shade = layers
        origin = box.to_local(eye).astype(np.float32)
        half = np.array(box.half_extents, np.float32)
        c, s = np.float32(math.cos(box.yaw_rad)), np.float32(math.sin(box.yaw_rad))
        local_rays = [c * rays[0] - s * rays[2], rays[1], s * rays[0] + c * rays[2]]
        local_rays = [np.where(np.abs(ray) < 1e-6, np.float32(1e-6), ray) for ray in local_rays]
        far = [np.copysign(h, ray) for h, ray in zip(half, local_rays, strict=True)]
        entries = [(-h - o) / ray for h, o, ray in zip(far, origin, local_rays, strict=True)]
        exits = [(h - o) / ray for h, o, ray in zip(far, origin, local_rays, strict=True)]
        entry, exit_ = np.maximum.reduce(entries), np.minimum.reduce(exits)
        hit = (entry < exit_) & (entry > 0) & (entry < depth)
        if not hit.any():
            return
        t, ray = entry[hit], np.stack([component[hit] for component in local_rays], -1)
        axis = np.stack([distance[hit] for distance in entries], -1).argmax(-1)
        point = origin + t[:, None] * ray + half
        # Every box has its own offset in the material, so that two boxes of one kind differ.
        offset = np.random.default_rng([self.seed, number]).uniform(0, _MATERIAL_M - 2 * half.max(), 2)
        depth[hit], face[hit], floor[hit] = t, len(_FACES) + box.material, False
        u_m[hit] = np.where(axis == 0, point[:, 2], point[:, 0]) + offset[0]
        v_m[hit] = np.where(axis == 1, point[:, 2], point[:, 1]) + offset[1]
        slant[hit] = np.abs(np.take_along_axis(ray, axis[:, None], 1)[:, 0])
        shade[hit] = np.array(_SIDE_SHADE, np.float32)[axis]

    def _sample_textures(
        self, face: np.ndarray, u_m: np.ndarray, v_m: np.ndarray, metres_per_px: np.ndarray
    ) -> Float[np.ndarray, "H W 3"]:
        """Colours from the atlas, interpolated between the two mip levels nearest to each pixel's scale."""
        import cv2

        atlas = self._atlas
        finest = atlas.px_per_m[face]
        level = np.log2(np.maximum(metres_per_px * finest, np.float32(1)), dtype=np.float32)
        level = np.minimum(level, np.float32(_LEVELS - 1.001))
        lower = level.astype(np.int8)
        fraction = level - lower
        samples = []
        for step in (0, 1):
            index = face * _LEVELS + lower + step
            scale = finest * atlas.level_scale[lower + step]
            u = atlas.sign[0][face] * (u_m - atlas.start[0][face]) * scale - np.float32(0.5)
            v = atlas.sign[1][face] * (v_m - atlas.start[1][face]) * scale - np.float32(0.5)
            u = np.minimum(np.maximum(u, 0), atlas.max_px[0][index]) + atlas.offset_px[0][index]
            v = np.minimum(np.maximum(v, 0), atlas.max_px[1][index]) + atlas.offset_px[1][index]
            samples.append(cv2.remap(atlas.image, u, v, cv2.INTER_LINEAR))
        return cv2.blendLinear(samples[0], samples[1], 1 - fraction, fraction).astype(np.float32)

    @cached_property
    def _atlas(self) -> "_Atlas":
        rng = np.random.default_rng([self.seed, 5])
        faces = []
        for axis in range(3):
            u_axis, v_axis = ((2, 1), (0, 2), (0, 1))[axis]
            size = (self.high - self.low)[[u_axis, v_axis]]
            for is_max in (False, True):
                texture = self._choose_texture(rng, axis, is_max)
                px_per_m = min(_FINEST_PX_PER_M, _LARGEST_PX / float(size.max()))
                image = texture(rng, max(2, round(size[1] * px_per_m)), max(2, round(size[0] * px_per_m)), px_per_m)
                if axis == 1 and not is_max:
                    image = self._with_shadows(image, px_per_m)
                # Row 0 of a wall is its top.
                rows = (-1.0, self.high[v_axis]) if axis != 1 else (1.0, self.low[v_axis])
                faces.append(_Face(self._lit(image), px_per_m, (1.0, rows[0]), (self.low[u_axis], rows[1])))
        for texture in textures.MATERIALS:
            side = round(_MATERIAL_M * _FINEST_PX_PER_M)
            image = self._lit(texture(rng, side, side, _FINEST_PX_PER_M))
            faces.append(_Face(image, _FINEST_PX_PER_M, (1.0, -1.0), (0.0, _MATERIAL_M)))
        return _Atlas.of(faces)

    def _choose_texture(self, rng: np.random.Generator, axis: int, is_max: bool) -> Callable[..., textures.Texture]:
        if axis != 1:
            return textures.skyline if self.outdoors else textures.wall
        if is_max:
            return textures.plain
        pool = textures.YARDS if self.outdoors else textures.FLOORS
        return pool[rng.integers(len(pool))]

    def _lit(self, image: textures.Texture) -> textures.Texture:
        return np.clip(image * np.array(self.tint), 0, 255).astype(np.uint8)

    def _with_shadows(self, image: textures.Texture, px_per_m: float) -> textures.Texture:
        """The floor texture with the shadows of the furniture."""
        import cv2

        shadow = np.zeros(image.shape[:2], np.uint8)
        for box in (box for piece in self.pieces for box in piece):
            projected = box.corners - (box.corners[:, 1:2] / self.light[1]) * np.array(self.light)
            pixels = (projected[:, [0, 2]] - self.low[[0, 2]]) * px_per_m
            cv2.fillConvexPoly(shadow, cv2.convexHull(pixels.astype(np.float32)).astype(np.int32), 255)
        soft = cv2.GaussianBlur(shadow, (0, 0), 0.03 * px_per_m).astype(np.float32)[..., None] / 255
        return (image * (1 - (1 - _SHADOW_BRIGHTNESS) * soft)).astype(np.uint8)


@dataclass(frozen=True)
class _Face:
    """A texture with its mapping from metres to pixels, sign * (metres - start) * px_per_m, for columns and rows."""

    image: textures.Texture
    px_per_m: float
    sign: tuple[float, float]
    start: tuple[float, float]


@dataclass(frozen=True)
class _Atlas:
    """All mip levels of all textures in one image, with tables of their positions, by face or by face and level."""

    image: textures.Texture
    px_per_m: Float[np.ndarray, "F"]
    """Pixels per metre of the finest level."""
    sign: tuple[np.ndarray, np.ndarray]
    start: tuple[np.ndarray, np.ndarray]
    level_scale: Float[np.ndarray, "L"]
    max_px: tuple[np.ndarray, np.ndarray]
    offset_px: tuple[np.ndarray, np.ndarray]

    @classmethod
    def of(cls, faces: Sequence[_Face]) -> "_Atlas":
        """The atlas of some faces; each face is a band of it, with its levels side by side."""
        import cv2

        bands, max_px, offset_px, top = [], [], [], 0
        width = 2 * max(face.image.shape[1] for face in faces) + 2 * _LEVELS
        for face in faces:
            band = np.zeros((face.image.shape[0] + 1, width, 3), np.uint8)
            left, image = 0, face.image
            for level in range(_LEVELS):
                if level:
                    size = [max(2, side // 2) for side in image.shape[1::-1]]
                    image = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
                rows, columns = image.shape[:2]
                band[:rows, left : left + columns] = image
                max_px.append((columns - 1.01, rows - 1.01))
                offset_px.append((left, top))
                left += columns + 1
            bands.append(band)
            top += len(band)

        def columns_and_rows(values: Sequence[tuple[float, float]]) -> tuple[np.ndarray, np.ndarray]:
            array = np.array(values, np.float32)
            return np.ascontiguousarray(array[:, 0]), np.ascontiguousarray(array[:, 1])

        return cls(
            np.concatenate(bands), np.array([face.px_per_m for face in faces], np.float32),
            columns_and_rows([face.sign for face in faces]), columns_and_rows([face.start for face in faces]),
            np.float32(0.5) ** np.arange(_LEVELS, dtype=np.float32), columns_and_rows(max_px), columns_and_rows(offset_px),
        )  # fmt: skip


def _rays(
    camera: Camera, width: int, height: int
) -> tuple[Float[np.ndarray, "H W 3"], tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """As `Camera.rays` in single precision, and its x, y and z components."""
    to_world = (np.linalg.inv(camera.K).T @ camera.R).astype(np.float32)
    u, v = (np.arange(side, dtype=np.float32)[:, None] + np.float32(0.5) for side in (width, height))
    rays = (v * to_world[1])[:, None] + (u * to_world[0] + to_world[2])[None]
    x, y, z = (np.ascontiguousarray(rays[..., axis]) for axis in range(3))
    return rays, (x, y, z)


def _image_area(camera: Camera, box: Box, width: int, height: int) -> tuple[slice, slice] | None:
    """Rows and columns that a box can cover; None if it is outside the image."""
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
