"""Scores of motions with known defects."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from schemas.body_model import BodyModel
from schemas.coverage import LEFT_LEG
from schemas.kinematics import forward_kinematics
from schemas.records import Camera, Clip, Footage, Motion, Provenance, Shot, Source, Track, Video
from schemas.rotations import axis_angle_to_matrix, matrix_to_axis_angle
from schemas.skeleton import joint
from stages.base import apply
from stages.geometry.cameras import guess_intrinsics, level_to_camera, project
from stages.score_motion import SCORES, ScoreMotion, limits_of
from stages.synthesis.motions import generate

BODY = BodyModel.load()


def mocap(action: str = "walk") -> Motion:
    motion = generate(action, 2.0, 3, body=BODY)
    return Motion(
        provenance=Provenance(
            source=Source(id="mocap", uri="walk.bvh", kind="mocap"), sha256="1" * 64, person=0, start_s=0.0, end_s=2.0,
            source_fps=30.0,
        ),
        footage=None,
        poses=matrix_to_axis_angle(motion.rotations).numpy(),
        trans=motion.trans.numpy(),
        betas=motion.betas.numpy(),
        contacts=motion.contacts.numpy().astype(np.uint8),
        joint_confidence=np.ones((len(motion), 24), np.float32),
        to_source=np.eye(4, dtype=np.float32),
        body_model=BODY.id,
        models={},
    )  # fmt: skip


def scores(motion: Motion, **config: Any) -> dict[str, float]:
    stage = ScoreMotion(ScoreMotion.Config(**config))
    stage.setup()
    (scored,), rejections = apply(stage, [motion])
    assert not rejections
    return scored.scores


def test_a_clean_motion_has_all_scores_and_no_defects() -> None:
    result = scores(mocap())
    assert tuple(result) == SCORES
    assert all(type(value) is float and np.isfinite(value) for value in result.values())
    assert result["foot_slide"] < 0.005
    assert result["penetration"] < 0.005
    assert result["float"] < 0.01
    assert result["reprojection"] == 0.0
    assert result["visibility"] == result["camera_seen"] == 1.0
    assert 0.8 < result["max_root_speed"] < 2.5
    assert result["identity_switches"] == result["truncation"] == result["joint_limits"] == 0.0
    assert result["physical"] < 0.15


def test_defects_raise_their_score() -> None:
    clean = mocap()
    clean_scores = scores(clean)
    lowered = scores(replace(clean, trans=clean.trans - np.array([0, 0.05, 0], np.float32)))
    assert lowered["penetration"] == pytest.approx(clean_scores["penetration"] + 0.05, abs=0.005)
    raised = scores(replace(clean, trans=clean.trans + np.array([0, 0.05, 0], np.float32)))
    assert raised["float"] == pytest.approx(clean_scores["float"] + 0.05, abs=0.005)
    drift = np.zeros_like(clean.trans)
    drift[:, 0] = np.arange(len(drift)) * 0.02
    assert scores(replace(clean, trans=clean.trans + drift))["foot_slide"] == pytest.approx(0.02, abs=0.004)
    noise = np.random.default_rng(0).normal(0, 0.01, clean.trans.shape).astype(np.float32)
    assert scores(replace(clean, trans=clean.trans + noise))["jitter"] > clean_scores["jitter"] + 0.01
    suspended = scores(replace(clean, trans=clean.trans + np.array([0, 0.25, 0], np.float32)))
    assert suspended["physical"] > 0.85
    knees = clean.poses.copy()
    knees[:20, joint("left_knee")] = (-0.8, 0, 0)
    assert scores(replace(clean, poses=knees), max_joint_speed=1e3)["joint_limits"] == pytest.approx(20 / len(knees))


def test_standing_is_less_dynamic_than_running() -> None:
    assert scores(mocap("stand"))["dynamic"] < 0.3 * scores(mocap("run"))["dynamic"]


def test_a_single_frame_scores_without_nan() -> None:
    motion = mocap()
    short = replace(
        motion,
        poses=motion.poses[:1],
        trans=motion.trans[:1],
        contacts=motion.contacts[:1] * 0,
        joint_confidence=motion.joint_confidence[:1],
        seen=motion.seen[:1],
    )
    assert all(np.isfinite(value) for value in scores(short).values())


@pytest.mark.parametrize(
    ("config", "reason"),
    [
        ({"min_dynamic": 50.0}, "low_dynamic"),
        ({"max_jitter": 0.0}, "high_jitter"),
        ({"max_root_speed": 0.1}, "high_root_speed"),
        ({"max_physical": 0.0}, "high_physical"),
    ],
)
def test_limits_reject_with_their_values(config: dict[str, Any], reason: str) -> None:
    stage = ScoreMotion(ScoreMotion.Config(**config))
    stage.setup()
    results, (rejection,) = apply(stage, [mocap()])
    assert not results
    assert rejection.reason == reason
    assert rejection.limit == next(iter(config.values()))


def test_every_limit_belongs_to_a_score() -> None:
    limits = limits_of(ScoreMotion.Config())
    assert tuple(limits) == SCORES
    finite_bounds = sum(np.isfinite(bound) for pair in limits.values() for bound in pair)
    assert finite_bounds == len(ScoreMotion.Config.model_fields) - 1  # All settings except body_model.


def test_another_body_is_rejected() -> None:
    stage = ScoreMotion()
    stage.setup()
    _, (rejection,) = apply(stage, [replace(mocap(), body_model="smpl-00000000")])
    assert rejection.reason == "another_body_model"


def test_reprojection_is_measured_in_box_heights() -> None:
    motion = mocap("wave_left")
    frames = len(motion.poses)
    betas, rotations = torch.from_numpy(motion.betas), axis_angle_to_matrix(torch.from_numpy(motion.poses))
    joints, global_rotations = forward_kinematics(rotations, BODY.rest_joints(betas), torch.from_numpy(motion.trans))
    points = BODY.keypoint_rig().points(global_rotations, joints, betas).numpy()
    camera = Camera(
        rotation=level_to_camera(torch.zeros(frames)).numpy(),
        position=np.tile(np.array([0, 1, 5], np.float32), (frames, 1)),
        intrinsics=guess_intrinsics(640, 480),
    )
    pixels = project(points, camera)
    shifted = np.concatenate([pixels + np.array([3.0, 4.0]), np.full((frames, 17, 1), 0.8)], -1).astype(np.float32)
    boxes = np.tile(np.array([0, 0, 50, 200], np.float32), (frames, 1))
    video = Video(
        source=motion.provenance.source, sha256="", width=640, height=480, fps=30.0, duration_s=2.0, has_audio=False
    )
    shot = Shot(video=video, index=0, start_s=0.0, end_s=2.0)
    track = Track(shot=shot, person=0, times_s=np.arange(frames) / 30, boxes=boxes, keypoints=shifted, models={},
                  camera_seen=0.6)  # fmt: skip
    clip = Clip(track=track, start_s=0.0, end_s=2.0, boxes=boxes, keypoints=shifted)
    result = scores(replace(motion, footage=Footage(clip=clip, camera=camera)))
    assert result["reprojection"] == pytest.approx(5 / 200, rel=1e-3)
    assert result["visibility"] == pytest.approx(0.8)
    assert result["identity_switches"] == 0.0
    assert result["camera_seen"] == 0.6


def test_made_up_legs_are_not_judged() -> None:
    motion = mocap()
    seen = motion.seen.copy()
    seen[:, LEFT_LEG:] = 0
    sunk = replace(
        motion, trans=motion.trans - np.array([0, 1, 0], np.float32), contacts=motion.contacts * 0, seen=seen
    )
    result = scores(sunk)
    assert result["penetration"] == result["float"] == result["physical"] == result["whole_body"] == 0
    assert scores(motion)["whole_body"] == 1
    strict = ScoreMotion(ScoreMotion.Config(min_whole_body=0.8))
    strict.setup()
    (rejection,) = apply(strict, [sunk])[1]
    assert rejection.reason == "low_whole_body"
