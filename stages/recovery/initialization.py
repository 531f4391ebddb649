"""Before the optimiser: a clip as rays and weights, and where the person, the ground and the camera's pitch are at first.

All in closed form, so that the optimiser begins near enough to need few steps.
"""

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from schemas.curves import smooth
from schemas.records import FPS, Clip
from schemas.skeleton import keypoint
from stages.geometry.keypoints import KeypointRays, clean_keypoints

PITCH_MEAN_RAD, PITCH_SPREAD_RAD = 0.09, 0.26
"""People are filmed from slightly above: 5 degrees down, give or take 15."""

_LONG_BONES = tuple(
    (keypoint(f"{side}_{a}"), keypoint(f"{side}_{b}"))
    for side in ("left", "right")
    for a, b in (("shoulder", "hip"), ("hip", "knee"), ("knee", "ankle"), ("shoulder", "elbow"))
)
ANKLES = [keypoint("left_ankle"), keypoint("right_ankle")]


def prepare(clip: Clip, intrinsics: Float[np.ndarray, "4"]) -> KeypointRays:
    """Pixels to rays; confidence squared to weights; box sizes (the longer side) to scales."""
    keypoints = clean_keypoints(clip.keypoints)
    rays = (keypoints[..., :2] - intrinsics[2:]) / intrinsics[:2]
    sizes = np.maximum(np.maximum(clip.boxes[:, 2] - clip.boxes[:, 0], clip.boxes[:, 3] - clip.boxes[:, 1]), 8.0)
    return KeypointRays(
        rays=torch.from_numpy(rays).float(),
        weight=torch.from_numpy(keypoints[..., 2] ** 2).float(),
        scale=torch.from_numpy(intrinsics[0] / sizes[:, None]).float(),
        planted=torch.from_numpy(_planted_in_image(keypoints, sizes)).float(),
        fps=FPS,
    )


def _planted_in_image(
    keypoints: Float[np.ndarray, "T 17 3"], sizes: Float[np.ndarray, "T"]
) -> Float[np.ndarray, "T 2"]:
    """How likely each foot stands: its ankle is seen, hardly moves, and is not far above the other."""
    ankles = smooth(keypoints[:, ANKLES, :2], 1.5)
    if len(ankles) < 2:
        return np.zeros((len(ankles), 2))
    speed = np.linalg.norm(np.gradient(ankles, axis=0), axis=-1) * FPS / sizes[:, None]
    lifted = (ankles[..., 1].max(-1, keepdims=True) - ankles[..., 1]) / sizes[:, None]
    slow = 1 / (1 + np.exp(np.clip((speed - 0.25) / 0.05, -30, 30)))
    low = 1 / (1 + np.exp(np.clip((lifted - 0.12) / 0.02, -30, 30)))
    return keypoints[:, ANKLES, 2] * slow * low


def bone_depth(template: Float[Tensor, "17 3"], seen: KeypointRays) -> Float[Tensor, "T"]:
    """How far away a body of the template's size is, from the bones that lie across the line of sight, metres.

    A bone of length L seen under an angle l is at most L / l away, less when it is foreshortened; so the least such
    distances of a frame tell, and a crouching person is not taken for a distant one.
    """
    ends = torch.tensor(_LONG_BONES)
    length = (template[ends[:, 0]] - template[ends[:, 1]]).norm(dim=-1)
    angle = (seen.rays[:, ends[:, 0]] - seen.rays[:, ends[:, 1]]).norm(dim=-1)
    sure = torch.minimum(seen.weight[:, ends[:, 0]], seen.weight[:, ends[:, 1]])
    nearness = torch.where(sure > 0.1, angle / length, torch.zeros_like(angle))
    most = nearness.topk(3, dim=-1).values.mean(-1)
    known = (sure > 0.1).sum(-1) >= 3
    depth = _filled((1 / most.clamp(min=1e-3)).expand(1, -1), known)[0]
    return torch.from_numpy(smooth(depth.numpy(), 0.2 * seen.fps)).float().clamp(min=0.3)


def closed_form_place(
    relative: Float[Tensor, "H T 17 3"], depth: Float[Tensor, "T"], seen: KeypointRays
) -> Float[Tensor, "H T 3"]:
    """Where the pelvis must be for points relative to it to fall on their rays: ray x, ray y, log depth.

    A point p + t seen along (u, v) obeys t_x - u t_z = u p_z - p_x and t_y - v t_z = v p_z - p_y: two linear equations a
    keypoint, each good to 15 cm as the pose is not known yet, and one for the depth, good to 4%. Solved by weighted least
    squares, and again with weights by residual as some keypoints are far off.
    """
    u, v = seen.rays[..., 0].expand(relative.shape[:-1]), seen.rays[..., 1].expand(relative.shape[:-1])
    zero, one = torch.zeros_like(u), torch.ones_like(u)
    matrix = torch.cat([torch.stack([one, zero, -u], -1), torch.stack([zero, one, -v], -1)], dim=-2)
    target = torch.cat([u * relative[..., 2] - relative[..., 0], v * relative[..., 2] - relative[..., 1]], dim=-1)
    base = (seen.weight + 1e-4).repeat(1, 2).expand(target.shape) / 0.15**2
    from_bones = torch.zeros(len(depth), 3, 3)
    from_bones[:, 2, 2] = 1 / (0.04 * depth) ** 2
    weight, solution = base, torch.zeros(*relative.shape[:2], 3)
    for _ in range(3):
        weighted = matrix * weight[..., None]
        normal = weighted.transpose(-1, -2) @ matrix + from_bones
        right = (weighted * target[..., None]).sum(-2) + from_bones[:, 2] * depth[:, None]
        solution = torch.linalg.solve(normal, right)
        apart = (matrix @ solution[..., None])[..., 0] - target
        weight = base / (1 + (apart / 0.15) ** 2)
    known = seen.weight.sum(-1) > 2
    rays = [_filled(solution[..., axis] / solution[..., 2].clamp(min=0.3), known) for axis in (0, 1)]
    return torch.stack([*rays, _filled(solution[..., 2].clamp(min=0.3), known).log()], dim=-1)


def ground_line(
    depth: Float[Tensor, "H T 2"], seen: KeypointRays
) -> tuple[Float[Tensor, "H"], Float[Tensor, "H"], Float[Tensor, "H"]]:
    """Pitch, drop and depth (see `Unknowns`) of a level ground through the ankles that stand on it.

    A point at depth z and image ray v lies y = v z below the axis; on level ground y = a - z tan(pitch). Weighted least
    squares for a and the pitch, with the prior on pitch as one more equation: it decides where depth does not change.
    """
    weight = (seen.planted * seen.weight[:, ANKLES] + 1e-4).expand(depth.shape).flatten(1)
    below = (seen.rays[:, ANKLES, 1] * depth).flatten(1)
    depth = depth.flatten(1)
    weight = weight / weight.sum(1, keepdim=True)
    depth_m, below_m = (weight * depth).sum(1), (weight * below).sum(1)
    along, down = depth - depth_m[:, None], below - below_m[:, None]
    # Ten independent sightings at most, each 10 cm uncertain.
    certain = 10 / 0.1**2
    slope = (certain * (weight * along * down).sum(1) - PITCH_MEAN_RAD / PITCH_SPREAD_RAD**2) / (
        certain * (weight * along**2).sum(1) + 1 / PITCH_SPREAD_RAD**2
    )
    return torch.atan(-slope).clamp(-0.6, 0.9), below_m / depth_m, depth_m


def _filled(values: Float[Tensor, "H T"], known: Bool[Tensor, "T"]) -> Float[Tensor, "H T"]:
    """Values of frames in which too little was seen, linearly from their neighbours."""
    if bool(known.all()) or not bool(known.any()):
        return values
    frames = np.arange(values.shape[1])
    at = frames[known.numpy()]
    rows = [np.interp(frames, at, row[known].numpy()) for row in values]
    return torch.from_numpy(np.stack(rows)).float()
