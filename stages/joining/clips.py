"""Decoded samples to be joined, with their provenance and captions."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property

from schemas.coverage import Coverage, coverage_of
from schemas.records import FPS, Captions, Event, Provenance, Segment, Source
from schemas.sample import MotionArrays, decode_motion
from stages.joining.pieces import Body, Piece
from stages.joining.seams import SeamCandidates, entry_candidates


@dataclass(frozen=True, kw_only=True, eq=False)
class SampleClip:
    """A stored sample that other samples may be joined to."""

    key: str
    provenance: Provenance
    motion: MotionArrays
    captions: Captions
    body_model: str
    models: dict[str, str]
    body: Body = field(repr=False)

    @property
    def person(self) -> tuple[str, int]:
        """Source hash and the person's number in it."""
        return self.provenance.sha256, self.provenance.person

    @cached_property
    def coverage(self) -> Coverage:
        """How much of the body was seen."""
        return coverage_of(self.motion.seen)

    def __len__(self) -> int:
        return len(self.motion.poses)

    def entries(self, share: float, max_frames: int) -> SeamCandidates:
        """Frames at which the clip may be entered, on its own body."""
        return entry_candidates(self._piece, 0, max_cut_frames(len(self), share, max_frames))

    @cached_property
    def _piece(self) -> Piece:
        return Piece.of(self.motion, self.body)


@dataclass(frozen=True, kw_only=True, eq=False)
class Opening:
    """The clip that a long motion begins with, and candidates for its continuation."""

    source: Source
    """Source of the long motion."""
    first: SampleClip
    candidates: Sequence[SampleClip]

    @property
    def id(self) -> str:
        return self.source.id


def max_cut_frames(frames: int, share: float, max_frames: int) -> int:
    """Maximum number of frames that may be cut off one end of a clip."""
    return max(1, min(max_frames, int(share * frames)))


def read_clip(key: str, members: dict[str, bytes], body: Body) -> SampleClip:
    """Decode a sample's members. Raises HumoError for an invalid motion."""
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
    """Frames [start, end) of the joined motion, taken from the clip from its frame `first` on."""
    return Segment(
        key=clip.key,
        provenance=clip.provenance,
        start_s=start / FPS,
        end_s=end / FPS,
        from_s=first / FPS,
        captions=clip.captions,
    )


def spdx_and(values: Iterable[str]) -> str:
    """The distinct values joined by AND, as in SPDX licence expressions."""
    return " AND ".join(sorted(set(values)))
