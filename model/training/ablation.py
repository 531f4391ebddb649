"""Tokenizers against one another: trained on the same data for the same steps, each with the learning rate that suits it."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from model.evaluation.tokenizer import TokenizerReport, evaluate_tokenizer
from model.training.config import TokenizerTraining
from model.training.tokenizer import train_tokenizer
from schemas.errors import UsageError

RIVALS: dict[str, dict[str, object]] = {
    "VQ-1": {"parts": "whole", "levels": 1, "code_width": 96},
    "RQ-6": {"parts": "whole", "levels": 6, "code_width": 96},
    "RQ-20": {"parts": "whole", "levels": 20, "code_width": 96},
    "PRQ-2": {"levels": 2},
    "PRQ-4": {},
    "PRQ-6": {"levels": 6},
    "PRQ-4, no shared joints": {"share_joints": False},
    "PRQ-4, codebooks per part": {"share_parts": False},
    "PRQ-4, one codebook": {"share_levels": True},
    "PRQ-4, not predictive": {"predict": 0},
    "2D-PRQ-4": {"mix_parts": True},
    "FSQ-4": {"quantizer": "fsq", "predict": 0},
}
"""Name -> what differs from the architecture of the config. RQ-20 has the bits of PRQ-4."""


@dataclass(frozen=True, kw_only=True)
class Trial:
    """A rival with its best learning rate."""

    rival: str
    learning_rate: float
    tried: dict[str, float]
    """Learning rate -> `mpjpe_mm`."""
    report: TokenizerReport


def ablate(
    config: TokenizerTraining,
    *,
    rivals: Sequence[str] = tuple(RIVALS),
    learning_rates: Sequence[float] = (1e-4, 4e-4),
    split: str = "val",
    dataset: str = "",
    limit: int | None = 64,
) -> list[Trial]:
    """Train the rivals under `output` and measure them on a split (of `dataset`, by default the one trained on). Writes
    ablation.json and error_against_bits.png there; a run that was interrupted continues.

    Raises UsageError for an unknown rival.
    """
    unknown = [name for name in rivals if name not in RIVALS]
    if unknown:
        raise UsageError(f"no rival {unknown[0]!r}; known ones: {', '.join(RIVALS)}")
    output = Path(config.output)
    trials = []
    for name in rivals:
        architecture = type(config.architecture)(**{**config.architecture.model_dump(), **RIVALS[name]})
        reports = {}
        for rate in learning_rates:
            folder = output / name.lower().replace(", ", "_").replace(" ", "_") / f"{rate:g}"
            optimisation = config.optimisation.model_copy(update={"learning_rate": rate})
            train_tokenizer(
                config.model_copy(
                    update={"architecture": architecture, "optimisation": optimisation, "output": str(folder)}
                )
            )
            reports[rate] = evaluate_tokenizer(folder, dataset or config.dataset, split=split, limit=limit)
        best = min(reports, key=lambda rate: reports[rate].mpjpe_mm)
        tried = {f"{rate:g}": report.mpjpe_mm for rate, report in reports.items()}
        trials.append(Trial(rival=name, learning_rate=best, tried=tried, report=reports[best]))
    (output / "ablation.json").write_text(json.dumps([asdict(trial) for trial in trials], indent=1) + "\n")
    _draw(trials, output / "error_against_bits.png")
    return trials


def table(trials: Sequence[Trial]) -> str:
    """The trials as lines of text."""
    lines = [f"{'tokenizer':28}{'bits/s':>8}{'MPJPE':>8}{'world':>8}{'drift':>8}{'slide':>8}{'usage':>8}{'rate':>9}"]
    for trial in trials:
        report = trial.report
        usage = sum(report.codebook_usage) / len(report.codebook_usage)
        lines.append(
            f"{trial.rival:28}{report.bits_per_s:8.0f}{report.mpjpe_mm:8.2f}{report.world_mpjpe_mm:8.1f}"
            f"{report.root_drift_mm:8.1f}{report.foot_slide_mm_s:8.0f}{usage:8.2f}{trial.learning_rate:9g}"
        )
    return "\n".join(lines)


def _draw(trials: Sequence[Trial], path: Path) -> None:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 5), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    for trial in trials:
        bits, error = trial.report.bits_per_s, trial.report.mpjpe_mm
        axes.plot([bits], [error], "o")
        axes.annotate(trial.rival, (bits, error), xytext=(4, 4), textcoords="offset points", fontsize=8)
    axes.set_xlabel("bits per second")
    axes.set_ylabel("MPJPE, mm")
    axes.set_xscale("log")
    axes.set_yscale("log")
    figure.savefig(path)
