"""humo bench vision: the probe finds what tokens tell, and says so where they tell nothing."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from motion_datasets import write_filmed_dataset
from typer.testing import CliRunner

from model.data.dataset import MotionDataset
from pipeline.benchmarks.vision import joints_in_heading, probe
from pipeline.commands.main import app
from schemas.body_model import BodyModel
from schemas.errors import HumoError
from schemas.rotations import axis_angle_to_matrix, matrix_to_axis_angle, yaw_matrix
from schemas.skeleton import joint

SOURCES = np.repeat([f"film-{number}" for number in range(20)], 6)


def test_the_probe_finds_what_is_linear_in_the_features() -> None:
    rng = np.random.default_rng(0)
    hidden = rng.normal(size=(len(SOURCES), 5))
    features = hidden @ rng.normal(size=(5, 40)) + 0.01 * rng.normal(size=(len(SOURCES), 40))
    joints_m = (hidden @ rng.normal(size=(5, 63))).reshape(-1, 21, 3) * 0.1
    found = probe(features, joints_m, SOURCES)
    assert found["error_m"] < 0.1 * found["mean_pose_m"]
    assert found["right_picture"] > 0.99
    assert found["right_picture_low"] <= found["right_picture"] <= found["right_picture_high"] <= 1


def test_features_that_tell_nothing_are_at_chance() -> None:
    rng = np.random.default_rng(1)
    found = probe(rng.normal(size=(len(SOURCES), 40)), rng.normal(size=(len(SOURCES), 21, 3)), SOURCES)
    assert found["error_m"] > 0.95 * found["mean_pose_m"]
    assert found["right_picture_low"] < 0.5 < found["right_picture_high"]


def test_features_of_the_film_alone_do_not_help() -> None:
    """They would, if frames of one film were in training and test."""
    rng = np.random.default_rng(2)
    films = np.unique(SOURCES, return_inverse=True)[1]
    features, postures = np.eye(20)[films], rng.normal(size=(20, 21, 3))[films]
    assert probe(features, postures, SOURCES)["error_m"] > 0.95 * probe(features, postures, SOURCES)["mean_pose_m"]


def test_joints_do_not_depend_on_where_the_body_stands_and_faces(tmp_path: Path) -> None:
    body = BodyModel.load()
    motion = MotionDataset(write_filmed_dataset(tmp_path, clips=1))[0].motion
    turned = axis_angle_to_matrix(torch.from_numpy(motion.poses)).clone()
    turned[:, 0] = yaw_matrix(torch.tensor(2.0)) @ turned[:, 0]
    moved = replace(motion, poses=matrix_to_axis_angle(turned).numpy(), trans=motion.trans + np.float32(3))
    numbers = np.array([0, 29, 59])
    joints_m = joints_in_heading(motion, body, numbers)
    np.testing.assert_allclose(joints_in_heading(moved, body, numbers), joints_m, atol=1e-4)
    left, right = joints_m[:, joint("left_shoulder") - 1, 0], joints_m[:, joint("right_shoulder") - 1, 0]
    assert (left > 0.05).all()
    assert (right < -0.05).all()


def test_the_command_reports_every_variant(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HUMO_CACHE", str(tmp_path / "cache"))
    films = write_filmed_dataset(tmp_path / "films", clips=10)
    done = CliRunner().invoke(app, ["bench", "vision", films, "--fps", "1", "--grid", "1", "--px", "64", "--json"])
    assert done.exit_code == 0, done.output
    report = json.loads(done.output)
    assert (report["samples"], report["sources"]) == (10, 10)
    assert (report["every_frame"]["frames"], report["first_frame"]["frames"]) == (20, 10)
    assert all(
        0 <= report["every_frame"][variant]["right_picture"] <= 1
        for variant in ("all_tokens", "mean_token", "summary_token")
    )
    few = CliRunner().invoke(app, ["bench", "vision", write_filmed_dataset(tmp_path / "few", clips=2)])
    assert isinstance(few.exception, HumoError | SystemExit)
    assert few.exit_code == 1
