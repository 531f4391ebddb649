"""The lifter's body refined by its keypoints, and feet that stand."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from schemas.body_model import BodyModel
from schemas.kinematics import forward_kinematics
from schemas.rotations import axis_angle_to_matrix
from stages.geometry.contacts import find_contacts, find_steps
from stages.geometry.feet import find_planted, leveling_rotation, plant_feet
from stages.recovery.lifter.refine import (
    NUM_TURNS,
    TURNED,
    Pose,
    RefineSettings,
    _linearise,
    _moved,
    refine,
    rotation_errors,
    smooth_pose,
    whole_body_rotation,
)
from stages.recovery.lifter.rigs import Rigs
from stages.synthesis.motions import generate
from stages.training.lifter.pelvis import pitch

FRAMES = 40
EXACT = torch.full((FRAMES, 17), 0.003)
"""Noise of keypoints that are where they are."""


@pytest.fixture(scope="module")
def rigs() -> Rigs:
    return Rigs.of(BodyModel.load())


@pytest.fixture(scope="module")
def truth(rigs: Rigs) -> Pose:
    """Someone who walks, four metres before a level camera that looks along -Z of the world."""
    motion = generate("walk", 3.0, 1, body=rigs.body, betas=torch.zeros(10))
    to_camera = torch.diag(torch.tensor([1.0, -1.0, -1.0]))
    rotations = motion.rotations[:FRAMES].clone()
    rotations[:, 0] = to_camera @ rotations[:, 0]
    rest = rigs.body.rest_joints(torch.zeros(10))
    pelvis = (motion.trans[:FRAMES] + rest[0] - torch.tensor([0.0, 1.0, 4.0])) @ to_camera.T
    return Pose(rotations, pelvis, torch.zeros(1, 10), torch.zeros(FRAMES, dtype=torch.long))


def _keypoints(pose: Pose, rigs: Rigs) -> Tensor:
    rest = rigs.body.rest_joints(pose.betas)[pose.owner]
    joints, turns = forward_kinematics(pose.rotations, rest, pose.pelvis - rest[:, 0])
    return rigs.keypoints.points(turns, joints, pose.betas[0])


def _joints(pose: Pose, rigs: Rigs) -> Tensor:
    rest = rigs.body.rest_joints(pose.betas)[pose.owner]
    return forward_kinematics(pose.rotations, rest, pose.pelvis - rest[:, 0])[0]


def _shaken(pose: Pose, size: float) -> Pose:
    """Turned by a constant and a slow change in every joint, and half a foot too far away."""
    generator = torch.Generator().manual_seed(3)
    constant, slope = (torch.randn(len(TURNED) * 3, generator=generator) * size for _ in range(2))
    along = torch.linspace(-1, 1, len(pose.pelvis))[:, None]
    step = torch.cat([constant + along * slope, torch.tensor([0.0, 0.0, 0.15]).expand(len(pose.pelvis), 3)], dim=1)
    turns = forward_kinematics(pose.rotations, torch.zeros(24, 3), torch.zeros_like(pose.pelvis))[1]
    return _moved(pose, turns, step, torch.zeros(len(pose.betas), 10))


def test_a_body_that_is_turned_as_a_whole_tells_by_how_much(truth: Pose, rigs: Rigs) -> None:
    turn = axis_angle_to_matrix(torch.tensor([0.04, -0.03, 0.05]))
    rotations = truth.rotations.clone()
    rotations[:, 0] = turn @ rotations[:, 0]
    turned = replace(truth, rotations=rotations, pelvis=truth.pelvis + 0.2)
    torch.testing.assert_close(whole_body_rotation(truth, turned, rigs), turn.expand(FRAMES, 3, 3), atol=3e-3, rtol=0)
    # A pelvis that is pitched while the rest stays is no turn of the whole.
    pitched = replace(truth, rotations=pitch(truth.rotations, torch.full((FRAMES,), 0.15)))
    still = torch.eye(3).expand(FRAMES, 3, 3)
    torch.testing.assert_close(whole_body_rotation(truth, pitched, rigs), still, atol=0.02, rtol=0)


def test_derivatives_are_those_of_the_projection(truth: Pose, rigs: Rigs) -> None:
    seen, jacobian, _, turns = _linearise(truth, rigs)
    points = _keypoints(truth, rigs)
    torch.testing.assert_close(seen, points[..., :2] / points[..., 2:], atol=1e-5, rtol=0)
    for column in (0, 4, 10, 22, NUM_TURNS - 2, NUM_TURNS, NUM_TURNS + 2):
        step = torch.zeros(FRAMES, NUM_TURNS + 3)
        step[:, column] = 2e-3
        ahead, behind = (_keypoints(_moved(truth, turns, sign * step, torch.zeros(1, 10)), rigs) for sign in (1, -1))
        rise = (ahead[..., :2] / ahead[..., 2:] - behind[..., :2] / behind[..., 2:]) / 4e-3
        torch.testing.assert_close(jacobian[..., column], rise, atol=2e-3, rtol=0)


def test_refinement_brings_the_body_to_its_keypoints(truth: Pose, rigs: Rigs) -> None:
    points = _keypoints(truth, rigs)
    rays = points[..., :2] / points[..., 2:]
    size = torch.full((FRAMES,), 0.45)
    first = _shaken(truth, 0.08)
    precision = torch.eye(NUM_TURNS) / 0.1**2
    found = refine(first, rays, torch.ones(FRAMES, 17), size, EXACT, precision, rigs, RefineSettings())
    before, after = (
        ((one := _keypoints(pose, rigs))[..., :2] / one[..., 2:] - rays).norm(dim=-1).mean() for pose in (first, found)
    )
    assert after < before / 8
    off = [
        ((joints := _joints(pose, rigs)) - joints[:, :1] - _joints(truth, rigs) + _joints(truth, rigs)[:, :1])
        .norm(dim=-1)
        .mean()
        for pose in (first, found)
    ]
    assert off[1] < 0.6 * off[0]
    torch.testing.assert_close(torch.linalg.det(found.rotations), torch.ones(FRAMES, 24), atol=1e-3, rtol=0)


def test_outliers_and_unseen_keypoints_do_not_pull(truth: Pose, rigs: Rigs) -> None:
    points = _keypoints(truth, rigs)
    rays = points[..., :2] / points[..., 2:]
    wrong, confidence = rays.clone(), torch.ones(FRAMES, 17)
    wrong[:, 9] += 0.3
    wrong[:, 10], confidence[:, 10] = -5.0, 0.0
    precision = torch.eye(NUM_TURNS) / 0.1**2
    found = refine(truth, wrong, confidence, torch.full((FRAMES,), 0.45), EXACT, precision, rigs, RefineSettings())
    assert float((_joints(found, rigs) - _joints(truth, rigs)).norm(dim=-1).max()) < 0.08


def test_clips_are_refined_as_if_alone(truth: Pose, rigs: Rigs) -> None:
    points = _keypoints(truth, rigs)
    rays = points[..., :2] / points[..., 2:]
    first, size = _shaken(truth, 0.05), torch.full((FRAMES,), 0.45)
    precision, ones = torch.eye(NUM_TURNS) / 0.1**2, torch.ones(FRAMES, 17)
    alone = refine(first, rays, ones, size, EXACT, precision, rigs, RefineSettings())
    other = _shaken(truth, -0.1)
    both = Pose(
        torch.cat([other.rotations, first.rotations]), torch.cat([other.pelvis, first.pelvis]), torch.zeros(2, 10),
        torch.cat([first.owner, first.owner + 1]),
    )  # fmt: skip
    together = refine(
        both,
        rays.repeat(2, 1, 1),
        ones.repeat(2, 1),
        size.repeat(2),
        EXACT.repeat(2, 1),
        precision,
        rigs,
        RefineSettings(),
    )
    torch.testing.assert_close(together.rotations[FRAMES:], alone.rotations, atol=2e-4, rtol=0)
    torch.testing.assert_close(together.betas[1], alone.betas[0], atol=2e-3, rtol=0)


def test_turns_between_poses_lead_from_one_to_the_other(truth: Pose) -> None:
    other = _shaken(truth, 0.05)
    turns = forward_kinematics(truth.rotations, torch.zeros(24, 3), torch.zeros_like(truth.pelvis))[1]
    step = rotation_errors(truth.rotations, other.rotations, turns)
    there = _moved(truth, turns, torch.cat([step, torch.zeros(FRAMES, 3)], dim=1), torch.zeros(1, 10))
    torch.testing.assert_close(there.rotations[:, TURNED], other.rotations[:, TURNED], atol=1e-5, rtol=0)


def test_contacts_hold_on_until_they_let_go() -> None:
    chance = np.full((30, 4), 0.1)
    chance[5:15, 0] = 0.5
    chance[8, 0] = 0.9
    chance[20:22, 1] = 0.9
    planted = find_planted(chance)
    assert planted[:, 0].nonzero()[0].tolist() == list(range(8, 15))
    assert not planted[:, 1:].any()


def _moved_about(rigs: Rigs, action: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Contact points, pelvis and contacts of someone who does that."""
    motion = generate(action, 4.0, 2, body=rigs.body, betas=torch.zeros(10))
    joints, turns = forward_kinematics(motion.rotations, rigs.body.rest_joints(torch.zeros(10)), motion.trans)
    points = rigs.contacts.points(turns, joints, torch.zeros(10)).numpy()
    return points, joints[:, 0].numpy(), find_contacts(points, 0.0).astype(bool)


def test_steps_of_a_run_are_found_on_a_path_that_is_too_slow_and_climbs(rigs: Rigs) -> None:
    points, pelvis, stands = _moved_about(rigs, "run")
    wrong = np.array([-0.15, 0.0, -0.15]) * (pelvis - pelvis[:1])
    wrong[:, 1] = 0.12 * np.linalg.norm(pelvis - pelvis[:1], axis=-1)
    moved = points + wrong[:, None]
    lost = find_contacts(moved, float(moved[..., 1].min())).astype(bool)
    found = find_steps(moved, pelvis + wrong)
    assert (lost & stands).sum() < 0.3 * stands.sum()
    assert (found & stands).sum() > 0.7 * stands.sum()
    assert (found & stands).sum() > 0.6 * found.sum()


@pytest.mark.parametrize("action", ["stand", "squat", "jump", "kick_left"])
def test_nobody_runs_on_the_spot(rigs: Rigs, action: str) -> None:
    points, pelvis, _ = _moved_about(rigs, action)
    assert not find_steps(points, pelvis).any()


def _walk(rigs: Rigs) -> tuple[Tensor, Tensor, np.ndarray, np.ndarray]:
    """Rotations, trans, contact points, contacts of someone who walks."""
    motion = generate("walk", 4.0, 2, body=rigs.body, betas=torch.zeros(10))
    joints, turns = forward_kinematics(motion.rotations, rigs.body.rest_joints(torch.zeros(10)), motion.trans)
    points = rigs.contacts.points(turns, joints, torch.zeros(10)).numpy()
    speed = np.linalg.norm(np.gradient(points, axis=0), axis=-1) * 30
    return motion.rotations, motion.trans, points, (speed < 0.15) & (points[..., 1] < 0.04)


def test_planted_feet_slide_less_and_nothing_else_moves_much(rigs: Rigs) -> None:
    rotations, trans, _, planted = _walk(rigs)
    t = torch.arange(len(trans)) / 30
    drifting = trans + torch.stack([0.05 * (5 * t).sin(), 0 * t, 0.1 * t], -1)
    result = plant_feet(rotations, drifting, torch.zeros(10), planted, rigs.body, rigs.contacts)

    def slide(rotations: Tensor, trans: Tensor) -> float:
        joints, turns = forward_kinematics(rotations, rigs.body.rest_joints(torch.zeros(10)), trans)
        feet = rigs.contacts.points(turns, joints, torch.zeros(10)).numpy()[..., [0, 2]]
        both = planted[1:] & planted[:-1]
        return float(np.linalg.norm(np.diff(feet, axis=0), axis=-1)[both].mean())

    assert slide(result.rotations, result.trans) < 0.6 * slide(rotations, drifting)
    assert float((result.trans - drifting).norm(dim=-1).max()) < 0.1
    assert abs(result.ground_m) < 0.03
    torch.testing.assert_close(torch.linalg.det(result.rotations), torch.ones(result.rotations.shape[:2]))
    upper = [0, 3, 6, 9, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21]
    torch.testing.assert_close(result.rotations[:, upper], rotations[:, upper])


def test_the_ground_tells_the_vertical(rigs: Rigs) -> None:
    _, _, points, planted = _walk(rigs)
    tilt = axis_angle_to_matrix(torch.tensor([0.05, 0.0, 0.03])).numpy()
    back = leveling_rotation(points @ tilt.T, planted).numpy()
    up = back @ tilt @ np.array([0.0, 1.0, 0.0])
    # Across the way little is known; along it the slope comes out.
    assert np.degrees(np.arccos(up[1])) < 0.7 * np.degrees(np.hypot(0.05, 0.03))
    stairs = points + np.random.default_rng(0).normal(0, 0.3, (len(points), 1, 3)) * [0, 1, 0]
    assert np.array_equal(leveling_rotation(stairs, planted).numpy(), np.eye(3))
    assert np.array_equal(leveling_rotation(points, np.zeros_like(planted)).numpy(), np.eye(3))


def test_keypoints_that_are_expected_to_be_off_pull_less(truth: Pose, rigs: Rigs) -> None:
    points = _keypoints(truth, rigs)
    rays, size = points[..., :2] / points[..., 2:], torch.full((FRAMES,), 0.45)
    wrong, doubted = rays.clone(), EXACT.clone()
    wrong[:, 9] += 0.03 * size[:, None]
    doubted[:, 9] = 0.03
    precision, ones = torch.eye(NUM_TURNS) / 0.1**2, torch.ones(FRAMES, 17)
    believed, knowing = (
        refine(truth, wrong, ones, size, noise, precision, rigs, RefineSettings()) for noise in (EXACT, doubted)
    )
    off = [float((_joints(pose, rigs) - _joints(truth, rigs)).norm(dim=-1).mean()) for pose in (believed, knowing)]
    assert off[1] < 0.4 * off[0]


def test_jitter_is_smoothed_away_where_keypoints_are_noisy(truth: Pose, rigs: Rigs) -> None:
    points = _keypoints(truth, rigs)
    rays, size = points[..., :2] / points[..., 2:], torch.full((FRAMES,), 0.45)
    shaken = rays + 0.005 * size[:, None, None] * torch.randn(rays.shape, generator=torch.Generator().manual_seed(0))
    precision, ones = torch.eye(NUM_TURNS) / 0.1**2, torch.ones(FRAMES, 17)
    noisy = refine(truth, shaken, ones, size, EXACT, precision, rigs, RefineSettings())

    def jitter(pose: Pose) -> float:
        return float(_joints(pose, rigs).diff(n=2, dim=0).norm(dim=-1).mean())

    little, much = (smooth_pose(noisy, noise, RefineSettings()) for noise in (0.003, 0.02))
    assert jitter(much) < 0.7 * jitter(noisy)
    assert jitter(much) < jitter(little) < jitter(noisy)
    assert float((_joints(much, rigs) - _joints(noisy, rigs)).norm(dim=-1).mean()) < 0.02
