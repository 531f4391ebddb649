"""Rule-based captions: kinematics to events, events to sentences."""

from dataclasses import replace

import numpy as np
from jaxtyping import Float, UInt8
from torch import Tensor

from schemas.coverage import all_seen
from schemas.records import FPS, Captions
from schemas.skeleton import PARTS
from stages.language.rules import signals
from stages.language.rules.activities import ENGAGED, held_up
from stages.language.rules.arm_events import arm_events
from stages.language.rules.body_events import body_events
from stages.language.rules.gaits import spans
from stages.language.rules.kinematics import SIDES, Kinematics, kinematics
from stages.language.rules.leg_events import leg_events
from stages.language.rules.movements import Movement, movement
from stages.language.rules.part_sentences import part_sentences
from stages.language.rules.phrases import OUT_OF_VIEW, phrase
from stages.language.rules.sentences import body_sentences
from stages.language.rules.thresholds import Thresholds
from stages.language.rules.torso_events import torso_events
from stages.language.rules.unseen import keep_seen, out_of_view
from stages.language.rules.visibility import filter_by_visibility

RULES = "rules 6"
"""Name and version of this writer; raise the number whenever the same motion would be described differently."""
_ENGAGED_S = 1.0
"""Time before and after an activity within which the arms still serve it."""


def describe(
    rotations: Float[Tensor, "T 24 3 3"],
    trans: Float[Tensor, "T 3"],
    rest_joints: Float[Tensor, "24 3"],
    joint_confidence: Float[np.ndarray, "T 24"],
    limits: Thresholds,
    *,
    seed: str,
    seen: UInt8[np.ndarray, "T 5"] | None = None,
) -> Captions:
    """Captions of a motion at 30 fps, of its `seen` parts (None: of all). The seed selects wordings; the mirrored motion with the
    same seed gets the same text with left and right exchanged."""
    k = kinematics(
        rotations,
        trans,
        rest_joints,
        joint_confidence,
        smoothing_s=limits.smoothing_s,
        travel_smoothing_s=limits.travel_smoothing_s,
        min_confidence=limits.min_confidence,
    )
    seen = all_seen(len(k)) if seen is None else seen
    events = keep_seen(find_events(k, limits), seen)
    found = {event.part for event in events}
    return Captions(
        body=body_sentences(events, seed),
        parts={
            part: part_sentences(part, events, seed) if part in found else (out_of_view(part, seen),) for part in PARTS
        },
        events=tuple(event.to_event() for event in events),
        writers={"body": RULES, "parts": RULES, "events": RULES, "transcript": "none"},
    )


def find_events(k: Kinematics, limits: Thresholds) -> tuple[Movement, ...]:
    """All events in order of time; at least one for the body and for each part."""
    body = body_events(k, limits)
    tumbles = spans(body, "roll", "flip", "cartwheel")
    airborne, lying = [*spans(body, "jump"), *tumbles], [*spans(body, "lie", "crawl", "handstand"), *tumbles]
    margin = round(_ENGAGED_S * FPS)
    active = [*spans(body, *ENGAGED), *signals.spans_of(held_up(k, limits))]
    engaged = [(max(0, first - margin), min(len(k), last + margin)) for first, last in active]
    found = {part.name: part.events for part in arm_events(k, engaged, airborne, limits)}
    running = spans(body, "run")
    found |= {f"{side}_leg": leg_events(k, side, airborne, running, engaged, limits).events for side in SIDES}
    found["torso"] = torso_events(k, lying, limits).events
    visible = found | filter_by_visibility(found, k, limits)
    events = [replace(event, text=phrase(event)) for event in body]
    for part in PARTS:
        arm = part.endswith("_arm")
        # A hidden arm may become visible while it moves; an arm whose movements were all discarded counts as hidden.
        if visible[part] and (arm or k.visible[part]):
            events += [replace(event, text=phrase(event)) for event in visible[part]]
        else:
            events.append(_rest(k, part, visible=k.visible[part] and not (arm and found[part])))
    return tuple(sorted(events, key=lambda e: (e.start_s, e.end_s, e.part, e.kind)))


def _rest(k: Kinematics, part: str, *, visible: bool) -> Movement:
    """A resting part over the whole motion; the amount is its last joint's maximum distance from the mean in body axes."""
    joint = PARTS[part][-1] if visible else PARTS[part][1]
    path = k.in_body(joint)
    side = part.split("_")[0] if "_" in part else "none"
    excursion_m = float(np.linalg.norm(path - path.mean(0), axis=-1).max()) if visible else 0.0
    rest = movement(part, "rest", (0, len(k)), excursion_m, joint=joint, side=side)
    return replace(rest, text=phrase(rest) if visible else OUT_OF_VIEW)
