"""What a layout of feature rows offers, and the layouts by name."""

from typing import Protocol, runtime_checkable

from jaxtyping import Float, Int
from torch import Tensor

from model.features import humo263, smpl135
from schemas.errors import UsageError

Start = tuple[float, tuple[float, float]]
"""Where the decoding of rows begins: heading (radians) and ground position x, z (metres)."""


@runtime_checkable
class Layout(Protocol):
    """Feature rows of motions and the inverse. The modules `humo263` and `smpl135` are layouts."""

    NUM_FEATURES: int
    ROOT: slice
    """Columns that place the body in the world."""
    CONTACTS: slice
    SLICES: dict[str, slice]
    """Name -> columns that share unit and importance."""
    MIN_STD: dict[str, float]
    """Name of a slice -> the smallest deviation by which it is normalised."""

    def encode(
        self,
        rotations: Float[Tensor, "*B T 24 3 3"],
        trans: Float[Tensor, "*B T 3"],
        rest_joints: Float[Tensor, "*#B 24 3"],
        contacts: Float[Tensor, "*B T 4"],
    ) -> Float[Tensor, "*B N F"]: ...

    def decode(
        self,
        features: Float[Tensor, "N F"],
        rest_joints: Float[Tensor, "24 3"],
        start_yaw_rad: float = 0.0,
        start_xz_m: tuple[float, float] = (0.0, 0.0),
    ) -> tuple[Float[Tensor, "N 24 3 3"], Float[Tensor, "N 3"]]:
        """Local rotations and translations."""
        ...

    def root_path(
        self,
        features: Float[Tensor, "*B N F"],
        start_yaw_rad: float = 0.0,
        start_xz_m: tuple[float, float] = (0.0, 0.0),
    ) -> tuple[Float[Tensor, "*B N"], Float[Tensor, "*B N 3"]]:
        """Yaw of the heading frames and pelvis positions in the world."""
        ...

    def next_start(
        self, features: Float[Tensor, "N F"], start_yaw_rad: float, start_xz_m: tuple[float, float]
    ) -> Start:
        """Start of the rows that follow these."""
        ...

    def start_after(
        self,
        rotations: Float[Tensor, "T 24 3 3"],
        trans: Float[Tensor, "T 3"],
        rest_joints: Float[Tensor, "24 3"],
    ) -> Start:
        """Start of rows that continue a motion."""
        ...

    def rows_seen(self, seen: Float[Tensor, "*B T 5"]) -> Float[Tensor, "*B N 5"]:
        """For each row and part: 1 where the part was seen in all frames that the row depends on, else 0."""
        ...

    def local_joints(
        self, features: Float[Tensor, "*B N F"], rest_joints: Float[Tensor, "24 3"]
    ) -> Float[Tensor, "*B N 22 3"]:
        """Joints 0..21 in the heading frames."""
        ...

    def mirror(self, features: Float[Tensor, "*N F"]) -> Float[Tensor, "*N F"]: ...

    def read_columns(self, part: str) -> Int[Tensor, "C"]:
        """Columns that the encoder of a part sees."""
        ...

    def written_columns(self, part: str) -> Int[Tensor, "C"]:
        """Columns that the decoder of a part gives; those that several give are averaged."""
        ...

    def exclusive_columns(self, part: str) -> Int[Tensor, "C"]:
        """Columns of a part where no two parts share a joint."""
        ...


LAYOUTS: dict[str, Layout] = {"humo263": humo263, "smpl135": smpl135}


def layout(name: str) -> Layout:
    """A layout by name. Raises UsageError for an unknown one."""
    if name not in LAYOUTS:
        raise UsageError(f"features is {name!r}; set one of {', '.join(LAYOUTS)}")
    return LAYOUTS[name]
