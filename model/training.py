"""What both trainings share: processes, the loop, metrics, curves, going on after a stop.

A training runs in a single process, under torchrun or as a Ray Train worker: where WORLD_SIZE is set, the processes
meet (NCCL on GPUs, Gloo elsewhere) and gradients are averaged.
"""

import json
import math
import os
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from model import checkpoints
from model.config import Optimisation, Run
from model.data import MotionDataset, MotionLoader, MotionSample
from schemas.body_model import BodyModel
from schemas.devices import choose_device
from schemas.errors import HumoError, UsageError


@dataclass(frozen=True, kw_only=True)
class Result:
    """What a training leaves behind."""

    checkpoint: str
    """The last checkpoint's folder."""
    steps: int
    seconds: float
    """Of this run, not counting what it resumed from."""
    metrics: dict[str, float] = field(default_factory=dict)
    """Means over the last lines of the log."""


@dataclass(frozen=True)
class Processes:
    """This process among its fellows."""

    rank: int
    count: int
    device: torch.device

    @classmethod
    def join(cls, device: str) -> "Processes":
        """Join the group that the environment names, if it names one, and choose the device."""
        count, rank = int(os.environ.get("WORLD_SIZE", "1")), int(os.environ.get("RANK", "0"))
        local = int(os.environ.get("LOCAL_RANK", "0"))
        chosen = choose_device(device, index=local)
        if chosen.type == "cuda":
            torch.cuda.set_device(chosen)
        if count > 1 and not dist.is_initialized():
            dist.init_process_group("nccl" if chosen.type == "cuda" else "gloo")
        return cls(rank, count, chosen)

    @property
    def leads(self) -> bool:
        return self.rank == 0

    def wait(self) -> None:
        if self.count > 1:
            dist.barrier()

    def share(self, value: Any) -> Any:
        """The first process's value, in all of them."""
        if self.count == 1:
            return value
        box = [value]
        dist.broadcast_object_list(box, src=0)
        return box[0]


@runtime_checkable
class Task(Protocol):
    """What a training is about: a model and the loss of a batch."""

    kind: str
    skips_parameters: bool
    """Whether there are batches that leave some parameters without a gradient."""

    @property
    def module(self) -> nn.Module: ...

    def losses(self, module: nn.Module, samples: list[MotionSample], step: int) -> dict[str, Tensor]:
        """`loss`, to be minimised, and whatever else is worth a curve. `module` is `self.module`, perhaps wrapped."""
        ...

    def description(self) -> dict[str, Any]:
        """model.json."""
        ...

    def extra_files(self) -> tuple[dict[str, str], list[tuple[str, Path]]]:
        """What else belongs into a checkpoint: texts and folders by name."""
        ...


def load_body(path: str) -> BodyModel:
    """The body that a run uses; an empty path is the shipped one."""
    return BodyModel.load(path or None)


def open_loader(config: Run, processes: Processes) -> MotionLoader:
    """Training batches of this process."""
    chosen = MotionLoader.Config(
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
    return MotionLoader(chosen, rank=processes.rank, world_size=processes.count)


def open_dataset(config: Run) -> MotionDataset:
    """The training split in stored order."""
    return MotionDataset(config.dataset, subsets=config.subsets, cache=config.cache, cache_gib=config.cache_gib)


def fit(task: Task, config: Run, loader: MotionLoader, processes: Processes) -> Result:
    """Train until `steps`; goes on from the newest checkpoint in `output` where `resume` says so."""
    output = Path(config.output)
    chosen = config.optimisation
    task.module.to(processes.device).train()
    optimiser = make_optimiser(task.module, chosen)
    step = _resume(task, config, loader, optimiser, output) if config.resume else 0
    module: nn.Module = task.module
    if processes.count > 1:
        # Codebooks keep themselves equal; copying the first process's buffers at every step would undo that.
        module = DistributedDataParallel(
            task.module, forward_sync_buffers=False, find_unused_parameters=task.skips_parameters
        )
    log = MetricsLog(output / "metrics.jsonl", chosen.steps, step) if processes.leads else None
    began = time.monotonic()
    batches = iter(loader)
    while step < chosen.steps:
        for group in optimiser.param_groups:
            group["lr"] = chosen.learning_rate * schedule(step, chosen)
        samples = next(batches)
        # Noise depends on the step and the process alone, so that a resumed run draws what an unbroken one would.
        torch.manual_seed((config.seed * 1_000_003 + step) * 4099 + processes.rank)
        with torch.autocast(processes.device.type, torch.bfloat16, enabled=chosen.bf16):
            losses = task.losses(module, samples, step)
        optimiser.zero_grad(set_to_none=True)
        losses["loss"].backward()
        norm = nn.utils.clip_grad_norm_(task.module.parameters(), chosen.clip_norm)
        optimiser.step()
        step += 1
        if log:
            log.add(losses | {"gradient_norm": norm})
            if step % config.log_every == 0 or step == chosen.steps:
                log.write(step, optimiser.param_groups[0]["lr"])
                if not math.isfinite(log.last["loss"]):
                    raise HumoError(
                        f"{config.output}: the loss is {log.last['loss']} at step {step}; lower learning_rate"
                    )
        if step % config.save_every == 0 or step == chosen.steps:
            if processes.leads:
                _save(task, config, loader, optimiser, output, step)
            processes.wait()
    if log:
        log.draw(output / "curve.png", task.kind)
    return Result(
        checkpoint=str(checkpoints.newest(output)),
        steps=step,
        seconds=time.monotonic() - began,
        metrics=dict(log.last) if log else {},
    )


def make_optimiser(module: nn.Module, chosen: Optimisation) -> torch.optim.AdamW:
    """AdamW that lets only matrices decay."""
    matrices = [p for p in module.parameters() if p.requires_grad and p.ndim >= 2]
    others = [p for p in module.parameters() if p.requires_grad and p.ndim < 2]
    groups = [{"params": matrices, "weight_decay": chosen.weight_decay}, {"params": others, "weight_decay": 0.0}]
    return torch.optim.AdamW([group for group in groups if group["params"]], lr=chosen.learning_rate, betas=(0.9, 0.99))


def schedule(step: int, chosen: Optimisation) -> float:
    """Factor on the learning rate: a linear rise, then a cosine down to a tenth."""
    if step < chosen.warmup_steps:
        return (step + 1) / chosen.warmup_steps
    done = (step - chosen.warmup_steps) / max(1, chosen.steps - chosen.warmup_steps)
    return 0.1 + 0.45 * (1 + math.cos(math.pi * min(done, 1.0)))


class MetricsLog:
    """metrics.jsonl: means since the line before, printed as well."""

    def __init__(self, path: Path, steps: int, start: int) -> None:
        """`start` is the step that training goes on from; lines about later ones, of a run that broke off, go."""
        self.path, self.steps = path, steps
        self.last: dict[str, float] = {}
        self._sums: dict[str, Tensor] = {}
        self._count, self._since = 0, time.monotonic()
        path.parent.mkdir(parents=True, exist_ok=True)
        kept = [row for row in self._rows() if row["step"] <= start]
        path.write_text("".join(json.dumps(row) + "\n" for row in kept))

    def add(self, values: dict[str, Tensor]) -> None:
        for name, value in values.items():
            self._sums[name] = self._sums.get(name, 0.0) + value.detach().float()
        self._count += 1

    def write(self, step: int, learning_rate: float) -> None:
        now = time.monotonic()
        self.last = {name: float(total) / self._count for name, total in self._sums.items()}
        row = {
            "step": step,
            "learning_rate": learning_rate,
            "steps_per_s": self._count / (now - self._since),
            **self.last,
        }
        with self.path.open("a") as file:
            file.write(json.dumps(row) + "\n")
        shown = "  ".join(f"{name} {value:.4g}" for name, value in self.last.items())
        print(f"step {step}/{self.steps}  {row['steps_per_s']:.2f} steps/s  {shown}", flush=True)
        self._sums, self._count, self._since = {}, 0, now

    def draw(self, path: Path, title: str) -> None:
        """All curves of the log, a panel each."""
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure

        rows = self._rows()
        if not rows:
            return
        names = [name for name in rows[-1] if name not in ("step", "learning_rate", "steps_per_s")]
        figure = Figure(figsize=(4 * min(3, len(names)), 3 * math.ceil(len(names) / 3)), layout="constrained")
        FigureCanvasAgg(figure)
        figure.suptitle(title.replace("_", " "))
        for i, name in enumerate(names):
            axes = figure.add_subplot(math.ceil(len(names) / 3), min(3, len(names)), i + 1)
            points = [(row["step"], row[name]) for row in rows if name in row]
            axes.plot(*zip(*points, strict=True))
            axes.set_title(name.replace("_", " "))
            axes.set_xlabel("step")
            if all(value > 0 for _, value in points):
                axes.set_yscale("log")
        figure.savefig(path)

    def _rows(self) -> list[dict[str, float]]:
        if not self.path.exists():
            return []
        return [json.loads(line) for line in self.path.read_text().splitlines() if line.endswith("}")]


def _save(
    task: Task, config: Run, loader: MotionLoader, optimiser: torch.optim.Optimizer, output: Path, step: int
) -> None:
    files, folders = task.extra_files()
    names: dict[Tensor, str] = {parameter: name for name, parameter in task.module.named_parameters()}
    moments = {
        f"{names[parameter]}/{key}": value
        for parameter, state in optimiser.state.items()
        for key, value in state.items()
        if isinstance(value, Tensor)
    }
    checkpoints.publish(
        output,
        step,
        {"kind": task.kind, **task.description(), "training": config.model_dump()},
        task.module.state_dict(),
        training={"step": step, "loader": loader.state_dict()},
        training_state=moments,
        files=files,
        folders=folders,
        keep=config.keep,
    )


def _resume(task: Task, config: Run, loader: MotionLoader, optimiser: torch.optim.Optimizer, output: Path) -> int:
    folder = checkpoints.newest(output)
    if folder is None:
        return 0
    found = json.loads((folder / checkpoints.MODEL).read_text())
    wanted = json.loads(json.dumps({"kind": task.kind, **task.description()}))
    if any(found.get(key) != wanted[key] for key in ("kind", "architecture")):
        raise UsageError(
            f"{output}: holds a training of another architecture; give another output, or resume: false to start over"
        )
    checkpoints.load_into(task.module, folder)
    moments = checkpoints.read_state(folder, checkpoints.TRAINING_STATE)
    for name, parameter in task.module.named_parameters():
        state = {key.rsplit("/", 1)[1]: value for key, value in moments.items() if key.rsplit("/", 1)[0] == name}
        if state:
            optimiser.state[parameter] = {
                key: value if key == "step" else value.to(parameter.device) for key, value in state.items()
            }
    training = json.loads((folder / checkpoints.TRAINING).read_text())
    loader.load_state_dict(training["loader"])
    print(f"goes on from {folder}", flush=True)
    return training["step"]
