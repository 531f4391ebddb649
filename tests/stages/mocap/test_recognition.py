"""Unknown skeletons: the same motion under other names, roots, units and axes comes out the same."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from mocap_files import body_motion, write_known_bvh
from scipy.spatial.transform import Rotation
from shared_data import SHARED_DATA

from schemas.body_model import BodyModel
from schemas.errors import UsageError
from schemas.kinematics import forward_kinematics
from schemas.skeleton import SMPL_JOINTS, joint
from stages.mocap import read_take
from stages.mocap.description import as_yaml, describe
from stages.mocap.falls import fall_acceleration_g
from stages.mocap.matching import match
from stages.mocap.names import read_names
from stages.mocap.retarget import Retargeted, retarget
from stages.mocap.skeletons import TO_Y_UP
from stages.mocap.take import MocapError, Take

UNREAL = {
    "Hips": "pelvis", "LowerBack": "spine_01", "Spine": "spine_02", "Spine1": "spine_03", "Neck": "neck_01", "Neck1": "neck_02",
    "Head": "head", "UpLeg": "thigh", "Leg": "calf", "Foot": "foot", "ToeBase": "ball", "Shoulder": "clavicle", "Arm": "upperarm",
    "ForeArm": "lowerarm", "Hand": "hand",
}  # fmt: skip


def unreal(name: str) -> str:
    side = name[:4] == "Left" or name[:5] == "Right"
    part = name.removeprefix("Left").removeprefix("Right")
    return f"{UNREAL.get(part, part)}_{name[0].lower()}" if side else UNREAL.get(name, name)


NAMES: dict[str, Callable[[int, str], str]] = {
    "namespace": lambda _, name: f"Actor_01:{name}",
    "numbered": lambda index, name: f"{index:02d}_{name}",
    "suffixed sides": lambda _, name: unreal(name),
    "meaningless": lambda index, _: f"j{index * 7919 % 100_003}",
}


@pytest.fixture(scope="module")
def walk(tmp_path_factory: pytest.TempPathFactory) -> Take:
    path = tmp_path_factory.mktemp("takes") / "walk.bvh"
    return read_take(str(write_known_bvh(path, body_motion("walk"), "cmu_bvh")))


def on_body(take: Take) -> tuple[Retargeted, np.ndarray]:
    """The motion and its global rotations."""
    motion = retarget(take, match(take).joint_map, BodyModel.load())
    rest = BodyModel.load().rest_joints(torch.zeros(10))
    return motion, forward_kinematics(motion.rotations, rest, motion.trans)[1].double().numpy()


def errors_deg(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    frames = min(len(one), len(other))
    # The walker's file has no first neck joint, so known map and recognition differ in what they blend there.
    kept = [index for index, name in enumerate(SMPL_JOINTS) if name != "neck"]
    difference = one[:frames, kept].swapaxes(-1, -2) @ other[:frames, kept]
    return np.degrees(Rotation.from_matrix(difference.reshape(-1, 3, 3)).magnitude()).reshape(frames, -1)


def renamed(take: Take, style: str) -> Take:
    return replace(take, names=tuple(NAMES[style](index, name) for index, name in enumerate(take.names)))


def turned(take: Take, matrix: np.ndarray) -> Take:
    """World and zero pose in other axes."""
    return replace(
        take,
        rotations=matrix @ take.rotations @ matrix.T,
        offsets=take.offsets @ matrix.T,
        moving_offsets={index: offset @ matrix.T for index, offset in take.moving_offsets.items()},
    )


def in_units(take: Take, factor: float) -> Take:
    moving = {index: offset * factor for index, offset in take.moving_offsets.items()}
    return replace(take, offsets=take.offsets * factor, moving_offsets=moving)


def below_two_roots(take: Take) -> Take:
    still = np.broadcast_to(np.eye(3), (len(take.times_s), 2, 3, 3))
    return replace(
        take,
        names=("World", "Reference", *take.names),
        parents=(-1, 0, *(parent + 2 if parent >= 0 else 1 for parent in take.parents)),
        offsets=np.concatenate([np.zeros((2, 3)), take.offsets]),
        rotations=np.concatenate([still, take.rotations], 1),
        moving_offsets={index + 2: offset for index, offset in take.moving_offsets.items()},
        ends=frozenset(index + 2 for index in take.ends),
    )


@pytest.mark.parametrize("style", NAMES)
@pytest.mark.parametrize(
    ("up", "factor", "roots"),
    [("y", 0.01, False), ("z", 25.4, True), ("-y", 1.0, False), ("x", 0.3, True), ("-z", 10.0, False)],
)
def test_copies_give_the_same_motion(walk: Take, style: str, up: str, factor: float, roots: bool) -> None:
    yaw = Rotation.from_euler("y", 130, degrees=True).as_matrix()
    copy = in_units(turned(renamed(walk, style), TO_Y_UP[up].T @ yaw), factor)
    copy = below_two_roots(copy) if roots else copy
    found = match(copy)
    assert found.joint_map.up == up
    assert set(found.by.values()) == ({"shape"} if style == "meaningless" else {"name"})
    assert errors_deg(on_body(copy)[1], on_body(walk)[1]).max() < 1.0


@pytest.mark.parametrize("style", ["namespace", "meaningless"])
def test_a_rest_pose_that_lies_in_an_upright_world_is_turned(walk: Take, style: str) -> None:
    to_z_up = TO_Y_UP["z"].T
    rotations, moving = walk.rotations.copy(), {0: walk.moving_offsets[0] @ to_z_up.T}
    rotations[:, 0] = to_z_up @ rotations[:, 0]
    copy = replace(renamed(walk, style), rotations=rotations, moving_offsets=moving)
    assert match(copy).joint_map.up == "z"
    assert errors_deg(on_body(copy)[1], on_body(walk)[1]).max() < 1.0


@pytest.mark.parametrize("style", ["namespace", "meaningless"])
def test_axes_of_a_skeleton_whose_zero_pose_is_no_body_are_calibrated(walk: Take, style: str) -> None:
    axes = Rotation.random(len(walk.names), random_state=3).as_matrix()
    rotations, offsets, moving = walk.rotations.copy(), walk.offsets.copy(), {}
    for index, parent in enumerate(walk.parents):
        above = axes[parent] if parent >= 0 else np.eye(3)
        rotations[:, index] = above.T @ walk.rotations[:, index] @ axes[index]
        offsets[index] = above.T @ walk.offsets[index]
        if index in walk.moving_offsets:
            moving[index] = walk.moving_offsets[index] @ above
    copy = renamed(replace(walk, rotations=rotations, offsets=offsets, moving_offsets=moving), style)
    found = match(copy)
    assert found.rest.startswith("calibrated")
    motion, original = on_body(copy)[0], on_body(walk)[0]
    rest = BodyModel.load().rest_joints(torch.zeros(10))
    one, other = (forward_kinematics(m.rotations, rest, m.trans)[0].double().numpy() for m in (motion, original))
    for side in ("left", "right"):
        for start, end in (("hip", "knee"), ("knee", "ankle"), ("shoulder", "elbow"), ("elbow", "wrist")):
            a, b = (at[:, joint(f"{side}_{end}")] - at[:, joint(f"{side}_{start}")] for at in (one, other))
            cosine = (a * b).sum(-1) / np.linalg.norm(a, axis=-1) / np.linalg.norm(b, axis=-1)
            # Both start facing +Z by their own pelvis, so a degree of its yaw is in every limb.
            assert np.degrees(np.arccos(np.clip(cosine, -1, 1))).mean() < 2.0, f"{side} {start}"


def test_mirrored_and_partial_skeletons_are_refused(walk: Take) -> None:
    flip = np.diag([-1.0, 1, 1])
    mirrored = replace(
        walk,
        rotations=flip @ walk.rotations @ flip,
        offsets=walk.offsets @ flip,
        moving_offsets={0: walk.moving_offsets[0] @ flip},
    )
    with pytest.raises(MocapError, match="left-handed") as caught:
        match(renamed(mirrored, "namespace"))
    assert caught.value.reason == "mirrored"
    few = [
        index for index, name in enumerate(walk.names) if "Leg" not in name and "Foot" not in name and "Toe" not in name
    ]
    few = [index for index in few if walk.parents[index] < 0 or walk.parents[index] in few]
    part = replace(
        walk, names=tuple(walk.names[i] for i in few),
        parents=tuple(few.index(walk.parents[i]) if walk.parents[i] >= 0 else -1 for i in few),
        offsets=walk.offsets[few], rotations=walk.rotations[:, few],
        ends=frozenset(few.index(i) for i in walk.ends if i in few),
    )  # fmt: skip
    with pytest.raises(MocapError, match="left_knee"):
        match(part)


@pytest.mark.parametrize(
    ("name", "side", "part"),
    [
        ("mixamorig:LeftForeArm", "left", "elbow"), ("Bip01_L_Thigh", "left", "hip"), ("DEF-shin.R.001", "right", "knee"),
        ("rfemur", "right", "hip"), ("LUArm", "left", "shoulder"), ("thigh_l", "left", "hip"), ("WristRight", "right", "wrist"),
        ("lThighBend", "left", "hip"), ("左ひざ", "left", "knee"), ("RightToeBase", "right", "foot"),
        ("J_Bip_L_UpperLeg", "left", "hip"),
    ],
)  # fmt: skip
def test_names(name: str, side: str, part: str) -> None:
    reading = read_names([name])[0]
    assert reading.side == side
    assert max(reading.limb, key=lambda one: reading.limb[one]) == part


@pytest.mark.parametrize("name", ["LeftHandThumb1", "upperarm_twist_01_l", "RightToe_End", "sword_prop", "L_Eye"])
def test_helpers_drive_nothing(name: str) -> None:
    assert read_names([name])[0].helper


def layouts() -> dict[str, Callable[[str], bytes]]:
    def one_line(text: str) -> bytes:
        return " ".join(text.split()).encode()

    def without_end_sites(text: str) -> bytes:
        import re

        return re.sub(r"End Site\s*{[^}]*}", "", text).encode()

    def more_rows(text: str) -> bytes:
        return (text + text.rstrip().rsplit("\n", 1)[-1] + "\n").encode()

    return {
        "one line": one_line,
        "tabs and CRLF": lambda text: text.replace("  ", "\t").replace(" ", "\t").replace("\n", "\r\n").encode(),
        "UTF-16": lambda text: text.encode("utf-16"),
        "byte order mark": lambda text: text.encode("utf-8-sig"),
        "decimal commas": lambda text: text.replace(".", ",").encode(),
        "no end sites": without_end_sites,
        "a row more": more_rows,
        "a row fewer": lambda text: text.rstrip().rsplit("\n", 1)[0].encode(),
    }


@pytest.mark.parametrize("layout", layouts())
def test_layouts_of_bvh(tmp_path: Path, walk: Take, layout: str) -> None:
    text = write_known_bvh(tmp_path / "a.bvh", body_motion("walk"), "cmu_bvh").read_text()
    (tmp_path / "b.bvh").write_bytes(layouts()[layout](text))
    take = read_take(str(tmp_path / "b.bvh"))
    assert abs(len(take.times_s) - len(walk.times_s)) == (1 if "row" in layout else 0)
    frames = min(len(take.times_s), len(walk.times_s))
    shared = [name for name in take.names if name in walk.names]
    assert len(shared) >= 20
    for name in shared:
        np.testing.assert_array_equal(
            take.rotations[:frames, take.names.index(name)], walk.rotations[:frames, walk.names.index(name)]
        )


def test_positions_on_every_joint_replace_or_add(tmp_path: Path) -> None:
    head = (
        "HIERARCHY\nROOT a\n{\nOFFSET 0 0 0\nCHANNELS 6 Zrotation Xrotation Yrotation Xposition Yposition Zposition\n"
        + "".join(
            f"JOINT {name}\n{{\nOFFSET 0 {length} 0\nCHANNELS 6 Xposition Yposition Zposition Zrotation Xrotation Yrotation\n"
            for name, length in (("b", 10), ("c", 20), ("d", 30))
        )
        + "}\n}\n}\n}\nMOTION\nFrames: 2\nFrame Time: 0.04\n"
    )
    for lengths in ((10, 20, 30), (0, 0, 0)):
        row = " ".join(["0 0 0 1 2 3", *(f"0 {length} 0 0 0 0" for length in lengths)])
        (tmp_path / "a.bvh").write_text(f"{head}{row}\n{row}\n")
        take = read_take(str(tmp_path / "a.bvh"))
        np.testing.assert_allclose(take.global_poses[1][0, -1], (1, 62, 3))


def test_written_map_gives_the_same_motion(tmp_path: Path, walk: Take) -> None:
    path = write_known_bvh(tmp_path / "a.bvh", body_motion("walk"), "bandai_namco")
    path.write_text(path.read_text().replace("UpperLeg", "Thigh"))
    found, joint_map = describe(str(path))
    assert (found.joint_map, found.up, found.missing) == ("recognised", "y", [])
    (tmp_path / "map.yaml").write_text(as_yaml(str(path), joint_map), encoding="utf-8")
    take = read_take(str(path))
    one, other = (
        retarget(take, match(take, choice).joint_map, BodyModel.load())
        for choice in ("auto", str(tmp_path / "map.yaml"))
    )
    np.testing.assert_array_equal(one.rotations, other.rotations)
    (tmp_path / "map.yaml").write_text("joints: {tail: Tail}")
    with pytest.raises(UsageError, match="tail"):
        match(take, str(tmp_path / "map.yaml"))


def test_bodies_that_fall_too_fast() -> None:
    times = np.arange(60) / 30
    heights = sum(
        (np.maximum(0, 0.5 * 9.81 * (0.3**2 - (times - start) ** 2)) for start in (0.4, 1.0, 1.6)), np.zeros(60)
    )
    rotations = torch.eye(3).expand(60, len(SMPL_JOINTS), 3, 3)
    trans = torch.from_numpy(np.stack([0 * heights, 1 + heights, 0 * heights], 1))
    assert fall_acceleration_g(rotations, trans, 30.0, BodyModel.load()) == pytest.approx(1, abs=0.02)
    assert fall_acceleration_g(rotations, trans, 60.0, BodyModel.load()) == pytest.approx(4, abs=0.1)


@pytest.mark.shared
@pytest.mark.parametrize(
    ("file", "up"),
    [
        ("fair1_dab_zup.bvh", "z"), ("fair1_wave_hello_zup_120fps.bvh", "z"), ("pybvh_test2_crlf.bvh", "y"),
        ("pybvh_test3_crlf_tabs_fingers.bvh", "z"), ("rokoko_jesse_dance.bvh", "y"), ("xia_neutral_01.bvh", "y"),
        ("xia_old_13.bvh", "y"), ("cmu11/11_01.amc", "y"),
    ],
)  # fmt: skip
def test_real_takes_stand_upright(file: str, up: str) -> None:
    path = SHARED_DATA / "files" / "mocap" / file
    if not path.is_file():
        pytest.skip(f"no motion capture at {path}")
    take = read_take(str(path))
    joint_map = match(take).joint_map
    assert joint_map.up == up
    motion = retarget(take, joint_map, BodyModel.load())
    assert float(motion.rotations[:, 0, 1, 1].median()) > 0.85
    positions = forward_kinematics(motion.rotations, BodyModel.load().rest_joints(torch.zeros(10)), motion.trans)[0]
    assert float((positions[:, joint("head"), 1] - positions[:, joint("pelvis"), 1]).median()) > 0.4
    assert float(positions[:, [joint("left_foot"), joint("right_foot")], 1].amin(1).median()) > -0.1
