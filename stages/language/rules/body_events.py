"""Rules for the whole body: how it holds itself, jumps, squats, bows, goes head over heels."""

from itertools import pairwise

import numpy as np
from jaxtyping import Bool, Float

from schemas.records import FPS
from stages.language.rules import signals
from stages.language.rules.gaits import gaits, spans, turns, way_m
from stages.language.rules.kinematics import SIDES, Kinematics
from stages.language.rules.movements import Movement, movement
from stages.language.rules.signals import Span
from stages.language.rules.thresholds import Thresholds

_JUMP_MARGIN_S = 0.45
"""Take-off and landing around a flight belong to the jump."""


def body_events(k: Kinematics, limits: Thresholds) -> list[Movement]:
    """Everything the body does as a whole, in order of time; never empty."""
    over = _tumbles(k, limits)
    tumbling = signals.flags_of(spans(over, "roll", "flip", "cartwheel"), len(k))
    down = _postures(k, limits, tumbling)
    busy = tumbling | signals.flags_of([span for _, span in down], len(k))
    turned = turns(k, limits, busy)
    # Who spins goes round, not to the side and backwards in turns.
    going = gaits(k, limits, busy | signals.flags_of(spans(turned, "spin"), len(k)))
    jumps = _jumps(k, limits, going, tumbling) if _legs_seen(k) else []
    jumping = signals.flags_of([span for span, _ in jumps], len(k))
    events = over + [movement("body", kind, span, way_m(k, span), joint="pelvis") for kind, span in down]
    events += [movement("body", "get_up", span, amount, joint="pelvis") for span, amount in _risings(k, limits, down)]
    events += [
        movement("body", "jump", span, amount, joint="pelvis", manner=_jump_manner(k, span)) for span, amount in jumps
    ]
    bows = _bows(k, limits, busy | jumping)
    bowing = signals.flags_of([span for span, _, _ in bows], len(k))
    events += [movement("body", "bow", s, a, joint="spine1", manner=manner) for s, a, manner in bows]
    dips = _squats(k, limits, busy | jumping | bowing) if _legs_seen(k) else []
    events += [movement("body", "squat", span, amount, joint="pelvis") for span, amount in dips]
    events += [one for one in going if jumping[slice(*spans([one], one.kind)[0])].mean() <= 0.5]
    events += turned
    events += _stands(k, limits, events)
    return events or [_whatever(k, limits)]


def _legs_seen(k: Kinematics) -> bool:
    return k.seen["left_leg"] or k.seen["right_leg"]


def _pelvis_height(k: Kinematics) -> Float[np.ndarray, "T"]:
    return k.in_world("pelvis")[:, 1]


def _tumbles(k: Kinematics, limits: Thresholds) -> list[Movement]:
    """Head over heels: rolls over the ground, flips through the air, cartwheels over the hands."""
    found = []
    for first, last in signals.spans_of(k.inverted < limits.upside_down, 2, round(0.2 * FPS)):
        upright = np.flatnonzero(k.inverted > limits.upright_again)
        begin = int(upright[upright < first][-1]) if (upright < first).any() else 0
        end = int(upright[upright > last][0]) + 1 if (upright > last).any() else len(k)
        # Unlike a headstand, it goes round.
        angle = np.abs(k.tumbling[begin:end].sum(axis=0) / FPS)
        if max(angle[0], angle[2]) < limits.tumble_least_rad:
            continue
        low = float(_pelvis_height(k)[begin:end].min()) < limits.roll_ratio * k.size.pelvis_m
        hands = min(float(k.in_world(f"{side}_wrist")[first:last, 1].min()) for side in SIDES)
        kind = "roll" if low else "cartwheel" if hands < limits.hands_down_m else "flip"
        span = (begin, end)
        forwards = float(k.tumbling[begin:end, 0].sum()) > 0
        manner = "" if kind == "cartwheel" or angle[2] > angle[0] else "front" if forwards else "back"
        found.append(movement("body", kind, span, float(max(angle[0], angle[2])), joint="pelvis", manner=manner))
    return [one for i, one in enumerate(found) if not i or one.start_s >= found[i - 1].end_s]


def _jumps(
    k: Kinematics, limits: Thresholds, going: list[Movement], tumbling: Bool[np.ndarray, "T"]
) -> list[tuple[Span, float]]:
    """Flights of both feet that lift the pelvis; the legs push off, and who is under way goes far higher than a stride."""
    lift = np.full(len(k), np.inf)
    for side in SIDES:
        lift = np.minimum(lift, k.in_world(f"{side}_ankle")[:, 1] - k.size.ankle_m)
        lift = np.minimum(lift, k.in_world(f"{side}_foot")[:, 1] - k.size.toe_m)
    height, margin = _pelvis_height(k), round(_JUMP_MARGIN_S * FPS)
    knees = np.maximum(k.knee["left"], k.knee["right"])
    walks, runs = spans(going, "walk", "walk_backward"), spans(going, "run")
    found = []
    for span in signals.hysteresis(lift, 1.4 * limits.flight_m, 0.5 * limits.flight_m, round(limits.flight_s * FPS)):
        wide = (max(0, span[0] - margin), min(len(k), span[1] + margin))
        rise = float(height[slice(*span)].max() - np.median(height[slice(*wide)]))
        running, walking = signals.covered(span, runs) > 0.5, signals.covered(span, walks) > 0.5
        least = limits.jump_least_m * (limits.leap_factor if running else 1.2 if walking else 0.6)
        pushed = float(np.ptp(knees[slice(*wide)])) > limits.jump_knee_rad
        upright = np.median(k.tilt[slice(*span)]) < limits.upright_rad
        high = height[slice(*span)].max() > limits.jump_pelvis_ratio * k.size.pelvis_m
        if rise > least and pushed and upright and high and not tumbling[slice(*span)].any():
            edge = height[[span[0], span[1] - 1]].min()
            found.append((wide, float(height[slice(*span)].max() - edge + lift[slice(*span)].min())))
    return _joined(found)


def _jump_manner(k: Kinematics, span: Span) -> str:
    """`ahead` for a jump that gets somewhere."""
    way = k.in_world("pelvis")[span[1] - 1] - k.in_world("pelvis")[span[0]]
    heading = float(np.mean(k.heading[slice(*span)]))
    return "ahead" if way[0] * np.sin(heading) + way[2] * np.cos(heading) > 0.6 else ""


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


def _bows(k: Kinematics, limits: Thresholds, busy: Bool[np.ndarray, "T"]) -> list[tuple[Span, float, str]]:
    """Leaning forwards and coming back; `down` in the place of a manner where the pelvis sinks along and it is no bow."""
    upright = float(np.percentile(k.pitch, 20))
    lean = k.pitch - max(0.0, min(upright, 0.2))
    height = _pelvis_height(k) / k.size.pelvis_m
    slow = np.linalg.norm(k.velocity, axis=-1) < limits.bow_slow_mps
    found = []
    for span in signals.hysteresis(lean, limits.bow_least_rad, 0.4 * limits.bow_least_rad, round(0.4 * FPS)):
        inside = slice(*span)
        deepest = span[0] + int(np.argmax(lean[inside]))
        tall = height[deepest] > limits.bow_pelvis_ratio
        down = not tall and lean[deepest] > limits.bend_down_rad
        if (tall or down) and busy[inside].mean() < 0.3 and slow[inside].mean() > 0.7:
            manner = "down" if down else "deep" if lean[deepest] > limits.bow_deep_rad else ""
            found.append((span, float(lean[inside].max()), manner))
    return found


def _postures(k: Kinematics, limits: Thresholds, tumbling: Bool[np.ndarray, "T"]) -> list[tuple[str, Span]]:
    """Stretches of lying, crawling and sitting."""
    height, neck = _pelvis_height(k) / k.size.pelvis_m, k.in_world("neck")[:, 1] / k.size.pelvis_m
    ankles = (k.at("left_ankle") + k.at("right_ankle"))[:, 2] / 2
    hands = np.maximum(k.in_world("left_wrist")[:, 1], k.in_world("right_wrist")[:, 1])
    flat = (height < limits.lie_ratio) & (neck < limits.lie_ratio) & (k.tilt > limits.upright_rad)
    fours = (k.tilt > limits.upright_rad) & (height < 0.9) & (hands < limits.hands_down_m)
    speed = np.linalg.norm(signals.smooth_path(k.velocity, 0.2 * FPS), axis=-1)
    creeping = fours & (speed > np.where(flat, limits.creep_mps, limits.crawl_mps)) & ~tumbling
    crawls = [
        span
        for span in signals.spans_of(creeping, round(limits.posture_least_s * FPS), round(0.5 * FPS))
        if way_m(k, span) > limits.crawl_least_m
    ]
    low = flat & ~signals.flags_of(crawls, len(k)) & ~tumbling
    behind = (ankles > limits.sit_behind_ratio * k.size.leg_m) | (height < limits.lie_ratio)
    sitting = (height < limits.sit_ratio) & (k.tilt < limits.upright_rad) & behind & ~tumbling
    shortest, gap = round(limits.posture_least_s * FPS), round(0.3 * FPS)
    found: list[tuple[str, Span]] = [("crawl", span) for span in crawls]
    for kind, flags in (("lie", low), ("sit", sitting)):
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


def _stands(k: Kinematics, limits: Thresholds, events: list[Movement]) -> list[Movement]:
    taken = np.zeros(len(k), bool)
    for one in events:
        taken[round(one.start_s * FPS) : round(one.end_s * FPS)] = True
    tall = (_pelvis_height(k) > 0.85 * k.size.pelvis_m) & (k.tilt < limits.upright_rad)
    free = signals.spans_of(tall & ~taken, round(limits.stand_least_s * FPS))
    if not events and tall.mean() > 0.5:
        free = [(0, len(k))]
    return [movement("body", "stand", span, way_m(k, span), joint="pelvis") for span in free]


def _whatever(k: Kinematics, limits: Thresholds) -> Movement:
    """What to call a motion in which no rule finds anything: its posture."""
    height = float(np.median(_pelvis_height(k)) / k.size.pelvis_m)
    tilted = float(np.median(k.tilt)) > limits.upright_rad
    if not _legs_seen(k):
        kind = "stand"
    elif tilted:
        kind = "lie" if height < limits.lie_ratio else "bow"
    else:
        kind = "stand" if height > 0.8 else "squat" if height > limits.lie_ratio else "sit"
    return movement("body", kind, (0, len(k)), way_m(k, (0, len(k))), joint="pelvis")
