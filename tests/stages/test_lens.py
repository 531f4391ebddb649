"""Focal lengths that nobody told, from how far people go by their steps."""

import math

import pytest
import torch

from stages.lifting.features import FOCAL_GUESSED
from stages.lifting.lens import Way, find_ratio


def way(ahead_mps: float, across_mps: float, ratio: float, *, frames: int = 80, carried: bool = False) -> Way:
    """Somebody who goes evenly, before a camera whose focal length is `ratio` times the assumed one."""
    t = torch.arange(frames) / 30
    generator = torch.Generator().manual_seed(0)
    depth = (6 + ahead_mps * t) / ratio * (1 + 0.003 * torch.randn(frames, generator=generator))
    velocity = torch.full((frames,), ahead_mps) + 0.03 * torch.randn(frames, generator=generator)
    return Way(depth, velocity, torch.full((frames,), math.hypot(ahead_mps, across_mps)), carried)


@pytest.mark.parametrize("ratio", [0.65, 0.9, 1.5])
@pytest.mark.parametrize("ahead_mps", [-1.3, 1.3])
def test_whoever_walks_ahead_tells_the_lens(ratio: float, ahead_mps: float) -> None:
    found, off = find_ratio([way(ahead_mps, 0.2, ratio)], 80)
    # Held back by the prior, yet most of the way.
    assert abs(math.log(found / ratio)) < 0.05 + 0.4 * abs(math.log(ratio))
    assert off < 0.6 * FOCAL_GUESSED
    # The same three times is no more than once; three such walks are, though he may be slower than he seems in all of them.
    assert find_ratio([way(ahead_mps, 0.2, ratio)] * 3, 80)[1] == pytest.approx(off, rel=1e-3)
    assert find_ratio([way(ahead_mps, 0.2, ratio)] * 3, 240)[1] < 0.95 * off


@pytest.mark.parametrize(("across_mps", "frames"), [(0.0, 80), (1.3, 80), (0.0, 15)])
def test_whoever_does_not_tells_nothing(across_mps: float, frames: int) -> None:
    found, off = find_ratio([way(0.0, across_mps, 1.4, frames=frames)], frames)
    assert abs(math.log(found)) < 0.12
    assert off == pytest.approx(FOCAL_GUESSED, rel=0.25)


def test_a_camera_that_may_be_carried_is_believed_less() -> None:
    still, carried = (find_ratio([way(1.0, 0.0, 1.4, carried=one)], 80) for one in (False, True))
    assert still[1] < carried[1] < FOCAL_GUESSED
    assert abs(math.log(still[0] / 1.4)) < abs(math.log(carried[0] / 1.4))
