"""Physical plausibility: the part of the root wrench that contact forces cannot explain.

No external force acts on a person's pelvis, so the force and moment that inverse dynamics requires there must come from
contacts. For each frame, the forces of all contact points, inside their friction cones, are fitted to it; the residual is
implausible. Free flight needs no force (0), a body suspended in the air needs its whole weight (1).
"""

import functools
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float
from scipy.ndimage import binary_dilation
from scipy.optimize import nnls

from schemas.curves import smooth
from schemas.records import FPS
from schemas.skeleton import NUM_JOINTS, SMPL_JOINTS, SMPL_PARENTS
from stages.geometry.contacts import can_push
from stages.quality.skeleton_mjcf import GRAVITY, body_mass, mjcf, stature

FRICTION = 0.9
"""Coefficient of dry friction; rubber on a floor has 0.6 to 1."""
SMOOTH_SIGMA_FRAMES = 1.0
"""Standard deviation of the Gaussian filter on positions and rotations before they are differentiated twice; at 30 frames a
second it keeps frequencies below 4 Hz."""
_END_FRAMES = 3
"""Frames at both ends within reach of the filter's padding."""
_DILATION_FRAMES = 2
"""Frames around a contact in which the point can push as well: smoothing spreads an impact over them."""
_FOOT_HALF_WIDTH_M = 0.035
"""Extent of the sole to both sides of the line from heel to toe."""
_LEVER_ARM_SHARE = 0.5
"""Moments about the centre of mass are divided by this share of the stature to become forces: about the height of the centre of
mass above the feet."""
_THICKNESS_M = {
    "pelvis": 0.11, "spine3": 0.12, "head": 0.11, "left_hip": 0.10, "right_hip": 0.10, "left_knee": 0.06,
    "right_knee": 0.06, "left_shoulder": 0.07, "right_shoulder": 0.07, "left_elbow": 0.05, "right_elbow": 0.05,
    "left_wrist": 0.04, "right_wrist": 0.04, "left_hand": 0.04, "right_hand": 0.04,
}  # fmt: skip
"""Joints other than the feet's on which a body can kneel, sit, lie or lean, and the thickness of the body there, metres."""
_OTHER_JOINTS = tuple(SMPL_JOINTS.index(name) for name in _THICKNESS_M)
_OTHER_THICKNESS_M = np.array(list(_THICKNESS_M.values()))
_EDGES = np.array([[FRICTION, 1, 0], [-FRICTION, 1, 0], [0, 1, FRICTION], [0, 1, -FRICTION]]) / np.hypot(1, FRICTION)
"""The pyramid that approximates a friction cone; Y is up."""


def unexplained_wrench(
    rotations: Float[torch.Tensor, "T 24 3 3"],
    joints: Float[np.ndarray, "T 24 3"],
    feet: Float[np.ndarray, "T 4 3"],
    rest: Float[np.ndarray, "24 3"],
) -> float:
    """Mean over frames of the root wrench that contacts cannot explain, in body weights.

    `rotations` are local, `joints` and `feet` (heels and toes) are in a world with the ground at y = 0; `rest` are the joints
    of the body at rest. The first and last frames, whose accelerations are unreliable, are excluded; 0 where none is left.
    """
    if len(joints) <= 2 * _END_FRAMES:
        return 0.0
    force, moment, centre = root_wrench(rotations, joints[:, 0], rest)
    points, in_contact = contact_points(joints, feet)
    lever_arm = _LEVER_ARM_SHARE * stature(rest)
    weight = body_mass(rest) * GRAVITY
    wrench = np.concatenate([force, moment / lever_arm], -1) / weight
    # (T, K, 4, 6): wrench of a unit force along each edge of each point's pyramid.
    levers = (points - centre[:, None])[:, :, None]
    unit_forces = np.broadcast_to(_EDGES, (*points.shape[:2], 4, 3))
    unit_wrenches = np.concatenate([unit_forces, np.cross(levers, unit_forces) / lever_arm], -1)
    residual = np.linalg.norm(wrench, axis=-1)
    for frame in np.flatnonzero(in_contact.any(-1)):
        residual[frame] = nnls(unit_wrenches[frame, in_contact[frame]].reshape(-1, 6).T, wrench[frame])[1]
    return float(residual[_END_FRAMES:-_END_FRAMES].mean())


def root_wrench(
    rotations: Float[torch.Tensor, "T 24 3 3"], root: Float[np.ndarray, "T 3"], rest: Float[np.ndarray, "24 3"]
) -> tuple[Float[np.ndarray, "T 3"], Float[np.ndarray, "T 3"], Float[np.ndarray, "T 3"]]:
    """Force and moment about the centre of mass that the ground has to exert, world axes, N and Nm, and that centre, m.

    Inverse dynamics by MuJoCo (Todorov, "Convex and analytically-invertible dynamics with contacts and constraints", 2014) on
    smoothed positions; velocities are computed between frames, accelerations from those.
    """
    import mujoco  # takes about 0.3 s: only for processes that compute scores
    import roma

    model = _mujoco_model(tuple(np.round(rest, 4).reshape(-1).tolist()))
    data = mujoco.MjData(model)
    order = _depth_first()
    quaternions = _smooth_quaternions(rotations[:, order])
    root_positions = smooth(root, SMOOTH_SIGMA_FRAMES, padding="odd")
    steps = roma.quat_product(roma.quat_conjugation(quaternions[:-1]), quaternions[1:])
    linear_velocity, linear_acceleration = _derivatives(np.diff(root_positions, axis=0) * FPS)
    angular_velocity, angular_acceleration = _derivatives(roma.unitquat_to_rotvec(steps).numpy() * FPS)
    frames = len(root_positions)
    positions = np.concatenate([root_positions, quaternions[..., [3, 0, 1, 2]].flatten(1).numpy()], -1)
    # The linear velocity of a free joint is in world axes; all angular velocities are in the axes of the rotating body.
    velocities = np.concatenate([linear_velocity, angular_velocity.reshape(frames, -1)], -1)
    accelerations = np.concatenate([linear_acceleration, angular_acceleration.reshape(frames, -1)], -1)
    force, moment, centre = np.empty((frames, 3)), np.empty((frames, 3)), np.empty((frames, 3))
    for frame in range(frames):
        data.qpos[:], data.qvel[:], data.qacc[:] = positions[frame], velocities[frame], accelerations[frame]
        mujoco.mj_inverse(model, data)
        force[frame], moment[frame], centre[frame] = data.qfrc_inverse[:3], data.qfrc_inverse[3:6], data.subtree_com[0]
    moment = roma.quat_action(quaternions[:, 0], torch.from_numpy(moment)).numpy()
    return force, moment - np.cross(centre - root_positions, force), centre


def contact_points(
    joints: Float[np.ndarray, "T 24 3"], feet: Float[np.ndarray, "T 4 3"]
) -> tuple[Float[np.ndarray, "T K 3"], Bool[np.ndarray, "T K"]]:
    """Points of the body at which the ground can push, and in which frames: both edges of each heel and toe, then joints
    lowered by the thickness of the body there."""
    sole_points = []
    for heel, toe in ((0, 1), (2, 3)):
        heel_to_toe = feet[:, toe] - feet[:, heel]
        half_width = np.stack([heel_to_toe[:, 2], np.zeros(len(feet)), -heel_to_toe[:, 0]], -1)
        half_width *= _FOOT_HALF_WIDTH_M / np.maximum(np.linalg.norm(half_width, axis=-1, keepdims=True), 1e-6)
        for point in (heel, toe):
            sole_points += [feet[:, point] - half_width, feet[:, point] + half_width]
    other_points = joints[:, _OTHER_JOINTS].copy()
    other_points[..., 1] -= _OTHER_THICKNESS_M
    points = np.concatenate([np.stack(sole_points, 1), other_points], 1)
    return points, binary_dilation(can_push(points), np.ones((2 * _DILATION_FRAMES + 1, 1)))


@functools.lru_cache(maxsize=32)
def _mujoco_model(rest: tuple[float, ...]) -> Any:
    import mujoco

    return mujoco.MjModel.from_xml_string(mjcf(np.array(rest).reshape(NUM_JOINTS, 3)))


@functools.cache
def _depth_first() -> list[int]:
    """SMPL's joints in MuJoCo's order for trees: each joint followed by its descendants."""

    def subtree(index: int) -> list[int]:
        return [
            index,
            *(
                descendant
                for child in range(NUM_JOINTS)
                if SMPL_PARENTS[child] == index
                for descendant in subtree(child)
            ),
        ]

    return subtree(0)


def _smooth_quaternions(rotations: Float[torch.Tensor, "T 24 3 3"]) -> Float[torch.Tensor, "T 24 4"]:
    """Unit quaternions x, y, z, w, without sign jumps, filtered along time."""
    import roma

    quaternions = roma.rotmat_to_unitquat(rotations.double()).numpy()
    flipped = np.cumsum((quaternions[1:] * quaternions[:-1]).sum(-1) < 0, axis=0) % 2
    quaternions[1:] *= 1 - 2 * flipped[..., None]
    filtered = smooth(quaternions, SMOOTH_SIGMA_FRAMES, padding="odd")
    return torch.from_numpy(filtered / np.linalg.norm(filtered, axis=-1, keepdims=True))


def _derivatives(velocities: Float[np.ndarray, "S *C"]) -> tuple[Float[np.ndarray, "T *C"], Float[np.ndarray, "T *C"]]:
    """Velocity and acceleration at frames from the velocities between them; the first and last frame repeat their neighbour's."""
    inner = (velocities[1:] + velocities[:-1]) / 2, np.diff(velocities, axis=0) * FPS
    velocity, acceleration = (np.concatenate([values[:1], values, values[-1:]]) for values in inner)
    return velocity, acceleration
