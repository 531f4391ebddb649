"""Reconstruction by a tokenizer, on a split of a dataset."""

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from model.data.dataset import MotionDataset, check_body_model
from model.features import humo263
from model.features.motions import motion_features
from model.tokenizer.motion_tokenizer import load_tokenizer
from schemas.body_model import BodyModel
from schemas.errors import HumoError
from schemas.kinematics import forward_kinematics

_DRIFT_FRAMES = 60
_SIDES = ("left", "right")


@dataclass(frozen=True, kw_only=True)
class TokenizerReport:
    """Reconstruction error of whole motions, averaged over frames; lengths in millimetres."""

    motions: int
    frames: int
    mpjpe_mm: float
    """Joints 0..21 from the position columns, each frame in its own heading frame (as reported for HumanML3D)."""
    fk_mpjpe_mm: float
    """The same joints from forward kinematics of the decoded rotations, in the heading frame."""
    world_mpjpe_mm: float
    """The same with the decoded root path, over windows of two seconds that start aligned."""
    root_drift_mm: float
    """Horizontal pelvis error after two seconds."""
    codebook_usage: list[float] = field(default_factory=list)
    """Fraction of each level's codes that were used."""
    codebook_perplexity: list[float] = field(default_factory=list)
    """Effective number of codes used per level: exponential of the entropy of the code distribution."""


def evaluate_tokenizer(
    checkpoint: str | Path,
    dataset: str,
    *,
    split: str = "val",
    subsets: Sequence[str] = (),
    limit: int | None = None,
    body_model: str = "",
    device: str = "cpu",
) -> TokenizerReport:
    """Reconstruct up to `limit` motions of a split. Raises HumoError for an unusable checkpoint or dataset."""
    tokenizer, description = load_tokenizer(checkpoint)
    body = BodyModel.load(body_model or None)
    check_body_model(dataset, body)
    if description["body_model"] != body.id:
        raise HumoError(f"{checkpoint}: trained for the body {description['body_model']}, this dataset uses {body.id}")
    tokenizer.to(device)
    rest = body.rest_joints(torch.zeros(10))
    config = tokenizer.config
    counts = torch.zeros(config.levels, config.codebook_size)
    sums = {"mpjpe": 0.0, "fk": 0.0, "world": 0.0, "drift": 0.0}
    motions = frames = windows = world_frames = 0
    samples = MotionDataset(dataset, split=split, subsets=subsets)
    for sample in itertools.islice(samples, limit):
        if len(sample.motion.poses) <= config.downsample:
            continue
        rows = motion_features([sample.motion], body)
        with torch.inference_mode():
            codes = tokenizer.encode(rows.to(device))
            predicted = tokenizer.decode(codes)[0].cpu()
        for level in range(config.levels):
            counts[level] += torch.bincount(codes[..., level].flatten().cpu(), minlength=config.codebook_size)
        target = rows[0, : len(predicted)]
        motions, frames = motions + 1, frames + len(predicted)
        sums["mpjpe"] += _mpjpe(humo263.positions(predicted), humo263.positions(target)).sum().item()
        sums["fk"] += _mpjpe(_joints_in_heading(predicted, rest), humo263.positions(target)).sum().item()
        for start in range(0, len(predicted) - _DRIFT_FRAMES + 1, _DRIFT_FRAMES):
            window = slice(start, start + _DRIFT_FRAMES)
            predicted_world = _joints_in_world(predicted[window], rest)
            target_world = _joints_in_world(target[window], rest)
            sums["world"] += _mpjpe(predicted_world, target_world).sum().item()
            sums["drift"] += (predicted_world[-1, 0] - target_world[-1, 0])[[0, 2]].norm().item()
            windows, world_frames = windows + 1, world_frames + _DRIFT_FRAMES
    if not motions:
        raise HumoError(
            f"{dataset}: no motion of more than {config.downsample} frames in {split}; select another split"
        )
    frequencies = counts / counts.sum(1, keepdim=True)
    entropy = -(frequencies * frequencies.clamp(min=1e-12).log()).sum(1)
    return TokenizerReport(
        motions=motions,
        frames=frames,
        mpjpe_mm=1000 * sums["mpjpe"] / frames,
        fk_mpjpe_mm=1000 * sums["fk"] / frames,
        world_mpjpe_mm=1000 * sums["world"] / world_frames if windows else math.nan,
        root_drift_mm=1000 * sums["drift"] / windows if windows else math.nan,
        codebook_usage=(counts > 0).float().mean(1).tolist(),
        codebook_perplexity=entropy.exp().tolist(),
    )


def _joints_in_heading(rows: Float[Tensor, "N 263"], rest: Float[Tensor, "24 3"]) -> Float[Tensor, "N 22 3"]:
    """Forward kinematics of single frames, each in its own heading frame."""
    static = rows.clone()
    static[:, humo263.YAW_STEP] = 0
    static[:, humo263.ROOT_STEP] = 0
    return _joints_in_world(static, rest)


def _joints_in_world(rows: Float[Tensor, "N 263"], rest: Float[Tensor, "24 3"]) -> Float[Tensor, "N 22 3"]:
    rotations, trans = humo263.decode(rows, rest)
    return forward_kinematics(rotations, rest, trans)[0][:, :22]


def _mpjpe(predicted: Float[Tensor, "N J 3"], target: Float[Tensor, "N J 3"]) -> Float[Tensor, "N"]:
    return (predicted - target).norm(dim=-1).mean(-1)
