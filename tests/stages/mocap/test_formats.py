"""C3D, glTF and arrays: a motion that is written in each of them comes back."""

import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from mocap_files import body_motion, global_poses, write_c3d, write_gltf
from scipy.spatial.transform import Rotation

from schemas.body_model import BodyModel
from schemas.kinematics import forward_kinematics
from schemas.rotations import matrix_to_axis_angle
from schemas.skeleton import SMPL_JOINTS, joint
from stages.mocap import Retargeted, read_motion, read_take
from stages.mocap.results import joints_of_263
from stages.mocap.take import MocapError

LIMBS = [
    (joint(f"{side}_{start}"), joint(f"{side}_{end}"))
    for side in ("left", "right")
    for start, end in (("hip", "knee"), ("knee", "ankle"), ("shoulder", "elbow"), ("elbow", "wrist"))
]


def limb_errors_deg(motion: Retargeted, target: np.ndarray) -> np.ndarray:
    """Angles between limbs, both seen from the first frame's pelvis: facing and place do not count."""
    rest = BodyModel.load().rest_joints(torch.zeros(10))
    positions = forward_kinematics(motion.rotations, rest, motion.trans)[0].double().numpy()
    frames = min(len(positions), len(target))
    to_source = motion.to_source[:3, :3] / np.cbrt(np.linalg.det(motion.to_source[:3, :3]))
    errors = []
    for start, end in LIMBS:
        one = (positions[:frames, end] - positions[:frames, start]) @ to_source.T
        other = target[:frames, end] - target[:frames, start]
        cosine = (one * other).sum(-1) / np.linalg.norm(one, axis=-1) / np.linalg.norm(other, axis=-1)
        errors.append(np.degrees(np.arccos(np.clip(cosine, -1, 1))))
    return np.array(errors)


@pytest.mark.parametrize("suffix", [".glb", ".gltf"])
def test_gltf_below_a_turned_and_scaled_armature(tmp_path: Path, suffix: str) -> None:
    path = write_gltf(tmp_path / f"walk{suffix}", body_motion("walk"))
    motion = read_motion(path)
    assert motion.source_fps == pytest.approx(30, abs=0.01)
    assert limb_errors_deg(motion, global_poses(body_motion("walk"))[0]).max() < 1.0
    path.write_bytes(path.read_bytes()[:-400])
    with pytest.raises(MocapError, match=path.name):
        read_motion(path)


def test_c3d_of_joint_centres(tmp_path: Path) -> None:
    target = global_poses(body_motion("wave_left"))[0]
    points = {name.title().replace("_", ""): target[:, joint(name)] for name in SMPL_JOINTS[:22] if "spine" not in name}
    path = write_c3d(tmp_path / "wave.c3d", points, fps=30.0)
    take = read_take(str(path))
    assert (take.format, take.metres_per_unit) == ("c3d", 0.001)
    motion = read_motion(path)
    z_up = target @ np.array([[1.0, 0, 0], [0, 0, -1], [0, 1, 0]]).T
    assert limb_errors_deg(motion, z_up).max() < 1.0


def test_c3d_says_what_is_missing(tmp_path: Path) -> None:
    target = global_poses(body_motion("stand", 2.0))[0]
    with pytest.raises(MocapError, match=r"left_hip.*Required on both sides") as caught:
        read_motion(
            write_c3d(tmp_path / "a.c3d", {"LANK": target[:, joint("left_ankle")], "C7": target[:, joint("neck")]})
        )
    assert caught.value.reason == "unknown_skeleton"


def parameters(action: str) -> tuple[np.ndarray, np.ndarray]:
    motion = body_motion(action)
    return matrix_to_axis_angle(motion.rotations)[:, :24].flatten(1).numpy(), motion.trans.numpy()


@pytest.mark.parametrize("layout", ["aist", "gvhmr", "wham", "phc", "mm85"])
def test_smpl_parameters_in_every_container(tmp_path: Path, layout: str) -> None:
    poses, trans = parameters("walk")
    betas = np.linspace(-1, 1, 10)
    path = tmp_path / {"gvhmr": "a.pt", "mm85": "a.npy"}.get(layout, "a.pkl")
    if layout == "aist":
        path.write_bytes(
            pickle.dumps({"smpl_poses": poses, "smpl_trans": trans * 90.0, "smpl_scaling": np.array([90.0])})
        )
    elif layout == "gvhmr":
        body = {
            "global_orient": poses[:, :3],
            "body_pose": poses[:, 3:66],
            "transl": trans,
            "betas": betas[None].repeat(len(trans), 0),
        }
        torch.save({"smpl_params_global": {key: torch.from_numpy(value) for key, value in body.items()}}, path)
    elif layout == "wham":
        person = {"pose_world": poses, "trans_world": trans, "betas": betas[None].repeat(len(trans), 0)}
        path.write_bytes(pickle.dumps({0: person, 1: {key: value[:5] for key, value in person.items()}}))
    elif layout == "phc":
        z_up = np.array([[1.0, 0, 0], [0, 0, -1], [0, 1, 0]])
        root = (Rotation.from_matrix(z_up) * Rotation.from_rotvec(poses[:, :3])).as_rotvec()
        turned = np.concatenate([root, poses[:, 3:]], 1)
        path.write_bytes(
            pickle.dumps(
                {
                    "take": {
                        "pose_aa": turned,
                        "trans_orig": trans @ z_up.T,
                        "fps": 30,
                        "gender": "female",
                        "beta": betas,
                    }
                }
            )
        )
    else:
        np.save(path, np.concatenate([poses[:, :72], trans, betas[None].repeat(len(trans), 0)], 1))
    take = read_take(str(path))
    assert len(take.times_s) == len(poses)
    assert take.fps == pytest.approx(60.0 if layout == "aist" else 30.0)
    if layout != "aist":
        np.testing.assert_allclose(take.betas, betas, atol=1e-6)
    assert take.gender == {"phc": "female", "gvhmr": "neutral", "wham": "neutral"}.get(layout, "")
    motion = read_motion(path)
    assert motion.trans[-1, 2] > 0.5
    assert float(motion.rotations[:, 0, 1, 1].mean()) > 0.95, "stands upright"


def test_joints_alone(tmp_path: Path) -> None:
    target = global_poses(body_motion("wave_left"))[0]
    np.save(tmp_path / "joints.npy", target[:, :22].astype(np.float32))
    assert limb_errors_deg(read_motion(tmp_path / "joints.npy"), target[::1]).shape[0] == 8
    take = read_take(str(tmp_path / "joints.npy"), fps=30.0)
    np.testing.assert_allclose(
        take.global_poses[1][:, take.names.index("left_ankle")], target[:, joint("left_ankle")], atol=0.02
    )


def test_263_numbers_give_their_joints() -> None:
    rows = np.zeros((4, 263))
    rows[:, 0] = np.pi / 4
    rows[:, 2] = 1.0
    rows[:, 3] = 0.9
    rows[:, 4 + 3 * 3 : 4 + 3 * 3 + 3] = (0, 1.2, 0.5)
    joints = joints_of_263(rows)
    np.testing.assert_allclose(joints[:, 0, 1], 0.9)
    # A quarter turn a frame: each step is taken in the heading that it leads to.
    steps = np.diff(joints[:, 0, [0, 2]], axis=0)
    np.testing.assert_allclose(np.linalg.norm(steps, axis=1), 1.0)
    np.testing.assert_allclose((steps[1:] * steps[:-1]).sum(1), 0, atol=1e-12)
    np.testing.assert_allclose(joints[:, 4, 1], 1.2)


def test_pickles_that_run_code_are_refused(tmp_path: Path) -> None:
    (tmp_path / "bad.pkl").write_bytes(b"cos\nsystem\n(S'touch executed'\ntR.")
    with pytest.raises(MocapError, match=r"bad\.pkl"):
        read_motion(tmp_path / "bad.pkl")
    assert not Path("executed").exists()
