"""A CPU renderer of people on a floor: Intel Embree casts the rays, numpy shades the hits. It needs no graphics driver.

Camera axes are OpenCV's: x right, y down, z forwards; pixel (0, 0) covers coordinates 0 to 1.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Bool, Float, UInt8

from schemas.body_model import BodyModel
from schemas.rotations import yaw_matrix
from stages.synthesis.motions import LabelledMotion
from stages.synthesis.outfit import Colour, Outfit, paint

_PROBE_OFFSET_M = 0.03
"""Distance of the visibility probes from their keypoint."""


@dataclass(frozen=True)
class Camera:
    """A pinhole camera: pixel = K (R x + t), divided by its third component."""

    K: Float[np.ndarray, "3 3"]
    """Pixels."""
    R: Float[np.ndarray, "3 3"]
    """World to camera."""
    t: Float[np.ndarray, "3"]

    @classmethod
    def look_at(
        cls, eye: Float[np.ndarray, "3"], target: Float[np.ndarray, "3"], focal_px: float, width: int, height: int
    ) -> "Camera":
        """A level camera at `eye` with the target at the centre of the image."""
        forward = (target - eye) / np.linalg.norm(target - eye)
        right = np.cross(forward, [0.0, 1.0, 0.0])
        right /= np.linalg.norm(right)
        rotation = np.stack([right, np.cross(forward, right), forward])
        K = np.array([[focal_px, 0, width / 2], [0, focal_px, height / 2], [0, 0, 1.0]])
        return cls(K, rotation, -rotation @ eye)

    @property
    def eye(self) -> Float[np.ndarray, "3"]:
        """Position of the camera, metres."""
        return -self.R.T @ self.t

    def project(self, points: Float[np.ndarray, "*B 3"]) -> Float[np.ndarray, "*B 2"]:
        """Pixel coordinates of points in the world."""
        homogeneous = (points @ self.R.T + self.t) @ self.K.T
        return homogeneous[..., :2] / homogeneous[..., 2:]

    def rays(self, width: int, height: int) -> Float[np.ndarray, "H W 3"]:
        """World directions through the pixel centres, of unit depth along the optical axis."""
        u, v = np.meshgrid(np.arange(width) + 0.5, np.arange(height) + 0.5)
        pixels = np.stack([u, v, np.ones_like(u)], -1)
        return pixels @ (np.linalg.inv(self.K).T @ self.R)


@dataclass(frozen=True)
class Person:
    """A motion with an outfit and a placement on the floor."""

    motion: LabelledMotion
    outfit: Outfit
    offset: tuple[float, float] = (0.0, 0.0)
    """x and z of the start of the motion, metres."""
    yaw_rad: float = 0.0
    """Heading at the start; 0 is +Z."""

    def placed(self, body: BodyModel) -> LabelledMotion:
        """The motion in the world, with yaw and offset applied."""
        yaw = yaw_matrix(torch.tensor(self.yaw_rad, dtype=torch.float32))
        pelvis = body.rest_joints(self.motion.betas)[0]
        rotations = self.motion.rotations.clone()
        rotations[:, 0] = yaw @ rotations[:, 0]
        position = (self.motion.trans + pelvis) @ yaw.T + torch.tensor([self.offset[0], 0.0, self.offset[1]])
        return LabelledMotion(
            rotations, position - pelvis, self.motion.betas, self.motion.fps, self.motion.labels, self.motion.contacts
        )


class Background(NamedTuple):
    """An image of an environment without people."""

    image: Float[np.ndarray, "H W 3"]
    """0 to 255."""
    rays: Float[np.ndarray, "H W 3"]
    """As `Camera.rays`."""
    floor: Bool[np.ndarray, "H W"]
    """Mask of the floor, which receives shadows."""
    depth: Float[np.ndarray, "H W"] | None
    """Along the optical axis, metres; None if nothing can occlude the people."""


@runtime_checkable
class Environment(Protocol):
    """Everything in a scene except its people."""

    @property
    def light(self) -> tuple[float, float, float]:
        """Unit vector towards the light."""

    @property
    def tint(self) -> Colour:
        """Colour and intensity of the light on people; (1, 1, 1) is neutral white."""

    @property
    def noise(self) -> float:
        """Sensor noise, standard deviation in grey levels."""

    def render_background(self, camera: Camera, width: int, height: int) -> Background:
        """The image without people."""


@dataclass(frozen=True)
class Room:
    """An environment of a tiled floor, one wall and a light."""

    floor: tuple[Colour, Colour]
    tile_m: float
    wall: tuple[Colour, Colour]
    """Bottom and top."""
    wall_normal: tuple[float, float]
    """x and z; the wall is at distance `wall_m` from the origin, against its normal."""
    wall_m: float
    light: tuple[float, float, float]
    """Unit vector towards the light."""
    noise: float
    """Sensor noise, standard deviation in grey levels."""
    tint: Colour = (1.0, 1.0, 1.0)

    def render_background(self, camera: Camera, width: int, height: int) -> Background:
        """The empty room; its wall is behind all people, so it needs no depth."""
        rays = camera.rays(width, height).astype(np.float32)
        image, floor = _empty_room(self, camera.eye.astype(np.float32), rays)
        return Background(image, rays, floor, None)

    @classmethod
    def draw(cls, rng: np.random.Generator, *, view_xz: Float[np.ndarray, "2"], clear_m: float) -> "Room":
        """A random room for a camera that looks along `view_xz`; people stay within `clear_m` in that direction."""
        base = rng.uniform(0.35, 0.75, 3) * 0.3 + rng.uniform(0.3, 0.7) * 0.7
        wall = rng.uniform(0.45, 0.9, 3) * 0.35 + rng.uniform(0.45, 0.85) * 0.65
        azimuth = rng.uniform(0, 2 * math.pi)
        light = np.array([0.55 * math.cos(azimuth), 1.0, 0.55 * math.sin(azimuth)])
        normal = -view_xz / np.linalg.norm(view_xz)
        return cls(
            floor=(tuple(base), tuple(base * rng.uniform(0.75, 0.92))),
            tile_m=float(rng.uniform(0.4, 0.9)),
            wall=(tuple(wall * 0.92), tuple(wall)),
            wall_normal=(float(normal[0]), float(normal[1])),
            wall_m=clear_m + float(rng.uniform(1.2, 4.0)),
            light=tuple(light / np.linalg.norm(light)),
            noise=float(rng.uniform(1.0, 3.0)),
        )


class Renderer:
    """Renders people in an environment, frame by frame; `cameras` holds one camera for all frames or one per frame."""

    def __init__(
        self,
        people: Sequence[Person],
        cameras: Sequence[Camera],
        environment: Environment,
        body: BodyModel,
        width: int,
        height: int,
        seed: int,
    ) -> None:
        self._body, self._cameras, self._environment = body, cameras, environment
        self._motions = [person.placed(body) for person in people]
        self._colours = [paint(body, person.outfit).astype(np.float32) for person in people]
        self._faces = body.faces.numpy().astype(np.int32)
        self._size = (width, height)
        self._light = np.array(environment.light, dtype=np.float32)
        self._tint = np.array(environment.tint, dtype=np.float32)
        self._seed = seed
        rng = np.random.default_rng([seed, 11])
        self._grain = (
            rng.normal(0, environment.noise, (height + 64, width + 64, 1)).astype(np.float32).repeat(3, axis=2)
        )
        self._vertices: tuple[int, list[np.ndarray]] = (-1, [])
        self._background: tuple[Camera, Background] | None = None
        self._embree: tuple[int, Any, list[Any]] = (-1, None, [])

    def vertices(self, frame: int) -> list[Float[np.ndarray, "V 3"]]:
        """Vertices of each person; a motion that has ended holds its last frame."""
        if self._vertices[0] != frame:
            out = []
            for motion in self._motions:
                i = min(frame, len(motion) - 1)
                with torch.no_grad():
                    out.append(self._body.vertices(motion.rotations[i], motion.betas, motion.trans[i]).numpy())
            self._vertices = (frame, out)
        return self._vertices[1]

    def render(self, frame: int) -> UInt8[np.ndarray, "H W 3"]:
        """The RGB image of a frame."""
        width, height = self._size
        camera = self._camera(frame)
        background = self._background_of(camera)
        image = background.image.copy()
        vertices, scene = self.vertices(frame), self._scene(frame)
        eye = camera.eye.astype(np.float32)
        self._cast_shadow(scene, camera, vertices, image, background, eye)
        for box in _merged_boxes([camera.project(points) for points in vertices], width, height):
            area = (slice(box[1], box[3]), slice(box[0], box[2]))
            directions = np.ascontiguousarray(background.rays[area].reshape(-1, 3))
            hit = scene.run(np.broadcast_to(eye, directions.shape).copy(), directions, output=True)
            visible = hit["primID"] >= 0
            if background.depth is not None:
                visible &= hit["tfar"] < background.depth[area].reshape(-1)
            index = np.flatnonzero(visible)
            patch = image[area].reshape(-1, 3)
            patch[index] = self._shade({k: v[index] for k, v in hit.items()}, directions[index])
            image[area] = patch.reshape(image[area].shape)
        dx, dy = np.random.default_rng([self._seed, frame]).integers(0, 64, 2)
        image += self._grain[dy : dy + height, dx : dx + width]
        return np.clip(image, 0, 255, out=image).astype(np.uint8)

    def visibility(self, frame: int, points: Float[np.ndarray, "P K 3"]) -> Float[np.ndarray, "P K"]:
        """For K points of each person, the share of five probes (the point and four at `_PROBE_OFFSET_M` around it) that are
        inside the image and not occluded by furniture or another person. Self-occlusion is ignored."""
        width, height = self._size
        camera = self._camera(frame)
        background, scene = self._background_of(camera), self._scene(frame)
        offsets = _PROBE_OFFSET_M * np.array([[0, 0], [1, 0], [-1, 0], [0, 1], [0, -1]]) @ camera.R[:2]
        probes = points[:, :, None] + offsets
        depth = (probes @ camera.R.T + camera.t)[..., 2]
        in_front = depth > 0.1
        pixels = np.floor(camera.project(np.where(in_front[..., None], probes, points.mean((0, 1)))))
        visible = in_front & (pixels >= 0).all(-1) & (pixels < [width, height]).all(-1)
        if background.depth is not None:
            columns, rows = (
                pixels[..., axis].clip(0, side - 1).astype(int) for axis, side in ((0, width), (1, height))
            )
            visible &= background.depth[rows, columns] > depth
        if len(points) > 1:
            eye = camera.eye.astype(np.float32)
            directions = (probes - camera.eye).reshape(-1, 3).astype(np.float32)
            hit = scene.run(np.broadcast_to(eye, directions.shape).copy(), directions, output=True)
            person = np.arange(len(points))[:, None, None]
            other = (hit["primID"] >= 0).reshape(depth.shape) & (hit["geomID"].reshape(depth.shape) != person)
            visible &= ~(other & (hit["tfar"].reshape(depth.shape) < 1))
        return visible.mean(-1)

    def _camera(self, frame: int) -> Camera:
        return self._cameras[frame if len(self._cameras) > 1 else 0]

    def _scene(self, frame: int) -> Any:
        """The people as an Embree scene."""
        from embreex.mesh_construction import TriangleMesh
        from embreex.rtcore_scene import EmbreeScene

        if self._embree[0] != frame:
            scene = EmbreeScene()
            meshes = [TriangleMesh(scene, np.ascontiguousarray(points), self._faces) for points in self.vertices(frame)]
            self._embree = (frame, scene, meshes)
        return self._embree[1]

    def _shade(self, hit: dict[str, np.ndarray], directions: Float[np.ndarray, "n 3"]) -> Float[np.ndarray, "n 3"]:
        corners = self._faces[hit["primID"]]
        u, v = hit["u"][:, None], hit["v"][:, None]
        colour = np.empty((len(corners), 3), np.float32)
        for index, colours in enumerate(self._colours):
            mask = hit["geomID"] == index
            a, b, c = (colours[corners[mask, k]] for k in range(3))
            colour[mask] = a * (1 - u[mask] - v[mask]) + b * u[mask] + c * v[mask]
        normal = hit["Ng"] / np.linalg.norm(hit["Ng"], axis=1, keepdims=True)
        normal *= -np.sign((normal * directions).sum(1, keepdims=True))
        # Half-Lambert keeps shape visible in the shade; small terms for light from above and for surfaces facing the camera.
        sun = (0.5 + 0.5 * normal @ self._light).clip(0) ** 1.5
        facing = -(normal * directions).sum(1) / np.linalg.norm(directions, axis=1)
        colour *= self._tint
        return 255 * colour * (0.22 + 0.62 * sun + 0.1 * (0.5 + 0.5 * normal[:, 1]) + 0.16 * facing)[:, None]

    def _background_of(self, camera: Camera) -> Background:
        """The image without people, cached while the camera stays the same."""
        if self._background is None or self._background[0] is not camera:
            self._background = (camera, self._environment.render_background(camera, *self._size))
        return self._background[1]

    def _cast_shadow(
        self,
        scene: Any,
        camera: Camera,
        vertices: list[np.ndarray],
        image: Float[np.ndarray, "H W 3"],
        background: Background,
        eye: Float[np.ndarray, "3"],
    ) -> None:
        """Darkens the floor in the shadow of the people, by a shadow ray from each candidate pixel."""
        width, height = self._size
        shadows = [points - (points[:, 1:2] / self._light[1]) * self._light for points in vertices]
        shadows = [points[(points @ camera.R[2] + camera.t[2]) > 0.3] for points in shadows]
        for box in _merged_boxes([camera.project(points) for points in shadows if len(points)], width, height):
            area = (slice(box[1], box[3]), slice(box[0], box[2]))
            floor = np.flatnonzero(background.floor[area])
            directions = background.rays[area].reshape(-1, 3)[floor]
            ground = eye + directions * (-eye[1] / directions[:, 1:2])
            ground[:, 1] = 1e-3
            to_light = np.broadcast_to(self._light, ground.shape).copy()
            shadowed = floor[scene.run(np.ascontiguousarray(ground), to_light, query="OCCLUDED") >= 0]
            patch = image[area].reshape(-1, 3)
            patch[shadowed] *= 0.62
            image[area] = patch.reshape(image[area].shape)


def _empty_room(
    room: Room, eye: Float[np.ndarray, "3"], rays: Float[np.ndarray, "H W 3"]
) -> tuple[Float[np.ndarray, "H W 3"], Bool[np.ndarray, "H W"]]:
    """The image without people (0 to 255), and the mask of the floor."""
    normal = np.array(room.wall_normal, dtype=np.float32)
    along_normal, vertical = rays[..., 0] * normal[0] + rays[..., 2] * normal[1], rays[..., 1]
    with np.errstate(divide="ignore"):
        to_floor = np.where(vertical < -1e-4, -eye[1] / vertical, np.float32(np.inf))
        wall_distance = -np.float32(room.wall_m) - eye[[0, 2]] @ normal
        to_wall = np.where(along_normal < -1e-4, wall_distance / along_normal, np.float32(1e4))
    floor = to_floor < to_wall
    image = np.empty(rays.shape, np.float32)
    distance, floor_rays = to_floor[floor], rays[floor]
    x, z = eye[0] + floor_rays[:, 0] * distance, eye[2] + floor_rays[:, 2] * distance
    odd = (np.floor(x / room.tile_m).astype(np.int32) + np.floor(z / room.tile_m).astype(np.int32)) & 1
    fade = 255 * (1 - 0.25 * np.minimum(np.sqrt(x * x + z * z) / 14, 1))
    image[floor] = np.array(room.floor, np.float32)[odd] * fade[:, None]
    wall_height_m = eye[1] + vertical[~floor] * to_wall[~floor]
    # The wall's colour depends on height alone: a table per centimetre, whose lowest ten entries are the skirting board.
    share = np.linspace(0, 1, 301, dtype=np.float32)[:, None]
    gradient = 255 * (np.array(room.wall[0], np.float32) * (1 - share) + np.array(room.wall[1], np.float32) * share)
    gradient[:10] *= 0.6
    image[~floor] = gradient[np.clip(wall_height_m * 100, 0, 300).astype(np.int32)]
    return image, floor


def _merged_boxes(points: list[Float[np.ndarray, "n 2"]], width: int, height: int) -> list[tuple[int, int, int, int]]:
    """Bounding boxes of point sets in whole pixels, clipped to the image; overlapping boxes are merged."""
    boxes: list[tuple[int, int, int, int]] = []
    for pixels in points:
        x0, y0 = (int(value) for value in np.floor(pixels.min(0)))
        x1, y1 = (int(value) + 1 for value in np.ceil(pixels.max(0)))
        box = (max(0, x0), max(0, y0), min(width, x1), min(height, y1))
        for other in list(boxes):
            if box[0] < other[2] and other[0] < box[2] and box[1] < other[3] and other[1] < box[3]:
                boxes.remove(other)
                box = (min(box[0], other[0]), min(box[1], other[1]), max(box[2], other[2]), max(box[3], other[3]))
        if box[0] < box[2] and box[1] < box[3]:
            boxes.append(box)
    return boxes
