"""Instructions of samples as prompts and answers."""

import random
from dataclasses import replace

import numpy as np
import pytest
import torch

from model.data.samples import MotionSample, slice_frames
from model.llm.encoding import EncodedSample, MotionEncoder
from model.llm.segments import Example, Gap, Motion, MotionAnswer, Pose, TextAnswer, Words
from model.llm.tasks import build, caption_instruction
from model.tokenizer.config import TokenizerConfig
from model.tokenizer.motion_tokenizer import MotionTokenizer
from schemas.body_model import BodyModel
from schemas.coverage import LEFT_ARM, LEFT_LEG, RIGHT_ARM, all_seen
from schemas.records import Instruction, InstructionInput

NOTHING = InstructionInput(kind="none")
TEXT = InstructionInput(kind="text", text="a person waves the left hand")


def motion_input(start_s: float, end_s: float) -> InstructionInput:
    return InstructionInput(kind="motion", start_s=start_s, end_s=end_s)


def instruction(task: str, inputs: InstructionInput, target: InstructionInput, **changes: object) -> Instruction:
    one = Instruction(task=task, instruction="go on", inputs=inputs, target=target, parts=(), start_s=0, end_s=2)
    return replace(one, **changes)


@pytest.fixture(scope="module")
def encoder() -> MotionEncoder:
    torch.manual_seed(0)
    config = TokenizerConfig(features="smpl135", patch=4, strides=(1,), dilations=(1,), width=16, code_width=8, codebook_size=16,
                             predict=2, preroll=2, lookahead=1, rotation_trick=False)  # fmt: skip
    tokenizer = MotionTokenizer(config).eval()
    for book in tokenizer.quantizer.sets:
        for layer in book.layers:
            torch.nn.init.normal_(layer._codebook.embed, std=0.3)
            layer._codebook.initted.fill_(True)
    return MotionEncoder(tokenizer, BodyModel.load())


@pytest.fixture(scope="module")
def encoded(encoder: MotionEncoder, dataset_sample: MotionSample) -> EncodedSample:
    whole = replace(dataset_sample, motion=slice_frames(dataset_sample.motion, 0, 60))
    return EncodedSample.encode([(whole, False)], encoder)[0]


def built(one: Instruction, encoded: EncodedSample, max_steps: int = 99, seed: int = 0) -> Example:
    example = build(one, encoded, max_steps=max_steps, rng=random.Random(seed))
    assert isinstance(example, Example), example
    return example


def test_text_to_motion(encoded: EncodedSample) -> None:
    example = built(instruction("t2m", NOTHING, motion_input(0, 2)), encoded)
    assert [type(one) for one in example.prompt] == [Words]
    assert isinstance(example.answer, MotionAnswer)
    assert torch.equal(example.answer.codes, encoded.codes)
    assert len(encoded.codes) == 60 // 4 + 2  # the preroll goes with the first frame
    assert example.answer.ends


def test_prediction_and_its_input_are_the_whole(encoded: EncodedSample) -> None:
    example = built(instruction("prediction", motion_input(0, 0.8), motion_input(0.8, 2)), encoded)
    before = example.prompt[1]
    assert isinstance(before, Motion)
    assert isinstance(example.answer, MotionAnswer)
    assert torch.equal(torch.cat([before.codes, example.answer.codes]), encoded.codes)
    assert len(before.codes) == 6 + 2


def test_a_gap_leaks_nothing_of_what_it_hides(encoder: MotionEncoder, encoded: EncodedSample) -> None:
    one = instruction("inbetween", motion_input(0, 2), motion_input(0.8, 1.2))
    example = built(one, encoded)
    assert [type(part) for part in example.prompt] == [Words, Motion, Gap, Motion]
    assert example.prompt[2].steps == 3
    motion = encoded.sample.motion
    poses = motion.poses.copy()
    poses[25:36] += 0.3  # only what is hidden
    other = EncodedSample.encode([(replace(encoded.sample, motion=replace(motion, poses=poses)), False)], encoder)[0]
    changed = built(one, other)
    assert not torch.equal(changed.answer.codes, example.answer.codes)
    for position in (1, 3):
        assert torch.equal(changed.prompt[position].latents, example.prompt[position].latents)


def test_a_pose_is_one_step(encoded: EncodedSample) -> None:
    example = built(instruction("i2m_pose", InstructionInput(kind="pose"), motion_input(0, 2)), encoded)
    assert isinstance(example.prompt[1], Pose)
    assert example.prompt[1].latents.shape[0] == 1


def test_parts_are_kept_or_told(encoded: EncodedSample) -> None:
    one = instruction("i2pm", NOTHING, motion_input(0, 2), parts=("left_arm",))
    examples = [built(one, encoded, seed=seed) for seed in range(8)]
    kept = [example for example in examples if example.answer.given is not None]
    assert 0 < len(kept) < len(examples)
    for example in kept:
        assert example.answer.given.tolist() == [True, False, True, True, True]
        assert example.answer.learned.any(0).tolist() == [False, True, False, False, False]
        assert torch.equal(example.prompt[1].shown, example.answer.given)
    assert all(example.answer.learned is None for example in examples if example not in kept)


def test_a_part_is_described_from_itself_alone(encoded: EncodedSample) -> None:
    example = built(instruction("p2t", motion_input(0, 2), TEXT, parts=("left_arm",)), encoded)
    assert example.prompt[1].shown.tolist() == [False, True, False, False, False]
    assert example.answer.text == TEXT.text


def test_sides_are_exchanged(encoder: MotionEncoder, encoded: EncodedSample) -> None:
    mirrored = EncodedSample.encode([(encoded.sample, True)], encoder)[0]
    assert not torch.equal(mirrored.codes, encoded.codes)
    one = instruction("p2t", motion_input(0, 2), TEXT, parts=("left_arm",), instruction="the left arm?")
    example = built(one, mirrored)
    assert example.prompt[0].text == "the right arm?"
    assert example.prompt[1].shown.tolist() == [False, False, True, False, False]
    assert isinstance(example.answer, TextAnswer)
    assert example.answer.text == "a person waves the right hand"


@pytest.mark.parametrize(
    ("one", "reason"),
    [
        (instruction("i2m_image", InstructionInput(kind="image"), motion_input(0, 2)), "vision"),
        (instruction("x", InstructionInput(kind="smell"), motion_input(0, 2)), "kind smell"),
        (instruction("x", motion_input(0, 2), InstructionInput(kind="image")), "kind image"),
        (instruction("m2t", motion_input(0, 2), replace(TEXT, text="A person stands.")), "says nothing"),
        (instruction("m2t", motion_input(1, 1), TEXT), "shorter"),
        (instruction("prediction", motion_input(1, 1), motion_input(1, 2)), "shorter"),
    ],
)  # fmt: skip
def test_what_cannot_be_trained_says_why(encoded: EncodedSample, one: Instruction, reason: str) -> None:
    found = build(one, encoded, max_steps=99, rng=random.Random(0))
    assert isinstance(found, str)
    assert reason in found


def test_long_motions_are_windows_with_their_own_texts(encoded: EncodedSample) -> None:
    """Ends only where the motion ends; later windows see what was before."""
    texts = (
        {"start_s": 0.0, "end_s": 1.0, "text": "A person walks."},
        {"start_s": 1.0, "end_s": 2.0, "text": "Someone bows."},
    )
    joined = replace(encoded.sample, meta={**encoded.sample.meta, "segments": texts})
    long = EncodedSample(joined, encoded.encoder, False, encoded.rows, encoded.codes, encoded.latents)
    one = instruction("i2lm", NOTHING, motion_input(0, 2))
    windows = {}
    for seed in range(12):
        example = built(one, long, max_steps=10, seed=seed)
        windows[len(example.prompt)] = example
    first, last = windows[1], windows[2]
    assert first.prompt[0].text == "A person walks."
    assert not first.answer.ends
    assert last.prompt[0].text == "Someone bows."
    assert last.answer.ends
    assert torch.equal(last.prompt[1].codes, encoded.codes[:10])
    assert torch.equal(torch.cat([first.answer.codes, last.answer.codes]), encoded.codes)
    timed = build(replace(one, task="i2lm_timed"), long, max_steps=10, rng=random.Random(0))
    assert "max_steps" in timed


def test_unseen_parts_are_not_learned(encoder: MotionEncoder, encoded: EncodedSample) -> None:
    seen = all_seen(60)
    seen[:, LEFT_LEG:] = 0
    seen[:30, LEFT_ARM] = 0
    motion = replace(encoded.sample.motion, seen=seen)
    for mirrored, arm in ((False, LEFT_ARM), (True, RIGHT_ARM)):
        upper = EncodedSample.encode([(replace(encoded.sample, motion=motion), mirrored)], encoder)[0]
        example = built(instruction("t2m", NOTHING, motion_input(0, 2), parts=("torso", "right_arm")), upper)
        learned = example.answer.learned
        assert learned.shape == (17, 5)
        assert not learned[:, LEFT_LEG:].any()
        assert learned[10:, arm].all()
        assert not learned[:9, arm].any()


def test_captions_as_prompts(dataset_sample: MotionSample) -> None:
    one = caption_instruction(dataset_sample, 7)
    assert one.instruction in dataset_sample.body
    assert one.target.end_s == pytest.approx(len(dataset_sample.motion.poses) / 30)


def test_motions_encoded_together_have_the_codes_of_each_alone(
    encoder: MotionEncoder, dataset_sample: MotionSample
) -> None:
    """Motions of different lengths, mirror images too."""
    samples = [
        (replace(dataset_sample, motion=slice_frames(dataset_sample.motion, 0, 20 + 11 * number)), bool(number % 2))
        for number in range(4)
    ]
    for together, one in zip(EncodedSample.encode(samples, encoder), samples, strict=True):
        alone = EncodedSample.encode([one], encoder)[0]
        assert together.codes.shape == alone.codes.shape
        assert (together.codes == alone.codes).float().mean() > 0.99  # a code changes where two are equally near
        assert torch.allclose(together.latents, alone.latents, atol=1e-3) or (together.codes != alone.codes).any()


def test_disturbed_histories_are_made_up_for(encoded: EncodedSample, encoder: MotionEncoder) -> None:
    """The disturbance does not pile up: each step is coded after what the one before really was."""
    torch.manual_seed(0)
    _, latents = encoder.encode(encoded.rows, noise=0.2)
    errors = (latents - encoded.latents).square().mean((1, 2)).sqrt()
    assert errors.max() > 0.01
    assert errors[-5:].mean() < 4 * errors[2:7].mean() + 0.1
    assert np.isfinite(errors.numpy()).all()
