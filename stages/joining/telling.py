"""What is said of a joined motion, put together from what was said of its segments."""

import re
from collections.abc import Sequence
from dataclasses import replace
from random import Random

from schemas.ids import digest
from schemas.records import Captions, Event, Segment
from schemas.skeleton import PARTS

JOINED = "joined 1"
"""Who puts together: raise the number whenever the same segments would be told differently."""
_SUBJECT = re.compile(r"(A|One|The) person\b|(Someone|Somebody)\b")
_LINKS = ("Then", "After that,", "Next,", "Afterwards,")
_GOES_ON = frozenset({"walk", "walk_backward", "run", "crawl", "stand", "sit", "lie"})
_LAST_LINKS = ("Finally,", "In the end,", "At last,")


def actions_of(captions: Captions) -> frozenset[str]:
    """What the whole body does, where that is nothing but what can go on for long; empty for everything else."""
    kinds = frozenset(event.kind for event in captions.events if event.part == "body")
    return kinds if kinds <= _GOES_ON else frozenset()


def steps(segments: Sequence[Segment]) -> list[Segment]:
    """The segments, those in which somebody goes on doing the same as one: who walks three times has walked."""
    found: list[Segment] = []
    for one in segments:
        same = found and (
            found[-1].text == one.text or actions_of(found[-1].captions) == actions_of(one.captions) != frozenset()
        )
        if same:
            found[-1] = replace(found[-1], end_s=one.end_s)
        else:
            found.append(one)
    return found


def describe_steps(segments: Sequence[Segment], seed: str) -> Captions:
    """Captions of a joined motion: a short and a fuller description, a text for each part, the events in their new times."""
    short = _told([one.text for one in steps(segments)], seed)
    fuller = _told([one.captions.body[1 % len(one.captions.body)] for one in segments], seed)
    writers: dict[str, set[str]] = {}
    for one in segments:
        for level, writer in one.captions.writers.items():
            writers.setdefault(level, set()).add(writer)
    return Captions(
        body=tuple(dict.fromkeys((short, fuller))),
        parts={part: (_told([one.captions.parts[part][0] for one in segments], seed, part),) for part in PARTS},
        events=_events(segments),
        writers={level: f"{JOINED} of {', '.join(sorted(some))}" for level, some in writers.items()}
        | {"transcript": "none"},
    )


def _told(texts: Sequence[str], seed: str, part: str = "") -> str:
    """The texts one after another; what is said twice in a row is said once."""
    # Both sides draw alike, so that mirroring a motion mirrors its text.
    rng = Random(digest("told", seed, part.split("_")[-1]))
    told = [text for place, text in enumerate(texts) if not place or text != texts[place - 1]]
    links = [""] + [rng.choice(_LINKS) for _ in told[2:]] + [rng.choice(_LAST_LINKS)]
    return " ".join(_linked(link, text, part) for link, text in zip(links, told, strict=False))


def _linked(link: str, text: str, part: str) -> str:
    """A text behind a link, its subject the one that was named before; texts that begin otherwise stand for themselves."""
    if not link:
        return text
    found = _SUBJECT.match(text)
    if found:
        return f"{link} the person{text[found.end() :]}"
    name = part.replace("_", " ")
    if part and text.startswith(f"The {name} "):
        return f"{link} the {name}{text[4 + len(name) :]}"
    return text


def _events(segments: Sequence[Segment]) -> tuple[Event, ...]:
    """Events that last into their segment, cut to it, in order of time."""
    found = []
    for one in segments:
        moved_s = one.start_s - one.from_s
        for event in one.captions.events:
            start_s, end_s = max(one.start_s, event.start_s + moved_s), min(one.end_s, event.end_s + moved_s)
            if end_s > start_s:
                found.append(replace(event, start_s=start_s, end_s=end_s))
    return tuple(sorted(found, key=lambda event: (event.start_s, event.end_s, event.part, event.kind)))
