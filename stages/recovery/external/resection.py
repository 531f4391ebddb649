"""Where a camera stood that saw a known body at known pixels: for results that come without a camera.

The camera stands still and has no roll, as `FitSmpl` assumes of all cameras. For a given yaw and pitch its place is the
solution of linear equations, two a keypoint (r1 p + t1 = x (r3 p + t3), likewise y, where (x, y, 1) is the pixel's ray);
the best of a grid is refined by robust least squares on pixels.
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
_FRAMES = 40
"""As many frames tell enough."""
_TRIES = 3
_ROBUST = 0.05
"""Distances beyond this many box heights count little."""


def find_camera(
    points: Float[np.ndarray, "T K 3"],
    pixels: Float[np.ndarray, "T K 2"],
    seen: Bool[np.ndarray, "T K"],
    box_heights_px: Float[np.ndarray, "T"],
    intrinsics: Float[np.ndarray, "4"],
) -> Camera | None:
    """A camera over T frames in the points' world, which has Y up; None where too little is seen."""
    chosen = np.unique(np.linspace(0, len(points) - 1, min(_FRAMES, len(points))).round().astype(int))
    frame, column = np.nonzero(seen[chosen])
    frame = chosen[frame]
    if len(frame) < 6:
        return None
    p, pixel, heights = points[frame, column], pixels[frame, column], box_heights_px[frame, None]
    rays = (pixel - intrinsics[2:]) / intrinsics[:2]

    def apart(values: Float[np.ndarray, "5"]) -> Float[np.ndarray, "R"]:
        camera = _camera(_rotation(values[0], values[1]), values[2:], len(p), intrinsics)
        return ((project(p[:, None], camera)[:, 0] - pixel) / heights).ravel()

    starts = []
    for yaw in _YAWS_RAD:
        for pitch in _PITCHES_RAD:
            rotation = _rotation(yaw, pitch)
            place = _place(rotation, p, rays)
            if ((p - place) @ rotation[2] > 0).mean() > 0.9:
                start = np.array([yaw, pitch, *place])
                starts.append((float(np.median(np.abs(apart(start)))), start))
    starts.sort(key=lambda pair: pair[0])
    fits = [least_squares(apart, start, loss="soft_l1", f_scale=_ROBUST) for _, start in starts[:_TRIES]]
    if not fits:
        return None
    best = min(fits, key=lambda fit: fit.cost).x
    return _camera(_rotation(best[0], best[1]), best[2:], len(points), intrinsics)


def _rotation(yaw_rad: float, pitch_rad: float) -> Float[np.ndarray, "3 3"]:
    yaw, pitch = torch.tensor(yaw_rad, dtype=torch.float64), torch.tensor(pitch_rad, dtype=torch.float64)
    return (level_to_camera(pitch) @ yaw_matrix(yaw).T).numpy()


def _place(
    rotation: Float[np.ndarray, "3 3"], points: Float[np.ndarray, "R 3"], rays: Float[np.ndarray, "R 2"]
) -> Float[np.ndarray, "3"]:
    """Of a camera with these axes, by linear least squares."""
    turned = points @ rotation.T
    rows, values = [], []
    for axis in range(2):
        row = np.zeros((len(points), 3))
        row[:, axis], row[:, 2] = 1.0, -rays[:, axis]
        rows.append(row)
        values.append(rays[:, axis] * turned[:, 2] - turned[:, axis])
    shift = np.linalg.lstsq(np.concatenate(rows), np.concatenate(values), rcond=None)[0]
    return -rotation.T @ shift


def _camera(
    rotation: Float[np.ndarray, "3 3"], place: Float[np.ndarray, "3"], frames: int, intrinsics: Float[np.ndarray, "4"]
) -> Camera:
    return Camera(
        rotation=np.broadcast_to(rotation, (frames, 3, 3)),
        position=np.broadcast_to(place, (frames, 3)),
        intrinsics=intrinsics,
    )
