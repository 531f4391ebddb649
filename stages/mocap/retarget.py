"""A take onto the body: rotations relative to each side's T-pose, feet on the ground, 30 frames a second.

For a body joint moved by source joint s, the constant C = (axes of s in the source's T-pose)^T A leads from the body's
rest axes to those of s, and the global rotation of the body's joint is that of s times C. A turns the body's bone at rest
into the direction of the source's bone in its T-pose: a source whose arms hang or whose legs are apart in that pose is
met where it stands, and limbs point where the source's do. Trunk, collars and hands keep A = 1: their bones differ in
shape between skeletons, so only how they turn is taken over.
"""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from schemas.body_model import NUM_SHAPES, BodyModel
from schemas.kinematics import forward_kinematics, start_at_origin
from schemas.records import FPS
from schemas.rotations import axis_angle_to_matrix, matrix_to_axis_angle, shortest_turn, slerp_resample
from schemas.skeleton import NUM_JOINTS, SMPL_JOINTS, SMPL_PARENTS, joint
from stages.geometry.contacts import find_contacts, ground_height
from stages.mocap.mend import mend
from stages.mocap.skeletons import JointMap
from stages.mocap.take import Take, about_axis

_LIMBS = {
    f"{side}_{start}": f"{side}_{end}"
    for side in ("left", "right")
    for start, end in (("hip", "knee"), ("knee", "ankle"), ("shoulder", "elbow"), ("elbow", "wrist"))
}
"""Joints whose bone (to the joint named second) must point where the source's does."""
_UNITS_M = (1.0, 0.01, 0.001, 0.0254)
_LEG_M = (0.45, 1.3)
"""Hip to ankle of a human, metres: the first unit that brings a source's legs into it is taken for its own."""
_Z_UP_TO_Y_UP = np.array([[1.0, 0, 0], [0, 0, 1], [0, -1, 0]])


@dataclass(frozen=True, kw_only=True, eq=False)
class Retargeted:
    """A take on the body with betas zero, at `fps`, from x = z = 0 facing +Z, on the ground y = 0."""

    rotations: Float[Tensor, "T 24 3 3"]
    """Local; the first is the root's in the world."""
    trans: Float[Tensor, "T 3"]
    """Metres."""
    fps: float
    contacts: UInt8[np.ndarray, "T 4"]
    joint_confidence: Float[np.ndarray, "T 24"]
    """1, or 0 for joints that the source lacks and where a glitch was bridged."""
    to_source: Float[np.ndarray, "4 4"]
    """Takes points of this world to the source's world in metres: a turn, a shift and the ratio of the legs' lengths."""
    source_fps: float
    start_s: float
    """Where the motion begins in the source, seconds: after a T-pose that was dropped."""
    joint_map: str


def retarget(take: Take, joint_map: JointMap, body: BodyModel, *, metres_per_unit: float | None = None) -> Retargeted:
    """A take on a body. `metres_per_unit` overrides what the file says or its legs tell."""
    rest = body.rest_joints(torch.zeros(NUM_SHAPES)).double().numpy()
    if take.format == "amass" and body.id.startswith("smpl-"):
        # The file's own rest pose is at hand: nothing is left to align.
        bones = np.diff(rest[[SMPL_PARENTS[1:], range(1, NUM_JOINTS)]], axis=0)[0]
        take = replace(take, offsets=np.concatenate([take.offsets[:1], bones])[: len(take.names)])
    turns, places = take.posed
    if joint_map.up == "z":
        turns, places = _Z_UP_TO_Y_UP @ turns, places @ _Z_UP_TO_Y_UP.T
    source = _Source(take, joint_map, turns)
    globals_ = source.body_rotations(turns, rest)

    ours_m = _leg_length(lambda name: rest[joint(name)])
    theirs = _leg_length(lambda name: source.places[source.index(joint_map.place_of(name))])
    unit_m = metres_per_unit or take.metres_per_unit or _guess_unit(theirs)
    ratio = ours_m / theirs
    left, right = (places[:, source.index(joint_map.place_of(f"{side}_hip"))] for side in ("left", "right"))
    hips_at_rest = (rest[joint("left_hip")] + rest[joint("right_hip")]) / 2
    pelvis = (left + right) / 2 * ratio - globals_[:, 0] @ (hips_at_rest - rest[joint("pelvis")])

    first = 1 if _starts_in_t_pose(globals_) else 0
    start_s = float(take.times_s[first])
    steady, mended = mend(_locals(globals_[first:]), take.times_s[first:])
    local, times = torch.from_numpy(steady), torch.from_numpy(take.times_s[first:] - start_s)
    wanted = torch.arange(int(float(times[-1]) * FPS + 1e-3) + 1, dtype=torch.float64) / FPS
    rotations = slerp_resample(local, times, wanted)
    pelvis_path = np.stack([np.interp(wanted, times, pelvis[first:, axis]) for axis in range(3)], -1)

    trans = torch.from_numpy(pelvis_path - rest[joint("pelvis")])
    feet = _feet(body, rotations.float(), trans.float())
    ground_m = ground_height(feet)
    trans[:, 1] -= ground_m
    to_source = np.eye(4)
    back = _Z_UP_TO_Y_UP.T if joint_map.up == "z" else np.eye(3)
    to_source[:3, :3] = back * (unit_m / ratio)
    to_source[:3, 3] = to_source[:3, :3] @ [0.0, ground_m, 0.0]
    sure = np.array([name in joint_map.joints for name in SMPL_JOINTS]) & ~mended
    nearest = np.searchsorted(times.numpy(), wanted.numpy() - 1e-6).clip(0, len(sure) - 1)
    whole = Retargeted(
        rotations=rotations,
        trans=trans,
        fps=FPS,
        contacts=find_contacts(feet, ground_m),
        joint_confidence=sure[nearest].astype(np.float32),
        to_source=to_source,
        source_fps=take.fps,
        start_s=start_s,
        joint_map=joint_map.name,
    )
    return cut(whole, 0, len(trans), body)


def cut(motion: Retargeted, first: int, last: int, body: BodyModel) -> Retargeted:
    """The frames from `first` to before `last`, in a world of their own: from x = z = 0 facing +Z, on the same ground."""
    pelvis_at_rest = body.rest_joints(torch.zeros(NUM_SHAPES))[joint("pelvis")].to(motion.trans.dtype)
    rotations, trans, back = start_at_origin(motion.rotations[first:last], motion.trans[first:last], pelvis_at_rest)
    return replace(
        motion,
        rotations=rotations.float(),
        trans=trans.float(),
        contacts=motion.contacts[first:last],
        joint_confidence=motion.joint_confidence[first:last],
        to_source=(motion.to_source @ back.numpy()).astype(np.float32),
        start_s=motion.start_s + first / motion.fps,
    )


class _Source:
    """A source's T-pose: global axes and places of all its joints, turned to face +Z."""

    def __init__(self, take: Take, joint_map: JointMap, turns: Float[np.ndarray, "T J 3 3"]) -> None:
        self.joint_map = joint_map
        self._index = {name: place for place, name in enumerate(take.names)}
        count = len(take.names)
        self.axes = np.empty((count, 3, 3))
        self.places = np.zeros((count, 3))
        for here, (name, parent) in enumerate(zip(take.names, take.parents, strict=True)):
            if joint_map.reference == "first_frame":
                self.axes[here] = turns[0, here]
            elif name in joint_map.axes:
                self.axes[here] = np.array(joint_map.axes[name]).T
            elif parent >= 0:
                self.axes[here] = self.axes[parent]
            else:
                self.axes[here] = _Z_UP_TO_Y_UP if joint_map.up == "z" else np.eye(3)
            if parent >= 0:
                offset = take.moving[here][0] if here in take.moving else take.offsets[here]
                self.places[here] = self.places[parent] + self.axes[parent] @ offset
        left, right = (self.places[self.index(joint_map.place_of(f"{side}_hip"))] for side in ("left", "right"))
        across = left - right
        face_ahead = about_axis(np.arctan2(across[2], across[0]), "y")
        self.axes = face_ahead @ self.axes
        self.places = self.places @ face_ahead.T

    def index(self, name: str) -> int:
        return self._index[name]

    def body_rotations(
        self, turns: Float[np.ndarray, "T J 3 3"], rest: Float[np.ndarray, "24 3"]
    ) -> Float[np.ndarray, "T 24 3 3"]:
        """Global rotations of the body's joints."""
        lean = self._leans(rest)
        result = np.empty((len(turns), NUM_JOINTS, 3, 3))
        for here, (name, parent) in enumerate(zip(SMPL_JOINTS, SMPL_PARENTS, strict=True)):
            found = self.joint_map.joints.get(name)
            if found is None:
                result[:, here] = result[:, parent]
            elif isinstance(found, str):
                result[:, here] = self._turned(turns, found, lean[name])
            else:
                start, end = (self._turned(turns, source, lean[name]) for source in found[:2])
                result[:, here] = _between(start, end, found[2])
        return result

    def _turned(self, turns: np.ndarray, name: str, lean: np.ndarray) -> np.ndarray:
        here = self.index(name)
        return turns[:, here] @ (self.axes[here].T @ lean)

    def _leans(self, rest: Float[np.ndarray, "24 3"]) -> dict[str, Float[np.ndarray, "3 3"]]:
        """For each joint of the body what turns its rest pose into the source's T-pose (A above)."""
        lean: dict[str, np.ndarray] = {}
        for name, parent in zip(SMPL_JOINTS, SMPL_PARENTS, strict=True):
            above = lean[SMPL_JOINTS[parent]] if parent >= 0 else np.eye(3)
            if name in _LIMBS:
                bone = rest[joint(_LIMBS[name])] - rest[joint(name)]
                start, end = (self.index(self.joint_map.place_of(end)) for end in (name, _LIMBS[name]))
                way = self.places[end] - self.places[start]
                lean[name] = shortest_turn(torch.from_numpy(bone), torch.from_numpy(way)).numpy()
            elif name.endswith(("_ankle", "_foot")) and self.joint_map.feet == "flat":
                lean[name] = np.eye(3)
            elif name.endswith(("_ankle", "_foot", "_wrist", "_hand")):
                lean[name] = above
            else:
                lean[name] = np.eye(3)
        for name, degrees in self.joint_map.pitch_deg.items():
            lean[name] = lean[name] @ about_axis(np.radians(-degrees), "x")
        return lean


def _between(start: Any, end: Any, share: float) -> Float[np.ndarray, "T 3 3"]:
    start, end = torch.from_numpy(start), torch.from_numpy(end)
    step = matrix_to_axis_angle(start.transpose(-1, -2) @ end)
    return (start @ axis_angle_to_matrix(step * share)).numpy()


def _locals(globals_: Float[np.ndarray, "T 24 3 3"]) -> Float[np.ndarray, "T 24 3 3"]:
    local = globals_.copy()
    local[:, 1:] = globals_[:, SMPL_PARENTS[1:]].swapaxes(-1, -2) @ globals_[:, 1:]
    return local


def _leg_length(place: Any) -> float:
    """Hip to knee to ankle, mean of both sides."""
    total = 0.0
    for side in ("left", "right"):
        hip, knee, ankle = (place(f"{side}_{name}") for name in ("hip", "knee", "ankle"))
        total += float(np.linalg.norm(knee - hip) + np.linalg.norm(ankle - knee))
    return total / 2


def _guess_unit(leg: float) -> float:
    for unit_m in _UNITS_M:
        if _LEG_M[0] <= leg * unit_m <= _LEG_M[1]:
            return unit_m
    return 0.85 / leg


def _starts_in_t_pose(globals_: Float[np.ndarray, "T 24 3 3"]) -> bool:
    """Whether the first frame is a T-pose that the movement then jumps out of, as many exports put before a take."""
    if len(globals_) < 4:
        return False
    head = globals_[:12]
    cosines = (np.einsum("tjab,tjab->tj", head[1:], head[:-1]) - 1) / 2
    steps = np.arccos(np.clip(cosines, -1, 1)).mean(1)
    limbs = [joint(name) for name in _LIMBS]
    relative = globals_[0, 0].T @ globals_[0, limbs]
    off = np.arccos(np.clip((np.trace(relative, axis1=-2, axis2=-1) - 1) / 2, -1, 1))
    return bool(steps[0] > 4 * steps[1:].max() and steps[0] > 0.05 and off.mean() < np.radians(30))


def _feet(body: BodyModel, rotations: Float[Tensor, "T 24 3 3"], trans: Float[Tensor, "T 3"]) -> np.ndarray:
    betas = torch.zeros(NUM_SHAPES)
    joints, turns = forward_kinematics(rotations, body.rest_joints(betas), trans)
    return body.contact_rig().points(turns, joints, betas).numpy()
