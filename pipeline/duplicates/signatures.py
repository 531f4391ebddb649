"""What motions, pictures and texts are compared by: a few kilobytes a sample, the same however long it is."""

import io
import itertools
import re
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Bool, Float

from schemas.body_model import BodyModel
from schemas.curves import between, smooth
from schemas.kinematics import forward_kinematics
from schemas.rotations import axis_angle_to_matrix, heading_rad, yaw_matrix
from schemas.sample import MotionArrays
from schemas.skeleton import SMPL_JOINTS, mirror_order

FRAMES = 64
"""Moments that a motion is taken at, evenly spread over its length."""
JOINTS = 22
"""The hands are left out: nobody measures them."""
_SMOOTHED_S = 0.1
"""Standard deviation of the smoothing, seconds: what trembles does not tell a copy from its original."""
_MARGIN_S = 0.2
"""So much at either end is only smoothed over, seconds: there smoothing has nothing to lean on."""
HASHED_FRAMES = 4
_SIDE = 8
HASH_BITS = HASHED_FRAMES * _SIDE * _SIDE
_MIRRORED = list(mirror_order(SMPL_JOINTS))[:JOINTS]


@dataclass(frozen=True, kw_only=True, eq=False)
class Signature:
    """One motion, resampled."""

    pose_m: Float[np.ndarray, "64 22 3"]
    """Joints about the pelvis, turned to face +Z at every moment, metres, on the mean body."""
    path_m: Float[np.ndarray, "64 2"]
    """Way over the ground (x, z) from the first moment on, as seen facing +Z then, metres."""
    seconds: float
    """From the first moment to the last."""
    length_s: float
    """Of the whole motion, the ends that are only smoothed over too."""

    def mirrored(self) -> "Signature":
        """The same in a mirror."""
        flip = np.array([-1, 1, 1], self.pose_m.dtype)
        path = self.path_m * np.array([-1, 1], self.path_m.dtype)
        return replace(self, pose_m=self.pose_m[:, _MIRRORED] * flip, path_m=path)


def motion_signature(motion: MotionArrays, fps: float, body: BodyModel) -> Signature:
    """A motion's, whoever moved: on the mean body, so that a shape estimated anew changes nothing."""
    rotations = axis_angle_to_matrix(torch.from_numpy(motion.poses))
    rest = body.rest_joints(torch.zeros(motion.betas.shape[0]))
    joints = forward_kinematics(rotations, rest, torch.from_numpy(motion.trans))[0][:, :JOINTS]
    turn_back = yaw_matrix(heading_rad(rotations[:, 0]))
    pose = smooth(((joints - joints[:, :1]) @ turn_back).numpy(), _SMOOTHED_S * fps, ends="continued")
    path = ((joints[:, 0] - joints[0, 0]) @ turn_back[0]).numpy()[:, [0, 2]]
    margin = min(round(_MARGIN_S * fps), len(pose) // 4)
    inner = slice(margin, len(pose) - margin)
    return Signature(
        pose_m=_resampled(pose[inner]).astype(np.float16), path_m=_resampled(path[inner]).astype(np.float16),
        seconds=(len(pose) - 2 * margin - 1) / fps, length_s=len(pose) / fps,
    )  # fmt: skip


def _resampled(values: np.ndarray) -> np.ndarray:
    """At `FRAMES` moments from the first to the last."""
    return between(values, np.linspace(0, len(values) - 1, FRAMES))


def picture_hash(clip_mp4: bytes) -> tuple[Bool[np.ndarray, "256"], Bool[np.ndarray, "256"]]:
    """Difference hash of four frames spread over a clip, and that of the clip in a mirror.

    Of each frame, shrunk to 9 x 8 grey pixels, a bit says whether a pixel is lighter than its right neighbour: what a change of
    size, brightness or bit rate leaves as it is.
    """
    import av
    import cv2

    with av.open(io.BytesIO(clip_mp4), "r") as container:
        frames = [frame.to_ndarray(format="gray") for frame in container.decode(video=0)]
    chosen = [frames[(2 * number + 1) * len(frames) // (2 * HASHED_FRAMES)] for number in range(HASHED_FRAMES)]
    small = [cv2.resize(frame, (_SIDE + 1, _SIDE), interpolation=cv2.INTER_AREA).astype(np.int16) for frame in chosen]
    bits = np.stack([frame[:, :-1] > frame[:, 1:] for frame in small])
    flipped = np.stack([frame[:, ::-1][:, :-1] > frame[:, ::-1][:, 1:] for frame in small])
    return bits.reshape(-1), flipped.reshape(-1)


def shingles(sentences: list[str]) -> frozenset[tuple[str, ...]]:
    """Pairs of neighbouring words of some sentences."""
    words = [re.findall(r"\w+", sentence.lower()) for sentence in sentences]
    return frozenset(pair for some in words for pair in itertools.pairwise(some))


def likeness(one: frozenset[tuple[str, ...]], other: frozenset[tuple[str, ...]]) -> float:
    """Share of the pairs of words that two texts have in common (Jaccard)."""
    return len(one & other) / len(one | other) if one or other else 1.0
