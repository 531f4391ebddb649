"""Which joint of a source moves which joint of the body, and how the source stands when the body stands in its T-pose."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

Blend = tuple[str, str, float]
"""Two source joints and how far between their orientations, 0 to 1."""
Axes = tuple[tuple[float, float, float], tuple[float, float, float], tuple[float, float, float]]
"""A joint's x, y and z axis in the world."""
_NEEDED = (
    "pelvis", "left_hip", "right_hip", "left_knee", "right_knee", "left_ankle", "right_ankle", "left_shoulder",
    "right_shoulder", "left_elbow", "right_elbow", "left_wrist", "right_wrist",
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class JointMap:
    """How one kind of skeleton is read."""

    name: str
    joints: Mapping[str, str | Blend]
    """SMPL joint -> source joint (or two that it lies between). What is left out stays as its parent is."""
    places: Mapping[str, str] = field(default_factory=dict)
    """SMPL joint -> source joint for joints that have a place but no rotation in the source."""
    reference: Literal["zero", "first_frame"] = "zero"
    """The pose of the source that is nearest a T-pose, where `axes` do not give it."""
    axes: Mapping[str, Axes] = field(default_factory=dict)
    """Global axes of source joints in a T-pose facing +Z; a joint that is not listed is as its parent is."""
    feet: Literal["flat", "with_shank"] = "flat"
    """Whether the feet stand flat in the reference pose or are turned as its shanks are."""
    pitch_deg: Mapping[str, float] = field(default_factory=dict)
    """SMPL joint -> how far its source leans forward or points its toes down when the body stands upright, degrees."""
    up: Literal["y", "z"] = "y"
    """The axis of the source's world that points up."""

    def place_of(self, joint: str) -> str:
        """The source joint whose place is that of a SMPL joint (the second of a blend)."""
        found = self.places.get(joint) or self.joints[joint]
        return found if isinstance(found, str) else found[1]

    def needed(self) -> set[str]:
        """Names of source joints that must be there."""
        names = set(self.places.values()) | set(self.axes)
        for source in self.joints.values():
            names |= {source} if isinstance(source, str) else set(source[:2])
        return names


def _sided(pairs: Mapping[str, str], *sides: tuple[str, str]) -> dict[str, str]:
    """`{side}_hip: {side}UpLeg` for both sides."""
    return {
        ours.format(side=side): theirs.format(side=their_side)
        for side, their_side in sides
        for ours, theirs in pairs.items()
    }


_CMU_BVH = JointMap(
    name="cmu_bvh",
    joints={
        "pelvis": "Hips", "spine1": "LowerBack", "spine2": "Spine", "spine3": "Spine1",
        "neck": ("Neck", "Neck1", 0.5), "head": "Head",
        **_sided(
            {
                "{side}_collar": "{side}Shoulder", "{side}_shoulder": "{side}Arm", "{side}_elbow": "{side}ForeArm",
                "{side}_wrist": "{side}Hand", "{side}_hip": "{side}UpLeg", "{side}_knee": "{side}Leg",
                "{side}_ankle": "{side}Foot", "{side}_foot": "{side}ToeBase",
            },
            ("left", "Left"), ("right", "Right"),
        ),
    },
    feet="with_shank",
)  # fmt: skip

_DEEPMIMIC = JointMap(
    name="deepmimic",
    joints={
        "pelvis": "root", "spine1": ("root", "chest", 1 / 3), "spine2": ("root", "chest", 2 / 3), "spine3": "chest",
        "neck": ("chest", "neck", 0.5), "head": "neck",
        **_sided(
            {f"{{side}}_{name}": f"{{side}}_{name}" for name in ("shoulder", "elbow", "hip", "knee", "ankle")},
            ("left", "left"), ("right", "right"),
        ),
    },
    places={"left_wrist": "left_wrist", "right_wrist": "right_wrist"},
)  # fmt: skip

_UP, _LEFT, _AHEAD = (0.0, 1.0, 0.0), (1.0, 0.0, 0.0), (0.0, 0.0, 1.0)


def _minus(axis: tuple[float, float, float]) -> tuple[float, float, float]:
    return (-axis[0], -axis[1], -axis[2])


_BANDAI_NAMCO = JointMap(
    name="bandai_namco",
    joints={
        "pelvis": "Hips", "spine1": ("Hips", "Spine", 0.5), "spine2": "Spine", "spine3": "Chest", "neck": "Neck",
        "head": "Head",
        **_sided(
            {
                "{side}_collar": "Shoulder_{side}", "{side}_shoulder": "UpperArm_{side}",
                "{side}_elbow": "LowerArm_{side}", "{side}_wrist": "Hand_{side}", "{side}_hip": "UpperLeg_{side}",
                "{side}_knee": "LowerLeg_{side}", "{side}_ankle": "Foot_{side}", "{side}_foot": "Toes_{side}",
            },
        ),
    },
    axes={},
)  # fmt: skip
