"""Describe a joined motion by what was said of the clips that it was joined from."""

from collections.abc import Iterator

from schemas.records import CaptionedMotion, ScoredMotion, Transcript
from stages.base import Stage
from stages.joining.telling import describe_steps


class TellSegments(Stage[ScoredMotion, CaptionedMotion]):
    """Take over descriptions, one after another, and events in their new times; nobody is heard in a joined motion."""

    def run(self, record: ScoredMotion) -> Iterator[CaptionedMotion]:
        """The motion with its captions. Raises ValueError for one that was not joined."""
        if not record.motion.segments:
            raise ValueError(f"{record.id}: it was not joined; describe it by write_captions")
        yield CaptionedMotion(
            scored=record, captions=describe_steps(record.motion.segments, record.id), transcript=Transcript()
        )  # fmt: skip
