"""The landmark network on a rendered person, its port to torch, its crops, and the patches that these are cut from."""

import math
from functools import lru_cache
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
import torch
from jaxtyping import Float

from schemas.errors import HumoError
from schemas.picture import Picture
from schemas.skeleton import LANDMARK_OF_KEYPOINT, LANDMARKS, mirror_order
from stages.media.decoding import frames
from stages.media.display import Display
from stages.media.patches import FramePatches
from stages.perception.detector import PoseDetector
from stages.perception.landmarks.crops import CROP_PX, Crop, crop_of_circle, crop_of_keypoints, invert, warp
from stages.perception.landmarks.look import LandmarkLooks, Landmarks, without_mirror_error
from stages.perception.landmarks.network import SHIPPED, LandmarkNetwork, predict

COCO = list(LANDMARK_OF_KEYPOINT)


@pytest.fixture(scope="module")
def person(films: Path) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A frame with a rendered person, and what the detector finds: image, box, keypoints."""
    image = next(frames(str(films / "wave.mp4"), start_s=1.0)).image
    (found,) = PoseDetector(threads=1).detect([image])
    return image, found.boxes[0], found.keypoints[0]


def patches_of(frame: av.VideoFrame, aspect: float = 1.0) -> FramePatches:
    picture = Picture(stream=0, width=round(frame.width * aspect), height=frame.height, aspect=aspect)
    return FramePatches(frame, Display(picture))


def patches(image: np.ndarray) -> FramePatches:
    return patches_of(av.VideoFrame.from_ndarray(image, format="rgb24"))


@lru_cache(maxsize=1)
def looks_on_one_thread() -> LandmarkLooks:
    return LandmarkLooks(threads=1)


def look(image: np.ndarray, box: np.ndarray, keypoints: np.ndarray) -> tuple[Landmarks, int]:
    """Landmarks, and how often the network looked."""
    looks = looks_on_one_thread()
    before = looks.looks
    looks.begin(patches(image), box, keypoints)
    return looks.finish()[0], looks.looks - before


def test_landmarks_of_a_person_agree_with_the_detector(person: tuple[np.ndarray, ...]) -> None:
    image, box, keypoints = person
    found, count = look(image, box, keypoints)
    size = float((box[2:] - box[:2]).max())
    distance = np.linalg.norm(found.points[COCO, :2] - keypoints[:, :2], axis=1)[5:] / size
    assert np.median(distance) < 0.02
    assert distance.max() < 0.08
    assert found.person > 0.95
    assert found.points[COCO[5:], 2].min() > 0.5
    assert count == 2, "the crop and its mirror image"
    hips = found.metric[[LANDMARKS.index("left_hip"), LANDMARKS.index("right_hip")]].mean(0)
    assert np.abs(hips).max() < 0.02


def test_a_mirrored_person_has_mirrored_landmarks(person: tuple[np.ndarray, ...]) -> None:
    image, box, keypoints = person
    width = image.shape[1]
    order = list(mirror_order(LANDMARKS))
    coco_order = [COCO.index(order[index]) for index in COCO]
    flipped = keypoints[coco_order] * [-1, 1, 1] + [width, 0, 0]
    one, _ = look(image, box, keypoints)
    other, _ = look(
        np.ascontiguousarray(image[:, ::-1]), np.array([width - box[2], box[1], width - box[0], box[3]]), flipped
    )
    points = other.points[order] * [-1, 1, 1, 1] + [width, 0, 0, 0]
    assert np.abs(points[:, :2] - one.points[:, :2]).max() < 3
    assert np.abs(other.metric[order] * [-1, 1, 1] - one.metric).max() < 0.03


@pytest.mark.parametrize("quarter_turns", [1, 2, 3])
def test_a_rotated_picture_gives_rotated_landmarks(person: tuple[np.ndarray, ...], quarter_turns: int) -> None:
    image, box, keypoints = person
    rotated = np.ascontiguousarray(np.rot90(image, quarter_turns))
    angle = -quarter_turns * math.pi / 2
    rotation = np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    centre, rotated_centre = np.array(image.shape[1::-1]) / 2, np.array(rotated.shape[1::-1]) / 2

    def move(points: np.ndarray) -> np.ndarray:
        return (points - centre) @ rotation.T + rotated_centre

    corners = move(box.reshape(2, 2))
    rotated_keypoints = np.concatenate([move(keypoints[:, :2]), keypoints[:, 2:]], 1)
    one, _ = look(image, box, keypoints)
    other, _ = look(rotated, np.concatenate([corners.min(0), corners.max(0)]), rotated_keypoints)
    assert np.abs(move(one.points[:, :2]) - other.points[:, :2]).max() < 4
    assert np.abs(one.metric[:, :2] @ rotation.T - other.metric[:, :2]).max() < 0.03


def test_a_misplaced_crop_is_looked_at_again(person: tuple[np.ndarray, ...]) -> None:
    image, box, keypoints = person
    exact, _ = look(image, box, keypoints)
    size = float((box[2:] - box[:2]).max())
    shifted = keypoints + np.array([0.12 * size, 0.1 * size, 0.0])
    found, count = look(image, box, shifted)
    assert count == 4
    assert np.median(np.linalg.norm(found.points[:, :2] - exact.points[:, :2], axis=1)) < 0.015 * size


def test_mirrored_looks_in_turns_are_as_good_as_both(films: Path) -> None:
    """On a walk: what alternates is taken out, and motion is not."""
    path = str(films / "walk.mp4")
    shown = list(frames(path))
    found = list(PoseDetector(threads=1).detect([frame.image for frame in shown]))
    assert all(len(people.boxes) == 1 for people in found)
    size = np.array([(people.boxes[0, 2:] - people.boxes[0, :2]).max() for people in found])
    looks = looks_on_one_thread()
    results = []
    for in_turns in (False, True):
        for number, (frame, people) in enumerate(zip(shown, found, strict=True)):
            mirrored = number % 2 == 1 if in_turns else None
            looks.begin(frame.source, people.boxes[0], people.keypoints[0], mirrored=mirrored)
        results.append(np.stack([landmarks.points[:, :2] for landmarks in looks.finish()]))
    both, turns = results
    clean = without_mirror_error(turns)

    def distance(points: np.ndarray) -> float:
        return float(np.median(np.linalg.norm(points - both, axis=-1) / size[:, None]))

    def jitter(points: np.ndarray) -> float:
        return float(np.linalg.norm(np.diff(points, 2, axis=0), axis=-1).mean())

    assert distance(clean) < 0.6 * distance(turns)
    assert jitter(clean) < 1.1 * jitter(both) < jitter(turns)


def test_only_what_alternates_is_taken_out() -> None:
    t = np.arange(20.0)
    line = np.stack([3 * t, 5 - 2 * t], 1)
    alternating = np.array([1.5, -0.5]) * (-1.0) ** t[:, None]
    np.testing.assert_allclose(without_mirror_error(line), line, atol=1e-9)
    np.testing.assert_allclose(without_mirror_error(line + alternating), line, atol=1e-9)
    slow = np.sin(2 * np.pi * t / 15)[:, None]
    assert np.abs(without_mirror_error(slow) - slow)[1:-1].max() < 0.02
    np.testing.assert_array_equal(without_mirror_error(line[:2]), line[:2])


def test_nobody_is_told_from_a_person(person: tuple[np.ndarray, ...]) -> None:
    _, box, keypoints = person
    empty = np.full((360, 480, 3), 120, np.uint8)
    found, _ = look(empty, box, keypoints)
    assert found.person < 0.5


def test_results_do_not_depend_on_threads_or_company(person: tuple[np.ndarray, ...]) -> None:
    image, box, keypoints = person
    one, _ = look(image, box, keypoints)
    looks = LandmarkLooks(threads=3)
    frame = patches(image)
    for number, shift in enumerate((0.0, 7.0, 0.0, 31.0, 0.0)):
        both = None if number % 2 == 0 else False
        looks.begin(frame, box, keypoints + np.array([shift, 0.0, 0.0]), mirrored=both)
    for found in looks.finish()[::2]:
        np.testing.assert_array_equal(found.points, one.points)
        np.testing.assert_array_equal(found.metric, one.metric)


def test_the_torch_port_gives_the_same_numbers_in_single_precision(person: tuple[np.ndarray, ...]) -> None:
    import openvino

    from stages.perception.landmarks.network import _read, load_torch_landmarks

    image, box, keypoints = person
    crop = warp(image, crop_of_keypoints(keypoints, box).matrix()).astype(np.float32)[None] / 255
    graph = load_torch_landmarks()
    with torch.inference_mode():
        batch = [output.numpy() for output in graph(torch.from_numpy(crop.repeat(3, 0)))]
    exact = openvino.Core().compile_model(_read(SHIPPED), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})({0: crop})
    for number, output in enumerate(batch):
        np.testing.assert_allclose(output, exact[number].repeat(3, 0), atol=1e-3, rtol=1e-4)


def test_another_network_is_refused(tmp_path: Path) -> None:
    broken = tmp_path / "landmarks.tflite"
    broken.write_bytes(b"not a network")
    with pytest.raises(HumoError, match=r"landmarks\.tflite: no landmark network .* track_people\.landmark_weights"):
        LandmarkNetwork(broken)


def test_predictions_are_in_the_order_of_the_crops(person: tuple[np.ndarray, ...]) -> None:
    image, box, keypoints = person
    crop = warp(image, crop_of_keypoints(keypoints, box).matrix())
    blank = np.full_like(crop, 120)
    scores = [output.person > 0.5 for output in predict(LandmarkNetwork(threads=2), [crop, blank, crop])]
    assert scores == [True, False, True]


@pytest.mark.parametrize("roll_rad", [0.0, 0.4, -2.5])
def test_crops_map_to_and_fro_and_stand_the_trunk_upright(roll_rad: float) -> None:
    crop = Crop(np.array([120.0, 80.0]), 100.0, roll_rad)
    matrix = crop.matrix()
    up = np.array([math.sin(roll_rad), -math.cos(roll_rad)])
    in_crop = (crop.centre + 20 * up) @ matrix[:, :2].T + matrix[:, 2]
    np.testing.assert_allclose(in_crop, [CROP_PX / 2, CROP_PX / 2 - 20 * CROP_PX / 100], atol=1e-9)
    np.testing.assert_allclose(invert(matrix, in_crop), crop.centre + 20 * up, atol=1e-9)
    again = crop_of_circle(crop.centre, crop.centre + 50 / 1.1 * up)
    assert crop.is_near(again)
    assert again.side == pytest.approx(100.0)
    assert not crop.is_near(Crop(crop.centre + np.array([20.0, 0.0]), 100.0, roll_rad))
    assert not crop.is_near(Crop(crop.centre, 150.0, roll_rad))
    assert not crop.is_near(Crop(crop.centre, 100.0, roll_rad + 1))
    x0, y0, x1, y1 = crop.bounds()
    corners = invert(matrix, np.array([[0.0, 0.0], [CROP_PX, 0.0], [0.0, CROP_PX], [CROP_PX, CROP_PX]]))
    assert (corners >= [x0 - 1e-6, y0 - 1e-6]).all()
    assert (corners <= [x1 + 1e-6, y1 + 1e-6]).all()


@pytest.mark.parametrize("side", [300.0, 900.0])
def test_warping_shows_the_place_that_the_matrix_names(side: float) -> None:
    image = np.zeros((1000, 1000, 3), np.uint8)
    cv2.circle(image, (640, 420), 30, (255, 255, 255), -1)
    matrix = Crop(np.array([600.0, 450.0]), side, 0.5).matrix()
    weights = warp(image, matrix)[..., 0].astype(np.float64)
    y, x = np.mgrid[:CROP_PX, :CROP_PX] + 0.5
    centre = np.array([(x * weights).sum(), (y * weights).sum()]) / weights.sum()
    np.testing.assert_allclose(centre, matrix[:, :2] @ [640.5, 420.5] + matrix[:, 2], atol=0.3)


def smooth_picture(width: int, height: int) -> np.ndarray:
    rng = np.random.default_rng(3)
    return cv2.resize(rng.integers(0, 255, (9, 12, 3), np.uint8), (width, height), interpolation=cv2.INTER_CUBIC)


@pytest.mark.parametrize("pixel_format", ["yuv420p", "yuv422p", "yuv444p", "yuvj420p", "rgb24", "yuv420p10le"])
@pytest.mark.parametrize(
    "bounds", [(31.5, 40.2, 210.0, 255.7), (-50.0, -60.0, 120.0, 133.0), (250.0, 201.0, 400.0, 400.0)]
)
def test_a_patch_is_the_part_of_the_converted_frame(pixel_format: str, bounds: tuple[float, ...]) -> None:
    frame = av.VideoFrame.from_ndarray(smooth_picture(322, 264), format="rgb24").reformat(format=pixel_format)
    image, matrix = patches_of(frame).patch(np.array(bounds), 10_000)
    x, y = (round(value) for value in -matrix[:, 2])
    height, width = image.shape[:2]
    np.testing.assert_array_equal(image, frame.to_ndarray(format="rgb24")[y : y + height, x : x + width])
    assert x <= max(bounds[0], 0)
    assert y <= max(bounds[1], 0)
    assert x + width >= min(bounds[2], 322)
    assert y + height >= min(bounds[3], 264)


@pytest.mark.parametrize("pixel_format", ["yuv420p", "rgb24"])
def test_a_patch_of_stretched_pixels_is_shrunk_where_its_map_says(pixel_format: str) -> None:
    picture = np.zeros((400, 300, 3), np.uint8)
    cv2.circle(picture, (100, 200), 20, (255, 255, 255), -1)
    frame = av.VideoFrame.from_ndarray(picture, format="rgb24").reformat(format=pixel_format)
    stretched = patches_of(frame, aspect=2.0)
    assert (stretched.width, stretched.height) == (600, 400)
    image, matrix = stretched.patch(np.array([101.0, 103.0, 399.0, 341.0]), 100)
    assert max(image.shape) <= 102
    weights = image[..., 0].astype(np.float64) - image[..., 0].min()
    y, x = np.mgrid[: image.shape[0], : image.shape[1]] + 0.5
    centre: Float[np.ndarray, 2] = np.array([(x * weights).sum(), (y * weights).sum()]) / weights.sum()
    np.testing.assert_allclose(centre, matrix[:, :2] @ [201.0, 200.5] + matrix[:, 2], atol=0.6)


def test_a_patch_outside_the_frame_is_a_piece_of_its_edge() -> None:
    image, _ = patches(smooth_picture(64, 48)).patch(np.array([500.0, -900.0, 700.0, -700.0]), 100)
    assert image.size > 0
