"""Training of the motion tokenizer on the shards of a dataset."""

import itertools
import random
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from model.data.dataset import check_body_model
from model.data.samples import MotionSample, slice_frames
from model.features import humo263
from model.features.motions import motion_features, motion_seen
from model.tokenizer.motion_tokenizer import MotionTokenizer
from model.training.config import TokenizerTraining
from model.training.loop import Processes, Result, fit, open_dataset, open_loader
from schemas.body_model import BodyModel
from schemas.coverage import PART_NAMES
from schemas.errors import HumoError
from schemas.skeleton import mirror_order

_MIN_STD = {"yaw_step": 1e-3, "root_step": 1e-3, "height": 0.02, "positions": 0.02, "rotations": 0.05,
           "velocities": 1e-3, "contacts": 0.1}  # fmt: skip
"""Minimum deviation per slice, in its own unit: columns that are constant in a small dataset must not be scaled to noise."""


def train_tokenizer(config: TokenizerTraining) -> Result:
    """Train and save a tokenizer. Raises HumoError for an unusable dataset, UsageError for an invalid device."""
    processes = Processes.join(config.device)
    torch.manual_seed(config.seed)
    body = BodyModel.load(config.body_model or None)
    check_body_model(config.dataset, body)
    loader = open_loader(config, processes)
    tokenizer = MotionTokenizer(config.architecture)
    mean, std = processes.broadcast(feature_statistics(config, body) if processes.is_main else None)
    tokenizer.mean.copy_(mean)
    tokenizer.std.copy_(std)
    return fit(_TokenizerTask(tokenizer, config, body), config, loader, processes)


def feature_statistics(config: TokenizerTraining, body: BodyModel) -> tuple[Float[Tensor, "263"], Float[Tensor, "263"]]:
    """Mean per column and deviation per slice: the columns of a slice share unit and importance, and a column that hardly
    varies must not get more weight. One streaming pass, with mirrored motions included if training mirrors."""
    dataset = open_dataset(config)
    count, total, squares = 0, torch.zeros(263, dtype=torch.float64), torch.zeros(263, dtype=torch.float64)
    for sample in itertools.islice(dataset, config.statistics_samples):
        if len(sample.motion.poses) < 2:
            continue
        rows = motion_features([sample.motion], body)[0].double()
        if config.mirror:
            rows = torch.cat([rows, humo263.mirror(rows)])
        count += len(rows)
        total += rows.sum(0)
        squares += rows.square().sum(0)
    if not count:
        raise HumoError(f"{config.dataset}: no motion of at least two frames in its train split; ingest longer clips")
    mean = total / count
    variance = (squares / count - mean.square()).clamp(min=0)
    std = torch.empty_like(mean)
    for name, columns in humo263.SLICES.items():
        std[columns] = variance[columns].mean().sqrt().clamp(min=_MIN_STD[name])
    return mean.float(), std.float()


@dataclass(eq=False)
class _TokenizerTask:
    module: MotionTokenizer
    config: TokenizerTraining
    body: BodyModel
    kind: str = "tokenizer"
    has_unused_parameters: bool = False

    def losses(self, module: nn.Module, samples: list[MotionSample], step: int) -> dict[str, Tensor]:
        rng = random.Random(int(torch.randint(2**31, ())))
        window = self.config.window
        long_enough = [sample.motion for sample in samples if len(sample.motion.poses) > window]
        if not long_enough:
            raise HumoError(
                f"{self.config.dataset}: all motions of a batch are shorter than window ({window} frames); lower window"
            )
        crops = []
        for motion in long_enough * self.config.windows_per_sample:
            start = rng.randrange(len(motion.poses) - window)
            crops.append(slice_frames(motion, start, start + window + 1))
        batch = motion_features(crops, self.body)
        seen = motion_seen(crops)
        if self.config.mirror:
            mirrored = torch.tensor([rng.random() < 0.5 for _ in crops])
            batch[mirrored] = humo263.mirror(batch[mirrored])
            seen[mirrored] = seen[mirrored][..., list(mirror_order(PART_NAMES))]
        # Seeded without the rank, unlike `rng`: all processes must make the same choice.
        drop_levels = random.Random(f"{self.config.seed}/{step}").random() < self.config.drop_levels
        device = self.module.device
        mask = None if seen.all() else seen.to(device)
        return module(batch.to(device), self.config.weights, drop_levels, mask)

    def description(self) -> dict[str, Any]:
        return {"architecture": self.module.config.model_dump(), "body_model": self.body.id}

    def extra_files(self) -> tuple[dict[str, str], list[tuple[str, Path]]]:
        return {}, []
