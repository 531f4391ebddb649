"""Selects and orders the events that a body sentence mentions: clauses with counted repetitions and simultaneous movements."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from schemas.skeleton import swap_sides
from stages.language.rules.movements import Movement
from stages.language.rules.relations import duration_s, overlap_share, same_action, time_order, within_gap

LOCOMOTION = ("walk", "walk_backward", "sidestep_left", "sidestep_right", "run", "crawl")
IDLE = ("stand", "stay", "rest")
"""Events of the body during which nothing else happens."""
TURNS = ("turn_left", "turn_right", "spin")
WHOLE_BODY = (
    "jump", "squat", "bow", "get_up", "lie", "crawl", "roll", "flip", "cartwheel", "pick_up", "climb", "hang", "handstand",
)  # fmt: skip
"""Arm and leg movements during these events are part of them."""
_MENTIONED = {
    "arm": ("wave", "raise", "punch", "reach", "circle", "clap", "throw", "hand_to_face"),
    "leg": ("kick", "raise", "swing"),
    "torso": (),
}
"""Movements of a part that a body sentence mentions."""
_SALIENCE = {
    "flip": 10, "cartwheel": 10, "roll": 10, "jump": 9, "kick": 9, "punch": 9, "spin": 8, "squat": 8, "bow": 8, "wave": 8,
    "get_up": 8, "crawl": 8, "dance": 9, "climb": 9, "hang": 9, "handstand": 10, "ride": 8, "pick_up": 8, "kneel": 7,
    "clap": 8, "throw": 9, "hand_to_face": 7, "run": 7, "lie": 7, "sit": 6, "circle": 7, "reach": 7, "raise": 6, "walk": 6,
    "walk_backward": 7, "sidestep_left": 7, "sidestep_right": 7, "turn_left": 5, "turn_right": 5, "swing": 4, "stand": 1,
    "stay": 1, "rest": 1,
}  # fmt: skip
_ONE_SIDED = ("kick", "step")
"""Movements that are never merged into one of both legs."""
_REPEAT_GAP_S, _LIMB_REPEAT_GAP_S = 1.5, 4.0
_ADDITIONS = (("arm", ("swing",)), ("torso", ("bend", "swing")))
"""Movements of parts not yet mentioned that a description may add, in order of preference."""
_MIN_ADDED_BEND_RAD = 0.4


@dataclass(frozen=True, kw_only=True)
class Clause:
    """An event with its number of repetitions and simultaneous movements."""

    event: Movement
    count: int = 1
    lowered: bool = False
    """Whether a raised limb is lowered again."""
    hold_s: float = 0.0
    """Time for which a raised limb stays up."""
    meanwhile: tuple["Clause", ...] = field(default=())


def clauses_of(events: Sequence[Movement]) -> list[Clause]:
    """Clauses of the mentioned events in order of time, repetitions counted, simultaneous movements attached."""
    merged = merge_sides(events)
    clauses = _count_repetitions(_with_lowering(sorted(_mentioned(merged), key=time_order), merged))
    hosts = [clause for clause in clauses if clause.event.part == "body" and clause.event.kind not in TURNS]
    separate: list[Clause] = []
    attached: dict[int, list[Clause]] = {}
    for clause in clauses:
        simultaneous = [
            host
            for host in hosts
            if host is not clause and host.event.kind in LOCOMOTION and overlap_share(clause.event, host.event) > 0.5
        ]
        if (clause.event.part != "body" or clause.event.kind in TURNS) and simultaneous:
            attached.setdefault(id(simultaneous[0]), []).append(clause)
        else:
            separate.append(clause)
    result = [replace(clause, meanwhile=tuple(attached.get(id(clause), ())[:2])) for clause in separate]
    # Standing is mentioned only if nothing else happens.
    active = [clause for clause in result if clause.event.kind not in IDLE]
    return active or result[:1]


def _mentioned(events: list[Movement]) -> list[Movement]:
    whole_body = [e for e in events if e.part == "body" and e.kind in WHOLE_BODY]
    punches = [e for e in events if e.kind == "punch"]
    kicks = [e for e in events if e.kind == "kick"]
    mentioned = [e for e in events if e.part == "body"]
    for e in events:
        if e.part == "body" or e.kind not in _MENTIONED[e.part.split("_")[-1]]:
            continue
        in_whole_body = any(overlap_share(e, w) > 0.4 or overlap_share(w, e) > 0.6 for w in whole_body)
        if in_whole_body and e.kind not in ("punch", "kick", "wave", "clap", "throw"):
            continue
        with_punch = any(within_gap(e, p, 1.2) or _is_guard(e, p, events) for p in punches)
        if e.kind in ("raise", "reach", "wave") and with_punch:
            continue
        if e.kind in ("raise", "reach", "swing") and any(overlap_share(e, kick) > 0.3 for kick in kicks):
            continue
        same_arm = [w for w in events if w.kind == "wave" and _parts(w) & _parts(e)]
        if e.kind == "raise" and any(within_gap(e, w, 0.7) for w in same_arm):
            continue
        with_hand = [w for w in events if w.kind in ("clap", "throw", "hand_to_face") and _parts(w) & _parts(e)]
        if e.kind in ("raise", "reach") and any(within_gap(e, w, 0.7) for w in with_hand):
            continue
        mentioned.append(e)
    return mentioned


def _is_guard(event: Movement, punch: Movement, events: list[Movement]) -> bool:
    """Whether an event raises a hand to the shoulder, where it stays while the other hand punches."""
    if event.kind != "raise" or not event.manner.startswith("shoulder") or punch.start_s < event.end_s:
        return False
    return not any(
        other.kind == "lower" and _parts(other) & _parts(event) and event.end_s <= other.start_s < punch.start_s
        for other in events
    )


def _parts(event: Movement) -> set[str]:
    """The event's part, or the parts of both sides."""
    return {event.part, swap_sides(event.part)} if event.side == "both" else {event.part}


def merge_sides(events: Sequence[Movement]) -> list[Movement]:
    """Simultaneous left and right events of one kind merged into events of both sides, best temporal overlap first."""

    def overlap(left: Movement, right: Movement) -> float:
        return min(overlap_share(left, right), overlap_share(right, left))

    pairs = [
        (left, right)
        for left in events
        for right in events
        if left.side == "left" and left.part.startswith("left_") and right.part == swap_sides(left.part)
        and left.kind == right.kind and left.kind not in _ONE_SIDED and overlap(left, right) > 0.4
    ]  # fmt: skip
    result = list(events)
    for left, right in sorted(pairs, key=lambda pair: (-overlap(*pair), pair[0].start_s + pair[1].start_s)):
        if any(event is left for event in result) and any(event is right for event in result):
            both = replace(
                left,
                side="both",
                start_s=min(left.start_s, right.start_s),
                end_s=max(left.end_s, right.end_s),
                amount=(left.amount + right.amount) / 2,
                speed=(left.speed + right.speed) / 2,
                manner=left.manner if left.manner == right.manner else "",
            )
            result = [event for event in result if event is not left and event is not right] + [both]
    return result


def _with_lowering(events: list[Movement], all_events: list[Movement]) -> list[Clause]:
    """Clauses of one event each; a raise is combined with the lowering of the same limb that follows it."""
    clauses = []
    for event in events:
        limb = _limb(event)
        lowerings = [
            other
            for other in all_events
            if event.kind == "raise" and other.kind == "lower" and _limb(other) == limb
            and other.start_s >= event.end_s - 0.1
        ]  # fmt: skip
        next_start_s = min(
            (other.start_s for other in events if same_action(other, event) and other.start_s > event.start_s),
            default=1e9,
        )
        first = next((other for other in sorted(lowerings, key=time_order) if other.start_s < next_start_s), None)
        hold_s = first.start_s - event.end_s if first is not None else 0.0
        clauses.append(Clause(event=event, lowered=first is not None, hold_s=hold_s))
    return clauses


def _limb(event: Movement) -> tuple[str, str]:
    return (event.part.split("_")[-1], event.side)


def _count_repetitions(single: list[Clause]) -> list[Clause]:
    clauses: list[Clause] = []
    for clause in single:
        event = clause.event
        previous = next((i for i in reversed(range(len(clauses))) if same_action(clauses[i].event, event)), None)
        if previous is not None:
            between = [c.event for c in clauses[previous + 1 :] if c.event.kind not in ("stand", *LOCOMOTION)]
            gap_s = _REPEAT_GAP_S if event.part == "body" else _LIMB_REPEAT_GAP_S
            close = event.start_s - clauses[previous].event.end_s < gap_s
            if close and not between:
                old = clauses[previous]
                end_s = max(old.event.end_s, event.end_s)
                amount = max(old.event.amount, event.amount)
                if event.kind in (*LOCOMOTION, *TURNS):
                    amount = old.event.amount + event.amount
                measured = old.event.measured and event.measured
                extended = replace(old.event, end_s=end_s, amount=amount, measured=measured)
                clauses[previous] = replace(old, event=extended, count=old.count + 1, lowered=clause.lowered)
                continue
        clauses.append(clause)
    return clauses


def most_salient(clauses: list[Clause]) -> list[Clause]:
    """The one or two most salient clauses, in order of time."""
    ranked = sorted(clauses, key=lambda clause: min(map(rank, (clause, *clause.meanwhile))))
    best = ranked[:2] if len(clauses) > 2 else ranked[:1]
    return [
        replace(
            clause,
            lowered=False,
            event=_without_manner(clause.event),
            meanwhile=tuple(sorted(clause.meanwhile, key=rank)[:1]),
        )
        for clause in clauses
        if clause in best
    ]


def rank(clause: Clause) -> tuple[int, float, tuple[float, float, float, str]]:
    """Sort key, most salient first."""
    return (-_SALIENCE.get(clause.event.kind, 3), -duration_s(clause.event), time_order(clause.event))


def _without_manner(event: Movement) -> Movement:
    """A raise without its final position; other events unchanged."""
    return replace(event, manner="") if event.kind == "raise" else event


def with_simultaneous(clauses: list[Clause], events: Sequence[Movement]) -> list[Clause]:
    """Attach a simultaneous movement, if any, to a single clause."""
    if len(clauses) != 1 or clauses[0].meanwhile or clauses[0].event.kind not in (*LOCOMOTION, *IDLE):
        return clauses
    extra = unmentioned(clauses, events)
    simultaneous = [Clause(event=event) for event in extra if overlap_share(event, clauses[0].event) > 0.5][:1]
    if simultaneous and clauses[0].event.kind in IDLE:
        return simultaneous
    return [replace(clauses[0], meanwhile=tuple(simultaneous))]


def unmentioned(clauses: list[Clause], events: Sequence[Movement]) -> list[Movement]:
    """Movements of parts that the clauses do not mention, in order of preference."""
    mentioned = [inner.event for clause in clauses for inner in (clause, *clause.meanwhile)]
    mentioned_parts = {part for event in mentioned for part in _parts(event)}
    whole_body = [event for event in mentioned if event.kind in WHOLE_BODY]
    return [
        event
        for group, kinds in _ADDITIONS
        for event in sorted(merge_sides(events), key=time_order)
        if event.part.endswith(group) and event.kind in kinds and not _parts(event) & mentioned_parts
        and not any(within_gap(event, other, 0.3) for other in whole_body) and not _is_gait_swing(event, events)
        and (event.kind == "swing" or event.amount > _MIN_ADDED_BEND_RAD)
    ]  # fmt: skip


def _is_gait_swing(event: Movement, events: Sequence[Movement]) -> bool:
    """Whether an event is the swing of a single arm during locomotion, which is part of the gait."""
    return (
        event.kind == "swing"
        and event.side != "both"
        and any(other.kind in LOCOMOTION and overlap_share(event, other) > 0.5 for other in events)
    )
