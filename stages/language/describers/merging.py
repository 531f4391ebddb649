"""Merges a describer's sentences with those of the rules; each is checked against the events and kept or rejected on its own."""

import re
from dataclasses import replace

from schemas.records import Captions, Statement
from stages.language.describers.checks import judge
from stages.language.describers.protocol import LEVELS, Answer

_MAX_CHARACTERS = 300
_MAX_PER_LEVEL = 6
_WORD = re.compile(r"[^\W\d_]+")


def merge_answer(rule_captions: Captions, answer: Answer) -> Captions:
    """The rules' captions followed by the sentences that do not contradict the events; `added` lists all with evidence."""
    kept: dict[str, list[str]] = {level: [] for level in LEVELS}
    statements: list[Statement] = []
    present = {(level, line) for level in LEVELS for line in _lines(rule_captions, level)}
    for level in LEVELS:
        for text in (line for answered in answer.sentences.get(level, ()) for line in sentences_in(answered)):
            verdict, evidence = "rejected", _fault(text)
            if (level, text) in present:
                evidence = "it is said already"
            elif len(kept[level]) == _MAX_PER_LEVEL:
                evidence = f"it is more than {_MAX_PER_LEVEL} sentences"
            elif not evidence:
                judgement = judge(text, rule_captions.events, level)
                verdict, evidence = judgement.verdict, judgement.evidence
            if verdict != "rejected":
                kept[level].append(text)
                present.add((level, text))
            statements.append(
                Statement(
                    text=text, level=level, writer=answer.usage.describer, verdict=verdict, evidence=evidence
                )
            )  # fmt: skip
    writers = dict(rule_captions.writers)
    for level, lines in (("body", kept["body"]), ("parts", [line for part in LEVELS[1:] for line in kept[part]])):
        if lines:
            writers[level] = f"{writers[level]}, {answer.usage.describer}"
    return replace(
        rule_captions,
        body=(*rule_captions.body, *kept["body"]),
        parts={part: (*lines, *kept[part]) for part, lines in rule_captions.parts.items()},
        writers=writers,
        added=tuple(statements),
        effort=answer.usage,
    )


def sentences_in(text: str) -> list[str]:
    """A text split into sentences, each with a capital and a full stop, without the markup that models tend to add."""
    lines = []
    for line in re.split(r"(?<=[.!?])[\"'*]*\s+(?=[A-Z\"'*])", " ".join(text.split())):
        bare = line.strip(" \"'`*#>-•\t").rstrip(".").strip()
        if bare:
            lines.append(bare[0].upper() + bare[1:] + ("" if bare[-1] in "!?" else "."))
    return lines


def _lines(captions: Captions, level: str) -> tuple[str, ...]:
    return captions.body if level == "body" else captions.parts[level]


def _fault(text: str) -> str:
    """Why a text is not a usable sentence regardless of its content; empty if it is usable."""
    if len(text) > _MAX_CHARACTERS:
        return f"it is longer than {_MAX_CHARACTERS} characters"
    if len(_WORD.findall(text)) < 2 or re.search(r"[<>{}\[\]\\]|https?:", text):
        return "it is no plain sentence"
    return ""
