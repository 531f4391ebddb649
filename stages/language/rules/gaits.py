"""Rules for locomotion and turns."""

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise

import numpy as np
from jaxtyping import Bool, Float
from scipy.ndimage import median_filter

from schemas.curves import smooth
from schemas.records import FPS
from stages.language.rules import signals
from stages.language.rules.kinematics import SIDES, Kinematics, feet_lift
from stages.language.rules.movements import Movement, movement
from stages.language.rules.signals import Span
from stages.language.rules.strides import Strides, on_the_spot, strides
from stages.language.rules.thresholds import Thresholds

_STRIDE_S = 0.35
"""Sigma of the trend subtracted from the pelvis height: slower changes are no part of a stride."""


def path_length_m(k: Kinematics, span: Span) -> float:
    """Length of the pelvis path over the ground, metres."""
    return float(np.linalg.norm(k.velocity[slice(*span)], axis=-1).sum() / FPS)


def gaits(k: Kinematics, limits: Thresholds, busy: Bool[np.ndarray, "T"]) -> list[Movement]:
    """Walking, running, walking backwards and sidesteps: spans of travel, split at lasting changes of direction."""
    speed = np.where(busy, 0.0, np.linalg.norm(k.velocity, axis=-1))
    rhythm, legs = _Rhythm(k), strides(k)
    events = []
    for span in signals.hysteresis(speed, limits.travel_on_mps, limits.travel_off_mps, 3, round(0.2 * FPS)):
        left, ahead = signals.smooth_path(k.velocity[slice(*span)], 0.1 * FPS).T
        angle = np.arctan2(left, ahead)
        labels = np.select(
            [abs(angle) < limits.side_rad, abs(angle) > np.pi - limits.side_rad, angle > 0],
            ["walk", "walk_backward", "sidestep_left"],
            "sidestep_right",
        )
        for kind, (first, last) in _merged_runs(labels, round(limits.travel_least_s * FPS)):
            piece = (span[0] + first, span[0] + last)
            distance_m = path_length_m(k, piece)
            if distance_m < limits.travel_least_m or last - first < limits.travel_least_s * FPS:
                continue
            kind, sure = _agreed(kind, k, legs, piece, limits)
            if not kind:
                continue
            side = kind.removeprefix("sidestep_") if kind.startswith("sidestep_") else "none"
            if kind == "walk":
                runs = _runs(rhythm, speed, piece, limits) and _runs_by_legs(k, piece, limits)
                kind = "run" if runs else "walk"
                drift = float(np.arctan2(left[first:last].mean(), ahead[first:last].mean()))
                side = ("left" if drift > 0 else "right") if sure and abs(drift) > limits.diagonal_rad else "none"
            slow = kind == "run" and distance_m * FPS / (last - first) < limits.jog_mps
            manner = "diagonal" if kind in ("walk", "run") and side != "none" else "slow" if slow else ""
            told = sure and (kind == "run" or legs.disagreement(k, piece) < limits.strides.surest)
            event = movement(
                "body", kind, piece, distance_m, joint="pelvis", side=side, manner=manner if sure else "unsure"
            )
            events.append(replace(event, measured=told))
    walked = signals.mask_of(spans(events, *(event.kind for event in events)), len(k))
    for span in on_the_spot(k, legs, limits.strides, busy | walked):
        event = movement("body", "walk", span, path_length_m(k, span), joint="pelvis", manner="unsure")
        events.append(replace(event, measured=False))
    return events


def _agreed(kind: str, k: Kinematics, legs: Strides, span: Span, limits: Thresholds) -> tuple[str, bool]:
    """The kind of a way on which body and legs agree, and whether its direction is sure; empty for a body that is carried, or whose
    steps back or aside belong to a turn."""
    own = limits.strides
    visible = all(k.visible[f"{side}_leg"] for side in SIDES)
    turn_rad = float(np.abs(np.diff(k.heading[slice(*span)])).sum())
    turning = kind != "walk" and path_length_m(k, span) < own.turning_m_per_rad * turn_rad
    ahead = legs.alternate(span, own) and legs.forward_mps(span) > own.forward_mps
    # Legs that are hardly seen have to show strides; whoever rides something sways on legs that are estimated to shuffle.
    if not turning and legs.disagreement(k, span) <= own.sure and (visible or ahead):
        return kind, True
    walks = ahead or (kind == "walk" and visible and legs.carry(k, span, own))
    return ("walk" if walks else "", False)


class _Rhythm:
    """Phase of the vertical pelvis motion relative to the leg spread.

    In walking the body vaults over a straight leg and is highest when the legs pass; in running it bounces and is lowest
    then (Cavagna, Heglund and Taylor 1977, "Mechanical work in terrestrial locomotion"). This separates slow runs from fast
    walks and is robust to a fit that slides or floats.
    """

    def __init__(self, k: Kinematics) -> None:
        height = k.joints[:, 0, 1]
        between_ankles = k.in_body("left_ankle") - k.in_body("right_ankle")
        direction = k.velocity / np.linalg.norm(k.velocity, axis=-1, keepdims=True).clip(1e-6)
        spread = abs((between_ankles[:, [0, 2]] * direction).sum(-1))
        self._bounce = height - smooth(height, _STRIDE_S * FPS)
        self._spread = spread - smooth(spread, _STRIDE_S * FPS)

    def bounce_m(self, span: Span) -> float:
        """Standard deviation of the pelvis height, metres."""
        return float(self._bounce[slice(*span)].std())

    def correlation(self, span: Span) -> float:
        """Correlation of pelvis height and leg spread: positive in a run, negative in a walk."""
        height, spread = self._bounce[slice(*span)], self._spread[slice(*span)]
        return float((height * spread).mean() / max(1e-9, height.std() * spread.std()))


def _runs(rhythm: _Rhythm, speed: Float[np.ndarray, "T"], span: Span, limits: Thresholds) -> bool:
    top = float(np.percentile(speed[slice(*span)], 70))
    if top > limits.run_mps:
        return True
    if top < limits.run_slowest_mps or rhythm.bounce_m(span) < limits.run_bounce_m:
        return False
    long_enough = span[1] - span[0] >= limits.run_rhythm_s * FPS
    return long_enough and rhythm.correlation(span) > limits.run_agreement


def _runs_by_legs(k: Kinematics, span: Span, limits: Thresholds) -> bool:
    """Whether strides fly, or both knees bend as a runner's do; unknown legs run."""
    if not (k.visible["left_leg"] or k.visible["right_leg"]):
        return True
    inside = slice(*span)
    flying = float((feet_lift(k)[inside] > limits.run_flight_m).mean()) > limits.run_flight_share
    return flying or min(float(k.knee[side][inside].max()) for side in SIDES) > limits.run_knee_rad


def _merged_runs(labels: np.ndarray, min_frames: int) -> list[tuple[str, Span]]:
    """Runs of equal labels; runs shorter than `min_frames` are merged into the longer neighbour."""
    labels = labels.copy()
    while True:
        edges = [0, *(np.flatnonzero(labels[1:] != labels[:-1]) + 1).tolist(), len(labels)]
        runs: list[Span] = list(pairwise(edges))
        i = min(range(len(runs)), key=lambda index: runs[index][1] - runs[index][0])
        if len(runs) == 1 or runs[i][1] - runs[i][0] >= min_frames:
            return [(str(labels[first]), (first, last)) for first, last in runs]
        neighbours = [runs[index] for index in (i - 1, i + 1) if 0 <= index < len(runs)]
        longer = max(neighbours, key=lambda run: run[1] - run[0])
        labels[slice(*runs[i])] = labels[longer[0]]


def turns(k: Kinematics, limits: Thresholds, busy: Bool[np.ndarray, "T"]) -> list[Movement]:
    """Turns and spins; a spin is a quick full rotation. Walking a slow circle is a turn. A turn that is undone at once is none: the
    heading of people who are small in the picture goes to and fro."""
    events = [turn for turn in _turns(k.heading, limits, busy) if turn.kind == "spin"]
    lasting = median_filter(k.heading, 2 * round(limits.turn_undone_s * FPS) + 1, mode="nearest")
    spun = spans(events, "spin")
    for turn in _turns(lasting, limits, busy):
        (span,) = spans([turn], turn.kind)
        if turn.kind != "spin" and signals.covered(span, spun) < 0.5:
            events.append(turn)
    return sorted(events, key=lambda event: event.start_s)


def _turns(heading: Float[np.ndarray, "T"], limits: Thresholds, busy: Bool[np.ndarray, "T"]) -> list[Movement]:
    rate = abs(signals.derivative(heading, FPS))
    events = []
    for sweep in signals.sweeps(heading, limits.turn_least_rad, trim=0.02):
        moving = np.zeros(len(heading), bool)
        moving[slice(*sweep)] = rate[slice(*sweep)] > limits.turn_rate_radps
        for span in signals.spans_of(moving, 3, round(limits.turn_pause_s * FPS)):
            angle = float(heading[span[1] - 1] - heading[span[0]])
            if abs(angle) < limits.turn_least_rad or busy[slice(*span)].mean() > 0.5:
                continue
            side = "left" if angle > 0 else "right"
            quick = abs(angle) * FPS / (span[1] - span[0]) > limits.spin_radps
            kind = "spin" if abs(angle) > limits.spin_rad and quick else f"turn_{side}"
            manner = "around" if abs(angle) > limits.turn_around_rad and kind != "spin" else ""
            events.append(movement("body", kind, span, abs(angle), joint="pelvis", side=side, manner=manner))
    return events


def spans(events: Sequence[Movement], *kinds: str) -> list[Span]:
    """Spans in frames of all events of the given kinds."""
    return [(round(e.start_s * FPS), round(e.end_s * FPS)) for e in events if e.kind in kinds]
