"""Metrics of recovered motion: zero for the target itself, and each measures what its definition states."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from schemas.body_model import BodyModel
from schemas.rotations import yaw_matrix
from stages.recovery.lifter.rigs import Rigs
from stages.training.lifter import motion_dataset
from stages.training.lifter.evaluate import group_of, make_cases, pick_evenly
from stages.training.lifter.metrics import DEFINITIONS, BodyMotion, acceleration_error, measure, summarise


@pytest.fixture(scope="module")
def walk(dataset: motion_dataset.MotionDataset, rigs: Rigs) -> BodyMotion:
    """A walking person."""
    cases = make_cases(dataset, rigs, noise=0.0)
    return next(case.target for case in cases if case.group == "walk")


def test_the_target_has_no_error(walk: BodyMotion, body: BodyModel) -> None:
    errors = measure(walk, walk, body)
    zero = set(errors) - {"path_m", "frames", "root", *(name for name in errors if name.startswith("_"))}
    assert {name for name in zero if errors[name] > 1e-2} == set()
    assert errors["path_m"] > 1
    summary = summarise([errors, errors])
    assert summary["contact_f1"] == 1
    assert summary["clips"] == 2
    assert set(DEFINITIONS) - set(summary) == {"fps"}


def test_errors_depend_on_the_camera_but_not_on_the_world_frame(walk: BodyMotion, body: BodyModel) -> None:
    yaw = yaw_matrix(torch.tensor(0.7))
    shift, rest = torch.tensor([3.0, 0.4, -2.0]), body.rest_joints(walk.betas)[0]
    rotations = walk.rotations.clone()
    rotations[:, 0] = yaw @ rotations[:, 0]
    trans = (walk.trans + rest) @ yaw.T + shift - rest
    in_other_world = {"rotations": rotations, "trans": trans, "to_camera": walk.to_camera @ yaw.numpy().T}
    moved = replace(walk, **in_other_world, eye=walk.eye @ yaw.numpy().T + shift.numpy())
    errors = measure(moved, walk, body)
    assert max(errors[name] for name in ("mpjpe", "pve", "tilt", "w_mpjpe100", "root_m", "rte_m", "end_m")) < 0.05
    moved_camera = replace(moved, eye=moved.eye + np.float32([0.0, 0.5, 0.0]))
    errors = measure(moved_camera, walk, body)
    assert errors["root_m"] == pytest.approx(0.5, abs=1e-3)
    assert errors["mpjpe"] < 0.05


def test_errors_over_the_ground(walk: BodyMotion, body: BodyModel) -> None:
    frames = len(walk.trans)
    start = walk.trans[:1]
    longer = measure(replace(walk, trans=start + 1.2 * (walk.trans - start)), walk, body)
    assert longer["mpjpe"] < 1e-2
    summary = summarise([longer])
    assert 10 < summary["drift"] < 20.5
    assert summary["rte"] < summary["drift"]
    assert longer["wa_mpjpe100"] < longer["w_mpjpe100"]
    # Planted feet slide with a fifth of the pelvis' speed in frames of predicted contact.
    speed_mm = 1000 * float((walk.trans[1:] - walk.trans[:-1]).norm(dim=-1).mean())
    assert summary["slide"] == pytest.approx(0.2 * speed_mm + summarise([measure(walk, walk, body)])["slide"], rel=0.35)
    no_contacts = replace(walk, contacts=np.zeros((frames, 4), bool))
    summary = summarise([measure(no_contacts, walk, body)])
    assert summary["contact_f1"] == 0
    assert np.isnan(summary["slide"])
    assert summary["slide_true"] < 10


def test_acceleration_error_is_that_of_second_differences() -> None:
    time_s = np.arange(40) / 30
    target = np.zeros((40, 24, 3))
    predicted = target + np.array([0.5 * 3.0, 0, 0]) * time_s[:, None, None] ** 2 + 7 * time_s[:, None, None] + 2
    assert acceleration_error(predicted, target) == pytest.approx(3.0)
    assert acceleration_error(predicted[:2], target[:2]) == 0


def test_picked_files_are_spread_over_the_actions() -> None:
    paths = [Path(f"dataset-1_{group}_x_{number:03d}.bvh") for group in "abcde" for number in range(9)]
    groups = [len({path.stem.split("_")[1] for path in pick_evenly(paths, count)}) for count in (1, 3, 5, 12)]
    assert groups == [1, 3, 5, 5]
    assert [len(pick_evenly(paths, count)) for count in (1, 3, 12, 100)] == [1, 3, 12, 45]


@pytest.mark.parametrize(
    ("name", "group"),
    [
        ("x/dataset-2_wave-both-hands_active_001", "wave-both-hands"),
        ("cmu/train_soccer_3", "soccer"),
        ("01_02", "01_02"),
    ],
)
def test_groups_are_named_after_actions(name: str, group: str) -> None:
    assert group_of(name) == (group if group != "01_02" else "01")
