"""Estimating unknown focal lengths from walked distances and from level ground."""

import math

import pytest
import torch

from stages.recovery.lifter.features import FOCAL_GUESSED
from stages.recovery.lifter.focal_estimation import PelvisPath, estimate_focal_ratio


def pelvis_path(
    depth_mps: float,
    lateral_mps: float,
    ratio: float,
    *,
    frames: int = 80,
    moving_camera: bool = False,
    down_rad: float = 0.0,
    speed_factor: float = 1.0,
) -> PelvisPath:
    """A person who walks at constant speed in front of a camera with a focal length of `ratio` times the assumed one that looks
    down by `down_rad`. The predicted speed is `speed_factor` times the true one."""
    t = torch.arange(frames) / 30
    generator = torch.Generator().manual_seed(0)
    true_depth = 6 + depth_mps * t
    depth = true_depth / ratio * (1 + 0.003 * torch.randn(frames, generator=generator))
    velocity = speed_factor * depth_mps + 0.03 * torch.randn(frames, generator=generator)
    speed = torch.full((frames,), speed_factor * math.hypot(depth_mps, lateral_mps))
    slope = torch.full((frames,), -math.sin(down_rad))
    return PelvisPath(depth, velocity, speed, -2 - slope * true_depth, slope, moving_camera)


@pytest.mark.parametrize("ratio", [0.65, 0.9, 1.5])
@pytest.mark.parametrize("depth_mps", [-1.3, 1.3])
def test_walking_along_the_line_of_sight_gives_the_focal_length(ratio: float, depth_mps: float) -> None:
    estimate, deviation = estimate_focal_ratio([pelvis_path(depth_mps, 0.2, ratio)], 80)
    # Pulled towards the prior.
    assert estimate == pytest.approx(ratio, rel=0.125)
    assert deviation < 0.18
    # Three copies in the frames of one path count once; as three separate paths they add information, although the
    # speed may be overestimated in all of them.
    assert estimate_focal_ratio([pelvis_path(depth_mps, 0.2, ratio)] * 3, 80)[1] == pytest.approx(deviation, rel=1e-3)
    assert estimate_focal_ratio([pelvis_path(depth_mps, 0.2, ratio)] * 3, 240)[1] < 0.9 * deviation


@pytest.mark.parametrize(("lateral_mps", "frames"), [(0.0, 80), (1.3, 80), (0.0, 15)])
def test_without_depth_motion_the_prior_remains(lateral_mps: float, frames: int) -> None:
    estimate, deviation = estimate_focal_ratio([pelvis_path(0.0, lateral_mps, 1.4, frames=frames)], frames)
    assert abs(math.log(estimate)) < 0.12
    assert deviation == pytest.approx(FOCAL_GUESSED, rel=0.25)


@pytest.mark.parametrize("ratio", [0.65, 1.5])
def test_level_ground_gives_the_focal_length_of_a_camera_that_looks_down(ratio: float) -> None:
    level, steep = (
        estimate_focal_ratio([pelvis_path(1.3, 0.0, ratio, down_rad=down, speed_factor=0.8)], 80) for down in (0.0, 0.4)
    )
    assert steep[1] < 0.95 * level[1]
    assert abs(math.log(steep[0] / ratio)) < max(0.08, abs(math.log(level[0] / ratio)))
    # A moving camera changes its height.
    moving = [
        estimate_focal_ratio([pelvis_path(1.3, 0.0, ratio, down_rad=down, moving_camera=True)], 80)
        for down in (0.0, 0.4)
    ]
    assert moving[0] == moving[1]


def test_a_moving_camera_gives_less_evidence() -> None:
    static, moving = (
        estimate_focal_ratio([pelvis_path(1.0, 0.0, 1.4, moving_camera=value)], 80) for value in (False, True)
    )
    assert static[1] < moving[1] < FOCAL_GUESSED
    assert abs(math.log(static[0] / 1.4)) < abs(math.log(moving[0] / 1.4))
