"""Holds sentences against the events that the rules found: the wrong side, or a movement that did not happen.

The rules overlook small movements and know nothing of fingers, faces and things, so their silence alone contradicts only what
they could not have missed: a wave, a punch, a kick, a jump, or any movement of a limb that rested.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from schemas.records import Event
from stages.language.describers.claims import Claim, claims_of
from stages.language.describers.lexicon import SIDES
from stages.language.rules.phrases import OUT_OF_VIEW

GOING = ("walk", "walk_backward", "sidestep_left", "sidestep_right", "run", "crawl")
_DOWN = ("squat", "sit", "lie", "crawl", "get_up")
_LIMB_FITS: dict[str, tuple[str, ...]] = {
    "wave": ("wave", "circle", "raise", "reach", "bend", "extend"),
    "raise": ("raise", "reach", "wave", "circle", "punch", "kick", "step"),
    "lower": ("lower", "raise", "reach", "wave", "circle", "punch", "kick", "step", "swing"),
    "punch": ("punch", "reach", "extend"),
    "reach": ("reach", "raise", "extend", "punch", "wave", "swing"),
    "circle": ("circle", "wave", "swing", "raise"),
    "swing": ("swing", "kick", "raise", "lower", "circle", "wave", "reach", "step"),
    "bend": ("bend", "extend", "raise", "lower", "reach", "punch", "wave", "swing", "kick", "step"),
    "extend": ("extend", "bend", "reach", "punch", "lower", "kick", "raise", "swing", "step"),
    "kick": ("kick", "swing", "raise"),
    "step": ("step", "raise", "lower", "kick", "swing", "bend"),
}
"""Action -> kinds of events that may be meant by it."""
_STRIKING = ("wave", "punch", "kick", "circle")
"""What the rules do not overlook in a limb that they see."""
_BODY_FITS: dict[str, tuple[str, ...]] = {
    "walk": GOING,
    "jump": ("jump", "run", "flip"),
    "squat": (*_DOWN, "bow"),
    "sit": _DOWN,
    "lie": ("lie", "crawl", "sit", "get_up"),
    "crawl": ("crawl", "lie", "get_up"),
    "bow": ("bow", *_DOWN),
    "roll": ("roll", "flip", "cartwheel", "crawl", "lie", "get_up"),
    "flip": ("flip", "cartwheel", "roll"),
    "cartwheel": ("cartwheel", "flip", "roll"),
}
_TURNS = ("turn_left", "turn_right", "spin")
_RUN_MPS = 1.2
"""Whoever is never faster does not run."""
_LONG_SHARE = 0.4
"""What fills a larger share of the motion is no stillness."""


@dataclass(frozen=True, kw_only=True)
class Contradiction:
    """A claim of a sentence and the events that speak against it."""

    claim: str
    evidence: str


@dataclass(frozen=True, kw_only=True)
class Judgement:
    """What the events say to a sentence."""

    contradictions: tuple[Contradiction, ...]
    supports: tuple[str, ...]
    """An event or two for each claim that they bear out."""
    silent: int
    """Claims that they say nothing about."""

    @property
    def verdict(self) -> str:
        """As in `schemas.records.Statement`."""
        if self.contradictions:
            return "rejected"
        return "supported" if self.supports and not self.silent else "unknown"

    @property
    def evidence(self) -> str:
        if self.contradictions:
            return "; ".join(f"'{one.claim}': {one.evidence}" for one in self.contradictions)
        return "; ".join(self.supports)


def check_claims(sentence: str, events: Sequence[Event], part: str = "body") -> list[Contradiction]:
    """What the events contradict in a sentence about the whole person, or about one of the five parts."""
    return list(judge(sentence, events, part).contradictions)


def judge(sentence: str, events: Sequence[Event], part: str = "body") -> Judgement:
    """A sentence against the events of its motion."""
    contradictions, supports, silent = [], [], 0
    for claim in claims_of(sentence, part):
        for verdict in _verdicts(claim, events):
            if isinstance(verdict, Event):
                supports.append(_told(verdict))
            elif verdict:
                contradictions.append(Contradiction(claim=claim.words, evidence=verdict))
            else:
                silent += 1
    return Judgement(
        contradictions=tuple(dict.fromkeys(contradictions)), supports=tuple(dict.fromkeys(supports)), silent=silent
    )


Verdict = Event | str
"""An event that bears a claim out, what contradicts it, or "" where nothing does either."""


def _verdicts(claim: Claim, events: Sequence[Event]) -> list[Verdict]:
    if claim.action == "still":
        return _still(claim, events)
    if claim.limb in ("arm", "leg"):
        return _limb(claim, events)
    if claim.action in ("turn", "spin", "lean", "sidestep"):
        return [_directed(claim, events)]
    return [_body(claim, events)]


def _limb(claim: Claim, events: Sequence[Event]) -> list[Verdict]:
    """One verdict a side that the claim names, or one where either limb will do."""
    parts = [f"{side}_{claim.limb}" for side in claim.sides or SIDES]
    verdicts = [_one_limb(claim, part, events) for part in parts]
    if claim.sides:
        return verdicts
    borne_out: list[Verdict] = [one for one in verdicts if isinstance(one, Event)]
    return borne_out[:1] or [""] if borne_out or "" in verdicts else [f"no {claim.action}; {_doings(parts, events)}"]


def _one_limb(claim: Claim, part: str, events: Sequence[Event]) -> Verdict:
    own, other = _active(part, events), _active(_other_side(part), events)
    if not _seen(part, events):
        return ""
    exact = [event for event in own if event.kind == claim.action]
    fits = exact or [event for event in own if claim.action == "move" or event.kind in _LIMB_FITS[claim.action]]
    elsewhere = [event for event in other if event.kind == claim.action]
    one_sided = len(claim.sides) == 1
    striking = claim.action in _STRIKING
    if fits and not (striking and one_sided and elsewhere and not exact):
        return fits[0]
    if one_sided and elsewhere:
        return f"the other side: {_doings([_other_side(part), part], events)}"
    # Whoever walks or sits down uses legs and arms without events of their own.
    whole = [event for event in events if event.part == "body" and event.kind not in ("stand", *_TURNS)]
    if claim.soft or (own and not striking) or (not own and not striking and whole and not claim.sides):
        return ""
    return f"no {claim.action}; {_doings([part], events)}"


def _body(claim: Claim, events: Sequence[Event]) -> Verdict:
    found = [event for event in events if event.part == "body"]
    if claim.action == "run":
        quick = [event for event in found if event.kind in GOING and event.speed >= _RUN_MPS]
        return quick[0] if quick else _unless_soft(claim, "nothing as fast as a run; ", found)
    fits = [event for event in found if event.kind in _BODY_FITS[claim.action]]
    if claim.action == "walk":
        return _walk(claim, fits, events)
    if fits:
        return fits[0]
    if claim.action == "bow":
        bent = [event for event in _active("torso", events) if event.kind in ("bend", "extend")]
        return bent[0] if bent else _unless_soft(claim, "no bow; ", found)
    legs_seen = _seen("left_leg", events) or _seen("right_leg", events)
    knees = [event for side in SIDES for event in _active(f"{side}_leg", events) if event.kind in ("bend", "extend")]
    if not legs_seen or (claim.action == "squat" and knees):
        return ""
    return _unless_soft(claim, f"no {claim.action}; ", found)


def _walk(claim: Claim, fits: list[Event], events: Sequence[Event]) -> Verdict:
    wrong = {"forward": ("walk_backward",), "backward": ("walk", "run")}.get(claim.direction, ())
    right = [event for event in fits if event.kind not in wrong]
    if right or not fits:
        steps = [event for side in SIDES for event in _active(f"{side}_leg", events) if event.kind == "step"]
        legs_seen = _seen("left_leg", events) or _seen("right_leg", events)
        if right or steps or not legs_seen:
            return right[0] if right else ""
        return _unless_soft(claim, "no step; ", [event for event in events if event.part == "body"])
    return f"only {', '.join(_told(event) for event in fits)}"


def _directed(claim: Claim, events: Sequence[Event]) -> Verdict:
    """Turns, twists, leans and sidesteps: anything that goes the same way will do."""
    turns = [e for e in events if (e.part == "body" and e.kind in _TURNS) or (e.part == "torso" and e.kind == "swing")]
    leans = [e for e in events if e.part == "torso" and e.kind in ("bend", "extend") and e.side in SIDES]
    steps = [e for e in events if e.kind.startswith("sidestep")]
    relevant = {"lean": leans + turns + steps, "sidestep": steps}.get(claim.action, turns + leans)
    if claim.action in ("turn", "spin") and claim.direction not in SIDES:
        whole = [event for event in turns if event.part == "body"]
        if claim.action == "turn" or whole:
            return whole[0] if whole else turns[0] if turns else ""
        return _unless_soft(claim, "no turn; ", [event for event in events if event.part == "body"])
    if claim.direction not in SIDES:
        return relevant[0] if relevant else ""
    same = [event for event in relevant if event.side == claim.direction]
    if same:
        return same[0]
    if relevant:
        return f"the other way: {', '.join(_told(event) for event in relevant[:3])}"
    if claim.action == "lean" or (claim.action == "sidestep" and any(event.kind == "step" for event in events)):
        return ""
    return _unless_soft(claim, f"no {claim.action}; ", [event for event in events if event.part == "body"])


def _still(claim: Claim, events: Sequence[Event]) -> list[Verdict]:
    length_s = max((event.end_s for event in events), default=0.0)
    if claim.limb in ("arm", "leg", "torso"):
        parts = [f"{side}_{claim.limb}" for side in claim.sides or SIDES] if claim.limb != "torso" else ["torso"]
        telling = (*_STRIKING, "raise", "reach") if claim.limb != "torso" else ()
        busy = {
            part: [
                e for e in _active(part, events) if e.kind in telling or e.end_s - e.start_s > _LONG_SHARE * length_s
            ]
            for part in parts
        }
        if all(busy.values()) if not claim.sides else any(busy.values()):
            return [f"not still; {_doings(parts, events)}"]
        resting = [event for event in events if event.part in parts and event.kind == "rest"]
        return [resting[0]] if resting else [""]
    if claim.limb:
        return [""]
    moved = [event for event in events if event.kind in (*GOING, "jump", "spin") and event.part == "body"]
    if sum(event.end_s - event.start_s for event in moved) > _LONG_SHARE * length_s:
        return [f"not still; {', '.join(_told(event) for event in moved[:3])}"]
    stands = [event for event in events if event.part == "body" and event.kind in ("stand", "sit", "lie")]
    return [stands[0]] if stands else [""]


def _unless_soft(claim: Claim, what: str, found: Sequence[Event]) -> str:
    return "" if claim.soft else f"{what}{', '.join(_told(event) for event in found[:4])}"


def _active(part: str, events: Sequence[Event]) -> list[Event]:
    return [event for event in events if event.part == part and event.kind != "rest"]


def _seen(part: str, events: Sequence[Event]) -> bool:
    """Whether the rules could tell anything about a part."""
    own = [event for event in events if event.part == part]
    return bool(own) and not all(event.text == OUT_OF_VIEW for event in own)


def _other_side(part: str) -> str:
    side, _, limb = part.partition("_")
    return f"{SIDES[1 - SIDES.index(side)]}_{limb}"


def _doings(parts: Sequence[str], events: Sequence[Event]) -> str:
    return ", ".join(_told(event) for part in parts for event in [e for e in events if e.part == part][:3])


def _told(event: Event) -> str:
    """`left_arm wave 0.5-2.1 s`."""
    return f"{event.part} {event.kind} {event.start_s:.1f}-{event.end_s:.1f} s"
