"""What bodies do before any image is looked at: a mean pose, how far joints stray from it, and where they stop.

Poses are written as rotation vectors *after* a hanging arm: rotation = HANGING @ exp(vector), so that zero is a person who
stands with the arms down. Axes are those of the T-pose: for a left elbow -y bends it, for knees +x, for hips -x lifts the
thigh forwards, for a left shoulder x twists, -y takes the arm forwards and +z raises it sideways. Right sides mirror y and z.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from schemas.rotations import axis_angle_to_matrix
from schemas.skeleton import NUM_JOINTS, SMPL_JOINTS, joint

HANG_RAD = 1.25
"""How far arms hang below the horizontal of the T-pose."""
_MIRROR = torch.tensor([1.0, -1.0, -1.0])


@dataclass(frozen=True)
class _Range:
    """Mean and spread of a rotation vector, and its limits, for a joint of the left or the middle; radians."""

    mean: tuple[float, float, float]
    spread: tuple[float, float, float]
    low: tuple[float, float, float]
    high: tuple[float, float, float]


_STIFF = _Range((0, 0, 0), (0.1, 0.1, 0.1), (-0.4, -0.4, -0.4), (0.4, 0.4, 0.4))
_SPINE = _Range((0.05, 0, 0), (0.2, 0.18, 0.15), (-0.3, -0.5, -0.4), (0.7, 0.5, 0.4))
_RANGES = {
    "hip": _Range((-0.15, 0, 0.05), (0.6, 0.25, 0.25), (-2.3, -0.8, -0.5), (0.6, 0.8, 1.2)),
    "knee": _Range((0.3, 0, 0), (0.7, 0.1, 0.06), (0.0, -0.4, -0.2), (2.6, 0.4, 0.2)),
    "ankle": _Range((-0.05, 0, 0), (0.25, 0.12, 0.1), (-0.7, -0.4, -0.4), (0.9, 0.4, 0.4)),
    "foot": _Range((-0.05, 0, 0), (0.15, 0.05, 0.05), (-0.8, -0.2, -0.2), (0.3, 0.2, 0.2)),
    "spine1": _SPINE,
    "spine2": _SPINE,
    "spine3": _SPINE,
    "neck": _Range((0.05, 0, 0), (0.25, 0.3, 0.2), (-0.7, -0.9, -0.5), (0.8, 0.9, 0.5)),
    "head": _Range((0.0, 0, 0), (0.2, 0.25, 0.15), (-0.5, -0.8, -0.4), (0.6, 0.8, 0.4)),
    "collar": _Range((0, 0, 0), (0.05, 0.15, 0.15), (-0.2, -0.5, -0.3), (0.2, 0.4, 0.6)),
    "shoulder": _Range((0.0, -0.25, 0.05), (0.6, 0.6, 0.6), (-1.6, -2.6, -0.6), (1.6, 0.7, 2.9)),
    "elbow": _Range((0.0, -0.5, 0), (0.15, 0.8, 0.08), (-0.6, -2.6, -0.2), (0.6, -0.02, 0.2)),
    "wrist": _STIFF,
    "hand": _STIFF,
}


def _table(which: str) -> Float[Tensor, "23 3"]:
    rows = []
    for name in SMPL_JOINTS[1:]:
        side, _, bare = name.partition("_")
        here = _RANGES[bare or name]
        row = torch.tensor(getattr(here, which), dtype=torch.float32)
        if side == "right":
            if which in ("low", "high"):
                opposite = torch.tensor(getattr(here, "high" if which == "low" else "low"), dtype=torch.float32)
                row = torch.where(_MIRROR > 0, row, -opposite)
            elif which == "mean":
                row = row * _MIRROR
        rows.append(row)
    return torch.stack(rows)


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
