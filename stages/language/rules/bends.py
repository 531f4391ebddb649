"""Rules for sinking and bending: squats, bows, and reaching to the ground."""

from itertools import pairwise

import numpy as np
from jaxtyping import Bool

from schemas.records import FPS
from stages.language.rules import signals
from stages.language.rules.kinematics import SIDES, Kinematics, pelvis_height
from stages.language.rules.signals import Span
from stages.language.rules.thresholds import Thresholds


def squats(k: Kinematics, limits: Thresholds, busy: Bool[np.ndarray, "T"]) -> list[tuple[Span, float]]:
    """Spans in which the pelvis sinks over bent knees and rises again, and by how much, metres."""
    height = pelvis_height(k)
    around = round(0.3 * FPS)
    knees = np.minimum(k.knee["left"], k.knee["right"])
    top = max(float(np.percentile(height, 90)), 0.85 * k.size.pelvis_m)
    found = []
    for span in signals.hysteresis(top - height, limits.squat_least_m, 0.3 * limits.squat_least_m, round(0.4 * FPS)):
        # Repeated squats need not return to a full stand: split at the maxima between them.
        points = signals.turning_points(height[slice(*span)], 0.7 * limits.squat_least_m)
        tops = [p for p in points[1:-1] if height[span[0] + p] > height[span[0] : span[1]].mean()]
        edges = [span[0], *(span[0] + p for p in tops), span[1]]
        for piece in pairwise(edges):
            inside = slice(*piece)
            bottom = piece[0] + int(np.argmin(height[inside]))
            bent = knees[bottom] > limits.squat_knee_rad and k.tilt[bottom] < limits.upright_rad + 0.3
            around_bottom = slice(max(0, bottom - around), bottom + around)
            if (
                bent
                and busy[inside].mean() < 0.3
                and not busy[around_bottom].any()
                and top - height[bottom] >= limits.squat_least_m
            ):
                found.append((piece, float(top - height[bottom])))
    return found


def bows(k: Kinematics, limits: Thresholds, busy: Bool[np.ndarray, "T"]) -> list[tuple[Span, float, str]]:
    """Leaning forwards and straightening up again, the legs straight; the manner is `down` where the pelvis sinks or the hands
    reach down, which is no bow of courtesy. A lean that is kept, or with which the motion begins or ends, is none."""
    own = limits.postures
    upright = float(np.percentile(k.pitch, 20))
    lean = k.pitch - max(0.0, min(upright, 0.2))
    height = pelvis_height(k) / k.size.pelvis_m
    slow = np.linalg.norm(k.velocity, axis=-1) < limits.bow_slow_mps
    found = []
    for span in signals.hysteresis(lean, limits.bow_least_rad, 0.4 * limits.bow_least_rad, round(0.4 * FPS)):
        inside = slice(*span)
        deepest = span[0] + int(np.argmax(lean[inside]))
        if span[0] == 0 or span[1] == len(k) or span[1] - span[0] > own.bow_longest_s * FPS:
            continue
        if np.ptp(k.heading[inside]) > own.bow_turn_rad:
            continue
        straight = min(k.knee[side][deepest] for side in SIDES) < own.bow_knee_rad
        hands = min(k.in_world(f"{side}_wrist")[deepest, 1] for side in SIDES) / k.size.pelvis_m
        tall = height[deepest] > limits.bow_pelvis_ratio and straight and hands > own.bow_hand_ratio
        down = not tall and lean[deepest] > limits.bend_down_rad
        if (tall or down) and busy[inside].mean() < 0.3 and slow[inside].mean() > 0.7:
            manner = "down" if down else "deep" if lean[deepest] > limits.bow_deep_rad else ""
            found.append((span, float(lean[inside].max()), manner))
    return found


def pick_ups(k: Kinematics, limits: Thresholds, busy: Bool[np.ndarray, "T"]) -> list[tuple[Span, str]]:
    """Spans in which an upright person bends or squats until a hand is at the ground, and comes up again with it; and the side."""
    own = limits.postures
    height = pelvis_height(k) / k.size.pelvis_m
    hands = {side: k.in_world(f"{side}_wrist")[:, 1] / k.size.pelvis_m for side in SIDES}
    upright = (height > 0.85) & (k.tilt < 0.6 * limits.upright_rad)
    found: list[tuple[Span, str]] = []
    for first, last in signals.spans_of(np.minimum(*hands.values()) < own.pick_hand_ratio, 3, round(0.3 * FPS)):
        before, after = np.flatnonzero(upright[:first]), np.flatnonzero(upright[last:])
        if not len(before) or not len(after):
            continue
        span = (int(before[-1]), last + int(after[0]) + 1)
        inside = slice(*span)
        lowest = first + int(np.argmin(np.minimum(*hands.values())[first:last]))
        down = k.pitch[lowest] > own.pick_lean_rad or height[lowest] < limits.sit_ratio
        if not down or busy[inside].mean() > 0.2 or span[1] - span[0] > own.pick_longest_s * FPS:
            continue
        low = [side for side in SIDES if hands[side][first:last].min() < own.pick_hand_ratio]
        if not found or span[0] >= found[-1][0][1]:
            found.append((span, low[0] if len(low) == 1 else "both"))
    return found
