"""The learned error model of the detector and the landmark network, and the films that it is fitted to."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from schemas.errors import HumoError
from schemas.skeleton import keypoint
from stages.training.lifter.collect_detector_errors import collect
from stages.training.lifter.collect_detector_errors import main as collect_command
from stages.training.lifter.detector_errors import (
    FRAME_STRIDE,
    DetectorErrors,
    DetectorSamples,
    fit_detector_errors,
    load_detector_errors,
    main,
    read_samples,
)
from stages.training.lifter.settings import LifterTraining

UNIT = 0.05
"""Box sides per unit of the samples."""
LEFT_WRIST, RIGHT_WRIST = keypoint("left_wrist"), keypoint("right_wrist")
FILMS, FRAMES = 40, 20


def _keypoints(films: int, generator: torch.Generator) -> Tensor:
    """Synthetic keypoints four metres ahead, one nearly constant pose per film, wrists in front of or behind the body;
    (films * FRAMES, 17, 3)."""
    shape = torch.randn(17, 3, generator=torch.Generator().manual_seed(9)) * torch.tensor([0.3, 0.5, 0.1])
    poses = shape + 0.05 * torch.randn(films, 1, 17, 3, generator=generator) + torch.tensor([0.0, 0.0, 4.0])
    poses[..., [LEFT_WRIST, RIGHT_WRIST], 2] += 0.6 * (torch.rand(films, 1, 2, generator=generator) - 0.5)
    return (poses + 0.01 * torch.randn(films, FRAMES, 17, 3, generator=generator)).flatten(0, 1)


def _is_behind(in_camera: Tensor, wrist: int) -> Tensor:
    return in_camera[..., wrist, 2] > in_camera[..., 2].mean(-1)


@pytest.fixture(scope="module")
def fitted() -> DetectorErrors:
    """Fitted to films in which the left wrist, where it is behind the person, is off by a fifth of the box at low confidence."""
    generator = torch.Generator().manual_seed(0)
    in_camera = _keypoints(FILMS, generator)
    error = 0.01 * torch.randn(len(in_camera), 17, 2, generator=generator)
    # Most of a keypoint's error is constant within its film.
    error += 0.03 * torch.randn(FILMS, 1, 17, 2, generator=generator).expand(-1, FRAMES, -1, -1).flatten(0, 1)
    logit = 4 + 0.1 * torch.randn(len(in_camera), 17, generator=generator)
    hidden = _is_behind(in_camera, LEFT_WRIST)
    error[hidden, LEFT_WRIST, 0] += 0.2
    logit[hidden, LEFT_WRIST] -= 3
    # Half of the fit uses mirrored samples, so the right wrist errs symmetrically.
    hidden = _is_behind(in_camera, RIGHT_WRIST)
    error[hidden, RIGHT_WRIST, 0] -= 0.2
    logit[hidden, RIGHT_WRIST] -= 3
    usable = torch.ones(len(in_camera), 17, dtype=torch.bool)
    film = np.arange(FILMS).repeat(FRAMES)
    observed = torch.cat([error / UNIT, logit[..., None]], dim=-1)
    model, measured = fit_detector_errors(
        DetectorSamples(film, in_camera, torch.full((len(in_camera),), 0.5), observed, usable), steps=1200
    )
    assert measured["validation"] > -4
    return model


def test_sampled_errors_depend_on_the_pose(fitted: DetectorErrors) -> None:
    generator = torch.Generator().manual_seed(1)
    in_camera = _keypoints(60, generator).unflatten(0, (60, FRAMES))
    sample = fitted.sample(in_camera, torch.full((60, FRAMES), 0.5), generator)
    error, confidence = sample.error, sample.confidence
    relative_depth = in_camera[..., LEFT_WRIST, 2] - in_camera[..., 2].mean(-1)
    hidden, visible = relative_depth > 0.1, relative_depth < -0.1
    assert float(error[hidden][:, LEFT_WRIST, 0].mean()) == pytest.approx(0.2, abs=0.07)
    assert float(error[visible][:, LEFT_WRIST, 0].mean()) == pytest.approx(0.0, abs=0.05)
    assert float(confidence[hidden][:, LEFT_WRIST].median()) < 0.9 < float(confidence[visible][:, LEFT_WRIST].median())
    assert float(error[..., 0, :].mean().abs()) < 0.02
    assert not sample.depths.any(), "there is no landmark network"


def test_landmark_samples_have_depth_errors_and_expected_errors() -> None:
    generator = torch.Generator().manual_seed(3)
    in_camera = _keypoints(FILMS, generator)
    depth_error, expected_error, expected_depth_error = 0.1, 0.01, 0.04
    observed = torch.cat(
        [
            0.2 * torch.randn(len(in_camera), 17, 2, generator=generator),
            4 + 0.1 * torch.randn(len(in_camera), 17, 1, generator=generator),
            depth_error / UNIT + 0.1 * torch.randn(len(in_camera), 17, 1, generator=generator),
            (torch.tensor([expected_error, expected_depth_error]) / 0.02).log().expand(len(in_camera), 17, 2),
        ],
        dim=-1,
    )
    usable, film = torch.ones(len(in_camera), 17, dtype=torch.bool), np.arange(FILMS).repeat(FRAMES)
    model, _ = fit_detector_errors(
        DetectorSamples(film, in_camera, torch.full((len(in_camera),), 0.5), observed, usable), steps=300
    )
    sample = model.sample(in_camera.unflatten(0, (FILMS, FRAMES)), torch.full((FILMS, FRAMES), 0.5), generator)
    depth, *expected = sample.depths.flatten(0, 2).median(0).values.tolist()
    assert depth == pytest.approx(depth_error, abs=0.01)
    assert expected == pytest.approx([expected_error, expected_depth_error], rel=0.15)


def test_errors_persist_over_time(fitted: DetectorErrors) -> None:
    generator = torch.Generator().manual_seed(2)
    static = _keypoints(40, generator).unflatten(0, (40, FRAMES))[:, :1].expand(-1, 60, -1, -1)
    error = fitted.sample(static, torch.full((40, 60), 0.5), generator).error
    nose = error[:, :, 0, 0] - error[:, :, 0, 0].mean()
    correlation = [
        float((nose[:, lag:] * nose[:, : 60 - lag]).mean() / nose.square().mean()) for lag in (FRAME_STRIDE, 40)
    ]
    assert correlation[0] > 0.6
    assert correlation[1] > 0.4


def test_weights_round_trip_and_invalid_files_are_rejected(fitted: DetectorErrors, tmp_path: Path) -> None:
    from safetensors.torch import save_file

    path = tmp_path / "errors.safetensors"
    save_file({name: value.contiguous() for name, value in fitted.state_dict().items()}, path)
    loaded = load_detector_errors(path)
    for name, value in fitted.state_dict().items():
        torch.testing.assert_close(loaded.state_dict()[name], value)
    (tmp_path / "empty.safetensors").write_bytes(b"nothing")
    with pytest.raises(HumoError, match=r"empty\.safetensors: holds no detector errors"):
        load_detector_errors(tmp_path / "empty.safetensors")
    assert main([str(tmp_path)]) == 1
    assert main([]) == 2


def test_a_film_is_collected_once(tmp_path: Path) -> None:
    training = LifterTraining(studio_seeds=1)
    assert collect(tmp_path, training, films=1, first=3) == 1
    samples = read_samples(tmp_path)
    assert len(samples.film) > 15
    assert set(samples.film) == {3}
    # Most keypoints of most frames are detected within a tenth of the box.
    accurate = samples.observed[..., :2].norm(dim=-1) * UNIT < 0.1
    assert float(accurate[samples.usable].float().mean()) > 0.7
    accurate_depth = samples.observed[..., 3].abs() * UNIT < 0.15
    assert float(accurate_depth[samples.usable].float().mean()) > 0.7, "the landmark network estimates depths"
    assert collect(tmp_path, training, films=1, first=3) == 0


def test_misuse_is_reported(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == collect_command([str(tmp_path), str(tmp_path / "none.yaml")]) == 2
    message = capsys.readouterr().err
    assert "no folder" in message
    assert "no such config" in message
