"""Media files opened with FFmpeg: one file of a known container, and nothing that it refers to.

FFmpeg recognises formats by content, so a file of any name can be a playlist, a script or a list of images that makes it
read other files and addresses. Here only containers with their streams inside are opened, and no protocol but the one of
the given file: containers may refer to others, too (external tracks of QuickTime, subtitles inside AVI).
"""

import errno
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, BinaryIO

import av
from av.container import InputContainer

VIDEO_FORMATS = (
    "mov", "mp4", "m4a", "3gp", "3g2", "mj2", "matroska", "webm", "avi", "mpeg", "mpegts", "mpegvideo", "m4v", "h264", "hevc",
    "av1", "ivf", "flv", "live_flv", "asf", "ogg", "mxf", "nut", "dv", "rm", "wtv", "gif",
    "wav", "mp3", "aac", "flac",
)  # fmt: skip
"""Demuxers of containers that hold their streams themselves. Those of sound are recognised, so that a file without pictures is
rejected as that."""
CLIP_FORMATS = ("mov", "mp4", "m4a", "3gp", "3g2", "mj2")
"""Of a sample's clip."""


@contextmanager
def open_media(file: str | BinaryIO | Any, formats: Sequence[str] = VIDEO_FORMATS) -> Iterator[InputContainer]:
    """An open container, of a path or an open file. Raises av.FFmpegError or OSError."""
    options = {"format_whitelist": ",".join(formats), "protocol_whitelist": "file" if isinstance(file, str) else "none"}
    # With the protocol written out, no path can be read as an address.
    name = f"file:{os.path.abspath(file)}" if isinstance(file, str) else file
    try:
        container = av.open(name, "r", container_options=options, metadata_errors="replace")
    except av.ArgumentError as error:
        reason = "its format is not among those that are read; convert it to MP4 or Matroska"
        raise av.ArgumentError(error.errno or errno.EINVAL, reason, error.filename) from None
    with container:
        yield container
