"""Draws skeletons, boxes and labels on RGB frames. The person's own left is blue, the right orange, the middle white.

OpenCV is imported on first use.
"""

import unicodedata
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, UInt8

from schemas.skeleton import COCO_EDGES, COCO_KEYPOINTS, SMPL_JOINTS, SMPL_PARENTS

Frame = UInt8[np.ndarray, "H W 3"]
Colour = tuple[int, int, int]

LEFT: Colour = (64, 156, 255)
RIGHT: Colour = (255, 138, 36)
MIDDLE: Colour = (245, 245, 245)
DARK: Colour = (22, 26, 32)
MIN_CONFIDENCE = 0.3
"""Keypoints with lower confidence are not drawn."""
SMPL_EDGES = tuple((parent, child) for child, parent in enumerate(SMPL_PARENTS) if parent >= 0)
_FONT = 0
"""cv2.FONT_HERSHEY_SIMPLEX"""


def side_colour(name: str) -> Colour:
    """Colour of a joint or keypoint by its name."""
    if name.startswith("left_"):
        return LEFT
    return RIGHT if name.startswith("right_") else MIDDLE


def edge_colour(one: str, other: str) -> Colour:
    """Colour of a bone: that of its side, white if it connects both sides."""
    sides = {side_colour(one), side_colour(other)} - {MIDDLE}
    return sides.pop() if len(sides) == 1 else MIDDLE


def draw_keypoints(
    frame: Frame, keypoints: Float[np.ndarray, "17 3"], *, min_confidence: float = MIN_CONFIDENCE
) -> Frame:
    """A copy of the frame with COCO-17 keypoints (x, y in pixels, confidence) on it."""
    visible = keypoints[:, 2] >= min_confidence
    return _draw_skeleton(frame, keypoints[:, :2], visible, COCO_KEYPOINTS, COCO_EDGES)


def draw_body(frame: Frame, joints_2d: Float[np.ndarray, "24 2"]) -> Frame:
    """A copy of the frame with projected SMPL joints (pixels) on it; non-finite joints are left out."""
    return _draw_skeleton(frame, joints_2d, np.isfinite(joints_2d).all(1), SMPL_JOINTS, SMPL_EDGES)


def draw_box(frame: Frame, box: Float[np.ndarray, "4"], label: str = "") -> Frame:
    """A copy of the frame with a box (x0, y0, x1, y1 in pixels) and its label on it."""
    import cv2

    drawn, scale = frame.copy(), _scale(frame.shape)
    x0, y0, x1, y1 = (round(float(value)) for value in box)
    cv2.rectangle(drawn, (x0, y0), (x1, y1), DARK, round(2 * scale) + 2, cv2.LINE_AA)
    cv2.rectangle(drawn, (x0, y0), (x1, y1), MIDDLE, round(scale), cv2.LINE_AA)
    if label:
        _draw_label(drawn, label, (x0, y0 - _label_height(scale)), MIDDLE)
    return drawn


def draw_legend(frame: Frame) -> Frame:
    """A copy of the frame with a colour legend in its lower left corner."""
    drawn, scale = frame.copy(), _scale(frame.shape)
    x, y = round(4 * scale), frame.shape[0] - _label_height(scale) - round(4 * scale)
    for text, colour in (("left", LEFT), ("right", RIGHT)):
        x += _draw_label(drawn, text, (x, y), colour)
    return drawn


def add_caption(frame: Frame, text: str) -> Frame:
    """The frame with a wrapped caption on a dark band below it; its height grows by `caption_height`."""
    lines, step, margin = _caption_lines(frame.shape[1], text)
    if not lines:
        return frame
    band = np.full((step * len(lines) + margin, frame.shape[1], 3), DARK, np.uint8)
    drawn = np.concatenate([frame, band])
    for number, line in enumerate(lines):
        _write(drawn, line, (margin, frame.shape[0] + margin + number * step), MIDDLE, max(1.0, frame.shape[1] / 480))
    return drawn


def caption_height(width: int, text: str) -> int:
    """Height in pixels that `add_caption` adds to a frame of this width."""
    lines, step, margin = _caption_lines(width, text)
    return step * len(lines) + margin if lines else 0


def _caption_lines(width: int, text: str) -> tuple[list[str], int, int]:
    """Lines, line height and margin, pixels."""
    scale = max(1.0, width / 480)
    margin = round(6 * scale)
    lines: list[str] = []
    for word in text.split():
        longer = f"{lines[-1]} {word}" if lines else word
        if lines and _text_size(longer, scale)[0] <= width - 2 * margin:
            lines[-1] = longer
        else:
            lines.append(word)
    return lines, _text_size("Ag", scale)[1] + margin, margin


def _draw_skeleton(
    frame: Frame,
    points: Float[np.ndarray, "K 2"],
    visible: np.ndarray,
    names: Sequence[str],
    edges: Sequence[tuple[int, int]],
) -> Frame:
    import cv2

    drawn, thickness = frame.copy(), round(_scale(frame.shape))
    # Far outside the image OpenCV's fixed-point coordinates would wrap around.
    limit = 4.0 * max(frame.shape)
    pixels = [tuple(int(v) for v in np.clip(np.nan_to_num(point), -limit, limit).round()) for point in points]
    lines = [(a, b, edge_colour(names[a], names[b])) for a, b in edges if visible[a] and visible[b]]
    for a, b, _ in lines:
        cv2.line(drawn, pixels[a], pixels[b], DARK, 2 * thickness + 2, cv2.LINE_AA)
    for a, b, colour in lines:
        cv2.line(drawn, pixels[a], pixels[b], colour, 2 * thickness, cv2.LINE_AA)
    for index, name in enumerate(names):
        if visible[index]:
            cv2.circle(drawn, pixels[index], 2 * thickness + 1, DARK, -1, cv2.LINE_AA)
            cv2.circle(drawn, pixels[index], 2 * thickness, side_colour(name), -1, cv2.LINE_AA)
    return drawn


def _draw_label(drawn: Frame, text: str, corner: tuple[int, int], colour: Colour) -> int:
    """Text on a dark background, kept inside the image; draws in place and returns the background's width."""
    scale = _scale(drawn.shape)
    height, width = _label_height(scale), _text_size(text, scale)[0] + round(6 * scale)
    x = max(0, min(corner[0], drawn.shape[1] - width))
    y = max(0, min(corner[1], drawn.shape[0] - height))
    drawn[y : y + height, x : x + width] = DARK
    _write(drawn, text, (x + round(3 * scale), y + round(3 * scale)), colour, scale)
    return width


def _label_height(scale: float) -> int:
    return _text_size("Ag", scale)[1] + round(6 * scale)


def _write(drawn: Frame, text: str, corner: tuple[int, int], colour: Colour, scale: float) -> None:
    """Text with its upper left corner at `corner`; draws in place."""
    import cv2

    origin = (corner[0], corner[1] + cv2.getTextSize("Ag", _FONT, 0.4 * scale, max(1, round(scale)))[0][1])
    cv2.putText(drawn, _ascii(text), origin, _FONT, 0.4 * scale, colour, max(1, round(scale)), cv2.LINE_AA)


def _text_size(text: str, scale: float) -> tuple[int, int]:
    import cv2

    (width, height), baseline = cv2.getTextSize(_ascii(text), _FONT, 0.4 * scale, max(1, round(scale)))
    return width, height + baseline


def _ascii(text: str) -> str:
    """Text in ASCII, as required by OpenCV's fonts: accents are dropped, other characters become question marks."""
    plain = "".join(char for char in unicodedata.normalize("NFKD", text) if not unicodedata.combining(char))
    return plain.translate({0x2013: "-", 0x2014: "-", 0x2019: "'", 0x2026: "..."}).encode("ascii", "replace").decode()


def _scale(shape: Sequence[int]) -> float:
    """Scale of strokes and letters: 1 for images up to 360 pixels, proportional to the size above."""
    return max(1.0, min(shape[:2]) / 360)
