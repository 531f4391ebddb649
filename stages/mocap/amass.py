"""SMPL, SMPL-H or SMPL-X parameters as a take; the 22 body joints are read, fingers and face ignored. AMASS `.npz` files are
the published form of them, in a world with Z up.

SMPL's rest pose is not an exact T-pose: the legs are slightly apart with the shanks back, the arms hang slightly. The
bones below are those of the mean shape; the shape of the file is not applied, as its betas have no meaning on another body, but
kept with the take.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from jaxtyping import Float

from schemas.plain_files import PlainFileError, read_plain
from schemas.rotations import axis_angle_to_matrix
from schemas.skeleton import SMPL_JOINTS, SMPL_PARENTS
from stages.mocap.take import MocapError, Take, check_numbers

_BODY_JOINTS = 22
_RATES = ("mocap_framerate", "mocap_frame_rate", "fps", "frame_rate")
_BONES_M = {
    "pelvis": (0.0, -0.223, 0.028), "hip": (0.069, -0.091, -0.006), "knee": (0.036, -0.379, -0.007),
    "ankle": (-0.015, -0.399, -0.043), "foot": (0.026, -0.052, 0.121), "spine1": (0.0, 0.109, -0.027),
    "spine2": (0.0, 0.135, 0.001), "spine3": (0.0, 0.053, 0.025), "neck": (0.0, 0.214, -0.043),
    "head": (0.0, 0.065, 0.051), "collar": (0.080, 0.120, -0.036), "shoulder": (0.093, 0.032, -0.009),
    "elbow": (0.257, -0.013, -0.024), "wrist": (0.252, 0.008, -0.003),
}  # fmt: skip
"""Offsets from the parent joint in the rest pose, for the left side; the pelvis from the origin."""
PELVIS_AT_REST_M = np.array(_BONES_M["pelvis"])
"""Where the pelvis is with a translation of zero."""


def parse_amass(name: str, content: bytes, fps: float | None = None) -> Take:
    """A take from the content of a `.npz`; `name` is for messages, `fps` overrides the file's rate. Raises MocapError."""
    try:
        arrays = read_plain(name if name.lower().endswith(".npz") else f"{name}.npz", content)
    except PlainFileError as error:
        raise MocapError("truncated" if content[:2] == b"PK" else "not_mocap", str(error)) from None
    take = take_of_parameters(name, arrays, fps)
    if take is None:
        raise MocapError(
            "not_mocap",
            f"{name}: `poses` or `trans` is missing (it has {', '.join(arrays)}), so it is not an AMASS take; leave it out",
        )
    return take


def take_of_parameters(name: str, arrays: Mapping[str, Any], fps: float | None = None) -> Take | None:
    """A take from AMASS's arrays: `poses` (or `root_orient` and `pose_body`) and `trans`, Z up. None where they are missing."""
    if "poses" not in arrays and {"root_orient", "pose_body"} <= arrays.keys():
        parts = [np.asarray(arrays[key]) for key in ("root_orient", "pose_body")]
        if any(part.ndim != 2 for part in parts) or len(parts[0]) != len(parts[1]):
            raise MocapError("wrong_channel_count", f"{name}: root_orient and pose_body must have one row per frame")
        arrays = {**arrays, "poses": np.concatenate(parts, 1)}
    if "poses" not in arrays or "trans" not in arrays:
        return None
    rate = fps or next((_number(arrays[key]) for key in _RATES if key in arrays), 0.0)
    if not rate > 0:
        raise MocapError("no_frame_rate", f"{name}: no `{_RATES[0]}` above 0; set a frame rate in read_mocap.fps")
    shape = {"betas": arrays.get("betas"), "gender": arrays.get("gender")}
    return smpl_take(name, "amass", arrays["poses"], arrays["trans"], rate, **shape)


def smpl_take(
    name: str, form: str, poses: Any, trans: Any, fps: float, *, betas: Any = None, gender: Any = None
) -> Take:
    """A take from rotation vectors (T, 66 or more) and SMPL's translation (T, 3), metres. `form` is the take's format: `amass`
    (Z up) or `smpl` (Y up). Raises MocapError."""
    poses, trans = np.asarray(poses), np.asarray(trans)
    if poses.dtype.kind not in "fiu" or trans.dtype.kind not in "fiu":
        raise MocapError("broken_file", f"{name}: poses and translations must be arrays of numbers; export it again")
    if poses.ndim != 2 or poses.shape[1] < 3 * _BODY_JOINTS or trans.shape != (len(poses), 3):
        raise MocapError(
            "wrong_channel_count",
            f"{name}: poses {poses.shape} and trans {trans.shape} must be (T, 66 or more) and (T, 3); export it again",
        )
    poses = poses[:, : 3 * _BODY_JOINTS]
    check_numbers(name, np.concatenate([poses, trans], 1))
    poses = poses.astype(np.float64)
    rotations = axis_angle_to_matrix(torch.from_numpy(poses).unflatten(1, (_BODY_JOINTS, 3))).numpy()
    return smpl_take_of_rotations(form, rotations, trans, fps, betas=betas, gender=gender)


def smpl_take_of_rotations(
    form: str,
    rotations: Float[np.ndarray, "T 22 3 3"],
    trans: Float[np.ndarray, "T 3"],
    fps: float,
    *,
    betas: Any = None,
    gender: Any = None,
) -> Take:
    """As `smpl_take`, from local rotations of the 22 joints."""
    offsets = np.array([_bone(joint_name) for joint_name in SMPL_JOINTS[:_BODY_JOINTS]])
    return Take(
        format=form,
        names=SMPL_JOINTS[:_BODY_JOINTS],
        parents=SMPL_PARENTS[:_BODY_JOINTS],
        offsets=offsets,
        rotations=rotations,
        # SMPL rotates the body about the pelvis, whose position is therefore its rest position + trans, whatever the axes.
        moving_offsets={0: trans.astype(np.float64) + offsets[0]},
        times_s=np.arange(len(rotations)) / fps,
        metres_per_unit=1.0,
        betas=_betas(betas),
        gender=_gender(gender),
    )


def _number(value: Any) -> float:
    values = np.asarray(value)
    return float(values.reshape(-1)[0]) if values.size and values.dtype.kind in "fiu" else 0.0


def _betas(value: Any) -> tuple[float, ...]:
    """The shape: one row, or the mean of a row per frame."""
    values = np.asarray(value) if value is not None else np.zeros(0)
    if values.dtype.kind not in "fiu" or values.ndim not in (1, 2) or not values.size or not np.isfinite(values).all():
        return ()
    return tuple(round(float(one), 6) for one in (values if values.ndim == 1 else values.mean(0)))


def _gender(value: Any) -> str:
    value = value.item() if isinstance(value, np.ndarray) and value.ndim == 0 else value
    text = (value.decode("ascii", "replace") if isinstance(value, bytes) else str(value or "")).lower()
    return text if text in ("female", "male", "neutral") else ""


def _bone(joint_name: str) -> tuple[float, float, float]:
    side, _, base_name = joint_name.rpartition("_")
    x, y, z = _BONES_M[base_name]
    return (-x if side == "right" else x, y, z)
