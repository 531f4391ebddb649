"""Training instances for a captioned motion: what a person says, what is handed over, what is to come out.

| task | given | asked for |
|---|---|---|
| t2m, t2m_seconds, t2m_frames | a description, with the length in the last two | the motion |
| parts2m | what each of the five parts does | the motion |
| i2m_pose, i2m_pose_seconds | the first pose and a description | the motion from there |
| i2m_image, i2m_image_seconds | the clip's first picture and a description | the motion from there |
| m2t, m2length, m2parts | the motion | a description, its length, a sentence for each part |
| prediction, prediction_text, prediction_seconds | the first fifth (and a description, or the length) | the rest |
| inbetween, inbetween_text | the clip without its middle half (and a description) | the middle half |
| i2pm, i2pm_seconds | what one or two parts do | the motion of these parts |
| p2t | the motion of a part | a sentence about it |
| i2lm, i2lm_timed | the steps of a joined motion, with their times in the last | the long motion |
| m2segments, m2moment | a joined motion | its steps with their times, what happens between two times |

Where the span that is asked for lies inside the span that is given (in-between), it is hidden from what is given. `parts`
names what the instance is about; motion is given and asked for in these parts. Only filmed motions have pictures, only
joined ones have steps.
"""

from collections.abc import Iterator, Sequence

from pydantic import field_validator

from schemas.records import FPS, INPUT_KINDS, CaptionedMotion, InstructedMotion, Instruction
from schemas.skeleton import PARTS
from stages.base import Stage, StageConfig
from stages.language.instructions.drafts import Subject, drafts, pick
from stages.language.instructions.templates import TEMPLATES


class WriteInstructions(Stage[CaptionedMotion, InstructedMotion]):
    """Word every task for a motion, several times with other descriptions; the motion's id picks the wordings."""

    class Config(StageConfig):
        instances: dict[str, int] = {
            "t2m": 2, "t2m_seconds": 1, "t2m_frames": 1, "parts2m": 1, "i2m_pose": 1, "i2m_pose_seconds": 1,
            "i2m_image": 1, "i2m_image_seconds": 1, "m2t": 2, "m2length": 1, "m2parts": 1, "prediction": 1,
            "prediction_text": 1, "prediction_seconds": 1, "inbetween": 1, "inbetween_text": 1, "i2pm": 2,
            "i2pm_seconds": 1, "p2t": 2, "i2lm": 2, "i2lm_timed": 1, "m2segments": 1, "m2moment": 2,
        }  # fmt: skip
        """Task -> most instances a motion; no wording is used twice within a task."""
        prediction_share: float = 0.2
        """Share of a motion that is given when the rest is to be predicted."""
        hidden_share: float = 0.5
        """Share of a motion, in its middle, that is hidden for in-betweening."""

        @field_validator("instances")
        @classmethod
        def _known(cls, instances: dict[str, int]) -> dict[str, int]:
            unknown = sorted(set(instances) - set(TEMPLATES))
            if unknown:
                raise ValueError(f"{', '.join(unknown)}: no such task; known tasks: {', '.join(TEMPLATES)}")
            return instances

        @field_validator("prediction_share", "hidden_share")
        @classmethod
        def _inside(cls, share: float) -> float:
            if not 0 < share < 1:
                raise ValueError("a share lies between 0 and 1")
            return share

    def run(self, record: CaptionedMotion) -> Iterator[InstructedMotion]:
        """The motion with its instances. Raises ValueError for one that is broken, which only a faulty template can cause."""
        frames = len(record.scored.motion.poses)
        instructions = write(record, self.config.instances, self.config.prediction_share, self.config.hidden_share)
        for one in instructions:
            problems = instruction_problems(one, frames)
            if problems:
                raise ValueError(f"{record.id}: {one.task}: {'; '.join(problems)}")
        yield InstructedMotion(captioned=record, instructions=instructions)


def write(
    record: CaptionedMotion, instances: dict[str, int], prediction_share: float, hidden_share: float
) -> tuple[Instruction, ...]:
    """All instances of a motion, task by task; tasks that do not apply to it are left out."""
    subject = Subject(record=record, prediction_share=prediction_share, hidden_share=hidden_share)
    found = []
    # In the templates' order: that of a config's keys is not part of its digest.
    for task, most in sorted(instances.items(), key=lambda item: list(TEMPLATES).index(item[0])):
        made = drafts(subject, task)
        # The steps of a long motion can be asked for in several ways; a description is told once.
        made = made * most if task == "i2lm" else made
        for number, draft in enumerate(made[:most]):
            wordings = _fitting(TEMPLATES[task], draft.slots)
            first = pick(len(wordings), record.id, task)
            wording = wordings[(first + number) % len(wordings)]
            found.append(
                Instruction(
                    task=task,
                    instruction=wording.format(**draft.slots),
                    inputs=draft.inputs,
                    target=draft.target,
                    parts=draft.parts,
                    start_s=0.0,
                    end_s=subject.frames / FPS,
                )
            )
    return tuple(found)


def instruction_problems(one: Instruction, frames: int) -> list[str]:
    """What is wrong with an instance, in sentences."""
    problems = []
    end_s = frames / FPS
    if not one.parts or not set(one.parts) <= set(PARTS):
        problems.append(f"parts are {one.parts}")
    texts = [one.instruction, *(given.text for given in (one.inputs, one.target) if given.kind == "text")]
    problems += [f"a slot is open or the text is empty: {text!r}" for text in texts if not text.strip() or "{" in text]
    if one.inputs.kind not in INPUT_KINDS:
        problems.append(f"what is given is {one.inputs.kind}")
    if one.target.kind not in ("text", "motion"):
        problems.append(f"the target is {one.target.kind}")
    spans = [(given.start_s, given.end_s) for given in (one.inputs, one.target) if given.kind == "motion"]
    for first_s, last_s in [(one.start_s, one.end_s), *spans]:
        if not 0 <= first_s < last_s <= end_s + 1e-9:
            problems.append(f"span {first_s}-{last_s} s leaves the clip of {end_s} s or is empty")
    problems += [
        f"the {given.kind} at {given.start_s}-{given.end_s} s is no moment of the clip of {end_s} s"
        for given in (one.inputs, one.target)
        if given.kind in ("image", "pose") and not 0 <= given.start_s == given.end_s < end_s
    ]
    return problems


def _fitting(wordings: Sequence[str], slots: dict[str, str]) -> list[str]:
    """Wordings whose slots can all be filled."""
    return [wording for wording in wordings if "{clause}" not in wording or "clause" in slots]
