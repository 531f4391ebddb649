"""Feature rows of the motions of samples."""

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from model.features import humo263
from schemas.body_model import BodyModel
from schemas.rotations import axis_angle_to_matrix
from schemas.sample import MotionArrays


def motion_features(motions: Sequence[MotionArrays], body: BodyModel) -> Float[Tensor, "B N 263"]:
    """HuMo263 rows of motions of equal length, on the mean body, so that learning does not depend on body shape."""

    def stacked(name: str) -> Tensor:
        return torch.from_numpy(np.stack([getattr(motion, name) for motion in motions]))

    betas = stacked("betas")
    rest, source_rest = body.rest_joints(torch.zeros(betas.shape[1])), body.rest_joints(betas)
    trans = humo263.retarget_translation(stacked("trans"), source_rest, rest)
    return humo263.encode(axis_angle_to_matrix(stacked("poses")), trans, rest, stacked("contacts").float())


def motion_seen(motions: Sequence[MotionArrays]) -> Float[Tensor, "B N 5"]:
    """For the rows of `motion_features` and each part: 1 where it was seen in both frames of the row, else 0."""
    seen = torch.from_numpy(np.stack([motion.seen for motion in motions])).float()
    return torch.minimum(seen[:, :-1], seen[:, 1:])


def feature_rows(motion: MotionArrays) -> Float[np.ndarray, "N 263"]:
    """HuMo263 rows of one motion, on the shipped body; dataset statistics are computed from them."""
    return motion_features([motion], BodyModel.load())[0].numpy()
