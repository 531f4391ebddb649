"""Samples to training sequences for the language model.

    <start> prompt text [<motion> given steps] <answer> text to write <end>
    <start> prompt text [<motion> given steps] <answer> <motion> steps to make

A motion that is to be made ends by the stop logit, not by a token. A prompt is an instruction of the sample, or a bare
sentence about the body, as people type it.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields

import torch
from jaxtyping import Int
from torch import Tensor

from model.data import MotionSample, mirror_text
from model.language_model import Batch
from model.vocabulary import TextVocabulary
from schemas.errors import HumoError
from schemas.records import FPS, Instruction, InstructionInput
from schemas.skeleton import PARTS

_READ, _WRITTEN = ("none", "text", "motion"), ("text", "motion")
"""Kinds of what an instance may give and ask for."""
_FLAGS = tuple(one.name for one in fields(Batch) if one.name.startswith("is_"))


@dataclass(frozen=True, kw_only=True, eq=False)
class Example:
    """One sequence in pieces; texts are token numbers."""

    prompt: list[int]
    given: Int[Tensor, "G P K"] | None
    answer: list[int]
    """Empty where motion is the answer."""
    made: Int[Tensor, "M P K"] | None

    def __len__(self) -> int:
        steps = sum(len(codes) + 1 for codes in (self.given, self.made) if codes is not None)
        return 2 + len(self.prompt) + steps + (len(self.answer) + 1 if self.made is None else 0)


def caption_instruction(sample: MotionSample, choice: int) -> Instruction:
    """A bare sentence as an instruction for the whole motion."""
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


def trainable(instruction: Instruction) -> bool:
    """Whether the model can follow an instance: not yet those about single parts, nor from a picture or a single pose."""
    whole = not instruction.parts or set(instruction.parts) == set(PARTS)
    return whole and instruction.inputs.kind in _READ and instruction.target.kind in _WRITTEN


def build(
    instruction: Instruction,
    codes: Int[Tensor, "S P K"],
    vocabulary: TextVocabulary,
    *,
    downsample: int,
    max_steps: int,
    mirrored: bool = False,
) -> Example | None:
    """The sequence of an instruction on a motion's codes.

    Steps that are asked for are never among those that are handed over (in-between: the middle is hidden). None where a
    span is shorter than a step, for instances that are not `trainable`, and for a long motion of more than `max_steps`, of
    whose text only the beginning would be true.
    """
    if not trainable(instruction):
        return None

    def text(words: str) -> list[int]:
        return vocabulary.encode(mirror_text(words) if mirrored else words)

    def steps(span: InstructionInput) -> tuple[int, int]:
        first, last = (round(seconds * FPS / downsample) for seconds in (span.start_s, span.end_s))
        return min(first, len(codes)), min(last, len(codes))

    prompt = text(instruction.instruction)
    if instruction.inputs.kind == "text":
        prompt += text(instruction.inputs.text)
    given = made = None
    asked = (0, 0)
    if instruction.target.kind == "motion":
        asked = steps(instruction.target)
        if instruction.task.startswith("i2lm") and asked[1] - asked[0] > max_steps:
            return None
        made = codes[asked[0] : asked[1]][:max_steps]
    if instruction.inputs.kind == "motion":
        shown = torch.zeros(len(codes), dtype=torch.bool)
        first, last = steps(instruction.inputs)
        shown[first:last] = True
        shown[asked[0] : asked[1]] = False
        given = codes[shown][-max_steps:]
    if any(some is not None and not len(some) for some in (given, made)):
        return None
    answer = text(instruction.target.text) if instruction.target.kind == "text" else []
    return Example(prompt=prompt, given=given, answer=answer, made=made)


def prompt_pieces(example: Example, vocabulary: TextVocabulary) -> list[list[int] | Int[Tensor, "S P K"]]:
    """Everything before the answer, texts and steps in turn."""
    pieces: list[list[int] | Tensor] = [[vocabulary.start, *example.prompt]]
    if example.given is not None:
        pieces += [[vocabulary.motion], example.given]
    pieces.append([vocabulary.answer])
    return pieces


def collate(examples: Sequence[Example], vocabulary: TextVocabulary, *, parts: int, levels: int, context: int) -> Batch:
    """Sequences side by side. Raises HumoError for one that does not fit the context."""
    length = max(len(example) for example in examples)
    if length > context:
        raise HumoError(
            f"an example takes {length} positions, the context has {context}; raise architecture.context or lower max_steps"
        )
    shape = (len(examples), length)
    text = torch.full(shape, vocabulary.pad)
    codes = torch.zeros(*shape, parts, levels, dtype=torch.long)
    flags = {name: torch.zeros(shape, dtype=torch.bool) for name in _FLAGS}
    for row, example in enumerate(examples):
        place = 0
        answer: list[list[int] | Tensor] = [[*example.answer, vocabulary.end]]
        if example.made is not None:
            answer = [[vocabulary.motion], example.made]
        for piece in [*prompt_pieces(example, vocabulary), *answer]:
            span = slice(place, place + len(piece))
            if isinstance(piece, Tensor):
                codes[row, span] = piece
                flags["is_motion"][row, span] = True
            else:
                text[row, span] = torch.tensor(piece)
                flags["is_target_text"][row, span] = True
            place = span.stop
        flags["is_prompt"][row, 1 : 1 + len(example.prompt)] = True
        if example.given is not None:
            first = 2 + len(example.prompt)
            flags["is_given"][row, first : first + len(example.given)] = True
        if example.made is None:
            flags["is_answer"][row, place - len(example.answer) - 2 : place] = True
        else:
            first = place - len(example.made)
            flags["is_target_motion"][row, first:place] = True
            flags["is_running"][row, first - 1 : place - 1] = True
            flags["is_stop"][row, place - 1] = True
    return Batch(text=text, codes=codes, **flags)
