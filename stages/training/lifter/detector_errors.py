"""Learned error model of the detector and of the landmark network, fitted to the output of `collect`:
`python -m stages.training.lifter.detector_errors FOLDER [OUT]`.

Where a detector puts an occluded limb depends on the pose and the viewing direction, and its confidence says little about it.
So a small network predicts, for a person's keypoints in camera axes, the distribution of each keypoint's error and confidence
(a mixture density network, Bishop 1994); the training of the lifter samples from it. Errors persist for a while and correlate
along a limb: the samples are driven by normal noise with the measured correlation over time and between keypoints.
"""

import json
import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from schemas.errors import HumoError
from schemas.skeleton import COCO_KEYPOINTS, mirror_order
from stages.module_commands import run_command
from stages.training.lifter.random_curves import normal

FRAME_STRIDE = 3
"""Frames at 30 per second from one sample to the next: poses differ more, and errors still correlate between neighbours."""
SHIPPED = Path(__file__).parent / "data" / "detector_errors.safetensors"
"""Of the detector alone."""
SHIPPED_LANDMARKS = SHIPPED.with_name("landmark_errors.safetensors")
"""Of the detector and the landmark network (`stages.perception.landmarks`)."""
_KEYPOINTS = len(COCO_KEYPOINTS)
_MIRROR = list(mirror_order(COCO_KEYPOINTS))
_MODES = 4
_DETECTOR_CHANNELS, _LANDMARK_CHANNELS = 3, 6
"""Channels of a keypoint from the detector alone: x, y and the logit of the confidence; with landmarks also its depth and the
logs of the expected errors of position and depth."""
_TYPICAL_LOG = math.log(0.02)
"""Typical value of those logs, which is subtracted from them."""
_FLIP = (-1.0, 1.0, 1.0, 1.0, 1.0, 1.0)
_UNIT = 0.05
"""Box sides per unit of the network."""
_MIN_LOG, _MAX_LOG = -3.0, 3.0
"""Bounds of log deviations."""
_MIN_PROBABILITY = 1e-4
"""Confidences are clipped to this distance from 0 and 1."""
_MIN_VISIBILITY = 0.5
"""Lowest visibility of the keypoints that are learned from: occlusion by furniture does not depend on the body."""
_WIDTH, _STEPS, _BATCH, _RATE, _DECAY = 256, 6000, 256, 2e-3, 0.2
_DROPOUT = 0.4
"""There are few films compared with poses: without dropout the network overfits them."""
_BLUR_M = 0.03
"""Standard deviation of the noise added to the input keypoints."""
_MAX_VALUE = 15.0
"""Values beyond this are clipped."""
_VALIDATION_EVERY = 10
"""Every so many films are kept for validation."""


@dataclass(frozen=True)
class DetectorSamples:
    """N frames of a detector's output, with the ground truth."""

    film: Int[np.ndarray, "N"]
    in_camera: Float[Tensor, "N 17 3"]
    image_share: Float[Tensor, "N"]
    observed: Float[Tensor, "N 17 D"]
    """Error in x and y in units of `_UNIT` box sides, logit of the confidence; with landmarks also the error of the depth
    in that unit, and the logs of the expected errors of both."""
    usable: Bool[Tensor, "N 17"]
    """Keypoints to learn from."""


@dataclass(frozen=True)
class Mixture:
    """A Gaussian mixture for each keypoint, M modes, D channels."""

    log_weight: Float[Tensor, "*B 17 M"]
    """Log of the weights, which sum to one."""
    mean: Float[Tensor, "*B 17 M D"]
    log_deviation: Float[Tensor, "*B 17 M D"]

    def log_likelihood(self, values: Float[Tensor, "*B 17 D"]) -> Float[Tensor, "*B 17"]:
        """Log likelihood of observed keypoints."""
        standard = (values[..., None, :] - self.mean) * (-self.log_deviation).exp()
        log_density = -0.5 * standard.square() - self.log_deviation - 0.5 * math.log(2 * math.pi)
        return torch.logsumexp(self.log_weight + log_density.sum(-1), dim=-1)

    def moments(self) -> tuple[Float[Tensor, "*B 17 D"], Float[Tensor, "*B 17 D"]]:
        """Mean and standard deviation of the whole mixture."""
        weight = self.log_weight.exp()[..., None]
        mean = (weight * self.mean).sum(-2)
        square = (weight * (self.mean.square() + (2 * self.log_deviation).exp())).sum(-2)
        return mean, (square - mean.square()).clamp(min=1e-6).sqrt()


@dataclass(frozen=True)
class SampledErrors:
    """Sampled detections of keypoints."""

    error: Float[Tensor, "N T 17 2"]
    """Box sides."""
    confidence: Float[Tensor, "N T 17"]
    depths: Float[Tensor, "N T 17 3"]
    """Error of the depth, and expected errors of position and depth, box sides; 0 without the landmark network."""


class DetectorErrors(nn.Module):
    """Samples a detector's errors for people whose keypoints are known."""

    constant: Tensor
    """Share of the variance that is constant over time."""
    decay: Tensor
    """Correlation of the rest between neighbouring frames at 30 per second."""
    together: Tensor
    """Cholesky factor of the correlation between keypoints."""

    def __init__(self, width: int = _WIDTH, channels: int = _DETECTOR_CHANNELS) -> None:
        super().__init__()
        self.channels = channels
        self.network = nn.Sequential(
            nn.Linear(3 * _KEYPOINTS + 1, width), nn.SiLU(), nn.Dropout(_DROPOUT),
            nn.Linear(width, width), nn.SiLU(), nn.Dropout(_DROPOUT),
            nn.Linear(width, _KEYPOINTS * _MODES * (1 + 2 * channels)),
        )  # fmt: skip
        self.register_buffer("constant", torch.zeros(()))
        self.register_buffer("decay", torch.zeros(()))
        self.register_buffer("together", torch.eye(_KEYPOINTS))

    def mixture(self, in_camera: Float[Tensor, "*B 17 3"], image_share: Float[Tensor, "*B"]) -> Mixture:
        """For keypoints in camera axes (metres) of people whose box takes up a share of the image's longer side."""
        out = self.network(_features(in_camera, image_share)).unflatten(-1, (_KEYPOINTS, _MODES, -1))
        mean, log_deviation = out[..., 1:].split(self.channels, dim=-1)
        return Mixture(out[..., 0].log_softmax(-1), mean, log_deviation.clamp(_MIN_LOG, _MAX_LOG))

    @torch.no_grad()
    def sample(
        self, in_camera: Float[Tensor, "N T 17 3"], image_share: Float[Tensor, "N T"], generator: torch.Generator
    ) -> SampledErrors:
        """Detections over T frames at 30 per second."""
        mixture = self.mixture(in_camera, image_share)
        n, frames = image_share.shape
        quantile = torch.special.ndtr(self._correlated_noise(n, frames, 1, generator))[..., 0]
        cumulative = mixture.log_weight.exp().cumsum(-1)
        mode = (
            (quantile[..., None] > cumulative[..., :-1]).sum(-1)[..., None, None].expand(-1, -1, -1, 1, self.channels)
        )
        mean, log_deviation = (part.gather(3, mode)[..., 0, :] for part in (mixture.mean, mixture.log_deviation))
        value = mean + log_deviation.exp() * self._correlated_noise(n, frames, self.channels, generator)
        depths = torch.zeros_like(value[..., :3])
        if self.channels == _LANDMARK_CHANNELS:
            expected = (value[..., 4:] + _TYPICAL_LOG).clamp(-7.0, 0.5).exp()
            depths = torch.cat([value[..., 3:4] * _UNIT, expected], dim=-1)
        return SampledErrors(value[..., :2] * _UNIT, value[..., 2].sigmoid(), depths)

    def _correlated_noise(
        self, n: int, frames: int, channels: int, generator: torch.Generator
    ) -> Float[Tensor, "N T 17 C"]:
        """Normal noise, partly constant and otherwise autoregressive over time, correlated between keypoints."""
        innovations = normal((frames, n, _KEYPOINTS, channels), generator)
        path = [innovations[0]]
        for innovation in innovations[1:]:
            path.append(self.decay * path[-1] + (1 - self.decay**2).sqrt() * innovation)
        offset = normal((n, 1, _KEYPOINTS, channels), generator)
        noise = self.constant.sqrt() * offset + (1 - self.constant).sqrt() * torch.stack(path, 1)
        return torch.einsum("kl,ntlc->ntkc", self.together, noise)


def _features(in_camera: Float[Tensor, "*B 17 3"], image_share: Float[Tensor, "*B"]) -> Float[Tensor, "*B 52"]:
    """Keypoints in their box, their depth over the body's size, the log of the box's share of the image."""
    depth = in_camera[..., 2:].clamp(min=0.1)
    rays = in_camera[..., :2] / depth
    low, high = rays.amin(-2, keepdim=True), rays.amax(-2, keepdim=True)
    size = (high - low).amax(-1, keepdim=True).clamp(min=1e-3)
    position = (rays - (low + high) / 2) / (size / 2)
    mean_depth = depth.mean(-2, keepdim=True)
    relative_depth = (depth - mean_depth) / (mean_depth * size)
    share = image_share.clamp(0.02, 2.0).log()[..., None] + 1
    return torch.cat([position.flatten(-2), 2 * relative_depth.flatten(-2), share], dim=-1)


@lru_cache(maxsize=4)
def load_detector_errors(path: str | Path | None = None) -> DetectorErrors:
    """Read a learned model; the shipped one of the detector if no file is given. Raises HumoError for a file that holds none."""
    from safetensors.torch import load_file

    path = Path(path) if path else SHIPPED
    try:
        tensors = {name: value.float() for name, value in load_file(path).items()}
        last = next(reversed([name for name in tensors if name.startswith("network.") and name.endswith("bias")]))
        channels = (tensors[last].shape[0] // (_KEYPOINTS * _MODES) - 1) // 2
        model = DetectorErrors(tensors["network.0.weight"].shape[0], channels)
        model.load_state_dict(tensors)
    except Exception as error:
        raise HumoError(
            f"{path}: holds no detector errors ({type(error).__name__}: {error}); write them with "
            f"`python -m stages.training.lifter.detector_errors`, or leave it out for the shipped ones"
        ) from error
    return model.eval().requires_grad_(False)


def read_samples(folder: Path) -> DetectorSamples:
    """All samples that `collect` wrote into a folder; frames in which the person was not detected are left out."""
    paths = sorted(folder.glob("films-??????.npz"))
    if not paths:
        raise HumoError(
            f"{folder}: holds no films-*.npz; write some with "
            f"`python -m stages.training.lifter.collect_detector_errors {folder} configs/lifter.yaml`"
        )
    parts = [np.load(path) for path in paths]

    def joined(name: str) -> np.ndarray:
        return np.concatenate([part[name] for part in parts])

    detected = joined("score") > 0
    keypoints, observed = joined("keypoints")[detected], joined("said")[detected]
    in_camera = joined("in_camera")[detected]
    size = (keypoints.max(1) - keypoints.min(1)).max(-1)
    confidence = observed[..., 2:].clip(_MIN_PROBABILITY, 1 - _MIN_PROBABILITY)
    error = (observed[..., :2] - keypoints) / size[:, None, None] / _UNIT
    channels = [error, np.log(confidence / (1 - confidence))]
    if all("depths" in part for part in parts):
        depths = joined("depths")[detected] / size[:, None, None]
        mean_depth = in_camera[..., 2].mean(1, keepdims=True)
        depth = (in_camera[..., 2] / mean_depth - 1) * (joined("focal")[detected] / size)[:, None]
        expected = np.log(depths[..., 1:].clip(1e-4)) - _TYPICAL_LOG
        channels += [(depths[..., :1] - depth[..., None]) / _UNIT, expected]
    return DetectorSamples(
        film=joined("film")[detected],
        in_camera=torch.from_numpy(in_camera),
        image_share=torch.from_numpy(size / joined("picture")[detected]).float(),
        observed=torch.from_numpy(np.concatenate(channels, axis=-1)).float(),
        usable=torch.from_numpy(joined("visibility")[detected] >= _MIN_VISIBILITY),
    )


def fit_detector_errors(
    samples: DetectorSamples, *, steps: int = _STEPS, seed: int = 0
) -> tuple[DetectorErrors, dict[str, float]]:
    """The fitted model, and its mean log likelihood on training and validation films (nats per keypoint)."""
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(seed)
    model = DetectorErrors(channels=samples.observed.shape[-1])
    values = samples.observed.clamp(-_MAX_VALUE, _MAX_VALUE)
    in_training = torch.from_numpy(samples.film % _VALIDATION_EVERY != _VALIDATION_EVERY - 1)
    training = in_training.nonzero()[:, 0]
    optimiser = torch.optim.AdamW(model.parameters(), lr=_RATE, weight_decay=_DECAY)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
    for _ in range(steps):
        rows = training[torch.randint(len(training), (_BATCH,), generator=generator)]
        batch = (samples.in_camera[rows], values[rows], samples.usable[rows])
        in_camera, target, usable = _mirrored(*batch) if torch.rand((), generator=generator) < 0.5 else batch
        in_camera = in_camera + _BLUR_M * normal(in_camera.shape, generator)
        likelihood = model.mixture(in_camera, samples.image_share[rows]).log_likelihood(target)
        loss = -(likelihood * usable).sum() / usable.sum()
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        optimiser.step()
        schedule.step()
    model.eval().requires_grad_(False)
    _fit_correlation(model, samples, values)
    measured = {}
    for name, rows in (("training", training), ("validation", (~in_training).nonzero()[:, 0])):
        likelihood = model.mixture(samples.in_camera[rows], samples.image_share[rows]).log_likelihood(values[rows])
        measured[name] = float((likelihood * samples.usable[rows]).sum() / samples.usable[rows].sum())
    return model, measured


def _mirrored(in_camera: Tensor, values: Tensor, usable: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    flip = torch.tensor(_FLIP)
    return in_camera[:, _MIRROR] * flip[:3], values[:, _MIRROR] * flip[: values.shape[-1]], usable[:, _MIRROR]


def _fit_correlation(model: DetectorErrors, samples: DetectorSamples, values: Float[Tensor, "N 17 D"]) -> None:
    """Set the model's correlation over time and between keypoints, from errors standardised by the mixture's moments."""
    mean, deviation = model.mixture(samples.in_camera, samples.image_share).moments()
    standard = ((values - mean) / deviation).clamp(-2.5, 2.5)[..., :2]
    standard = torch.where(samples.usable[..., None], standard, 0.0)
    film = torch.from_numpy(samples.film)

    def autocorrelation(lag: int) -> float:
        same = (film[lag:] == film[:-lag])[:, None] & samples.usable[lag:] & samples.usable[:-lag]
        product = (standard[lag:] * standard[:-lag]).sum(-1)
        return float(product[same].mean() / standard.square().sum(-1)[samples.usable].mean())

    constant, neighbour = max(0.0, autocorrelation(12)), autocorrelation(1)
    model.constant.fill_(constant)
    model.decay.fill_(max(0.0, min(0.999, (neighbour - constant) / (1 - constant))) ** (1 / FRAME_STRIDE))
    both = samples.usable[:, :, None] & samples.usable[:, None]
    covariance = torch.einsum("nkc,nlc->kl", standard, standard) / (2 * both.sum(0)).clamp(min=1)
    covariance = (covariance + covariance[_MIRROR][:, _MIRROR]) / 2
    scale = covariance.diagonal().sqrt()
    correlation = covariance / scale[:, None] / scale
    model.together.copy_(torch.linalg.cholesky(0.98 * correlation + 0.02 * torch.eye(_KEYPOINTS)))


def main(arguments: Sequence[str]) -> int:
    """The command; returns its exit status."""
    usage = "detector errors: no folder; use `python -m stages.training.lifter.detector_errors FOLDER`"
    return run_command(arguments, usage, lambda given: _fit_and_write(Path(given[0]), *map(Path, given[1:2])))


def _fit_and_write(folder: Path, out: Path | None = None) -> None:
    from safetensors.torch import save_file

    model, measured = fit_detector_errors(read_samples(folder))
    out = out or (SHIPPED_LANDMARKS if model.channels == _LANDMARK_CHANNELS else SHIPPED)
    save_file({name: value.half().contiguous() for name, value in model.state_dict().items()}, out)
    print(json.dumps(measured))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
