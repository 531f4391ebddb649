"""Pictures of an ablation: error against bits, and the training curves of every rival."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any


def draw_error_against_bits(points: Mapping[str, Sequence[tuple[float, float]]], path: Path) -> None:
    """Bits per second and error (mm) of each rival: a line over the levels of codes, its end with all of them marked."""
    figure = _figure(8, 5.5)
    axes = figure.add_subplot()
    for number, (name, line) in enumerate(points.items()):
        style = {"color": f"C{number % 10}", "linestyle": ("-", "--", ":")[number // 10 % 3]}
        axes.plot(*zip(*line, strict=True), linewidth=1, **style)
        axes.plot(*line[-1], "o", color=style["color"])
        axes.annotate(name, line[-1], xytext=(4, 4), textcoords="offset points", fontsize=8)
    axes.set_xlabel("bits per second")
    axes.set_ylabel("MPJPE, mm")
    axes.set_xscale("log")
    axes.set_yscale("log")
    figure.savefig(path)


def draw_curves(curves: Mapping[str, Mapping[str, Sequence[tuple[int, float]]]], path: Path) -> None:
    """A panel for each rival with the training curves of its learning rates."""
    across = min(3, len(curves))
    down = math.ceil(len(curves) / across)
    figure = _figure(4 * across, 3 * down)
    first = None
    for number, (name, lines) in enumerate(curves.items(), 1):
        axes = first = figure.add_subplot(down, across, number, sharex=first, sharey=first)
        for rate, line in lines.items():
            if line:
                axes.plot(*zip(*line, strict=True), label=rate, linewidth=1)
        axes.set_title(name, fontsize=9)
        axes.set_yscale("log")
        axes.legend(fontsize=7, title="learning rate", title_fontsize=7)
    figure.supxlabel("step")
    figure.supylabel("MPJPE of the val split, mm; the loss where there is none")
    figure.savefig(path)


def _figure(width: float, height: float) -> Any:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure
