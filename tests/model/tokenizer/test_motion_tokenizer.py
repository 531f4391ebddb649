"""The motion tokenizer: causality, streaming, parts, vocabulary."""

import pytest
import torch

from model.features.humo263 import ROOT, part_columns
from model.llm.vocabulary import SPECIAL, MotionVocabulary, TextVocabulary
from model.tokenizer.config import PRESETS, TokenizerConfig
from model.tokenizer.losses import LossWeights
from model.tokenizer.motion_tokenizer import Batch, MotionTokenizer
from schemas.errors import HumoError
from schemas.skeleton import PARTS

TINY = TokenizerConfig(codebook_size=16, code_width=8, width=16, dilations=(1, 3))


def _trained(config: TokenizerConfig, steps: int = 3) -> MotionTokenizer:
    torch.manual_seed(0)
    tokenizer = MotionTokenizer(config).train()
    for _ in range(steps):
        tokenizer(Batch(features=torch.randn(4, 32, 263)), LossWeights())
    return tokenizer.eval()


@pytest.mark.parametrize(
    ("changes", "streams"),
    [({}, 5), ({"parts": "whole", "levels": 1}, 1), ({"parts": "whole", "levels": 6}, 1), ({"share_levels": True}, 5)],
)
def test_shapes(changes: dict[str, object], streams: int) -> None:
    config = TokenizerConfig(**{**TINY.model_dump(), **changes})
    tokenizer = _trained(config)
    codes = tokenizer.encode(torch.randn(2, 30, 263))
    assert codes.shape == (2, 7, streams, config.levels)
    assert codes.min() >= 0
    assert codes.max() < 16
    assert tokenizer.decode(codes).shape == (2, 28, 263)


def test_prefix_has_the_same_codes() -> None:
    tokenizer = _trained(TINY)
    rows = torch.randn(1, 64, 263)
    assert torch.equal(tokenizer.encode(rows)[:, :5], tokenizer.encode(rows[:, :20]))


def test_streaming_equals_decoding_at_once() -> None:
    tokenizer = _trained(TINY)
    codes = tokenizer.encode(torch.randn(2, 64, 263))
    memory: dict[torch.nn.Module, torch.Tensor] = {}
    chunks = [tokenizer.decode(codes[:, i : i + 1], memory) for i in range(16)]
    assert torch.allclose(torch.cat(chunks, 1), tokenizer.decode(codes), atol=1e-5)


def test_part_changes_its_own_columns_only() -> None:
    tokenizer = _trained(TINY)
    codes = tokenizer.encode(torch.randn(1, 32, 263))
    other = codes.clone()
    arm = TINY.streams.index("left_arm")
    other[:, :, arm] = (other[:, :, arm] + 1) % 16
    changed = (tokenizer.decode(codes) - tokenizer.decode(other)).abs().amax((0, 1)) > 1e-6
    own = torch.zeros(263, dtype=torch.bool)
    own[tokenizer.written_1] = True
    assert changed.any()
    assert not (changed & ~own).any()


def test_training_reduces_the_loss() -> None:
    torch.manual_seed(0)
    tokenizer = MotionTokenizer(TINY)
    optimiser = torch.optim.AdamW(tokenizer.parameters(), lr=3e-3)
    rows = torch.cumsum(torch.randn(8, 32, 263) * 0.2, 1)
    losses = []
    for _ in range(40):
        parts = tokenizer(Batch(features=rows), LossWeights())
        optimiser.zero_grad()
        parts["loss"].backward()
        optimiser.step()
        losses.append(parts["whole"].item())
    assert losses[-1] < 0.8 * losses[0]
    assert all(p.grad is not None for p in tokenizer.parameters())


def test_decoding_inverts_normalisation() -> None:
    tokenizer = _trained(TINY)
    codes = tokenizer.encode(torch.randn(1, 32, 263))
    before = tokenizer.decode(codes)
    tokenizer.mean += 5
    assert torch.allclose(tokenizer.decode(codes), before + 5, atol=1e-5)


def test_presets_are_built() -> None:
    for config in PRESETS.values():
        assert config.downsample == 4
        assert config.streams[0] == "torso"


def test_motion_tokens_are_named_by_part() -> None:
    vocabulary = MotionVocabulary(TINY.streams, 4, 16)
    codes = torch.randint(16, (3, 5, 4))
    text = vocabulary.write(codes)
    assert text.startswith(f"<torso_{codes[0, 0, 0]}><torso_{codes[0, 0, 1]}>")
    assert text.count("<") == 3 * vocabulary.tokens_per_step == 60
    assert torch.equal(vocabulary.read(text), codes)
    assert torch.equal(vocabulary.unflatten(vocabulary.flatten(codes)), codes)
    assert vocabulary.names()[vocabulary.flatten(codes)[4]] == f"<left_arm_{codes[0, 1, 0]}>"
    for bad in ("<torso_1>", "<tail_1>" * 20, "<torso_99>" * 20, "<torso_1>" * 20):
        with pytest.raises(HumoError):
            vocabulary.read(bad)


def test_text_tokens() -> None:
    vocabulary = TextVocabulary.learn(["a person waves with the left hand"] * 4, 400)
    for text in ("a person waves", "Überall 日本", "a <end> b"):
        tokens = vocabulary.encode(text)
        assert vocabulary.decode(tokens) == text.lower()
        assert all(token >= len(SPECIAL) for token in tokens)
    assert vocabulary.encode("A person waves.") == vocabulary.encode("a  person waves")
    assert len(vocabulary.encode("left hand")) == 2
    loaded = TextVocabulary.from_json(vocabulary.to_json())
    assert loaded.encode("a person waves") == vocabulary.encode("a person waves")


@pytest.mark.parametrize("part", [0, 1, 4])
def test_made_up_parts_are_not_learned(part: int) -> None:
    tokenizer = _trained(TINY).train()
    rows, seen = torch.randn(2, 32, 263), torch.ones(2, 32, 5)
    masked, whole = (tokenizer(Batch(features=rows, seen=mask), LossWeights())["loss"] for mask in (seen, None))
    assert torch.allclose(masked, whole)
    seen[..., part] = 0
    tokenizer.zero_grad()
    tokenizer(Batch(features=rows, seen=seen), LossWeights())["whole"].backward()
    columns = [set(part_columns(name).tolist()) for name in PARTS]
    learned = set.union(*(columns[other] for other in range(5) if other != part), set(range(263)[ROOT]))
    gradient = tokenizer.decoder.last[part].weight.grad.abs().sum((1, 2))
    for column, value in zip(sorted(columns[part]), gradient.tolist(), strict=True):
        assert (value > 0) == (column in learned)
