"""From shards to a generated motion: training, checkpoints, resuming, generation, evaluation."""

import itertools
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from model import checkpoints
from model.data.dataset import MotionDataset
from model.data.samples import MotionSample, slice_frames
from model.evaluation.llm import evaluate_llm, parse_limb
from model.evaluation.tokenizer import evaluate_tokenizer
from model.generation.generator import Generator, align_to_ground, generate, load_motion, save_motion
from model.llm.loading import load_llm
from model.tokenizer.motion_tokenizer import load_tokenizer
from model.training.config import LanguageModelTraining, TokenizerTraining
from model.training.llm import _LanguageTask, train_llm
from model.training.tokenizer import train_tokenizer
from pipeline import PROJECT_ROOT
from schemas.body_model import BodyModel
from schemas.config import load_config, parse_config
from schemas.errors import HumoError, UsageError
from schemas.kinematics import forward_kinematics
from stages.synthesis.motions import generate as synthetic_motion

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
    """Output folders of a tokenizer and a language model trained for a few steps."""
    root = tmp_path_factory.mktemp("trained")
    train_tokenizer(_tokenizer_config(dataset, root / "tokenizer", 6))
    train_llm(_llm_config(dataset, root / "tokenizer", root / "llm", 6))
    return root / "tokenizer", root / "llm"


def _weights(path: Path) -> dict[str, Tensor]:
    return checkpoints.read_state(checkpoints.newest(path))


def test_resumed_training_equals_an_uninterrupted_one(dataset: str, tmp_path: Path) -> None:
    train_tokenizer(_tokenizer_config(dataset, tmp_path / "whole", 8))
    # A cosine schedule over 8 steps, interrupted after 4: the later checkpoint is missing.
    train_tokenizer(_tokenizer_config(dataset, tmp_path / "broken", 8))
    for folder in (tmp_path / "broken").glob("step-00000008"):
        folder.rename(tmp_path / "lost")
    (tmp_path / "broken" / "latest.json").write_text(json.dumps({"checkpoint": "step-00000004"}))
    result = train_tokenizer(_tokenizer_config(dataset, tmp_path / "broken", 8))
    assert result.steps == 8
    whole, resumed = _weights(tmp_path / "whole"), _weights(tmp_path / "broken")
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)


def test_training_outputs(trained: tuple[Path, Path]) -> None:
    for output in trained:
        rows = [json.loads(line) for line in (output / "metrics.jsonl").read_text().splitlines()]
        assert [row["step"] for row in rows] == [2, 4, 6]
        assert (output / "curve.png").stat().st_size > 1000
        names = {path.name for path in output.iterdir()}
        assert not any("partial" in name for name in names)
        assert "step-00000006" in names
    assert not list(trained[1].rglob("tokenizer/training*"))


def test_unusable_checkpoints_raise(trained: tuple[Path, Path], dataset: str, tmp_path: Path) -> None:
    with pytest.raises(HumoError, match="no such checkpoint"):
        load_tokenizer(tmp_path / "nothing")
    with pytest.raises(HumoError, match="not of a language_model"):
        generate(trained[0], "walk")
    with pytest.raises(HumoError, match="contains no checkpoint"):
        load_tokenizer(tmp_path)
    with pytest.raises(UsageError, match="another architecture"):
        train_tokenizer(_tokenizer_config(dataset, trained[0], 9, architecture={**SMALL, "width": 24}))
    with pytest.raises(UsageError, match="device"):
        train_tokenizer(_tokenizer_config(dataset, tmp_path, 9, device="quantum"))


def test_generation(trained: tuple[Path, Path], tmp_path: Path, dataset_sample: MotionSample) -> None:
    generator = Generator(trained[1])
    generated = generator.generate("a person waves", seconds=2.0, seed=1)
    assert generated.motion.poses.shape == (60, 24, 3)
    again = generator.generate("a person waves", seconds=2.0, seed=1)
    assert np.array_equal(generated.motion.poses, again.motion.poses)
    other = generator.generate("a person waves", seconds=2.0, seed=2)
    assert not np.array_equal(generated.motion.poses, other.motion.poses)
    save_motion(tmp_path / "wave.npz", generated)
    loaded = load_motion(tmp_path / "wave.npz")
    assert np.array_equal(loaded.poses, generated.motion.poses)
    with np.load(tmp_path / "wave.npz") as arrays:
        assert arrays["fps"] == 30
        assert str(arrays["body_model"]) == generated.body_model == BodyModel.load().id
    assert generator.generate("walk", seed=3).seconds <= 10.0
    assert isinstance(generator.describe(dataset_sample.motion), str)
    for options in (
        {"text": " "},
        {"text": "a", "seconds": -1.0},
        {"text": "a", "seconds": 1e4},
        {"text": "a", "temperature": -1.0},
    ):
        with pytest.raises(UsageError):
            generator.generate(**options)
    with pytest.raises(HumoError):
        load_motion(tmp_path / "missing.npz")


def test_streaming_equals_decoding_at_once(trained: tuple[Path, Path]) -> None:
    """The same frames, root path included."""
    from model.features import humo263

    generator = Generator(trained[1])
    options = {"seconds": 2.0, "seed": 4}
    chunks = list(generator.frames("a person walks", **options))
    assert [len(trans) for _, trans in chunks] == [4] * 15
    codes = torch.stack(list(generator.codes("a person walks", **options)))[None]
    with torch.inference_mode():
        rows = generator.tokenizer.decode(codes)[0]
    rotations, trans = humo263.decode(rows, generator.rest_joints)
    assert torch.allclose(torch.cat([t for _, t in chunks]), trans, atol=1e-4)
    assert torch.allclose(torch.cat([r for r, _ in chunks]), rotations, atol=1e-3)


def test_continuing_a_motion(trained: tuple[Path, Path], dataset_sample: MotionSample) -> None:
    generator = Generator(trained[1])
    initial = dataset_sample.motion
    rotations, trans = next(iter(generator.frames("go on", seconds=1.0, initial=initial)))
    last_trans = torch.from_numpy(initial.trans[-1])
    assert (trans[0] - last_trans)[[0, 2]].norm() < 0.2
    assert rotations.shape == (4, 24, 3, 3)


def test_soles_are_aligned_to_the_ground(body: BodyModel) -> None:
    motion = synthetic_motion("walk", 3.0, 1, body=body, betas=torch.zeros(10))
    lifted = motion.trans + torch.tensor([0.0, 0.7, 0.0])
    trans, contacts = align_to_ground(motion.rotations, lifted, body)
    joints, global_rotations = forward_kinematics(motion.rotations, body.rest_joints(torch.zeros(10)), trans)
    soles = body.contact_rig().points(global_rotations, joints, torch.zeros(10))
    assert abs(soles[..., 1].min()) < 0.02
    assert (contacts == motion.contacts).float().mean() > 0.8


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


def test_parse_limb() -> None:
    assert parse_limb("A person waves with the left hand.") == ("left", "wrist")
    assert parse_limb("kicks with the right foot") == ("right", "ankle")
    assert parse_limb("turns left") is None
    assert parse_limb("waves with the left and the right hand") is None


def test_shipped_configs_are_valid() -> None:
    kinds = {"tokenizer": TokenizerTraining, "llm": LanguageModelTraining}
    for name, model in kinds.items():
        whole = load_config(CONFIGS / f"{name}.yaml", model)
        tiny = load_config(CONFIGS / f"{name}_tiny.yaml", model, ["optimisation.steps=7", "seed=3"])
        assert tiny.optimisation.steps == 7
        assert tiny.architecture.width < whole.architecture.width
        fields = [field for config in (model, type(whole.architecture)) for field in config.model_fields.values()]
        assert all(field.description for field in fields)


def test_metrics_are_written_in_order(trained: tuple[Path, Path]) -> None:
    for before, after in itertools.pairwise((trained[0] / "metrics.jsonl").read_text().splitlines()):
        assert json.loads(before)["step"] < json.loads(after)["step"]


def test_motions_encoded_together_have_the_codes_of_each_alone(trained: tuple[Path, Path], dataset: str) -> None:
    """Motions of different lengths, as on a GPU; mirror images too."""
    loaded = load_llm(trained[1])
    config = _llm_config(dataset, trained[0], trained[1], 6)
    samples = [
        replace(sample, motion=slice_frames(sample.motion, 0, 40 + 17 * number))
        for number, sample in enumerate(itertools.islice(MotionDataset(dataset), 4))
    ]
    together, alone = (
        _LanguageTask(loaded.model, config, BodyModel.load(), loaded.tokenizer, loaded.vocabulary, trained[0])
        for _ in range(2)
    )
    together.encode_together(samples)
    together.encode_together(samples)
    assert len(together._codes) == 8
    for (key, mirrored), codes in together._codes.items():
        (sample,) = (sample for sample in samples if sample.key == key)
        expected = alone._encode(sample, mirrored)
        assert codes.shape == expected.shape
        assert (codes == expected).float().mean() > 0.99  # a code changes where two are equally near
