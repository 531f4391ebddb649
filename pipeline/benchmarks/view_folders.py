"""Videos of calibrated cameras that show one person at the same time, and where that person's joints are.

A folder holds `views.json` and the files that it names:

    {"fps": 60, "truth": "truth.npz", "calibration": ["Calib.qca.txt"], "world_up": [0, 0, 1],
     "cameras": [{"name": "cam02", "video": "cam02.mp4"}, ...]}

`calibration` is read by `calibrations.read_calibrations`. In its place each camera may have `intrinsics` (fx, fy, cx, cy) and
`up_in_camera` (x, y, z); a truth in camera axes is then needed. The truth has `joints` (names of COCO keypoints) and either
`world_m` (T, J, 3), metres in the calibration's world, or for each camera `NAME_camera_m` (T, J, 3), metres in its axes (x right, y
down, z forward), and `NAME_pixels` (T, J, 2), at `fps` from the first frame on. Without a truth the joints can be triangulated.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from pipeline.benchmarks.calibrations import Calibration, read_calibrations
from schemas.errors import UsageError
from schemas.records import FPS
from schemas.skeleton import COCO_KEYPOINTS, keypoint

_FILE = "views.json"


@dataclass(frozen=True, eq=False)
class View:
    """One calibrated camera and its video."""

    name: str
    video: Path
    intrinsics: tuple[float, float, float, float]
    up_in_camera: Float[np.ndarray, "3"]
    calibration: Calibration | None = None
    """Where the camera stands; None: only the truth in its axes is known."""


@dataclass(frozen=True, eq=False)
class TrueJoints:
    """Joints of one person in one view, from the first frame on; NaN where one is not known."""

    joints: tuple[int, ...]
    """COCO keypoints."""
    camera_m: Float[np.ndarray, "T J 3"]
    pixels: Float[np.ndarray, "T J 2"]
    fps: float

    def frames(self, start_s: float, count: int) -> np.ndarray:
        """Indices of `count` frames at FPS from `start_s` on."""
        times_s = start_s + np.arange(count) / FPS
        return (times_s * self.fps).round().astype(int).clip(0, len(self.pixels) - 1)


@dataclass(frozen=True, eq=False)
class ViewFolder:
    """What a folder holds."""

    views: tuple[View, ...]
    truth: dict[str, TrueJoints]
    """By view; empty: to be triangulated."""


def read_views(folder: str | Path) -> ViewFolder:
    """Raises UsageError where a file or an entry is missing or does not fit."""
    folder = Path(folder)
    path = folder / _FILE
    try:
        described = json.loads(path.read_text())
        calibrations: dict[str, Calibration] = {}
        if files := described.get("calibration", []):
            calibrations = read_calibrations([folder / name for name in ([files] if isinstance(files, str) else files)])
        up = np.array(described.get("world_up", [0.0, 0.0, 1.0]), np.float64)
        views = tuple(_view(camera, folder, calibrations, up) for camera in described["cameras"])
        truth: dict[str, TrueJoints] = {}
        if "truth" in described:
            with np.load(folder / described["truth"]) as arrays:
                truth = {view.name: _truth_of(view, arrays, float(described["fps"])) for view in views}
    except (OSError, ValueError, KeyError, TypeError) as error:
        reason = f"{type(error).__name__}: {error}"
        raise UsageError(f"{path}: {reason}; docs/recovery.md has the form of the file") from error
    if not truth and (len(views) < 2 or any(view.calibration is None for view in views)):
        raise UsageError(
            f"{path}: without a truth, joints are triangulated, which takes two cameras with a calibration; add `truth` or "
            "`calibration`"
        )
    return ViewFolder(views, truth)


def _view(
    camera: dict[str, Any], folder: Path, calibrations: dict[str, Calibration], world_up: Float[np.ndarray, "3"]
) -> View:
    name, calibration = str(camera["name"]), None
    if calibrations:
        if name not in calibrations:
            raise ValueError(f"camera {name} is not in the calibration, which has {', '.join(calibrations)}")
        calibration = calibrations[name]
        matrix = calibration.intrinsics
        intrinsics = (matrix[0, 0], matrix[1, 1], matrix[0, 2], matrix[1, 2])
        up = calibration.rotation @ world_up
    else:
        intrinsics, up = camera["intrinsics"], np.array(camera["up_in_camera"], np.float64)
    if len(intrinsics) != 4 or up.shape != (3,):
        raise ValueError(f"{name}: intrinsics are fx, fy, cx, cy, and up_in_camera has three numbers")
    fx, fy, cx, cy = (float(value) for value in intrinsics)
    return View(name, folder / camera["video"], (fx, fy, cx, cy), up, calibration)


def _truth_of(view: View, arrays: Any, fps: float) -> TrueJoints:
    names = [str(name) for name in arrays["joints"]]
    if unknown := sorted({*names} - {*COCO_KEYPOINTS}):
        raise ValueError(f"joints {', '.join(unknown)} are no COCO keypoints")
    joints = tuple(map(keypoint, names))
    if f"{view.name}_camera_m" in arrays:
        camera_m, pixels = arrays[f"{view.name}_camera_m"], arrays[f"{view.name}_pixels"]
    elif view.calibration:
        world = arrays["world_m"].astype(np.float64)
        camera_m, pixels = view.calibration.to_camera(world), view.calibration.project(world)
    else:
        raise ValueError(f"the truth has no {view.name}_camera_m, and without a calibration world_m does not help")
    shape = (len(pixels), len(joints))
    if camera_m.shape != (*shape, 3) or pixels.shape != (*shape, 2):
        raise ValueError(f"{view.name}: the truth has other frames or joints in camera axes than in pixels")
    return TrueJoints(joints, camera_m.astype(np.float64), pixels.astype(np.float64), fps)
