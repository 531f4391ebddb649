"""The log of a training: lines of metrics and their curves."""

import json
import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from torch import Tensor

from model.training.event_log import EventLog
from model.training.run_files import RunFiles

LOG, CURVE = "metrics.jsonl", "curve.png"
_NOT_DRAWN = ("step", "learning_rate", "steps_per_s", "waiting_share")


class MetricsLog:
    """metrics.jsonl: means since the previous line, also printed; on demand TensorBoard's event files."""

    def __init__(self, output: str, steps: int, start: int, *, events: bool = False) -> None:
        """`output` is a folder or a bucket, `start` the step to resume from; lines of later steps, from an interrupted run, are
        deleted. Raises UsageError if `events` are wanted and TensorBoard's package is missing."""
        self.files = RunFiles(output, resumed=(LOG,) if start else ())
        self.path, self.steps = self.files.folder / LOG, steps
        self.events = EventLog(self.files.folder, start) if events else None
        self.last: dict[str, float] = {}
        self._sums: dict[str, Tensor] = {}
        self._count, self._last_write_s, self._waited_s = 0, time.monotonic(), 0.0
        kept = [row for row in self._rows() if row["step"] <= start]
        self.path.write_text("".join(json.dumps(row) + "\n" for row in kept))

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
        if self.events:
            self.events.write(step, {name: value for name, value in row.items() if name != "step"})
        metrics = "  ".join(f"{name} {value:.4g}" for name, value in {**self.last, **(validation or {})}.items())
        speed = f"{row['steps_per_s']:.2f} steps/s, {row['waiting_share']:.0%} waiting for data"
        print(f"step {step}/{self.steps}  {speed}  {metrics}", flush=True)
        self._sums, self._count, self._last_write_s, self._waited_s = {}, 0, now, 0.0

    def draw_with(self, name: str, step: int, draw: Callable[[Path, int], bool]) -> None:
        """Have a picture drawn beside the log."""
        path = self.files.folder / name
        if draw(path, step) and self.events:
            self.events.draw(step, Path(name).stem, path)

    def publish(self) -> None:
        """Bring all that was written to the output, where that is a bucket."""
        self.files.publish()

    def finish(self, title: str) -> None:
        """Draw the curves and publish everything."""
        self._draw_curves(self.files.folder / CURVE, title)
        if self.events:
            self.events.close()
        self.publish()

    def _draw_curves(self, path: Path, title: str) -> None:
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
