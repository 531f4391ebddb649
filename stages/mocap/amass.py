"""AMASS `.npz`: SMPL-H or SMPL-X parameters in a world with Z up; the 22 body joints are read, fingers and face ignored.

SMPL's rest pose is not an exact T-pose: the legs are slightly apart with the shanks back, the arms hang slightly. The
bones below are those of the mean shape; the shape of the file is not read, as its betas have no meaning on another body.
"""

import io

import numpy as np
import torch

from schemas.rotations import axis_angle_to_matrix
from schemas.skeleton import SMPL_JOINTS, SMPL_PARENTS
from stages.mocap.take import MocapError, Take, check_numbers

_BODY_JOINTS = 22
_RATES = ("mocap_framerate", "mocap_frame_rate")
_BONES_M = {
    "pelvis": (0.0, -0.223, 0.028), "hip": (0.069, -0.091, -0.006), "knee": (0.036, -0.379, -0.007),
    "ankle": (-0.015, -0.399, -0.043), "foot": (0.026, -0.052, 0.121), "spine1": (0.0, 0.109, -0.027),
    "spine2": (0.0, 0.135, 0.001), "spine3": (0.0, 0.053, 0.025), "neck": (0.0, 0.214, -0.043),
    "head": (0.0, 0.065, 0.051), "collar": (0.080, 0.120, -0.036), "shoulder": (0.093, 0.032, -0.009),
    "elbow": (0.257, -0.013, -0.024), "wrist": (0.252, 0.008, -0.003),
}  # fmt: skip
"""Offsets from the parent joint in the rest pose, for the left side; the pelvis from the origin."""


def parse_amass(name: str, content: bytes, fps: float | None = None) -> Take:
    """A take from the content of a file; `name` is for messages, `fps` overrides the file's rate. Raises MocapError."""
    try:
        with np.load(io.BytesIO(content), allow_pickle=False) as archive:
            arrays = {key: archive[key] for key in ("poses", "trans", *_RATES) if key in archive.files}
            members = ", ".join(archive.files)
    except Exception as error:
        reason = "truncated" if content[:2] == b"PK" else "not_mocap"
        raise MocapError(
            reason, f"{name}: not a readable .npz of plain arrays ({error}); copy or download the file again"
        ) from None
    if "poses" not in arrays or "trans" not in arrays:
        raise MocapError(
            "not_mocap",
            f"{name}: `poses` or `trans` is missing (it has {members}), so it is not an AMASS take; leave it out",
        )
    poses, trans = arrays["poses"], arrays["trans"]
    if poses.ndim != 2 or poses.shape[1] < 3 * _BODY_JOINTS or trans.shape != (len(poses), 3):
        raise MocapError(
            "wrong_channel_count",
            f"{name}: poses {poses.shape} and trans {trans.shape} must be (T, 66 or more) and (T, 3); export it again",
        )
    poses = poses[:, : 3 * _BODY_JOINTS].astype(np.float64)
    check_numbers(name, np.concatenate([poses, trans], 1))
    rate = fps or next((float(arrays[key]) for key in _RATES if key in arrays), 0.0)
    if not rate > 0:
        raise MocapError("no_frame_rate", f"{name}: no `{_RATES[0]}` above 0; set a frame rate in read_mocap.fps")
    offsets = np.array([_bone(joint_name) for joint_name in SMPL_JOINTS[:_BODY_JOINTS]])
    return Take(
        format="amass",
        names=SMPL_JOINTS[:_BODY_JOINTS],
        parents=SMPL_PARENTS[:_BODY_JOINTS],
        offsets=offsets,
        rotations=axis_angle_to_matrix(torch.from_numpy(poses).unflatten(1, (_BODY_JOINTS, 3))).numpy(),
        # SMPL rotates the body about the pelvis, whose position is therefore its rest position + trans, whatever the axes.
        moving_offsets={0: trans.astype(np.float64) + offsets[0]},
        times_s=np.arange(len(poses)) / rate,
        metres_per_unit=1.0,
    )


def _bone(joint_name: str) -> tuple[float, float, float]:
    side, _, base_name = joint_name.rpartition("_")
    x, y, z = _BONES_M[base_name]
    return (-x if side == "right" else x, y, z)
