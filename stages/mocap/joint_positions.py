"""Takes from positions of joints alone: orientations follow from bones and hinges (`body_frames`)."""

from collections.abc import Mapping

import numpy as np
from jaxtyping import Float

from schemas.skeleton import SMPL_JOINTS, SMPL_PARENTS
from stages.mocap.body_frames import body_frames
from stages.mocap.take import MocapError, Take, check_numbers

REQUIRED = tuple(
    f"{side}_{part}" for side in ("left", "right") for part in ("hip", "knee", "ankle", "shoulder", "elbow", "wrist")
)
"""Joints without which a body cannot be placed."""
_TRUNK = {"spine1": 0.25, "spine2": 0.5, "spine3": 0.7, "neck": 1.0}
"""Joints of the trunk -> how far they lie from the hips to the shoulders, where the file does not have them."""
_HEAD = 0.4
"""Length from neck to head, as a fraction of the trunk's, where the file has none."""


def take_of_positions(
    name: str,
    form: str,
    points: Mapping[str, Float[np.ndarray, "T 3"]],
    fps: float,
    *,
    metres_per_unit: float | None = None,
) -> Take:
    """A take from positions by SMPL joint, at least `REQUIRED`, in any axes. `form` is the take's format. Raises MocapError."""
    missing = [joint for joint in REQUIRED if joint not in points]
    if missing:
        raise MocapError(
            "unknown_skeleton",
            f"{name}: no position of {', '.join(missing)}; hips, knees, ankles, shoulders, elbows and wrists are required",
        )
    at = {joint: np.asarray(values, np.float64) for joint, values in points.items() if joint in SMPL_JOINTS}
    check_numbers(name, np.concatenate([at[joint] for joint in at], 1))
    hips = (at["left_hip"] + at["right_hip"]) / 2
    shoulders = (at["left_shoulder"] + at["right_shoulder"]) / 2
    given = set(at)
    at.setdefault("pelvis", hips)
    for joint, share in _TRUNK.items():
        at.setdefault(joint, hips + share * (shoulders - hips))
    frames = body_frames({joint: at[joint] for joint in at if joint in given or joint in ("neck", "spine1")})
    at.setdefault(
        "head", at["neck"] + _HEAD * np.linalg.norm(shoulders - hips, axis=-1).mean() * frames["head"][..., 1]
    )
    for side in ("left", "right"):
        at.setdefault(f"{side}_collar", (at["neck"] + at[f"{side}_shoulder"]) / 2)
    names = tuple(joint for joint in SMPL_JOINTS[:22] if joint in at)
    parents = tuple(
        names.index(SMPL_JOINTS[SMPL_PARENTS[SMPL_JOINTS.index(joint)]]) if index else -1
        for index, joint in enumerate(names)
    )
    rotations = np.empty((len(hips), len(names), 3, 3))
    offsets = np.zeros((len(names), 3))
    for index, (joint, parent) in enumerate(zip(names, parents, strict=True)):
        if parent < 0:
            rotations[:, index] = frames[joint]
            continue
        above = frames[names[parent]]
        rotations[:, index] = above.swapaxes(-1, -2) @ frames[joint]
        offsets[index] = np.einsum("tba,tb->ta", above, at[joint] - at[names[parent]]).mean(0)
    return Take(
        format=form,
        names=names,
        parents=parents,
        offsets=offsets,
        rotations=rotations,
        moving_offsets={0: at["pelvis"]},
        times_s=np.arange(len(hips)) / fps,
        metres_per_unit=metres_per_unit,
    )
