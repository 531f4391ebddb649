"""Instructions of all tasks as segments.

Shape letters: S motion steps, P parts, K levels.
"""

import random

import torch
from jaxtyping import Bool
from torch import Tensor

from model.data.samples import MotionSample
from model.data.text import mirror_text
from model.llm.encoding import EncodedSample
from model.llm.segments import Example, Gap, Motion, MotionAnswer, Picture, Pose, Segment, TextAnswer, Words
from schemas.coverage import PART_NAMES, seen_parts
from schemas.records import FPS, Instruction, InstructionInput
from schemas.skeleton import PARTS, swap_sides

INPUTS, TARGETS = ("none", "text", "motion", "pose", "image"), ("text", "motion")
"""Kinds of inputs and targets of an instruction."""
_STAND_IN = frozenset({"a person stands.", "a person is visible.", "a person."})
"""Sentences that say nothing of a motion: no targets."""
_HISTORY_STEPS = 24
"""Steps before a window of a long motion that its prompt shows."""


def caption_instruction(sample: MotionSample, choice: int) -> Instruction:
    """A bare caption as an instruction for the whole motion."""
    end_s = len(sample.motion.poses) / FPS
    return Instruction(
        task="caption",
        instruction=sample.body[choice % len(sample.body)],
        inputs=InstructionInput(kind="none"),
        target=InstructionInput(kind="motion", start_s=0.0, end_s=end_s),
        parts=(),
        start_s=0.0,
        end_s=end_s,
    )


def build(
    instruction: Instruction,
    encoded: EncodedSample,
    *,
    max_steps: int,
    rng: random.Random,
    picture: Picture | None = None,
) -> Example | str:
    """The example of an instruction on a sample, or why there is none.

    A motion of more than `max_steps` is cut into windows of which one is drawn: it gets the texts of its own time, the steps
    before it as a part of the prompt, and an end only where the motion ends. What is to be predicted is no part of the input:
    steps behind a gap are encoded without what the gap hides.
    """
    for kind, known, role in ((instruction.inputs.kind, INPUTS, "input"), (instruction.target.kind, TARGETS, "target")):
        if kind not in known:
            return f"its {role} is of kind {kind}"
    names = tuple(swap_sides(part) for part in instruction.parts) if encoded.mirrored else instruction.parts
    about = _mask(names, encoded)
    if instruction.inputs.kind == "image" and picture is None:
        return "no vision tower, or no clip"
    words = _words(instruction, encoded)
    inputs: list[Segment] = []
    if instruction.inputs.kind == "pose":
        inputs.append(Pose(latents=encoded.pose(instruction.inputs.start_s)))
    if instruction.inputs.kind == "image" and picture is not None:
        inputs.append(picture)
    if instruction.target.kind == "text":
        return _to_text(instruction, encoded, words, inputs, about, max_steps)
    return _to_motion(instruction, encoded, words, inputs, about, max_steps, rng)


def _to_text(
    instruction: Instruction,
    encoded: EncodedSample,
    words: list[Segment],
    inputs: list[Segment],
    about: Bool[Tensor, "P"] | None,
    max_steps: int,
) -> Example | str:
    text = _text(instruction.target.text, encoded)
    if text.strip().lower() in _STAND_IN:
        return "its text says nothing of the motion"
    if instruction.inputs.kind == "motion":
        start, end = _steps(instruction.inputs, encoded)
        if not end - start:
            return "shorter than a step"
        if end - start > max_steps:
            return "longer than max_steps, and its text is about all of it"
        inputs.append(_motion(encoded, start, end, about))
    return Example(task=instruction.task, prompt=(*words, *inputs), answer=TextAnswer(text=text))


def _to_motion(
    instruction: Instruction,
    encoded: EncodedSample,
    words: list[Segment],
    inputs: list[Segment],
    about: Bool[Tensor, "P"] | None,
    max_steps: int,
    rng: random.Random,
) -> Example | str:
    start, end = _steps(instruction.target, encoded)
    if not end - start:
        return "shorter than a step"
    codes, latents = encoded.codes[start:end], encoded.latents[start:end]
    given, last = None, True
    if instruction.inputs.kind == "motion":
        before, after = _steps(instruction.inputs, encoded)
        if before < start:
            inputs.append(_motion(encoded, max(before, start - max_steps), start, None))
        if after > end:
            inputs.append(Gap(steps=end - start))
            later_codes, later = encoded.from_step(end)
            if len(later):
                inputs.append(Motion(codes=later_codes[:max_steps], latents=later[:max_steps]))
        if not any(isinstance(one, Motion) for one in inputs):
            return "shorter than a step"
    elif about is not None and rng.random() < 0.5:
        # Keep given parts and make the others; else the text alone tells what the parts do, and the body goes with it.
        given = ~about
    if end - start > max_steps:
        if instruction.inputs.kind == "motion" or instruction.task.endswith(("seconds", "frames", "timed")):
            return "longer than max_steps, and its text or gap is about all of it"
        first = max_steps * rng.randrange(-(-(end - start) // max_steps))
        window = slice(start + first, min(start + first + max_steps, end))
        words = _words_of_window(encoded, window) or words
        if first:
            inputs = [_motion(encoded, max(0, window.start - _HISTORY_STEPS), window.start, None)]
        codes, latents, last = encoded.codes[window], encoded.latents[window], window.stop == end
        start = window.start
    if given is not None:
        inputs.append(Motion(codes=codes, latents=latents, shown=given))
    learned = _learned(encoded, start, len(codes))
    if given is not None:
        learned = (torch.ones(codes.shape[:2], dtype=torch.bool) if learned is None else learned) & ~given
    if learned is not None and not learned.any():
        return "none of its parts was seen"
    answer = MotionAnswer(codes=codes, latents=latents, learned=learned, given=given, ends=last)
    return Example(task=instruction.task, prompt=(*words, *inputs), answer=answer)


def _motion(encoded: EncodedSample, start: int, end: int, shown: Bool[Tensor, "P"] | None) -> Motion:
    return Motion(codes=encoded.codes[start:end], latents=encoded.latents[start:end], shown=shown)


def _text(text: str, encoded: EncodedSample) -> str:
    return mirror_text(text) if encoded.mirrored else text


def _words(instruction: Instruction, encoded: EncodedSample) -> list[Segment]:
    texts = [instruction.instruction]
    if instruction.inputs.kind == "text":
        texts.append(instruction.inputs.text)
    return [Words(text=_text(text, encoded)) for text in texts if text]


def _words_of_window(encoded: EncodedSample, window: slice) -> list[Segment]:
    """The texts of the segments of a joined motion that lie in a window for the most part, in their order."""
    first_s, last_s = encoded.seconds_at(window.start), encoded.seconds_at(window.stop)
    texts = []
    for one in encoded.sample.meta.get("segments", ()):
        overlap_s = min(last_s, one["end_s"]) - max(first_s, one["start_s"])
        if overlap_s > 0.5 * min(one["end_s"] - one["start_s"], last_s - first_s):
            texts.append(_text(one["text"], encoded))
    return [Words(text=" Then ".join(texts))] if texts else []


def _steps(span: InstructionInput, encoded: EncodedSample) -> tuple[int, int]:
    """First and last step of a span; the preroll goes with the first frame."""
    start, end = (min(encoded.step_at(seconds), len(encoded.codes)) for seconds in (span.start_s, span.end_s))
    return 0 if span.start_s <= 0 and end else start, end


def _mask(names: tuple[str, ...], encoded: EncodedSample) -> Bool[Tensor, "P"] | None:
    """Parts that an instruction is about; None where that is all that were seen, or the tokenizer knows no parts."""
    streams = encoded.encoder.tokenizer.config.streams
    if not names or streams != tuple(PARTS) or set(names) >= set(seen_parts(encoded.seen)):
        return None
    return torch.tensor([part in names for part in streams])


def _learned(encoded: EncodedSample, start: int, count: int) -> Bool[Tensor, "S P"] | None:
    """Step and part: whether it was seen in all frames of the step; None where all were."""
    if encoded.seen.all() or encoded.codes.shape[1] != len(PART_NAMES):
        return None
    return encoded.seen_steps()[start : start + count]
