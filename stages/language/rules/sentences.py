"""Sentences about the whole body. Those of a motion and of its mirror image differ only in left and right."""

from collections.abc import Sequence
from dataclasses import replace
from random import Random

from schemas.ids import digest
from stages.language.rules.clauses import (
    LOCOMOTION,
    TURNS,
    Clause,
    clauses_of,
    most_salient,
    unmentioned,
    with_simultaneous,
)
from stages.language.rules.movements import Movement
from stages.language.rules.phrases import gerund, in_sequence, number, phrase, takes_adverb, times
from stages.language.rules.relations import duration_s, overlap_share, same_action

_HOLDING = ("stand", "stay", "sit", "kneel", "lie", "dance", "hang", "ride", "handstand")
_SUBJECTS = ("A person", "Someone", "The person", "A person", "One person")
_MIN_HOLD_S = 0.75
"""Minimum time for which a raised arm stays up to be mentioned."""
_MEDIUM_CLAUSES, _LONG_CLAUSES = 4, 8


def body_sentences(events: Sequence[Movement], seed: str) -> tuple[str, ...]:
    """A short, a medium and a long description, without duplicates."""
    clauses = clauses_of(events)
    full = with_simultaneous(clauses, events)
    rng = Random(digest("body", seed))
    short = _sentence(most_salient(clauses), rng, detail=False)
    medium = _sentence(full[:_MEDIUM_CLAUSES], rng, detail=False)
    long = _sentence(full[:_LONG_CLAUSES], rng, detail=True)
    return tuple(
        dict.fromkeys((short, medium, " ".join([long, *_additional_sentences(events, full[:_LONG_CLAUSES], rng)])))
    )


def _sentence(clauses: list[Clause], rng: Random, *, detail: bool) -> str:
    subject = _SUBJECTS[rng.randrange(len(_SUBJECTS))]
    words = [_clause_words(clause, rng, detail=detail) for clause in clauses]
    for i in range(1, len(clauses)):
        if same_action(clauses[i].event, clauses[i - 1].event) and clauses[i].count == 1:
            words[i] = (
                f"{words[i]} again" if not clauses[i].lowered and not clauses[i].meanwhile else f"again {words[i]}"
            )
    return f"{subject} {in_sequence(words, rng)}."


def _clause_words(clause: Clause, rng: Random, *, detail: bool) -> str:
    event = clause.event
    turning = any(inner.event.kind in TURNS for inner in clause.meanwhile)
    if turning and event.kind in ("walk", "run"):
        event = replace(event, manner=event.manner if event.manner == "unsure" else "turning")
    adverb = _speed_adverb(event) if detail else ""
    words = phrase(event, rng, how=adverb if takes_adverb(event) else "")
    if detail and event.kind == "raise" and event.part.endswith("_arm") and _raise_adverb(event):
        words = f"{_raise_adverb(event)} {words}"
    if event.kind not in (*LOCOMOTION, *TURNS, *_HOLDING, "wave", "circle", "swing", "clap", "hand_to_face"):
        words = f"{words} {times(clause.count)}".strip()
    if detail and not (clause.count > 1 and event.kind == "jump"):
        words = f"{words}{_detail(event)}"
    if detail and clause.count == 1 and clause.hold_s > _MIN_HOLD_S:
        words = f"{words} for about {_seconds_in_words(clause.hold_s)}"
    if clause.lowered:
        it = "them" if event.side == "both" else "it"
        words += (f" and lowers {it} again", f" and then lowers {it}", f" and brings {it} back down")[rng.randrange(3)]
    if clause.meanwhile:
        first, *more = [_clause_words(replace(inner, lowered=False), rng, detail=False) for inner in clause.meanwhile]
        turn_count = sum(inner.event.kind in TURNS for inner in clause.meanwhile)
        link = "and then" if turn_count > 1 else "and"
        words = f"{words} while {f' {link} '.join(map(gerund, (first, *more)))}"
    return words


def _raise_adverb(event: Movement) -> str:
    """Adverb for the speed of a raised arm; empty at medium speed."""
    return "quickly" if event.speed > 2.2 else "slowly" if event.speed < 0.5 else ""


def _speed_adverb(event: Movement) -> str:
    """Adverb for the speed of locomotion; empty at medium speed and for other events."""
    if event.kind not in LOCOMOTION or not event.measured:
        return ""
    quick_mps, slow_mps = (4.2, 0.0) if event.kind == "run" else (1.6, 0.6)
    speed_mps = event.amount / max(duration_s(event), 1e-6)
    return "quickly" if speed_mps > quick_mps else "slowly" if speed_mps < slow_mps else ""


def _detail(event: Movement) -> str:
    """Speed, distance, angle or duration in words, with a leading space."""
    words = ""
    if event.kind in LOCOMOTION and event.measured:
        distance_m = round(event.amount * 2) / 2
        words = f" for about {distance_m:g} {'metre' if distance_m == 1 else 'metres'}" if distance_m > 0 else ""
        words = f" {_speed_adverb(event)}{words}" if _speed_adverb(event) and not takes_adverb(event) else words
    elif event.kind in ("turn_left", "turn_right"):
        words = f" by about {round(event.amount * 57.29578 / 15) * 15} degrees"
    elif event.kind == "jump":
        height_cm = round(event.amount * 10) * 10
        words = f" about {height_cm} centimetres high" if height_cm > 0 else ""
    elif event.kind in (*_HOLDING, "wave", "circle"):
        words = f" for about {_seconds_in_words(duration_s(event))}"
    return words


def _seconds_in_words(seconds: float) -> str:
    count = max(1, round(seconds))
    return f"{number(count)} {'second' if count == 1 else 'seconds'}"


def _additional_sentences(events: Sequence[Movement], clauses: list[Clause], rng: Random) -> list[str]:
    """Further sentences for a long description of few clauses: another part, the number of steps, feet in place."""
    if len(clauses) > 2:
        return []
    mentioned = [inner.event for clause in clauses for inner in (clause, *clause.meanwhile)]
    sentences = []
    extra = unmentioned(clauses, events)
    if extra:
        simultaneous = any(overlap_share(extra[0], event) > 0.3 for event in mentioned)
        lead = ("Meanwhile,", "At the same time,", "During this,")[rng.randrange(3)]
        sentences.append(f"{lead if simultaneous else 'In addition,'} the person {phrase(extra[0], rng)}.")
    leg_kinds = {event.kind for event in events if event.part.endswith("_leg")}
    steps = sum(event.kind == "step" for event in events)
    distance_m = sum(event.amount for event in mentioned if event.kind in ("walk", "run"))
    if steps > 2 and 0.2 < distance_m / steps < 1.6:
        sentences.append(
            (f"The person takes {number(steps)} steps.", f"This takes {number(steps)} steps.")[rng.randrange(2)]
        )
    elif leg_kinds <= {"rest", "bend", "extend"} and any(
        e.kind == "stand" and duration_s(e) > 0.6 * _span_s(events) for e in events
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
