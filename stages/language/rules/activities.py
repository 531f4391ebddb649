"""Rules for activities of the whole body that explain what its limbs do: dancing, climbing, hanging, pedalling, handstands.

Within an activity an arm's to and fro is no wave and a quick reach no punch: see `ENGAGED`.
"""

import numpy as np
from jaxtyping import Bool, Float
from scipy.ndimage import maximum_filter1d

from schemas.curves import smooth
from schemas.records import FPS
from schemas.skeleton import joint
from stages.language.rules import signals
from stages.language.rules.activity_thresholds import ActivityThresholds
from stages.language.rules.kinematics import SIDES, Kinematics, feet_lift
from stages.language.rules.movements import Movement, movement
from stages.language.rules.signals import Span, box_mean
from stages.language.rules.thresholds import Thresholds

ENGAGED = ("dance", "climb", "hang", "ride", "handstand")
"""Activities that explain gestures of the arms."""
_LEGS = [joint(f"{side}_{name}") for side in SIDES for name in ("knee", "ankle")]
_BEATS = range(round(0.4 * FPS), round(2.0 * FPS), 3)
"""Periods, in frames, at which steps may repeat."""


def held_up(k: Kinematics, limits: Thresholds) -> Bool[np.ndarray, "T"]:
    """Whether both feet are off the ground for longer than in any jump, so that something else carries the body."""
    if not (k.visible["left_leg"] and k.visible["right_leg"]):
        return np.zeros(len(k), bool)
    flying = signals.spans_of(feet_lift(k) > 1.4 * limits.flight_m, round(limits.flight_longest_s * FPS))
    return signals.mask_of(flying, len(k))


def activities(
    k: Kinematics, limits: ActivityThresholds, tumbling: Bool[np.ndarray, "T"], held: Bool[np.ndarray, "T"]
) -> list[Movement]:
    """All activities in order of time; a handstand, hanging, climbing and pedalling go before a dance."""
    found: list[tuple[str, Span, float]] = []
    for kind, flags, least_s in (
        ("handstand", _upside_down(k, limits) & ~tumbling, limits.handstand_s),
        ("hang", _hanging(k, limits), limits.hang_s),
        ("ride", _pedalling(k, limits), limits.ride_s),
        ("dance", _dancing(k, limits, held | tumbling), limits.dance_s),
    ):
        free = flags & ~signals.mask_of([span for _, span, _ in found], len(k))
        found += [
            (kind, span, _way_m(k, span)) for span in signals.spans_of(free, round(least_s * FPS), round(0.3 * FPS))
        ]
        if kind == "hang":
            found += _climbs(k, limits, tumbling | signals.mask_of([span for _, span, _ in found], len(k)))
    events = [
        movement(
            "body", kind, span, abs(amount), joint="pelvis", manner="down" if kind == "climb" and amount < 0 else ""
        )
        for kind, span, amount in found
    ]
    return sorted(events, key=lambda event: event.start_s)


def _way_m(k: Kinematics, span: Span) -> float:
    return float(np.linalg.norm(k.velocity[slice(*span)], axis=-1).sum() / FPS)


def _upside_down(k: Kinematics, limits: ActivityThresholds) -> Bool[np.ndarray, "T"]:
    """The legs above the trunk, the trunk above the hands, the hands on the ground."""
    hands = np.minimum(k.in_world("left_wrist")[:, 1], k.in_world("right_wrist")[:, 1])
    ankles = np.minimum(k.in_world("left_ankle")[:, 1], k.in_world("right_ankle")[:, 1])
    pelvis, neck = k.in_world("pelvis")[:, 1], k.in_world("neck")[:, 1]
    return (k.uprightness < -limits.handstand_upright) & (hands < neck) & (pelvis > neck) & (ankles > pelvis)


def _hanging(k: Kinematics, limits: ActivityThresholds) -> Bool[np.ndarray, "T"]:
    """Both hands overhead and fixed in the world, while pelvis and both feet swing below them."""
    flags = np.ones(len(k), bool)
    for side in SIDES:
        wrist = k.in_world(f"{side}_wrist")
        overhead = wrist[:, 1] > k.in_world("head")[:, 1] + limits.hang_overhead_ratio * k.size.arm_m
        flags &= overhead & (_mean_speed(_world(k, f"{side}_wrist")) < limits.hang_hand_mps)
        flags &= _mean_speed(_world(k, f"{side}_ankle")) > limits.hang_foot_mps
    return flags


def _climbs(k: Kinematics, limits: ActivityThresholds, busy: Bool[np.ndarray, "T"]) -> list[tuple[str, Span, float]]:
    """The body rises or sinks by far, slowly, pulled by hands above the shoulders, with the knees bent in turn."""
    height = smooth(_world(k, "pelvis")[:, 1], 0.2 * FPS)
    found = []
    for span in signals.sweeps(height, limits.climb_least_m):
        inside = slice(*span)
        seconds = (span[1] - span[0]) / FPS
        rise = float(height[span[1] - 1] - height[span[0]])
        hands = np.maximum(*(k.in_world(f"{side}_wrist")[inside, 1] for side in SIDES))
        gripping = float((hands > k.in_world("neck")[inside, 1]).mean())
        bent = min(float(k.knee[side][inside].max()) for side in SIDES)
        # The lowest joint leaves the ground: a person who rises from a seat stays on it.
        lowest = _world(k, "left_foot")[inside, 1], _world(k, "right_foot")[inside, 1]
        lifted = min(abs(float(np.median(foot[-3:]) - np.median(foot[:3]))) for foot in lowest)
        slow = limits.climb_slowest_mps < abs(rise) / seconds < limits.climb_fastest_mps
        pulled = gripping > limits.climb_gripping and bent > limits.climb_knee_rad and busy[inside].mean() < 0.5
        if slow and pulled and lifted > 0.5 * limits.climb_least_m:
            found.append(("climb", span, rise))
    return found


def _pedalling(k: Kinematics, limits: ActivityThresholds) -> Bool[np.ndarray, "T"]:
    """Both ankles turn in circles of a crank, half a turn apart, below a pelvis that does not bob, with the knees always bent."""
    window = round(limits.ride_s * FPS)
    flags = np.ones(len(k), bool)
    angles = []
    for side in SIDES:
        path = (k.in_body(f"{side}_ankle") - k.in_body("pelvis"))[:, [2, 1]]
        centred = path - smooth(path, 0.5 * FPS)
        radius = box_mean(np.linalg.norm(centred, axis=-1), window)
        spread = np.sqrt(np.stack([box_mean(centred[:, i] ** 2, window) for i in range(2)]))
        round_ = spread.min(0) > limits.ride_round * spread.max(0)
        angle = np.unwrap(np.arctan2(centred[:, 1], centred[:, 0]))
        turns = -signals.derivative(signals.smooth_path(angle, 3), FPS)
        flags &= round_ & (radius > limits.ride_radius_m[0]) & (radius < limits.ride_radius_m[1])
        flags &= (box_mean(turns, window) > limits.ride_radps) & (k.knee[side] > limits.ride_knee_rad)
        angles.append(angle)
    apart = np.cos(angles[0] - angles[1])
    bob = np.sqrt(box_mean((k.in_world("pelvis")[:, 1] - smooth(k.in_world("pelvis")[:, 1], 0.5 * FPS)) ** 2, window))
    return flags & (box_mean(apart, window) < -0.5) & (bob < limits.ride_bob_m)


def _dancing(k: Kinematics, limits: ActivityThresholds, busy: Bool[np.ndarray, "T"]) -> Bool[np.ndarray, "T"]:
    """Steps that repeat in a rhythm, lead nowhere, and have the arms moving with them."""
    window = round(limits.dance_window_s * FPS)
    velocity = signals.derivative(smooth(k.in_world("pelvis")[:, [0, 2]], 3), FPS)
    speed = box_mean(np.linalg.norm(velocity, axis=-1), window)
    net = np.linalg.norm(box_mean(velocity, window), axis=-1)
    feet = np.minimum(*(box_mean(_speed(_world(k, f"{side}_ankle")), window) for side in SIDES))
    hands = sum(box_mean(_speed(k.in_body(f"{side}_wrist") - k.in_body("neck")), window) for side in SIDES) / 2
    height = _world(k, "pelvis")[:, 1]
    level = maximum_filter1d(height, window) + maximum_filter1d(-height, window) < limits.dance_level_m
    there_and_back = net < limits.dance_net_share * speed
    lively = (feet > limits.dance_foot_mps) & (speed > limits.dance_mps) & (hands > limits.dance_hand_mps)
    candidates = there_and_back & lively & level & (k.tilt < limits.dance_upright_rad)
    if candidates.sum() < limits.dance_s * FPS:
        return np.zeros(len(k), bool)
    centres = candidates & (_rhythm(k, window) > limits.dance_rhythm)
    # The whole window around such a frame is danced, unless something carries the body in it.
    return maximum_filter1d(centres & ~maximum_filter1d(busy, window, mode="constant"), window, mode="constant")


def _rhythm(k: Kinematics, window: int) -> Float[np.ndarray, "T"]:
    """Largest correlation of the legs' pose with itself some beats later, within a window."""
    pose = (k.local[:, _LEGS] - k.local[:, :1]).reshape(len(k), -1)
    pose = pose - smooth(pose, 1.0 * FPS)
    best = np.full(len(k), -1.0)
    for lag in _BEATS:
        if lag >= len(k) - 2:
            break
        product = np.zeros(len(k))
        energy, later = np.full(len(k), 1e-9), np.full(len(k), 1e-9)
        product[:-lag] = (pose[:-lag] * pose[lag:]).sum(-1)
        energy[:-lag] = (pose[:-lag] ** 2).sum(-1)
        later[:-lag] = (pose[lag:] ** 2).sum(-1)
        best = np.maximum(best, box_mean(product, window) / np.sqrt(box_mean(energy, window) * box_mean(later, window)))
    return best


def _world(k: Kinematics, name: str) -> Float[np.ndarray, "T 3"]:
    """World position with the true height, not that above the supporting surface, which a climber leaves."""
    path = k.in_world(name).copy()
    path[:, 1] += k.support
    return path


def _speed(path: Float[np.ndarray, "T 3"]) -> Float[np.ndarray, "T"]:
    return np.linalg.norm(signals.derivative(path, FPS), axis=-1)


def _mean_speed(path: Float[np.ndarray, "T 3"]) -> Float[np.ndarray, "T"]:
    return box_mean(_speed(path), round(0.5 * FPS))
