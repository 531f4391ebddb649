"""Black borders around a picture: letterboxes above and below, pillarboxes at the sides."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import UInt8

Image = UInt8[np.ndarray, "H W 3"]
_BLACK = 24
"""Brightest value of a border, 0-255: video black is 16 where the range is declared wrongly, and compression adds noise."""
_BLACK_SHARE = 0.99
"""Share of a line's values that must be black; the rest may be specks."""
_MIN_FRAMES = 3
"""Frames without which nothing is cut: a dark scene looks like a border."""
_MIN_SIDE, _MAX_SIDES = 0.02, 0.75
"""Smallest border on each side and largest sum of both, as a share of the picture."""
_MAX_ASYMMETRY = 0.02
"""Largest difference of the two borders, as a share of the picture: editors centre the picture, a dark ceiling is on one side."""
_BLOCK = 16
"""Lines that are examined at once."""
_MIN_EDGE = 12.0
"""Least rise of brightness from the border into the picture, in the brightest frame; shadows fade."""


def find_borders(frames: Sequence[Image]) -> tuple[int, int, int, int]:
    """Widths of the borders that all frames have: left, top, right, bottom, even numbers of pixels; zeros where there are none."""
    if len(frames) < _MIN_FRAMES:
        return 0, 0, 0, 0
    top, bottom = _pair(frames)
    left, right = _pair([frame[top : len(frame) - bottom].swapaxes(0, 1) for frame in frames])
    return left, top, right, bottom


def _pair(frames: Sequence[Image]) -> tuple[int, int]:
    """Borders before the first and after the last line."""
    lines = len(frames[0])
    before = after = lines
    for frame in frames:
        # Most frames have no border, which their first and last lines show.
        before, after = _border(frame[:before]), _border(frame[::-1][:after])
        if min(before, after) < _MIN_SIDE * lines:
            return 0, 0
    if before + after > _MAX_SIDES * lines or abs(before - after) > max(4, _MAX_ASYMMETRY * lines):
        return 0, 0
    if not (_is_edge(frames, before) and _is_edge([frame[::-1] for frame in frames], after)):
        return 0, 0
    return before + before % 2, after + after % 2


def _border(lines: Image) -> int:
    """Number of black lines before the first other one."""
    for start in range(0, len(lines), _BLOCK):
        black = (lines[start : start + _BLOCK] <= _BLACK).mean(axis=(1, 2)) >= _BLACK_SHARE
        if not black.all():
            return start + int(np.argmin(black))
    return len(lines)


def _is_edge(frames: Sequence[Image], border: int) -> bool:
    """Whether brightness rises within a few lines of the border's end, in the frame where it rises most."""
    inside = [frame[border : border + 4].mean(axis=(1, 2)).max() for frame in frames]
    outside = [frame[border - 4 : border].mean() for frame in frames]
    return float(np.subtract(inside, outside).max()) >= _MIN_EDGE
