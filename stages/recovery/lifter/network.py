"""The network: a transformer over the frames of a window, from features to body, orientation, position, velocity and contacts.

Design: rotary position embeddings, so that a window may have any length; attention as plain matrix products, which train faster
on a CPU than the fused kernels; RMS norm before each block, no dropout; rotations as 6D. The root's orientation is predicted
twice, in the camera and in the level world of its frame (see `stages.geometry.cameras`): the rotation from one to the other is
the camera's attitude. Shapes: N windows, T frames, C channels.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

import torch
from jaxtyping import Bool, Float
from pydantic import Field
from torch import Tensor, nn

from schemas.config import Config
from schemas.skeleton import COCO_KEYPOINTS, CONTACT_POINTS, SMPL_JOINTS, mirror_order
from stages.recovery.lifter.features import NUM_FEATURES

NUM_POSED = 21
"""Joints 1 to 21 are posed; the hands keep their rest pose."""
_SIZES = {
    "pose": NUM_POSED * 6, "root_camera": 6, "root_level": 6, "velocity": 3, "place": 3, "contacts": 4, "log_sigma": 22,
    "log_noise": 17,
}  # fmt: skip
_POSE_MIRROR = mirror_order(SMPL_JOINTS[1:22])
_JOINT_MIRROR = mirror_order(SMPL_JOINTS[:22])
_CONTACT_MIRROR = mirror_order(CONTACT_POINTS)
_KEYPOINT_MIRROR = mirror_order(COCO_KEYPOINTS)


class NetworkConfig(Config):
    """Size of the network."""

    width: int = Field(default=256, gt=0)
    """Channels."""
    layers: int = Field(default=6, gt=0)
    """Attention and feed-forward blocks."""
    heads: int = Field(default=4, gt=0)
    """Attention heads; must divide the width."""
    feed_forward: int = Field(default=512, gt=0)
    """Channels inside a feed-forward block."""


@dataclass(frozen=True)
class LifterOutput:
    """Raw output of the network. Rotations are 6D and not yet orthonormal."""

    pose: Float[Tensor, "N T 126"]
    """Local rotations of joints 1 to 21."""
    root_camera: Float[Tensor, "N T 6"]
    """Orientation of the pelvis in camera axes."""
    root_level: Float[Tensor, "N T 6"]
    """Orientation of the pelvis in the level world of the frame."""
    velocity: Float[Tensor, "N T 3"]
    """Velocity of the pelvis towards the next frame, in the frame of its heading, metres a second."""
    place: Float[Tensor, "N T 3"]
    """Pelvis in the image relative to the box centre (x, y, in half boxes) and log(depth in metres * box size)."""
    contacts: Float[Tensor, "N T 4"]
    """Logits for left heel, left toe, right heel, right toe."""
    log_sigma: Float[Tensor, "N T 22"]
    """Log of the expected error of each joint relative to the pelvis, metres."""
    log_noise: Float[Tensor, "N T 17"]
    """Log of the expected error of each keypoint, box sides."""
    betas: Float[Tensor, "N T 10"]
    """The same in every frame of a window."""

    def mirrored(self) -> "LifterOutput":
        """The corresponding output for the mirror image."""
        sign_6d = self.pose.new_tensor([1.0, -1.0, -1.0, -1.0, 1.0, 1.0])
        sign_xyz = self.pose.new_tensor([-1.0, 1.0, 1.0])
        pose = (self.pose.unflatten(-1, (NUM_POSED, 6)) * sign_6d)[:, :, list(_POSE_MIRROR)].flatten(-2)
        return LifterOutput(
            pose=pose,
            root_camera=self.root_camera * sign_6d,
            root_level=self.root_level * sign_6d,
            velocity=self.velocity * sign_xyz,
            place=self.place * sign_xyz,
            contacts=self.contacts[..., list(_CONTACT_MIRROR)],
            log_sigma=self.log_sigma[..., list(_JOINT_MIRROR)],
            log_noise=self.log_noise[..., list(_KEYPOINT_MIRROR)],
            betas=self.betas,
        )

    def averaged(self, other: "LifterOutput") -> "LifterOutput":
        """The mean of both; 6D and logits may be averaged when they are close to each other."""
        return LifterOutput(**{f.name: (getattr(self, f.name) + getattr(other, f.name)) / 2 for f in fields(self)})


class Lifter(nn.Module):
    """Maps features of windows to `LifterOutput`."""

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        self.config = config
        self.stem = nn.Conv1d(NUM_FEATURES, config.width, 3, padding=1)
        self.blocks = nn.ModuleList(_Block(config) for _ in range(config.layers))
        self.norm = _Norm(config.width)
        self.heads = nn.Linear(config.width, sum(_SIZES.values()))
        self.shape = nn.Linear(config.width, 10)
        with torch.no_grad():
            for head in (self.heads, self.shape):
                nn.init.normal_(head.weight, std=0.01)
                nn.init.zeros_(head.bias)
            offset = 0
            for name, size in _SIZES.items():
                part = self.heads.bias[offset : offset + size]
                if name in ("pose", "root_camera", "root_level"):
                    part.copy_(torch.tensor([1.0, 0, 0, 0, 1.0, 0]).repeat(size // 6))
                elif name == "log_sigma":
                    part.fill_(math.log(0.1))
                elif name == "log_noise":
                    part.fill_(math.log(0.02))
                offset += size

    def forward(self, features: Float[Tensor, "N T 133"], valid: Bool[Tensor, "N T"]) -> LifterOutput:
        """Invalid frames are masked in attention and pooling."""
        x_NTC = self.stem(features.transpose(1, 2)).transpose(1, 2)
        rotary = _rotary(features.shape[1], self.config.width // self.config.heads, features.device)
        mask = torch.zeros(valid.shape, device=valid.device).masked_fill(~valid, -1e4)[:, None, None, :]
        for block in self.blocks:
            x_NTC = block(x_NTC, rotary, mask)
        x_NTC = self.norm(x_NTC)
        valid_NT1 = valid[..., None].to(x_NTC.dtype)
        mean_NC = (x_NTC * valid_NT1).sum(1) / valid_NT1.sum(1).clamp(min=1)
        betas = self.shape(mean_NC)[:, None].expand(-1, features.shape[1], -1).float()
        parts = self.heads(x_NTC).float().split(list(_SIZES.values()), dim=-1)
        return LifterOutput(**dict(zip(_SIZES, parts, strict=True)), betas=betas)


def with_all_features(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Weights of a lifter, also of one trained with fewer features: new features come last and get zero weights."""
    stem = weights["stem.weight"]
    missing = NUM_FEATURES - stem.shape[1]
    return {**weights, "stem.weight": nn.functional.pad(stem, (0, 0, 0, missing))} if missing > 0 else dict(weights)


class _Norm(nn.Module):
    """RMS norm in the precision of its input, which the fused kernel requires."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))

    def forward(self, x_NTC: Tensor) -> Tensor:
        return nn.functional.rms_norm(x_NTC, self.weight.shape, self.weight.to(x_NTC.dtype), eps=1e-6)


class _Block(nn.Module):
    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        self.heads = config.heads
        self.norm_attention, self.norm_feed = _Norm(config.width), _Norm(config.width)
        self.qkv = nn.Linear(config.width, 3 * config.width, bias=False)
        self.out = nn.Linear(config.width, config.width, bias=False)
        self.up = nn.Linear(config.width, config.feed_forward)
        self.down = nn.Linear(config.feed_forward, config.width)
        for layer in (self.out, self.down):
            nn.init.normal_(layer.weight, std=0.02 / math.sqrt(2 * config.layers))

    def forward(self, x_NTC: Tensor, rotary: tuple[Tensor, Tensor], mask: Tensor) -> Tensor:
        q, k, v = self.qkv(self.norm_attention(x_NTC)).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        q, k = _apply_rotary(q, rotary), _apply_rotary(k, rotary)
        scores = (q @ k.transpose(-1, -2)).float() / math.sqrt(q.shape[-1]) + mask
        attended = (scores.softmax(-1).to(v.dtype) @ v).transpose(1, 2).flatten(-2)
        x_NTC = x_NTC + self.out(attended)
        return x_NTC + self.down(nn.functional.gelu(self.up(self.norm_feed(x_NTC)), approximate="tanh"))


def _rotary(frames: int, size: int, device: Any) -> tuple[Tensor, Tensor]:
    """Cosine and sine of each frame's angles (Su et al. 2021); the slowest has a period of about 600 frames."""
    rates = 100.0 ** -(torch.arange(0, size, 2, device=device) / size)
    angles = torch.arange(frames, device=device)[:, None] * rates
    return angles.cos(), angles.sin()


def _apply_rotary(x: Tensor, rotary: tuple[Tensor, Tensor]) -> Tensor:
    cos, sin = (part.to(x.dtype) for part in rotary)
    a, b = x.chunk(2, dim=-1)
    return torch.cat([a * cos - b * sin, a * sin + b * cos], dim=-1)
