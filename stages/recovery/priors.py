"""Pose prior: a mean pose, the spread of each joint about it, and joint limits.

Poses are written as rotation vectors *after* a hanging arm: rotation = HANGING @ exp(vector), so that zero is a person who
stands with the arms down. Axes are those of the T-pose: for a left elbow -y bends it, for knees +x, for hips -x lifts the
thigh forwards, for a left shoulder x twists, -y takes the arm forwards and +z raises it sideways. Right sides mirror y and z.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from schemas.rotations import axis_angle_to_matrix
from schemas.skeleton import NUM_JOINTS, SMPL_JOINTS, joint
from stages.geometry.joint_limits import JOINT_LIMITS_RAD

HANG_RAD = 1.25
"""How far arms hang below the horizontal of the T-pose."""
_MEAN_AND_SPREAD = {
    "hip": ((-0.15, 0, 0.05), (0.6, 0.25, 0.25)),
    "knee": ((0.3, 0, 0), (0.7, 0.1, 0.06)),
    "ankle": ((-0.05, 0, 0), (0.25, 0.12, 0.1)),
    "foot": ((-0.05, 0, 0), (0.15, 0.05, 0.05)),
    "spine1": ((0.05, 0, 0), (0.2, 0.18, 0.15)),
    "spine2": ((0.05, 0, 0), (0.2, 0.18, 0.15)),
    "spine3": ((0.05, 0, 0), (0.2, 0.18, 0.15)),
    "neck": ((0.05, 0, 0), (0.25, 0.3, 0.2)),
    "head": ((0.0, 0, 0), (0.2, 0.25, 0.15)),
    "collar": ((0, 0, 0), (0.05, 0.15, 0.15)),
    "shoulder": ((0.0, -0.25, 0.05), (0.6, 0.6, 0.6)),
    "elbow": ((0.0, -0.5, 0), (0.15, 0.8, 0.08)),
    "wrist": ((0, 0, 0), (0.1, 0.1, 0.1)),
    "hand": ((0, 0, 0), (0.1, 0.1, 0.1)),
}
"""Mean and standard deviation of a rotation vector for a joint of the left or the middle, radians."""
_ARM_LIMITS = {
    "shoulder": ((-1.6, -2.6, -0.6), (1.6, 0.7, 2.9)),
    "elbow": ((-0.6, -2.6, -0.2), (0.6, -0.02, 0.2)),
    "wrist": ((-0.4, -0.4, -0.4), (0.4, 0.4, 0.4)),
    "hand": ((-0.4, -0.4, -0.4), (0.4, 0.4, 0.4)),
}
"""Limits of arms. They are not those of `JOINT_LIMITS_RAD`: here zero is a hanging arm and a rotation vector mixes swing and
twist, and 17 keypoints do not show how a hand is turned, so that it is held near rest."""


def _table(which: str) -> Float[Tensor, "23 3"]:
    rows = []
    for name in SMPL_JOINTS[1:]:
        side, _, bare = name.partition("_")
        bare = bare or name
        mean, spread = _MEAN_AND_SPREAD[bare]
        low, high = _ARM_LIMITS.get(bare, JOINT_LIMITS_RAD[bare])
        if side == "right":
            # A mirrored interval exchanges its ends.
            low, high = _mirrored(low, high), _mirrored(high, low)
            mean = _mirrored(mean, mean)
        rows.append({"mean": mean, "spread": spread, "low": low, "high": high}[which])
    return torch.tensor(rows, dtype=torch.float32)


def _mirrored(same: Sequence[float], opposite: Sequence[float]) -> tuple[float, float, float]:
    """About x as `same`, about y and z the negative of `opposite`."""
    return same[0], -opposite[1], -opposite[2]


MEAN, SPREAD, LOW, HIGH = _table("mean"), _table("spread"), _table("low"), _table("high")


def _hanging() -> Float[Tensor, "23 3 3"]:
    vectors = torch.zeros(NUM_JOINTS, 3)
    vectors[joint("left_shoulder"), 2] = -HANG_RAD
    vectors[joint("right_shoulder"), 2] = HANG_RAD
    return axis_angle_to_matrix(vectors)[1:]


HANGING = _hanging()


def pose_cost(vectors: Float[Tensor, "*B 23 3"]) -> Float[Tensor, "*B"]:
    """Squared distance from the mean pose in spreads, plus what lies beyond the limits in units of 0.1 rad.

    Beyond two spreads the first part grows linearly: an unusual pose may be, an impossible one may not.
    """
    apart = (vectors - MEAN) / SPREAD
    usual = torch.where(apart.abs() < 2, apart**2, 4 * apart.abs() - 4)
    beyond = (torch.relu(LOW - vectors) + torch.relu(vectors - HIGH)) / 0.1
    return usual.sum((-1, -2)) + (beyond**2).sum((-1, -2))
