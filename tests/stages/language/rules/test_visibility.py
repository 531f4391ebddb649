"""Arm movements of low confidence, or that copy the other arm, are not described."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from jaxtyping import Float

from schemas.body_model import BodyModel
from schemas.records import Captions
from schemas.skeleton import SMPL_JOINTS, joint, mirror_order
from stages.language.rules.rules import describe
from stages.language.rules.signals import smooth_path
from stages.language.rules.thresholds import Thresholds
from stages.synthesis.motions import LabelledMotion, generate, mirror

BODY = BodyModel.load()
SIDES = ("left", "right")


def captions_of(motion: LabelledMotion, confidence: Float[np.ndarray, "T 24"]) -> Captions:
    return describe(motion.rotations, motion.trans, BODY.rest_joints(motion.betas), confidence, Thresholds(), seed="s")


def confidence_of(motion: LabelledMotion, **arms: float) -> Float[np.ndarray, "T 24"]:
    """Confidences as given for elbow and wrist by side, 0.9 elsewhere."""
    confidence = np.full((len(motion), 24), 0.9)
    for side, value in arms.items():
        confidence[:, [joint(f"{side}_elbow"), joint(f"{side}_wrist")]] = value
    return confidence


def body_text(captions: Captions) -> str:
    return " ".join(captions.body)


@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize("action", ["wave_both", "raise_both"])
def test_both_hands_are_described_unless_one_has_lower_confidence(action: str, side: str) -> None:
    motion = generate(action, 4.0, 1, body=BODY)
    other = SIDES[1 - SIDES.index(side)]
    assert "both" in body_text(captions_of(motion, confidence_of(motion)))
    assert "both" in body_text(captions_of(motion, confidence_of(motion, left=0.5, right=0.5)))
    alone = captions_of(motion, confidence_of(motion, **{side: 0.5}))
    assert "both" not in body_text(alone)
    assert f"the {other} " in body_text(alone)
    assert f"the {side} " not in body_text(alone)
    assert alone.parts[f"{side}_arm"] == (f"The {side} arm is out of view.",)


def test_a_hidden_arm_is_described_if_visible_while_it_moves() -> None:
    motion = generate("raise_left", 4.0, 1, body=BODY)
    raised = next(event for event in captions_of(motion, confidence_of(motion)).events if event.kind == "raise")
    confidence = confidence_of(motion, left=0.05)
    first, last = round(raised.start_s * 30), round(raised.end_s * 30)
    confidence[first:last] = 0.9
    assert confidence[:, joint("left_wrist")].mean() < Thresholds().min_confidence
    assert "the left" in body_text(captions_of(motion, confidence))
    assert "the left" not in body_text(captions_of(motion, confidence_of(motion, left=0.05)))


def test_a_swinging_arm_does_not_suppress_a_waving_one() -> None:
    motion = generate("walk_wave_left", 4.0, 1, body=BODY)
    captions = captions_of(motion, confidence_of(motion, left=0.5))
    assert "the left hand" in body_text(captions)
    # The other arm swings with the gait: only its own sentences mention this, not those about the body.
    assert "right" not in body_text(captions)
    assert "swing" in " ".join(captions.parts["right_arm"])


def test_visibility_is_symmetric() -> None:
    motion = generate("raise_both", 4.0, 2, body=BODY)
    confidence = confidence_of(motion, left=0.45, right=0.8)
    mirrored = captions_of(mirror(motion), confidence[:, list(mirror_order(SMPL_JOINTS))])
    swapped = [text.replace("left", "X").replace("right", "left").replace("X", "right") for text in mirrored.body]
    assert swapped == list(captions_of(motion, confidence).body)


def test_slow_kicks_of_a_standing_person_and_short_punches_are_detected() -> None:
    """As recovered from video: smaller and slower than the true movement."""
    for action, kind in (("kick_right", "kick"), ("punch_right", "punch")):
        motion = generate(action, 4.0, 3, body=BODY)
        blurred = _blurred(motion, 2.5)
        events = captions_of(blurred, confidence_of(motion)).events
        assert {event.part.split("_")[0] for event in events if event.kind == kind} == {"right"}


def _blurred(motion: LabelledMotion, sigma: float) -> LabelledMotion:
    smooth = torch.from_numpy(smooth_path(motion.rotations.numpy().astype(np.float64), sigma))
    left, _, right = torch.linalg.svd(smooth)
    return replace(motion, rotations=(left @ right).float())
