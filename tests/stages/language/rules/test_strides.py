"""Ways of people whom a camera follows, who are carried, or who walk on a treadmill: the legs tell how sure a way is."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from schemas.body_model import BodyModel
from schemas.records import Captions
from stages.language.rules.rules import describe
from stages.language.rules.thresholds import Thresholds
from stages.synthesis.motions import LabelledMotion, generate

BODY = BodyModel.load()
WAYS = {"walk", "walk_backward", "sidestep_left", "sidestep_right", "run", "crawl"}


def captions_of(motion: LabelledMotion) -> Captions:
    rest, confidence = BODY.rest_joints(motion.betas), np.ones((len(motion), 24))
    return describe(motion.rotations, motion.trans, rest, confidence, Thresholds(), seed="s")


def ways(captions: Captions) -> set[str]:
    return {event.kind for event in captions.events if event.part == "body"} & WAYS


def moved(motion: LabelledMotion, share: float, mps: tuple[float, float] = (0.0, 0.0)) -> LabelledMotion:
    """The motion with its way over the ground scaled, and with a velocity along x and z added: a wrong estimate of the way."""
    trans = motion.trans.clone()
    trans[:, [0, 2]] = share * trans[:, [0, 2]] + torch.arange(len(motion))[:, None] / 30 * torch.tensor(mps)
    return replace(motion, trans=trans)


@pytest.mark.parametrize("share", [0.0, -0.5])
def test_legs_that_walk_are_told_without_a_way_that_they_do_not_go(share: float) -> None:
    motion = generate("walk", 4.0, 2, body=BODY)
    told = captions_of(motion)
    assert any("metre" in sentence for sentence in told.body)
    captions = captions_of(moved(motion, share))
    assert ways(captions) == {"walk"}
    assert not any(
        word in sentence for sentence in captions.body for word in ("metre", "backward", "forward", "slowly")
    )


@pytest.mark.parametrize("mps", [(0.0, 1.0), (0.0, -0.8), (0.9, 0.0)])
def test_who_is_carried_neither_walks_nor_steps(mps: tuple[float, float]) -> None:
    captions = captions_of(moved(generate("stand", 4.0, 2, body=BODY), 1.0, mps))
    assert not ways(captions)


def test_steps_back_of_a_turn_are_no_walk() -> None:
    motion = generate("turn_left", 4.0, 3, body=BODY)
    captions = captions_of(moved(motion, 1.0, (0.0, -0.2)))
    assert "turn_left" in {event.kind for event in captions.events}
    assert not ways(captions)


@pytest.mark.parametrize("action", ["walk_backward", "side_step_left", "side_step_right"])
def test_steps_back_and_aside_are_told_of_legs_that_make_them(action: str) -> None:
    assert ways(captions_of(generate(action, 4.0, 4, body=BODY))) == {action.replace("side_step", "sidestep")}
