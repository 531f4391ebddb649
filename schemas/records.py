"""Records that flow through the stages: one type per step, without optional parts.

    Source -> Video -> Shot -> Track -> Clip -> Motion -> ScoredMotion -> CaptionedMotion -> InstructedMotion -> Sample

Every record keeps the record it was made from, so a stage reads what it needs without optional dictionaries. T counts
frames at `FPS`; N counts the sampled frames of the source.
"""

import math
from dataclasses import dataclass, field, replace
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float, UInt8

from schemas.addresses import public_form
from schemas.coverage import all_seen, for_frames
from schemas.ids import digest, sample_key
from schemas.picture import Picture
from schemas.secrets import hide_credentials, hide_secrets

FPS = 30.0
"""Frame rate of everything that is stored, frames per second."""


@dataclass(frozen=True, kw_only=True)
class Rejection:
    """Why a record was dropped. `measured` and `limit` are NaN where the reason has no number."""

    id: str
    stage: str
    reason: str
    detail: str = ""
    measured: float = math.nan
    limit: float = math.nan

    def __post_init__(self) -> None:
        """Addresses in the texts get their public form: a rejection goes to the ledger."""
        for name in ("id", "detail"):
            object.__setattr__(self, name, hide_secrets(getattr(self, name)))


@runtime_checkable
class Record(Protocol):
    """Anything with an id."""

    @property
    def id(self) -> str: ...


@dataclass(frozen=True, kw_only=True)
class Source:
    """A row of a manifest: address of a video or motion-capture file and its metadata.

    `uri` is the public form of the address and may be written anywhere; `location` opens the file. A source that is made with a
    secret form as its `uri` keeps it in memory as `address`, which is neither printed nor written.
    """

    id: str
    uri: str
    kind: str = "video"
    title: str = ""
    description: str = ""
    licence: str = "unknown"
    consent: str = "unknown"
    focal_35mm: float = 0.0
    """35 mm equivalent focal length, millimetres; 0: read it from the file."""
    fps: float = 0.0
    """Frame rate of motion capture, frames/s; 0: from the settings or the file."""
    joint_map: str = ""
    """Joint map of motion capture, as in `read_mocap.joint_map`; empty: that of the settings."""
    address: str = field(default="", repr=False)
    """The secret form; empty where it equals `uri`."""

    def __post_init__(self) -> None:
        public = public_form(self.uri)
        # A copy with another `uri` does not keep the address of the original.
        address = self.uri if public != self.uri else self.address if public_form(self.address) == public else ""
        values = {"uri": public, "address": "" if address == public else address, "id": public_form(self.id)}
        values |= {
            name: hide_credentials(getattr(self, name)) for name in ("title", "description", "licence", "consent")
        }
        for name, value in values.items():
            object.__setattr__(self, name, value)

    @property
    def location(self) -> str:
        """What opens the file; never written or printed."""
        return self.address or self.uri


@dataclass(frozen=True, kw_only=True)
class Word:
    """A spoken word, seconds from the start of the video."""

    text: str
    start_s: float
    end_s: float
    probability: float


@dataclass(frozen=True, kw_only=True)
class Transcript:
    """Speech of a video; no words and an empty language where there is no speech or no recognition ran."""

    language: str = ""
    words: tuple[Word, ...] = ()
    language_from: str = ""
    """Where the language comes from: `heard` by the recogniser, `told` by the settings, or `assumed`, where the recogniser
    supports one language and transcribes all speech in it."""

    @property
    def confidence(self) -> float:
        """Mean probability of the words, rounded to thousandths; 0 where there are none."""
        return round(sum(word.probability for word in self.words) / len(self.words), 3) if self.words else 0.0

    def between(self, start_s: float, end_s: float) -> "Transcript":
        """Words that begin inside the span, with times relative to its start."""
        words = tuple(
            replace(word, start_s=word.start_s - start_s, end_s=min(word.end_s, end_s) - start_s)
            for word in self.words
            if start_s <= word.start_s < end_s
        )
        return replace(self, words=words) if words else Transcript()


@dataclass(frozen=True, kw_only=True)
class Video:
    """A video that opens and decodes. Width and height are as displayed: upright, square pixels, without black borders."""

    source: Source
    sha256: str
    width: int
    height: int
    fps: float
    duration_s: float
    has_audio: bool
    focal_px: float = 0.0
    """Focal length in pixels of the displayed frame, from the manifest or the file; 0: unknown."""
    picture: Picture | None = None
    """How frames are displayed; None: found out wherever the file is opened."""
    transcript: Transcript = field(default_factory=Transcript)
    models: dict[str, str] = field(default_factory=dict)
    """Models that contributed, name -> version; every later step adds its own."""

    @property
    def id(self) -> str:
        return self.source.id

    @property
    def borders(self) -> tuple[int, int, int, int]:
        """Black borders of the source that the frames are shown without: left, top, right, bottom, pixels."""
        return self.picture.borders if self.picture else (0, 0, 0, 0)


@dataclass(frozen=True, kw_only=True)
class Shot:
    """A segment of a video without cuts, seconds from its start."""

    video: Video
    index: int
    start_s: float
    end_s: float

    @property
    def id(self) -> str:
        return f"{self.video.id}/shot-{self.index:04d}"


@dataclass(frozen=True, kw_only=True, eq=False)
class Track:
    """One person in a shot: the frames in which the tracker detected them, possibly with gaps."""

    shot: Shot
    person: int
    times_s: Float[np.ndarray, "N"]
    boxes: Float[np.ndarray, "N 4"]
    """x0, y0, x1, y1 in pixels of the displayed frame."""
    keypoints: Float[np.ndarray, "N 17 3"]
    """x, y in pixels of the displayed frame, and confidence."""
    models: dict[str, str]
    camera_turn: Float[np.ndarray, "N 3"] | None = None
    """Rotation vectors, radians, from the camera axes (x right, y down, z forward) of the track's first frame to those of each
    frame; exactly 0 where the camera is static. None: assumed static."""
    camera_seen: float = 0.0
    """Share of the shot's frames whose background gave the camera rotation. Where it is too low (a bare wall), `camera_turn` is
    0 and the rotation is unknown."""
    landmarks: Float[np.ndarray, "N 33 4"] | None = None
    """x, y in pixels of the displayed frame, visibility (in the image and not hidden) and presence (in the image), by
    `schemas.skeleton.LANDMARKS`. None: only the detector looked."""
    landmarks_m: Float[np.ndarray, "N 33 3"] | None = None
    """The same in metres about the middle of the hips, camera axes."""

    @property
    def id(self) -> str:
        return f"{self.shot.id}/person-{self.person:03d}"


@dataclass(frozen=True, kw_only=True, eq=False)
class Clip:
    """A segment of a track, resampled to `FPS`."""

    track: Track
    start_s: float
    end_s: float
    boxes: Float[np.ndarray, "T 4"]
    keypoints: Float[np.ndarray, "T 17 3"]
    """Confidence is 0 where the tracker has no detection."""
    camera_turn: Float[np.ndarray, "T 3"] | None = None
    """As in `Track`, relative to the clip's first frame. None: assumed static."""
    landmarks: Float[np.ndarray, "T 33 4"] | None = None
    """As in `Track`; visibility and presence are 0 where the tracker has no detection."""
    landmarks_m: Float[np.ndarray, "T 33 3"] | None = None
    seen: UInt8[np.ndarray, "T 5"] = field(default_factory=all_seen)
    """1 where a part of the body was seen, see `schemas.coverage`; a single row stands for all frames."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "seen", for_frames(self.seen, len(self.keypoints)))

    @property
    def id(self) -> str:
        return f"{self.track.id}/{round(self.start_s * 1000):08d}"


@dataclass(frozen=True, kw_only=True)
class Provenance:
    """Where a motion comes from, enough to find and remove it.

    A joined motion has its own source but the content hash of its first segment's source, which decides its split.
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

    `rotation` maps world to camera axes (x right, y down, z forward), `position` is the camera's position in the world,
    `intrinsics` is fx, fy, cx, cy in pixels.
    """

    rotation: Float[np.ndarray, "T 3 3"]
    position: Float[np.ndarray, "T 3"]
    intrinsics: Float[np.ndarray, "4"]


@dataclass(frozen=True, kw_only=True, eq=False)
class Footage:
    """The image side of a motion from video, T frames like the motion."""

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
    """left_heel, left_toe, right_heel, right_toe: 1 in ground contact."""
    joint_confidence: Float[np.ndarray, "T 24"]
    to_source: Float[np.ndarray, "4 4"]
    """Maps points of this world to the world of the source."""
    body_model: str
    models: dict[str, str]
    segments: "tuple[Segment, ...]" = ()
    """The joined segments, in order; empty for a single recorded motion."""
    seen: UInt8[np.ndarray, "T 5"] = field(default_factory=all_seen)
    """1 where a part was seen, see `schemas.coverage`; the pose of an unseen part is neutral, its confidence 0, and its feet have
    no contacts. A single row stands for all frames."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "seen", for_frames(self.seen, len(self.poses)))

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
    """A motion with its quality scores; `stages/score_motion.py` defines them."""

    motion: Motion
    scores: dict[str, float]

    @property
    def id(self) -> str:
        return self.motion.id


@dataclass(frozen=True, kw_only=True)
class Event:
    """A movement of a part or of the whole body, seconds from the start of the motion."""

    part: str
    """One of the five parts, or `body`."""
    joint: str
    kind: str
    side: str
    """`left`, `right`, `both` or `none`."""
    start_s: float
    end_s: float
    amount: float
    """Extent: metres, or radians for turns and bends."""
    speed: float
    """Amount per second."""
    text: str


@dataclass(frozen=True, kw_only=True)
class Statement:
    """A sentence with its writer and the result of checking it against the motion's events."""

    text: str
    level: str
    """`body` or one of the five parts."""
    writer: str
    verdict: str
    """`derived`: written from the events; `supported`: every movement it names is among them; `unknown`: the events cannot
    confirm or refute it; `rejected`: they contradict it, or it was dropped for another reason."""
    evidence: str = ""


@dataclass(frozen=True, kw_only=True)
class DescriberUsage:
    """Outcome and cost of a describer's call for one motion."""

    describer: str = "rules"
    outcome: str = "answered"
    """`answered`, `skipped` (not called) or `failed`."""
    why: str = ""
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cost_usd: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Captions:
    """Descriptions of a motion at several levels, from the whole body down to single events."""

    body: tuple[str, ...]
    parts: dict[str, tuple[str, ...]]
    events: tuple[Event, ...]
    writers: dict[str, str]
    """Level (body, parts, events, transcript) -> its writer, with version."""
    added: tuple[Statement, ...] = ()
    """Sentences of a describer other than the rules: the accepted ones, which `body` and `parts` contain too, and the rejected
    ones."""
    effort: DescriberUsage = field(default_factory=DescriberUsage)

    @property
    def statements(self) -> tuple[Statement, ...]:
        """Every sentence of body and parts with its writer, then the rejected ones; never empty."""
        described = {(one.level, one.text) for one in self.added if one.verdict != "rejected"}
        levels = [("body", self.body), *self.parts.items()]
        derived = tuple(
            Statement(text=line, level=name, writer=self.writers.get("events", ""), verdict="derived")
            for name, lines in levels
            for line in lines
            if (name, line) not in described
        )
        return derived + self.added


@dataclass(frozen=True, kw_only=True)
class Segment:
    """A segment of a joined motion, and the sample it was taken from."""

    key: str
    """Of the sample."""
    provenance: Provenance
    """Of the sample."""
    start_s: float
    end_s: float
    """Span in the joined motion; the next segment begins where this one ends."""
    from_s: float
    """Start in the sample's own motion."""
    captions: Captions
    """Of the sample; the times of its events are relative to `start_s - from_s`."""

    @property
    def text(self) -> str:
        """The shortest description."""
        return self.captions.body[0]


@dataclass(frozen=True, kw_only=True, eq=False)
class CaptionedMotion:
    """A motion with its descriptions and the speech during it."""

    scored: ScoredMotion
    captions: Captions
    transcript: Transcript
    visual_embedding: Float[np.ndarray, "D"] = field(default_factory=lambda: np.zeros(0, np.float32))
    """Embedding of the person's images, of unit length; empty if none was computed. See `stages/score_pictures.py`."""

    @property
    def id(self) -> str:
        return self.scored.id


INPUT_KINDS = ("none", "text", "motion", "image", "pose")
"""Nothing; a text; the motion from start_s to end_s; the clip's frame at start_s; the motion's pose at start_s."""


@dataclass(frozen=True, kw_only=True)
class InstructionInput:
    """Input or target of an instruction, by its kind (see INPUT_KINDS); seconds from the start of the motion."""

    kind: str
    text: str = ""
    start_s: float = 0.0
    end_s: float = 0.0
    """Equal to `start_s` for an image or a pose."""


@dataclass(frozen=True, kw_only=True)
class Instruction:
    """One training instance, self-contained: a trainer needs only it and the motion."""

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
    """An entry of a shard: a key and its encoded members."""

    key: str
    subset: str
    source_id: str
    members: dict[str, bytes]

    @property
    def id(self) -> str:
        return self.key
