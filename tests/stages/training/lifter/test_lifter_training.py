"""Training and resuming, the exported weights, and clips fitted with them."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from pipeline import PROJECT_ROOT
from schemas.body_model import BodyModel
from schemas.config import load_config
from schemas.errors import HumoError, UsageError
from stages.recovery.lifter.fitter import LiftFitter
from stages.recovery.lifter.network import NetworkConfig
from stages.recovery.lifter.rigs import Rigs
from stages.recovery.lifter.weights import export, load_weights
from stages.recovery.lifter.weights import main as export_command
from stages.recovery.lifter.world import ClipObservation
from stages.recovery.protocol import Fit
from stages.training.lifter import motion_dataset
from stages.training.lifter.evaluate import evaluate, make_cases, summary
from stages.training.lifter.settings import LifterTraining
from stages.training.lifter.train import main, train
from stages.training.runs import learning_rate

SMALL = NetworkConfig(width=32, layers=1, heads=2, feed_forward=32)
CONFIG = PROJECT_ROOT / "configs" / "lifter.yaml"


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a training of a few steps."""
    output = tmp_path_factory.mktemp("lifter")
    train(_config(output, steps=6))
    return output


def _config(output: Path, steps: int) -> LifterTraining:
    return LifterTraining(
        output=str(output), network=SMALL, studio_seeds=1, window=24, batch_size=4, steps=steps, warmup_steps=2,
        log_every=2, validate_every=3, bf16=False, device="cpu", save_every_s=1e-6,
    )  # fmt: skip


def test_training_logs_and_resumes_exactly(trained: Path, tmp_path: Path) -> None:
    rows = [json.loads(line) for line in (trained / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows if "loss" in row] == [2, 4, 6]
    assert {"clean_mpjpe", "noisy_tilt"} <= set(rows[-1])
    assert (trained / "curve.png").stat().st_size > 1000
    state = torch.load(trained / "checkpoint.pt", weights_only=True)
    # Interrupted after three steps of the same schedule, then resumed.
    config = _config(tmp_path, steps=6)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("stages.training.lifter.train.learning_rate", _stop_after(3))
        with pytest.raises(KeyboardInterrupt):
            train(config)
    assert torch.load(tmp_path / "checkpoint.pt", weights_only=True)["step"] == 3
    train(config)
    resumed = torch.load(tmp_path / "checkpoint.pt", weights_only=True)
    for name, value in resumed["average"].items():
        torch.testing.assert_close(value, state["average"][name], atol=1e-6, rtol=1e-5)
    restarted = _config(tmp_path / "restarted", steps=1).model_copy(
        update={"start": str(tmp_path / "checkpoint.pt"), "learning_rate": 1e-9}
    )
    train(restarted)
    for name, value in torch.load(tmp_path / "restarted/checkpoint.pt", weights_only=True)["model"].items():
        torch.testing.assert_close(value, resumed["average"][name], atol=1e-6, rtol=1e-5)
    with pytest.raises(UsageError, match="no such checkpoint"):
        train(restarted.model_copy(update={"start": str(tmp_path / "nowhere.pt")}))
    with pytest.raises(UsageError, match="another network"):
        train(config.model_copy(update={"network": NetworkConfig(width=16, layers=1, heads=2, feed_forward=16)}))


def _stop_after(steps: int):
    def rate(step: int, config: LifterTraining) -> float:
        if step == steps:
            raise KeyboardInterrupt
        return learning_rate(step, config)

    return rate


def test_exported_weights_can_be_interpolated_from_the_starting_ones(trained: Path, tmp_path: Path) -> None:
    first, middle, last = (tmp_path / f"{name}.safetensors" for name in ("first", "middle", "last"))
    export(trained / "checkpoint.pt", first)
    output = tmp_path / "second"
    train(_config(output, steps=4).model_copy(update={"start": str(first), "seed": 3}))
    assert export_command([str(output / "checkpoint.pt"), str(last)]) == 0
    assert export_command([str(output / "checkpoint.pt"), str(middle), "0.25"]) == 0
    start, final, mean = (load_weights(path) for path in (first, last, middle))
    for name, value in mean.model.state_dict().items():
        ends = (weights.model.state_dict()[name] for weights in (start, final))
        torch.testing.assert_close(value, torch.lerp(*ends, 0.25), atol=2e-3, rtol=2e-3)
    assert start.precision is not None
    assert final.precision is not None
    assert mean.precision is not None
    torch.testing.assert_close(mean.precision, torch.lerp(start.precision, final.precision, 0.25))


def test_exported_weights_fit_clips(
    trained: Path, tmp_path: Path, body: BodyModel, rigs: Rigs, dataset: motion_dataset.MotionDataset
) -> None:
    weights = tmp_path / "lifter.safetensors"
    export(trained / "checkpoint.pt", weights)
    loaded = load_weights(weights)
    assert loaded.window == 24
    assert loaded.version.startswith("lifter ")
    assert loaded.model.config == SMALL
    assert loaded.precision is not None
    assert bool((torch.linalg.eigvalsh(loaded.precision) > 0).all())
    cases = make_cases(dataset, rigs, noise=1.0)[:2]
    fitter = LiftFitter(body, weights=weights)
    fits, single = fitter.fit([case.clip for case in cases]), fitter.fit([cases[1].clip])[0]
    assert isinstance(single, Fit)
    for one, other in zip(fits, [fits[0], single], strict=True):
        assert isinstance(one, Fit)
        assert torch.equal(one.rotations, other.rotations)
        assert torch.equal(one.trans, other.trans)
    fit = fits[0]
    assert isinstance(fit, Fit)
    assert fit.contacts is not None
    assert set(np.unique(fit.contacts)) <= {0, 1}
    frames = len(cases[0].clip.keypoints)
    assert fit.rotations.shape == (frames, 24, 3, 3)
    assert fit.reprojection.shape == (frames, 17)
    assert fit.camera.rotation.shape == (frames, 3, 3)
    assert np.isfinite(fit.trans.numpy()).all()
    # The camera's right axis is nearly horizontal in the level world.
    assert np.abs(fit.camera.rotation[:, 0, 1]).max() < 0.5
    report = summary(cases, evaluate(fitter, cases, body))
    assert report["all"]["clips"] == 2


def test_short_and_undetected_clips_are_lifted(trained: Path, body: BodyModel) -> None:
    fitter = LiftFitter(body, weights=trained / "checkpoint.pt")
    for frames in (1, 2, 25, 50):
        lift = fitter.lift([ClipObservation(torch.zeros(frames, 17, 2), torch.zeros(frames, 17))])[0]
        assert bool(torch.isfinite(lift.trans).all())
        assert lift.sigma_m.shape == (frames, 22)
        torch.testing.assert_close(torch.linalg.det(lift.to_camera), torch.ones(frames))


def test_the_shipped_config_is_complete_and_errors_are_reported(
    trained: Path, body: BodyModel, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = load_config(CONFIG, LifterTraining)
    assert set(config.model_fields_set) == set(LifterTraining.model_fields)
    with pytest.raises(HumoError, match="no lifter weights"):
        load_weights(tmp_path / "missing.safetensors")
    (tmp_path / "bad.safetensors").write_bytes(b"no weights")
    with pytest.raises(HumoError, match="holds no lifter"):
        load_weights(tmp_path / "bad.safetensors")
    halfway = torch.load(trained / "checkpoint.pt", weights_only=True)
    del halfway["precision"]
    torch.save(halfway, tmp_path / "halfway.pt")
    with pytest.raises(HumoError, match="not ended"):
        LiftFitter(body, weights=tmp_path / "halfway.pt")
    with pytest.raises(HumoError, match="not ended"):
        export(tmp_path / "halfway.pt", tmp_path / "out.safetensors")
    assert export_command([str(trained / "checkpoint.pt"), str(tmp_path / "out.safetensors"), "some"]) == 2
    # The training started from random weights, so there is nothing to interpolate from.
    assert export_command([str(trained / "checkpoint.pt"), str(tmp_path / "out.safetensors"), "0.5"]) == 2
    assert "a training that began" in capsys.readouterr().err
    halfway["average"]["norm.weight"][0] = float("nan")
    torch.save(halfway, tmp_path / "broken.pt")
    with pytest.raises(HumoError, match=r"broken\.pt.*not finite"):
        load_weights(tmp_path / "broken.pt")
    assert main([]) == 2
    assert main([str(CONFIG), f"mocap=[{tmp_path / 'none'}]", f"output={tmp_path}"]) == 2
    assert "no such folder" in capsys.readouterr().err
