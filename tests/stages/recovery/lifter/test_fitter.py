"""Fits of several tracks in one call, as on a GPU, against each track by itself."""

from collections.abc import Sequence
from dataclasses import replace

import pytest
import torch

from schemas.body_model import BodyModel
from schemas.records import Clip
from stages.recovery.lifter import fitter as module
from stages.recovery.lifter.fitter import LiftFitter
from stages.recovery.lifter.rigs import Rigs
from stages.synthesis.motions import generate
from stages.training.lifter.evaluate import make_cases
from stages.training.lifter.motion_dataset import PELVIS, pack


@pytest.fixture(scope="module")
def body() -> BodyModel:
    return BodyModel.load()


@pytest.fixture(scope="module")
def clips(body: BodyModel) -> list[Clip]:
    """Tracks of different lengths; the focal length of the last one is unknown."""
    rest = body.rest_joints(torch.zeros(10))[PELVIS]
    lengths = {"wave_left": 2.0, "walk": 4.0, "squat": 3.0}
    motions = (
        (name, generate(name, seconds, 0, body=body, betas=torch.zeros(10))) for name, seconds in lengths.items()
    )
    dataset = pack((name, motion.rotations, motion.trans + rest) for name, motion in motions)
    clips = [case.clip for case in make_cases(dataset, Rigs.of(body), noise=0.5)]
    shot = clips[-1].track.shot
    unknown = replace(shot, video=replace(shot.video, focal_px=0.0))
    return [*clips[:-1], replace(clips[-1], track=replace(clips[-1].track, shot=unknown))]


def test_tracks_together_are_fitted_as_each_alone(
    body: BodyModel, clips: list[Clip], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Up to the rounding of the network in bf16, which depends on the number of windows."""
    fitter = LiftFitter(body)
    alone = fitter.fit(clips)
    calls: list[int] = []

    def together(given: Sequence[Clip], frames: int) -> list[list[Clip]]:
        calls.append(len(given))
        return [list(given)]

    monkeypatch.setattr(module, "_groups", together)
    fitter.forget_tracks()
    for one, other in zip(alone, fitter.fit(clips), strict=True):
        assert one.trans.shape == other.trans.shape
        assert torch.allclose(one.trans, other.trans, atol=0.02)
        assert torch.allclose(one.rotations, other.rotations, atol=0.02)
        assert torch.allclose(one.betas, other.betas, atol=0.02)
    assert calls == [3]


def test_a_track_is_estimated_once(body: BodyModel, clips: list[Clip], monkeypatch: pytest.MonkeyPatch) -> None:
    fitter = LiftFitter(body)
    estimated: list[int] = []
    estimate = fitter._estimate_parameters
    monkeypatch.setattr(
        fitter, "_estimate_parameters", lambda tracks: estimated.append(len(tracks)) or estimate(tracks)
    )
    tracks = [clip.track for clip in clips]
    first = fitter._track_parameters([tracks[0], tracks[1], tracks[0]])
    assert first[0] is first[2]
    assert fitter._track_parameters(tracks[:2]) == first[:2]
    fitter._track_parameters(tracks)
    assert estimated == [2, 1]
    monkeypatch.setattr(module, "_MAX_CACHED_TRACKS", 3)
    fitter._track_parameters([replace(tracks[0], person=7), tracks[1]])
    assert estimated == [2, 1, 2]


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_fits_on_cuda_are_those_of_the_cpu(body: BodyModel, clips: list[Clip]) -> None:
    on_cpu, on_cuda = LiftFitter(body).fit(clips), LiftFitter(body, device="cuda").fit(clips)
    for one, other in zip(on_cpu, on_cuda, strict=True):
        assert torch.allclose(one.trans, other.trans, atol=0.03)
        assert torch.allclose(one.rotations, other.rotations, atol=0.03)
