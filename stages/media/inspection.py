"""Finds out how a video must be shown, from its headers and a few of its frames: `schemas.picture.Picture`."""

import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice, pairwise
from statistics import median
from typing import Any

import av
import numpy as np
from av.container import InputContainer
from av.sidedata.sidedata import Type as SideDataType
from av.video.stream import VideoStream

from schemas.picture import Clock, Picture, Transfer
from stages.media.borders import find_borders
from stages.media.display import Display, has_alpha
from stages.media.timing import decoded
from stages.media.tone_mapping import is_mastered

_FIRST_FRAMES = 17
"""Frames from the start that show the clock and interlacing."""
_SAMPLES = 8
"""Frames spread over the video that show borders, transparency and brightness."""
_LARGE_PX = 4096 * 2304
"""Frames with more pixels are sampled half as often, for their memory."""
_MAX_FORWARD = 12
"""Frames decoded from a seek point that was sampled already, for another frame."""
_PQ_FORWARD_PX = 200_000_000
"""Pixels decoded from a seek point towards the wanted time of a PQ video, whose brightest moment matters: all frames between two
key frames of a small video, the first two dozen at 4K."""
_SEQUENTIAL_STEP = 30
"""Frames from one sample to the next where the file has no duration to spread them over."""
_HDR: dict[int, Transfer] = {16: "pq", 18: "hlg"}
"""AVColorTransferCharacteristic -> transfer."""
_ENCRYPTED_TAGS = frozenset({"encv", "drmi"})
"""Sample descriptions of encrypted pictures in MP4 files (ISO/IEC 23001-7, FairPlay)."""


class UnreadablePicture(Exception):
    """A file without a picture to show; its message is the reason as in a rejection."""


@dataclass(frozen=True, kw_only=True)
class _Glance:
    """What is kept of a frame whose pixels are not needed."""

    pts: int | None
    dts: int | None
    size: tuple[int, int]
    interlaced: bool

    @classmethod
    def of(cls, frame: av.VideoFrame) -> "_Glance":
        return cls(
            pts=frame.pts, dts=frame.dts, size=(frame.width, frame.height), interlaced=bool(frame.interlaced_frame)
        )


def video_stream(container: InputContainer) -> VideoStream | None:
    """The picture track that players show: of those marked as default, or of all if none is, the largest, then the first.

    Cover images and thumbnails are no pictures. Tracks whose codec is unknown come last.
    """
    candidates = picture_streams(container)
    return min(candidates, key=_preference) if candidates else None


def picture_streams(container: InputContainer) -> list[VideoStream]:
    """All picture tracks, in the order of the file."""
    still = av.stream.Disposition.attached_pic | av.stream.Disposition.timed_thumbnails
    return [stream for stream in container.streams.video if not stream.disposition & still]


def _preference(stream: VideoStream) -> tuple[bool, bool, int, int]:
    context = stream.codec_context
    area = context.width * context.height if context is not None else 0
    return (context is None or not area, not stream.disposition & av.stream.Disposition.default, -area, stream.index)


def pixel_aspect(stream: VideoStream) -> float:
    """Width over height of a stored pixel; 1 if the file gives no plausible value."""
    aspect = float(stream.sample_aspect_ratio or 1)
    return aspect if 0.25 <= aspect <= 4 else 1.0


def inspect(container: InputContainer) -> Picture:
    """The picture of an open container, which is left at its start or at its end.

    Raises UnreadablePicture where there is none: `no_picture_stream`, `encrypted`, `no_frame_decodes`.
    """
    stream = video_stream(container)
    if stream is None or stream.time_base is None or stream.codec_context is None:
        raise UnreadablePicture("no_picture_stream")
    stream.thread_type = "AUTO"
    declared = (stream.codec_context.width, stream.codec_context.height)
    if any(key.startswith("ASF_Protection") for key in container.metadata):  # it decodes, to noise
        raise UnreadablePicture("encrypted")
    frames = decoded(container, stream)
    opening = next(frames, None)
    if opening is None:
        raise UnreadablePicture("encrypted" if _is_encrypted(container, stream) else "no_frame_decodes")
    first = [_Glance.of(opening), *map(_Glance.of, islice(frames, _FIRST_FRAMES - 1))]
    tick_s = float(stream.time_base)
    clock = _clock(first)
    stamps = [ticks for ticks in (one.dts if clock == "decoding" else one.pts for one in first) if ticks is not None]
    steps = [later - earlier for earlier, later in pairwise(stamps) if later > earlier]
    duration_s = float(stream.duration * tick_s) if stream.duration else (container.duration or 0) / 1e6
    origin = stamps[0] if stamps else 0
    samples = [opening, *_samples(container, stream, opening, frames, origin, duration_s)]
    seen = first + [_Glance.of(frame) for frame in samples]
    sizes = {declared, *(one.size for one in seen)} - {(0, 0)}
    width, height = max(sizes, key=lambda size: (size[0] * size[1], size == declared))
    aspect = pixel_aspect(stream)
    transposed, flip_x, flip_y = orientation(opening)
    upright = (max(2, round(width * aspect)), height)
    rate = stream.guessed_rate or stream.average_rate
    step_s = median(steps) * tick_s if steps else float(1 / rate) if rate else 0.0
    if clock == "count" and len(stamps) > 1:
        step_s = (max(stamps) - min(stamps)) * tick_s / (len(stamps) - 1)
    picture = Picture(
        stream=stream.index,
        width=upright[transposed],
        height=upright[not transposed],
        origin=origin,
        clock=clock,
        step_s=step_s,
        aspect=aspect,
        transposed=transposed,
        flip_x=flip_x,
        flip_y=flip_y,
        interlaced=any(one.interlaced for one in seen),
        transfer=_transfer(samples),
        alpha=any(has_alpha(frame) and frame.to_ndarray(format="rgba")[..., 3].min() < 255 for frame in samples),
        track=[one.index for one in picture_streams(container)].index(stream.index) + 1,
        tracks=len(picture_streams(container)),
        size_changes=len({one.size for one in seen}) > 1,
    )
    return _without_borders(picture, samples)


def _is_encrypted(container: InputContainer, stream: VideoStream) -> bool:
    """Whether the file says how its first packet is encrypted (ISO/IEC 23001-7), or is of a kind that only its vendor decrypts."""
    try:
        container.seek(0)
        packet = next(container.demux(stream), None)
    except av.FFmpegError:
        return False
    protected = packet is not None and packet.has_sidedata("encryption_info")
    return protected or stream.codec_context.codec_tag in _ENCRYPTED_TAGS


def orientation(frame: av.VideoFrame) -> tuple[bool, bool, bool]:
    """Whether the display matrix exchanges rows and columns, and whether it then flips x and y.

    The matrix maps x to a x + c y and y to b x + d y (ISO/IEC 14496-12, 6.2.2); angles between quarter turns are rounded.
    """
    side_data: Any = frame.side_data
    matrix = bytes(side_data.get(SideDataType.DISPLAYMATRIX) or b"")
    if len(matrix) < 36:
        return False, False, False
    a, b, _, c, d, *_ = struct.unpack("=9i", matrix[:36])
    if abs(b) + abs(c) > abs(a) + abs(d):
        return True, c < 0, b < 0
    return False, a < 0, d < 0


def _clock(frames: Sequence[_Glance]) -> Clock:
    """Presentation times if they increase from frame to frame, else decoding times if those are even, else numbers."""
    if _faults([frame.pts for frame in frames]) <= max(1, len(frames) // 16):
        return "presentation"
    ticks = [frame.dts for frame in frames]
    while ticks and ticks[-1] is None:  # the last frames of a file, which no packet precedes
        ticks.pop()
    known = [one for one in ticks if one is not None]
    if len(known) < 3 or _faults(ticks):
        return "count"
    even = np.linspace(known[0], known[-1], len(known))
    off = np.abs(np.array(known) - even).max() / (even[1] - even[0])
    return "count" if 0.25 < off < 1.5 else "decoding"


def _faults(ticks: Sequence[int | None]) -> int:
    """Times that are missing or do not exceed the one before."""
    missing = sum(one is None for one in ticks)
    return missing + sum(later <= earlier for earlier, later in pairwise(one for one in ticks if one is not None))


def _samples(
    container: InputContainer,
    stream: VideoStream,
    opening: av.VideoFrame,
    following: Iterator[av.VideoFrame],
    origin: int,
    duration_s: float,
) -> list[av.VideoFrame]:
    """Frames spread over the video besides the opening one; `following` continues after the first ones."""
    assert stream.time_base is not None
    tick_s = float(stream.time_base)
    if duration_s <= 0:
        return list(islice(following, 0, _SEQUENTIAL_STEP * _SAMPLES, _SEQUENTIAL_STEP))
    samples: list[av.VideoFrame] = []
    seen: set[int | None] = {opening.pts}
    pixels = max(1, stream.codec_context.width * stream.codec_context.height)
    count = _SAMPLES if pixels <= _LARGE_PX else _SAMPLES // 2
    is_pq = _HDR.get(stream.codec_context.color_trc) == "pq"
    forward = max(_MAX_FORWARD, _PQ_FORWARD_PX // pixels) if is_pq else _MAX_FORWARD
    for number in range(count):
        wanted = origin + round((number + 0.5) / count * duration_s / tick_s)
        try:
            container.seek(wanted, stream=stream)
        except av.FFmpegError:
            break
        frame = None
        for frame in islice(decoded(container, stream), forward):
            if frame.pts in seen or (is_pq and frame.pts is not None and frame.pts < wanted):
                continue
            break
        if frame is not None and frame.pts not in seen:
            seen.add(frame.pts)
            samples.append(frame)
    return samples


def _transfer(samples: Sequence[av.VideoFrame]) -> Transfer:
    transfer = _HDR.get(samples[0].color_trc, "sdr")
    if transfer == "pq" and not all(is_mastered(frame.to_ndarray(format="rgb48le") / 65535) for frame in samples):
        return "sdr"
    return transfer


def _without_borders(picture: Picture, samples: Sequence[av.VideoFrame]) -> Picture:
    display = Display(replace(picture, transfer="sdr", alpha=False))
    left, top, right, bottom = borders = find_borders([display.image(frame) for frame in samples])
    return replace(picture, width=picture.width - left - right, height=picture.height - top - bottom, borders=borders)
