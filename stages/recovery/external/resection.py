"""Camera resection: the pose of a camera from 3D points and their pixels, for results without a camera.

The camera is static and has no roll, as `FitSmpl` assumes for all cameras. For a given yaw and pitch its position is the
solution of linear equations, two per keypoint (r1 p + t1 = x (r3 p + t3), likewise y, where (x, y, 1) is the pixel's ray); the
best of a grid are refined by robust least squares on pixels.
"""

import numpy as np
import torch
from jaxtyping import Bool, Float
from scipy.optimize import least_squares

from schemas.records import Camera
from schemas.rotations import yaw_matrix
from stages.geometry.cameras import level_to_camera, project

_YAWS_RAD = np.arange(16) * (2 * np.pi / 16)
_PITCHES_RAD = (-0.4, 0.0, 0.4, 0.9)
_MAX_FRAMES = 40
"""Largest number of frames used."""
_MAX_STARTS = 3
_ROBUST_SCALE = 0.05
"""Residuals above this many box heights have little weight."""


def find_camera(
    points: Float[np.ndarray, "T K 3"],
    pixels: Float[np.ndarray, "T K 2"],
    visible: Bool[np.ndarray, "T K"],
    box_heights_px: Float[np.ndarray, "T"],
    intrinsics: Float[np.ndarray, "4"],
) -> Camera | None:
    """A camera over T frames in the points' world, which has Y up; None where too few keypoints are visible."""
    frames = np.unique(np.linspace(0, len(points) - 1, min(_MAX_FRAMES, len(points))).round().astype(int))
    frame, column = np.nonzero(visible[frames])
    frame = frames[frame]
    if len(frame) < 6:
        return None
    p, pixel, box_heights = points[frame, column], pixels[frame, column], box_heights_px[frame, None]
    rays = (pixel - intrinsics[2:]) / intrinsics[:2]

    def residuals(values: Float[np.ndarray, "5"]) -> Float[np.ndarray, "R"]:
        camera = _camera(_rotation(values[0], values[1]), values[2:], len(p), intrinsics)
        return ((project(p[:, None], camera)[:, 0] - pixel) / box_heights).ravel()

    starts = []
    for yaw in _YAWS_RAD:
        for pitch in _PITCHES_RAD:
            rotation = _rotation(yaw, pitch)
            position = _position(rotation, p, rays)
            if ((p - position) @ rotation[2] > 0).mean() > 0.9:
                start = np.array([yaw, pitch, *position])
                starts.append((float(np.median(np.abs(residuals(start)))), start))
    starts.sort(key=lambda pair: pair[0])
    fits = [least_squares(residuals, start, loss="soft_l1", f_scale=_ROBUST_SCALE) for _, start in starts[:_MAX_STARTS]]
    if not fits:
        return None
    best = min(fits, key=lambda fit: fit.cost).x
    return _camera(_rotation(best[0], best[1]), best[2:], len(points), intrinsics)


def _rotation(yaw_rad: float, pitch_rad: float) -> Float[np.ndarray, "3 3"]:
    yaw, pitch = torch.tensor(yaw_rad, dtype=torch.float64), torch.tensor(pitch_rad, dtype=torch.float64)
    return (level_to_camera(pitch) @ yaw_matrix(yaw).T).numpy()


def _position(
    rotation: Float[np.ndarray, "3 3"], points: Float[np.ndarray, "R 3"], rays: Float[np.ndarray, "R 2"]
) -> Float[np.ndarray, "3"]:
    """Position of a camera with these axes, by linear least squares."""
    rotated = points @ rotation.T
    rows, values = [], []
    for axis in range(2):
        row = np.zeros((len(points), 3))
        row[:, axis], row[:, 2] = 1.0, -rays[:, axis]
        rows.append(row)
        values.append(rays[:, axis] * rotated[:, 2] - rotated[:, axis])
    translation = np.linalg.lstsq(np.concatenate(rows), np.concatenate(values), rcond=None)[0]
    return -rotation.T @ translation


def _camera(
    rotation: Float[np.ndarray, "3 3"],
    position: Float[np.ndarray, "3"],
    frames: int,
    intrinsics: Float[np.ndarray, "4"],
) -> Camera:
    return Camera(
        rotation=np.broadcast_to(rotation, (frames, 3, 3)),
        position=np.broadcast_to(position, (frames, 3)),
        intrinsics=intrinsics,
    )
