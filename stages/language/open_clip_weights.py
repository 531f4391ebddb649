"""Loads the user's weights for open_clip: CLIP and SigLIP to compare pictures with words, CoCa to describe pictures."""

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

HOW = (
    "no weights come with humo: name a folder with open_clip_config.json and its weights, an architecture with a weights file "
    "(model: ViT-B-32, weights: FILE), or hf-hub:ORGANISATION/NAME if it is in this machine's Hugging Face cache"
)


class OpenClipConfig(StageConfig):
    """Which model, and where it runs."""

    model: str = ""
    """A folder as open_clip saves it (open_clip_config.json and weights), an architecture's name such as ViT-B-32, or
    `hf-hub:` and a repository that is in the local Hugging Face cache. Empty: none. Nothing is downloaded."""
    weights: str = ""
    """File with the weights of a named architecture (.safetensors, .pt, .bin)."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where it runs; auto: CUDA where there is one."""


@dataclass(frozen=True, kw_only=True)
class OpenClip:
    """A loaded model with what prepares pictures and words for it."""

    model: Any
    prepare: Callable[[Any], torch.Tensor]
    """A PIL image to the model's input (3, H, W)."""
    tokenize: Any
    device: torch.device
    label: str
    """Name and version: the weights by the start of their hash."""


def load_open_clip(config: OpenClipConfig, user: str) -> OpenClip:
    """The model in evaluation mode, single precision. Raises HumoError where package, model or weights are missing or do not
    fit; `user` is the setting that the message names."""
    if not config.model:
        raise HumoError(f"{user}: model is empty; {HOW}")
    if find_spec("open_clip") is None:
        raise HumoError(f"{user}: the package open_clip_torch is not installed; install humo[vision]")
    ensure_operators()
    import open_clip

    name, weights = config.model, config.weights or None
    folder = Path(config.model)
    if folder.is_dir():
        name, weights = f"local-dir:{folder}", None
    elif config.weights and not Path(config.weights).is_file():
        raise HumoError(f"{user}: weights {config.weights!r} is no file; {HOW}")
    elif not config.weights and not name.startswith("hf-hub:"):
        raise HumoError(f"{user}: model {name!r} is no folder and has no weights; {HOW}")
    device = choose_device(config.device)
    try:
        model, prepare = open_clip.create_model_from_pretrained(name, pretrained=weights, device=device)
        tokenize = open_clip.get_tokenizer(name)
    except Exception as error:  # open_clip, torch and the hub raise what they like.
        cause = " ".join(f"{type(error).__name__}: {error}".split())[:300]
        raise HumoError(f"{user}: model {config.model!r} does not load ({cause}); {HOW}") from error
    model.eval()
    called = folder.name if folder.is_dir() else name
    label = f"open_clip {version('open_clip_torch')} {called} {_hash(folder, weights)}".rstrip()
    return OpenClip(model=model, prepare=prepare, tokenize=tokenize, device=device, label=label)


def _hash(folder: Path, weights: str | None) -> str:
    """Eight digits of the hash of the weights; nothing for a model of the hub, whose name says it."""
    files = [Path(weights)] if weights else sorted(folder.glob("*.safetensors")) or sorted(folder.glob("*.bin"))
    if not files or not files[0].is_file():
        return ""
    with files[0].open("rb") as file:
        return stream_sha256(file)[:8]
