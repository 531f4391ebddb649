"""Training instances for a captioned motion: instruction, inputs and target.

| task | input | target |
|---|---|---|
| t2m, t2m_seconds, t2m_frames | a description, with the length in the last two | the motion |
| parts2m | a sentence for each of the five parts | the motion |
| i2m_pose, i2m_pose_seconds | the first pose and a description | the motion from there |
| i2m_image, i2m_image_seconds | the clip's first frame and a description | the motion from there |
| m2t, m2length, m2parts | the motion | a description, its length, a sentence for each part |
| prediction, prediction_text, prediction_seconds | the first fifth (and a description, or the length) | the rest |
| inbetween, inbetween_text | the clip without its middle half (and a description) | the middle half |
| i2pm, i2pm_seconds | sentences about one or two parts | the motion of these parts |
| p2t | the motion of a part | a sentence about it |
| i2lm, i2lm_timed | the steps of a joined motion, with their times in the last | the long motion |
| m2segments, m2moment | a joined motion | its steps with their times, a description between two times |

Where the target span lies inside the input span (in-between), it is hidden from the input. `parts` are the parts that the
instance is about, seen ones only; input and target motions are limited to them. Only filmed motions have frames, only joined
ones have steps.
"""

from collections.abc import Iterator, Sequence
from string import Formatter

from pydantic import field_validator

from schemas.records import FPS, INPUT_KINDS, CaptionedMotion, InstructedMotion, Instruction
from schemas.skeleton import PARTS
from stages.base import Stage, StageConfig
from stages.language.instructions.drafts import Subject, drafts, pick
from stages.language.instructions.templates import TEMPLATES


class WriteInstructions(Stage[CaptionedMotion, InstructedMotion]):
    """Write instances of every task for a motion, with different descriptions; the motion's id selects the wordings."""

    class Config(StageConfig):
        instances: dict[str, int] = {
            "t2m": 2, "t2m_seconds": 1, "t2m_frames": 1, "parts2m": 1, "i2m_pose": 1, "i2m_pose_seconds": 1,
            "i2m_image": 1, "i2m_image_seconds": 1, "m2t": 2, "m2length": 1, "m2parts": 1, "prediction": 1,
            "prediction_text": 1, "prediction_seconds": 1, "inbetween": 1, "inbetween_text": 1, "i2pm": 2,
            "i2pm_seconds": 1, "p2t": 2, "i2lm": 2, "i2lm_timed": 1, "m2segments": 1, "m2moment": 2,
        }  # fmt: skip
        """Task -> maximum number of instances for a motion; no wording is used twice within a task."""
        prediction_share: float = 0.2
        """Share of a motion that is the input when the rest is to be predicted."""
        hidden_share: float = 0.5
        """Share of a motion, in its middle, that is hidden for in-betweening."""

        @field_validator("instances")
        @classmethod
        def _known(cls, instances: dict[str, int]) -> dict[str, int]:
            unknown = sorted(set(instances) - set(TEMPLATES))
            if unknown:
                raise ValueError(f"{', '.join(unknown)}: unknown task; known tasks: {', '.join(TEMPLATES)}")
            return instances

        @field_validator("prediction_share", "hidden_share")
        @classmethod
        def _inside(cls, share: float) -> float:
            if not 0 < share < 1:
                raise ValueError(f"{share} is not between 0 and 1")
            return share

    def run(self, record: CaptionedMotion) -> Iterator[InstructedMotion]:
        """The motion with its instances. Raises ValueError for an invalid instance, which only a faulty template can cause."""
        frames = len(record.scored.motion.poses)
        instructions = write(record, self.config.instances, self.config.prediction_share, self.config.hidden_share)
        for instruction in instructions:
            problems = instruction_problems(instruction, frames)
            if problems:
                raise ValueError(f"{record.id}: {instruction.task}: {'; '.join(problems)}")
        yield InstructedMotion(captioned=record, instructions=instructions)


def write(
    record: CaptionedMotion, instances: dict[str, int], prediction_share: float, hidden_share: float
) -> tuple[Instruction, ...]:
    """All instances of a motion, task by task; inapplicable tasks are omitted."""
    subject = Subject(record=record, prediction_share=prediction_share, hidden_share=hidden_share)
    instructions = []
    # In the order of the templates, as the order of a config's keys is not part of its digest.
    for task, max_instances in sorted(instances.items(), key=lambda item: list(TEMPLATES).index(item[0])):
        task_drafts = drafts(subject, task)
        # The same steps of a long motion are used with several wordings; a description is used once.
        task_drafts = task_drafts * max_instances if task == "i2lm" else task_drafts
        for number, draft in enumerate(task_drafts[:max_instances]):
            wordings = _applicable(TEMPLATES[task], draft.slots)
            first = pick(len(wordings), record.id, task)
            wording = wordings[(first + number) % len(wordings)]
            instructions.append(
                Instruction(
                    task=task,
                    instruction=wording.format(**draft.slots),
                    inputs=draft.inputs,
                    target=draft.target,
                    parts=tuple(part for part in draft.parts if part in subject.seen),
                    start_s=0.0,
                    end_s=subject.frames / FPS,
                )
            )
    return tuple(instructions)


def instruction_problems(instruction: Instruction, frames: int) -> list[str]:
    """Problems of an instance, one message each; empty if it is valid."""
    problems = []
    end_s = frames / FPS
    if not instruction.parts or not set(instruction.parts) <= set(PARTS):
        problems.append(f"parts are {instruction.parts}")
    texts = [
        instruction.instruction,
        *(item.text for item in (instruction.inputs, instruction.target) if item.kind == "text"),
    ]
    problems += [
        f"a slot is unfilled or the text is empty: {text!r}" for text in texts if not text.strip() or "{" in text
    ]
    if instruction.inputs.kind not in INPUT_KINDS:
        problems.append(f"the input is {instruction.inputs.kind}")
    if instruction.target.kind not in ("text", "motion"):
        problems.append(f"the target is {instruction.target.kind}")
    spans = [(item.start_s, item.end_s) for item in (instruction.inputs, instruction.target) if item.kind == "motion"]
    for first_s, last_s in [(instruction.start_s, instruction.end_s), *spans]:
        if not 0 <= first_s < last_s <= end_s + 1e-9:
            problems.append(f"span {first_s}-{last_s} s is outside the clip of {end_s} s or empty")
    problems += [
        f"the {item.kind} at {item.start_s}-{item.end_s} s is not a moment of the clip of {end_s} s"
        for item in (instruction.inputs, instruction.target)
        if item.kind in ("image", "pose") and not 0 <= item.start_s == item.end_s < end_s
    ]
    return problems


def _applicable(wordings: Sequence[str], slots: dict[str, str]) -> list[str]:
    """Wordings whose slots can all be filled."""
    return [
        wording for wording in wordings if all(name in slots for _, name, _, _ in Formatter().parse(wording) if name)
    ]
