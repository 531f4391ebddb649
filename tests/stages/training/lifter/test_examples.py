"""The lifter: made-up cameras and detectors, motions made varied, losses, the network's symmetries."""

from dataclasses import replace
from itertools import accumulate

import pytest
import torch

from schemas.body_model import BodyModel
from schemas.kinematics import forward_kinematics
from schemas.rotations import axis_angle_to_matrix, matrix_to_6d
from stages.recovery.lifter.bodies import make_bodies
from stages.recovery.lifter.features import FOCAL_GUESSED, FOCAL_KNOWN, find_boxes, make_features, with_focal_length
from stages.recovery.lifter.network import Lifter, LifterOutput, NetworkConfig, with_all_features
from stages.recovery.lifter.rigs import Rigs
from stages.recovery.lifter.world import ClipObservation
from stages.training.lifter import motion_dataset
from stages.training.lifter.augment import Shares, draw_windows, mirror, vary
from stages.training.lifter.camera_sampler import draw_cameras
from stages.training.lifter.examples import Examples, Lenses, draw_examples
from stages.training.lifter.losses import losses
from stages.training.lifter.settings import Augmentation, LossWeights


def _perfect(examples: Examples) -> LifterOutput:
    """What a network without error would say."""
    truth, boxes = examples.truth, examples.boxes
    depth = truth.pelvis_camera[..., 2]
    shift = (truth.pelvis_camera[..., :2] / depth[..., None] - boxes.centre) / (boxes.size / 2)[..., None]
    frames = depth.shape[1]
    return LifterOutput(
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


def test_a_perfect_answer_has_no_loss(dataset: motion_dataset.MotionDataset, rigs: Rigs) -> None:
    plain = Augmentation(gestures=0.0, perturbed=0.0, focal_guessed=0.0, focal_error=0.0, noise=0.0)
    examples = draw_examples(dataset, 8, 40, rigs, plain, torch.Generator().manual_seed(1))
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


def test_examples_come_from_the_seed(dataset: motion_dataset.MotionDataset, rigs: Rigs, examples: Examples) -> None:
    again = draw_examples(dataset, 12, 40, rigs, Augmentation(), torch.Generator().manual_seed(3))
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


def test_cameras_see_people_upright_and_within_the_picture(dataset: motion_dataset.MotionDataset, rigs: Rigs) -> None:
    generator = torch.Generator().manual_seed(0)
    windows = draw_windows(dataset, 64, 40, (1.0, 1.0), generator)
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


def test_expected_errors_are_those_that_come_out_right(dataset: motion_dataset.MotionDataset, rigs: Rigs) -> None:
    examples = draw_examples(dataset, 16, 40, rigs, Augmentation(), torch.Generator().manual_seed(4))
    off = (examples.seen.rays - examples.truth.rays).norm(dim=-1) / examples.boxes.size[..., None]
    mean = float(off.clamp(min=0.003)[examples.seen.valid].mean().log())
    said = _perfect(examples)

    def cost(name: str, value: float) -> float:
        changed = replace(said, **{name: torch.full_like(getattr(said, name), value)})
        return float(losses(changed, examples, rigs, LossWeights())[name.removeprefix("log_")])

    assert cost("log_noise", mean) < min(cost("log_noise", mean - 0.5), cost("log_noise", mean + 0.5))
    # A body that is right to the last: small errors are expected, but not without end.
    assert cost("log_sigma", -6.2) < min(cost("log_sigma", -4.0), cost("log_sigma", -9.0))


def test_mirroring_and_variation_keep_motions_whole(dataset: motion_dataset.MotionDataset) -> None:
    generator = torch.Generator().manual_seed(2)
    windows = draw_windows(dataset, 8, 60, (0.67, 1.5), generator)
    back = mirror(mirror(windows, torch.ones(8, dtype=torch.bool)), torch.ones(8, dtype=torch.bool))
    torch.testing.assert_close(back.rotations, windows.rotations, atol=1e-5, rtol=0)
    varied = vary(windows, Shares(gestures=1.0, kicks=1.0, recombined=1.0, perturbed=1.0), generator).rotations
    eye = torch.eye(3).expand_as(varied)
    torch.testing.assert_close(varied @ varied.mT, eye, atol=1e-4, rtol=0)
    step = (varied[:, 1:] - varied[:, :-1]).flatten(-2).norm(dim=-1)
    assert float(step.quantile(0.99)) < 0.6


def test_noise_is_told_by_confidence(dataset: motion_dataset.MotionDataset, rigs: Rigs) -> None:
    generator = torch.Generator().manual_seed(5)
    seen = draw_examples(dataset, 64, 60, rigs, Augmentation(), generator)
    error = (seen.seen.rays - seen.truth.rays).norm(dim=-1) / seen.boxes.size[..., None]
    confidence, valid = seen.seen.confidence, seen.seen.valid[..., None]
    sure, unsure = (confidence > 0.9) & valid, (confidence < 0.1) & valid
    assert float(error[sure].median()) < 0.02 < float(error[unsure].mean())
    assert 0.6 < float(sure.float().mean()) < 0.95
    quiet = draw_examples(dataset, 16, 40, rigs, Augmentation(noise=0.0), torch.Generator().manual_seed(5))
    torch.testing.assert_close(quiet.seen.rays, quiet.truth.rays)


def test_a_closer_look_tells_depths(dataset: motion_dataset.MotionDataset, rigs: Rigs) -> None:
    told = Augmentation(detector=1.0, closeup=1.0, focal_guessed=0.0, focal_error=0.0)
    examples = draw_examples(dataset, 48, 40, rigs, told, torch.Generator().manual_seed(6))
    closeup = examples.seen.closeup
    looked = (closeup[..., 1] > 0).flatten(1).all(1)
    assert 0.4 < float(looked.float().mean()) < 0.9, "clean windows have none"
    assert not closeup[~looked].any()
    truth = make_bodies(_perfect(examples), rigs)
    in_camera = truth.keypoints @ truth.root_camera.mT + examples.truth.pelvis_camera[:, :, None]
    middle = in_camera[..., 2].mean(-1, keepdim=True)
    depth = (in_camera[..., 2] / middle - 1) / examples.boxes.size[..., None]
    said = closeup[..., 0] / examples.boxes.size[..., None]
    off = (said - depth)[looked].abs()
    assert float(off.median()) < 0.08
    assert float(torch.corrcoef(torch.stack([said[looked].flatten(), depth[looked].flatten()]))[0, 1]) > 0.7
    # What is expected to be off is more where more is.
    expected = (closeup[looked][..., 2] / examples.boxes.size[looked][..., None]).flatten()
    unsure = expected > expected.quantile(0.8)
    assert float(off.flatten()[unsure].mean()) > 1.3 * float(off.flatten()[~unsure].mean())
    twice = examples.seen.mirrored().mirrored()
    torch.testing.assert_close(twice.closeup, closeup)


def test_focal_lengths_are_as_wrong_as_is_told(dataset: motion_dataset.MotionDataset, rigs: Rigs) -> None:
    focal = 0.55 * 3 ** torch.rand(4000, generator=torch.Generator().manual_seed(8))
    assumed, off = Lenses(guessed=0.35, most=0.25).assumed(focal, torch.Generator().manual_seed(9))
    wrong = (focal / assumed).log()
    for among, expected in ((off == FOCAL_GUESSED, FOCAL_GUESSED), (off == FOCAL_KNOWN, FOCAL_KNOWN)):
        assert 0.2 < float(among.float().mean()) < 0.4
        assert float(wrong[among].std()) == pytest.approx(expected, rel=0.1)
    assert bool((assumed[off == FOCAL_GUESSED] == 1).all())
    some = (off > 0.15) & (off < FOCAL_GUESSED)
    assert 0.15 < float(wrong[some].std()) < 0.25
    assumed, off = Lenses().assumed(focal, torch.Generator())
    assert torch.equal(assumed, focal)
    assert bool((off == FOCAL_KNOWN).all())
    # What is seen through the assumed lens is as large in the picture as through the true one.
    still = Augmentation(noise=0.0, moving_cameras=0.0, focal_guessed=1.0)
    examples = draw_examples(dataset, 8, 2, rigs, still, torch.Generator().manual_seed(8))
    pelvis = examples.truth.pelvis_camera
    hips = examples.truth.rays[:, :, [11, 12]].mean(2)
    assert float((hips - pelvis[..., :2] / pelvis[..., 2:]).norm(dim=-1).div(examples.boxes.size).max()) < 0.1


def test_sights_through_the_true_lens_are_what_that_lens_shows(
    dataset: motion_dataset.MotionDataset, rigs: Rigs
) -> None:
    moving = Augmentation(noise=0.0, moving_cameras=1.0, focal_guessed=0.0, focal_error=0.0)
    generator = torch.Generator().manual_seed(9)
    right = draw_examples(dataset, 4, 30, rigs, moving, generator)
    ratio = 1.3
    for number in range(4):
        turns = right.seen.turn[number]
        wrong = with_focal_length(turns[None], torch.tensor([[ratio]]))[0]
        since = torch.stack(list(accumulate(wrong, lambda before, turn: turn @ before)))
        closeup = torch.rand(30, 17, 3)
        assumed = ClipObservation(
            right.seen.rays[number] * ratio, right.seen.confidence[number], since, closeup, FOCAL_GUESSED
        )
        seen = assumed.through(ratio, 0.1).observation(torch.device("cpu"))
        torch.testing.assert_close(seen.rays[0], right.seen.rays[number])
        torch.testing.assert_close(seen.turn[0], turns, atol=1e-4, rtol=0)
        torch.testing.assert_close(seen.closeup[0] * ratio, closeup)
        assert float(seen.focal_off[0]) == pytest.approx(0.1)


def test_lifters_from_before_the_closer_look_say_what_they_said(examples: Examples) -> None:
    torch.manual_seed(0)
    model = Lifter(NetworkConfig(width=32, layers=1, heads=2, feed_forward=32)).eval()
    features = make_features(examples.seen, examples.boxes)
    valid = examples.seen.valid
    before = 80
    old = {**model.state_dict(), "stem.weight": model.state_dict()["stem.weight"][:, :before].clone()}
    model.load_state_dict(with_all_features(old))
    said = model(features, valid)
    changed = features.clone()
    changed[..., before:] = torch.randn_like(changed[..., before:])
    torch.testing.assert_close(model(changed, valid).pose, said.pose)
    assert with_all_features(model.state_dict()).keys() == model.state_dict().keys()


def test_a_level_pelvis_moves_nothing_else(body: BodyModel, dataset: motion_dataset.MotionDataset) -> None:
    tipped = dataset.rotations.clone()
    tilt = axis_angle_to_matrix(torch.tensor([0.12, 0.0, 0.0]))
    tipped[:, 0] = tipped[:, 0] @ tilt
    for child in (1, 2, 3):
        tipped[:, child] = tilt.T @ tipped[:, child]
    levelled = motion_dataset.with_level_pelvis(
        motion_dataset.MotionDataset(**{**vars(dataset), "rotations": tipped})
    ).rotations
    expected = motion_dataset.with_level_pelvis(dataset).rotations
    torch.testing.assert_close(levelled, expected, atol=1e-3, rtol=0)
    joints = [
        forward_kinematics(r, body.joint_template, torch.zeros(len(r), 3))[1] for r in (levelled, dataset.rotations)
    ]
    torch.testing.assert_close(joints[0][:, 1:], joints[1][:, 1:], atol=1e-4, rtol=0)


def test_frames_that_fill_up_a_window_change_nothing(examples: Examples) -> None:
    model = Lifter(NetworkConfig(width=32, layers=1, heads=2, feed_forward=32)).eval()
    features = make_features(examples.seen, examples.boxes)[:2, :30]
    alone = model(features, torch.ones(2, 30, dtype=torch.bool))
    padded = torch.cat([features, torch.zeros(2, 10, features.shape[-1])], dim=1)
    valid = torch.arange(40).expand(2, 40) < 30
    filled = model(padded, valid)
    torch.testing.assert_close(filled.pose[:, :30], alone.pose, atol=1e-5, rtol=0)
    torch.testing.assert_close(filled.betas[:, :30], alone.betas, atol=1e-5, rtol=0)
