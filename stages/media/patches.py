"""Parts of a decoded frame at the source's own resolution, without converting the rest of it."""

import math
from typing import Any

import av
import cv2
import numpy as np
from jaxtyping import Float, UInt8

from stages.media.display import Display, Image

_PLANAR = ("yuv420p", "yuvj420p", "yuv422p", "yuvj422p", "yuv444p", "yuvj444p")
"""8-bit formats of three planes, whose rectangles can be copied."""


class FramePatches:
    """RGB rectangles of a frame as it is displayed, in its displayed pixels."""

    def __init__(self, frame: av.VideoFrame, display: Display) -> None:
        """`display`: makes whole images of such frames at their full size."""
        self._frame, self._display = frame, display
        picture = display.picture
        self.width, self.height = picture.width, picture.height
        stored = max(2, round(frame.width * picture.aspect)), frame.height
        self._is_copied = frame.format.name in _PLANAR and picture.is_plain and stored == (self.width, self.height)
        self._whole: Image | None = None

    def patch(
        self, bounds: Float[np.ndarray, "4"], max_px: int
    ) -> tuple[UInt8[np.ndarray, "h w 3"], Float[np.ndarray, "2 3"]]:
        """The part of the frame within x0, y0, x1, y1, its longer side about `max_px` pixels at most, and the affine map from the
        frame's pixels to those of the part. Bounds outside the frame give a few pixels of its edge."""
        x0, x1 = _clip(bounds[0], bounds[2], self.width)
        y0, y1 = _clip(bounds[1], bounds[3], self.height)
        shrink = min(1.0, max_px / max(x1 - x0, y1 - y0))
        if self._is_copied:
            image, edges = self._copy(x0, y0, x1, y1, shrink)
        else:
            image, edges = self._convert(x0, y0, x1, y1, shrink), (x0, y0, x1, y1)
        scale = np.array([image.shape[1] / (edges[2] - edges[0]), image.shape[0] / (edges[3] - edges[1])])
        return image, np.concatenate([np.diag(scale), (-scale * edges[:2])[:, None]], 1)

    def _copy(
        self, x0: int, y0: int, x1: int, y1: int, shrink: float
    ) -> tuple[np.ndarray, tuple[float, float, float, float]]:
        """A rectangle by its planes, with the edges that it has after it was widened to whole blocks of colour."""
        across = self._frame.width / self.width  # stored columns per displayed one
        left, right = 2 * math.floor(x0 * across / 2), min(self._frame.width, 2 * math.ceil(x1 * across / 2))
        top, bottom = 2 * (y0 // 2), min(self._frame.height, 2 * math.ceil(y1 / 2))
        part = _rectangle(self._frame, left, top, right, bottom)
        width, height = max(2, round((right - left) / across * shrink)), max(2, round((bottom - top) * shrink))
        return part.to_ndarray(format="rgb24", width=width, height=height), (left / across, top, right / across, bottom)

    def _convert(self, x0: int, y0: int, x1: int, y1: int, shrink: float) -> np.ndarray:
        """A rectangle of the whole converted frame, which is kept for the next one."""
        if self._whole is None:
            self._whole = self._display.image(self._frame)
        part = np.ascontiguousarray(self._whole[y0:y1, x0:x1])
        if shrink == 1:
            return part
        size = max(2, round((x1 - x0) * shrink)), max(2, round((y1 - y0) * shrink))
        return cv2.resize(part, size, interpolation=cv2.INTER_AREA)


def _clip(low: float, high: float, size: int) -> tuple[int, int]:
    """Whole pixels from low to high inside 0 to size, at least two."""
    first = min(max(0, math.floor(low)), size - 2)
    return first, max(first + 2, min(size, math.ceil(high)))


def _rectangle(frame: av.VideoFrame, left: int, top: int, right: int, bottom: int) -> av.VideoFrame:
    """A rectangle with even left and top as a frame in the same format and colour space."""
    part = av.VideoFrame(right - left, bottom - top, frame.format.name)
    planes: list[tuple[Any, Any]] = list(
        zip(frame.planes, part.planes, strict=True)
    )  # buffers, which their types do not tell
    for source, target in planes:
        across, down = round(frame.width / source.width), round(frame.height / source.height)
        rows = np.frombuffer(source, np.uint8).reshape(-1, source.line_size)
        out = np.frombuffer(target, np.uint8).reshape(-1, target.line_size)
        y, x = top // down, left // across
        out[: target.height, : target.width] = rows[y : y + target.height, x : x + target.width]
    part.colorspace, part.color_range = frame.colorspace, frame.color_range
    return part
