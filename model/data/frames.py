"""The frames of a sample that a model may look at, read beside the sample by the loader's workers.

    sample, cache of tokens -> frames whose tokens are not known -> decoded, square

A worker decodes only what no tower has seen yet. Frames that are read: those that image inputs of instructions name and, for clips,
an even grid from the first frame on. They are numbered as the motion's: number / FPS is the time in the clip.
"""

import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from jaxtyping import Int

from model.data.clips import SquareFrames, clip_frames
from model.data.frame_cache import FrameCache, SeenFrames
from schemas.errors import HumoError
from schemas.ids import digest
from schemas.records import FPS, Instruction


@dataclass(frozen=True, kw_only=True, eq=False)
class SampleFrames:
    """Frames of one clip: every one of `numbers` is among the pixels or, for both sides that are asked for, among the seen ones."""

    identity: str
    """Names the content of the clip in a cache."""
    numbers: Int[np.ndarray, "n"]
    """Frames at hand, ascending."""
    pixel_numbers: Int[np.ndarray, "m"]
    pixels: SquareFrames
    """Decoded frames, by `pixel_numbers`."""
    seen: dict[bool, SeenFrames] = field(default_factory=dict)
    """Mirrored or not -> frames with their tokens."""

    def nearest(self, number: int) -> int:
        """The frame at hand that is nearest to another one."""
        return int(self.numbers[np.abs(self.numbers - number).argmin()])

    def between(self, first: int, last: int) -> Int[np.ndarray, "k"]:
        """The frames at hand from `first` to `last`, inclusive."""
        return self.numbers[(self.numbers >= first) & (self.numbers <= last)]


@dataclass(frozen=True, kw_only=True)
class FrameReader:
    """Which frames are read, and how; picklable."""

    px: int
    """Side of the squares into which frames are fitted, pixels."""
    clip_fps: float = 0.0
    """Rate of the grid of frames, 1/s; 0: only frames that instructions name."""
    mirrored: bool = False
    """Whether mirror images are asked for, too."""
    cache: FrameCache | None = None

    def wanted(self, frames: int, instructions: tuple[Instruction, ...]) -> Int[np.ndarray, "n"]:
        """Numbers of the frames of a clip with `frames` frames."""
        named = {round(one.inputs.start_s * FPS) for one in instructions if one.inputs.kind == "image"}
        grid = np.arange(0, frames, FPS / self.clip_fps).round().astype(int).tolist() if self.clip_fps else []
        return np.array(sorted({min(number, frames - 1) for number in named | set(grid)}), np.int64)

    def read(
        self, key: str, meta: dict[str, Any], wanted: Int[np.ndarray, "n"], read_clip: Callable[[], bytes]
    ) -> SampleFrames | None:
        """The wanted frames of a sample; None, with a warning, if its clip does not decode."""
        identity = digest(key, meta.get("config_digest", ""), meta.get("crop", []), self.px, digits=24)
        seen: dict[bool, SeenFrames] = {}
        missing = np.zeros(len(wanted), bool)
        for mirrored in (False, True) if self.mirrored else (False,):
            known = self.cache.read(identity, mirrored=mirrored) if self.cache else None
            if known is not None:
                seen[mirrored] = known
            missing |= ~np.isin(wanted, known[0]) if known is not None else True
        pixel_numbers, pixels = wanted[missing], np.zeros((0, self.px, self.px, 3), np.uint8)
        if len(pixel_numbers):
            clip_mp4 = read_clip()
            try:
                pixels = clip_frames(clip_mp4, (pixel_numbers / FPS).tolist(), self.px, name=f"{key}.clip.mp4")
            except HumoError as error:
                warnings.warn(f"{error}; it is trained without its picture", stacklevel=2)
                return None
        return SampleFrames(identity=identity, numbers=wanted, pixel_numbers=pixel_numbers, pixels=pixels, seen=seen)
