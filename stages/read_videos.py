"""Probe a source: read all packets of its video stream and yield its properties, or a rejection."""

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
from stages.media.decoding import open_container, pixel_aspect, upright, video_stream
from stages.media.focal_length import focal_px, read_focal_35mm


class ReadVideos(Stage[Source, Video]):
    """Keep sources that are complete, decodable videos of a useful length, size and frame rate."""

    class Config(StageConfig):
        """Limits of accepted videos."""

        RENAMED: ClassVar = {"min_seconds": "min_s", "max_seconds": "max_s"}

        min_s: float = 1.0
        """Shortest video, seconds."""
        max_s: float = 6 * 3600.0
        """Longest video, seconds; longer videos should be cut beforehand."""
        min_fps: float = 12.0
        """Lowest frame rate, frames/s: below it motion cannot be tracked."""
        min_side_px: int = 96
        """Smallest length of the shorter side, pixels."""
        max_pixels: int = 8192 * 8192
        """Largest frame, pixels."""
        min_whole: float = 0.9
        """Smallest share of the declared duration that the packets cover; less is a truncated file."""

    def run(self, record: Source) -> Iterable[Video | Rejection]:
        if not is_source_id(record.id):
            yield self.reject(
                record,
                "bad_id",
                f"id {record.id!r}: use at most 128 of letters, digits, - and _, or leave the column out",
            )
            return
        try:
            with fsspec.open(record.location, "rb") as file:
                sha256 = stream_sha256(file)
        except OSError as error:
            yield self.reject_unread(record, error)
            return
        try:
            probed = _probe(record.location)
        except (av.FFmpegError, OSError, ValueError, IndexError) as error:  # IndexError: streams missing in the header
            if is_transient(error):
                raise
            yield self.reject(record, "not_a_video", f"{type(error).__name__}: {error}"[:500])
            return
        if isinstance(probed, str):
            yield self.reject(record, probed)
            return
        yield self._check_limits(record, sha256, probed)

    def _check_limits(self, record: Source, sha256: str, probed: "_Probed") -> Video | Rejection:
        limits = self.config
        covered = probed.duration_s / probed.declared_s if probed.declared_s > 0 else 1.0
        side, pixels = min(probed.width, probed.height), probed.width * probed.height
        for failed, reason, measured, limit in (
            (probed.frames < 2, "single_frame", probed.frames, 2),
            (covered < limits.min_whole, "truncated", covered, limits.min_whole),
            (probed.duration_s < limits.min_s, "too_short", probed.duration_s, limits.min_s),
            (probed.duration_s > limits.max_s, "too_long", probed.duration_s, limits.max_s),
            (not probed.fps >= limits.min_fps, "frame_rate_too_low", probed.fps, limits.min_fps),
            (side < limits.min_side_px, "picture_too_small", side, limits.min_side_px),
            (pixels > limits.max_pixels, "picture_too_large", pixels, limits.max_pixels),
        ):
            if failed:
                return self.reject(record, reason, measured=float(measured), limit=float(limit))
        return Video(
            source=record,
            sha256=sha256,
            width=probed.width,
            height=probed.height,
            fps=probed.fps,
            duration_s=probed.duration_s,
            has_audio=probed.has_audio,
            focal_px=focal_px(record.focal_35mm or probed.focal_35mm, probed.width, probed.height),
            models={"decoder": f"PyAV {av.__version__}"},
        )


@dataclass(frozen=True, kw_only=True)
class _Probed:
    width: int
    height: int
    frames: int
    fps: float
    duration_s: float
    declared_s: float
    has_audio: bool
    focal_35mm: float


def _probe(uri: str) -> _Probed | str:
    """Properties of a video, from demuxing all of it and decoding one frame; a rejection reason if there are no frames."""
    with open_container(uri) as container:
        stream = video_stream(container)
        if stream is None or stream.time_base is None:
            return "no_picture_stream"
        tick_s = float(stream.time_base)
        image = next((upright(frame, pixel_aspect(stream)) for frame in container.decode(stream)), None)
        if image is None:
            return "no_frame_decodes"
        declared_s = float(stream.duration * tick_s) if stream.duration else (container.duration or 0) / 1e6
        has_audio = any(True for _ in container.streams.audio)
        focal_35mm = read_focal_35mm(uri, container)
    stamps = []
    with open_container(uri) as container:
        stream = video_stream(container)
        assert stream is not None
        with suppress(av.FFmpegError):  # a truncated file: its covered duration is compared with the declared one
            for packet in container.demux(stream):
                if packet.pts is not None and not packet.is_corrupt:
                    stamps.append(packet.pts)
    times_s = np.unique(np.array(stamps, dtype=np.float64)) * tick_s
    if len(times_s) < 2:
        return "single_frame"
    step_s = median(np.diff(times_s).tolist())
    fps = 1.0 / step_s if step_s > 0 else 0.0
    return _Probed(
        width=image.shape[1],
        height=image.shape[0],
        frames=len(times_s),
        fps=fps,
        duration_s=float(times_s[-1] - times_s[0] + step_s),
        declared_s=declared_s,
        has_audio=has_audio,
        focal_35mm=focal_35mm,
    )
