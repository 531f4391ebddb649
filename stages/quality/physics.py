"""Whether the ground could have produced a motion: what is left of the root's wrench after the best contact forces.

Nothing pulls at a person's pelvis, so the force and moment that inverse dynamics needs there must come from contacts. Each
frame asks for the push of every contact point, inside its friction cone, that comes nearest; what remains is implausible.
Free flight needs no push at all (0), a body that hangs in the air needs its whole weight (1).
"""

import functools
from typing import Any

import numpy as np
import roma
import torch
from jaxtyping import Bool, Float
from scipy.ndimage import binary_dilation
from scipy.optimize import nnls

from schemas.curves import smooth
from schemas.records import FPS
from schemas.skeleton import NUM_JOINTS, SMPL_JOINTS, SMPL_PARENTS
from stages.quality.skeleton_mjcf import GRAVITY, body_mass, mjcf, stature

FRICTION = 0.9
"""Coefficient of dry friction; rubber on a floor has 0.6 to 1."""
SMOOTH_FRAMES = 1.0
"""Deviation of the Gaussian that positions and rotations pass before they are differentiated twice; at 30 frames a second
it keeps what is slower than 4 Hz."""
_ENDS = 3
"""Frames at both ends that smoothing makes up: it reaches this far."""
MAX_HEIGHT_M = 0.06
MAX_SPEED_MPS = 0.8
"""A point lower and slower than these can push."""
_NEXT_TO = 2
"""Frames around a contact in which the point can push as well: smoothing spreads an impact over them."""
_FOOT_HALF_WIDTH_M = 0.035
"""The sole reaches this far to both sides of the line from heel to toe."""
_LEVER_SHARE = 0.5
"""Moments about the centre of mass become forces by this share of the stature, about the height where feet act from."""
_RADII = {
    "pelvis": 0.11, "spine3": 0.12, "head": 0.11, "left_hip": 0.10, "right_hip": 0.10, "left_knee": 0.06,
    "right_knee": 0.06, "left_shoulder": 0.07, "right_shoulder": 0.07, "left_elbow": 0.05, "right_elbow": 0.05,
    "left_wrist": 0.04, "right_wrist": 0.04, "left_hand": 0.04, "right_hand": 0.04,
}  # fmt: skip
"""Joints other than the feet's that a body can kneel, sit, lie or lean on, and how thick it is there, metres."""
_OTHERS = tuple(SMPL_JOINTS.index(name) for name in _RADII)
_ARM_LENGTHS = np.array(list(_RADII.values()))
_EDGES = np.array([[FRICTION, 1, 0], [-FRICTION, 1, 0], [0, 1, FRICTION], [0, 1, -FRICTION]]) / np.hypot(1, FRICTION)
"""The pyramid that stands for a friction cone; up is Y."""


def implausible_share(
    rotations: Float[torch.Tensor, "T 24 3 3"],
    joints: Float[np.ndarray, "T 24 3"],
    feet: Float[np.ndarray, "T 4 3"],
    rest: Float[np.ndarray, "24 3"],
) -> float:
    """Mean over frames of the root's wrench that contacts cannot explain, in body weights.

    `rotations` are local, `joints` and `feet` (heels and toes) lie in a world whose ground is y = 0; `rest` are the joints
    of the body at rest. The first and last frames, whose accelerations are guesses, do not count; 0 where none is left.
    """
    if len(joints) <= 2 * _ENDS:
        return 0.0
    force, moment, centre = root_wrench(rotations, joints[:, 0], rest)
    points, pushing = contact_points(joints, feet)
    arm = _LEVER_SHARE * stature(rest)
    weight = body_mass(rest) * GRAVITY
    wrench = np.concatenate([force, moment / arm], -1) / weight
    # (T, K, 4, 6): what a push along each edge of each point's pyramid does.
    reach = (points - centre[:, None])[:, :, None]
    pushes = np.broadcast_to(_EDGES, (*points.shape[:2], 4, 3))
    effect = np.concatenate([pushes, np.cross(reach, pushes) / arm], -1)
    left = np.linalg.norm(wrench, axis=-1)
    for frame in np.flatnonzero(pushing.any(-1)):
        left[frame] = nnls(effect[frame, pushing[frame]].reshape(-1, 6).T, wrench[frame])[1]
    return float(left[_ENDS:-_ENDS].mean())


def root_wrench(
    rotations: Float[torch.Tensor, "T 24 3 3"], root: Float[np.ndarray, "T 3"], rest: Float[np.ndarray, "24 3"]
) -> tuple[Float[np.ndarray, "T 3"], Float[np.ndarray, "T 3"], Float[np.ndarray, "T 3"]]:
    """Force and moment about the centre of mass that the ground has to bring up, world axes, N and Nm, and that centre, m.

    Inverse dynamics by MuJoCo (Todorov, "Convex and analytically-invertible dynamics with contacts and constraints",
    2014) on smoothed positions; velocities are taken between frames, accelerations from those.
    """
    import mujoco  # Some 0.3 s: only processes that score should pay.

    model = _model(tuple(np.round(rest, 4).reshape(-1).tolist()))
    data = mujoco.MjData(model)
    order = _depth_first()
    turns = _smoothed(rotations[:, order])
    places = smooth(root, SMOOTH_FRAMES, ends="continued")
    steps = roma.unitquat_to_rotvec(roma.quat_product(roma.quat_conjugation(turns[:-1]), turns[1:])).numpy() * FPS
    linear, linear_change = _derivatives(np.diff(places, axis=0) * FPS)
    angular, angular_change = _derivatives(steps)
    frames = len(places)
    positions = np.concatenate([places, turns[..., [3, 0, 1, 2]].flatten(1).numpy()], -1)
    # A free joint's velocity is in world axes when linear; all angular ones are in the axes of the body that turns.
    speeds = np.concatenate([linear, angular.reshape(frames, -1)], -1)
    changes = np.concatenate([linear_change, angular_change.reshape(frames, -1)], -1)
    force, moment, centre = np.empty((frames, 3)), np.empty((frames, 3)), np.empty((frames, 3))
    for frame in range(frames):
        data.qpos[:], data.qvel[:], data.qacc[:] = positions[frame], speeds[frame], changes[frame]
        mujoco.mj_inverse(model, data)
        force[frame], moment[frame], centre[frame] = data.qfrc_inverse[:3], data.qfrc_inverse[3:6], data.subtree_com[0]
    moment = roma.quat_action(turns[:, 0], torch.from_numpy(moment)).numpy()
    return force, moment - np.cross(centre - places, force), centre


def contact_points(
    joints: Float[np.ndarray, "T 24 3"], feet: Float[np.ndarray, "T 4 3"]
) -> tuple[Float[np.ndarray, "T K 3"], Bool[np.ndarray, "T K"]]:
    """Points of the body that the ground can push at, and when: both edges of each heel and toe, then joints less the body's
    thickness there."""
    sides = []
    for heel, toe in ((0, 1), (2, 3)):
        along = feet[:, toe] - feet[:, heel]
        across = np.stack([along[:, 2], np.zeros(len(feet)), -along[:, 0]], -1)
        across *= _FOOT_HALF_WIDTH_M / np.maximum(np.linalg.norm(across, axis=-1, keepdims=True), 1e-6)
        sides += [feet[:, heel] - across, feet[:, heel] + across, feet[:, toe] - across, feet[:, toe] + across]
    others = joints[:, _OTHERS].copy()
    others[..., 1] -= _ARM_LENGTHS
    points = np.concatenate([np.stack(sides, 1), others], 1)
    speed = np.linalg.norm(np.gradient(points, axis=0), axis=-1) * FPS
    pushing = (points[..., 1] < MAX_HEIGHT_M) & (speed < MAX_SPEED_MPS)
    return points, binary_dilation(pushing, np.ones((2 * _NEXT_TO + 1, 1)))


@functools.lru_cache(maxsize=32)
def _model(rest: tuple[float, ...]) -> Any:
    import mujoco

    return mujoco.MjModel.from_xml_string(mjcf(np.array(rest).reshape(NUM_JOINTS, 3)))


@functools.cache
def _depth_first() -> list[int]:
    """SMPL's joints in the order that MuJoCo numbers a tree's: each followed by all that hangs on it."""

    def below(index: int) -> list[int]:
        return [index, *(one for child in range(NUM_JOINTS) if SMPL_PARENTS[child] == index for one in below(child))]

    return below(0)


def _smoothed(rotations: Float[torch.Tensor, "T 24 3 3"]) -> Float[torch.Tensor, "T 24 4"]:
    """Unit quaternions x, y, z, w, without jumps of sign, filtered along time."""
    quaternions = roma.rotmat_to_unitquat(rotations.double()).numpy()
    turned_over = np.cumsum((quaternions[1:] * quaternions[:-1]).sum(-1) < 0, axis=0) % 2
    quaternions[1:] *= 1 - 2 * turned_over[..., None]
    filtered = smooth(quaternions, SMOOTH_FRAMES, ends="continued")
    return torch.from_numpy(filtered / np.linalg.norm(filtered, axis=-1, keepdims=True))


def _derivatives(between: Float[np.ndarray, "S *C"]) -> tuple[Float[np.ndarray, "T *C"], Float[np.ndarray, "T *C"]]:
    """Velocity and acceleration at frames from the velocities between them; at the ends those of the neighbour."""
    inner = (between[1:] + between[:-1]) / 2, np.diff(between, axis=0) * FPS
    speed, change = (np.concatenate([some[:1], some, some[-1:]]) for some in inner)
    return speed, change
