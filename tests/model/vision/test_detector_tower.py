"""The person detector as a tower, on frames of a rendered film."""

from pathlib import Path

import numpy as np
import pytest
import torch

from model.data.clips import read_pictures
from model.vision.config import VisionConfig
from model.vision.detector_tower import DetectorTower
from model.vision.tower import VisionTower, open_tower
from schemas.errors import HumoError
from schemas.skeleton import COCO_KEYPOINTS, mirror_order
from stages.perception.detector import PoseDetector

KEYPOINTS = len(COCO_KEYPOINTS)
POSITIONS, WEIGHED, CONFIDENCE = (slice(2 * KEYPOINTS * i, 2 * KEYPOINTS * i + 2 * KEYPOINTS) for i in range(3))
CONFIDENCE = slice(CONFIDENCE.start, CONFIDENCE.start + KEYPOINTS)
BOX = slice(CONFIDENCE.stop, CONFIDENCE.stop + 4)
SCORE = BOX.stop


@pytest.fixture(scope="module")
def tower() -> DetectorTower:
    torch.set_num_threads(1)
    return DetectorTower()


@pytest.fixture(scope="module")
def frames(films: Path) -> torch.Tensor:
    """Three frames of a person who waves."""
    return torch.from_numpy(read_pictures(str(films / "wave.mp4"), [0.0, 1.0, 1.5], 256))


def test_a_config_opens_it() -> None:
    tower = open_tower(VisionConfig(grid=2, px=128))
    assert isinstance(tower, VisionTower)
    assert (tower.px, tower.tokens_per_frame) == (128, 5)
    assert tower.name.startswith("yolo11n-pose ")
    assert tower(torch.zeros(2, 128, 128, 3, dtype=torch.uint8)).shape == (2, 5, tower.width)
    assert tower.fingerprint != open_tower(VisionConfig(grid=3, px=128)).fingerprint
    with pytest.raises(HumoError, match=r"none\.pt does not exist; .*vision\.weights"):
        open_tower(VisionConfig(weights="none.pt"))


def test_the_first_token_has_the_detectors_keypoints(tower: DetectorTower, frames: torch.Tensor) -> None:
    tokens = tower(frames)[:, 0]
    detector = PoseDetector(device="cpu", backend="torch", picture_px=256)
    for token, found in zip(tokens, detector.detect(frames.numpy()), strict=True):
        boxes = token[BOX] * 256
        assert float(token[SCORE]) == pytest.approx(found.scores[0], abs=1e-4)
        np.testing.assert_allclose(
            [*(boxes[:2] - boxes[2:] / 2), *(boxes[:2] + boxes[2:] / 2)], found.boxes[0], atol=0.1
        )
        positions = token[POSITIONS].reshape(KEYPOINTS, 2) * float(boxes[2:].max()) * 1.1 / 4 + boxes[:2]
        np.testing.assert_allclose(positions.clamp(0, 256), found.keypoints[0, :, :2], atol=0.1)
        np.testing.assert_allclose((token[CONFIDENCE] + 1) / 2, found.keypoints[0, :, 2], atol=1e-3)
        weighed = token[POSITIONS].reshape(KEYPOINTS, 2) * (token[CONFIDENCE, None] + 1) / 2
        torch.testing.assert_close(token[WEIGHED].reshape(KEYPOINTS, 2), weighed)


def test_tokens_are_those_of_the_frame_alone_and_take_no_gradient(tower: DetectorTower, frames: torch.Tensor) -> None:
    tokens = tower(frames)
    assert tokens.shape == (3, 17, tower.width)
    assert torch.equal(tower(frames[1:2])[0], tokens[1])
    assert not tokens.requires_grad
    assert not tokens.is_inference()  # a projector saves them for its gradient
    assert (tokens.std((0, 1)) > 0).all()


def test_the_grid_goes_with_the_person(tower: DetectorTower, frames: torch.Tensor) -> None:
    """The same person elsewhere in a picture: the positions in the person's square stay, those of the box move."""
    small = torch.nn.functional.avg_pool2d(frames[:1].permute(0, 3, 1, 2).float(), 2).permute(0, 2, 3, 1)
    here, there = (torch.full((1, 256, 256, 3), 114, dtype=torch.uint8) for _ in range(2))
    here[:, 32:160, 32:160] = small
    there[:, 96:224, 96:224] = small
    one, other = tower(here)[0], tower(there)[0]
    moved = (other[0, BOX] - one[0, BOX]) * 256
    np.testing.assert_allclose(moved, [64, 64, 0, 0], atol=1.5)
    torch.testing.assert_close(other[0, POSITIONS], one[0, POSITIONS], atol=0.1, rtol=0)
    assert torch.nn.functional.cosine_similarity(one[1:], other[1:]).min() > 0.9


def test_a_mirrored_frame_has_mirrored_keypoints(tower: DetectorTower, frames: torch.Tensor) -> None:
    order = list(mirror_order(COCO_KEYPOINTS))
    plain, mirrored = tower(frames)[:, 0], tower(frames.flip(2))[:, 0]
    expected = plain[:, POSITIONS].reshape(-1, KEYPOINTS, 2)[:, order] * torch.tensor([-1.0, 1.0])
    difference = mirrored[:, POSITIONS].reshape(-1, KEYPOINTS, 2) - expected
    assert difference.abs().median() < 0.1


def test_a_frame_without_a_person_says_so(tower: DetectorTower) -> None:
    tokens = tower(torch.full((1, 256, 256, 3), 114, dtype=torch.uint8))[0]
    assert tokens[0, SCORE] == 0
    assert not tokens[0, POSITIONS].any()
    assert (tokens[0, CONFIDENCE] == -1).all()
    np.testing.assert_array_equal(tokens[0, BOX], [0.5, 0.5, 1, 1])
