"""Keypoints to bodies in the world: the lifter's network by itself, and the fitter over many tracks a call."""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import torch

from pipeline.benchmarks.device.measure import Measurement, Setting, Work, peak, rate, rate_of_workers, worker_count
from pipeline.benchmarks.device.report import Figure

_WINDOW = 64


def measurements(setting: Setting) -> list[Measurement]:
    """The network on windows; the fitter with and without refinement; several workers that share the device."""
    device = setting.device
    windows, tracks = (16, 4) if setting.small else (512, 96)
    workers = worker_count(setting)

    def fitter(seconds: float, refined: bool) -> Figure:
        return {"frames_per_s": rate(fit_tracks(tracks, device, refined), seconds, device), **peak(device)}

    def shared(seconds: float) -> Figure:
        import roma  # noqa: F401  # what is missing shows before processes are started
        import scipy  # noqa: F401

        frames_per_s = rate_of_workers(workers, fit_tracks, (tracks, device, True), seconds, device)
        return {"frames_per_s": frames_per_s}

    return [
        Measurement(
            f"network, {windows} windows of {_WINDOW} frames", partial(_network, windows=windows, device=device)
        ),
        Measurement(f"with refinement, {tracks} tracks a call", partial(fitter, refined=True), weight=2.0),
        Measurement(f"without refinement, {tracks} tracks a call", partial(fitter, refined=False)),
        Measurement(f"with refinement, {workers} workers of {tracks} tracks a call", shared, weight=3.0),
    ]


@torch.inference_mode()
def _network(seconds: float, windows: int, device: str) -> Figure:
    from schemas.devices import supports_bf16
    from stages.recovery.lifter.features import NUM_FEATURES
    from stages.recovery.lifter.network import Lifter, NetworkConfig

    network = Lifter(NetworkConfig()).to(device).eval()
    features = torch.randn(windows, _WINDOW, NUM_FEATURES, device=device)
    valid = torch.ones(windows, _WINDOW, dtype=torch.bool, device=device)

    def run() -> int:
        with torch.autocast(device, torch.bfloat16, enabled=supports_bf16(torch.device(device))):
            network(features, valid)
        return windows * _WINDOW

    return {"frames_per_s": rate(run, seconds, device), **peak(device)}


def fit_tracks(tracks: int, device: str, refined: bool) -> Work:
    """Fits that many tracks in one call, focal length and shape of each included; counts their frames."""
    from schemas.body_model import BodyModel
    from stages.recovery.lifter.fitter import LiftFitter

    body = BodyModel.load()
    fitter = LiftFitter(body, device=device) if refined else LiftFitter(body, device=device, refinement=None)
    clips = _clips(tracks, body)

    def fit() -> int:
        fitter.forget_tracks()
        return sum(len(one.trans) for one in fitter.fit(clips))

    return fit


def _clips(count: int, body: Any) -> Sequence[Any]:
    """Clips of five seconds as a detector would yield them; a few motions, each seen as several people."""
    from stages.recovery.lifter.rigs import Rigs
    from stages.synthesis.motions import ACTIONS, generate
    from stages.training.lifter.evaluate import make_cases
    from stages.training.lifter.motion_dataset import PELVIS, pack

    rest = body.rest_joints(torch.zeros(10))[PELVIS]
    actions = list(ACTIONS)[: min(count, 8)]
    motions = ((name, generate(name, 5.0, 0, body=body, betas=torch.zeros(10))) for name in actions)
    dataset = pack((name, motion.rotations, motion.trans + rest) for name, motion in motions)
    clips = [case.clip for case in make_cases(dataset, Rigs.of(body), noise=0.5)]
    seen = (clips[number % len(clips)] for number in range(count))
    return [replace(clip, track=replace(clip.track, person=number)) for number, clip in enumerate(seen)]
