"""Checks sentences against the events of the rules: a wrong side, or a movement that did not happen.

The rules miss small movements and cannot detect fingers, faces and objects, so a missing event contradicts only what they
reliably detect: a wave, a punch, a kick, a jump, or any movement of a resting limb.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from schemas.records import Event
from stages.language.describers.claims import Claim, claims_of
from stages.language.describers.lexicon import SIDES
from stages.language.rules.phrases import OUT_OF_VIEW

LOCOMOTION = ("walk", "walk_backward", "sidestep_left", "sidestep_right", "run", "crawl", "dance")
_DOWN = ("squat", "sit", "kneel", "lie", "crawl", "get_up", "pick_up")
_LIMB_KINDS: dict[str, tuple[str, ...]] = {
    "wave": ("wave", "circle", "raise", "reach", "bend", "extend", "clap", "hand_to_face"),
    "raise": ("raise", "reach", "wave", "circle", "punch", "kick", "step", "clap", "throw", "hand_to_face"),
    "lower": ("lower", "raise", "reach", "wave", "circle", "punch", "kick", "step", "swing"),
    "punch": ("punch", "reach", "extend", "throw"),
    "reach": ("reach", "raise", "extend", "punch", "wave", "swing"),
    "circle": ("circle", "wave", "swing", "raise"),
    "swing": ("swing", "throw", "kick", "raise", "lower", "circle", "wave", "reach", "step"),
    "bend": (
        "bend",
        "extend",
        "hand_to_face",
        "clap",
        "throw",
        "raise",
        "lower",
        "reach",
        "punch",
        "wave",
        "swing",
        "kick",
        "step",
    ),
    "extend": ("extend", "bend", "reach", "punch", "lower", "kick", "raise", "swing", "step"),
    "kick": ("kick", "swing", "raise"),
    "step": ("step", "raise", "lower", "kick", "swing", "bend"),
}
"""Action -> kinds of events that it may refer to."""
_DISTINCTIVE = ("wave", "punch", "kick", "circle")
"""Movements that the rules do not miss in a visible limb."""
_BODY_KINDS: dict[str, tuple[str, ...]] = {
    "walk": LOCOMOTION,
    "jump": ("jump", "run", "flip", "dance", "climb"),
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
"""Minimum speed of a run."""
_MAX_STILL_SHARE = 0.4
"""Maximum share of the motion that movements may last if it is described as still."""


@dataclass(frozen=True, kw_only=True)
class Contradiction:
    """A claim of a sentence and the events that contradict it."""

    claim: str
    evidence: str


@dataclass(frozen=True, kw_only=True)
class Judgement:
    """A sentence's claims compared with the events."""

    contradictions: tuple[Contradiction, ...]
    supports: tuple[str, ...]
    """Supporting events, one or two for each supported claim."""
    unknown: int
    """Number of claims neither supported nor contradicted."""

    @property
    def verdict(self) -> str:
        """As in `schemas.records.Statement`."""
        if self.contradictions:
            return "rejected"
        return "supported" if self.supports and not self.unknown else "unknown"

    @property
    def evidence(self) -> str:
        if self.contradictions:
            return "; ".join(f"'{one.claim}': {one.evidence}" for one in self.contradictions)
        return "; ".join(self.supports)


def check_claims(sentence: str, events: Sequence[Event], part: str = "body") -> list[Contradiction]:
    """Contradictions in a sentence about the whole person or one of the five parts."""
    return list(judge(sentence, events, part).contradictions)


def judge(sentence: str, events: Sequence[Event], part: str = "body") -> Judgement:
    """Check a sentence against the events of its motion."""
    contradictions, supports, unknown = [], [], 0
    for claim in claims_of(sentence, part):
        for verdict in _verdicts(claim, events):
            if isinstance(verdict, Event):
                supports.append(_format(verdict))
            elif verdict:
                contradictions.append(Contradiction(claim=claim.words, evidence=verdict))
            else:
                unknown += 1
    return Judgement(
        contradictions=tuple(dict.fromkeys(contradictions)), supports=tuple(dict.fromkeys(supports)), unknown=unknown
    )


Verdict = Event | str
"""An event that supports a claim, the evidence against it, or "" for neither."""


def _verdicts(claim: Claim, events: Sequence[Event]) -> list[Verdict]:
    if claim.action == "still":
        return _check_still(claim, events)
    if claim.limb in ("arm", "leg"):
        return _check_limbs(claim, events)
    if claim.action in ("turn", "spin", "lean", "sidestep"):
        return [_check_direction(claim, events)]
    return [_check_body(claim, events)]


def _check_limbs(claim: Claim, events: Sequence[Event]) -> list[Verdict]:
    """One verdict for each side that the claim names, or a single one if it names none."""
    parts = [f"{side}_{claim.limb}" for side in claim.sides or SIDES]
    verdicts = [_check_limb(claim, part, events) for part in parts]
    if claim.sides:
        return verdicts
    supported: list[Verdict] = [verdict for verdict in verdicts if isinstance(verdict, Event)]
    if supported or "" in verdicts:
        return supported[:1] or [""]
    return [f"no {claim.action}; {_format_events(parts, events)}"]


def _check_limb(claim: Claim, part: str, events: Sequence[Event]) -> Verdict:
    own, other = _active(part, events), _active(_other_side(part), events)
    if not _visible(part, events):
        return ""
    exact = [event for event in own if event.kind == claim.action]
    matches = exact or [event for event in own if claim.action == "move" or event.kind in _LIMB_KINDS[claim.action]]
    on_other_side = [event for event in other if event.kind == claim.action]
    one_sided = len(claim.sides) == 1
    distinctive = claim.action in _DISTINCTIVE
    if matches and not (distinctive and one_sided and on_other_side and not exact):
        return matches[0]
    if one_sided and on_other_side:
        return f"the other side: {_format_events([_other_side(part), part], events)}"
    # Walking, sitting down and the like move legs and arms without events of their own.
    whole = [event for event in events if event.part == "body" and event.kind not in ("stand", "stay", *_TURNS)]
    if claim.soft or (own and not distinctive) or (not own and not distinctive and whole and not claim.sides):
        return ""
    return f"no {claim.action}; {_format_events([part], events)}"


def _check_body(claim: Claim, events: Sequence[Event]) -> Verdict:
    body = [event for event in events if event.part == "body"]
    if claim.action == "run":
        runs = [event for event in body if event.kind in LOCOMOTION and event.speed >= _RUN_MPS]
        return runs[0] if runs else _unless_soft(claim, "nothing as fast as a run; ", body)
    matches = [event for event in body if event.kind in _BODY_KINDS[claim.action]]
    if claim.action == "walk":
        return _check_walk(claim, matches, events)
    if matches:
        return matches[0]
    if claim.action == "bow":
        bent = [event for event in _active("torso", events) if event.kind in ("bend", "extend")]
        return bent[0] if bent else _unless_soft(claim, "no bow; ", body)
    legs_visible = _visible("left_leg", events) or _visible("right_leg", events)
    knees = [event for side in SIDES for event in _active(f"{side}_leg", events) if event.kind in ("bend", "extend")]
    if not legs_visible or (claim.action == "squat" and knees):
        return ""
    return _unless_soft(claim, f"no {claim.action}; ", body)


def _check_walk(claim: Claim, matches: list[Event], events: Sequence[Event]) -> Verdict:
    opposite = {"forward": ("walk_backward",), "backward": ("walk", "run")}.get(claim.direction, ())
    consistent = [event for event in matches if event.kind not in opposite]
    if consistent or not matches:
        steps = [event for side in SIDES for event in _active(f"{side}_leg", events) if event.kind == "step"]
        legs_visible = _visible("left_leg", events) or _visible("right_leg", events)
        if consistent or steps or not legs_visible:
            return consistent[0] if consistent else ""
        return _unless_soft(claim, "no step; ", [event for event in events if event.part == "body"])
    return f"only {', '.join(_format(event) for event in matches)}"


def _check_direction(claim: Claim, events: Sequence[Event]) -> Verdict:
    """Turns, twists, leans and sidesteps: any of them in the claimed direction is support."""
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
        return f"the other way: {', '.join(_format(event) for event in relevant[:3])}"
    if claim.action == "lean" or (claim.action == "sidestep" and any(event.kind == "step" for event in events)):
        return ""
    return _unless_soft(claim, f"no {claim.action}; ", [event for event in events if event.part == "body"])


def _check_still(claim: Claim, events: Sequence[Event]) -> list[Verdict]:
    length_s = max((event.end_s for event in events), default=0.0)
    if claim.limb in ("arm", "leg", "torso"):
        parts = [f"{side}_{claim.limb}" for side in claim.sides or SIDES] if claim.limb != "torso" else ["torso"]
        conspicuous = (*_DISTINCTIVE, "raise", "reach") if claim.limb != "torso" else ()
        busy = {
            part: [
                e
                for e in _active(part, events)
                if e.kind in conspicuous or e.end_s - e.start_s > _MAX_STILL_SHARE * length_s
            ]
            for part in parts
        }
        if all(busy.values()) if not claim.sides else any(busy.values()):
            return [f"not still; {_format_events(parts, events)}"]
        resting = [event for event in events if event.part in parts and event.kind == "rest"]
        return [resting[0]] if resting else [""]
    if claim.limb:
        return [""]
    moving = [event for event in events if event.kind in (*LOCOMOTION, "jump", "spin") and event.part == "body"]
    if sum(event.end_s - event.start_s for event in moving) > _MAX_STILL_SHARE * length_s:
        return [f"not still; {', '.join(_format(event) for event in moving[:3])}"]
    postures = [
        event for event in events if event.part == "body" and event.kind in ("stand", "stay", "sit", "kneel", "lie")
    ]
    return [postures[0]] if postures else [""]


def _unless_soft(claim: Claim, evidence: str, found: Sequence[Event]) -> str:
    return "" if claim.soft else f"{evidence}{', '.join(_format(event) for event in found[:4])}"


def _active(part: str, events: Sequence[Event]) -> list[Event]:
    return [event for event in events if event.part == part and event.kind != "rest"]


def _visible(part: str, events: Sequence[Event]) -> bool:
    """Whether the rules could detect movements of a part."""
    own = [event for event in events if event.part == part]
    return bool(own) and not all(event.text == OUT_OF_VIEW for event in own)


def _other_side(part: str) -> str:
    side, _, limb = part.partition("_")
    return f"{SIDES[1 - SIDES.index(side)]}_{limb}"


def _format_events(parts: Sequence[str], events: Sequence[Event]) -> str:
    return ", ".join(_format(event) for part in parts for event in [e for e in events if e.part == part][:3])


def _format(event: Event) -> str:
    """`left_arm wave 0.5-2.1 s`."""
    return f"{event.part} {event.kind} {event.start_s:.1f}-{event.end_s:.1f} s"
