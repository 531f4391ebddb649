import pickle
import shutil
import sys
import types
import zipfile
from pathlib import Path

import numpy as np
import pytest
import smplx
import torch

from schemas.body_model import BodyModel
from schemas.build_body_model import drop_hidden, principal_components, to_t_pose, write_npz
from schemas.errors import HumoError
from schemas.kinematics import forward_kinematics
from schemas.rotations import axis_angle_to_matrix
from schemas.skeleton import SMPL_JOINTS, SMPL_PARENTS, joint, keypoint, mirror_order


@pytest.fixture(scope="module")
def model():
    return BodyModel.load()


def random_pose(*batch: int, seed: int = 0):
    rng = torch.Generator().manual_seed(seed)
    axis_angle = 0.4 * torch.randn(*batch, 24, 3, generator=rng)
    return axis_angle, torch.randn(*batch, 10, generator=rng), torch.randn(*batch, 3, generator=rng)


def regress(regressor, vertices):
    return (regressor.double() @ vertices.double()).float()


def smpl_arrays(seed: int = 0) -> dict[str, np.ndarray]:
    """Random arrays with SMPL's names and shapes."""
    rng = np.random.default_rng(seed)
    weights = rng.random((6890, 24)) ** 8
    joints = np.zeros((24, 6890))
    for row in joints:
        row[rng.choice(6890, 5, replace=False)] = 0.2
    return {
        "v_template": rng.normal(size=(6890, 3)),
        "shapedirs": 0.01 * rng.normal(size=(6890, 3, 10)),
        "posedirs": 0.01 * rng.normal(size=(6890, 3, 207)),
        "J_regressor": joints,
        "weights": weights / weights.sum(1, keepdims=True),
        "f": rng.integers(0, 6890, (13776, 3)).astype(np.uint32),
        "kintree_table": np.array([(2**32 - 1, *SMPL_PARENTS[1:]), range(24)], np.int64),
    }


@pytest.fixture
def smpl_npz(tmp_path):
    path = tmp_path / "SMPL_NEUTRAL.npz"
    np.savez(path, **smpl_arrays())
    return path


def test_shipped_body_is_a_t_pose_of_human_size(model):
    rest = model.rest_joints(torch.zeros(10))
    height = model.template[:, 1].max() - model.template[:, 1].min()
    assert 1.55 < height < 1.85
    assert rest[joint("pelvis")].abs().max() < 1e-5
    arm = rest[joint("left_wrist")] - rest[joint("left_shoulder")]
    assert arm[0] > 0.4
    assert arm[1:].abs().max() < 0.01
    leg = rest[joint("left_ankle")] - rest[joint("left_hip")]
    assert leg[1] < -0.7
    assert leg[[0, 2]].abs().max() < 0.01
    assert rest[joint("left_foot"), 2] > rest[joint("left_ankle"), 2] + 0.1
    assert rest[joint("head"), 1] > rest[joint("neck"), 1] > rest[joint("spine3"), 1]


def test_shipped_body_is_symmetric(model):
    mirrored = model.joint_template[list(mirror_order(SMPL_JOINTS))] * torch.tensor([-1.0, 1, 1])
    assert (mirrored - model.joint_template).norm(dim=-1).max() < 0.003


def test_weights_and_regressors_sum_to_one(model):
    for rows in (model.skinning_weights, model.joint_regressor, model.keypoint_regressor, model.contact_regressor):
        torch.testing.assert_close(rows.double().sum(1).float(), torch.ones(len(rows)), atol=1e-5, rtol=0)
    assert model.skinning_weights.min() >= 0


def test_pelvis_stays_at_the_origin_for_every_shape(model):
    assert model.rest_joints(3 * torch.eye(10))[:, joint("pelvis")].abs().max() < 1e-4


def test_contact_points_lie_on_the_sole(model):
    soles = regress(model.contact_regressor, model.template)
    assert (soles[:, 1] - model.template[:, 1].min()).abs().max() < 0.005
    assert (soles[[1, 3], 2] - soles[[0, 2], 2]).min() > 0.15


def test_smplx_agrees(model):
    axis_angle, betas, trans = random_pose(4)
    reference = smplx.SMPL(model_path="", data_struct=model.smplx_struct(), num_betas=10)(
        betas=betas, global_orient=axis_angle[:, 0], body_pose=axis_angle[:, 1:].flatten(1), transl=trans
    )
    rotations = axis_angle_to_matrix(axis_angle)
    joints, _ = forward_kinematics(rotations, model.rest_joints(betas), trans)
    torch.testing.assert_close(model.vertices(rotations, betas, trans), reference.vertices, atol=1e-4, rtol=0)
    torch.testing.assert_close(joints, reference.joints[:, :24], atol=1e-4, rtol=0)


def test_smplx_agrees_on_pose_correctives(smpl_npz):
    body = BodyModel.load(smpl_npz)
    axis_angle, betas, trans = random_pose(2)
    reference = smplx.SMPL(model_path="", data_struct=body.smplx_struct(), num_betas=10)(
        betas=betas, global_orient=axis_angle[:, 0], body_pose=axis_angle[:, 1:].flatten(1), transl=trans
    )
    found = body.vertices(axis_angle_to_matrix(axis_angle), betas, trans)
    torch.testing.assert_close(found, reference.vertices, atol=1e-4, rtol=0)


@pytest.mark.parametrize("kind", ["keypoint", "contact"])
@pytest.mark.parametrize("betas_shape", [(10,), (2, 1, 10), (2, 3, 10)])
@pytest.mark.parametrize("licensed", [False, True])
def test_rigs_equal_regression_from_the_skin(model, smpl_npz, kind, betas_shape, licensed):
    body = BodyModel.load(smpl_npz) if licensed else model
    rig, regressor = getattr(body, f"{kind}_rig")(), getattr(body, f"{kind}_regressor")
    axis_angle, _, trans = random_pose(2, 3)
    betas = torch.randn(betas_shape, generator=torch.Generator().manual_seed(1))
    rotations = axis_angle_to_matrix(axis_angle)
    joints, global_rotations = forward_kinematics(rotations, body.rest_joints(betas), trans)
    expected = regress(regressor, body.vertices(rotations, betas, trans))
    torch.testing.assert_close(rig.points(global_rotations, joints, betas), expected, atol=1e-5, rtol=0)


def test_rig_has_gradients(model):
    axis_angle, betas, trans = random_pose(2)
    rig = model.keypoint_rig()

    def keypoints(angles, betas, trans):
        rotations = axis_angle_to_matrix(angles)
        joints, global_rotations = forward_kinematics(rotations, model.rest_joints(betas), trans)
        return rig.points(global_rotations, joints, betas)

    inputs = [x.requires_grad_() for x in (axis_angle, betas, trans)]
    gradients = torch.autograd.grad(keypoints(*inputs).square().sum(), inputs)
    step = [1e-3 * g / g.norm() for g in gradients]
    with torch.no_grad():
        ahead = keypoints(*(x + s for x, s in zip(inputs, step, strict=True))).square().double().sum()
        behind = keypoints(*(x - s for x, s in zip(inputs, step, strict=True))).square().double().sum()
    slope = sum((g * s).sum() for g, s in zip(gradients, step, strict=True))
    torch.testing.assert_close(float((ahead - behind) / 2), float(slope), rtol=0.01, atol=0)


def test_left_arm_raises_left_wrist(model):
    axis_angle = torch.zeros(24, 3)
    axis_angle[joint("left_shoulder"), 2] = torch.pi / 2
    rotations = axis_angle_to_matrix(axis_angle)
    joints, global_rotations = forward_kinematics(rotations, model.joint_template, torch.zeros(3))
    points = model.keypoint_rig().points(global_rotations, joints, torch.zeros(10))
    assert points[keypoint("left_wrist"), 1] > points[keypoint("nose"), 1]
    assert points[keypoint("right_wrist"), 1] < points[keypoint("nose"), 1]


def test_loading_twice_gives_the_same_object(model):
    assert BodyModel.load() is model
    assert (model.id, model.licence.split()[0]) == ("humo-anny-1", "CC0-1.0")


def test_smpl_npz(smpl_npz):
    body = BodyModel.load(smpl_npz)
    assert body.id.startswith("smpl-")
    assert len(body.id) == len("smpl-") + 8
    nose = body.keypoint_rig().points(torch.eye(3).expand(24, 3, 3), body.joint_template, torch.zeros(10))[0]
    torch.testing.assert_close(nose, body.template[332], atol=1e-5, rtol=0)


def fake_class(module: str, name: str) -> type:
    """A class that pickles under the name of an uninstalled one."""
    return type(name, (), {"__module__": module})


@pytest.fixture
def python2_pickle(tmp_path, monkeypatch):
    """Writes a pickle like SMPL's .pkl files: chumpy arrays, a chumpy selection and a scipy matrix."""
    classes = {
        "chumpy.ch": ["Ch"], "chumpy.reordering": ["Select"], "scipy.sparse.csc": ["csc_matrix"], "os_like": ["Evil"]
    }  # fmt: skip
    stubs = {}
    monkeypatch.setitem(sys.modules, "chumpy", types.ModuleType("chumpy"))
    for module, names in classes.items():
        stub = types.ModuleType(module)
        for name in names:
            stubs[name] = fake_class(module, name)
            setattr(stub, name, stubs[name])
        monkeypatch.setitem(sys.modules, module, stub)

    def instance(name, **state):
        stub = stubs[name]()
        stub.__dict__.update(state)
        return stub

    def write(**extra):
        arrays = smpl_arrays()
        joints = arrays["J_regressor"]
        rows, columns = np.nonzero(joints.T)[::-1]
        stored = dict(arrays)
        stored["v_template"] = instance("Ch", x=arrays["v_template"], _dirty_vars=set())
        padded = instance("Ch", x=np.concatenate([arrays["shapedirs"], np.zeros((6890, 3, 2))], axis=2))
        indices = np.arange(6890 * 3 * 12).reshape(6890, 3, 12)[..., :10]
        stored["shapedirs"] = instance("Select", a=padded, idxs=indices.ravel(), preferred_shape=indices.shape)
        stored["J_regressor"] = instance(
            "csc_matrix", data=joints[rows, columns], indices=rows.astype(np.int32), _shape=joints.shape, format="csc",
            indptr=np.concatenate([[0], np.bincount(columns, minlength=6890).cumsum()]).astype(np.int32),
        )  # fmt: skip
        stored |= {name: instance(*value) for name, value in extra.items()}
        path = tmp_path / "SMPL_NEUTRAL.pkl"
        path.write_bytes(pickle.dumps(stored, protocol=2))
        return path

    return write


def test_smpl_pickle_equals_npz(python2_pickle, smpl_npz):
    from_pickle, from_npz = BodyModel.load(python2_pickle()), BodyModel.load(smpl_npz)
    axis_angle, betas, trans = random_pose()
    pose = (axis_angle_to_matrix(axis_angle), betas, trans)
    torch.testing.assert_close(from_pickle.vertices(*pose), from_npz.vertices(*pose))


def test_pickles_with_unknown_classes_are_rejected(python2_pickle):
    with pytest.raises(HumoError, match=r"os_like\.Evil"):
        BodyModel.load(python2_pickle(extra=("Evil",)))


class RunsCode:
    def __reduce__(self):
        return eval, ("1 + 1",)


def test_arrays_of_object_pointers_are_rejected(tmp_path):
    class Pointer:
        def __reduce__(self):
            return np.ndarray, ((1,), np.dtype("O"), b"\0" * 8)

    path = tmp_path / "smpl.pkl"
    path.write_bytes(pickle.dumps({"v_template": Pointer()}, protocol=2))
    with pytest.raises(HumoError, match=r"smpl\.pkl.*not a readable SMPL pickle"):
        BodyModel.load(path)


def test_pickles_that_run_code_are_rejected(tmp_path):
    path = tmp_path / "SMPL.pkl"
    path.write_bytes(pickle.dumps({"v_template": RunsCode()}, protocol=2))
    with pytest.raises(HumoError, match="eval"):
        BodyModel.load(path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"weights": None}, "lacks 'weights'"),
        ({"v_template": np.zeros((10475, 3))}, "10475.*SMPL-X"),
        ({"J_regressor": np.zeros((52, 6890))}, r"\(52, 6890\)"),
        ({"shapedirs": np.zeros((6890, 3, 4))}, "4 shape directions"),
        ({"kintree_table": np.zeros((2, 24), np.int64)}, "parents"),
    ],
)
def test_other_layouts_are_rejected(tmp_path, change, message):
    path = tmp_path / "body.npz"
    np.savez(path, **{name: a for name, a in (smpl_arrays() | change).items() if a is not None})
    with pytest.raises(HumoError, match=message) as caught:
        BodyModel.load(path)
    assert str(path) in str(caught.value)


def test_missing_and_broken_files_are_rejected(tmp_path):
    with pytest.raises(HumoError, match="no such body model"):
        BodyModel.load(tmp_path / "none.npz")
    (tmp_path / "broken.npz").write_bytes(b"not a zip")
    with pytest.raises(HumoError, match="download it again"):
        BodyModel.load(tmp_path / "broken.npz")
    shutil.copy(Path(__file__), tmp_path / "body.obj")
    with pytest.raises(HumoError, match=r"\.obj"):
        BodyModel.load(tmp_path / "body.obj")


def test_written_files_do_not_depend_on_the_clock(tmp_path, monkeypatch):
    arrays = {"about": np.array("{}"), "x": np.arange(6).reshape(2, 3).T}
    write_npz(tmp_path / "a.npz", arrays)
    monkeypatch.setattr("time.time", lambda: 2e9)
    write_npz(tmp_path / "b.npz", arrays)
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()
    with zipfile.ZipFile(tmp_path / "a.npz") as archive, np.load(tmp_path / "a.npz") as loaded:
        assert archive.testzip() is None
        np.testing.assert_array_equal(loaded["x"], arrays["x"])
        assert loaded["about"].shape == ()


def test_components_are_scaled_to_one_standard_deviation():
    rng = np.random.default_rng(0)
    basis = rng.normal(size=(10, 40 * 3))
    bodies = (5 + rng.normal(size=(300, 10)) @ basis).reshape(300, 40, 3).astype(np.float32)
    mean, directions = principal_components(bodies)
    scores = np.linalg.lstsq(directions.reshape(-1, 10), (bodies - mean).reshape(300, -1).T, rcond=None)[0]
    np.testing.assert_allclose(scores.std(1, ddof=1), 1, rtol=1e-3)
    np.testing.assert_allclose((directions.reshape(-1, 10) @ scores).T.reshape(bodies.shape) + mean, bodies, atol=1e-3)


def test_t_pose_straightens_any_limbs(model):
    axis_angle = torch.zeros(24, 3)
    for name, rotation in (
        ("left_shoulder", [0, 0, -0.7]),
        ("left_elbow", [0, -0.6, 0]),
        ("right_hip", [-0.3, 0.1, -0.1]),
    ):
        axis_angle[joint(name)] = torch.tensor(rotation)
    rotations = axis_angle_to_matrix(axis_angle)
    bent, _ = forward_kinematics(rotations, model.joint_template, torch.zeros(3))
    skin = model.vertices(rotations, torch.zeros(10), torch.zeros(3))
    # The hinge of a straight elbow is undefined: bend the right one slightly.
    bent[[joint("right_wrist"), joint("right_hand")], 2] += 0.02
    _, joints = to_t_pose(skin[None].double().numpy(), bent[None].double().numpy(), model.skinning_weights.numpy())
    # Feet are only rotated about Y: they are flat in the input.
    straight = [j for j in range(24) if j != joint("right_foot")]
    np.testing.assert_allclose(joints[0, straight], model.joint_template[straight], atol=0.002)


def test_drop_hidden_keeps_skin_and_eyes_only():
    def tetrahedron(first):
        return np.array([[0, 1, 2], [0, 1, 3], [0, 2, 3], [1, 2, 3]]) + first

    skin = np.concatenate([tetrahedron(0), [[3, 4, 5], [4, 5, 6]]])
    tongue = np.concatenate([tetrahedron(7), [[10, 11, 7]]])
    faces = np.concatenate([skin, tongue, tetrahedron(12), tetrahedron(16)])
    kept_faces, kept = drop_hidden(faces, np.arange(20), np.array([4, 5, 6]))
    assert kept.tolist() == [0, 1, 2, 3, 4, 5, *range(12, 20)]
    assert kept_faces.max() == len(kept) - 1
    assert len(kept_faces) == 4 + 1 + 8
