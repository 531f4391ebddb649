"""Values of the slots of wordings: descriptions as sentences or clauses, lengths, part names and steps."""

import re
from collections.abc import Sequence

from schemas.records import FPS, Segment
from stages.language.instructions.commands import command_of, with_own_limbs

_LOWERCASE_STARTS = frozenset({
    "a", "an", "the", "this", "that", "one", "two", "three", "four", "some", "somebody", "someone", "he", "she", "it",
    "they", "people", "there",
})  # fmt: skip
"""First words that are lowercased inside a sentence; others may be names."""
_ENDS = (".", "!", "?")


def sentences_of(text: str) -> str:
    """A description normalised to an initial capital, a final full stop and single spaces."""
    text = " ".join(re.sub(r"[{}]", "", text).split())
    if not text:
        return ""
    return text[0].upper() + text[1:] + ("" if text.endswith(_ENDS) else ".")


def caption_slots(text: str) -> dict[str, str]:
    """A description as sentences and, if it is a single statement, as a clause and as a command."""
    sentences = sentences_of(text)
    slots = {"caption": sentences}
    first = re.match(r"[A-Za-z]+", sentences)
    single = not re.search(r"[.!?]\s", sentences) and sentences.endswith(".")
    if single and first and first[0].lower() in _LOWERCASE_STARTS:
        slots["clause"] = sentences[0].lower() + sentences[1:].rstrip(".")
        command = command_of(sentences)
        if command:
            slots |= _command_slots(command)
    return slots


def _command_slots(command: str) -> dict[str, str]:
    """A command as a sentence and inside one; a limb is `the left arm` in the one and `your left arm` in the other."""
    return {"command": sentences_of(command), "order": with_own_limbs(command)}


def length_slots(frames: int) -> dict[str, str]:
    """A length in seconds and in frames."""
    return {"seconds": f"{frames / FPS:.1f}", "frames": str(frames)}


def part_names(parts: Sequence[str]) -> str:
    """Part names to be preceded by `the`: `left arm and the torso`."""
    return " and the ".join(part.replace("_", " ") for part in parts)


def steps_of(segments: Sequence[Segment]) -> str:
    """The segments' descriptions, numbered."""
    return " ".join(f"{number}. {sentences_of(segment.text)}" for number, segment in enumerate(segments, start=1))


def command_steps_of(segments: Sequence[Segment]) -> str:
    """The segments' descriptions as commands, numbered; empty where one is none."""
    commands = [command_of(segment.text) for segment in segments]
    if not all(commands):
        return ""
    return " ".join(f"{number}. {sentences_of(with_own_limbs(one))}" for number, one in enumerate(commands, start=1))


def timeline_of(segments: Sequence[Segment]) -> str:
    """The segments' descriptions with their times."""
    return " ".join(
        f"{segment.start_s:.1f} to {segment.end_s:.1f} seconds: {sentences_of(segment.text)}" for segment in segments
    )  # fmt: skip


def moment_slots(segment: Segment) -> dict[str, str]:
    """Start and end of a segment, seconds."""
    return {"start": f"{segment.start_s:.1f}", "end": f"{segment.end_s:.1f}"}
