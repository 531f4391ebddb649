"""What the legs themselves show of a way: the velocity at which they carry the body, and strides that lead nowhere.

The path of a person before a moving camera is an estimate; the motion of the legs relative to the body is seen. A foot on the
ground moves back under the body as fast as the body moves ahead.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float

from schemas.records import FPS
from stages.language.rules import signals
from stages.language.rules.activity_thresholds import StrideThresholds
from stages.language.rules.kinematics import SIDES, Kinematics
from stages.language.rules.signals import Span, box_mean

_SMOOTH_S = 0.5
"""Window of the mean velocity of the legs: about a step."""
_STILL_S = 0.03
"""The foot that stands is the lower and the slower one: this many seconds of its speed count as height."""


@dataclass(frozen=True, eq=False)
class Strides:
    """The legs' account of a motion."""

    velocity: Float[np.ndarray, "T 2"]
    """Ground velocity of the pelvis if the foot on the ground stands, to the left and forwards, metres a second."""
    spread: Float[np.ndarray, "T"]
    """How far the left ankle is ahead of the right one, metres."""
    feet_mps: Float[np.ndarray, "T"]
    """Mean speed of both ankles over the ground relative to the body."""

    def disagreement(self, k: Kinematics, span: Span) -> float:
        """Difference of the body's mean velocity from the legs', as a share of the former; 0 where both are the same."""
        body, legs = (velocity[slice(*span)].mean(0) for velocity in (k.velocity, self.velocity))
        return float(np.linalg.norm(body - legs) / max(1e-6, float(np.linalg.norm(body))))

    def forward_mps(self, span: Span) -> float:
        """Mean velocity forwards, as the legs show it."""
        return float(self.velocity[slice(*span), 1].mean())

    def carry(self, k: Kinematics, span: Span, limits: StrideThresholds) -> bool:
        """Whether the feet move under the body as feet that carry it have to."""
        return float(self.feet_mps[slice(*span)].mean()) > limits.carried_share * float(
            np.linalg.norm(k.velocity[slice(*span)], axis=-1).mean()
        )

    def alternate(self, span: Span, limits: StrideThresholds) -> bool:
        """Whether the legs pass each other within a span, each time far enough for a stride."""
        points = signals.turning_points(self.spread[slice(*span)], limits.width_m)
        return len(points) >= 2 + limits.least_turns


def strides(k: Kinematics) -> Strides:
    """The legs' account. In body axes a standing foot also turns about a turning body, which is no way."""
    yaw_rate = signals.derivative(k.heading, FPS)[:, None]
    ankles = {side: k.in_body(f"{side}_ankle") for side in SIDES}
    feet_mps = np.linalg.norm(np.stack([signals.derivative(a[:, [0, 2]], FPS) for a in ankles.values()]), axis=-1)
    by_leg = np.stack(
        [
            -signals.derivative(ankle[:, [0, 2]], FPS) - yaw_rate * np.stack([ankle[:, 2], -ankle[:, 0]], -1)
            for ankle in ankles.values()
        ]
    )
    burden = [ankles[side][:, 1] + _STILL_S * _speed(k.in_world(f"{side}_ankle")) for side in SIDES]
    standing = np.argmin(burden, axis=0)
    velocity = box_mean(by_leg[standing, np.arange(len(k))], round(_SMOOTH_S * FPS))
    return Strides(velocity, ankles["left"][:, 2] - ankles["right"][:, 2], feet_mps.mean(0))


def on_the_spot(k: Kinematics, legs: Strides, limits: StrideThresholds, busy: Bool[np.ndarray, "T"]) -> list[Span]:
    """Spans of walking that leads nowhere, as on a treadmill or before a camera that goes along: the legs stride, and carry the
    body forwards, while the body stays where it is."""
    if not all(k.visible[f"{side}_leg"] for side in SIDES):
        return []
    slow = np.linalg.norm(k.velocity, axis=-1) < limits.stays_share * np.linalg.norm(legs.velocity, axis=-1)
    walking = slow & (legs.velocity[:, 1] > limits.forward_mps) & ~busy
    found = []
    for span in signals.spans_of(walking, round(limits.least_s * FPS), round(0.3 * FPS)):
        if legs.alternate(span, limits):
            found.append(span)
    return found


def _speed(path: Float[np.ndarray, "T 3"]) -> Float[np.ndarray, "T"]:
    return np.linalg.norm(signals.derivative(path, FPS), axis=-1)
