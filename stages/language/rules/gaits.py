"""Rules for going somewhere and for turning."""

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
from jaxtyping import Bool, Float

from schemas.curves import smooth
from schemas.records import FPS
from stages.language.rules import signals
from stages.language.rules.kinematics import Kinematics
from stages.language.rules.movements import Movement, movement
from stages.language.rules.signals import Span
from stages.language.rules.thresholds import Thresholds

_STRIDE_S = 0.35
"""Sigma of what is taken off the bounce of the pelvis: slower is no part of a stride."""


def way_m(k: Kinematics, span: Span) -> float:
    """Length of the way over the ground, metres."""
    return float(np.linalg.norm(k.velocity[slice(*span)], axis=-1).sum() / FPS)


def gaits(k: Kinematics, limits: Thresholds, busy: Bool[np.ndarray, "T"]) -> list[Movement]:
    """Walking, running, backwards and sideways: stretches of motion, cut where the direction changes for long."""
    speed = np.where(busy, 0.0, np.linalg.norm(k.velocity, axis=-1))
    rhythm = _Rhythm(k)
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
            way = way_m(k, piece)
            if way < limits.travel_least_m or last - first < limits.travel_least_s * FPS:
                continue
            side = kind.removeprefix("sidestep_") if kind.startswith("sidestep_") else "none"
            if kind == "walk":
                kind = "run" if _runs(rhythm, speed, piece, limits) else "walk"
                drift = float(np.arctan2(left[first:last].mean(), ahead[first:last].mean()))
                side = ("left" if drift > 0 else "right") if abs(drift) > limits.diagonal_rad else "none"
            slow = kind == "run" and way * FPS / (last - first) < limits.jog_mps
            manner = "diagonal" if kind in ("walk", "run") and side != "none" else "slow" if slow else ""
            found.append(movement("body", kind, piece, way, joint="pelvis", side=side, manner=manner))
    return found


class _Rhythm:
    """How the pelvis goes up and down as the legs part and pass.

    Walking is vaulting over a straight leg, highest when the legs pass; running is bouncing, lowest then (Cavagna, Heglund
    and Taylor 1977, "Mechanical work in terrestrial locomotion"). It tells slow runs from fast walks, and holds where a
    fit slides or floats.
    """

    def __init__(self, k: Kinematics) -> None:
        height = k.joints[:, 0, 1]
        apart = k.at("left_ankle") - k.at("right_ankle")
        along = k.velocity / np.linalg.norm(k.velocity, axis=-1, keepdims=True).clip(1e-6)
        split = abs((apart[:, [0, 2]] * along).sum(-1))
        self._bounce = height - smooth(height, _STRIDE_S * FPS)
        self._split = split - smooth(split, _STRIDE_S * FPS)

    def bounce_m(self, span: Span) -> float:
        """Deviation of the pelvis' height."""
        return float(self._bounce[slice(*span)].std())

    def agreement(self, span: Span) -> float:
        """Correlation of height and spread of the legs: positive in a run, negative in a walk."""
        one, other = self._bounce[slice(*span)], self._split[slice(*span)]
        return float((one * other).mean() / max(1e-9, one.std() * other.std()))


def _runs(rhythm: _Rhythm, speed: Float[np.ndarray, "T"], span: Span, limits: Thresholds) -> bool:
    top = float(np.percentile(speed[slice(*span)], 70))
    if top > limits.run_mps:
        return True
    if top < limits.run_slowest_mps or rhythm.bounce_m(span) < limits.run_bounce_m:
        return False
    long_enough = span[1] - span[0] >= limits.run_rhythm_s * FPS
    return long_enough and rhythm.agreement(span) > limits.run_agreement


def _majorities(labels: np.ndarray, shortest: int) -> list[tuple[str, Span]]:
    """Runs of equal labels; runs shorter than `shortest` join the longer neighbour."""
    labels = labels.copy()
    while True:
        edges = [0, *(np.flatnonzero(labels[1:] != labels[:-1]) + 1).tolist(), len(labels)]
        stretches: list[Span] = list(pairwise(edges))
        i = min(range(len(stretches)), key=lambda at: stretches[at][1] - stretches[at][0])
        if len(stretches) == 1 or stretches[i][1] - stretches[i][0] >= shortest:
            return [(str(labels[first]), (first, last)) for first, last in stretches]
        near = [stretches[at] for at in (i - 1, i + 1) if 0 <= at < len(stretches)]
        longer = max(near, key=lambda stretch: stretch[1] - stretch[0])
        labels[slice(*stretches[i])] = labels[longer[0]]


def turns(k: Kinematics, limits: Thresholds, busy: Bool[np.ndarray, "T"]) -> list[Movement]:
    """Turns, and spins: turns all the way round and quick. A slow circle that somebody walks is a turn."""
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
            quick = abs(turned) * FPS / (span[1] - span[0]) > limits.spin_radps
            kind = "spin" if abs(turned) > limits.spin_rad and quick else f"turn_{side}"
            manner = "around" if abs(turned) > limits.turn_around_rad and kind != "spin" else ""
            found.append(movement("body", kind, span, abs(turned), joint="pelvis", side=side, manner=manner))
    return found


def spans(events: Sequence[Movement], *kinds: str) -> list[Span]:
    """When one of the kinds goes on, in frames."""
    return [(round(e.start_s * FPS), round(e.end_s * FPS)) for e in events if e.kind in kinds]
