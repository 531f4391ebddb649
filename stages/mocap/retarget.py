"""Retargeting of a take to the body: rotations relative to the T-poses of source and body, feet on the ground, 30 frames/s.

For a body joint driven by source joint s, the constant C = (axes of s in the source's T-pose)^T A maps the body's rest
axes to those of s, and the global rotation of the body joint is that of s times C. A rotates the body's rest bone into
the direction of the source's bone in its T-pose: it compensates for a source whose arms hang or whose legs are apart in
that pose, so that limbs point in the source's directions. Trunk, collars and hands keep A = 1: their bones differ in
shape between skeletons, so only their rotation is transferred.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from schemas.body_model import NUM_SHAPES, BodyModel
from schemas.kinematics import forward_kinematics, start_at_origin
from schemas.records import FPS
from schemas.rotations import axis_angle_to_matrix, matrix_to_axis_angle, shortest_rotation, slerp_resample
from schemas.skeleton import NUM_JOINTS, SMPL_JOINTS, SMPL_PARENTS, joint
from stages.geometry.contacts import find_contacts, ground_height
from stages.mocap.glitches import repair_glitches
from stages.mocap.skeletons import TO_Y_UP, JointMap
from stages.mocap.take import Take, axis_rotation

_LIMBS = {
    f"{side}_{start}": f"{side}_{end}"
    for side in ("left", "right")
    for start, end in (("hip", "knee"), ("knee", "ankle"), ("shoulder", "elbow"), ("elbow", "wrist"))
}
"""Joints whose bone, to the second joint, must have the direction of the source's bone."""
_UNITS_M = (1.0, 0.01, 0.001, 0.0254)
_LEG_M = (0.45, 1.3)
"""Range of a human's hip-to-ankle length, metres: the first unit that puts a source's legs into it is assumed."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Retargeted:
    """A take on the body with zero betas, at `fps`, starting at x = z = 0 facing +Z, on the ground y = 0."""

    rotations: Float[Tensor, "T 24 3 3"]
    """Local; the first is that of the root in the world."""
    trans: Float[Tensor, "T 3"]
    """Metres."""
    fps: float
    contacts: UInt8[np.ndarray, "T 4"]
    joint_confidence: Float[np.ndarray, "T 24"]
    """1, or 0 for joints that the source lacks and where a glitch was repaired."""
    to_source: Float[np.ndarray, "4 4"]
    """Transform from this world to the source's world in metres: rotation, translation and the ratio of leg lengths."""
    source_fps: float
    start_s: float
    """Start of the motion in the source, seconds: after a T-pose that is dropped."""
    joint_map: str
    metres_per_unit: float
    """Of the source: given, or that which makes its legs human."""


def retarget(take: Take, joint_map: JointMap, body: BodyModel, *, metres_per_unit: float | None = None) -> Retargeted:
    """A take retargeted to a body. `metres_per_unit` overrides the unit of the file or the estimate from its legs."""
    rest = body.rest_joints(torch.zeros(NUM_SHAPES)).double().numpy()
    if take.format in ("amass", "smpl") and body.id.startswith("smpl-"):
        # The body has the rest pose of the file: no alignment is needed.
        bones = np.diff(rest[[SMPL_PARENTS[1:], range(1, NUM_JOINTS)]], axis=0)[0]
        take = replace(take, offsets=np.concatenate([take.offsets[:1], bones])[: len(take.names)])
    source_rotations, source_positions = take.global_poses
    to_y_up = TO_Y_UP[joint_map.up]
    if joint_map.up != "y":
        source_rotations, source_positions = to_y_up @ source_rotations, source_positions @ to_y_up.T
    source = _SourceTPose(take, joint_map, source_rotations)
    body_rotations = source.body_rotations(source_rotations, rest)

    body_leg_m = _leg_length(lambda name: rest[joint(name)])
    source_leg = _leg_length(lambda name: source.positions[source.joint_index(name)])
    unit_m = metres_per_unit or take.metres_per_unit or _guess_unit(source_leg)
    ratio = body_leg_m / source_leg
    left, right = (source_positions[:, source.joint_index(f"{side}_hip")] for side in ("left", "right"))
    rest_hips = (rest[joint("left_hip")] + rest[joint("right_hip")]) / 2
    pelvis = (left + right) / 2 * ratio - body_rotations[:, 0] @ (rest_hips - rest[joint("pelvis")])

    first = 1 if _starts_in_t_pose(body_rotations) else 0
    start_s = float(take.times_s[first])
    repaired_local, repaired = repair_glitches(_local_rotations(body_rotations[first:]), take.times_s[first:])
    local, times = torch.from_numpy(repaired_local), torch.from_numpy(take.times_s[first:] - start_s)
    output_times = torch.arange(int(float(times[-1]) * FPS + 1e-3) + 1, dtype=torch.float64) / FPS
    rotations = slerp_resample(local, times, output_times)
    pelvis_path = np.stack([np.interp(output_times, times, pelvis[first:, axis]) for axis in range(3)], -1)

    trans = torch.from_numpy(pelvis_path - rest[joint("pelvis")])
    feet = _feet(body, rotations.float(), trans.float())
    ground_m = ground_height(feet)
    trans[:, 1] -= ground_m
    to_source = np.eye(4)
    to_source[:3, :3] = to_y_up.T * (unit_m / ratio)
    to_source[:3, 3] = to_source[:3, :3] @ [0.0, ground_m, 0.0]
    observed = np.array([name in joint_map.joints for name in SMPL_JOINTS]) & ~repaired
    source_frames = np.searchsorted(times.numpy(), output_times.numpy() - 1e-6).clip(0, len(observed) - 1)
    whole = Retargeted(
        rotations=rotations,
        trans=trans,
        fps=FPS,
        contacts=find_contacts(feet, ground_m),
        joint_confidence=observed[source_frames].astype(np.float32),
        to_source=to_source,
        source_fps=take.fps,
        start_s=start_s,
        joint_map=joint_map.name,
        metres_per_unit=unit_m,
    )
    return cut(whole, 0, len(trans), body)


def cut(motion: Retargeted, first: int, last: int, body: BodyModel) -> Retargeted:
    """The frames [first, last) in their own canonical world: starting at x = z = 0 facing +Z, on the same ground."""
    pelvis_at_rest = body.rest_joints(torch.zeros(NUM_SHAPES))[joint("pelvis")].to(motion.trans.dtype)
    rotations, trans, to_motion = start_at_origin(
        motion.rotations[first:last], motion.trans[first:last], pelvis_at_rest
    )
    return replace(
        motion,
        rotations=rotations.float(),
        trans=trans.float(),
        contacts=motion.contacts[first:last],
        joint_confidence=motion.joint_confidence[first:last],
        to_source=(motion.to_source @ to_motion.numpy()).astype(np.float32),
        start_s=motion.start_s + first / motion.fps,
    )


class _SourceTPose:
    """A source's T-pose: global axes and positions of all its joints, rotated to face +Z."""

    def __init__(self, take: Take, joint_map: JointMap, rotations: Float[np.ndarray, "T J 3 3"]) -> None:
        self.joint_map = joint_map
        self._index = {name: index for index, name in enumerate(take.names)}
        count = len(take.names)
        self.axes = np.empty((count, 3, 3))
        self.positions = np.zeros((count, 3))
        for index, (name, parent) in enumerate(zip(take.names, take.parents, strict=True)):
            if joint_map.reference == "first_frame":
                self.axes[index] = rotations[0, index]
            elif name in joint_map.axes:
                self.axes[index] = np.array(joint_map.axes[name]).T
            elif parent >= 0:
                self.axes[index] = self.axes[parent]
            else:
                self.axes[index] = TO_Y_UP[joint_map.up]
            if parent >= 0:
                offset = take.moving_offsets[index][0] if index in take.moving_offsets else take.offsets[index]
                self.positions[index] = self.positions[parent] + self.axes[parent] @ offset
        left, right = (self.positions[self.joint_index(f"{side}_hip")] for side in ("left", "right"))
        hip_axis = left - right
        face_forward = axis_rotation(np.arctan2(hip_axis[2], hip_axis[0]), "y")
        self.axes = face_forward @ self.axes
        self.positions = self.positions @ face_forward.T

    def joint_index(self, name: str) -> int:
        """Index of the source joint at the position of a SMPL joint."""
        return self._index[self.joint_map.position_joint_of(name)]

    def body_rotations(
        self, rotations: Float[np.ndarray, "T J 3 3"], rest: Float[np.ndarray, "24 3"]
    ) -> Float[np.ndarray, "T 24 3 3"]:
        """Global rotations of the body's joints."""
        alignments = self._alignments(rest)
        result = np.empty((len(rotations), NUM_JOINTS, 3, 3))
        for index, (name, parent) in enumerate(zip(SMPL_JOINTS, SMPL_PARENTS, strict=True)):
            source = self.joint_map.joints.get(name)
            if source is None:
                result[:, index] = result[:, parent]
            elif isinstance(source, str):
                result[:, index] = self._aligned(rotations, source, alignments[name])
            else:
                start, end = (self._aligned(rotations, one, alignments[name]) for one in source[:2])
                result[:, index] = _interpolate(start, end, source[2])
        return result

    def _aligned(self, rotations: np.ndarray, source: str, alignment: np.ndarray) -> np.ndarray:
        index = self._index[source]
        return rotations[:, index] @ (self.axes[index].T @ alignment)

    def _alignments(self, rest: Float[np.ndarray, "24 3"]) -> dict[str, Float[np.ndarray, "3 3"]]:
        """For each joint of the body, the rotation from its rest pose to the source's T-pose (A above)."""
        alignments: dict[str, np.ndarray] = {}
        for name, parent in zip(SMPL_JOINTS, SMPL_PARENTS, strict=True):
            if name in _LIMBS:
                bone = rest[joint(_LIMBS[name])] - rest[joint(name)]
                source_bone = self.positions[self.joint_index(_LIMBS[name])] - self.positions[self.joint_index(name)]
                alignments[name] = shortest_rotation(torch.from_numpy(bone), torch.from_numpy(source_bone)).numpy()
            elif name.endswith(("_ankle", "_foot")) and self.joint_map.feet == "flat":
                alignments[name] = np.eye(3)
            elif name.endswith(("_ankle", "_foot", "_wrist", "_hand")):
                alignments[name] = alignments[SMPL_JOINTS[parent]]
            else:
                alignments[name] = np.eye(3)
        for name, degrees in self.joint_map.pitch_deg.items():
            alignments[name] = alignments[name] @ axis_rotation(np.radians(-degrees), "x")
        return alignments


def _interpolate(start: Any, end: Any, fraction: float) -> Float[np.ndarray, "T 3 3"]:
    start, end = torch.from_numpy(start), torch.from_numpy(end)
    step = matrix_to_axis_angle(start.transpose(-1, -2) @ end)
    return (start @ axis_angle_to_matrix(step * fraction)).numpy()


def _local_rotations(global_rotations: Float[np.ndarray, "T 24 3 3"]) -> Float[np.ndarray, "T 24 3 3"]:
    local = global_rotations.copy()
    local[:, 1:] = global_rotations[:, SMPL_PARENTS[1:]].swapaxes(-1, -2) @ global_rotations[:, 1:]
    return local


def _leg_length(position: Callable[[str], Float[np.ndarray, "3"]]) -> float:
    """Hip to knee to ankle, mean of both sides."""
    total = 0.0
    for side in ("left", "right"):
        hip, knee, ankle = (position(f"{side}_{name}") for name in ("hip", "knee", "ankle"))
        total += float(np.linalg.norm(knee - hip) + np.linalg.norm(ankle - knee))
    return total / 2


def _guess_unit(leg_length: float) -> float:
    for unit_m in _UNITS_M:
        if _LEG_M[0] <= leg_length * unit_m <= _LEG_M[1]:
            return unit_m
    return 0.85 / leg_length


def _starts_in_t_pose(rotations: Float[np.ndarray, "T 24 3 3"]) -> bool:
    """Whether the first frame is a T-pose followed by a jump, as many exporters put before a take."""
    if len(rotations) < 4:
        return False
    head = rotations[:12]
    cosines = (np.einsum("tjab,tjab->tj", head[1:], head[:-1]) - 1) / 2
    steps = np.arccos(np.clip(cosines, -1, 1)).mean(1)
    limbs = [joint(name) for name in _LIMBS]
    relative = rotations[0, 0].T @ rotations[0, limbs]
    angles = np.arccos(np.clip((np.trace(relative, axis1=-2, axis2=-1) - 1) / 2, -1, 1))
    return bool(steps[0] > 4 * steps[1:].max() and steps[0] > 0.05 and angles.mean() < np.radians(30))


def _feet(body: BodyModel, rotations: Float[Tensor, "T 24 3 3"], trans: Float[Tensor, "T 3"]) -> np.ndarray:
    betas = torch.zeros(NUM_SHAPES)
    joints, global_rotations = forward_kinematics(rotations, body.rest_joints(betas), trans)
    return body.contact_rig().points(global_rotations, joints, betas).numpy()
