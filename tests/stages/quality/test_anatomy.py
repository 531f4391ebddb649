"""Knees and elbows bend in one direction; generated motions are within the joint limits."""

import pytest
import torch

from schemas.body_model import BodyModel
from schemas.rotations import axis_angle_to_matrix, matrix_to_axis_angle
from schemas.skeleton import SMPL_JOINTS, joint, mirror_order
from stages.quality.anatomy import MARGIN_RAD, beyond_limits, share_beyond_limits, swing_and_twist
from stages.synthesis.motions import generate


def bent(name: str, x: float, y: float, z: float, frames: int = 4) -> torch.Tensor:
    vectors = torch.zeros(frames, 24, 3)
    vectors[:, joint(name)] = torch.tensor([x, y, z])
    return axis_angle_to_matrix(vectors)


@pytest.mark.parametrize(
    ("name", "allowed", "forbidden"),
    [
        ("left_knee", (1.5, 0, 0), (-1.0, 0, 0)),
        ("right_knee", (1.5, 0, 0), (-1.0, 0, 0)),
        ("left_elbow", (0, -1.8, 0), (0, 1.0, 0)),
        ("right_elbow", (0, 1.8, 0), (0, -1.0, 0)),
        ("left_hip", (-1.8, 0, 0), (1.4, 0, 0)),
        ("left_knee", (1.5, 0, 0), (0, 0, 0.9)),
        ("head", (0, 0.7, 0), (0, 2.0, 0)),
        ("left_shoulder", (0, 0, -1.3), (0, 1.9, 0)),
        ("right_shoulder", (0, 0, 1.3), (0, -1.9, 0)),
    ],
)
def test_joints_bend_in_one_direction_only(name: str, allowed: tuple, forbidden: tuple) -> None:
    assert share_beyond_limits(bent(name, *allowed)) == 0.0
    assert share_beyond_limits(bent(name, *forbidden)) == 1.0
    beyond = beyond_limits(bent(name, *forbidden))[0]
    assert SMPL_JOINTS[1:][int(beyond.argmax())] == name


def test_the_margin_is_tolerated() -> None:
    assert share_beyond_limits(bent("left_knee", -MARGIN_RAD, 0, 0)) == 0.0


def test_the_share_counts_frames() -> None:
    rotations = bent("left_knee", 0.5, 0, 0, frames=10)
    rotations[:3] = bent("left_knee", -1.0, 0, 0, frames=3)
    assert share_beyond_limits(rotations) == pytest.approx(0.3)


@pytest.mark.parametrize("action", ["walk", "run", "squat", "kick_left", "wave_right", "jump"])
def test_generated_motions_are_within_the_limits(action: str) -> None:
    motion = generate(action, 3.0, 4, body=BodyModel.load())
    assert share_beyond_limits(motion.rotations) == 0.0


def test_mirrored_poses_have_equal_scores() -> None:
    generator = torch.Generator().manual_seed(1)
    vectors = torch.randn(50, 24, 3, generator=generator) * 0.8
    mirrored = vectors[:, list(mirror_order(SMPL_JOINTS))] * torch.tensor([1.0, -1.0, -1.0])
    original_excess, mirrored_excess = (
        beyond_limits(axis_angle_to_matrix(pose)).max(-1) for pose in (vectors, mirrored)
    )
    middle = [index for index, name in enumerate(SMPL_JOINTS[1:]) if "_" not in name]
    sides = [index for index in range(23) if index not in middle]
    left = beyond_limits(axis_angle_to_matrix(vectors))[:, sides].max(-1)
    assert beyond_limits(axis_angle_to_matrix(mirrored))[:, sides].max(-1) == pytest.approx(left, abs=1e-5)
    assert original_excess == pytest.approx(mirrored_excess, abs=1e-5)  # Limits of the middle joints are symmetric.


def test_swing_and_twist_compose_to_the_rotation() -> None:
    generator = torch.Generator().manual_seed(2)
    rotations = axis_angle_to_matrix(torch.randn(40, 24, 3, generator=generator, dtype=torch.float64) * 0.7)
    for name, axis in (("left_knee", 1), ("left_shoulder", 0), ("spine1", 1)):
        parts = torch.from_numpy(swing_and_twist(rotations))[:, joint(name) - 1]
        bone_axis = torch.zeros(3, dtype=torch.float64)
        bone_axis[axis] = 1
        composed = axis_angle_to_matrix(parts * (1 - bone_axis)) @ axis_angle_to_matrix(parts * bone_axis)
        assert matrix_to_axis_angle(composed) == pytest.approx(
            matrix_to_axis_angle(rotations[:, joint(name)]), abs=1e-6
        )
