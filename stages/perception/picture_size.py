"""The size of the picture in which a detector finds everybody: people who are small in a large picture vanish when it is shrunk.

Measured with YOLO11n on film frames that were shrunk and tiled so that people are 84 pixels tall: of 48 it finds none at a height
of 36 pixels in its input, 17 at 42, 30 at 49, 44 at 56, 46 at 70, 47 at 84.
"""

from collections.abc import Iterable

CLEAR_PX, ENOUGH_PX = 72, 56
"""Heights of a person in the network's input: at which nearly everyone is found, and from which a larger picture is not worth its
price."""
_STEP_PX = 320
"""Sizes are multiples of this: a network is compiled for each."""


def needed_px(heights_px: Iterable[float], longer_px: int, *, least_px: int, most_px: int) -> int:
    """Longer side of the network's input in which people of these heights, pixels of a picture with the longer side `longer_px`,
    are clear: `least_px`, or a larger multiple of 320 up to `most_px` and to the next one above the picture."""
    smallest = min(heights_px, default=float("inf"))
    if smallest * least_px >= ENOUGH_PX * longer_px:
        return least_px
    wanted = CLEAR_PX / max(smallest, 1.0) * longer_px
    steps = -(-int(min(wanted, longer_px)) // _STEP_PX) * _STEP_PX
    return max(least_px, min(steps, most_px))
