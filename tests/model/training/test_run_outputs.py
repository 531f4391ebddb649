"""What a training writes: checkpoints and logs in a bucket, pictures, TensorBoard's event files."""

import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from s3_server import s3_bucket

from model import checkpoints
from model.evaluation.tokenizer import evaluate_tokenizer
from model.training.config import TokenizerTraining
from model.training.reconstruction_picture import draw_reconstruction
from model.training.tokenizer import train_tokenizer
from schemas.config import parse_config
from schemas.errors import HumoError, UsageError
from schemas.storage import Storage

SMALL = {"preset": "tiny", "codebook_size": 16, "code_width": 8, "width": 16}


def _config(dataset: str, output: str, steps: int, **changes: object) -> TokenizerTraining:
    optimisation = {"steps": steps, "batch_size": 4, "learning_rate": 1e-3, "warmup_steps": 2, "bf16": False}
    mapping = {"dataset": dataset, "output": output, "architecture": SMALL, "workers": 0, "device": "cpu", "log_every": 2,
               "save_every": 2, "optimisation": optimisation, **changes}  # fmt: skip
    return parse_config(mapping, TokenizerTraining, "test")


def test_a_run_in_a_bucket_equals_one_in_a_folder_and_resumes(dataset: str, tmp_path: Path) -> None:
    train_tokenizer(_config(dataset, str(tmp_path / "run"), 6))
    with s3_bucket() as bucket:
        output, storage = f"{bucket}/run", Storage(f"{bucket}/run")
        train_tokenizer(_config(dataset, output, 4))
        assert {name.split("/")[0] for name in storage.list("")} == {
            "latest.json", "metrics.jsonl", "curve.png", "step-00000002", "step-00000004",
        }  # fmt: skip
        # A run of six steps, killed after the fourth: its schedule is that of six.
        for name in storage.list(""):
            storage.delete(name)
        _until(4, _config(dataset, output, 6))
        result = train_tokenizer(_config(dataset, output, 6))
        assert result.checkpoint == f"{output}/step-00000006"
        rows = [json.loads(line) for line in storage.read_bytes("metrics.jsonl").splitlines()]
        assert [row["step"] for row in rows] == [2, 4, 6]
        resumed = checkpoints.read_state(checkpoints.newest(output))
        whole = checkpoints.read_state(checkpoints.newest(tmp_path / "run"))
        assert all(torch.equal(whole[name], resumed[name]) for name in whole)
        for path in (output, result.checkpoint):
            assert evaluate_tokenizer(path, dataset, limit=1, evaluator=None).motions == 1
        with pytest.raises(HumoError, match="contains no checkpoint; pass the output folder of humo train tokenizer"):
            checkpoints.find(f"{bucket}/nothing", "tokenizer")


def test_starting_over_keeps_what_the_pointer_names(dataset: str, tmp_path: Path) -> None:
    """Later checkpoints of an earlier run do not count as newer."""
    train_tokenizer(_config(dataset, str(tmp_path), 4))
    _until(0, _config(dataset, str(tmp_path), 4, resume=False))
    assert checkpoints.newest_name(tmp_path) == "step-00000000"
    assert checkpoints.find(tmp_path, "tokenizer")[0].is_dir()


def _until(step: int, config: TokenizerTraining) -> None:
    """Train as a process does that is killed after a step."""
    saved = checkpoints.publish

    def publish(output: str, at: int, *arguments: object, **named: object) -> str:
        done = saved(output, at, *arguments, **named)
        if at == step:
            raise KeyboardInterrupt
        return done

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(checkpoints, "publish", publish)
        with pytest.raises(KeyboardInterrupt):
            train_tokenizer(config)


def test_a_validation_draws_a_reconstruction(dataset: str, tmp_path: Path) -> None:
    train_tokenizer(_config(dataset, str(tmp_path), 2, validate_every=2, validation_samples=2))
    assert (tmp_path / "reconstruction.png").stat().st_size > 10_000
    assert (tmp_path / "reconstruction.png").read_bytes().startswith(b"\x89PNG")


def test_the_picture_shows_both_bodies(tmp_path: Path) -> None:
    """Where both agree, other pixels are drawn than where the reconstruction is a hand's width off."""
    import matplotlib.image

    joints = np.cumsum(np.random.default_rng(0).normal(0, 0.01, (60, 22, 3)), 0) + np.linspace(0, 1.6, 22)[:, None]
    pictures = []
    for number, off in enumerate((0.0, 0.1)):
        draw_reconstruction(joints, joints + off, tmp_path / f"{number}.png", "motion")
        pictures.append(matplotlib.image.imread(tmp_path / f"{number}.png"))
    blue = [((one[..., 2] - one[..., 0]) > 0.3).sum() for one in pictures]
    assert min(blue) > 1000
    assert pictures[0].shape != pictures[1].shape or (pictures[0] != pictures[1]).any(-1).sum() > 1000


@pytest.mark.skipif(not importlib.util.find_spec("tensorboard"), reason="the tensorboard package is not installed")
def test_event_files_hold_the_figures_of_the_log(dataset: str, tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    train_tokenizer(_config(dataset, str(tmp_path), 2, tensorboard=True))
    train_tokenizer(_config(dataset, str(tmp_path), 4, tensorboard=True, validate_every=4, validation_samples=2))
    rows = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    events = EventAccumulator(str(tmp_path / "events"))
    events.Reload()
    assert [one.step for one in events.Scalars("training/loss")] == [2, 4]
    assert [one.value for one in events.Scalars("training/loss")] == pytest.approx([row["loss"] for row in rows])
    (error,) = events.Scalars("validation/mpjpe_mm")
    assert error.value == pytest.approx(rows[-1]["validation_mpjpe_mm"])
    assert events.Images("reconstruction")[0].width > 500


@pytest.mark.skipif(bool(importlib.util.find_spec("tensorboard")), reason="the tensorboard package is installed")
def test_event_files_need_tensorboard(dataset: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="tensorboard: true needs the package tensorboard"):
        train_tokenizer(_config(dataset, str(tmp_path), 2, tensorboard=True))
    assert not checkpoints.newest_name(tmp_path)
