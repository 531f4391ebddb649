"""A pretrained backbone from shards to a generated motion: training, checkpoints, exact resuming."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from tiny_llama import write_llama

from model import checkpoints
from model.generation.generator import Generator
from model.llm.huggingface import PretrainedVocabulary
from model.llm.loading import load_llm
from model.training import llm
from model.training.config import LanguageModelTraining, TokenizerTraining
from model.training.llm import train_llm
from model.training.tokenizer import train_tokenizer
from schemas.config import parse_config
from schemas.errors import HumoError, UsageError

OPTIMISATION = {"steps": 4, "batch_size": 4, "learning_rate": 3e-3, "warmup_steps": 1, "bf16": False, "ema": 0.5}
RUN = {"workers": 0, "device": "cpu", "log_every": 2, "save_every": 2, "optimisation": OPTIMISATION}


def test_training_resumes_exactly_and_generates(dataset: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Motions that were encoded in an earlier batch, beside others, differ by rounding.
    monkeypatch.setattr(llm, "_MAX_CACHED_MOTIONS", 0)
    llama = write_llama(tmp_path / "llama")
    sizes = {"preset": "tiny", "codebook_size": 16, "code_width": 8, "width": 16}
    tokenizer = {**RUN, "dataset": dataset, "output": str(tmp_path / "tokenizer"), "architecture": sizes}
    train_tokenizer(parse_config(tokenizer, TokenizerTraining, "test"))
    architecture = {"backbone": llama, "lora_rank": 4, "step_width": 16, "step_layers": 1, "step_heads": 2}

    def train(name: str) -> Path:
        mapping = {**RUN, "dataset": dataset, "tokenizer": tokenizer["output"], "output": str(tmp_path / name)}
        train_llm(parse_config({**mapping, "architecture": architecture}, LanguageModelTraining, "test"))
        return tmp_path / name

    whole = train("whole")
    broken = Path(shutil.copytree(whole, tmp_path / "broken"))
    shutil.rmtree(broken / "step-00000004")
    (broken / "latest.json").write_text(json.dumps({"checkpoint": "step-00000002"}))
    train("broken")
    states = [checkpoints.read_state(checkpoints.newest(path)) for path in (whole, broken)]
    assert states[0].keys() == states[1].keys()
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])
    held = [name for name in states[0] if name.startswith("backbone.")]
    assert held
    assert all("lora_" in name for name in held)

    loaded = load_llm(whole)
    assert isinstance(loaded.vocabulary, PretrainedVocabulary)
    assert loaded.vocabulary.to_json() == PretrainedVocabulary.of(llama).to_json()
    generator = Generator(loaded)
    motion = generator.generate("a person waves", seconds=1.0, seed=3).motion
    assert len(motion.poses) == 32  # eight whole steps of four frames
    assert isinstance(generator.describe(motion, max_tokens=4), str)

    write_llama(tmp_path / "llama", seed=1)
    with pytest.raises(HumoError, match=r"trained on .*llama with weights \w{12}, now \w{12}"):
        load_llm(whole)
    with pytest.raises(UsageError, match="began with the backbone"):
        train("whole")


def test_the_flat_layout_trains_and_generates(dataset: str, tmp_path: Path) -> None:
    sizes = {"preset": "tiny", "codebook_size": 16, "code_width": 8, "width": 16}
    tokenizer = {**RUN, "dataset": dataset, "output": str(tmp_path / "tokenizer"), "architecture": sizes}
    train_tokenizer(parse_config(tokenizer, TokenizerTraining, "test"))
    architecture = {"preset": "tiny", "layout": "flat", "width": 32, "layers": 1, "heads": 2, "context": 800}
    mapping = {**RUN, "dataset": dataset, "tokenizer": tokenizer["output"], "output": str(tmp_path / "llm"),
               "architecture": architecture, "text_vocabulary": 300}  # fmt: skip
    train_llm(parse_config(mapping, LanguageModelTraining, "test"))
    motion = Generator(tmp_path / "llm").generate("a person waves", seconds=0.5).motion
    assert len(motion.poses) == 16
