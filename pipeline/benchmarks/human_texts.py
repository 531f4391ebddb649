"""What people wrote about motion capture, and which kinds of movements their words state, allow and rule out.

A text says what a take is about, so that a conspicuous movement that no word states or allows did not happen: nobody sits in a
take of a walk. Small movements (steps, raised and lowered arms, bent joints) and standing and turning are never ruled out.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

JUDGED = frozenset(
    {
        "walk", "walk_backward", "sidestep", "run", "jump", "squat", "bow", "pick_up", "sit", "kneel", "lie", "crawl", "get_up",
        "spin", "roll", "flip", "cartwheel", "climb", "hang", "ride", "handstand", "dance", "wave", "punch", "circle", "clap",
        "throw", "hand_to_face", "kick",
    }
)  # fmt: skip
"""Kinds of events that a text can rule out; `sidestep` is to either side."""
_PACES = frozenset({"walk", "walk_backward", "sidestep"})
_CLIMBING = _PACES | {"jump", "squat", "bow", "sit", "kneel", "crawl", "get_up", "climb", "hang"}
_DANCING = _PACES | {"spin", "jump", "squat", "circle", "kick", "bow"}
_BALL_GAMES = _PACES | {"run", "jump", "squat", "throw", "bow", "pick_up", "spin", "clap"}
_GESTURES = frozenset({"walk", "wave", "circle", "clap", "punch", "hand_to_face"})


@dataclass(frozen=True)
class _Words:
    """Words of a group and the kinds that they state and allow."""

    group: str
    pattern: str
    must: tuple[str, ...]
    """At least one kind of each item, alternatives separated by `|`."""
    may: frozenset[str] = frozenset()


def _words(group: str, pattern: str, *must: str, may: Iterable[str] = ()) -> _Words:
    return _Words(group, pattern, must, frozenset(may))


_VOCABULARY: tuple[_Words, ...] = (
    _words("salsa", r"salsa", "dance", may=_PACES | {"spin"}),
    _words("dance", r"indian|danc\w*|michael jackson", "dance", may=_DANCING),
    _words("martial arts", r"martial|karate|kung", "kick|punch", may=_PACES | {"jump", "squat", "bow", "spin", "run"}),
    _words("climb", r"climb\w*|ladders?", "climb", may=_CLIMBING),
    _words("hang", r"hang\w*", "hang", may=_CLIMBING),
    _words("playground", r"playground|go under|\bducks?\b", may=_CLIMBING),
    _words("sit", r"\bsit\w*|\bseat\w*", "sit", may=("get_up", "bow")),
    _words("sit", r"dangle", "sit|hang"),
    _words("kneel", r"kneel\w*", "kneel", may=("get_up", "bow")),
    _words("lie", r"\b(?:lies?|lying)\b", "lie", may=("get_up", "sit", "roll")),
    _words("crawl", r"crawl\w*", "crawl", may=("get_up", "kneel", "lie")),
    _words("punch", r"punch\w*|strike|boxing", "punch", may=("sidestep", "kick")),
    _words("sword", r"sword\w*", may=_PACES | {"punch", "circle", "bow"}),
    _words("wash", r"wash|shower", may=("hand_to_face", "circle", "bow", "pick_up", "squat", "walk")),
    _words("pick up", r"pick\w*|scoop\w*", "pick_up|bow|squat", may=("bow", "squat", "pick_up", "throw")),
    _words("bow", r"bends? (?:over|down)|\bbows?\b", "bow|pick_up|squat", may=("squat", "pick_up")),
    _words("kick", r"kick\w*|soccer", "kick", may=_PACES | {"run", "jump"}),
    _words("signals", r"directing|signals?|referee", may=_GESTURES),
    _words("basketball", r"basketball(?! signal)", may=_BALL_GAMES),
    _words("wave", r"\bwav(?:e|es|ing)\b", "wave"),
    _words("clap", r"clap\w*", "clap"),
    _words("throw", r"throw\w*|toss\w*", "throw", may=("walk",)),
    _words("cartwheel", r"cartwheel\w*", "cartwheel", may=("walk", "jump", "handstand")),
    _words("flip", r"(?:back|side|front) ?flips?|somersault\w*", "flip|roll", may=("walk", "run", "jump", "squat")),
    _words("hand spring", r"hand ?spring|hand ?stand", "cartwheel|flip|handstand|roll", may=("walk", "run", "jump", "squat")),
    _words("jump", r"jump\w*|hop\w*|leap\w*", "jump", may=("squat", "walk", "sidestep", "walk_backward")),
    _words("reach", r"reach\w*|grab", may=("walk", "sidestep", "walk_backward")),
    _words("run", r"\b(?:run|jog|sprint)(?:s|ning|ging)?\b", "run", may=("walk",)),
    _words("walk", r"walk\w*|strid\w*|strol\w*", "walk"),
    _words("walk", r"backwards?", "walk_backward"),
    _words("walk", r"sideways|sidesteps?", "sidestep"),
    _words("spin", r"spin\w*|pirouettes?|turns? around", may=("spin",)),
    _words("squat", r"squat\w*|crouch\w*", "squat"),
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Told:
    """What a take's texts say of it."""

    group: str
    """The first group of the vocabulary that the texts have a word of."""
    must: tuple[frozenset[str], ...]
    """At least one kind of each set is stated."""
    may: frozenset[str] = field(default=frozenset())
    """Kinds that the stated ones bring along."""

    @property
    def ruled_out(self) -> frozenset[str]:
        """Kinds that are neither stated nor allowed."""
        return JUDGED - self.may - frozenset().union(*self.must)


def told_by(texts: Sequence[str]) -> Told | None:
    """What texts say; None if they have no word of the vocabulary."""
    text = " ".join(texts).lower().replace("_", " ")
    found = [entry for entry in _VOCABULARY if re.search(entry.pattern, text)]
    if not found:
        return None
    return Told(
        group=found[0].group,
        must=tuple(dict.fromkeys(frozenset(kinds.split("|")) for entry in found for kinds in entry.must)),
        may=frozenset().union(*(entry.may for entry in found)),
    )
