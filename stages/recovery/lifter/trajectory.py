"""The body's trajectory in the world, solved over the whole clip.

Given the pose and orientation of every frame, three kinds of observations are linear in the pelvis positions p_t: a keypoint at
offset c from it that is seen along the ray (u, v) requires p + c to lie on that ray (two equations); the network's velocity
predicts p_{t+1} - p_t; and for a planted foot, that difference is the negative of the foot's motion relative to the pelvis.
Where the camera may be moving, its positions are unknown as well: rays start at them, with a prior of little motion. Solved by
iteratively reweighted least squares in the axes of a level world.
"""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import avg_pool1d

from schemas.records import FPS

_INITIAL_WEIGHT = 0.01
"""Weight of the initial estimate itself: a standard deviation of 10 m."""
_CAMERA_ORIGIN_WEIGHT = 1e6
"""Weight of the camera's first position: a standard deviation of a millimetre."""
_MIN_CONFIDENCE = 0.3
"""Lowest confidence of the keypoints from which their noise is estimated."""
_ITERATIONS, _ITERATIONS_MOVING_CAMERA = 3, 6
"""Iterations of reweighting."""
_SLIDE_FRAMES = 15
"""Window over which the slide of a foot is averaged."""
_MIN_CONTACT_WEIGHT = 0.1
_FULL_CONTACT_ITERATIONS = 3
"""Iterations in which predicted contacts have full weight, for a moving camera."""


@dataclass(frozen=True)
class TrajectorySettings:
    """Assumed noise of each kind of observation."""

    keypoint_sigma: tuple[float, float] = (0.005, 0.03)
    """Distance of a keypoint from its ray, share of the box: minimum and maximum. Between them it is the median residual of
    confident keypoints at the initial estimate: clean keypoints count more against the velocity than noisy ones."""
    correlated_count: float = 6.0
    """Errors within a frame and between neighbouring frames are correlated: this many keypoints count as one."""
    depth_sigma: float = 0.05
    """The network's depth, share of it."""
    velocity_sigma_mps: float = 0.25
    """The network's velocity, for a static camera."""
    velocity_sigma_moving_camera_mps: float = 0.12
    """The same for a camera that may be moving: rays then constrain the trajectory less, and their errors, caused by slightly
    wrong camera rotations, must not dominate."""
    slide_sigma_mps: float = 0.06
    """Velocity of a planted foot."""
    max_slide_mps: float = 0.25
    """A predicted contact whose foot slides faster than this when unconstrained is down-weighted."""
    camera_sigma_mps: float = 0.2
    """Velocity of a camera that may be moving."""
    huber_threshold: float = 2.0
    """Residuals beyond this many standard deviations have a linear cost instead of a quadratic one."""


def solve_path(
    points: Float[Tensor, "T K 3"],
    rays: Float[Tensor, "T K 2"],
    confidence: Float[Tensor, "T K"],
    size: Float[Tensor, "T"],
    initial: Float[Tensor, "T 3"],
    to_camera: Float[Tensor, "T 3 3"],
    velocity: Float[Tensor, "T 3"],
    feet: Float[Tensor, "T C 3"],
    contact_probability: Float[Tensor, "T C"],
    settings: TrajectorySettings,
    *,
    moving_camera: bool = False,
) -> tuple[Float[Tensor, "T 3"], Float[Tensor, "T 3"]]:
    """Positions of the pelvis and of the camera, metres, in a level world whose origin is the camera of the first frame.

    `points` and `feet` are relative to the pelvis in the level world's axes, `initial` is the pelvis relative to the camera,
    `size` the box sides over the focal length, `velocity` the network's velocity in metres a second, `contact_probability` the
    probability that a foot is planted. Without `moving_camera` the camera stays at the origin.
    """
    frames = len(points)
    dtype = torch.float64
    points, rays, confidence, size, initial_pelvis, to_camera, velocity, feet, contact_probability = (
        value.to(dtype)
        for value in (points, rays, confidence, size, initial, to_camera, velocity, feet, contact_probability)
    )
    unknowns = 6 if moving_camera else 3
    # Observations depend on the pelvis position minus the camera position.
    relative_position = torch.cat([torch.eye(3, dtype=dtype), -torch.eye(3, dtype=dtype)], dim=1)[:, :unknowns]
    # Rows [1, 0, -u] and [0, 1, -v] in camera axes, rotated to the level world.
    zero, one = torch.zeros_like(rays[..., 0]), torch.ones_like(rays[..., 0])
    equations = torch.stack(
        [torch.stack([one, zero, -rays[..., 0]], -1), torch.stack([zero, one, -rays[..., 1]], -1)], dim=-2
    )
    equations = equations @ to_camera[:, None]
    target = -(equations @ points[..., None])[..., 0]
    depth_axis = to_camera[:, 2]
    depth = (depth_axis * initial_pelvis).sum(-1).clamp(min=0.3)
    residual = ((equations @ initial_pelvis[:, None, :, None])[..., 0] - target).norm(dim=-1)
    residual = residual / (size * depth)[:, None]
    confident = residual[confidence > _MIN_CONFIDENCE]
    min_sigma, max_sigma = settings.keypoint_sigma
    sigma = float(confident.median().clamp(min_sigma, max_sigma)) if len(confident) else max_sigma
    sigma_m = sigma * size * depth
    base_ray_weight = (confidence**2 / settings.correlated_count)[..., None] / sigma_m[:, None, None] ** 2
    depth_weight = 1 / (settings.depth_sigma * depth) ** 2 / settings.correlated_count

    expected_step = -(feet[1:] - feet[:-1])
    planted = (contact_probability[1:] * contact_probability[:-1]) ** 2
    base_contact_weight = planted / (settings.slide_sigma_mps / FPS) ** 2
    velocity_sigma_mps = settings.velocity_sigma_moving_camera_mps if moving_camera else settings.velocity_sigma_mps
    velocity_weight = torch.full((frames - 1,), 1 / (velocity_sigma_mps / FPS) ** 2, dtype=dtype)
    base_camera_weight = torch.full((frames - 1,), 1 / (settings.camera_sigma_mps / FPS) ** 2, dtype=dtype)
    path, camera = initial_pelvis, torch.zeros_like(initial_pelvis)
    contact_scale: Tensor | float
    for iteration in range(_ITERATIONS_MOVING_CAMERA if moving_camera else _ITERATIONS):
        ray_distance = ((equations @ (path - camera)[:, None, :, None])[..., 0] - target).norm(dim=-1, keepdim=True)
        ray_weight = base_ray_weight * _huber_weight(ray_distance / sigma_m[:, None, None], settings.huber_threshold)
        slide = (path[1:] - path[:-1])[:, None] - expected_step
        slide_sigmas = slide.norm(dim=-1) * FPS / settings.slide_sigma_mps
        contact_weight = base_contact_weight * _huber_weight(slide_sigmas, settings.huber_threshold)
        if moving_camera and iteration < _FULL_CONTACT_ITERATIONS:
            contact_scale = 1.0  # the only evidence that separates a moving camera from a walking body
        elif iteration == 0:
            contact_scale = 0.0  # feet that slide without constraints are not planted, and would hold the body back
        else:
            contact_scale = _contact_weight(slide, settings.max_slide_mps)
        contact_weight = contact_weight * contact_scale
        blocks = torch.einsum("tkra,tkr,tkrb->tab", equations, ray_weight, equations)
        rhs = torch.einsum("tkra,tkr,tkr->ta", equations, ray_weight, target)
        blocks = blocks + depth_weight[:, None, None] * depth_axis[:, :, None] * depth_axis[:, None]
        rhs = rhs + (depth_weight * depth)[:, None] * depth_axis
        # Through long gaps without keypoints the initial estimate is the only constraint.
        blocks, rhs = blocks + _INITIAL_WEIGHT * torch.eye(3, dtype=dtype), rhs + _INITIAL_WEIGHT * initial_pelvis
        blocks, rhs = relative_position.T @ blocks @ relative_position, rhs @ relative_position
        link = (velocity_weight + contact_weight.sum(1))[:, None].expand(-1, 3)
        link_rhs = velocity_weight[:, None] * velocity[:-1] / FPS + (contact_weight[..., None] * expected_step).sum(1)
        if moving_camera:
            speed = (camera[1:] - camera[:-1]).norm(dim=-1) * FPS
            camera_weight = base_camera_weight * _huber_weight(speed / settings.camera_sigma_mps, 1.0)
            link = torch.cat([link, camera_weight[:, None].expand(-1, 3)], dim=1)
            link_rhs = torch.cat([link_rhs, torch.zeros_like(link_rhs)], dim=1)
            blocks[0, 3:, 3:] += _CAMERA_ORIGIN_WEIGHT * torch.eye(3, dtype=dtype)
        blocks[1:] += torch.diag_embed(link)
        blocks[:-1] += torch.diag_embed(link)
        rhs[1:] += link_rhs
        rhs[:-1] -= link_rhs
        solution = _solve_block_tridiagonal(blocks, link, rhs)
        path = solution[:, :3]
        if moving_camera:
            camera = solution[:, 3:]
    return path.to(initial.dtype), camera.to(initial.dtype)


def _contact_weight(slide: Float[Tensor, "S C 3"], max_slide_mps: float) -> Float[Tensor, "S C"]:
    """Weight of contacts by their slide between frames, metres: Geman-McClure of the mean velocity over half a second, so that
    jitter of a noisy path does not count as sliding."""
    mean = avg_pool1d(slide.permute(1, 2, 0), _SLIDE_FRAMES, 1, _SLIDE_FRAMES // 2, count_include_pad=False)
    speed_mps = mean.permute(2, 0, 1).norm(dim=-1) * FPS
    return (1 + (speed_mps / max_slide_mps) ** 2).pow(-2).clamp(min=_MIN_CONTACT_WEIGHT)


def _huber_weight(deviations: Tensor, threshold: float) -> Tensor:
    """Weight of iteratively reweighted least squares for the Huber cost."""
    return threshold / deviations.clamp(min=threshold)


def _solve_block_tridiagonal(
    blocks: Float[Tensor, "T D D"], link: Float[Tensor, "L D"], rhs: Float[Tensor, "T D"]
) -> Float[Tensor, "T D"]:
    """Solves a symmetric system with blocks on the diagonal and diagonal blocks of -link next to it, by block elimination."""
    diagonal, couplings, b = blocks.numpy().copy(), link.numpy(), rhs.numpy().copy()
    inverses = np.empty_like(diagonal)
    for t in range(len(b)):
        if t:
            coupling = couplings[t - 1]
            diagonal[t] -= coupling[:, None] * inverses[t - 1] * coupling
            b[t] += coupling * (inverses[t - 1] @ b[t - 1])
        inverses[t] = np.linalg.inv(diagonal[t])
    x = np.empty_like(b)
    x[-1] = inverses[-1] @ b[-1]
    for t in range(len(b) - 2, -1, -1):
        x[t] = inverses[t] @ (b[t] + couplings[t] * x[t + 1])
    return torch.from_numpy(x)
