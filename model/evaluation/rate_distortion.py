"""The curve of a tokenizer: its error where only the first levels of codes are used."""

import itertools
from dataclasses import dataclass
from pathlib import Path

import torch

from model.data.dataset import MotionDataset
from model.evaluation.reconstruction import joint_distances
from model.evaluation.tokenizer import load_for
from model.features.motions import motion_features
from schemas.errors import HumoError
from schemas.records import FPS


@dataclass(frozen=True, kw_only=True)
class RatePoint:
    """A tokenizer at one rate."""

    levels: int
    bits_per_s: float
    mpjpe_mm: float
    """As in `TokenizerReport`."""


@torch.inference_mode()
def rate_distortion(
    checkpoint: str | Path, dataset: str, *, split: str = "val", limit: int | None = None, body_model: str = ""
) -> list[RatePoint]:
    """Error of up to `limit` motions of a split with one level of codes, with two, and so on.

    Raises HumoError for an unusable checkpoint or dataset.
    """
    tokenizer, body = load_for(dataset, checkpoint, body_model)
    config, rest = tokenizer.config, body.rest_joints(torch.zeros(10))
    samples = itertools.islice(MotionDataset(dataset, split=split), limit)
    rows = [
        motion_features([sample.motion], body, config.features)
        for sample in samples
        if len(sample.motion.poses) > config.downsample
    ]
    if not rows:
        raise HumoError(
            f"{dataset}: no motion of more than {config.downsample} frames in {split}; select another split"
        )
    points = []
    for levels in range(1, config.levels + 1):
        errors = []
        for one in rows:
            latents = tokenizer.latents(tokenizer.with_preroll(tokenizer.normalise(one)))
            decoded = tokenizer.reconstruct_motion(tokenizer.quantizer(latents, levels=levels)[0])
            local = [tokenizer.features.local_joints(x[:, : decoded.shape[1]], rest) for x in (decoded, one)]
            errors.append(joint_distances(local[0][0], local[1][0]).flatten())
        points.append(
            RatePoint(
                levels=levels,
                bits_per_s=config.bits_per_step * levels / config.levels * FPS / config.downsample,
                mpjpe_mm=1000 * torch.cat(errors).mean().item(),
            )
        )
    return points
