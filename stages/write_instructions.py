"""Training instances for a captioned motion: what a person says, what is handed over, what is to come out.

| task | given | asked for |
|---|---|---|
| t2m, t2m_seconds, t2m_frames | a description, with the length in the last two | the motion |
| m2t, m2length, m2parts | the motion | a description, its length, a sentence for each part |
| prediction, prediction_text | the first fifth (and a description) | the rest |
| inbetween, inbetween_text | the clip without its middle half (and a description) | the middle half |
| i2pm | what one or two parts do | the motion of these parts |
| p2t | the motion of a part | a sentence about it |

Where the span that is asked for lies inside the span that is given (in-between), it is hidden from what is given. `parts`
names what the instance is about; motion is given and asked for in these parts.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from pydantic import field_validator

from schemas.ids import digest, unit_interval
from schemas.records import FPS, CaptionedMotion, Given, InstructedMotion, Instruction
from schemas.skeleton import PARTS
from stages.base import Stage, StageConfig
from stages.instructions.templates import LENGTH_ANSWERS, TEMPLATES

_ALL_PARTS = tuple(PARTS)


class WriteInstructions(Stage[CaptionedMotion, InstructedMotion]):
    """Word every task for a motion, several times with other descriptions; the motion's id picks the wordings."""

    class Config(StageConfig):
        instances: dict[str, int] = {
            "t2m": 3, "t2m_seconds": 1, "t2m_frames": 1, "m2t": 3, "m2length": 1, "m2parts": 1, "prediction": 1,
            "prediction_text": 1, "inbetween": 1, "inbetween_text": 1, "i2pm": 2, "p2t": 2,
        }  # fmt: skip
        """Task -> most instances a motion; descriptions and wordings are not used twice within a task."""
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
    """All instances of a motion, task by task; tasks for which it is too short or its parts unseen are left out."""
    found = []
    for task, most in instances.items():
        for number, draft in enumerate(_drafts(record, task, prediction_share, hidden_share)[:most]):
            wordings = _fitting(TEMPLATES[task], draft.slots)
            first = _pick(len(wordings), record.id, task)
            wording = wordings[(first + number) % len(wordings)]
            found.append(
                Instruction(
                    task=task,
                    instruction=wording.format(**draft.slots),
                    inputs=draft.inputs,
                    target=draft.target,
                    parts=draft.parts,
                    start_s=0.0,
                    end_s=len(record.scored.motion.poses) / FPS,
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
    if one.target.kind not in ("text", "motion"):
        problems.append(f"the target is {one.target.kind}")
    spans = [(given.start_s, given.end_s) for given in (one.inputs, one.target) if given.kind == "motion"]
    for first_s, last_s in [(one.start_s, one.end_s), *spans]:
        if not 0 <= first_s < last_s <= end_s + 1e-9:
            problems.append(f"span {first_s}-{last_s} s leaves the clip of {end_s} s or is empty")
    return problems


@dataclass(frozen=True, kw_only=True)
class _Draft:
    """An instance without its wording."""

    inputs: Given
    target: Given
    slots: dict[str, str]
    parts: tuple[str, ...] = _ALL_PARTS


_NOTHING = Given(kind="none")


def _drafts(record: CaptionedMotion, task: str, prediction_share: float, hidden_share: float) -> list[_Draft]:
    frames = len(record.scored.motion.poses)
    whole = _motion(0, frames)
    length = {"seconds": f"{frames / FPS:.1f}", "frames": str(frames)}
    bodies = _turned(record.captions.body, record.id, task)
    if task in ("t2m", "t2m_seconds", "t2m_frames"):
        return [_Draft(inputs=_NOTHING, target=whole, slots=_caption(text) | length) for text in bodies]
    if task == "m2t":
        return [_Draft(inputs=whole, target=_text(text), slots={}) for text in bodies]
    if task == "m2length":
        answer = LENGTH_ANSWERS[_pick(len(LENGTH_ANSWERS), record.id, "answer")].format(**length)
        return [_Draft(inputs=whole, target=_text(answer), slots={})]
    if task == "m2parts":
        answer = " ".join(_turned(record.captions.parts[part], record.id, task)[0] for part in PARTS)
        return [_Draft(inputs=whole, target=_text(answer), slots={})]
    if task.startswith("prediction"):
        cut = round(prediction_share * frames)
        if not 0 < cut < frames:
            return []
        slots = _caption(bodies[0]) if task.endswith("_text") else {}
        return [_Draft(inputs=_motion(0, cut), target=_motion(cut, frames), slots=slots)]
    if task.startswith("inbetween"):
        margin = round((1 - hidden_share) / 2 * frames)
        if not 0 < margin < frames - margin:
            return []
        slots = _caption(bodies[0]) if task.endswith("_text") else {}
        return [_Draft(inputs=whole, target=_motion(margin, frames - margin), slots=slots)]
    if task == "p2t":
        return [
            _Draft(inputs=whole, target=_text(sentence), slots={"parts": _names((part,))}, parts=(part,))
            for part in _parts_worth_telling(record)
            for sentence in _turned(record.captions.parts[part], record.id, task)[:1]
        ]
    assert task == "i2pm"
    return [
        _Draft(inputs=_NOTHING, target=whole, slots={"parts": _names(parts), "sentences": text}, parts=parts)
        for parts in _part_groups(record)
        for text in [" ".join(_turned(record.captions.parts[part], record.id, task)[0] for part in parts)]
    ]


def _parts_worth_telling(record: CaptionedMotion) -> list[str]:
    """Parts that are in view, those that do something first, otherwise in an order of the motion's own."""
    unseen = {event.part for event in record.captions.events if event.text == "is out of view"}
    busy = {event.part for event in record.captions.events if event.kind != "rest"}
    parts = [part for part in PARTS if part not in unseen]
    return sorted(parts, key=lambda part: (part not in busy, unit_interval(record.id, "part", part)))


def _part_groups(record: CaptionedMotion) -> list[tuple[str, ...]]:
    """A single part, then a pair, then further single ones; in the order of PARTS within a group."""
    parts = _parts_worth_telling(record)
    groups: list[tuple[str, ...]] = [(part,) for part in parts]
    if len(parts) > 1:
        groups.insert(1, tuple(part for part in PARTS if part in parts[:2]))
    return groups


def _fitting(wordings: Sequence[str], slots: dict[str, str]) -> list[str]:
    """Wordings whose slots can all be filled."""
    return [wording for wording in wordings if "{clause}" not in wording or "clause" in slots]


def _caption(text: str) -> dict[str, str]:
    """A description as sentences and, when it is a single one, as a clause."""
    slots = {"caption": text}
    if ". " not in text:
        slots["clause"] = text[0].lower() + text[1:].rstrip(".")
    return slots


def _names(parts: tuple[str, ...]) -> str:
    """`left arm and torso`."""
    return " and ".join(part.replace("_", " ") for part in parts)


def _turned(texts: Sequence[str], *seed: str) -> list[str]:
    """The texts, beginning with one that the seed picks."""
    first = _pick(len(texts), *seed)
    return [*texts[first:], *texts[:first]]


def _pick(count: int, *seed: str) -> int:
    return int(digest("instructions", *seed, digits=12), 16) % count


def _motion(first: int, last: int) -> Given:
    return Given(kind="motion", start_s=first / FPS, end_s=last / FPS)


def _text(text: str) -> Given:
    return Given(kind="text", text=text)
