"""Errors of recovered motion: the truth has none, and each measures what it says."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from schemas.body_model import BodyModel
from schemas.rotations import yaw_matrix
from stages.recovery.lifter.rigs import Rigs
from stages.training.lifter import motion_dataset
from stages.training.lifter.evaluate import group_of, make_cases, pick
from stages.training.lifter.metrics import DEFINITIONS, BodyMotion, acceleration_error, measure, summarise


@pytest.fixture(scope="module")
def walk(dataset: motion_dataset.MotionDataset, rigs: Rigs) -> BodyMotion:
    """Somebody who goes somewhere."""
    cases = make_cases(dataset, rigs, noise=0.0)
    return next(case.truth for case in cases if case.group == "walk")


def test_the_truth_measures_zero(walk: BodyMotion, body: BodyModel) -> None:
    errors = measure(walk, walk, body)
    zero = set(errors) - {"path_m", "frames", "root", *(name for name in errors if name.startswith("_"))}
    assert {name for name in zero if errors[name] > 1e-2} == set()
    assert errors["path_m"] > 1
    whole = summarise([errors, errors])
    assert whole["contact_f1"] == 1
    assert whole["clips"] == 2
    assert set(DEFINITIONS) - set(whole) == {"fps"}


def test_where_the_world_is_does_not_matter_but_where_the_camera_is(walk: BodyMotion, body: BodyModel) -> None:
    turn = yaw_matrix(torch.tensor(0.7))
    shift, rest = torch.tensor([3.0, 0.4, -2.0]), body.rest_joints(walk.betas)[0]
    rotations = walk.rotations.clone()
    rotations[:, 0] = turn @ rotations[:, 0]
    trans = (walk.trans + rest) @ turn.T + shift - rest
    there = {"rotations": rotations, "trans": trans, "to_camera": walk.to_camera @ turn.numpy().T}
    moved = replace(walk, **there, eye=walk.eye @ turn.numpy().T + shift.numpy())
    errors = measure(moved, walk, body)
    assert max(errors[name] for name in ("mpjpe", "pve", "tilt", "w_mpjpe100", "root_m", "rte_m", "end_m")) < 0.05
    farther = replace(moved, eye=moved.eye + np.float32([0.0, 0.5, 0.0]))
    errors = measure(farther, walk, body)
    assert errors["root_m"] == pytest.approx(0.5, abs=1e-3)
    assert errors["mpjpe"] < 0.05


def test_errors_over_the_ground(walk: BodyMotion, body: BodyModel) -> None:
    frames = len(walk.trans)
    start = walk.trans[:1]
    longer = measure(replace(walk, trans=start + 1.2 * (walk.trans - start)), walk, body)
    assert longer["mpjpe"] < 1e-2
    whole = summarise([longer])
    assert 10 < whole["drift"] < 20.5
    assert whole["rte"] < whole["drift"]
    assert longer["wa_mpjpe100"] < longer["w_mpjpe100"]
    # Standing feet slide with a fifth of the pelvis' speed, in frames where they are said to stand.
    speed_mm = 1000 * float((walk.trans[1:] - walk.trans[:-1]).norm(dim=-1).mean())
    assert whole["slide"] == pytest.approx(0.2 * speed_mm + summarise([measure(walk, walk, body)])["slide"], rel=0.35)
    nothing = replace(walk, contacts=np.zeros((frames, 4), bool))
    silent = summarise([measure(nothing, walk, body)])
    assert silent["contact_f1"] == 0
    assert np.isnan(silent["slide"])
    assert silent["slide_true"] < 10


def test_acceleration_error_is_that_of_second_differences() -> None:
    time_s = np.arange(40) / 30
    truth = np.zeros((40, 24, 3))
    said = truth + np.array([0.5 * 3.0, 0, 0]) * time_s[:, None, None] ** 2 + 7 * time_s[:, None, None] + 2
    assert acceleration_error(said, truth) == pytest.approx(3.0)
    assert acceleration_error(said[:2], truth[:2]) == 0


def test_picking_spreads_over_what_is_done() -> None:
    paths = [Path(f"dataset-1_{group}_x_{number:03d}.bvh") for group in "abcde" for number in range(9)]
    assert [len({path.stem.split("_")[1] for path in pick(paths, count)}) for count in (1, 3, 5, 12)] == [1, 3, 5, 5]
    assert [len(pick(paths, count)) for count in (1, 3, 12, 100)] == [1, 3, 12, 45]


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
