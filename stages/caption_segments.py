"""Caption a joined motion from the captions of the clips that it was joined from."""

from collections.abc import Iterator

from schemas.records import CaptionedMotion, ScoredMotion, Transcript
from stages.base import Stage
from stages.joining.step_captions import describe_steps


class CaptionSegments(Stage[ScoredMotion, CaptionedMotion]):
    """Concatenate the clips' descriptions and shift their events in time; a joined motion has no transcript."""

    def run(self, record: ScoredMotion) -> Iterator[CaptionedMotion]:
        """The motion with its captions. Raises ValueError for a motion that was not joined."""
        if not record.motion.segments:
            raise ValueError(
                f"{record.id}: the motion has no segments; use write_captions for motions that were not joined"
            )
        yield CaptionedMotion(
            scored=record, captions=describe_steps(record.motion.segments, record.id), transcript=Transcript()
        )  # fmt: skip
