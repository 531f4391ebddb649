"""Motions of samples as codes and latents.

Shape letters: N feature rows, F features, S steps, P parts, K levels, C numbers of a part's latent.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int, UInt8
from torch import Tensor, nn

from model.data.samples import MotionSample, slice_frames
from model.features.motions import motion_features
from model.tokenizer.motion_tokenizer import MotionTokenizer
from schemas.body_model import BodyModel
from schemas.coverage import mirror_seen
from schemas.records import FPS
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
        return self.encode_together([rows], noise)[0]

    @torch.no_grad()
    def encode_together(
        self, motions: Sequence[Float[Tensor, "_ F"]], noise: float = 0.0
    ) -> list[tuple[Int[Tensor, "S P K"], Float[Tensor, "S P C"]]]:
        """The same for several motions in one pass. Shorter ones are padded at the end: the encoder is causal, so the steps before
        do not change."""
        config, device = self.tokenizer.config, self.tokenizer.device
        padded = nn.utils.rnn.pad_sequence(list(motions), batch_first=True).to(device)
        with torch.autocast(device.type, enabled=False):
            codes, latents = self.tokenizer.quantize(padded, noise=noise)
        steps = [len(rows) // config.downsample + config.preroll for rows in motions]
        return [(codes[i, :n].cpu(), latents[i, :n].cpu()) for i, n in enumerate(steps)]

    def still(self, motion: MotionArrays, frame: int, steps: int, mirrored: bool = False) -> Float[Tensor, "N F"]:
        """Rows of a body that stays in the pose of a frame for some steps."""
        count = steps * self.downsample + 1
        still = {name: np.repeat(value[frame : frame + 1], count, 0) if name != "betas" else value
                 for name, value in vars(motion).items()}  # fmt: skip
        return self.rows(MotionArrays(**still), mirrored)

    def pose(self, motion: MotionArrays, frame: int, mirrored: bool = False) -> Float[Tensor, "1 P C"]:
        """Latents of a body that stays in the pose of a frame."""
        return self.encode(self.still(motion, frame, _POSE_STEPS, mirrored))[1][-1:]


class EncodedSample:
    """A sample, mirrored or not, as the tasks need it."""

    def __init__(
        self,
        sample: MotionSample,
        encoder: MotionEncoder,
        mirrored: bool,
        rows: Float[Tensor, "N F"],
        codes: Int[Tensor, "S P K"],
        latents: Float[Tensor, "S P C"],
    ) -> None:
        self.sample, self.encoder, self.mirrored = sample, encoder, mirrored
        self.rows, self.codes, self.latents = rows, codes, latents
        self.uses = 0
        """How often it was drawn."""

    @classmethod
    def encode(
        cls, samples: Sequence[tuple[MotionSample, bool]], encoder: MotionEncoder, noise: float = 0.0
    ) -> list["EncodedSample"]:
        """Encode samples, each with whether it is mirrored, in one pass."""
        rows = [encoder.rows(sample.motion, mirrored) for sample, mirrored in samples]
        found = encoder.encode_together(rows, noise) if rows else []
        return [
            cls(sample, encoder, mirrored, own, codes, latents)
            for (sample, mirrored), own, (codes, latents) in zip(samples, rows, found, strict=True)
        ]

    @property
    def seen(self) -> UInt8[np.ndarray, "T 5"]:
        """The motion's mask, mirrored like the codes."""
        return mirror_seen(self.sample.motion.seen) if self.mirrored else self.sample.motion.seen

    def step_at(self, seconds: float) -> int:
        """The step that begins at a time, rounded; the preroll lies before the first one."""
        config = self.encoder.tokenizer.config
        return round(seconds * FPS / config.downsample) + config.preroll

    def seconds_at(self, step: int) -> float:
        """When a step begins; 0 in the preroll."""
        config = self.encoder.tokenizer.config
        return max(step - config.preroll, 0) * config.downsample / FPS

    def seen_steps(self) -> Bool[Tensor, "S P"]:
        """Step and part: whether it was seen in all frames of the step."""
        config = self.encoder.tokenizer.config
        seen = torch.from_numpy(self.seen.astype(bool))
        frames = (len(self.codes) - config.preroll) * config.downsample
        seen = torch.cat([seen, seen[-1:].expand(max(frames - len(seen), 0), -1)])[:frames]
        steps = seen.unflatten(0, (-1, config.downsample)).all(1)
        return torch.cat([steps[:1].expand(config.preroll, -1), steps])

    def from_step(self, step: int) -> tuple[Int[Tensor, "S P K"], Float[Tensor, "S P C"]]:
        """Codes and latents of the motion from a step on, as if nothing had been before."""
        config = self.encoder.tokenizer.config
        first = max(step - config.preroll, 0) * config.downsample
        later = slice_frames(self.sample.motion, first, len(self.sample.motion.poses))
        if len(later.poses) <= config.downsample:
            return self.codes[:0], self.latents[:0]
        return self.encoder.encode(self.encoder.rows(later, self.mirrored))

    def pose(self, seconds: float) -> Float[Tensor, "1 P C"]:
        """Latents of the pose at a time."""
        frames = len(self.sample.motion.poses)
        frame = min(round(seconds * FPS), frames - 1)
        return self.encoder.pose(self.sample.motion, frame, self.mirrored)
