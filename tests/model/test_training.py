"""From shards to a generated motion: trainings, checkpoints, going on after a stop, generation, evaluation."""

import itertools
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from model import checkpoints
from model.config import LanguageModelTraining, TokenizerTraining
from model.data import MotionSample
from model.evaluation import evaluate_llm, evaluate_tokenizer, limb_named
from model.generation import Generator, generate, ground, load_motion, save_motion
from model.train_llm import train_llm
from model.train_tokenizer import load_tokenizer, train_tokenizer
from pipeline import PROJECT_ROOT
from schemas.body_model import BodyModel
from schemas.config import load_config, parse_config
from schemas.errors import HumoError, UsageError
from schemas.kinematics import forward_kinematics
from stages.synthesis.motions import generate as studio_motion

CONFIGS = PROJECT_ROOT / "configs"
SMALL = {"preset": "tiny", "codebook_size": 16, "code_width": 8, "width": 16}
SMALL_LLM = {
    "preset": "tiny",
    "width": 32,
    "layers": 2,
    "heads": 2,
    "step_width": 16,
    "step_layers": 1,
    "step_heads": 2,
}


def _tokenizer_config(dataset: str, output: Path, steps: int, **changes: object) -> TokenizerTraining:
    optimisation = {"steps": steps, "batch_size": 4, "learning_rate": 1e-3, "warmup_steps": 2, "bf16": False}
    mapping = {"dataset": dataset, "output": str(output), "architecture": SMALL, "workers": 0, "device": "cpu",
               "log_every": 2, "save_every": 4, "optimisation": optimisation, **changes}  # fmt: skip
    return parse_config(mapping, TokenizerTraining, "test")


def _llm_config(dataset: str, tokenizer: Path, output: Path, steps: int) -> LanguageModelTraining:
    optimisation = {"steps": steps, "batch_size": 4, "learning_rate": 1e-3, "warmup_steps": 2, "bf16": False}
    mapping = {"dataset": dataset, "tokenizer": str(tokenizer), "output": str(output), "architecture": SMALL_LLM,
               "workers": 0, "device": "cpu", "log_every": 2, "optimisation": optimisation, "text_vocabulary": 400}  # fmt: skip
    return parse_config(mapping, LanguageModelTraining, "test")


@pytest.fixture(scope="module")
def trained(dataset: str, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Outputs of a tokenizer and of a language model after a few steps."""
    root = tmp_path_factory.mktemp("trained")
    train_tokenizer(_tokenizer_config(dataset, root / "tokenizer", 6))
    train_llm(_llm_config(dataset, root / "tokenizer", root / "llm", 6))
    return root / "tokenizer", root / "llm"


def _weights(path: Path) -> dict[str, Tensor]:
    return checkpoints.read_state(checkpoints.newest(path))


def test_a_stopped_training_ends_where_an_unbroken_one_does(dataset: str, tmp_path: Path) -> None:
    train_tokenizer(_tokenizer_config(dataset, tmp_path / "whole", 8))
    # A cosine over 8 steps, stopped after 4 by a crash: the later checkpoint is gone.
    train_tokenizer(_tokenizer_config(dataset, tmp_path / "broken", 8))
    for folder in (tmp_path / "broken").glob("step-00000008"):
        folder.rename(tmp_path / "lost")
    (tmp_path / "broken" / "latest.json").write_text(json.dumps({"checkpoint": "step-00000004"}))
    result = train_tokenizer(_tokenizer_config(dataset, tmp_path / "broken", 8))
    assert result.steps == 8
    whole, resumed = _weights(tmp_path / "whole"), _weights(tmp_path / "broken")
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)


def test_what_a_training_leaves(trained: tuple[Path, Path]) -> None:
    for output in trained:
        rows = [json.loads(line) for line in (output / "metrics.jsonl").read_text().splitlines()]
        assert [row["step"] for row in rows] == [2, 4, 6]
        assert (output / "curve.png").stat().st_size > 1000
        names = {path.name for path in output.iterdir()}
        assert not any("partial" in name for name in names)
        assert "step-00000006" in names
    assert not list(trained[1].rglob("tokenizer/training*"))


def test_checkpoints_that_do_not_serve(trained: tuple[Path, Path], dataset: str, tmp_path: Path) -> None:
    with pytest.raises(HumoError, match="no such checkpoint"):
        load_tokenizer(tmp_path / "nothing")
    with pytest.raises(HumoError, match="not of a language_model"):
        generate(trained[0], "walk")
    with pytest.raises(HumoError, match="holds no checkpoint"):
        load_tokenizer(tmp_path)
    with pytest.raises(UsageError, match="another architecture"):
        train_tokenizer(_tokenizer_config(dataset, trained[0], 9, architecture={**SMALL, "width": 24}))
    with pytest.raises(UsageError, match="device"):
        train_tokenizer(_tokenizer_config(dataset, tmp_path, 9, device="quantum"))


def test_generation(trained: tuple[Path, Path], tmp_path: Path, dataset_sample: MotionSample) -> None:
    maker = Generator(trained[1])
    made = maker.generate("a person waves", seconds=2.0, seed=1)
    assert made.motion.poses.shape == (60, 24, 3)
    again = maker.generate("a person waves", seconds=2.0, seed=1)
    assert np.array_equal(made.motion.poses, again.motion.poses)
    other = maker.generate("a person waves", seconds=2.0, seed=2)
    assert not np.array_equal(made.motion.poses, other.motion.poses)
    save_motion(tmp_path / "wave.npz", made)
    loaded = load_motion(tmp_path / "wave.npz")
    assert np.array_equal(loaded.poses, made.motion.poses)
    with np.load(tmp_path / "wave.npz") as arrays:
        assert arrays["fps"] == 30
        assert str(arrays["body_model"]) == made.body_model == BodyModel.load().id
    assert maker.generate("walk", seed=3).seconds <= 10.0
    assert isinstance(maker.describe(dataset_sample.motion), str)
    for options in (
        {"text": " "},
        {"text": "a", "seconds": -1.0},
        {"text": "a", "seconds": 1e4},
        {"text": "a", "temperature": -1.0},
    ):
        with pytest.raises(UsageError):
            maker.generate(**options)
    with pytest.raises(HumoError):
        load_motion(tmp_path / "missing.npz")


def test_streamed_frames_are_seamless(trained: tuple[Path, Path]) -> None:
    """Step by step or at once: the same frames, paths included."""
    from model import features

    maker = Generator(trained[1])
    options = {"seconds": 2.0, "seed": 4}
    pieces = list(maker.frames("a person walks", **options))
    assert [len(trans) for _, trans in pieces] == [4] * 15
    codes = torch.stack(list(maker.codes("a person walks", **options)))[None]
    with torch.inference_mode():
        rows = maker.tokenizer.decode(codes)[0]
    rotations, trans = features.decode(rows, maker.rest_joints)
    assert torch.allclose(torch.cat([t for _, t in pieces]), trans, atol=1e-4)
    assert torch.allclose(torch.cat([r for r, _ in pieces]), rotations, atol=1e-3)


def test_going_on_from_a_motion(trained: tuple[Path, Path], dataset_sample: MotionSample) -> None:
    maker = Generator(trained[1])
    initial = dataset_sample.motion
    rotations, trans = next(iter(maker.frames("go on", seconds=1.0, initial=initial)))
    place = torch.from_numpy(initial.trans[-1])
    assert (trans[0] - place)[[0, 2]].norm() < 0.2
    assert rotations.shape == (4, 24, 3, 3)


def test_the_lowest_sole_is_on_the_ground(body: BodyModel) -> None:
    made = studio_motion("walk", 3.0, 1, body=body, betas=torch.zeros(10))
    lifted = made.trans + torch.tensor([0.0, 0.7, 0.0])
    trans, standing = ground(made.rotations, lifted, body)
    joints, turns = forward_kinematics(made.rotations, body.rest_joints(torch.zeros(10)), trans)
    soles = body.contact_rig().points(turns, joints, torch.zeros(10))
    assert abs(soles[..., 1].min()) < 0.02
    assert (standing == made.contacts).float().mean() > 0.8


def test_evaluation(trained: tuple[Path, Path], dataset: str) -> None:
    report = evaluate_tokenizer(trained[0], dataset)
    assert report.motions == 12
    assert 1 < report.mpjpe_mm < 2000
    assert len(report.codebook_usage) == 4
    language = evaluate_llm(trained[1], dataset, limit=4, exchange_prompts=1)
    assert language.motion_perplexity < 40
    assert language.exchange_prompts == 1
    with pytest.raises(HumoError, match="no samples"):
        evaluate_tokenizer(trained[0], dataset, split="test")


def test_limbs_in_sentences() -> None:
    assert limb_named("A person waves with the left hand.") == ("left", "wrist")
    assert limb_named("kicks with the right foot") == ("right", "ankle")
    assert limb_named("turns left") is None
    assert limb_named("waves with the left and the right hand") is None


def test_shipped_configs_are_valid() -> None:
    kinds = {"tokenizer": TokenizerTraining, "llm": LanguageModelTraining}
    for name, model in kinds.items():
        whole = load_config(CONFIGS / f"{name}.yaml", model)
        tiny = load_config(CONFIGS / f"{name}_tiny.yaml", model, ["optimisation.steps=7", "seed=3"])
        assert tiny.optimisation.steps == 7
        assert tiny.architecture.width < whole.architecture.width
        described = [field for one in (model, type(whole.architecture)) for field in one.model_fields.values()]
        assert all(field.description for field in described)


def test_metrics_are_written_in_order(trained: tuple[Path, Path]) -> None:
    for before, after in itertools.pairwise((trained[0] / "metrics.jsonl").read_text().splitlines()):
        assert json.loads(before)["step"] < json.loads(after)["step"]
