import json

import numpy as np
import pytest

from schemas.coverage import (
    PART_NAMES,
    all_seen,
    coverage_of,
    mask_problems,
    seen_confidence,
    seen_contacts,
    seen_keypoints,
    seen_parts,
    unseen_joints,
)
from schemas.errors import HumoError
from schemas.sample import decode_motion, decode_npz, encode_json, encode_npz, sample_problems
from schemas.skeleton import COCO_KEYPOINTS, PARTS, SMPL_JOINTS
from tests.audit_helpers import make_sample


def mask(frames: int = 20, **shares: float) -> np.ndarray:
    seen = all_seen(frames)
    for part, share in shares.items():
        seen[round(share * frames) :, PART_NAMES.index(part)] = 0
    return seen


@pytest.mark.parametrize(
    ("shares", "coverage"),
    [
        ({}, "whole"),
        ({"left_arm": 0.0}, "whole"),
        ({"left_leg": 0.9}, "whole"),
        ({"left_leg": 0.0, "right_leg": 0.0}, "upper"),
        ({"left_leg": 0.1, "right_leg": 0.0, "left_arm": 0.0}, "upper"),
        ({"left_leg": 0.5, "right_leg": 0.5}, "partial"),
        ({"left_leg": 0.0}, "partial"),
        ({"left_arm": 0.0, "right_arm": 0.0}, "partial"),
        ({"torso": 0.5}, "partial"),
    ],
)
def test_coverage(shares: dict[str, float], coverage: str) -> None:
    assert coverage_of(mask(**shares)) == coverage


@pytest.mark.parametrize("part", PART_NAMES[1:])
def test_an_unseen_limb_hides_its_own_joints_only(part: str) -> None:
    seen = mask(4, **{part: 0.5})
    hidden = unseen_joints(seen)
    assert not hidden[:2].any()
    others = {name for other, names in PARTS.items() if other != part for name in names}
    names = {SMPL_JOINTS[index] for index in np.flatnonzero(hidden[2])}
    assert set(PARTS[part]) - others <= names
    assert names - set(PARTS[part]) <= {part.replace("arm", "hand")}
    confidence = seen_confidence(np.ones((4, 24), np.float32), seen)
    assert (confidence == ~hidden).all()
    contacts = seen_contacts(np.ones((4, 4), np.uint8), seen)
    assert contacts[2:].sum() == (4 if part.endswith("leg") else 8)
    points = [name for name, visible in zip(COCO_KEYPOINTS, seen_keypoints(seen)[3], strict=True) if not visible]
    joints = ("elbow", "wrist") if part.endswith("arm") else ("knee", "ankle")
    assert points == [f"{part.split('_')[0]}_{name}" for name in joints]
    assert set(seen_parts(seen)) == set(PARTS) - {part}
    assert not mask_problems(seen, confidence, contacts)


def changed(members: dict[str, bytes], *, meta: dict | None = None, **arrays: np.ndarray | None) -> dict[str, bytes]:
    motion = {**decode_npz(members["motion.npz"]), **arrays}
    text = {
        key: value for key, value in {**json.loads(members["meta.json"]), **(meta or {})}.items() if value is not None
    }
    kept = {name: array for name, array in motion.items() if array is not None}
    return {**members, "motion.npz": encode_npz(kept), "meta.json": encode_json(text)}


def test_samples_of_version_1_are_read_as_seen_all_over() -> None:
    sample = make_sample("mocap", 0)
    assert not sample_problems(sample.key, sample.members, "mocap")
    old = changed(sample.members, meta={"version": None, "coverage": None}, seen=None)
    assert not sample_problems(sample.key, old, "mocap")
    assert decode_motion(old["motion.npz"]).seen.all()
    np.testing.assert_array_equal(
        decode_motion(sample.members["motion.npz"]).seen, decode_motion(old["motion.npz"]).seen
    )


def test_a_mask_that_contradicts_its_sample_is_a_problem() -> None:
    sample = make_sample("mocap", 0)
    frames = len(decode_npz(sample.members["motion.npz"])["poses"])
    upper, seen = mask(frames, left_leg=0.0, right_leg=0.0), all_seen(frames)
    for change, problem in (
        ({"seen": None}, "seen is missing"),
        ({"seen": seen[:, :4]}, "expected uint8"),
        ({"seen": seen[1:]}, "disagree on the number of frames"),
        ({"seen": seen * 2}, "seen holds 2"),
        ({"seen": upper}, "joint_confidence is not 0"),
        ({"seen": upper, "joint_confidence": np.zeros((frames, 24), np.float32)}, "contacts of unseen feet"),
        ({"seen": upper, "joint_confidence": np.zeros((frames, 24), np.float32), "contacts": np.zeros((frames, 4), np.uint8)},
         "coverage is 'whole', that of seen is upper"),
    ):  # fmt: skip
        problems = sample_problems(sample.key, changed(sample.members, **change), "mocap")
        assert any(problem in one for one in problems), (problem, problems)
    later = sample_problems(sample.key, changed(sample.members, meta={"version": 3}), "mocap")
    assert any("version 3, this humo reads 1 to 2" in one for one in later)
    with pytest.raises(HumoError, match="seen is uint8"):
        decode_motion(changed(sample.members, seen=seen[:, :4])["motion.npz"])
