"""Captions of a joined motion, composed from the captions of its segments."""

import re
from collections.abc import Sequence
from dataclasses import replace
from random import Random

from schemas.ids import digest
from schemas.records import Captions, Event, Segment
from schemas.skeleton import PARTS

WRITER = "joined 1"
"""Name and version of this writer; raise the number whenever the same segments would be captioned differently."""
_SUBJECT = re.compile(r"(A|One|The) person\b|(Someone|Somebody)\b")
_LINKS = ("Then", "After that,", "Next,", "Afterwards,")
_SUSTAINED = frozenset(
    {"walk", "walk_backward", "run", "crawl", "stand", "stay", "sit", "kneel", "lie", "dance", "ride"}
)
_LAST_LINKS = ("Finally,", "In the end,", "At last,")


def actions_of(captions: Captions) -> frozenset[str]:
    """The body's kinds of events if all are sustained actions such as walking, else empty."""
    kinds = frozenset(event.kind for event in captions.events if event.part == "body")
    return kinds if kinds <= _SUSTAINED else frozenset()


def steps(segments: Sequence[Segment]) -> list[Segment]:
    """The segments, consecutive ones with the same text or sustained actions merged: three walks in a row are one walk."""
    merged: list[Segment] = []
    for segment in segments:
        same = merged and (
            merged[-1].text == segment.text
            or actions_of(merged[-1].captions) == actions_of(segment.captions) != frozenset()
        )
        if same:
            merged[-1] = replace(merged[-1], end_s=segment.end_s)
        else:
            merged.append(segment)
    return merged


def describe_steps(segments: Sequence[Segment], seed: str) -> Captions:
    """Captions of a joined motion: a short and a longer description, a text for each part, events on its time axis."""
    short = _in_sequence([segment.text for segment in steps(segments)], seed)
    longer = _in_sequence([segment.captions.body[1 % len(segment.captions.body)] for segment in segments], seed)
    writers: dict[str, set[str]] = {}
    for segment in segments:
        for level, writer in segment.captions.writers.items():
            writers.setdefault(level, set()).add(writer)
    parts = {part: [segment.captions.parts[part][0] for segment in segments] for part in PARTS}
    return Captions(
        body=tuple(dict.fromkeys((short, longer))),
        parts={part: (_in_sequence(texts, seed, part),) for part, texts in parts.items()},
        events=_events(segments),
        writers={level: f"{WRITER} of {', '.join(sorted(names))}" for level, names in writers.items()}
        | {"transcript": "none"},
    )


def _in_sequence(texts: Sequence[str], seed: str, part: str = "") -> str:
    """The texts as one narration, consecutive repetitions dropped."""
    # Both sides draw alike, so that mirroring a motion mirrors its text.
    rng = Random(digest("told", seed, part.split("_")[-1]))
    distinct = [text for index, text in enumerate(texts) if not index or text != texts[index - 1]]
    links = [""] + [rng.choice(_LINKS) for _ in distinct[2:]] + [rng.choice(_LAST_LINKS)]
    return " ".join(_linked(link, text, part) for link, text in zip(links, distinct, strict=False))


def _linked(link: str, text: str, part: str) -> str:
    """A text after a linking word, its subject replaced by a definite one; texts with other beginnings stay unlinked."""
    if not link:
        return text
    subject = _SUBJECT.match(text)
    if subject:
        return f"{link} the person{text[subject.end() :]}"
    name = part.replace("_", " ")
    if part and text.startswith(f"The {name} "):
        return f"{link} the {name}{text[4 + len(name) :]}"
    return text


def _events(segments: Sequence[Segment]) -> tuple[Event, ...]:
    """Events that overlap their segment, clipped to it, in order of time."""
    events = []
    for segment in segments:
        shift_s = segment.start_s - segment.from_s
        for event in segment.captions.events:
            start_s = max(segment.start_s, event.start_s + shift_s)
            end_s = min(segment.end_s, event.end_s + shift_s)
            if end_s > start_s:
                events.append(replace(event, start_s=start_s, end_s=end_s))
    return tuple(sorted(events, key=lambda event: (event.start_s, event.end_s, event.part, event.kind)))
