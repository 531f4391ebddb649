"""What of the events is worth saying about the body, and in which order: clauses, repetitions counted, things that go on
meanwhile hung on to others."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from schemas.skeleton import swap_sides
from stages.language.rules.movements import Movement
from stages.language.rules.relations import near, order, same, seconds, share

GOING = ("walk", "walk_backward", "sidestep_left", "sidestep_right", "run", "crawl")
TURNS = ("turn_left", "turn_right", "spin")
WHOLE = ("jump", "squat", "bow", "get_up", "lie", "crawl", "roll", "flip", "cartwheel")
"""What arms and legs do besides in these belongs to them."""
_TELLING = {"arm": ("wave", "raise", "punch", "reach", "circle"), "leg": ("kick", "raise", "swing"), "torso": ()}
"""Movements of a part that a sentence about the whole body mentions."""
_SALIENCE = {
    "flip": 10, "cartwheel": 10, "roll": 10, "jump": 9, "kick": 9, "punch": 9, "spin": 8, "squat": 8, "bow": 8, "wave": 8,
    "get_up": 8, "crawl": 8, "run": 7, "lie": 7, "sit": 6, "circle": 7, "reach": 7, "raise": 6, "walk": 6,
    "walk_backward": 7, "sidestep_left": 7, "sidestep_right": 7, "turn_left": 5, "turn_right": 5, "swing": 4, "stand": 1,
}  # fmt: skip
_ONE_SIDED = ("kick", "step")
"""What nobody does with both legs at once."""
_REPEAT_GAP_S, _LIMB_REPEAT_GAP_S = 1.5, 4.0
_ASIDES = (("arm", ("swing",)), ("torso", ("bend", "swing")))
"""What a description adds of parts that nothing has been said about, the first that there is."""
_ASIDE_BEND_RAD = 0.4


@dataclass(frozen=True, kw_only=True)
class Clause:
    """An event that may have been repeated, with what goes on meanwhile."""

    event: Movement
    count: int = 1
    back: bool = False
    """A raised limb is lowered again."""
    held_s: float = 0.0
    """Time for which it stays up."""
    meanwhile: tuple["Clause", ...] = field(default=())


def arranged(events: Sequence[Movement]) -> list[Clause]:
    """Clauses in order of time: what is worth saying, repetitions counted, things done meanwhile hung on to others."""
    together = paired(events)
    told = _repeated(_lowered(sorted(_worth_saying(together), key=order), together))
    hosts = [clause for clause in told if clause.event.part == "body" and clause.event.kind not in TURNS]
    alone: list[Clause] = []
    hung: dict[int, list[Clause]] = {}
    for clause in told:
        fitting = [h for h in hosts if h is not clause and h.event.kind in GOING and share(clause.event, h.event) > 0.5]
        if (clause.event.part != "body" or clause.event.kind in TURNS) and fitting:
            hung.setdefault(id(fitting[0]), []).append(clause)
        else:
            alone.append(clause)
    whole = [replace(clause, meanwhile=tuple(hung.get(id(clause), ())[:2])) for clause in alone]
    # To stand while doing something else needs no mention.
    busy = [clause for clause in whole if clause.event.kind != "stand"]
    return busy or whole[:1]


def _worth_saying(events: list[Movement]) -> list[Movement]:
    whole = [e for e in events if e.part == "body" and e.kind in WHOLE]
    punches = [e for e in events if e.kind == "punch"]
    kicks = [e for e in events if e.kind == "kick"]
    told = [e for e in events if e.part == "body"]
    for e in events:
        if e.part == "body" or e.kind not in _TELLING[e.part.split("_")[-1]]:
            continue
        if any(share(e, w) > 0.4 or share(w, e) > 0.6 for w in whole) and e.kind not in ("punch", "kick", "wave"):
            continue
        if e.kind in ("raise", "reach", "wave") and any(near(e, p, 1.2) or _guards(e, p, events) for p in punches):
            continue
        if e.kind in ("raise", "reach", "swing") and any(share(e, kick) > 0.3 for kick in kicks):
            continue
        same_arm = [w for w in events if w.kind == "wave" and _parts(w) & _parts(e)]
        if e.kind == "raise" and any(near(e, w, 0.7) for w in same_arm):
            continue
        told.append(e)
    return told


def _guards(event: Movement, punch: Movement, events: list[Movement]) -> bool:
    """Whether a hand that was raised to the shoulder is still there while the other one punches."""
    if event.kind != "raise" or not event.manner.startswith("shoulder") or punch.start_s < event.end_s:
        return False
    return not any(
        other.kind == "lower" and _parts(other) & _parts(event) and event.end_s <= other.start_s < punch.start_s
        for other in events
    )


def _parts(event: Movement) -> set[str]:
    """The part, or those of both sides."""
    return {event.part, swap_sides(event.part)} if event.side == "both" else {event.part}


def paired(events: Sequence[Movement]) -> list[Movement]:
    """Left and right doing the same at the same time become one event of both sides, the best agreeing first."""

    def agreement(left: Movement, right: Movement) -> float:
        return min(share(left, right), share(right, left))

    matches = [
        (left, right)
        for left in events
        for right in events
        if left.side == "left" and left.part.startswith("left_") and right.part == swap_sides(left.part)
        and left.kind == right.kind and left.kind not in _ONE_SIDED and agreement(left, right) > 0.4
    ]  # fmt: skip
    result = list(events)
    for left, right in sorted(matches, key=lambda two: (-agreement(*two), two[0].start_s + two[1].start_s)):
        if any(one is left for one in result) and any(one is right for one in result):
            both = replace(
                left,
                side="both",
                start_s=min(left.start_s, right.start_s),
                end_s=max(left.end_s, right.end_s),
                amount=(left.amount + right.amount) / 2,
                speed=(left.speed + right.speed) / 2,
                manner=left.manner if left.manner == right.manner else "",
            )
            result = [one for one in result if one is not left and one is not right] + [both]
    return result


def _lowered(events: list[Movement], all_events: list[Movement]) -> list[Clause]:
    """Clauses of one event each; with a raise goes what lowers the limb again."""
    clauses = []
    for event in events:
        limbs = _limbs(event)
        down = [
            other
            for other in all_events
            if event.kind == "raise" and other.kind == "lower" and _limbs(other) == limbs
            and other.start_s >= event.end_s - 0.1
        ]  # fmt: skip
        until = min(
            (other.start_s for other in events if same(other, event) and other.start_s > event.start_s), default=1e9
        )
        first = next((other for other in sorted(down, key=order) if other.start_s < until), None)
        held_s = first.start_s - event.end_s if first is not None else 0.0
        clauses.append(Clause(event=event, back=first is not None, held_s=held_s))
    return clauses


def _limbs(event: Movement) -> tuple[str, str]:
    return (event.part.split("_")[-1], event.side)


def _repeated(single: list[Clause]) -> list[Clause]:
    clauses: list[Clause] = []
    for clause in single:
        event = clause.event
        twin = next((i for i in reversed(range(len(clauses))) if same(clauses[i].event, event)), None)
        if twin is not None:
            between = [c.event for c in clauses[twin + 1 :] if c.event.kind not in ("stand", *GOING)]
            gap_s = _REPEAT_GAP_S if event.part == "body" else _LIMB_REPEAT_GAP_S
            close = event.start_s - clauses[twin].event.end_s < gap_s
            if close and not between:
                old = clauses[twin]
                end_s = max(old.event.end_s, event.end_s)
                amount = max(old.event.amount, event.amount)
                if event.kind in (*GOING, *TURNS):
                    amount = old.event.amount + event.amount
                grown = replace(old.event, end_s=end_s, amount=amount)
                clauses[twin] = replace(old, event=grown, count=old.count + 1, back=clause.back)
                continue
        clauses.append(clause)
    return clauses


def most_telling(clauses: list[Clause]) -> list[Clause]:
    """The one clause, or two, that say most, in order of time."""
    ranked = sorted(clauses, key=lambda clause: min(map(rank, (clause, *clause.meanwhile))))
    best = ranked[:2] if len(clauses) > 2 else ranked[:1]
    return [
        replace(clause, back=False, event=_plain(clause.event), meanwhile=tuple(sorted(clause.meanwhile, key=rank)[:1]))
        for clause in clauses
        if clause in best
    ]


def rank(clause: Clause) -> tuple[int, float, tuple[float, float, float, str]]:
    """The lower the more telling."""
    return (-_SALIENCE.get(clause.event.kind, 3), -seconds(clause.event), order(clause.event))


def _plain(event: Movement) -> Movement:
    """Without where a limb is raised to."""
    return replace(event, manner="") if event.kind == "raise" else event


def with_company(clauses: list[Clause], events: Sequence[Movement]) -> list[Clause]:
    """A single clause gets a second movement beside it, if one goes on at the same time."""
    if len(clauses) != 1 or clauses[0].meanwhile or clauses[0].event.kind not in (*GOING, "stand"):
        return clauses
    extra = unsaid(clauses, events)
    beside = [Clause(event=event) for event in extra if share(event, clauses[0].event) > 0.5][:1]
    if beside and clauses[0].event.kind == "stand":
        return beside
    return [replace(clauses[0], meanwhile=tuple(beside))]


def unsaid(clauses: list[Clause], events: Sequence[Movement]) -> list[Movement]:
    """Movements of parts that the clauses do not mention, the more telling first."""
    said = [one.event for clause in clauses for one in (clause, *clause.meanwhile)]
    busy = {part for event in said for part in _parts(event)}
    whole = [event for event in said if event.kind in WHOLE]
    return [
        event
        for group, kinds in _ASIDES
        for event in sorted(paired(events), key=order)
        if event.part.endswith(group) and event.kind in kinds and not _parts(event) & busy
        and not any(near(event, one, 0.3) for one in whole) and not _strides(event, events)
        and (event.kind == "swing" or event.amount > _ASIDE_BEND_RAD)
    ]  # fmt: skip


def _strides(event: Movement, events: Sequence[Movement]) -> bool:
    """Whether an arm alone swings because somebody goes, as arms do that have nothing else to do."""
    return (
        event.kind == "swing"
        and event.side != "both"
        and any(other.kind in GOING and share(event, other) > 0.5 for other in events)
    )
