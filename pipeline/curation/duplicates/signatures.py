"""Signatures for comparing motions, images and texts: about 14 kilobytes for ten seconds."""

import io
import itertools
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Float, Int, UInt8
from scipy.interpolate import CubicSpline
from scipy.ndimage import median_filter
from scipy.signal import find_peaks

from schemas.body_model import BodyModel
from schemas.curves import interpolate_at, smooth
from schemas.kinematics import forward_kinematics
from schemas.rotations import axis_angle_to_matrix, heading_rad, yaw_matrix
from schemas.sample import MotionArrays
from schemas.skeleton import SMPL_JOINTS, mirror_order

RATE_HZ = 10.0
"""Sampling rate of poses and images; faster movement is smoothed away."""
JOINTS = 22
"""Without the hands, which are not measured."""
_SMOOTHED_S = 0.1
"""Standard deviation of the smoothing, seconds: jitter must not separate a copy from its original."""
_MARGIN_S = 0.2
"""Margin at either end, seconds, that is used for smoothing but left out, since smoothing is one-sided there."""
_MIN_POSES = 4
"""Minimum number of poses, required by a cubic spline."""
_MIN_PEAK_DISTANCE_S = 0.4
_PROMINENCE_M_S = 0.02
"""Prominence of a maximum or minimum of the joints' speed, metres per second."""
_SIDE = 8
_BITS = _SIDE * _SIDE
_WINDOW_S = 0.3
"""Standard deviation of the smoothing of the hashed window, seconds."""
_MIRRORED = list(mirror_order(SMPL_JOINTS))[:JOINTS]


@dataclass(frozen=True, kw_only=True, eq=False)
class Signature:
    """Signature of one motion, sampled at `RATE_HZ`."""

    pose_m: Float[np.ndarray, "T 22 3"]
    """Joints relative to the pelvis, rotated to face +Z in every pose, metres, on the mean body."""
    path_m: Float[np.ndarray, "T 2"]
    """Path on the ground (x, z) from the first frame, rotated so that the first frame faces +Z, metres."""
    start_s: float
    """Time of the first pose in the motion, whose ends are left out."""
    length_s: float
    """Length of the whole motion."""

    @property
    def end_s(self) -> float:
        """Time of the last pose."""
        return self.start_s + (len(self.pose_m) - 1) / RATE_HZ

    def mirrored(self) -> "Signature":
        """The mirrored motion."""
        flip = np.array([-1, 1, 1], self.pose_m.dtype)
        path = self.path_m * np.array([-1, 1], self.path_m.dtype)
        return replace(self, pose_m=self.pose_m[:, _MIRRORED] * flip, path_m=path)

    def pose_spline(self) -> CubicSpline:
        """Spline that gives poses (N, 22, 3) at times (N,) in seconds."""
        return CubicSpline(self.start_s + np.arange(len(self.pose_m)) / RATE_HZ, self.pose_m.astype(np.float64))

    def pose_at(self, times_s: Float[np.ndarray, "N"]) -> Float[np.ndarray, "N 22 3"]:
        """Linearly interpolated poses: faster and less exact than the spline."""
        return interpolate_at(self.pose_m, self._positions(times_s))

    def path_at(self, times_s: Float[np.ndarray, "N"]) -> Float[np.ndarray, "N 2"]:
        """Linearly interpolated path on the ground."""
        return interpolate_at(self.path_m, self._positions(times_s))

    def _positions(self, times_s: np.ndarray) -> np.ndarray:
        return ((times_s - self.start_s) * RATE_HZ).clip(0, len(self.pose_m) - 1)

    def speed_extrema_s(self) -> Float[np.ndarray, "N"]:
        """Times of maxima and minima of the joints' speed, which do not depend on where a motion was cut."""
        pose = self.pose_m.astype(np.float64)
        speed = _rms(np.diff(pose, axis=0)) * RATE_HZ
        extrema = []
        for curve in (speed, -speed):
            peaks, _ = find_peaks(curve, distance=round(_MIN_PEAK_DISTANCE_S * RATE_HZ), prominence=_PROMINENCE_M_S)
            before, peak, after = (curve[peaks + step] for step in (-1, 0, 1))
            # A parabola through a peak and its neighbours gives its time between poses.
            extrema.append(peaks + 0.5 + 0.5 * (before - after) / np.minimum(before - 2 * peak + after, -1e-9))
        return self.start_s + np.sort(np.concatenate(extrema)) / RATE_HZ


def _rms(points: Float[np.ndarray, "T J 3"]) -> Float[np.ndarray, "T"]:
    return np.sqrt(np.mean(np.sum(points**2, axis=-1), axis=-1))


def motion_signature(motion: MotionArrays, fps: float, body: BodyModel) -> Signature:
    """Signature of a motion on the mean body, so that it does not depend on the estimated shape."""
    rotations = axis_angle_to_matrix(torch.from_numpy(motion.poses))
    rest = body.rest_joints(torch.zeros(motion.betas.shape[0]))
    joints = forward_kinematics(rotations, rest, torch.from_numpy(motion.trans))[0][:, :JOINTS]
    yaw = yaw_matrix(heading_rad(rotations[:, 0]))
    pose = smooth(((joints - joints[:, :1]) @ yaw).numpy(), _SMOOTHED_S * fps, padding="odd")
    path = ((joints[:, 0] - joints[0, 0]) @ yaw[0]).numpy()[:, [0, 2]]
    margin = min(_MARGIN_S, len(pose) / fps / 4)
    last_s = (len(pose) - 1) / fps
    poses = max(int((last_s - 2 * margin) * RATE_HZ) + 1, _MIN_POSES)
    frames = np.minimum(margin + np.arange(poses) / RATE_HZ, last_s) * fps
    return Signature(
        pose_m=interpolate_at(pose, frames).astype(np.float16), path_m=interpolate_at(path, frames).astype(np.float16),
        start_s=margin, length_s=len(pose) / fps,
    )  # fmt: skip


@dataclass(frozen=True, kw_only=True, eq=False)
class FrameHashes:
    """Difference hashes of a person, `RATE_HZ` frames per second from the first on.

    In each frame an upright window around the person is scaled to 9 x 8 grey pixels; a bit is set where a pixel is lighter than
    its right neighbour. This is invariant to changes of size, brightness, bit rate and the clip's crop.
    """

    bits: UInt8[np.ndarray, "K 8"]
    """One byte per row of eight bits."""

    flipped: UInt8[np.ndarray, "K 8"]
    """Hashes of the mirrored frames."""

    def mirrored(self) -> "FrameHashes":
        """Hashes of the mirrored clip."""
        return FrameHashes(bits=self.flipped, flipped=self.bits)

    def bit_difference(
        self, frames: Int[np.ndarray, "N"], other: "FrameHashes", other_frames: Int[np.ndarray, "N"]
    ) -> np.ndarray:
        """Share of differing bits between frames of two clips, (N,)."""
        return np.bitwise_count(self.bits[frames] ^ other.bits[other_frames]).sum(axis=1) / _BITS


def hash_frames(clip_mp4: bytes, crop: Sequence[float], boxes: Float[np.ndarray, "T 4"], fps: float) -> FrameHashes:
    """Hashes of a clip that shows `crop` (x0, y0, x1, y1); boxes are in the same pixels at `fps`."""
    import cv2

    from schemas.containers import CLIP_FORMATS, open_media

    windows = (_windows(boxes, fps) - np.tile(crop[:2], 2)) / np.tile(np.subtract(crop[2:], crop[:2]), 2)
    thumbnails: list[np.ndarray] = []
    with open_media(io.BytesIO(clip_mp4), CLIP_FORMATS) as container:
        for frame in container.decode(video=0):
            time_s = frame.time or 0.0
            if time_s < len(thumbnails) / RATE_HZ - 1e-3:
                continue
            image = frame.to_ndarray(format="gray")
            size = np.array(image.shape[::-1] * 2)
            x0, y0, x1, y1 = (
                np.rint(windows[min(round(time_s * fps), len(windows) - 1)] * size).astype(int).clip(0, size)
            )
            person = image[y0:y1, x0:x1] if x1 > x0 and y1 > y0 else image
            thumbnails.append(cv2.resize(person, (_SIDE + 1, _SIDE), interpolation=cv2.INTER_AREA))
    grey = np.stack(thumbnails)
    bits, flipped = (
        np.packbits(images[:, :, :-1] > images[:, :, 1:], axis=-1)[..., 0] for images in (grey, grey[:, :, ::-1])
    )
    return FrameHashes(bits=bits, flipped=flipped)


def _windows(boxes: Float[np.ndarray, "T 4"], fps: float) -> Float[np.ndarray, "T 4"]:
    """Windows of the person's height and 0.6 of it wide around the box centre, which do not jump when an arm is extended."""
    boxes = boxes.astype(np.float64)
    height = smooth(median_filter(boxes[:, 3] - boxes[:, 1], size=round(fps) // 2 * 2 + 1), _WINDOW_S * fps)
    centre = smooth((boxes[:, :2] + boxes[:, 2:]) / 2, _WINDOW_S * fps)
    half = height[:, None] * [0.3, 0.5]
    return np.concatenate([centre - half, centre + half], axis=1)


def shingles(sentences: list[str]) -> frozenset[tuple[str, ...]]:
    """Pairs of neighbouring words of sentences."""
    words = [re.findall(r"\w+", sentence.lower()) for sentence in sentences]
    return frozenset(pair for sentence in words for pair in itertools.pairwise(sentence))


def jaccard(one: frozenset[tuple[str, ...]], other: frozenset[tuple[str, ...]]) -> float:
    """Jaccard index of the word pairs of two texts."""
    return len(one & other) / len(one | other) if one or other else 1.0
