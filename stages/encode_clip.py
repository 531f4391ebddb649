"""The last stage: crop the person, encode the video, and assemble all members of the sample."""

import io
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack

import av
import numpy as np

from schemas.records import Clip, InstructedMotion, Rejection, Sample
from schemas.sample import encode_sample_record
from stages.base import Stage, StageConfig
from stages.media.decoding import SAME_TIME_S, TimedFrame, frames
from stages.media.encoding import VideoWriter

_MAX_GAP_S = 2.0
"""Longest gap between two clips of one decoding pass: decoding it costs less than opening the video again."""


class EncodeClip(Stage[InstructedMotion, Sample]):
    """H.264 of the person with a margin, with the clip's frames and times; motion capture has no video."""

    class Config(StageConfig):
        """Size and quality of the crops."""

        max_px: int = 320
        """Longer side of the crop, pixels."""
        margin: float = 0.1
        """Margin on every side, as a share of the height of the person's box."""
        quality: int = 26
        """x264's constant rate factor: smaller gives better quality and larger files."""

    def run(self, record: InstructedMotion) -> Iterable[Sample | Rejection]:
        return self.run_batch([record])[0]

    def run_batch(self, records: Sequence[InstructedMotion]) -> list[list[Sample | Rejection]]:
        """As `run`; a video is decoded once for all clips that are close together in time."""
        motions = [record.captioned.scored.motion for record in records]
        clips = {index: motion.footage.clip for index, motion in enumerate(motions) if motion.footage is not None}
        encoded: dict[int, bytes | str] = {}
        for group in _decode_groups(clips):
            encoded |= self._encode(group)
        return [
            [self._sample(record, clips.get(index), encoded.get(index, b""))] for index, record in enumerate(records)
        ]

    def _sample(self, record: InstructedMotion, clip: Clip | None, content: bytes | str) -> Sample | Rejection:
        if clip is None:
            return encode_sample_record(record, None, self.config_digest)
        if isinstance(content, str):
            return self.reject(record, "broken_stream", content[:500])
        if not content:
            return self.reject(record, "no_frame_decodes")
        return encode_sample_record(record, content, self.config_digest, crop=crop_box(clip, self.config.margin))

    def _encode(self, clips: Mapping[int, Clip]) -> Mapping[int, bytes | str]:
        """Index -> mp4 of each clip of a group, empty if it has no frames, or the error of a broken stream."""
        try:
            return self._encode_group(clips)
        except av.FFmpegError as error:
            if len(clips) == 1:
                return dict.fromkeys(clips, str(error))
        # One broken clip must not affect the other clips of the group.
        encoded: dict[int, bytes | str] = {}
        for index, clip in clips.items():
            encoded |= self._encode({index: clip})
        return encoded

    def _encode_group(self, clips: Mapping[int, Clip]) -> dict[int, bytes]:
        waiting = deque(sorted(clips, key=lambda index: clips[index].start_s))
        open_crops: dict[int, _CropWriter] = {}
        done = dict.fromkeys(clips, b"")
        start_s, end_s = clips[waiting[0]].start_s, max(clip.end_s for clip in clips.values())
        video = clips[waiting[0]].track.shot.video
        for frame in frames(video.source.location, picture=video.picture, start_s=start_s, end_s=end_s):
            while waiting and frame.time_s >= clips[waiting[0]].start_s - SAME_TIME_S:
                index = waiting.popleft()
                open_crops[index] = _CropWriter(clips[index], self.config)
            for index in [one for one in open_crops if frame.time_s >= clips[one].end_s - SAME_TIME_S]:
                done[index] = open_crops.pop(index).finish()
            for crop in open_crops.values():
                crop.write(frame)
        return done | {index: crop.finish() for index, crop in open_crops.items()}


class _CropWriter:
    """Encodes the crop of a clip in memory."""

    def __init__(self, clip: Clip, config: EncodeClip.Config) -> None:
        self._start_s = clip.start_s
        self._box = x0, y0, x1, y1 = crop_box(clip, config.margin)
        scale = min(1.0, config.max_px / max(x1 - x0, y1 - y0))
        width, height = (max(2, 2 * round(side * scale / 2)) for side in (x1 - x0, y1 - y0))
        self._buffer, self._exit_stack = io.BytesIO(), ExitStack()
        fps = clip.track.shot.video.fps
        self._writer = self._exit_stack.enter_context(
            VideoWriter(self._buffer, width, height, fps, quality=config.quality)
        )

    def write(self, frame: TimedFrame) -> None:
        if frame.time_s >= self._start_s - SAME_TIME_S:  # time stamps of broken files can jump back
            x0, y0, x1, y1 = self._box
            self._writer.write(frame.image[y0:y1, x0:x1], frame.time_s - self._start_s)

    def finish(self) -> bytes:
        """The complete file; empty without frames."""
        self._exit_stack.close()
        return self._buffer.getvalue() if self._writer.frames else b""


def _decode_groups(clips: Mapping[int, Clip]) -> Iterator[dict[int, Clip]]:
    """Index -> clip, in groups that share one decoding pass over their video."""
    group: dict[int, Clip] = {}
    uri, end_s = "", 0.0
    for index in sorted(clips, key=lambda one: (clips[one].track.shot.video.source.location, clips[one].start_s)):
        clip = clips[index]
        clip_uri = clip.track.shot.video.source.location
        if group and (clip_uri != uri or clip.start_s > end_s + _MAX_GAP_S):
            yield group
            group, end_s = {}, 0.0
        group[index] = clip
        uri, end_s = clip_uri, max(end_s, clip.end_s)
    if group:
        yield group


def crop_box(clip: Clip, margin: float) -> tuple[int, int, int, int]:
    """x0, y0, x1, y1 in source pixels, even, inside the frame, around all boxes of the person in the clip."""
    video = clip.track.shot.video
    x0, y0 = clip.boxes[:, :2].min(axis=0)
    x1, y1 = clip.boxes[:, 2:].max(axis=0)
    margin_px = margin * float(np.median(clip.boxes[:, 3] - clip.boxes[:, 1]))
    left, top = (2 * max(0, int((start - margin_px) // 2)) for start in (x0, y0))
    right = min(2 * (video.width // 2), 2 * -(-int(x1 + margin_px) // 2))
    bottom = min(2 * (video.height // 2), 2 * -(-int(y1 + margin_px) // 2))
    return left, top, max(right, left + 2), max(bottom, top + 2)
