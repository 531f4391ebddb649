"""Feature rows of the motions of samples."""

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from model.features.layouts import layout
from schemas.body_model import BodyModel
from schemas.rotations import axis_angle_to_matrix
from schemas.sample import MotionArrays
from schemas.skeleton import joint

_LEGS = tuple((joint(f"{side}_{upper}"), joint(f"{side}_{lower}"))
              for side in ("left", "right") for upper, lower in (("hip", "knee"), ("knee", "ankle")))  # fmt: skip


def motion_features(
    motions: Sequence[MotionArrays], body: BodyModel, features: str = "humo263"
) -> Float[Tensor, "B N F"]:
    """Rows of motions of equal length in a layout, on the mean body, so that learning does not depend on body shape.

    Computed in single precision, also under autocast: the bfloat16 of matrix products would displace joints by millimetres.
    """

    def stacked(name: str) -> Tensor:
        return torch.from_numpy(np.stack([getattr(motion, name) for motion in motions]))

    with torch.autocast("cpu", enabled=False):
        betas = stacked("betas")
        rest, source_rest = body.rest_joints(torch.zeros(betas.shape[1])), body.rest_joints(betas)
        trans = retarget_translation(stacked("trans"), source_rest, rest)
        rotations = axis_angle_to_matrix(stacked("poses"))
        return layout(features).encode(rotations, trans, rest, stacked("contacts").float())


def motion_seen(motions: Sequence[MotionArrays], features: str = "humo263") -> Float[Tensor, "B N 5"]:
    """For the rows of `motion_features` and each part: 1 where it was seen in both frames of the row, else 0."""
    seen = torch.from_numpy(np.stack([motion.seen for motion in motions])).float()
    return layout(features).rows_seen(seen)


def feature_rows(motion: MotionArrays) -> Float[np.ndarray, "N 263"]:
    """HuMo263 rows of one motion, on the shipped body; dataset statistics are computed from them."""
    return motion_features([motion], BodyModel.load())[0].numpy()


def retarget_translation(
    trans: Float[Tensor, "*B T 3"], source_rest: Float[Tensor, "*B 24 3"], rest: Float[Tensor, "24 3"]
) -> Float[Tensor, "*B T 3"]:
    """Translations for the same rotations on another body: root paths scale with leg length, so feet stay on the ground
    and steps keep their rhythm (the uniform skeleton of HumanML3D)."""
    scale = (_leg_length(rest) / _leg_length(source_rest))[..., None, None]
    return (trans + source_rest[..., :1, :]) * scale - rest[0]


def _leg_length(rest_joints: Float[Tensor, "*B 24 3"]) -> Float[Tensor, "*B"]:
    bones = [rest_joints[..., a, :] - rest_joints[..., b, :] for a, b in _LEGS]
    return torch.stack(bones).norm(dim=-1).sum(0)
