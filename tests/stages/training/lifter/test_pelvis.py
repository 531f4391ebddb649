"""How a pelvis is pitched: what recordings disagree on, and what variation of motions keeps."""

from dataclasses import replace

import pytest
import torch

from schemas.body_model import BodyModel
from schemas.kinematics import forward_kinematics
from stages.training.lifter import motion_dataset
from stages.training.lifter.augment import Shares, draw_windows, vary
from stages.training.lifter.pelvis import off_rhythm, pitch


@pytest.fixture(scope="module")
def even(dataset: motion_dataset.MotionDataset) -> motion_dataset.MotionDataset:
    return motion_dataset.with_pelvis_in_rhythm(dataset)


def test_who_stands_or_bows_as_the_rhythm_has_it_is_not_off() -> None:
    stood = torch.eye(3).expand(1, 24, 3, 3)
    off, share = off_rhythm(stood)
    assert float(off.abs().max()) < 1e-6
    assert float(share.min()) == 1
    bowed = pitch(stood, torch.tensor([0.3]))
    off, share = off_rhythm(bowed)
    torch.testing.assert_close(off, torch.tensor([0.3]))
    # The whole body leaning as a plank: pelvis, trunk, thighs alike.
    leaning = stood.clone()
    leaning[:, 0] = bowed[:, 0]
    assert float(off_rhythm(leaning)[0]) == pytest.approx(0.3 * (1 - 0.59 - 0.35), abs=1e-5)
    lying = pitch(stood, torch.tensor([1.5]))
    assert float(off_rhythm(lying)[1]) == 0


def test_recordings_agree_on_how_the_pelvis_is_pitched(
    body: BodyModel, dataset: motion_dataset.MotionDataset, even: motion_dataset.MotionDataset
) -> None:
    habits = torch.linspace(-0.25, 0.25, len(dataset.names))
    tipped = replace(dataset, rotations=pitch(dataset.rotations, habits.repeat_interleave(dataset.lengths)))
    evened = motion_dataset.with_pelvis_in_rhythm(tipped)
    apart = torch.stack(
        [
            (mine[0][:, 0] - theirs[0][:, 0]).abs().max()
            for mine, theirs in ((evened.motion(place), even.motion(place)) for place in range(len(dataset.names)))
        ]
    )
    # All but those in which nobody stands or walks.
    assert float((apart < 0.03).float().mean()) > 0.9
    joints = [forward_kinematics(b.rotations, body.joint_template, b.pelvis)[1] for b in (tipped, evened)]
    torch.testing.assert_close(joints[0][:, 1:], joints[1][:, 1:], atol=1e-4, rtol=0)


def test_the_pelvis_goes_along_with_what_is_varied(even: motion_dataset.MotionDataset) -> None:
    generator = torch.Generator().manual_seed(2)
    windows = draw_windows(even, 64, 40, (0.67, 1.5), generator)
    before, sure = off_rhythm(windows.rotations)
    varied = vary(windows, Shares(recombined=1.0, perturbed=1.0), generator)
    after, still_sure = off_rhythm(varied.rotations)
    upright = (sure == 1) & (still_sure == 1)
    assert float(upright.float().mean()) > 0.5
    # A pelvis that is turned about its own X pitches a little less where its hips are not level.
    torch.testing.assert_close(after[upright], before[upright], atol=8e-3, rtol=0)
    untouched = vary(windows, Shares(), generator)
    torch.testing.assert_close(untouched.rotations, windows.rotations, atol=1e-5, rtol=0)


def test_backs_are_bent_for_good_and_legs_stay(body: BodyModel, even: motion_dataset.MotionDataset) -> None:
    generator = torch.Generator().manual_seed(4)
    windows = draw_windows(even, 32, 40, (1.0, 1.0), generator)
    varied = vary(windows, Shares(backs=1.0), generator)
    turns = [forward_kinematics(one.rotations, body.joint_template, one.pelvis)[1] for one in (windows, varied)]
    legs = [1, 2, 4, 5, 7, 8]
    torch.testing.assert_close(turns[0][:, :, legs], turns[1][:, :, legs], atol=1e-4, rtol=0)
    pelvis, chest = (turns[0][:, :, place].mT @ turns[1][:, :, place] for place in (0, 9))
    assert float((pelvis - pelvis[:, :1]).abs().max()) < 1e-4
    bent = torch.atan2(chest[..., 2, 1], chest[..., 1, 1]).mean(1)
    tipped = torch.atan2(pelvis[:, 0, 2, 1], pelvis[:, 0, 1, 1])
    assert 0.15 < float(bent.std()) < 0.5
    assert float(torch.corrcoef(torch.stack([bent, tipped]))[0, 1]) > 0.7
