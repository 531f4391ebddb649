"""Images of a clip: frames spread over its duration, whole with the person's box drawn, or cropped to the person."""

import cv2
import numpy as np
from jaxtyping import Float

from schemas.records import FPS, Clip
from stages.media.decoding import Image, frames

Box = Float[np.ndarray, "4"]
_BOX_RGB = (255, 0, 255)
"""A colour that clothes and walls rarely have."""
_JPEG_QUALITY = 85


def boxed_frames(clip: Clip, count: int, max_px: int) -> list[tuple[float, Image]]:
    """Whole frames with the person's box drawn and their seconds from the clip's start; longer side at most `max_px`.

    Raises av.FFmpegError or OSError if the video does not open or fails before the first frame.
    """
    result = []
    for time_s, image, box in _sample_frames(clip, count):
        height, width = image.shape[:2]
        scale = min(1.0, max_px / max(height, width))
        resized = cv2.resize(image, (round(width * scale), round(height * scale)), interpolation=cv2.INTER_AREA)
        (x0, y0, x1, y1), thickness = np.round(box * scale).astype(int).tolist(), max(2, round(max_px / 200))
        result.append((time_s, cv2.rectangle(resized, (x0, y0), (x1, y1), _BOX_RGB, thickness)))
    return result


def person_crops(clip: Clip, count: int, margin: float = 0.1) -> list[Image]:
    """Crops of the person from frames spread over the clip, with a margin as a share of the box; errors as above."""
    crops = []
    for _, image, (x0, y0, x1, y1) in _sample_frames(clip, count):
        height, width = image.shape[:2]
        margin_px = margin * max(x1 - x0, y1 - y0)
        left, top = max(0, int(x0 - margin_px)), max(0, int(y0 - margin_px))
        right, bottom = int(min(width, x1 + margin_px)), int(min(height, y1 + margin_px))
        crop = image[top : max(top + 2, bottom), left : max(left + 2, right)]
        crops.append(crop if crop.size else image)
    return crops


def jpeg(image: Image) -> bytes:
    """Encode as JPEG; the same image gives the same bytes."""
    success, content = cv2.imencode(".jpg", image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY])
    assert success
    return content.tobytes()


def _sample_frames(clip: Clip, count: int) -> list[tuple[float, Image, Box]]:
    """Up to `count` frames at the middles of equal sections of the clip: seconds, image and box."""
    times_s = clip.start_s + (np.arange(count) + 0.5) * (clip.end_s - clip.start_s) / count
    found: list[tuple[float, Image, Box]] = []
    last = None
    video = clip.track.shot.video
    for frame in frames(video.source.location, picture=video.picture, start_s=clip.start_s, end_s=clip.end_s):
        last = frame
        if len(found) < count and frame.time_s >= times_s[len(found)]:
            found.append((frame.time_s - clip.start_s, frame.image, _box(clip, frame.time_s)))
    if not found and last is not None:
        found.append((last.time_s - clip.start_s, last.image, _box(clip, last.time_s)))
    return found


def _box(clip: Clip, time_s: float) -> Box:
    return clip.boxes[min(len(clip.boxes) - 1, max(0, round((time_s - clip.start_s) * FPS)))]
