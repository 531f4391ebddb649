"""Settings of the stages that use open_clip weights."""

from typing import Literal

from schemas.open_clip_weights import OpenClip, load_open_clip
from stages.base import StageConfig


class OpenClipConfig(StageConfig):
    """Model and device."""

    model: str = ""
    """A folder saved by open_clip (open_clip_config.json and weights), the name of an architecture such as ViT-B-32, or
    `hf-hub:` and a repository in the local Hugging Face cache. Empty: none. Nothing is downloaded."""
    weights: str = ""
    """Weights file of a named architecture (.safetensors, .pt, .bin)."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Device of the model; auto: CUDA if available."""

    def load(self, setting: str) -> OpenClip:
        """The model; errors as of `schemas.open_clip_weights.load_open_clip`."""
        return load_open_clip(self.model, self.weights, self.device, setting=setting)
