"""Estimation of an unknown focal length from people who walk towards the camera or away from it.

An assumed focal length that is too long by some factor places everybody farther away by that factor, which stretches
displacements along the line of sight by it, but not lateral ones. The true displacement follows from the steps: the network's
velocity is learned from the motion of the limbs. In addition, a person who walks away from a camera that looks down climbs in
its image by the amount that keeps them on level ground. The factor is a posterior mean over a grid: a Gaussian prior on its
log, and for each window the likelihood of the pelvis displacements over one second.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import avg_pool1d

from schemas.records import FPS
from stages.recovery.lifter.features import FOCAL_GUESSED

_MAX_LOG_RATIO = 0.7
"""Largest log of the true focal length over the assumed one: a factor of two."""
_GRID_SIZE = 57
_SPAN_FRAMES = round(FPS)
_MIN_SPAN_FRAMES = 10
_VELOCITY_SIGMA = (0.07, 0.1, 0.25)
"""Error of the network's velocity along the line of sight, averaged over a span: metres a second, and two systematic errors, as
shares of that velocity and of the lateral one: the speed of people who move unusually is over- or underestimated, and headings
are wrong by some degrees."""
_MOVING_CAMERA_SIGMA_MPS = 0.4
"""The same for a camera that may be moving, whose own displacement is part of the observed one, metres a second."""
_DEPTH_SIGMA = 0.008
"""Error of the change of depth over a span, share of the depth."""
_HEIGHT_SIGMA_M = 0.08
"""Standard deviation of a pelvis's vertical displacement over a span, metres."""
_VERTICAL_SIGMA_RAD = 0.05
"""Systematic error of the estimated vertical, radians."""
_STUDENT_DF = 3.0
"""Degrees of freedom of Student's t, the distribution of the errors: some are large."""


@dataclass(frozen=True)
class PelvisPath:
    """Pelvis path over T frames in front of a camera."""

    depth: Float[Tensor, "T"]
    """Along the line of sight, metres, with the assumed focal length."""
    depth_velocity: Float[Tensor, "T"]
    """Velocity along the line of sight by the network, metres a second."""
    speed: Float[Tensor, "T"]
    """Speed by the network, metres a second."""
    lateral_height: Float[Tensor, "T"]
    """Contribution of the position's x and y in camera axes to its height in the world, metres; that of its depth is excluded."""
    slope: Float[Tensor, "T"]
    """Height gained per metre along the line of sight: negative where the camera looks down."""
    moving_camera: bool
    """Whether the camera may be moving."""


def estimate_focal_ratio(paths: Sequence[PelvisPath], frames: int) -> tuple[float, float]:
    """The true focal length over the assumed one, and the standard deviation of its log. Overlapping paths have the total
    weight of as many as fit side by side into `frames`."""
    share = min(1.0, frames / max(1, sum(len(path.depth) for path in paths)))
    grid = torch.linspace(-_MAX_LOG_RATIO, _MAX_LOG_RATIO, _GRID_SIZE)
    log_posterior = -0.5 * (grid / FOCAL_GUESSED) ** 2
    for path in paths:
        log_posterior = log_posterior + share * _likelihood(path, grid.exp(), frames)
    posterior = (log_posterior - log_posterior.max()).exp()
    posterior = posterior / posterior.sum()
    mean = (posterior * grid).sum()
    return float(mean.exp()), float((posterior * (grid - mean) ** 2).sum().sqrt())


def _likelihood(path: PelvisPath, ratio: Float[Tensor, "G"], all_frames: int) -> Float[Tensor, "G"]:
    """Log-likelihood of a path for each ratio. Overlapping spans have the total weight of as many as fit side by side. A
    systematic error does not average out over spans, hence its variance grows with their number in `all_frames`."""
    frames = len(path.depth)
    span = min(_SPAN_FRAMES, frames // 2)
    if span < _MIN_SPAN_FRAMES:
        return torch.zeros_like(ratio)
    seconds, spans = span / FPS, max(1.0, all_frames / span)

    def change(value: Float[Tensor, "T"]) -> Float[Tensor, "S 1"]:
        return (value[span:] - value[:-span])[:, None]

    def log_likelihood(residual: Float[Tensor, "S G"], variance: Float[Tensor, "S G"]) -> Float[Tensor, "G"]:
        log_density = -(_STUDENT_DF + 1) / 2 * (1 + residual**2 / (_STUDENT_DF * variance)).log() - variance.log() / 2
        return log_density.mean(0) * (frames - span) / span

    observed_step = change(path.depth) * ratio
    predicted_step, speed_step = (
        avg_pool1d(value[None, None, :-1], span, 1)[0, 0][:, None] * seconds
        for value in (path.depth_velocity, path.speed)
    )
    lateral_step = (speed_step.square() - predicted_step.square()).clamp(min=0).sqrt()
    depth = ((path.depth[span:] + path.depth[:-span]) / 2)[:, None] * ratio
    constant, depth_share, lateral_share = _VELOCITY_SIGMA
    systematic = ((depth_share * predicted_step) ** 2 + (lateral_share * lateral_step) ** 2) * spans
    variance = systematic + (constant * seconds) ** 2 + (_DEPTH_SIGMA * depth) ** 2
    depth_residual = observed_step - predicted_step
    if path.moving_camera:
        # The height of the camera changes as well, so level ground gives no information.
        return log_likelihood(depth_residual, variance + (_MOVING_CAMERA_SIGMA_MPS * seconds) ** 2)
    height_step = change(path.lateral_height) + change(path.slope * path.depth) * ratio
    # With the assumed depths: a variance that shrank with the ratio would favour small ratios.
    height_variance = _HEIGHT_SIGMA_M**2 + (_VERTICAL_SIGMA_RAD * change(path.depth)) ** 2 * spans
    height_likelihood = log_likelihood(height_step, height_variance.expand_as(height_step))
    return log_likelihood(depth_residual, variance) + height_likelihood
