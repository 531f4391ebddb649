"""Open a source, look through its packets and say what kind of video it is, or why it is none."""

from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from statistics import median
from typing import ClassVar

import av
import fsspec
import numpy as np

from schemas.ids import is_source_id
from schemas.records import Rejection, Source, Video
from schemas.storage import stream_sha256
from stages.base import Stage, StageConfig
from stages.failures import is_transient
from stages.media.decoding import open_container, picture_stream, pixel_aspect, upright
from stages.media.focal_length import focal_px, read_focal_35mm


class ReadVideos(Stage[Source, Video]):
    """Keep sources that are whole, decodable videos of a useful length, size and frame rate."""

    class Config(StageConfig):
        """Limits of what is taken in."""

        RENAMED: ClassVar = {"min_seconds": "min_s", "max_seconds": "max_s"}

        min_s: float = 1.0
        """Shortest video, seconds."""
        max_s: float = 6 * 3600.0
        """Longest video, seconds; longer ones are better cut beforehand."""
        min_fps: float = 12.0
        """Lowest frame rate, frames a second: below it motion cannot be followed."""
        min_side_px: int = 96
        """Smallest shorter side, pixels."""
        max_pixels: int = 8192 * 8192
        """Largest picture, pixels."""
        min_whole: float = 0.9
        """Share of the announced duration that must be there; less is a truncated file."""

    def run(self, record: Source) -> Iterable[Video | Rejection]:
        if not is_source_id(record.id):
            yield self.reject(
                record,
                "bad_id",
                f"id {record.id!r}: use at most 128 of letters, digits, - and _, or leave the column out",
            )
            return
        try:
            with fsspec.open(record.uri, "rb") as file:
                sha256 = stream_sha256(file)
        except OSError as error:
            yield self.reject_unread(record, error)
            return
        try:
            found = _look_through(record.uri)
        except (av.FFmpegError, OSError, ValueError, IndexError) as error:  # the last: streams that no header announced
            if is_transient(error):
                raise
            yield self.reject(record, "not_a_video", f"{type(error).__name__}: {error}"[:500])
            return
        if isinstance(found, str):
            yield self.reject(record, found)
            return
        yield self._judge(record, sha256, found)

    def _judge(self, record: Source, sha256: str, found: "_Found") -> Video | Rejection:
        limits = self.config
        whole = found.duration_s / found.announced_s if found.announced_s > 0 else 1.0
        side, pixels = min(found.width, found.height), found.width * found.height
        for bad, reason, measured, limit in (
            (found.frames < 2, "single_frame", found.frames, 2),
            (whole < limits.min_whole, "truncated", whole, limits.min_whole),
            (found.duration_s < limits.min_s, "too_short", found.duration_s, limits.min_s),
            (found.duration_s > limits.max_s, "too_long", found.duration_s, limits.max_s),
            (not found.fps >= limits.min_fps, "frame_rate_too_low", found.fps, limits.min_fps),
            (side < limits.min_side_px, "picture_too_small", side, limits.min_side_px),
            (pixels > limits.max_pixels, "picture_too_large", pixels, limits.max_pixels),
        ):
            if bad:
                return self.reject(record, reason, measured=float(measured), limit=float(limit))
        return Video(
            source=record,
            sha256=sha256,
            width=found.width,
            height=found.height,
            fps=found.fps,
            duration_s=found.duration_s,
            has_audio=found.has_audio,
            focal_px=focal_px(record.focal_35mm or found.focal_35mm, found.width, found.height),
            models={"decoder": f"PyAV {av.__version__}"},
        )


@dataclass(frozen=True, kw_only=True)
class _Found:
    width: int
    height: int
    frames: int
    fps: float
    duration_s: float
    announced_s: float
    has_audio: bool
    focal_35mm: float


def _look_through(uri: str) -> _Found | str:
    """What the container holds, by demuxing all of it and decoding one frame; a reason if there are no pictures."""
    with open_container(uri) as container:
        stream = picture_stream(container)
        if stream is None or stream.time_base is None:
            return "no_picture_stream"
        tick = float(stream.time_base)
        image = next((upright(frame, pixel_aspect(stream)) for frame in container.decode(stream)), None)
        if image is None:
            return "no_frame_decodes"
        announced_s = float(stream.duration * tick) if stream.duration else (container.duration or 0) / 1e6
        has_audio = any(True for _ in container.streams.audio)
        focal_35mm = read_focal_35mm(uri, container)
    stamps = []
    with open_container(uri) as container:
        stream = picture_stream(container)
        assert stream is not None
        with suppress(av.FFmpegError):  # a file cut short: what its packets cover is compared with what was announced
            for packet in container.demux(stream):
                if packet.pts is not None and not packet.is_corrupt:
                    stamps.append(packet.pts)
    times_s = np.unique(np.array(stamps, dtype=np.float64)) * tick
    if len(times_s) < 2:
        return "single_frame"
    step_s = median(np.diff(times_s).tolist())
    fps = 1.0 / step_s if step_s > 0 else 0.0
    return _Found(
        width=image.shape[1],
        height=image.shape[0],
        frames=len(times_s),
        fps=fps,
        duration_s=float(times_s[-1] - times_s[0] + step_s),
        announced_s=announced_s,
        has_audio=has_audio,
        focal_35mm=focal_35mm,
    )
