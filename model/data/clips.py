"""Frames of a sample's clip, and pictures and videos that a user names, as square RGB images."""

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any, BinaryIO

import av
import cv2
import numpy as np
from jaxtyping import UInt8

from schemas.containers import CLIP_FORMATS, VIDEO_FORMATS, open_media
from schemas.errors import HumoError

SquareFrames = UInt8[np.ndarray, "m px px 3"]

_SAME_TIME_S = 0.5e-3
_PAD = 114
"""Grey around an image that is not square, as the person detector was trained with."""
_PICTURES = (b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"BM")
"""First bytes of JPEG, PNG and BMP."""
_SIGNATURE_BYTES = 12


def clip_frames(clip_mp4: bytes, times_s: Sequence[float], px: int, *, name: str = "clip.mp4") -> SquareFrames:
    """The frames that a clip shows at `times_s`, ascending seconds from its start, each fitted into a square of `px` pixels.

    Decoding ends with the last of them. Raises HumoError with `name` if no frame decodes.
    """
    try:
        return _frames_at(io.BytesIO(clip_mp4), CLIP_FORMATS, times_s, px, hold=True)
    except (av.FFmpegError, OSError, ValueError) as error:
        raise HumoError(f"{name}: does not decode ({' '.join(str(error).split())}); run humo verify") from None


def read_pictures(path: str, times_s: Sequence[float], px: int) -> SquareFrames:
    """A picture, upright, or the frames that a video shows at those of `times_s`, ascending seconds, at which it runs; each fitted
    into a square of `px` pixels.

    Raises HumoError if the file is missing or neither.
    """
    if not Path(path).is_file():
        raise HumoError(f"{path}: no such picture or video; give the path of a file")
    with Path(path).open("rb") as file:
        start = file.read(_SIGNATURE_BYTES)
    is_picture = start.startswith(_PICTURES) or (start[:4], start[8:]) == (b"RIFF", b"WEBP")
    if is_picture:
        image = cv2.imdecode(np.fromfile(path, np.uint8), cv2.IMREAD_COLOR)  # upright, by the orientation in the file
        if image is None:
            raise HumoError(f"{path}: does not decode; save it again as PNG or JPEG")
        return fit_square(image[..., ::-1], px)[None]
    try:
        return _frames_at(path, VIDEO_FORMATS, times_s, px, hold=False)
    except (av.FFmpegError, OSError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise HumoError(
            f"{path}: is no picture, and no video ({reason}); give JPEG, PNG, WebP, BMP or a video"
        ) from None


def fit_square(image: UInt8[np.ndarray, "h w 3"], px: int) -> UInt8[np.ndarray, "px px 3"]:
    """The whole image in the middle of a square, padded grey."""
    height, width = image.shape[:2]
    scale = px / max(height, width)
    inner = max(1, round(height * scale)), max(1, round(width * scale))
    method = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    out = np.full((px, px, 3), _PAD, np.uint8)
    top, left = (px - inner[0]) // 2, (px - inner[1]) // 2
    resized = cv2.resize(np.ascontiguousarray(image), (inner[1], inner[0]), interpolation=method)
    out[top : top + inner[0], left : left + inner[1]] = resized
    return out


def _frames_at(
    file: str | BinaryIO | Any, formats: Sequence[str], times_s: Sequence[float], px: int, *, hold: bool
) -> SquareFrames:
    """`hold`: the last frame is shown for ever. ValueError without a frame; a broken end is like the end of the video."""
    shown: list[np.ndarray] = []
    frame: av.VideoFrame | None = None
    with open_media(file, formats) as container:
        if not container.streams.video:
            raise ValueError("it has no picture track")
        stream = container.streams.video[0]
        stream.thread_type = "NONE"
        frames = container.decode(stream)
        while len(shown) < len(times_s):
            try:
                following = next(frames, None)
            except av.FFmpegError:
                if frame is None:
                    raise
                following = None
            if following is not None and following.time is None:
                continue
            while len(shown) < len(times_s) and (
                following is None or (frame is not None and following.time > times_s[len(shown)] + _SAME_TIME_S)
            ):
                if frame is None:
                    raise ValueError("it has no frame")
                if following is None and not hold and shown and times_s[len(shown)] > frame.time + _SAME_TIME_S:
                    return np.stack(shown)
                shown.append(fit_square(frame.to_ndarray(format="rgb24"), px))
            frame = following if following is not None else frame
    return np.stack(shown) if shown else np.zeros((0, px, px, 3), np.uint8)
