"""What motions, pictures and texts are compared by: about 14 kilobytes for ten seconds."""

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
"""Moments and pictures a second; what is faster has been smoothed away."""
JOINTS = 22
"""The hands are left out: nobody measures them."""
_SMOOTHED_S = 0.1
"""Standard deviation of the smoothing, seconds: what trembles does not tell a copy from its original."""
_MARGIN_S = 0.2
"""So much at either end is only smoothed over, seconds: there smoothing has nothing to lean on."""
_FEWEST = 4
"""Moments of the shortest motion: a cubic spline needs them."""
_PEAKS_APART_S = 0.4
_PROMINENCE_M_S = 0.02
"""How far the joints' speed must rise above or fall below what lies around a moment that is marked by it, metres a second."""
_SIDE = 8
_BITS = _SIDE * _SIDE
_WINDOW_S = 0.3
"""Standard deviation by which the window that is hashed is smoothed, seconds."""
_MIRRORED = list(mirror_order(SMPL_JOINTS))[:JOINTS]


@dataclass(frozen=True, kw_only=True, eq=False)
class Signature:
    """One motion, `RATE_HZ` moments a second."""

    pose_m: Float[np.ndarray, "T 22 3"]
    """Joints about the pelvis, turned to face +Z at every moment, metres, on the mean body."""
    path_m: Float[np.ndarray, "T 2"]
    """Way over the ground (x, z) from the first moment on, as seen facing +Z then, metres."""
    start_s: float
    """Of the first moment, in the motion: the ends are only smoothed over."""
    length_s: float
    """Of the whole motion."""

    @property
    def end_s(self) -> float:
        """Of the last moment."""
        return self.start_s + (len(self.pose_m) - 1) / RATE_HZ

    def mirrored(self) -> "Signature":
        """The same in a mirror."""
        flip = np.array([-1, 1, 1], self.pose_m.dtype)
        path = self.path_m * np.array([-1, 1], self.path_m.dtype)
        return replace(self, pose_m=self.pose_m[:, _MIRRORED] * flip, path_m=path)

    def pose_between(self) -> CubicSpline:
        """Poses (N, 22, 3) at any times (N,) in seconds."""
        return CubicSpline(self.start_s + np.arange(len(self.pose_m)) / RATE_HZ, self.pose_m.astype(np.float64))

    def pose_near(self, times_s: Float[np.ndarray, "N"]) -> Float[np.ndarray, "N 22 3"]:
        """Poses on straight lines between the moments: quick, and a little off."""
        return interpolate_at(self.pose_m, self._places(times_s))

    def path_near(self, times_s: Float[np.ndarray, "N"]) -> Float[np.ndarray, "N 2"]:
        """The way over the ground on straight lines between the moments."""
        return interpolate_at(self.path_m, self._places(times_s))

    def _places(self, times_s: np.ndarray) -> np.ndarray:
        return ((times_s - self.start_s) * RATE_HZ).clip(0, len(self.pose_m) - 1)

    def marked_s(self) -> Float[np.ndarray, "N"]:
        """When the joints move faster or slower than before and after: times that do not depend on where a motion was cut."""
        pose = self.pose_m.astype(np.float64)
        speed = _rms(np.diff(pose, axis=0)) * RATE_HZ
        found = []
        for curve in (speed, -speed):
            peaks, _ = find_peaks(curve, distance=round(_PEAKS_APART_S * RATE_HZ), prominence=_PROMINENCE_M_S)
            before, top, after = (curve[peaks + step] for step in (-1, 0, 1))
            # A parabola through a peak and its neighbours says where between moments the peak is.
            found.append(peaks + 0.5 + 0.5 * (before - after) / np.minimum(before - 2 * top + after, -1e-9))
        return self.start_s + np.sort(np.concatenate(found)) / RATE_HZ


def _rms(points: Float[np.ndarray, "T J 3"]) -> Float[np.ndarray, "T"]:
    return np.sqrt(np.mean(np.sum(points**2, axis=-1), axis=-1))


def motion_signature(motion: MotionArrays, fps: float, body: BodyModel) -> Signature:
    """A motion's, whoever moved: on the mean body, so that a shape estimated anew changes nothing."""
    rotations = axis_angle_to_matrix(torch.from_numpy(motion.poses))
    rest = body.rest_joints(torch.zeros(motion.betas.shape[0]))
    joints = forward_kinematics(rotations, rest, torch.from_numpy(motion.trans))[0][:, :JOINTS]
    turn_back = yaw_matrix(heading_rad(rotations[:, 0]))
    pose = smooth(((joints - joints[:, :1]) @ turn_back).numpy(), _SMOOTHED_S * fps, ends="continued")
    path = ((joints[:, 0] - joints[0, 0]) @ turn_back[0]).numpy()[:, [0, 2]]
    margin = min(_MARGIN_S, len(pose) / fps / 4)
    last_s = (len(pose) - 1) / fps
    moments = max(int((last_s - 2 * margin) * RATE_HZ) + 1, _FEWEST)
    frames = np.minimum(margin + np.arange(moments) / RATE_HZ, last_s) * fps
    return Signature(
        pose_m=interpolate_at(pose, frames).astype(np.float16), path_m=interpolate_at(path, frames).astype(np.float16),
        start_s=margin, length_s=len(pose) / fps,
    )  # fmt: skip


@dataclass(frozen=True, kw_only=True, eq=False)
class Pictures:
    """Difference hashes of a person, `RATE_HZ` frames a second from the first on.

    Of each frame an upright window about the person, shrunk to 9 x 8 grey pixels; a bit says whether a pixel is lighter than its
    right neighbour: what a change of size, brightness, bit rate or of the clip's crop leaves as it is.
    """

    bits: UInt8[np.ndarray, "K 8"]
    """Eight to a byte, a byte a row."""

    flipped: UInt8[np.ndarray, "K 8"]
    """The same of the frames in a mirror."""

    def mirrored(self) -> "Pictures":
        """The hashes of the clip in a mirror."""
        return Pictures(bits=self.flipped, flipped=self.bits)

    def unlike(self, frames: Int[np.ndarray, "N"], other: "Pictures", theirs: Int[np.ndarray, "N"]) -> np.ndarray:
        """Share of differing bits of some frames of two clips, (N,)."""
        return np.bitwise_count(self.bits[frames] ^ other.bits[theirs]).sum(axis=1) / _BITS


def hash_pictures(clip_mp4: bytes, crop: Sequence[float], boxes: Float[np.ndarray, "T 4"], fps: float) -> Pictures:
    """Those of a clip, which shows `crop` (x0, y0, x1, y1); boxes are in the same pixels, `fps` of them a second."""
    import av
    import cv2

    windows = (_windows(boxes, fps) - np.tile(crop[:2], 2)) / np.tile(np.subtract(crop[2:], crop[:2]), 2)
    small: list[np.ndarray] = []
    with av.open(io.BytesIO(clip_mp4), "r") as container:
        for frame in container.decode(video=0):
            time_s = frame.time or 0.0
            if time_s < len(small) / RATE_HZ - 1e-3:
                continue
            image = frame.to_ndarray(format="gray")
            size = np.array(image.shape[::-1] * 2)
            x0, y0, x1, y1 = (
                np.rint(windows[min(round(time_s * fps), len(windows) - 1)] * size).astype(int).clip(0, size)
            )
            person = image[y0:y1, x0:x1] if x1 > x0 and y1 > y0 else image
            small.append(cv2.resize(person, (_SIDE + 1, _SIDE), interpolation=cv2.INTER_AREA))
    both = np.stack(small), np.stack(small)[:, :, ::-1]
    bits, flipped = (np.packbits(grey[:, :, :-1] > grey[:, :, 1:], axis=-1)[..., 0] for grey in both)
    return Pictures(bits=bits, flipped=flipped)


def _windows(boxes: Float[np.ndarray, "T 4"], fps: float) -> Float[np.ndarray, "T 4"]:
    """Of a person's height and 0.6 of it wide, about the middle of the box: it does not leap where an arm is put out."""
    boxes = boxes.astype(np.float64)
    height = smooth(median_filter(boxes[:, 3] - boxes[:, 1], size=round(fps) // 2 * 2 + 1), _WINDOW_S * fps)
    middle = smooth((boxes[:, :2] + boxes[:, 2:]) / 2, _WINDOW_S * fps)
    half = height[:, None] * [0.3, 0.5]
    return np.concatenate([middle - half, middle + half], axis=1)


def shingles(sentences: list[str]) -> frozenset[tuple[str, ...]]:
    """Pairs of neighbouring words of some sentences."""
    words = [re.findall(r"\w+", sentence.lower()) for sentence in sentences]
    return frozenset(pair for some in words for pair in itertools.pairwise(some))


def likeness(one: frozenset[tuple[str, ...]], other: frozenset[tuple[str, ...]]) -> float:
    """Share of the pairs of words that two texts have in common (Jaccard)."""
    return len(one & other) / len(one | other) if one or other else 1.0
