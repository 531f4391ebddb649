"""Rivals: their architectures, the search for learning rates, error against bits."""

import json
import math
from pathlib import Path

import pytest

from model.evaluation.rate_distortion import rate_distortion
from model.evaluation.tokenizer import evaluate_tokenizer
from model.tokenizer.config import PRESETS, TokenizerConfig
from model.tokenizer.motion_tokenizer import MotionTokenizer
from model.training.ablation import ablate, search, table
from model.training.config import TokenizerTraining
from model.training.rivals import RIVALS, rival_architecture
from model.training.tokenizer import train_tokenizer
from schemas.config import parse_config
from schemas.errors import UsageError

SMALL = {"preset": "fast", "codebook_size": 16, "code_width": 8, "width": 16, "dilations": [1]}


def _config(dataset: str, output: Path, steps: int = 2, **architecture: object) -> TokenizerTraining:
    optimisation = {"steps": steps, "batch_size": 4, "learning_rate": 1e-3, "warmup_steps": 1, "bf16": False}
    mapping = {"dataset": dataset, "output": str(output), "architecture": {**SMALL, **architecture}, "workers": 0,
               "device": "cpu", "window": 32, "log_every": 1, "weights": {"joints": 10, "path": 1},
               "optimisation": optimisation}  # fmt: skip
    return parse_config(mapping, TokenizerTraining, "test")


@pytest.mark.parametrize("rival", RIVALS)
def test_rivals_are_architectures(rival: str) -> None:
    config = rival_architecture(rival, PRESETS["fast"])
    assert MotionTokenizer(config).config.bits_per_step == len(config.streams) * config.levels * 9
    assert rival_architecture(rival, rival_architecture("2D-PRQ-4", PRESETS["fast"])).levels == config.levels


def test_rivals_of_equal_bits() -> None:
    bits = {name: rival_architecture(name, PRESETS["fast"]).bits_per_step for name in RIVALS}
    assert bits["RQ-20"] == bits["PRQ-4"] == bits["FSQ-4"] == bits["2D-PRQ-4"] == 180
    assert bits["RQ-30"] == bits["PRQ-6"] == 270
    assert bits["VQ-1"] == 9
    small = TokenizerConfig(codebook_size=128)
    assert rival_architecture("FSQ-4", small).fsq_grid == (8, 4, 4)
    with pytest.raises(UsageError, match="codebook_size is 100; FSQ needs a power of two"):
        rival_architecture("FSQ-4", TokenizerConfig(codebook_size=100))


@pytest.mark.parametrize(
    ("best", "most", "expected"),
    [
        (1e-3, 5, {5e-4, 1e-3, 2e-3}),
        (4e-3, 5, {1e-3, 2e-3, 4e-3, 8e-3}),
        (2.5e-4, 5, {2e-3, 1e-3, 5e-4, 2.5e-4, 1.25e-4}),
        (1.0, 3, {1e-3, 2e-3, 4e-3}),
    ],
)
def test_the_search_goes_on_while_the_error_falls(best: float, most: int, expected: set[float]) -> None:
    asked: list[float] = []

    def error(rate: float) -> float:
        asked.append(rate)
        return abs(math.log(rate / best))

    tried = search(error, 1e-3, most=most)
    assert sorted(tried) == pytest.approx(sorted(expected))
    assert len(asked) == len(tried)


def test_a_rate_at_which_the_training_diverges_is_not_chosen() -> None:
    tried = search(lambda rate: math.inf if rate > 1e-3 else 5 + rate, 1e-3, most=5)
    assert min(tried, key=lambda rate: tried[rate]) < 1e-3


def test_rivals_are_compared(dataset: str, tmp_path: Path) -> None:
    rivals = ["VQ-1", "PRQ-4", "FSQ-4"]
    config = _config(dataset, tmp_path)
    trials = ablate(config, rivals=rivals, learning_rates=(1e-4, 1e-3), limit=3)
    assert [trial.rival for trial in trials] == rivals
    for trial in trials:
        assert len(trial.tried) == 2
        assert trial.report.mpjpe_mm == min(trial.tried.values())
        assert trial.is_edge
        assert [step for step, _ in trial.curves["0.001"]] == [1, 2]
        assert trial.points[-1].bits_per_s == trial.report.bits_per_s
        assert trial.points[-1].mpjpe_mm == pytest.approx(trial.report.mpjpe_mm, rel=1e-4)
    assert [point.levels for point in trials[1].points] == [1, 2, 3, 4]
    assert trials[0].report.bits_per_s * 20 == trials[1].report.bits_per_s == trials[2].report.bits_per_s
    assert trials[1].report.mpjpe_mm < trials[0].report.mpjpe_mm
    assert table(trials).splitlines()[-1].startswith("* the best rate")
    for picture in ("error_against_bits.png", "curves.png"):
        assert (tmp_path / picture).stat().st_size > 5000
    assert len(json.loads((tmp_path / "ablation.json").read_text())) == 3
    with pytest.raises(UsageError, match="no rival 'PRQ-5'; known ones: VQ-1"):
        ablate(config, rivals=["PRQ-5"])
    with pytest.raises(UsageError, match="s3://bucket/run; an ablation is written to a folder of this machine"):
        ablate(config.model_copy(update={"output": "s3://bucket/run"}))


def test_a_search_of_shorter_trainings(dataset: str, tmp_path: Path) -> None:
    (trial,) = ablate(_config(dataset, tmp_path), rivals=["PRQ-1"], most_rates=2, search_steps=1, limit=2)
    assert set(trial.tried) == {"0.001", "0.002"}
    assert {path.name for path in (tmp_path / "prq-1").iterdir()} == {"search-1", f"{trial.learning_rate:g}"}
    final = tmp_path / "prq-1" / f"{trial.learning_rate:g}"
    assert trial.report.mpjpe_mm == evaluate_tokenizer(final, dataset, limit=2, evaluator=None).mpjpe_mm


def test_more_levels_cost_bits_and_save_error(dataset: str, tmp_path: Path) -> None:
    train_tokenizer(_config(dataset, tmp_path, steps=4, levels=3))
    points = rate_distortion(tmp_path, dataset, limit=4)
    assert [round(one.bits_per_s / points[0].bits_per_s) for one in points] == [1, 2, 3]
    errors = [one.mpjpe_mm for one in points]
    assert errors == sorted(errors, reverse=True)
