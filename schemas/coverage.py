"""Which parts of a body were seen: masks over frames and parts, and what they mean for joints, contacts and whole clips.

A mask `seen` is u8 (T, 5), one column per part in the order of `PARTS`: 1 where the part was seen, 0 where its pose is made up.
"""

from typing import Literal

import numpy as np
from jaxtyping import Bool, Float, UInt8

from schemas.skeleton import COCO_KEYPOINTS, CONTACT_POINTS, PARTS, SMPL_JOINTS, mirror_order

Coverage = Literal["whole", "upper", "partial"]
COVERAGES: tuple[Coverage, ...] = ("whole", "upper", "partial")
"""whole: trunk, both legs and an arm; upper: trunk and an arm, no leg; partial: anything else."""

PART_NAMES = tuple(PARTS)
TORSO, LEFT_ARM, RIGHT_ARM, LEFT_LEG, RIGHT_LEG = range(len(PART_NAMES))
_MOST, _HARDLY_ANY = 0.8, 0.2
"""Shares of a clip's frames from which a part counts as seen, and up to which as unseen."""
_HAS_JOINT = np.array(
    [[name in PARTS[part] or name.replace("hand", "wrist") in PARTS[part] for name in SMPL_JOINTS] for part in PARTS]
)
"""Part and joint: whether the joint belongs to the part; hands belong to their arms."""
_PART_OF_KEYPOINT = [
    PART_NAMES.index(
        name.replace("elbow", "arm").replace("wrist", "arm").replace("knee", "leg").replace("ankle", "leg")
        if name.endswith(("elbow", "wrist", "knee", "ankle"))
        else "torso"
    )
    for name in COCO_KEYPOINTS
]
_PART_OF_CONTACT = [PART_NAMES.index(f"{name.split('_')[0]}_leg") for name in CONTACT_POINTS]


def all_seen(frames: int = 1) -> UInt8[np.ndarray, "T 5"]:
    """The mask of a body that was seen all the time."""
    return np.ones((frames, len(PART_NAMES)), np.uint8)


def for_frames(seen: UInt8[np.ndarray, "_ 5"], frames: int) -> UInt8[np.ndarray, "T 5"]:
    """The mask with one row per frame; a single row stands for all of them."""
    return np.ascontiguousarray(np.broadcast_to(seen, (frames, len(PART_NAMES)))) if len(seen) == 1 else seen


def mirror_seen(seen: UInt8[np.ndarray, "T 5"]) -> UInt8[np.ndarray, "T 5"]:
    """The mask of the mirrored motion."""
    return seen[:, list(mirror_order(PART_NAMES))]


def unseen_joints(seen: UInt8[np.ndarray, "T 5"]) -> Bool[np.ndarray, "T 24"]:
    """Joints of which every part is unseen: a joint that a seen part shares was seen."""
    return ~(seen.astype(bool)[:, :, None] & _HAS_JOINT).any(1)


def seen_confidence(
    joint_confidence: Float[np.ndarray, "T 24"], seen: UInt8[np.ndarray, "T 5"]
) -> Float[np.ndarray, "T 24"]:
    """Confidence of the joints, 0 where they are made up."""
    return np.where(unseen_joints(seen), np.float32(0), joint_confidence).astype(np.float32)


def seen_contacts(contacts: UInt8[np.ndarray, "T 4"], seen: UInt8[np.ndarray, "T 5"]) -> UInt8[np.ndarray, "T 4"]:
    """Ground contacts without those of feet that nobody saw."""
    return (contacts * seen[:, _PART_OF_CONTACT]).astype(np.uint8)


def seen_keypoints(seen: UInt8[np.ndarray, "T 5"]) -> Bool[np.ndarray, "T 17"]:
    """Keypoints of seen parts; those of head, shoulders and hips belong to the torso."""
    return seen[:, _PART_OF_KEYPOINT].astype(bool)


def seen_shares(seen: UInt8[np.ndarray, "T 5"]) -> dict[str, float]:
    """Part -> share of the frames in which it was seen."""
    return {part: float(seen[:, column].mean()) if len(seen) else 0.0 for column, part in enumerate(PART_NAMES)}


def seen_parts(seen: UInt8[np.ndarray, "T 5"]) -> tuple[str, ...]:
    """Parts that were seen in most of the frames."""
    return tuple(part for part, share in seen_shares(seen).items() if share >= _MOST)


def shows(seen: UInt8[np.ndarray, "T 5"], least: str) -> Bool[np.ndarray, "T"]:
    """Frame by frame: whether as much of the body is seen as asked for: `whole` (trunk, both legs and an arm), `upper` (trunk and
    an arm) or `any` (trunk and a limb)."""
    torso, *limbs = seen.astype(bool).T
    arm, legs = limbs[0] | limbs[1], limbs[2] & limbs[3]
    return torso & {"whole": arm & legs, "upper": arm, "any": np.any(limbs, axis=0)}[least]


def coverage_of(seen: UInt8[np.ndarray, "T 5"]) -> Coverage:
    """How much of the body a clip shows."""
    shares = seen_shares(seen)
    arm = max(shares["left_arm"], shares["right_arm"])
    legs = shares["left_leg"], shares["right_leg"]
    if min(shares["torso"], arm, *legs) >= _MOST:
        return "whole"
    return "upper" if min(shares["torso"], arm) >= _MOST and max(legs) <= _HARDLY_ANY else "partial"


def mask_problems(
    seen: UInt8[np.ndarray, "T 5"], joint_confidence: Float[np.ndarray, "T 24"], contacts: UInt8[np.ndarray, "T 4"]
) -> list[str]:
    """What contradicts a mask: other values than 0 and 1, confidence or contacts of what was not seen."""
    if seen.max(initial=0) > 1:
        return [f"seen holds {int(seen.max())}, expected 0 or 1"]
    problems = []
    if (joint_confidence[unseen_joints(seen)] != 0).any():
        problems.append("joint_confidence is not 0 for joints of unseen parts")
    if (contacts != seen_contacts(contacts, seen)).any():
        problems.append("contacts holds contacts of unseen feet")
    return problems
