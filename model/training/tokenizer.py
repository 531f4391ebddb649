"""Training of the motion tokenizer on the shards of a dataset."""

import itertools
import random
import warnings
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from model import checkpoints
from model.data.dataset import MotionDataset, check_body_model, licences
from model.data.samples import MotionSample
from model.features.layouts import layout
from model.features.motions import motion_features, motion_seen
from model.tokenizer.code_counts import CodeCounts
from model.tokenizer.initial import start_from
from model.tokenizer.motion_tokenizer import Batch, MotionTokenizer, load_tokenizer
from model.training.config import TokenizerTraining
from model.training.loop import Processes, Result, fit, open_loader
from model.training.reconstruction_picture import draw_reconstruction
from model.training.statistics import drawn_rows, feature_statistics
from schemas.body_model import BodyModel
from schemas.coverage import PART_NAMES
from schemas.dataset import read_description
from schemas.errors import HumoError, UsageError
from schemas.skeleton import mirror_order
from schemas.storage import Storage

_MAX_CACHED_FRAMES = 1_000_000
"""Frames whose rows are kept in memory, about 600 bytes each."""


def train_tokenizer(config: TokenizerTraining) -> Result:
    """Train and save a tokenizer. Raises HumoError for an unusable dataset, UsageError for an invalid device."""
    processes = Processes.join(config.device)
    torch.manual_seed(config.seed)
    body = BodyModel.load(config.body_model or None)
    check_body_model(config.dataset, body)
    loader = open_loader(config, processes)
    if config.window < (needed := config.architecture.encoder_frames):
        warnings.warn(
            f"window is {config.window} frames, a step depends on {needed}: what training never shows follows in longer motions; "
            f"set window: {needed}, or smaller dilations",
            stacklevel=2,
        )
    tokenizer = MotionTokenizer(config.architecture)
    if config.decoder_of:
        _take_codes(tokenizer, config)
    names = tuple(licences(config.dataset, config.subsets))
    task = _TokenizerTask(tokenizer, config, body, loader.dataset, names)
    if not config.decoder_of and not (config.resume and checkpoints.newest_name(config.output)):
        features = config.architecture.features
        rows = drawn_rows(config, config.statistics_samples, body, features=features, mirror=config.mirror)
        mean, std = processes.broadcast(feature_statistics(layout(features), rows) if processes.is_main else None)
        tokenizer.mean.copy_(mean)
        tokenizer.std.copy_(std)
        start_from(tokenizer, rows, task.rest_joints, config.seed)
    return fit(task, config, loader, processes)


def _take_codes(tokenizer: MotionTokenizer, config: TokenizerTraining) -> None:
    """Start from a trained tokenizer and keep its codes. Raises UsageError for one of another architecture."""
    begun, _ = load_tokenizer(config.decoder_of)
    if begun.config != config.architecture:
        raise UsageError(f"{config.decoder_of}: a tokenizer of another architecture; set the same one")
    tokenizer.load_state_dict(begun.state_dict())
    tokenizer.fix_codes()


@dataclass(eq=False)
class _TokenizerTask:
    module: MotionTokenizer
    config: TokenizerTraining
    body: BodyModel
    dataset: MotionDataset
    licences: tuple[str, ...]
    """Licences of the motions it is trained on."""
    kind: str = "tokenizer"
    has_unused_parameters: bool = False
    _rows: dict[str, tuple[Tensor, Tensor]] = field(default_factory=dict)
    _cached_frames: int = 0
    _shown: tuple[str, np.ndarray, np.ndarray] | None = None
    """Key, joints and decoded joints of the first motion of the last validation."""

    def __post_init__(self) -> None:
        self.rest_joints = self.body.rest_joints(torch.zeros(10))

    def losses(self, module: nn.Module, samples: list[MotionSample], step: int) -> dict[str, Tensor]:
        rng = random.Random(int(torch.randint(2**31, ())))
        window, config = self.config.window, self.config
        long_enough = [motion for motion in map(self._motion, samples) if len(motion[0]) >= window]
        if not long_enough:
            numbers = rng.choices(self._long_samples().tolist(), k=len(samples))
            long_enough = [self._motion(self.dataset.sample(number)) for number in numbers]
        starts = [
            (motion, rng.randrange(len(motion[0]) - window + 1)) for motion in long_enough * config.windows_per_sample
        ]
        rows = torch.stack([motion[0][start : start + window] for motion, start in starts])
        seen = torch.stack([motion[1][start : start + window] for motion, start in starts])
        if config.mirror:
            mirrored = torch.tensor([rng.random() < 0.5 for _ in starts])
            rows[mirrored] = self.module.features.mirror(rows[mirrored])
            seen[mirrored] = seen[mirrored][..., list(mirror_order(PART_NAMES))]
        # Seeded without the rank, unlike `rng`: all processes must make the same choice.
        drop_levels = random.Random(f"{config.seed}/{step}").random() < config.drop_levels
        device = self.module.device
        batch = Batch(
            features=rows.to(device),
            seen=None if seen.all() else seen.to(device),
            rest_joints=self.rest_joints.to(device) if config.weights.need_joints else None,
        )
        return module(batch, config.weights, drop_levels=drop_levels, quantize=step >= config.continuous_steps)

    def _motion(self, sample: MotionSample) -> tuple[Float[Tensor, "N F"], Float[Tensor, "N 5"]]:
        """Rows and mask of a whole motion: cut out of it, a window has the heading that it has when the motion is encoded."""
        if sample.key not in self._rows:
            if len(sample.motion.poses) < 2:
                return torch.empty(0, len(self.module.mean)), torch.empty(0, len(PART_NAMES))
            features = self.config.architecture.features
            rows = motion_features([sample.motion], self.body, features)[0]
            self._rows[sample.key] = rows, motion_seen([sample.motion], features)[0]
            self._cached_frames += len(rows)
            while self._cached_frames > _MAX_CACHED_FRAMES and len(self._rows) > 1:
                self._cached_frames -= len(self._rows.pop(next(iter(self._rows)))[0])
        return self._rows[sample.key]

    def _long_samples(self) -> Int[np.ndarray, "_"]:
        """Numbers of the samples that are long enough for a window. Raises HumoError if there is none."""
        frames = self.dataset.reader.index.frames
        numbers = np.flatnonzero((frames > self.config.window) & ~self.dataset.removed)
        if not len(numbers):
            raise HumoError(
                f"{self.config.dataset}: no motion of its train split has more than {self.config.window} frames, the longest "
                f"{frames.max()}; lower window"
            )
        return numbers

    def validate(self) -> dict[str, float]:
        """Mean distance of the joints in the heading frame (mm) and use of the codebooks, over motions of the val split."""
        splits = {shard.split for shard in read_description(Storage(self.config.dataset)).shards if shard.samples}
        if "val" not in splits:
            return {}
        samples = MotionDataset(self.config.dataset, split="val", subsets=self.config.subsets)
        counts, errors = CodeCounts(self.module.config), []
        self._shown = None
        features, device = self.module.features, self.module.device
        for sample in itertools.islice(samples, self.config.validation_samples):
            if len(sample.motion.poses) <= self.module.config.downsample:
                continue
            rows = motion_features([sample.motion], self.body, self.module.config.features)
            codes = self.module.encode(rows.to(device))
            decoded = self.module.decode(codes).cpu()
            joints = [features.local_joints(one[:, : decoded.shape[1]], self.rest_joints) for one in (decoded, rows)]
            errors.append((joints[0] - joints[1]).norm(dim=-1).flatten())
            if self._shown is None:
                self._shown = sample.key, joints[1][0].numpy(), joints[0][0].numpy()
            counts.add(codes)
        if not errors:
            return {}
        return {
            "mpjpe_mm": 1000 * torch.cat(errors).mean().item(),
            "codebook_usage": counts.usage.mean().item(),
            "perplexity": counts.perplexity.mean().item(),
            "dead_codes": float(counts.dead),
        }

    def draw(self, path: Path, step: int) -> bool:
        """A picture of the first motion of the last validation and its reconstruction; False if there was none."""
        if self._shown is None:
            return False
        key, joints, decoded = self._shown
        draw_reconstruction(joints, decoded, path, f"{key} after {step} steps")
        return True

    def description(self) -> dict[str, Any]:
        dataset = read_description(Storage(self.config.dataset))
        return {
            "architecture": self.module.config.model_dump(),
            "body_model": self.body.id,
            "dataset_version": dataset.version,
            "licences": list(self.licences),
        }

    def extra_files(self) -> tuple[dict[str, str], list[tuple[str, Path]]]:
        return {}, []
