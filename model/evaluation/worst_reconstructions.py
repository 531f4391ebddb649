"""The motions that a tokenizer reconstructs worst, with what it makes of them."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from model.data.dataset import MotionDataset
from model.data.samples import MotionSample
from model.evaluation.reconstruction import joint_distances
from model.evaluation.tokenizer import TokenizerReport, action_of, load_for
from model.features.motions import motion_features
from model.tokenizer.motion_tokenizer import MotionTokenizer
from schemas.kinematics import forward_kinematics
from schemas.records import FPS


@dataclass(frozen=True, kw_only=True)
class Reconstruction:
    """A motion and what a tokenizer makes of it, in the world, from the same start, on the mean body."""

    key: str
    action: str
    text: str
    """The sample's first caption; "" for none."""
    joints: Float[np.ndarray, "N 24 3"]
    decoded_joints: Float[np.ndarray, "N 24 3"]
    errors_mm: Float[np.ndarray, "N"]
    """Mean distance of joints 0..21 in the heading frame, as in `mpjpe_mm`."""
    mpjpe_mm: float
    """Of the whole motion."""


def worst_reconstructions(
    report: TokenizerReport,
    checkpoint: str | Path,
    dataset: str,
    *,
    split: str = "val",
    body_model: str = "",
    seconds: float = 12.0,
) -> list[Reconstruction]:
    """The first `seconds` of the motions that a report names as the worst, in its order."""
    tokenizer, body = load_for(dataset, checkpoint, body_model)
    rest = body.rest_joints(torch.zeros(10))
    found: dict[str, Reconstruction] = {}
    for sample in MotionDataset(dataset, split=split):
        if sample.key in report.worst:
            rows = motion_features([sample.motion], body, tokenizer.config.features)
            found[sample.key] = _reconstruct(
                sample, rows, tokenizer, rest, report.worst[sample.key], round(seconds * FPS)
            )
            if len(found) == len(report.worst):
                break
    return [found[key] for key in report.worst]


@torch.inference_mode()
def _reconstruct(
    sample: MotionSample,
    rows: Float[Tensor, "1 N F"],
    tokenizer: MotionTokenizer,
    rest: Float[Tensor, "24 3"],
    mpjpe_mm: float,
    frames: int,
) -> Reconstruction:
    decoded = tokenizer.decode(tokenizer.encode(rows))[0, :frames]
    both = rows[0, : len(decoded)], decoded
    local = [tokenizer.features.local_joints(one, rest) for one in both]
    world = []
    for one in both:
        rotations, trans = tokenizer.features.decode(one, rest)
        world.append(forward_kinematics(rotations, rest, trans)[0].numpy())
    return Reconstruction(
        key=sample.key,
        action=action_of(sample.meta),
        text=sample.body[0] if sample.body else "",
        joints=world[0],
        decoded_joints=world[1],
        errors_mm=1000 * joint_distances(local[1], local[0]).mean(-1).numpy(),
        mpjpe_mm=mpjpe_mm,
    )
