"""The map of a take: of a known skeleton, from a file, or recognised from the skeleton itself."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np

from stages.mocap.recognition import Found, find_joints
from stages.mocap.rest_pose import (
    BodyPose,
    body_pose,
    calibrated_axes,
    feet_follow_shanks,
    find_up,
    with_sides,
    zero_pose,
)
from stages.mocap.skeletons import TO_Y_UP, Axes, Blend, JointMap, candidate_maps, feet_deg
from stages.mocap.take import MocapError, Take
from stages.mocap.tree import Tree

_OF_FORMAT = {"deepmimic": "deepmimic", "amass": "amass", "smpl": "smpl"}
"""Formats whose skeleton, rest pose and axes are the same in every file -> their map."""
_TILTED_FEET_DEG = feet_deg(ankle=4.0, foot=-7.0)
"""Pitch of feet that follow shanks which stand apart in the zero pose: medians over the standing frames of 96 takes of such a
skeleton."""


@dataclass(frozen=True)
class Match:
    """A map and how it was found."""

    joint_map: JointMap
    by: Mapping[str, str] = field(default_factory=dict)
    """SMPL joint -> `name`, `shape` or `map`."""
    rest: str = ""
    """The pose that serves as T-pose, in words."""


def find_map(take: Take, choice: str = "auto", *, file: str = "the file") -> JointMap:
    """The map of a take: by the names of its joints, by the name of a known map, from a YAML file, or recognised.

    Raises MocapError if no map fits, UsageError for an unknown map.
    """
    return match(take, choice, file=file).joint_map


def match(take: Take, choice: str = "auto", *, file: str = "the file") -> Match:
    """As `find_map`, with what was found."""
    candidates = candidate_maps(_OF_FORMAT.get(take.format, choice) if choice == "auto" else choice)
    for candidate in candidates:
        if candidate.required_joints() <= set(take.names) and (choice != "auto" or not _contradicted(take, candidate)):
            by = dict.fromkeys((*candidate.joints, *candidate.position_joints), "map")
            return Match(candidate, by, f"that of the map {candidate.name}")
    if choice != "auto":
        lacking = sorted(candidates[0].required_joints() - set(take.names))
        raise MocapError(
            "unknown_skeleton",
            f"{file}: its joints do not match {candidates[0].name} (it lacks {', '.join(lacking[:5])}); it has"
            f" {', '.join(take.names[:60])}. Write a YAML file with `joints:` from SMPL joints to these and set its path in"
            " read_mocap.joint_map",
        )
    return recognise(take, file=file)


def recognise(take: Take, *, file: str = "the file") -> Match:
    """A map of a skeleton that is not known. Raises MocapError."""
    found = with_sides(file, find_joints(file, take))
    up = find_up(file, found)
    zero = zero_pose(take)
    pose = body_pose(found, zero)
    joints, position_joints = _joints(found)
    bare = JointMap(name="recognised", joints=joints, position_joints=position_joints, up=up)
    by = {
        name: found.by.get(name, found.by["spine" if name.startswith("spine") else "neck"])
        for name in (*joints, *position_joints)
    }
    if not pose.faults:
        tilted = feet_follow_shanks(found, pose, zero)
        roots = {take.names[joint]: _axes(pose.to_canonical) for joint, parent in enumerate(take.parents) if parent < 0}
        made = replace(
            bare, axes=roots, feet="with_shank" if tilted else "flat", pitch_deg=_TILTED_FEET_DEG if tilted else {}
        )
        return Match(made, by, f"the zero pose, arms {_arms(pose)}")
    first_rotations, first_positions = take.frames(np.array([0])).global_poses
    first = body_pose(found, first_positions[0])
    upright = (first.to_canonical @ TO_Y_UP[up].T)[1, 1] > 0.9
    if not first.faults and first.arms == "T" and upright and not _is_moving(take):
        axes = {name: _axes(first.to_canonical @ first_rotations[0, joint]) for joint, name in enumerate(take.names)}
        return Match(replace(bare, axes=axes), by, "the first frame, a T-pose")
    calibrated = calibrated_axes(found, TO_Y_UP[up])
    axes = {take.names[joint]: _axes(matrix) for joint, matrix in calibrated.items()}
    why = "; ".join(pose.faults[:2])
    return Match(replace(bare, axes=axes), by, f"calibrated from the motion, as in the zero pose {why}")


def _arms(pose: BodyPose) -> str:
    return {"T": "to the sides", "A": "slanting", "down": "hanging"}[pose.arms]


def _is_moving(take: Take) -> bool:
    """Whether the first frames move: a T-pose that is passed through by chance is no reference."""
    few = take.rotations[: min(len(take.times_s), 3)]
    return (
        len(few) > 2
        and float(np.abs(np.diff(few, axis=0)).max()) > 0.2
        and float(np.abs(np.diff(few[1:], axis=0)).max()) > 0.2
    )


def _axes(matrix: np.ndarray) -> Axes:
    x, y, z = (tuple(float(value) for value in axis) for axis in np.asarray(matrix).T)
    return (x, y, z)  # type: ignore[return-value]


def _joints(found: Found) -> tuple[dict[str, str | Blend], dict[str, str]]:
    """(SMPL joint -> source joint or blend, SMPL joint -> joint that has a position alone)."""
    names = found.tree.take.names
    joints: dict[str, str | Blend] = {"pelvis": names[found.pelvis]}
    pelvis, spine = names[found.pelvis], [names[joint] for joint in found.spine]
    if len(spine) == 1:
        joints |= {"spine1": (pelvis, spine[0], 1 / 3), "spine2": (pelvis, spine[0], 2 / 3), "spine3": spine[0]}
    elif len(spine) == 2:
        joints |= {"spine1": (pelvis, spine[0], 0.5), "spine2": spine[0], "spine3": spine[1]}
    elif spine:
        joints |= {"spine1": spine[0], "spine2": spine[(len(spine) + 1) // 2 - 1], "spine3": spine[-1]}
    neck = [names[joint] for joint in found.neck]
    if found.head is not None:
        head = names[found.head]
        chest = spine[-1] if spine else pelvis
        joints |= {
            "neck": neck[0] if len(neck) == 1 else (neck[0], neck[-1], 0.5) if neck else (chest, head, 0.5),
            "head": head,
        }
    position_joints = {}
    for name, joint in found.limbs.items():
        if name.endswith("_hand"):
            continue
        if joint in found.tree.take.ends:
            position_joints[name] = names[joint]
        else:
            joints[name] = names[joint]
    return joints, position_joints


def _contradicted(take: Take, known: JointMap) -> bool:
    """Whether the data show that the skeleton is not the known one in spite of its names: another axis up, another rest pose."""
    if take.format in _OF_FORMAT:
        return False
    index = {name: joint for joint, name in enumerate(take.names)}
    limbs = {
        name: index[known.position_joint_of(name)]
        for name in (*known.joints, *known.position_joints)
        if name.startswith(("left_", "right_"))
    }
    tree = Tree(take)
    chest = known.position_joint_of("spine3")
    found = Found(
        tree=tree, readings=(), limbs=limbs, pelvis=index[known.position_joint_of("pelvis")], chest=index[chest], spine=(), neck=(),
        head=None,
    )  # fmt: skip
    try:
        up = find_up("", found)
    except MocapError:
        up = known.up
    if up != known.up:
        return True
    axes = np.empty((len(take.names), 3, 3))
    positions = np.zeros((len(take.names), 3))
    for joint, (name, parent) in enumerate(zip(take.names, take.parents, strict=True)):
        given = known.axes.get(name)
        axes[joint] = np.array(given).T if given else axes[parent] if parent >= 0 else TO_Y_UP[known.up]
        if parent >= 0:
            positions[joint] = positions[parent] + axes[parent] @ take.offsets[joint]
    pose = body_pose(found, positions)
    return bool(pose.faults) or bool(pose.to_canonical[1, 1] < 0.9)
