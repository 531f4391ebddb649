"""A take: what every motion-capture format is read into before it is brought onto the body."""

from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from jaxtyping import Float

from schemas.errors import HumoError


class MocapError(HumoError):
    """A file that cannot be read or brought onto the body; `reason` is the word that a rejection carries."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


@dataclass(frozen=True, kw_only=True, eq=False)
class Take:
    """A skeleton and its movement, in the axes and length units of the file. Parents stand before their children."""

    format: str
    """`bvh`, `amc`, `deepmimic` or `amass`."""
    names: tuple[str, ...]
    parents: tuple[int, ...]
    """-1 for a root."""
    offsets: Float[np.ndarray, "J 3"]
    """From the parent, in the parent's axes."""
    rotations: Float[np.ndarray, "T J 3 3"]
    """Local, relative to the parent; identity is the zero pose."""
    moving: dict[int, Float[np.ndarray, "T 3"]] = field(default_factory=dict)
    """Offsets of joints that change over time, in the place of the constant ones; the root's at least."""
    times_s: Float[np.ndarray, "T"]
    """From the first frame on, increasing."""
    metres_per_unit: float | None = None
    """None where the file does not say; then the length of the legs tells."""

    @property
    def fps(self) -> float:
        """Frames a second of the file, by its median step."""
        return float(1.0 / np.median(np.diff(self.times_s))) if len(self.times_s) > 1 else 0.0

    @cached_property
    def posed(self) -> tuple[Float[np.ndarray, "T J 3 3"], Float[np.ndarray, "T J 3"]]:
        """Global rotations and positions of all joints."""
        turns = np.empty_like(self.rotations)
        places = np.empty(self.rotations.shape[:3])
        for joint, parent in enumerate(self.parents):
            offset = self.moving.get(joint, self.offsets[joint])
            if parent < 0:
                turns[:, joint], places[:, joint] = self.rotations[:, joint], offset
                continue
            above = turns[:, parent]
            turns[:, joint] = above @ self.rotations[:, joint]
            shift = above @ offset if offset.ndim == 1 else (above @ offset[..., None])[..., 0]
            places[:, joint] = places[:, parent] + shift
        return turns, places


def check_numbers(name: str, values: Float[np.ndarray, "T *C"]) -> None:
    """Refuses a take without frames or with numbers that are not finite, naming the first such frame."""
    if len(values) == 0:
        raise MocapError("no_frames", f"{name}: it holds no frames; export the take again or leave the file out")
    wrong = ~np.isfinite(values.reshape(len(values), -1)).all(1)
    if wrong.any():
        first = int(np.argmax(wrong))
        raise MocapError(
            "not_finite",
            f"{name}: frame {first + 1} holds a value that is not finite ({int(wrong.sum())} of {len(values)} frames do);"
            " cut those frames away or export the take again",
        )


def euler_to_matrix(
    angles_rad: Float[np.ndarray, "*B C"], axes: str, *, fixed: bool = False
) -> Float[np.ndarray, "*B 3 3"]:
    """Rotations about the axes (letters of `xyz`, one a column) in turn: each about the axes already turned, so that
    the first stands leftmost in the product, or, with `fixed`, about those of the parent, the first rightmost."""
    product = np.broadcast_to(np.eye(3), (*angles_rad.shape[:-1], 3, 3))
    for column, axis in enumerate(axes.lower()):
        turn = about_axis(angles_rad[..., column], axis)
        product = turn if column == 0 else turn @ product if fixed else product @ turn
    return product


def about_axis(angle_rad: Float[np.ndarray, "*B"] | float, axis: str) -> Float[np.ndarray, "*B 3 3"]:
    """Rotation about `x`, `y` or `z`."""
    here = "xyz".index(axis)
    second, third = (here + 1) % 3, (here + 2) % 3
    turn = np.zeros((*np.shape(angle_rad), 3, 3))
    cos, sin = np.cos(angle_rad), np.sin(angle_rad)
    turn[..., here, here] = 1
    turn[..., second, second] = turn[..., third, third] = cos
    turn[..., second, third], turn[..., third, second] = -sin, sin
    return turn
