"""Motion steps with static shapes against the same steps one operation after the other, and on CUDA."""

import pytest
import torch

from model.generation.motion_steps import CapturedSteps, EncodedPrompt, MotionSteps, SequentialSteps, steps_after
from model.llm.language_model import CodeSampler, LanguageModelConfig, MotionLanguageModel

CONFIG = LanguageModelConfig(width=32, layers=2, heads=2, step_width=16, step_layers=2, step_heads=2, context=24)
DEVICES = [
    "cpu",
    pytest.param(
        "cuda",
        marks=[pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")],
    ),
]


def build(device: str = "cpu") -> MotionLanguageModel:
    torch.manual_seed(0)
    model = MotionLanguageModel(CONFIG, text_tokens=300, parts=5, levels=4, codebook_size=32).eval()
    model.codes.data *= 20  # so that a step depends on the codes of the step before
    return model.to(device)


def prompt(model: MotionLanguageModel, tokens: list[int]) -> EncodedPrompt:
    text = torch.tensor([tokens], device=model.stop.weight.device)
    pooled = model.pool_text(text, torch.ones_like(text, dtype=torch.bool))
    cache = model.new_cache(1)
    for values in (*cache.keys, *cache.values):
        values.fill_(float("nan"))  # memory that nothing was written to may hold anything
    state = model.backbone(model.embed_text(text), cache)[:, -1]
    return EncodedPrompt(cache, pooled, torch.zeros_like(pooled), state)


def prompts(model: MotionLanguageModel) -> list[EncodedPrompt]:
    """With and without text, of different lengths."""
    return [prompt(model, [5, 9, 7, 3]), prompt(model, [3])]


def take(steps: MotionSteps, count: int) -> tuple[torch.Tensor, torch.Tensor]:
    rows = [(steps.draw().clone(), steps.read().clone()) for _ in range(count)]
    codes, stops = zip(*rows, strict=True)
    return torch.stack(codes).cpu(), torch.stack(stops).cpu()


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("guidance", [1.0, 2.0])
@torch.inference_mode()
def test_static_shapes_give_the_same_steps(device: str, guidance: float) -> None:
    """Until the context is full: twenty steps after four positions."""
    rows = 2 if guidance != 1 else 1
    model = build()
    sampler = CodeSampler(0.0, 0, guidance, torch.Generator())
    codes, stops = take(SequentialSteps(prompts(model)[:rows], model, sampler), 20)
    assert len(codes.unique()) > 10
    model = build(device)
    sampler = CodeSampler(0.0, 0, guidance, torch.Generator(device))
    found_codes, found_stops = take(CapturedSteps(prompts(model)[:rows], model, sampler), 20)
    assert torch.equal(found_codes, codes)
    assert torch.allclose(found_stops, stops, atol=1e-4)


@pytest.mark.parametrize("device", DEVICES)
@torch.inference_mode()
def test_a_seed_gives_the_same_steps_again(device: str) -> None:
    model = build(device)
    takes = []
    for seed in (1, 1, 2):
        sampler = CodeSampler(1.0, 8, 2.0, torch.Generator(device).manual_seed(seed))
        takes.append(take(steps_after(prompts(model), model, sampler), 10)[0])
    assert torch.equal(takes[0], takes[1])
    assert not torch.equal(takes[0], takes[2])


@torch.inference_mode()
def test_only_cuda_has_static_shapes() -> None:
    model = build()
    sampler = CodeSampler(0.0, 0, 1.0, torch.Generator())
    assert isinstance(steps_after(prompts(model)[:1], model, sampler), SequentialSteps)
