"""Which movements of the arms are believed.

A detector puts a hand that the body hides onto the one that it sees, or guesses where it is. How sure the recovery was of
elbow and wrist tells such movements: surer where a hidden arm comes into sight, little where it copies the other one.
"""

from collections.abc import Mapping, Sequence

import numpy as np

from schemas.records import FPS
from schemas.skeleton import swap_sides
from stages.language.rules.kinematics import SIDES, Kinematics
from stages.language.rules.movements import Movement
from stages.language.rules.relations import near, share
from stages.language.rules.thresholds import Thresholds

_TOGETHER = 0.3
"""Share of a movement's time from which another one goes on at that time."""
_LATER_S = 2.0
"""A movement of the same kind may be a copy within this time: an arm that was raised stays up for a while."""


def filter_by_visibility(
    found: Mapping[str, Sequence[Movement]], k: Kinematics, limits: Thresholds
) -> dict[str, list[Movement]]:
    """Movements of both arms, by part, without those that were hardly seen, and without those of an arm that was seen badly
    while the other one, which was seen better, moved too; an arm that merely swings is not what a gesture is copied from."""
    kept: dict[str, list[Movement]] = {}
    for part in (f"{side}_arm" for side in SIDES):
        rivals = [(other, _confidence(other, k)) for other in found[swap_sides(part)] if other.kind != "swing"]
        kept[part] = []
        for event in found[part]:
            own = _confidence(event, k)
            copied = own < limits.sure_confidence and any(
                theirs > own + limits.surer_by and _may_copy(event, other) for other, theirs in rivals
            )
            if own >= limits.event_confidence and not copied:
                kept[part].append(event)
    return kept


def _may_copy(event: Movement, other: Movement) -> bool:
    return share(event, other) > _TOGETHER or (event.kind == other.kind and near(event, other, _LATER_S))


def _confidence(event: Movement, k: Kinematics) -> float:
    """How surely the part was seen while it moved, 0 to 1."""
    return float(np.mean(k.confidence[event.part][round(event.start_s * FPS) : round(event.end_s * FPS)]))
