"""Checkpoints: folders of safetensors and JSON, published atomically.

OUTPUT/latest.json                 {"checkpoint": "step-00000500"}
OUTPUT/step-00000500/model.json    kind, architecture and other data needed to build the model
OUTPUT/step-00000500/model.safetensors
OUTPUT/step-00000500/training.safetensors, training.json    optimiser, loader, step: for resuming
OUTPUT/step-00000500/...           other parts of the model (text vocabulary, motion tokenizer)
"""

import hashlib
import json
import os
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from schemas.errors import HumoError
from schemas.ids import digest

MODEL, MODEL_STATE = "model.json", "model.safetensors"
TRAINING, TRAINING_STATE = "training.json", "training.safetensors"
SHIPPED = Path(__file__).parent / "pretrained"
_LATEST = "latest.json"
_COMMANDS = {"language_model": "llm"}
"""Kind of checkpoint -> the training command that writes it, where the name differs."""


def publish(output: Path, step: int, description: dict[str, Any], state: dict[str, Tensor], *,
            training: dict[str, Any], training_state: dict[str, Tensor],
            files: dict[str, str], folders: Iterable[tuple[str, Path]] = (), keep: int = 2) -> Path:  # fmt: skip
    """Write a checkpoint to a temporary folder, rename it and point `latest.json` to it; keep only the last `keep`.

    `files` maps names to texts, `folders` lists names and the checkpoints to copy there.
    """
    name = f"step-{step:08d}"
    partial = output / f".{name}.{os.getpid()}.partial"
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    _write(partial / MODEL, json.dumps(description, indent=1, sort_keys=True))
    _write(partial / TRAINING, json.dumps(training, indent=1, sort_keys=True))
    for file, text in files.items():
        _write(partial / file, text)
    for folder, source in folders:
        shutil.copytree(source, partial / folder, ignore=shutil.ignore_patterns(TRAINING, TRAINING_STATE))
    save_file({key: value.detach().cpu().contiguous() for key, value in state.items()}, partial / MODEL_STATE)
    save_file(
        {key: value.detach().cpu().contiguous() for key, value in training_state.items()}, partial / TRAINING_STATE
    )
    final = output / name
    shutil.rmtree(final, ignore_errors=True)
    partial.rename(final)
    pointer = output / f".{_LATEST}.{os.getpid()}.partial"
    _write(pointer, json.dumps({"checkpoint": name}))
    pointer.replace(output / _LATEST)
    for old in sorted(path for path in output.glob("step-*") if path.is_dir())[:-keep]:
        shutil.rmtree(old, ignore_errors=True)
    return final


def find(path: str | Path, kind: str) -> tuple[Path, dict[str, Any]]:
    """The checkpoint folder and its model.json; `path` is the output of a training or one checkpoint in it.

    Raises HumoError if there is none or it is of another kind (`tokenizer`, `language_model`, `evaluator`).
    """
    path = Path(path)
    command = f"humo train {_COMMANDS.get(kind, kind)}"
    if not path.is_dir():
        raise HumoError(f"{path}: no such checkpoint; pass the output folder of {command}")
    folder = path
    if (path / _LATEST).is_file():
        folder = path / json.loads((path / _LATEST).read_text())["checkpoint"]
    if not (folder / MODEL).is_file():
        raise HumoError(f"{path}: contains no checkpoint; pass the output folder of {command} after it has saved one")
    description = json.loads((folder / MODEL).read_text())
    if description.get("kind") != kind:
        raise HumoError(f"{path}: a checkpoint of a {description.get('kind')}, not of a {kind}; pass one of {command}")
    return folder, description


def shipped() -> Path:
    """The language model that comes with the package. Raises HumoError where its files are missing."""
    if not (SHIPPED / MODEL).is_file():
        raise HumoError(f"{SHIPPED}: the shipped model is missing; name a checkpoint that humo train llm wrote")
    return SHIPPED


def save_model(folder: Path, description: dict[str, Any], state: dict[str, Tensor]) -> None:
    """Write a model alone, without what resuming needs; `find` reads it."""
    folder.mkdir(parents=True, exist_ok=True)
    save_file({key: value.detach().cpu().contiguous() for key, value in state.items()}, folder / MODEL_STATE)
    _write(folder / MODEL, json.dumps(description, indent=1, sort_keys=True))


def fingerprint(folder: Path) -> str:
    """Twelve hex digits that name a model by its kind, architecture and weights, wherever it lies."""
    description = json.loads((folder / MODEL).read_text())
    state = hashlib.sha256((folder / MODEL_STATE).read_bytes()).hexdigest()
    return digest(description["kind"], json.dumps(description["architecture"], sort_keys=True), state, digits=12)


def newest(output: Path) -> Path | None:
    """The checkpoint to resume from, if any."""
    if not (output / _LATEST).is_file():
        return None
    return output / json.loads((output / _LATEST).read_text())["checkpoint"]


def read_state(folder: Path, file: str = MODEL_STATE) -> dict[str, Tensor]:
    """Tensors of a checkpoint, on the CPU; raises HumoError for an unreadable file."""
    try:
        return load_file(folder / file)
    except (OSError, SafetensorError) as error:
        raise HumoError(f"{folder / file}: cannot be read ({error}); copy the checkpoint again or retrain it") from None


def load_into(model: torch.nn.Module, folder: Path) -> None:
    """Load a checkpoint's weights into a model; raises HumoError if they do not match."""
    try:
        model.load_state_dict(read_state(folder))
    except RuntimeError as error:
        reason = " ".join(str(error).split())[:200]
        raise HumoError(f"{folder}: its weights do not match its {MODEL} ({reason}); retrain it") from None


def _write(path: Path, text: str) -> None:
    with path.open("w") as file:
        file.write(text + "\n")
        file.flush()
        os.fsync(file.fileno())
