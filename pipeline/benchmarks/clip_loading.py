"""humo bench loader --clips: how much of a training that looks at clips is waiting for data.

Three passes over a dataset: without clips; with clips that no tower has seen, which workers decode and the tower looks at; and with
the tokens on the disk. The step is that of a transformer of the given size, forward and backward, over the clip's tokens and 128
positions of motion, on the device that a training would use.
"""

import os
import platform
import tempfile
import time
from collections.abc import Iterator
from typing import Any

from schemas.devices import choose_device
from schemas.errors import HumoError

_POSITIONS = 128
"""Of motion, behind the clip's tokens."""
_HEAD_WIDTH = 64


def bench(
    dataset: str, *, vision: Any, workers: int = 1, batch_size: int = 8, steps: int = 0, width: int = 512, layers: int = 8,
    device: str = "auto",
) -> dict[str, Any]:  # fmt: skip
    """`vision` is a model.vision.config.VisionConfig, whose cache is not used: this one begins empty. `steps` is the most that a
    pass takes, 0 for all."""
    from model.vision.frame_tokens import FrameTokens

    chosen = choose_device(device)
    with tempfile.TemporaryDirectory() as cache:
        seeing = FrameTokens.open(vision.model_copy(update={"cache": cache}), chosen)
        training = _Training(seeing, width, layers)
        report: dict[str, Any] = {
            "dataset": dataset, "tower": seeing.tower.name, "workers": workers, "batch_size": batch_size, "width": width,
            "layers": layers, "device": str(chosen), "machine": f"{platform.machine()}, {os.cpu_count()} cores",
        }  # fmt: skip
        for name, with_clips in (("without_clips", False), ("first_epoch", True), ("second_epoch", True)):
            report[name] = training.run(dataset, workers, batch_size, steps, with_clips=with_clips)
    return report


def bench_text(report: dict[str, Any]) -> str:
    """The results for a terminal."""
    lines = [
        f"{report['tower']}, {report['workers']} workers, batches of {report['batch_size']}, {report['layers']} layers of "
        f"{report['width']} on {report['device']}, {report['machine']}"
    ]
    for name in ("without_clips", "first_epoch", "second_epoch"):
        row = report[name]
        lines.append(
            f"{name.replace('_', ' '):13s} {row['steps']} steps of {row['step_ms']} ms: {row['waiting_share']:.1%} waiting for "
            f"data (the first batch took {row['first_batch_s']} s), {row['tower_share']:.1%} the tower, {row['decoded']} frames "
            f"decoded, {row['seen']} read from the disk"
        )
    return "\n".join(lines)


class _Training:
    """A projector and a transformer with their optimiser, and the tower before them."""

    def __init__(self, seeing: Any, width: int, layers: int) -> None:
        import torch
        from torch import nn

        from model.vision.projector import Projector

        self.seeing, self.device, self.width = seeing, seeing.tower.device, width
        torch.manual_seed(0)
        layer = nn.TransformerEncoderLayer(
            width, max(1, width // _HEAD_WIDTH), 4 * width, dropout=0.0, batch_first=True, norm_first=True
        )
        self.backbone = nn.TransformerEncoder(layer, layers, enable_nested_tensor=False).to(self.device)
        self.projector = Projector(seeing.tower.width, seeing.tower.tokens_per_frame, width).to(self.device)
        parameters = [*self.backbone.parameters(), *self.projector.parameters()]
        self.optimiser = torch.optim.AdamW(parameters, lr=1e-4)

    def run(self, dataset: str, workers: int, batch_size: int, steps: int, *, with_clips: bool) -> dict[str, Any]:
        """One pass. The first batch, for which the workers start, is told apart."""
        from model.data.loader import MotionLoader

        config = MotionLoader.Config(
            dataset=dataset, batch_size=batch_size, workers=workers, epochs=1, subsets=["video"]
        )
        batches: Iterator[list[Any]] = iter(MotionLoader(config, frames=self.seeing.reader() if with_clips else None))
        start_s = time.perf_counter()
        batch, first_batch_s = next(batches), time.perf_counter() - start_s
        waiting_s = tower_s = 0.0
        count = decoded = seen = 0
        start_s = time.perf_counter()
        while True:
            frames = [sample.frames for sample in batch if sample.frames is not None and len(sample.frames.numbers)]
            decoded += sum(len(one.pixels) for one in frames)
            seen += sum(len(one.numbers) - len(one.pixels) for one in frames)
            tower_s += self._step(frames, len(batch))
            count += 1
            if count == steps:
                break
            asked_s = time.perf_counter()
            following = next(batches, None)
            waiting_s += time.perf_counter() - asked_s
            if following is None:
                break
            batch = following
        seconds = time.perf_counter() - start_s
        if with_clips and not decoded + seen:
            raise HumoError(f"{dataset}: its samples have no clips; name a dataset with the subset video")
        return {
            "steps": count, "seconds": round(seconds, 2), "step_ms": round(1000 * (seconds - waiting_s - tower_s) / count, 1),
            "waiting_share": round(waiting_s / seconds, 4), "tower_share": round(tower_s / seconds, 4),
            "first_batch_s": round(first_batch_s, 2), "decoded": decoded, "seen": seen,
        }  # fmt: skip

    def _step(self, frames: list[Any], samples: int) -> float:
        """One step of training; the seconds that the tower and the cache took of it."""
        import torch

        from model.vision.frame_tokens import FrameRequest

        start_s = time.perf_counter()
        clips = self.seeing([FrameRequest(frames=one, numbers=one.numbers) for one in frames])
        tower_s = time.perf_counter() - start_s
        motion = torch.randn(samples, _POSITIONS, self.width, device=self.device)
        longest = max([len(clip) for clip in clips], default=0)
        inputs = torch.zeros(samples, longest + _POSITIONS, self.width, device=self.device)
        inputs[:, longest:] = motion
        for row, clip in enumerate(clips):
            inputs[row, : len(clip)] = self.projector(clip.features)
        mask = torch.nn.Transformer.generate_square_subsequent_mask(inputs.shape[1], device=self.device)
        hidden = self.backbone(inputs, mask=mask, is_causal=True)
        self.optimiser.zero_grad(set_to_none=True)
        (hidden[:, longest:-1] - motion[:, 1:]).square().mean().backward()
        self.optimiser.step()
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        return tower_s
