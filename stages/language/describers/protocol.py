"""Interface of describers: input, output and protocol."""

from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

from schemas.records import Captions, DescriberUsage, Motion, Transcript
from schemas.skeleton import PARTS

LEVELS = ("body", *PARTS)


@dataclass(frozen=True, kw_only=True, eq=False)
class Scene:
    """A motion with its rule-based captions and the transcript of its time span."""

    motion: Motion
    rule_captions: Captions
    transcript: Transcript


@dataclass(frozen=True, kw_only=True)
class Answer:
    """Unchecked sentences by level (body or a part), and the usage."""

    usage: DescriberUsage
    sentences: dict[str, tuple[str, ...]] = field(default_factory=dict)


@runtime_checkable
class Describer(Protocol):
    """Writes sentences about a motion in addition to those of the rules. Loading is expensive and happens once, in a stage's
    setup."""

    name: str
    """Kind, model and version."""

    def describe(self, scene: Scene) -> Answer:
        """Never raises for failures of the model or the endpoint; the answer's usage gives the reason."""
        ...


class RulesOnly:
    """No describer besides the rules."""

    name = "rules"

    def describe(self, scene: Scene) -> Answer:
        """An empty answer."""
        return Answer(usage=DescriberUsage(describer=scene.rule_captions.writers["body"]))
