"""Detected movements: events with a manner for wording, and the frames of a part that they already explain."""

from dataclasses import dataclass, fields

import numpy as np
from jaxtyping import Float

from schemas.records import FPS, Event
from stages.language.rules import signals
from stages.language.rules.signals import Span
from stages.language.rules.thresholds import Thresholds

TO_AND_FRO = "to and fro"
"""Manner of a limb that swings repeatedly: any part of that time is told as well as the whole."""
_MAX_COVERED = 0.5
"""Share of a span that earlier movements must cover to explain it."""


@dataclass(frozen=True, kw_only=True)
class Movement(Event):
    """An event with the manner in which it is done; `phrases` lists the manners."""

    manner: str = ""
    measured: bool = True
    """Whether the amount is sure enough to be told."""

    def to_event(self) -> Event:
        """The event as it is stored, without what only the wording needs."""
        return Event(**{field.name: getattr(self, field.name) for field in fields(Event)})


def movement(
    part: str,
    kind: str,
    span: Span,
    amount: float,
    *,
    joint: str,
    side: str = "none",
    speed: float | None = None,
    manner: str = "",
) -> Movement:
    """A movement over a span of frames; the speed defaults to the amount over the duration."""
    start_s, end_s = span[0] / FPS, span[1] / FPS
    mean = amount / max(end_s - start_s, 1 / FPS)
    return Movement(
        part=part, joint=joint, kind=kind, side=side, start_s=round(start_s, 3), end_s=round(end_s, 3),
        amount=round(float(amount), 3), speed=round(float(mean if speed is None else speed), 3), text="", manner=manner,
    )  # fmt: skip


class PartMovements:
    """Movements of one body part and the spans that they explain."""

    def __init__(self, name: str, length: int, limits: Thresholds) -> None:
        self.name, self.length, self.limits = name, length, limits
        self.side = name.split("_")[0] if "_" in name else "none"
        self.sign = -1.0 if self.side == "right" else 1.0
        self.events: list[Movement] = []
        self.spans: list[Span] = []

    def is_free(self, span: Span, max_covered: float = _MAX_COVERED) -> bool:
        """Whether the span is not explained by earlier movements and is longer than noise."""
        return span[1] - span[0] >= self.limits.shortest_s * FPS and signals.covered(span, self.spans) < max_covered

    def add(
        self,
        kind: str,
        span: Span,
        amount: float,
        *,
        joint: str,
        side: str = "",
        speed: float | None = None,
        manner: str = "",
    ) -> None:
        """Add a movement; its side defaults to that of the part."""
        span = (max(0, span[0]), min(self.length, span[1]))
        event = movement(
            self.name, kind, span, amount, joint=joint, side=side or self.side, speed=speed, manner=manner
        )  # fmt: skip
        self.events.append(event)
        self.spans.append(span)


def change(curve: Float[np.ndarray, "T"], span: Span) -> float:
    """Absolute change of a curve from the first to the last frame of a span."""
    return float(abs(curve[span[1] - 1] - curve[span[0]]))


def mean_speed(curve: Float[np.ndarray, "T"], span: Span) -> float:
    """Absolute change a second."""
    return change(curve, span) * FPS / max(1, span[1] - 1 - span[0])


def path_speed(curve: Float[np.ndarray, "T *C"], span: Span) -> float:
    """Path length a second."""
    steps = np.diff(curve[span[0] : span[1]].reshape(span[1] - span[0], -1), axis=0)
    return float(np.linalg.norm(steps, axis=-1).sum() * FPS / max(1, len(steps)))


def add_bends(part: PartMovements, flexion: Float[np.ndarray, "T"], joint: str) -> None:
    """Add bending and straightening of an elbow or a knee that no other movement explains."""
    for span in signals.sweeps(flexion, part.limits.bend_least_rad):
        if part.is_free(span, 0.3):
            kind = "bend" if flexion[span[1] - 1] > flexion[span[0]] else "extend"
            part.add(kind, span, change(flexion, span), joint=joint)
