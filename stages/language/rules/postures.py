"""Rules for postures: standing, sitting, kneeling, lying and crawling, and getting up from them."""

import numpy as np
from jaxtyping import Bool

from schemas.records import FPS
from stages.language.rules import signals
from stages.language.rules.gaits import path_length_m
from stages.language.rules.kinematics import SIDES, Kinematics, pelvis_height
from stages.language.rules.movements import Movement, movement
from stages.language.rules.signals import Span
from stages.language.rules.thresholds import Thresholds

LIMBS_OF: dict[str, tuple[str, ...]] = {
    "stand": ("leg",), "sit": ("leg",), "kneel": ("leg",), "squat": ("leg",), "jump": ("leg",), "ride": ("leg",),
    "dance": ("leg",), "climb": ("arm", "leg"), "hang": ("arm", "leg"), "handstand": ("arm", "leg"), "pick_up": ("arm",),
}  # fmt: skip
"""The limbs of which a claim about the body speaks; one of each must be visible. Other claims speak of the trunk and its way."""


def speaks_of_visible(k: Kinematics, kind: str) -> bool:
    """Whether at least one of each of the limbs of which a claim speaks is visible."""
    return all(any(k.visible[f"{side}_{limb}"] for side in SIDES) for limb in LIMBS_OF.get(kind, ()))


def postures(k: Kinematics, limits: Thresholds, tumbling: Bool[np.ndarray, "T"]) -> list[tuple[str, Span]]:
    """Spans of lying, crawling, kneeling and sitting."""
    height, neck = pelvis_height(k) / k.size.pelvis_m, k.in_world("neck")[:, 1] / k.size.pelvis_m
    ankles_ahead = (k.in_body("left_ankle") + k.in_body("right_ankle"))[:, 2] / 2
    hands = np.maximum(k.in_world("left_wrist")[:, 1], k.in_world("right_wrist")[:, 1])
    flat = (height < limits.lie_ratio) & (neck < limits.lie_ratio) & (k.tilt > limits.upright_rad)
    on_all_fours = (k.tilt > limits.upright_rad) & (height < 0.9) & (hands < limits.hands_down_m)
    speed = np.linalg.norm(signals.smooth_path(k.velocity, 0.2 * FPS), axis=-1)
    crawling = on_all_fours & (speed > np.where(flat, limits.creep_mps, limits.crawl_mps)) & ~tumbling
    crawls = [
        span
        for span in signals.spans_of(crawling, round(limits.posture_least_s * FPS), round(0.5 * FPS))
        if path_length_m(k, span) > limits.crawl_least_m
    ]
    lying = flat & ~signals.mask_of(crawls, len(k)) & ~tumbling
    kneeling = _kneeling(k, limits) & ~tumbling & ~crawling
    behind = (ankles_ahead > limits.sit_behind_ratio * k.size.leg_m) | (height < limits.postures.floor_ratio)
    sitting = (height < limits.sit_ratio) & (k.tilt < limits.upright_rad) & behind & ~tumbling & ~kneeling
    min_frames, max_gap = round(limits.posture_least_s * FPS), round(0.3 * FPS)
    found: list[tuple[str, Span]] = [("crawl", span) for span in crawls]
    for kind, flags in (("lie", lying), ("kneel", kneeling), ("sit", sitting)):
        if not speaks_of_visible(k, kind):
            continue
        found += [(kind, span) for span in signals.spans_of(flags, min_frames, max_gap)]
    return sorted(found, key=lambda posture: posture[1])


def _kneeling(k: Kinematics, limits: Thresholds) -> Bool[np.ndarray, "T"]:
    """The trunk upright over at least one knee on the ground, that knee's shank lying behind it."""
    own = limits.postures
    pelvis = k.in_world("pelvis")[:, 1]
    on_knee = np.zeros(len(k), bool)
    for side in SIDES:
        knee, ankle = k.in_body(f"{side}_knee"), k.in_body(f"{side}_ankle")
        grounded = (knee[:, 1] < own.kneel_knee_m) & (ankle[:, 1] < own.kneel_knee_m + k.size.ankle_m)
        on_knee |= grounded & (pelvis - knee[:, 1] > own.kneel_above_m) & (ankle[:, 2] < knee[:, 2])
    low = pelvis < own.kneel_ratio * k.size.pelvis_m
    return on_knee & low & (k.tilt < limits.upright_rad)


def get_ups(k: Kinematics, limits: Thresholds, postures: list[tuple[str, Span]]) -> list[tuple[Span, float]]:
    """Spans from the end of a low posture to standing, with the rise of the pelvis."""
    height = pelvis_height(k)
    standing = (height > 0.85 * k.size.pelvis_m) & (k.tilt < limits.upright_rad)
    found = []
    for i, (_, (_, last)) in enumerate(postures):
        until = postures[i + 1][1][0] if i + 1 < len(postures) else len(k)
        upright = np.flatnonzero(standing[last:until])
        if len(upright) and upright[0] >= 2:
            begin = max(0, last - round(0.2 * FPS))
            found.append(((begin, last + int(upright[0])), float(height[last + upright[0]] - height[begin])))
    return found


def bearing_straight(k: Kinematics, limits: Thresholds) -> Bool[np.ndarray, "T"]:
    """Whether at least one leg is straight and its foot on the ground."""
    own = limits.postures
    straight = np.zeros(len(k), bool)
    for side in SIDES:
        on_ground = k.in_world(f"{side}_ankle")[:, 1] - k.size.ankle_m < own.stand_lift_m
        straight |= on_ground & (k.knee[side] < own.stand_knee_rad)
    return straight


def stands(k: Kinematics, limits: Thresholds, events: list[Movement]) -> list[Movement]:
    """Standing upright on a straight leg while nothing else happens."""
    busy = np.zeros(len(k), bool)
    for event in events:
        busy[round(event.start_s * FPS) : round(event.end_s * FPS)] = True
    tall = (pelvis_height(k) > 0.85 * k.size.pelvis_m) & (k.tilt < limits.upright_rad)
    tall &= bearing_straight(k, limits) | (not speaks_of_visible(k, "stand"))
    free = signals.spans_of(tall & ~busy, round(limits.stand_least_s * FPS))
    if not events and tall.mean() > 0.5:
        free = [(0, len(k))]
    return [movement("body", "stand", span, path_length_m(k, span), joint="pelvis") for span in free]


def fallback(k: Kinematics, limits: Thresholds) -> Movement:
    """The predominant posture, for a motion without any other event."""
    height = float(np.median(pelvis_height(k)) / k.size.pelvis_m)
    tilted = float(np.median(k.tilt)) > limits.upright_rad
    if not speaks_of_visible(k, "stand"):
        kind = "stand"
    elif tilted:
        kind = "lie" if height < limits.lie_ratio else "stay"
    else:
        straight = float(bearing_straight(k, limits).mean()) > 0.5
        kind = "stand" if height > 0.8 and straight else "stay" if height > limits.sit_ratio else "squat"
        kind = "sit" if height <= limits.postures.floor_ratio else kind
    return movement("body", kind, (0, len(k)), path_length_m(k, (0, len(k))), joint="pelvis")
