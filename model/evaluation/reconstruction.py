"""Distances between a motion and its reconstruction."""

import torch
from jaxtyping import Float
from torch import Tensor

from schemas.records import FPS
from schemas.skeleton import joint

SOLES = [joint(name) for name in ("left_ankle", "left_foot", "right_ankle", "right_foot")]
"""Joints of the contact columns: heels move with their ankles."""


def joint_distances(a: Float[Tensor, "N J 3"], b: Float[Tensor, "N J 3"]) -> Float[Tensor, "N J"]:
    """Distance of each joint."""
    return (a - b).norm(dim=-1)


def aligned_distances(a: Float[Tensor, "N J 3"], b: Float[Tensor, "N J 3"]) -> Float[Tensor, "N J"]:
    """Distances after the similarity transform of each frame that brings `a` nearest to `b` (Procrustes; Umeyama 1991)."""
    a0, b0 = a - a.mean(1, keepdim=True), b - b.mean(1, keepdim=True)
    u, s, vh = torch.linalg.svd(a0.mT @ b0)
    signs = torch.ones_like(s)
    signs[:, 2] = torch.det(u @ vh).sign()
    rotation = (u * signs[:, None]) @ vh
    scale = (s * signs).sum(-1) / a0.square().sum((1, 2)).clamp(min=1e-12)
    return (scale[:, None, None] * a0 @ rotation - b0).norm(dim=-1)


def angles_deg(a: Float[Tensor, "N J 3 3"], b: Float[Tensor, "N J 3 3"]) -> Float[Tensor, "N J"]:
    """Angle between rotations, degrees; from the chord, which is exact for small angles too."""
    chord = (a - b).square().sum((-1, -2)).sqrt() / (2 * 2**0.5)
    return torch.rad2deg(2 * torch.asin(chord.clamp(max=1)))


def accelerations(joints: Float[Tensor, "N J 3"]) -> Float[Tensor, "n J 3"]:
    """Second differences, m/s^2."""
    return (joints[2:] - 2 * joints[1:-1] + joints[:-2]) * FPS**2


def peak_jerk(joints: Float[Tensor, "N J 3"]) -> float:
    """Largest third difference of a joint, m/s^3; 0 for fewer than four frames."""
    if len(joints) < 4:
        return 0.0
    acceleration = accelerations(joints)
    return ((acceleration[1:] - acceleration[:-1]).norm(dim=-1) * FPS).max().item()


def planted_speeds(joints: Float[Tensor, "N J 3"], contacts: Float[Tensor, "N 4"]) -> Float[Tensor, "_"]:
    """Horizontal speeds of soles that are on the ground in both frames of a step, m/s."""
    steps = (joints[1:, SOLES] - joints[:-1, SOLES])[..., [0, 2]].norm(dim=-1) * FPS
    return steps[torch.minimum(contacts[1:], contacts[:-1]) > 0.5]
