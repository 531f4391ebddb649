"""Writers of small videos as cameras, phones and editors write them: one picture with a colour in each corner, in many forms."""

import io
from collections.abc import Iterable, Mapping, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np

WIDTH, HEIGHT, FPS, FRAMES = 240, 160, 30, 45
CORNERS = {"red": (200, 40, 40), "green": (40, 170, 40), "blue": (40, 60, 200), "yellow": (200, 190, 50)}
"""Top left, top right, bottom left, bottom right."""


def picture(number: int = 0, width: int = WIDTH, height: int = HEIGHT) -> np.ndarray:
    """Four corners of different colours, and a white bar that moves to the right."""
    image = np.zeros((height, width, 3), np.uint8)
    red, green, blue, yellow = CORNERS.values()
    image[: height // 2, : width // 2], image[: height // 2, width // 2 :] = red, green
    image[height // 2 :, : width // 2], image[height // 2 :, width // 2 :] = blue, yellow
    left = width // 4 + number * width // (2 * FRAMES)
    image[height * 3 // 8 : height * 5 // 8, left : left + width // 16] = 255
    return image


def corners(image: np.ndarray) -> list[str]:
    """Names of the colours of an image's corners: top left, top right, bottom left, bottom right."""
    height, width = image.shape[:2]
    names = []
    for y in (height // 8, height * 7 // 8):
        for x in (width // 8, width * 7 // 8):
            colour = image[y - 2 : y + 3, x - 2 : x + 3].reshape(-1, 3).mean(axis=0)
            names.append(min(CORNERS, key=lambda name: float(np.abs(colour - CORNERS[name]).sum())))
    return names


def write_video(
    path: Path,
    images: Sequence[np.ndarray] | None = None,
    *,
    codec: str = "libx264",
    pixels: str = "yuv420p",
    options: Mapping[str, str] | None = None,
    aspect: Fraction = Fraction(1),
    matrix: Sequence[int] | None = None,
    colours: Mapping[str, int] | None = None,
    from_format: str = "rgb24",
    times: Iterable[int] | None = None,
    container: Mapping[str, str] | None = None,
    format: str | None = None,
    file: io.RawIOBase | None = None,
) -> Path:
    """A video of `images` (or of `picture`) with any property of its stream; `times` are in frames."""
    images = [picture(number) for number in range(FRAMES)] if images is None else images
    height, width = images[0].shape[:2]
    with av.open(file or str(path), "w", format=format, options=dict(container or {})) as out:
        stream = out.add_stream(codec, rate=FPS, options=dict(options or {}))
        stream.width, stream.height, stream.pix_fmt = width, height, pixels
        context: Any = stream.codec_context
        context.sample_aspect_ratio = aspect
        context.thread_count = 1
        for name, value in (colours or {}).items():
            setattr(context, name, value)
        if matrix is not None:
            stream.set_display_matrix(list(matrix))
        for time, image in zip(times or range(len(images)), images, strict=True):
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(image), format=from_format)
            for name, value in (colours or {}).items():
                setattr(frame, name, value)
            frame.pts, frame.time_base = time, Fraction(1, FPS)
            out.mux(stream.encode(frame))
        out.mux(stream.encode())
    return path


def remux(path: Path, sources: Sequence[Path], *, skip: int = 0, options: Mapping[str, str] | None = None) -> Path:
    """A copy of the picture tracks of several files in one, without the first `skip` packets of each."""
    with av.open(str(path), "w", options=dict(options or {})) as out:
        inputs = [av.open(str(source)) for source in sources]
        streams = [out.add_stream_from_template(one.streams.video[0]) for one in inputs]
        for stream in streams:  # all, before the first packet writes the header
            stream.disposition = av.stream.Disposition.default
        for one, stream in zip(inputs, streams, strict=True):
            for number, packet in enumerate(one.demux(video=0)):
                if packet.dts is not None and number >= skip:
                    packet.stream = stream
                    out.mux(packet)
            one.close()
    return path


def combed(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Two moments in the even and the odd lines of one frame."""
    image = first.copy()
    image[1::2] = second[1::2]
    return image
