"""A CPU renderer for people on a floor: Intel Embree finds what a pixel sees, numpy shades it. No graphics driver.

Image axes are OpenCV's: x right, y down, z forwards; pixel (0, 0) covers 0 to 1.
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

_AROUND_M = 0.03
"""How far beside a keypoint it is looked whether it can be seen."""


@dataclass(frozen=True)
class Camera:
    """A pinhole: pixel = K (R x + t), divided by its third number."""

    K: Float[np.ndarray, "3 3"]
    """Pixels."""
    R: Float[np.ndarray, "3 3"]
    """World to camera."""
    t: Float[np.ndarray, "3"]

    @classmethod
    def looking(
        cls, eye: Float[np.ndarray, "3"], target: Float[np.ndarray, "3"], focal_px: float, width: int, height: int
    ) -> "Camera":
        """At `eye`, level, the target in the middle of the image."""
        ahead = (target - eye) / np.linalg.norm(target - eye)
        right = np.cross(ahead, [0.0, 1.0, 0.0])
        right /= np.linalg.norm(right)
        rotation = np.stack([right, np.cross(ahead, right), ahead])
        K = np.array([[focal_px, 0, width / 2], [0, focal_px, height / 2], [0, 0, 1.0]])
        return cls(K, rotation, -rotation @ eye)

    @property
    def eye(self) -> Float[np.ndarray, "3"]:
        """Where it stands, metres."""
        return -self.R.T @ self.t

    def project(self, points: Float[np.ndarray, "*B 3"]) -> Float[np.ndarray, "*B 2"]:
        """Pixels of points in the world."""
        seen = (points @ self.R.T + self.t) @ self.K.T
        return seen[..., :2] / seen[..., 2:]

    def rays(self, width: int, height: int) -> Float[np.ndarray, "H W 3"]:
        """Directions of the pixels' centres in the world, one unit deep along the optical axis."""
        u, v = np.meshgrid(np.arange(width) + 0.5, np.arange(height) + 0.5)
        pixels = np.stack([u, v, np.ones_like(u)], -1)
        return pixels @ (np.linalg.inv(self.K).T @ self.R)


@dataclass(frozen=True)
class Person:
    """A motion in clothes, put somewhere on the floor."""

    motion: LabelledMotion
    outfit: Outfit
    offset: tuple[float, float] = (0.0, 0.0)
    """x and z of where the motion starts, metres."""
    yaw_rad: float = 0.0
    """Which way it starts to face; 0 is +Z."""

    def placed(self, body: BodyModel) -> LabelledMotion:
        """The motion there."""
        turn = yaw_matrix(torch.tensor(self.yaw_rad, dtype=torch.float32))
        pelvis = body.rest_joints(self.motion.betas)[0]
        rotations = self.motion.rotations.clone()
        rotations[:, 0] = turn @ rotations[:, 0]
        position = (self.motion.trans + pelvis) @ turn.T + torch.tensor([self.offset[0], 0.0, self.offset[1]])
        return LabelledMotion(
            rotations, position - pelvis, self.motion.betas, self.motion.fps, self.motion.labels, self.motion.contacts
        )


class View(NamedTuple):
    """What a camera sees where nobody is."""

    image: Float[np.ndarray, "H W 3"]
    """0 to 255."""
    rays: Float[np.ndarray, "H W 3"]
    """As `Camera.rays`."""
    floor: Bool[np.ndarray, "H W"]
    """Which pixels show the floor, on which shadows fall."""
    depth: Float[np.ndarray, "H W"] | None
    """Along the optical axis, metres; None where nothing can stand before the people."""


@runtime_checkable
class Surroundings(Protocol):
    """All that is in a film besides its people."""

    @property
    def light(self) -> tuple[float, float, float]:
        """Towards the light, of length 1."""

    @property
    def tint(self) -> Colour:
        """Colour and strength of the light on people; (1, 1, 1) is white and plain."""

    @property
    def noise(self) -> float:
        """Sensor noise, standard deviation in grey levels."""

    def look(self, camera: Camera, width: int, height: int) -> View:
        """The empty picture."""


@dataclass(frozen=True)
class Room:
    """Floor, wall and light."""

    floor: tuple[Colour, Colour]
    tile_m: float
    wall: tuple[Colour, Colour]
    """Bottom and top."""
    wall_normal: tuple[float, float]
    """x and z; the wall stands `wall_m` from the origin against it."""
    wall_m: float
    light: tuple[float, float, float]
    """Towards the light, of length 1."""
    noise: float
    """Sensor noise, standard deviation in grey levels."""
    tint: Colour = (1.0, 1.0, 1.0)

    def look(self, camera: Camera, width: int, height: int) -> View:
        """The empty room; its wall is behind everybody, so there is no depth to compare."""
        rays = camera.rays(width, height).astype(np.float32)
        image, floor = _empty_room(self, camera.eye.astype(np.float32), rays)
        return View(image, rays, floor, None)

    @classmethod
    def draw(cls, rng: np.random.Generator, *, view_xz: Float[np.ndarray, "2"], clear_m: float) -> "Room":
        """A random room for a camera that looks along `view_xz`; nobody goes further than `clear_m` that way."""
        base = rng.uniform(0.35, 0.75, 3) * 0.3 + rng.uniform(0.3, 0.7) * 0.7
        wall = rng.uniform(0.45, 0.9, 3) * 0.35 + rng.uniform(0.45, 0.85) * 0.65
        away = rng.uniform(0, 2 * math.pi)
        light = np.array([0.55 * math.cos(away), 1.0, 0.55 * math.sin(away)])
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
    """Draws people in a room, a frame at a time; `cameras` has one for all frames or one for each."""

    def __init__(
        self,
        people: Sequence[Person],
        cameras: Sequence[Camera],
        room: Surroundings,
        body: BodyModel,
        width: int,
        height: int,
        seed: int,
    ) -> None:
        self._body, self._cameras, self._room = body, cameras, room
        self._motions = [person.placed(body) for person in people]
        self._colours = [paint(body, person.outfit).astype(np.float32) for person in people]
        self._faces = body.faces.numpy().astype(np.int32)
        self._size = (width, height)
        self._light = np.array(room.light, dtype=np.float32)
        self._tint = np.array(room.tint, dtype=np.float32)
        self._seed = seed
        rng = np.random.default_rng([seed, 11])
        self._grain = rng.normal(0, room.noise, (height + 64, width + 64, 1)).astype(np.float32).repeat(3, axis=2)
        self._skins: tuple[int, list[np.ndarray]] = (-1, [])
        self._view: tuple[Camera, View] | None = None
        self._built: tuple[int, Any, list[Any]] = (-1, None, [])

    def skin(self, frame: int) -> list[Float[np.ndarray, "V 3"]]:
        """Vertices of everybody; a person whose motion is over stays as they are."""
        if self._skins[0] != frame:
            out = []
            for motion in self._motions:
                i = min(frame, len(motion) - 1)
                with torch.no_grad():
                    out.append(self._body.vertices(motion.rotations[i], motion.betas, motion.trans[i]).numpy())
            self._skins = (frame, out)
        return self._skins[1]

    def render(self, frame: int) -> UInt8[np.ndarray, "H W 3"]:
        """One picture, RGB."""
        width, height = self._size
        camera = self._camera(frame)
        view = self._behind(camera)
        image = view.image.copy()
        skins, scene = self.skin(frame), self._scene(frame)
        eye = camera.eye.astype(np.float32)
        self._cast_shadow(scene, camera, skins, image, view, eye)
        for box in _boxes([camera.project(skin) for skin in skins], width, height):
            area = (slice(box[1], box[3]), slice(box[0], box[2]))
            directions = np.ascontiguousarray(view.rays[area].reshape(-1, 3))
            hit = scene.run(np.broadcast_to(eye, directions.shape).copy(), directions, output=True)
            shown = hit["primID"] >= 0
            if view.depth is not None:
                shown &= hit["tfar"] < view.depth[area].reshape(-1)
            seen = np.flatnonzero(shown)
            patch = image[area].reshape(-1, 3)
            patch[seen] = self._shade({k: v[seen] for k, v in hit.items()}, directions[seen])
            image[area] = patch.reshape(image[area].shape)
        dx, dy = np.random.default_rng([self._seed, frame]).integers(0, 64, 2)
        image += self._grain[dy : dy + height, dx : dx + width]
        return np.clip(image, 0, 255, out=image).astype(np.uint8)

    def visibility(self, frame: int, points: Float[np.ndarray, "P K 3"]) -> Float[np.ndarray, "P K"]:
        """For K points of each person, the share of five spots (the point itself and four `_AROUND_M` beside it) that are
        in the picture and not behind furniture or somebody else. One's own body hides nothing."""
        width, height = self._size
        camera = self._camera(frame)
        view, scene = self._behind(camera), self._scene(frame)
        beside = _AROUND_M * np.array([[0, 0], [1, 0], [-1, 0], [0, 1], [0, -1]]) @ camera.R[:2]
        spots = points[:, :, None] + beside
        depth = (spots @ camera.R.T + camera.t)[..., 2]
        before = depth > 0.1
        pixels = np.floor(camera.project(np.where(before[..., None], spots, points.mean((0, 1)))))
        seen = before & (pixels >= 0).all(-1) & (pixels < [width, height]).all(-1)
        if view.depth is not None:
            columns, rows = (
                pixels[..., axis].clip(0, side - 1).astype(int) for axis, side in ((0, width), (1, height))
            )
            seen &= view.depth[rows, columns] > depth
        if len(points) > 1:
            eye = camera.eye.astype(np.float32)
            directions = (spots - camera.eye).reshape(-1, 3).astype(np.float32)
            hit = scene.run(np.broadcast_to(eye, directions.shape).copy(), directions, output=True)
            whose = np.arange(len(points))[:, None, None]
            other = (hit["primID"] >= 0).reshape(depth.shape) & (hit["geomID"].reshape(depth.shape) != whose)
            seen &= ~(other & (hit["tfar"].reshape(depth.shape) < 1))
        return seen.mean(-1)

    def _camera(self, frame: int) -> Camera:
        return self._cameras[frame if len(self._cameras) > 1 else 0]

    def _scene(self, frame: int) -> Any:
        """The people as Embree's geometry."""
        from embreex.mesh_construction import TriangleMesh
        from embreex.rtcore_scene import EmbreeScene

        if self._built[0] != frame:
            scene = EmbreeScene()
            meshes = [TriangleMesh(scene, np.ascontiguousarray(skin), self._faces) for skin in self.skin(frame)]
            self._built = (frame, scene, meshes)
        return self._built[1]

    def _shade(self, hit: dict[str, np.ndarray], directions: Float[np.ndarray, "n 3"]) -> Float[np.ndarray, "n 3"]:
        corners = self._faces[hit["primID"]]
        u, v = hit["u"][:, None], hit["v"][:, None]
        colour = np.empty((len(corners), 3), np.float32)
        for index, colours in enumerate(self._colours):
            mine = hit["geomID"] == index
            a, b, c = (colours[corners[mine, k]] for k in range(3))
            colour[mine] = a * (1 - u[mine] - v[mine]) + b * u[mine] + c * v[mine]
        normal = hit["Ng"] / np.linalg.norm(hit["Ng"], axis=1, keepdims=True)
        normal *= -np.sign((normal * directions).sum(1, keepdims=True))
        # Half-Lambert keeps form in the shade; a little light from above and from the floor.
        sun = (0.5 + 0.5 * normal @ self._light).clip(0) ** 1.5
        facing = -(normal * directions).sum(1) / np.linalg.norm(directions, axis=1)
        colour *= self._tint
        return 255 * colour * (0.22 + 0.62 * sun + 0.1 * (0.5 + 0.5 * normal[:, 1]) + 0.16 * facing)[:, None]

    def _behind(self, camera: Camera) -> View:
        """What is seen where nobody is; kept while the camera stands still."""
        if self._view is None or self._view[0] is not camera:
            self._view = (camera, self._room.look(camera, *self._size))
        return self._view[1]

    def _cast_shadow(
        self,
        scene: Any,
        camera: Camera,
        skins: list[np.ndarray],
        image: Float[np.ndarray, "H W 3"],
        view: View,
        eye: Float[np.ndarray, "3"],
    ) -> None:
        """Darkens the floor that the people keep the light from, a second ray from each pixel that could be."""
        width, height = self._size
        flat = [skin - (skin[:, 1:2] / self._light[1]) * self._light for skin in skins]
        flat = [points[(points @ camera.R[2] + camera.t[2]) > 0.3] for points in flat]
        for box in _boxes([camera.project(points) for points in flat if len(points)], width, height):
            area = (slice(box[1], box[3]), slice(box[0], box[2]))
            here = np.flatnonzero(view.floor[area])
            directions = view.rays[area].reshape(-1, 3)[here]
            ground = eye + directions * (-eye[1] / directions[:, 1:2])
            ground[:, 1] = 1e-3
            towards = np.broadcast_to(self._light, ground.shape).copy()
            dark = here[scene.run(np.ascontiguousarray(ground), towards, query="OCCLUDED") >= 0]
            patch = image[area].reshape(-1, 3)
            patch[dark] *= 0.62
            image[area] = patch.reshape(image[area].shape)


def _empty_room(
    room: Room, eye: Float[np.ndarray, "3"], rays: Float[np.ndarray, "H W 3"]
) -> tuple[Float[np.ndarray, "H W 3"], Bool[np.ndarray, "H W"]]:
    """The picture without people (0 to 255), and where the floor is."""
    normal = np.array(room.wall_normal, dtype=np.float32)
    across, fall = rays[..., 0] * normal[0] + rays[..., 2] * normal[1], rays[..., 1]
    with np.errstate(divide="ignore"):
        down = np.where(fall < -1e-4, -eye[1] / fall, np.float32(np.inf))
        wall = np.where(across < -1e-4, (-np.float32(room.wall_m) - eye[[0, 2]] @ normal) / across, np.float32(1e4))
    floor = down < wall
    image = np.empty(rays.shape, np.float32)
    reach, below = down[floor], rays[floor]
    x, z = eye[0] + below[:, 0] * reach, eye[2] + below[:, 2] * reach
    odd = (np.floor(x / room.tile_m).astype(np.int32) + np.floor(z / room.tile_m).astype(np.int32)) & 1
    fade = 255 * (1 - 0.25 * np.minimum(np.sqrt(x * x + z * z) / 14, 1))
    image[floor] = np.array(room.floor, np.float32)[odd] * fade[:, None]
    up = eye[1] + fall[~floor] * wall[~floor]
    # The wall's colour changes with height alone: a table of centimetres, its lowest ten the skirting board.
    share = np.linspace(0, 1, 301, dtype=np.float32)[:, None]
    paper = 255 * (np.array(room.wall[0], np.float32) * (1 - share) + np.array(room.wall[1], np.float32) * share)
    paper[:10] *= 0.6
    image[~floor] = paper[np.clip(up * 100, 0, 300).astype(np.int32)]
    return image, floor


def _boxes(points: list[Float[np.ndarray, "n 2"]], width: int, height: int) -> list[tuple[int, int, int, int]]:
    """Pixel rectangles around sets of points, those that touch made one."""
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
