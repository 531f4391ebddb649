"""Sentences about the body. What is said about a motion and about its mirror image differs in left and right alone."""

from collections.abc import Sequence
from dataclasses import replace
from random import Random

from schemas.ids import digest
from stages.language.rules.clauses import GOING, TURNS, Clause, arranged, most_telling, unsaid, with_company
from stages.language.rules.movements import Movement
from stages.language.rules.phrases import gerund, in_sequence, number, phrase, takes_adverb, times
from stages.language.rules.relations import same, seconds, share

_HOLDING = ("stand", "sit", "lie")
_SUBJECTS = ("A person", "Someone", "The person", "A person", "One person")
_HELD_S = 0.75
"""A raised arm that stays up for longer is worth a word."""
_MEDIUM_CLAUSES, _LONG_CLAUSES = 4, 8


def body_sentences(events: Sequence[Movement], seed: str) -> tuple[str, ...]:
    """A short, a medium and a long description; equal ones are given once."""
    clauses = arranged(events)
    full = with_company(clauses, events)
    rng = Random(digest("body", seed))
    short = _tell(most_telling(clauses), rng, detail=False)
    medium = _tell(full[:_MEDIUM_CLAUSES], rng, detail=False)
    long = _tell(full[:_LONG_CLAUSES], rng, detail=True)
    return tuple(dict.fromkeys((short, medium, " ".join([long, *_asides(events, full[:_LONG_CLAUSES], rng)]))))


def _tell(clauses: list[Clause], rng: Random, *, detail: bool) -> str:
    subject = _SUBJECTS[rng.randrange(len(_SUBJECTS))]
    words = [_clause_words(clause, rng, detail=detail) for clause in clauses]
    for i in range(1, len(clauses)):
        if same(clauses[i].event, clauses[i - 1].event) and clauses[i].count == 1:
            words[i] = f"{words[i]} again" if not clauses[i].back and not clauses[i].meanwhile else f"again {words[i]}"
    return f"{subject} {in_sequence(words, rng)}."


def _clause_words(clause: Clause, rng: Random, *, detail: bool) -> str:
    event = clause.event
    curved = any(inner.event.kind in TURNS for inner in clause.meanwhile)
    if curved and event.kind in ("walk", "run"):
        event = replace(event, manner="turning")
    how = _how(event) if detail else ""
    words = phrase(event, rng, how=how if takes_adverb(event) else "")
    if detail and event.kind == "raise" and event.part.endswith("_arm") and _pace(event):
        words = f"{_pace(event)} {words}"
    if event.kind not in (*GOING, *TURNS, *_HOLDING, "wave", "circle", "swing"):
        words = f"{words} {times(clause.count)}".strip()
    if detail and not (clause.count > 1 and event.kind == "jump"):
        words = f"{words}{_detail(event)}"
    if detail and clause.count == 1 and clause.held_s > _HELD_S:
        words = f"{words} for about {_seconds_in_words(clause.held_s)}"
    if clause.back:
        it = "them" if event.side == "both" else "it"
        words += (f" and lowers {it} again", f" and then lowers {it}", f" and brings {it} back down")[rng.randrange(3)]
    if clause.meanwhile:
        first, *more = [_clause_words(replace(inner, back=False), rng, detail=False) for inner in clause.meanwhile]
        turning = [inner.event.kind in TURNS for inner in clause.meanwhile]
        link = "and then" if sum(turning) > 1 else "and"
        words = f"{words} while {f' {link} '.join(map(gerund, (first, *more)))}"
    return words


def _pace(event: Movement) -> str:
    """Quickly, slowly, or nothing for a raised arm."""
    return "quickly" if event.speed > 2.2 else "slowly" if event.speed < 0.5 else ""


def _how(event: Movement) -> str:
    """Quickly, slowly, or nothing."""
    if event.kind not in GOING:
        return ""
    quick, slow = (4.2, 0.0) if event.kind == "run" else (1.6, 0.6)
    speed = event.amount / max(seconds(event), 1e-6)
    return "quickly" if speed > quick else "slowly" if speed < slow else ""


def _detail(event: Movement) -> str:
    """Speed, way, angle or time in words, with a space before them."""
    said = ""
    if event.kind in GOING:
        half = round(event.amount * 2) / 2
        said = f" for about {half:g} {'metre' if half == 1 else 'metres'}" if half > 0 else ""
        said = f" {_how(event)}{said}" if _how(event) and not takes_adverb(event) else said
    elif event.kind in ("turn_left", "turn_right"):
        said = f" by about {round(event.amount * 57.29578 / 15) * 15} degrees"
    elif event.kind == "jump":
        tens = round(event.amount * 10) * 10
        said = f" about {tens} centimetres high" if tens > 0 else ""
    elif event.kind in (*_HOLDING, "wave", "circle"):
        said = f" for about {_seconds_in_words(seconds(event))}"
    return said


def _seconds_in_words(seconds: float) -> str:
    whole = max(1, round(seconds))
    return f"{number(whole)} {'second' if whole == 1 else 'seconds'}"


def _asides(events: Sequence[Movement], clauses: list[Clause], rng: Random) -> list[str]:
    """More sentences for a long description of few clauses: another part, how many steps, whether the feet stay."""
    if len(clauses) > 2:
        return []
    said = [one.event for clause in clauses for one in (clause, *clause.meanwhile)]
    sentences = []
    extra = unsaid(clauses, events)
    if extra:
        together = any(share(extra[0], event) > 0.3 for event in said)
        lead = ("Meanwhile,", "At the same time,", "During this,")[rng.randrange(3)]
        sentences.append(f"{lead if together else 'In addition,'} the person {phrase(extra[0], rng)}.")
    feet = {event.kind for event in events if event.part.endswith("_leg")}
    steps = sum(event.kind == "step" for event in events)
    way_m = sum(event.amount for event in said if event.kind in ("walk", "run"))
    if steps > 2 and 0.2 < way_m / steps < 1.6:
        sentences.append(
            (f"The person takes {number(steps)} steps.", f"This takes {number(steps)} steps.")[rng.randrange(2)]
        )
    elif feet <= {"rest", "bend", "extend"} and any(
        e.kind == "stand" and seconds(e) > 0.6 * _span_s(events) for e in events
    ):
        wordings = (
            "The feet stay in place.",
            "The person stays on the spot.",
            "The person stands in place throughout.",
        )
        sentences.append(wordings[rng.randrange(3)])
    return sentences


def _span_s(events: Sequence[Movement]) -> float:
    return max(event.end_s for event in events)
