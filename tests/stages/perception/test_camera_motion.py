"""Camera rotation estimated from a textured background with known rotations, behind a patterned moving person."""

import cv2
import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from schemas.body_model import BodyModel
from stages.geometry.cameras import guess_intrinsics
from stages.perception.camera_motion import (
    CameraRotationEstimator,
    CameraRotations,
    fit_motion,
    fit_rotation,
    rotations_at,
)
from stages.synthesis.environment import TexturedEnvironment
from stages.synthesis.motions import generate
from stages.synthesis.outfit import Outfit
from stages.synthesis.renderer import Camera, Person, Renderer

WIDTH, HEIGHT, FPS = 480, 360, 30.0
INTRINSICS = guess_intrinsics(WIDTH, HEIGHT).astype(np.float64)
FX, FY, CX, CY = INTRINSICS
K = np.array([[FX, 0, CX], [0, FY, CY], [0, 0, 1]])
TIMES_S = np.arange(150) / FPS


def texture(side: int = 1500, seed: int = 0) -> np.ndarray:
    """Grey noise at several scales."""
    rng = np.random.default_rng(seed)
    sizes = (3, 8, 25, 80)
    layers = [cv2.GaussianBlur(rng.standard_normal((side, side)).astype(np.float32), (0, 0), size) for size in sizes]
    total = sum(layer / layer.std() * size**0.5 for layer, size in zip(layers, sizes, strict=True))
    return np.clip(128 + 30 * total / total.std(), 0, 255).astype(np.uint8)


WORLD = texture()


def frame(rotation: np.ndarray, time_s: float, rng: np.random.Generator, noise: float, world: np.ndarray) -> np.ndarray:
    """The view of a rotated camera with a person in front of it and sensor noise."""
    far = np.array([[FX, 0, world.shape[1] / 2], [0, FY, world.shape[0] / 2], [0, 0, 1]])
    homography = K @ rotation @ np.linalg.inv(far)
    image = cv2.warpPerspective(world, homography, (WIDTH, HEIGHT), borderMode=cv2.BORDER_REFLECT).astype(np.float32)
    x0, y0, x1, y1 = person(time_s)[0].astype(int)
    image[y0:y1, x0:x1] = 255 - WORLD[int(90 * time_s) :, 100:][: y1 - y0, : x1 - x0]
    image = np.repeat(image[..., None], 3, axis=2)
    return np.clip(image + rng.normal(0, noise, image.shape), 0, 255).astype(np.uint8)


def person(time_s: float) -> np.ndarray:
    x = 150 + 80 * np.sin(1.3 * time_s)
    return np.array([[x, 80, x + 110, 330]], np.float32)


def estimate(
    rotations: Rotation, *, noise: float = 4.0, world: np.ndarray = WORLD, masked: bool = True
) -> CameraRotations:
    rng = np.random.default_rng(1)
    estimator = CameraRotationEstimator(WIDTH, INTRINSICS)
    for time_s, rotation in zip(TIMES_S, rotations.as_matrix(), strict=False):
        boxes = person(time_s) if masked else np.zeros((0, 4), np.float32)
        estimator.add_frame(float(time_s), frame(rotation, time_s, rng, noise, world), boxes)
    return estimator.rotations()


def error_deg(estimated: CameraRotations, rotations: Rotation) -> tuple[np.ndarray, np.ndarray]:
    """Errors of each frame, and of each step from one frame to the next."""
    target = rotations * rotations[0].inv()
    predicted = Rotation.from_rotvec(estimated.at(TIMES_S))
    steps = (predicted[1:] * predicted[:-1].inv()) * (target[1:] * target[:-1].inv()).inv()
    return np.degrees((predicted * target.inv()).magnitude()), np.degrees(steps.magnitude())


def oscillation(*waves: tuple[float, float, float]) -> np.ndarray:
    """A sum of sines: amplitude in degrees, frequency in hertz, phase."""
    return sum(np.radians(amplitude) * np.sin(2 * np.pi * hertz * TIMES_S + phase) for amplitude, hertz, phase in waves)


ZERO = np.zeros(len(TIMES_S))
MOVES = {
    "pan": (ZERO, np.radians(10) * TIMES_S, ZERO),
    "there and back": (ZERO, oscillation((18, 0.3, 0.0)), ZERO),
    "tilt": (np.radians(6) * TIMES_S, ZERO, ZERO),
    "roll": (ZERO, ZERO, np.radians(6) * TIMES_S),
    "creeping pan": (ZERO, np.radians(0.3) * TIMES_S, ZERO),
    "shaking hand": (oscillation((1, 2.1, 0), (0.2, 7, 1)), oscillation((1.5, 1.3, 1)), oscillation((0.8, 1.7, 2))),
    "shaking pan": (
        oscillation((0.5, 2.1, 0)),
        np.radians(6) * TIMES_S + oscillation((0.5, 3.3, 1)),
        oscillation((0.4, 1.7, 2)),
    ),
}


@pytest.mark.parametrize("move", MOVES)
def test_rotations_are_estimated_without_drift(move: str) -> None:
    rotations = Rotation.from_rotvec(np.stack(MOVES[move], axis=1))
    estimated = estimate(rotations)
    errors, steps = error_deg(estimated, rotations)
    assert estimated.coverage == 1
    assert not estimated.static
    assert steps.max() < 0.1
    assert errors.max() < 0.2


def test_a_static_camera_gives_exact_zeros_despite_moving_people() -> None:
    for noise, masked in ((3.0, True), (12.0, True), (3.0, False)):
        estimated = estimate(Rotation.identity(len(TIMES_S)), noise=noise, masked=masked)
        assert estimated.static
        assert estimated.coverage > 0.9
        assert not estimated.at(TIMES_S).any()


def test_a_camera_with_a_short_knock_is_static() -> None:
    vectors = np.zeros((len(TIMES_S), 3))
    vectors[60:63, 0] = np.radians([0.5, -0.4, 0.2])
    assert estimate(Rotation.from_rotvec(vectors)).static


@pytest.mark.parametrize("noise", [0.0, 3.0, 10.0])
def test_a_textureless_wall_gives_no_estimate(noise: float) -> None:
    rotations = Rotation.from_rotvec(np.stack(MOVES["shaking hand"], axis=1))
    estimated = estimate(rotations, noise=noise, world=np.full_like(WORLD, 130))
    assert estimated.coverage < 0.1
    assert not estimated.at(TIMES_S).any()


def test_dark_frames_are_bridged() -> None:
    rotations = Rotation.from_rotvec(np.stack(MOVES["shaking pan"], axis=1))
    rng = np.random.default_rng(1)
    estimator = CameraRotationEstimator(WIDTH, INTRINSICS)
    for number, (time_s, rotation) in enumerate(zip(TIMES_S, rotations.as_matrix(), strict=True)):
        image = frame(rotation, time_s, rng, 3.0, WORLD)
        estimator.add_frame(float(time_s), image // 200 if 70 <= number < 76 else image, person(time_s))
    errors, _ = error_deg(estimator.rotations(), rotations)
    assert estimator.rotations().coverage == pytest.approx(1 - 6 / 150)
    assert errors[76:].max() < 0.2
    assert errors.max() < 1.5


def test_downscaled_frames_give_the_same_rotations() -> None:
    """Frames may be smaller than the video, to which the intrinsics refer."""
    rotations = Rotation.from_rotvec(np.stack(MOVES["pan"], axis=1))[:40]
    rng = np.random.default_rng(1)
    same_size, larger = CameraRotationEstimator(WIDTH, INTRINSICS), CameraRotationEstimator(3 * WIDTH, 3 * INTRINSICS)
    for time_s, rotation in zip(TIMES_S, rotations.as_matrix(), strict=False):
        image = frame(rotation, time_s, rng, 3.0, WORLD)
        for estimator in (same_size, larger):
            estimator.add_frame(float(time_s), image, person(time_s))
    np.testing.assert_allclose(same_size.rotations().at(TIMES_S[:40]), larger.rotations().at(TIMES_S[:40]), atol=1e-4)


def test_the_same_frames_give_the_same_numbers() -> None:
    rotations = Rotation.from_rotvec(np.stack(MOVES["shaking hand"], axis=1))[:60]
    one, other = estimate(rotations), estimate(rotations)
    np.testing.assert_array_equal(one.at(TIMES_S[:60]), other.at(TIMES_S[:60]))


def test_no_frames_and_single_frames() -> None:
    estimator = CameraRotationEstimator(WIDTH, INTRINSICS)
    assert estimator.rotations().at(np.zeros(0)).shape == (0, 3)
    assert estimator.rotations().coverage == 0
    estimator.add_frame(0.0, frame(np.eye(3), 0.0, np.random.default_rng(0), 0.0, WORLD), person(0.0))
    assert not estimator.rotations().at(np.zeros(1)).any()


def test_a_rotation_is_fitted_despite_a_minority_of_outliers() -> None:
    rng = np.random.default_rng(0)
    before = rng.normal(size=(60, 3)) * 0.4 + [0, 0, 1]
    before /= np.linalg.norm(before, axis=1, keepdims=True)
    target = Rotation.from_rotvec([0.02, -0.03, 0.05])
    after = target.apply(before)
    after[:24] = Rotation.from_rotvec([0.0, 0.06, 0.0]).apply(before[:24])
    rotation, inliers = fit_rotation(before, after, np.eye(3), 1 / 400)
    assert (Rotation.from_matrix(rotation) * target.inv()).magnitude() < 1e-4
    assert inliers[24:].all()
    assert inliers[:24].mean() < 0.2


def test_rotations_are_interpolated_along_the_arc() -> None:
    known_s = np.array([1.0, 1.5, 1.5, 2.0])
    rotations = Rotation.from_rotvec(np.outer([0.3, 0.4, 0.4, 0.5], [0, 1, 0]))
    interpolated = rotations_at(known_s, rotations, np.array([1.25, 1.5, 2.0, 3.0]))
    np.testing.assert_allclose(interpolated[:, 1], [0.0, 0.05, 0.15, 0.15], atol=1e-6)
    assert not rotations_at(known_s[:1], rotations[:1], np.array([1.0, 2.0])).any()


def _rays_before_and_after(translation: np.ndarray, rotation: Rotation, noise: float) -> tuple[np.ndarray, np.ndarray]:
    """Unit rays of points two to ten metres away, before and after a camera moved by `translation` metres and rotated."""
    rng = np.random.default_rng(5)
    points = rng.uniform([-0.5, -0.4, 1], [0.5, 0.4, 1], (80, 3)) * rng.uniform(2, 10, (80, 1))
    after = rotation.apply(points - translation)
    rays = [xyz / np.linalg.norm(xyz, axis=1, keepdims=True) for xyz in (points, after)]
    rays[1] = rays[1] + noise * rng.standard_normal(rays[1].shape)
    return rays[0], rays[1] / np.linalg.norm(rays[1], axis=1, keepdims=True)


@pytest.mark.parametrize("translation", [(0.5, 0.0, 0.0), (0.0, 0.1, 0.7), (-0.3, 0.2, -0.3)])
@pytest.mark.parametrize("degrees", [0.0, 4.0, 15.0])
def test_the_rotation_of_a_translating_camera_is_estimated(translation: tuple[float, ...], degrees: float) -> None:
    rotation = Rotation.from_rotvec(np.radians(degrees) * np.array([0.3, 0.9, -0.2]))
    noise = 5e-4
    before, after = _rays_before_and_after(np.array(translation), rotation, noise)
    pure_rotation, _ = fit_rotation(before, after, np.eye(3), 3e-3)
    motion = fit_motion(before, after, pure_rotation, noise)
    assert motion is not None
    assert np.degrees((Rotation.from_matrix(motion[0]) * rotation.inv()).magnitude()) < 0.4
    assert motion[1].mean() > 0.9


def test_a_rotating_camera_does_not_translate() -> None:
    rotation = Rotation.from_euler("yx", [6, 3], degrees=True)
    before, after = _rays_before_and_after(np.zeros(3), rotation, 5e-4)
    pure_rotation, inliers = fit_rotation(before, after, np.eye(3), 3e-3)
    assert inliers.all()
    assert fit_motion(before, after, pure_rotation, 5e-4) is None


def test_a_sideways_translation_is_not_estimated_as_a_rotation() -> None:
    """The camera moves two metres sideways past a room without rotating."""
    frames, width, height, focal_px = 45, 320, 240, 300.0
    body = BodyModel.load()
    actor = Person(generate("stand", 2.0, 1, body=body), Outfit.draw(1), offset=(30.0, 0.0))
    rng = np.random.default_rng(4)
    place = TexturedEnvironment.draw(rng, np.array([-5.0, 0.0, -5.0]), np.array([5.0, 3.0, 5.0]), [], outdoors=False)
    eyes = np.linspace([-1.0, 1.5, 3.0], [1.0, 1.5, 3.0], frames)
    cameras = [Camera.look_at(eye, eye - [0.0, 0.2, 1.0], focal_px, width, height) for eye in eyes]
    renderer = Renderer([actor], cameras, place, body, width, height, 1)
    estimator = CameraRotationEstimator(width, np.array([focal_px, focal_px, width / 2, height / 2]))
    for number in range(frames):
        estimator.add_frame(number / 30, renderer.render(number), np.zeros((0, 4), np.float32))
    estimated = estimator.rotations()
    assert not estimated.static
    assert np.degrees(estimated.rotations.magnitude().max()) < 4
