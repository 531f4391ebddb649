"""Postures, activities and hand movements, on motions posed joint by joint."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from schemas.body_model import BodyModel
from schemas.kinematics import forward_kinematics
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
    motion = posed(left_shoulder=about("y", -angle), right_shoulder=about("y", angle), **straight)
    assert ({"clap:left_arm", "clap:right_arm"} <= kinds(motion)) == claps
    # A hidden hand is easily placed onto the visible one.
    assert not {"clap:left_arm", "clap:right_arm"} & kinds(motion, left_elbow=0.35, left_wrist=0.35)


def moving(motion: LabelledMotion, x: torch.Tensor, y: torch.Tensor, z: torch.Tensor) -> LabelledMotion:
    """The motion with a path of the root added, metres."""
    return replace(motion, trans=motion.trans + torch.stack([x, y, z], -1).float())


def test_swinging_below_fixed_hands_is_hanging() -> None:
    body = posed(**overhead(), pelvis=about("x", 0.35 * torch.sin(2 * np.pi * T / 1.6)))
    joints, _ = forward_kinematics(body.rotations, BODY.rest_joints(body.betas), body.trans)
    hands = (joints[:, joint("left_wrist")] + joints[:, joint("right_wrist")]) / 2
    hanging = replace(body, trans=body.trans + hands[:1] - hands + torch.tensor([0.0, 1.0, 0.0]))
    found = kinds(hanging)
    assert "hang" in found
    assert not found & {"wave:left_arm", "wave:right_arm", "jump", "walk"}
    assert "hang" not in kinds(posed(**overhead())), "who stretches does not hang"


def climbing(rise_m: float) -> LabelledMotion:
    """Hands above the head and knees lifted in turn, the body rising steadily."""
    joints = overhead()
    for side, phase in (("left", 0.0), ("right", np.pi)):
        bent = 0.6 * (1 - torch.cos(2 * np.pi * T / 2.0 + phase))
        joints |= {f"{side}_hip": about("x", -bent), f"{side}_knee": about("x", 1.6 * bent)}
    return moving(posed(**joints), 0 * T, rise_m * T / SECONDS, 0 * T)


def test_a_body_that_hands_and_knees_lift_climbs() -> None:
    assert "climb" in kinds(climbing(1.5))
    assert "climb" not in kinds(climbing(0.0))


def dancing(beat_s: float, way_m: float) -> LabelledMotion:
    """Steps from side to side on a beat, the arms swinging along."""
    beat = torch.sin(2 * np.pi * T / beat_s)
    joints = {}
    for side, sign in (("left", 1.0), ("right", -1.0)):
        lifted = (sign * beat).clamp(min=0)
        joints |= {
            f"{side}_hip": about("x", -0.9 * lifted) @ about("z", 0.25 * beat),
            f"{side}_knee": about("x", 1.5 * lifted),
            f"{side}_shoulder": about("x", 0.9 * sign * beat) @ about("z", -1.2 * sign),
        }
    return moving(posed(**joints), 0.16 * beat, 0 * T, way_m * T / SECONDS)


def test_steps_on_a_beat_that_lead_nowhere_are_a_dance() -> None:
    found = kinds(dancing(1.0, 0.0))
    assert "dance" in found
    assert not found & {"wave:left_arm", "wave:right_arm", "punch:left_arm", "punch:right_arm", "run"}
    assert "dance" not in kinds(dancing(1.0, 5.0))
    assert "dance" not in kinds(generate("walk", SECONDS, 1, body=BODY))


def throwing(whip_s: float) -> LabelledMotion:
    """The right hand behind and above the shoulder, then forwards and down within `whip_s`, the elbow straightening."""
    whip = (1 - torch.cos(np.pi * ((T - 1.5) / whip_s).clamp(0, 1))) / 2
    drawn = (1 - torch.cos(np.pi * ((T - 0.3) / 0.8).clamp(0, 1))) / 2
    raised = drawn * (1 - whip)
    turned = about("y", 1.2 * whip - 1.2 * raised) @ about("z", 1.35 * (1 - drawn) + 0.3 * whip)
    return posed(right_shoulder=turned @ about("x", -1.5 * raised), right_elbow=about("y", 0.2 + raised))


def test_a_whipped_hand_throws_and_a_slow_one_does_not() -> None:
    assert "throw:right_arm" in kinds(throwing(0.3))
    assert "throw:right_arm" not in kinds(throwing(1.6))


def at_the_face(raised: torch.Tensor) -> LabelledMotion:
    """The right hand between hanging (0) and the mouth (1)."""
    shoulder = about("y", 0.9 * raised) @ about("z", 1.35 - 1.95 * raised) @ about("x", -0.6 * raised)
    return posed(right_shoulder=shoulder, right_elbow=about("y", 0.2 + 1.8 * raised))


def test_a_hand_that_stays_at_the_face_is_told_there() -> None:
    hold = ((T - 0.5) / 0.5).clamp(0, 1) - ((T - 3.0) / 0.5).clamp(0, 1)
    assert "hand_to_face:right_arm" in kinds(at_the_face(hold))
    passing = ((T - 0.5) / 0.5).clamp(0, 1) - ((T - 1.1) / 0.5).clamp(0, 1)
    assert "hand_to_face:right_arm" not in kinds(at_the_face(passing))


def test_a_leg_that_is_held_out_is_lifted_and_makes_no_step() -> None:
    out = rise_and_fall(0.5, 2.5)
    moved = moving(posed(right_hip=about("z", -0.9 * out)), 0 * T, 0 * T, 0.25 * ((T - 0.5) / 2).clamp(0, 1))
    found = kinds(moved)
    assert {"raise:right_leg", "lower:right_leg"} <= found
    assert "step:right_leg" not in found


@pytest.mark.parametrize("bounces", [1, 5])
def test_hops_on_something_soft_are_jumps(bounces: int) -> None:
    """The ground gives way and rises again: no landing is as low as the one before."""
    phase = (T / (SECONDS / bounces)) % 1.0
    height = 0.3 * torch.sin(np.pi * phase) + 0.15 * T / SECONDS + 0.05
    bent = 0.7 * torch.cos(np.pi * phase) ** 2
    joints = {
        f"{side}_{name}": about("x", factor * bent)
        for side in ("left", "right")
        for name, factor in (("hip", -1.0), ("knee", 2.0))
    }
    assert ("jump" in kinds(moving(posed(**joints), 0 * T, height, 0 * T))) == (bounces > 1)


@pytest.mark.parametrize(("lift_rad", "waves"), [(0.0, True), (0.12, True), (0.5, False)])
def test_a_wave_has_an_elbow_that_stays_and_a_wipe_the_whole_arm(lift_rad: float, waves: bool) -> None:
    motion = generate("wave_right", SECONDS, 3, body=BODY)
    rotations = motion.rotations.clone()
    arm = joint("right_shoulder")
    rotations[:, arm] = about("z", lift_rad * torch.sin(2 * np.pi * T / 1.3)) @ rotations[:, arm]
    assert ("wave:right_arm" in kinds(replace(motion, rotations=rotations))) == waves


def facing(yaw: torch.Tensor) -> LabelledMotion:
    still = generate("stand", SECONDS, 0, body=BODY)
    rotations = still.rotations.clone()
    rotations[:, 0] = about("y", yaw) @ rotations[:, 0]
    return replace(still, rotations=rotations)


def test_turns_that_are_undone_at_once_are_none() -> None:
    def away(begin_s: float, end_s: float) -> torch.Tensor:
        return 1.6 * (torch.sigmoid(12 * (T - begin_s)) - torch.sigmoid(12 * (T - end_s)))

    turns = {"turn_left", "turn_right"}
    assert not kinds(facing(away(0.8, 1.5) - away(1.7, 2.4) + away(2.6, 3.2))) & turns
    assert turns <= kinds(facing(away(0.8, 2.9)))
    assert kinds(facing(away(1.0, 9.0))) & turns == {"turn_left"}


def test_a_lean_on_the_way_is_no_bow() -> None:
    walk = generate("walk", SECONDS, 2, body=BODY)
    slow = torch.arange(FRAMES) // 3
    rotations = walk.rotations[slow].clone()
    for name, rotation in leaning(0.7 * rise_and_fall(1.0, 2.6)).items():
        rotations[:, joint(name)] = rotation @ rotations[:, joint(name)]
    found = kinds(replace(walk, rotations=rotations, trans=walk.trans[slow]))
    assert "walk" in found
    assert "bow" not in found
