"""How fast a body falls: gravity tells whether a take's frame rate can be true."""

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from schemas.body_model import NUM_SHAPES, BodyModel
from schemas.kinematics import forward_kinematics
from schemas.skeleton import joint

_GRAVITY_MPS2 = 9.81
_WINDOW = 5
"""Frames over which an acceleration is fitted: at 30 frames/s the shortest flight of a jump."""
_MASSES = {
    "pelvis": 0.14, "spine2": 0.16, "spine3": 0.2, "head": 0.08, "left_hip": 0.05, "right_hip": 0.05, "left_knee": 0.09,
    "right_knee": 0.09, "left_ankle": 0.03, "right_ankle": 0.03, "left_elbow": 0.025, "right_elbow": 0.025, "left_wrist": 0.015,
    "right_wrist": 0.015,
}  # fmt: skip
"""Shares of a body's mass, put on its joints."""


def fall_acceleration_g(
    rotations: Float[Tensor, "T 24 3 3"], trans: Float[Tensor, "T 3"], fps: float, body: BodyModel
) -> float:
    """Downward acceleration of the centre of mass that a motion reaches again and again, in g: the third highest of separate
    moments, so that a glitch does not count. 0 for motions that are too short to tell."""
    positions = forward_kinematics(rotations.float(), body.rest_joints(torch.zeros(NUM_SHAPES)), trans.float())[
        0
    ].numpy()
    share = np.array(list(_MASSES.values())) / sum(_MASSES.values())
    height = (positions[:, [joint(name) for name in _MASSES], 1] * share).sum(1)
    if len(height) < 3 * _WINDOW:
        return 0.0
    times = (np.arange(_WINDOW) - _WINDOW // 2) / fps
    fit = np.linalg.pinv(np.stack([np.ones(_WINDOW), times, times**2], 1))[2]
    falls = -2 * np.convolve(height, fit[::-1], "valid") / _GRAVITY_MPS2
    peaks = []
    for _ in range(3):
        frame = int(np.argmax(falls))
        peaks.append(float(falls[frame]))
        falls[max(frame - _WINDOW, 0) : frame + _WINDOW] = -np.inf
    return max(peaks[-1], 0.0)
