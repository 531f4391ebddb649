"""How events stand to each other in time, and which are of one kind."""

from stages.language.rules.movements import Movement


def order(event: Movement) -> tuple[float, float, float, str]:
    """By time; ties by what does not depend on the side."""
    return (event.start_s, -event.end_s, -event.amount, event.kind.removesuffix("_left").removesuffix("_right"))


def key(event: Movement) -> tuple[str, str, str, str]:
    """What makes two events the same thing done twice."""
    if event.part == "torso" and event.kind == "extend":
        return (event.part, event.kind, "", "")
    return (event.part, event.kind, event.side, event.joint if event.part == "torso" else "")


def same(one: Movement, other: Movement) -> bool:
    """Whether the same part does the same."""
    return key(one) == key(other)


def uniform(run: list[Movement]) -> bool:
    """Whether they all do."""
    return len({key(event) for event in run}) == 1


def seconds(event: Movement) -> float:
    """How long it lasts."""
    return event.end_s - event.start_s


def share(one: Movement, other: Movement) -> float:
    """Share of the first event's time that the other covers."""
    return max(0.0, min(one.end_s, other.end_s) - max(one.start_s, other.start_s)) / max(seconds(one), 1e-6)


def near(one: Movement, other: Movement, gap_s: float) -> bool:
    """Whether less than so much time lies between them."""
    return one.start_s - other.end_s < gap_s and other.start_s - one.end_s < gap_s
