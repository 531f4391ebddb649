"""Split a video into shots at hard cuts, with PySceneDetect's content detector."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import replace
from itertools import pairwise
from typing import ClassVar

import av

from schemas.records import Rejection, Shot, Video
from stages.base import Stage, StageConfig
from stages.media.decoding import frames
from stages.media.timing import damage_note


class SplitShots(Stage[Video, Shot]):
    """Shots between hard cuts; those too short for a clip are rejected."""

    class Config(StageConfig):
        """Thresholds of the cut detector."""

        RENAMED: ClassVar = {"min_shot_s": "min_s"}

        threshold: float = 27.0
        """Mean change of hue, saturation and brightness (0-255) between adjacent frames that is a cut."""
        min_cut_frames: int = 15
        """Smallest number of frames between two cuts."""
        min_s: float = 2.0
        """Shortest shot that is kept, seconds."""
        picture_px: int = 256
        """Longer side of the downscaled frames that are compared, pixels."""

    def run(self, record: Video) -> Iterable[Shot | Rejection]:
        import cv2
        from scenedetect import ContentDetector, FrameTimecode

        detector = ContentDetector(threshold=self.config.threshold, min_scene_len=self.config.min_cut_frames)
        times_s: list[float] = []
        time_of: dict[int, float] = {}
        cuts: list[int] = []
        problems: Counter[str] = Counter()
        number = -1
        try:
            shown = frames(
                record.source.location, picture=record.picture, scale_to=self.config.picture_px, problems=problems
            )
            for frame in shown:
                # The detector counts in frames: where those come at uneven times, in frames of the usual length.
                number = max(number + 1, round(frame.time_s * record.fps)) if times_s else 0
                times_s.append(frame.time_s)
                time_of[number] = frame.time_s
                image = cv2.cvtColor(frame.image, cv2.COLOR_RGB2BGR)
                cuts += [cut.frame_num for cut in detector.process_frame(FrameTimecode(number, record.fps), image)]
        except av.FFmpegError as error:
            yield self.reject(record, "broken_stream", f"after {len(times_s)} frames: {error}"[:500])
            return
        if not times_s:
            yield self.reject(record, "no_frame_decodes")
            return
        end_s = times_s[-1] + 1.0 / record.fps
        if problems:
            decoder = "; ".join([record.models.get("decoder", "PyAV"), *damage_note(problems)])
            record = replace(record, models={**record.models, "decoder": decoder})
        edges = [0.0, *(time_of[cut] for cut in cuts), end_s]
        for index, (start, end) in enumerate(pairwise(edges)):
            shot = Shot(video=record, index=index, start_s=start, end_s=end)
            if end - start < self.config.min_s - 0.5 / record.fps:
                yield self.reject(shot, "shot_too_short", measured=end - start, limit=self.config.min_s)
            else:
                yield shot
