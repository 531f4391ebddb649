"""Refinement of the lifter's pose by its keypoints, and foot planting."""

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
    NUM_ROTATION_PARAMETERS,
    REFINED_JOINTS,
    Pose,
    RefineSettings,
    _apply_step,
    _linearise,
    refine,
    rotation_errors,
    smooth_pose,
    whole_body_rotation,
)
from stages.recovery.lifter.rigs import Rigs
from stages.synthesis.motions import generate
from stages.training.lifter.pelvis import pitch_pelvis

FRAMES = 40
EXACT = torch.full((FRAMES, 17), 0.003)
"""Noise of exact keypoints."""


@pytest.fixture(scope="module")
def rigs() -> Rigs:
    return Rigs.of(BodyModel.load())


@pytest.fixture(scope="module")
def target(rigs: Rigs) -> Pose:
    """A person who walks, four metres in front of a level camera that looks along -Z of the world."""
    motion = generate("walk", 3.0, 1, body=rigs.body, betas=torch.zeros(10))
    to_camera = torch.diag(torch.tensor([1.0, -1.0, -1.0]))
    rotations = motion.rotations[:FRAMES].clone()
    rotations[:, 0] = to_camera @ rotations[:, 0]
    rest = rigs.body.rest_joints(torch.zeros(10))
    pelvis = (motion.trans[:FRAMES] + rest[0] - torch.tensor([0.0, 1.0, 4.0])) @ to_camera.T
    return Pose(rotations, pelvis, torch.zeros(1, 10), torch.zeros(FRAMES, dtype=torch.long))


def _keypoints(pose: Pose, rigs: Rigs) -> Tensor:
    rest = rigs.body.rest_joints(pose.betas)[pose.clip_index]
    joints, global_rotations = forward_kinematics(pose.rotations, rest, pose.pelvis - rest[:, 0])
    return rigs.keypoints.points(global_rotations, joints, pose.betas[0])


def _joints(pose: Pose, rigs: Rigs) -> Tensor:
    rest = rigs.body.rest_joints(pose.betas)[pose.clip_index]
    return forward_kinematics(pose.rotations, rest, pose.pelvis - rest[:, 0])[0]


def _perturbed(pose: Pose, size: float) -> Pose:
    """A constant and a slowly changing rotation added to every joint, and 15 cm to the distance."""
    generator = torch.Generator().manual_seed(3)
    constant, slope = (torch.randn(len(REFINED_JOINTS) * 3, generator=generator) * size for _ in range(2))
    time = torch.linspace(-1, 1, len(pose.pelvis))[:, None]
    step = torch.cat([constant + time * slope, torch.tensor([0.0, 0.0, 0.15]).expand(len(pose.pelvis), 3)], dim=1)
    global_rotations = forward_kinematics(pose.rotations, torch.zeros(24, 3), torch.zeros_like(pose.pelvis))[1]
    return _apply_step(pose, global_rotations, step, torch.zeros(len(pose.betas), 10))


def test_rotation_of_the_whole_body_is_recovered(target: Pose, rigs: Rigs) -> None:
    rotation = axis_angle_to_matrix(torch.tensor([0.04, -0.03, 0.05]))
    rotations = target.rotations.clone()
    rotations[:, 0] = rotation @ rotations[:, 0]
    rotated = replace(target, rotations=rotations, pelvis=target.pelvis + 0.2)
    torch.testing.assert_close(
        whole_body_rotation(target, rotated, rigs), rotation.expand(FRAMES, 3, 3), atol=3e-3, rtol=0
    )
    # Pitching only the pelvis is no rotation of the whole body.
    pitched = replace(target, rotations=pitch_pelvis(target.rotations, torch.full((FRAMES,), 0.15)))
    identity = torch.eye(3).expand(FRAMES, 3, 3)
    torch.testing.assert_close(whole_body_rotation(target, pitched, rigs), identity, atol=0.02, rtol=0)


def test_derivatives_match_finite_differences(target: Pose, rigs: Rigs) -> None:
    projected, jacobian, _, global_rotations = _linearise(target, rigs)
    points = _keypoints(target, rigs)
    torch.testing.assert_close(projected, points[..., :2] / points[..., 2:], atol=1e-5, rtol=0)
    for column in (0, 4, 10, 22, NUM_ROTATION_PARAMETERS - 2, NUM_ROTATION_PARAMETERS, NUM_ROTATION_PARAMETERS + 2):
        step = torch.zeros(FRAMES, NUM_ROTATION_PARAMETERS + 3)
        step[:, column] = 2e-3
        plus, minus = (
            _keypoints(_apply_step(target, global_rotations, sign * step, torch.zeros(1, 10)), rigs) for sign in (1, -1)
        )
        difference = (plus[..., :2] / plus[..., 2:] - minus[..., :2] / minus[..., 2:]) / 4e-3
        torch.testing.assert_close(jacobian[..., column], difference, atol=2e-3, rtol=0)


def test_refinement_fits_the_keypoints(target: Pose, rigs: Rigs) -> None:
    points = _keypoints(target, rigs)
    rays = points[..., :2] / points[..., 2:]
    size = torch.full((FRAMES,), 0.45)
    initial = _perturbed(target, 0.08)
    precision = torch.eye(NUM_ROTATION_PARAMETERS) / 0.1**2
    refined = refine(initial, rays, torch.ones(FRAMES, 17), size, EXACT, precision, rigs, RefineSettings())
    before, after = (
        ((keypoints := _keypoints(pose, rigs))[..., :2] / keypoints[..., 2:] - rays).norm(dim=-1).mean()
        for pose in (initial, refined)
    )
    assert after < before / 8
    errors = [
        ((joints := _joints(pose, rigs)) - joints[:, :1] - _joints(target, rigs) + _joints(target, rigs)[:, :1])
        .norm(dim=-1)
        .mean()
        for pose in (initial, refined)
    ]
    assert errors[1] < 0.6 * errors[0]
    torch.testing.assert_close(torch.linalg.det(refined.rotations), torch.ones(FRAMES, 24), atol=1e-3, rtol=0)


def test_outliers_and_invisible_keypoints_have_little_influence(target: Pose, rigs: Rigs) -> None:
    points = _keypoints(target, rigs)
    rays = points[..., :2] / points[..., 2:]
    corrupted, confidence = rays.clone(), torch.ones(FRAMES, 17)
    corrupted[:, 9] += 0.3
    corrupted[:, 10], confidence[:, 10] = -5.0, 0.0
    precision = torch.eye(NUM_ROTATION_PARAMETERS) / 0.1**2
    refined = refine(
        target, corrupted, confidence, torch.full((FRAMES,), 0.45), EXACT, precision, rigs, RefineSettings()
    )
    assert float((_joints(refined, rigs) - _joints(target, rigs)).norm(dim=-1).max()) < 0.08


def test_clips_are_refined_as_if_alone(target: Pose, rigs: Rigs) -> None:
    points = _keypoints(target, rigs)
    rays = points[..., :2] / points[..., 2:]
    initial, size = _perturbed(target, 0.05), torch.full((FRAMES,), 0.45)
    precision, ones = torch.eye(NUM_ROTATION_PARAMETERS) / 0.1**2, torch.ones(FRAMES, 17)
    alone = refine(initial, rays, ones, size, EXACT, precision, rigs, RefineSettings())
    other = _perturbed(target, -0.1)
    both = Pose(
        torch.cat([other.rotations, initial.rotations]), torch.cat([other.pelvis, initial.pelvis]), torch.zeros(2, 10),
        torch.cat([initial.clip_index, initial.clip_index + 1]),
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


def test_rotation_errors_convert_one_pose_to_the_other(target: Pose) -> None:
    other = _perturbed(target, 0.05)
    global_rotations = forward_kinematics(target.rotations, torch.zeros(24, 3), torch.zeros_like(target.pelvis))[1]
    step = rotation_errors(target.rotations, other.rotations, global_rotations)
    converted = _apply_step(
        target, global_rotations, torch.cat([step, torch.zeros(FRAMES, 3)], dim=1), torch.zeros(1, 10)
    )
    torch.testing.assert_close(
        converted.rotations[:, REFINED_JOINTS], other.rotations[:, REFINED_JOINTS], atol=1e-5, rtol=0
    )


def test_contacts_have_hysteresis() -> None:
    probability = np.full((30, 4), 0.1)
    probability[5:15, 0] = 0.5
    probability[8, 0] = 0.9
    probability[20:22, 1] = 0.9
    planted = find_planted(probability)
    assert planted[:, 0].nonzero()[0].tolist() == list(range(8, 15))
    assert not planted[:, 1:].any()


def _generated(rigs: Rigs, action: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Contact points, pelvis and contacts of a generated action."""
    motion = generate(action, 4.0, 2, body=rigs.body, betas=torch.zeros(10))
    joints, global_rotations = forward_kinematics(
        motion.rotations, rigs.body.rest_joints(torch.zeros(10)), motion.trans
    )
    points = rigs.contacts.points(global_rotations, joints, torch.zeros(10)).numpy()
    return points, joints[:, 0].numpy(), find_contacts(points, 0.0).astype(bool)


def test_steps_of_a_run_are_found_on_a_wrong_path(rigs: Rigs) -> None:
    points, pelvis, contacts = _generated(rigs, "run")
    path_error = np.array([-0.15, 0.0, -0.15]) * (pelvis - pelvis[:1])
    path_error[:, 1] = 0.12 * np.linalg.norm(pelvis - pelvis[:1], axis=-1)
    moved = points + path_error[:, None]
    by_find_contacts = find_contacts(moved, float(moved[..., 1].min())).astype(bool)
    by_find_steps = find_steps(moved, pelvis + path_error)
    assert (by_find_contacts & contacts).sum() < 0.3 * contacts.sum()
    assert (by_find_steps & contacts).sum() > 0.7 * contacts.sum()
    assert (by_find_steps & contacts).sum() > 0.6 * by_find_steps.sum()


@pytest.mark.parametrize("action", ["stand", "squat", "jump", "kick_left"])
def test_no_running_steps_without_displacement(rigs: Rigs, action: str) -> None:
    points, pelvis, _ = _generated(rigs, action)
    assert not find_steps(points, pelvis).any()


def _walk(rigs: Rigs) -> tuple[Tensor, Tensor, np.ndarray, np.ndarray]:
    """Rotations, trans, contact points and contacts of a walking person."""
    motion = generate("walk", 4.0, 2, body=rigs.body, betas=torch.zeros(10))
    joints, global_rotations = forward_kinematics(
        motion.rotations, rigs.body.rest_joints(torch.zeros(10)), motion.trans
    )
    points = rigs.contacts.points(global_rotations, joints, torch.zeros(10)).numpy()
    speed = np.linalg.norm(np.gradient(points, axis=0), axis=-1) * 30
    return motion.rotations, motion.trans, points, (speed < 0.15) & (points[..., 1] < 0.04)


def test_planted_feet_slide_less_and_little_else_changes(rigs: Rigs) -> None:
    rotations, trans, _, planted = _walk(rigs)
    t = torch.arange(len(trans)) / 30
    drifting = trans + torch.stack([0.05 * (5 * t).sin(), 0 * t, 0.1 * t], -1)
    result = plant_feet(rotations, drifting, torch.zeros(10), planted, rigs.body, rigs.contacts)

    def slide(rotations: Tensor, trans: Tensor) -> float:
        joints, global_rotations = forward_kinematics(rotations, rigs.body.rest_joints(torch.zeros(10)), trans)
        feet = rigs.contacts.points(global_rotations, joints, torch.zeros(10)).numpy()[..., [0, 2]]
        planted_in_both = planted[1:] & planted[:-1]
        return float(np.linalg.norm(np.diff(feet, axis=0), axis=-1)[planted_in_both].mean())

    assert slide(result.rotations, result.trans) < 0.6 * slide(rotations, drifting)
    assert float((result.trans - drifting).norm(dim=-1).max()) < 0.1
    assert abs(result.ground_m) < 0.03
    torch.testing.assert_close(torch.linalg.det(result.rotations), torch.ones(result.rotations.shape[:2]))
    upper = [0, 3, 6, 9, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21]
    torch.testing.assert_close(result.rotations[:, upper], rotations[:, upper])


def test_the_vertical_is_recovered_from_the_ground(rigs: Rigs) -> None:
    _, _, points, planted = _walk(rigs)
    tilt = axis_angle_to_matrix(torch.tensor([0.05, 0.0, 0.03])).numpy()
    levelling = leveling_rotation(points @ tilt.T, planted).numpy()
    up = levelling @ tilt @ np.array([0.0, 1.0, 0.0])
    # The slope across the walking direction is weakly observed; along it, it is recovered.
    assert np.degrees(np.arccos(up[1])) < 0.7 * np.degrees(np.hypot(0.05, 0.03))
    stairs = points + np.random.default_rng(0).normal(0, 0.3, (len(points), 1, 3)) * [0, 1, 0]
    assert np.array_equal(leveling_rotation(stairs, planted).numpy(), np.eye(3))
    assert np.array_equal(leveling_rotation(points, np.zeros_like(planted)).numpy(), np.eye(3))


def test_keypoints_with_larger_expected_errors_have_less_influence(target: Pose, rigs: Rigs) -> None:
    points = _keypoints(target, rigs)
    rays, size = points[..., :2] / points[..., 2:], torch.full((FRAMES,), 0.45)
    corrupted, noise_of_wrist = rays.clone(), EXACT.clone()
    corrupted[:, 9] += 0.03 * size[:, None]
    noise_of_wrist[:, 9] = 0.03
    precision, ones = torch.eye(NUM_ROTATION_PARAMETERS) / 0.1**2, torch.ones(FRAMES, 17)
    trusting, informed = (
        refine(target, corrupted, ones, size, noise, precision, rigs, RefineSettings())
        for noise in (EXACT, noise_of_wrist)
    )
    errors = [float((_joints(pose, rigs) - _joints(target, rigs)).norm(dim=-1).mean()) for pose in (trusting, informed)]
    assert errors[1] < 0.4 * errors[0]


def test_jitter_is_smoothed_for_noisy_keypoints(target: Pose, rigs: Rigs) -> None:
    points = _keypoints(target, rigs)
    rays, size = points[..., :2] / points[..., 2:], torch.full((FRAMES,), 0.45)
    jittered = rays + 0.005 * size[:, None, None] * torch.randn(rays.shape, generator=torch.Generator().manual_seed(0))
    precision, ones = torch.eye(NUM_ROTATION_PARAMETERS) / 0.1**2, torch.ones(FRAMES, 17)
    noisy = refine(target, jittered, ones, size, EXACT, precision, rigs, RefineSettings())

    def jitter(pose: Pose) -> float:
        return float(_joints(pose, rigs).diff(n=2, dim=0).norm(dim=-1).mean())

    weak, strong = (smooth_pose(noisy, noise, RefineSettings()) for noise in (0.003, 0.02))
    assert jitter(strong) < 0.7 * jitter(noisy)
    assert jitter(strong) < jitter(weak) < jitter(noisy)
    assert float((_joints(strong, rigs) - _joints(noisy, rigs)).norm(dim=-1).mean()) < 0.02
