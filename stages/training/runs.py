"""Parts shared by the training loops of the stages' own networks: learning rate schedule, metrics log and its plot,
checkpoints."""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch

from schemas.errors import UsageError


@runtime_checkable
class Schedule(Protocol):
    """The fields of a training config that set the learning rate."""

    @property
    def steps(self) -> int: ...
    @property
    def warmup_steps(self) -> int: ...
    @property
    def learning_rate(self) -> float: ...


def learning_rate(step: int, config: Schedule) -> float:
    """Linear warm-up to the peak, then a cosine decay to a fiftieth of it."""
    if step < config.warmup_steps:
        return config.learning_rate * (step + 1) / config.warmup_steps
    progress = (step - config.warmup_steps) / max(1, config.steps - config.warmup_steps)
    return config.learning_rate * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * progress)))


class RunningMeans:
    """Means of the logged values over the steps since the last `take`; a resumed training starts a new interval."""

    def __init__(self) -> None:
        self._sums: dict[str, float] = {}
        self._steps = 0

    def add(self, values: Mapping[str, torch.Tensor]) -> None:
        """Add the values of one step."""
        self._steps += 1
        for name, value in values.items():
            self._sums[name] = self._sums.get(name, 0.0) + float(value.detach())

    def take(self) -> dict[str, float]:
        """Return the means and reset."""
        means = {name: value / self._steps for name, value in self._sums.items()}
        self._sums, self._steps = {}, 0
        return means


def log_row(output: Path, row: Mapping[str, float | int]) -> None:
    """Append a line to metrics.jsonl in a folder, and print it."""
    line = json.dumps({name: round(value, 5) if isinstance(value, float) else value for name, value in row.items()})
    with (output / "metrics.jsonl").open("a") as file:
        file.write(line + "\n")
    print(line, flush=True)


def plot_curve(output: Path, title: str, labels: Mapping[str, str]) -> None:
    """Plot loss and validation metrics of metrics.jsonl over the steps to curve.png; `labels`: metric -> its label."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    # A training that was interrupted logs some steps twice: the last row counts.
    logged: dict[tuple[int, bool], dict[str, float]] = {}
    for line in (output / "metrics.jsonl").read_text().splitlines():
        row = json.loads(line)
        logged[row["step"], "loss" in row] = row
    rows = [logged[key] for key in sorted(logged)]
    figure = Figure(figsize=(11, 4), layout="constrained")
    FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2)
    training = [row for row in rows if "loss" in row]
    left.plot([row["step"] for row in training], [row["loss"] for row in training], color="0.3")
    # Terms are log likelihoods: the sum may be negative, and its first steps would hide all others.
    losses = [row["loss"] for row in training[1:]]
    left.set(title="training loss", xlabel="step", ylim=(min(losses, default=0), np.percentile(losses or [1], 98)))
    validation = [row for row in rows if all(name in row for name in labels)]
    steps = [row["step"] for row in validation]
    for name, label in labels.items():
        right.plot(steps, [row[name] for row in validation], label=label)
    top = (
        max((np.percentile([row[name] for row in validation], 90) for name in labels), default=1.0)
        if validation
        else 1.0
    )
    right.set(title=title, xlabel="step", ylim=(0, 1.2 * top))
    right.legend()
    figure.savefig(output / "curve.png", dpi=100)


def read_checkpoint(path: Path, key: str, name: str, shape: Mapping[str, Any]) -> dict[str, Any]:
    """Checkpoint of a training. `key` is the config key that gives the path, `name` the key of the network's shape in the file.

    Raises UsageError if the file is missing or the network has another `shape`.
    """
    if not path.is_file():
        raise UsageError(f"{key}: {path}: no such checkpoint; give an existing one, or leave it out")
    state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    if state[name] != shape:
        raise UsageError(
            f"{key}: {path}: holds another network ({state[name]}); configure the same one, or another {key}"
        )
    return state
