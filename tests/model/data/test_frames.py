"""Frames beside samples: which are read, and that a clip is not touched where nothing is missing."""

from pathlib import Path

import numpy as np
import pytest
from motion_datasets import brightness, write_filmed_dataset

from model.data.dataset import MotionDataset, NoSamples
from model.data.frame_cache import FrameCache
from model.data.frames import FrameReader
from model.data.loader import MotionLoader
from schemas.records import Instruction, InstructionInput


@pytest.fixture(scope="module")
def filmed_dataset(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_filmed_dataset(tmp_path_factory.mktemp("filmed"), clips=4, damaged=(3,))


def instruction(kind: str, start_s: float) -> Instruction:
    given = InstructionInput(kind=kind, start_s=start_s, end_s=start_s)
    return Instruction(task="t", instruction="i", inputs=given, target=given, parts=(), start_s=0.0, end_s=2.0)


def test_frames_are_those_of_images_and_an_even_grid() -> None:
    instructions = (instruction("image", 0.4), instruction("motion", 1.0), instruction("image", 99.0))
    assert FrameReader(px=64).wanted(60, instructions).tolist() == [12, 59]
    assert FrameReader(px=64).wanted(60, ()).tolist() == []
    assert FrameReader(px=64, clip_fps=2.0).wanted(60, instructions).tolist() == [0, 12, 15, 30, 45, 59]
    assert FrameReader(px=64, clip_fps=30.0).wanted(5, ()).tolist() == [0, 1, 2, 3, 4]


def test_samples_come_with_their_frames(filmed_dataset: str) -> None:
    assert next(iter(MotionDataset(filmed_dataset))).frames is None
    dataset = MotionDataset(filmed_dataset, frames=FrameReader(px=64, clip_fps=1.0))
    for serial in range(3):
        frames = dataset[serial].frames
        assert frames is not None
        assert frames.numbers.tolist() == frames.pixel_numbers.tolist() == [0, 30]
        assert frames.pixels[:, 32, 10, 0] == pytest.approx([brightness(number, serial) for number in (0, 30)], abs=2)
        assert (frames.nearest(14), frames.nearest(16)) == (0, 30)
        assert frames.between(1, 30).tolist() == [30]


def test_a_damaged_clip_costs_its_picture_alone(filmed_dataset: str) -> None:
    dataset = MotionDataset(filmed_dataset, frames=FrameReader(px=64))
    with pytest.warns(UserWarning, match=r"clip\.mp4: does not decode .* without its picture"):
        sample = dataset[3]
    assert sample.frames is None
    assert len(sample.motion.poses) == 60


def test_only_what_no_tower_has_seen_is_decoded(filmed_dataset: str, tmp_path: Path) -> None:
    cache = FrameCache(tmp_path, "tower", 1 << 20)
    reader = FrameReader(px=64, clip_fps=1.0, cache=cache)
    frames = MotionDataset(filmed_dataset, frames=reader)[1].frames
    assert frames is not None
    cache.add(frames.identity, (np.array([0]), np.ones((1, 2, 3), np.float16)), mirrored=False)
    partly = MotionDataset(filmed_dataset, frames=reader)[1].frames
    assert partly is not None
    assert partly.pixel_numbers.tolist() == [30]
    assert partly.pixels[0, 32, 10, 0] == pytest.approx(brightness(30, 1), abs=2)
    cache.add(frames.identity, (np.array([30]), np.zeros((1, 2, 3), np.float16)), mirrored=False)

    def unread() -> bytes:
        raise AssertionError("the clip was read")

    sample = MotionDataset(filmed_dataset)[1]
    known = reader.read(sample.key, sample.meta, frames.numbers, unread)
    assert known is not None
    assert known.seen[False][0].tolist() == [0, 30]
    assert not len(known.pixels)
    # another crop of the same person is another clip, and mirror images have tokens of their own
    recropped = reader.read(sample.key, sample.meta | {"config_digest": "1" * 12}, frames.numbers[:0], unread)
    assert recropped is not None
    assert recropped.identity != known.identity
    with pytest.raises(AssertionError, match="the clip was read"):
        FrameReader(px=64, clip_fps=1.0, cache=cache, mirrored=True).read(
            sample.key, sample.meta, frames.numbers, unread
        )


@pytest.mark.filterwarnings("ignore:.*does not decode")
def test_a_worker_decodes(filmed_dataset: str, dataset: str) -> None:
    config = MotionLoader.Config(dataset=filmed_dataset, batch_size=2, workers=1, epochs=1)
    batches = list(MotionLoader(config, frames=FrameReader(px=64)))
    shapes = sorted(sample.frames.pixels.shape for batch in batches for sample in batch if sample.frames)
    assert shapes == [(1, 64, 64, 3)] * 3
    of_mocap = next(iter(MotionDataset(dataset, frames=FrameReader(px=64))))
    assert of_mocap.frames is None
    with pytest.raises(NoSamples, match="split val"):
        MotionDataset(filmed_dataset, split="val")
