"""Decodes whatever of a stream is whole, and gives every frame its time."""

from collections import Counter
from collections.abc import Iterable, Iterator
from itertools import groupby

import av
from av.container import InputContainer
from av.video.stream import VideoStream

from schemas.containers import raise_shortage
from schemas.picture import Picture

RESTART_S = 1.0
"""Times that step back by more than this start again: a recording that was joined or reset."""
BREAK, BAD_PACKET, BAD_FRAME = "breaks off", "packets that do not decode", "damaged frames"
"""What is counted as a problem."""
_FALLBACK_STEP_S = 1 / 30


def decoded(
    container: InputContainer, stream: VideoStream, problems: Counter[str] | None = None
) -> Iterator[av.VideoFrame]:
    """All frames in the order of display, from the container's position.

    A packet that does not decode, a frame that the decoder marks as damaged and the rest of a file that is cut off or unreadable
    are left out and counted in `problems`. Raises av.FFmpegError for other errors, such as a failing disk, and MemoryError.
    """
    fed: list[int] | None = None if problems is None else []
    given: set[int] = set()
    problems = Counter() if problems is None else problems
    packets = container.demux(stream)
    while True:
        try:
            packet = next(packets, None)
        except (av.InvalidDataError, av.EOFError):
            problems[BREAK] += 1
            packet = None
        if fed is not None and packet is not None and packet.pts is not None and not packet.is_discard:
            fed.append(packet.pts)
        try:
            frames = packet.decode() if packet is not None else stream.codec_context.decode(None)
        except (av.EOFError, ValueError):  # flushed already
            frames = []
        except av.FFmpegError as error:
            raise_shortage(error)
            problems[BAD_PACKET] += 1
            frames = []
        for frame in frames:
            if frame.is_corrupt:
                problems[BAD_FRAME] += 1
            else:
                if frame.pts is not None:
                    given.add(frame.pts)
                yield frame
        if packet is None:
            if fed is not None and given and BAD_PACKET not in problems and (lost := _lost(fed, given)):
                problems[BAD_PACKET] += lost
            return


def _lost(fed: list[int], given: set[int]) -> int:
    """Packets that gave no frame: a decoder with several threads does not report them. Single ones may be hidden on purpose."""
    runs = groupby(sorted(set(fed)), key=lambda ticks: ticks in given)
    lengths = [len(list(run)) for was_given, run in runs if not was_given]
    return sum(length for length in lengths if length > 2)


def damage_note(problems: Counter[str]) -> tuple[str, ...]:
    """What `decoded` left out, in words; empty if nothing."""
    return tuple(
        "the file breaks off" if kind == BREAK else f"{count} {kind}" for kind, count in sorted(problems.items())
    )


def stamp(frame: av.VideoFrame, picture: Picture) -> int | None:
    """Time of a frame on the picture's clock, in ticks of the stream."""
    return frame.dts if picture.clock == "decoding" else frame.pts


def timed(frames: Iterable[av.VideoFrame], picture: Picture, tick_s: float) -> Iterator[tuple[float, av.VideoFrame]]:
    """Frames with the seconds since the first displayed one; times always increase.

    A frame without a time follows the one before by the usual step. One whose time steps back a little comes half a step after
    it. Where times start again, later ones continue from there.
    """
    step_s = picture.step_s or _FALLBACK_STEP_S
    last_s, shift_s = None, 0.0
    for number, frame in enumerate(frames):
        ticks = stamp(frame, picture)
        if picture.clock == "count":
            time_s = number * step_s
        elif ticks is None:
            time_s = 0.0 if last_s is None else last_s + step_s
        else:
            time_s = (ticks - picture.origin) * tick_s
            if shift_s:
                time_s += shift_s
            if last_s is not None and time_s <= last_s:
                if last_s - time_s > RESTART_S:
                    shift_s += last_s + step_s - time_s
                    time_s = last_s + step_s
                else:
                    time_s = last_s + step_s / 2
        last_s = time_s
        yield time_s, frame
