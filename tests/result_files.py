"""A synthetic motion and camera, and result files of them in the formats of WHAM, GVHMR, TRAM and AMASS."""

import functools
import io
import pickle
import sys
import types
from collections import defaultdict
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from schemas.body_model import BodyModel
from schemas.kinematics import forward_kinematics
from schemas.records import FPS, Camera, Clip, Shot, Source, Track, Video
from schemas.rotations import matrix_to_axis_angle, yaw_matrix
from schemas.skeleton import SMPL_PARENTS, joint
from stages.geometry.cameras import guess_intrinsics, level_to_camera, project
from stages.recovery.external.worlds import level_world, rest_of_mean
from stages.synthesis.motions import generate

WIDTH, HEIGHT = 640, 480
SHIPPED = BodyModel.load()
TARGET_FPS = 150
"""Frames a second of the target, a multiple of 25 and 30."""


def body_file(path: Path, kind: str) -> Path:
    """A body file in SMPL's layout with the mean joints of SMPL or SMPL-X, the shipped body's shape directions, and vertices
    only where keypoints and contacts are."""
    rest = rest_of_mean(kind)(torch.zeros(1, 10))[0].numpy()
    vertices, weights = np.zeros((6890, 3)), np.zeros((6890, 24))
    directions = np.zeros((6890, 3, 10))
    weights[:, 0] = 1
    floor = rest[joint("left_ankle"), 1] - 0.09
    offsets = {j: (j, np.zeros(3)) for j in range(24)}
    for vertex, offset in {332: (0, 0.05, 0.1), 2800: (0.03, 0.09, 0.08), 6260: (-0.03, 0.09, 0.08), 583: (0.07, 0.07, 0),
                          4071: (-0.07, 0.07, 0)}.items():  # fmt: skip
        offsets[vertex] = (joint("head"), np.array(offset))
    for vertex, name in {3387: "left_ankle", 3216: "left_foot", 6787: "right_ankle", 6617: "right_foot"}.items():
        forward = 0.05 if name.endswith("foot") else -0.05
        offsets[vertex] = (joint(name), np.array([0, floor - rest[joint(name), 1], forward]))
    for vertex, (j, offset) in offsets.items():
        vertices[vertex] = rest[j] + offset
        weights[vertex] = np.eye(24)[j]
        directions[vertex] = SHIPPED.joint_directions[j].numpy()
    regressor = np.zeros((24, 6890))
    regressor[range(24), range(24)] = 1
    np.savez(
        path, v_template=vertices, shapedirs=directions, posedirs=np.zeros((6890, 3, 207), np.float32), J_regressor=regressor,
        weights=weights, f=np.zeros((1, 3), np.uint32),
        kintree_table=np.array([(2**32 - 1, *SMPL_PARENTS[1:]), range(24)], np.int64),
    )  # fmt: skip
    return path


@dataclass
class Target:
    """A body in a world with Y up and the camera that observes it, at `TARGET_FPS`."""

    body: BodyModel
    rotations: torch.Tensor
    pelvis: torch.Tensor
    betas: torch.Tensor
    to_camera: torch.Tensor
    camera_position: torch.Tensor

    def at(self, fps: float) -> "Target":
        return self._sliced(slice(None, None, round(TARGET_FPS / fps)))

    def cut(self, first: int, last: int) -> "Target":
        return self._sliced(slice(first, last))

    def _sliced(self, part: slice) -> "Target":
        names = ("rotations", "pelvis", "to_camera", "camera_position")
        return replace(self, **{name: getattr(self, name)[part] for name in names})

    def joints(self) -> tuple[torch.Tensor, torch.Tensor]:
        rest = self.body.rest_joints(self.betas)
        return forward_kinematics(self.rotations, rest, self.pelvis - rest[0])

    def in_level_world(self) -> np.ndarray:
        rotation, origin = level_world(self.to_camera, self.camera_position)
        return ((self.joints()[0] - origin) @ rotation.T).numpy()

    def pixels(self) -> np.ndarray:
        joints, global_rotations = self.joints()
        points = self.body.keypoint_rig().points(global_rotations, joints, self.betas).numpy()
        camera = Camera(
            rotation=self.to_camera.numpy(),
            position=self.camera_position.numpy(),
            intrinsics=guess_intrinsics(WIDTH, HEIGHT),
        )
        return project(points, camera)

    @property
    def root_in_camera(self) -> torch.Tensor:
        return self.to_camera @ self.rotations[:, 0]

    @property
    def trans_in_camera(self) -> torch.Tensor:
        in_camera = (self.to_camera @ (self.pelvis - self.camera_position)[..., None])[..., 0]
        return in_camera - self.body.rest_joints(self.betas)[0]

    @property
    def trans(self) -> torch.Tensor:
        return self.pelvis - self.body.rest_joints(self.betas)[0]


@functools.cache
def filmed(
    body: BodyModel, action: str = "walk", *, offset_m: float = 0.0, seed: int = 1, moving_camera: bool = True
) -> Target:
    """A person who walks in front of a camera that translates and pans."""
    betas = torch.zeros(10)
    if not body.id.startswith("humo"):
        betas[:2] = torch.tensor([0.8, -0.5])
    motion = generate(action, 2.4, seed, body=body, betas=betas, fps=TARGET_FPS)
    frames = len(motion)
    pelvis = motion.trans + body.rest_joints(betas)[0] + torch.tensor([offset_m, 0.3, 0])
    t = torch.linspace(0, 1, frames) if moving_camera else torch.zeros(frames)
    yaw = 0.3 + 0.15 * t
    pitch = level_to_camera(0.1 + 0.05 * t)
    to_camera = pitch @ yaw_matrix(yaw).mT
    start = torch.tensor([0.0, 1.7, 5.0]) @ yaw_matrix(yaw[0]).T
    camera_position = start + torch.stack([0.4 * t, 0.05 * t, 0.2 * t], -1)
    return Target(body, motion.rotations, pelvis, betas, to_camera, camera_position)


def clip_of(
    target: Target, fps: float = 30.0, *, start_s: float = 0.0, seconds: float = 2.0, uri: str = "walk.mp4"
) -> Clip:
    at_fps = target.at(FPS)
    first = round(start_s * FPS)
    pixels = at_fps.pixels()[first : first + round(seconds * FPS)]
    keypoints = np.concatenate([pixels, np.full((*pixels.shape[:2], 1), 0.9)], -1).astype(np.float32)
    boxes = np.concatenate([pixels.min(1) - 10, pixels.max(1) + 10], -1).astype(np.float32)
    duration_s = len(target.at(fps).pelvis) / fps
    video = Video(
        source=Source(id="yard", uri=uri), sha256="0" * 64, width=WIDTH, height=HEIGHT, fps=fps, duration_s=duration_s,
        has_audio=False,
    )  # fmt: skip
    times_s = np.arange(round(duration_s * fps)) / fps
    zeros = np.zeros((len(times_s), 17, 3), np.float32)
    shot = Shot(video=video, index=0, start_s=0.0, end_s=duration_s)
    track = Track(shot=shot, person=0, times_s=times_s, boxes=zeros[:, :4, 0], keypoints=zeros, models={})
    end_s = start_s + len(pixels) / FPS
    return Clip(track=track, start_s=start_s, end_s=end_s, boxes=boxes, keypoints=keypoints)


def joblib_bytes(value, monkeypatch) -> bytes:
    """As written by `joblib.dump` (`test_reading.py` has a file by joblib itself)."""
    module = types.ModuleType("joblib.numpy_pickle")
    wrapper = type("NumpyArrayWrapper", (), {"__module__": module.__name__})
    module.NumpyArrayWrapper = wrapper
    monkeypatch.setitem(sys.modules, "joblib", types.ModuleType("joblib"))
    monkeypatch.setitem(sys.modules, "joblib.numpy_pickle", module)
    file = io.BytesIO()

    class Pickler(pickle._Pickler):
        def save(self, obj, save_persistent_id=True):
            if type(obj) is not np.ndarray:
                return super().save(obj, save_persistent_id)
            array_wrapper = wrapper()
            vars(array_wrapper).update(
                subclass=np.ndarray, shape=obj.shape, order="C", dtype=obj.dtype, allow_mmap=True,
                numpy_array_alignment_bytes=16,
            )  # fmt: skip
            super().save(array_wrapper)
            self.framer.commit_frame(force=True)
            padding = 16 - (file.tell() + 1) % 16
            file.write(bytes([padding]) + b"\xff" * padding + obj.tobytes())

    Pickler(file, protocol=4).dump(value)
    return file.getvalue()


def axis_angles(matrices: torch.Tensor) -> np.ndarray:
    return matrix_to_axis_angle(matrices).flatten(1).numpy()


def wham_subject(target: Target, first: int = 0) -> dict:
    """`first`: first frame of the subject."""
    n = len(target.pelvis)
    rest = target.body.rest_joints(target.betas)
    hips = rest[[joint("left_hip"), joint("right_hip")]].mean(0)
    body_pose = axis_angles(target.rotations[:, 1:])
    subject = {
        "pose": np.concatenate([axis_angles(target.root_in_camera[:, None]), body_pose], 1),
        "trans": target.trans_in_camera.numpy(),
        "pose_world": np.concatenate([axis_angles(target.rotations[:, :1]), body_pose], 1),
        # Position of the middle of the hips: `trans_world` has no offset subtracted, unlike `trans`.
        "trans_world": (target.pelvis + target.rotations[:, 0] @ (hips - rest[0])).numpy(),
        "betas": target.betas.repeat(n, 1).numpy(),
        "verts": np.zeros((n, 5, 3), np.float32),
        "frame_ids": np.arange(n),
    }
    return {key: value[first:] for key, value in subject.items()}


def write_wham(folder: Path, subjects: dict, monkeypatch) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    results = defaultdict(dict)
    for key, value in subjects.items():
        results[np.int64(key)] = value
    path = folder / "wham_output.pkl"
    path.write_bytes(joblib_bytes(results, monkeypatch))
    return path


def gvhmr_of(target: Target) -> dict:
    n = len(target.pelvis)
    shared = {"body_pose": torch.from_numpy(axis_angles(target.rotations[:, 1:22])), "betas": target.betas.repeat(n, 1)}
    fx, fy, cx, cy = guess_intrinsics(WIDTH, HEIGHT).tolist()
    in_camera, world = (
        torch.from_numpy(axis_angles(rotations[:, None]))
        for rotations in (target.root_in_camera, target.rotations[:, 0])
    )
    return {
        "smpl_params_global": {**shared, "global_orient": world, "transl": target.trans},
        "smpl_params_incam": {**shared, "global_orient": in_camera, "transl": target.trans_in_camera},
        "K_fullimg": torch.tensor([[fx, 0, cx], [0, fy, cy], [0, 0, 1]]).repeat(n, 1, 1),
        "net_outputs": {"static_conf_logits": torch.zeros(1, n, 6)},
    }


def write_gvhmr(folder: Path, results: dict) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    torch.save(results, folder / "hmr4d_results.pt")
    return folder / "hmr4d_results.pt"


def write_tram(folder: Path, targets: list[Target], *, gravity: bool = False, gap: slice = slice(0, 0)) -> Path:
    """The world of `camera.npy` is that of the first camera; with `gravity` there is also one with Y up."""
    (folder / "hps").mkdir(parents=True, exist_ok=True)
    (folder / "images").mkdir()
    first = targets[0]
    position = first.camera_position - first.camera_position[0]
    in_first = first.to_camera[0]
    camera = {
        "pred_cam_R": (in_first @ first.to_camera.mT).numpy(),
        "pred_cam_T": (position @ in_first.T).numpy(),
        "img_focal": np.float64(guess_intrinsics(WIDTH, HEIGHT)[0]),
        "img_center": np.array([WIDTH / 2, HEIGHT / 2]),
    }
    if gravity:
        camera |= {"world_cam_R": first.to_camera.mT.numpy(), "world_cam_T": position.numpy(), "spec_focal": 500.0}
    np.save(folder / "camera.npy", camera)
    for number, target in enumerate(targets):
        keep = np.ones(len(target.pelvis), bool)
        keep[gap] = False
        rotations = target.rotations.clone()
        rotations[:, 0] = target.root_in_camera
        n = len(rotations)
        track = {
            "pred_cam": torch.zeros(n, 3), "pred_pose": torch.zeros(n, 144), "pred_rotmat": rotations,
            "pred_shape": target.betas.repeat(n, 1), "pred_trans": target.trans_in_camera[:, None], "frame": torch.arange(n),
        }  # fmt: skip
        np.save(folder / "hps" / f"hps_track_{number}.npy", {key: value[keep] for key, value in track.items()})
    return folder


def amass_of(target: Target, fps: float) -> dict:
    z_up = torch.tensor([[1.0, 0, 0], [0, 0, -1], [0, 1, 0]])
    rest = target.body.rest_joints(target.betas)[0]
    root = axis_angles((z_up @ target.rotations[:, 0])[:, None])
    poses = np.concatenate([root, axis_angles(target.rotations[:, 1:22]), np.zeros((len(root), 90))], 1)
    trans = (target.pelvis @ z_up.T - rest).numpy()
    betas = np.concatenate([target.betas.numpy(), np.zeros(6)])
    return {
        "poses": poses,
        "trans": trans,
        "betas": betas,
        "mocap_framerate": np.array(fps),
        "gender": np.array("neutral"),
    }
