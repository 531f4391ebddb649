"""Sentences from events. What is said about a motion and about its mirror image differs in left and right alone."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from random import Random

from schemas.ids import digest
from schemas.records import Event
from stages.captions.phrases import NUMBERS, gerund, phrase, times

_GOING = ("walk", "walk_backward", "sidestep_left", "sidestep_right", "run", "crawl")
_TURNS = ("turn_left", "turn_right", "spin")
_HOLDING = ("stand", "sit", "lie")
_WHOLE = ("jump", "squat", "bow", "get_up", "lie", "crawl")
"""What arms and legs do besides in these belongs to them."""
_TELLING = {"arm": ("wave", "raise", "punch", "reach", "circle"), "leg": ("kick", "raise", "swing"), "torso": ()}
"""Movements of a part that a sentence about the whole body mentions."""
_SALIENCE = {
    "jump": 9, "kick": 9, "punch": 9, "spin": 8, "squat": 8, "bow": 8, "wave": 8, "get_up": 8, "crawl": 8, "run": 7,
    "lie": 7, "sit": 6, "circle": 7, "reach": 7, "raise": 6, "walk": 6, "walk_backward": 7, "sidestep_left": 7,
    "sidestep_right": 7, "turn_left": 5, "turn_right": 5, "swing": 4, "stand": 1,
}  # fmt: skip
_SUBJECTS = ("A person", "Someone", "The person", "A person", "One person")
_REPEAT_GAP_S = 1.5
_MEDIUM_CLAUSES, _LONG_CLAUSES = 4, 8


@dataclass(frozen=True, kw_only=True)
class Clause:
    """An event that may have been repeated, with what goes on meanwhile."""

    event: Event
    count: int = 1
    meanwhile: tuple["Clause", ...] = field(default=())


def body_sentences(events: Sequence[Event], seed: str) -> tuple[str, ...]:
    """A short, a medium and a long description; equal ones are given once."""
    clauses = _arranged(events)
    rng = Random(digest("body", seed))
    short = _tell(_most_telling(clauses), rng, detail=False)
    medium = _tell(clauses[:_MEDIUM_CLAUSES], rng, detail=False)
    long = _tell(clauses[:_LONG_CLAUSES], rng, detail=True)
    aside = _aside(events, clauses, rng)
    return tuple(dict.fromkeys((short, medium, f"{long} {aside}".strip())))


def part_sentences(part: str, events: Sequence[Event], seen: bool, seed: str) -> tuple[str, ...]:
    """One or two sentences about a part, from its own events in order of time."""
    name = part.replace("_", " ")
    # Both sides draw alike, so that mirroring a motion mirrors its text.
    rng = Random(digest("part", seed, part.split("_")[-1]))
    if not seen:
        return (f"The {name} is out of view.",)
    runs = _counted([event for event in events if event.part == part])
    own = _sequence([_part_words(run, rng) for run in runs], rng)
    person = _sequence([_person_words(run, rng) for run in runs], rng)
    return tuple(dict.fromkeys((f"The {name} {own}.", f"The person {person}.")))


def _arranged(events: Sequence[Event]) -> list[Clause]:
    """Clauses in order of time: what is worth saying, repetitions counted, things done meanwhile hung on to others."""
    told = _repeated(sorted(_worth_saying(_paired(events)), key=_order))
    hosts = [clause for clause in told if clause.event.part == "body" and clause.event.kind not in _TURNS]
    alone: list[Clause] = []
    hung: dict[int, list[Clause]] = {}
    for clause in told:
        fitting = [
            h for h in hosts if h is not clause and h.event.kind in _GOING and _share(clause.event, h.event) > 0.5
        ]
        if (clause.event.part != "body" or clause.event.kind in _TURNS) and fitting:
            hung.setdefault(id(fitting[0]), []).append(clause)
        else:
            alone.append(clause)
    whole = [replace(clause, meanwhile=tuple(hung.get(id(clause), ())[:2])) for clause in alone]
    # To stand while doing something else needs no mention.
    busy = [clause for clause in whole if clause.event.kind != "stand"]
    return busy or whole[:1]


def _worth_saying(events: list[Event]) -> list[Event]:
    whole = [e for e in events if e.part == "body" and e.kind in _WHOLE]
    punches = [e for e in events if e.kind == "punch"]
    kicks = [e for e in events if e.kind == "kick"]
    told = [e for e in events if e.part == "body"]
    for e in events:
        if e.part == "body" or e.kind not in _TELLING[e.part.split("_")[-1]]:
            continue
        if any(_share(e, w) > 0.4 or _share(w, e) > 0.6 for w in whole) and e.kind not in ("punch", "kick", "wave"):
            continue
        if e.kind in ("raise", "reach", "wave") and any(_near(e, p, 1.2) for p in punches):
            continue
        if e.kind in ("raise", "reach", "swing") and any(_share(e, kick) > 0.3 for kick in kicks):
            continue
        same_arm = [w for w in events if w.kind == "wave" and w.part == e.part]
        if e.kind == "raise" and any(_near(e, w, 0.7) for w in same_arm):
            continue
        told.append(e)
    return told


def _paired(events: Sequence[Event]) -> list[Event]:
    """Left and right doing the same at the same time become one event of both sides."""
    result = list(events)
    for limb in ("arm", "leg"):
        for left in [e for e in result if e.part == f"left_{limb}"]:
            same = [
                e
                for e in result
                if e.part == f"right_{limb}" and e.kind == left.kind and min(_share(e, left), _share(left, e)) > 0.4
            ]
            if same and left in result:
                right = max(same, key=lambda e: min(_share(e, left), _share(left, e)))
                both = replace(
                    left,
                    side="both",
                    start_s=min(left.start_s, right.start_s),
                    end_s=max(left.end_s, right.end_s),
                    amount=(left.amount + right.amount) / 2,
                    speed=(left.speed + right.speed) / 2,
                )
                result = [e for e in result if e is not left and e is not right] + [both]
    return result


def _repeated(events: list[Event]) -> list[Clause]:
    clauses: list[Clause] = []
    for event in events:
        twin = next((i for i in reversed(range(len(clauses))) if _same(clauses[i].event, event)), None)
        if twin is not None:
            between = [c.event for c in clauses[twin + 1 :] if c.event.kind not in ("stand", *_GOING)]
            close = event.start_s - clauses[twin].event.end_s < _REPEAT_GAP_S
            if close and not between:
                old = clauses[twin]
                end_s = max(old.event.end_s, event.end_s)
                amount = max(old.event.amount, event.amount)
                if event.kind in (*_GOING, *_TURNS):
                    amount = old.event.amount + event.amount
                clauses[twin] = replace(old, event=replace(old.event, end_s=end_s, amount=amount), count=old.count + 1)
                continue
        clauses.append(Clause(event=event))
    return clauses


def _most_telling(clauses: list[Clause]) -> list[Clause]:
    """The one clause, or two, that say most, in order of time."""
    ranked = sorted(clauses, key=lambda c: (-_SALIENCE.get(c.event.kind, 3), -_seconds(c.event), _order(c.event)))
    best = ranked[:2] if len(clauses) > 2 else ranked[:1]
    return [replace(clause, meanwhile=clause.meanwhile[:1]) for clause in clauses if clause in best]


def _tell(clauses: list[Clause], rng: Random, *, detail: bool) -> str:
    subject = _SUBJECTS[rng.randrange(len(_SUBJECTS))]
    return f"{subject} {_sequence([_clause_words(clause, rng, detail=detail) for clause in clauses], rng)}."


def _clause_words(clause: Clause, rng: Random, *, detail: bool) -> str:
    words = phrase(clause.event, rng)
    if clause.event.kind not in (*_GOING, *_TURNS, *_HOLDING, "wave", "circle", "swing"):
        words = f"{words} {times(clause.count)}".strip()
    if detail:
        words = f"{words}{_detail(clause.event)}"
    if clause.meanwhile:
        inner = [gerund(_clause_words(inner, rng, detail=False)) for inner in clause.meanwhile]
        words = f"{words} while {' and '.join(inner)}"
    return words


def _detail(event: Event) -> str:
    """Speed, way, angle or time in words, with a space before them."""
    said = ""
    if event.kind in _GOING:
        quick, slow = (1.6, 0.6) if event.kind != "run" else (3.2, 0.0)
        speed = event.amount / max(_seconds(event), 1e-6)
        said = " quickly" if speed > quick else " slowly" if speed < slow else ""
        half = round(event.amount * 2) / 2
        said += f" for about {half:g} {'metre' if half == 1 else 'metres'}" if half > 0 else ""
    elif event.kind in ("turn_left", "turn_right"):
        said = f" by about {round(event.amount * 57.29578 / 15) * 15} degrees"
    elif event.kind == "jump":
        tens = round(event.amount * 10) * 10
        said = f" about {tens} centimetres high" if tens > 0 else ""
    elif event.kind in (*_HOLDING, "wave", "circle"):
        whole = max(1, round(_seconds(event)))
        said = f" for about {_number(whole)} {'second' if whole == 1 else 'seconds'}"
    elif event.kind == "raise" and event.part.endswith("_arm"):
        said = " quickly" if event.speed > 2.2 else " slowly" if event.speed < 0.5 else ""
    return said


def _aside(events: Sequence[Event], clauses: list[Clause], rng: Random) -> str:
    """A second sentence for the long description of a single clause: what arms or trunk do that it does not mention."""
    if len(clauses) != 1:
        return ""
    said = [clauses[0].event, *(inner.event for inner in clauses[0].meanwhile)]
    busy = {event.part for event in said} | (
        {"left_arm", "right_arm"} if any(e.side == "both" for e in said) else set()
    )
    for group, kinds in (("arm", ("swing",)), ("torso", ("bend", "swing"))):
        if group == "torso" and said[0].kind in _WHOLE:
            continue
        extra = [
            event
            for event in sorted(_paired(events), key=_order)
            if event.part.endswith(group) and event.kind in kinds and event.part not in busy
        ]
        if extra:
            lead = ("Meanwhile,", "At the same time,", "While doing so,")[rng.randrange(3)]
            return f"{lead} the person {phrase(extra[0], rng)}."
    return ""


def _counted(events: Sequence[Event]) -> list[list[Event]]:
    """Neighbours of one kind together; pairs that repeat (bend, straighten, bend, straighten) too."""
    ordered = sorted(events, key=_order)
    runs: list[list[Event]] = []
    for event in ordered:
        if runs and _same(runs[-1][0], event) and len({_key(e) for e in runs[-1]}) == 1:
            runs[-1].append(event)
        else:
            runs.append([event])
    paired: list[list[Event]] = []
    i = 0
    while i < len(runs):
        pair = runs[i : i + 2]
        repeats = 1
        while len(pair) == 2 and [_key(r[0]) for r in runs[i + 2 * repeats : i + 2 * repeats + 2]] == [
            _key(r[0]) for r in pair
        ]:
            repeats += 1
        if repeats > 1:
            paired.append([event for run in runs[i : i + 2 * repeats] for event in run[:1]])
            i += 2 * repeats
        else:
            paired.append(runs[i])
            i += 1
    return paired[:_LONG_CLAUSES]


def _part_words(run: list[Event], rng: Random) -> str:
    first = run[0]
    if first.kind == "step" and len(run) > 1 and _uniform(run):
        return f"takes {_number(len(run))} steps"
    return _run_words(run, rng, as_part=True)


def _person_words(run: list[Event], rng: Random) -> str:
    first = run[0]
    if first.kind == "step" and len(run) > 1 and _uniform(run):
        return f"takes {_number(len(run))} steps with the {first.side} foot"
    return _run_words(run, rng, as_part=False)


def _run_words(run: list[Event], rng: Random, *, as_part: bool) -> str:
    if _uniform(run):
        words = phrase(run[0], rng, as_part=as_part)
        return words if run[0].kind == "swing" and run[0].part != "torso" else f"{words} {times(len(run))}".strip()
    one, other = (phrase(event, rng, as_part=as_part) for event in run[:2])
    return f"{one} and {other} {times(len(run) // 2)}".strip()


def _sequence(items: list[str], rng: Random) -> str:
    """Several things one after another."""
    if len(items) == 1:
        return items[0]
    last = ("then", "and then", "and finally")[rng.randrange(3 if len(items) > 2 else 2)]
    if len(items) == 2:
        return f"{items[0]}, {last} {items[1]}" if last == "then" else f"{items[0]} {last} {items[1]}"
    return (
        f"{', '.join(items[:-1])} {last} {items[-1]}"
        if last != "then"
        else f"{', '.join(items[:-1])}, then {items[-1]}"
    )


def _number(count: int) -> str:
    return NUMBERS[count] if count < len(NUMBERS) else str(count)


def _order(event: Event) -> tuple[float, float, float, str]:
    """By time; ties by what does not depend on the side."""
    return (event.start_s, -event.end_s, -event.amount, event.kind.removesuffix("_left").removesuffix("_right"))


def _key(event: Event) -> tuple[str, str, str, str]:
    return (event.part, event.kind, event.side, event.joint if event.part == "torso" else "")


def _same(one: Event, other: Event) -> bool:
    return _key(one) == _key(other)


def _uniform(run: list[Event]) -> bool:
    return len({_key(event) for event in run}) == 1


def _seconds(event: Event) -> float:
    return event.end_s - event.start_s


def _share(one: Event, other: Event) -> float:
    """Share of the first event's time that the other covers."""
    return max(0.0, min(one.end_s, other.end_s) - max(one.start_s, other.start_s)) / max(_seconds(one), 1e-6)


def _near(one: Event, other: Event, gap_s: float) -> bool:
    return one.start_s - other.end_s < gap_s and other.start_s - one.end_s < gap_s
