"""Rules for the whole body: where it goes, how it turns, jumps, squats, bows, and how it holds itself."""

from itertools import pairwise

import numpy as np
from jaxtyping import Bool, Float

from schemas.records import FPS, Event
from stages.captions import signals
from stages.captions.kinematics import SIDES, Kinematics
from stages.captions.limb_events import event
from stages.captions.signals import Span
from stages.captions.thresholds import Thresholds

_JUMP_MARGIN_S = 0.45
"""Take-off and landing around a flight belong to the jump."""


def body_events(k: Kinematics, limits: Thresholds) -> list[Event]:
    """Everything the body does as a whole, in order of time; never empty."""
    down = _postures(k, limits)
    busy_down = signals.flags_of([span for _, span in down], len(k))
    travel = _travel(k, limits, busy_down)
    jumps = _jumps(k, limits, [span for kind, span, _ in travel if kind == "run"]) if _legs_seen(k) else []
    jumping = signals.flags_of([span for span, _ in jumps], len(k))
    events = [event("body", kind, span, _way(k, span), joint="pelvis") for kind, span in down]
    events += [event("body", "get_up", span, amount, joint="pelvis") for span, amount in _risings(k, limits, down)]
    events += [event("body", "jump", span, amount, joint="pelvis") for span, amount in jumps]
    dips = [] if not _legs_seen(k) else _squats(k, limits, busy_down | jumping)
    events += [event("body", "squat", span, amount, joint="pelvis") for span, amount in dips]
    dipping = signals.flags_of([span for span, _ in dips], len(k))
    events += [event("body", "bow", s, a, joint="spine1") for s, a in _bows(k, limits, busy_down | jumping | dipping)]
    for kind, span, amount in travel:
        if not jumping[slice(*span)].mean() > 0.5:
            side = kind.removeprefix("sidestep_") if kind.startswith("sidestep_") else "none"
            events.append(event("body", kind, span, amount, joint="pelvis", side=side))
    events += _turns(k, limits, busy_down)
    events += _stands(k, limits, events)
    return events or [_whatever(k, limits)]


def _legs_seen(k: Kinematics) -> bool:
    return k.seen["left_leg"] or k.seen["right_leg"]


def _pelvis_height(k: Kinematics) -> Float[np.ndarray, "T"]:
    return k.in_world("pelvis")[:, 1]


def _way(k: Kinematics, span: Span) -> float:
    """Length of the way over the ground, metres."""
    return float(np.linalg.norm(k.velocity[slice(*span)], axis=-1).sum() / FPS)


def _travel(k: Kinematics, limits: Thresholds, busy: Bool[np.ndarray, "T"]) -> list[tuple[str, Span, float]]:
    """Walking, running, backwards and sideways: stretches of motion, cut where the direction changes for long."""
    speed = np.where(busy, 0.0, np.linalg.norm(k.velocity, axis=-1))
    found = []
    for span in signals.hysteresis(speed, limits.travel_on_mps, limits.travel_off_mps, 3, round(0.2 * FPS)):
        left, ahead = signals.smooth_path(k.velocity[slice(*span)], 0.1 * FPS).T
        angle = np.arctan2(left, ahead)
        labels = np.select(
            [abs(angle) < limits.side_rad, abs(angle) > np.pi - limits.side_rad, angle > 0],
            ["walk", "walk_backward", "sidestep_left"],
            "sidestep_right",
        )
        for kind, (first, last) in _majorities(labels, round(limits.travel_least_s * FPS)):
            piece = (span[0] + first, span[0] + last)
            way = _way(k, piece)
            if way < limits.travel_least_m or last - first < limits.travel_least_s * FPS:
                continue
            top = np.percentile(speed[slice(*piece)], 70)
            found.append(("run" if kind == "walk" and top > limits.run_mps else kind, piece, way))
    return found


def _majorities(labels: np.ndarray, shortest: int) -> list[tuple[str, Span]]:
    """Runs of equal labels; runs shorter than `shortest` join the longer neighbour."""
    labels = labels.copy()
    while True:
        edges = [0, *(np.flatnonzero(labels[1:] != labels[:-1]) + 1).tolist(), len(labels)]
        runs: list[Span] = list(pairwise(edges))
        i = min(range(len(runs)), key=lambda at: runs[at][1] - runs[at][0])
        if len(runs) == 1 or runs[i][1] - runs[i][0] >= shortest:
            return [(str(labels[first]), (first, last)) for first, last in runs]
        near = [runs[at] for at in (i - 1, i + 1) if 0 <= at < len(runs)]
        longer = max(near, key=lambda run: run[1] - run[0])
        labels[slice(*runs[i])] = labels[longer[0]]


def _turns(k: Kinematics, limits: Thresholds, busy: Bool[np.ndarray, "T"]) -> list[Event]:
    rate = abs(signals.derivative(k.heading, FPS))
    found = []
    for sweep in signals.sweeps(k.heading, limits.turn_least_rad, trim=0.02):
        moving = np.zeros(len(k), bool)
        moving[slice(*sweep)] = rate[slice(*sweep)] > limits.turn_rate_radps
        for span in signals.spans_of(moving, 3, round(limits.turn_pause_s * FPS)):
            turned = float(k.heading[span[1] - 1] - k.heading[span[0]])
            if abs(turned) < limits.turn_least_rad or busy[slice(*span)].mean() > 0.5:
                continue
            side = "left" if turned > 0 else "right"
            kind = "spin" if abs(turned) > limits.spin_rad else f"turn_{side}"
            found.append(event("body", kind, span, abs(turned), joint="pelvis", side=side))
    return found


def _jumps(k: Kinematics, limits: Thresholds, runs: list[Span]) -> list[tuple[Span, float]]:
    """Flights of both feet that lift the pelvis; in a run only those that lift it far more than a stride does."""
    lift = np.full(len(k), np.inf)
    for side in SIDES:
        lift = np.minimum(lift, k.in_world(f"{side}_ankle")[:, 1] - k.size.ankle_m)
        lift = np.minimum(lift, k.in_world(f"{side}_foot")[:, 1] - k.size.toe_m)
    lift = lift - max(0.0, float(np.percentile(lift, 10)))
    height, margin = _pelvis_height(k), round(_JUMP_MARGIN_S * FPS)
    found = []
    for span in signals.hysteresis(
        lift, 1.4 * limits.flight_m, 0.5 * limits.flight_m, max(2, round(limits.flight_s * FPS))
    ):
        wide = (max(0, span[0] - margin), min(len(k), span[1] + margin))
        rise = float(height[slice(*span)].max() - np.median(height[slice(*wide)]))
        least = limits.jump_least_m * (1.8 if signals.covered(span, runs) > 0.5 else 0.6)
        if rise > least:
            found.append(
                (
                    wide,
                    float(height[slice(*span)].max() - height[[span[0], span[1] - 1]].min() + lift[slice(*span)].min()),
                )
            )
    return _joined(found)


def _joined(found: list[tuple[Span, float]]) -> list[tuple[Span, float]]:
    """Neighbours that overlap meet in the middle."""
    found = sorted(found)
    for i in range(1, len(found)):
        (a, b), (c, d) = found[i - 1][0], found[i][0]
        if c < b:
            middle = (b + c) // 2
            found[i - 1], found[i] = ((a, middle), found[i - 1][1]), ((middle, d), found[i][1])
    return found


def _squats(k: Kinematics, limits: Thresholds, busy: Bool[np.ndarray, "T"]) -> list[tuple[Span, float]]:
    height = _pelvis_height(k)
    around = round(0.3 * FPS)
    knees = np.minimum(k.knee["left"], k.knee["right"])
    top = max(float(np.percentile(height, 90)), 0.85 * k.size.pelvis_m)
    found = []
    for span in signals.hysteresis(top - height, limits.squat_least_m, 0.3 * limits.squat_least_m, round(0.4 * FPS)):
        # Several squats may follow without standing up fully: cut at the tops between them.
        points = signals.turning_points(height[slice(*span)], 0.7 * limits.squat_least_m)
        tops = [p for p in points[1:-1] if height[span[0] + p] > height[span[0] : span[1]].mean()]
        edges = [span[0], *(span[0] + p for p in tops), span[1]]
        for piece in pairwise(edges):
            inside = slice(*piece)
            bottom = piece[0] + int(np.argmin(height[inside]))
            bent = knees[bottom] > limits.squat_knee_rad and k.tilt[bottom] < limits.upright_rad + 0.3
            near = slice(max(0, bottom - around), bottom + around)
            if (
                bent
                and busy[inside].mean() < 0.3
                and not busy[near].any()
                and top - height[bottom] >= limits.squat_least_m
            ):
                found.append((piece, float(top - height[bottom])))
    return found


def _bows(k: Kinematics, limits: Thresholds, busy: Bool[np.ndarray, "T"]) -> list[tuple[Span, float]]:
    upright = float(np.percentile(k.pitch, 20))
    lean = k.pitch - max(0.0, min(upright, 0.2))
    tall = _pelvis_height(k) > limits.bow_pelvis_ratio * k.size.pelvis_m
    slow = np.linalg.norm(k.velocity, axis=-1) < 0.6
    found = []
    for span in signals.hysteresis(lean, limits.bow_least_rad, 0.25 * limits.bow_least_rad, round(0.4 * FPS)):
        inside = slice(*span)
        if busy[inside].mean() < 0.3 and tall[inside].mean() > 0.6 and slow[inside].mean() > 0.7:
            found.append((span, float(lean[inside].max())))
    return found


def _postures(k: Kinematics, limits: Thresholds) -> list[tuple[str, Span]]:
    """Stretches of lying, crawling and sitting."""
    height, neck = _pelvis_height(k) / k.size.pelvis_m, k.in_world("neck")[:, 1] / k.size.pelvis_m
    ankles = (k.at("left_ankle") + k.at("right_ankle"))[:, 2] / 2
    hands = np.maximum(k.in_world("left_wrist")[:, 1], k.in_world("right_wrist")[:, 1])
    low = (height < limits.lie_ratio) & (neck < limits.lie_ratio) & (k.tilt > limits.upright_rad)
    fours = ~low & (k.tilt > limits.upright_rad) & (height < 0.9) & (hands < limits.hands_down_m)
    creeping = fours & (np.linalg.norm(k.velocity, axis=-1) > limits.crawl_mps)
    behind = (ankles > limits.sit_behind_ratio * k.size.leg_m) | (height < limits.lie_ratio)
    sitting = (height < limits.sit_ratio) & (k.tilt < limits.upright_rad) & behind
    shortest, gap = round(limits.posture_least_s * FPS), round(0.3 * FPS)
    found: list[tuple[str, Span]] = []
    for kind, flags in (("lie", low), ("crawl", creeping), ("sit", sitting)):
        if kind == "sit" and not _legs_seen(k):
            continue
        found += [(kind, span) for span in signals.spans_of(flags, shortest, gap)]
    return sorted(found, key=lambda one: one[1])


def _risings(k: Kinematics, limits: Thresholds, down: list[tuple[str, Span]]) -> list[tuple[Span, float]]:
    """From the end of the last low posture to standing."""
    height = _pelvis_height(k)
    standing = (height > 0.85 * k.size.pelvis_m) & (k.tilt < limits.upright_rad)
    found = []
    for i, (_, (_, last)) in enumerate(down):
        until = down[i + 1][1][0] if i + 1 < len(down) else len(k)
        up = np.flatnonzero(standing[last:until])
        if len(up) and up[0] >= 2:
            begin = max(0, last - round(0.2 * FPS))
            found.append(((begin, last + int(up[0])), float(height[last + up[0]] - height[begin])))
    return found


def _stands(k: Kinematics, limits: Thresholds, events: list[Event]) -> list[Event]:
    taken = np.zeros(len(k), bool)
    for one in events:
        taken[round(one.start_s * FPS) : round(one.end_s * FPS)] = True
    tall = (_pelvis_height(k) > 0.85 * k.size.pelvis_m) & (k.tilt < limits.upright_rad)
    spans = signals.spans_of(tall & ~taken, round(limits.stand_least_s * FPS))
    if not events and tall.mean() > 0.5:
        spans = [(0, len(k))]
    return [event("body", "stand", span, _way(k, span), joint="pelvis") for span in spans]


def _whatever(k: Kinematics, limits: Thresholds) -> Event:
    """What to call a motion in which no rule finds anything: its posture."""
    height = float(np.median(_pelvis_height(k)) / k.size.pelvis_m)
    tilted = float(np.median(k.tilt)) > limits.upright_rad
    if not _legs_seen(k):
        kind = "stand"
    elif tilted:
        kind = "lie" if height < limits.lie_ratio else "bow"
    else:
        kind = "stand" if height > 0.8 else "squat" if height > limits.lie_ratio else "sit"
    return event("body", kind, (0, len(k)), _way(k, (0, len(k))), joint="pelvis")
