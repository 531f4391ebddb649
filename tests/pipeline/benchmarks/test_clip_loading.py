"""humo bench loader --clips: every frame is decoded once, then read from the disk."""

from pathlib import Path

import pytest
from motion_datasets import write_dataset, write_filmed_dataset

from model.vision.config import VisionConfig
from pipeline.benchmarks.clip_loading import bench, bench_text
from schemas.errors import HumoError

SMALL = VisionConfig(px=64, grid=1, clip_fps=1.0)


def test_frames_are_decoded_in_the_first_epoch_alone(tmp_path: Path) -> None:
    films = write_filmed_dataset(tmp_path, clips=4)
    report = bench(films, vision=SMALL, workers=1, batch_size=2, width=64, layers=1, device="cpu")
    rows = [report[name] for name in ("without_clips", "first_epoch", "second_epoch")]
    assert [(row["decoded"], row["seen"]) for row in rows] == [(0, 0), (8, 0), (0, 8)]
    assert [row["steps"] for row in rows] == [2, 2, 2]
    assert all(0 <= row["waiting_share"] + row["tower_share"] <= 1 for row in rows)
    assert "first epoch" in bench_text(report)
    assert bench(films, vision=SMALL, workers=0, batch_size=2, steps=1, width=64, layers=1)["first_epoch"]["steps"] == 1


def test_a_dataset_without_clips_is_refused(tmp_path: Path) -> None:
    with pytest.raises(HumoError, match="no samples of video"):
        bench(write_dataset(tmp_path, clips=1, shards=1), vision=SMALL, workers=0, width=64, layers=1)
