"""The page of the worst reconstructions: what it shows, and that nothing of it is fetched."""

import base64
import hashlib
import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from motion_datasets import write_dataset

from model.data.dataset import MotionDataset
from model.evaluation.tokenizer import evaluate_tokenizer
from model.evaluation.worst_reconstructions import worst_reconstructions
from model.features.motions import motion_features
from model.tokenizer.config import PRESETS, TokenizerConfig
from model.tokenizer.motion_tokenizer import MotionTokenizer
from pipeline.benchmarks.reconstruction_page import write_page
from schemas.body_model import BodyModel
from schemas.kinematics import forward_kinematics


def _joints(packed: dict) -> np.ndarray:
    return np.frombuffer(base64.b64decode(packed["data"]), "<i2").reshape(-1, 24, 3) * packed["unit"]


@pytest.mark.parametrize("features", ["humo263", "smpl135"])
def test_the_page_moves_the_worst_motions_beside_their_reconstructions(tmp_path: Path, features: str) -> None:
    torch.manual_seed(0)
    dataset = write_dataset(tmp_path / "data", clips=3, shards=1, seconds=2.0, splits="val")
    config = {**PRESETS["tiny"].model_dump(), "width": 16, "codebook_size": 16, "code_width": 8, "features": features}
    tokenizer = MotionTokenizer(TokenizerConfig(**config))
    body = BodyModel.load()
    tokenizer.save_pretrained(tmp_path / "tokenizer", {"body_model": body.id})
    report = evaluate_tokenizer(tmp_path / "tokenizer", dataset)
    worst = worst_reconstructions(report, tmp_path / "tokenizer", dataset)
    page = write_page(report, worst, tmp_path / "out" / "page.html", "Reconstructions").read_text()
    assert page.count("<canvas") == 6
    assert re.findall(r"<code>([0-9a-f]{24})</code>", page) == list(report.worst)
    assert not re.search(r'(src|href)="(?!data:)', page)
    (script,) = re.findall(r"<script>(.*?)</script>", page, re.DOTALL)
    policy = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"script-src &#39;sha256-{policy}&#39;" in page
    assert "unsafe" not in page
    (data,) = re.findall(r'<script type="application/json" id="players">(.*?)</script>', page, re.DOTALL)
    shown = json.loads(data)["motions"]
    samples = {sample.key: sample for sample in MotionDataset(dataset, split="val")}
    rest = body.rest_joints(torch.zeros(10))
    for key, one in zip(report.worst, shown, strict=True):
        rows = motion_features([samples[key].motion], body, features)[0]
        rotations, trans = tokenizer.features.decode(rows, rest)
        true = forward_kinematics(rotations, rest, trans)[0].numpy()[: one["motion"]["frames"]]
        assert np.abs(_joints(one["motion"]) - true).max() < 1e-3
        assert one["decoded"]["frames"] == one["motion"]["frames"] > 50
        error = np.linalg.norm(_joints(one["decoded"])[:, :22] - true[:, :22], axis=-1).mean()
        assert 1000 * error > 0.5 * report.fk_mpjpe_mm  # an untrained tokenizer is far off, in the world too
