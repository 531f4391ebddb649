"""What a tokenizer is trained to reconstruct: features, joints, their velocities, the path, planted feet."""

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor

from model.features.layouts import Layout
from schemas.config import Config
from schemas.rotations import yaw_matrix
from schemas.skeleton import PARTS, SMPL_JOINTS, joint

_JOINTS = 22
_SOLES = [joint(name) for name in ("left_ankle", "left_foot", "right_ankle", "right_foot")]
"""Joints of the contact columns: heels move with their ankles."""
_OF_PART = torch.tensor([[name in joints for name in SMPL_JOINTS[:_JOINTS]] for joints in PARTS.values()]).float()


class LossWeights(Config):
    """Weights of the tokenizer's loss terms; 0 leaves a term out. Features are normalised, joints in metres."""

    parts: float = Field(default=1.0, ge=0)
    """L1 of each part separately."""
    whole: float = Field(default=1.0, ge=0)
    """L1 of the merged body."""
    positions: float = Field(default=0.5, ge=0)
    """Additional L1 of the position columns of `humo263`, merged."""
    root: float = Field(default=5.0, ge=0)
    """Factor on the root columns, whose errors accumulate along the root path."""
    commitment: float = Field(default=0.02, ge=0)
    """Commitment loss: squared distance of the latents from their codes, summed over parts and levels."""
    joints: float = Field(default=0.0, ge=0)
    """Mean distance of the joints in the heading frame, metres; by forward kinematics where rows hold no positions."""
    velocities: float = Field(default=0.0, ge=0)
    """Mean distance of the joints' velocities in the world, metres per frame."""
    path: float = Field(default=0.0, ge=0)
    """Mean distance of the joints in the world, metres, accumulated from the start of a window."""
    contacts: float = Field(default=0.0, ge=0)
    """Mean distance of the velocities of planted feet, metres per frame."""

    @property
    def need_joints(self) -> bool:
        """Whether any term is computed from joints."""
        return any((self.joints, self.velocities, self.path, self.contacts))


def joint_losses(
    predicted: Float[Tensor, "B N F"],
    target: Float[Tensor, "B N F"],
    weights: LossWeights,
    features: Layout,
    rest_joints: Float[Tensor, "24 3"],
    seen: Float[Tensor, "B N 5"] | None = None,
) -> dict[str, Float[Tensor, ""]]:
    """Terms of rows in their units, by name; joints of unseen parts do not count."""
    masks = None if seen is None else (seen @ _OF_PART.to(seen)).clamp(max=1)

    def mean(error: Float[Tensor, "B n J 3"], kept: Float[Tensor, "B n J"] | None) -> Tensor:
        # The tiny addition keeps the gradient finite where nothing is wrong.
        distances = (error.square().sum(-1) + 1e-12).sqrt()
        return distances.mean() if kept is None else (distances * kept).sum() / kept.sum().clamp(min=1)

    local, local_target = (features.local_joints(rows, rest_joints) for rows in (predicted, target))
    terms = {}
    if weights.joints:
        terms["joints"] = mean(local - local_target, masks)
    if not any((weights.velocities, weights.path, weights.contacts)):
        return terms
    world, world_target = (
        _in_world(rows, joints, features) for rows, joints in ((predicted, local), (target, local_target))
    )
    if weights.path:
        terms["path"] = mean(world - world_target, masks)
    error = (world[:, 1:] - world[:, :-1]) - (world_target[:, 1:] - world_target[:, :-1])
    masks = None if masks is None else masks[:, 1:]
    if weights.velocities:
        terms["velocities"] = mean(error, masks)
    if weights.contacts:
        planted = torch.minimum(target[:, 1:, features.CONTACTS], target[:, :-1, features.CONTACTS])
        planted = planted if masks is None else planted * masks[..., _SOLES]
        terms["contacts"] = mean(error[..., _SOLES, :], planted)
    return terms


def joints_in_world(
    rows: Float[Tensor, "B N F"], features: Layout, rest_joints: Float[Tensor, "24 3"]
) -> Float[Tensor, "B N 22 3"]:
    """Joints 0..21 of windows that start at the origin, metres."""
    return _in_world(rows, features.local_joints(rows, rest_joints), features)


def _in_world(
    rows: Float[Tensor, "B N F"], joints: Float[Tensor, "B N 22 3"], features: Layout
) -> Float[Tensor, "B N 22 3"]:
    yaw, pelvis = features.root_path(rows)
    # The pelvis of `joints` is above the origin of the heading frame.
    ground = pelvis * pelvis.new_tensor([1.0, 0.0, 1.0])
    return joints @ yaw_matrix(yaw).mT + ground[..., None, :]
