"""Samples as they are joined: decoded, with where they come from and what was said of them."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property

from schemas.records import FPS, Captions, Event, Provenance, Segment, Source
from schemas.sample import MotionArrays, decode_motion
from stages.joining.pieces import Body, Piece
from stages.joining.seams import End, head


@dataclass(frozen=True, kw_only=True, eq=False)
class SampleClip:
    """A stored sample that others may be joined to."""

    key: str
    provenance: Provenance
    motion: MotionArrays
    captions: Captions
    body_model: str
    models: dict[str, str]
    body: Body = field(repr=False)

    @property
    def person(self) -> tuple[str, int]:
        """Whoever moves: a person of a source."""
        return self.provenance.sha256, self.provenance.person

    def __len__(self) -> int:
        return len(self.motion.poses)

    def entrance(self, share: float, most_frames: int) -> End:
        """Frames at which it may be entered, on its own body."""
        return head(self._piece, 0, reach(len(self), share, most_frames))

    @cached_property
    def _piece(self) -> Piece:
        return Piece.of(self.motion, self.body)


@dataclass(frozen=True, kw_only=True, eq=False)
class Opening:
    """A clip that a long motion begins with, and the clips that it may go on with."""

    source: Source
    """Of the long motion."""
    first: SampleClip
    others: Sequence[SampleClip]

    @property
    def id(self) -> str:
        return self.source.id


def reach(frames: int, share: float, most_frames: int) -> int:
    """How many frames at its end may be cut off a clip."""
    return max(1, min(most_frames, int(share * frames)))


def read_clip(key: str, members: dict[str, bytes], body: Body) -> SampleClip:
    """A sample's members, decoded. Raises HumoError for a motion that is none."""
    meta, text = json.loads(members["meta.json"]), json.loads(members["text.json"])
    source = Source(
        id=meta["source_id"], uri=meta["uri"], title=meta["title"], licence=meta["licence"], consent=meta["consent"]
    )  # fmt: skip
    return SampleClip(
        key=key,
        provenance=Provenance(
            source=source,
            sha256=meta["sha256"],
            person=meta["person"],
            start_s=meta["start_s"],
            end_s=meta["end_s"],
            source_fps=meta["source_fps"],
        ),
        motion=decode_motion(members["motion.npz"], f"{key}.motion.npz"),
        captions=Captions(
            body=tuple(text["body"]),
            parts={part: tuple(lines) for part, lines in text["parts"].items()},
            events=tuple(Event(**event) for event in text["rules"]),
            writers=text["writers"],
        ),
        body_model=meta["body_model"],
        models=meta["models"],
        body=body,
    )


def segment(clip: SampleClip, start: int, end: int, first: int) -> Segment:
    """Frames from `start` to before `end` of the joined motion, which are the clip's from its frame `first` on."""
    return Segment(
        key=clip.key,
        provenance=clip.provenance,
        start_s=start / FPS,
        end_s=end / FPS,
        from_s=first / FPS,
        captions=clip.captions,
    )


def together(values: Iterable[str]) -> str:
    """What holds for all of several: the different values joined, as licences are by SPDX."""
    return " AND ".join(sorted(set(values)))
