"""Initialisation of the optimiser: a clip as rays and weights, and first estimates of the person's position, the ground and the
camera pitch.

All in closed form and close enough to the solution that the optimiser needs few steps.
"""

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from schemas.curves import smooth
from schemas.records import FPS, Clip
from schemas.skeleton import keypoint
from stages.geometry.contacts import ANKLES, planted_in_image
from stages.geometry.keypoints import KeypointRays, clean_keypoints

PITCH_MEAN_RAD, PITCH_SPREAD_RAD = 0.09, 0.26
"""Prior of the camera pitch: people are filmed from slightly above, 5 degrees down, with a standard deviation of 15."""

_LONG_BONES = tuple(
    (keypoint(f"{side}_{a}"), keypoint(f"{side}_{b}"))
    for side in ("left", "right")
    for a, b in (("shoulder", "hip"), ("hip", "knee"), ("knee", "ankle"), ("shoulder", "elbow"))
)


def prepare(clip: Clip, intrinsics: Float[np.ndarray, "4"]) -> KeypointRays:
    """Converts pixels to rays, confidence squared to weights, box sizes (the longer side) to scales."""
    keypoints = clean_keypoints(clip.keypoints)
    rays = (keypoints[..., :2] - intrinsics[2:]) / intrinsics[:2]
    sizes = np.maximum(np.maximum(clip.boxes[:, 2] - clip.boxes[:, 0], clip.boxes[:, 3] - clip.boxes[:, 1]), 8.0)
    return KeypointRays(
        rays=torch.from_numpy(rays).float(),
        weight=torch.from_numpy(keypoints[..., 2] ** 2).float(),
        scale=torch.from_numpy(intrinsics[0] / sizes[:, None]).float(),
        planted=torch.from_numpy(planted_in_image(keypoints, sizes)).float(),
        fps=FPS,
    )


def bone_depth(template: Float[Tensor, "17 3"], keypoints: KeypointRays) -> Float[Tensor, "T"]:
    """Distance of a body of the template's size, from the bones perpendicular to the line of sight, metres.

    A bone of length L seen under an angle l is at a distance of L / l or less, if it is foreshortened. The smallest such
    distances of a frame count, so that a crouching person is not taken for a distant one.
    """
    ends = torch.tensor(_LONG_BONES)
    length = (template[ends[:, 0]] - template[ends[:, 1]]).norm(dim=-1)
    angle = (keypoints.rays[:, ends[:, 0]] - keypoints.rays[:, ends[:, 1]]).norm(dim=-1)
    weight = torch.minimum(keypoints.weight[:, ends[:, 0]], keypoints.weight[:, ends[:, 1]])
    inverse_depth = torch.where(weight > 0.1, angle / length, torch.zeros_like(angle))
    largest = inverse_depth.topk(3, dim=-1).values.mean(-1)
    known = (weight > 0.1).sum(-1) >= 3
    depth = _fill_gaps((1 / largest.clamp(min=1e-3)).expand(1, -1), known)[0]
    return torch.from_numpy(smooth(depth.numpy(), 0.2 * keypoints.fps)).float().clamp(min=0.3)


def closed_form_position(
    relative: Float[Tensor, "H T 17 3"], depth: Float[Tensor, "T"], keypoints: KeypointRays
) -> Float[Tensor, "H T 3"]:
    """Pelvis position for which the points relative to it project onto their rays: ray x, ray y, log depth.

    A point p + t seen along (u, v) satisfies t_x - u t_z = u p_z - p_x and t_y - v t_z = v p_z - p_y: two linear equations per
    keypoint, each with an error of 15 cm because the pose is still unknown, and one for the depth, with an error of 4%. Solved
    by weighted least squares, repeated with weights by residual because some keypoints are outliers.
    """
    u, v = keypoints.rays[..., 0].expand(relative.shape[:-1]), keypoints.rays[..., 1].expand(relative.shape[:-1])
    zero, one = torch.zeros_like(u), torch.ones_like(u)
    matrix = torch.cat([torch.stack([one, zero, -u], -1), torch.stack([zero, one, -v], -1)], dim=-2)
    target = torch.cat([u * relative[..., 2] - relative[..., 0], v * relative[..., 2] - relative[..., 1]], dim=-1)
    base_weight = (keypoints.weight + 1e-4).repeat(1, 2).expand(target.shape) / 0.15**2
    from_bones = torch.zeros(len(depth), 3, 3)
    from_bones[:, 2, 2] = 1 / (0.04 * depth) ** 2
    weight, solution = base_weight, torch.zeros(*relative.shape[:2], 3)
    for _ in range(3):
        weighted = matrix * weight[..., None]
        normal = weighted.transpose(-1, -2) @ matrix + from_bones
        right = (weighted * target[..., None]).sum(-2) + from_bones[:, 2] * depth[:, None]
        solution = torch.linalg.solve(normal, right)
        residual = (matrix @ solution[..., None])[..., 0] - target
        weight = base_weight / (1 + (residual / 0.15) ** 2)
    known = keypoints.weight.sum(-1) > 2
    rays = [_fill_gaps(solution[..., axis] / solution[..., 2].clamp(min=0.3), known) for axis in (0, 1)]
    return torch.stack([*rays, _fill_gaps(solution[..., 2].clamp(min=0.3), known).log()], dim=-1)


def ground_line(
    depth: Float[Tensor, "H T 2"], keypoints: KeypointRays
) -> tuple[Float[Tensor, "H"], Float[Tensor, "H"], Float[Tensor, "H"]]:
    """Pitch, ground ray and depth (see `Unknowns`) of a level ground through the planted ankles.

    A point at depth z and image ray v is y = v z below the axis; on level ground y = a - z tan(pitch). Weighted least squares
    for a and the pitch, with the prior on pitch as an additional equation: it decides where the depth does not change.
    """
    weight = (keypoints.planted * keypoints.weight[:, ANKLES] + 1e-4).expand(depth.shape).flatten(1)
    below = (keypoints.rays[:, ANKLES, 1] * depth).flatten(1)
    depth = depth.flatten(1)
    weight = weight / weight.sum(1, keepdim=True)
    depth_m, below_m = (weight * depth).sum(1), (weight * below).sum(1)
    depth_offset, below_offset = depth - depth_m[:, None], below - below_m[:, None]
    # A maximum of ten independent observations, each with an error of 10 cm.
    precision = 10 / 0.1**2
    slope = (precision * (weight * depth_offset * below_offset).sum(1) - PITCH_MEAN_RAD / PITCH_SPREAD_RAD**2) / (
        precision * (weight * depth_offset**2).sum(1) + 1 / PITCH_SPREAD_RAD**2
    )
    return torch.atan(-slope).clamp(-0.6, 0.9), below_m / depth_m, depth_m


def _fill_gaps(values: Float[Tensor, "H T"], known: Bool[Tensor, "T"]) -> Float[Tensor, "H T"]:
    """Linear interpolation over frames with too few keypoints."""
    if bool(known.all()) or not bool(known.any()):
        return values
    frames = np.arange(values.shape[1])
    known_frames = frames[known.numpy()]
    rows = [np.interp(frames, known_frames, row[known].numpy()) for row in values]
    return torch.from_numpy(np.stack(rows)).float()
