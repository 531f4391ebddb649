"""The flat layout: positions of codes, losses, and generation that agrees with them."""

import pytest
import torch
from torch import Tensor

from model.generation.motion_steps import CodeReader, EncodedPrompt, FlatSteps, Given, steps_after
from model.llm.batch import Batch
from model.llm.flat_layout import FlatCodes, Spread
from model.llm.language_model import LanguageModelConfig, MotionLanguageModel
from model.llm.packing import Packer
from model.llm.sampling import CodeSampler
from model.llm.segments import Example, Motion, MotionAnswer, TextAnswer, Words
from model.llm.vocabulary import MotionVocabulary, TextVocabulary
from model.tokenizer.config import TokenizerConfig
from model.tokenizer.quantizers import ResidualCodebooks
from schemas.errors import HumoError
from schemas.skeleton import PARTS as PART_NAMES

PARTS, LEVELS, CODES, WIDTH = 5, 4, 8, 6
PLACES = PARTS * LEVELS


@pytest.fixture
def model() -> MotionLanguageModel:
    torch.manual_seed(0)
    config = LanguageModelConfig(layout="flat", width=32, layers=2, heads=2, context=400)
    sizes = {"parts": PARTS, "levels": LEVELS, "codebook_size": CODES, "code_width": WIDTH}
    model = MotionLanguageModel(config, text_tokens=300, **sizes).eval()
    assert model.flat is not None
    model.flat.tokens.weight.data *= 20  # so that a code depends on the codes before
    return model


@pytest.fixture(scope="module")
def quantizer() -> ResidualCodebooks:
    torch.manual_seed(1)
    quantizer = ResidualCodebooks(TokenizerConfig(levels=LEVELS, codebook_size=CODES, code_width=WIDTH)).eval()
    for layer in quantizer.sets[0].layers:
        torch.nn.init.normal_(layer._codebook.embed)
        layer._codebook.initted.fill_(True)
    return quantizer


@pytest.fixture(scope="module")
def packer() -> Packer:
    return Packer(TextVocabulary.learn(["go on", "what is this"], 300), PARTS, LEVELS, WIDTH, 400, PLACES)


def answer(steps: int, quantizer: ResidualCodebooks, seed: int = 0) -> MotionAnswer:
    codes = torch.randint(CODES, (steps, PARTS, LEVELS), generator=torch.Generator().manual_seed(seed))
    return answer_of(codes, quantizer)


def answer_of(codes: Tensor, quantizer: ResidualCodebooks) -> MotionAnswer:
    return MotionAnswer(codes=codes, latents=quantizer.decode(codes[None])[0].transpose(0, 1))


def batch_of(packer: Packer, quantizer: ResidualCodebooks) -> Batch:
    motion = answer(6, quantizer, 1)
    shown = Motion(codes=motion.codes, latents=motion.latents)
    both = (
        Example(task="t2m", prompt=(Words(text="go on"),), answer=answer(9, quantizer)),
        Example(task="m2t", prompt=(Words(text="what is this"), shown), answer=TextAnswer(text="a person waves")),
    )
    return packer.collate([packer.sequence(one) for one in both])


def test_codes_are_spread_out_in_the_order_of_the_vocabulary() -> None:
    is_target = torch.tensor([[False, True, True], [False, False, False]])
    spread = Spread.of(is_target, 4)
    assert spread.source[0].tolist() == [0, 1, 1, 1, 1, 2, 2, 2, 2]
    assert spread.place[0].tolist() == [0, 0, 1, 2, 3, 0, 1, 2, 3]
    assert spread.is_code.sum(1).tolist() == [8, 0]
    assert spread.flags(torch.ones(2, 3, dtype=torch.bool)).sum(1).tolist() == [3, 3]
    assert spread.flags(is_target)[0].nonzero()[:, 0].tolist() == [4, 8]
    flat, vocabulary = FlatCodes(PARTS, LEVELS, CODES, 16), MotionVocabulary(tuple(PART_NAMES), LEVELS, CODES)
    assert len(vocabulary) == len(flat.tokens.weight)
    assert flat.places == vocabulary.tokens_per_step
    codes = torch.randint(CODES, (3, PARTS, LEVELS))
    rows = flat.embed(codes.flatten(1), torch.arange(PLACES).expand(3, -1)) - flat.place
    assert torch.allclose(rows.flatten(0, 1), flat.tokens(vocabulary.flatten(codes)), atol=1e-6)


class _Recorded(CodeSampler):
    """The most likely codes, and how likely they are."""

    def __init__(self) -> None:
        super().__init__(0.0, 0, 1.0, torch.Generator())
        self.nats: list[Tensor] = []

    def __call__(self, logits: Tensor) -> Tensor:
        self.nats.append(-logits.log_softmax(-1).amax(-1))
        return super().__call__(logits)


@torch.no_grad()
def test_steps_are_as_likely_in_training_as_when_they_are_drawn(
    model: MotionLanguageModel, packer: Packer, quantizer: ResidualCodebooks
) -> None:
    asked = Example(task="t2m", prompt=(Words(text="go on"),), answer=MotionAnswer.unknown(PARTS, LEVELS, WIDTH))
    batch = packer.collate([packer.sequence(asked, answered=False)])
    sampler, prompt = _Recorded(), encode(model, batch)
    steps = steps_after([prompt], model, sampler, quantizer)
    assert isinstance(steps, FlatSteps)
    drawn, stops = [], []
    for _ in range(5):
        drawn.append(steps.draw())
        stops.append(steps.read())
    codes = torch.stack(drawn)
    assert len(sampler.nats) == 5 * PLACES
    assert len(codes.unique()) > 3
    assert torch.equal(steps.latents[0, 0], answer_of(codes, quantizer).latents[-1])
    whole = Example(task="t2m", prompt=asked.prompt, answer=answer_of(codes, quantizer))
    losses = model(packer.collate([packer.sequence(whole)]))
    assert losses["motion"].item() == pytest.approx(torch.stack(sampler.nats).mean().item(), abs=1e-5)
    wanted = torch.tensor([0.0, 0.0, 0.0, 0.0, 1.0])
    first = model.stop(prompt.state)[0, 0]  # after the marker, where the motion goes on
    logits = torch.stack([first, *stops])
    expected = torch.nn.functional.binary_cross_entropy_with_logits(logits, torch.cat([torch.zeros(1), wanted]))
    assert losses["stop"].item() == pytest.approx(expected.item(), abs=1e-5)


def encode(model: MotionLanguageModel, batch: Batch) -> EncodedPrompt:
    cache = model.text_model.new_cache(1)
    state = model.text_model(model.embed(batch), cache)[:, -1]
    return EncodedPrompt(cache, model.prompt_vector(batch), model.motion_vector(batch), state)


@torch.no_grad()
def test_known_parts_are_kept_and_guidance_takes_two_prompts(
    model: MotionLanguageModel, packer: Packer, quantizer: ResidualCodebooks
) -> None:
    asked = Example(task="t2m", prompt=(Words(text="go on"),), answer=MotionAnswer.unknown(PARTS, LEVELS, WIDTH))
    prompts = [
        encode(model, packer.collate([packer.sequence(one, answered=False)])) for one in (asked, asked.without_words())
    ]
    known = Given(torch.full((PARTS, LEVELS), 3), torch.tensor([True, False, False, True, False]))
    steps = FlatSteps(prompts, model, CodeSampler(1.0, 0, 2.0, torch.Generator().manual_seed(0)), CodeReader(quantizer))
    for _ in range(2):
        codes = steps.draw(known)
        steps.read()
        assert (codes[[0, 3]] == 3).all()
        assert (codes[[1, 2, 4]] != 3).any()


def test_losses_ignore_padding_and_decrease(
    model: MotionLanguageModel, packer: Packer, quantizer: ResidualCodebooks
) -> None:
    batch = batch_of(packer, quantizer)
    alone = packer.collate(
        [packer.sequence(Example(task="t2m", prompt=(Words(text="go on"),), answer=answer(9, quantizer)))]
    )
    before = model(batch)
    assert torch.allclose(before["motion"], model(alone)["motion"], atol=1e-5)
    model.train()
    optimiser = torch.optim.AdamW(model.parameters(), lr=3e-3)
    for _ in range(15):
        loss = torch.stack(list(model(batch).values())).sum()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    model.eval()
    assert all(model(batch)[name] < before[name] for name in before)


def test_positions_of_codes_count_for_the_context(packer: Packer, quantizer: ResidualCodebooks) -> None:
    long = Example(task="t2m", prompt=(Words(text="go on"),), answer=answer(20, quantizer))
    sequence = packer.sequence(long)
    assert sequence.positions == packer.length(long) == len(sequence) + 20 * (PLACES - 1)
    with pytest.raises(HumoError, match=f"{sequence.positions} positions, the context 400"):
        packer.collate([sequence])
