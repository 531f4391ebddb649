"""Temporal relations of events, and their equality as repeated actions."""

from stages.language.rules.movements import Movement


def time_order(event: Movement) -> tuple[float, float, float, str]:
    """Sort key: time, with ties broken independently of the side."""
    return (event.start_s, -event.end_s, -event.amount, event.kind.removesuffix("_left").removesuffix("_right"))


def action_key(event: Movement) -> tuple[str, str, str, str]:
    """Equal for two events that repeat the same action."""
    if event.part == "torso" and event.kind == "extend":
        return (event.part, event.kind, "", "")
    return (event.part, event.kind, event.side, event.joint if event.part == "torso" else "")


def same_action(a: Movement, b: Movement) -> bool:
    """Whether two events repeat the same action."""
    return action_key(a) == action_key(b)


def all_same_action(run: list[Movement]) -> bool:
    """Whether all events repeat the same action."""
    return len({action_key(event) for event in run}) == 1


def duration_s(event: Movement) -> float:
    """Duration of an event."""
    return event.end_s - event.start_s


def overlap_share(a: Movement, b: Movement) -> float:
    """Share of the first event's duration that the second covers."""
    return max(0.0, min(a.end_s, b.end_s) - max(a.start_s, b.start_s)) / max(duration_s(a), 1e-6)


def within_gap(a: Movement, b: Movement, gap_s: float) -> bool:
    """Whether the gap between two events is shorter than `gap_s`."""
    return a.start_s - b.end_s < gap_s and b.start_s - a.end_s < gap_s
