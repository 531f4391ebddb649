"""Architecture of a motion tokenizer."""

import math
from typing import Literal

from pydantic import model_validator

from schemas.config import Config
from schemas.skeleton import PARTS


class TokenizerConfig(Config):
    """Architecture of a motion tokenizer."""

    features: Literal["humo263", "smpl135"] = "humo263"
    """Layout of the feature rows: `humo263` has positions and velocities, `smpl135` rotations only, so that the codes of a limb
    move nothing else."""
    parts: Literal["five", "whole"] = "five"
    """`five`: one stream of codes per part (PRQ). `whole`: one stream (VQ, RQ)."""
    share_joints: bool = True
    """Whether neighbouring parts both see the joint between them, and legs the root; otherwise it is the torso's alone."""
    mix_parts: bool = False
    """Whether the residual blocks convolve over neighbouring parts too (2D-PRQ); a part's codes then move other parts."""
    quantizer: Literal["residual", "fsq"] = "residual"
    """`residual`: learned codebooks. `fsq`: finite scalar quantization (arXiv 2309.15505), whose codebooks are grids."""
    levels: int = 4
    """Residual quantizers, one code each per part and step."""
    codebook_size: int = 512
    """Codes per codebook."""
    fsq_grid: tuple[int, ...] = (8, 8, 8)
    """Values per dimension of `fsq`; their product is `codebook_size`."""
    code_width: int = 128
    """Dimension of a code vector."""
    width: int = 512
    """Channels of the convolutions."""
    patch: int = 1
    """Consecutive frames that the first convolution takes as channels and the last one gives back; the convolutions in between
    run at this fraction of the frame rate."""
    preroll: int = 0
    """Steps before a motion, in which its first frame stands still: a predictive tokenizer needs them to come to the first pose.
    Their codes come first; decoding drops their frames."""
    lookahead: int = 0
    """Steps after a step that its decoding waits for. With 1 the seams between steps are smooth, and frames come one step later."""
    strides: tuple[int, ...] = (2, 2)
    """Downsampling strides from patches to steps; `patch` times their product is the number of frames per step."""
    dilations: tuple[int, ...] = (1, 3)
    """Dilations of the residual blocks after each downsampling or upsampling."""
    share_levels: bool = False
    """Whether the levels share one codebook as well."""
    share_parts: bool = True
    """Whether the parts share their codebooks."""
    replace_below: float = 1.0
    """Codes that are used less often than this per training step, as a running mean, are replaced by vectors of the batch."""
    predict: int = 0
    """Quantized steps from which the next one is predicted, linearly and part by part; only what the prediction misses is
    quantized (differential coding, which lets no error accumulate: the encoder predicts from what the decoder has). 0: none."""
    beam: int = 1
    """Candidates that the search for codes keeps from level to level when encoding."""
    rotation_trick: bool = True
    """Gradients through the quantizer by the rotation trick (arXiv 2410.06424) instead of straight-through; not with `predict`."""

    @model_validator(mode="after")
    def _consistent(self) -> "TokenizerConfig":
        for name in ("levels", "codebook_size", "code_width", "width", "patch", "beam"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1")
        if not self.strides or min(self.strides) < 1:
            raise ValueError("strides must be a list of integers of at least 1")
        if self.quantizer == "fsq" and math.prod(self.fsq_grid) != self.codebook_size:
            raise ValueError(
                f"fsq_grid {list(self.fsq_grid)} has {math.prod(self.fsq_grid)} codes, codebook_size is {self.codebook_size}; "
                "make them equal"
            )
        for name in ("predict", "lookahead", "preroll"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} must be at least 0")
        if self.predict and self.quantizer == "fsq":
            raise ValueError("predict needs quantizer: residual")
        if self.mix_parts and self.parts == "whole":
            raise ValueError("mix_parts convolves over parts; set parts: five")
        return self

    @property
    def downsample(self) -> int:
        """Frames per step."""
        return self.patch * math.prod(self.strides)

    @property
    def streams(self) -> tuple[str, ...]:
        """Part names in the order of their codes."""
        return tuple(PARTS) if self.parts == "five" else ("whole",)

    @property
    def bits_per_step(self) -> float:
        """Bits of a step's codes."""
        return len(self.streams) * self.levels * math.log2(self.codebook_size)

    @property
    def encoder_frames(self) -> int:
        """Frames on which the codes of a step depend, its own included."""
        behind, scale = 2, 1  # patches before the last that the first convolution sees; patches per output
        for stride in self.strides:
            behind += (2 * stride - 1) * scale
            scale *= stride
            behind += 2 * sum(self.dilations) * scale
        return (1 + behind) * self.patch


PRESETS = {
    "tiny": TokenizerConfig(codebook_size=128, code_width=64, width=96, dilations=(1, 3)),
    "base": TokenizerConfig(),
    "fast": TokenizerConfig(
        features="smpl135",
        code_width=48,
        width=192,
        patch=4,
        strides=(1,),
        dilations=(1, 2, 4),
        replace_below=0.1,
        predict=3,
        preroll=2,
        lookahead=1,
        beam=4,
        share_parts=False,
        rotation_trick=False,
    ),
}
"""`tiny` trains in one or two minutes on one CPU core; `fast` runs at the rate of the steps."""
