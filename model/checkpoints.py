"""Checkpoints: folders of safetensors and JSON, published atomically, on a disk or in a bucket.

OUTPUT/latest.json                 {"checkpoint": "step-00000500"}
OUTPUT/step-00000500/model.json    kind, architecture and other data needed to build the model
OUTPUT/step-00000500/model.safetensors
OUTPUT/step-00000500/training.safetensors, training.json    optimiser, loader, step: for resuming
OUTPUT/step-00000500/...           other parts of the model (text vocabulary, motion tokenizer)
"""

import atexit
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from schemas.errors import HumoError
from schemas.ids import digest
from schemas.storage import Storage

MODEL, MODEL_STATE = "model.json", "model.safetensors"
TRAINING, TRAINING_STATE = "training.json", "training.safetensors"
SHIPPED = Path(__file__).parent / "pretrained"
_LATEST = "latest.json"
_STATISTICS = ("mean", "std")
_COMMANDS = {"language_model": "llm"}
"""Kind of checkpoint -> the training command that writes it, where the name differs."""


def name_of(step: int) -> str:
    """Name of the checkpoint of a step within an output."""
    return f"step-{step:08d}"


def step_of(name: str) -> int:
    """The step of a checkpoint's name."""
    return int(name.removeprefix("step-"))


def is_remote(output: str | Path) -> bool:
    """Whether an output is a bucket or another address of fsspec instead of a folder."""
    return "://" in str(output)


def publish(output: str | Path, step: int, description: dict[str, Any], state: dict[str, Tensor], *,
            training: dict[str, Any], training_state: dict[str, Tensor],
            files: dict[str, str], folders: Iterable[tuple[str, Path]] = (), keep: int = 2) -> str:  # fmt: skip
    """Write a checkpoint to a temporary folder, rename it (copy it to the bucket) and point `latest.json` to it; keep only the last
    `keep`. Returns where it is.

    `files` maps names to texts, `folders` lists names and the checkpoints to copy there.
    """
    name = name_of(step)
    place = Path(tempfile.mkdtemp(prefix="humo-checkpoint-")) if is_remote(output) else Path(output)
    partial = place / f".{name}.{os.getpid()}.partial"
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
    if is_remote(output):
        try:
            return _upload(Storage(output), partial, name, keep)
        finally:
            shutil.rmtree(place, ignore_errors=True)
    final = place / name
    shutil.rmtree(final, ignore_errors=True)
    partial.rename(final)
    pointer = place / f".{_LATEST}.{os.getpid()}.partial"
    _write(pointer, json.dumps({"checkpoint": name}))
    pointer.replace(place / _LATEST)
    for old in sorted(path for path in place.glob("step-*") if path.is_dir())[:-keep]:
        if old != final:  # a run that starts over beside later checkpoints of another
            shutil.rmtree(old, ignore_errors=True)
    return str(final)


def _upload(storage: Storage, folder: Path, name: str, keep: int) -> str:
    """Copy a checkpoint to a bucket: its files first, the pointer last."""
    written = []
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        written.append(f"{name}/{path.relative_to(folder).as_posix()}")
        with path.open("rb") as source, storage.publish(written[-1]) as target:
            shutil.copyfileobj(source, target, 16 * 2**20)
    storage.write_bytes(_LATEST, json.dumps({"checkpoint": name}).encode())
    files = [one for one in storage.list("") if one.startswith("step-")]
    kept = {name, *sorted({one.split("/")[0] for one in files})[-keep:]}
    storage.delete_all([one for one in files if one.split("/")[0] not in kept])
    storage.delete_all([one for one in files if one.split("/")[0] == name and one not in written])
    return f"{storage.address.rstrip('/')}/{name}"


def _download(storage: Storage, name: str) -> Path:
    """A copy of a checkpoint of a bucket on this machine, until the process ends."""
    folder = Path(tempfile.mkdtemp(prefix="humo-checkpoint-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    copy = folder / (name or storage.root.rstrip("/").rsplit("/", 1)[-1])
    copy.mkdir()
    for file in storage.list(name):
        target = copy / (file.removeprefix(f"{name}/") if name else file)
        target.parent.mkdir(parents=True, exist_ok=True)
        with storage.open(file) as source, target.open("wb") as written:
            shutil.copyfileobj(source, written, 16 * 2**20)
    return copy


def find(path: str | Path, kind: str) -> tuple[Path, dict[str, Any]]:
    """The checkpoint folder and its model.json; `path` is the output of a training or one checkpoint in it. One in a bucket is
    copied to this machine.

    Raises HumoError if there is none or it is of another kind (`tokenizer`, `language_model`, `evaluator`).
    """
    command = f"humo train {_COMMANDS.get(kind, kind)}"
    folder = (newest(path) or _download(Storage(path), "")) if is_remote(path) else Path(path)
    if not folder.is_dir():
        raise HumoError(f"{path}: no such checkpoint; pass the output folder of {command}")
    folder = newest(folder) or folder
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


def halved(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Weights in half precision, statistics as they are: rows are divided by deviations of millimetres."""
    return {
        name: value if not value.is_floating_point() or name.rsplit(".", 1)[-1] in _STATISTICS else value.half()
        for name, value in state.items()
    }


def fingerprint(folder: Path) -> str:
    """Twelve hex digits that name a model by its kind, architecture and weights, wherever it lies."""
    description = json.loads((folder / MODEL).read_text())
    state = hashlib.sha256((folder / MODEL_STATE).read_bytes()).hexdigest()
    return digest(description["kind"], json.dumps(description["architecture"], sort_keys=True), state, digits=12)


def newest(output: str | Path) -> Path | None:
    """The checkpoint to resume from, if any. One in a bucket is copied to this machine."""
    name = newest_name(output)
    if not name:
        return None
    return _download(Storage(output), name) if is_remote(output) else Path(output) / name


def newest_name(output: str | Path) -> str:
    """Name of the checkpoint to resume from, within the output; "" if there is none."""
    storage = Storage(output)
    return json.loads(storage.read_bytes(_LATEST))["checkpoint"] if storage.exists(_LATEST) else ""


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
