"""Postures, activities and hand movements, on motions posed joint by joint."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from schemas.body_model import BodyModel
from schemas.rotations import axis_angle_to_matrix
from schemas.skeleton import joint
from stages.language.rules.rules import describe
from stages.language.rules.thresholds import Thresholds
from stages.synthesis.motions import LabelledMotion, generate

BODY = BodyModel.load()
SECONDS = 4.0
FRAMES = round(SECONDS * 30)
T = torch.arange(FRAMES) / 30


def about(axis: str, angle: torch.Tensor | float) -> torch.Tensor:
    """Rotation by an angle over time about x, y or z."""
    vector = torch.zeros(FRAMES, 3)
    vector[:, "xyz".index(axis)] = torch.as_tensor(angle, dtype=torch.float32)
    return axis_angle_to_matrix(vector)


def posed(**joints: torch.Tensor) -> LabelledMotion:
    """A standing body with the given local rotations of joints."""
    still = generate("stand", SECONDS, 0, body=BODY)
    rotations = still.rotations.clone()
    for name, rotation in joints.items():
        rotations[:, joint(name)] = rotation
    return replace(still, rotations=rotations)


def kinds(motion: LabelledMotion, **hidden: float) -> set[str]:
    confidence = np.ones((len(motion), 24))
    for name, value in hidden.items():
        confidence[:, joint(name)] = value
    captions = describe(
        motion.rotations, motion.trans, BODY.rest_joints(motion.betas), confidence, Thresholds(), seed="s"
    )
    assert all(captions.body)
    return {event.kind if event.part == "body" else f"{event.kind}:{event.part}" for event in captions.events}


def rise_and_fall(begin_s: float, end_s: float) -> torch.Tensor:
    """0, from `begin_s` to `end_s` up to 1 and back, then 0."""
    phase = ((T - begin_s) / (end_s - begin_s)).clamp(0, 1)
    return (1 - torch.cos(2 * np.pi * phase)) / 2


def test_kneeling_is_no_sitting_and_needs_visible_legs() -> None:
    bent = {
        f"{side}_{name}": about("x", angle)
        for side in ("left", "right")
        for name, angle in (("knee", 1.57), ("ankle", 0.9))
    }
    motion = posed(**bent, left_hip=about("x", 0.0), right_hip=about("x", 0.0))
    assert "kneel" in kinds(motion)
    assert not kinds(motion) & {"sit", "stand", "squat"}
    legs = {f"{side}_{name}": 0.05 for side in ("left", "right") for name in ("knee", "ankle", "foot")}
    assert "kneel" not in kinds(motion, **legs)


def test_bent_legs_do_not_stand() -> None:
    bent = {
        f"{side}_{name}": about("x", angle)
        for side in ("left", "right")
        for name, angle in (("knee", 1.0), ("hip", -0.5))
    }
    assert "stand" not in kinds(posed(**bent))
    assert "stand" in kinds(posed())


def leaning(angle: torch.Tensor) -> dict[str, torch.Tensor]:
    """The pelvis pitched forwards, the legs vertical."""
    return {"pelvis": about("x", angle), "left_hip": about("x", -angle), "right_hip": about("x", -angle)}


def test_a_bow_comes_back_up_and_a_kept_lean_is_none() -> None:
    assert "bow" in kinds(posed(**leaning(0.8 * rise_and_fall(0.5, 3.0))))
    kept = 0.8 * ((T - 0.5) / 1.5).clamp(0, 1)
    assert "bow" not in kinds(posed(**leaning(kept)))


def test_hands_that_reach_the_ground_pick_up() -> None:
    down = 2.0 * rise_and_fall(0.5, 3.5)
    arms = {
        "left_shoulder": about("x", -down) @ about("z", -1.4),
        "right_shoulder": about("x", -down) @ about("z", 1.4),
    }
    found = kinds(posed(**leaning(down), **arms))
    assert "pick_up" in found
    assert "bow" not in found


def overhead() -> dict[str, torch.Tensor]:
    straight = {
        f"{side}_{name}": about("x", 0.0) for side in ("left", "right") for name in ("collar", "elbow", "wrist")
    }
    return {"left_shoulder": about("z", 1.5), "right_shoulder": about("z", -1.5), **straight}


def test_a_handstand_is_no_tumble() -> None:
    found = kinds(posed(**overhead(), pelvis=about("x", np.pi)))
    assert "handstand" in found
    assert not found & {"flip", "roll", "cartwheel", "stand", "lie"}


def pedalling(radius_m: float) -> LabelledMotion:
    rest = BODY.rest_joints(posed().betas)
    joints = {}
    for side, phase in (("left", 0.0), ("right", np.pi)):
        hip, knee, ankle = (rest[joint(f"{side}_{name}")] for name in ("hip", "knee", "ankle"))
        thigh, shank = float((knee - hip).norm()), float((ankle - knee).norm())
        angle = 2 * np.pi * T * 1.2 + phase
        z, y = 0.2 + radius_m * torch.sin(angle), -0.72 * (thigh + shank) + radius_m * torch.cos(angle)
        distance = torch.hypot(z, y)
        flexion = np.pi - torch.arccos((thigh**2 + shank**2 - distance**2) / (2 * thigh * shank))
        raised = torch.atan2(z, -y) + torch.arccos((thigh**2 + distance**2 - shank**2) / (2 * thigh * distance))
        joints |= {f"{side}_hip": about("x", -raised), f"{side}_knee": about("x", flexion)}
    return posed(**joints)


def test_legs_that_turn_a_crank_ride_and_do_not_run() -> None:
    motion = pedalling(0.15)
    moving = replace(motion, trans=motion.trans + torch.stack([0 * T, 0 * T, 3.0 * T], -1))
    for found in (kinds(motion), kinds(moving)):
        assert "ride" in found
        assert "run" not in found
    assert "ride" not in kinds(pedalling(0.01))


@pytest.mark.parametrize(("closed_rad", "claps"), [(1.87, True), (1.6, False)])
def test_hands_that_meet_twice_clap(closed_rad: float, claps: bool) -> None:
    angle = closed_rad - 0.2 + 0.2 * torch.sin(2 * np.pi * 1.5 * T)
    straight = {
        f"{side}_{name}": about("x", 0.0) for side in ("left", "right") for name in ("collar", "elbow", "wrist")
    }
    found = kinds(posed(left_shoulder=about("y", -angle), right_shoulder=about("y", angle), **straight))
    assert ({"clap:left_arm", "clap:right_arm"} <= found) == claps
