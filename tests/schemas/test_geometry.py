import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas import rotations
from schemas.body_model import BodyModel
from schemas.kinematics import forward_kinematics
from schemas.skeleton import (
    COCO_KEYPOINTS,
    PARTS,
    SMPL_JOINTS,
    SMPL_PARENTS,
    joint,
    keypoint,
    mirror_order,
    swap_sides,
)


@given(st.integers(0, 2**31))
@settings(max_examples=20, deadline=None)
def test_rotation_forms_agree(seed: int) -> None:
    vectors = torch.randn(7, 3, generator=torch.Generator().manual_seed(seed))
    matrices = rotations.axis_angle_to_matrix(vectors)
    torch.testing.assert_close(matrices @ matrices.transpose(-1, -2), torch.eye(3).expand(7, 3, 3), atol=1e-5, rtol=0)
    torch.testing.assert_close(rotations.matrix_from_6d(rotations.matrix_to_6d(matrices)), matrices, atol=1e-5, rtol=0)
    again = rotations.axis_angle_to_matrix(rotations.matrix_to_axis_angle(matrices))
    torch.testing.assert_close(again, matrices, atol=1e-5, rtol=0)


def test_6d_is_the_first_two_columns() -> None:
    matrix = torch.arange(9.0).reshape(3, 3)
    assert rotations.matrix_to_6d(matrix).tolist() == [0, 3, 6, 1, 4, 7]


@given(st.floats(-3.1, 3.1), st.floats(-1.2, 1.2))
@settings(max_examples=50, deadline=None)
def test_heading_ignores_bending_forward(yaw: float, bend: float) -> None:
    root = rotations.yaw_matrix(torch.tensor(yaw)) @ rotations.axis_angle_to_matrix(torch.tensor([bend, 0.0, 0.0]))
    assert rotations.heading_rad(root).item() == pytest.approx(yaw, abs=1e-5)


def test_shortest_rotation_maps_one_direction_to_the_other() -> None:
    generator = torch.Generator().manual_seed(4)
    start, end = torch.randn(2, 5, 6, 3, generator=generator, dtype=torch.float64)
    rotation = rotations.shortest_rotation(start, 3 * end)
    rotated = torch.nn.functional.normalize((rotation @ start[..., None])[..., 0], dim=-1)
    torch.testing.assert_close(rotated, torch.nn.functional.normalize(end, dim=-1))
    angle = torch.nn.functional.cosine_similarity(start, end, dim=-1).arccos()
    torch.testing.assert_close(rotations.matrix_to_axis_angle(rotation).norm(dim=-1), angle)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_shortest_rotation_between_equal_and_opposite_directions(dtype: torch.dtype) -> None:
    axes = torch.eye(3, dtype=dtype)
    torch.testing.assert_close(rotations.shortest_rotation(axes, 2 * axes), axes.expand(3, 3, 3))
    rotation = rotations.shortest_rotation(axes, -axes)
    torch.testing.assert_close((rotation @ axes[..., None])[..., 0], -axes)
    torch.testing.assert_close(rotation @ rotation.mT, axes.expand(3, 3, 3))
    zero = torch.zeros(3, dtype=dtype)
    torch.testing.assert_close(rotations.shortest_rotation(zero, axes[0]), axes)


def test_positive_yaw_rotates_to_the_persons_left() -> None:
    forward = rotations.yaw_matrix(torch.tensor(0.5)) @ torch.tensor([0.0, 0.0, 1.0])
    left = BodyModel.load().rest_joints(torch.zeros(10))[joint("left_shoulder"), 0]
    assert forward[0] * left > 0


def test_resampling_keeps_the_given_frames_and_halves_the_angle_between() -> None:
    yaws = rotations.yaw_matrix(torch.linspace(0, 1, 5))[:, None]
    times = torch.arange(5.0)
    torch.testing.assert_close(rotations.slerp_resample(yaws, times, times), yaws, atol=1e-6, rtol=0)
    middle = rotations.slerp_resample(yaws, times, torch.tensor([0.5, 9.0]))
    assert rotations.heading_rad(middle)[:, 0].tolist() == pytest.approx([0.125, 1.0], abs=1e-5)


def test_kinematics_follows_the_chain() -> None:
    generator = torch.Generator().manual_seed(0)
    local = rotations.axis_angle_to_matrix(torch.randn(2, 3, 24, 3, generator=generator))
    rest, trans = torch.randn(24, 3, generator=generator), torch.randn(2, 3, 3, generator=generator)
    joints, global_rotations = forward_kinematics(local, rest, trans)
    assert torch.allclose(joints[..., 0, :], rest[0] + trans)
    for child, parent in list(enumerate(SMPL_PARENTS))[1:]:
        offset = (global_rotations[..., parent, :, :] @ (rest[child] - rest[parent])[:, None])[..., 0]
        torch.testing.assert_close(joints[..., child, :], joints[..., parent, :] + offset)
        torch.testing.assert_close(
            global_rotations[..., child, :, :], global_rotations[..., parent, :, :] @ local[..., child, :, :]
        )


def test_names_sides_and_parts() -> None:
    assert len(SMPL_JOINTS) == len(SMPL_PARENTS) == 24
    for names in (SMPL_JOINTS, COCO_KEYPOINTS):
        order = mirror_order(names)
        assert [order[i] for i in order] == list(range(len(names)))
    assert swap_sides("left_knee") == "right_knee"
    assert swap_sides("neck") == "neck"
    assert (joint("right_hand"), keypoint("right_ankle")) == (23, 16)
    parts_of = {
        name: [part for part, names in PARTS.items() if name in names] for names in PARTS.values() for name in names
    }
    assert {name for name, parts in parts_of.items() if len(parts) > 1} == {"pelvis", "spine3"}
    assert set(parts_of) == set(SMPL_JOINTS[:22])
    assert np.all([SMPL_PARENTS[i] < i for i in range(1, 24)])
