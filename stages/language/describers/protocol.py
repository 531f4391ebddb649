"""What a describer is handed and what it gives back."""

from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

from schemas.records import Captions, DescriberUsage, Motion, Transcript
from schemas.skeleton import PARTS

LEVELS = ("body", *PARTS)


@dataclass(frozen=True, kw_only=True, eq=False)
class Scene:
    """A motion, what the rules say about it, and what was said meanwhile."""

    motion: Motion
    ruled: Captions
    transcript: Transcript


@dataclass(frozen=True, kw_only=True)
class Answer:
    """Sentences by level (body or a part), as they came, and what they took."""

    effort: DescriberUsage
    sentences: dict[str, tuple[str, ...]] = field(default_factory=dict)


@runtime_checkable
class Describer(Protocol):
    """Writes sentences about a motion besides those of the rules. Loading is dear, so it is done once, in a stage's setup."""

    name: str
    """Who writes: kind, model and version."""

    def describe(self, scene: Scene) -> Answer:
        """Never raises for what the other side does: an answer that failed says why."""
        ...


class RulesAlone:
    """Nobody else: the rules' sentences are all there is."""

    name = "rules"

    def describe(self, scene: Scene) -> Answer:
        """No further sentence."""
        return Answer(effort=DescriberUsage(describer=scene.ruled.writers["body"]))
