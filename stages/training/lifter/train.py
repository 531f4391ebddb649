"""Train the lifter: `python -m stages.training.lifter.train configs/lifter.yaml [key=value ...]`.

A single process. Examples are generated on the fly; those of a step depend on the seed and the step's number alone, so a
resumed training continues exactly as an uninterrupted one.
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
from schemas.secrets import public_settings
from stages.module_commands import run_command
from stages.recovery.lifter.bodies import NUM_MEASURED, make_bodies
from stages.recovery.lifter.features import make_features
from stages.recovery.lifter.network import Lifter, LifterOutput, with_all_features
from stages.recovery.lifter.rigs import Rigs
from stages.recovery.lifter.weights import load_weights
from stages.training.lifter import motion_dataset
from stages.training.lifter.augment import Shares
from stages.training.lifter.examples import Examples, draw_examples
from stages.training.lifter.losses import losses
from stages.training.lifter.motion_dataset import MotionDataset
from stages.training.lifter.precision import error_precision
from stages.training.lifter.settings import LifterTraining
from stages.training.runs import RunningMeans, learning_rate, log_row, plot_curve, read_checkpoint

_VALIDATION_SEED = 2**40
_CURVES = {"clean_mpjpe": "clean", "noisy_mpjpe": "noisy", "clean_body": "clean, pelvis axes"}


def train(config: LifterTraining) -> dict[str, float]:
    """Train to the last step, writing checkpoints, metrics.jsonl and curve.png to `config.output`; the last validation metrics."""
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
        model.load_state_dict(_starting_weights(Path(config.start), config))
    average = copy.deepcopy(model).requires_grad_(False)
    optimisers = _optimisers(model, config)
    path, first = output / "checkpoint.pt", 0
    if config.resume and path.is_file():
        first = _restore(path, config, model, average, optimisers)
        print(f"resuming from step {first}", flush=True)

    generator = torch.Generator(device)
    means = RunningMeans()
    validation: dict[str, float] = {}
    start_s = saved_s = time.monotonic()
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
            for averaged, current in zip(average.parameters(), model.parameters(), strict=True):
                averaged.lerp_(current, 1 - decay)

        means.add({**terms, "loss": loss, "norm": norm})
        last = step + 1 == config.steps
        if (step + 1) % config.log_every == 0:
            log_row(output, {"step": step + 1, "seconds": time.monotonic() - start_s, "rate": rate, **means.take()})
        if (step + 1) % config.validate_every == 0 or last:
            validation = validate(average, held_out, rigs, config)
            log_row(output, {"step": step + 1, "seconds": time.monotonic() - start_s, **validation})
            plot_curve(output, "held-out motions, MPJPE (mm)", _CURVES)
        if last or time.monotonic() - saved_s > config.save_every_s:
            _save(path, config, step + 1, rigs.body.id, model, average, optimisers)
            saved_s = time.monotonic()
    state = torch.load(path, map_location="cpu", weights_only=True)
    _write({**state, "precision": measure_precision(average, training, rigs, config).cpu()}, path)
    return validation


@torch.no_grad()
def measure_precision(
    model: Lifter, dataset: MotionDataset, rigs: Rigs, config: LifterTraining
) -> Float[Tensor, "48 48"]:
    """Precision matrix of the lifter's errors for refinement (`error_precision`), on training motions with milder augmentation."""
    shares = {"gestures": 0.1, "kicks": 0.05, "recombined": 0.0, "perturbed": 0.3, "backs": 0.2}
    milder = {**shares, "slowest": 1.0, "fastest": 1.0}
    augmentation = config.augmentation.model_copy(update=milder)
    generator = torch.Generator(rigs.body.template.device).manual_seed(_VALIDATION_SEED)
    examples = draw_examples(dataset, 192, config.window, rigs, augmentation, generator)
    return error_precision(run(model, examples, bf16=False), examples, rigs)


def run(model: nn.Module, examples: Examples, bf16: bool) -> LifterOutput:
    """Output of the network for a batch."""
    features = make_features(examples.observation, examples.boxes)
    with torch.autocast(features.device.type, torch.bfloat16, enabled=bf16):
        return model(features, examples.observation.valid)


@torch.no_grad()
def validate(model: Lifter, held_out: MotionDataset, rigs: Rigs, config: LifterTraining) -> dict[str, float]:
    """Errors on held-out motions with noise-free and with noisy keypoints: joints in mm, tilt in degrees, speed in m/s."""
    errors: dict[str, float] = {}
    for kind, changes in (("clean", {"noise": 0.0, "moving_cameras": 0.0}), ("noisy", {})):
        unaugmented = {**dict.fromkeys((share.name for share in fields(Shares)), 0.0), "slowest": 1.0, "fastest": 1.0}
        augmentation = config.augmentation.model_copy(update={**unaugmented, **changes})
        generator = torch.Generator(rigs.body.template.device).manual_seed(_VALIDATION_SEED)
        examples = draw_examples(held_out, 64, config.window, rigs, augmentation, generator)
        output = run(model, examples, config.bf16)
        predicted, targets, valid = make_bodies(output, rigs), examples.targets, examples.observation.valid
        camera_error = predicted.joints @ predicted.root_camera.mT - targets.joints @ targets.root_camera.mT
        body_error = (predicted.joints - targets.joints)[:, :, :NUM_MEASURED].norm(dim=-1)[valid].mean()
        cosine = (predicted.root_level[..., 1, :] * targets.root_level[..., 1, :]).sum(-1).clamp(-1, 1)
        errors |= {
            f"{kind}_mpjpe": float(1000 * camera_error[:, :, :NUM_MEASURED].norm(dim=-1)[valid].mean()),
            f"{kind}_body": float(1000 * body_error),
            f"{kind}_tilt": float(torch.rad2deg(torch.acos(cosine)[valid].mean())),
            f"{kind}_speed": float((output.velocity - targets.velocity).norm(dim=-1)[valid].mean()),
        }
    return errors


def make_datasets(config: LifterTraining) -> tuple[MotionDataset, MotionDataset]:
    """Training and held-out motions; held out are every 1/held_out-th file or, without files, studio motions of other seeds."""
    folders = [Path(folder) for folder in config.mocap]
    for folder in folders:
        if not folder.is_dir():
            raise UsageError(f"mocap: {folder}: no such folder; name folders with motion capture")
    body = BodyModel.load()
    studio = motion_dataset.generate_studio_motions(range(config.studio_seeds), body)
    held_out_studio = motion_dataset.generate_studio_motions(range(10_000, 10_001), body)
    if not config.mocap:
        return studio, held_out_studio
    files = [path for folder in folders for path in motion_dataset.find_mocap(folder)]
    every = max(2, round(1 / config.held_out)) if config.held_out else len(files) + 1
    training_files, held_out_files = (
        [path for i, path in enumerate(files) if (i + 1) % every],
        files[every - 1 :: every],
    )
    cache = Path(config.cache)
    recorded = _emphasised(
        motion_dataset.with_normalised_pelvis_pitch(motion_dataset.read_files(training_files, body, cache)),
        config.emphasis,
    )
    training = motion_dataset.join(
        [recorded, _emphasised(studio, config.emphasis)], [1 - config.studio_share, config.studio_share]
    )
    return training, motion_dataset.with_normalised_pelvis_pitch(
        motion_dataset.read_files(held_out_files, body, cache)
    ) if held_out_files else held_out_studio


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
    rest = [p for name, p in model.named_parameters() if not (name.startswith("blocks.") and p.ndim == 2)]
    shared: dict[str, Any] = {"lr": config.learning_rate, "weight_decay": config.weight_decay}
    return [
        torch.optim.Muon(inner, **shared, momentum=0.95, ns_steps=4, adjust_lr_fn="match_rms_adamw"),
        torch.optim.AdamW(rest, **shared, betas=(0.9, 0.98), fused=True),
    ]


def _batch(step: int, config: LifterTraining) -> tuple[int, int]:
    """Number of windows and frames per window: many short windows first, since frames of one window are highly redundant, then
    long ones."""
    frames = config.window if step >= config.short_share * config.steps else min(config.short_window, config.window)
    return max(1, config.batch_size * config.window // frames), frames


def _save(
    path: Path, config: LifterTraining, step: int, body_id: str, model: Lifter, average: Lifter, optimisers: list[Any]
) -> None:
    state = {"step": step, "network": config.network.model_dump(), "window": config.window, "body_model": body_id}
    weights: dict[str, Any] = {"model": model.state_dict(), "average": average.state_dict()}
    states = [optimiser.state_dict() for optimiser in optimisers]
    _write({**state, **weights, "optimisers": states, "config": public_settings(config.model_dump())[0]}, path)


def _write(state: dict[str, Any], path: Path) -> None:
    temporary = path.with_suffix(".part")
    torch.save(state, temporary)
    temporary.replace(path)


def _starting_weights(path: Path, config: LifterTraining) -> dict[str, Tensor]:
    """A checkpoint's averaged weights, or exported ones."""
    if path.suffix == ".pt":
        return with_all_features(read_checkpoint(path, "start", "network", config.network.model_dump())["average"])
    loaded = load_weights(path).model
    if loaded.config != config.network:
        raise UsageError(
            f"start: {path}: holds another network ({loaded.config}); configure the same one, or another start"
        )
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
    return run_command(
        arguments,
        "lifter: no config; use `python -m stages.training.lifter.train configs/lifter.yaml [key=value ...]`",
        lambda given: print(json.dumps(train(load_config(given[0], LifterTraining, given[1:])))),
    )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
