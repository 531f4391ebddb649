"""Loads user-supplied open_clip weights: CLIP and SigLIP to compare images with text and to look at images for the language model,
CoCa to describe images."""

from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch

from schemas.devices import choose_device
from schemas.errors import HumoError
from schemas.storage import stream_sha256
from schemas.torchvision_ops import ensure_operators

WEIGHTS_HINT = (
    "no weights come with humo: name a folder with open_clip_config.json and its weights, an architecture with a weights file "
    "(model: ViT-B-32, weights: FILE), or hf-hub:ORGANISATION/NAME if it is in this machine's Hugging Face cache"
)


@dataclass(frozen=True, kw_only=True)
class OpenClip:
    """A loaded model with its image transform and tokenizer."""

    model: Any
    prepare: Callable[[Any], torch.Tensor]
    """PIL image -> model input (3, H, W)."""
    tokenize: Any
    device: torch.device
    label: str
    """Name and version; weights are identified by the first digits of their hash."""


def load_open_clip(model: str, weights: str, device: str, *, setting: str) -> OpenClip:
    """The model in evaluation mode, single precision: `model` is a folder saved by open_clip, the name of an architecture with its
    `weights` file, or `hf-hub:` and a repository in the local cache.

    Raises HumoError if package, model or weights are missing or do not match; `setting` is the name of the settings in the message.
    """
    if not model:
        raise HumoError(f"{setting}: model is empty; {WEIGHTS_HINT}")
    if find_spec("open_clip") is None:
        raise HumoError(f"{setting}: the package open_clip_torch is not installed; install humo[vision]")
    ensure_operators()
    import open_clip

    name, file, folder = model, weights or None, Path(model)
    if folder.is_dir():
        name, file = f"local-dir:{folder}", None
    elif file and not Path(file).is_file():
        raise HumoError(f"{setting}: weights {weights!r} is not a file; {WEIGHTS_HINT}")
    elif not file and not name.startswith("hf-hub:"):
        raise HumoError(f"{setting}: model {name!r} is not a folder and has no weights; {WEIGHTS_HINT}")
    chosen = choose_device(device)
    try:
        loaded, prepare = open_clip.create_model_from_pretrained(name, pretrained=file, device=chosen)
        tokenize = open_clip.get_tokenizer(name)
    except Exception as error:  # open_clip, torch and the hub raise arbitrary exceptions
        cause = " ".join(f"{type(error).__name__}: {error}".split())[:300]
        raise HumoError(f"{setting}: model {model!r} does not load ({cause}); {WEIGHTS_HINT}") from error
    loaded.eval()
    model_name = folder.name if folder.is_dir() else name
    label = f"open_clip {version('open_clip_torch')} {model_name} {_hash(folder, file)}".rstrip()
    return OpenClip(model=loaded, prepare=prepare, tokenize=tokenize, device=chosen, label=label)


def _hash(folder: Path, weights: str | None) -> str:
    """First eight digits of the weights' hash; empty for a model of the hub, which is identified by its name."""
    files = [Path(weights)] if weights else sorted(folder.glob("*.safetensors")) or sorted(folder.glob("*.bin"))
    if not files or not files[0].is_file():
        return ""
    with files[0].open("rb") as file:
        return stream_sha256(file)[:8]
