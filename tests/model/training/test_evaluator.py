"""From shards to judged motions: training of the evaluator, resuming, the field's protocol, errors."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from model import checkpoints
from model.data.dataset import MotionDataset
from model.evaluation.motions import Judge, evaluate_motions
from model.evaluation.protocol import fid
from model.generation.motion_files import GeneratedMotion, save_motion
from model.training.evaluator import EvaluatorTraining, train_evaluator
from pipeline import PROJECT_ROOT
from pipeline.benchmarks.evaluator import bench, bench_text
from schemas.body_model import BodyModel
from schemas.config import load_config, parse_config
from schemas.errors import HumoError
from schemas.sample import MotionArrays

SMALL = {"latent": 8, "width": 32, "layers": 1, "heads": 2, "patch": 6, "dropout": 0.0}


def _config(dataset: str, output: Path, steps: int, **changes: object) -> EvaluatorTraining:
    optimisation = {"steps": steps, "batch_size": 12, "learning_rate": 3e-3, "warmup_steps": 2, "bf16": False}
    mapping = {"dataset": dataset, "output": str(output), "architecture": SMALL, "workers": 0, "device": "cpu",
               "log_every": 5, "save_every": 20, "optimisation": optimisation, **changes}  # fmt: skip
    return parse_config(mapping, EvaluatorTraining, "test")


@pytest.fixture(scope="module")
def trained(dataset: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An evaluator that has learned the twelve clips of the train split."""
    torch.set_num_threads(1)
    output = tmp_path_factory.mktemp("evaluator")
    train_evaluator(_config(dataset, output, 30, validate_every=10))
    return output


def _motion(dataset: str) -> tuple[str, MotionArrays]:
    sample = next(iter(MotionDataset(dataset)))
    return sample.key, sample.motion


def _save(path: Path, motion: MotionArrays, body_model: str = "") -> None:
    save_motion(path, GeneratedMotion(motion=motion, text="", body_model=body_model or BodyModel.load().id))


def test_training_pulls_pairs_together(trained: Path, dataset: str) -> None:
    rows = [json.loads(line) for line in (trained / "metrics.jsonl").read_text().splitlines()]
    assert rows[-1]["loss"] < 0.6 * rows[0]["loss"]
    assert rows[-1]["validation_r1"] > rows[-1]["validation_chance"]
    # Mirror images with other sentences came on top of the twelve samples.
    assert rows[-1]["pairs"] > 12
    real = evaluate_motions(dataset, evaluator=trained, split="train", repeats=3).real_distinct
    assert real.chance == 0.25  # four sentences
    assert real.r_precision[0].mean == 1.0


def test_resumed_training_equals_an_uninterrupted_one(dataset: str, tmp_path: Path) -> None:
    for name in ("whole", "broken"):
        train_evaluator(_config(dataset, tmp_path / name, 4, save_every=2))
    shutil.rmtree(tmp_path / "broken" / "step-00000004")
    (tmp_path / "broken" / "latest.json").write_text(json.dumps({"checkpoint": "step-00000002"}))
    train_evaluator(_config(dataset, tmp_path / "broken", 4, save_every=2))
    whole, resumed = (checkpoints.read_state(checkpoints.newest(tmp_path / name)) for name in ("whole", "broken"))
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)


def test_a_batch_of_short_motions_is_skipped(dataset: str, tmp_path: Path) -> None:
    result = train_evaluator(_config(dataset, tmp_path, 2, architecture={**SMALL, "min_frames": 200}))
    assert result.steps == 2
    assert result.metrics["pairs"] == 0


def test_generated_motions_are_judged_by_the_samples_they_are_named_after(
    trained: Path, dataset: str, tmp_path: Path
) -> None:
    """Copies of the real motions have FID 0 and their R-precision; two of one sentence give a multimodality."""
    samples = list(MotionDataset(dataset))
    for sample in samples:
        _save(tmp_path / f"{sample.key}.npz", sample.motion)
    _save(tmp_path / f"{samples[0].key}-2.npz", samples[1].motion)
    _save(tmp_path / "unknown.npz", samples[0].motion)
    report = evaluate_motions(dataset, evaluator=trained, split="train", generated=str(tmp_path), repeats=3)
    assert report.generated == 13
    assert report.multimodality is not None
    assert report.multimodality.mean > 0
    (tmp_path / f"{samples[0].key}-2.npz").unlink()
    copies = evaluate_motions(dataset, evaluator=trained, split="train", generated=str(tmp_path), repeats=3)
    assert copies.fid == pytest.approx(0.0, abs=1e-6)
    assert copies.generated_retrieval == copies.real
    assert copies.multimodality is None
    assert "FID of 12 motions" in copies.warnings[0]
    assert "40" in copies.warnings[0]


def test_fid_grows_with_every_step_of_noise_and_shuffled_texts_find_nothing(trained: Path, dataset: str) -> None:
    report = bench(dataset, evaluator=str(trained), split="train", training=dataset)
    noise = list(report["fid"]["noise, degrees"].values())
    assert noise == sorted(noise)
    assert noise[0] > 0
    speed = list(report["fid"]["speed"].values())
    assert speed == sorted(speed)
    assert report["retrieval"]["shuffled"]["r1"] < 0.5 * report["retrieval"]["real"]["r1"]
    # The nearest training motions are the motions themselves here.
    assert report["retrieval"]["nearest"]["r1"] >= report["retrieval"]["real"]["r1"]
    assert "R@1" in bench_text(report)


def test_unusable_evaluators_and_motions_are_named(trained: Path, dataset: str, tmp_path: Path) -> None:
    with pytest.raises(HumoError, match="no such checkpoint; pass the output folder of humo train evaluator"):
        evaluate_motions(dataset, evaluator=tmp_path / "nothing")
    with pytest.raises(HumoError, match="contains no checkpoint"):
        evaluate_motions(dataset, evaluator=tmp_path)
    with pytest.raises(HumoError, match="no such folder"):
        evaluate_motions(dataset, evaluator=trained, split="train", generated=str(tmp_path / "nothing"))
    with pytest.raises(HumoError, match="0 usable motions"):
        evaluate_motions(dataset, evaluator=trained, split="train", generated=str(tmp_path))
    key, motion = _motion(dataset)
    _save(tmp_path / f"{key}.npz", motion, body_model="smpl-neutral")
    with pytest.raises(HumoError, match="body smpl-neutral at 30 frames/s, the evaluator judges humo-anny-1"):
        evaluate_motions(dataset, evaluator=trained, split="train", generated=str(tmp_path))
    broken = MotionArrays(**{**vars(motion), "trans": np.full_like(motion.trans, np.nan)})
    with pytest.raises(HumoError, match="trans holds NaN"):
        Judge(trained).vectors([broken])
    (tmp_path / f"{key}.npz").write_bytes(b"no motion")
    with pytest.raises(HumoError, match=r"not a motion \.npz"):
        evaluate_motions(dataset, evaluator=trained, split="train", generated=str(tmp_path))


@pytest.mark.parametrize(("key", "value"), [("body_model", "smpl-neutral"), ("features", "smpl135"), ("fps", 20)])
def test_an_evaluator_of_another_body_layout_or_rate_is_refused(
    trained: Path, tmp_path: Path, key: str, value: object
) -> None:
    shutil.copytree(checkpoints.newest(trained), tmp_path / "copy")
    description = json.loads((tmp_path / "copy" / checkpoints.MODEL).read_text())
    (tmp_path / "copy" / checkpoints.MODEL).write_text(json.dumps({**description, key: value}))
    with pytest.raises(HumoError, match=f"judges {key} {value}"):
        Judge(tmp_path / "copy")


def test_a_padded_motion_has_the_vector_of_an_unpadded_one(trained: Path, dataset: str) -> None:
    """As the judge embeds them: short and long ones in one batch."""
    judge = Judge(trained)
    motions = [sample.motion for sample in MotionDataset(dataset)]
    cut = [MotionArrays(**{name: value if name == "betas" else value[: 25 + 7 * number]
                           for name, value in vars(motion).items()}) for number, motion in enumerate(motions)]  # fmt: skip
    together = judge.vectors(cut)
    for motion, vector in zip(cut, together, strict=True):
        assert torch.allclose(judge.vectors([motion])[0], vector, atol=1e-5)
    assert fid(together, together) == pytest.approx(0.0, abs=1e-6)


def test_the_shipped_config_is_valid() -> None:
    config = load_config(PROJECT_ROOT / "configs" / "evaluator.yaml", EvaluatorTraining, ["optimisation.steps=7"])
    assert config.optimisation.steps == 7
    fields = [field for one in (EvaluatorTraining, type(config.architecture)) for field in one.model_fields.values()]
    assert all(field.description for field in fields)
