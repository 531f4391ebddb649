"""The 35 mm equivalent focal length that cameras write into their videos.

Phones write it as `com.apple.quicktime.camera.focal_length.35mm_equivalent`, Exif-like tags as `FocalLengthIn35mmFilm`.
QuickTime stores such items in lists of keys and values (`meta` with `keys` and `ilst`; QuickTime File Format, "Metadata");
those of the camera are in the list of the video track, which libavformat ignores, so they are parsed here.
"""

import math
import re
import struct
from collections.abc import Iterator

from av.container import InputContainer

from schemas.staging import source_file

FILM_DIAGONAL_MM = math.hypot(36, 24)
"""Diagonal of a 35 mm film frame, 43.27."""
SHORTEST_MM, LONGEST_MM = 8.0, 1200.0
"""Range of plausible 35 mm equivalent focal lengths; some cameras write tens of thousands."""
_NAMES = re.compile(r"focal_?length_?(in_?)?\.?35_?(mm|efl)", re.IGNORECASE)
_NUMBER = re.compile(r"\s*(\d+(?:\.\d*)?)\s*(?:/\s*(\d+(?:\.\d*)?))?\s*(?:mm)?\s*", re.IGNORECASE)
_MAX_MOOV_BYTES = 1 << 28
"""Largest index (`moov`) that is read: a day of video has a tenth of it."""
_PARENTS = (b"moov", b"trak", b"udta")
_UTF8, _FLOAT, _DOUBLE = 1, 23, 24
_INTEGERS = {21: True, 22: False}
"""Type of a value in `ilst` -> whether it is signed."""


def focal_px(focal_35mm: float, width_px: int, height_px: int) -> float:
    """Focal length in pixels from the 35 mm equivalent (CIPA DCG-001: the same angle of view across the diagonal)."""
    return focal_35mm * math.hypot(width_px, height_px) / FILM_DIAGONAL_MM


def is_plausible(focal_35mm: float) -> bool:
    """Whether it is in the range of real lenses; False for NaN."""
    return SHORTEST_MM <= focal_35mm <= LONGEST_MM


def read_focal_35mm(uri: str, container: InputContainer) -> float:
    """35 mm equivalent focal length of an open container at `uri`, millimetres; 0 if it gives none."""
    metadata = [container.metadata, *(stream.metadata for stream in container.streams)]
    tags = [(key, value) for one in metadata for key, value in one.items()]
    if "mov" in container.format.name.split(","):
        tags += _quicktime_items(uri)
    focal_lengths = [_millimetres(value) for key, value in tags if _NAMES.search(key)]
    return next((value for value in focal_lengths if is_plausible(value)), 0.0)


def _millimetres(text: str) -> float:
    match = _NUMBER.fullmatch(text)
    if match is None:
        return 0.0
    numerator, denominator = float(match[1]), float(match[2] or 1)
    return numerator / denominator if denominator else 0.0


def _quicktime_items(uri: str) -> list[tuple[str, str]]:
    """Names and values in all lists of the file and its tracks; in a damaged file, those before the damage."""
    items: list[tuple[str, str]] = []
    try:
        for content in _meta_boxes(_index(uri)):
            items += _items(content)
    except (struct.error, IndexError, UnicodeDecodeError):
        pass  # damage to the file is detected when its packets are read
    return items


def _index(uri: str) -> bytes:
    """The content of the file's `moov` box, empty if there is none."""
    with source_file(uri) as path, open(path, "rb") as file:
        offset = 0
        while len(head := file.read(16)) >= 8:
            size, kind = struct.unpack(">I4s", head[:8])
            length = 8
            if size == 1:
                (size,), length = struct.unpack(">Q", head[8:16]), 16
            if kind == b"moov":
                file.seek(offset + length)
                return file.read(min(size - length, _MAX_MOOV_BYTES) if size else _MAX_MOOV_BYTES)
            if size < length:
                break
            offset += size
            file.seek(offset)
    return b""


def _boxes(content: bytes) -> Iterator[tuple[bytes, bytes]]:
    """(kind, content) of consecutive boxes."""
    offset = 0
    while offset + 8 <= len(content):
        size, kind = struct.unpack_from(">I4s", content, offset)
        length = 8
        if size == 1:
            (size,), length = struct.unpack_from(">Q", content, offset + 8), 16
        size = size or len(content) - offset
        if size < length:
            return
        yield kind, content[offset + length : offset + size]
        offset += size


def _meta_boxes(content: bytes) -> Iterator[bytes]:
    for kind, inner in _boxes(content):
        if kind == b"meta":
            yield inner
        elif kind in _PARENTS:
            yield from _meta_boxes(inner)


def _items(meta: bytes) -> Iterator[tuple[str, str]]:
    """Names and values of one `meta` box; nothing if it is not a list of keys and values."""
    boxes = dict(_boxes(meta))
    keys, values = boxes.get(b"keys", b""), boxes.get(b"ilst", b"")
    names = [inner.decode() for _, inner in _boxes(keys[8:])]
    for key, inner in _boxes(values):
        index = int.from_bytes(key, "big") - 1
        if 0 <= index < len(names):
            for kind, data in _boxes(inner):
                if kind == b"data":
                    yield names[index], _text(struct.unpack_from(">I", data)[0] & 0xFFFFFF, data[8:])


def _text(kind: int, raw: bytes) -> str:
    if kind == _UTF8:
        return raw.decode()
    if kind in _INTEGERS:
        return str(int.from_bytes(raw, "big", signed=_INTEGERS[kind]))
    if kind in (_FLOAT, _DOUBLE):
        return str(struct.unpack(">f" if kind == _FLOAT else ">d", raw)[0])
    return ""
