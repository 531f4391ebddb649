"""Instances without wording: for each task the inputs, the target and the values of the slots."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

from schemas.coverage import seen_parts
from schemas.ids import digest, unit_interval
from schemas.records import FPS, CaptionedMotion, InstructionInput, Segment
from schemas.skeleton import PARTS
from stages.joining.step_captions import steps
from stages.language.instructions.slots import (
    caption_slots,
    command_steps_of,
    length_slots,
    moment_slots,
    part_names,
    sentences_of,
    steps_of,
    timeline_of,
)
from stages.language.instructions.templates import LENGTH_ANSWERS
from stages.language.rules.phrases import OUT_OF_VIEW

_NOTHING = InstructionInput(kind="none")
_FIRST_POSE, _FIRST_IMAGE = InstructionInput(kind="pose"), InstructionInput(kind="image")


@dataclass(frozen=True, kw_only=True)
class Draft:
    """An instance without its wording."""

    inputs: InstructionInput
    target: InstructionInput
    slots: dict[str, str]
    parts: tuple[str, ...] = tuple(PARTS)
    """The parts that it is about; of these only the seen ones are told."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Subject:
    """A captioned motion for which instances are drafted."""

    record: CaptionedMotion
    prediction_share: float
    hidden_share: float

    @cached_property
    def frames(self) -> int:
        return len(self.record.scored.motion.poses)

    @cached_property
    def steps(self) -> list[Segment]:
        """Steps of a joined motion; empty for others."""
        return steps(self.record.scored.motion.segments)

    @property
    def filmed(self) -> bool:
        return self.record.scored.motion.footage is not None

    @cached_property
    def whole(self) -> InstructionInput:
        return span(0, self.frames)

    def descriptions(self, task: str) -> list[str]:
        """Descriptions of the body, starting with a different one for each task."""
        return rotated_by_seed(self.record.captions.body, self.record.id, task)

    def part_text(self, part: str, task: str) -> str:
        """A sentence about a part."""
        return sentences_of(rotated_by_seed(self.record.captions.parts[part], self.record.id, task)[0])

    def parts_text(self, parts: Sequence[str], task: str) -> str:
        """A sentence about each of several parts, preferably one that names the part."""
        sentences = []
        for part in parts:
            texts = rotated_by_seed(self.record.captions.parts[part], self.record.id, task)
            named = [text for text in texts if part.replace("_", " ") in text.lower()]
            sentences.append(sentences_of((named or texts)[0]))
        return " ".join(sentences)

    @cached_property
    def seen(self) -> tuple[str, ...]:
        """Parts that were seen in most of the motion, in the order of PARTS."""
        return seen_parts(self.record.scored.motion.seen)

    @cached_property
    def parts(self) -> list[str]:
        """Seen parts about which something can be said, active ones first, otherwise in a pseudorandom order by the motion's id."""
        events = self.record.captions.events
        hidden = {event.part for event in events if event.text == OUT_OF_VIEW}
        active = {event.part for event in events if event.kind != "rest"}
        parts = [part for part in self.seen if part not in hidden]
        return sorted(parts, key=lambda part: (part not in active, unit_interval(self.record.id, "part", part)))

    @cached_property
    def part_groups(self) -> list[tuple[str, ...]]:
        """A single part, then a pair, then the other single parts; in the order of PARTS within a group."""
        groups: list[tuple[str, ...]] = [(part,) for part in self.parts]
        if len(self.parts) > 1:
            groups.insert(1, tuple(part for part in PARTS if part in self.parts[:2]))
        return groups


def drafts(subject: Subject, task: str) -> list[Draft]:
    """All instances of a task for a motion; none if it is too short, not filmed, not joined or out of view."""
    return _TASKS[task](subject, task)


def pick(count: int, *seed: str) -> int:
    """Index below `count`, determined by the seed."""
    return int(digest("instructions", *seed, digits=12), 16) % count


def rotated_by_seed(texts: Sequence[str], *seed: str) -> list[str]:
    """The texts, rotated to start with one selected by the seed."""
    first = pick(len(texts), *seed)
    return [*texts[first:], *texts[:first]]


def span(first: int, last: int) -> InstructionInput:
    """The motion over frames [first, last)."""
    return InstructionInput(kind="motion", start_s=first / FPS, end_s=last / FPS)


def _text(text: str) -> InstructionInput:
    return InstructionInput(kind="text", text=text)


def _to_motion(inputs: InstructionInput) -> Callable[[Subject, str], list[Draft]]:
    def make(subject: Subject, task: str) -> list[Draft]:
        if inputs.kind == "image" and not subject.filmed:
            return []
        length = length_slots(subject.frames)
        return [
            Draft(inputs=inputs, target=subject.whole, slots=caption_slots(text) | length)
            for text in subject.descriptions(task)
        ]

    return make


def _parts_to_motion(subject: Subject, task: str) -> list[Draft]:
    if len(subject.parts) < len(PARTS) or subject.steps:
        return []
    sentences = subject.parts_text(tuple(PARTS), task)
    return [Draft(inputs=_NOTHING, target=subject.whole, slots={"sentences": sentences})]


def _to_text(subject: Subject, task: str) -> list[Draft]:
    return [
        Draft(inputs=subject.whole, target=_text(sentences_of(text)), slots={}) for text in subject.descriptions(task)
    ]  # fmt: skip


def _to_length(subject: Subject, task: str) -> list[Draft]:
    answer = LENGTH_ANSWERS[pick(len(LENGTH_ANSWERS), subject.record.id, "answer")]
    return [Draft(inputs=subject.whole, target=_text(answer.format(**length_slots(subject.frames))), slots={})]


def _to_parts(subject: Subject, task: str) -> list[Draft]:
    if subject.steps:
        return []  # A long motion has too many events for one sentence about each part.
    return [Draft(inputs=subject.whole, target=_text(subject.parts_text(subject.seen, task)), slots={})]


def _prediction(subject: Subject, task: str) -> list[Draft]:
    cut = round(subject.prediction_share * subject.frames)
    if not 0 < cut < subject.frames:
        return []
    slots = caption_slots(subject.descriptions(task)[0]) if task.endswith("_text") else {}
    slots |= length_slots(subject.frames - cut)
    return [Draft(inputs=span(0, cut), target=span(cut, subject.frames), slots=slots)]


def _between(subject: Subject, task: str) -> list[Draft]:
    margin = round((1 - subject.hidden_share) / 2 * subject.frames)
    if not 0 < margin < subject.frames - margin:
        return []
    slots = caption_slots(subject.descriptions(task)[0]) if task.endswith("_text") else {}
    return [Draft(inputs=subject.whole, target=span(margin, subject.frames - margin), slots=slots)]


def _to_part_motion(subject: Subject, task: str) -> list[Draft]:
    length = length_slots(subject.frames)
    return [
        Draft(
            inputs=_NOTHING,
            target=subject.whole,
            slots={"parts": part_names(parts), "sentences": sentences} | length,
            parts=parts,
        )
        for parts in subject.part_groups
        for sentences in [subject.parts_text(parts, task) if len(parts) > 1 else subject.part_text(parts[0], task)]
    ]


def _part_to_text(subject: Subject, task: str) -> list[Draft]:
    return [
        Draft(
            inputs=subject.whole,
            target=_text(subject.part_text(part, task)),
            slots={"parts": part_names((part,))},
            parts=(part,),
        )
        for part in subject.parts
    ]


def _to_long_motion(subject: Subject, task: str) -> list[Draft]:
    if len(subject.steps) < 2:
        return []
    slots = {"steps": steps_of(subject.steps), "timeline": timeline_of(subject.steps)}
    if commands := command_steps_of(subject.steps):
        slots["commands"] = commands
    return [Draft(inputs=_NOTHING, target=subject.whole, slots=slots)]


def _to_segments(subject: Subject, task: str) -> list[Draft]:
    if len(subject.steps) < 2:
        return []
    return [Draft(inputs=subject.whole, target=_text(timeline_of(subject.steps)), slots={})]


def _to_moments(subject: Subject, task: str) -> list[Draft]:
    if len(subject.steps) < 2:
        return []
    moments = [
        Draft(inputs=subject.whole, target=_text(sentences_of(step.text)), slots=moment_slots(step))
        for step in subject.steps
    ]
    return sorted(moments, key=lambda draft: unit_interval(subject.record.id, "moment", draft.slots["start"]))


_TASKS: dict[str, Callable[[Subject, str], list[Draft]]] = {
    "t2m": _to_motion(_NOTHING),
    "t2m_seconds": _to_motion(_NOTHING),
    "t2m_frames": _to_motion(_NOTHING),
    "parts2m": _parts_to_motion,
    "i2m_pose": _to_motion(_FIRST_POSE),
    "i2m_pose_seconds": _to_motion(_FIRST_POSE),
    "i2m_image": _to_motion(_FIRST_IMAGE),
    "i2m_image_seconds": _to_motion(_FIRST_IMAGE),
    "m2t": _to_text,
    "m2length": _to_length,
    "m2parts": _to_parts,
    "prediction": _prediction,
    "prediction_text": _prediction,
    "prediction_seconds": _prediction,
    "inbetween": _between,
    "inbetween_text": _between,
    "i2pm": _to_part_motion,
    "i2pm_seconds": _to_part_motion,
    "p2t": _part_to_text,
    "i2lm": _to_long_motion,
    "i2lm_timed": _to_long_motion,
    "m2segments": _to_segments,
    "m2moment": _to_moments,
}
"""Task -> its drafts, for every task of the templates."""
