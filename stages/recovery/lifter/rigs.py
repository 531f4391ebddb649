"""The body with its keypoint and contact rigs on one device."""

from dataclasses import dataclass

import torch

from schemas.body_model import BodyModel, PointRig


@dataclass(frozen=True)
class Rigs:
    """A body and the rigs of its keypoints and contact points."""

    body: BodyModel
    keypoints: PointRig
    contacts: PointRig

    @classmethod
    def of(cls, body: BodyModel, device: torch.device | str = "cpu") -> "Rigs":
        """The rigs of a body, on a device."""
        return cls(body.to(device), body.keypoint_rig().to(device), body.contact_rig().to(device))
