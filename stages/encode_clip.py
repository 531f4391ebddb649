"""The last stage: cut out the person's pixels, encode them, and put all members of the sample together."""

import io
from collections.abc import Iterable

import av
import numpy as np

from schemas.records import Clip, InstructedMotion, Rejection, Sample
from schemas.sample import encode_sample_record
from stages.base import Stage, StageConfig
from stages.decoding import frames
from stages.encoding import VideoWriter


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
        footage = record.captioned.scored.motion.footage
        if footage is None:
            yield encode_sample_record(record, None, self.config_digest)
            return
        crop = crop_box(footage.clip, self.config.margin)
        try:
            content = self._encode(footage.clip, crop)
        except av.FFmpegError as error:
            yield self.reject(record, "broken_stream", str(error)[:500])
            return
        if not content:
            yield self.reject(record, "no_frame_decodes")
            return
        yield encode_sample_record(record, content, self.config_digest, crop=crop)

    def _encode(self, clip: Clip, crop: tuple[int, int, int, int]) -> bytes:
        x0, y0, x1, y1 = crop
        video = clip.track.shot.video
        shrink = min(1.0, self.config.max_px / max(x1 - x0, y1 - y0))
        width, height = (max(2, 2 * round(side * shrink / 2)) for side in (x1 - x0, y1 - y0))
        buffer = io.BytesIO()
        with VideoWriter(buffer, width, height, video.fps, quality=self.config.quality) as out:
            for frame in frames(video.source.uri, start_s=clip.start_s, end_s=clip.end_s):
                out.write(frame.image[y0:y1, x0:x1], frame.time_s - clip.start_s)
        return buffer.getvalue() if out.frames else b""


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
