"""SMPL135: round trip of bodies in any attitude, a heading without jumps, streaming, mirroring, parts."""

import math

import pytest
import torch
from attitudes import ATTITUDES
from shared_data import SHARED_DATA
from torch import Tensor

from model.features import smpl135
from schemas.body_model import BodyModel
from schemas.kinematics import forward_kinematics
from schemas.rotations import heading_rad, yaw_matrix
from schemas.skeleton import PARTS, SMPL_JOINTS, mirror_order
from stages.mocap import read_motion
from stages.synthesis.motions import generate, mirror


def _world(rotations: Tensor, trans: Tensor, rest: Tensor) -> Tensor:
    return forward_kinematics(rotations, rest, trans)[0][..., :22, :]


def _round_trip_m(rotations: Tensor, trans: Tensor, rest: Tensor) -> float:
    """Largest distance of a joint after encoding and decoding, metres."""
    rows = smpl135.encode(rotations, trans, rest, torch.zeros(len(trans), 4))
    pelvis = trans[0] + rest[0]
    start = heading_rad(rotations[0, 0]).item(), (pelvis[0].item(), pelvis[2].item())
    error = _world(*smpl135.decode(rows, rest, *start), rest) - _world(rotations, trans, rest)
    return error.norm(dim=-1).max().item()


@pytest.mark.parametrize("attitude", ATTITUDES)
def test_round_trip(body: BodyModel, attitude: str) -> None:
    assert _round_trip_m(*ATTITUDES[attitude], body.rest_joints(torch.zeros(10))) < 1e-4


@pytest.mark.shared
@pytest.mark.parametrize("name", ["cartwheel", "roll", "backflip", "sideflip", "getup_facedown", "spinkick"])
def test_round_trip_of_acrobatics(body: BodyModel, name: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    archive = SHARED_DATA / "mocap" / "deepmimic.tar.xz"
    if not archive.is_file():
        pytest.skip(f"{archive} is absent")
    import tarfile

    folder = tmp_path_factory.mktemp("deepmimic")
    with tarfile.open(archive) as tar:
        (member,) = (member for member in tar if member.name.endswith(f"humanoid3d_{name}.txt"))
        tar.extract(member, folder, filter="data")
    motion = read_motion(folder / member.name, body=body)
    rest = body.rest_joints(torch.zeros(10))
    assert _round_trip_m(motion.rotations, motion.trans, rest) < 1e-4
    rows = smpl135.encode(motion.rotations, motion.trans, rest, torch.zeros(len(motion.trans), 4))
    assert _largest_step_deg(smpl135.root_path(rows)[0]) < 10


def _largest_step_deg(yaw: Tensor) -> float:
    return math.degrees((yaw[1:] - yaw[:-1]).abs().max().item())


@pytest.mark.parametrize("attitude", ATTITUDES)
def test_the_heading_does_not_jump(body: BodyModel, attitude: str) -> None:
    """Its steps stay below what a fast turn needs."""
    rotations, trans = ATTITUDES[attitude]
    rest = body.rest_joints(torch.zeros(10))
    yaw = smpl135.root_path(smpl135.encode(rotations, trans, rest, torch.zeros(len(trans), 4)))[0]
    assert _largest_step_deg(yaw) <= math.degrees(0.65 * smpl135.GAIN) + 0.1


def test_small_errors_stay_small_upside_down(body: BodyModel) -> None:
    """The decoder's heading follows the decoded orientation: half a degree of noise must not turn the path."""
    rotations, trans = ATTITUDES["cartwheel into a handstand"]
    rows = smpl135.encode(rotations, trans, body.rest_joints(torch.zeros(10)), torch.zeros(len(trans), 4))
    noisy = rows.clone()
    noisy[:, smpl135.ROOT_ROTATION] += 0.01 * torch.randn(len(rows), 6, generator=torch.Generator().manual_seed(1))
    difference = smpl135.root_path(noisy)[0] - smpl135.root_path(rows)[0]
    assert math.degrees(difference.abs().max().item()) < 5


def test_rows_do_not_depend_on_where_the_motion_is(body: BodyModel) -> None:
    motion, rest = generate("walk", 3.0, 0, body=body), body.rest_joints(torch.zeros(10))
    turned, turn = motion.rotations.clone(), yaw_matrix(torch.tensor(2.0))
    turned[:, 0] = turn @ turned[:, 0]
    moved = (motion.trans + rest[0]) @ turn.T - rest[0] + torch.tensor([3.0, 0.0, -1.0])
    rows, others = (
        smpl135.encode(rotations, trans, rest, motion.contacts.float())
        for rotations, trans in ((motion.rotations, motion.trans), (turned, moved))
    )
    assert torch.allclose(rows, others, atol=1e-5)


def test_streaming_equals_encoding_at_once(body: BodyModel) -> None:
    rotations, trans = ATTITUDES["cartwheel"]
    rest, contacts = body.rest_joints(torch.zeros(10)), torch.zeros(len(trans), 4)
    memory: dict[str, Tensor] = {}
    streamed = [
        smpl135.encode(rotations[t : t + n], trans[t : t + n], rest, contacts[t : t + n], memory)
        for t, n in ((0, 1), (1, 1), (2, 30), (32, 58))
    ]
    assert torch.equal(torch.cat(streamed), smpl135.encode(rotations, trans, rest, contacts))


def test_decoding_continues_where_it_stopped(body: BodyModel) -> None:
    rotations, trans = ATTITUDES["roll"]
    rest = body.rest_joints(torch.zeros(10))
    rows = smpl135.encode(rotations, trans, rest, torch.zeros(len(trans), 4))
    start = (0.3, (1.0, -2.0))
    whole = _world(*smpl135.decode(rows, rest, *start), rest)
    first, second = rows[:37], rows[37:]
    continued = _world(*smpl135.decode(second, rest, *smpl135.next_start(first, *start)), rest)
    assert torch.allclose(continued, whole[37:], atol=1e-5)
    after = smpl135.start_after(rotations[:37], trans[:37], rest)
    assert torch.allclose(
        _world(*smpl135.decode(second, rest, *after), rest), _world(rotations, trans, rest)[37:], atol=1e-4
    )


def test_batches_and_local_joints(body: BodyModel) -> None:
    rest = body.rest_joints(torch.zeros(10))
    rotations, trans = (torch.stack(column) for column in zip(*list(ATTITUDES.values())[:3], strict=True))
    rows = smpl135.encode(rotations, trans, rest, torch.zeros(3, 90, 4))
    assert rows.shape == (3, 90, 139)
    single = smpl135.encode(rotations[1], trans[1], rest, torch.zeros(90, 4))
    assert torch.allclose(rows[1], single, atol=1e-6)
    yaw, pelvis = smpl135.root_path(rows)
    world = smpl135.local_joints(rows, rest) @ yaw_matrix(yaw).mT + (pelvis * torch.tensor([1.0, 0, 1]))[..., None, :]
    assert torch.allclose(world, _world(*smpl135.decode(rows, rest), rest), atol=1e-5)


def test_mirror_equals_encoding_the_mirrored_motion(body: BodyModel) -> None:
    motion = generate("walk_wave_left", 3.0, 2, body=body)
    rest = body.rest_joints(torch.zeros(10))
    symmetric = (rest + rest[list(mirror_order(SMPL_JOINTS))] * torch.tensor([-1.0, 1.0, 1.0])) / 2
    mirrored_motion = mirror(motion)
    rows, mirrored = (
        smpl135.encode(one.rotations, one.trans, symmetric, one.contacts.float()) for one in (motion, mirrored_motion)
    )
    assert torch.allclose(smpl135.mirror(rows), mirrored, atol=2e-4)
    assert torch.equal(smpl135.mirror(smpl135.mirror(rows)), rows)


def test_every_column_is_written_by_one_part() -> None:
    written = torch.cat([smpl135.written_columns(part) for part in PARTS])
    assert sorted(written.tolist()) == list(range(smpl135.NUM_FEATURES))
    for part in PARTS:
        read = set(smpl135.read_columns(part).tolist())
        assert set(smpl135.written_columns(part).tolist()) <= read
        assert (set(range(9)) <= read) == (part == "torso" or part.endswith("leg"))
