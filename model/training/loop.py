"""Common code of both trainings: processes, training loop, metrics, curves, resuming.

Training runs in a single process, under torchrun or as a Ray Train worker: if WORLD_SIZE is set, the processes join a
group (NCCL on GPUs, Gloo elsewhere) and gradients are averaged.
"""

import json
import math
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, cast, runtime_checkable

import numpy as np
import torch
import torch.distributed as dist
from pydantic import ValidationError
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from model import checkpoints
from model.data.dataset import MotionDataset
from model.data.frames import FrameReader
from model.data.loader import MotionLoader
from model.data.samples import MotionSample
from model.training.config import Optimisation, Run
from model.training.metrics import MetricsLog
from model.training.sharding import placed_like, shard, whole, whole_state
from schemas.config import Config
from schemas.devices import choose_device
from schemas.errors import HumoError, UsageError
from schemas.secrets import public_settings

_RAW = "raw/"
"""Prefix of parameters in the training state where the model's own file holds their running means."""


class Diverged(HumoError):
    """The loss of a training is not finite."""


@dataclass(frozen=True, kw_only=True)
class Result:
    """Outcome of a training."""

    checkpoint: str
    """Folder of the last checkpoint."""
    steps: int
    seconds: float
    """Duration of this run, without the one it resumed from."""
    metrics: dict[str, float] = field(default_factory=dict)
    """Means over the steps of the last line in the log."""


@dataclass(frozen=True)
class Processes:
    """This process within its distributed group."""

    rank: int
    count: int
    device: torch.device

    @classmethod
    def join(cls, device: str) -> "Processes":
        """Join the process group given by the environment, if any, and choose the device."""
        count, rank = int(os.environ.get("WORLD_SIZE", "1")), int(os.environ.get("RANK", "0"))
        local = int(os.environ.get("LOCAL_RANK", "0"))
        chosen = choose_device(device, index=local)
        if chosen.type == "cuda":
            torch.cuda.set_device(chosen)
        if count > 1 and not dist.is_initialized():
            dist.init_process_group("nccl" if chosen.type == "cuda" else "gloo")
        return cls(rank, count, chosen)

    @property
    def is_main(self) -> bool:
        return self.rank == 0

    def wait(self) -> None:
        if self.count > 1:
            dist.barrier()

    def broadcast(self, value: Any) -> Any:
        """The value of rank 0, on all ranks."""
        if self.count == 1:
            return value
        values = [value]
        dist.broadcast_object_list(values, src=0)
        return values[0]


@runtime_checkable
class Task(Protocol):
    """A model to train and the loss of a batch."""

    kind: str
    has_unused_parameters: bool
    """Whether some batches leave parameters without a gradient."""

    @property
    def module(self) -> nn.Module: ...

    def losses(self, module: nn.Module, samples: list[MotionSample], step: int) -> dict[str, Tensor]:
        """`loss`, to be minimised, and further metrics to log. `module` is `self.module`, possibly wrapped."""
        ...

    def validate(self) -> dict[str, float]:
        """Metrics of the module as it is on the validation split; empty where there is none."""
        ...

    def description(self) -> dict[str, Any]:
        """Content of model.json."""
        ...

    def extra_files(self) -> tuple[dict[str, str], list[tuple[str, Path]]]:
        """Further content of a checkpoint: texts and folders by name."""
        ...


@runtime_checkable
class Drawing(Protocol):
    """A task that draws what its last validation saw."""

    def draw(self, path: Path, step: int) -> bool:
        """Write a picture; False if there is nothing to draw."""
        ...


def open_loader(config: Run, processes: Processes, frames: FrameReader | None = None) -> MotionLoader:
    """Training batches of this process; `frames` reads frames of clips beside the samples."""
    loader_config = MotionLoader.Config(
        dataset=config.dataset,
        subsets=config.subsets,
        batch_size=config.optimisation.batch_size,
        workers=config.workers,
        seed=config.seed,
        shuffle_window=config.shuffle_window,
        bucket_batches=config.bucket_batches,
        cache=config.cache,
        cache_gib=config.cache_gib,
        check_hashes=config.check_hashes,
    )
    return MotionLoader(loader_config, rank=processes.rank, world_size=processes.count, frames=frames)


def drawn_samples(config: Run, count: int, frames: FrameReader | None = None) -> Iterator[MotionSample]:
    """Up to `count` samples of the training split, drawn from all of it by the seed, in stored order."""
    dataset = MotionDataset(
        config.dataset, subsets=config.subsets, cache=config.cache, cache_gib=config.cache_gib, frames=frames
    )
    numbers = np.random.default_rng(config.seed).permutation(len(dataset))[:count]
    return (dataset[int(number)] for number in np.sort(numbers))


def fit(task: Task, config: Run, loader: MotionLoader, processes: Processes, *, sharded: bool = False) -> Result:
    """Train up to `steps`; with `resume`, start from the newest checkpoint in `output`. With `sharded`, several processes split the
    module instead of having a copy each; checkpoints are the same."""
    output, optimisation = config.output, config.optimisation
    sharded = sharded and processes.count > 1
    task.module.to(processes.device).train()
    step, moments = _resume(task, config, loader, output) if config.resume else (0, {})
    if sharded:
        shard(task.module, processes.device)
    averages = WeightAverages(task.module, optimisation.ema) if optimisation.ema else None
    optimiser = make_optimiser(task.module, optimisation)
    _restore(task.module, optimiser, moments)
    log = MetricsLog(output, optimisation.steps, step, events=config.tensorboard) if processes.is_main else None
    processes.wait()  # nobody resumes from what rank 0 writes now
    if not step:  # what the run began with: a later resume continues with that
        _save(task, config, loader, optimiser, averages, processes, 0)
    module: nn.Module = task.module
    if processes.count > 1 and not sharded:
        # Codebooks synchronise their own updates; broadcasting the buffers of rank 0 at every step would undo that.
        module = DistributedDataParallel(
            task.module, forward_sync_buffers=False, find_unused_parameters=task.has_unused_parameters
        )
    start_s = time.monotonic()
    batches = iter(loader)
    while step < optimisation.steps:
        for group in optimiser.param_groups:
            group["lr"] = optimisation.learning_rate * schedule(step, optimisation)
        with log.waiting() if log else nullcontext():
            drawn = [next(batches) for _ in range(optimisation.accumulate)]
        # Noise depends only on step and rank, so that a resumed run draws the same as an uninterrupted one.
        torch.manual_seed((config.seed * 1_000_003 + step) * 4099 + processes.rank)
        optimiser.zero_grad(set_to_none=True)
        for number, samples in enumerate(drawn, 1):
            alone = number < len(drawn) and isinstance(module, DistributedDataParallel)
            with module.no_sync() if alone else nullcontext():  # type: ignore[operator]
                with torch.autocast(processes.device.type, torch.bfloat16, enabled=optimisation.bf16):
                    losses = task.losses(module, samples, step)
                (losses["loss"] / optimisation.accumulate).backward()
        gradient_norm = whole(nn.utils.clip_grad_norm_(task.module.parameters(), optimisation.clip_norm))
        optimiser.step()
        step += 1
        if averages:
            averages.update(task.module)
        losses = mean_over_ranks(losses)
        logged = step % config.log_every == 0 or step == optimisation.steps
        due = logged and config.validate_every and (step % config.validate_every == 0 or step == optimisation.steps)
        validated = _validate(task, averages) if due and (log or sharded) else None
        if log:
            log.add(losses | {"gradient_norm": gradient_norm})
            if logged:
                log.write(step, optimiser.param_groups[0]["lr"], validated)
                if due and isinstance(task, Drawing):
                    log.draw_with("reconstruction.png", step, task.draw)
                if not math.isfinite(log.last["loss"]):
                    raise Diverged(
                        f"{config.output}: the loss is {log.last['loss']} at step {step}; lower learning_rate"
                    )
        if step % config.save_every == 0 or step == optimisation.steps:
            if log:
                log.publish()  # first: a resumed run deletes lines beyond its checkpoint, and cannot restore missing ones
            _save(task, config, loader, optimiser, averages, processes, step)
            processes.wait()
    if log:
        log.finish(task.kind)
    return Result(
        checkpoint=f"{output.rstrip('/')}/{checkpoints.name_of(step)}",
        steps=step,
        seconds=time.monotonic() - start_s,
        metrics=dict(log.last) if log else {},
    )


def mean_over_ranks(losses: dict[str, Tensor]) -> dict[str, Tensor]:
    """Means of scalars over the processes of a group, for the log; all processes must call it."""
    if not dist.is_initialized() or dist.get_world_size() == 1:
        return losses
    means = torch.stack([value.detach().float() for value in losses.values()])
    dist.all_reduce(means)
    return dict(zip(losses, means / dist.get_world_size(), strict=True))


class WeightAverages:
    """Running means of a module's parameters, which reconstruct better than the parameters of any one step."""

    def __init__(self, module: nn.Module, decay: float) -> None:
        self.decay = decay
        self.values = {
            name: parameter.detach().clone() for name, parameter in module.named_parameters() if parameter.requires_grad
        }

    @torch.no_grad()
    def update(self, module: nn.Module) -> None:
        for name, parameter in module.named_parameters():
            if name in self.values:
                self.values[name].lerp_(parameter.detach(), 1 - self.decay)

    @contextmanager
    def in_place(self, module: nn.Module) -> Iterator[None]:
        """The module with the means for its parameters, within the block."""
        kept = {
            name: parameter.detach().clone() for name, parameter in module.named_parameters() if name in self.values
        }
        self._copy(module, self.values)
        try:
            yield
        finally:
            self._copy(module, kept)

    @staticmethod
    @torch.no_grad()
    def _copy(module: nn.Module, values: dict[str, Tensor]) -> None:
        for name, parameter in module.named_parameters():
            if name in values:
                parameter.copy_(values[name])


def _validate(task: Task, averages: WeightAverages | None) -> dict[str, float]:
    task.module.eval()
    with averages.in_place(task.module) if averages else nullcontext(), torch.no_grad():
        found = task.validate()
    task.module.train()
    return {f"validation_{name}": value for name, value in found.items()}


def make_optimiser(module: nn.Module, optimisation: Optimisation) -> torch.optim.AdamW:
    """AdamW with weight decay on matrices only."""
    matrices = [p for p in module.parameters() if p.requires_grad and p.ndim >= 2]
    vectors = [p for p in module.parameters() if p.requires_grad and p.ndim < 2]
    groups = [{"params": matrices, "weight_decay": optimisation.weight_decay}, {"params": vectors, "weight_decay": 0.0}]
    return torch.optim.AdamW(
        [group for group in groups if group["params"]], lr=optimisation.learning_rate, betas=(0.9, 0.99)
    )


def schedule(step: int, optimisation: Optimisation) -> float:
    """Learning rate factor: linear warm-up, then cosine decay to a tenth."""
    warmup_steps = optimisation.warmup_steps
    if step < warmup_steps:
        return (step + 1) / warmup_steps
    progress = (step - warmup_steps) / max(1, optimisation.steps - warmup_steps)
    return 0.1 + 0.45 * (1 + math.cos(math.pi * min(progress, 1.0)))


def _save(
    task: Task,
    config: Run,
    loader: MotionLoader,
    optimiser: torch.optim.Optimizer,
    averages: WeightAverages | None,
    processes: Processes,
    step: int,
) -> None:
    """Publish a checkpoint. All processes must call it: of a module that they split, each has a part."""
    names: dict[Tensor, str] = {parameter: name for name, parameter in task.module.named_parameters()}
    moments = {
        f"{names[parameter]}/{key}": whole(value)
        for parameter, state in optimiser.state.items()
        for key, value in state.items()
        if isinstance(value, Tensor)
    }
    state = whole_state(task.module.state_dict())
    if averages:  # those who load the model get the means; resuming needs both
        moments |= {f"{_RAW}{name}": state[name].clone() for name in averages.values}
        state |= whole_state(averages.values)
    if not processes.is_main:
        return
    files, folders = task.extra_files()
    checkpoints.publish(
        config.output,
        step,
        {"kind": task.kind, **task.description(), "training": public_settings(config.model_dump())[0]},
        state,
        training={"step": step, "loader": loader.state_dict()},
        training_state=moments,
        files=files,
        folders=folders,
        keep=config.keep,
    )


def _resume(task: Task, config: Run, loader: MotionLoader, output: str) -> tuple[int, dict[str, Tensor]]:
    """Load the newest checkpoint's weights; its step, and what `_restore` takes."""
    folder = checkpoints.newest(output)
    if folder is None:
        return 0, {}
    saved = json.loads((folder / checkpoints.MODEL).read_text())
    saved["architecture"] = _with_defaults(type(cast(Any, config).architecture), saved.get("architecture", {}))
    expected = json.loads(json.dumps({"kind": task.kind, **task.description()}))
    if any(saved.get(key) != expected[key] for key in ("kind", "architecture")):
        differing = _differences(saved["architecture"], expected["architecture"])
        raise UsageError(
            f"{output}: contains a training of another architecture{differing}; set another output, or resume: false to start over"
        )
    if saved.get("backbone", {}) != expected.get("backbone", {}):
        raise UsageError(
            f"{output}: began with the backbone {saved.get('backbone')}, now {expected.get('backbone')}; restore it, or "
            "resume: false to start over"
        )
    checkpoints.load_into(task.module, folder)
    training = json.loads((folder / checkpoints.TRAINING).read_text())
    loader.load_state_dict(training["loader"])
    print(f"resuming from {folder}", flush=True)
    return training["step"], checkpoints.read_state(folder, checkpoints.TRAINING_STATE)


def _restore(module: nn.Module, optimiser: torch.optim.Optimizer, moments: dict[str, Tensor]) -> None:
    """Take the optimiser's state, and the parameters where the checkpoint's are running means."""
    for name, parameter in module.named_parameters():
        if f"{_RAW}{name}" in moments:
            with torch.no_grad():
                parameter.copy_(placed_like(moments[f"{_RAW}{name}"], parameter))
        state = {key.rsplit("/", 1)[1]: value for key, value in moments.items() if key.rsplit("/", 1)[0] == name}
        if state:
            optimiser.state[parameter] = {
                key: value if key == "step" else placed_like(value, parameter) for key, value in state.items()
            }


def _with_defaults(kind: type[Config], saved: dict[str, Any]) -> dict[str, Any]:
    """A saved architecture whose missing settings are the defaults, as when it is loaded; unchanged if `kind` does not know all."""
    try:
        return json.loads(kind(**saved).model_dump_json())
    except ValidationError:
        return saved


def _differences(saved: dict[str, Any], expected: dict[str, Any]) -> str:
    """Settings that differ, as ` (width 16, now 24)`; empty where none can be named."""
    named = [
        f"{key} {saved[key]}, now {value}" for key, value in expected.items() if key in saved and saved[key] != value
    ]
    return f" ({'; '.join(named)})" if named else ""
