"""Puts a describer's sentences beside those of the rules: each is held against the events, and kept or rejected alone."""

import re
from dataclasses import replace

from schemas.records import Captions, Statement
from stages.language.describers.checks import judge
from stages.language.describers.protocol import LEVELS, Answer

_LONGEST_CHARACTERS = 300
_MOST_A_LEVEL = 6
_WORD = re.compile(r"[^\W\d_]+")


def merge_answer(ruled: Captions, answer: Answer) -> Captions:
    """The rules' captions and, after them, the sentences that they do not contradict; all are in `added` with the reason."""
    kept: dict[str, list[str]] = {level: [] for level in LEVELS}
    statements: list[Statement] = []
    said = {(level, line) for level in LEVELS for line in _lines(ruled, level)}
    for level in LEVELS:
        for text in (one for given in answer.sentences.get(level, ()) for one in sentences_in(given)):
            verdict, evidence = "rejected", _fault(text)
            if (level, text) in said:
                evidence = "it is said already"
            elif len(kept[level]) == _MOST_A_LEVEL:
                evidence = f"it is more than {_MOST_A_LEVEL} sentences"
            elif not evidence:
                judgement = judge(text, ruled.events, level)
                verdict, evidence = judgement.verdict, judgement.evidence
            if verdict != "rejected":
                kept[level].append(text)
                said.add((level, text))
            statements.append(
                Statement(
                    text=text, level=level, writer=answer.effort.describer, verdict=verdict, evidence=evidence
                )
            )  # fmt: skip
    writers = dict(ruled.writers)
    for level, lines in (("body", kept["body"]), ("parts", [one for part in LEVELS[1:] for one in kept[part]])):
        if lines:
            writers[level] = f"{writers[level]}, {answer.effort.describer}"
    return replace(
        ruled,
        body=(*ruled.body, *kept["body"]),
        parts={part: (*lines, *kept[part]) for part, lines in ruled.parts.items()},
        writers=writers,
        added=tuple(statements),
        effort=answer.effort,
    )


def sentences_in(text: str) -> list[str]:
    """A text cut into sentences, each with a capital and a full stop, without the marks that models like to add."""
    lines = []
    for line in re.split(r"(?<=[.!?])[\"'*]*\s+(?=[A-Z\"'*])", " ".join(text.split())):
        bare = line.strip(" \"'`*#>-•\t").rstrip(".").strip()
        if bare:
            lines.append(bare[0].upper() + bare[1:] + ("" if bare[-1] in "!?" else "."))
    return lines


def _lines(captions: Captions, level: str) -> tuple[str, ...]:
    return captions.body if level == "body" else captions.parts[level]


def _fault(text: str) -> str:
    """Why something is no usable sentence, whatever it says; empty where it is one."""
    if len(text) > _LONGEST_CHARACTERS:
        return f"it is longer than {_LONGEST_CHARACTERS} characters"
    if len(_WORD.findall(text)) < 2 or re.search(r"[<>{}\[\]\\]|https?:", text):
        return "it is no plain sentence"
    return ""
