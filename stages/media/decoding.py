"""Video decoding with PyAV: upright RGB frames with their times, from any fsspec path.

Times are relative to the first displayed frame. The container's rotation and non-square pixels are corrected, so that
frames look as in a video player.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import av
import fsspec
import numpy as np
from av.container import InputContainer
from av.video.stream import VideoStream
from jaxtyping import UInt8

Image = UInt8[np.ndarray, "H W 3"]
SAME_TIME_S = 0.5e-3
"""Times that differ by less than this are equal."""


@contextmanager
def open_container(uri: str) -> Iterator[InputContainer]:
    """An open container; a remote file is read through fsspec. Raises av.FFmpegError or OSError."""
    if "://" not in uri:
        with av.open(uri) as container:
            yield container
        return
    with fsspec.open(uri, "rb") as file, av.open(file) as container:
        yield container


def video_stream(container: InputContainer) -> VideoStream | None:
    """The first video stream, except cover images of audio files."""
    for stream in container.streams.video:
        if not stream.disposition & av.stream.Disposition.attached_pic:
            return stream
    return None


def pixel_aspect(stream: VideoStream) -> float:
    """Width over height of a stored pixel; 1 if the file gives no plausible value."""
    aspect = float(stream.sample_aspect_ratio or 1)
    return aspect if 0.25 <= aspect <= 4 else 1.0


def upright(frame: av.VideoFrame, aspect: float = 1.0, scale_to: int | None = None) -> Image:
    """An RGB image with display orientation and aspect ratio; its longer side has a maximum of `scale_to` pixels."""
    width, height = max(2, round(frame.width * aspect)), frame.height
    if scale_to and max(width, height) > scale_to:
        shrink = scale_to / max(width, height)
        width, height = max(2, round(width * shrink)), max(2, round(height * shrink))
    image = frame.to_ndarray(format="rgb24", width=width, height=height)
    quarter_turns = round(frame.rotation / 90) % 4
    return np.ascontiguousarray(np.rot90(image, quarter_turns)) if quarter_turns else image


@dataclass(frozen=True, kw_only=True)
class TimedFrame:
    """A frame of a video: seconds since the first frame, and pixels."""

    time_s: float
    image: Image


def frames(
    uri: str,
    *,
    start_s: float = 0.0,
    end_s: float = float("inf"),
    max_fps: float = float("inf"),
    scale_to: int | None = None,
) -> Iterator[TimedFrame]:
    """Frames displayed in [start_s, end_s), subsampled to a maximum of about `max_fps` frames/s.

    Raises av.FFmpegError where the stream is broken, after the frames before it have been yielded.
    """
    with open_container(uri) as container:
        stream = video_stream(container)
        if stream is None or stream.time_base is None:
            return
        stream.thread_type = "AUTO"
        tick_s, aspect = float(stream.time_base), pixel_aspect(stream)
        origin = first_pts(container, stream)
        if start_s > 1.0:
            container.seek(int(start_s / tick_s) + origin, stream=stream)
        next_s = start_s
        for frame in container.decode(stream):
            if frame.pts is None:
                continue
            time_s = (frame.pts - origin) * tick_s
            if time_s < start_s - SAME_TIME_S:
                continue
            if time_s >= end_s - SAME_TIME_S:
                return
            if time_s < next_s - SAME_TIME_S:
                continue
            next_s = max(next_s + 1.0 / max_fps, time_s + 0.5 / max_fps) if max_fps < float("inf") else time_s
            yield TimedFrame(time_s=time_s, image=upright(frame, aspect, scale_to))


def first_pts(container: InputContainer, stream: VideoStream) -> int:
    """Time stamp of the first displayed frame, in the stream's time base; leaves the container at its start."""
    if stream.start_time is not None:
        return stream.start_time
    for packet in container.demux(stream):
        if packet.pts is not None:
            container.seek(0)
            return packet.pts
    return 0
