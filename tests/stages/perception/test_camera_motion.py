"""A textured world behind a camera that turns in known ways, with a patterned person walking in front of it."""

import cv2
import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from schemas.body_model import BodyModel
from stages.geometry.cameras import guess_intrinsics
from stages.perception.camera_motion import CameraRotationEstimator, CameraTurns, fit_motion, fit_turn, rotations_at
from stages.synthesis.motions import generate
from stages.synthesis.outfit import Outfit
from stages.synthesis.place import Place
from stages.synthesis.renderer import Camera, Person, Renderer

WIDTH, HEIGHT, FPS = 480, 360, 30.0
INTRINSICS = guess_intrinsics(WIDTH, HEIGHT).astype(np.float64)
FX, FY, CX, CY = INTRINSICS
K = np.array([[FX, 0, CX], [0, FY, CY], [0, 0, 1]])
TIMES_S = np.arange(150) / FPS


def texture(side: int = 1500, seed: int = 0) -> np.ndarray:
    """Grey blotches of several sizes."""
    rng = np.random.default_rng(seed)
    sizes = (3, 8, 25, 80)
    layers = [cv2.GaussianBlur(rng.standard_normal((side, side)).astype(np.float32), (0, 0), size) for size in sizes]
    total = sum(layer / layer.std() * size**0.5 for layer, size in zip(layers, sizes, strict=True))
    return np.clip(128 + 30 * total / total.std(), 0, 255).astype(np.uint8)


WORLD = texture()


def seen(turn: np.ndarray, time_s: float, rng: np.random.Generator, noise: float, world: np.ndarray) -> np.ndarray:
    """What a camera sees after a turn, a person in front of it and the sensor's noise on top."""
    far = np.array([[FX, 0, world.shape[1] / 2], [0, FY, world.shape[0] / 2], [0, 0, 1]])
    view = K @ turn @ np.linalg.inv(far)
    image = cv2.warpPerspective(world, view, (WIDTH, HEIGHT), borderMode=cv2.BORDER_REFLECT).astype(np.float32)
    x0, y0, x1, y1 = person(time_s)[0].astype(int)
    image[y0:y1, x0:x1] = 255 - WORLD[int(90 * time_s) :, 100:][: y1 - y0, : x1 - x0]
    image = np.repeat(image[..., None], 3, axis=2)
    return np.clip(image + rng.normal(0, noise, image.shape), 0, 255).astype(np.uint8)


def person(time_s: float) -> np.ndarray:
    x = 150 + 80 * np.sin(1.3 * time_s)
    return np.array([[x, 80, x + 110, 330]], np.float32)


def watch(turns: Rotation, *, noise: float = 4.0, world: np.ndarray = WORLD, masked: bool = True) -> CameraTurns:
    rng = np.random.default_rng(1)
    camera = CameraRotationEstimator(WIDTH, INTRINSICS)
    for time_s, turn in zip(TIMES_S, turns.as_matrix(), strict=False):
        boxes = person(time_s) if masked else np.zeros((0, 4), np.float32)
        camera.look(float(time_s), seen(turn, time_s, rng, noise, world), boxes)
    return camera.turns()


def error_deg(found: CameraTurns, turns: Rotation) -> tuple[np.ndarray, np.ndarray]:
    """Of each frame, and of each step from one frame to the next."""
    truth = turns * turns[0].inv()
    got = Rotation.from_rotvec(found.at(TIMES_S))
    steps = (got[1:] * got[:-1].inv()) * (truth[1:] * truth[:-1].inv()).inv()
    return np.degrees((got * truth.inv()).magnitude()), np.degrees(steps.magnitude())


def swing(*waves: tuple[float, float, float]) -> np.ndarray:
    """A sum of sines: amplitude in degrees, frequency in hertz, phase."""
    return sum(np.radians(size) * np.sin(2 * np.pi * hertz * TIMES_S + phase) for size, hertz, phase in waves)


NO = np.zeros(len(TIMES_S))
MOVES = {
    "pan": (NO, np.radians(10) * TIMES_S, NO),
    "there and back": (NO, swing((18, 0.3, 0.0)), NO),
    "tilt": (np.radians(6) * TIMES_S, NO, NO),
    "roll": (NO, NO, np.radians(6) * TIMES_S),
    "creeping pan": (NO, np.radians(0.3) * TIMES_S, NO),
    "shaking hand": (swing((1, 2.1, 0), (0.2, 7, 1)), swing((1.5, 1.3, 1)), swing((0.8, 1.7, 2))),
    "shaking pan": (swing((0.5, 2.1, 0)), np.radians(6) * TIMES_S + swing((0.5, 3.3, 1)), swing((0.4, 1.7, 2))),
}


@pytest.mark.parametrize("move", MOVES)
def test_turns_are_found_and_do_not_drift(move: str) -> None:
    turns = Rotation.from_rotvec(np.stack(MOVES[move], axis=1))
    found = watch(turns)
    whole, steps = error_deg(found, turns)
    assert found.seen == 1
    assert not found.still
    assert steps.max() < 0.1
    assert whole.max() < 0.2


def test_a_still_camera_gives_exact_zeros_whoever_moves_in_front() -> None:
    for noise, masked in ((3.0, True), (12.0, True), (3.0, False)):
        found = watch(Rotation.identity(len(TIMES_S)), noise=noise, masked=masked)
        assert found.still
        assert found.seen > 0.9
        assert not found.at(TIMES_S).any()


def test_a_knock_at_the_tripod_leaves_it_still() -> None:
    vectors = np.zeros((len(TIMES_S), 3))
    vectors[60:63, 0] = np.radians([0.5, -0.4, 0.2])
    assert watch(Rotation.from_rotvec(vectors)).still


@pytest.mark.parametrize("noise", [0.0, 3.0, 10.0])
def test_a_bare_wall_tells_nothing(noise: float) -> None:
    turns = Rotation.from_rotvec(np.stack(MOVES["shaking hand"], axis=1))
    found = watch(turns, noise=noise, world=np.full_like(WORLD, 130))
    assert found.seen < 0.1
    assert not found.at(TIMES_S).any()


def test_dark_frames_are_bridged() -> None:
    turns = Rotation.from_rotvec(np.stack(MOVES["shaking pan"], axis=1))
    rng = np.random.default_rng(1)
    camera = CameraRotationEstimator(WIDTH, INTRINSICS)
    for number, (time_s, turn) in enumerate(zip(TIMES_S, turns.as_matrix(), strict=True)):
        image = seen(turn, time_s, rng, 3.0, WORLD)
        camera.look(float(time_s), image // 200 if 70 <= number < 76 else image, person(time_s))
    whole, _ = error_deg(camera.turns(), turns)
    assert camera.turns().seen == pytest.approx(1 - 6 / 150)
    assert whole[76:].max() < 0.2
    assert whole.max() < 1.5


def test_small_pictures_of_a_large_video_give_the_same_turns() -> None:
    """Frames are handed in smaller than the video, whose intrinsics count."""
    turns = Rotation.from_rotvec(np.stack(MOVES["pan"], axis=1))[:40]
    rng = np.random.default_rng(1)
    plain, large = CameraRotationEstimator(WIDTH, INTRINSICS), CameraRotationEstimator(3 * WIDTH, 3 * INTRINSICS)
    for time_s, turn in zip(TIMES_S, turns.as_matrix(), strict=False):
        image = seen(turn, time_s, rng, 3.0, WORLD)
        for camera in (plain, large):
            camera.look(float(time_s), image, person(time_s))
    np.testing.assert_allclose(plain.turns().at(TIMES_S[:40]), large.turns().at(TIMES_S[:40]), atol=1e-4)


def test_the_same_frames_give_the_same_numbers() -> None:
    turns = Rotation.from_rotvec(np.stack(MOVES["shaking hand"], axis=1))[:60]
    one, other = watch(turns), watch(turns)
    np.testing.assert_array_equal(one.at(TIMES_S[:60]), other.at(TIMES_S[:60]))


def test_nothing_looked_at_and_single_frames() -> None:
    camera = CameraRotationEstimator(WIDTH, INTRINSICS)
    assert camera.turns().at(np.zeros(0)).shape == (0, 3)
    assert camera.turns().seen == 0
    camera.look(0.0, seen(np.eye(3), 0.0, np.random.default_rng(0), 0.0, WORLD), person(0.0))
    assert not camera.turns().at(np.zeros(1)).any()


def test_a_turn_survives_a_minority_that_moves_otherwise() -> None:
    rng = np.random.default_rng(0)
    before = rng.normal(size=(60, 3)) * 0.4 + [0, 0, 1]
    before /= np.linalg.norm(before, axis=1, keepdims=True)
    truth = Rotation.from_rotvec([0.02, -0.03, 0.05])
    after = truth.apply(before)
    after[:24] = Rotation.from_rotvec([0.0, 0.06, 0.0]).apply(before[:24])
    turn, agree = fit_turn(before, after, np.eye(3), 1 / 400)
    assert (Rotation.from_matrix(turn) * truth.inv()).magnitude() < 1e-4
    assert agree[24:].all()
    assert agree[:24].mean() < 0.2


def test_turns_between_known_ones_lie_on_the_arc() -> None:
    known_s = np.array([1.0, 1.5, 1.5, 2.0])
    rotations = Rotation.from_rotvec(np.outer([0.3, 0.4, 0.4, 0.5], [0, 1, 0]))
    found = rotations_at(known_s, rotations, np.array([1.25, 1.5, 2.0, 3.0]))
    np.testing.assert_allclose(found[:, 1], [0.0, 0.05, 0.15, 0.15], atol=1e-6)
    assert not rotations_at(known_s[:1], rotations[:1], np.array([1.0, 2.0])).any()


def _points_seen(way: np.ndarray, turn: Rotation, noise: float) -> tuple[np.ndarray, np.ndarray]:
    """Unit rays of points two to ten metres away, before and after a camera turned and went `way` metres."""
    rng = np.random.default_rng(5)
    points = rng.uniform([-0.5, -0.4, 1], [0.5, 0.4, 1], (80, 3)) * rng.uniform(2, 10, (80, 1))
    after = turn.apply(points - way)
    rays = [one / np.linalg.norm(one, axis=1, keepdims=True) for one in (points, after)]
    rays[1] = rays[1] + noise * rng.standard_normal(rays[1].shape)
    return rays[0], rays[1] / np.linalg.norm(rays[1], axis=1, keepdims=True)


@pytest.mark.parametrize("way", [(0.5, 0.0, 0.0), (0.0, 0.1, 0.7), (-0.3, 0.2, -0.3)])
@pytest.mark.parametrize("degrees", [0.0, 4.0, 15.0])
def test_a_camera_that_goes_tells_its_turn_by_near_and_far(way: tuple[float, ...], degrees: float) -> None:
    turn = Rotation.from_rotvec(np.radians(degrees) * np.array([0.3, 0.9, -0.2]))
    noise = 5e-4
    before, after = _points_seen(np.array(way), turn, noise)
    alone, _ = fit_turn(before, after, np.eye(3), 3e-3)
    found = fit_motion(before, after, alone, noise)
    assert found is not None
    assert np.degrees((Rotation.from_matrix(found[0]) * turn.inv()).magnitude()) < 0.4
    assert found[1].mean() > 0.9


def test_a_camera_on_the_spot_went_nowhere() -> None:
    turn = Rotation.from_euler("yx", [6, 3], degrees=True)
    before, after = _points_seen(np.zeros(3), turn, 5e-4)
    alone, agree = fit_turn(before, after, np.eye(3), 3e-3)
    assert agree.all()
    assert fit_motion(before, after, alone, 5e-4) is None


def test_a_room_filmed_in_passing_is_not_taken_for_a_turn() -> None:
    """Two metres to the side past a room, looking straight ahead all the while."""
    frames, width, height, focal_px = 45, 320, 240, 300.0
    body = BodyModel.load()
    actor = Person(generate("stand", 2.0, 1, body=body), Outfit.draw(1), offset=(30.0, 0.0))
    rng = np.random.default_rng(4)
    place = Place.draw(rng, np.array([-5.0, 0.0, -5.0]), np.array([5.0, 3.0, 5.0]), [], outdoors=False)
    eyes = np.linspace([-1.0, 1.5, 3.0], [1.0, 1.5, 3.0], frames)
    cameras = [Camera.looking(eye, eye - [0.0, 0.2, 1.0], focal_px, width, height) for eye in eyes]
    renderer = Renderer([actor], cameras, place, body, width, height, 1)
    watch = CameraRotationEstimator(width, np.array([focal_px, focal_px, width / 2, height / 2]))
    for frame in range(frames):
        watch.look(frame / 30, renderer.render(frame), np.zeros((0, 4), np.float32))
    found = watch.turns()
    assert not found.still
    assert np.degrees(found.rotations.magnitude().max()) < 4
