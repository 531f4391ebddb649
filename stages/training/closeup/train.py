"""Train the closer look's head: `python -m stages.training.closeup.train configs/closeup.yaml [key=value ...]`."""

import copy
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.utils.data import DataLoader

from schemas.config import load_config
from schemas.devices import choose_device
from schemas.secrets import public_settings
from schemas.skeleton import COCO_KEYPOINTS
from stages.module_commands import run_command
from stages.perception.closeup.crops import MARGIN
from stages.perception.closeup.network import MIRROR, Head, Seen25D
from stages.perception.closeup.trunk import Trunk, features, load_trunk
from stages.perception.detector import default_weights, file_digest
from stages.training.closeup.examples import Crops, plain, read_pictures
from stages.training.closeup.settings import CloseupTraining
from stages.training.runs import RunningMeans, learning_rate, log_row, plot_curve, read_checkpoint

_HEAT_CELLS = 1.0
"""Deviation of the heat that a keypoint's cell should get, in cells."""
_IN_CROP = 1.05
"""Keypoints farther out than this many half sides are not learned from."""
_CURVES = {
    "median": "keypoints, median",
    "p90": "keypoints, 90%",
    "depth": "depths, median",
    "depth_p90": "depths, 90%",
}
_ACROSS = tuple(COCO_KEYPOINTS.index(f"left_{name}") for name in ("shoulder", "hip"))
"""Which of a pair is nearer tells the way in which a body faces."""
_FAR = 0.5
"""Errors count up to this many half sides in what is expected to be off."""


def train(config: CloseupTraining) -> dict[str, float]:
    """Train to the last step; checkpoint, metrics.jsonl and curve.png are in `config.output`. The last validation."""
    torch.set_num_threads(1)
    torch.manual_seed(config.seed)
    device = choose_device(config.device)
    output = Path(config.output)
    output.mkdir(parents=True, exist_ok=True)
    pictures = read_pictures(config.pictures)
    kept = pictures.scene % config.held_out == config.held_out - 1
    training, held_out = np.flatnonzero(~kept), np.flatnonzero(kept)
    print(f"{len(training)} crops to train on, {len(held_out)} held out", flush=True)
    weights = Path(config.weights) if config.weights else default_weights()
    trunk = load_trunk(weights).to(device)
    shape = {name: getattr(config, name) for name in ("width", "fine_width", "layers", "token_layers")}
    model = Head(**shape).to(device)
    if config.start:
        model.load_state_dict(read_checkpoint(Path(config.start), "start", "shape", shape)["average"])
    average = copy.deepcopy(model).requires_grad_(False)
    optimiser = torch.optim.AdamW(
        model.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay, betas=(0.9, 0.98), fused=True
    )
    path, first = output / "checkpoint.pt", 0
    if config.resume and path.is_file():
        state = read_checkpoint(path, "output", "shape", shape)
        model.load_state_dict(state["model"])
        average.load_state_dict(state["average"])
        optimiser.load_state_dict(state["optimiser"])
        first = int(state["step"])
        print(f"going on from step {first}", flush=True)
    on_cpu = device.type == "cpu"
    crops = Crops(pictures, training, config.batch_size, config.seed + first, trunk if on_cpu else None)
    batches = iter(DataLoader(crops, batch_size=None, num_workers=config.workers, prefetch_factor=2))
    means = RunningMeans()
    measured: dict[str, float] = {}
    began = saved = time.monotonic()
    for step in range(first, config.steps):
        seen, truth = next(batches)
        if not on_cpu:
            seen = features(trunk, seen[0].to(device))
        rate = learning_rate(step, config)
        for group in optimiser.param_groups:
            group["lr"] = rate
        with torch.autocast(device.type, torch.bfloat16):
            said = model(*seen)
        terms = losses(said, truth.to(device))
        loss = torch.stack(list(terms.values())).sum()
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        norm = nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        if bool(torch.isfinite(norm)):
            optimiser.step()
        with torch.no_grad():
            decay = min(config.average, (1 + step) / (10 + step))
            for mean, new in zip(average.parameters(), model.parameters(), strict=True):
                mean.lerp_(new, 1 - decay)
        means.add({**terms, "loss": loss})
        last = step + 1 == config.steps
        if (step + 1) % config.log_every == 0:
            log_row(output, {"step": step + 1, "seconds": time.monotonic() - began, "rate": rate, **means.take()})
        if (step + 1) % config.validate_every == 0 or last:
            measured = validate(average, trunk, pictures, held_out)
            log_row(output, {"step": step + 1, "seconds": time.monotonic() - began, **measured})
            plot_curve(output, "held-out scenes, parts of the box's side", _CURVES)
        if last or time.monotonic() - saved > config.save_every_s:
            states = {"model": model.state_dict(), "average": average.state_dict(), "optimiser": optimiser.state_dict()}
            about = {"step": step + 1, "shape": shape, "trunk": file_digest(weights), "measured": measured}
            aside = path.with_suffix(".part")
            torch.save({**states, **about, "config": public_settings(config.model_dump())[0]}, aside)
            aside.replace(path)
            saved = time.monotonic()
    return measured


def losses(said: Seen25D, truth: Float[Tensor, "N 17 3"]) -> dict[str, Tensor]:
    """Distances of places and depths, of depths across shoulders and hips, the heat's cross entropy, the likelihood (Laplace)
    of the errors."""
    inside = (truth[..., :2].abs().amax(-1) < _IN_CROP).float()
    count = inside.sum().clamp(min=1)

    def mean(values: Float[Tensor, "N 17"]) -> Tensor:
        return (values * inside).sum() / count

    off = (said.points - truth).abs()
    apart = torch.stack([off[..., :2].mean(-1), off[..., 2]], -1).detach().clamp(max=_FAR)
    cells = said.heat.shape[-1]
    centres = (torch.arange(cells, device=truth.device) + 0.5) / (cells / 2) - 1
    width = _HEAT_CELLS / (cells / 2)
    x, y = (torch.exp(-0.5 * ((centres - truth[..., axis, None]) / width) ** 2) for axis in (0, 1))
    wanted = y[..., :, None] * x[..., None, :]
    wanted = wanted / wanted.sum((-1, -2), keepdim=True).clamp(min=1e-6)
    left, right = list(_ACROSS), [MIRROR[place] for place in _ACROSS]
    error = (said.points - truth)[..., 2]
    across = (error[:, left] - error[:, right]).abs().mean(-1)
    whole = inside[:, left + right].amin(-1)
    likely = said.log_sigma + apart * (-said.log_sigma).exp()
    return {
        "heat": 0.05 * mean(-(wanted * said.heat).sum((-1, -2))),
        "first": 2.0 * mean((said.first - truth[..., :2]).abs().sum(-1)),
        "place": 4.0 * mean(off[..., :2].sum(-1)),
        "depth": 4.0 * mean(off[..., 2]),
        "across": 4.0 * (across * whole).sum() / whole.sum().clamp(min=1),
        "sigma": 0.05 * mean(likely.sum(-1)),
    }


@torch.no_grad()
def validate(head: Head, trunk: Trunk, pictures: Any, places: np.ndarray, most: int = 1500) -> dict[str, float]:
    """Errors on crops as they are made when nobody trains, in longer sides of the person's box: medians, 90%, and the share
    of wrists and ankles more than a twentieth off; depths likewise."""
    places = places[np.linspace(0, len(places) - 1, min(most, len(places))).astype(int)]
    device = next(head.parameters()).device
    off, deep, sure = [], [], []
    for begin in range(0, len(places), 48):
        images, truths = zip(*(plain(pictures, int(place)) for place in places[begin : begin + 48]), strict=True)
        with torch.autocast(device.type, torch.bfloat16):
            said = head(*features(trunk, torch.from_numpy(np.stack(images)).to(device)))
        apart = (said.points.cpu() - torch.from_numpy(np.stack(truths))) * (MARGIN / 2)
        off.append(apart[..., :2].norm(dim=-1))
        deep.append(apart[..., 2])
        sure.append(said.log_sigma.exp().cpu() * (MARGIN / 2))
    flat, signed, sigma = torch.cat(off).numpy(), torch.cat(deep).numpy(), torch.cat(sure).numpy()
    depth = np.abs(signed)
    seen = pictures.visibility[places] >= 0.5
    found = {"median": np.median(flat[seen]), "p90": np.quantile(flat[seen], 0.9)}
    for name in ("wrist", "ankle", "hip"):
        mine = seen.copy()
        mine[:, [name not in one for one in COCO_KEYPOINTS]] = False
        found |= {f"{name}_median": np.median(flat[mine]), f"{name}_off": (flat[mine] > 0.05).mean()}
        found |= {f"{name}_depth": np.median(depth[mine])}
    left, right = list(_ACROSS), [MIRROR[place] for place in _ACROSS]
    found |= {"across": np.median(np.abs(signed[:, left] - signed[:, right])[seen[:, left] & seen[:, right]])}
    found |= {"depth": np.median(depth[seen]), "depth_p90": np.quantile(depth[seen], 0.9)}
    found |= {"sigma_tells": np.corrcoef(np.log(sigma[..., 0][seen]), np.log(flat[seen] + 1e-3))[0, 1]}
    return {name: float(value) for name, value in found.items()}


def main(arguments: Sequence[str]) -> int:
    """The command; returns its exit status."""
    return run_command(
        arguments,
        "closeup: no config; use `python -m stages.training.closeup.train configs/closeup.yaml [key=value ...]`",
        lambda given: print(json.dumps(train(load_config(given[0], CloseupTraining, given[1:])))),
    )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
