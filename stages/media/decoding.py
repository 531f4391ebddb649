"""Video decoding with PyAV: upright RGB frames with their times, from any address.

Times are relative to the first displayed frame. Frames look as in a video player: rotation and mirroring, non-square pixels,
interlacing, HDR and transparency are resolved as `schemas.picture` describes, and black borders are cut off.
"""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import av
from av.container import InputContainer

from schemas.containers import open_media
from schemas.picture import Picture
from schemas.staging import source_file
from stages.media.display import Display, Image, deinterlaced
from stages.media.inspection import UnreadablePicture, inspect, video_stream
from stages.media.patches import FramePatches
from stages.media.timing import decoded, timed

__all__ = ["SAME_TIME_S", "Image", "TimedFrame", "frames", "inspect_file", "open_container", "video_stream"]

SAME_TIME_S = 0.5e-3
"""Times that differ by less than this are equal."""


@contextmanager
def open_container(uri: str) -> Iterator[InputContainer]:
    """An open container; of a remote file, this node's copy. Raises av.FFmpegError, OSError or SourceError.

    Text that is not UTF-8 in the file's tags is replaced character by character.
    """
    with source_file(uri) as path, open_media(path) as container:
        yield container


def inspect_file(uri: str) -> Picture:
    """How a video must be shown. Raises UnreadablePicture, av.FFmpegError or OSError."""
    with open_container(uri) as container:
        return inspect(container)


@dataclass(frozen=True, kw_only=True)
class TimedFrame:
    """A frame of a video: seconds since the first frame, and pixels."""

    time_s: float
    image: Image
    source: FramePatches
    """The frame at its full size."""


def frames(
    uri: str,
    *,
    picture: Picture | None = None,
    start_s: float = 0.0,
    end_s: float = float("inf"),
    max_fps: float = float("inf"),
    scale_to: int | None = None,
    problems: Counter[str] | None = None,
) -> Iterator[TimedFrame]:
    """Frames displayed in [start_s, end_s), subsampled to a maximum of about `max_fps` frames/s.

    `picture` says how they are shown; without it, the file is inspected first. The longer side of an image has at most `scale_to`
    pixels. What does not decode is left out and counted in `problems`. Raises av.FFmpegError or OSError where the file cannot be
    opened or read.
    """
    if picture is None:
        try:
            picture = inspect_file(uri)
        except UnreadablePicture:
            return
    with open_container(uri) as container:
        stream = container.streams[picture.stream]
        assert isinstance(stream, av.VideoStream)
        assert stream.time_base is not None
        stream.thread_type = "AUTO"
        tick_s = float(stream.time_base)
        if start_s > 1.0 and picture.seekable and picture.clock != "count":
            container.seek(int(start_s / tick_s) + picture.origin, stream=stream)
        display, full_size = Display(picture, scale_to), Display(picture)
        shown = timed(decoded(container, stream, problems), picture, tick_s)
        next_s = start_s
        for time_s, frame in deinterlaced(shown) if picture.interlaced else shown:
            if time_s < start_s - SAME_TIME_S:
                continue
            if time_s >= end_s - SAME_TIME_S:
                return
            if time_s < next_s - SAME_TIME_S:
                continue
            next_s = max(next_s + 1.0 / max_fps, time_s + 0.5 / max_fps) if max_fps < float("inf") else time_s
            yield TimedFrame(time_s=time_s, image=display.image(frame), source=FramePatches(frame, full_size))
