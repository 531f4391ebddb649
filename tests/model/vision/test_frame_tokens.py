"""Tokens of samples' frames: seen once by the tower, then read from the disk, with the same result."""

from pathlib import Path

import numpy as np
import pytest
import torch
from motion_datasets import brightness, brightness_clip, write_filmed_dataset
from PIL import Image

from model.data.dataset import MotionDataset
from model.data.frames import SampleFrames
from model.vision.config import VisionConfig
from model.vision.frame_tokens import FrameRequest, FrameTokens
from schemas.errors import HumoError


class Brightness:
    """A tower whose tokens are the brightness of the left and the right half; it counts what it sees."""

    name, fingerprint, px, width, tokens_per_frame, device = "brightness", "b" * 12, 64, 2, 2, torch.device("cpu")

    def __init__(self) -> None:
        self.seen = 0

    def __call__(self, frames: torch.Tensor) -> torch.Tensor:
        self.seen += len(frames)
        halves = torch.stack([frames[:, 32, 10, 0], frames[:, 32, 54, 0]], -1).float()
        return torch.stack([halves, halves + 1000], 1)


@pytest.fixture(scope="module")
def filmed_dataset(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_filmed_dataset(tmp_path_factory.mktemp("filmed"), clips=2)


def frames_of(dataset: str, tokens: FrameTokens, *, mirrored: bool = False) -> list[SampleFrames]:
    found = [sample.frames for sample in MotionDataset(dataset, frames=tokens.reader(mirrored=mirrored))]
    return [one for one in found if one is not None]


def test_the_second_epoch_reads_what_the_first_has_seen(filmed_dataset: str, tmp_path: Path) -> None:
    config = VisionConfig(cache=str(tmp_path), clip_fps=1.0)
    tokens = FrameTokens(config, Brightness())
    results, seen = [], []
    for _ in range(2):
        frames = frames_of(filmed_dataset, tokens)
        requests = [FrameRequest(frames=one, numbers=one.numbers) for one in frames]
        results.append(tokens.of_frames(requests))
        seen.append((tokens.tower.seen, sum(len(one.pixels) for one in frames)))
    assert seen == [(4, 4), (4, 0)]  # two frames of two clips
    for serial, (first, second) in enumerate(zip(*results, strict=True)):
        assert torch.equal(first, second)
        assert first[:, 0, 0].tolist() == pytest.approx([brightness(0, serial), brightness(30, serial)], abs=2)
        assert first[:, 0, 1].tolist() == pytest.approx([0, 0], abs=2)
        assert first.shape == (2, 2, 2)


def test_mirror_images_are_seen_apart(filmed_dataset: str, tmp_path: Path) -> None:
    tokens = FrameTokens(VisionConfig(cache=str(tmp_path), clip_fps=0.0), Brightness())
    for epoch in range(2):
        frames = frames_of(filmed_dataset, tokens, mirrored=True)[0]
        assert len(frames.pixels) == (0 if epoch else 1)
        request = FrameRequest(frames=frames, numbers=np.array([0]), mirrored=True)
        both = tokens.of_frames([FrameRequest(frames=frames, numbers=np.array([0])), request])
        plain, mirrored = (one[0, 0].tolist() for one in both)
        assert plain == pytest.approx([brightness(0), 0], abs=2)
        assert mirrored == pytest.approx([0, brightness(0)], abs=2)
    assert tokens.tower.seen == 2


def test_a_request_is_an_image_or_a_clip(filmed_dataset: str, tmp_path: Path) -> None:
    config = VisionConfig(cache=str(tmp_path), cache_gib=0, clip_fps=10.0, slow_frames=1, fast_frames=4)
    tokens = FrameTokens(config, Brightness())
    frames = frames_of(filmed_dataset, tokens)[0]
    image, clip = tokens(
        [
            FrameRequest(frames=frames, numbers=np.array([frames.nearest(31)])),
            FrameRequest(frames=frames, numbers=frames.between(15, 45)),
        ]
    )
    assert (len(image), len(clip)) == (2, 2 + 3)
    assert image.tokens[0, 0] == pytest.approx(brightness(30), abs=2)
    assert clip.times_s.tolist() == pytest.approx([0, 0, 0.3, 0.7, 1.0])
    assert not list(tmp_path.iterdir())  # nothing is kept
    with pytest.raises(HumoError, match=r"frames \[7\] of a clip are not at hand"):
        tokens([FrameRequest(frames=frames, numbers=np.array([7]))])


def test_files_of_users_are_seen_like_frames(tmp_path: Path) -> None:
    tokens = FrameTokens(VisionConfig(cache_gib=0, clip_fps=1.0, slow_frames=1), Brightness())
    image = np.zeros((64, 64, 3), np.uint8)
    image[:, :32] = 77
    Image.fromarray(image).save(tmp_path / "still.png")
    still = tokens.of_file(str(tmp_path / "still.png"))
    assert still.tokens.tolist() == [[77, 0], [1077, 1000]]
    (tmp_path / "clip.mp4").write_bytes(brightness_clip(60))
    clip = tokens.of_file(str(tmp_path / "clip.mp4"))
    assert clip.tokens[:, 0].tolist() == pytest.approx([brightness(0), 1000 + brightness(0), brightness(30)], abs=2)
    assert clip.times_s.tolist() == [0, 0, 1]
