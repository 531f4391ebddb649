"""Joint maps: the source joint that drives each joint of the body, and the pose of the source that is its T-pose."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType
from typing import Literal

import numpy as np
from jaxtyping import Float

from schemas.config import Config, load_config
from schemas.errors import UsageError
from schemas.skeleton import SMPL_JOINTS

Blend = tuple[str, str, float]
"""Two source joints and the fraction of the interpolation between their orientations, 0 to 1."""
Up = Literal["y", "z", "x", "-y", "-z", "-x"]
"""An axis of a file that points up."""
TO_Y_UP: Mapping[Up, Float[np.ndarray, "3 3"]] = MappingProxyType({
    "y": np.eye(3),
    "z": np.array([[1.0, 0, 0], [0, 0, 1], [0, -1, 0]]),
    "x": np.array([[0.0, -1, 0], [1, 0, 0], [0, 0, 1]]),
    "-y": np.diag([1.0, -1, -1]),
    "-z": np.array([[1.0, 0, 0], [0, 0, -1], [0, 1, 0]]),
    "-x": np.array([[0.0, 1, 0], [-1, 0, 0], [0, 0, 1]]),
})  # fmt: skip
"""Axis that points up -> rotation of the file's world to Y up."""
Axes = tuple[tuple[float, float, float], tuple[float, float, float], tuple[float, float, float]]
"""A joint's x, y and z axis in the world."""
_REQUIRED = (
    "pelvis", "left_hip", "right_hip", "left_knee", "right_knee", "left_ankle", "right_ankle", "left_shoulder",
    "right_shoulder", "left_elbow", "right_elbow", "left_wrist", "right_wrist",
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class JointMap:
    """Retargeting of one kind of skeleton."""

    name: str
    joints: Mapping[str, str | Blend]
    """SMPL joint -> source joint (or two to interpolate). A joint that is left out follows its parent."""
    position_joints: Mapping[str, str] = field(default_factory=dict)
    """SMPL joint -> source joint for joints that have a position but no rotation in the source."""
    reference: Literal["zero", "first_frame"] = "zero"
    """The pose of the source that is nearest to a T-pose, where `axes` do not define it."""
    axes: Mapping[str, Axes] = field(default_factory=dict)
    """Global axes of source joints in a T-pose facing +Z; a joint that is not listed has its parent's axes."""
    feet: Literal["flat", "with_shank"] = "flat"
    """Whether the feet are flat in the reference pose or oriented with its shanks."""
    pitch_deg: Mapping[str, float] = field(default_factory=dict)
    """SMPL joint -> forward or toe-down pitch of its source joint while the body stands upright, degrees."""
    up: Up = "y"
    """The axis of the source's world that points up."""

    def position_joint_of(self, joint: str) -> str:
        """The source joint at the position of a SMPL joint (the second of a blend)."""
        source = self.position_joints.get(joint) or self.joints[joint]
        return source if isinstance(source, str) else source[1]

    def required_joints(self) -> set[str]:
        """Names of the source joints that must exist."""
        names = set(self.position_joints.values()) | set(self.axes)
        for source in self.joints.values():
            names |= {source} if isinstance(source, str) else set(source[:2])
        return names


def _both(left: str, right: str, pairs: Mapping[str, str]) -> dict[str, str]:
    """`{"hip": "*UpLeg"}` to left_hip and right_hip; the star stands for the source's name of the side."""
    side_names = {"left": left, "right": right}
    return {
        f"{side}_{name}": source.replace("*", side_names[side]) for side in side_names for name, source in pairs.items()
    }


def feet_deg(ankle: float, foot: float) -> dict[str, float]:
    """Pitches of both feet, see `JointMap.pitch_deg`."""
    return {f"{side}_{name}": value for side in ("left", "right") for name, value in (("ankle", ankle), ("foot", foot))}


_CMU_BVH = JointMap(
    name="cmu_bvh",
    joints={
        "pelvis": "Hips", "spine1": "LowerBack", "spine2": "Spine", "spine3": "Spine1",
        "neck": ("Neck", "Neck1", 0.5), "head": "Head",
        **_both("Left", "Right", {
            "collar": "*Shoulder", "shoulder": "*Arm", "elbow": "*ForeArm", "wrist": "*Hand", "hip": "*UpLeg",
            "knee": "*Leg", "ankle": "*Foot", "foot": "*ToeBase",
        }),
    },
    feet="with_shank",
    # Medians over the frames with stationary foot and toes of all 96 takes.
    pitch_deg=feet_deg(ankle=4.0, foot=-7.0),
)  # fmt: skip

_CMU_ASF = JointMap(
    name="cmu_asf",
    joints={
        "pelvis": "root", "spine1": "lowerback", "spine2": "upperback", "spine3": "thorax",
        "neck": ("lowerneck", "upperneck", 0.5), "head": "head",
        **_both("l", "r", {
            "collar": "*clavicle", "shoulder": "*humerus", "elbow": "*radius", "wrist": "*hand", "hip": "*femur",
            "knee": "*tibia", "ankle": "*foot", "foot": "*toes",
        }),
    },
    feet="with_shank",
    pitch_deg=feet_deg(ankle=3.0, foot=3.0),
)  # fmt: skip

_DEEPMIMIC = JointMap(
    name="deepmimic",
    joints={
        "pelvis": "root", "spine1": ("root", "chest", 1 / 3), "spine2": ("root", "chest", 2 / 3), "spine3": "chest",
        "neck": ("chest", "neck", 0.5), "head": "neck",
        **_both("left", "right", {
            "shoulder": "*_shoulder", "elbow": "*_elbow", "hip": "*_hip", "knee": "*_knee", "ankle": "*_ankle",
        }),
    },
    position_joints=_both("left", "right", {"wrist": "*_wrist"}),
)  # fmt: skip

_UP, _LEFT, _AHEAD = (0.0, 1.0, 0.0), (1.0, 0.0, 0.0), (0.0, 0.0, 1.0)
_DOWN, _RIGHT, _BACK = (0.0, -1.0, 0.0), (-1.0, 0.0, 0.0), (0.0, 0.0, -1.0)

_BANDAI_NAMCO = JointMap(
    name="bandai_namco",
    joints={
        "pelvis": "Hips", "spine1": ("Hips", "Spine", 0.5), "spine2": "Spine", "spine3": "Chest", "neck": "Neck",
        "head": "Head",
        **_both("L", "R", {
            "collar": "Shoulder_*", "shoulder": "UpperArm_*", "elbow": "LowerArm_*", "wrist": "Hand_*",
            "hip": "UpperLeg_*", "knee": "LowerLeg_*", "ankle": "Foot_*", "foot": "Toes_*",
        }),
    },
    # Its zero pose is not a body pose: every bone is along its own x, and the axes of the right limbs are mirrored.
    axes={
        "Hips": (_UP, _RIGHT, _AHEAD),
        **dict.fromkeys(("Spine", "Chest", "Neck", "Head"), (_UP, _AHEAD, _LEFT)),
        **dict.fromkeys(("Shoulder_L", "UpperArm_L", "LowerArm_L", "Hand_L"), (_LEFT, _UP, _AHEAD)),
        **dict.fromkeys(("Shoulder_R", "UpperArm_R", "LowerArm_R", "Hand_R"), (_LEFT, _DOWN, _BACK)),
        **dict.fromkeys(("UpperLeg_L", "LowerLeg_L"), (_DOWN, _LEFT, _AHEAD)),
        **dict.fromkeys(("UpperLeg_R", "LowerLeg_R"), (_UP, _LEFT, _BACK)),
        "Foot_L": ((0.0, -0.64, 0.77), _LEFT, (0.0, 0.77, 0.64)),
        "Foot_R": ((0.0, 0.64, -0.77), _LEFT, (0.0, -0.77, -0.64)),
        "Toes_L": ((0.0, -0.39, 0.92), _LEFT, (0.0, 0.92, 0.39)),
        "Toes_R": ((0.0, 0.39, -0.92), _LEFT, (0.0, -0.92, -0.39)),
    },
)  # fmt: skip

_AMASS = JointMap(
    name="amass",
    joints={name: name for name in SMPL_JOINTS[:22]},
    up="z",
    # The world has Z up, but the rest pose stands along its own Y.
    axes={"pelvis": (_LEFT, _UP, _AHEAD)},
)

_SMPL = replace(_AMASS, name="smpl", up="y")

KNOWN_MAPS: Mapping[str, JointMap] = MappingProxyType(
    {known.name: known for known in (_CMU_BVH, _CMU_ASF, _DEEPMIMIC, _BANDAI_NAMCO, _AMASS, _SMPL)}
)


class JointMapFile(Config):
    """A YAML file that describes a skeleton; `humo skeleton FILE --out map.yaml` writes one to edit."""

    joints: dict[str, str | Blend]
    """SMPL joint -> joint of the file, or [joint, joint, fraction] to interpolate between two. At least the pelvis, hips,
    knees, ankles, shoulders, elbows and wrists; a joint that is left out follows its parent."""
    position_joints: dict[str, str] = {}
    """SMPL joint -> joint of the file, for joints that have a position but no rotation, as the end of a bone."""
    reference: Literal["zero", "first_frame"] = "zero"
    """The pose that is (nearly) a T-pose: all angles zero, or the first frame of each take."""
    axes: dict[str, Axes] = {}
    """Joint of the file -> its x, y and z axis in a T-pose facing +Z with Y up. A joint that is not named has its parent's; a
    root has the file's, turned by `up`."""
    feet: Literal["flat", "with_shank"] = "flat"
    """Whether the feet are flat in that pose or oriented with its shanks."""
    pitch_deg: dict[str, float] = {}
    """SMPL joint -> forward or toe-down pitch of its source joint while the body stands upright, degrees."""
    up: Up = "y"
    """The axis that points up in the file's world and, where `axes` do not say otherwise, along which its zero pose stands."""


def load_map(path: str) -> JointMap:
    """A map from a YAML file (see `JointMapFile`). Raises UsageError."""
    given = load_config(path, JointMapFile)
    named = (*given.joints, *given.position_joints, *given.pitch_deg)
    unknown = [name for name in named if name not in SMPL_JOINTS]
    if unknown:
        raise UsageError(f"{path}: {unknown[0]!r} is not a SMPL joint; use {', '.join(SMPL_JOINTS)}")
    missing = [name for name in _REQUIRED if name not in {**given.joints, **given.position_joints}]
    if missing:
        raise UsageError(f"{path}: `joints` lacks {', '.join(missing)}; name the source joint of each")
    return JointMap(name=Path(path).stem, **given.model_dump())


def candidate_maps(choice: str) -> Sequence[JointMap]:
    """The maps of a setting: all known ones (`auto`), one of them, or that of a YAML file. Raises UsageError."""
    if choice == "auto":
        return tuple(KNOWN_MAPS.values())
    if choice in KNOWN_MAPS:
        return (KNOWN_MAPS[choice],)
    if choice.endswith((".yaml", ".yml")):
        return (load_map(choice),)
    raise UsageError(f"joint_map is {choice!r}; use auto, {', '.join(KNOWN_MAPS)}, or the path of a YAML file")
