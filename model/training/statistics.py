"""Normalisation of feature rows, from motions drawn before the first step."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from model.features.layouts import Layout, layout
from model.features.motions import motion_features
from model.training.config import Run
from model.training.loop import drawn_samples
from schemas.body_model import BodyModel
from schemas.errors import HumoError


def drawn_rows(config: Run, count: int, body: BodyModel, *, features: str, mirror: bool) -> list[Float[Tensor, "_ F"]]:
    """Rows in the layout `features` of `count` motions drawn from the whole training split, with `mirror` of their mirror images
    too.

    Raises HumoError if none has two frames.
    """
    rows = []
    for sample in drawn_samples(config, count):
        if len(sample.motion.poses) < 2:
            continue
        rows.append(motion_features([sample.motion], body, features)[0])
        if mirror:
            rows.append(layout(features).mirror(rows[-1]))
    if not rows:
        raise HumoError(f"{config.dataset}: no motion of at least two frames in its train split; ingest longer clips")
    return rows


def feature_statistics(
    features: Layout, rows: Sequence[Float[Tensor, "_ F"]]
) -> tuple[Float[Tensor, "F"], Float[Tensor, "F"]]:
    """Mean per column and deviation per slice: the columns of a slice share unit and importance, and a column that hardly
    varies must not get more weight."""
    count = sum(map(len, rows))
    mean = torch.stack([motion.double().sum(0) for motion in rows]).sum(0) / count
    squares = torch.stack([(motion.double() - mean).square().sum(0) for motion in rows]).sum(0)
    std = torch.empty_like(mean)
    for name, columns in features.SLICES.items():
        std[columns] = (squares[columns] / count).mean().sqrt().clamp(min=features.MIN_STD[name])
    return mean.float(), std.float()
