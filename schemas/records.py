"""What flows through the stages: one type per step, nothing missing inside.

    Source -> Video -> Shot -> Track -> Clip -> Motion -> ScoredMotion -> CaptionedMotion -> InstructedMotion -> Sample

Every step keeps the record that it was made from, so a stage reads what it needs without a dictionary of maybes. T
counts frames at `FPS`; N counts the frames of the source that were looked at.
"""

import math
from dataclasses import dataclass, field, replace
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float, UInt8

from schemas.ids import digest, sample_key

FPS = 30.0
"""Frames a second of everything that is stored."""


@dataclass(frozen=True, kw_only=True)
class Rejection:
    """Why something went no further. `measured` and `limit` are NaN where the reason has no number."""

    id: str
    stage: str
    reason: str
    detail: str = ""
    measured: float = math.nan
    limit: float = math.nan


@runtime_checkable
class Record(Protocol):
    """Anything with an id that says where it stands."""

    @property
    def id(self) -> str: ...


@dataclass(frozen=True, kw_only=True)
class Source:
    """A row of a manifest: where a video or a motion-capture file lies and what is known about it."""

    id: str
    uri: str
    kind: str = "video"
    title: str = ""
    description: str = ""
    licence: str = "unknown"
    consent: str = "unknown"
    focal_35mm: float = 0.0
    """Focal length as on 35 mm film, millimetres, where somebody knows it; 0: ask the file."""


@dataclass(frozen=True, kw_only=True)
class Word:
    """A spoken word, seconds from the start of the video."""

    text: str
    start_s: float
    end_s: float
    probability: float


@dataclass(frozen=True, kw_only=True)
class Transcript:
    """Speech of a video; no words and an empty language where there was none or nobody listened."""

    language: str = ""
    words: tuple[Word, ...] = ()
    language_from: str = ""
    """Who says which language it is: `heard` by the recogniser, `told` by the settings, or `assumed`, where the recogniser
    knows only one and writes down all speech in it."""

    @property
    def confidence(self) -> float:
        """Mean probability of the words, rounded to thousandths; 0 where there are none."""
        return round(sum(word.probability for word in self.words) / len(self.words), 3) if self.words else 0.0

    def between(self, start_s: float, end_s: float) -> "Transcript":
        """Words that begin inside the span, their times counted from its start."""
        words = tuple(
            replace(word, start_s=word.start_s - start_s, end_s=min(word.end_s, end_s) - start_s)
            for word in self.words
            if start_s <= word.start_s < end_s
        )
        return replace(self, words=words) if words else Transcript()


@dataclass(frozen=True, kw_only=True)
class Video:
    """A video that opens and decodes. Width and height are as displayed (after the container's rotation)."""

    source: Source
    sha256: str
    width: int
    height: int
    fps: float
    duration_s: float
    has_audio: bool
    focal_px: float = 0.0
    """Focal length in pixels of the picture as displayed, where the manifest or the file tells it; 0: not known."""
    transcript: Transcript = field(default_factory=Transcript)
    models: dict[str, str] = field(default_factory=dict)
    """Which models have had a part in it, name -> version; every later step adds its own."""

    @property
    def id(self) -> str:
        return self.source.id


@dataclass(frozen=True, kw_only=True)
class Shot:
    """An uncut stretch of a video, seconds from its start."""

    video: Video
    index: int
    start_s: float
    end_s: float

    @property
    def id(self) -> str:
        return f"{self.video.id}/shot-{self.index:04d}"


@dataclass(frozen=True, kw_only=True, eq=False)
class Track:
    """One person through a shot: frames in which the tracker saw them, possibly with gaps."""

    shot: Shot
    person: int
    times_s: Float[np.ndarray, "N"]
    boxes: Float[np.ndarray, "N 4"]
    """x0, y0, x1, y1 in source pixels."""
    keypoints: Float[np.ndarray, "N 17 3"]
    """x, y in source pixels and confidence."""
    models: dict[str, str]
    camera_turn: Float[np.ndarray, "N 3"] | None = None
    """Rotation vectors, radians, that take directions in the camera axes (x right, y down, z forward) of the track's first
    frame to those of each frame; exactly 0 where the camera stands still. None: taken to stand still."""
    camera_seen: float = 0.0
    """Share of the shot's frames in which the background told how the camera turns. Where that is too few (a bare wall),
    `camera_turn` is 0 and this tells that nobody knows."""
    closeup: Float[np.ndarray, "N 17 3"] | None = None
    """What a closer look (`stages.perception.closeup`) measured of each keypoint, source pixels: its depth, away from the camera
    from the middle of all of them, times the focal length over that depth; how far its place and its depth are expected to be off.
    None: nobody looked closer."""

    @property
    def id(self) -> str:
        return f"{self.shot.id}/person-{self.person:03d}"


@dataclass(frozen=True, kw_only=True, eq=False)
class Clip:
    """A stretch of a track, resampled to `FPS`."""

    track: Track
    start_s: float
    end_s: float
    boxes: Float[np.ndarray, "T 4"]
    keypoints: Float[np.ndarray, "T 17 3"]
    """Confidence is 0 where the tracker saw nothing."""
    camera_turn: Float[np.ndarray, "T 3"] | None = None
    """As in `Track`, counted from the clip's first frame. None: taken to stand still."""
    closeup: Float[np.ndarray, "T 17 3"] | None = None
    """As in `Track`; between sightings it means no more than the keypoints there."""

    @property
    def id(self) -> str:
        return f"{self.track.id}/{round(self.start_s * 1000):08d}"


@dataclass(frozen=True, kw_only=True)
class Provenance:
    """Where a motion comes from, enough to find it again and to remove it.

    A joined motion stands under a source of its own, but under the content of its first segment's: that decides its split.
    """

    source: Source
    sha256: str
    person: int
    start_s: float
    end_s: float
    source_fps: float

    @property
    def key(self) -> str:
        return sample_key(self.sha256, self.person, self.start_s, self.end_s)


@dataclass(frozen=True, kw_only=True, eq=False)
class Camera:
    """A pinhole camera over the frames of a motion, in the motion's world (Y up).

    `rotation` takes world to camera axes (x right, y down, z forward), `position` is the camera's place in the world,
    `intrinsics` is fx, fy, cx, cy in pixels.
    """

    rotation: Float[np.ndarray, "T 3 3"]
    position: Float[np.ndarray, "T 3"]
    intrinsics: Float[np.ndarray, "4"]


@dataclass(frozen=True, kw_only=True, eq=False)
class Footage:
    """What only a motion from video has: the pixels' side of it, T frames like the motion."""

    clip: Clip
    camera: Camera


@dataclass(frozen=True, kw_only=True, eq=False)
class Motion:
    """SMPL parameters in the world at `FPS`: metres, radians, Y up, ground at y = 0, starts at x = z = 0 facing +Z."""

    provenance: Provenance
    footage: Footage | None
    """None for motion capture."""
    poses: Float[np.ndarray, "T 24 3"]
    """Axis-angle; the first joint is the root's orientation in the world."""
    trans: Float[np.ndarray, "T 3"]
    betas: Float[np.ndarray, "10"]
    contacts: UInt8[np.ndarray, "T 4"]
    """left_heel, left_toe, right_heel, right_toe: 1 where it stands on the ground."""
    joint_confidence: Float[np.ndarray, "T 24"]
    to_source: Float[np.ndarray, "4 4"]
    """Takes points of this world to the world of the source."""
    body_model: str
    models: dict[str, str]
    segments: "tuple[Segment, ...]" = ()
    """What it was joined from, in order; empty for a motion as it was recorded."""

    @property
    def id(self) -> str:
        if self.segments:
            return digest("joined", *((s.key, round(s.from_s * 1000), round(s.end_s * 1000)) for s in self.segments))
        return self.provenance.key

    @property
    def seconds(self) -> float:
        return len(self.poses) / FPS


@dataclass(frozen=True, kw_only=True, eq=False)
class ScoredMotion:
    """A motion with its quality in numbers; see `stages/score_motion.py` for what each means."""

    motion: Motion
    scores: dict[str, float]

    @property
    def id(self) -> str:
        return self.motion.id


@dataclass(frozen=True, kw_only=True)
class Event:
    """Something that a part or the whole body does, seconds from the start of the motion."""

    part: str
    """One of the five parts, or `body`."""
    joint: str
    kind: str
    side: str
    """`left`, `right`, `both` or `none`."""
    start_s: float
    end_s: float
    amount: float
    """How far: metres, or radians for turns and bends."""
    speed: float
    """Amount per second."""
    text: str


@dataclass(frozen=True, kw_only=True)
class Statement:
    """A sentence with who wrote it and what the motion's events say to it."""

    text: str
    level: str
    """`body` or one of the five parts."""
    writer: str
    verdict: str
    """`derived`: written from the events; `supported`: every movement that it names is among them; `unknown`: it says what
    they cannot tell; `rejected`: they contradict it, or it could not be kept for another reason."""
    evidence: str = ""


@dataclass(frozen=True, kw_only=True)
class DescriberUsage:
    """How a describer fared with one motion, and what its answer took."""

    describer: str = "rules"
    outcome: str = "answered"
    """`answered`, `skipped` (it was not asked) or `failed`."""
    why: str = ""
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cost_usd: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Captions:
    """Descriptions of a motion from the whole body down to single events."""

    body: tuple[str, ...]
    parts: dict[str, tuple[str, ...]]
    events: tuple[Event, ...]
    writers: dict[str, str]
    """Level (body, parts, events, transcript) -> who wrote it, with version."""
    added: tuple[Statement, ...] = ()
    """What another describer than the rules wrote: the kept sentences, which stand in `body` and `parts` too, and the
    rejected ones."""
    effort: DescriberUsage = field(default_factory=DescriberUsage)

    @property
    def statements(self) -> tuple[Statement, ...]:
        """Every sentence of body and parts with its writer, then the rejected ones; never empty."""
        theirs = {(one.level, one.text) for one in self.added if one.verdict != "rejected"}
        levels = [("body", self.body), *self.parts.items()]
        ours = tuple(
            Statement(text=line, level=name, writer=self.writers.get("events", ""), verdict="derived")
            for name, lines in levels
            for line in lines
            if (name, line) not in theirs
        )
        return ours + self.added


@dataclass(frozen=True, kw_only=True)
class Segment:
    """A stretch of a joined motion, and the sample that it was taken from."""

    key: str
    """Of the sample."""
    provenance: Provenance
    """Of the sample."""
    start_s: float
    end_s: float
    """Where the stretch lies in the joined motion; the next one begins where it ends."""
    from_s: float
    """Where it begins in the sample's own motion."""
    captions: Captions
    """Of the sample; its events count from `start_s - from_s`."""

    @property
    def text(self) -> str:
        """The shortest description."""
        return self.captions.body[0]


@dataclass(frozen=True, kw_only=True, eq=False)
class CaptionedMotion:
    """A motion with its descriptions and what was said meanwhile."""

    scored: ScoredMotion
    captions: Captions
    transcript: Transcript
    visual_embedding: Float[np.ndarray, "D"] = field(default_factory=lambda: np.zeros(0, np.float32))
    """Of the person's pictures, length 1; no numbers where nobody looked. See `stages/score_pictures.py`."""

    @property
    def id(self) -> str:
        return self.scored.id


INPUT_KINDS = ("none", "text", "motion", "image", "pose")
"""Nothing; a text; the motion from start_s to end_s; the clip's picture at start_s; the motion's pose at start_s."""


@dataclass(frozen=True, kw_only=True)
class InstructionInput:
    """What an instruction hands over or asks for, by its kind (see GIVEN_KINDS); seconds count from the start of the motion."""

    kind: str
    text: str = ""
    start_s: float = 0.0
    end_s: float = 0.0
    """As `start_s` where it is a moment: an image or a pose."""


@dataclass(frozen=True, kw_only=True)
class Instruction:
    """One training instance: self-contained, so that a trainer needs nothing but it and the motion."""

    task: str
    instruction: str
    inputs: InstructionInput
    target: InstructionInput
    parts: tuple[str, ...]
    start_s: float
    end_s: float


@dataclass(frozen=True, kw_only=True, eq=False)
class InstructedMotion:
    """A captioned motion with its training instances."""

    captioned: CaptionedMotion
    instructions: tuple[Instruction, ...]

    @property
    def id(self) -> str:
        return self.captioned.id


@dataclass(frozen=True, kw_only=True)
class Sample:
    """What a shard holds: a key and its members, already encoded."""

    key: str
    subset: str
    source_id: str
    members: dict[str, bytes]

    @property
    def id(self) -> str:
        return self.key
