"""The language model: causality, caches, losses, sequences."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from model.data.samples import MotionSample
from model.llm.examples import build, caption_instruction, collate, trainable
from model.llm.language_model import CodeSampler, LanguageModelConfig, MotionLanguageModel
from model.llm.vocabulary import TextVocabulary
from schemas.coverage import LEFT_ARM, LEFT_LEG, all_seen, mirror_seen
from schemas.errors import HumoError
from schemas.records import Instruction, InstructionInput

TINY = LanguageModelConfig(width=32, layers=2, heads=2, step_width=16, step_layers=2, step_heads=2, context=64)
PARTS, LEVELS, CODES = 5, 4, 8
NO_PROMPT = torch.zeros(1, 1, 32)


@pytest.fixture
def model() -> MotionLanguageModel:
    torch.manual_seed(0)
    return MotionLanguageModel(TINY, text_tokens=400, parts=PARTS, levels=LEVELS, codebook_size=CODES).eval()


@pytest.fixture(scope="module")
def vocabulary() -> TextVocabulary:
    return TextVocabulary.learn(["go on", "what is this", "a person waves with the left hand"], 300)


def _codes(steps: int, seed: int = 0) -> torch.Tensor:
    return torch.randint(CODES, (steps, PARTS, LEVELS), generator=torch.Generator().manual_seed(seed))


def _instruction(task: str, inputs: InstructionInput, target: InstructionInput) -> Instruction:
    return Instruction(task=task, instruction="go on", inputs=inputs, target=target, parts=(), start_s=0, end_s=2)


MOTION, TEXT = InstructionInput(kind="motion", end_s=2.0), InstructionInput(kind="text", text="a person waves")


def test_states_depend_on_the_past_only(model: MotionLanguageModel) -> None:
    x = model.embed_motion(_codes(12)[None], NO_PROMPT)
    changed = x.clone()
    changed[:, 8:] += 1
    assert torch.allclose(model.backbone(x)[:, :8], model.backbone(changed)[:, :8], atol=1e-5)


def test_cached_states_equal_one_pass(model: MotionLanguageModel) -> None:
    x = model.embed_motion(_codes(12)[None], NO_PROMPT)
    cache = model.new_cache(1)
    chunks = [model.backbone(x[:, :5], cache)] + [model.backbone(x[:, i : i + 1], cache) for i in range(5, 12)]
    assert torch.allclose(torch.cat(chunks, 1), model.backbone(x), atol=1e-5)


def test_embedding_depends_on_part_and_level(model: MotionLanguageModel) -> None:
    """The same codes at other levels or parts have a different embedding."""
    codes = torch.zeros(1, 1, PARTS, LEVELS, dtype=torch.long)
    codes[..., 0, 0] = 1
    assert not torch.allclose(
        model.embed_motion(codes, NO_PROMPT), model.embed_motion(codes.roll(1, -1), NO_PROMPT), atol=1e-4
    )
    assert not torch.allclose(
        model.embed_motion(codes, NO_PROMPT), model.embed_motion(codes.roll(1, -2), NO_PROMPT), atol=1e-4
    )


def test_level_depends_on_all_parts_of_previous_levels(model: MotionLanguageModel) -> None:
    state, codes = torch.randn(1, 32), _codes(1)
    logits = model.step_decoder(state, codes)
    assert logits.shape == (1, LEVELS, PARTS, CODES)
    changed = codes.clone()
    changed[0, 2, 1] = (changed[0, 2, 1] + 1) % CODES
    differs = (model.step_decoder(state, changed) - logits).abs().amax(-1)[0] > 1e-7
    assert not differs[:2].any()
    assert differs[2:].all()


def test_sampling_matches_training_logits(model: MotionLanguageModel) -> None:
    state = torch.randn(3, 32)
    codes = model.step_decoder.sample(state, CodeSampler(0, 0, 1.0, torch.Generator()))
    assert torch.equal(model.step_decoder(state, codes).argmax(-1).transpose(1, 2), codes)


def test_code_sampler() -> None:
    logits = torch.randn(2, 5, 8)
    most_likely = logits.argmax(-1)
    seeded = [CodeSampler(1.0, 0, 1.0, torch.Generator().manual_seed(3))(logits) for _ in range(2)]
    assert torch.equal(*seeded)
    assert torch.equal(CodeSampler(1.0, 1, 1.0, torch.Generator())(logits), most_likely)
    guided = CodeSampler(0, 0, 3.0, torch.Generator())(logits)
    assert torch.equal(guided[0], guided[1])
    assert torch.equal(guided[0], (3 * logits[0] - 2 * logits[1]).argmax(-1))


def test_sequences(vocabulary: TextVocabulary) -> None:
    codes = _codes(15)
    text_to_motion = build(
        _instruction("t2m", InstructionInput(kind="none"), MOTION), codes, vocabulary, downsample=4, max_steps=99
    )
    motion_to_text = build(_instruction("m2t", MOTION, TEXT), codes, vocabulary, downsample=4, max_steps=10)
    assert text_to_motion is not None
    assert motion_to_text is not None
    batch = collate([text_to_motion, motion_to_text], vocabulary, parts=PARTS, levels=LEVELS, context=64)
    assert batch.text.shape[1] == max(len(text_to_motion), len(motion_to_text))
    assert batch.is_motion.sum(1).tolist() == [15, 10]
    assert batch.is_target_motion.sum(1).tolist() == [15, 0]
    assert batch.is_continue.sum() == 15
    assert batch.is_stop.sum() == 1
    assert torch.equal(batch.codes[0][batch.is_motion[0]], codes)
    assert torch.equal(batch.codes[1][batch.is_motion[1]], codes[5:])
    assert vocabulary.decode(batch.text[1][batch.is_target_text[1]].tolist()).endswith("a person waves")
    assert batch.text[1][len(motion_to_text) - 1] == vocabulary.end
    assert vocabulary.decode(batch.text[0][batch.is_prompt[0]].tolist()) == "go on"
    assert torch.equal(batch.codes[1][batch.is_input_motion[1]], codes[5:])
    assert not batch.is_input_motion[0].any()
    answer = batch.text[1][batch.is_answer[1]].tolist()
    assert answer[0] == vocabulary.answer
    assert vocabulary.decode(answer) == "a person waves"
    with pytest.raises(HumoError, match="context"):
        collate([text_to_motion], vocabulary, parts=PARTS, levels=LEVELS, context=8)


def test_target_is_never_part_of_the_input(vocabulary: TextVocabulary) -> None:
    codes = _codes(30)
    middle = InstructionInput(kind="motion", start_s=1.0, end_s=3.0)
    whole = InstructionInput(kind="motion", start_s=0.0, end_s=4.0)
    example = build(_instruction("inbetween", whole, middle), codes, vocabulary, downsample=4, max_steps=99)
    assert example is not None
    assert example.input_motion is not None
    assert example.target_motion is not None
    first, last = round(30 / 4), round(90 / 4)
    assert torch.equal(example.target_motion, codes[first:last])
    assert torch.equal(example.input_motion, torch.cat([codes[:first], codes[last:]]))


@pytest.mark.parametrize(
    "instruction",
    [
        replace(_instruction("i2pm", InstructionInput(kind="none"), MOTION), parts=("left_arm",)),
        _instruction("i2m_image", InstructionInput(kind="image"), MOTION),
        _instruction("i2m_pose", InstructionInput(kind="pose"), MOTION),
        _instruction("unknown", InstructionInput(kind="smell"), MOTION),
        _instruction("unknown", MOTION, InstructionInput(kind="image")),
    ],
)
def test_unsupported_instructions_are_skipped(vocabulary: TextVocabulary, instruction: Instruction) -> None:
    assert not trainable(instruction)
    assert build(instruction, _codes(15), vocabulary, downsample=4, max_steps=99) is None


def test_long_motions_are_never_truncated(vocabulary: TextVocabulary) -> None:
    long = _instruction("i2lm", InstructionInput(kind="none"), MOTION)
    assert trainable(long)
    assert build(long, _codes(15), vocabulary, downsample=4, max_steps=15) is not None
    assert build(long, _codes(15), vocabulary, downsample=4, max_steps=14) is None


def test_spans_and_sides(vocabulary: TextVocabulary) -> None:
    codes = _codes(30)
    late = InstructionInput(kind="motion", start_s=2.0, end_s=4.0)
    example = build(_instruction("prediction", MOTION, late), codes, vocabulary, downsample=4, max_steps=99)
    assert example is not None
    assert example.input_motion is not None
    assert example.target_motion is not None
    assert torch.equal(torch.cat([example.input_motion, example.target_motion]), codes)
    instant = InstructionInput(kind="motion", start_s=1.0, end_s=1.0)
    assert build(_instruction("x", instant, late), codes, vocabulary, downsample=4, max_steps=99) is None
    left = Instruction(
        task="t2m",
        instruction="left hand",
        inputs=InstructionInput(kind="none"),
        target=MOTION,
        parts=(),
        start_s=0,
        end_s=1,
    )
    mirrored = build(left, codes, vocabulary, downsample=4, max_steps=99, mirrored=True)
    assert mirrored is not None
    assert vocabulary.decode(mirrored.prompt) == "right hand"


def test_losses_ignore_padding_and_decrease(model: MotionLanguageModel, vocabulary: TextVocabulary) -> None:
    examples = [
        build(
            _instruction("t2m", InstructionInput(kind="none"), MOTION),
            _codes(15),
            vocabulary,
            downsample=4,
            max_steps=99,
        ),
        build(_instruction("m2t", MOTION, TEXT), _codes(15, 1), vocabulary, downsample=4, max_steps=4),
    ]
    shape = {"parts": PARTS, "levels": LEVELS, "context": 64}
    both = model(collate(examples, vocabulary, **shape))
    alone = model(collate(examples[:1], vocabulary, **shape))
    assert torch.allclose(both["motion"], alone["motion"], atol=1e-5)
    assert alone["motion"].item() == pytest.approx(torch.tensor(8.0).log().item(), rel=0.3)
    batch = collate(examples, vocabulary, **shape)
    model.train()
    optimiser = torch.optim.AdamW(model.parameters(), lr=3e-3)
    for _ in range(30):
        losses = model(batch)
        optimiser.zero_grad()
        sum(losses.values()).backward()
        optimiser.step()
    model.eval()
    assert all(model(batch)[name] < both[name] for name in ("text", "motion", "stop"))


def test_captions_as_prompts(dataset_sample: MotionSample) -> None:
    instruction = caption_instruction(dataset_sample, 7)
    assert instruction.instruction in dataset_sample.body
    assert instruction.target.end_s == pytest.approx(len(dataset_sample.motion.poses) / 30)


def _upper(frames: int) -> np.ndarray:
    seen = all_seen(frames)
    seen[:, LEFT_LEG:] = 0
    seen[: frames // 2, LEFT_ARM] = 0
    return seen


def test_targets_carry_the_mask_of_their_steps(vocabulary: TextVocabulary) -> None:
    parts = ("torso", "right_arm")
    instruction = replace(_instruction("t2m", InstructionInput(kind="none"), MOTION), parts=parts)
    seen = _upper(60)
    assert build(instruction, _codes(15), vocabulary, downsample=4, max_steps=40) is None
    example = build(instruction, _codes(15), vocabulary, downsample=4, max_steps=40, seen=seen)
    assert example is not None
    assert example.target_seen is not None
    assert example.target_seen.shape == (15, PARTS)
    assert example.target_seen.all(0).tolist() == [True, False, True, False, False]
    assert example.target_seen[8:, LEFT_ARM].all()
    assert not example.target_seen[:8, LEFT_ARM].any()
    mirrored = build(instruction, _codes(15), vocabulary, downsample=4, max_steps=40, seen=mirror_seen(seen))
    assert mirrored is None or mirrored.target_seen[:, LEFT_ARM].all()
    whole = build(
        _instruction("t2m", InstructionInput(kind="none"), MOTION), _codes(15), vocabulary, downsample=4, max_steps=40
    )
    batch = collate([example, whole], vocabulary, parts=PARTS, levels=LEVELS, context=64)
    assert batch.seen is not None
    assert torch.equal(batch.seen[0][batch.is_target_motion[0]], example.target_seen)
    assert batch.seen[1].all()
    assert collate([whole], vocabulary, parts=PARTS, levels=LEVELS, context=64).seen is None


def test_only_seen_parts_of_a_target_count(model: MotionLanguageModel, vocabulary: TextVocabulary) -> None:
    example = build(
        _instruction("t2m", InstructionInput(kind="none"), MOTION), _codes(12), vocabulary, downsample=4, max_steps=40
    )
    batch = collate([example], vocabulary, parts=PARTS, levels=LEVELS, context=64)
    everything = torch.ones(1, batch.text.shape[1], PARTS, dtype=torch.bool)
    loss = model(batch)["motion"]
    assert torch.allclose(model(replace(batch, seen=everything))["motion"], loss)
    alone = []
    for part in range(PARTS):
        seen = torch.zeros_like(everything)
        seen[..., part] = True
        alone.append(model(replace(batch, seen=seen))["motion"])
    assert torch.allclose(torch.stack(alone).mean(), loss)
    assert torch.stack(alone).std() > 1e-4
    assert model(replace(batch, seen=torch.zeros_like(everything)))["motion"] == 0
