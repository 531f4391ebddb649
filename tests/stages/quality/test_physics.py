"""Standing and flying are possible, hanging in the air is not; and the mechanics behind it, against independent sums."""

from xml.etree import ElementTree

import numpy as np
import pytest
import torch

from schemas.body_model import BodyModel
from schemas.kinematics import forward_kinematics
from schemas.records import FPS
from schemas.rotations import axis_angle_to_matrix, yaw_matrix
from schemas.skeleton import SMPL_JOINTS
from stages.quality.physics import contact_points, implausible_share, root_wrench
from stages.quality.skeleton_mjcf import BODY_MASS_INDEX, GRAVITY, body_mass, mjcf, stature
from stages.synthesis.motions import generate

BODY = BodyModel.load()
BETAS = torch.zeros(10)
REST = BODY.rest_joints(BETAS)


def share(rotations: torch.Tensor, trans: torch.Tensor, betas: torch.Tensor = BETAS) -> float:
    rest = BODY.rest_joints(betas)
    joints, turns = forward_kinematics(rotations, rest, trans)
    feet = BODY.contact_rig().points(turns, joints, betas)
    return implausible_share(rotations, joints.double().numpy(), feet.double().numpy(), rest.double().numpy())


def still(frames: int, height_m: float) -> tuple[torch.Tensor, torch.Tensor]:
    """A body at rest whose soles are at that height."""
    trans = torch.zeros(frames, 3)
    trans[:, 1] = height_m + 0.902
    return torch.eye(3).expand(frames, 24, 3, 3).clone(), trans


def test_standing_needs_no_more_than_the_ground_gives() -> None:
    assert share(*still(60, 0.0)) < 0.02


def test_hanging_in_the_air_needs_the_whole_weight() -> None:
    assert share(*still(60, 1.0)) == pytest.approx(1.0, abs=0.01)


def test_free_flight_needs_nothing() -> None:
    rotations, trans = still(30, 1.0)
    seconds = torch.arange(30) / FPS
    trans[:, 1] += 3.0 * seconds - GRAVITY / 2 * seconds**2 + 1.5
    trans[:, 0] += 2.0 * seconds
    assert share(rotations, trans) < 0.02


def test_lying_on_the_back_is_held_up_too() -> None:
    rotations, trans = still(60, 0.0)
    rotations[:, 0] = axis_angle_to_matrix(torch.tensor([-np.pi / 2, 0.0, 0.0]))
    trans[:, 1] = 0.12
    assert share(rotations, trans) < 0.1


@pytest.mark.parametrize(("action", "limit"), [("walk", 0.15), ("squat", 0.1), ("wave_left", 0.05)])
def test_made_motions_are_possible_and_raised_ones_are_not(action: str, limit: float) -> None:
    made = generate(action, 3.0, 1, body=BODY)
    assert share(made.rotations, made.trans, made.betas) < limit
    assert share(made.rotations, made.trans + torch.tensor([0.0, 0.5, 0.0]), made.betas) > 0.85


def test_where_the_world_faces_does_not_matter() -> None:
    made = generate("walk", 2.0, 5, body=BODY)
    turn = yaw_matrix(torch.tensor(1.1))
    turned = made.rotations.clone()
    turned[:, 0] = turn @ made.rotations[:, 0]
    here = share(made.rotations, made.trans, made.betas)
    assert share(turned, made.trans @ turn.T, made.betas) == pytest.approx(here, abs=5e-3)


def test_the_force_is_what_accelerates_the_centre_of_mass() -> None:
    made = generate("jump", 3.0, 2, body=BODY)
    rest = BODY.rest_joints(made.betas).double().numpy()
    joints, _ = forward_kinematics(made.rotations, BODY.rest_joints(made.betas), made.trans)
    force, _, centre = root_wrench(made.rotations, joints[:, 0].double().numpy(), rest)
    acceleration = np.diff(centre, n=2, axis=0) * FPS**2
    found = force[1:-1] / body_mass(rest) + np.array([0, -GRAVITY, 0])
    assert np.abs(found - acceleration)[3:-3].mean() < 0.1


def test_the_centre_of_mass_is_that_of_the_posed_segments() -> None:
    """A sum over the XML's capsules with our own kinematics knows nothing of how MuJoCo numbers the joints."""
    generator = torch.Generator().manual_seed(0)
    pose = axis_angle_to_matrix(torch.randn(24, 3, generator=generator) * 0.5).expand(6, 24, 3, 3)
    trans = torch.zeros(6, 3)
    joints, turns = forward_kinematics(pose, REST, trans)
    rest = REST.double().numpy()
    _, _, centre = root_wrench(pose, joints[:, 0].double().numpy(), rest)
    total, weighted = 0.0, np.zeros(3)
    for body in ElementTree.fromstring(mjcf(rest)).iter("body"):
        geom = body.find("geom")
        assert geom is not None
        index, mass = SMPL_JOINTS.index(body.attrib["name"]), float(geom.attrib["mass"])
        offset = np.array([float(word) for word in geom.attrib["pos"].split()])
        weighted += mass * (joints[0, index].numpy() + turns[0, index].numpy() @ offset)
        total += mass
    assert total == pytest.approx(body_mass(rest), rel=1e-4)
    assert centre[3] == pytest.approx(weighted / total, abs=1e-4)


def test_bodies_have_human_sizes() -> None:
    rest = REST.double().numpy()
    assert 1.5 < stature(rest) < 1.9
    assert body_mass(rest) == pytest.approx(BODY_MASS_INDEX * stature(rest) ** 2)


def test_quick_and_high_points_do_not_push() -> None:
    joints = np.full((20, 24, 3), 5.0)
    feet = np.zeros((20, 4, 3))
    feet[:, [1, 3], 2] = 0.2
    assert contact_points(joints, feet)[1][:, :8].all()
    assert not contact_points(joints, feet)[1][:, 8:].any()
    feet[..., 0] = np.arange(20)[:, None] / FPS * 2.0
    assert not contact_points(joints, feet)[1].any()


def test_too_short_to_tell() -> None:
    assert share(*still(6, 1.0)) == 0.0
