"""What is learned of the errors of a detector and of a closer look, and the films that it is learned from."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from schemas.errors import HumoError
from schemas.skeleton import keypoint
from stages.training.lifter.collect_detector_errors import main as watch_command
from stages.training.lifter.collect_detector_errors import watch
from stages.training.lifter.detector_errors import (
    EVERY,
    DetectorErrors,
    DetectorSamples,
    learn,
    load_detector_errors,
    main,
    read_samples,
)
from stages.training.lifter.settings import LifterTraining

UNIT = 0.05
"""Box sides that count as one in what was seen."""
WRIST, OTHER = keypoint("left_wrist"), keypoint("right_wrist")
FILMS, FRAMES = 40, 20


def _people(films: int, generator: torch.Generator) -> Tensor:
    """Made-up keypoints four metres ahead, one pose a film that hardly changes, wrists in front or behind;
    (films * FRAMES, 17, 3)."""
    shape = torch.randn(17, 3, generator=torch.Generator().manual_seed(9)) * torch.tensor([0.3, 0.5, 0.1])
    poses = shape + 0.05 * torch.randn(films, 1, 17, 3, generator=generator) + torch.tensor([0.0, 0.0, 4.0])
    poses[..., [WRIST, OTHER], 2] += 0.6 * (torch.rand(films, 1, 2, generator=generator) - 0.5)
    return (poses + 0.01 * torch.randn(films, FRAMES, 17, 3, generator=generator)).flatten(0, 1)


def _hidden(in_camera: Tensor) -> Tensor:
    return in_camera[..., WRIST, 2] > in_camera[..., 2].mean(-1)


@pytest.fixture(scope="module")
def learned() -> DetectorErrors:
    """From films in which the left wrist is put a fifth of the box aside, and doubted, where it is behind the person."""
    generator = torch.Generator().manual_seed(0)
    in_camera = _people(FILMS, generator)
    error = 0.01 * torch.randn(len(in_camera), 17, 2, generator=generator)
    # A keypoint's error belongs to its film for the most part.
    error += 0.03 * torch.randn(FILMS, 1, 17, 2, generator=generator).expand(-1, FRAMES, -1, -1).flatten(0, 1)
    logit = 4 + 0.1 * torch.randn(len(in_camera), 17, generator=generator)
    hidden = _hidden(in_camera)
    error[hidden, WRIST, 0] += 0.2
    logit[hidden, WRIST] -= 3
    # The mirrored half of what is learned from says the same of the right one.
    behind = in_camera[:, OTHER, 2] > in_camera[..., 2].mean(-1)
    error[behind, OTHER, 0] -= 0.2
    logit[behind, OTHER] -= 3
    known = torch.ones(len(in_camera), 17, dtype=torch.bool)
    film = np.arange(FILMS).repeat(FRAMES)
    said = torch.cat([error / UNIT, logit[..., None]], dim=-1)
    model, measured = learn(
        DetectorSamples(film, in_camera, torch.full((len(in_camera),), 0.5), said, known), steps=1200
    )
    assert measured["validation"] > -4
    return model


def test_errors_depend_on_the_pose_as_they_did(learned: DetectorErrors) -> None:
    generator = torch.Generator().manual_seed(1)
    in_camera = _people(60, generator).unflatten(0, (60, FRAMES))
    drawn = learned.draw(in_camera, torch.full((60, FRAMES), 0.5), generator)
    error, confidence = drawn.error, drawn.confidence
    behind = in_camera[..., WRIST, 2] - in_camera[..., 2].mean(-1)
    hidden, shown = behind > 0.1, behind < -0.1
    assert float(error[hidden][:, WRIST, 0].mean()) == pytest.approx(0.2, abs=0.07)
    assert float(error[shown][:, WRIST, 0].mean()) == pytest.approx(0.0, abs=0.05)
    assert float(confidence[hidden][:, WRIST].median()) < 0.9 < float(confidence[shown][:, WRIST].median())
    assert float(error[..., 0, :].mean().abs()) < 0.02
    assert not drawn.closeup.any(), "nobody looked closer"


def test_a_closer_look_errs_in_depth_and_says_how_far_off_it_may_be() -> None:
    generator = torch.Generator().manual_seed(3)
    in_camera = _people(FILMS, generator)
    depth_error, off, depth_off = 0.1, 0.01, 0.04
    said = torch.cat(
        [
            0.2 * torch.randn(len(in_camera), 17, 2, generator=generator),
            4 + 0.1 * torch.randn(len(in_camera), 17, 1, generator=generator),
            depth_error / UNIT + 0.1 * torch.randn(len(in_camera), 17, 1, generator=generator),
            (torch.tensor([off, depth_off]) / 0.02).log().expand(len(in_camera), 17, 2),
        ],
        dim=-1,
    )
    known, film = torch.ones(len(in_camera), 17, dtype=torch.bool), np.arange(FILMS).repeat(FRAMES)
    model, _ = learn(DetectorSamples(film, in_camera, torch.full((len(in_camera),), 0.5), said, known), steps=300)
    drawn = model.draw(in_camera.unflatten(0, (FILMS, FRAMES)), torch.full((FILMS, FRAMES), 0.5), generator)
    depth, *expected = drawn.closeup.flatten(0, 2).median(0).values.tolist()
    assert depth == pytest.approx(depth_error, abs=0.01)
    assert expected == pytest.approx([off, depth_off], rel=0.15)


def test_errors_stay_over_time(learned: DetectorErrors) -> None:
    generator = torch.Generator().manual_seed(2)
    still = _people(40, generator).unflatten(0, (40, FRAMES))[:, :1].expand(-1, 60, -1, -1)
    error = learned.draw(still, torch.full((40, 60), 0.5), generator).error
    nose = error[:, :, 0, 0] - error[:, :, 0, 0].mean()
    together = [float((nose[:, lag:] * nose[:, : 60 - lag]).mean() / nose.square().mean()) for lag in (EVERY, 40)]
    assert together[0] > 0.6
    assert together[1] > 0.4


def test_weights_come_back_and_others_are_refused(learned: DetectorErrors, tmp_path: Path) -> None:
    from safetensors.torch import save_file

    path = tmp_path / "errors.safetensors"
    save_file({name: value.contiguous() for name, value in learned.state_dict().items()}, path)
    again = load_detector_errors(path)
    for name, value in learned.state_dict().items():
        torch.testing.assert_close(again.state_dict()[name], value)
    (tmp_path / "empty.safetensors").write_bytes(b"nothing")
    with pytest.raises(HumoError, match=r"empty\.safetensors: holds no detector errors"):
        load_detector_errors(tmp_path / "empty.safetensors")
    assert main([str(tmp_path)]) == 1
    assert main([]) == 2


def test_a_film_is_watched_once(tmp_path: Path) -> None:
    training = LifterTraining(studio_seeds=1)
    assert watch(tmp_path, training, films=1, first=3) == 1
    seen = read_samples(tmp_path)
    assert len(seen.film) > 15
    assert set(seen.film) == {3}
    # Most keypoints of most frames are where they are, within a tenth of the box.
    near = seen.said[..., :2].norm(dim=-1) * UNIT < 0.1
    assert float(near[seen.known].float().mean()) > 0.7
    deep = seen.said[..., 3].abs() * UNIT < 0.15
    assert float(deep[seen.known].float().mean()) > 0.7, "the closer look tells depths"
    assert watch(tmp_path, training, films=1, first=3) == 0


def test_misuse_is_told_in_a_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == watch_command([str(tmp_path), str(tmp_path / "none.yaml")]) == 2
    told = capsys.readouterr().err
    assert "no folder" in told
    assert "no such config" in told
