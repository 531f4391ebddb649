"""Movements of arms that were hardly seen, or that copy what the other arm does, are not told as if they had been seen."""

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


def seen(motion: LabelledMotion, **arms: float) -> Float[np.ndarray, "T 24"]:
    """Confidence of elbow and wrist by side, 0.9 elsewhere."""
    confidence = np.full((len(motion), 24), 0.9)
    for side, value in arms.items():
        confidence[:, [joint(f"{side}_elbow"), joint(f"{side}_wrist")]] = value
    return confidence


def told(captions: Captions) -> str:
    return " ".join(captions.body)


@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize("action", ["wave_both", "raise_both"])
def test_two_hands_are_told_unless_one_is_hardly_seen_beside_the_other(action: str, side: str) -> None:
    motion = generate(action, 4.0, 1, body=BODY)
    other = SIDES[1 - SIDES.index(side)]
    assert "both" in told(captions_of(motion, seen(motion)))
    assert "both" in told(captions_of(motion, seen(motion, left=0.5, right=0.5)))
    alone = captions_of(motion, seen(motion, **{side: 0.5}))
    assert "both" not in told(alone)
    assert f"the {other} " in told(alone)
    assert f"the {side} " not in told(alone)
    assert alone.parts[f"{side}_arm"] == (f"The {side} arm is out of view.",)


def test_a_hidden_arm_that_comes_into_sight_is_told() -> None:
    motion = generate("raise_left", 4.0, 1, body=BODY)
    raised = next(one for one in captions_of(motion, seen(motion)).events if one.kind == "raise")
    confidence = seen(motion, left=0.05)
    first, last = round(raised.start_s * 30), round(raised.end_s * 30)
    confidence[first:last] = 0.9
    assert confidence[:, joint("left_wrist")].mean() < Thresholds().min_confidence
    assert "the left" in told(captions_of(motion, confidence))
    assert "the left" not in told(captions_of(motion, seen(motion, left=0.05)))


def test_an_arm_that_swings_does_not_silence_the_one_that_waves() -> None:
    motion = generate("walk_wave_left", 4.0, 1, body=BODY)
    captions = captions_of(motion, seen(motion, left=0.5))
    assert "the left hand" in told(captions)
    # The other arm swings because somebody walks: its own sentences say so, those about the body do not.
    assert "right" not in told(captions)
    assert "swing" in " ".join(captions.parts["right_arm"])


def test_belief_knows_no_left_and_right() -> None:
    motion = generate("raise_both", 4.0, 2, body=BODY)
    confidence = seen(motion, left=0.45, right=0.8)
    mirrored = captions_of(mirror(motion), confidence[:, list(mirror_order(SMPL_JOINTS))])
    swapped = [text.replace("left", "X").replace("right", "left").replace("X", "right") for text in mirrored.body]
    assert swapped == list(captions_of(motion, confidence).body)


def test_slow_kicks_of_who_stands_and_shallow_punches_are_seen() -> None:
    """As a fit to a video shows them: less far and less quick than they were."""
    for action, kind in (("kick_right", "kick"), ("punch_right", "punch")):
        motion = generate(action, 4.0, 3, body=BODY)
        blurred = _blurred(motion, 2.5)
        events = captions_of(blurred, seen(motion)).events
        assert {one.part.split("_")[0] for one in events if one.kind == kind} == {"right"}


def _blurred(motion: LabelledMotion, sigma: float) -> LabelledMotion:
    smooth = torch.from_numpy(smooth_path(motion.rotations.numpy().astype(np.float64), sigma))
    left, _, right = torch.linalg.svd(smooth)
    return replace(motion, rotations=(left @ right).float())
