"""humo bench loader: what it makes up is a sound dataset, and both sides read all of it."""

import json
from pathlib import Path

import pytest

from model.data import MotionDataset
from pipeline.benchmarks.loader import _make, bench, bench_text
from schemas.errors import HumoError


def test_both_sides_pass_over_the_same_samples() -> None:
    found = bench(samples=8, shards=2, workers=1, batch_size=5, rounds=1, clip_bytes=1000)
    assert (found["samples"], found["shards"]) == (8, 2)
    assert (
        min(found[name] for name in ("humo_per_s", "webdataset_per_s", "same_decoding_per_s", "webdataset_cpu_ratio"))
        > 0
    )
    assert len(found["webdataset_ratios"]) == 1
    assert "8 samples in 2 shards" in bench_text(found)
    json.dumps(found)


def test_a_made_up_dataset_is_like_a_real_one(tmp_path: Path) -> None:
    _make(tmp_path, 12, 3, 0)
    samples = list(MotionDataset(str(tmp_path)))
    assert len({sample.key for sample in samples}) == 12
    assert len({len(sample.motion.poses) for sample in samples}) > 3
    assert all(len(sample.instructions) > 8 and sample.body for sample in samples)
    (tmp_path / "dataset.json").unlink()
    with pytest.raises(HumoError, match=r"no dataset\.json"):
        bench(str(tmp_path), rounds=1)
