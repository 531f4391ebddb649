"""Nothing is said about parts that nobody saw."""

import re
from dataclasses import replace

import numpy as np
import pytest

from schemas.body_model import BodyModel
from schemas.coverage import LEFT_ARM, LEFT_LEG, PART_NAMES, all_seen
from schemas.records import Captions, DescriberUsage
from schemas.skeleton import PARTS, swap_sides
from stages.language.describers.merging import merge_answer
from stages.language.describers.protocol import Answer
from stages.language.rules.rules import describe
from stages.language.rules.thresholds import Thresholds
from stages.synthesis.motions import LabelledMotion, generate, mirror

BODY = BodyModel.load()
LEGS = re.compile(
    r"\b(stand|walk|run|jog|step|sit|seat|squat|crouch|jump|leap|bow|hip|kick|leg|foot|feet|knee|crawl|lie|lying|spot|place)"
)


def captions_of(motion: LabelledMotion, seen: np.ndarray | None) -> Captions:
    rest, confidence = BODY.rest_joints(motion.betas), np.ones((len(motion), 24))
    return describe(motion.rotations, motion.trans, rest, confidence, Thresholds(), seed="s", seen=seen)


def upper(frames: int) -> np.ndarray:
    seen = all_seen(frames)
    seen[:, LEFT_LEG:] = 0
    return seen


@pytest.mark.parametrize(
    "action", ["walk", "squat", "jump", "kick_left", "bow", "wave_left", "walk_wave_left", "punch_right"]
)
def test_an_upper_body_has_no_legs(action: str) -> None:
    motion = generate(action, 4.0, 1, body=BODY)
    captions = captions_of(motion, upper(len(motion)))
    assert {event.part for event in captions.events} <= {"body", "torso", "left_arm", "right_arm"}
    assert any(event.part == "body" for event in captions.events)
    assert not LEGS.search(" ".join(captions.body)), captions.body
    for side in ("left", "right"):
        assert captions.parts[f"{side}_leg"] == (f"The {side} leg is out of view.",)
    if "wave" in action:
        assert any(event.kind == "wave" for event in captions.events)
        assert "wav" in captions.body[0]
    whole = captions_of(motion, all_seen(len(motion)))
    assert whole == captions_of(motion, None)
    for part in ("left_arm", "right_arm", "torso"):
        assert captions.parts[part] == whole.parts[part]


def test_only_the_time_in_view_is_told() -> None:
    motion = generate("walk", 6.0, 1, body=BODY)
    seen = all_seen(len(motion))
    seen[90:, LEFT_LEG:] = 0
    captions = captions_of(motion, seen)
    walks = [event for event in captions.events if event.kind == "walk"]
    whole = [event for event in captions_of(motion, None).events if event.kind == "walk"]
    assert [round(event.end_s, 1) for event in walks] == [3.0]
    assert walks[0].amount == pytest.approx(
        whole[0].amount * (walks[0].end_s - walks[0].start_s) / (whole[0].end_s - whole[0].start_s), abs=0.01
    )
    steps = [event for event in captions.events if event.part.endswith("_leg")]
    assert steps
    assert max(event.end_s for event in steps) < 3.2
    assert not any(event.kind == "rest" for event in steps)


def test_an_arm_swings_for_as_long_as_it_is_in_view() -> None:
    motion = generate("walk", 6.0, 1, body=BODY)
    seen = all_seen(len(motion))
    seen[90:, LEFT_ARM] = 0
    (whole,) = (e for e in captions_of(motion, None).events if (e.part, e.kind) == ("left_arm", "swing"))
    (swing,) = (e for e in captions_of(motion, seen).events if (e.part, e.kind) == ("left_arm", "swing"))
    assert whole.end_s > 4.5
    assert (swing.start_s, swing.end_s) == (whole.start_s, pytest.approx(3.0, abs=0.05))
    assert swing.amount == whole.amount
    seen[10:, LEFT_ARM] = 0
    assert not any(e.part == "left_arm" for e in captions_of(motion, seen).events)


def test_a_posture_needs_both_legs_and_a_gait_one() -> None:
    for action, told in (("walk", True), ("squat", False)):
        motion = generate(action, 4.0, 1, body=BODY)
        seen = all_seen(len(motion))
        seen[:, LEFT_LEG] = 0
        assert any(event.kind == action for event in captions_of(motion, None).events)
        assert any(event.kind == action for event in captions_of(motion, seen).events) == told
        assert not any(event.kind == "stand" for event in captions_of(motion, seen).events)


def test_a_movement_of_an_arm_that_was_hidden_meanwhile_is_not_told() -> None:
    motion = generate("wave_left", 4.0, 1, body=BODY)
    wave = next(event for event in captions_of(motion, None).events if event.kind == "wave")
    seen = all_seen(len(motion))
    seen[round(wave.start_s * 30) + 5 : round(wave.end_s * 30) - 5, LEFT_ARM] = 0
    captions = captions_of(motion, seen)
    assert not any(event.kind == "wave" for event in captions.events)
    assert "wav" not in " ".join(captions.body)
    if not any(event.part == "left_arm" for event in captions.events):
        assert captions.parts["left_arm"] == ("The left arm is partly out of view.",)


def test_mirrored_masks_mirror_the_text() -> None:
    motion = generate("wave_left", 4.0, 1, body=BODY)
    seen = all_seen(len(motion))
    seen[:, [PART_NAMES.index(part) for part in ("right_arm", "right_leg")]] = 0
    swapped = seen[:, [PART_NAMES.index(swap_sides(part)) for part in PARTS]]
    one, other = captions_of(motion, seen), captions_of(mirror(motion), swapped)
    for text, mirrored in zip(one.body, other.body, strict=True):
        assert mirrored == re.sub("left|right", lambda match: {"left": "right", "right": "left"}[match.group()], text)


@pytest.mark.parametrize(
    ("level", "text", "kept"),
    [
        ("body", "A woman stands at the stove.", False),
        ("body", "She steps back with both feet.", False),
        ("left_leg", "It bends.", False),
        ("body", "A woman shakes a pan.", True),
        ("left_arm", "It holds a pan.", True),
    ],
)
def test_a_describer_cannot_tell_either(level: str, text: str, kept: bool) -> None:
    motion = generate("wave_left", 3.0, 1, body=BODY)
    rules = captions_of(motion, upper(len(motion)))
    answer = Answer(usage=DescriberUsage(describer="eye 1"), sentences={level: (text,)})
    merged = merge_answer(rules, answer)
    assert [one.verdict != "rejected" for one in merged.added] == [kept]
    if not kept:
        assert "not seen" in merged.added[0].evidence
    # Of a whole body the same is not rejected for that reason.
    whole = merge_answer(replace(captions_of(motion, None)), answer)
    assert "not seen" not in whole.added[0].evidence
