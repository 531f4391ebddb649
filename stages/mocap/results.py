"""Motions as models and data sets write them: pickles, tensors and arrays of SMPL parameters or joints.

Identified by their content, never by their name: AIST++ (`smpl_poses`), GVHMR and GEM (`smpl_params_global`), WHAM (`pose_world`
per subject), PHC (`pose_aa` per take), AMASS's names in any container; arrays of joints (T, 22 or 24, 3), HumanML3D's 263
numbers, MotionMillion's 272 and its 85 SMPL numbers. Of several people the one with most frames is read.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from schemas.plain_files import PlainFileError, read_plain
from schemas.rotations import yaw_matrix
from schemas.skeleton import SMPL_JOINTS
from stages.mocap.amass import PELVIS_AT_REST_M, smpl_take, smpl_take_of_rotations, take_of_parameters
from stages.mocap.joint_positions import take_of_positions
from stages.mocap.take import MocapError, Take, check_numbers

AIST_FPS, VIDEO_FPS, HUMANML3D_FPS = 60.0, 30.0, 20.0
"""Rates that the files do not contain: AIST++'s cameras, videos as the estimators label them, and HumanML3D's."""


def parse_result(name: str, content: bytes, fps: float | None = None) -> Take:
    """A take from the content of a `.pkl`, `.pt`, `.npz` or `.npy`; `fps` overrides the file's or convention's rate.

    Nothing in the file is executed. Raises MocapError.
    """
    try:
        data = read_plain(name, content)
    except PlainFileError as error:
        raise MocapError("broken_file", str(error)) from None
    try:
        take = _of_array(name, np.asarray(data), fps) if isinstance(data, np.ndarray) else _of_mapping(name, data, fps)
    except (ValueError, TypeError, KeyError, IndexError, AttributeError) as error:
        raise MocapError(
            "broken_file",
            f"{name}: its arrays do not fit together ({type(error).__name__}: {str(error)[:200]}); save it again",
        ) from None
    if take is None:
        raise MocapError(
            "not_mocap",
            f"{name}: it contains {_content(data)}, none of the known layouts: `poses` and `trans`, `smpl_poses`,"
            " `smpl_params_global`, `pose_world`, `pose_aa`, joints (T, 22, 3), (T, 263), (T, 272) or (T, 85); leave it out",
        )
    return take


def _content(data: Any) -> str:
    if isinstance(data, np.ndarray):
        return f"an array {data.shape}"
    return ", ".join(str(key) for key in data)[:200] if isinstance(data, Mapping) else f"a {type(data).__name__}"


def _of_mapping(name: str, data: Any, fps: float | None) -> Take | None:
    if not isinstance(data, Mapping):
        return None
    if {"smpl_poses", "smpl_trans"} <= data.keys():
        # The translation is that of a body `smpl_scaling` times as large (AIST++, aist_plusplus/loader.py).
        scale = float(np.asarray(data.get("smpl_scaling", 1.0)).reshape(-1)[0])
        if not scale > 0:
            raise MocapError("broken_file", f"{name}: smpl_scaling is {scale}, not above 0; export it again")
        return smpl_take(name, "smpl", data["smpl_poses"], np.asarray(data["smpl_trans"]) / scale, fps or AIST_FPS)
    if "smpl_params_global" in data:
        body = data["smpl_params_global"]
        poses = np.concatenate([np.asarray(body["global_orient"]), np.asarray(body["body_pose"])], 1)
        return smpl_take(
            name, "smpl", poses, body["transl"], fps or VIDEO_FPS, betas=body.get("betas"), gender="neutral"
        )
    if {"poses", "trans"} <= data.keys() or {"root_orient", "pose_body", "trans"} <= data.keys():
        return take_of_parameters(name, data, fps)
    people = [value for value in data.values() if isinstance(value, Mapping)]
    if people and all({"pose_world", "trans_world"} <= person.keys() for person in people):
        person = max(people, key=lambda one: len(one["pose_world"]))
        return smpl_take(
            name, "smpl", person["pose_world"], person["trans_world"], fps or VIDEO_FPS, betas=person.get("betas"),
            gender="neutral",
        )  # fmt: skip
    person = max([data, *people], key=lambda one: len(one.get("pose_aa", ())))
    if "pose_aa" in person:
        trans = next((person[key] for key in ("trans_orig", "trans", "root_trans_offset") if key in person), None)
        if trans is not None:
            poses = np.asarray(person["pose_aa"])
            rate = fps or float(np.asarray(person.get("fps", VIDEO_FPS)).reshape(-1)[0])
            shape = {"betas": person.get("beta", person.get("betas")), "gender": person.get("gender")}
            return smpl_take(name, "amass", poses.reshape(len(poses), -1), trans, _above_zero(name, rate), **shape)
    return None


def _above_zero(name: str, rate: float) -> float:
    if not rate > 0:
        raise MocapError("no_frame_rate", f"{name}: its rate is {rate}; set a frame rate in read_mocap.fps")
    return rate


def _of_array(name: str, values: np.ndarray, fps: float | None) -> Take | None:
    if values.dtype.kind not in "fiu":
        return None
    values = (
        values[0] if values.ndim in (3, 4) and len(values) == 1 and values.shape[-1] in (3, 263, 272, 85) else values
    )
    if values.ndim == 3 and values.shape[1] in (22, 24, 52, 55) and values.shape[2] == 3:
        check_numbers(name, values)
        return _of_joints(name, values[:, :22].astype(np.float64), fps or HUMANML3D_FPS)
    if values.ndim != 2 or values.shape[1] not in (263, 272, 85):
        return None
    check_numbers(name, values)
    values = values.astype(np.float64)
    if values.shape[1] == 263:
        return _of_joints(name, joints_of_263(values), fps or HUMANML3D_FPS)
    if values.shape[1] == 272:
        rotations, trans = smpl_of_272(values)
        return smpl_take_of_rotations("smpl", rotations, trans, fps or VIDEO_FPS)
    # MotionMillion's SMPL: 66 of the body, 6 of the hands, translation, ten betas at the end.
    return smpl_take(name, "smpl", values[:, :66], values[:, 72:75], fps or VIDEO_FPS, betas=values[:, 75:])


def _of_joints(name: str, joints: np.ndarray, fps: float) -> Take:
    points = {joint: joints[:, index] for index, joint in enumerate(SMPL_JOINTS[:22])}
    return take_of_positions(name, "joints", points, fps, metres_per_unit=1.0)


def joints_of_263(rows: np.ndarray) -> np.ndarray:
    """Positions (T, 22, 3) from HumanML3D's rows: yaw step (half angle), xz step and height of the root, then joints in the
    heading's frame (HumanML3D, motion_representation: `recover_from_ric`)."""
    half = np.concatenate([[0.0], np.cumsum(rows[:-1, 0])])
    # The rows turn the world into the heading's frame; here it is turned back.
    back = yaw_matrix(torch.from_numpy(-2 * half)).numpy()
    steps = np.zeros((len(rows), 3))
    steps[1:, [0, 2]] = rows[:-1, 1:3]
    root = np.cumsum(np.einsum("tab,tb->ta", back, steps), 0)
    root[:, 1] = rows[:, 3]
    joints = np.einsum("tab,tjb->tja", back, rows[:, 4:67].reshape(len(rows), 21, 3))
    joints[..., [0, 2]] += root[:, None, [0, 2]]
    return np.concatenate([root[:, None], joints], 1)


def smpl_of_272(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(local rotations (T, 22, 3, 3), translation (T, 3)) from MotionMillion's rows: xz velocity of the root in the heading's
    frame, rotation of the heading since the frame before (6D, rows of the matrix), positions and velocities of 22 joints, and
    their local rotations, of which the root's is in the heading's frame."""
    turns = _matrices_of_rows(rows[:, 2:8])
    heading = np.empty_like(turns)
    heading[0] = turns[0]
    for frame in range(1, len(turns)):
        heading[frame] = turns[frame] @ heading[frame - 1]
    to_world = heading.swapaxes(-1, -2)
    rotations = _matrices_of_rows(rows[:, 140:272].reshape(len(rows), 22, 6))
    rotations[:, 0] = to_world @ rotations[:, 0]
    steps = np.zeros((len(rows), 3))
    steps[:, [0, 2]] = rows[:, :2]
    steps[1:] = np.einsum("tab,tb->ta", to_world[:-1], steps[1:])
    pelvis = np.cumsum(steps, 0)
    pelvis[:, 1] = rows[:, 8 + 1]
    return rotations, pelvis - PELVIS_AT_REST_M


def _matrices_of_rows(six: np.ndarray) -> np.ndarray:
    """Rotations whose first two rows are given, made orthonormal."""
    first = six[..., :3] / np.maximum(np.linalg.norm(six[..., :3], axis=-1, keepdims=True), 1e-12)
    second = six[..., 3:] - (first * six[..., 3:]).sum(-1, keepdims=True) * first
    second = second / np.maximum(np.linalg.norm(second, axis=-1, keepdims=True), 1e-12)
    return np.stack([first, second, np.cross(first, second)], -2)
