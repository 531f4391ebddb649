"""The log of a training: lines of metrics and their curves."""

import json
import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from torch import Tensor

_NOT_DRAWN = ("step", "learning_rate", "steps_per_s", "waiting_share")


class MetricsLog:
    """metrics.jsonl: means since the previous line, also printed."""

    def __init__(self, path: Path, steps: int, start: int) -> None:
        """`start` is the step to resume from; lines of later steps, from an interrupted run, are deleted."""
        self.path, self.steps = path, steps
        self.last: dict[str, float] = {}
        self._sums: dict[str, Tensor] = {}
        self._count, self._last_write_s, self._waited_s = 0, time.monotonic(), 0.0
        path.parent.mkdir(parents=True, exist_ok=True)
        kept = [row for row in self._rows() if row["step"] <= start]
        path.write_text("".join(json.dumps(row) + "\n" for row in kept))

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Count the time of the block as waiting for data."""
        start_s = time.monotonic()
        yield
        self._waited_s += time.monotonic() - start_s

    def add(self, values: dict[str, Tensor]) -> None:
        for name, value in values.items():
            self._sums[name] = self._sums.get(name, 0.0) + value.detach().float()
        self._count += 1

    def write(self, step: int, learning_rate: float, validation: dict[str, float] | None = None) -> None:
        """Write the means, and what a validation found."""
        now = time.monotonic()
        self.last = {name: float(total) / self._count for name, total in self._sums.items()}
        row = {
            "step": step,
            "learning_rate": learning_rate,
            "steps_per_s": self._count / (now - self._last_write_s),
            "waiting_share": self._waited_s / (now - self._last_write_s),
            **self.last,
            **(validation or {}),
        }
        with self.path.open("a") as file:
            file.write(json.dumps(row) + "\n")
        metrics = "  ".join(f"{name} {value:.4g}" for name, value in {**self.last, **(validation or {})}.items())
        speed = f"{row['steps_per_s']:.2f} steps/s, {row['waiting_share']:.0%} waiting for data"
        print(f"step {step}/{self.steps}  {speed}  {metrics}", flush=True)
        self._sums, self._count, self._last_write_s, self._waited_s = {}, 0, now, 0.0

    def draw(self, path: Path, title: str) -> None:
        """Plot all metrics of the log, one panel each."""
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure

        rows = self._rows()
        if not rows:
            return
        names = list(dict.fromkeys(name for row in rows for name in row))
        names = [name for name in names if name not in _NOT_DRAWN]
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
        return read_metrics(self.path)


def read_metrics(path: Path) -> list[dict[str, float]]:
    """The lines of a log; none if there is no log."""
    if not path.exists():
        return []
    return [json.loads(line) for line in path.read_text().splitlines() if line.endswith("}")]
