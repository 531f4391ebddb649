"""A take: the common representation of all motion-capture formats before retargeting."""

from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np
from jaxtyping import Float, Int

from schemas.errors import HumoError


class MocapError(HumoError):
    """A file that cannot be read or retargeted; `reason` becomes the reason of its rejection."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


@dataclass(frozen=True, kw_only=True, eq=False)
class Take:
    """A skeleton and its motion, in the axes and length units of the file. Parents precede their children."""

    format: str
    """Format of the file, as `bvh`, `amc`, `deepmimic`, `amass`."""
    names: tuple[str, ...]
    parents: tuple[int, ...]
    """-1 for a root."""
    offsets: Float[np.ndarray, "J 3"]
    """From the parent joint, in the parent's axes."""
    rotations: Float[np.ndarray, "T J 3 3"]
    """Local, relative to the parent; identity is the zero pose."""
    moving_offsets: dict[int, Float[np.ndarray, "T 3"]] = field(default_factory=dict)
    """Offsets that change over time and replace the constant ones, by joint; at least those of the root."""
    times_s: Float[np.ndarray, "T"]
    """Relative to the first frame, increasing."""
    metres_per_unit: float | None = None
    """None if unknown; it is then estimated from the length of the legs."""
    ends: frozenset[int] = frozenset()
    """Joints that only mark where a bone ends, without a rotation of their own."""
    betas: tuple[float, ...] = ()
    """Shape coefficients of the file's body model; empty where the format has none."""
    gender: str = ""
    """`female`, `male` or `neutral`, where the file says so."""

    @property
    def fps(self) -> float:
        """Frame rate of the file, frames/s, from the median time step."""
        return float(1.0 / np.median(np.diff(self.times_s))) if len(self.times_s) > 1 else 0.0

    def frames(self, frames: Int[np.ndarray, "S"]) -> "Take":
        """The same take with some of its frames alone."""
        return replace(
            self,
            rotations=self.rotations[frames],
            moving_offsets={joint: offset[frames] for joint, offset in self.moving_offsets.items()},
            times_s=self.times_s[frames],
        )

    @cached_property
    def global_poses(self) -> tuple[Float[np.ndarray, "T J 3 3"], Float[np.ndarray, "T J 3"]]:
        """Global rotations and positions of all joints."""
        rotations = np.empty_like(self.rotations)
        positions = np.empty(self.rotations.shape[:3])
        for joint, parent in enumerate(self.parents):
            offset = self.moving_offsets.get(joint, self.offsets[joint])
            if parent < 0:
                rotations[:, joint], positions[:, joint] = self.rotations[:, joint], offset
                continue
            parent_rotation = rotations[:, parent]
            rotations[:, joint] = parent_rotation @ self.rotations[:, joint]
            bone = parent_rotation @ offset if offset.ndim == 1 else (parent_rotation @ offset[..., None])[..., 0]
            positions[:, joint] = positions[:, parent] + bone
        return rotations, positions


def check_numbers(name: str, values: Float[np.ndarray, "T *C"]) -> None:
    """Raises MocapError for a take without frames or with non-finite values, naming the first such frame."""
    if len(values) == 0:
        raise MocapError("no_frames", f"{name}: contains no frames; export the take again or leave the file out")
    invalid = ~np.isfinite(values.reshape(len(values), -1)).all(1)
    if invalid.any():
        first = int(np.argmax(invalid))
        raise MocapError(
            "not_finite",
            f"{name}: frame {first + 1} has a non-finite value ({int(invalid.sum())} of {len(values)} frames do);"
            " remove those frames or export the take again",
        )


def euler_to_matrix(
    angles_rad: Float[np.ndarray, "*B C"], axes: str, *, fixed: bool = False
) -> Float[np.ndarray, "*B 3 3"]:
    """Rotations from Euler angles about the axes (letters of `xyz`, one per column): intrinsic, the first axis leftmost in
    the product, or with `fixed` extrinsic, about the parent's axes, the first axis rightmost."""
    product = np.broadcast_to(np.eye(3), (*angles_rad.shape[:-1], 3, 3))
    for column, axis in enumerate(axes.lower()):
        rotation = axis_rotation(angles_rad[..., column], axis)
        product = rotation if column == 0 else rotation @ product if fixed else product @ rotation
    return product


def axis_rotation(angle_rad: Float[np.ndarray, "*B"] | float, axis: str) -> Float[np.ndarray, "*B 3 3"]:
    """Rotation about `x`, `y` or `z`."""
    first = "xyz".index(axis)
    second, third = (first + 1) % 3, (first + 2) % 3
    rotation = np.zeros((*np.shape(angle_rad), 3, 3))
    cos, sin = np.cos(angle_rad), np.sin(angle_rad)
    rotation[..., first, first] = 1
    rotation[..., second, second] = rotation[..., third, third] = cos
    rotation[..., second, third], rotation[..., third, second] = -sin, sin
    return rotation
