"""Probe a source: inspect its picture, read all its packets, and yield its properties, or a rejection."""

import math
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, replace
from statistics import median
from typing import ClassVar

import av
import numpy as np
from av.container import InputContainer

from schemas.containers import raise_shortage
from schemas.ids import is_source_id
from schemas.picture import Picture
from schemas.records import Rejection, Source, Video
from schemas.staging import source_files
from stages.base import Stage, StageConfig
from stages.failures import is_out_of_memory, is_transient
from stages.media.decoding import open_container
from stages.media.focal_length import focal_px, read_focal_35mm
from stages.media.inspection import UnreadablePicture, inspect
from stages.media.timing import BAD_PACKET, BREAK, RESTART_S, damage_note


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
            sha256 = source_files().sha256(record.location)
        except OSError as error:
            yield self.reject_unread(record, error)
            return
        try:
            probed = _probe(record.location)
        except UnreadablePicture as error:
            yield self.reject(record, str(error))
            return
        except (av.FFmpegError, OSError, ValueError, IndexError) as error:  # IndexError: streams missing in the header
            if is_transient(error) or is_out_of_memory(error):
                raise
            yield self.reject(record, "not_a_video", f"{type(error).__name__}: {error}"[:500])
            return
        yield self._check_limits(record, sha256, probed)

    def _check_limits(self, record: Source, sha256: str, probed: "_Probed") -> Video | Rejection:
        limits = self.config
        picture = probed.picture
        side, pixels = min(picture.width, picture.height), picture.full_width * picture.full_height
        for failed, reason, measured, limit in (
            (probed.frames < 2, "single_frame", probed.frames, 2),
            (probed.covered < limits.min_whole, "truncated", probed.covered, limits.min_whole),
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
            width=picture.width,
            height=picture.height,
            fps=probed.fps,
            duration_s=probed.duration_s,
            has_audio=probed.has_audio,
            focal_px=focal_px(record.focal_35mm or probed.focal_35mm, picture.width, picture.height),
            picture=picture,
            models={"decoder": "; ".join([f"PyAV {av.__version__}", *picture.changes.values(), *probed.damage])},
        )


@dataclass(frozen=True, kw_only=True)
class _Probed:
    picture: Picture
    frames: int
    fps: float
    duration_s: float
    covered: float
    """Share of the declared duration for which there are packets."""
    has_audio: bool
    focal_35mm: float
    damage: tuple[str, ...]


def _probe(uri: str) -> _Probed:
    """Properties of a video, from some of its frames and all of its packets. Raises UnreadablePicture."""
    with open_container(uri) as container:
        picture = inspect(container)
        focal_35mm = read_focal_35mm(uri, container)
    with open_container(uri) as container:
        stream = container.streams[picture.stream]
        assert stream.time_base is not None
        tick_s = float(stream.time_base)
        packets = _read_packets(container, picture)
        declared_s = float(stream.duration * tick_s) if stream.duration else 0.0
        file_s = (container.duration or 0) / 1e6
        has_audio = any(one.codec_context is not None for one in container.streams.audio)
    if packets.restarts(picture, tick_s):
        picture = replace(picture, seekable=False)
    times_s = packets.times_s(picture, tick_s)
    step_s = picture.step_s if picture.clock == "count" else median(np.diff(times_s).tolist() or [0.0])
    duration_s = float(times_s[-1] - times_s[0] + step_s) if len(times_s) else 0.0
    stored_s = packets.stored * tick_s + step_s
    covered = 1.0
    if declared_s > 0:
        covered = stored_s / declared_s
    elif file_s > 0:  # of all tracks: another one may run on after the picture
        covered = max(stored_s, packets.others_s) / file_s
    if packets.discarded and declared_s > 0:  # an edit list ends the last frame early
        duration_s = min(duration_s, declared_s)
    skipped_s = float(times_s[0]) - packets.first * tick_s if len(times_s) else 0.0
    damage = damage_note(packets.damage)
    if skipped_s > 2 * step_s and picture.clock == "presentation":
        damage += (f"the first {skipped_s:.1f} s do not decode",)
    return _Probed(
        picture=picture,
        frames=len(times_s),
        fps=1.0 / step_s if step_s > 0 else 0.0,
        duration_s=duration_s,
        covered=covered,
        has_audio=has_audio,
        focal_35mm=focal_35mm,
        damage=damage,
    )


@dataclass(frozen=True, kw_only=True)
class _Packets:
    """What the packets of a file say."""

    stamps: list[int]
    """Times of the picture's displayed packets on its clock, ticks."""
    first: int
    stored: int
    """Time of the first of them, and ticks from the first to the last of all packets, displayed or not."""
    discarded: int
    """Packets that an edit list cuts off."""
    others_s: float
    """Seconds from the first to the last packet of the other tracks."""
    damage: Counter[str]

    def restarts(self, picture: Picture, tick_s: float) -> bool:
        """Whether times start again in the middle of the file."""
        steps = np.diff(np.array(self.stamps, dtype=np.float64)) * tick_s
        return picture.clock != "count" and bool((steps < -RESTART_S).any())

    def times_s(self, picture: Picture, tick_s: float) -> np.ndarray:
        """When frames are displayed, sorted."""
        if picture.clock == "count":
            return np.arange(len(self.stamps)) * picture.step_s
        ticks = np.array(self.stamps, dtype=np.float64)
        if not picture.seekable:
            steps = np.diff(ticks)
            steps[steps * tick_s < -RESTART_S] = np.median(steps)
            ticks = np.concatenate([ticks[:1], ticks[0] + np.cumsum(steps)])
        times_s = np.unique(ticks) * tick_s
        # What comes before the first frame does not decode: the recording starts between two key frames.
        return times_s[times_s >= picture.origin * tick_s] if picture.clock == "presentation" else times_s


def _read_packets(container: InputContainer, picture: Picture) -> _Packets:
    stamps: list[int] = []
    cut_off: list[int] = []
    damage: Counter[str] = Counter()
    first_s, last_s = math.inf, -math.inf
    try:
        for packet in container.demux():
            if not packet.size:
                continue
            ticks = packet.dts if picture.clock == "decoding" else packet.pts
            if packet.is_corrupt:
                damage[BAD_PACKET] += packet.stream_index == picture.stream
            elif packet.stream_index == picture.stream:
                if ticks is not None or picture.clock == "count":
                    (cut_off if packet.is_discard else stamps).append(ticks or 0)
            elif packet.pts is not None and packet.time_base is not None:
                start_s = float(packet.pts * packet.time_base)
                first_s = min(first_s, start_s)
                last_s = max(last_s, start_s + float((packet.duration or 0) * packet.time_base))
    except av.FFmpegError as error:  # a truncated file: its covered duration is compared with the declared one
        raise_shortage(error)
        damage[BREAK] += 1
    every = stamps + cut_off
    return _Packets(
        stamps=stamps,
        first=min(stamps, default=0),
        stored=max(every, default=0) - min(every, default=0),
        discarded=len(cut_off),
        others_s=max(0.0, last_s - first_s),
        damage=+damage,
    )
