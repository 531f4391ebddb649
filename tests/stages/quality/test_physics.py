"""Standing and free flight are plausible, suspension in the air is not; inverse dynamics against independent sums."""

from xml.etree import ElementTree

import numpy as np
import pytest
import torch

from schemas.body_model import BodyModel
from schemas.kinematics import forward_kinematics
from schemas.records import FPS
from schemas.rotations import axis_angle_to_matrix, yaw_matrix
from schemas.skeleton import SMPL_JOINTS
from stages.quality.physics import contact_points, root_wrench, unexplained_wrench
from stages.quality.skeleton_mjcf import BODY_MASS_INDEX, GRAVITY, body_mass, mjcf, stature
from stages.synthesis.motions import generate

BODY = BodyModel.load()
BETAS = torch.zeros(10)
REST = BODY.rest_joints(BETAS)


def unexplained(rotations: torch.Tensor, trans: torch.Tensor, betas: torch.Tensor = BETAS) -> float:
    rest = BODY.rest_joints(betas)
    joints, global_rotations = forward_kinematics(rotations, rest, trans)
    feet = BODY.contact_rig().points(global_rotations, joints, betas)
    return unexplained_wrench(rotations, joints.double().numpy(), feet.double().numpy(), rest.double().numpy())


def resting(frames: int, height_m: float) -> tuple[torch.Tensor, torch.Tensor]:
    """A body at rest with its soles at that height."""
    trans = torch.zeros(frames, 3)
    trans[:, 1] = height_m + 0.902
    return torch.eye(3).expand(frames, 24, 3, 3).clone(), trans


def test_standing_is_explained_by_the_ground() -> None:
    assert unexplained(*resting(60, 0.0)) < 0.02


def test_suspension_in_the_air_needs_the_whole_weight() -> None:
    assert unexplained(*resting(60, 1.0)) == pytest.approx(1.0, abs=0.01)


def test_free_flight_needs_no_force() -> None:
    rotations, trans = resting(30, 1.0)
    seconds = torch.arange(30) / FPS
    trans[:, 1] += 3.0 * seconds - GRAVITY / 2 * seconds**2 + 1.5
    trans[:, 0] += 2.0 * seconds
    assert unexplained(rotations, trans) < 0.02


def test_lying_on_the_back_is_explained_by_the_ground() -> None:
    rotations, trans = resting(60, 0.0)
    rotations[:, 0] = axis_angle_to_matrix(torch.tensor([-np.pi / 2, 0.0, 0.0]))
    trans[:, 1] = 0.12
    assert unexplained(rotations, trans) < 0.1


@pytest.mark.parametrize(("action", "limit"), [("walk", 0.15), ("squat", 0.1), ("wave_left", 0.05)])
def test_generated_motions_are_plausible_and_raised_ones_are_not(action: str, limit: float) -> None:
    motion = generate(action, 3.0, 1, body=BODY)
    assert unexplained(motion.rotations, motion.trans, motion.betas) < limit
    assert unexplained(motion.rotations, motion.trans + torch.tensor([0.0, 0.5, 0.0]), motion.betas) > 0.85


def test_the_score_is_invariant_to_heading() -> None:
    motion = generate("walk", 2.0, 5, body=BODY)
    rotation = yaw_matrix(torch.tensor(1.1))
    rotated = motion.rotations.clone()
    rotated[:, 0] = rotation @ motion.rotations[:, 0]
    expected = unexplained(motion.rotations, motion.trans, motion.betas)
    assert unexplained(rotated, motion.trans @ rotation.T, motion.betas) == pytest.approx(expected, abs=5e-3)


def test_the_force_accelerates_the_centre_of_mass() -> None:
    motion = generate("jump", 3.0, 2, body=BODY)
    rest = BODY.rest_joints(motion.betas).double().numpy()
    joints, _ = forward_kinematics(motion.rotations, BODY.rest_joints(motion.betas), motion.trans)
    force, _, centre = root_wrench(motion.rotations, joints[:, 0].double().numpy(), rest)
    acceleration = np.diff(centre, n=2, axis=0) * FPS**2
    from_force = force[1:-1] / body_mass(rest) + np.array([0, -GRAVITY, 0])
    assert np.abs(from_force - acceleration)[3:-3].mean() < 0.1


def test_the_centre_of_mass_matches_the_posed_segments() -> None:
    """A sum over the capsules in the XML with the project's kinematics does not depend on MuJoCo's joint order."""
    generator = torch.Generator().manual_seed(0)
    pose = axis_angle_to_matrix(torch.randn(24, 3, generator=generator) * 0.5).expand(6, 24, 3, 3)
    trans = torch.zeros(6, 3)
    joints, global_rotations = forward_kinematics(pose, REST, trans)
    rest = REST.double().numpy()
    _, _, centre = root_wrench(pose, joints[:, 0].double().numpy(), rest)
    total, weighted = 0.0, np.zeros(3)
    for body in ElementTree.fromstring(mjcf(rest)).iter("body"):
        geom = body.find("geom")
        assert geom is not None
        index, mass = SMPL_JOINTS.index(body.attrib["name"]), float(geom.attrib["mass"])
        offset = np.array([float(number) for number in geom.attrib["pos"].split()])
        weighted += mass * (joints[0, index].numpy() + global_rotations[0, index].numpy() @ offset)
        total += mass
    assert total == pytest.approx(body_mass(rest), rel=1e-4)
    assert centre[3] == pytest.approx(weighted / total, abs=1e-4)


def test_bodies_have_human_size() -> None:
    rest = REST.double().numpy()
    assert 1.5 < stature(rest) < 1.9
    assert body_mass(rest) == pytest.approx(BODY_MASS_INDEX * stature(rest) ** 2)


def test_fast_and_high_points_do_not_push() -> None:
    joints = np.full((20, 24, 3), 5.0)
    feet = np.zeros((20, 4, 3))
    feet[:, [1, 3], 2] = 0.2
    assert contact_points(joints, feet)[1][:, :8].all()
    assert not contact_points(joints, feet)[1][:, 8:].any()
    feet[..., 0] = np.arange(20)[:, None] / FPS * 2.0
    assert not contact_points(joints, feet)[1].any()


def test_clips_that_are_too_short_score_zero() -> None:
    assert unexplained(*resting(6, 1.0)) == 0.0
