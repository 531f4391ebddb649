"""Discards arm movements that were not actually observed.

Detectors place a hidden hand onto the visible one or guess its position. The confidence of elbow and wrist identifies such
movements: it is high where a hidden arm becomes visible, and low where it copies the other arm.
"""

from collections.abc import Mapping, Sequence

import numpy as np

from schemas.records import FPS
from schemas.skeleton import swap_sides
from stages.language.rules.kinematics import SIDES, Kinematics
from stages.language.rules.movements import Movement
from stages.language.rules.relations import overlap_share, within_gap
from stages.language.rules.thresholds import Thresholds

_MIN_OVERLAP = 0.3
"""Minimum share of a movement's duration that a simultaneous movement covers."""
_MAX_COPY_GAP_S = 2.0
"""Maximum gap to a copied movement of the same kind: a raised arm stays up for a while."""


def filter_by_visibility(
    found: Mapping[str, Sequence[Movement]], k: Kinematics, limits: Thresholds
) -> dict[str, list[Movement]]:
    """Movements of both arms by part, without those of low confidence, and without those that the other arm made too with
    higher confidence; swings of the other arm do not count, as gestures are not copied from them. Hands clap if both are
    seen."""
    kept: dict[str, list[Movement]] = {}
    for part in (f"{side}_arm" for side in SIDES):
        others = [(other, _confidence(other, k)) for other in found[swap_sides(part)] if other.kind != "swing"]
        kept[part] = []
        for event in found[part]:
            confidence = _confidence(event, k)
            copied = confidence < limits.sure_confidence and any(
                other_confidence > confidence + limits.surer_by and _may_copy(event, other)
                for other, other_confidence in others
            )
            if confidence >= limits.event_confidence and not copied:
                kept[part].append(event)
    both_seen = all(
        _confidence(event, k) >= limits.min_confidence for part in kept for event in found[part] if event.kind == "clap"
    )
    return kept if both_seen else {part: [e for e in events if e.kind != "clap"] for part, events in kept.items()}


def _may_copy(event: Movement, other: Movement) -> bool:
    return overlap_share(event, other) > _MIN_OVERLAP or (
        event.kind == other.kind and within_gap(event, other, _MAX_COPY_GAP_S)
    )


def _confidence(event: Movement, k: Kinematics) -> float:
    """Mean confidence of the part during a movement, 0 to 1."""
    return float(np.mean(k.confidence[event.part][round(event.start_s * FPS) : round(event.end_s * FPS)]))
