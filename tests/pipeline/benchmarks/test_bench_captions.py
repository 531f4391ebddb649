"""The benchmark of captions: what file names ask for, what counts as right, and the whole of it on made-up motions."""

import json

import numpy as np
import pytest

from pipeline.benchmarks.captions import (
    CLEAN,
    MIRRORED,
    NOISY,
    arms_named,
    as_if_recovered,
    bench,
    bench_text,
    mirrored_motion,
    told_side,
)
from pipeline.benchmarks.captions import _made_up as made_up
from pipeline.benchmarks.labelled_mocap import Expected, expected_of, expected_of_action
from schemas.body_model import BodyModel
from schemas.errors import UsageError
from schemas.records import Captions, Event
from stages.synthesis.motions import ACTIONS


def test_names_of_the_known_collections_say_what_is_done() -> None:
    raised = expected_of("dataset-2_raise-up-left-hand_not-confident_004")
    assert raised is not None
    assert raised.kinds == (frozenset({"raise:left_arm"}),)
    assert {"raise:right_arm", "wave:right_arm"} == raised.never
    assert raised.arms == {"left_arm"}
    both = expected_of("dataset-2_wave-both-hands_active_001")
    assert both is not None
    assert both.arms == {"left_arm", "right_arm"}
    assert not both.never
    for stem, group in (("humanoid3d_long_walk2", "long_walk"), ("train_walking_12", "walking"), ("02_03", "running")):
        found = expected_of(stem)
        assert found is not None
        assert found.group == group
    assert expected_of("holiday") is None


def test_mirroring_what_is_asked_for_twice_gives_it_back() -> None:
    asked: list[Expected] = [expected_of_action(action) for action in ACTIONS]
    turn = expected_of("dataset-2_walk-turn-left_active_001")
    diagonal = expected_of("dataset-1_walk-left_active_001")
    assert turn is not None
    assert diagonal is not None
    assert frozenset({"turn_right"}) in turn.mirrored().kinds
    assert frozenset({"sidestep_right", "walk>right"}) in diagonal.mirrored().kinds
    for one in (*asked, turn, diagonal):
        assert one.mirrored().mirrored() == one


def test_arms_are_found_in_sentences() -> None:
    assert arms_named("A person lifts the left hand and kicks with the right foot.") == {"left_arm"}
    assert arms_named("Someone waves with both hands.") == {"left_arm", "right_arm"}
    assert arms_named("Someone turns to the left.") == frozenset()


def test_changes_keep_the_motion_apart_from_what_they_change() -> None:
    body = BodyModel.load()
    (take,) = made_up(1, body)
    (motion,) = take.motions
    twice = mirrored_motion(mirrored_motion(motion))
    assert np.array_equal(twice.poses, motion.poses)
    assert np.array_equal(twice.trans, motion.trans)
    off = as_if_recovered(motion, body)
    assert off.id == motion.id
    assert np.array_equal(off.poses, as_if_recovered(motion, body).poses)
    assert not np.allclose(off.poses, motion.poses, atol=0.02)


def test_made_up_motions_are_described_rightly_and_mirrored_to_the_letter() -> None:
    found = bench(clips=8)
    assert found["mirrored_text"] == 1.0
    for setting, least in ((CLEAN, 0.95), (MIRRORED, 0.95), (NOISY, 0.8)):
        assert np.mean([row["right"] for row in found["accuracy"][setting].values()]) >= least, found["wrong"][setting]
    assert found["text"]["words_short"] < found["text"]["words_long"]
    assert 0 < found["text"]["distinct_1"] < found["text"]["distinct_2"] <= 1
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    assert "walk_turn_left" in bench_text(found)


def test_misuse_is_told(tmp_path) -> None:
    with pytest.raises(UsageError, match="holds no motion capture"):
        bench(mocap=str(tmp_path))
    with pytest.raises(UsageError, match="--clips -1"):
        bench(clips=-1)


def test_sides_that_captions_tell_are_held_against_the_action() -> None:
    def told(sentence: str, *events: tuple[str, str, str]) -> list[Captions]:
        found = tuple(
            Event(part=part, joint="", kind=kind, side=side, start_s=0, end_s=1, amount=1, speed=1, text="")
            for part, kind, side in events
        )
        return [Captions(body=(sentence,), parts={}, events=found, writers={})]

    wave, kick, turn = (expected_of_action(action) for action in ("wave_left", "kick_right", "walk_turn_left"))
    assert told_side(wave, told("A person waves with the left hand.")) == "right"
    assert told_side(wave, told("A person raises the right arm.")) == "exchanged"
    assert told_side(wave, told("A person waves with both hands.")) == "both"
    assert told_side(wave, told("A person stands.")) == "neither"
    assert told_side(kick, told("", ("right_leg", "kick", "right"))) == "right"
    assert told_side(kick, told("", ("left_leg", "kick", "left"))) == "exchanged"
    assert told_side(kick, told("A person lifts the right foot.")) == "right"
    assert told_side(kick, told("A person swings the left leg.", ("right_leg", "kick", "right"))) == "both"
    assert told_side(turn, told("", ("body", "walk", "none"), ("body", "turn_right", "right"))) == "exchanged"
    assert told_side(turn, told("", ("body", "walk", "none"))) == "neither"
