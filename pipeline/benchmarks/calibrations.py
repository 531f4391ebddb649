"""Calibrated cameras as other programs write them, in OpenCV's conventions.

- Qualisys Track Manager, `.qca.txt`: lengths in millimetres, image coordinates in 1/64 pixel, z up.
- OpenCV's FileStorage, `.yml` or `.xml`, as EasyMocap names it: `names`, then `K_NAME`, `dist_NAME`, `Rot_NAME` (matrix) or
  `R_NAME` (vector) and `T_NAME`, in one file or in two (intrinsics, extrinsics).
- `.toml` of Pose2Sim, anipose and freemocap: a table for each camera with `name`, `matrix`, `distortions`, `rotation` (vector) and
  `translation`.
"""

import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import cv2
import numpy as np
from jaxtyping import Float

from schemas.errors import UsageError

_SUBPIXELS = 64
"""Units of Qualisys's image coordinates in a pixel."""
_TO_OPENCV = np.diag([1.0, -1.0, -1.0])
"""Qualisys's cameras look along -z with y up, OpenCV's along z with y down."""


@dataclass(frozen=True, eq=False)
class Calibration:
    """One camera: a point x of the world is at `rotation @ x + translation` in its axes (x right, y down, z forward)."""

    name: str
    intrinsics: Float[np.ndarray, "3 3"]
    """Pixels."""
    distortion: Float[np.ndarray, "5"]
    """k1, k2, p1, p2, k3 of OpenCV's model."""
    rotation: Float[np.ndarray, "3 3"]
    translation: Float[np.ndarray, "3"]
    """Metres."""

    def to_camera(self, world: Float[np.ndarray, "*B 3"]) -> Float[np.ndarray, "*B 3"]:
        """Points of the world in the camera's axes, metres."""
        return world @ self.rotation.T + self.translation

    def project(self, world: Float[np.ndarray, "*B 3"]) -> Float[np.ndarray, "*B 2"]:
        """Points of the world in the image, pixels, distorted as the lens does."""
        rotation, _ = cv2.Rodrigues(self.rotation)
        flat = np.ascontiguousarray(world.reshape(-1, 3), np.float64)
        pixels, _ = cv2.projectPoints(flat, rotation, self.translation, self.intrinsics, self.distortion)
        return pixels.reshape(*world.shape[:-1], 2)

    def rays(self, pixels: Float[np.ndarray, "*B 2"]) -> Float[np.ndarray, "*B 2"]:
        """Points of the image on the plane at depth one, without the lens's distortion."""
        flat = np.ascontiguousarray(pixels.reshape(-1, 1, 2), np.float64)
        return cv2.undistortPoints(flat, self.intrinsics, self.distortion).reshape(pixels.shape)


def read_calibrations(paths: Sequence[str | Path]) -> dict[str, Calibration]:
    """The cameras of the files of one calibration, by name. Raises UsageError for files that hold none."""
    names = ", ".join(str(path) for path in paths)
    try:
        kind = "".join(Path(paths[0]).suffixes[-2:]).lower()
        if kind.endswith(".toml"):
            found = _read_toml(Path(paths[0]))
        elif kind.endswith((".yml", ".yaml", ".xml")):
            found = _read_opencv([str(path) for path in paths])
        else:
            found = _read_qualisys(Path(paths[0]))
    except (OSError, ElementTree.ParseError, ValueError, KeyError, TypeError, AttributeError, cv2.error) as error:
        reason = f"{type(error).__name__}: {error}".strip()
        raise UsageError(
            f"{names}: no calibration that can be read ({reason}); give a .qca.txt of Qualisys, a .yml or .xml of OpenCV with "
            "names, K_NAME, dist_NAME, Rot_NAME or R_NAME and T_NAME, or a .toml of Pose2Sim or anipose"
        ) from error
    if not found:
        raise UsageError(f"{names}: no cameras in it")
    return {camera.name: camera for camera in found}


def _read_qualisys(path: Path) -> list[Calibration]:
    """Numbers of each camera's <fov_video>, <transform> and <intrinsic>."""
    found = []
    for camera in ElementTree.parse(path).getroot().iterfind("cameras/camera"):
        values = {
            tag: {name: float(value) for name, value in element.attrib.items() if _is_number(value)}
            for tag in ("fov_video", "transform", "intrinsic")
            if (element := camera.find(tag)) is not None
        }
        view, pose, lens = values["fov_video"], values["transform"], values["intrinsic"]
        matrix = np.array(
            [
                [lens["focalLengthU"], lens.get("skew", 0.0), lens["centerPointU"]],
                [0.0, lens["focalLengthV"], lens["centerPointV"]],
                [0.0, 0.0, _SUBPIXELS],
            ]
        )
        matrix /= _SUBPIXELS
        matrix[:2, 2] -= view["left"], view["top"]
        # x, y, z is where the camera stands in the world, the rows of the rotation are its axes there.
        rotation = _TO_OPENCV @ np.array([[pose[f"r{row}{column}"] for column in (1, 2, 3)] for row in (1, 2, 3)])
        position = np.array([pose["x"], pose["y"], pose["z"]]) / 1000
        names = ("radialDistortion1", "radialDistortion2", "tangentalDistortion1", "tangentalDistortion2")
        distortion = np.array([*(lens.get(name, 0.0) for name in names), lens.get("radialDistortion3", 0.0)])
        found.append(Calibration(camera.attrib["serial"], matrix, distortion, rotation, -rotation @ position))
    return found


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _read_opencv(paths: Sequence[str]) -> list[Calibration]:
    """Values of all files together."""
    values: dict[str, Any] = {}
    names: list[str] = []
    for path in paths:
        if not Path(path).is_file():
            raise FileNotFoundError(path)
        storage = cv2.FileStorage(path, cv2.FILE_STORAGE_READ)
        try:
            listed = storage.getNode("names")
            names = [listed.at(index).string() for index in range(listed.size())] or names
            for key in storage.root().keys():  # noqa: SIM118  a node, not a dict
                node = storage.getNode(key)
                if node.isMap():
                    values[key] = node.mat()
        finally:
            storage.release()
    found = []
    for name in names:
        rotation = values[f"Rot_{name}"] if f"Rot_{name}" in values else cv2.Rodrigues(values[f"R_{name}"])[0]
        found.append(
            Calibration(
                name,
                np.asarray(values[f"K_{name}"], np.float64),
                _five(values[f"dist_{name}"]),
                np.asarray(rotation, np.float64),
                np.asarray(values[f"T_{name}"], np.float64).ravel(),
            )
        )
    return found


def _read_toml(path: Path) -> list[Calibration]:
    with path.open("rb") as file:
        tables = tomllib.load(file)
    return [
        Calibration(
            str(camera.get("name", key)),
            np.array(camera["matrix"], np.float64),
            _five(camera.get("distortions", [])),
            cv2.Rodrigues(np.array(camera["rotation"], np.float64))[0],
            np.array(camera["translation"], np.float64),
        )
        for key, camera in tables.items()
        if isinstance(camera, dict) and "matrix" in camera
    ]


def _five(distortion: Any) -> Float[np.ndarray, "5"]:
    """The first five coefficients, zeros where there are fewer."""
    flat = np.asarray(distortion, np.float64).ravel()[:5]
    return np.concatenate([flat, np.zeros(5 - len(flat))])


def triangulate(
    cameras: Sequence[Calibration], pixels: Float[np.ndarray, "C *B 2"], confidence: Float[np.ndarray, "C *B"]
) -> Float[np.ndarray, "*B 3"]:
    """Points of the world, metres, by the linear method with each camera weighted by its confidence (Hartley and Zisserman 2004,
    chapter 12.2); NaN where fewer than two cameras have any."""
    rows = []
    for camera, seen, weight in zip(cameras, pixels, confidence, strict=True):
        rays = camera.rays(seen)
        matrix = np.concatenate([camera.rotation, camera.translation[:, None]], 1)
        equations = rays[..., None] * matrix[2] - matrix[:2]
        rows.append(equations * weight[..., None, None])
    system = np.concatenate(rows, -2)
    enough = (confidence > 0).sum(0) >= 2
    system = np.where(enough[..., None, None], system, np.eye(4)[np.arange(system.shape[-2]) % 4])
    solution = np.linalg.svd(system)[2][..., -1, :]
    with np.errstate(divide="ignore", invalid="ignore"):
        points = solution[..., :3] / solution[..., 3:]
    return np.where(enough[..., None], points, np.nan)
