"""Loads user-supplied open_clip weights: CLIP and SigLIP to compare images with text, CoCa to describe images."""

from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

import torch

from schemas.devices import choose_device
from schemas.errors import HumoError
from schemas.storage import stream_sha256
from schemas.torchvision_ops import ensure_operators
from stages.base import StageConfig

WEIGHTS_HINT = (
    "no weights come with humo: name a folder with open_clip_config.json and its weights, an architecture with a weights file "
    "(model: ViT-B-32, weights: FILE), or hf-hub:ORGANISATION/NAME if it is in this machine's Hugging Face cache"
)


class OpenClipConfig(StageConfig):
    """Model and device."""

    model: str = ""
    """A folder saved by open_clip (open_clip_config.json and weights), the name of an architecture such as ViT-B-32, or
    `hf-hub:` and a repository in the local Hugging Face cache. Empty: none. Nothing is downloaded."""
    weights: str = ""
    """Weights file of a named architecture (.safetensors, .pt, .bin)."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Device of the model; auto: CUDA if available."""


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


def load_open_clip(config: OpenClipConfig, setting: str) -> OpenClip:
    """The model in evaluation mode, single precision. Raises HumoError if package, model or weights are missing or do not
    match; `setting` is the name of the settings in the message."""
    if not config.model:
        raise HumoError(f"{setting}: model is empty; {WEIGHTS_HINT}")
    if find_spec("open_clip") is None:
        raise HumoError(f"{setting}: the package open_clip_torch is not installed; install humo[vision]")
    ensure_operators()
    import open_clip

    name, weights = config.model, config.weights or None
    folder = Path(config.model)
    if folder.is_dir():
        name, weights = f"local-dir:{folder}", None
    elif config.weights and not Path(config.weights).is_file():
        raise HumoError(f"{setting}: weights {config.weights!r} is not a file; {WEIGHTS_HINT}")
    elif not config.weights and not name.startswith("hf-hub:"):
        raise HumoError(f"{setting}: model {name!r} is not a folder and has no weights; {WEIGHTS_HINT}")
    device = choose_device(config.device)
    try:
        model, prepare = open_clip.create_model_from_pretrained(name, pretrained=weights, device=device)
        tokenize = open_clip.get_tokenizer(name)
    except Exception as error:  # open_clip, torch and the hub raise arbitrary exceptions
        cause = " ".join(f"{type(error).__name__}: {error}".split())[:300]
        raise HumoError(f"{setting}: model {config.model!r} does not load ({cause}); {WEIGHTS_HINT}") from error
    model.eval()
    model_name = folder.name if folder.is_dir() else name
    label = f"open_clip {version('open_clip_torch')} {model_name} {_hash(folder, weights)}".rstrip()
    return OpenClip(model=model, prepare=prepare, tokenize=tokenize, device=device, label=label)


def _hash(folder: Path, weights: str | None) -> str:
    """First eight digits of the weights' hash; empty for a model of the hub, which is identified by its name."""
    files = [Path(weights)] if weights else sorted(folder.glob("*.safetensors")) or sorted(folder.glob("*.bin"))
    if not files or not files[0].is_file():
        return ""
    with files[0].open("rb") as file:
        return stream_sha256(file)[:8]
