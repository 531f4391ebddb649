"""Pitch of the pelvis: normalisation across recordings, and preservation under augmentation."""

from dataclasses import replace

import pytest
import torch

from schemas.body_model import BodyModel
from schemas.kinematics import forward_kinematics
from stages.training.lifter import motion_dataset
from stages.training.lifter.augment import Shares, augment, draw_windows
from stages.training.lifter.pelvis import pelvic_pitch_residual, pitch_pelvis


@pytest.fixture(scope="module")
def normalised(dataset: motion_dataset.MotionDataset) -> motion_dataset.MotionDataset:
    return motion_dataset.with_normalised_pelvis_pitch(dataset)


def test_residual_of_simple_poses() -> None:
    standing = torch.eye(3).expand(1, 24, 3, 3)
    residual, validity = pelvic_pitch_residual(standing)
    assert float(residual.abs().max()) < 1e-6
    assert float(validity.min()) == 1
    pitched = pitch_pelvis(standing, torch.tensor([0.3]))
    residual, validity = pelvic_pitch_residual(pitched)
    torch.testing.assert_close(residual, torch.tensor([0.3]))
    # The whole body leans rigidly: pelvis, trunk, thighs alike.
    leaning = standing.clone()
    leaning[:, 0] = pitched[:, 0]
    assert float(pelvic_pitch_residual(leaning)[0]) == pytest.approx(0.3 * (1 - 0.59 - 0.35), abs=1e-5)
    lying = pitch_pelvis(standing, torch.tensor([1.5]))
    assert float(pelvic_pitch_residual(lying)[1]) == 0


def test_normalisation_removes_the_offsets_of_recordings(
    body: BodyModel, dataset: motion_dataset.MotionDataset, normalised: motion_dataset.MotionDataset
) -> None:
    offsets = torch.linspace(-0.25, 0.25, len(dataset.names))
    pitched = replace(dataset, rotations=pitch_pelvis(dataset.rotations, offsets.repeat_interleave(dataset.lengths)))
    corrected = motion_dataset.with_normalised_pelvis_pitch(pitched)
    difference = torch.stack(
        [
            (motion[0][:, 0] - expected[0][:, 0]).abs().max()
            for motion, expected in (
                (corrected.motion(index), normalised.motion(index)) for index in range(len(dataset.names))
            )
        ]
    )
    # All but the recordings without standing or walking.
    assert float((difference < 0.03).float().mean()) > 0.9
    joints = [forward_kinematics(b.rotations, body.joint_template, b.pelvis)[1] for b in (pitched, corrected)]
    torch.testing.assert_close(joints[0][:, 1:], joints[1][:, 1:], atol=1e-4, rtol=0)


def test_the_pelvis_follows_augmentation(normalised: motion_dataset.MotionDataset) -> None:
    generator = torch.Generator().manual_seed(2)
    windows = draw_windows(normalised, 64, 40, (0.67, 1.5), generator)
    before, validity = pelvic_pitch_residual(windows.rotations)
    augmented = augment(windows, Shares(recombined=1.0, perturbed=1.0), generator)
    after, new_validity = pelvic_pitch_residual(augmented.rotations)
    upright = (validity == 1) & (new_validity == 1)
    assert float(upright.float().mean()) > 0.5
    # A pelvis rotated about its own X pitches a little less where its hips are not level.
    torch.testing.assert_close(after[upright], before[upright], atol=8e-3, rtol=0)
    unchanged = augment(windows, Shares(), generator)
    torch.testing.assert_close(unchanged.rotations, windows.rotations, atol=1e-5, rtol=0)


def test_backs_are_bent_constantly_and_legs_stay(body: BodyModel, normalised: motion_dataset.MotionDataset) -> None:
    generator = torch.Generator().manual_seed(4)
    windows = draw_windows(normalised, 32, 40, (1.0, 1.0), generator)
    augmented = augment(windows, Shares(backs=1.0), generator)
    rotations = [
        forward_kinematics(motion.rotations, body.joint_template, motion.pelvis)[1] for motion in (windows, augmented)
    ]
    legs = [1, 2, 4, 5, 7, 8]
    torch.testing.assert_close(rotations[0][:, :, legs], rotations[1][:, :, legs], atol=1e-4, rtol=0)
    pelvis, chest = (rotations[0][:, :, index].mT @ rotations[1][:, :, index] for index in (0, 9))
    assert float((pelvis - pelvis[:, :1]).abs().max()) < 1e-4
    bend = torch.atan2(chest[..., 2, 1], chest[..., 1, 1]).mean(1)
    pelvic_pitch = torch.atan2(pelvis[:, 0, 2, 1], pelvis[:, 0, 1, 1])
    assert 0.15 < float(bend.std()) < 0.5
    assert float(torch.corrcoef(torch.stack([bend, pelvic_pitch]))[0, 1]) > 0.7
