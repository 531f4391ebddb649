"""The lifter: made-up cameras and detectors, the network's symmetries, training that goes on, the path over the ground."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from schemas.body_model import BodyModel
from schemas.config import load_config
from schemas.errors import HumoError, UsageError
from schemas.kinematics import forward_kinematics
from schemas.rotations import axis_angle_to_matrix, matrix_to_6d, yaw_matrix
from stages.fitting.fit import Fit
from stages.lifting import bank as banks
from stages.lifting.augment import Shares, draw_windows, mirror, vary
from stages.lifting.cameras import draw_cameras
from stages.lifting.evaluate import evaluate, group_of, make_cases, pick, summary
from stages.lifting.examples import Examples, Rigs, draw_examples
from stages.lifting.features import find_boxes, make_features
from stages.lifting.fitter import LiftFitter, Sight, export, load_weights
from stages.lifting.losses import losses, make_bodies
from stages.lifting.metrics import DEFINITIONS, Figure, acceleration_error, measure, summarise
from stages.lifting.network import Lifted, Lifter, NetworkConfig
from stages.lifting.settings import Augmentation, LifterTraining, LossWeights
from stages.lifting.train import main, train
from stages.lifting.trajectory import Certainty, solve_path

SMALL = NetworkConfig(width=32, layers=1, heads=2, feed_forward=32)
CONFIG = Path(__file__).parents[2] / "configs" / "lifter.yaml"


@pytest.fixture(scope="module")
def body() -> BodyModel:
    return BodyModel.load()


@pytest.fixture(scope="module")
def rigs(body: BodyModel) -> Rigs:
    return Rigs.of(body)


@pytest.fixture(scope="module")
def bank(body: BodyModel) -> banks.Bank:
    return banks.make_studio(range(1), body, seconds=3.0)


@pytest.fixture(scope="module")
def examples(bank: banks.Bank, rigs: Rigs) -> Examples:
    return draw_examples(bank, 12, 40, rigs, Augmentation(), torch.Generator().manual_seed(3))


def _perfect(examples: Examples) -> Lifted:
    """What a network without error would say."""
    truth, boxes = examples.truth, examples.boxes
    depth = truth.pelvis_camera[..., 2]
    shift = (truth.pelvis_camera[..., :2] / depth[..., None] - boxes.centre) / (boxes.size / 2)[..., None]
    frames = depth.shape[1]
    return Lifted(
        pose=matrix_to_6d(truth.rotations[:, :, 1:22]).flatten(-2),
        root_camera=matrix_to_6d(truth.root_camera),
        root_level=matrix_to_6d(truth.root_level),
        velocity=truth.velocity,
        place=torch.cat([shift, (depth * boxes.size).log()[..., None]], dim=-1),
        contacts=torch.where(truth.contacts > 0.5, 20.0, -20.0),
        log_sigma=torch.full((*depth.shape, 22), -3.0),
        log_noise=torch.full((*depth.shape, 17), -5.0),
        betas=truth.betas[:, None].expand(-1, frames, -1),
    )


def test_a_perfect_answer_has_no_loss(bank: banks.Bank, rigs: Rigs) -> None:
    plain = Augmentation(gestures=0.0, perturbed=0.0, focal_error=0.0, noise=0.0)
    examples = draw_examples(bank, 8, 40, rigs, plain, torch.Generator().manual_seed(1))
    # The studio's hands may turn; the lifter's do not, which moves neither keypoints nor contact points.
    terms = losses(_perfect(examples), examples, rigs, LossWeights())
    for name in (
        "rotation",
        "root",
        "joints_body",
        "joints_camera",
        "joints_level",
        "tilt",
        "velocity",
        "path",
        "place",
    ):
        assert float(terms[name]) < 0.05, name
    assert float(terms["reprojection"]) < 0.02
    # Feet that stand by the soft rule may still creep.
    assert float(terms["slide"]) < 0.3 * LossWeights().slide


def test_examples_come_from_the_seed(bank: banks.Bank, rigs: Rigs, examples: Examples) -> None:
    again = draw_examples(bank, 12, 40, rigs, Augmentation(), torch.Generator().manual_seed(3))
    assert torch.equal(again.seen.rays, examples.seen.rays)
    assert torch.equal(again.truth.root_camera, examples.truth.root_camera)
    assert bool(torch.isfinite(make_features(examples.seen, examples.boxes)).all())


def test_level_worlds_have_the_true_vertical(examples: Examples) -> None:
    truth = examples.truth
    turn = truth.root_level @ truth.rotations[:, :, 0].mT
    up = torch.tensor([0.0, 1.0, 0.0])
    torch.testing.assert_close(turn @ up, up.expand(*turn.shape[:2], 3), atol=1e-5, rtol=0)
    # X points right in the image: the camera's right axis has no part along Z.
    right_in_level = (truth.root_level @ truth.root_camera.mT)[..., :, 0]
    assert float(right_in_level[..., 2].abs().max()) < 1e-5
    assert float(right_in_level[..., 0].min()) > 0.9


def test_cameras_see_people_upright_and_within_the_picture(bank: banks.Bank, rigs: Rigs) -> None:
    generator = torch.Generator().manual_seed(0)
    windows = draw_windows(bank, 64, 40, (1.0, 1.0), generator)
    betas = torch.zeros(64, 1, 10)
    rest = rigs.body.rest_joints(betas)
    joints, turns = forward_kinematics(windows.rotations, rest, windows.pelvis - rest[..., 0, :])
    points = rigs.keypoints.points(turns, joints, betas)
    cameras = draw_cameras(points, 0.5, generator)
    seen = cameras.see(points)
    assert float(seen[..., 2].min()) > 0.2
    image = seen[..., :2] / seen[..., 2:] * cameras.focal[:, None, None, None]
    inside = (image.abs() < cameras.half_size[:, None, None]).all(-1).float().mean((1, 2))
    assert float((inside > 0.7).float().mean()) > 0.95
    # Down in the image is down in the world, nearly always: heads are above ankles.
    assert float((image[:, :, 0, 1] < image[:, :, 15, 1]).float().mean()) > 0.95
    identity = torch.eye(3).expand_as(cameras.rotation)
    torch.testing.assert_close(cameras.rotation @ cameras.rotation.mT, identity, atol=1e-4, rtol=0)
    still = (cameras.turn() - identity).abs().amax((1, 2, 3)) < 1e-5
    assert 0.25 < float(still.float().mean()) < 0.75


def test_a_mirrored_world_gives_mirrored_features_and_truth(examples: Examples, rigs: Rigs) -> None:
    once = examples.seen.mirrored()
    twice = once.mirrored()
    torch.testing.assert_close(twice.rays, examples.seen.rays)
    torch.testing.assert_close(twice.confidence, examples.seen.confidence)
    torch.testing.assert_close(find_boxes(once).size, examples.boxes.size)
    said = _perfect(examples)
    bodies, mirrored = make_bodies(said, rigs), make_bodies(said.mirrored(), rigs)
    flip = torch.tensor([-1.0, 1.0, 1.0])
    # The shipped body is almost but not quite its own mirror image.
    order = [0, 2, 1, 4, 3, 6, 5, 8, 7, 10, 9, 12, 11, 14, 13, 16, 15]
    torch.testing.assert_close(mirrored.keypoints, bodies.keypoints[:, :, order] * flip, atol=0.02, rtol=0)


def test_expected_errors_are_those_that_come_out_right(bank: banks.Bank, rigs: Rigs) -> None:
    examples = draw_examples(bank, 16, 40, rigs, Augmentation(), torch.Generator().manual_seed(4))
    off = (examples.seen.rays - examples.truth.rays).norm(dim=-1) / examples.boxes.size[..., None]
    mean = float(off.clamp(min=0.003)[examples.seen.valid].mean().log())
    said = _perfect(examples)

    def cost(name: str, value: float) -> float:
        changed = replace(said, **{name: torch.full_like(getattr(said, name), value)})
        return float(losses(changed, examples, rigs, LossWeights())[name.removeprefix("log_")])

    assert cost("log_noise", mean) < min(cost("log_noise", mean - 0.5), cost("log_noise", mean + 0.5))
    # A body that is right to the last: small errors are expected, but not without end.
    assert cost("log_sigma", -6.2) < min(cost("log_sigma", -4.0), cost("log_sigma", -9.0))


def test_mirroring_and_variation_keep_motions_whole(bank: banks.Bank) -> None:
    generator = torch.Generator().manual_seed(2)
    windows = draw_windows(bank, 8, 60, (0.67, 1.5), generator)
    back = mirror(mirror(windows, torch.ones(8, dtype=torch.bool)), torch.ones(8, dtype=torch.bool))
    torch.testing.assert_close(back.rotations, windows.rotations, atol=1e-5, rtol=0)
    varied = vary(windows, Shares(gestures=1.0, kicks=1.0, recombined=1.0, perturbed=1.0), generator).rotations
    eye = torch.eye(3).expand_as(varied)
    torch.testing.assert_close(varied @ varied.mT, eye, atol=1e-4, rtol=0)
    step = (varied[:, 1:] - varied[:, :-1]).flatten(-2).norm(dim=-1)
    assert float(step.quantile(0.99)) < 0.6


def test_noise_is_told_by_confidence(bank: banks.Bank, rigs: Rigs) -> None:
    generator = torch.Generator().manual_seed(5)
    seen = draw_examples(bank, 64, 60, rigs, Augmentation(), generator)
    error = (seen.seen.rays - seen.truth.rays).norm(dim=-1) / seen.boxes.size[..., None]
    confidence, valid = seen.seen.confidence, seen.seen.valid[..., None]
    sure, unsure = (confidence > 0.9) & valid, (confidence < 0.1) & valid
    assert float(error[sure].median()) < 0.02 < float(error[unsure].mean())
    assert 0.6 < float(sure.float().mean()) < 0.95
    quiet = draw_examples(bank, 16, 40, rigs, Augmentation(noise=0.0), torch.Generator().manual_seed(5))
    torch.testing.assert_close(quiet.seen.rays, quiet.truth.rays)


def test_a_level_pelvis_moves_nothing_else(body: BodyModel, bank: banks.Bank) -> None:
    tipped = bank.rotations.clone()
    tilt = axis_angle_to_matrix(torch.tensor([0.12, 0.0, 0.0]))
    tipped[:, 0] = tipped[:, 0] @ tilt
    for child in (1, 2, 3):
        tipped[:, child] = tilt.T @ tipped[:, child]
    levelled = banks.with_level_pelvis(banks.Bank(**{**vars(bank), "rotations": tipped})).rotations
    expected = banks.with_level_pelvis(bank).rotations
    torch.testing.assert_close(levelled, expected, atol=1e-3, rtol=0)
    joints = [forward_kinematics(r, body.joint_template, torch.zeros(len(r), 3))[1] for r in (levelled, bank.rotations)]
    torch.testing.assert_close(joints[0][:, 1:], joints[1][:, 1:], atol=1e-4, rtol=0)


def test_frames_that_fill_up_a_window_change_nothing(examples: Examples) -> None:
    model = Lifter(SMALL).eval()
    features = make_features(examples.seen, examples.boxes)[:2, :30]
    alone = model(features, torch.ones(2, 30, dtype=torch.bool))
    padded = torch.cat([features, torch.zeros(2, 10, features.shape[-1])], dim=1)
    valid = torch.arange(40).expand(2, 40) < 30
    filled = model(padded, valid)
    torch.testing.assert_close(filled.pose[:, :30], alone.pose, atol=1e-5, rtol=0)
    torch.testing.assert_close(filled.betas[:, :30], alone.betas, atol=1e-5, rtol=0)


def test_path_follows_rays_and_feet() -> None:
    frames = 60
    t = torch.arange(frames) / 30
    path = torch.stack([0.5 * t, torch.ones(frames), -5 + 0 * t], -1)
    to_camera = torch.diag(torch.tensor([1.0, -1.0, -1.0])).expand(frames, 3, 3)
    points = torch.randn(frames, 17, 3, generator=torch.Generator().manual_seed(0)) * 0.4
    camera = (points + path[:, None]) @ to_camera.mT
    rays = camera[..., :2] / camera[..., 2:]
    feet = torch.tensor([0.1, -1.0, 0.0]) - path[:, None]
    found, camera_place = solve_path(
        points, rays, torch.ones(frames, 17), torch.full((frames,), 0.35), path + torch.tensor([0.0, 0.0, 0.4]), to_camera,
        torch.tensor([0.5, 0.0, 0.0]).expand(frames, 3), feet, torch.ones(frames, 1), Certainty(),
    )  # fmt: skip
    assert float((found - path).norm(dim=-1).mean()) < 0.1
    assert not camera_place.any()
    assert float((found.diff(dim=0) - path.diff(dim=0)).norm(dim=-1).max()) < 0.005


def test_clean_keypoints_overrule_a_wrong_velocity_and_noisy_ones_less() -> None:
    frames = 60
    t = torch.arange(frames) / 30
    path = torch.stack([0.4 * t, torch.ones(frames), -5 + 0.8 * t], -1)
    to_camera = torch.diag(torch.tensor([1.0, -1.0, -1.0])).expand(frames, 3, 3)
    generator = torch.Generator().manual_seed(0)
    points = torch.randn(frames, 17, 3, generator=generator) * 0.4
    camera = (points + path[:, None]) @ to_camera.mT
    rays = camera[..., :2] / camera[..., 2:]
    size = torch.full((frames,), 0.4)
    noise = 0.02 * size[:, None, None] * torch.randn(rays.shape, generator=generator)
    too_fast = 1.4 * torch.tensor([0.4, 0.0, 0.8]).expand(frames, 3)
    feet = torch.zeros(frames, 1, 3)
    lengths = [
        float(
            solve_path(
                points, rays + some * noise, torch.ones(frames, 17), size, path, to_camera, too_fast, feet,
                torch.zeros(frames, 1), Certainty(),
            )[0][[0, -1]].diff(dim=0).norm()
        )
        for some in (0, 1)
    ]  # fmt: skip
    true = float((path[-1] - path[0]).norm())
    assert lengths[0] < 1.1 * true
    assert lengths[0] < lengths[1] < 1.4 * true


def test_a_carried_camera_is_told_from_a_walking_person() -> None:
    frames = 90
    t = torch.arange(frames) / 30
    path = torch.stack([0.8 * t, torch.ones(frames), -5 + 0 * t], -1)
    camera_path = torch.stack([0.5 * t, 0 * t, -0.2 * t], -1)
    to_camera = torch.diag(torch.tensor([1.0, -1.0, -1.0])).expand(frames, 3, 3)
    points = torch.randn(frames, 17, 3, generator=torch.Generator().manual_seed(0)) * 0.4
    seen = (points + (path - camera_path)[:, None]) @ to_camera.mT
    rays = seen[..., :2] / seen[..., 2:]
    feet = torch.tensor([0.1, -1.0, 0.0]) - path[:, None]
    found, camera = solve_path(
        points, rays, torch.ones(frames, 17), torch.full((frames,), 0.35), path - camera_path, to_camera,
        torch.tensor([0.8, 0.0, 0.0]).expand(frames, 3), feet, torch.ones(frames, 1), Certainty(), carried=True,
    )  # fmt: skip
    assert float((camera - camera_path).norm(dim=-1).max()) < 0.4
    assert float((found.diff(dim=0) - path.diff(dim=0)).norm(dim=-1).max()) < 0.005


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a training of a few steps."""
    output = tmp_path_factory.mktemp("lifter")
    train(_config(output, steps=6))
    return output


def _config(output: Path, steps: int) -> LifterTraining:
    return LifterTraining(
        output=str(output), network=SMALL, studio_seeds=1, window=24, batch_size=4, steps=steps, warmup_steps=2,
        log_every=2, validate_every=3, bf16=False, device="cpu", save_every_s=1e-6,
    )  # fmt: skip


def test_training_logs_and_goes_on_where_it_stopped(trained: Path, tmp_path: Path) -> None:
    rows = [json.loads(line) for line in (trained / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows if "loss" in row] == [2, 4, 6]
    assert {"clean_mpjpe", "noisy_tilt"} <= set(rows[-1])
    assert (trained / "curve.png").stat().st_size > 1000
    whole = torch.load(trained / "checkpoint.pt", weights_only=True)
    state = {**whole}
    # Stopped after three steps of the same schedule, then gone on with.
    config = _config(tmp_path, steps=6)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("stages.lifting.train._learning_rate", _stop_after(3))
        with pytest.raises(KeyboardInterrupt):
            train(config)
    assert torch.load(tmp_path / "checkpoint.pt", weights_only=True)["step"] == 3
    train(config)
    resumed = torch.load(tmp_path / "checkpoint.pt", weights_only=True)
    for name, value in resumed["average"].items():
        torch.testing.assert_close(value, state["average"][name], atol=1e-6, rtol=1e-5)
    begun = _config(tmp_path / "begun", steps=1).model_copy(
        update={"start": str(tmp_path / "checkpoint.pt"), "learning_rate": 1e-9}
    )
    train(begun)
    for name, value in torch.load(tmp_path / "begun/checkpoint.pt", weights_only=True)["model"].items():
        torch.testing.assert_close(value, resumed["average"][name], atol=1e-6, rtol=1e-5)
    with pytest.raises(UsageError, match="no such checkpoint"):
        train(begun.model_copy(update={"start": str(tmp_path / "nowhere.pt")}))
    with pytest.raises(UsageError, match="another network"):
        train(config.model_copy(update={"network": NetworkConfig(width=16, layers=1, heads=2, feed_forward=16)}))


def _stop_after(steps: int):
    from stages.lifting.train import _learning_rate

    def rate(step: int, config: LifterTraining) -> float:
        if step == steps:
            raise KeyboardInterrupt
        return _learning_rate(step, config)

    return rate


def test_exported_weights_fit_clips(
    trained: Path, tmp_path: Path, body: BodyModel, rigs: Rigs, bank: banks.Bank
) -> None:
    weights = tmp_path / "lifter.safetensors"
    export(trained / "checkpoint.pt", weights)
    loaded = load_weights(weights)
    assert loaded.window == 24
    assert loaded.version.startswith("lifter ")
    assert loaded.model.config == SMALL
    assert loaded.precision is not None
    assert bool((torch.linalg.eigvalsh(loaded.precision) > 0).all())
    cases = make_cases(bank, rigs, noise=1.0)[:2]
    fitter = LiftFitter(body, weights=weights)
    together, alone = fitter.fit([case.clip for case in cases]), fitter.fit([cases[1].clip])[0]
    assert isinstance(alone, Fit)
    for one, other in zip(together, [together[0], alone], strict=True):
        assert isinstance(one, Fit)
        assert torch.equal(one.rotations, other.rotations)
        assert torch.equal(one.trans, other.trans)
    fit = together[0]
    assert isinstance(fit, Fit)
    assert fit.contacts is not None
    assert set(np.unique(fit.contacts)) <= {0, 1}
    frames = len(cases[0].clip.keypoints)
    assert fit.rotations.shape == (frames, 24, 3, 3)
    assert fit.reprojection.shape == (frames, 17)
    assert fit.camera.rotation.shape == (frames, 3, 3)
    assert np.isfinite(fit.trans.numpy()).all()
    # A level world: the camera's right axis is level in it.
    assert np.abs(fit.camera.rotation[:, 0, 1]).max() < 0.5
    report = summary(cases, evaluate(fitter, cases, body))
    assert report["all"]["clips"] == 2


def test_short_and_unseen_clips_still_come_out(trained: Path, body: BodyModel) -> None:
    fitter = LiftFitter(body, weights=trained / "checkpoint.pt")
    for frames in (1, 2, 25, 50):
        lift = fitter.lift([Sight(torch.zeros(frames, 17, 2), torch.zeros(frames, 17))])[0]
        assert bool(torch.isfinite(lift.trans).all())
        assert lift.sigma_m.shape == (frames, 22)
        torch.testing.assert_close(torch.linalg.det(lift.to_camera), torch.ones(frames))


@pytest.fixture(scope="module")
def walk(bank: banks.Bank, rigs: Rigs) -> Figure:
    """Somebody who goes somewhere."""
    cases = make_cases(bank, rigs, noise=0.0)
    return next(case.truth for case in cases if case.group == "walk")


def test_the_truth_measures_zero(walk: Figure, body: BodyModel) -> None:
    errors = measure(walk, walk, body)
    zero = set(errors) - {"path_m", "frames", "root", *(name for name in errors if name.startswith("_"))}
    assert {name for name in zero if errors[name] > 1e-2} == set()
    assert errors["path_m"] > 1
    whole = summarise([errors, errors])
    assert whole["contact_f1"] == 1
    assert whole["clips"] == 2
    assert set(DEFINITIONS) - set(whole) == {"fps"}


def test_where_the_world_is_does_not_matter_but_where_the_camera_is(walk: Figure, body: BodyModel) -> None:
    turn = yaw_matrix(torch.tensor(0.7))
    shift, rest = torch.tensor([3.0, 0.4, -2.0]), body.rest_joints(walk.betas)[0]
    rotations = walk.rotations.clone()
    rotations[:, 0] = turn @ rotations[:, 0]
    trans = (walk.trans + rest) @ turn.T + shift - rest
    there = {"rotations": rotations, "trans": trans, "to_camera": walk.to_camera @ turn.numpy().T}
    moved = replace(walk, **there, eye=walk.eye @ turn.numpy().T + shift.numpy())
    errors = measure(moved, walk, body)
    assert max(errors[name] for name in ("mpjpe", "pve", "tilt", "w_mpjpe100", "root_m", "rte_m", "end_m")) < 0.05
    farther = replace(moved, eye=moved.eye + np.float32([0.0, 0.5, 0.0]))
    errors = measure(farther, walk, body)
    assert errors["root_m"] == pytest.approx(0.5, abs=1e-3)
    assert errors["mpjpe"] < 0.05


def test_errors_over_the_ground(walk: Figure, body: BodyModel) -> None:
    frames = len(walk.trans)
    start = walk.trans[:1]
    longer = measure(replace(walk, trans=start + 1.2 * (walk.trans - start)), walk, body)
    assert longer["mpjpe"] < 1e-2
    whole = summarise([longer])
    assert 10 < whole["drift"] < 20.5
    assert whole["rte"] < whole["drift"]
    assert longer["wa_mpjpe100"] < longer["w_mpjpe100"]
    # Standing feet slide with a fifth of the pelvis' speed, in frames where they are said to stand.
    speed_mm = 1000 * float((walk.trans[1:] - walk.trans[:-1]).norm(dim=-1).mean())
    assert whole["slide"] == pytest.approx(0.2 * speed_mm + summarise([measure(walk, walk, body)])["slide"], rel=0.35)
    nothing = replace(walk, contacts=np.zeros((frames, 4), bool))
    silent = summarise([measure(nothing, walk, body)])
    assert silent["contact_f1"] == 0
    assert np.isnan(silent["slide"])
    assert silent["slide_true"] < 10


def test_acceleration_error_is_that_of_second_differences() -> None:
    time_s = np.arange(40) / 30
    truth = np.zeros((40, 24, 3))
    said = truth + np.array([0.5 * 3.0, 0, 0]) * time_s[:, None, None] ** 2 + 7 * time_s[:, None, None] + 2
    assert acceleration_error(said, truth) == pytest.approx(3.0)
    assert acceleration_error(said[:2], truth[:2]) == 0


def test_picking_spreads_over_what_is_done() -> None:
    paths = [Path(f"dataset-1_{group}_x_{number:03d}.bvh") for group in "abcde" for number in range(9)]
    assert [len({path.stem.split("_")[1] for path in pick(paths, count)}) for count in (1, 3, 5, 12)] == [1, 3, 5, 5]
    assert [len(pick(paths, count)) for count in (1, 3, 12, 100)] == [1, 3, 12, 45]


@pytest.mark.parametrize(
    ("name", "group"),
    [
        ("x/dataset-2_wave-both-hands_active_001", "wave-both-hands"),
        ("cmu/train_soccer_3", "soccer"),
        ("01_02", "01_02"),
    ],
)
def test_groups_are_named_after_actions(name: str, group: str) -> None:
    assert group_of(name) == (group if group != "01_02" else "01")


def test_the_shipped_config_is_whole_and_errors_are_sentences(
    trained: Path, body: BodyModel, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = load_config(CONFIG, LifterTraining)
    assert set(config.model_fields_set) == set(LifterTraining.model_fields)
    with pytest.raises(HumoError, match="no lifter weights"):
        load_weights(tmp_path / "missing.safetensors")
    (tmp_path / "bad.safetensors").write_bytes(b"no weights")
    with pytest.raises(HumoError, match="holds no lifter"):
        load_weights(tmp_path / "bad.safetensors")
    halfway = torch.load(trained / "checkpoint.pt", weights_only=True)
    del halfway["precision"]
    torch.save(halfway, tmp_path / "halfway.pt")
    with pytest.raises(HumoError, match="not ended"):
        LiftFitter(body, weights=tmp_path / "halfway.pt")
    with pytest.raises(HumoError, match="not ended"):
        export(tmp_path / "halfway.pt", tmp_path / "out.safetensors")
    halfway["average"]["norm.weight"][0] = float("nan")
    torch.save(halfway, tmp_path / "broken.pt")
    with pytest.raises(HumoError, match=r"broken\.pt.*not finite"):
        load_weights(tmp_path / "broken.pt")
    assert main([]) == 2
    assert main([str(CONFIG), f"mocap=[{tmp_path / 'none'}]", f"output={tmp_path}"]) == 2
    assert "no such folder" in capsys.readouterr().err
