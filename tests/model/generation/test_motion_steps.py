"""Motion steps with static shapes against the same steps one operation after the other, and on CUDA."""

import pytest
import torch

from model.generation.motion_steps import (
    CapturedSteps,
    CodeReader,
    EncodedPrompt,
    MotionSteps,
    SequentialSteps,
    steps_after,
)
from model.llm.language_model import LanguageModelConfig, MotionLanguageModel
from model.llm.packing import Packer
from model.llm.sampling import CodeSampler
from model.llm.segments import Example, MotionAnswer, Words
from model.llm.vocabulary import TextVocabulary
from model.tokenizer.config import TokenizerConfig
from model.tokenizer.quantizers import ResidualCodebooks

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
    sizes = {"text_tokens": 300, "parts": 5, "levels": 4, "codebook_size": 32, "code_width": 8}
    model = MotionLanguageModel(CONFIG, **sizes).eval()
    model.steps.layers[2].weight.data *= 20  # so that a step depends on the codes of the step before
    return model.to(device)


def reader(predict: int = 2, device: str = "cpu") -> CodeReader:
    """Random codebooks; with `predict` the latents of a step depend on those before."""
    torch.manual_seed(1)
    config = TokenizerConfig(levels=4, codebook_size=32, code_width=8, predict=predict, rotation_trick=False)
    quantizer = ResidualCodebooks(config).eval()
    for layer in quantizer.sets[0].layers:
        torch.nn.init.normal_(layer._codebook.embed)
        layer._codebook.initted.fill_(True)
    if predict:
        torch.nn.init.normal_(quantizer.prediction, std=0.2)
    return CodeReader(quantizer.to(device))


def prompt(model: MotionLanguageModel, words: str) -> EncodedPrompt:
    packer = Packer(TextVocabulary.learn(["go on"], 300), 5, 4, 8, CONFIG.context)
    segments = (Words(text=words),) if words else ()
    example = Example(task="t2m", prompt=segments, answer=MotionAnswer.unknown(5, 4, 8))
    batch = packer.collate([packer.sequence(example, answered=False)]).to(model.stop.weight.device)
    cache = model.text_model.new_cache(1)
    for values in (*cache.keys, *cache.values):
        values.fill_(float("nan"))  # memory that nothing was written to may hold anything
    state = model.text_model(model.embed(batch), cache)[:, -1]
    return EncodedPrompt(cache, model.prompt_vector(batch), model.motion_vector(batch), state)


def prompts(model: MotionLanguageModel) -> list[EncodedPrompt]:
    """With and without text, of different lengths."""
    return [prompt(model, "go"), prompt(model, "")]


def take(steps: MotionSteps, count: int) -> tuple[torch.Tensor, torch.Tensor]:
    rows = [(steps.draw().clone(), steps.read().clone()) for _ in range(count)]
    codes, stops = zip(*rows, strict=True)
    return torch.stack(codes).cpu(), torch.stack(stops).cpu()


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("guidance", [1.0, 2.0])
@pytest.mark.parametrize("predict", [0, 2])
@torch.inference_mode()
def test_static_shapes_give_the_same_steps(device: str, guidance: float, predict: int) -> None:
    """Until the context is full."""
    rows = 2 if guidance != 1 else 1
    model = build()
    sampler = CodeSampler(0.0, 0, guidance, torch.Generator())
    first = prompts(model)[:rows]
    count = CONFIG.context - first[0].cache.length
    codes, stops = take(SequentialSteps(first, model, sampler, reader(predict)), count)
    assert len(codes.unique()) > 10
    model = build(device)
    sampler = CodeSampler(0.0, 0, guidance, torch.Generator(device))
    steps = CapturedSteps(prompts(model)[:rows], model, sampler, reader(predict, device))
    found_codes, found_stops = take(steps, count)
    assert torch.equal(found_codes, codes)
    assert torch.allclose(found_stops, stops, atol=1e-4)


@pytest.mark.parametrize("device", DEVICES)
@torch.inference_mode()
def test_a_seed_gives_the_same_steps_again(device: str) -> None:
    model = build(device)
    takes = []
    for seed in (1, 1, 2):
        sampler = CodeSampler(1.0, 8, 2.0, torch.Generator(device).manual_seed(seed))
        takes.append(take(steps_after(prompts(model), model, sampler, reader(2, device)._quantizer), 10)[0])
    assert torch.equal(takes[0], takes[1])
    assert not torch.equal(takes[0], takes[2])


@torch.inference_mode()
def test_only_cuda_has_static_shapes() -> None:
    model = build()
    sampler = CodeSampler(0.0, 0, 1.0, torch.Generator())
    assert isinstance(steps_after(prompts(model)[:1], model, sampler, reader()._quantizer), SequentialSteps)


@torch.inference_mode()
def test_a_reader_continues_where_it_was() -> None:
    """Its latents are those of all codes at once."""
    codes = torch.randint(32, (1, 6, 5, 4), generator=torch.Generator().manual_seed(0))
    one = reader()
    together = one._quantizer.decode(codes).transpose(1, 2)
    apart = torch.cat([one(codes[:, step]) for step in range(6)], dim=1)
    assert torch.allclose(apart, together, atol=1e-5)
    state = reader()
    for step in range(3):
        state(codes[:, step])
    after = CodeReader(one._quantizer, state.state)
    assert torch.allclose(after(codes[:, 3]), together[:, 3:4], atol=1e-5)
