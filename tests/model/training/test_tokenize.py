"""Codes beside the shards, tokenizers alone in a folder."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from model import checkpoints
from model.data.dataset import MotionDataset
from model.features.motions import motion_features
from model.tokenizer.motion_tokenizer import MotionTokenizer, load_tokenizer
from model.training.config import TokenizerTraining
from model.training.tokenize import read_codes, tokenize
from model.training.tokenizer import train_tokenizer
from schemas.body_model import BodyModel
from schemas.config import parse_config
from schemas.dataset import codes_path, read_description
from schemas.storage import Storage

SMALL = {"preset": "fast", "codebook_size": 16, "code_width": 8, "width": 16, "dilations": [1]}


def _config(dataset: str, output: Path, steps: int = 2) -> TokenizerTraining:
    optimisation = {"steps": steps, "batch_size": 4, "learning_rate": 1e-3, "warmup_steps": 1, "bf16": False}
    mapping = {"dataset": dataset, "output": str(output), "architecture": SMALL, "workers": 0, "device": "cpu",
               "window": 32, "weights": {"joints": 10, "path": 1}, "optimisation": optimisation}  # fmt: skip
    return parse_config(mapping, TokenizerTraining, "test")


@pytest.fixture(scope="module")
def trained(dataset: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("tokenizer")
    train_tokenizer(_config(dataset, output))
    return output


def test_codes_are_written_beside_the_shards(trained: Path, dataset: str, tmp_path: Path, body: BodyModel) -> None:
    copy = str(shutil.copytree(dataset, tmp_path / "copy"))
    report = tokenize(trained, copy)
    assert (report.motions, report.shards, report.kept_shards, report.too_short) == (24, 6, 0, 0)
    name = checkpoints.fingerprint(checkpoints.newest(trained))
    assert report.folder == f"codes/{name}"
    tokenizer, description = load_tokenizer(trained)
    assert json.loads((tmp_path / "copy" / report.folder / "tokenizer.json").read_text()) == description
    storage = Storage(copy)
    found: dict[str, np.ndarray] = {}
    for shard in read_description(storage).shards:
        found |= read_codes(storage, codes_path(name, shard.path), 5, 4)
    for sample in MotionDataset(copy, split="val"):
        with torch.inference_mode():
            expected = tokenizer.encode(motion_features([sample.motion], body, "smpl135"))[0]
        assert np.array_equal(found[sample.key], expected.numpy())
    path = tmp_path / "copy" / codes_path(name, "shards/mocap/val-000001.tar")
    before = path.read_bytes()
    path.unlink()
    again = tokenize(trained, copy)
    assert (again.motions, again.kept_shards) == (4, 5)
    assert path.read_bytes() == before


def test_a_tokenizer_alone_in_a_folder(trained: Path, tmp_path: Path, dataset: str) -> None:
    tokenizer, description = load_tokenizer(trained)
    assert description["licences"] == ["CC0"]
    assert description["dataset_version"] == read_description(Storage(dataset)).version
    tokenizer.save_pretrained(tmp_path / "alone", description)
    assert {path.name for path in (tmp_path / "alone").iterdir()} == {"model.json", "model.safetensors"}
    loaded = MotionTokenizer.from_pretrained(tmp_path / "alone")
    rows = torch.randn(1, 40, len(tokenizer.mean))
    with torch.inference_mode():
        assert torch.equal(loaded.encode(rows), tokenizer.encode(rows))
    assert load_tokenizer(tmp_path / "alone")[1] == description
    assert checkpoints.fingerprint(tmp_path / "alone") == checkpoints.fingerprint(checkpoints.newest(trained))
