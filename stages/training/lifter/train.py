"""Train the lifter: `python -m stages.training.lifter.train configs/lifter.yaml [key=value ...]`.

A single process; examples are made on the fly, each step's from the seed and the step's number alone, so that a training
which was stopped goes on as if it had not been.
"""

import copy
import json
import sys
import time
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from schemas.body_model import BodyModel
from schemas.config import load_config
from schemas.devices import choose_device
from schemas.errors import UsageError
from stages.module_commands import command
from stages.recovery.lifter.bodies import NUM_MEASURED, make_bodies
from stages.recovery.lifter.features import make_features
from stages.recovery.lifter.fitter import load_weights
from stages.recovery.lifter.network import Lifter, LifterOutput, with_all_features
from stages.recovery.lifter.rigs import Rigs
from stages.training.lifter import motion_dataset
from stages.training.lifter.augment import Shares
from stages.training.lifter.examples import Examples, draw_examples
from stages.training.lifter.losses import losses
from stages.training.lifter.motion_dataset import MotionDataset
from stages.training.lifter.precision import measure_errors
from stages.training.lifter.settings import LifterTraining
from stages.training.runs import Means, learning_rate, log_row, plot_curve, read_checkpoint

_VALIDATION_SEED = 2**40
_CURVES = {"clean_mpjpe": "clean", "noisy_mpjpe": "noisy", "clean_body": "clean, pelvis axes"}


def train(config: LifterTraining) -> dict[str, float]:
    """Train to the last step; checkpoints, metrics.jsonl and curve.png are in `config.output`. The last validation."""
    torch.set_num_threads(config.threads)
    torch.manual_seed(config.seed)
    device = choose_device(config.device)
    output = Path(config.output)
    output.mkdir(parents=True, exist_ok=True)
    rigs = Rigs.of(BodyModel.load(), device)
    training, held_out = (dataset.to(device) for dataset in make_datasets(config))
    print(f"{len(training.names)} motions, {len(training.pelvis)} frames; held out {len(held_out.names)}", flush=True)
    model = Lifter(config.network).to(device)
    if config.start:
        model.load_state_dict(_start(Path(config.start), config))
    average = copy.deepcopy(model).requires_grad_(False)
    optimisers = _optimisers(model, config)
    path, first = output / "checkpoint.pt", 0
    if config.resume and path.is_file():
        first = _restore(path, config, model, average, optimisers)
        print(f"going on from step {first}", flush=True)

    generator = torch.Generator(device)
    means = Means()
    validation: dict[str, float] = {}
    began = saved = time.monotonic()
    for step in range(first, config.steps):
        generator.manual_seed(config.seed * 2**32 + step)
        count, frames = _batch(step, config)
        examples = draw_examples(training, count, frames, rigs, config.augmentation, generator)
        rate = learning_rate(step, config)
        for optimiser in optimisers:
            for group in optimiser.param_groups:
                group["lr"] = rate
        terms = losses(run(model, examples, config.bf16), examples, rigs, config.weights)
        loss = torch.stack(list(terms.values())).sum()
        model.zero_grad(set_to_none=True)
        loss.backward()
        norm = nn.utils.clip_grad_norm_(model.parameters(), config.clip_norm)
        if bool(torch.isfinite(norm)):
            for optimiser in optimisers:
                optimiser.step()
        with torch.no_grad():
            decay = min(config.average, (1 + step) / (10 + step))
            for kept, new in zip(average.parameters(), model.parameters(), strict=True):
                kept.lerp_(new, 1 - decay)

        means.add({**terms, "loss": loss, "norm": norm})
        last = step + 1 == config.steps
        if (step + 1) % config.log_every == 0:
            log_row(output, {"step": step + 1, "seconds": time.monotonic() - began, "rate": rate, **means.take()})
        if (step + 1) % config.validate_every == 0 or last:
            validation = validate(average, held_out, rigs, config)
            log_row(output, {"step": step + 1, "seconds": time.monotonic() - began, **validation})
            plot_curve(output, "held-out motions, MPJPE (mm)", _CURVES)
        if last or time.monotonic() - saved > config.save_every_s:
            _save(path, config, step + 1, rigs.body.id, model, average, optimisers)
            saved = time.monotonic()
    state = torch.load(path, map_location="cpu", weights_only=True)
    _write({**state, "precision": find_precision(average, training, rigs, config).cpu()}, path)
    return validation


@torch.no_grad()
def find_precision(model: Lifter, dataset: MotionDataset, rigs: Rigs, config: LifterTraining) -> Float[Tensor, "48 48"]:
    """What refinement must know of the lifter's errors (`measure_errors`), on motions as they are trained on, but varied
    less."""
    shares = {"gestures": 0.1, "kicks": 0.05, "recombined": 0.0, "perturbed": 0.3, "backs": 0.2}
    milder = {**shares, "slowest": 1.0, "fastest": 1.0}
    augmentation = config.augmentation.model_copy(update=milder)
    generator = torch.Generator(rigs.body.template.device).manual_seed(_VALIDATION_SEED)
    examples = draw_examples(dataset, 192, config.window, rigs, augmentation, generator)
    return measure_errors(run(model, examples, bf16=False), examples, rigs)


def run(model: nn.Module, examples: Examples, bf16: bool) -> LifterOutput:
    """The network on a batch."""
    features = make_features(examples.seen, examples.boxes)
    with torch.autocast(features.device.type, torch.bfloat16, enabled=bf16):
        return model(features, examples.seen.valid)


@torch.no_grad()
def validate(model: Lifter, held_out: MotionDataset, rigs: Rigs, config: LifterTraining) -> dict[str, float]:
    """Errors on held-out motions with noise-free and with noisy keypoints: joints in mm, tilt in degrees, speed in m/s."""
    errors: dict[str, float] = {}
    for kind, changes in (("clean", {"noise": 0.0, "moving_cameras": 0.0}), ("noisy", {})):
        quiet = {**dict.fromkeys((share.name for share in fields(Shares)), 0.0), "slowest": 1.0, "fastest": 1.0}
        augmentation = config.augmentation.model_copy(update={**quiet, **changes})
        generator = torch.Generator(rigs.body.template.device).manual_seed(_VALIDATION_SEED)
        examples = draw_examples(held_out, 64, config.window, rigs, augmentation, generator)
        lifted = run(model, examples, config.bf16)
        said, truth, valid = make_bodies(lifted, rigs), examples.truth, examples.seen.valid
        apart = said.joints @ said.root_camera.mT - truth.joints @ truth.root_camera.mT
        body = (said.joints - truth.joints)[:, :, :NUM_MEASURED].norm(dim=-1)[valid].mean()
        cosine = (said.root_level[..., 1, :] * truth.root_level[..., 1, :]).sum(-1).clamp(-1, 1)
        errors |= {
            f"{kind}_mpjpe": float(1000 * apart[:, :, :NUM_MEASURED].norm(dim=-1)[valid].mean()),
            f"{kind}_body": float(1000 * body),
            f"{kind}_tilt": float(torch.rad2deg(torch.acos(cosine)[valid].mean())),
            f"{kind}_speed": float((lifted.velocity - truth.velocity).norm(dim=-1)[valid].mean()),
        }
    return errors


def make_datasets(config: LifterTraining) -> tuple[MotionDataset, MotionDataset]:
    """Motions to train on and those held out for validation: every 1/held_out-th file, and studio motions of other seeds."""
    body = BodyModel.load()
    studio = motion_dataset.make_studio(range(config.studio_seeds), body)
    unseen = motion_dataset.make_studio(range(10_000, 10_001), body)
    if not config.mocap:
        return studio, unseen
    folders = [Path(folder) for folder in config.mocap]
    for folder in folders:
        if not folder.is_dir():
            raise UsageError(f"mocap: {folder}: there is no such folder; name folders with motion capture")
    files = [path for folder in folders for path in motion_dataset.find_mocap(folder)]
    every = max(2, round(1 / config.held_out)) if config.held_out else len(files) + 1
    kept, left_out = [path for i, path in enumerate(files) if (i + 1) % every], files[every - 1 :: every]
    cache = Path(config.cache)
    recorded = _emphasised(
        motion_dataset.with_pelvis_in_rhythm(motion_dataset.read_files(kept, body, cache)), config.emphasis
    )
    training = motion_dataset.join(
        [recorded, _emphasised(studio, config.emphasis)], [1 - config.studio_share, config.studio_share]
    )
    return training, motion_dataset.with_pelvis_in_rhythm(
        motion_dataset.read_files(left_out, body, cache)
    ) if left_out else unseen


def _emphasised(dataset: MotionDataset, emphasis: dict[str, float]) -> MotionDataset:
    weights = dataset.weights.clone()
    for number, name in enumerate(dataset.names):
        for part, factor in emphasis.items():
            if part in name:
                weights[number] *= factor
    return MotionDataset(**{**vars(dataset), "weights": weights})


def _optimisers(model: Lifter, config: LifterTraining) -> list[torch.optim.Optimizer]:
    """Muon (Jordan et al. 2024) for the matrices inside the blocks, AdamW for the rest."""
    inner = [p for name, p in model.named_parameters() if name.startswith("blocks.") and p.ndim == 2]
    others = [p for name, p in model.named_parameters() if not (name.startswith("blocks.") and p.ndim == 2)]
    shared: dict[str, Any] = {"lr": config.learning_rate, "weight_decay": config.weight_decay}
    return [
        torch.optim.Muon(inner, **shared, momentum=0.95, ns_steps=4, adjust_lr_fn="match_rms_adamw"),
        torch.optim.AdamW(others, **shared, betas=(0.9, 0.98), fused=True),
    ]


def _batch(step: int, config: LifterTraining) -> tuple[int, int]:
    """Windows and their frames: many short ones first, as frames of a window teach nearly the same pose, then long ones."""
    frames = config.window if step >= config.short_share * config.steps else min(config.short_window, config.window)
    return max(1, config.batch_size * config.window // frames), frames


def _save(
    path: Path, config: LifterTraining, step: int, body_id: str, model: Lifter, average: Lifter, optimisers: list[Any]
) -> None:
    state = {"step": step, "network": config.network.model_dump(), "window": config.window, "body_model": body_id}
    weights: dict[str, Any] = {"model": model.state_dict(), "average": average.state_dict()}
    states = [one.state_dict() for one in optimisers]
    _write({**state, **weights, "optimisers": states, "config": config.model_dump()}, path)


def _write(state: dict[str, Any], path: Path) -> None:
    aside = path.with_suffix(".part")
    torch.save(state, aside)
    aside.replace(path)


def _start(path: Path, config: LifterTraining) -> dict[str, Tensor]:
    """Weights to begin with: a checkpoint's averaged ones, or exported ones."""
    if path.suffix == ".pt":
        return with_all_features(read_checkpoint(path, "start", "network", config.network.model_dump())["average"])
    loaded = load_weights(path).model
    if loaded.config != config.network:
        raise UsageError(f"start: {path}: is of another network ({loaded.config}); set the same one, or another start")
    return loaded.state_dict()


def _restore(path: Path, config: LifterTraining, model: Lifter, average: Lifter, optimisers: list[Any]) -> int:
    state = read_checkpoint(path, "output", "network", config.network.model_dump())
    model.load_state_dict(state["model"])
    average.load_state_dict(state["average"])
    for optimiser, saved in zip(optimisers, state["optimisers"], strict=True):
        optimiser.load_state_dict(saved)
    return int(state["step"])


def main(arguments: Sequence[str]) -> int:
    """The command; returns its exit status."""
    return command(
        arguments,
        "lifter: no config; use `python -m stages.training.lifter.train configs/lifter.yaml [key=value ...]`",
        lambda given: print(json.dumps(train(load_config(given[0], LifterTraining, given[1:])))),
    )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
