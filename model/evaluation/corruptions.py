"""Known faults of motions, in degrees, by which a measure is tried: its figure has to grow with each."""

import numpy as np
import torch

from schemas.rotations import axis_angle_to_matrix, matrix_from_6d, matrix_to_6d, matrix_to_axis_angle
from schemas.sample import MotionArrays
from schemas.skeleton import SMPL_JOINTS, mirror_order

_JOINTS = list(mirror_order(SMPL_JOINTS))
_CONTACTS = [2, 3, 0, 1]


def shaken(motion: MotionArrays, degrees: float, seed: int = 0) -> MotionArrays:
    """Every joint turned by another random rotation in each frame: `degrees` is the deviation about each axis."""
    noise = np.random.default_rng(seed).normal(0.0, np.radians(degrees), motion.poses.shape).astype(np.float32)
    turned = axis_angle_to_matrix(torch.from_numpy(motion.poses)) @ axis_angle_to_matrix(torch.from_numpy(noise))
    return _changed(motion, poses=matrix_to_axis_angle(turned).numpy())


def warped(motion: MotionArrays, speed: float) -> MotionArrays:
    """The same movement at `speed` times its speed; contacts are those of the nearest frames."""
    frames = len(motion.poses)
    times = np.arange(max(2, int((frames - 1) / speed) + 1)) * speed
    times = times[times <= frames - 1]
    first = np.minimum(times.astype(int), frames - 2)
    share = torch.from_numpy(times - first).float()
    columns = matrix_to_6d(axis_angle_to_matrix(torch.from_numpy(motion.poses)))
    between = torch.lerp(columns[first], columns[first + 1], share[:, None, None])
    trans = torch.from_numpy(motion.trans)
    nearest = np.minimum(np.rint(times).astype(int), frames - 1)
    return MotionArrays(
        poses=matrix_to_axis_angle(matrix_from_6d(between)).numpy(),
        trans=torch.lerp(trans[first], trans[first + 1], share[:, None]).numpy(),
        betas=motion.betas,
        contacts=motion.contacts[nearest],
        joint_confidence=motion.joint_confidence[nearest],
        seen=motion.seen[nearest],
    )


def sides_swapped(motion: MotionArrays) -> MotionArrays:
    """The mirror image: what left limbs did, right ones do, and turns to the left go to the right."""
    poses = motion.poses[:, _JOINTS] * np.array([1, -1, -1], np.float32)
    trans = motion.trans * np.array([-1, 1, 1], np.float32)
    return _changed(motion, poses=poses, trans=trans, contacts=motion.contacts[:, _CONTACTS])


def _changed(motion: MotionArrays, **arrays: np.ndarray) -> MotionArrays:
    return MotionArrays(**{**vars(motion), **arrays})
