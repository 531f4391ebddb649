"""Writers of small noise videos for tests, intact and broken."""

import struct
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

from stages.media.encoding import VideoWriter


def noise_video(
    path: Path, *, frames: int = 60, width: int = 320, height: int = 240, fps: float = 30.0, seed: int = 0
) -> Path:
    """A video of horizontally moving noise."""
    rng = np.random.default_rng(seed)
    image = rng.integers(0, 255, (height, width, 3), np.uint8)
    with VideoWriter(path, width, height, fps) as out:
        for number in range(frames):
            out.write(np.roll(image, number, axis=1))
    return path


def plain_video(path: Path, *, frames: int, width: int, height: int, fps: float = 30.0) -> Path:
    """A video of one colour, which costs little at any size."""
    image = np.full((height, width, 3), 120, np.uint8)
    with VideoWriter(path, width, height, fps) as out:
        for _ in range(frames):
            out.write(image)
    return path


def uneven_video(path: Path, times_s: list[float]) -> Path:
    """A video with frames at the given times."""
    rng = np.random.default_rng(0)
    with VideoWriter(path, 320, 240, 30.0) as out:
        for time_s in times_s:
            out.write(rng.integers(0, 255, (240, 320, 3), np.uint8), time_s)
    return path


def audio_only(path: Path, seconds: float = 2.0) -> Path:
    """An mp4 with a tone and no video stream."""
    with av.open(str(path), "w", format="mp4") as container:
        stream = container.add_stream("aac", rate=16000)
        samples = (8000 * np.sin(np.arange(int(16000 * seconds)) * 0.1)).astype(np.int16)
        for start in range(0, len(samples), 1024):
            frame = av.AudioFrame.from_ndarray(samples[None, start : start + 1024], format="s16", layout="mono")
            frame.sample_rate, frame.pts, frame.time_base = 16000, start, Fraction(1, 16000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def rotated_video(path: Path, source: Path) -> Path:
    """A copy of an mp4 with a display rotation of 90 degrees clockwise (the matrix of its track header is replaced)."""
    content = bytearray(source.read_bytes())
    header = content.index(b"tkhd") + 4
    identity = np.array([1 << 16, 0, 0, 0, 1 << 16, 0, 0, 0, 1 << 30], ">i4").tobytes()
    offset = content.index(identity, header)
    rotation = np.array([0, 1 << 16, 0, -(1 << 16), 0, 0, 0, 0, 1 << 30], ">i4").tobytes()
    content[offset : offset + len(identity)] = rotation
    path.write_bytes(content)
    return path


FOCAL_KEY = "com.apple.quicktime.camera.focal_length.35mm_equivalent"


def tagged_video(path: Path, source: Path, parent: str, kind: int, value: bytes, key: str = FOCAL_KEY) -> Path:
    """A copy of an mp4 that ends with its `moov`, with one QuickTime item added to `parent`: `moov` or the first `trak`.

    `kind` is the type of the value: 1 UTF-8, 21 signed and 22 unsigned integer, 23 float, 24 double.
    """
    entry = struct.pack(">I4s", 8 + len(key), b"mdta") + key.encode()
    data = _box(b"data", struct.pack(">II", kind, 0) + value)
    meta = _box(
        b"meta",
        _box(b"hdlr", bytes(8) + b"mdta" + bytes(13))
        + _box(b"keys", struct.pack(">II", 0, 1) + entry)
        + _box(b"ilst", _box(struct.pack(">I", 1), data)),
    )
    content = bytearray(source.read_bytes())
    starts = {name: content.index(name) - 4 for name in (b"moov", b"trak")}
    parent_start = starts[parent.encode()]
    end = parent_start + int.from_bytes(content[parent_start : parent_start + 4], "big")
    content[end:end] = meta
    for start in {starts[b"moov"], parent_start}:
        content[start : start + 4] = (int.from_bytes(content[start : start + 4], "big") + len(meta)).to_bytes(4, "big")
    path.write_bytes(content)
    return path


def _box(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I4s", 8 + len(content), kind) + content
