"""Faults are what their names say."""

import numpy as np
import torch

from model.data.samples import MotionSample
from model.evaluation.corruptions import shaken, sides_swapped, warped
from model.features import humo263
from model.features.motions import motion_features
from schemas.body_model import BodyModel
from schemas.rotations import axis_angle_to_matrix


def test_shaking_turns_every_joint_by_its_degrees(dataset_sample: MotionSample) -> None:
    motion = dataset_sample.motion
    still, moved = (axis_angle_to_matrix(torch.from_numpy(one.poses)) for one in (motion, shaken(motion, 5.0, seed=1)))
    cosine = ((still.mT @ moved).diagonal(dim1=-2, dim2=-1).sum(-1) - 1) / 2
    degrees = torch.rad2deg(cosine.clamp(-1, 1).acos())
    # The length of a vector of three normal deviates of 5 degrees is 8 on average.
    assert 7.5 < degrees.mean() < 8.5
    assert degrees.min() > 0
    assert np.array_equal(shaken(motion, 5.0, seed=1).poses, shaken(motion, 5.0, seed=1).poses)


def test_warping_changes_the_speed_and_nothing_else(dataset_sample: MotionSample) -> None:
    motion = dataset_sample.motion
    same = warped(motion, 1.0)
    assert np.allclose(same.trans, motion.trans, atol=1e-6)
    fast = warped(motion, 2.0)
    assert len(fast.poses) == (len(motion.poses) + 1) // 2
    assert np.allclose(fast.trans, motion.trans[::2], atol=1e-6)
    assert np.allclose(fast.poses, motion.poses[::2], atol=1e-3)
    assert len(warped(motion, 0.5).poses) == 2 * len(motion.poses) - 1


def test_swapping_sides_is_the_mirror_of_the_features(dataset_sample: MotionSample, body: BodyModel) -> None:
    """Up to the body's own asymmetry, of a few millimetres."""
    motion = dataset_sample.motion
    rows = motion_features([motion], body)
    swapped = motion_features([sides_swapped(motion)], body)
    assert (humo263.mirror(rows) - swapped).abs().mean() < 0.01
    assert (rows - swapped).abs().mean() > 0.02
    assert np.allclose(sides_swapped(sides_swapped(motion)).poses, motion.poses)
