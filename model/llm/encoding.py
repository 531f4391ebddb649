"""Motions of samples as codes and latents.

Shape letters: N feature rows, F features, S steps, P parts, K levels, C numbers of a part's latent.
"""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor

from model.data.samples import MotionSample
from model.features.motions import motion_features
from model.tokenizer.motion_tokenizer import MotionTokenizer
from schemas.body_model import BodyModel
from schemas.coverage import mirror_seen
from schemas.sample import MotionArrays

_POSE_STEPS = 4
"""Steps that a body stays in a pose until its latents stand for the pose."""


@dataclass(eq=False)
class MotionEncoder:
    """Encodes motions with a frozen tokenizer, in single precision also under autocast."""

    tokenizer: MotionTokenizer
    body: BodyModel

    @property
    def downsample(self) -> int:
        """Frames of a step."""
        return self.tokenizer.config.downsample

    def rows(self, motion: MotionArrays, mirrored: bool = False) -> Float[Tensor, "N F"]:
        """Feature rows."""
        rows = motion_features([motion], self.body, self.tokenizer.config.features)[0]
        return self.tokenizer.features.mirror(rows) if mirrored else rows

    @torch.no_grad()
    def encode(
        self, rows: Float[Tensor, "N F"], noise: float = 0.0
    ) -> tuple[Int[Tensor, "S P K"], Float[Tensor, "S P C"]]:
        """Codes and quantized latents, on the CPU. With `noise` (in units of latents) the history that a step is coded after is
        disturbed, so that the codes show how to come back from what sampling may do."""
        with torch.autocast(self.tokenizer.device.type, enabled=False):
            codes, latents = self.tokenizer.quantize(rows[None].to(self.tokenizer.device), noise=noise)
        return codes[0].cpu(), latents[0].cpu()

    def pose(self, motion: MotionArrays, frame: int, mirrored: bool = False) -> Float[Tensor, "1 P C"]:
        """Latents of a body that stays in the pose of a frame."""
        count = _POSE_STEPS * self.downsample + 1
        still = {name: np.repeat(value[frame : frame + 1], count, 0) if name != "betas" else value
                 for name, value in vars(motion).items()}  # fmt: skip
        return self.encode(self.rows(MotionArrays(**still), mirrored))[1][-1:]


class EncodedSample:
    """A sample, mirrored or not, as the tasks need it."""

    def __init__(self, sample: MotionSample, encoder: MotionEncoder, *, mirrored: bool = False, noise: float = 0.0) -> None:
        self.sample, self.encoder, self.mirrored, self.noise = sample, encoder, mirrored, noise
        self.rows = encoder.rows(sample.motion, mirrored)
        self.codes, self.latents = encoder.encode(self.rows, noise)
        self.uses = 0

    @property
    def seen(self) -> UInt8[np.ndarray, "T 5"]:
        """The motion's mask, mirrored like the codes."""
        return mirror_seen(self.sample.motion.seen) if self.mirrored else self.sample.motion.seen

    def from_step(self, step: int) -> tuple[Int[Tensor, "S P K"], Float[Tensor, "S P C"]]:
        """Codes and latents of the motion from a step on, as if nothing had been before."""
        return self.encoder.encode(self.rows[step * self.encoder.downsample :])

    def pose(self, seconds: float) -> Float[Tensor, "1 P C"]:
        """Latents of the pose at a time."""
        frames = len(self.sample.motion.poses)
        frame = min(round(seconds * self.sample.meta.get("fps", 30)), frames - 1)
        return self.encoder.pose(self.sample.motion, frame, self.mirrored)
