"""Parsing and validation of each estimator's output, still in the axes of its file.

Common to all: axis-angle or matrices of SMPL's joints, `trans` as in SMPL (the pelvis is at its rest position plus `trans`, not
at `trans`), metres, cameras as OpenCV's (x right, y down, z forward), and frames counted from 0 in the order in which the
video's frames are decoded, whatever the rate of a copy.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from schemas.body_model import NUM_SHAPES
from schemas.rotations import axis_angle_to_matrix
from schemas.skeleton import NUM_JOINTS
from stages.recovery.external.reading import ResultError

_BODY_JOINTS = 22
_RATE_KEYS = ("mocap_framerate", "mocap_frame_rate", "fps")
_BODY_OF_COLUMNS = {66: "smpl", 72: "smpl", 156: "smplh", 165: "smplx"}
"""Columns of `poses` in an AMASS-like file -> body model."""


@dataclass(frozen=True, kw_only=True, eq=False)
class RootPose:
    """Root pose in some axes."""

    rotations: Float[Tensor, "N 3 3"]
    trans: Float[Tensor, "N 3"]


@dataclass(frozen=True, kw_only=True, eq=False)
class WorldAndCamera:
    """A body both in a world with Y up and in the camera; the camera's trajectory follows from the two."""

    world: RootPose
    camera: RootPose
    hips_centred: bool
    """Whether the world's `trans` is the position of the middle of the hips instead of SMPL's."""


@dataclass(frozen=True, kw_only=True, eq=False)
class CameraTrajectory:
    """A body in a camera with a known trajectory. `y_up`: whether the trajectory's world has Y up."""

    camera: RootPose
    to_world: Float[Tensor, "N 3 3"]
    position: Float[Tensor, "N 3"]
    y_up: bool


@dataclass(frozen=True, kw_only=True, eq=False)
class WorldOnly:
    """A body in a world with Z up, without a camera."""

    world: RootPose


@dataclass(frozen=True, kw_only=True, eq=False)
class Subject:
    """A person in N of a video's frames."""

    name: str
    frames: Int[np.ndarray, "N"]
    """Counted from 0, ascending."""
    joints: Float[Tensor, "N 24 3 3"]
    """Local rotations; the root's is the identity, its orientation is in `view`."""
    betas: Float[Tensor, "N 10"]
    view: WorldAndCamera | CameraTrajectory | WorldOnly


@dataclass(frozen=True, kw_only=True, eq=False)
class Result:
    """Content of a result file or folder."""

    file: str
    layout: str
    """wham, gvhmr, tram or amass."""
    body: str
    """smpl, smplh or smplx."""
    gender: str
    subjects: tuple[Subject, ...]
    fps: float = 0.0
    """Frames a second; 0: the video's rate."""
    frame_count: int = 0
    """Frames of the whole video, if the file has their number; else 0."""
    intrinsics: Float[np.ndarray, "4"] | None = None
    """fx, fy, cx, cy in pixels; None where the file has none."""
    digest: str = ""
    """Hash of the file's bytes."""


def parse_wham(file: str, data: Any) -> Result:
    """`wham_output.pkl` of WHAM (yohanshin/WHAM, demo.py): subject -> arrays over its frames.

    `pose` (N, 72) and `trans` (N, 3) are SMPL in the camera; the root's `pose_world` and `trans_world` are in a world with Y up
    (`return_y_up`, lib/models/wham.py) with an arbitrary origin. The network's translation is that of the middle of the hips
    (lib/models/smpl.py, `get_output`): `demo.py` subtracts the offset from `trans`, but not from `trans_world`. The body is the
    neutral SMPL with `betas` (N, 10); `frame_ids` are decoded frames; `verts` are ignored. Intrinsics are not stored: the focal
    length is the image diagonal, the principal point the image centre (lib/utils/imutils.py, `compute_cam_intrinsics`). Raises
    ResultError.
    """
    subjects = []
    for key, value in data.items():
        name = f"subject {key}"
        entries = _Entries(file, value, f"[{key}]")
        frames = entries.frames("frame_ids")
        n = len(frames)
        pose, world = entries.array("pose", n, 72), entries.array("pose_world", n, 72)
        view = WorldAndCamera(
            world=RootPose(rotations=_matrices(world[:, :3])[:, 0], trans=_tensor(entries.array("trans_world", n, 3))),
            camera=RootPose(rotations=_matrices(pose[:, :3])[:, 0], trans=_tensor(entries.array("trans", n, 3))),
            hips_centred=True,
        )
        subjects.append(_subject(name, frames, pose[:, 3:], entries.betas(n), view))
    return Result(file=file, layout="wham", body="smpl", gender="neutral", subjects=tuple(subjects))


def parse_gvhmr(file: str, data: Any) -> Result:
    """`hmr4d_results.pt` of GVHMR (zju3dv/GVHMR, tools/demo/demo.py) and of GEM / GENMO (NVlabs/GENMO): one person.

    `smpl_params_incam` and `smpl_params_global` hold `body_pose` (L, 63), `global_orient`, `transl` (L, 3) and `betas` (L, 10)
    of the neutral SMPL-X without hands; the global one has Y up (`get_smpl_params_w_Rt_v2` rotates "any->ay") and starts at the
    origin. `K_fullimg` (L, 3, 3) is in pixels. The demo copies the video frame by frame and labels the copy 30 fps, so frame i
    is the source's frame i at any rate. Raises ResultError.
    """
    entries = _Entries(file, data)
    intrinsics = entries.array("K_fullimg", -1, 3, 3)
    n = len(intrinsics)
    poses, bodies, betas = {}, {}, {}
    for kind in ("smpl_params_global", "smpl_params_incam"):
        nested = entries.nested(kind)
        rotations = _matrices(nested.array("global_orient", n, 3))[:, 0]
        poses[kind] = RootPose(rotations=rotations, trans=_tensor(nested.array("transl", n, 3)))
        bodies[kind], betas[kind] = nested.array("body_pose", n, 63), nested.betas(n)
    view = WorldAndCamera(world=poses["smpl_params_global"], camera=poses["smpl_params_incam"], hips_centred=False)
    subject = _subject("the person", np.arange(n), bodies["smpl_params_global"], betas["smpl_params_global"], view)
    fx_fy, centre = intrinsics[0][[0, 1], [0, 1]], intrinsics[0][:2, 2]
    return Result(
        file=file, layout="gvhmr", body="smplx", gender="neutral", subjects=(subject,), frame_count=n,
        intrinsics=np.concatenate([fx_fy, centre]),
    )  # fmt: skip


def parse_tram(file: str, camera: Any, tracks: Mapping[str, Any]) -> Result:
    """The folder of a video in TRAM (yufu-wang/tram): `camera.npy` and `hps/hps_track_*.npy`, each a pickled dictionary.

    A track (lib/models/hmr_vimo.py, `inference`) holds tensors `pred_rotmat` (N, 24, 3, 3), `pred_trans` (N, 1, 3) and
    `pred_shape` (N, 10) of the neutral SMPL in the camera, and `frame` (N,), with gaps where the person was lost; the demo uses
    the mean shape. The camera (scripts/estimate_camera.py): `pred_cam_R` (F, 3, 3) and `pred_cam_T` (F, 3) map camera to world
    in metres, `img_focal`, `img_center` are in pixels. That world is the first camera's, so its vertical has to be estimated;
    releases that get gravity from SPEC also write `world_cam_R`, `world_cam_T` with Y up. Raises ResultError.
    """
    entries = _Entries(f"{file}/camera.npy", camera)
    y_up = "world_cam_R" in entries.data
    kind = "world" if y_up else "pred"
    to_world = entries.array(f"{kind}_cam_R", -1, 3, 3)
    count = len(to_world)
    position = entries.array(f"{kind}_cam_T", count, 3)
    focal_px, centre = entries.array("img_focal"), entries.array("img_center", 2)
    subjects = []
    for name, data in tracks.items():
        track = _Entries(f"{file}/hps/{name}.npy", data)
        frames = track.frames("frame")
        n = len(frames)
        if frames[-1] >= count:
            raise ResultError(
                "wrong_frame_numbers",
                f"{track.file}: frame {frames[-1]}, but camera.npy has {count} frames; they come from different runs",
            )
        rotations = _tensor(track.array("pred_rotmat", n, NUM_JOINTS, 3, 3))
        if not torch.allclose(rotations @ rotations.mT, torch.eye(3, dtype=rotations.dtype), atol=1e-2):
            raise ResultError(
                "wrong_shape", f"{track.file}: 'pred_rotmat' contains matrices that are no rotations; run TRAM again"
            )
        joints = rotations.clone()
        joints[:, 0] = torch.eye(3)
        betas = track.betas(n, "pred_shape").mean(0, keepdim=True).expand(n, -1)
        pose = RootPose(rotations=rotations[:, 0], trans=_tensor(track.array("pred_trans", n, 1, 3))[:, 0])
        trajectory = {"to_world": _tensor(to_world[frames]), "position": _tensor(position[frames])}
        view = CameraTrajectory(camera=pose, y_up=y_up, **trajectory)
        subjects.append(Subject(name=name, frames=frames, joints=joints, betas=betas, view=view))
    return Result(
        file=file, layout="tram", body="smpl", gender="neutral", subjects=tuple(subjects), frame_count=count,
        intrinsics=np.array([focal_px.item(), focal_px.item(), *centre]),
    )  # fmt: skip


def parse_amass(file: str, data: Any) -> Result:
    """An `.npz` as published by AMASS (amass.is.tue.mpg.de): one person, Z up, no camera.

    `poses` (N, 156) of SMPL-H or (N, 165) of SMPL-X; (N, 66) and (N, 72) of SMPL are accepted too. `trans` (N, 3), `betas` (10
    or more), `gender`, and `mocap_framerate` or `mocap_frame_rate`: the first frame is the video's first, the others follow at
    that rate. Raises ResultError.
    """
    entries = _Entries(file, data)
    poses = entries.array("poses", -1, -1)
    n = len(poses)
    if poses.shape[1] not in _BODY_OF_COLUMNS:
        raise ResultError(
            "wrong_shape",
            f"{file}: 'poses' has {poses.shape[1]} columns instead of {', '.join(map(str, _BODY_OF_COLUMNS))}; export it again",
        )
    rate = next((entries.array(name).item() for name in _RATE_KEYS if name in entries.data), 0.0)
    if not 5 <= rate <= 1000:
        raise ResultError(
            "no_frame_rate",
            f"{file}: {_RATE_KEYS[0]} is {rate}, not 5 to 1000 frames a second; write it into the file",
        )
    gender = entries.data.get("gender", "unknown")
    gender = gender.item() if isinstance(gender, np.ndarray) and gender.ndim == 0 else gender
    gender = (gender.decode() if isinstance(gender, bytes) else str(gender)).lower()
    root = RootPose(rotations=_matrices(poses[:, :3])[:, 0], trans=_tensor(entries.array("trans", n, 3)))
    columns = min(poses.shape[1], 3 * (NUM_JOINTS if _BODY_OF_COLUMNS[poses.shape[1]] == "smpl" else _BODY_JOINTS))
    subject = _subject("the person", np.arange(n), poses[:, 3:columns], entries.betas(n), WorldOnly(world=root))
    return Result(
        file=file,
        layout="amass",
        body=_BODY_OF_COLUMNS[poses.shape[1]],
        gender=gender,
        subjects=(subject,),
        fps=float(rate),
    )


def parse(file: str, data: Any) -> Result:
    """A result in one file, identified by its content. Raises ResultError."""
    if isinstance(data, dict) and {"smpl_params_global", "smpl_params_incam"} <= data.keys():
        return parse_gvhmr(file, data)
    if isinstance(data, dict) and {"poses", "trans"} <= data.keys():
        return parse_amass(file, data)
    inner = [value for value in data.values() if isinstance(value, dict)] if isinstance(data, dict) else []
    if inner and len(inner) == len(data) and all("frame_ids" in value for value in inner):
        return parse_wham(file, data)
    keys = ", ".join(str(key) for key in data)[:200] if isinstance(data, dict) else type(data).__name__
    raise ResultError(
        "unknown_layout",
        f"{file}: it contains {keys or 'nothing'}, which is no known layout; give WHAM's wham_output.pkl, GVHMR's or"
        " GEM's hmr4d_results.pt, TRAM's folder with camera.npy, or an AMASS-like .npz",
    )


class _Entries:
    """Validated access to the entries of a dictionary, by name and shape. `key` is its place in the file."""

    def __init__(self, file: str, data: Any, key: str = "") -> None:
        self.file, self.key = file, key
        if not isinstance(data, dict):
            raise ResultError("unknown_layout", f"{file}: {key or 'it'} is a {type(data).__name__}, not a dictionary")
        self.data: dict[Any, Any] = data

    def nested(self, name: str) -> "_Entries":
        return _Entries(self.file, self._entry(name), f"[{name}]")

    def array(self, name: str, *shape: int) -> Float[np.ndarray, "..."]:
        """Finite numbers in double precision; -1 stands for any length above 0."""
        values = np.asarray(self._entry(name))
        matches = len(values.shape) == len(shape) and all(
            actual == expected or (expected < 0 and actual > 0)
            for actual, expected in zip(values.shape, shape, strict=True)
        )
        if not matches or values.dtype.kind not in "fiu":
            expected_shape = ", ".join("any" if n < 0 else str(n) for n in shape)
            raise ResultError(
                "wrong_shape",
                f"{self.file}: {self.key}{name!r} is {values.dtype} of shape {values.shape} instead of ({expected_shape}); it is"
                " the output of another version, or edited: run the estimator again",
            )
        invalid = ~np.isfinite(values.reshape(len(values), -1) if values.ndim else values.reshape(1, 1)).all(1)
        if invalid.any():
            raise ResultError(
                "not_finite",
                f"{self.file}: {self.key}{name!r} contains values that are not finite, first in row {int(np.argmax(invalid))}"
                f" ({int(invalid.sum())} of {len(invalid)}); run the estimator again",
            )
        return values.astype(np.float64)

    def frames(self, name: str) -> Int[np.ndarray, "N"]:
        numbers = self.array(name, -1)
        if (numbers != np.round(numbers)).any() or numbers[0] < 0 or (np.diff(numbers) <= 0).any():
            raise ResultError(
                "wrong_frame_numbers",
                f"{self.file}: {self.key}{name!r} must be ascending integers, none below 0; run the estimator again",
            )
        return numbers.astype(np.int64)

    def betas(self, n: int, name: str = "betas") -> Float[Tensor, "N 10"]:
        """The first ten, one row per frame; a single row is repeated."""
        values = np.asarray(self._entry(name))
        if values.ndim == 1:
            values = values[None].repeat(n, 0)
        columns = values.shape[-1] if values.ndim == 2 else 0
        valid = _Entries(self.file, {name: values}, self.key).array(name, n, max(columns, NUM_SHAPES))
        return _tensor(valid[:, :NUM_SHAPES])

    def _entry(self, name: str) -> Any:
        if name not in self.data:
            raise ResultError(
                "unknown_layout",
                f"{self.file}: {self.key or 'it'} lacks {name!r} (it has {', '.join(map(str, self.data))[:200]}); it is the"
                " output of another version: run the estimator again",
            )
        return self.data[name]


def _tensor(values: Float[np.ndarray, "..."]) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(values)).float()


def _matrices(angles: Float[np.ndarray, "N C"]) -> Float[Tensor, "N J 3 3"]:
    return axis_angle_to_matrix(torch.from_numpy(np.ascontiguousarray(angles)).unflatten(1, (-1, 3))).float()


def _subject(
    name: str,
    frames: Int[np.ndarray, "N"],
    body: Float[np.ndarray, "N C"],
    betas: Float[Tensor, "N 10"],
    view: WorldAndCamera | WorldOnly,
) -> Subject:
    """A subject from axis-angles of the joints after the root; joints that the file lacks (hands) keep their rest pose."""
    joints = torch.eye(3).repeat(len(frames), NUM_JOINTS, 1, 1)
    rotations = _matrices(body)
    joints[:, 1 : 1 + rotations.shape[1]] = rotations
    return Subject(name=name, frames=frames, joints=joints, betas=betas, view=view)
