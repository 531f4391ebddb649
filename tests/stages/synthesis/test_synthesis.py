"""Synthetic people: plausible, correctly labelled and reproducible motions whose ground truth agrees with the images."""

import hashlib
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch

from schemas.body_model import BodyModel
from schemas.errors import HumoError
from schemas.kinematics import forward_kinematics
from schemas.rotations import heading_rad
from schemas.skeleton import CONTACT_POINTS, joint
from stages.synthesis import textures
from stages.synthesis.film import film
from stages.synthesis.motions import ACTIONS, MIN_SECONDS, LabelledMotion, generate, mirror, sequence
from stages.synthesis.outfit import Outfit
from stages.synthesis.renderer import Camera, Person, Renderer, Room

MOVING = tuple(name for name in ACTIONS if name.startswith(("walk", "run", "side_step", "turn")))
GROUNDED = (*MOVING, "kick_left", "jump", "squat", "stand", "bow")


@pytest.fixture(scope="module")
def body() -> BodyModel:
    return BodyModel.load()


def joints_of(motion: LabelledMotion, body: BodyModel) -> torch.Tensor:
    return forward_kinematics(motion.rotations, body.rest_joints(motion.betas), motion.trans)[0]


def soles_of(motion: LabelledMotion, body: BodyModel) -> torch.Tensor:
    joints, rotations = forward_kinematics(motion.rotations, body.rest_joints(motion.betas), motion.trans)
    return body.contact_rig().points(rotations, joints, motion.betas)


@pytest.mark.parametrize("action", GROUNDED)
def test_planted_feet_do_not_slide(action: str, body: BodyModel) -> None:
    for seed in range(3):
        motion = generate(action, 3.0, seed, body=body)
        soles = soles_of(motion, body)
        planted = motion.contacts[1:] & motion.contacts[:-1]
        assert planted.float().mean() > 0.12
        assert (soles[1:] - soles[:-1]).norm(dim=-1)[planted].max() < 0.0032
        # The round heel rolls: its contact point rises by up to a centimetre.
        assert soles[..., 1][motion.contacts].abs().max() < 0.015
        flat = motion.contacts.unflatten(1, (2, 2)).all(-1).repeat_interleave(2, dim=1)
        assert soles[..., 1][flat].abs().max() < 0.01
        vertices = body.vertices(motion.rotations[::6], motion.betas, motion.trans[::6])
        assert vertices[..., 1].min() > -0.012


@pytest.mark.parametrize("action", ACTIONS)
def test_motions_are_plausible(action: str, body: BodyModel) -> None:
    motion = generate(action, 3.0, 5, body=body)
    assert len(motion) == 90
    assert motion.seconds == pytest.approx(3.0)
    identity = motion.rotations @ motion.rotations.transpose(-1, -2)
    torch.testing.assert_close(identity, torch.eye(3).expand_as(identity), atol=1e-5, rtol=0)
    joints = joints_of(motion, body)
    assert joints[0, 0, [0, 2]].abs().max() < 1e-5
    assert abs(heading_rad(motion.rotations[:1, 0])) < 1e-5
    # No joint is faster than a kicking foot, and accelerations are limited.
    assert (joints[1:] - joints[:-1]).norm(dim=-1).max() * motion.fps < 11
    assert (joints[2:] - 2 * joints[1:-1] + joints[:-2]).norm(dim=-1).max() < 0.22
    for side in ("left", "right"):
        # Knees only flex: the shin rotates backwards relative to the thigh.
        thigh, shin = (global_rotations(motion, f"{side}_{name}") for name in ("hip", "knee"))
        bend = (thigh.transpose(-1, -2) @ shin)[:, 2, 1]
        assert bend.min() > -0.05
    assert all(0 <= label.start_s < label.end_s <= motion.seconds for label in motion.labels)


def global_rotations(motion: LabelledMotion, name: str) -> torch.Tensor:
    rest = torch.zeros(24, 3)
    return forward_kinematics(motion.rotations, rest, motion.trans)[1][:, joint(name)]


@pytest.mark.parametrize("side", ["left", "right"])
def test_waving_moves_the_hand_of_the_named_side(side: str, body: BodyModel) -> None:
    other = {"left": "right", "right": "left"}[side]
    motion = generate(f"wave_{side}", 4.0, 3, body=body)
    joints = joints_of(motion, body)
    spread = {s: joints[:, joint(f"{s}_wrist")].std(0).norm() for s in (side, other)}
    assert spread[side] > 0.2 > 10 * spread[other] * 0.5
    assert joints[60, joint(f"{side}_wrist"), 1] > joints[60, joint(f"{side}_shoulder"), 1]
    assert {(label.side, label.part) for label in motion.labels} == {(side, f"{side}_arm")}
    # The person's left is +X.
    assert (joints[0, joint(f"{side}_wrist"), 0] > 0) == (side == "left")


@pytest.mark.parametrize("action", ["walk_wave_left", "kick_right", "walk_turn_left"])
def test_mirroring_swaps_the_sides_and_is_its_own_inverse(action: str, body: BodyModel) -> None:
    motion = generate(action, 3.0, 1, body=body)
    mirrored = mirror(motion)
    restored = mirror(mirrored)
    torch.testing.assert_close(restored.rotations, motion.rotations)
    torch.testing.assert_close(restored.trans, motion.trans)
    assert restored.labels == motion.labels
    assert torch.equal(restored.contacts, motion.contacts)
    swapped = {"left": "right", "right": "left"}
    assert [label.side for label in mirrored.labels] == [swapped.get(label.side, label.side) for label in motion.labels]
    assert all("left" not in label.text for label in mirrored.labels if label.side == "right")
    joints, mirrored_joints = joints_of(motion, body), joints_of(mirrored, body)
    flipped = joints[:, joint("left_wrist")] * torch.tensor([-1.0, 1.0, 1.0])
    torch.testing.assert_close(mirrored_joints[:, joint("right_wrist")], flipped, atol=2e-3, rtol=0)


@pytest.mark.parametrize(("action", "sideways", "forwards"), [
    ("walk", 0, 1), ("run", 0, 1), ("walk_backward", 0, -1), ("side_step_left", 1, 0), ("side_step_right", -1, 0),
])  # fmt: skip
def test_gaits_move_in_their_direction(action: str, sideways: int, forwards: int, body: BodyModel) -> None:
    motion = generate(action, 4.0, 2, body=body)
    displacement = joints_of(motion, body)[-1, 0, [0, 2]]
    along = displacement @ torch.tensor([float(sideways), float(forwards)])
    assert along > 0.6
    assert along > 0.9 * displacement.norm()


def test_turns_change_the_heading_to_their_side(body: BodyModel) -> None:
    for action, sign in (("turn_left", 1), ("turn_right", -1), ("walk_turn_left", 1)):
        motion = generate(action, 4.0, 0, body=body)
        assert sign * heading_rad(motion.rotations[-1:, 0]).item() > 0.8


def test_a_jump_is_ballistic(body: BodyModel) -> None:
    motion = generate("jump", 3.0, 4, body=body)
    airborne = (~motion.contacts.any(1)).nonzero()[:, 0]
    first = airborne[: (torch.diff(airborne, append=airborne[-1:] + 9) > 1).nonzero()[0, 0] + 1]
    assert len(first) >= 6
    height = joints_of(motion, body)[first, 0, 1]
    acceleration = (height[2:] - 2 * height[1:-1] + height[:-2]) * motion.fps**2
    assert acceleration.mean() == pytest.approx(-9.81, abs=0.8)


def test_the_seed_determines_the_motion(body: BodyModel) -> None:
    one, same, other = (generate("walk", 2.0, seed, body=body) for seed in (1, 1, 2))
    assert torch.equal(one.rotations, same.rotations)
    assert torch.equal(one.betas, same.betas)
    assert not torch.equal(one.rotations, other.rotations)


def test_a_sequence_has_no_jumps(body: BodyModel) -> None:
    motion = sequence([("walk", 2.5), ("turn_left", 2.0), ("wave_right", 2.5), ("squat", 2.5)], 3, body=body)
    joints = joints_of(motion, body)
    assert (joints[2:] - 2 * joints[1:-1] + joints[:-2]).norm(dim=-1).max() < 0.2
    assert [label.kind for label in motion.labels] == ["walk", "turn", "wave", "squat"]
    assert [label.start_s for label in motion.labels] == sorted(label.start_s for label in motion.labels)


@pytest.mark.parametrize("action", ACTIONS)
def test_the_shortest_motions_are_finite(action: str, body: BodyModel) -> None:
    for seed in range(3):
        motion = generate(action, MIN_SECONDS, seed, body=body)
        assert torch.isfinite(torch.as_tensor(motion.rotations)).all()
        assert torch.isfinite(torch.as_tensor(motion.trans)).all()


def test_unknown_actions_and_short_durations_raise(body: BodyModel) -> None:
    with pytest.raises(HumoError, match=r"fly.*walk"):
        generate("fly", 3.0, 0, body=body)
    with pytest.raises(HumoError, match="too short"):
        generate("walk", 0.5, 0, body=body)


def test_people_are_rendered_where_they_project(body: BodyModel) -> None:
    motion = generate("raise_both", 2.0, 0, body=body)
    camera = Camera.look_at(np.array([0.8, 1.4, 4.0]), np.array([0.0, 0.9, 0.0]), 300.0, 240, 320)
    np.testing.assert_allclose(camera.project(np.array([0.0, 0.9, 0.0])), [120, 160], atol=1e-9)
    np.testing.assert_allclose(camera.R @ camera.R.T, np.eye(3), atol=1e-12)
    assert camera.project(np.array([0.0, 1.5, 0.0]))[1] < 160 < camera.project(np.array([0.5, 0.9, 0.0]))[0] + 60
    # The left of a person who faces the camera is on the right of the image.
    assert camera.project(np.array([0.5, 0.9, 0.0]))[0] > 120

    room = replace(Room.draw(np.random.default_rng(0), view_xz=camera.R[2][[0, 2]], clear_m=0.0), noise=0.0)
    renderer = Renderer([Person(motion, Outfit.draw(1))], [camera], room, body, 240, 320, seed=0)
    outside = replace(motion, trans=motion.trans + torch.tensor([500.0, 0.0, 0.0]))
    empty = Renderer([Person(outside, Outfit.draw(1))], [camera], room, body, 240, 320, seed=0)
    frame = 30
    changed = (renderer.render(frame).astype(int) != empty.render(frame).astype(int)).any(-1)
    joints, rotations = forward_kinematics(motion.rotations, body.rest_joints(motion.betas), motion.trans)
    keypoints = body.keypoint_rig().points(rotations, joints, motion.betas)[frame].numpy()
    for x, y in camera.project(keypoints):
        assert changed[int(y) - 1 : int(y) + 2, int(x) - 1 : int(x) + 2].any()
    rows, columns = np.nonzero(changed[:200])
    vertices = camera.project(renderer.vertices(frame)[0])
    assert rows.min() == pytest.approx(vertices[:, 1].min(), abs=2)
    assert columns.max() <= vertices[:, 0].max() + 2


def test_films_are_readable_and_reproducible(tmp_path, body: BodyModel) -> None:
    import av

    motions = [generate("wave_left", 1.5, 0, body=body), generate("squat", 1.5, 1, body=body)]
    people = [Person(m, Outfit.draw(i), offset=(1.6 * i - 0.8, 0.0)) for i, m in enumerate(motions)]
    footage = film(people, tmp_path / "a.mp4", width=320, height=240, seed=4, body=body)
    film(people, tmp_path / "b.mp4", width=320, height=240, seed=4, body=body)
    digests = {hashlib.sha256((tmp_path / name).read_bytes()).hexdigest() for name in ("a.mp4", "b.mp4")}
    assert len(digests) == 1
    with av.open(str(footage.path)) as container:
        stream = container.streams.video[0]
        images = [f.to_ndarray(format="rgb24") for f in container.decode(stream)]
        assert stream.average_rate == 30
    assert len(images) == len(footage) == 45
    assert images[0].shape == (240, 320, 3)
    for person in footage.people:
        assert person.keypoints.shape == (45, 17, 2)
        low, high = person.boxes[:, None, :2] - 2, person.boxes[:, None, 2:] + 2
        assert ((person.keypoints > low) & (person.keypoints < high)).all()
        assert (person.keypoints > 0).all()
        assert (person.keypoints < [320, 240]).all()
    left, right = sorted(footage.people, key=lambda p: p.keypoints[0, 0, 0])
    assert (left.boxes[:, 2] < right.boxes[:, 0]).all()


def test_contacts_have_the_named_columns(body: BodyModel) -> None:
    motion = generate("kick_left", 2.5, 0, body=body)
    lifted = [name for name, share in zip(CONTACT_POINTS, motion.contacts.float().mean(0), strict=True) if share < 1]
    assert lifted == ["left_heel", "left_toe"]


@pytest.mark.parametrize(
    "texture",
    [*textures.FLOORS, *textures.YARDS, *textures.MATERIALS, textures.wall, textures.bricks, textures.skyline],
)
def test_textures_have_contrast_and_are_reproducible(texture: Callable[..., np.ndarray]) -> None:
    for height, width, px_per_m in ((330, 440, 110.0), (90, 700, 23.0), (40, 41, 80.0)):
        image, repeated = (texture(np.random.default_rng(1), height, width, px_per_m) for _ in range(2))
        assert image.shape == (height, width, 3)
        assert image.dtype == np.uint8
        assert np.array_equal(image, repeated)
        assert image.std((0, 1)).max() > 1.0
