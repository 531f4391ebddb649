"""The language model: causality, caches, losses."""

from dataclasses import replace

import pytest
import torch

from model.llm.batch import Batch, Marker
from model.llm.language_model import LanguageModelConfig, MotionLanguageModel
from model.llm.packing import MINILM, Packer
from model.llm.sampling import CodeSampler
from model.llm.segments import Example, Gap, Motion, MotionAnswer, Pose, TextAnswer, Words
from model.llm.step_decoder import StepDecoder
from model.llm.vocabulary import TextVocabulary
from schemas.errors import HumoError

TINY = LanguageModelConfig(width=32, layers=2, heads=2, step_width=16, step_layers=2, step_heads=2, context=64)
PARTS, LEVELS, CODES, WIDTH = 5, 4, 8, 6
NO_PROMPT = torch.zeros(1, 1, 32)


def build(config: LanguageModelConfig = TINY, **features: int) -> MotionLanguageModel:
    torch.manual_seed(0)
    sizes = {"parts": PARTS, "levels": LEVELS, "codebook_size": CODES, "code_width": WIDTH}
    return MotionLanguageModel(config, text_tokens=400, features=features, **sizes).eval()


@pytest.fixture
def model() -> MotionLanguageModel:
    return build()


@pytest.fixture(scope="module")
def packer() -> Packer:
    vocabulary = TextVocabulary.learn(["go on", "what is this", "a person waves with the left hand"], 300)
    return Packer(vocabulary, PARTS, LEVELS, WIDTH, 64)


def codes_of(steps: int, seed: int = 0) -> torch.Tensor:
    return torch.randint(CODES, (steps, PARTS, LEVELS), generator=torch.Generator().manual_seed(seed))


def latents_of(codes: torch.Tensor) -> torch.Tensor:
    """Some function of the codes."""
    return torch.stack([torch.sin(codes.float() @ torch.arange(1.0, LEVELS + 1) * k) for k in range(1, WIDTH + 1)], -1)


def to_motion(steps: int, seed: int = 0, prompt: str = "go on", **changes: object) -> Example:
    codes = codes_of(steps, seed)
    answer = MotionAnswer(codes=codes, latents=latents_of(codes))
    return Example(task="t2m", prompt=(Words(text=prompt),), answer=replace(answer, **changes))


def to_text(steps: int, seed: int = 1) -> Example:
    codes = codes_of(steps, seed)
    shown = Motion(codes=codes, latents=latents_of(codes))
    return Example(task="m2t", prompt=(Words(text="what is this"), shown), answer=TextAnswer(text="a person waves"))


def batch_of(packer: Packer, *examples: Example) -> Batch:
    return packer.collate([packer.sequence(one) for one in examples])


def test_states_depend_on_the_past_only(model: MotionLanguageModel) -> None:
    x = model.embed_steps(latents_of(codes_of(12))[None], NO_PROMPT)
    changed = x.clone()
    changed[:, 8:] += 1
    assert torch.allclose(model.text_model(x)[:, :8], model.text_model(changed)[:, :8], atol=1e-5)


def test_cached_states_equal_one_pass(model: MotionLanguageModel) -> None:
    x = model.embed_steps(latents_of(codes_of(12))[None], NO_PROMPT)
    cache = model.text_model.new_cache(1)
    chunks = [model.text_model(x[:, :5], cache)] + [model.text_model(x[:, i : i + 1], cache) for i in range(5, 12)]
    assert torch.allclose(torch.cat(chunks, 1), model.text_model(x), atol=1e-5)


def step_decoder(in_turn: bool) -> StepDecoder:
    torch.manual_seed(0)
    return StepDecoder(state_width=32, width=16, layers=2, heads=2, dropout=0.0, in_turn=in_turn, parts=PARTS, levels=LEVELS,
                       codebook_size=CODES).eval()  # fmt: skip


@pytest.mark.parametrize("in_turn", [True, False])
def test_codes_depend_on_those_before(in_turn: bool) -> None:
    decoder, state, codes = step_decoder(in_turn), torch.randn(1, 32), codes_of(1)
    logits = decoder(state, codes)
    assert logits.shape == (1, LEVELS, PARTS, CODES)
    changed = codes.clone()
    changed[0, 2, 1] = (changed[0, 2, 1] + 1) % CODES
    differs = (decoder(state, changed) - logits).abs().amax(-1)[0] > 1e-7
    assert not differs[:2].any()
    assert differs[2:].all()
    changed = codes.clone()
    changed[0, 2, 0] = (changed[0, 2, 0] + 1) % CODES
    differs = (decoder(state, changed) - logits).abs().amax(-1)[0] > 1e-7
    assert differs[0].tolist() == [False, False, False, in_turn, in_turn]
    assert differs[1:].all()


@pytest.mark.parametrize("in_turn", [True, False])
@pytest.mark.parametrize("kept", [(), (1, 4)])
def test_sampling_matches_training_logits(in_turn: bool, kept: tuple[int, ...]) -> None:
    decoder, state = step_decoder(in_turn), torch.randn(3, 32)
    given = torch.tensor([part in kept for part in range(PARTS)]).expand(3, -1) if kept else None
    known = codes_of(3, 5) if kept else None
    codes = decoder.sample(state, CodeSampler(0, 0, 1.0, torch.Generator()), known, given)
    likeliest = decoder(state, codes, given).argmax(-1).transpose(1, 2)
    free = [part for part in range(PARTS) if part not in kept]
    assert torch.equal(likeliest[:, free], codes[:, free])
    if known is not None:
        assert torch.equal(codes[:, list(kept)], known[:, list(kept)])
        other = decoder.sample(state, CodeSampler(0, 0, 1.0, torch.Generator()), codes_of(3, 6), given)
        assert not torch.equal(other[:, free], codes[:, free])  # what is kept matters to the rest


def test_code_sampler() -> None:
    logits = torch.randn(2, 5, 8)
    most_likely = logits.argmax(-1)
    seeded = [CodeSampler(1.0, 0, 1.0, torch.Generator().manual_seed(3))(logits) for _ in range(2)]
    assert torch.equal(*seeded)
    assert torch.equal(CodeSampler(1.0, 1, 1.0, torch.Generator())(logits), most_likely)
    guided = CodeSampler(0, 0, 3.0, torch.Generator())(logits)
    assert torch.equal(guided[0], guided[1])
    assert torch.equal(guided[0], (3 * logits[0] - 2 * logits[1]).argmax(-1))


def test_sequences(packer: Packer) -> None:
    motion, text = to_motion(15), to_text(10)
    batch = batch_of(packer, motion, text)
    assert batch.text.shape[1] == max(packer.length(motion), packer.length(text))
    assert batch.is_motion.sum(1).tolist() == [15, 10]
    assert batch.is_target_motion.sum(1).tolist() == [15, 0]
    assert batch.is_continue.sum() == 15
    assert batch.is_stop.sum() == 1
    assert torch.equal(batch.codes[0][batch.is_motion[0]], motion.answer.codes)
    assert torch.equal(batch.latents[1][batch.is_input_motion[1]], text.prompt[1].latents)
    assert packer.vocabulary.decode(batch.text[0][batch.is_prompt[0]].tolist()) == "go on"
    assert packer.vocabulary.decode(batch.text[1][batch.is_answer[1]].tolist()).endswith("a person waves")
    assert batch.text[1][packer.length(text) - 1] == packer.vocabulary.end
    assert batch.markers[0, 0] == Marker.START
    assert batch.learned is None
    assert batch.given is None
    window = batch_of(packer, to_motion(15, ends=False))
    assert not window.is_stop.any()
    assert window.is_continue.sum() == 15
    short = Packer(packer.vocabulary, PARTS, LEVELS, WIDTH, 8)
    with pytest.raises(HumoError, match="context"):
        short.collate([short.sequence(motion)])


def test_every_segment_has_its_positions(packer: Packer) -> None:
    codes = codes_of(3)
    shown = torch.tensor([True, False, True, True, True])
    prompt = (Words(text="go on"), Pose(latents=latents_of(codes[:1])), Gap(steps=12),
              Motion(codes=codes, latents=latents_of(codes), shown=shown))  # fmt: skip
    example = Example(task="x", prompt=prompt, answer=TextAnswer(text="what"))
    batch = batch_of(packer, example)
    assert batch.text.shape[1] == packer.length(example)
    kinds = [Marker(one) for one in batch.markers[0].tolist() if one >= 0]
    assert kinds == [Marker.START, Marker.POSE, Marker.GAP, Marker.MOTION, Marker.ANSWER]
    assert batch.is_input_motion.sum() == 4
    assert torch.equal(batch.shown[0][batch.is_motion[0]], torch.stack([torch.ones(5).bool(), shown, shown, shown]))
    assert example.without_words().prompt == prompt[1:]


def test_hidden_parts_do_not_show(model: MotionLanguageModel, packer: Packer) -> None:
    """Whatever the hidden part does, the states are the same; where it is shown they are not."""
    shown = torch.tensor([True, False, True, True, True])
    states = []
    for seed, mask in ((0, shown), (1, shown), (0, None), (1, None)):
        codes = codes_of(3)
        codes[:, 1] = codes_of(3, 20 + seed)[:, 1]
        motion = Motion(codes=codes, latents=latents_of(codes), shown=mask)
        batch = batch_of(packer, Example(task="x", prompt=(motion,), answer=TextAnswer(text="what")))
        states.append(model.text_model(model.embed(batch)))
    assert torch.equal(states[0], states[1])
    assert not torch.allclose(states[2], states[3], atol=1e-4)


def test_losses_ignore_padding_and_decrease(model: MotionLanguageModel, packer: Packer) -> None:
    batch, alone = batch_of(packer, to_motion(15), to_text(4)), batch_of(packer, to_motion(15))
    both = model(batch)
    assert torch.allclose(both["motion"], model(alone)["motion"], atol=1e-5)
    assert both["motion"].item() == pytest.approx(torch.tensor(8.0).log().item(), rel=0.3)
    model.train()
    optimiser = torch.optim.AdamW(model.parameters(), lr=3e-3)
    for _ in range(30):
        losses = model(batch)
        optimiser.zero_grad()
        sum(losses.values()).backward()
        optimiser.step()
    model.eval()
    assert all(model(batch)[name] < both[name] for name in ("text", "motion", "stop"))


def test_an_answer_depends_on_its_own_words_and_on_the_motion(model: MotionLanguageModel, packer: Packer) -> None:
    """What the motion adds to a position is of the size of a word, so that the words before are not drowned."""
    one, two = (batch_of(packer, to_text(6, seed)) for seed in (1, 2))
    words = model.text_model.embed_text(one.text)[one.is_answer & (one.markers < 0)].norm(dim=-1).mean()
    assert 0.5 < model.motion_vector(one).norm() / words < 5
    assert not torch.allclose(model.motion_vector(one), model.motion_vector(two), atol=1e-3)


def test_only_learned_parts_of_a_target_count(model: MotionLanguageModel, packer: Packer) -> None:
    batch = batch_of(packer, to_motion(12))
    loss = model(batch)["motion"]
    everything = torch.ones(1, batch.text.shape[1], PARTS, dtype=torch.bool)
    assert torch.allclose(model(replace(batch, learned=everything))["motion"], loss)
    alone = []
    for part in range(PARTS):
        learned = torch.zeros_like(everything)
        learned[..., part] = True
        alone.append(model(replace(batch, learned=learned))["motion"])
    assert torch.allclose(torch.stack(alone).mean(), loss)
    assert torch.stack(alone).std() > 1e-4
    assert model(replace(batch, learned=torch.zeros_like(everything)))["motion"] == 0


def test_frozen_features_enter_at_their_positions(packer: Packer) -> None:
    """Vectors of a sentence encoder in place of word tokens."""
    model = build(LanguageModelConfig(**{**TINY.model_dump(), "prompts": "minilm"}), **{MINILM: 7})
    batch = batch_of(packer, to_motion(5), to_motion(3, 2, "a person waves"))
    mask = batch.is_prompt
    features = torch.randn(int(mask.sum()), 7)
    batch = replace(batch, features={MINILM: (mask, features)})
    changed = features.clone()
    changed[-1] = torch.randn(7)
    before, after = (model(one) for one in (batch, replace(batch, features={MINILM: (mask, changed)})))
    assert not torch.allclose(before["motion"], after["motion"])
    states = [
        model.text_model(model.embed(replace(batch, features={MINILM: (mask, one)}))) for one in (features, changed)
    ]
    assert torch.equal(states[0][0], states[1][0])  # the change is in the second sequence
