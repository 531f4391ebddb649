"""The log of a training: what its lines say of speed."""

import json
from pathlib import Path

import pytest
import torch

from model.training import metrics
from model.training.metrics import MetricsLog


def test_a_line_tells_the_share_of_waiting_since_the_one_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = [0.0]
    monkeypatch.setattr(metrics.time, "monotonic", lambda: clock[0])
    log = MetricsLog(str(tmp_path), 4, 0)
    for step, waited_s in enumerate((1.0, 0.0, 0.5), 1):
        with log.waiting():
            clock[0] += waited_s
        clock[0] += 3.0
        log.add({"loss": torch.tensor(1.0)})
        if step > 1:
            log.write(step, 0.1)
    rows = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [row["waiting_share"] for row in rows] == pytest.approx([1 / 7, 0.5 / 3.5])
    assert [row["steps_per_s"] for row in rows] == pytest.approx([2 / 7, 1 / 3.5])
    assert "waiting_share" not in log.last
