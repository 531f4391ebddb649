"""Recovery of synthetic people observed by synthetic cameras."""

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from schemas.body_model import BodyModel
from schemas.coverage import LEFT_LEG, all_seen, mask_problems
from schemas.errors import HumoError
from schemas.kinematics import forward_kinematics
from schemas.records import FPS, Camera, Clip, Motion, Shot, Source, Track, Video
from schemas.rotations import axis_angle_to_matrix, heading_rad, yaw_matrix
from schemas.skeleton import COCO_KEYPOINTS, CONTACT_POINTS, SMPL_JOINTS, joint, keypoint, mirror_order
from stages.base import apply
from stages.fit_smpl import FitSmpl, joint_confidence
from stages.geometry.cameras import guess_intrinsics, level_to_camera, project
from stages.geometry.contacts import find_contacts, ground_height
from stages.recovery import facing, priors
from stages.synthesis.motions import generate

WIDTH, HEIGHT = 640, 480
BODY = BodyModel.load()


def filmed(
    action: str,
    yaw_rad: float,
    *,
    seconds: float = 2.0,
    pitch_rad: float = 0.12,
    seed: int = 1,
    distance_m: float = 5.0,
    focal_ratio: float = 1.0,
):
    """A clip of a generated motion seen by a level camera at `distance_m`, with the joints and root in the camera's world. Its
    focal length is `focal_ratio` times the assumed one."""
    motion = generate(action, seconds, seed, body=BODY)
    rest = BODY.rest_joints(motion.betas)
    rotation = yaw_matrix(torch.tensor(yaw_rad))
    rotations = motion.rotations.clone()
    rotations[:, 0] = rotation @ rotations[:, 0]
    pelvis = (motion.trans + rest[0]) @ rotation.T
    offset = torch.tensor([0.0, -np.sin(pitch_rad) * distance_m, -np.cos(pitch_rad) * distance_m]).float()
    pelvis = pelvis - pelvis.mean(0) + offset
    joints, global_rotations = forward_kinematics(rotations, rest, pelvis - rest[0])
    points = BODY.keypoint_rig().points(global_rotations, joints, motion.betas).numpy()
    to_camera = level_to_camera(torch.tensor(pitch_rad)).numpy()
    camera = static_camera(to_camera, np.zeros(3), len(points))
    camera.intrinsics[:2] *= focal_ratio
    pixels = project(points, camera)
    keypoints = np.concatenate([pixels, np.full((*pixels.shape[:2], 1), 0.9)], -1).astype(np.float32)
    return clip_of(keypoints), joints.numpy(), rotations


def static_camera(rotation: np.ndarray, position: np.ndarray, frames: int) -> Camera:
    return Camera(
        rotation=np.repeat(rotation[None], frames, 0).astype(np.float32),
        position=np.repeat(position[None], frames, 0).astype(np.float32),
        intrinsics=guess_intrinsics(WIDTH, HEIGHT),
    )


def clip_of(keypoints: np.ndarray, person: int = 0) -> Clip:
    seconds = len(keypoints) / FPS
    source = Source(id="yard", uri="yard.mp4")
    video = Video(
        source=source, sha256="0" * 64, width=WIDTH, height=HEIGHT, fps=25.0, duration_s=seconds, has_audio=False
    )
    boxes = np.concatenate([keypoints[..., :2].min(1) - 10, keypoints[..., :2].max(1) + 10], -1).astype(np.float32)
    track = Track(
        shot=Shot(video=video, index=0, start_s=0.0, end_s=seconds),
        person=person,
        times_s=np.arange(len(keypoints)) / FPS,
        boxes=boxes,
        keypoints=keypoints,
        models={"detector": "eye 1"},
    )
    return Clip(track=track, start_s=0.0, end_s=seconds, boxes=boxes, keypoints=keypoints)


@pytest.fixture(scope="module", params=["lift", "optimise"])
def stage(request: pytest.FixtureRequest) -> FitSmpl:
    stage = FitSmpl(FitSmpl.Config(fitter=request.param))
    stage.setup()
    return stage


def forward_kinematics_of(motion: Motion):
    betas, rotations = torch.from_numpy(motion.betas), axis_angle_to_matrix(torch.from_numpy(motion.poses))
    joints, global_rotations = forward_kinematics(rotations, BODY.rest_joints(betas), torch.from_numpy(motion.trans))
    return joints.numpy(), global_rotations, betas


@pytest.mark.parametrize(("action", "yaw_rad"), [("walk", 0.6), ("wave_left", 2.6), ("turn_right", -1.5)])
def test_recovers_a_generated_motion(stage: FitSmpl, action: str, yaw_rad: float) -> None:
    clip, target, rotations = filmed(action, yaw_rad)
    (motion,), rejections = apply(stage, [clip])
    assert not rejections
    joints, global_rotations, betas = forward_kinematics_of(motion)

    in_source = joints @ motion.to_source[:3, :3].T + motion.to_source[:3, 3]
    error = np.linalg.norm((in_source - in_source[:, :1] - target + target[:, :1])[:, :22], axis=-1).mean()
    assert error < 0.12
    heading_error = heading_rad(torch.from_numpy(motion.to_source[:3, :3]) @ global_rotations[:, 0]) - heading_rad(
        rotations[:, 0]
    )
    assert torch.atan2(heading_error.sin(), heading_error.cos()).abs().median() < 0.35

    # The keypoints project to the detected ones in the footage's camera.
    points = BODY.keypoint_rig().points(global_rotations, torch.from_numpy(joints), betas).numpy()
    distance_px = np.linalg.norm(project(points, motion.footage.camera) - clip.keypoints[..., :2], axis=-1)
    assert np.median(distance_px / (clip.boxes[:, 3] - clip.boxes[:, 1])[:, None]) < 0.02


def test_a_motion_starts_at_the_origin_on_the_ground_facing_z(stage: FitSmpl) -> None:
    (motion,), _ = apply(stage, [filmed("stand", 1.0)[0]])
    joints, global_rotations, betas = forward_kinematics_of(motion)
    np.testing.assert_allclose(joints[0, joint("pelvis"), [0, 2]], 0, atol=1e-5)
    assert abs(float(heading_rad(global_rotations[0, 0]))) < 1e-4
    soles = BODY.contact_rig().points(global_rotations, torch.from_numpy(joints), betas)[..., 1]
    assert abs(float(soles.min(-1).values.median())) < 0.02
    assert motion.contacts.mean() > 0.8
    assert motion.poses.dtype == motion.trans.dtype == motion.joint_confidence.dtype == np.float32
    assert motion.provenance.source_fps == 25.0
    assert motion.models["detector"] == "eye 1"
    assert motion.models["fit_smpl"].startswith({"lift": "lifter ", "optimise": "optimise 1"}[stage.config.fitter])


@pytest.mark.parametrize("focal_ratio", [0.65, 1.4])
def test_a_walk_gives_an_unknown_focal_length(focal_ratio: float) -> None:
    stage = FitSmpl(FitSmpl.Config(fitter="lift"))
    stage.setup()
    clip, target, _ = filmed("walk", 0.3, seconds=4.0, distance_m=7.0, focal_ratio=focal_ratio)
    video = replace(clip.track.shot.video, focal_px=math.hypot(WIDTH, HEIGHT) * focal_ratio)
    with_metadata = replace(clip, track=replace(clip.track, shot=replace(clip.track.shot, video=video)))
    (estimated, known), _ = apply(stage, [clip, with_metadata])
    assert known.footage.camera.intrinsics[0] == pytest.approx(video.focal_px)
    assert estimated.footage.camera.intrinsics[0] == pytest.approx(video.focal_px, rel=0.2)
    for motion in (estimated, known):
        displacement_m = np.linalg.norm(motion.trans[-1] - motion.trans[0])
        assert displacement_m == pytest.approx(np.linalg.norm(target[-1, 0] - target[0, 0]), rel=0.15)


def test_fits_do_not_depend_on_the_other_clips(stage: FitSmpl) -> None:
    clips = [filmed("wave_right", 0.4)[0], filmed("squat", -0.8, seconds=1.6)[0]]
    threads = torch.get_num_threads()
    together, _ = apply(stage, clips)
    assert torch.get_num_threads() == threads
    alone, _ = apply(stage, clips[1:])
    for name in ("poses", "trans", "betas", "contacts", "to_source"):
        assert getattr(together[1], name).tobytes() == getattr(alone[0], name).tobytes()


def test_invisible_people_and_scrambled_keypoints_are_rejected_with_values(stage: FitSmpl) -> None:
    clip = filmed("stand", 0.0, seconds=1.5)[0]
    invisible = clip.keypoints.copy()
    invisible[..., 5:, 2] = 0
    scrambled = clip.keypoints.copy()
    scrambled[..., :2] = np.random.default_rng(0).uniform(100, 400, scrambled[..., :2].shape)
    _, rejections = apply(stage, [clip_of(invisible), clip_of(scrambled)])
    assert [rejection.reason for rejection in rejections] == ["too_few_keypoints", "fit_did_not_converge"]
    assert rejections[0].measured == 5.0 < rejections[0].limit
    assert rejections[1].measured > rejections[1].limit


def test_unseen_legs_are_made_up_and_say_nothing(stage: FitSmpl) -> None:
    clip, _, _ = filmed("walk", 0.4)
    keypoints = clip.keypoints.copy()
    keypoints[:, [keypoint(f"{side}_{name}") for side in ("left", "right") for name in ("knee", "ankle")], 2] = 0.1
    seen = all_seen(len(keypoints))
    seen[:, LEFT_LEG:] = 0
    upper = replace(clip, keypoints=keypoints, seen=seen, track=replace(clip.track, keypoints=keypoints))
    (motion,), rejections = apply(stage, [upper])
    assert not rejections
    np.testing.assert_array_equal(motion.seen, seen)
    assert not motion.contacts.any()
    legs = [joint(f"{side}_{name}") for side in ("left", "right") for name in ("hip", "knee", "ankle", "foot")]
    assert not motion.joint_confidence[:, legs].any()
    assert (motion.joint_confidence[:, [joint("pelvis"), joint("left_wrist"), joint("head")]] > 0).all()
    assert np.abs(motion.poses[:, legs]).max() < 1e-5
    joints, _, _ = forward_kinematics_of(motion)
    ankles = joints[:, [joint("left_ankle"), joint("right_ankle")], 1]
    assert abs(float(np.median(ankles))) < 0.2
    assert not mask_problems(motion.seen, motion.joint_confidence, motion.contacts)


def test_frames_without_keypoints_are_interpolated(stage: FitSmpl) -> None:
    clip = filmed("walk", 0.6)[0]
    keypoints = clip.keypoints.copy()
    keypoints[20:26] = np.nan
    keypoints[20:26, :, 2] = 0
    gap = Clip(track=clip.track, start_s=0.0, end_s=2.0, boxes=clip.boxes, keypoints=keypoints)
    (motion,), _ = apply(stage, [gap])
    assert np.isfinite(motion.poses).all()
    assert motion.joint_confidence[22].max() == 0
    assert np.linalg.norm(np.diff(motion.trans, axis=0), axis=-1).max() < 0.1


@pytest.mark.parametrize("frames", [1, 2, 4])
def test_very_short_clips_are_fitted(stage: FitSmpl, frames: int) -> None:
    (motion,), _ = apply(stage, [clip_of(filmed("wave_left", 0.3)[0].keypoints[:frames])])
    assert motion.poses.shape == (frames, 24, 3)


def test_unknown_fitters_and_missing_weights_are_rejected(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="oracle"):
        FitSmpl.Config(fitter="oracle")
    with pytest.raises(HumoError, match="no lifter weights"):
        FitSmpl(FitSmpl.Config(fitter="lift", lifter_weights=str(tmp_path / "gone.safetensors"))).setup()


def test_projection_follows_a_moving_camera() -> None:
    rng = np.random.default_rng(0)
    points = rng.normal(0, 1, (4, 5, 3))
    pitch = torch.linspace(-0.3, 0.5, 4)
    position = rng.normal([0, 0, 6], 1, (4, 3))
    camera = Camera(rotation=level_to_camera(pitch).numpy(), position=position, intrinsics=guess_intrinsics(640, 480))
    pixels = project(points, camera)
    fx, fy, cx, cy = camera.intrinsics
    depth = np.einsum("ti,tki->tk", camera.rotation[:, 2], points - position[:, None])
    rays = np.stack([(pixels[..., 0] - cx) / fx, (pixels[..., 1] - cy) / fy, np.ones_like(depth)], -1)
    reconstructed = np.einsum("tji,tkj->tki", camera.rotation, rays * depth[..., None]) + position[:, None]
    np.testing.assert_allclose(reconstructed, points, atol=1e-4)


def test_a_level_camera_keeps_up_and_right() -> None:
    camera = static_camera(level_to_camera(torch.tensor(0.0)).numpy(), np.zeros(3), 1)
    centre, right, up = project(np.array([[[0, 0, -3.0], [1, 0, -3], [0, 1, -3]]]), camera)[0]
    np.testing.assert_allclose(centre, [WIDTH / 2, HEIGHT / 2])
    assert right[0] > centre[0]
    assert up[1] < centre[1]


@pytest.mark.parametrize("yaw_rad", np.linspace(-3, 3, 7))
def test_heading_is_estimated_from_keypoints(yaw_rad: float) -> None:
    clip, _, rotations = filmed("stand", float(yaw_rad))
    estimated = torch.from_numpy(facing.best_path(facing.yaw_costs(clip.keypoints)))
    error = estimated - heading_rad(rotations[:, 0])
    assert torch.atan2(error.sin(), error.cos()).abs().max() < 0.5


def test_the_pose_prior_is_symmetric_and_penalises_hyperextended_knees() -> None:
    order = [j - 1 for j in mirror_order(SMPL_JOINTS)[1:]]
    pose = torch.randn(4, 23, 3, generator=torch.Generator().manual_seed(0))
    mirrored = pose[:, order] * torch.tensor([1.0, -1.0, -1.0])
    torch.testing.assert_close(priors.pose_cost(pose), priors.pose_cost(mirrored))
    bent = priors.MEAN.repeat(2, 1, 1)
    bent[:, joint("left_knee") - 1, 0] = torch.tensor([0.6, -0.6])
    forwards, backwards = priors.pose_cost(bent)
    assert forwards + 10 < backwards


def test_contacts_are_slow_and_low() -> None:
    frames = 60
    feet = np.zeros((frames, 4, 3))
    feet[:, :2, 1] = np.where(np.arange(frames) < 30, 0.0, 0.3)[:, None]
    feet[:, 2, 2] = np.arange(frames) * 0.05
    feet[:, :, 1] += 0.7
    ground_m = ground_height(feet)
    assert ground_m == pytest.approx(0.7, abs=0.01)
    contacts = find_contacts(feet, ground_m)
    columns = dict(zip(CONTACT_POINTS, contacts.T, strict=True))
    assert columns["left_heel"][:28].all()
    assert not columns["left_heel"][31:].any()
    assert not columns["right_heel"].any()
    assert columns["right_toe"].all()


def test_the_ground_is_not_the_lowest_frame() -> None:
    feet = np.zeros((90, 4, 3))
    feet[40:43, :, 1] = -0.4
    assert ground_height(feet) == pytest.approx(0.0, abs=0.01)


def test_joint_confidence_comes_from_neighbouring_keypoints() -> None:
    keypoints = np.ones((2, len(COCO_KEYPOINTS), 3), np.float32)
    keypoints[1, keypoint("left_wrist"), 2] = 0.2
    confidence = joint_confidence(keypoints)
    assert (confidence[0] == 1).all()
    low = {SMPL_JOINTS[j] for j in np.flatnonzero(confidence[1] < 0.5)}
    assert low == {"left_wrist", "left_hand"}
