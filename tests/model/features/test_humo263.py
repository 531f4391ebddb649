"""HuMo263: round trip, mirroring, parts."""

import math

import pytest
import torch
from attitudes import ATTITUDES
from torch import Tensor

from model.features import humo263, smpl135
from model.features.motions import retarget_translation
from schemas.body_model import BodyModel
from schemas.kinematics import forward_kinematics
from schemas.rotations import axis_angle_to_matrix, heading_rad, matrix_to_6d, yaw_matrix
from schemas.skeleton import CONTACT_POINTS, PARTS, SMPL_JOINTS, mirror_order
from stages.synthesis.motions import generate, mirror


def _tumbling(frames: int, seed: int, tilt_rad: tuple[float, float]) -> tuple[Tensor, Tensor]:
    """A body tilted by pitch and roll, with random limb motion, that rotates about the vertical axis."""
    torch.manual_seed(seed)
    poses = torch.cumsum(torch.randn(frames, 24, 3) * 0.05, 0)
    rotations = axis_angle_to_matrix(poses)
    pitch, roll = (axis_angle_to_matrix(torch.tensor(axis) * angle)
                   for axis, angle in zip(([1.0, 0, 0], [0, 0, 1.0]), tilt_rad, strict=True))  # fmt: skip
    yaw = yaw_matrix(torch.linspace(0, 4 * math.pi, frames))
    rotations[:, 0] = yaw @ roll @ pitch @ rotations[:, 0]
    return rotations, torch.cumsum(torch.randn(frames, 3) * 0.03, 0) + torch.tensor([0.0, 1.0, 0.0])


@pytest.mark.parametrize("tilt_rad", [(0.0, 0.0), (1.4, 0.0), (-math.pi / 2, 0.0), (0.3, 1.2), (math.pi, 0.0)])
@pytest.mark.parametrize("shape", [0.0, 1.5])
def test_round_trip(body: BodyModel, tilt_rad: tuple[float, float], shape: float) -> None:
    """Upright, bent, lying, leaning and upside down: the error of joints is below a tenth of a millimetre."""
    rotations, trans = _tumbling(90, 1, tilt_rad)
    rest = body.rest_joints(torch.full((10,), shape))
    rows = humo263.encode(rotations, trans, rest, torch.zeros(90, 4))
    assert rows.shape == (89, 263)
    yaw = torch.atan2(-rotations[0, 0, 2, 0], rotations[0, 0, 0, 0]).item()
    pelvis = trans[0] + rest[0]
    decoded, decoded_trans = humo263.decode(rows, rest, yaw, (pelvis[0].item(), pelvis[2].item()))
    target = forward_kinematics(rotations, rest, trans)[0][:-1, :22]
    assert (forward_kinematics(decoded, rest, decoded_trans)[0][:, :22] - target).norm(dim=-1).max() < 1e-4
    assert (decoded[:, 1:22] - rotations[:-1, 1:22]).abs().max() < 1e-4


@pytest.mark.parametrize("attitude", ATTITUDES)
def test_the_heading_does_not_jump(body: BodyModel, attitude: str) -> None:
    """The angle of the left axis alone jumps by half a turn in a cartwheel; joints come back all the same."""
    rotations, trans = ATTITUDES[attitude]
    rest = body.rest_joints(torch.zeros(10))
    rows = humo263.encode(rotations, trans, rest, torch.zeros(len(trans), 4))
    assert math.degrees(2 * rows[:, 0].abs().max().item()) < 20
    alone = heading_rad(rotations[:, 0])
    steps = torch.remainder(alone[1:] - alone[:-1] + math.pi, 2 * math.pi) - math.pi
    assert (math.degrees(steps.abs().max().item()) > 60) == (
        attitude in ("cartwheel", "cartwheel into a handstand", "side-lying")
    )
    pelvis = trans[0] + rest[0]
    decoded = humo263.decode(rows, rest, alone[0].item(), (pelvis[0].item(), pelvis[2].item()))
    error = forward_kinematics(decoded[0], rest, decoded[1])[0] - forward_kinematics(rotations, rest, trans)[0][:-1]
    assert error[:, :22].norm(dim=-1).max() < 1e-4


def test_the_heading_returns_to_the_pelvis(body: BodyModel) -> None:
    """After a cartwheel that ends in another direction; upright bodies have the pelvis' own heading, bit by bit."""
    rotations = ATTITUDES["cartwheel"][0]
    turns = yaw_matrix(torch.linspace(0, math.pi, 90))
    upright = rotations[:1].expand(30, -1, -1, -1)
    whole = torch.cat([rotations, upright])
    whole[:, 0] = torch.cat([turns, turns[-1:].expand(30, -1, -1)]) @ whole[:, 0]
    rest, contacts = body.rest_joints(torch.zeros(10)), torch.zeros(120, 4)
    rows = humo263.encode(whole, torch.zeros(120, 3), rest, contacts)
    last = humo263.root_path(rows, heading_rad(whole[0, 0]).item())[0][-1]
    assert math.cos(last.item() - heading_rad(whole[-1, 0]).item()) > 0.9999
    spin, path = ATTITUDES["pirouette"]
    own = heading_rad(spin[:, 0])
    steps = torch.remainder(own[1:] - own[:-1] + torch.pi, 2 * torch.pi) - torch.pi
    assert torch.equal(humo263.encode(spin, path, rest, contacts[:90])[:, 0], -steps / 2)


def test_start_after_a_cartwheel_is_where_its_rows_end(body: BodyModel) -> None:
    rotations, trans = ATTITUDES["cartwheel into a handstand"]
    rest = body.rest_joints(torch.zeros(10))
    rows = humo263.encode(rotations, trans, rest, torch.zeros(90, 4))
    pelvis = trans[0] + rest[0]
    start = heading_rad(rotations[0, 0]).item(), (pelvis[0].item(), pelvis[2].item())
    yaw, ground = humo263.next_start(rows, *start)
    after = humo263.start_after(rotations, trans, rest)
    assert math.cos(after[0] - yaw) > 0.9999
    assert after[1] == pytest.approx(ground, abs=1e-4)


def test_a_row_is_seen_where_both_of_its_frames_are() -> None:
    seen = torch.tensor([[1.0, 1], [0, 1], [1, 1]]).repeat(1, 3)[:, :5]
    assert humo263.rows_seen(seen)[:, :2].tolist() == [[0, 1], [0, 1]]
    assert smpl135.rows_seen(seen)[:, :2].tolist() == [[1, 1], [0, 1], [0, 1]]


def test_left_turn_increases_yaw(body: BodyModel) -> None:
    motion = generate("turn_left", 3.0, 0, body=body)
    rows = humo263.encode(motion.rotations, motion.trans, body.rest_joints(motion.betas), motion.contacts.float())
    yaw, _ = humo263.root_path(rows)
    assert yaw[-1] > 1.0
    assert rows[:, 0].sum() == pytest.approx(-yaw[-1].item() / 2, abs=0.05)


def test_layout(body: BodyModel) -> None:
    motion = generate("walk", 3.0, 0, body=body)
    rest = body.rest_joints(motion.betas)
    rows = humo263.encode(motion.rotations, motion.trans, rest, motion.contacts.float())
    joints = forward_kinematics(motion.rotations, rest, motion.trans)[0]
    assert torch.allclose(rows[:, 3], joints[:-1, 0, 1])
    assert torch.allclose(rows[0, humo263.POSITIONS].view(21, 3)[:, 1], joints[0, 1:22, 1], atol=1e-5)
    assert torch.equal(rows[:, humo263.CONTACTS], motion.contacts[:-1].float())
    assert torch.allclose(rows[5, 67:73], matrix_to_6d(motion.rotations[5, 1]))
    # Walking moves forward: +Z of the heading frame, at walking speed.
    assert 0.02 < rows[:, 2].mean() < 0.07
    assert torch.allclose(humo263.positions(rows)[:, 0, 1], joints[:-1, 0, 1])


def test_encode_takes_batches(body: BodyModel) -> None:
    motions = [generate("walk", 2.0, seed, body=body) for seed in range(3)]
    columns = [torch.stack([getattr(m, name) for m in motions]) for name in ("rotations", "trans", "contacts")]
    rest = torch.stack([body.rest_joints(m.betas) for m in motions])
    batched = humo263.encode(columns[0], columns[1], rest, columns[2].float())
    single = humo263.encode(motions[1].rotations, motions[1].trans, rest[1], motions[1].contacts.float())
    assert torch.allclose(batched[1], single, atol=1e-6)


def test_mirror_equals_encoding_the_mirrored_motion(body: BodyModel) -> None:
    motion = generate("walk_wave_left", 3.0, 2, body=body)
    rest = body.rest_joints(torch.zeros(10))
    # A symmetric body, so that only the motion differs.
    mirrored_rest = rest[list(mirror_order(SMPL_JOINTS))] * torch.tensor([-1.0, 1.0, 1.0])
    symmetric = (rest + mirrored_rest) / 2
    mirrored_motion = mirror(motion)
    rows = humo263.encode(motion.rotations, motion.trans, symmetric, motion.contacts.float())
    mirrored = humo263.encode(
        mirrored_motion.rotations, mirrored_motion.trans, symmetric, mirrored_motion.contacts.float()
    )
    # Headings are mirror images up to the half step of their reference frame.
    assert torch.allclose(humo263.mirror(rows), mirrored, atol=2e-4)
    assert torch.equal(humo263.mirror(humo263.mirror(rows)), rows)


def test_parts_cover_every_column() -> None:
    columns = torch.cat([humo263.part_columns(part) for part in PARTS])
    assert set(columns.tolist()) == set(range(263))
    assert set(range(4)) <= set(humo263.part_columns("torso").tolist())
    contacts = [CONTACT_POINTS.index(name) + 259 for name in ("left_heel", "left_toe")]
    assert [c for c in humo263.part_columns("left_leg").tolist() if c >= 259] == contacts
    shared = set(humo263.part_columns("left_arm").tolist()) & set(humo263.part_columns("right_arm").tolist())
    assert len(shared) == 12  # spine3: three positions, six of its rotation, three of its velocity


def test_retargeting_keeps_feet_on_the_ground(body: BodyModel) -> None:
    motion = generate("walk", 3.0, 4, body=body, betas=torch.full((10,), 1.0))
    source_rest, rest = body.rest_joints(motion.betas), body.rest_joints(torch.zeros(10))
    trans = retarget_translation(motion.trans, source_rest, rest)
    ankles = [SMPL_JOINTS.index("left_ankle"), SMPL_JOINTS.index("right_ankle")]
    before = forward_kinematics(motion.rotations, source_rest, motion.trans)[0][:, ankles, 1].min(1).values
    after = forward_kinematics(motion.rotations, rest, trans)[0][:, ankles, 1].min(1).values
    assert (before - after).abs().max() < 0.04
