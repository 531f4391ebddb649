"""Pinhole cameras: projection of world points to pixels, measured from the top left of the image.

Camera axes are OpenCV's: x right, y down, z forward. Each static camera has a *level world*: its origin is the camera centre, X
points right in the image, Y up against gravity, and Z is horizontal and points back, out of the scene towards the viewer. A
person who faces the camera therefore faces +Z, as in the zero pose.
"""

import math

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from schemas.records import Camera, Clip, Video
from stages.geometry.keypoints import clean_keypoints

MIN_DEPTH_M = 0.05
"""Points nearer than this, or behind the camera, are projected as if at this depth."""


def guess_intrinsics(width_px: int, height_px: int) -> Float[np.ndarray, "4"]:
    """fx, fy, cx, cy without calibration: the focal length is the image diagonal (about 53 degrees of view across it)."""
    focal_px = math.hypot(width_px, height_px)
    return np.array([focal_px, focal_px, width_px / 2, height_px / 2], np.float32)


def intrinsics_of(video: Video) -> Float[np.ndarray, "4"]:
    """fx, fy, cx, cy of a video: with the focal length of its file or manifest, else guessed."""
    intrinsics = guess_intrinsics(video.width, video.height)
    if video.focal_px > 0:
        intrinsics[:2] = video.focal_px
    return intrinsics


def level_to_camera(pitch_rad: Float[Tensor, "*B"]) -> Float[Tensor, "*B 3 3"]:
    """Rotation from level-world axes to those of a camera that looks down by `pitch_rad`, without roll."""
    c, s = torch.cos(pitch_rad), torch.sin(pitch_rad)
    zero, one = torch.zeros_like(c), torch.ones_like(c)
    return torch.stack([one, zero, zero, zero, -c, s, zero, -s, -c], dim=-1).unflatten(-1, (3, 3))


def project(points: Float[np.ndarray, "T K 3"], camera: Camera) -> Float[np.ndarray, "T K 2"]:
    """World points (metres) to pixels, each frame with its own camera pose."""
    in_camera = np.einsum("tij,tkj->tki", camera.rotation, points - camera.position[:, None])
    focal, principal_point = camera.intrinsics[:2], camera.intrinsics[2:]
    return in_camera[..., :2] / np.maximum(in_camera[..., 2:], MIN_DEPTH_M) * focal + principal_point


def box_heights_px(boxes: Float[np.ndarray, "T 4"]) -> Float[np.ndarray, "T"]:
    """Heights of boxes, at least one pixel."""
    return np.maximum(boxes[:, 3] - boxes[:, 1], 1.0).astype(np.float64)


def reprojection_error(points: Float[np.ndarray, "T 17 3"], camera: Camera, clip: Clip) -> Float[np.ndarray, "T 17"]:
    """Distance between projected world keypoints and those of a clip, in box heights."""
    difference_px = project(points, camera) - clean_keypoints(clip.keypoints)[..., :2]
    return np.linalg.norm(difference_px, axis=-1) / box_heights_px(clip.boxes)[:, None]


def camera_in_motion(camera: Camera, to_source: Float[np.ndarray, "4 4"]) -> Camera:
    """A camera of the source world expressed in the motion's own world; `to_source` maps motion to source."""
    rotation, translation = to_source[:3, :3], to_source[:3, 3]
    return Camera(
        rotation=(camera.rotation @ rotation).astype(np.float32),
        position=((camera.position - translation) @ rotation).astype(np.float32),
        intrinsics=camera.intrinsics.astype(np.float32),
    )
