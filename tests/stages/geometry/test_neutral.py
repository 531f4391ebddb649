import numpy as np
import pytest
import torch

from schemas.body_model import BodyModel
from schemas.coverage import LEFT_LEG, PART_NAMES, all_seen
from schemas.kinematics import forward_kinematics
from schemas.rotations import axis_angle_to_matrix, matrix_to_axis_angle
from schemas.skeleton import PARTS, joint
from stages.geometry.contacts import ground_height, ground_of_seen
from stages.geometry.neutral import BLEND_FRAMES, with_neutral_parts
from stages.quality.anatomy import share_beyond_limits

BODY = BodyModel.load()
FRAMES = 60


def motion() -> torch.Tensor:
    generator = torch.Generator().manual_seed(3)
    steps = 0.02 * torch.randn(FRAMES, 24, 3, generator=generator)
    return axis_angle_to_matrix(0.6 * torch.randn(1, 24, 3, generator=generator) + steps.cumsum(0))


def hidden(part: str, first: int, end: int) -> np.ndarray:
    seen = all_seen(FRAMES)
    seen[first:end, PART_NAMES.index(part)] = 0
    return seen


def test_what_is_seen_stays_bit_for_bit() -> None:
    rotations = motion()
    assert torch.equal(with_neutral_parts(rotations, all_seen(FRAMES)), rotations)
    seen = hidden("left_arm", 20, 45)
    changed = (with_neutral_parts(rotations, seen) != rotations).any(-1).any(-1).numpy()
    assert not changed[:20].any()
    assert not changed[45:].any()
    arm = {joint(name) for name in (*PARTS["left_arm"], "left_hand")} - {joint("spine3")}
    assert set(np.flatnonzero(changed.any(0))) == arm


@pytest.mark.parametrize("part", PART_NAMES[1:])
def test_unseen_limbs_hang_or_stand_below_the_trunk_whatever_was_guessed(part: str) -> None:
    rotations = motion()
    rotations[:, 0] = torch.eye(3)
    rotations[:, [joint(name) for name in PARTS["torso"]]] = torch.eye(3)
    posed = with_neutral_parts(rotations, hidden(part, 0, FRAMES))
    rest = BODY.rest_joints(torch.zeros(10))
    joints, _ = forward_kinematics(posed, rest, torch.zeros(FRAMES, 3))
    side, limb = part.split("_")
    root, end = ("shoulder", "wrist") if limb == "arm" else ("hip", "ankle")
    along = (joints[:, joint(f"{side}_{end}")] - joints[:, joint(f"{side}_{root}")]).numpy()
    assert (-along[:, 1] / np.linalg.norm(along, axis=-1) > 0.9).all()
    assert np.ptp(along, axis=0).max() < 1e-5
    whole = all_seen(FRAMES)
    whole[:, 1:] = 0
    assert share_beyond_limits(with_neutral_parts(rotations, whole)) == 0


def test_the_pose_fades_in_and_out() -> None:
    rotations = motion()
    posed = with_neutral_parts(rotations, hidden("right_leg", 15, 50))
    knee = joint("right_knee")
    steps = matrix_to_axis_angle(posed[:-1, knee].mT @ posed[1:, knee]).norm(dim=-1)
    guessed = matrix_to_axis_angle(rotations[:-1, knee].mT @ rotations[1:, knee]).norm(dim=-1)
    jump = matrix_to_axis_angle(rotations[:, knee]).norm(dim=-1)
    assert steps.max() < guessed.max() + 2 * jump.max() / BLEND_FRAMES
    assert matrix_to_axis_angle(posed[15 + BLEND_FRAMES : 50 - BLEND_FRAMES, knee]).norm(dim=-1).max() < 1e-3


def test_only_seen_feet_tell_the_ground() -> None:
    feet = np.zeros((FRAMES, 4, 3))
    feet[:, 2:, 1] = 0.02
    seen = hidden("left_leg", 0, 40)
    seen[:40, LEFT_LEG + 1] = 0
    feet[:40, :, 1] -= 0.5
    assert ground_of_seen(feet, all_seen(FRAMES)) == ground_height(feet)
    assert ground_of_seen(feet, seen) == pytest.approx(0.0, abs=0.02)
    seen[:, LEFT_LEG:] = 0
    assert ground_of_seen(feet, seen) == pytest.approx(-0.5)
