"""Samples to training sequences for the language model.

    <start> prompt text [<motion> input steps] <answer> target text <end>
    <start> prompt text [<motion> input steps] <answer> <motion> target steps

The stop logit ends a target motion, not a token. A prompt is an instruction of the sample, or a bare caption of the
body, as users type it.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np
import torch
from jaxtyping import Bool, Int, UInt8
from torch import Tensor

from model.data.samples import MotionSample
from model.data.text import mirror_text
from model.llm.language_model import Batch
from model.llm.vocabulary import TextVocabulary
from schemas.coverage import PART_NAMES, seen_parts
from schemas.errors import HumoError
from schemas.records import FPS, Instruction, InstructionInput
from schemas.skeleton import PARTS

_INPUT_KINDS, _TARGET_KINDS = ("none", "text", "motion"), ("text", "motion")
"""Supported kinds of inputs and targets of an instruction."""
_FLAGS = tuple(field.name for field in fields(Batch) if field.name.startswith("is_"))


@dataclass(frozen=True, kw_only=True, eq=False)
class Example:
    """Segments of one sequence; texts are token ids."""

    prompt: list[int]
    input_motion: Int[Tensor, "G P K"] | None
    answer: list[int]
    """Empty if the target is motion."""
    target_motion: Int[Tensor, "M P K"] | None
    target_seen: Bool[Tensor, "M P"] | None = None
    """Parts of the target that were seen; None: all of them."""

    def __len__(self) -> int:
        steps = sum(len(codes) + 1 for codes in (self.input_motion, self.target_motion) if codes is not None)
        return 2 + len(self.prompt) + steps + (len(self.answer) + 1 if self.target_motion is None else 0)


def caption_instruction(sample: MotionSample, choice: int) -> Instruction:
    """A bare caption as an instruction for the whole motion."""
    end_s = len(sample.motion.poses) / FPS
    return Instruction(
        task="t2m",
        instruction=sample.body[choice % len(sample.body)],
        inputs=InstructionInput(kind="none"),
        target=InstructionInput(kind="motion", start_s=0.0, end_s=end_s),
        parts=(),
        start_s=0.0,
        end_s=end_s,
    )


def trainable(instruction: Instruction, parts: Sequence[str] = tuple(PARTS)) -> bool:
    """Whether the model supports an instruction: not those about some of the seen `parts`, nor those with an image or pose as
    input."""
    whole = not instruction.parts or set(instruction.parts) >= set(parts)
    return whole and instruction.inputs.kind in _INPUT_KINDS and instruction.target.kind in _TARGET_KINDS


def build(
    instruction: Instruction,
    codes: Int[Tensor, "S P K"],
    vocabulary: TextVocabulary,
    *,
    downsample: int,
    max_steps: int,
    mirrored: bool = False,
    seen: UInt8[np.ndarray, "T 5"] | None = None,
) -> Example | None:
    """The training sequence of an instruction on a motion's codes. `seen` is the motion's mask, mirrored or not like the codes;
    None: all parts were seen.

    Target steps are never part of the input (in-between: the middle is hidden). None if a span is shorter than a step, if
    the instruction is not `trainable`, and for a long motion (`i2lm`) of more than `max_steps`, since its text would
    describe more than the truncated motion.
    """
    if not trainable(instruction, PART_NAMES if seen is None else seen_parts(seen)):
        return None

    def tokens(text: str) -> list[int]:
        return vocabulary.encode(mirror_text(text) if mirrored else text)

    def steps(span: InstructionInput) -> tuple[int, int]:
        start, end = (round(seconds * FPS / downsample) for seconds in (span.start_s, span.end_s))
        return min(start, len(codes)), min(end, len(codes))

    prompt = tokens(instruction.instruction)
    if instruction.inputs.kind == "text":
        prompt += tokens(instruction.inputs.text)
    input_motion = target_motion = None
    target_start, target_end = 0, 0
    if instruction.target.kind == "motion":
        target_start, target_end = steps(instruction.target)
        if instruction.task.startswith("i2lm") and target_end - target_start > max_steps:
            return None
        target_motion = codes[target_start:target_end][:max_steps]
    if instruction.inputs.kind == "motion":
        visible = torch.zeros(len(codes), dtype=torch.bool)
        start, end = steps(instruction.inputs)
        visible[start:end] = True
        visible[target_start:target_end] = False
        input_motion = codes[visible][-max_steps:]
    if any(motion is not None and not len(motion) for motion in (input_motion, target_motion)):
        return None
    answer = tokens(instruction.target.text) if instruction.target.kind == "text" else []
    target_seen = None
    if target_motion is not None and seen is not None and not seen.all() and codes.shape[1] == len(PART_NAMES):
        target_seen = seen_steps(seen, len(codes), downsample)[target_start:target_end][:max_steps]
    return Example(
        prompt=prompt, input_motion=input_motion, answer=answer, target_motion=target_motion, target_seen=target_seen
    )


def seen_steps(seen: UInt8[np.ndarray, "T 5"], steps: int, downsample: int) -> Bool[Tensor, "S P"]:
    """Step and part: whether it was seen in all frames of the step."""
    frames = torch.from_numpy(seen[: steps * downsample].astype(bool))
    return frames.unflatten(0, (steps, downsample)).all(1)


def prompt_segments(example: Example, vocabulary: TextVocabulary) -> list[list[int] | Int[Tensor, "S P K"]]:
    """Segments up to the answer token, text and motion steps alternating."""
    segments: list[list[int] | Tensor] = [[vocabulary.start, *example.prompt]]
    if example.input_motion is not None:
        segments += [[vocabulary.motion], example.input_motion]
    segments.append([vocabulary.answer])
    return segments


def collate(examples: Sequence[Example], vocabulary: TextVocabulary, *, parts: int, levels: int, context: int) -> Batch:
    """Pad sequences to a batch. Raises HumoError for one that exceeds the context."""
    length = max(len(example) for example in examples)
    if length > context:
        raise HumoError(
            f"an example has {length} positions, the context {context}; raise architecture.context or lower max_steps"
        )
    shape = (len(examples), length)
    text = torch.full(shape, vocabulary.pad)
    codes = torch.zeros(*shape, parts, levels, dtype=torch.long)
    flags = {name: torch.zeros(shape, dtype=torch.bool) for name in _FLAGS}
    for row, example in enumerate(examples):
        position = 0
        answer: list[list[int] | Tensor] = [[*example.answer, vocabulary.end]]
        if example.target_motion is not None:
            answer = [[vocabulary.motion], example.target_motion]
        for segment in [*prompt_segments(example, vocabulary), *answer]:
            span = slice(position, position + len(segment))
            if isinstance(segment, Tensor):
                codes[row, span] = segment
                flags["is_motion"][row, span] = True
            else:
                text[row, span] = torch.tensor(segment)
                flags["is_target_text"][row, span] = True
            position = span.stop
        flags["is_prompt"][row, 1 : 1 + len(example.prompt)] = True
        if example.input_motion is not None:
            start = 2 + len(example.prompt)
            flags["is_input_motion"][row, start : start + len(example.input_motion)] = True
        if example.target_motion is None:
            flags["is_answer"][row, position - len(example.answer) - 2 : position] = True
        else:
            start = position - len(example.target_motion)
            flags["is_target_motion"][row, start:position] = True
            flags["is_continue"][row, start - 1 : position - 1] = True
            flags["is_stop"][row, position - 1] = True
    return Batch(text=text, codes=codes, seen=_seen(examples, flags["is_target_motion"], parts), **flags)


def _seen(
    examples: Sequence[Example], is_target_motion: Bool[Tensor, "B L"], parts: int
) -> Bool[Tensor, "B L P"] | None:
    """Seen parts of the target positions; None where all of them were seen."""
    if all(example.target_seen is None for example in examples):
        return None
    seen = torch.ones(*is_target_motion.shape, parts, dtype=torch.bool)
    for row, example in enumerate(examples):
        if example.target_seen is not None:
            seen[row, is_target_motion[row]] = example.target_seen
    return seen
