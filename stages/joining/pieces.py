"""A motion to be joined to others, with the quantities that the seam search and the blend need."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from jaxtyping import Bool, Float, UInt8
from torch import Tensor

from schemas.body_model import BodyModel, PointRig
from schemas.kinematics import forward_kinematics
from schemas.rotations import axis_angle_to_matrix, yaw_matrix
from schemas.sample import MotionArrays
from stages.geometry.body_transfer import transfer


class Body:
    """A body model with its contact points, shared by all pieces."""

    def __init__(self, model: BodyModel) -> None:
        self.model = model
        self.contact_rig: PointRig = model.contact_rig()


@dataclass(frozen=True, eq=False)
class Piece:
    """SMPL motion at 30 fps on a body, ground at y = 0."""

    rotations: Float[Tensor, "T 24 3 3"]
    trans: Float[Tensor, "T 3"]
    betas: Float[Tensor, "10"]
    planted: Bool[np.ndarray, "T 4"]
    """Ground contact of left heel, left toe, right heel, right toe."""
    confidence: Float[np.ndarray, "T 24"]
    seen: UInt8[np.ndarray, "T 5"]
    body: Body

    @classmethod
    def of(cls, motion: MotionArrays, body: Body, betas: Float[np.ndarray, "10"] | None = None) -> "Piece":
        """A stored motion on its own body, or retargeted to `betas`, its path scaled with the leg length."""
        rotations = axis_angle_to_matrix(torch.from_numpy(motion.poses))
        trans, shape = torch.from_numpy(motion.trans), torch.from_numpy(motion.betas)
        if betas is not None and not np.array_equal(betas, motion.betas):
            target = torch.from_numpy(betas)
            rotations, trans, _ = transfer(rotations, trans, shape, target, body.model)
            shape = target
        return cls(rotations, trans, shape, motion.contacts.astype(bool), motion.joint_confidence, motion.seen, body)

    def __len__(self) -> int:
        return len(self.trans)

    @cached_property
    def rest(self) -> Float[Tensor, "24 3"]:
        return self.body.model.rest_joints(self.betas)

    @cached_property
    def fk(self) -> tuple[Float[Tensor, "T 24 3"], Float[Tensor, "T 24 3 3"]]:
        """Joint positions and global rotations."""
        return forward_kinematics(self.rotations, self.rest, self.trans)

    @cached_property
    def joints(self) -> Float[np.ndarray, "T 24 3"]:
        return self.fk[0].numpy().astype(np.float64)

    @cached_property
    def soles(self) -> Float[np.ndarray, "T 4 3"]:
        """Contact points."""
        joints, rotations = self.fk
        return self.body.contact_rig.points(rotations, joints, self.betas).numpy().astype(np.float64)

    def transformed(self, yaw_rad: float, shift_m: Float[np.ndarray, "2"]) -> "Piece":
        """The piece rotated about the world's vertical axis, then translated by x and z."""
        yaw = yaw_matrix(torch.tensor(yaw_rad, dtype=self.trans.dtype))
        rotations = self.rotations.clone()
        rotations[:, 0] = yaw @ rotations[:, 0]
        shift = torch.tensor([shift_m[0], 0.0, shift_m[1]], dtype=self.trans.dtype)
        trans = (self.trans + self.rest[0]) @ yaw.T + shift - self.rest[0]
        return Piece(rotations, trans, self.betas, self.planted, self.confidence, self.seen, self.body)

    def between(self, first: int, end: int) -> "Piece":
        """Frames [first, end)."""
        frames = slice(first, end)
        return Piece(
            self.rotations[frames], self.trans[frames], self.betas, self.planted[frames], self.confidence[frames],
            self.seen[frames], self.body,
        )  # fmt: skip
