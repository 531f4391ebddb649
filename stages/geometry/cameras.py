"""Pinhole cameras: where points of a world land in an image, in pixels from the top left.

Camera axes are OpenCV's: x right, y down, z forward. A *level world* belongs to each static camera: its origin is the
camera's centre, X points right in the image, Y up against gravity, and Z level and back, out of the scene and towards
whoever looks at the image. A person who faces the camera therefore faces +Z, as in the zero pose.
"""

import math

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from schemas.records import Camera, Clip, Video
from stages.geometry.keypoints import clean_keypoints

MIN_DEPTH_M = 0.05
"""Points nearer than this, or behind the camera, are projected as if they stood here."""


def guess_intrinsics(width_px: int, height_px: int) -> Float[np.ndarray, "4"]:
    """fx, fy, cx, cy where nothing is known: a focal length of the image's diagonal (about 53 degrees of view across it)."""
    focal_px = math.hypot(width_px, height_px)
    return np.array([focal_px, focal_px, width_px / 2, height_px / 2], np.float32)


def intrinsics_of(video: Video) -> Float[np.ndarray, "4"]:
    """fx, fy, cx, cy of a video: by the focal length that its file tells, else guessed."""
    intrinsics = guess_intrinsics(video.width, video.height)
    if video.focal_px > 0:
        intrinsics[:2] = video.focal_px
    return intrinsics


def level_to_camera(pitch_rad: Float[Tensor, "*B"]) -> Float[Tensor, "*B 3 3"]:
    """Takes the level world's axes to those of a camera that looks down by `pitch_rad`, without roll."""
    c, s = torch.cos(pitch_rad), torch.sin(pitch_rad)
    zero, one = torch.zeros_like(c), torch.ones_like(c)
    return torch.stack([one, zero, zero, zero, -c, s, zero, -s, -c], dim=-1).unflatten(-1, (3, 3))


def project(points: Float[np.ndarray, "T K 3"], camera: Camera) -> Float[np.ndarray, "T K 2"]:
    """World points (metres) to pixels, each frame through its own pose of the camera."""
    seen = np.einsum("tij,tkj->tki", camera.rotation, points - camera.position[:, None])
    focal, centre = camera.intrinsics[:2], camera.intrinsics[2:]
    return seen[..., :2] / np.maximum(seen[..., 2:], MIN_DEPTH_M) * focal + centre


def heights_px(boxes: Float[np.ndarray, "T 4"]) -> Float[np.ndarray, "T"]:
    """Of boxes, at least a pixel."""
    return np.maximum(boxes[:, 3] - boxes[:, 1], 1.0).astype(np.float64)


def reprojection_error(points: Float[np.ndarray, "T 17 3"], camera: Camera, clip: Clip) -> Float[np.ndarray, "T 17"]:
    """Distance of keypoints in the world, as the camera sees them, from those of a clip, in heights of its boxes."""
    apart = project(points, camera) - clean_keypoints(clip.keypoints)[..., :2]
    return np.linalg.norm(apart, axis=-1) / heights_px(clip.boxes)[:, None]


def camera_in_motion(camera: Camera, to_source: Float[np.ndarray, "4 4"]) -> Camera:
    """A camera of the source's world in a motion's own world, from which `to_source` leads there."""
    turn, shift = to_source[:3, :3], to_source[:3, 3]
    return Camera(
        rotation=(camera.rotation @ turn).astype(np.float32),
        position=((camera.position - shift) @ turn).astype(np.float32),
        intrinsics=camera.intrinsics.astype(np.float32),
    )
