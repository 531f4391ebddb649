"""The last stage: cut out the person's pixels, encode them, and put all members of the sample together."""

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

_LONGEST_GAP_S = 2.0
"""Between two clips of a video; decoding so much for nothing costs less than opening it anew."""


class EncodeClip(Stage[InstructedMotion, Sample]):
    """H.264 of the person with some margin, in the clip's own frames and times; motion capture has no pixels."""

    class Config(StageConfig):
        """Size and quality of the crops."""

        max_px: int = 320
        """Longer side of the crop, pixels."""
        margin: float = 0.1
        """Added on every side, as a share of the person's box."""
        quality: int = 26
        """x264's constant rate factor: smaller is better and larger."""

    def run(self, record: InstructedMotion) -> Iterable[Sample | Rejection]:
        return self.run_batch([record])[0]

    def run_batch(self, records: Sequence[InstructedMotion]) -> list[list[Sample | Rejection]]:
        """As `run`; a video is decoded once for all clips that lie in the same stretch of it."""
        motions = [record.captioned.scored.motion for record in records]
        clips = {place: motion.footage.clip for place, motion in enumerate(motions) if motion.footage is not None}
        encoded: dict[int, bytes | str] = {}
        for stretch in _stretches(clips):
            encoded |= self._encode(stretch)
        return [
            [self._sample(record, clips.get(place), encoded.get(place, b""))] for place, record in enumerate(records)
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
        """Place -> mp4 of each clip of a stretch, empty where no frame shows, or what breaks the stream there."""
        try:
            return self._encode_together(clips)
        except av.FFmpegError as error:
            if len(clips) == 1:
                return dict.fromkeys(clips, str(error))
        # The others need not suffer from what breaks one.
        return {place: content for one, clip in clips.items() for place, content in self._encode({one: clip}).items()}

    def _encode_together(self, clips: Mapping[int, Clip]) -> dict[int, bytes]:
        waiting = deque(sorted(clips, key=lambda place: clips[place].start_s))
        open_crops: dict[int, _Crop] = {}
        done = dict.fromkeys(clips, b"")
        start_s, end_s = clips[waiting[0]].start_s, max(clip.end_s for clip in clips.values())
        uri = clips[waiting[0]].track.shot.video.source.uri
        for frame in frames(uri, start_s=start_s, end_s=end_s):
            while waiting and frame.time_s >= clips[waiting[0]].start_s - SAME_TIME_S:
                place = waiting.popleft()
                open_crops[place] = _Crop(clips[place], self.config)
            for place in [one for one in open_crops if frame.time_s >= clips[one].end_s - SAME_TIME_S]:
                done[place] = open_crops.pop(place).finish()
            for crop in open_crops.values():
                crop.write(frame)
        return done | {place: crop.finish() for place, crop in open_crops.items()}


class _Crop:
    """A clip that is being written in memory."""

    def __init__(self, clip: Clip, config: EncodeClip.Config) -> None:
        self._start_s = clip.start_s
        self._box = x0, y0, x1, y1 = crop_box(clip, config.margin)
        shrink = min(1.0, config.max_px / max(x1 - x0, y1 - y0))
        width, height = (max(2, 2 * round(side * shrink / 2)) for side in (x1 - x0, y1 - y0))
        self._buffer, self._closing = io.BytesIO(), ExitStack()
        fps = clip.track.shot.video.fps
        self._out = self._closing.enter_context(VideoWriter(self._buffer, width, height, fps, quality=config.quality))

    def write(self, frame: TimedFrame) -> None:
        if frame.time_s >= self._start_s - SAME_TIME_S:  # time stamps of broken files jump back
            x0, y0, x1, y1 = self._box
            self._out.write(frame.image[y0:y1, x0:x1], frame.time_s - self._start_s)

    def finish(self) -> bytes:
        """The whole file; empty without a frame."""
        self._closing.close()
        return self._buffer.getvalue() if self._out.frames else b""


def _stretches(clips: Mapping[int, Clip]) -> Iterator[dict[int, Clip]]:
    """Place -> clip, in groups that are worth a single pass over their video."""
    group: dict[int, Clip] = {}
    uri, end_s = "", 0.0
    for place in sorted(clips, key=lambda one: (clips[one].track.shot.video.source.uri, clips[one].start_s)):
        clip = clips[place]
        here = clip.track.shot.video.source.uri
        if group and (here != uri or clip.start_s > end_s + _LONGEST_GAP_S):
            yield group
            group, end_s = {}, 0.0
        group[place] = clip
        uri, end_s = here, max(end_s, clip.end_s)
    if group:
        yield group


def crop_box(clip: Clip, margin: float) -> tuple[int, int, int, int]:
    """x0, y0, x1, y1 in source pixels, even, inside the picture, around all that the person does in the clip."""
    video = clip.track.shot.video
    x0, y0 = clip.boxes[:, :2].min(axis=0)
    x1, y1 = clip.boxes[:, 2:].max(axis=0)
    extra = margin * float(np.median(clip.boxes[:, 3] - clip.boxes[:, 1]))
    left, top = (2 * max(0, int((start - extra) // 2)) for start in (x0, y0))
    right = min(2 * (video.width // 2), 2 * -(-int(x1 + extra) // 2))
    bottom = min(2 * (video.height // 2), 2 * -(-int(y1 + extra) // 2))
    return left, top, max(right, left + 2), max(bottom, top + 2)
