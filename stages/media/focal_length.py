"""The focal length that cameras write into their videos, as on 35 mm film.

Phones give it as `com.apple.quicktime.camera.focal_length.35mm_equivalent`, Exif-like tags as `FocalLengthIn35mmFilm`.
QuickTime keeps such items in lists of keys and values (`meta` with `keys` and `ilst`; QuickTime File Format, "Metadata"), for
the camera in the list of the picture's track, which libavformat passes over; so those are read here.
"""

import math
import re
import struct
from collections.abc import Iterator

import fsspec
from av.container import InputContainer

FILM_DIAGONAL_MM = math.hypot(36, 24)
"""Of a frame of 35 mm film, 43.27."""
SHORTEST_MM, LONGEST_MM = 8.0, 1200.0
"""What is taken for a focal length on film; cameras are known that write tens of thousands."""
_NAMES = re.compile(r"focal_?length_?(in_?)?\.?35_?(mm|efl)", re.IGNORECASE)
_NUMBER = re.compile(r"\s*(\d+(?:\.\d*)?)\s*(?:/\s*(\d+(?:\.\d*)?))?\s*(?:mm)?\s*", re.IGNORECASE)
_MOST_BYTES = 1 << 28
"""Largest index (`moov`) that is read: a day of video has a tenth of it."""
_PARENTS = (b"moov", b"trak", b"udta")
_UTF8, _FLOAT, _DOUBLE = 1, 23, 24
_INTEGERS = {21: True, 22: False}
"""Type of a value in `ilst` -> whether it has a sign."""


def focal_px(focal_35mm: float, width_px: int, height_px: int) -> float:
    """Pixels of a picture whose diagonal stands for film's (CIPA DCG-001: the same angle of view across the diagonal)."""
    return focal_35mm * math.hypot(width_px, height_px) / FILM_DIAGONAL_MM


def plausible(focal_35mm: float) -> bool:
    """Whether a lens may have it; NaN may not."""
    return SHORTEST_MM <= focal_35mm <= LONGEST_MM


def read_focal_35mm(uri: str, container: InputContainer) -> float:
    """Focal length as on 35 mm film, millimetres, of an open container that lies at `uri`; 0 where it says none."""
    tags = [container.metadata, *(stream.metadata for stream in container.streams)]
    named = [(key, value) for one in tags for key, value in one.items()]
    if "mov" in container.format.name.split(","):
        named += _quicktime_items(uri)
    found = [_millimetres(value) for key, value in named if _NAMES.search(key)]
    return next((value for value in found if plausible(value)), 0.0)


def _millimetres(text: str) -> float:
    match = _NUMBER.fullmatch(text)
    if match is None:
        return 0.0
    above, below = float(match[1]), float(match[2] or 1)
    return above / below if below else 0.0


def _quicktime_items(uri: str) -> list[tuple[str, str]]:
    """Names and values in all lists of the file and its tracks; those before the damage where it is damaged."""
    items: list[tuple[str, str]] = []
    try:
        for content in _meta_boxes(_index(uri)):
            items += _items(content)
    except (struct.error, IndexError, UnicodeDecodeError):
        pass  # what is wrong with the file, if anything, comes out when its packets are read
    return items


def _index(uri: str) -> bytes:
    """The content of the file's `moov`, empty where there is none."""
    with fsspec.open(uri, "rb") as file:
        at = 0
        while len(head := file.read(16)) >= 8:
            size, kind = struct.unpack(">I4s", head[:8])
            length = 8
            if size == 1:
                (size,), length = struct.unpack(">Q", head[8:16]), 16
            if kind == b"moov":
                file.seek(at + length)
                return file.read(min(size - length, _MOST_BYTES) if size else _MOST_BYTES)
            if size < length:
                break
            at += size
            file.seek(at)
    return b""


def _boxes(content: bytes) -> Iterator[tuple[bytes, bytes]]:
    """(kind, content) of boxes that follow one another."""
    at = 0
    while at + 8 <= len(content):
        size, kind = struct.unpack_from(">I4s", content, at)
        length = 8
        if size == 1:
            (size,), length = struct.unpack_from(">Q", content, at + 8), 16
        size = size or len(content) - at
        if size < length:
            return
        yield kind, content[at + length : at + size]
        at += size


def _meta_boxes(content: bytes) -> Iterator[bytes]:
    for kind, inner in _boxes(content):
        if kind == b"meta":
            yield inner
        elif kind in _PARENTS:
            yield from _meta_boxes(inner)


def _items(meta: bytes) -> Iterator[tuple[str, str]]:
    """Names and values of one `meta`; nothing where it is of another sort than keys with values."""
    boxes = dict(_boxes(meta))
    keys, values = boxes.get(b"keys", b""), boxes.get(b"ilst", b"")
    names = [inner.decode() for _, inner in _boxes(keys[8:])]
    for place, inner in _boxes(values):
        index = int.from_bytes(place, "big") - 1
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
