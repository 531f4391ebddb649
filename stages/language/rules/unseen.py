"""Nothing is said about what was not seen: events of unseen parts are dropped, and whatever the legs do needs them in view."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from jaxtyping import Bool, UInt8

from schemas.coverage import LEFT_LEG, PART_NAMES, RIGHT_LEG, TORSO, seen_parts
from schemas.curves import runs
from schemas.records import FPS
from stages.language.rules.clauses import LOCOMOTION
from stages.language.rules.movements import TO_AND_FRO, Movement, movement
from stages.language.rules.phrases import OUT_OF_VIEW, phrase

_WITHOUT_LEGS = ("turn_left", "turn_right", "spin", "rest")
"""Events of the body that a trunk alone shows; all others tell what the legs do."""
_WITH_ONE_LEG = tuple(kind for kind in LOCOMOTION if kind != "crawl")
"""Events that one leg shows. All others are postures and jumps, which are told by heights above the ground: a made-up leg would
lend its own."""
_LASTING = (*LOCOMOTION, "stand", "stay", "sit", "lie", "kneel")
"""Events that may be cut to the time in which they were seen."""
_MOST = 0.9
"""Share of an event during which its part must be seen."""
_SHORTEST_S = 0.5


def keep_seen(events: Sequence[Movement], seen: UInt8[np.ndarray, "T 5"]) -> tuple[Movement, ...]:
    """The events that were seen. Of the body there is always one, of an unseen part none: it does not even rest."""
    if seen.all():
        return tuple(events)
    flags = seen.astype(bool)
    either, both = flags[:, LEFT_LEG] | flags[:, RIGHT_LEG], flags[:, LEFT_LEG] & flags[:, RIGHT_LEG]
    mostly_seen = seen_parts(seen)
    kept: list[Movement] = []
    for event in events:
        if event.part != "body":
            # Where one leg is hidden the other is easily taken for it, which looks like a kick.
            visible = both if event.kind == "kick" else flags[:, PART_NAMES.index(event.part)]
            if event.part in mostly_seen if event.kind == "rest" else _share(event, visible) >= _MOST:
                kept.append(event)
            elif event.kind == "swing" and event.manner == TO_AND_FRO:
                kept += _cut(event, visible)
            continue
        visible = flags[:, TORSO] if event.kind in _WITHOUT_LEGS else either if event.kind in _WITH_ONE_LEG else both
        if _share(event, visible) >= _MOST:
            kept.append(event)
        elif event.kind in _LASTING:
            kept += _cut(event, visible)
    if not any(event.part == "body" for event in kept):
        kept.append(_upper_body(kept, len(seen)))
    return tuple(sorted(kept, key=lambda e: (e.start_s, e.end_s, e.part, e.kind)))


def out_of_view(part: str, seen: UInt8[np.ndarray, "T 5"]) -> str:
    """The sentence about a part without events."""
    share = float(seen[:, PART_NAMES.index(part)].mean())
    some = OUT_OF_VIEW.replace("is ", "is partly ") if share > 1 - _MOST else OUT_OF_VIEW
    return f"The {part.replace('_', ' ')} {some}."


def _share(event: Movement, visible: Bool[np.ndarray, "T"]) -> float:
    first = min(round(event.start_s * FPS), len(visible) - 1)
    return float(visible[first : max(round(event.end_s * FPS), first + 1)].mean())


def _cut(event: Movement, visible: Bool[np.ndarray, "T"]) -> list[Movement]:
    """A lasting event, cut to its longest time in view; none if that is too short."""
    first = round(event.start_s * FPS)
    spans = runs(visible[first : round(event.end_s * FPS)])
    start, end = max(spans, key=lambda span: span[1] - span[0], default=(0, 0))
    if end - start < _SHORTEST_S * FPS:
        return []
    start_s, end_s = round((first + start) / FPS, 3), round((first + end) / FPS, 3)
    if event.part != "body":  # the amount is a width, not a way
        return [replace(event, start_s=start_s, end_s=end_s)]
    share = (end - start) / FPS / max(event.end_s - event.start_s, 1 / FPS)
    return [replace(event, start_s=start_s, end_s=end_s, amount=round(event.amount * share, 3))]


def _upper_body(events: Sequence[Movement], frames: int) -> Movement:
    """What is left to say about a body without legs that does not turn: whether it moves."""
    amount = max((event.amount for event in events if event.kind != "rest"), default=0.0)
    rest = movement("body", "rest", (0, frames), amount, joint="neck")
    return replace(rest, text=phrase(rest))
