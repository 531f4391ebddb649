"""From shards to a generated motion: training, checkpoints, resuming, generation, evaluation."""

import itertools
import json
import math
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from motion_datasets import write_dataset
from torch import Tensor

from model import checkpoints
from model.data.dataset import MotionDataset
from model.data.samples import MotionSample
from model.evaluation.limbs import parse_limb
from model.evaluation.llm import evaluate_llm
from model.evaluation.tokenizer import evaluate_tokenizer
from model.features.layouts import LAYOUTS
from model.features.motions import motion_features
from model.generation.generator import Generator, Request, Sampling, generate
from model.generation.ground import align_to_ground
from model.generation.motion_files import load_motion, save_motion
from model.llm.loading import TEXT_VOCABULARY, export, load_llm
from model.tokenizer.motion_tokenizer import load_tokenizer
from model.training.config import LanguageModelTraining, Optimisation, TokenizerTraining
from model.training.llm import train_llm
from model.training.loop import drawn_samples
from model.training.tokenizer import train_tokenizer
from pipeline import PROJECT_ROOT
from schemas.body_model import BodyModel
from schemas.config import load_config, parse_config
from schemas.dataset import read_description, write_description
from schemas.errors import HumoError, UsageError
from schemas.kinematics import forward_kinematics
from schemas.rotations import axis_angle_to_matrix
from schemas.skeleton import SMPL_JOINTS
from schemas.storage import Storage
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


def test_resuming_with_averages_and_accumulation(dataset: str, tmp_path: Path) -> None:
    """Weights, their running means and the optimiser continue as if nothing had happened."""
    changes = {
        "steps": 6, "batch_size": 2, "accumulate": 2, "ema": 0.8, "learning_rate": 1e-3, "warmup_steps": 2, "bf16": False
    }  # fmt: skip
    for name in ("whole", "broken"):
        train_tokenizer(_tokenizer_config(dataset, tmp_path / name, 6, optimisation=changes, validate_every=6))
    shutil.rmtree(tmp_path / "broken" / "step-00000006")
    (tmp_path / "broken" / "latest.json").write_text(json.dumps({"checkpoint": "step-00000004"}))
    train_tokenizer(_tokenizer_config(dataset, tmp_path / "broken", 6, optimisation=changes, validate_every=6))
    whole, resumed = _weights(tmp_path / "whole"), _weights(tmp_path / "broken")
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)
    raw = checkpoints.read_state(checkpoints.newest(tmp_path / "whole"), checkpoints.TRAINING_STATE)
    assert not torch.equal(raw["raw/encoder.last.weight"], whole["encoder.last.weight"])
    last = json.loads((tmp_path / "whole" / "metrics.jsonl").read_text().splitlines()[-1])
    assert last["validation_mpjpe_mm"] > 0
    assert 0 < last["validation_codebook_usage"] <= 1


def test_a_run_resumes_with_the_vocabulary_and_tokenizer_it_began_with(
    dataset: str, uneven_dataset: str, tmp_path: Path
) -> None:
    for name, seed in (("tokenizer", 0), ("other", 1)):
        train_tokenizer(_tokenizer_config(dataset, tmp_path / name, 2, seed=seed))
    config = _llm_config(dataset, tmp_path / "tokenizer", tmp_path / "llm", 2)
    train_llm(config)
    begun = (checkpoints.newest(tmp_path / "llm") / TEXT_VOCABULARY).read_text()
    # Other samples, whose sentences would teach other tokens.
    train_llm(config.model_copy(update={"dataset": uneven_dataset, "optimisation": _steps(config, 3)}))
    assert (checkpoints.newest(tmp_path / "llm") / TEXT_VOCABULARY).read_text() == begun
    other = config.model_copy(update={"tokenizer": str(tmp_path / "other")})
    with pytest.raises(UsageError, match=r"began with the tokenizer \w{12}, .*other is \w{12}"):
        train_llm(other)
    with pytest.raises(UsageError, match="began with text_vocabulary 400, now 401"):
        train_llm(config.model_copy(update={"text_vocabulary": 401}))


def _steps(config: LanguageModelTraining, steps: int) -> Optimisation:
    return config.optimisation.model_copy(update={"steps": steps})


def test_vocabulary_and_statistics_come_from_the_whole_split(dataset: str, tmp_path: Path) -> None:
    """Not from the samples that happen to be stored first."""
    config = _tokenizer_config(dataset, tmp_path, 2)
    stored = [sample.key for sample in MotionDataset(dataset)]
    drawn = [sample.key for sample in drawn_samples(config, 4)]
    assert drawn == [key for key in stored if key in drawn]
    assert drawn == [sample.key for sample in drawn_samples(config, 4)]
    assert drawn != stored[:4]
    assert [sample.key for sample in drawn_samples(config, 99)] == stored


def test_short_clips_are_left_out(body: BodyModel, tmp_path: Path) -> None:
    """A batch of short clips only draws others; a split of short clips only is an error that names its longest."""
    mixed = write_dataset(tmp_path / "mixed", clips=4, shards=4, seconds=2.0)
    long = write_dataset(tmp_path / "long", clips=1, shards=1, seconds=5.0)
    description = read_description(Storage(mixed))
    entry = replace(read_description(Storage(long)).shards[0], path="shards/mocap/train-000009.tar")
    shutil.copy(tmp_path / "long" / "shards" / "mocap" / "train-000000.tar", tmp_path / "mixed" / entry.path)
    write_description(Storage(mixed), replace(description, shards=[*description.shards, entry]))
    optimisation = {"steps": 4, "batch_size": 1, "learning_rate": 1e-3, "warmup_steps": 2, "bf16": False}
    changes = {"window": 100, "optimisation": optimisation}
    assert train_tokenizer(_tokenizer_config(mixed, tmp_path / "out", 4, **changes)).steps == 4
    with pytest.raises(HumoError, match="more than 200 frames, the longest 150"):
        train_tokenizer(_tokenizer_config(mixed, tmp_path / "none", 4, **{**changes, "window": 200}))


def test_features_are_the_same_under_autocast(dataset_sample: MotionSample, body: BodyModel) -> None:
    for features in LAYOUTS:
        expected = motion_features([dataset_sample.motion], body, features)
        with torch.autocast("cpu", torch.bfloat16):
            assert torch.equal(motion_features([dataset_sample.motion], body, features), expected)


def test_training_outputs(trained: tuple[Path, Path]) -> None:
    for output in trained:
        rows = [json.loads(line) for line in (output / "metrics.jsonl").read_text().splitlines()]
        assert [row["step"] for row in rows] == [2, 4, 6]
        assert (output / "curve.png").stat().st_size > 1000
        names = {path.name for path in output.iterdir()}
        assert not any("partial" in name for name in names)
        assert "step-00000006" in names
    assert not list(trained[1].rglob("tokenizer/training*"))


def test_a_checkpoint_without_settings_that_came_later_resumes(dataset: str, tmp_path: Path) -> None:
    train_tokenizer(_tokenizer_config(dataset, tmp_path, 2))
    path = tmp_path / "step-00000002" / checkpoints.MODEL
    description = json.loads(path.read_text())
    del description["architecture"]["lookahead"]
    path.write_text(json.dumps(description))
    assert train_tokenizer(_tokenizer_config(dataset, tmp_path, 4)).steps == 4


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
    (tmp_path / "text.npz").write_text("no archive")
    with pytest.raises(HumoError, match="not a motion"):
        load_motion(tmp_path / "text.npz")


def test_streaming_equals_decoding_at_once(trained: tuple[Path, Path]) -> None:
    """The same frames, root path included."""
    from model.features import humo263

    generator = Generator(trained[1])
    options = {"seconds": 2.0, "seed": 4}
    chunks = list(generator.frames("a person walks", **options))
    assert [len(trans) for _, trans in chunks] == [4] * 15
    codes = torch.stack(list(generator.steps(Request(text="a person walks", seconds=2.0), Sampling(seed=4))))[None]
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


def test_a_body_on_its_hands_or_side_is_aligned_to_the_ground(body: BodyModel) -> None:
    """Its feet in the air are not taken for the ground."""
    motion = synthetic_motion("walk", 2.0, 1, body=body, betas=torch.zeros(10))
    for axis, angle, lowest in (
        ((1.0, 0, 0), math.pi, ("left_hand", "head")),
        ((0, 0, 1.0), math.pi / 2, ("right_shoulder",)),
    ):
        rotations = motion.rotations.clone()
        rotations[:, 0] = axis_angle_to_matrix(torch.tensor(axis) * angle)
        trans, contacts = align_to_ground(rotations, motion.trans + torch.tensor([0.0, 0.4, 0.0]), body)
        joints = forward_kinematics(rotations, body.rest_joints(torch.zeros(10)), trans)[0]
        assert joints[..., 1].min() > 0
        low = min(joints[:, SMPL_JOINTS.index(name), 1].min().item() for name in lowest)
        assert low < 0.25
        assert not contacts[:, 2:].any() or angle < math.pi


def test_evaluation(trained: tuple[Path, Path], dataset: str) -> None:
    report = evaluate_tokenizer(trained[0], dataset)
    assert report.motions == 12
    assert 1 < report.mpjpe_mm < 2000
    assert len(report.codebook_usage) == 4
    language = evaluate_llm(trained[1], dataset, limit=4, exchange_prompts=1)
    assert language.motion_perplexity < 40
    assert language.exchange_prompts == 1
    assert language.generation is None
    with pytest.raises(HumoError, match="no samples"):
        evaluate_tokenizer(trained[0], dataset, split="test")


def test_what_it_generates_stands_beside_rivals(trained: tuple[Path, Path], dataset: str) -> None:
    report = evaluate_llm(trained[1], dataset, limit=1, exchange_prompts=0, generated=4, seeds=2).generation
    assert report is not None
    assert (report.t2m.texts, report.t2m.seeds) == (4, 2)
    assert report.t2m.multimodality is not None
    # Motions of a model that has learned nothing are far from all motions, and further than the split's own.
    assert report.t2m.to_nearest_training_motion > report.t2m.real_to_nearest_training_motion > 0
    assert report.t2m.fid > report.t2m.nearest_sentence_fid
    assert report.prediction is not None
    assert report.prediction.error_mm["0.5"] > 0
    assert report.prediction.still_mm["1"] > 0
    assert report.m2t.different <= 4
    assert report.m2t.scores.sentences == 4
    assert report.frames_per_s > 0
    assert 0 < report.first_frame_ms < 60_000
    with pytest.raises(HumoError, match="1 motions with a sentence in val, two are needed"):
        evaluate_llm(trained[1], dataset, limit=1, exchange_prompts=0, generated=1)


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
        if name == "tokenizer":
            fast = load_config(CONFIGS / "tokenizer_fast.yaml", model)
            assert all(one.window >= one.architecture.encoder_frames for one in (whole, tiny, fast))
        fields = [field for config in (model, type(whole.architecture)) for field in config.model_fields.values()]
        assert all(field.description for field in fields)


def test_metrics_are_written_in_order(trained: tuple[Path, Path]) -> None:
    for before, after in itertools.pairwise((trained[0] / "metrics.jsonl").read_text().splitlines()):
        assert json.loads(before)["step"] < json.loads(after)["step"]


def test_what_a_run_uses_is_printed(
    dataset: str, tmp_path: Path, trained: tuple[Path, Path], capsys: pytest.CaptureFixture
) -> None:
    config = _llm_config(dataset, trained[0], tmp_path / "llm", 1)
    train_llm(config.model_copy(update={"tasks": ["t2m", "i2m_image"]}))
    printed = capsys.readouterr().out
    assert "t2m: " in printed
    assert "not among tasks" in printed


def test_kept_parts_are_kept(trained: tuple[Path, Path]) -> None:
    """Their codes are those of the motion, whatever the text; the others are made anew."""
    generator = Generator(trained[1])
    motion = generator.generate("a person walks", seconds=1.6, seed=1).motion
    codes = generator.encode_motion(motion)[0]
    request = Request(text="wave", keep=motion, parts=("left_arm",))
    found = torch.stack(list(generator.steps(request, Sampling(seed=5))))
    assert len(found) == len(codes)
    kept = [part != "left_arm" for part in generator.parts]
    assert torch.equal(found[:, kept], codes[:, kept])
    assert not torch.equal(found, codes)
    for wrong in ({"keep": motion}, {"parts": ("left_arm",)}, {"keep": motion, "parts": ("tail",)},
                  {"keep": motion, "parts": ("torso",), "initial": motion}):  # fmt: skip
        with pytest.raises(UsageError):
            generator.generate("wave", **wrong)


def test_exported_models_load(trained: tuple[Path, Path], tmp_path: Path, dataset: str) -> None:
    """Half the size, the same codes; a decoder that was trained on takes the place of the one before."""
    changes = {"decoder_of": str(trained[0]), "resume": False}
    train_tokenizer(_tokenizer_config(dataset, tmp_path / "decoder", 3, **changes))
    folder = export(trained[1], tmp_path / "exported", tokenizer=tmp_path / "decoder")
    before, after = load_llm(trained[1]), load_llm(folder)
    rows = torch.randn(1, 40, 263)
    assert torch.equal(before.tokenizer.encode(rows), after.tokenizer.encode(rows))
    codes = before.tokenizer.encode(rows)
    assert not torch.allclose(before.tokenizer.decode(codes), after.tokenizer.decode(codes), atol=1e-3)
    state, exported = _weights(trained[1]), checkpoints.read_state(folder)
    assert all(torch.allclose(state[name].float(), exported[name].float(), atol=1e-2) for name in state)
    assert "training" not in json.loads((folder / checkpoints.MODEL).read_text())
    assert json.loads((folder / checkpoints.MODEL).read_text())["licences"]
    other = tmp_path / "other"
    train_tokenizer(_tokenizer_config(dataset, other, 2, seed=5))
    with pytest.raises(UsageError, match="its codes are others"):
        export(trained[1], tmp_path / "wrong", tokenizer=other)
    with pytest.raises(UsageError, match="another architecture"):
        train_tokenizer(_tokenizer_config(dataset, tmp_path / "x", 3, **changes, architecture={**SMALL, "width": 24}))


def test_a_later_stage_starts_from_an_earlier_one(trained: tuple[Path, Path], tmp_path: Path, dataset: str) -> None:
    config = _llm_config(dataset, trained[0], tmp_path / "second", 1)
    rate = config.optimisation.model_copy(update={"learning_rate": 1e-9})
    train_llm(config.model_copy(update={"initial": str(trained[1]), "optimisation": rate, "tasks": ["m2t"]}))
    first, second = _weights(trained[1]), _weights(tmp_path / "second")
    assert all(torch.allclose(first[name], second[name], atol=1e-4) for name in first)
    train_tokenizer(_tokenizer_config(dataset, tmp_path / "other", 2, seed=5))
    other = _llm_config(dataset, tmp_path / "other", tmp_path / "third", 1)
    with pytest.raises(UsageError, match="another tokenizer"):
        train_llm(other.model_copy(update={"initial": str(trained[1])}))
