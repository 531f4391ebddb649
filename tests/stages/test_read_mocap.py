"""Motion capture: every format gives back the motion that it was written from, wrong files are refused by name."""

import tarfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from mocap_files import (
    Z_UP,
    body_motion,
    posed,
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
from stages.mocap.mend import mend
from stages.mocap.retarget import retarget
from stages.mocap.skeletons import find_map
from stages.mocap.take import MocapError
from stages.read_mocap import ReadMocap
from stages.score_motion import ScoreMotion

LIMBS = [
    (f"{side}_{start}", f"{side}_{end}")
    for side in ("left", "right")
    for start, end in (("hip", "knee"), ("knee", "ankle"), ("shoulder", "elbow"), ("elbow", "wrist"))
]


def places_of(motion: Retargeted) -> np.ndarray:
    rest = BodyModel.load().rest_joints(torch.zeros(10))
    return forward_kinematics(motion.rotations, rest, motion.trans)[0].double().numpy()


def apart_deg(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    cross = np.linalg.norm(np.cross(a, b), axis=-1)
    return np.degrees(np.arctan2(cross, (a * b).sum(-1)))


def limb_errors_deg(places: np.ndarray, truth: np.ndarray) -> np.ndarray:
    return np.stack([
        apart_deg(places[:, joint(b)] - places[:, joint(a)], truth[:, joint(b)] - truth[:, joint(a)])
        for a, b in LIMBS
    ])  # fmt: skip


def turn_errors_deg(found: Retargeted, truth: np.ndarray, names: tuple[str, ...]) -> np.ndarray:
    """Angles between global rotations, after the turn that brings the first frame to face +Z."""
    rest = BodyModel.load().rest_joints(torch.zeros(10))
    turns = forward_kinematics(found.rotations, rest, found.trans)[1].double().numpy()
    back = found.to_source[:3, :3] / np.cbrt(np.linalg.det(found.to_source[:3, :3]))
    at = [joint(name) for name in names]
    off = (back @ turns[:, at]).swapaxes(-1, -2) @ truth[:, at]
    return np.degrees(Rotation.from_matrix(off.reshape(-1, 3, 3)).magnitude())


def write(folder: Path, kind: str, action: str = "walk", seconds: float = 3.0) -> Path:
    motion = body_motion(action, seconds)
    if kind == "cmu_asf":
        return write_asf_amc(folder, motion)
    return write_known_bvh(folder / f"{kind}.bvh", motion, kind)


@pytest.mark.parametrize("kind", ["cmu_bvh", "bandai_namco", "cmu_asf"])
@pytest.mark.parametrize("action", ["walk", "wave_left"])
def test_limbs_point_where_the_source_points(tmp_path: Path, kind: str, action: str) -> None:
    path = write(tmp_path, kind, action)
    take = read_take(str(path), fps=30.0)
    found = retarget(take, find_map(take), BodyModel.load())
    truth = posed(body_motion(action))[0]
    assert found.joint_map == kind
    assert len(found.trans) == len(truth)
    # The result faces +Z from its first frame on; the studio's motions start so too, up to a small turn.
    back = found.to_source[:3, :3] / np.cbrt(np.linalg.det(found.to_source[:3, :3]))
    assert limb_errors_deg(places_of(found) @ back.T, truth).mean() < 0.5
    trunk = ("pelvis", "spine2", "spine3", "head", "left_collar", "right_collar", "left_hip", "left_elbow")
    assert turn_errors_deg(found, posed(body_motion(action))[1], trunk).max() < 1.0


def test_amass_comes_back_with_its_own_rest_pose(tmp_path: Path) -> None:
    standing = body_motion("stand", 2.0)
    standing.rotations[:] = torch.eye(3)
    path = write_amass(tmp_path / "rest.npz", standing, columns=165)
    found = places_of(read_motion(path))[0]
    shank = found[joint("left_ankle")] - found[joint("left_knee")]
    # SMPL's legs at rest lean back below the knee by six degrees; ours are straight.
    assert apart_deg(shank, np.array([-0.015, -0.399, -0.043])) < 0.1
    walk = read_motion(write_amass(tmp_path / "walk.npz", body_motion("walk")))
    to_y_up = np.eye(4)
    to_y_up[:3, :3] = Z_UP.T
    in_y_up = replace(walk, to_source=to_y_up @ walk.to_source)
    assert (
        turn_errors_deg(in_y_up, posed(body_motion("walk"))[1], ("pelvis", "spine3", "head", "left_ankle")).max() < 0.5
    )
    assert limb_errors_deg(places_of(walk), posed(body_motion("walk"))[0]).mean() < 10
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
    found = read_motion(path)
    reference = read_motion(write_known_bvh(tmp_path / "b.bvh", body_motion(), "cmu_bvh"))
    assert found.source_fps == pytest.approx(fps, rel=1e-3)
    assert len(found.trans) == pytest.approx(len(reference.trans) * 30 / fps, abs=2)
    np.testing.assert_allclose(found.rotations[0], reference.rotations[0], atol=2e-3)
    np.testing.assert_allclose(found.trans[-1], reference.trans[-1], atol=0.06)  # the last frame of 60 fps may fall out
    assert np.cbrt(np.linalg.det(found.to_source[:3, :3])) == pytest.approx(1.0, abs=0.03)


def test_starts_at_the_origin_on_the_ground_and_leads_back(tmp_path: Path) -> None:
    turned = body_motion("walk", 4.0)
    yaw = torch.from_numpy(Rotation.from_euler("y", 130, degrees=True).as_matrix()).float()
    turned.rotations[:, 0] = yaw @ turned.rotations[:, 0]
    turned.trans[:] = turned.trans @ yaw.T + torch.tensor([3.0, 0.4, -5.0])
    found = read_motion(write_known_bvh(tmp_path / "a.bvh", turned, "cmu_bvh"))
    assert float(heading_rad(found.rotations[0, 0])) == pytest.approx(0, abs=1e-5)
    np.testing.assert_allclose(places_of(found)[0, 0, [0, 2]], 0, atol=1e-5)
    truth, places = posed(turned)[0], places_of(found)
    back = places @ found.to_source[:3, :3].T + found.to_source[:3, 3]
    np.testing.assert_allclose(back[:, [1, 2]].mean(1), truth[:, [1, 2]].mean(1), atol=0.01)
    feet = places[..., [joint("left_ankle"), joint("right_ankle")], 1]
    assert 0.06 < np.quantile(feet.min(1), 0.2) < 0.1
    assert 0.3 < found.contacts.mean() < 0.9


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
    found = read_motion(path)
    at = {name: places_of(found)[0, joint(name)] for name in ("left_elbow", "left_shoulder", "right_elbow",
          "right_wrist", "right_shoulder", "left_knee", "left_ankle", "left_hip", "right_hip")}  # fmt: skip
    assert at["left_hip"][0] > at["right_hip"][0]
    np.testing.assert_allclose(at["right_elbow"][[0, 2]], at["right_shoulder"][[0, 2]], atol=1e-3)  # it hangs
    assert at["right_wrist"][2] - at["right_elbow"][2] > 0.2  # and the forearm points ahead
    assert at["left_ankle"][2] - at["left_knee"][2] < -0.3  # the shank back
    assert at["left_elbow"][0] - at["left_shoulder"][0] > 0.2  # the left arm lifted to the left
    assert not found.joint_confidence[:, joint("left_collar")].any()
    assert found.joint_confidence[:, joint("spine2")].all()


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
        "unknown_skeleton": good.replace("LeftUpLeg", "Thigh.L"),
        "no_frame_rate": good.replace(rows[2], "Frame Time: 0"),
        "broken_file": good.replace("CHANNELS 3 Zrotation", "CHANNELS 3 Wrotation", 1),
    }[kind]
    path = folder / "bad.bvh"
    path.write_text(text)
    return path


@pytest.mark.parametrize(
    ("reason", "says"),
    [
        ("truncated", "download the file again"), ("wrong_channel_count", "channels"), ("not_finite", "frame"),
        ("no_frames", "Frames: 0"), ("not_mocap", "HIERARCHY"), ("unknown_skeleton", r"Thigh\.L.*read_mocap\.joint_map"),
        ("no_frame_rate", r"read_mocap\.fps"), ("broken_file", "Wrotation"),
    ],
)  # fmt: skip
def test_wrong_bvh_is_refused_by_name(tmp_path: Path, reason: str, says: str) -> None:
    path = broken(tmp_path, reason)
    with pytest.raises(MocapError, match=says) as caught:
        read_motion(path)
    assert caught.value.reason == reason
    assert "bad.bvh" in str(caught.value)


def test_wrong_files_of_the_other_formats(tmp_path: Path) -> None:
    amc = write_asf_amc(tmp_path, body_motion("stand", 2.0))
    whole = amc.read_text()

    def refuses(path: Path, reason: str) -> None:
        with pytest.raises(MocapError, match=path.name) as caught:
            read_motion(path)
        assert caught.value.reason == reason, caught.value

    amc.write_text(whole[:-200])
    refuses(amc, "truncated")
    amc.write_text(whole.replace("head ", "tail "))
    refuses(amc, "unknown_skeleton")
    (tmp_path / "07.asf").unlink()
    refuses(amc, "no_skeleton")
    clip = write_deepmimic(tmp_path / "clip.json")
    clip.write_text(clip.read_text()[:-30])
    refuses(clip, "truncated")
    clip.write_text('{"Frames": [[1, 2, 3]]}')
    refuses(clip, "wrong_channel_count")
    clip.write_text('{"Frames": []}')
    refuses(clip, "no_frames")
    refuses(
        write_amass(tmp_path / "short.npz", body_motion(), columns=66, trans=np.zeros((4, 3))), "wrong_channel_count"
    )
    bad = body_motion()
    bad.trans[5] = torch.nan
    refuses(write_amass(tmp_path / "nan.npz", bad), "not_finite")
    refuses(write_amass(tmp_path / "rate.npz", body_motion(), mocap_framerate=0.0), "no_frame_rate")
    (tmp_path / "zip.npz").write_bytes((tmp_path / "nan.npz").read_bytes()[:500])
    refuses(tmp_path / "zip.npz", "truncated")


def test_a_map_of_ones_own(tmp_path: Path) -> None:
    names, axes = skeleton_of("cmu_bvh")
    own = {ours: f"Bip01 {theirs}" for ours, theirs in names.items() if "foot" not in ours and "collar" not in ours}
    own_tree = {name: own.get(name, name) for name in names}
    path = write_bvh(tmp_path / "a.bvh", body_motion(), own_tree, axes)
    lines = ["feet: with_shank", "joints:", *(f"  {ours}: {theirs}" for ours, theirs in own.items())]
    (tmp_path / "map.yaml").write_text("\n".join(lines))
    found = read_motion(path, joint_map=str(tmp_path / "map.yaml"))
    assert limb_errors_deg(places_of(found), posed(body_motion())[0]).mean() < 3
    assert not found.joint_confidence[:, joint("left_collar")].any()
    (tmp_path / "map.yaml").write_text("joints: {pelvis: Hips, tail: Tail}")
    with pytest.raises(UsageError, match="tail"):
        read_motion(path, joint_map=str(tmp_path / "map.yaml"))
    with pytest.raises(UsageError, match="bandai_namco"):
        ReadMocap(ReadMocap.Config(joint_map="mixamo")).setup()


def test_glitches_are_bridged_and_jumps_that_stay_are_not() -> None:
    angles = np.linspace(0, 1, 120)
    vectors = np.zeros((120, 24, 3))
    vectors[:, joint("left_wrist"), 0] = angles
    vectors[50:55, joint("left_wrist"), 0] += 2.5
    vectors[60:, joint("right_hip"), 1] = 2.5
    local = axis_angle_to_matrix(torch.from_numpy(vectors)).numpy()
    found, mended = mend(local, np.arange(120) / 120)
    assert mended[50:55, joint("left_wrist")].all()
    assert mended.sum() < 20
    clean = Rotation.from_rotvec(np.stack([angles, 0 * angles, 0 * angles], -1)).as_matrix()
    np.testing.assert_allclose(found[:, joint("left_wrist")], clean, atol=1e-3)
    np.testing.assert_array_equal(found[:, joint("right_hip")], local[:, joint("right_hip")])


def source(path: Path, **more: str) -> Source:
    return Source(id=path.stem, uri=str(path), **{"kind": "mocap", **more})


def stage(**settings: object) -> ReadMocap:
    made = ReadMocap(ReadMocap.Config(**settings))
    made.setup()
    return made


def test_stage_cuts_takes_into_motions_that_score_well(tmp_path: Path) -> None:
    path = write_known_bvh(tmp_path / "walk.bvh", body_motion("walk", 9.0), "cmu_bvh")
    motions, rejections = apply(stage(max_s=4.0), [source(path, licence="CC0-1.0")])
    assert not rejections
    assert [len(motion.trans) for motion in motions] == [90, 90, 90]
    assert [motion.provenance.start_s for motion in motions] == pytest.approx([0, 3, 6], abs=0.01)
    assert len({motion.id for motion in motions}) == 3
    truth = posed(body_motion("walk", 9.0))[0]
    for number, motion in enumerate(motions):
        root = axis_angle_to_matrix(torch.from_numpy(motion.poses[0, 0]))
        assert float(heading_rad(root)) == pytest.approx(0, abs=1e-4)
        assert motion.footage is None
        assert motion.models == {"read_mocap": "bvh retarget 1"}
        assert motion.to_source.dtype == np.float32
        back = motion.to_source[:3, :3] @ motion.trans[0] + motion.to_source[:3, 3]
        np.testing.assert_allclose(back, truth[90 * number, 0], atol=0.03)
    scorer = ScoreMotion()
    scorer.setup()
    scored, refused = apply(scorer, motions)
    assert not refused
    assert max(one.scores["foot_slide"] for one in scored) < 0.01
    again, _ = apply(stage(max_s=4.0), [source(path, licence="CC0-1.0")])
    assert all(a.poses.tobytes() == b.poses.tobytes() for a, b in zip(motions, again, strict=True))


def test_stage_rejects_with_reasons(tmp_path: Path) -> None:
    good = write_known_bvh(tmp_path / "short.bvh", body_motion("stand", 1.6), "cmu_bvh")
    slow = write_known_bvh(tmp_path / "slow.bvh", body_motion("stand", 2.0), "cmu_bvh", fps=5.0)
    (tmp_path / "notes.doc").write_text("x")
    records = [
        source(good), source(slow), source(tmp_path / "gone.bvh"), source(good, kind="video"),
        source(tmp_path / "notes.doc"), source(broken(tmp_path, "unknown_skeleton")),
    ]  # fmt: skip
    motions, rejections = apply(stage(), records)
    assert not motions
    reasons = [rejection.reason for rejection in rejections]
    assert reasons == ["too_short", "frame_rate_too_low", "missing", "not_mocap", "not_mocap", "unknown_skeleton"]
    assert rejections[0].measured == pytest.approx(1.6, abs=0.05)


@pytest.fixture(scope="session")
def shared_mocap(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A few real takes; the test is skipped where the archives are not beside the repository."""
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
        places = forward_kinematics(rotations, rest, trans)[0].numpy()
        assert trans[-1, 2] > 1.0, f"{name}: walks ahead"
        assert (places[:, joint("left_shoulder"), 0] > places[:, joint("right_shoulder"), 0]).all()
        for side in ("left", "right"):
            hip, knee, ankle = (places[:, joint(f"{side}_{part}")] for part in ("hip", "knee", "ankle"))
            assert np.quantile((knee - (hip + ankle) / 2)[:, 2], 0.1) > -0.02, f"{name}: knees bend forward"
    with pytest.raises(HumoError):
        read_motion(shared_mocap / "none.doc")
