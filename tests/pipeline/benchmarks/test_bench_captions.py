"""The caption benchmark: expectations from file names, the evaluation, and a whole run on synthetic motions."""

import json

import numpy as np
import pytest

from pipeline.benchmarks.captions import (
    CLEAN,
    MIRRORED,
    NOISY,
    add_recovery_noise,
    arms_named,
    bench,
    bench_text,
    mirrored_motion,
    stated_side,
)
from pipeline.benchmarks.captions import _synthetic_takes as synthetic_takes
from pipeline.benchmarks.labelled_mocap import Expected, expected_of, expected_of_action
from schemas.body_model import BodyModel
from schemas.errors import UsageError
from schemas.records import Captions, Event
from stages.synthesis.motions import ACTIONS


def test_expectations_from_file_names() -> None:
    raised = expected_of("dataset-2_raise-up-left-hand_not-confident_004")
    assert raised is not None
    assert raised.kinds == (frozenset({"raise:left_arm"}),)
    assert {"raise:right_arm", "wave:right_arm"} == raised.forbidden
    assert raised.arms == {"left_arm"}
    both = expected_of("dataset-2_wave-both-hands_active_001")
    assert both is not None
    assert both.arms == {"left_arm", "right_arm"}
    assert not both.forbidden
    for stem, group in (("humanoid3d_long_walk2", "long_walk"), ("train_walking_12", "walking"), ("02_03", "running")):
        expectation = expected_of(stem)
        assert expectation is not None
        assert expectation.group == group
    assert expected_of("holiday") is None


def test_mirroring_an_expectation_twice_is_the_identity() -> None:
    expectations: list[Expected] = [expected_of_action(action) for action in ACTIONS]
    turn = expected_of("dataset-2_walk-turn-left_active_001")
    diagonal = expected_of("dataset-1_walk-left_active_001")
    assert turn is not None
    assert diagonal is not None
    assert frozenset({"turn_right"}) in turn.mirrored().kinds
    assert frozenset({"sidestep_right", "walk>right"}) in diagonal.mirrored().kinds
    for one in (*expectations, turn, diagonal):
        assert one.mirrored().mirrored() == one


def test_arms_named_in_sentences() -> None:
    assert arms_named("A person lifts the left hand and kicks with the right foot.") == {"left_arm"}
    assert arms_named("Someone waves with both hands.") == {"left_arm", "right_arm"}
    assert arms_named("Someone turns to the left.") == frozenset()


def test_transforms_are_deterministic_and_invertible() -> None:
    body = BodyModel.load()
    (take,) = synthetic_takes(1, body)
    (motion,) = take.motions
    twice = mirrored_motion(mirrored_motion(motion))
    assert np.array_equal(twice.poses, motion.poses)
    assert np.array_equal(twice.trans, motion.trans)
    noisy = add_recovery_noise(motion, body)
    assert noisy.id == motion.id
    assert np.array_equal(noisy.poses, add_recovery_noise(motion, body).poses)
    assert not np.allclose(noisy.poses, motion.poses, atol=0.02)


def test_synthetic_motions_get_right_and_mirrored_captions() -> None:
    report = bench(clips=8)
    assert report["mirrored_text"] == 1.0
    for setting, min_share in ((CLEAN, 0.95), (MIRRORED, 0.95), (NOISY, 0.8)):
        shares = [row["right"] for row in report["accuracy"][setting].values()]
        assert np.mean(shares) >= min_share, report["wrong"][setting]
    assert report["text"]["words_short"] < report["text"]["words_long"]
    assert 0 < report["text"]["distinct_1"] < report["text"]["distinct_2"] <= 1
    assert json.loads(json.dumps(report, allow_nan=False)) == report
    assert "walk_turn_left" in bench_text(report)


def test_invalid_arguments_are_rejected(tmp_path) -> None:
    with pytest.raises(UsageError, match="holds no motion capture"):
        bench(mocap=str(tmp_path))
    with pytest.raises(UsageError, match="--clips -1"):
        bench(clips=-1)


def test_stated_sides_are_compared_with_the_action() -> None:
    def captions_of(sentence: str, *events: tuple[str, str, str]) -> list[Captions]:
        all_events = tuple(
            Event(part=part, joint="", kind=kind, side=side, start_s=0, end_s=1, amount=1, speed=1, text="")
            for part, kind, side in events
        )
        return [Captions(body=(sentence,), parts={}, events=all_events, writers={})]

    wave, kick, turn = (expected_of_action(action) for action in ("wave_left", "kick_right", "walk_turn_left"))
    assert stated_side(wave, captions_of("A person waves with the left hand.")) == "right"
    assert stated_side(wave, captions_of("A person raises the right arm.")) == "exchanged"
    assert stated_side(wave, captions_of("A person waves with both hands.")) == "both"
    assert stated_side(wave, captions_of("A person stands.")) == "neither"
    assert stated_side(kick, captions_of("", ("right_leg", "kick", "right"))) == "right"
    assert stated_side(kick, captions_of("", ("left_leg", "kick", "left"))) == "exchanged"
    assert stated_side(kick, captions_of("A person lifts the right foot.")) == "right"
    assert stated_side(kick, captions_of("A person swings the left leg.", ("right_leg", "kick", "right"))) == "both"
    assert stated_side(turn, captions_of("", ("body", "walk", "none"), ("body", "turn_right", "right"))) == "exchanged"
    assert stated_side(turn, captions_of("", ("body", "walk", "none"))) == "neither"
