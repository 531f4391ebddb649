"""Tokenizers against one another: trained on the same data for the same steps, each with the learning rate that suits it."""

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from model.checkpoints import is_remote
from model.evaluation.rate_distortion import RatePoint, rate_distortion
from model.evaluation.tokenizer import TokenizerReport, evaluate_tokenizer
from model.tokenizer.config import TokenizerConfig
from model.training.ablation_pictures import draw_curves, draw_error_against_bits
from model.training.config import TokenizerTraining
from model.training.loop import Diverged
from model.training.metrics import read_metrics
from model.training.rivals import RIVALS, rival_architecture
from model.training.tokenizer import train_tokenizer
from schemas.errors import UsageError

FACTOR = 2.0
"""Ratio of neighbouring learning rates of a search."""
_VALIDATIONS = 10
"""Points of a training curve where the config names no `validate_every`."""


@dataclass(frozen=True, kw_only=True)
class Trial:
    """A rival with its best learning rate."""

    rival: str
    learning_rate: float
    tried: dict[str, float]
    """Learning rate -> `mpjpe_mm` by which it was chosen; infinite where the training diverged."""
    is_edge: bool
    """Whether the best rate is the largest or smallest that was tried, so that another may be better still."""
    report: TokenizerReport
    points: list[RatePoint]
    """Error with the first level of codes, the first two, ..."""
    curves: dict[str, list[tuple[int, float]]]
    """Learning rate -> step and error on the val split (mm), or the loss where the dataset has none."""


def ablate(
    config: TokenizerTraining,
    *,
    rivals: Sequence[str] = tuple(RIVALS),
    learning_rates: Sequence[float] = (),
    most_rates: int = 5,
    search_steps: int = 0,
    split: str = "val",
    choose_split: str = "",
    dataset: str = "",
    limit: int | None = 64,
) -> list[Trial]:
    """Train the rivals under `output` and measure them on a split (of `dataset`, by default the one trained on). Writes
    ablation.json, error_against_bits.png and curves.png there; a run that was interrupted continues.

    Each rival has its learning rate chosen: the best of `learning_rates`, or by a search that begins at the config's and goes on
    by factors of two while it gets better, up to `most_rates`. It is chosen by `mpjpe_mm` on `choose_split`, by default the split
    that is reported; with `search_steps` by shorter trainings.

    Raises UsageError for an unknown rival, and where the output is a bucket.
    """
    if is_remote(config.output):
        raise UsageError(f"output is {config.output}; an ablation is written to a folder of this machine: name one")
    architectures = {name: rival_architecture(name, config.architecture) for name in rivals}
    output = Path(config.output)
    measured_on = dataset or config.dataset
    trials = []
    for name, architecture in architectures.items():
        runs = output / name.lower().replace(", ", "_").replace(" ", "_")
        searched = runs / f"search-{search_steps}" if search_steps else runs

        def error(rate: float, folder: Path = searched, architecture: TokenizerConfig = architecture) -> float:
            steps = search_steps or config.optimisation.steps
            try:
                _train(config, architecture, rate, steps, folder)
            except Diverged:
                return math.inf
            found = evaluate_tokenizer(
                _folder(folder, rate), measured_on, split=choose_split or split, limit=limit, evaluator=None
            )
            return found.mpjpe_mm

        if learning_rates:
            tried = {rate: error(rate) for rate in learning_rates}
        else:
            tried = search(error, config.optimisation.learning_rate, most=most_rates)
        best = min(tried, key=lambda rate: tried[rate])
        if search_steps:
            _train(config, architecture, best, config.optimisation.steps, runs)
        checkpoint = _folder(runs, best)
        trials.append(
            Trial(
                rival=name,
                learning_rate=best,
                tried={f"{rate:g}": value for rate, value in sorted(tried.items())},
                is_edge=len(tried) > 1 and best in (min(tried), max(tried)),
                report=evaluate_tokenizer(checkpoint, measured_on, split=split, limit=limit),
                points=rate_distortion(checkpoint, measured_on, split=split, limit=limit),
                curves={f"{rate:g}": _curve(_folder(searched, rate)) for rate in sorted(tried)},
            )
        )
        (output / "ablation.json").write_text(json.dumps([asdict(trial) for trial in trials], indent=1) + "\n")
    draw_error_against_bits({one.rival: [(p.bits_per_s, p.mpjpe_mm) for p in one.points] for one in trials},
                            output / "error_against_bits.png")  # fmt: skip
    draw_curves({one.rival: one.curves for one in trials}, output / "curves.png")
    return trials


def search(error: Callable[[float], float], start: float, *, most: int, factor: float = FACTOR) -> dict[float, float]:
    """Errors of the learning rates tried: from `start` towards the smaller error until it grows, on either side, at most `most`."""
    tried = {start: error(start)}
    for ratio in (factor, 1 / factor):
        while len(tried) < most and min(tried, key=lambda rate: tried[rate]) == (edge := _outermost(tried, ratio)):
            tried[edge * ratio] = error(edge * ratio)
    return tried


def _outermost(tried: dict[float, float], ratio: float) -> float:
    return max(tried) if ratio > 1 else min(tried)


def _folder(runs: Path, rate: float) -> Path:
    return runs / f"{rate:g}"


def _train(config: TokenizerTraining, architecture: TokenizerConfig, rate: float, steps: int, runs: Path) -> None:
    often = config.validate_every or -(-steps // (_VALIDATIONS * config.log_every)) * config.log_every
    train_tokenizer(
        config.model_copy(
            update={
                "architecture": architecture,
                "optimisation": config.optimisation.model_copy(update={"learning_rate": rate, "steps": steps}),
                "validate_every": often,
                "output": str(_folder(runs, rate)),
            }
        )
    )


def _curve(folder: Path) -> list[tuple[int, float]]:
    rows = read_metrics(folder / "metrics.jsonl")
    name = "validation_mpjpe_mm" if any("validation_mpjpe_mm" in row for row in rows) else "loss"
    return [(int(row["step"]), row[name]) for row in rows if name in row]


def table(trials: Sequence[Trial]) -> str:
    """The trials as lines of text."""
    lines = [
        f"{'tokenizer':28}{'bits/s':>8}{'MPJPE':>8}{'PA':>8}{'world':>8}{'drift':>8}{'slide':>8}{'rFID':>8}{'usage':>8}{'rate':>10}"
    ]
    for trial in trials:
        report = trial.report
        usage = sum(report.codebook_usage) / len(report.codebook_usage)
        lines.append(
            f"{trial.rival:28}{report.bits_per_s:8.0f}{report.mpjpe_mm:8.2f}{report.pa_mpjpe_mm:8.2f}{report.world_mpjpe_mm:8.1f}"
            f"{report.root_drift_mm:8.1f}{report.foot_slide_mm_s:8.0f}{report.rfid:8.3f}{usage:8.2f}"
            f"{trial.learning_rate:9g}{'*' if trial.is_edge else ' '}"
        )
    if any(trial.is_edge for trial in trials):
        lines.append("* the best rate is at the edge of those tried")
    return "\n".join(lines)
