"""Control channels of a procedural motion, from which joint rotations are solved: feet, pelvis, trunk and arms over time.

Everything is written for the left side; `Controls.mirrored` gives the right-hand version, so the sides cannot disagree.
Angles are radians, lengths metres. Pitch is positive forwards, yaw to the left, roll towards the right side.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace

import numpy as np
from jaxtyping import Bool, Float

LEFT, RIGHT = 0, 1


@dataclass
class Controls:
    """Channels over `n` frames. Positions are in the world; those with two components are x and z."""

    path: Float[np.ndarray, "n 2"]
    """Position of the person on the ground."""
    heading: Float[np.ndarray, "n"]
    foot: Float[np.ndarray, "n 2 2"]
    """Footprints: side, then x and z of the ankle above a flat sole."""
    foot_yaw: Float[np.ndarray, "n 2"]
    foot_lift: Float[np.ndarray, "n 2"]
    """Height of the sole above the ground."""
    foot_pitch: Float[np.ndarray, "n 2"]
    """Positive: toes up, rotation about the heel. Negative: heel up, rotation about the ball."""
    toe_flat: Float[np.ndarray, "n 2"]
    """1: the toes stay level while the heel rises; 0: they stay in line with the foot."""
    planted: Bool[np.ndarray, "n 2"]
    airborne: Bool[np.ndarray, "n"]
    """The pelvis follows `pelvis_offset` alone, without the limit from leg length."""
    pelvis_offset: Float[np.ndarray, "n 3"]
    """Offset of the pelvis from the path: left, up, forwards."""
    pelvis: Float[np.ndarray, "n 3"]
    """Pitch, yaw, roll."""
    spine: Float[np.ndarray, "n 3"]
    head: Float[np.ndarray, "n 3"]
    arm: Float[np.ndarray, "n 2 4"]
    """Upper arm flexion (swing), abduction (spread) and external rotation (twist), elbow flexion; added to a hanging arm."""
    arm_busy: Float[np.ndarray, "n 2"]
    """1: the arm is used by a gesture and does not swing with the gait."""
    swing_rad: Float[np.ndarray, "n"]
    """Amplitude of the arm and trunk swing at full stride."""

    def __len__(self) -> int:
        return len(self.heading)

    def mirrored(self) -> "Controls":
        """The controls with left and right exchanged."""
        flip_angles, flip_x = np.array([1.0, -1.0, -1.0]), np.array([-1.0, 1.0])
        return replace(
            self,
            path=self.path * flip_x, heading=-self.heading, foot=self.foot[:, ::-1] * flip_x, foot_yaw=-self.foot_yaw[:, ::-1],
            foot_lift=self.foot_lift[:, ::-1], foot_pitch=self.foot_pitch[:, ::-1], toe_flat=self.toe_flat[:, ::-1],
            planted=self.planted[:, ::-1], pelvis_offset=self.pelvis_offset * [-1.0, 1.0, 1.0],
            pelvis=self.pelvis * flip_angles, spine=self.spine * flip_angles, head=self.head * flip_angles,
            arm=self.arm[:, ::-1], arm_busy=self.arm_busy[:, ::-1],
        )  # fmt: skip

    def transformed(self, to_xz: Float[np.ndarray, "2"], yaw_rad: float) -> "Controls":
        """The controls rotated about the origin by `yaw_rad`, then translated by `to_xz`."""
        c, s = np.cos(yaw_rad), np.sin(yaw_rad)
        rotation = np.array([[c, s], [-s, c]])
        return replace(
            self,
            path=self.path @ rotation.T + to_xz,
            foot=self.foot @ rotation.T + to_xz,
            heading=self.heading + yaw_rad,
            foot_yaw=self.foot_yaw + yaw_rad,
        )


def concatenate(blocks: list[Controls]) -> Controls:
    """Blocks in sequence, each continued from the end of its predecessor; every block starts at the origin facing +Z."""
    placed: list[Controls] = []
    for block in blocks:
        placed.append(block.transformed(placed[-1].path[-1], float(placed[-1].heading[-1])) if placed else block)
    return Controls(**{f.name: np.concatenate([getattr(b, f.name) for b in placed]) for f in fields(Controls)})


@dataclass(frozen=True)
class Style:
    """Posture and manner of one person, drawn once per motion."""

    stance_m: float
    """Distance between the ankles when standing."""
    gait_m: float
    """The same when walking."""
    toe_out_rad: float
    spread_rad: float
    """Abduction of a hanging arm."""
    elbow_rad: float
    """Elbow flexion of a hanging arm."""
    stoop_rad: float
    energy: float
    """Multiplies amplitudes; about 1."""
    tempo: float
    """Multiplies speeds; about 1."""

    @classmethod
    def draw(cls, rng: np.random.Generator) -> "Style":
        """A random style."""
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


def standing(n: int, style: Style) -> Controls:
    """Controls of a person who stands at the origin facing +Z, arms hanging."""
    side = np.array([1.0, -1.0])
    foot = np.zeros((n, 2, 2))
    foot[:, :, 0] = side * style.stance_m / 2
    return Controls(
        path=np.zeros((n, 2)), heading=np.zeros(n), foot=foot, foot_yaw=np.tile(side * style.toe_out_rad, (n, 1)),
        foot_lift=np.zeros((n, 2)), foot_pitch=np.zeros((n, 2)), toe_flat=np.ones((n, 2)),
        planted=np.ones((n, 2), dtype=bool), airborne=np.zeros(n, dtype=bool), pelvis_offset=np.zeros((n, 3)),
        pelvis=np.zeros((n, 3)), spine=np.zeros((n, 3)), head=np.zeros((n, 3)), arm=np.zeros((n, 2, 4)),
        arm_busy=np.zeros((n, 2)), swing_rad=np.zeros(n),
    )  # fmt: skip


def spline(t: Float[np.ndarray, "n"], knots: Sequence[tuple[float | int, float | int]]) -> Float[np.ndarray, "n"]:
    """Monotone cubic through (time, value) knots, constant beyond the ends with zero slope there (Fritsch and Butland, 1984)."""
    x, y = np.array(knots, dtype=float).T
    width = np.diff(x)
    slope = np.diff(y) / width
    tangent = np.zeros_like(x)
    before, after = slope[:-1], slope[1:]
    same_sign = before * after > 0
    low, high = np.minimum(abs(before), abs(after)), np.maximum(abs(before), abs(after))
    inner = np.zeros_like(before)
    inner[same_sign] = (np.sign(before) * 3 * low * high / (high + 2 * low + 1e-12))[same_sign]
    tangent[1:-1] = inner
    clipped = np.clip(t, x[0], x[-1])
    i = np.clip(np.searchsorted(x, clipped, side="right") - 1, 0, len(width) - 1)
    u = (clipped - x[i]) / width[i]
    return (
        y[i] * (1 + 2 * u) * (1 - u) ** 2
        + y[i + 1] * u**2 * (3 - 2 * u)
        + width[i] * (tangent[i] * u * (1 - u) ** 2 - tangent[i + 1] * u**2 * (1 - u))
    )


def drift(t: Float[np.ndarray, "n"], rng: np.random.Generator, channels: int) -> Float[np.ndarray, "n c"]:
    """Slow noise of about unit amplitude: four sine waves of 0.1 to 0.5 Hz per channel."""
    rate, phase = rng.uniform(0.1, 0.5, (4, channels)), rng.uniform(0, 2 * np.pi, (4, channels))
    return np.sin(2 * np.pi * rate * t[:, None, None] + phase).sum(1) * 0.5
