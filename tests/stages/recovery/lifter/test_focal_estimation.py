"""Focal lengths that nobody told, from how far people go by their steps and from level ground."""

import math

import pytest
import torch

from stages.recovery.lifter.features import FOCAL_GUESSED
from stages.recovery.lifter.focal_estimation import Way, find_ratio


def way(
    ahead_mps: float,
    across_mps: float,
    ratio: float,
    *,
    frames: int = 80,
    carried: bool = False,
    down_rad: float = 0.0,
    seems: float = 1.0,
) -> Way:
    """Somebody who goes evenly, before a camera whose focal length is `ratio` times the assumed one and that looks down by
    `down_rad`. By his steps he seems to go `seems` times as fast."""
    t = torch.arange(frames) / 30
    generator = torch.Generator().manual_seed(0)
    true_depth = 6 + ahead_mps * t
    depth = true_depth / ratio * (1 + 0.003 * torch.randn(frames, generator=generator))
    velocity = seems * ahead_mps + 0.03 * torch.randn(frames, generator=generator)
    speed = torch.full((frames,), seems * math.hypot(ahead_mps, across_mps))
    slope = torch.full((frames,), -math.sin(down_rad))
    return Way(depth, velocity, speed, -2 - slope * true_depth, slope, carried)


@pytest.mark.parametrize("ratio", [0.65, 0.9, 1.5])
@pytest.mark.parametrize("ahead_mps", [-1.3, 1.3])
def test_whoever_walks_ahead_tells_the_lens(ratio: float, ahead_mps: float) -> None:
    found, off = find_ratio([way(ahead_mps, 0.2, ratio)], 80)
    # Held back by the prior, yet most of the way.
    assert found == pytest.approx(ratio, rel=0.125)
    assert off < 0.18
    # The same three times is no more than once; three such walks are, though he may be slower than he seems in all of them.
    assert find_ratio([way(ahead_mps, 0.2, ratio)] * 3, 80)[1] == pytest.approx(off, rel=1e-3)
    assert find_ratio([way(ahead_mps, 0.2, ratio)] * 3, 240)[1] < 0.9 * off


@pytest.mark.parametrize(("across_mps", "frames"), [(0.0, 80), (1.3, 80), (0.0, 15)])
def test_whoever_does_not_tells_nothing(across_mps: float, frames: int) -> None:
    found, off = find_ratio([way(0.0, across_mps, 1.4, frames=frames)], frames)
    assert abs(math.log(found)) < 0.12
    assert off == pytest.approx(FOCAL_GUESSED, rel=0.25)


@pytest.mark.parametrize("ratio", [0.65, 1.5])
def test_level_ground_tells_the_lens_of_a_camera_that_looks_down(ratio: float) -> None:
    level, steep = (find_ratio([way(1.3, 0.0, ratio, down_rad=down, seems=0.8)], 80) for down in (0.0, 0.4))
    assert steep[1] < 0.95 * level[1]
    assert abs(math.log(steep[0] / ratio)) < max(0.08, abs(math.log(level[0] / ratio)))
    # A camera that is carried has a height of its own.
    carried = [find_ratio([way(1.3, 0.0, ratio, down_rad=down, carried=True)], 80) for down in (0.0, 0.4)]
    assert carried[0] == carried[1]


def test_a_camera_that_may_be_carried_is_believed_less() -> None:
    still, carried = (find_ratio([way(1.0, 0.0, 1.4, carried=one)], 80) for one in (False, True))
    assert still[1] < carried[1] < FOCAL_GUESSED
    assert abs(math.log(still[0] / 1.4)) < abs(math.log(carried[0] / 1.4))
