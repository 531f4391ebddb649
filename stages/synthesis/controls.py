"""What a procedural motion is made of before it becomes joint rotations: feet, pelvis, trunk and arms over time.

Everything is written for the person's left; `Controls.mirrored` makes the right-hand version, so sides cannot disagree.
Angles are radians, lengths metres. Pitch is positive forwards, yaw to the left, roll towards the right side.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace

import numpy as np
from jaxtyping import Bool, Float

LEFT, RIGHT = 0, 1


@dataclass
class Controls:
    """One value a frame and channel; `n` frames. Positions are in the world, x and z only where two numbers stand."""

    path: Float[np.ndarray, "n 2"]
    """Where the person stands or walks."""
    heading: Float[np.ndarray, "n"]
    foot: Float[np.ndarray, "n 2 2"]
    """Footprints: side, then x and z of the ankle above a flat sole."""
    foot_yaw: Float[np.ndarray, "n 2"]
    foot_lift: Float[np.ndarray, "n 2"]
    """Height of the sole over the ground."""
    foot_pitch: Float[np.ndarray, "n 2"]
    """Positive: toes up, turning about the heel. Negative: heel up, turning about the ball."""
    toe_flat: Float[np.ndarray, "n 2"]
    """1: the toes stay level while the heel rises; 0: they stay in line with the foot."""
    planted: Bool[np.ndarray, "n 2"]
    airborne: Bool[np.ndarray, "n"]
    """The pelvis follows `shift` alone, not the reach of the legs."""
    shift: Float[np.ndarray, "n 3"]
    """Pelvis off the path: left, up, forwards."""
    pelvis: Float[np.ndarray, "n 3"]
    """Pitch, yaw, roll."""
    spine: Float[np.ndarray, "n 3"]
    head: Float[np.ndarray, "n 3"]
    arm: Float[np.ndarray, "n 2 4"]
    """Upper arm forwards (swing), outwards (spread) and turned outwards (twist), elbow bent; added to a hanging arm."""
    hold: Float[np.ndarray, "n 2"]
    """1: the arm is busy and does not swing with the gait."""
    swing: Float[np.ndarray, "n"]
    """How far the arms and the trunk swing with the legs, radians at full stride."""

    def __len__(self) -> int:
        return len(self.heading)

    def mirrored(self) -> "Controls":
        """Left and right exchanged."""
        turn, flip = np.array([1.0, -1.0, -1.0]), np.array([-1.0, 1.0])
        return replace(
            self,
            path=self.path * flip, heading=-self.heading, foot=self.foot[:, ::-1] * flip, foot_yaw=-self.foot_yaw[:, ::-1],
            foot_lift=self.foot_lift[:, ::-1], foot_pitch=self.foot_pitch[:, ::-1], toe_flat=self.toe_flat[:, ::-1],
            planted=self.planted[:, ::-1], shift=self.shift * [-1.0, 1.0, 1.0], pelvis=self.pelvis * turn,
            spine=self.spine * turn, head=self.head * turn, arm=self.arm[:, ::-1], hold=self.hold[:, ::-1],
        )  # fmt: skip

    def moved(self, to_xz: Float[np.ndarray, "2"], yaw_rad: float) -> "Controls":
        """Turned about the origin by `yaw_rad`, then put down at `to_xz`."""
        c, s = np.cos(yaw_rad), np.sin(yaw_rad)
        turn = np.array([[c, s], [-s, c]])
        return replace(
            self,
            path=self.path @ turn.T + to_xz,
            foot=self.foot @ turn.T + to_xz,
            heading=self.heading + yaw_rad,
            foot_yaw=self.foot_yaw + yaw_rad,
        )


def join(blocks: list[Controls]) -> Controls:
    """Each block carried on from where the one before it ended; every block starts at the origin facing +Z."""
    placed: list[Controls] = []
    for block in blocks:
        placed.append(block.moved(placed[-1].path[-1], float(placed[-1].heading[-1])) if placed else block)
    return Controls(**{f.name: np.concatenate([getattr(b, f.name) for b in placed]) for f in fields(Controls)})


@dataclass(frozen=True)
class Style:
    """How one person carries themself, drawn once a motion."""

    stance_m: float
    """Distance between the ankles when standing."""
    gait_m: float
    """The same when walking."""
    toe_out_rad: float
    spread_rad: float
    """Hanging arms: away from the body."""
    elbow_rad: float
    """Hanging arms: bend of the elbow."""
    stoop_rad: float
    energy: float
    """Multiplies amplitudes; about 1."""
    tempo: float
    """Multiplies speeds; about 1."""

    @classmethod
    def draw(cls, rng: np.random.Generator) -> "Style":
        """A random person."""
        return cls(
            stance_m=rng.uniform(0.19, 0.26),
            gait_m=rng.uniform(0.11, 0.17),
            toe_out_rad=rng.uniform(0.02, 0.18),
            spread_rad=rng.uniform(0.15, 0.26),
            elbow_rad=rng.uniform(0.18, 0.4),
            stoop_rad=rng.uniform(-0.02, 0.1),
            energy=rng.uniform(0.8, 1.2),
            tempo=rng.uniform(0.88, 1.15),
        )


def still(n: int, style: Style) -> Controls:
    """Standing at the origin facing +Z, arms hanging."""
    side = np.array([1.0, -1.0])
    foot = np.zeros((n, 2, 2))
    foot[:, :, 0] = side * style.stance_m / 2
    return Controls(
        path=np.zeros((n, 2)), heading=np.zeros(n), foot=foot, foot_yaw=np.tile(side * style.toe_out_rad, (n, 1)),
        foot_lift=np.zeros((n, 2)), foot_pitch=np.zeros((n, 2)), toe_flat=np.ones((n, 2)),
        planted=np.ones((n, 2), dtype=bool), airborne=np.zeros(n, dtype=bool), shift=np.zeros((n, 3)),
        pelvis=np.zeros((n, 3)), spine=np.zeros((n, 3)), head=np.zeros((n, 3)), arm=np.zeros((n, 2, 4)),
        hold=np.zeros((n, 2)), swing=np.zeros(n),
    )  # fmt: skip


def spline(t: Float[np.ndarray, "n"], knots: Sequence[tuple[float | int, float | int]]) -> Float[np.ndarray, "n"]:
    """Monotone cubic through (time, value) knots, flat at and beyond the ends (Fritsch and Butland, 1984)."""
    x, y = np.array(knots, dtype=float).T
    width = np.diff(x)
    slope = np.diff(y) / width
    tangent = np.zeros_like(x)
    before, after = slope[:-1], slope[1:]
    same = before * after > 0
    low, high = np.minimum(abs(before), abs(after)), np.maximum(abs(before), abs(after))
    inner = np.zeros_like(before)
    inner[same] = (np.sign(before) * 3 * low * high / (high + 2 * low + 1e-12))[same]
    tangent[1:-1] = inner
    at = np.clip(t, x[0], x[-1])
    i = np.clip(np.searchsorted(x, at, side="right") - 1, 0, len(width) - 1)
    u = (at - x[i]) / width[i]
    return (
        y[i] * (1 + 2 * u) * (1 - u) ** 2
        + y[i + 1] * u**2 * (3 - 2 * u)
        + width[i] * (tangent[i] * u * (1 - u) ** 2 - tangent[i + 1] * u**2 * (1 - u))
    )


def drift(t: Float[np.ndarray, "n"], rng: np.random.Generator, channels: int) -> Float[np.ndarray, "n c"]:
    """Slow wandering of about unit size: a few sine waves of 0.1 to 0.5 Hz a channel."""
    rate, phase = rng.uniform(0.1, 0.5, (4, channels)), rng.uniform(0, 2 * np.pi, (4, channels))
    return np.sin(2 * np.pi * rate * t[:, None, None] + phase).sum(1) * 0.5
