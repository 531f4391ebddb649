"""What each estimator writes, taken apart and checked, still in the axes of its file.

Common to all: axis-angle or matrices of SMPL's joints, `trans` as in SMPL (the pelvis stands at its place at rest plus
`trans`, not at `trans`), metres, cameras as OpenCV's (x right, y down, z forward), and frames counted from 0 in the order
in which the video's frames are decoded, whatever rate a copy was written at.
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
_RATES = ("mocap_framerate", "mocap_frame_rate", "fps")
_WIDTHS = {66: "smpl", 72: "smpl", 156: "smplh", 165: "smplx"}
"""Columns of an AMASS-like file's `poses` -> body model."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Pose:
    """Where a body's root is, in some axes."""

    turns: Float[Tensor, "N 3 3"]
    trans: Float[Tensor, "N 3"]


@dataclass(frozen=True, kw_only=True, eq=False)
class SeenBothWays:
    """A body both in a world with Y up and in the camera; the camera's path is what leads from one to the other."""

    world: Pose
    camera: Pose
    hips_centred: bool
    """Whether the world's `trans` is the place of the middle of the hips rather than SMPL's."""


@dataclass(frozen=True, kw_only=True, eq=False)
class SeenFromPath:
    """A body in a camera whose path is known; whether that path's world has Y up is known too."""

    camera: Pose
    to_world: Float[Tensor, "N 3 3"]
    position: Float[Tensor, "N 3"]
    y_up: bool


@dataclass(frozen=True, kw_only=True, eq=False)
class NotSeen:
    """A body in a world with Z up and no camera."""

    world: Pose


@dataclass(frozen=True, kw_only=True, eq=False)
class Subject:
    """A person in N of a video's frames."""

    name: str
    frames: Int[np.ndarray, "N"]
    """Counted from 0, rising."""
    joints: Float[Tensor, "N 24 3 3"]
    """Local rotations; the root's is the identity, `view` has it."""
    betas: Float[Tensor, "N 10"]
    view: SeenBothWays | SeenFromPath | NotSeen


@dataclass(frozen=True, kw_only=True, eq=False)
class Result:
    """A file or folder of results."""

    file: str
    layout: str
    """wham, gvhmr, tram or amass."""
    body: str
    """smpl, smplh or smplx."""
    gender: str
    subjects: tuple[Subject, ...]
    fps: float = 0.0
    """Frames a second; 0 for those of the video."""
    frame_count: int = 0
    """Of the whole video, where the file tells; else 0."""
    intrinsics: Float[np.ndarray, "4"] | None = None
    """fx, fy, cx, cy in pixels; None where the file does not tell."""
    digest: str = ""
    """Of the file's bytes."""


def parse_wham(file: str, held: Any) -> Result:
    """`wham_output.pkl` of WHAM (yohanshin/WHAM, demo.py): subject -> arrays over its frames.

    `pose` (N, 72) and `trans` (N, 3) are SMPL in the camera; the root's `pose_world` and `trans_world` in a world with Y
    up (`return_y_up`, lib/models/wham.py) that starts at an arbitrary place. The network moves the middle of the hips
    (lib/models/smpl.py, `get_output`): `demo.py` takes that offset off `trans`, but not off `trans_world`. The body is the
    neutral SMPL with `betas` (N, 10); `frame_ids` are decoded frames; `verts` are left. The intrinsics are not written:
    the focal length is the image's diagonal, its centre the principal point (lib/utils/imutils.py,
    `compute_cam_intrinsics`). Raises ResultError.
    """
    subjects = []
    for key, value in held.items():
        name = f"subject {key}"
        where = _Checked(file, value, f"[{key}]")
        frames = where.frames("frame_ids")
        n = len(frames)
        pose, world = where.array("pose", n, 72), where.array("pose_world", n, 72)
        view = SeenBothWays(
            world=Pose(turns=_matrices(world[:, :3])[:, 0], trans=_tensor(where.array("trans_world", n, 3))),
            camera=Pose(turns=_matrices(pose[:, :3])[:, 0], trans=_tensor(where.array("trans", n, 3))),
            hips_centred=True,
        )
        subjects.append(_subject(name, frames, pose[:, 3:], where.betas(n), view))
    return Result(file=file, layout="wham", body="smpl", gender="neutral", subjects=tuple(subjects))


def parse_gvhmr(file: str, held: Any) -> Result:
    """`hmr4d_results.pt` of GVHMR (zju3dv/GVHMR, tools/demo/demo.py) and of GEM / GENMO (NVlabs/GENMO): one person.

    `smpl_params_incam` and `smpl_params_global` hold `body_pose` (L, 63), `global_orient`, `transl` (L, 3) and `betas`
    (L, 10) of the neutral SMPL-X without hands; the global one has Y up (`get_smpl_params_w_Rt_v2` turns "any->ay") and
    begins at the origin. `K_fullimg` (L, 3, 3) are pixels. The demo copies the video frame by frame and calls the copy 30
    fps, so frame i is the source's whatever its rate. Raises ResultError.
    """
    where = _Checked(file, held)
    intrinsics = where.array("K_fullimg", -1, 3, 3)
    n = len(intrinsics)
    poses, bodies, betas = {}, {}, {}
    for kind in ("smpl_params_global", "smpl_params_incam"):
        inside = where.inside(kind)
        turns = _matrices(inside.array("global_orient", n, 3))[:, 0]
        poses[kind] = Pose(turns=turns, trans=_tensor(inside.array("transl", n, 3)))
        bodies[kind], betas[kind] = inside.array("body_pose", n, 63), inside.betas(n)
    view = SeenBothWays(world=poses["smpl_params_global"], camera=poses["smpl_params_incam"], hips_centred=False)
    subject = _subject("the person", np.arange(n), bodies["smpl_params_global"], betas["smpl_params_global"], view)
    fx_fy, centre = intrinsics[0][[0, 1], [0, 1]], intrinsics[0][:2, 2]
    return Result(
        file=file, layout="gvhmr", body="smplx", gender="neutral", subjects=(subject,), frame_count=n,
        intrinsics=np.concatenate([fx_fy, centre]),
    )  # fmt: skip


def parse_tram(file: str, camera: Any, tracks: Mapping[str, Any]) -> Result:
    """The folder of a video in TRAM (yufu-wang/tram): `camera.npy` and `hps/hps_track_*.npy`, each a pickled dictionary.

    A track (lib/models/hmr_vimo.py, `inference`) holds tensors `pred_rotmat` (N, 24, 3, 3), `pred_trans` (N, 1, 3) and
    `pred_shape` (N, 10) of the neutral SMPL in the camera, and `frame` (N,), with gaps where the person was lost; the
    demo takes the mean of the shapes. The camera (scripts/estimate_camera.py): `pred_cam_R` (F, 3, 3) and `pred_cam_T`
    (F, 3) take camera to world in metres, `img_focal`, `img_center` are pixels. That world is the first camera's, so its
    up is to be found; releases that ask SPEC for gravity also write `world_cam_R`, `world_cam_T` with Y up. Raises
    ResultError.
    """
    where = _Checked(f"{file}/camera.npy", camera)
    y_up = "world_cam_R" in where.held
    kind = "world" if y_up else "pred"
    to_world = where.array(f"{kind}_cam_R", -1, 3, 3)
    count = len(to_world)
    position = where.array(f"{kind}_cam_T", count, 3)
    focal_px, centre = where.array("img_focal"), where.array("img_center", 2)
    subjects = []
    for name, held in tracks.items():
        track = _Checked(f"{file}/hps/{name}.npy", held)
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
                "wrong_shape", f"{track.file}: 'pred_rotmat' holds matrices that turn nothing; run it again"
            )
        joints = rotations.clone()
        joints[:, 0] = torch.eye(3)
        shapes = track.betas(n, "pred_shape").mean(0, keepdim=True).expand(n, -1)
        seen = Pose(turns=rotations[:, 0], trans=_tensor(track.array("pred_trans", n, 1, 3))[:, 0])
        path = {"to_world": _tensor(to_world[frames]), "position": _tensor(position[frames])}
        view = SeenFromPath(camera=seen, y_up=y_up, **path)
        subjects.append(Subject(name=name, frames=frames, joints=joints, betas=shapes, view=view))
    return Result(
        file=file, layout="tram", body="smpl", gender="neutral", subjects=tuple(subjects), frame_count=count,
        intrinsics=np.array([focal_px.item(), focal_px.item(), *centre]),
    )  # fmt: skip


def parse_amass(file: str, held: Any) -> Result:
    """An `.npz` as AMASS publishes (amass.is.tue.mpg.de): one person, Z up, no camera.

    `poses` (N, 156) of SMPL-H or (N, 165) of SMPL-X; (N, 66) and (N, 72) of SMPL are taken too. `trans` (N, 3), `betas`
    (10 or more), `gender`, and `mocap_framerate` or `mocap_frame_rate`: the first frame is the video's first, the others
    follow at that rate. Raises ResultError.
    """
    where = _Checked(file, held)
    poses = where.array("poses", -1, -1)
    n = len(poses)
    if poses.shape[1] not in _WIDTHS:
        raise ResultError(
            "wrong_shape",
            f"{file}: 'poses' has {poses.shape[1]} columns, a body has {', '.join(map(str, _WIDTHS))}; export it again",
        )
    rate = next((where.array(name).item() for name in _RATES if name in where.held), 0.0)
    if not 5 <= rate <= 1000:
        raise ResultError(
            "no_frame_rate",
            f"{file}: {_RATES[0]} is {rate}, 5 to 1000 frames a second is possible; write it into the file",
        )
    told = where.held.get("gender", "unknown")
    told = told.item() if isinstance(told, np.ndarray) and told.ndim == 0 else told
    gender = (told.decode() if isinstance(told, bytes) else str(told)).lower()
    root = Pose(turns=_matrices(poses[:, :3])[:, 0], trans=_tensor(where.array("trans", n, 3)))
    width = min(poses.shape[1], 3 * (NUM_JOINTS if _WIDTHS[poses.shape[1]] == "smpl" else _BODY_JOINTS))
    subject = _subject("the person", np.arange(n), poses[:, 3:width], where.betas(n), NotSeen(world=root))
    return Result(
        file=file, layout="amass", body=_WIDTHS[poses.shape[1]], gender=gender, subjects=(subject,), fps=float(rate)
    )


def parse(file: str, held: Any) -> Result:
    """A result in one file, told by what it holds. Raises ResultError."""
    if isinstance(held, dict) and {"smpl_params_global", "smpl_params_incam"} <= held.keys():
        return parse_gvhmr(file, held)
    if isinstance(held, dict) and {"poses", "trans"} <= held.keys():
        return parse_amass(file, held)
    inner = [value for value in held.values() if isinstance(value, dict)] if isinstance(held, dict) else []
    if inner and len(inner) == len(held) and all("frame_ids" in value for value in inner):
        return parse_wham(file, held)
    keys = ", ".join(str(key) for key in held)[:200] if isinstance(held, dict) else type(held).__name__
    raise ResultError(
        "unknown_layout",
        f"{file}: it holds {keys or 'nothing'}, which is none of the known layouts; give WHAM's wham_output.pkl, GVHMR's or"
        " GEM's hmr4d_results.pt, TRAM's folder with camera.npy, or an AMASS-like .npz",
    )


class _Checked:
    """Entries of a dictionary, by name and shape."""

    def __init__(self, file: str, held: Any, at: str = "") -> None:
        self.file, self.at = file, at
        if not isinstance(held, dict):
            raise ResultError("unknown_layout", f"{file}: {at or 'it'} is a {type(held).__name__}, not a dictionary")
        self.held: dict[Any, Any] = held

    def inside(self, name: str) -> "_Checked":
        return _Checked(self.file, self._entry(name), f"[{name}]")

    def array(self, name: str, *shape: int) -> Float[np.ndarray, "..."]:
        """Finite numbers in double precision; -1 stands for any length above 0."""
        found = np.asarray(self._entry(name))
        fits = len(found.shape) == len(shape) and all(
            got == want or (want < 0 and got > 0) for got, want in zip(found.shape, shape, strict=True)
        )
        if not fits or found.dtype.kind not in "fiu":
            wanted = ", ".join("any" if n < 0 else str(n) for n in shape)
            raise ResultError(
                "wrong_shape",
                f"{self.file}: {self.at}{name!r} is {found.dtype} of the shape {found.shape}, ({wanted}) is needed; it is"
                " the output of another version, or edited: run the estimator again",
            )
        wrong = ~np.isfinite(found.reshape(len(found), -1) if found.ndim else found.reshape(1, 1)).all(1)
        if wrong.any():
            raise ResultError(
                "not_finite",
                f"{self.file}: {self.at}{name!r} holds values that are not finite, first in row {int(np.argmax(wrong))}"
                f" ({int(wrong.sum())} of {len(wrong)}); run the estimator again",
            )
        return found.astype(np.float64)

    def frames(self, name: str) -> Int[np.ndarray, "N"]:
        numbers = self.array(name, -1)
        if (numbers != np.round(numbers)).any() or numbers[0] < 0 or (np.diff(numbers) <= 0).any():
            raise ResultError(
                "wrong_frame_numbers",
                f"{self.file}: {self.at}{name!r} must rise from 0 in whole numbers; run the estimator again",
            )
        return numbers.astype(np.int64)

    def betas(self, n: int, name: str = "betas") -> Float[Tensor, "N 10"]:
        """The first ten, one row a frame; a single row is repeated."""
        found = np.asarray(self._entry(name))
        if found.ndim == 1:
            found = found[None].repeat(n, 0)
        columns = found.shape[-1] if found.ndim == 2 else 0
        checked = _Checked(self.file, {name: found}, self.at).array(name, n, max(columns, NUM_SHAPES))
        return _tensor(checked[:, :NUM_SHAPES])

    def _entry(self, name: str) -> Any:
        if name not in self.held:
            raise ResultError(
                "unknown_layout",
                f"{self.file}: {self.at or 'it'} lacks {name!r} (it has {', '.join(map(str, self.held))[:200]}); it is the"
                " output of another version: run the estimator again",
            )
        return self.held[name]


def _tensor(values: Float[np.ndarray, "..."]) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(values)).float()


def _matrices(angles: Float[np.ndarray, "N C"]) -> Float[Tensor, "N J 3 3"]:
    return axis_angle_to_matrix(torch.from_numpy(np.ascontiguousarray(angles)).unflatten(1, (-1, 3))).float()


def _subject(
    name: str,
    frames: Int[np.ndarray, "N"],
    body: Float[np.ndarray, "N C"],
    betas: Float[Tensor, "N 10"],
    view: SeenBothWays | NotSeen,
) -> Subject:
    """With axis-angles of the joints after the root; those that the file lacks (hands) stay at rest."""
    joints = torch.eye(3).repeat(len(frames), NUM_JOINTS, 1, 1)
    turned = _matrices(body)
    joints[:, 1 : 1 + turned.shape[1]] = turned
    return Subject(name=name, frames=frames, joints=joints, betas=betas, view=view)
