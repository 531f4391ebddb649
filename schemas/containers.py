"""Media files opened with FFmpeg: one file of a known container, and nothing that it refers to.

FFmpeg recognises formats by content, so a file of any name can be a playlist, a script or a list of images that makes it
read other files and addresses. Here only containers with their streams inside are opened, and no protocol but the one of
the given file: containers may refer to others, too (external tracks of QuickTime, subtitles inside AVI).
"""

import errno
import mmap
import os
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, BinaryIO

import av
from av.container import InputContainer

VIDEO_FORMATS = (
    "mov", "mp4", "m4a", "3gp", "3g2", "mj2", "matroska", "webm", "avi", "mpeg", "mpegts", "mpegvideo", "m4v", "h264", "hevc",
    "vvc", "av1", "obu", "ivf", "h263", "vc1", "mjpeg", "dirac", "yuv4mpegpipe", "flv", "live_flv", "asf", "ogg", "mxf", "gxf",
    "nut", "dv", "rm", "wtv", "gif", "cine", "dhav",
    "wav", "mp3", "aac", "flac",
)  # fmt: skip
"""Demuxers of containers that hold their streams themselves. Those of sound are recognised, so that a file without pictures is
rejected as that."""
CLIP_FORMATS = ("mov", "mp4", "m4a", "3gp", "3g2", "mj2")
"""Of a sample's clip."""
_LARGEST_REQUEST = 1 << 31
"""FFmpeg asks for less at a time."""


@contextmanager
def open_media(file: str | BinaryIO | Any, formats: Sequence[str] = VIDEO_FORMATS) -> Iterator[InputContainer]:
    """An open container, of a path or an open file. Raises av.FFmpegError or OSError; MemoryError where memory is short."""
    options = {"format_whitelist": ",".join(formats), "protocol_whitelist": "file" if isinstance(file, str) else "none"}
    # With the protocol written out, no path can be read as an address.
    name = f"file:{os.path.abspath(file)}" if isinstance(file, str) else file
    try:
        container = av.open(name, "r", container_options=options, metadata_errors="replace")
    except av.ArgumentError as error:
        reason = "its format is not among those that are read; convert it to MP4 or Matroska"
        raise av.ArgumentError(error.errno or errno.EINVAL, reason, error.filename) from None
    except av.FFmpegError as error:
        raise_shortage(error)
        raise
    with container:
        try:
            yield container
        except av.FFmpegError as error:
            raise_shortage(error)
            raise


def raise_shortage(error: av.FFmpegError) -> None:
    """Raise MemoryError where FFmpeg failed for lack of memory, or of room for a thread: that says nothing about the file.

    A damaged file can make it ask for any size, too. If the most that FFmpeg asks for can still be had, it was the file.
    """
    if error.errno in (errno.ENOMEM, errno.EAGAIN) and not _has_room():
        raise MemoryError(f"FFmpeg: {error.strerror}") from error


def _has_room() -> bool:
    thread = threading.Thread(target=int)
    try:
        mmap.mmap(-1, _LARGEST_REQUEST, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS).close()
        thread.start()
    except (OSError, RuntimeError):
        return False
    thread.join()
    return True
