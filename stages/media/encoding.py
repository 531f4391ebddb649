"""Reproducible H.264 encoding in mp4: the same frames give the same bytes."""

import io
from fractions import Fraction
from pathlib import Path
from types import TracebackType

import av
import numpy as np

from stages.media.decoding import Image

_TICKS_PER_S = 90_000


class VideoWriter:
    """An mp4 file of RGB frames with their times; use it in a `with` block.

    It uses one thread, no dates, and no macroblock tree: x264's reads uninitialized memory, so that the bytes would differ
    between runs for some frame sizes.
    """

    def __init__(
        self,
        target: str | Path | io.IOBase,
        width: int,
        height: int,
        fps: float,
        *,
        quality: int = 23,
        preset: str = "veryfast",
    ) -> None:
        """`quality` is x264's constant rate factor, smaller is better; width and height are rounded down to even numbers."""
        self.width, self.height, self.fps = width // 2 * 2, height // 2 * 2, fps
        self.frames = 0
        file = str(target) if isinstance(target, Path) else target
        self._container = av.open(file, "w", format="mp4", options={"fflags": "+bitexact"})
        stream = self._container.add_stream("libx264", rate=Fraction(fps).limit_denominator(1001))
        stream.width, stream.height, stream.pix_fmt = self.width, self.height, "yuv420p"
        stream.time_base = stream.codec_context.time_base = Fraction(1, _TICKS_PER_S)
        stream.codec_context.thread_count = 1
        stream.options = {"crf": str(quality), "preset": preset, "flags": "+bitexact", "x264-params": "mbtree=0"}
        self._stream = stream

    def write(self, image: Image, time_s: float | None = None) -> None:
        """Append a frame, scaled to the file's size; without a time, times follow from the frame rate."""
        seconds = self.frames / self.fps if time_s is None else time_s
        frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(image), format="rgb24")
        frame = frame.reformat(width=self.width, height=self.height, format="yuv420p")
        frame.pts, frame.time_base = round(seconds * _TICKS_PER_S), Fraction(1, _TICKS_PER_S)
        self._container.mux(self._stream.encode(frame))
        self.frames += 1

    def __enter__(self) -> "VideoWriter":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None and self.frames:
            self._container.mux(self._stream.encode())
        self._container.close()
