"""The step decoder beside the flat layout, on small backbones."""

import pytest

from pipeline.benchmarks.decoding import bench, bench_text
from schemas.errors import UsageError


def test_both_layouts_generate_on_the_same_backbone() -> None:
    report = bench(preset="tiny", tokenizer="tiny", seconds=0.5, rounds=1)
    steps, flat = report["layouts"]["steps"], report["layouts"]["flat"]
    assert (steps["passes_per_step"], flat["passes_per_step"]) == (1, 20)
    assert report["ratio"] == pytest.approx(steps["frames_per_s"][0] / flat["frames_per_s"][0], rel=0.05)
    assert "20 pass(es) of the backbone a step" in bench_text(report)
    with pytest.raises(UsageError, match="vast: no such preset; known presets: tiny, small, base"):
        bench(preset="vast")
