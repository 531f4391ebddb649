"""What the trainings of the stages' own networks share: the learning rate's course, lines of metrics and their curve,
checkpoints, command lines."""

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
    """The part of a training's config that says how fast it learns."""

    @property
    def steps(self) -> int: ...
    @property
    def warmup_steps(self) -> int: ...
    @property
    def learning_rate(self) -> float: ...


def learning_rate(step: int, config: Schedule) -> float:
    """Up to the highest in the warm-up, then along a cosine to a fiftieth of it."""
    if step < config.warmup_steps:
        return config.learning_rate * (step + 1) / config.warmup_steps
    along = (step - config.warmup_steps) / max(1, config.steps - config.warmup_steps)
    return config.learning_rate * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * along)))


class Means:
    """Of what is logged, over the steps since they were last taken; a training that goes on begins in between."""

    def __init__(self) -> None:
        self._sums: dict[str, float] = {}
        self._steps = 0

    def add(self, values: Mapping[str, torch.Tensor]) -> None:
        """One step's."""
        self._steps += 1
        for name, value in values.items():
            self._sums[name] = self._sums.get(name, 0.0) + float(value.detach())

    def take(self) -> dict[str, float]:
        """The means, which then begin anew."""
        means = {name: value / self._steps for name, value in self._sums.items()}
        self._sums, self._steps = {}, 0
        return means


def log_row(output: Path, row: Mapping[str, float | int]) -> None:
    """Append a line to metrics.jsonl in a folder, and print it."""
    line = json.dumps({name: round(value, 5) if isinstance(value, float) else value for name, value in row.items()})
    with (output / "metrics.jsonl").open("a") as file:
        file.write(line + "\n")
    print(line, flush=True)


def plot_curve(output: Path, title: str, lines: Mapping[str, str]) -> None:
    """Loss and validation over the steps of metrics.jsonl, as curve.png; `lines` are what is measured -> its label."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    # A training that was stopped logs some steps again: the last time counts.
    logged: dict[tuple[int, bool], dict[str, float]] = {}
    for line in (output / "metrics.jsonl").read_text().splitlines():
        row = json.loads(line)
        logged[row["step"], "loss" in row] = row
    rows = [logged[key] for key in sorted(logged)]
    figure = Figure(figsize=(11, 4), layout="constrained")
    FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2)
    trained = [row for row in rows if "loss" in row]
    left.plot([row["step"] for row in trained], [row["loss"] for row in trained], color="0.3")
    # Parts are log likelihoods: the sum may go below zero, and its first steps would hide all others.
    losses = [row["loss"] for row in trained[1:]]
    left.set(title="training loss", xlabel="step", ylim=(min(losses, default=0), np.percentile(losses or [1], 98)))
    measured = [row for row in rows if all(name in row for name in lines)]
    steps = [row["step"] for row in measured]
    for name, label in lines.items():
        right.plot(steps, [row[name] for row in measured], label=label)
    top = max((np.percentile([row[name] for row in measured], 90) for name in lines), default=1.0) if measured else 1.0
    right.set(title=title, xlabel="step", ylim=(0, 1.2 * top))
    right.legend()
    figure.savefig(output / "curve.png", dpi=100)


def read_checkpoint(path: Path, key: str, name: str, shape: Mapping[str, Any]) -> dict[str, Any]:
    """What a training left. `key` names the path in the config, `name` the network's shape in the file.

    Raises UsageError where there is none, or it is of a network of another `shape`.
    """
    if not path.is_file():
        raise UsageError(f"{key}: {path}: there is no such checkpoint; name one, or leave it out")
    state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    if state[name] != shape:
        raise UsageError(f"{key}: {path}: is of another network ({state[name]}); set the same one, or another {key}")
    return state
