"""Training examples of the lifter: simulated cameras and detectors, augmentation, losses, the network's symmetries."""

from dataclasses import replace
from itertools import accumulate

import pytest
import torch

from schemas.body_model import BodyModel
from schemas.kinematics import forward_kinematics
from schemas.rotations import axis_angle_to_matrix, matrix_to_6d
from stages.geometry.keypoints import DEPTH_ERROR, POSITION_ERROR
from stages.recovery.lifter.bodies import make_bodies
from stages.recovery.lifter.features import FOCAL_GUESSED, FOCAL_KNOWN, find_boxes, make_features, with_focal_length
from stages.recovery.lifter.network import Lifter, LifterOutput, NetworkConfig, with_all_features
from stages.recovery.lifter.rigs import Rigs
from stages.recovery.lifter.world import ClipObservation
from stages.training.lifter import motion_dataset
from stages.training.lifter.augment import Shares, augment, draw_windows, mirror
from stages.training.lifter.camera_sampler import draw_cameras
from stages.training.lifter.examples import Examples, FocalLengthNoise, draw_examples
from stages.training.lifter.losses import losses
from stages.training.lifter.settings import Augmentation, LossWeights


def _perfect(examples: Examples) -> LifterOutput:
    """Output of a network without error."""
    targets, boxes = examples.targets, examples.boxes
    depth = targets.pelvis_camera[..., 2]
    offset = (targets.pelvis_camera[..., :2] / depth[..., None] - boxes.centre) / (boxes.size / 2)[..., None]
    frames = depth.shape[1]
    return LifterOutput(
        pose=matrix_to_6d(targets.rotations[:, :, 1:22]).flatten(-2),
        root_camera=matrix_to_6d(targets.root_camera),
        root_level=matrix_to_6d(targets.root_level),
        velocity=targets.velocity,
        place=torch.cat([offset, (depth * boxes.size).log()[..., None]], dim=-1),
        contacts=torch.where(targets.contacts > 0.5, 20.0, -20.0),
        log_sigma=torch.full((*depth.shape, 22), -3.0),
        log_noise=torch.full((*depth.shape, 17), -5.0),
        betas=targets.betas[:, None].expand(-1, frames, -1),
    )


def test_a_perfect_output_has_no_loss(dataset: motion_dataset.MotionDataset, rigs: Rigs) -> None:
    plain = Augmentation(gestures=0.0, perturbed=0.0, focal_guessed=0.0, focal_error=0.0, noise=0.0)
    examples = draw_examples(dataset, 8, 40, rigs, plain, torch.Generator().manual_seed(1))
    # The studio's hands rotate, the lifter's do not; that moves neither keypoints nor contact points.
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
    # Feet in soft contact may still move slowly.
    assert float(terms["slide"]) < 0.3 * LossWeights().slide


def test_examples_depend_on_the_seed_alone(
    dataset: motion_dataset.MotionDataset, rigs: Rigs, examples: Examples
) -> None:
    again = draw_examples(dataset, 12, 40, rigs, Augmentation(), torch.Generator().manual_seed(3))
    assert torch.equal(again.observation.rays, examples.observation.rays)
    assert torch.equal(again.targets.root_camera, examples.targets.root_camera)
    assert bool(torch.isfinite(make_features(examples.observation, examples.boxes)).all())


def test_level_worlds_have_the_true_vertical(examples: Examples) -> None:
    targets = examples.targets
    to_level = targets.root_level @ targets.rotations[:, :, 0].mT
    up = torch.tensor([0.0, 1.0, 0.0])
    torch.testing.assert_close(to_level @ up, up.expand(*to_level.shape[:2], 3), atol=1e-5, rtol=0)
    # X points right in the image: the camera's right axis has no part along Z.
    right_in_level = (targets.root_level @ targets.root_camera.mT)[..., :, 0]
    assert float(right_in_level[..., 2].abs().max()) < 1e-5
    assert float(right_in_level[..., 0].min()) > 0.9


def test_cameras_see_people_upright_and_inside_the_image(dataset: motion_dataset.MotionDataset, rigs: Rigs) -> None:
    generator = torch.Generator().manual_seed(0)
    windows = draw_windows(dataset, 64, 40, (1.0, 1.0), generator)
    betas = torch.zeros(64, 1, 10)
    rest = rigs.body.rest_joints(betas)
    joints, rotations = forward_kinematics(windows.rotations, rest, windows.pelvis - rest[..., 0, :])
    points = rigs.keypoints.points(rotations, joints, betas)
    cameras = draw_cameras(points, 0.5, generator)
    in_camera = cameras.to_camera(points)
    assert float(in_camera[..., 2].min()) > 0.2
    image = in_camera[..., :2] / in_camera[..., 2:] * cameras.focal[:, None, None, None]
    inside = (image.abs() < cameras.half_size[:, None, None]).all(-1).float().mean((1, 2))
    assert float((inside > 0.7).float().mean()) > 0.95
    # Heads are above ankles in the image, nearly always.
    assert float((image[:, :, 0, 1] < image[:, :, 15, 1]).float().mean()) > 0.95
    identity = torch.eye(3).expand_as(cameras.rotation)
    torch.testing.assert_close(cameras.rotation @ cameras.rotation.mT, identity, atol=1e-4, rtol=0)
    static = (cameras.relative_rotation() - identity).abs().amax((1, 2, 3)) < 1e-5
    assert 0.25 < float(static.float().mean()) < 0.75


def test_mirroring_observations_and_outputs(examples: Examples, rigs: Rigs) -> None:
    once = examples.observation.mirrored()
    twice = once.mirrored()
    torch.testing.assert_close(twice.rays, examples.observation.rays)
    torch.testing.assert_close(twice.confidence, examples.observation.confidence)
    torch.testing.assert_close(find_boxes(once).size, examples.boxes.size)
    output = _perfect(examples)
    bodies, mirrored = make_bodies(output, rigs), make_bodies(output.mirrored(), rigs)
    flip = torch.tensor([-1.0, 1.0, 1.0])
    # The shipped body is not exactly symmetric.
    order = [0, 2, 1, 4, 3, 6, 5, 8, 7, 10, 9, 12, 11, 14, 13, 16, 15]
    torch.testing.assert_close(mirrored.keypoints, bodies.keypoints[:, :, order] * flip, atol=0.02, rtol=0)


def test_the_best_expected_errors_are_the_actual_ones(dataset: motion_dataset.MotionDataset, rigs: Rigs) -> None:
    examples = draw_examples(dataset, 16, 40, rigs, Augmentation(), torch.Generator().manual_seed(4))
    error = (examples.observation.rays - examples.targets.rays).norm(dim=-1) / examples.boxes.size[..., None]
    mean = float(error.clamp(min=0.003)[examples.observation.valid].mean().log())
    output = _perfect(examples)

    def cost(name: str, value: float) -> float:
        changed = replace(output, **{name: torch.full_like(getattr(output, name), value)})
        return float(losses(changed, examples, rigs, LossWeights())[name.removeprefix("log_")])

    assert cost("log_noise", mean) < min(cost("log_noise", mean - 0.5), cost("log_noise", mean + 0.5))
    # For a perfect body, small expected errors are best, but not arbitrarily small ones.
    assert cost("log_sigma", -6.2) < min(cost("log_sigma", -4.0), cost("log_sigma", -9.0))


def test_mirroring_and_augmentation_keep_motions_valid(dataset: motion_dataset.MotionDataset) -> None:
    generator = torch.Generator().manual_seed(2)
    windows = draw_windows(dataset, 8, 60, (0.67, 1.5), generator)
    back = mirror(mirror(windows, torch.ones(8, dtype=torch.bool)), torch.ones(8, dtype=torch.bool))
    torch.testing.assert_close(back.rotations, windows.rotations, atol=1e-5, rtol=0)
    augmented = augment(windows, Shares(gestures=1.0, kicks=1.0, recombined=1.0, perturbed=1.0), generator).rotations
    eye = torch.eye(3).expand_as(augmented)
    torch.testing.assert_close(augmented @ augmented.mT, eye, atol=1e-4, rtol=0)
    step = (augmented[:, 1:] - augmented[:, :-1]).flatten(-2).norm(dim=-1)
    assert float(step.quantile(0.99)) < 0.6


def test_confidence_reflects_noise(dataset: motion_dataset.MotionDataset, rigs: Rigs) -> None:
    generator = torch.Generator().manual_seed(5)
    examples = draw_examples(dataset, 64, 60, rigs, Augmentation(), generator)
    error = (examples.observation.rays - examples.targets.rays).norm(dim=-1) / examples.boxes.size[..., None]
    confidence, valid = examples.observation.confidence, examples.observation.valid[..., None]
    high, low = (confidence > 0.9) & valid, (confidence < 0.1) & valid
    assert float(error[high].median()) < 0.02 < float(error[low].mean())
    assert 0.6 < float(high.float().mean()) < 0.95
    exact = draw_examples(dataset, 16, 40, rigs, Augmentation(noise=0.0), torch.Generator().manual_seed(5))
    torch.testing.assert_close(exact.observation.rays, exact.targets.rays)


def test_depths_are_those_of_the_landmark_network(dataset: motion_dataset.MotionDataset, rigs: Rigs) -> None:
    augmentation = Augmentation(detector=1.0, landmarks=1.0, focal_guessed=0.0, focal_error=0.0)
    examples = draw_examples(dataset, 48, 40, rigs, augmentation, torch.Generator().manual_seed(6))
    depths = examples.observation.depths
    has_depths = (depths[..., 1] > 0).flatten(1).all(1)
    assert 0.4 < float(has_depths.float().mean()) < 0.9, "clean windows have none"
    assert not depths[~has_depths].any()
    target = make_bodies(_perfect(examples), rigs)
    in_camera = target.keypoints @ target.root_camera.mT + examples.targets.pelvis_camera[:, :, None]
    mean_depth = in_camera[..., 2].mean(-1, keepdim=True)
    depth = (in_camera[..., 2] / mean_depth - 1) / examples.boxes.size[..., None]
    estimated = depths[..., 0] / examples.boxes.size[..., None]
    error = (estimated - depth)[has_depths].abs()
    assert float(error.median()) < 0.08
    pairs = torch.stack([estimated[has_depths].flatten(), depth[has_depths].flatten()])
    assert float(torch.corrcoef(pairs)[0, 1]) > 0.7
    # The network tells no errors: those that are expected of it in inference are expected here too.
    expected = (depths[has_depths][..., 1:] / examples.boxes.size[has_depths][..., None, None]).flatten(0, -2)
    for found, constant in zip(expected.median(0).values.tolist(), (POSITION_ERROR, DEPTH_ERROR), strict=True):
        assert 0.7 < found / constant < 1.4
    twice = examples.observation.mirrored().mirrored()
    torch.testing.assert_close(twice.depths, depths)


def test_focal_length_errors_have_the_expected_deviation(dataset: motion_dataset.MotionDataset, rigs: Rigs) -> None:
    focal = 0.55 * 3 ** torch.rand(4000, generator=torch.Generator().manual_seed(8))
    noise = FocalLengthNoise(unknown_share=0.35, max_deviation=0.25)
    assumed, deviation = noise.draw(focal, torch.Generator().manual_seed(9))
    log_error = (focal / assumed).log()
    for expected in (FOCAL_GUESSED, FOCAL_KNOWN):
        selected = deviation == expected
        assert 0.2 < float(selected.float().mean()) < 0.4
        assert float(log_error[selected].std()) == pytest.approx(expected, rel=0.1)
    assert bool((assumed[deviation == FOCAL_GUESSED] == 1).all())
    selected = (deviation > 0.15) & (deviation < FOCAL_GUESSED)
    assert 0.15 < float(log_error[selected].std()) < 0.25
    assumed, deviation = FocalLengthNoise().draw(focal, torch.Generator())
    assert torch.equal(assumed, focal)
    assert bool((deviation == FOCAL_KNOWN).all())
    # The person has the same size in the image through the assumed focal length as through the true one.
    augmentation = Augmentation(noise=0.0, moving_cameras=0.0, focal_guessed=1.0)
    examples = draw_examples(dataset, 8, 2, rigs, augmentation, torch.Generator().manual_seed(8))
    pelvis = examples.targets.pelvis_camera
    hips = examples.targets.rays[:, :, [11, 12]].mean(2)
    assert float((hips - pelvis[..., :2] / pelvis[..., 2:]).norm(dim=-1).div(examples.boxes.size).max()) < 0.1


def test_observations_can_be_converted_to_the_true_focal_length(
    dataset: motion_dataset.MotionDataset, rigs: Rigs
) -> None:
    moving = Augmentation(noise=0.0, moving_cameras=1.0, focal_guessed=0.0, focal_error=0.0)
    generator = torch.Generator().manual_seed(9)
    exact = draw_examples(dataset, 4, 30, rigs, moving, generator)
    ratio = 1.3
    for number in range(4):
        rotations = exact.observation.camera_rotation[number]
        scaled = with_focal_length(rotations[None], torch.tensor([[ratio]]))[0]
        since = torch.stack(list(accumulate(scaled, lambda before, rotation: rotation @ before)))
        depths = torch.rand(30, 17, 3)
        assumed = ClipObservation(
            exact.observation.rays[number] * ratio, exact.observation.confidence[number], since, depths, FOCAL_GUESSED
        )
        observation = assumed.with_focal_ratio(ratio, 0.1).observation(torch.device("cpu"))
        torch.testing.assert_close(observation.rays[0], exact.observation.rays[number])
        torch.testing.assert_close(observation.camera_rotation[0], rotations, atol=1e-4, rtol=0)
        torch.testing.assert_close(observation.depths[0] * ratio, depths)
        assert float(observation.focal_deviation[0]) == pytest.approx(0.1)


def test_weights_with_fewer_features_give_the_same_output(examples: Examples) -> None:
    torch.manual_seed(0)
    model = Lifter(NetworkConfig(width=32, layers=1, heads=2, feed_forward=32)).eval()
    features = make_features(examples.observation, examples.boxes)
    valid = examples.observation.valid
    count = 80
    old = {**model.state_dict(), "stem.weight": model.state_dict()["stem.weight"][:, :count].clone()}
    model.load_state_dict(with_all_features(old))
    output = model(features, valid)
    changed = features.clone()
    changed[..., count:] = torch.randn_like(changed[..., count:])
    torch.testing.assert_close(model(changed, valid).pose, output.pose)
    assert with_all_features(model.state_dict()).keys() == model.state_dict().keys()


def test_levelling_the_pelvis_moves_nothing_else(body: BodyModel, dataset: motion_dataset.MotionDataset) -> None:
    pitched = dataset.rotations.clone()
    tilt = axis_angle_to_matrix(torch.tensor([0.12, 0.0, 0.0]))
    pitched[:, 0] = pitched[:, 0] @ tilt
    for child in (1, 2, 3):
        pitched[:, child] = tilt.T @ pitched[:, child]
    levelled = motion_dataset.with_level_pelvis(
        motion_dataset.MotionDataset(**{**vars(dataset), "rotations": pitched})
    ).rotations
    expected = motion_dataset.with_level_pelvis(dataset).rotations
    torch.testing.assert_close(levelled, expected, atol=1e-3, rtol=0)
    joints = [
        forward_kinematics(r, body.joint_template, torch.zeros(len(r), 3))[1] for r in (levelled, dataset.rotations)
    ]
    torch.testing.assert_close(joints[0][:, 1:], joints[1][:, 1:], atol=1e-4, rtol=0)


def test_padding_frames_have_no_effect(examples: Examples) -> None:
    model = Lifter(NetworkConfig(width=32, layers=1, heads=2, feed_forward=32)).eval()
    features = make_features(examples.observation, examples.boxes)[:2, :30]
    alone = model(features, torch.ones(2, 30, dtype=torch.bool))
    padded = torch.cat([features, torch.zeros(2, 10, features.shape[-1])], dim=1)
    valid = torch.arange(40).expand(2, 40) < 30
    filled = model(padded, valid)
    torch.testing.assert_close(filled.pose[:, :30], alone.pose, atol=1e-5, rtol=0)
    torch.testing.assert_close(filled.betas[:, :30], alone.betas, atol=1e-5, rtol=0)
