"""Motion capture: round trips through every format; errors name the invalid file."""

import re
import tarfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from mocap_files import (
    Z_UP,
    body_motion,
    global_poses,
    skeleton_of,
    write_amass,
    write_asf_amc,
    write_bvh,
    write_deepmimic,
    write_known_bvh,
)
from scipy.spatial.transform import Rotation
from shared_data import SHARED_DATA

from schemas.body_model import BodyModel
from schemas.errors import HumoError, UsageError
from schemas.kinematics import forward_kinematics
from schemas.records import Source
from schemas.rotations import axis_angle_to_matrix, heading_rad
from schemas.skeleton import joint
from stages.base import apply
from stages.mocap import Retargeted, load_takes, read_motion, read_take
from stages.mocap.glitches import repair_glitches
from stages.mocap.matching import find_map
from stages.mocap.retarget import retarget
from stages.mocap.take import MocapError
from stages.read_mocap import ReadMocap
from stages.score_motion import ScoreMotion

LIMBS = [
    (f"{side}_{start}", f"{side}_{end}")
    for side in ("left", "right")
    for start, end in (("hip", "knee"), ("knee", "ankle"), ("shoulder", "elbow"), ("elbow", "wrist"))
]


def joint_positions(motion: Retargeted) -> np.ndarray:
    rest = BodyModel.load().rest_joints(torch.zeros(10))
    return forward_kinematics(motion.rotations, rest, motion.trans)[0].double().numpy()


def angle_deg(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    cross = np.linalg.norm(np.cross(a, b), axis=-1)
    return np.degrees(np.arctan2(cross, (a * b).sum(-1)))


def limb_errors_deg(predicted: np.ndarray, target: np.ndarray) -> np.ndarray:
    return np.stack([
        angle_deg(predicted[:, joint(b)] - predicted[:, joint(a)], target[:, joint(b)] - target[:, joint(a)])
        for a, b in LIMBS
    ])  # fmt: skip


def rotation_errors_deg(motion: Retargeted, target: np.ndarray, names: tuple[str, ...]) -> np.ndarray:
    """Angles between global rotations in the source's world."""
    rest = BodyModel.load().rest_joints(torch.zeros(10))
    rotations = forward_kinematics(motion.rotations, rest, motion.trans)[1].double().numpy()
    to_source = motion.to_source[:3, :3] / np.cbrt(np.linalg.det(motion.to_source[:3, :3]))
    indices = [joint(name) for name in names]
    errors = (to_source @ rotations[:, indices]).swapaxes(-1, -2) @ target[:, indices]
    return np.degrees(Rotation.from_matrix(errors.reshape(-1, 3, 3)).magnitude())


def write(folder: Path, kind: str, action: str = "walk", seconds: float = 3.0) -> Path:
    motion = body_motion(action, seconds)
    if kind == "cmu_asf":
        return write_asf_amc(folder, motion)
    return write_known_bvh(folder / f"{kind}.bvh", motion, kind)


@pytest.mark.parametrize("kind", ["cmu_bvh", "bandai_namco", "cmu_asf"])
@pytest.mark.parametrize("action", ["walk", "wave_left"])
def test_limb_directions_match_the_source(tmp_path: Path, kind: str, action: str) -> None:
    path = write(tmp_path, kind, action)
    take = read_take(str(path), fps=30.0)
    motion = retarget(take, find_map(take), BodyModel.load())
    target = global_poses(body_motion(action))[0]
    assert motion.joint_map == kind
    assert len(motion.trans) == len(target)
    # The result starts facing +Z; generated motions do so up to a small rotation.
    to_source = motion.to_source[:3, :3] / np.cbrt(np.linalg.det(motion.to_source[:3, :3]))
    assert limb_errors_deg(joint_positions(motion) @ to_source.T, target).mean() < 0.5
    trunk = ("pelvis", "spine2", "spine3", "head", "left_collar", "right_collar", "left_hip", "left_elbow")
    assert rotation_errors_deg(motion, global_poses(body_motion(action))[1], trunk).max() < 1.0


def test_amass_is_read_with_its_rest_pose(tmp_path: Path) -> None:
    standing = body_motion("stand", 2.0)
    standing.rotations[:] = torch.eye(3)
    path = write_amass(tmp_path / "rest.npz", standing, columns=165)
    positions = joint_positions(read_motion(path))[0]
    shank = positions[joint("left_ankle")] - positions[joint("left_knee")]
    # SMPL's shanks lean back by six degrees in the rest pose; those of the shipped body are straight.
    assert angle_deg(shank, np.array([-0.015, -0.399, -0.043])) < 0.1
    walk = read_motion(write_amass(tmp_path / "walk.npz", body_motion("walk")))
    to_y_up = np.eye(4)
    to_y_up[:3, :3] = Z_UP.T
    in_y_up = replace(walk, to_source=to_y_up @ walk.to_source)
    assert (
        rotation_errors_deg(
            in_y_up, global_poses(body_motion("walk"))[1], ("pelvis", "spine3", "head", "left_ankle")
        ).max()
        < 0.5
    )
    assert limb_errors_deg(joint_positions(walk), global_poses(body_motion("walk"))[0]).mean() < 10
    assert walk.joint_confidence[:, joint("left_wrist")].all()
    assert not walk.joint_confidence[:, joint("left_hand")].any()


@pytest.mark.parametrize(
    ("units_per_m", "fps", "order"), [(100.0, 30.0, "XYZ"), (1.0, 60.0, "YZX"), (39.37, 24.0, "ZYX")]
)
def test_units_rates_and_channel_orders(tmp_path: Path, units_per_m: float, fps: float, order: str) -> None:
    names, axes = skeleton_of("cmu_bvh")
    path = write_bvh(
        tmp_path / "a.bvh", body_motion(), names, axes, units_per_m=units_per_m, fps=fps, order=order, extra=["Neck"]
    )
    motion = read_motion(path)
    reference = read_motion(write_known_bvh(tmp_path / "b.bvh", body_motion(), "cmu_bvh"))
    assert motion.source_fps == pytest.approx(fps, rel=1e-3)
    assert len(motion.trans) == pytest.approx(len(reference.trans) * 30 / fps, abs=2)
    np.testing.assert_allclose(motion.rotations[0], reference.rotations[0], atol=2e-3)
    np.testing.assert_allclose(
        motion.trans[-1], reference.trans[-1], atol=0.06
    )  # the last frame at 60 fps may be dropped
    assert np.cbrt(np.linalg.det(motion.to_source[:3, :3])) == pytest.approx(1.0, abs=0.03)


def test_motion_starts_at_the_origin_and_maps_to_the_source(tmp_path: Path) -> None:
    source_motion = body_motion("walk", 4.0)
    yaw = torch.from_numpy(Rotation.from_euler("y", 130, degrees=True).as_matrix()).float()
    source_motion.rotations[:, 0] = yaw @ source_motion.rotations[:, 0]
    source_motion.trans[:] = source_motion.trans @ yaw.T + torch.tensor([3.0, 0.4, -5.0])
    motion = read_motion(write_known_bvh(tmp_path / "a.bvh", source_motion, "cmu_bvh"))
    assert float(heading_rad(motion.rotations[0, 0])) == pytest.approx(0, abs=1e-5)
    np.testing.assert_allclose(joint_positions(motion)[0, 0, [0, 2]], 0, atol=1e-5)
    target, positions = global_poses(source_motion)[0], joint_positions(motion)
    in_source = positions @ motion.to_source[:3, :3].T + motion.to_source[:3, 3]
    np.testing.assert_allclose(in_source[:, [1, 2]].mean(1), target[:, [1, 2]].mean(1), atol=0.01)
    feet = positions[..., [joint("left_ankle"), joint("right_ankle")], 1]
    assert 0.06 < np.quantile(feet.min(1), 0.2) < 0.1
    assert 0.3 < motion.contacts.mean() < 0.9


def test_t_pose_before_the_take_is_dropped(tmp_path: Path) -> None:
    with_pose = read_motion(write_known_bvh(tmp_path / "a.bvh", body_motion(), "cmu_bvh", t_pose_first=True))
    without = read_motion(write_known_bvh(tmp_path / "b.bvh", body_motion(), "cmu_bvh"))
    assert with_pose.start_s == pytest.approx(1 / 30, abs=1e-4)
    assert without.start_s == 0.0
    np.testing.assert_allclose(with_pose.rotations, without.rotations, atol=1e-3)


def test_deepmimic_sides_and_hinges(tmp_path: Path) -> None:
    quarter = np.sqrt(0.5)
    path = write_deepmimic(
        tmp_path / "a.txt",
        right_elbow=[np.pi / 2], left_knee=[-np.pi / 2], left_shoulder=[quarter, quarter, 0.0, 0.0],
    )  # fmt: skip
    motion = read_motion(path)
    at = {name: joint_positions(motion)[0, joint(name)] for name in ("left_elbow", "left_shoulder", "right_elbow",
          "right_wrist", "right_shoulder", "left_knee", "left_ankle", "left_hip", "right_hip")}  # fmt: skip
    assert at["left_hip"][0] > at["right_hip"][0]
    np.testing.assert_allclose(
        at["right_elbow"][[0, 2]], at["right_shoulder"][[0, 2]], atol=1e-3
    )  # the upper arm hangs
    assert at["right_wrist"][2] - at["right_elbow"][2] > 0.2  # and the forearm points forwards
    assert at["left_ankle"][2] - at["left_knee"][2] < -0.3  # the shank back
    assert at["left_elbow"][0] - at["left_shoulder"][0] > 0.2  # the left arm lifted to the left
    assert not motion.joint_confidence[:, joint("left_collar")].any()
    assert motion.joint_confidence[:, joint("spine2")].all()


def broken(folder: Path, kind: str) -> Path:
    good = write_known_bvh(folder / "good.bvh", body_motion("stand", 2.0), "cmu_bvh").read_text()
    head, _, body = good.partition("MOTION")
    rows = body.splitlines()
    text = {
        "truncated": good[: len(good) * 2 // 3],
        "wrong_channel_count": head + "MOTION\n" + "\n".join([*rows[1:3], *(row + " 1.0" for row in rows[3:])]),
        "not_finite": good.replace(rows[9].split()[3], "nan"),
        "no_frames": head + "MOTION\nFrames: 0\nFrame Time: 0.03\n",
        "not_mocap": "a text about dancing",
        # One leg has no knee by its names, and is too short for a pair by its shape.
        "unknown_skeleton": re.sub(
            r"(JOINT LeftFoot\s+{\s+OFFSET) .*", r"\1 0 -9 0", good.replace("JOINT LeftLeg", "JOINT Thigh.L")
        ),
        "no_frame_rate": good.replace(rows[2], "Frame Time: 0"),
        "broken_file": good.replace("CHANNELS 3 Zrotation", "CHANNELS 3 Wrotation", 1),
    }[kind]
    path = folder / "bad.bvh"
    path.write_text(text)
    return path


@pytest.mark.parametrize(
    ("reason", "message"),
    [
        ("truncated", "download the file again"), ("wrong_channel_count", "channels"), ("not_finite", "frame"),
        ("no_frames", "Frames: 0"), ("not_mocap", "HIERARCHY"), ("unknown_skeleton", r"Thigh\.L.*read_mocap\.joint_map"),
        ("no_frame_rate", r"read_mocap\.fps"), ("broken_file", "Wrotation"),
    ],
)  # fmt: skip
def test_invalid_bvh_raises_with_its_name(tmp_path: Path, reason: str, message: str) -> None:
    path = broken(tmp_path, reason)
    with pytest.raises(MocapError, match=message) as caught:
        read_motion(path)
    assert caught.value.reason == reason
    assert "bad.bvh" in str(caught.value)


def test_invalid_files_of_the_other_formats(tmp_path: Path) -> None:
    amc = write_asf_amc(tmp_path, body_motion("stand", 2.0))
    content = amc.read_text()

    def assert_rejected(path: Path, reason: str) -> None:
        with pytest.raises(MocapError, match=path.name) as caught:
            read_motion(path)
        assert caught.value.reason == reason, caught.value

    amc.write_text(content[:-200])
    assert_rejected(amc, "truncated")
    amc.write_text(content.replace("head ", "tail "))
    assert_rejected(amc, "unknown_skeleton")
    (tmp_path / "07.asf").unlink()
    assert_rejected(amc, "no_skeleton")
    clip = write_deepmimic(tmp_path / "clip.json")
    clip.write_text(clip.read_text()[:-30])
    assert_rejected(clip, "truncated")
    clip.write_text('{"Frames": [[1, 2, 3]]}')
    assert_rejected(clip, "wrong_channel_count")
    clip.write_text('{"Frames": []}')
    assert_rejected(clip, "no_frames")
    assert_rejected(
        write_amass(tmp_path / "short.npz", body_motion(), columns=66, trans=np.zeros((4, 3))), "wrong_channel_count"
    )
    bad = body_motion()
    bad.trans[5] = torch.nan
    assert_rejected(write_amass(tmp_path / "nan.npz", bad), "not_finite")
    assert_rejected(write_amass(tmp_path / "rate.npz", body_motion(), mocap_framerate=0.0), "no_frame_rate")
    (tmp_path / "zip.npz").write_bytes((tmp_path / "nan.npz").read_bytes()[:500])
    assert_rejected(tmp_path / "zip.npz", "truncated")


def test_custom_joint_map(tmp_path: Path) -> None:
    names, axes = skeleton_of("cmu_bvh")
    custom = {name: f"Bip01 {source}" for name, source in names.items() if "foot" not in name and "collar" not in name}
    all_names = {name: custom.get(name, name) for name in names}
    path = write_bvh(tmp_path / "a.bvh", body_motion(), all_names, axes)
    lines = ["feet: with_shank", "joints:", *(f"  {name}: {source}" for name, source in custom.items())]
    (tmp_path / "map.yaml").write_text("\n".join(lines))
    motion = read_motion(path, joint_map=str(tmp_path / "map.yaml"))
    assert limb_errors_deg(joint_positions(motion), global_poses(body_motion())[0]).mean() < 3
    assert not motion.joint_confidence[:, joint("left_collar")].any()
    (tmp_path / "map.yaml").write_text("joints: {pelvis: Hips, tail: Tail}")
    with pytest.raises(UsageError, match="tail"):
        read_motion(path, joint_map=str(tmp_path / "map.yaml"))
    with pytest.raises(UsageError, match="bandai_namco"):
        ReadMocap(ReadMocap.Config(joint_map="mixamo")).setup()


def test_glitches_are_repaired_and_permanent_jumps_are_not() -> None:
    angles = np.linspace(0, 1, 120)
    vectors = np.zeros((120, 24, 3))
    vectors[:, joint("left_wrist"), 0] = angles
    vectors[50:55, joint("left_wrist"), 0] += 2.5
    vectors[60:, joint("right_hip"), 1] = 2.5
    local = axis_angle_to_matrix(torch.from_numpy(vectors)).numpy()
    rotations, repaired = repair_glitches(local, np.arange(120) / 120)
    assert repaired[50:55, joint("left_wrist")].all()
    assert repaired.sum() < 20
    clean = Rotation.from_rotvec(np.stack([angles, 0 * angles, 0 * angles], -1)).as_matrix()
    np.testing.assert_allclose(rotations[:, joint("left_wrist")], clean, atol=1e-3)
    np.testing.assert_array_equal(rotations[:, joint("right_hip")], local[:, joint("right_hip")])


def source(path: Path, **more: str) -> Source:
    return Source(id=path.stem, uri=str(path), **{"kind": "mocap", **more})


def stage(**settings: object) -> ReadMocap:
    read_mocap = ReadMocap(ReadMocap.Config(**settings))
    read_mocap.setup()
    return read_mocap


def test_stage_cuts_takes_into_motions_that_score_well(tmp_path: Path) -> None:
    path = write_known_bvh(tmp_path / "walk.bvh", body_motion("walk", 9.0), "cmu_bvh")
    motions, rejections = apply(stage(max_s=4.0), [source(path, licence="CC0-1.0")])
    assert not rejections
    assert [len(motion.trans) for motion in motions] == [90, 90, 90]
    assert [motion.provenance.start_s for motion in motions] == pytest.approx([0, 3, 6], abs=0.01)
    assert len({motion.id for motion in motions}) == 3
    target = global_poses(body_motion("walk", 9.0))[0]
    for number, motion in enumerate(motions):
        root = axis_angle_to_matrix(torch.from_numpy(motion.poses[0, 0]))
        assert float(heading_rad(root)) == pytest.approx(0, abs=1e-4)
        assert motion.footage is None
        assert motion.models == {"read_mocap": "bvh retarget 1"}
        assert motion.to_source.dtype == np.float32
        in_source = motion.to_source[:3, :3] @ motion.trans[0] + motion.to_source[:3, 3]
        np.testing.assert_allclose(in_source, target[90 * number, 0], atol=0.03)
    scorer = ScoreMotion()
    scorer.setup()
    scored, rejections = apply(scorer, motions)
    assert not rejections
    assert max(one.scores["foot_slide"] for one in scored) < 0.01
    again, _ = apply(stage(max_s=4.0), [source(path, licence="CC0-1.0")])
    assert all(a.poses.tobytes() == b.poses.tobytes() for a, b in zip(motions, again, strict=True))


def test_stage_rejects_with_reasons(tmp_path: Path) -> None:
    short = write_known_bvh(tmp_path / "short.bvh", body_motion("stand", 1.6), "cmu_bvh")
    slow = write_known_bvh(tmp_path / "slow.bvh", body_motion("stand", 2.0), "cmu_bvh", fps=5.0)
    (tmp_path / "notes.doc").write_text("x")
    records = [
        source(short), source(slow), source(tmp_path / "gone.bvh"), source(short, kind="video"),
        source(tmp_path / "notes.doc"), source(broken(tmp_path, "unknown_skeleton")),
    ]  # fmt: skip
    motions, rejections = apply(stage(), records)
    assert not motions
    reasons = [rejection.reason for rejection in rejections]
    assert reasons == ["too_short", "frame_rate_too_low", "missing", "not_mocap", "not_mocap", "unknown_skeleton"]
    assert rejections[0].measured == pytest.approx(1.6, abs=0.05)


@pytest.fixture(scope="session")
def shared_mocap(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Real takes; the test is skipped if the archives are not next to the repository."""
    archives = SHARED_DATA / "mocap"
    if not archives.is_dir():
        pytest.skip(f"no motion capture at {archives}")
    folder = tmp_path_factory.mktemp("mocap")
    for name in ("deepmimic", "cmu-bvh"):
        with tarfile.open(archives / f"{name}.tar.xz") as archive:
            for member in archive:
                base = Path(member.name).name
                if base in ("humanoid3d_walk.txt", "train_walking_3.bvh"):
                    (folder / base).write_bytes(archive.extractfile(member).read())  # type: ignore[union-attr]
    return folder


@pytest.mark.shared
def test_real_takes_walk(shared_mocap: Path) -> None:
    takes = list(load_takes(shared_mocap))
    assert [name for name, *_ in takes] == ["humanoid3d_walk", "train_walking_3"]
    for name, rotations, trans in takes:
        rest = BodyModel.load().rest_joints(torch.zeros(10))
        positions = forward_kinematics(rotations, rest, trans)[0].numpy()
        assert trans[-1, 2] > 1.0, f"{name}: walks forward"
        assert (positions[:, joint("left_shoulder"), 0] > positions[:, joint("right_shoulder"), 0]).all()
        for side in ("left", "right"):
            hip, knee, ankle = (positions[:, joint(f"{side}_{part}")] for part in ("hip", "knee", "ankle"))
            assert np.quantile((knee - (hip + ankle) / 2)[:, 2], 0.1) > -0.02, f"{name}: knees bend forward"
    with pytest.raises(HumoError):
        read_motion(shared_mocap / "none.doc")
