"""Pictures of a clip: some frames spread over its length, whole with the person's box drawn, or cut out around the person."""

import cv2
import numpy as np
from jaxtyping import Float

from schemas.records import FPS, Clip
from stages.media.decoding import Image, frames

Box = Float[np.ndarray, "4"]
_BOX_RGB = (255, 0, 255)
"""A colour that clothes and walls rarely have."""
_JPEG_QUALITY = 85


def boxed_pictures(clip: Clip, count: int, max_px: int) -> list[tuple[float, Image]]:
    """Whole frames, the person's box drawn, with their seconds from the clip's start; the longer side at most `max_px`.

    Raises av.FFmpegError or OSError where the video does not open or breaks before the first frame.
    """
    found = []
    for time_s, image, box in _spread(clip, count):
        height, width = image.shape[:2]
        shrink = min(1.0, max_px / max(height, width))
        small = cv2.resize(image, (round(width * shrink), round(height * shrink)), interpolation=cv2.INTER_AREA)
        (x0, y0, x1, y1), thick = np.round(box * shrink).astype(int).tolist(), max(2, round(max_px / 200))
        found.append((time_s, cv2.rectangle(small, (x0, y0), (x1, y1), _BOX_RGB, thick)))
    return found


def person_pictures(clip: Clip, count: int, margin: float = 0.1) -> list[Image]:
    """The person cut out of frames spread over the clip, with a margin as a share of the box; errors as above."""
    found = []
    for _, image, (x0, y0, x1, y1) in _spread(clip, count):
        height, width = image.shape[:2]
        extra = margin * max(x1 - x0, y1 - y0)
        left, top = max(0, int(x0 - extra)), max(0, int(y0 - extra))
        cut = image[top : max(top + 2, int(min(height, y1 + extra))), left : max(left + 2, int(min(width, x1 + extra)))]
        found.append(cut if cut.size else image)
    return found


def jpeg(image: Image) -> bytes:
    """A JPEG; the same picture gives the same bytes."""
    done, content = cv2.imencode(".jpg", image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY])
    assert done
    return content.tobytes()


def _spread(clip: Clip, count: int) -> list[tuple[float, Image, Box]]:
    """At most `count` frames at the middles of equal stretches of the clip, with the box of their moment."""
    wanted = clip.start_s + (np.arange(count) + 0.5) * (clip.end_s - clip.start_s) / count
    found: list[tuple[float, Image, Box]] = []
    last = None
    for frame in frames(clip.track.shot.video.source.uri, start_s=clip.start_s, end_s=clip.end_s):
        last = frame
        if len(found) < count and frame.time_s >= wanted[len(found)]:
            found.append((frame.time_s - clip.start_s, frame.image, _box(clip, frame.time_s)))
    if not found and last is not None:
        found.append((last.time_s - clip.start_s, last.image, _box(clip, last.time_s)))
    return found


def _box(clip: Clip, time_s: float) -> Box:
    return clip.boxes[min(len(clip.boxes) - 1, max(0, round((time_s - clip.start_s) * FPS)))]
