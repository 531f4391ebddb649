"""How the detector and the closer look err, learned: `python -m stages.training.lifter.detector_errors FOLDER [OUT]`, from what
`watch` saw.

Where a detector puts a limb that the body hides depends on the pose and on the side from which it is seen, and its
confidence tells little of it. So a small network says, for a person as the camera has them, how each keypoint's error and
confidence are distributed (a mixture density network, Bishop 1994); the training of the lifter draws from it. Errors stay
for a while and go together along a limb: the draws are driven by normal numbers with the correlation over time and between
keypoints that was measured.
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
from stages.module_commands import command
from stages.training.lifter.random_curves import normal

EVERY = 3
"""Only every so many frames of 30 a second are looked at: poses differ more, and errors still go on from one to the next."""
SHIPPED = Path(__file__).parent / "data" / "detector_errors.safetensors"
"""Of the detector alone."""
SHIPPED_CLOSEUP = SHIPPED.with_name("closeup_errors.safetensors")
"""Of the detector and a closer look (`stages.perception.closeup`)."""
_KEYPOINTS = len(COCO_KEYPOINTS)
_MIRROR = list(mirror_order(COCO_KEYPOINTS))
_MODES = 4
_ALONE, _LOOKED = 3, 6
"""What is said of a keypoint by a detector alone: x, y and the confidence's logit; with a closer look also its depth and the
logs of how far its place and its depth are expected to be off."""
_USUAL_LOG = math.log(0.02)
"""The latter are told as more than this."""
_FLIP = (-1.0, 1.0, 1.0, 1.0, 1.0, 1.0)
_UNIT = 0.05
"""Box sides that count as one in the network."""
_LEAST, _MOST = -3.0, 3.0
"""Bounds of log deviations."""
_SURE = 1e-4
"""Confidences are kept this far from 0 and 1."""
_SEEN = 0.5
"""Least visibility of the keypoints that are learned from: what furniture hides is not the body's doing."""
_WIDTH, _STEPS, _BATCH, _RATE, _DECAY = 256, 6000, 256, 2e-3, 0.2
_DROPOUT = 0.4
"""Films are few beside what poses there are: without it the network learns them by heart."""
_BLUR_M = 0.03
"""Deviation of the noise on the keypoints that it is shown."""
_FARTHEST = 15.0
"""Values beyond this are cut off."""
_HELD_OUT = 10
"""Every so many films are kept for validation."""


@dataclass(frozen=True)
class DetectorSamples:
    """N frames of what a detector said, beside the truth."""

    film: Int[np.ndarray, "N"]
    in_camera: Float[Tensor, "N 17 3"]
    picture_share: Float[Tensor, "N"]
    said: Float[Tensor, "N 17 D"]
    """Error in x and y in units of `_UNIT` box sides, logit of the confidence; of a closer look besides the error of the depth in
    that unit, and the logs of how far off both are expected to be."""
    known: Bool[Tensor, "N 17"]
    """Keypoints to learn from."""


@dataclass(frozen=True)
class Modes:
    """A mixture for each keypoint, M modes, D numbers."""

    weight: Float[Tensor, "*B 17 M"]
    """Log of the weights, which sum to one."""
    mean: Float[Tensor, "*B 17 M D"]
    log_deviation: Float[Tensor, "*B 17 M D"]

    def log_likelihood(self, values: Float[Tensor, "*B 17 D"]) -> Float[Tensor, "*B 17"]:
        """Of what is said of keypoints."""
        off = (values[..., None, :] - self.mean) * (-self.log_deviation).exp()
        each = -0.5 * off.square() - self.log_deviation - 0.5 * math.log(2 * math.pi)
        return torch.logsumexp(self.weight + each.sum(-1), dim=-1)

    def moments(self) -> tuple[Float[Tensor, "*B 17 D"], Float[Tensor, "*B 17 D"]]:
        """Mean and deviation of the whole mixture."""
        share = self.weight.exp()[..., None]
        mean = (share * self.mean).sum(-2)
        square = (share * (self.mean.square() + (2 * self.log_deviation).exp())).sum(-2)
        return mean, (square - mean.square()).clamp(min=1e-6).sqrt()


@dataclass(frozen=True)
class Drawn:
    """What is said of keypoints."""

    error: Float[Tensor, "N T 17 2"]
    """Box sides."""
    confidence: Float[Tensor, "N T 17"]
    closeup: Float[Tensor, "N T 17 3"]
    """Error of the depth, and how far place and depth are expected to be off, box sides; 0 where nobody looked closer."""


class DetectorErrors(nn.Module):
    """Draws a detector's errors for people whose keypoints are known."""

    constant: Tensor
    decay: Tensor
    together: Tensor

    def __init__(self, width: int = _WIDTH, numbers: int = _ALONE) -> None:
        super().__init__()
        self.numbers = numbers
        self.network = nn.Sequential(
            nn.Linear(3 * _KEYPOINTS + 1, width), nn.SiLU(), nn.Dropout(_DROPOUT),
            nn.Linear(width, width), nn.SiLU(), nn.Dropout(_DROPOUT),
            nn.Linear(width, _KEYPOINTS * _MODES * (1 + 2 * numbers)),
        )  # fmt: skip
        self.register_buffer("constant", torch.zeros(()))
        self.register_buffer("decay", torch.zeros(()))
        self.register_buffer("together", torch.eye(_KEYPOINTS))

    def modes(self, in_camera: Float[Tensor, "*B 17 3"], picture_share: Float[Tensor, "*B"]) -> Modes:
        """For keypoints in camera axes (metres) of people whose box takes up a share of the picture's longer side."""
        out = self.network(_features(in_camera, picture_share)).unflatten(-1, (_KEYPOINTS, _MODES, -1))
        mean, log_deviation = out[..., 1:].split(self.numbers, dim=-1)
        return Modes(out[..., 0].log_softmax(-1), mean, log_deviation.clamp(_LEAST, _MOST))

    @torch.no_grad()
    def draw(
        self, in_camera: Float[Tensor, "N T 17 3"], picture_share: Float[Tensor, "N T"], generator: torch.Generator
    ) -> Drawn:
        """What is said over T frames at 30 a second."""
        modes = self.modes(in_camera, picture_share)
        n, frames = picture_share.shape
        chosen = torch.special.ndtr(self._drivers(n, frames, 1, generator))[..., 0]
        upto = modes.weight.exp().cumsum(-1)
        mode = (chosen[..., None] > upto[..., :-1]).sum(-1)[..., None, None].expand(-1, -1, -1, 1, self.numbers)
        mean, log_deviation = (part.gather(3, mode)[..., 0, :] for part in (modes.mean, modes.log_deviation))
        value = mean + log_deviation.exp() * self._drivers(n, frames, self.numbers, generator)
        closeup = torch.zeros_like(value[..., :3])
        if self.numbers == _LOOKED:
            off = (value[..., 4:] + _USUAL_LOG).clamp(-7.0, 0.5).exp()
            closeup = torch.cat([value[..., 3:4] * _UNIT, off], dim=-1)
        return Drawn(value[..., :2] * _UNIT, value[..., 2].sigmoid(), closeup)

    def _drivers(self, n: int, frames: int, size: int, generator: torch.Generator) -> Float[Tensor, "N T 17 C"]:
        """Normal numbers that stay, partly for good, and go together between keypoints."""
        fresh = normal((frames, n, _KEYPOINTS, size), generator)
        path = [fresh[0]]
        for one in fresh[1:]:
            path.append(self.decay * path[-1] + (1 - self.decay**2).sqrt() * one)
        stays = normal((n, 1, _KEYPOINTS, size), generator)
        both = self.constant.sqrt() * stays + (1 - self.constant).sqrt() * torch.stack(path, 1)
        return torch.einsum("kl,ntlc->ntkc", self.together, both)


def _features(in_camera: Float[Tensor, "*B 17 3"], picture_share: Float[Tensor, "*B"]) -> Float[Tensor, "*B 52"]:
    """Keypoints in their box, their depth over the body's size, the log of the box's share of the picture."""
    depth = in_camera[..., 2:].clamp(min=0.1)
    rays = in_camera[..., :2] / depth
    low, high = rays.amin(-2, keepdim=True), rays.amax(-2, keepdim=True)
    size = (high - low).amax(-1, keepdim=True).clamp(min=1e-3)
    place = (rays - (low + high) / 2) / (size / 2)
    middle = depth.mean(-2, keepdim=True)
    away = (depth - middle) / (middle * size)
    share = picture_share.clamp(0.02, 2.0).log()[..., None] + 1
    return torch.cat([place.flatten(-2), 2 * away.flatten(-2), share], dim=-1)


@lru_cache(maxsize=4)
def load_detector_errors(path: str | Path | None = None) -> DetectorErrors:
    """Learned errors; the shipped ones where no file is named. Raises HumoError for a file that holds none."""
    from safetensors.torch import load_file

    path = Path(path) if path else SHIPPED
    try:
        tensors = {name: value.float() for name, value in load_file(path).items()}
        last = next(reversed([name for name in tensors if name.startswith("network.") and name.endswith("bias")]))
        numbers = (tensors[last].shape[0] // (_KEYPOINTS * _MODES) - 1) // 2
        model = DetectorErrors(tensors["network.0.weight"].shape[0], numbers)
        model.load_state_dict(tensors)
    except Exception as error:
        raise HumoError(
            f"{path}: holds no detector errors ({type(error).__name__}: {error}); make them with "
            f"`python -m stages.training.lifter.detector_errors`, or leave it out for the shipped ones"
        ) from error
    return model.eval().requires_grad_(False)


def read_samples(folder: Path) -> DetectorSamples:
    """All that `watch` wrote into a folder; frames in which the person was not found are left out."""
    paths = sorted(folder.glob("films-??????.npz"))
    if not paths:
        raise HumoError(
            f"{folder}: holds no films-*.npz; make some with "
            f"`python -m stages.training.lifter.collect_detector_errors {folder} configs/lifter.yaml`"
        )
    parts = [np.load(path) for path in paths]

    def joined(name: str) -> np.ndarray:
        return np.concatenate([part[name] for part in parts])

    found = joined("score") > 0
    keypoints, said = joined("keypoints")[found], joined("said")[found]
    in_camera = joined("in_camera")[found]
    size = (keypoints.max(1) - keypoints.min(1)).max(-1)
    confidence = said[..., 2:].clip(_SURE, 1 - _SURE)
    off = (said[..., :2] - keypoints) / size[:, None, None] / _UNIT
    numbers = [off, np.log(confidence / (1 - confidence))]
    if all("closeup" in part for part in parts):
        closeup = joined("closeup")[found] / size[:, None, None]
        middle = in_camera[..., 2].mean(1, keepdims=True)
        depth = (in_camera[..., 2] / middle - 1) * (joined("focal")[found] / size)[:, None]
        expected = np.log(closeup[..., 1:].clip(1e-4)) - _USUAL_LOG
        numbers += [(closeup[..., :1] - depth[..., None]) / _UNIT, expected]
    return DetectorSamples(
        film=joined("film")[found],
        in_camera=torch.from_numpy(in_camera),
        picture_share=torch.from_numpy(size / joined("picture")[found]).float(),
        said=torch.from_numpy(np.concatenate(numbers, axis=-1)).float(),
        known=torch.from_numpy(joined("visibility")[found] >= _SEEN),
    )


def learn(seen: DetectorSamples, *, steps: int = _STEPS, seed: int = 0) -> tuple[DetectorErrors, dict[str, float]]:
    """Learned errors, and how likely they find the films that were kept for validation (nats a keypoint)."""
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(seed)
    model = DetectorErrors(numbers=seen.said.shape[-1])
    values = seen.said.clamp(-_FARTHEST, _FARTHEST)
    kept = torch.from_numpy(seen.film % _HELD_OUT != _HELD_OUT - 1)
    training = kept.nonzero()[:, 0]
    optimiser = torch.optim.AdamW(model.parameters(), lr=_RATE, weight_decay=_DECAY)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
    for _ in range(steps):
        rows = training[torch.randint(len(training), (_BATCH,), generator=generator)]
        parts = (seen.in_camera[rows], values[rows], seen.known[rows])
        in_camera, wanted, known = _mirrored(*parts) if torch.rand((), generator=generator) < 0.5 else parts
        in_camera = in_camera + _BLUR_M * normal(in_camera.shape, generator)
        likely = model.modes(in_camera, seen.picture_share[rows]).log_likelihood(wanted)
        loss = -(likely * known).sum() / known.sum()
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        optimiser.step()
        schedule.step()
    model.eval().requires_grad_(False)
    _measure_correlation(model, seen, values)
    measured = {}
    for name, rows in (("training", training), ("validation", (~kept).nonzero()[:, 0])):
        likely = model.modes(seen.in_camera[rows], seen.picture_share[rows]).log_likelihood(values[rows])
        measured[name] = float((likely * seen.known[rows]).sum() / seen.known[rows].sum())
    return model, measured


def _mirrored(in_camera: Tensor, values: Tensor, known: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    flip = torch.tensor(_FLIP)
    return in_camera[:, _MIRROR] * flip[:3], values[:, _MIRROR] * flip[: values.shape[-1]], known[:, _MIRROR]


def _measure_correlation(model: DetectorErrors, seen: DetectorSamples, values: Float[Tensor, "N 17 D"]) -> None:
    """How errors, made standard by the mixture's mean and deviation, go together over time and between keypoints."""
    mean, deviation = model.modes(seen.in_camera, seen.picture_share).moments()
    standard = ((values - mean) / deviation).clamp(-2.5, 2.5)[..., :2]
    standard = torch.where(seen.known[..., None], standard, 0.0)
    film = torch.from_numpy(seen.film)

    def at(lag: int) -> float:
        same = (film[lag:] == film[:-lag])[:, None] & seen.known[lag:] & seen.known[:-lag]
        product = (standard[lag:] * standard[:-lag]).sum(-1)
        return float(product[same].mean() / standard.square().sum(-1)[seen.known].mean())

    stays, near = max(0.0, at(12)), at(1)
    model.constant.fill_(stays)
    model.decay.fill_(max(0.0, min(0.999, (near - stays) / (1 - stays))) ** (1 / EVERY))
    both = seen.known[:, :, None] & seen.known[:, None]
    covariance = torch.einsum("nkc,nlc->kl", standard, standard) / (2 * both.sum(0)).clamp(min=1)
    covariance = (covariance + covariance[_MIRROR][:, _MIRROR]) / 2
    scale = covariance.diagonal().sqrt()
    correlation = covariance / scale[:, None] / scale
    model.together.copy_(torch.linalg.cholesky(0.98 * correlation + 0.02 * torch.eye(_KEYPOINTS)))


def main(arguments: Sequence[str]) -> int:
    """The command; returns its exit status."""
    usage = "detector errors: no folder; use `python -m stages.training.lifter.detector_errors FOLDER`"
    return command(arguments, usage, lambda given: _learn_and_write(Path(given[0]), *map(Path, given[1:2])))


def _learn_and_write(seen: Path, out: Path | None = None) -> None:
    from safetensors.torch import save_file

    model, measured = learn(read_samples(seen))
    out = out or (SHIPPED_CLOSEUP if model.numbers == _LOOKED else SHIPPED)
    save_file({name: value.half().contiguous() for name, value in model.state_dict().items()}, out)
    print(json.dumps(measured))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
