"""humo bench loader: the synthetic dataset is valid, and both loaders read all of it."""

import json
from pathlib import Path

import pytest

from model.data.dataset import MotionDataset
from pipeline.benchmarks.loader import bench, bench_text, make_dataset
from schemas.errors import HumoError


def test_both_loaders_read_the_same_samples() -> None:
    report = bench(samples=8, shards=2, workers=1, batch_size=5, rounds=1, clip_bytes=1000)
    assert (report["samples"], report["shards"]) == (8, 2)
    assert (
        min(report[name] for name in ("humo_per_s", "webdataset_per_s", "same_decoding_per_s", "webdataset_cpu_ratio"))
        > 0
    )
    assert len(report["webdataset_ratios"]) == 1
    assert "8 samples in 2 shards" in bench_text(report)
    json.dumps(report)


def test_a_synthetic_dataset_is_like_a_real_one(tmp_path: Path) -> None:
    make_dataset(tmp_path, 12, 3, 0)
    samples = list(MotionDataset(str(tmp_path)))
    assert len({sample.key for sample in samples}) == 12
    assert len({len(sample.motion.poses) for sample in samples}) > 3
    assert all(len(sample.instructions) > 8 and sample.body for sample in samples)
    (tmp_path / "dataset.json").unlink()
    with pytest.raises(HumoError, match=r"no dataset\.json"):
        bench(str(tmp_path), rounds=1)
