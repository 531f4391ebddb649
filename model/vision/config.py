"""Settings of a model's vision."""

from typing import Literal

from pydantic import Field

from schemas.config import Config


class VisionConfig(Config):
    """Tower, frames and projector."""

    tower: Literal["detector", "open_clip"] = "detector"
    """detector: the person detector of the installation; open_clip: a CLIP or SigLIP model that `model` and `weights` name."""
    model: str = ""
    """Of open_clip: a folder that it saved, or the name of an architecture such as ViT-B-16-SigLIP."""
    weights: str = ""
    """Weights file of the tower; empty: the detector's shipped ones, or those in the folder `model`."""
    px: int = Field(default=256, ge=64, multiple_of=32)
    """Side of the square in which the detector sees a frame, pixels; open_clip models have a size of their own."""
    grid: int = Field(default=4, ge=1, le=16)
    """A frame is summed up by one token and shown by `grid` x `grid` more."""
    clip_fps: float = Field(default=2.0, ge=0, le=30)
    """Frames of a clip that are at hand, 1/s, beside those that instructions name; 0: those alone, without clips."""
    slow_frames: int = Field(default=4, ge=1)
    """Most frames of a clip that enter with all their tokens."""
    fast_frames: int = Field(default=16, ge=1)
    """Most frames of a clip that enter at all, those that are not slow with one token each."""
    hidden: int = Field(default=0, ge=0)
    """Width of the projector's hidden layer; 0: that of the language model."""
    cache: str = ""
    """Folder for the tokens of frames that the tower has seen; empty: humo's own."""
    cache_gib: float = Field(default=20.0, ge=0)
    """Size at which nothing more is written there, GiB; 0: tokens are not kept."""
