"""The body with its keypoints and contact points, ready to be posed."""

from dataclasses import dataclass

import torch

from schemas.body_model import BodyModel, PointRig


@dataclass(frozen=True)
class Rigs:
    """The body, with its keypoints and contact points ready to be posed."""

    body: BodyModel
    keypoints: PointRig
    contacts: PointRig

    @classmethod
    def of(cls, body: BodyModel, device: torch.device | str = "cpu") -> "Rigs":
        """On a device."""
        return cls(body.to(device), body.keypoint_rig().to(device), body.contact_rig().to(device))
