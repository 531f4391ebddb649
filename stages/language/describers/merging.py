"""Merges a describer's sentences with those of the rules; each is checked against the events and kept or rejected on its own."""

import re
from collections.abc import Sequence
from dataclasses import replace

from schemas.records import Captions, Statement
from stages.language.describers.checks import judge
from stages.language.describers.protocol import LEVELS, Answer
from stages.language.rules.phrases import OUT_OF_VIEW

_MAX_CHARACTERS = 300
_MAX_PER_LEVEL = 6
_WORDS_ABOUT = {
    "leg": re.compile(
        r"\b(leg|foot|feet|knee|thigh|shin|ankle|toe|heel|stand|stood|sit|sat|seat|walk|step|stride|stroll|run|ran|jog|jump|hop|"
        r"leap|squat|crouch|kneel|knelt|kick|lie|lying|crawl|pace|pacing|lunge|march|tiptoe)(s|es|ed|ing|ning|ting|ping|pping)?\b",
        re.IGNORECASE,
    ),
    "arm": re.compile(
        r"\b(arm|hand|elbow|wrist|fist|finger|wave|waving|punch|clap|point|reach)(s|es|ed|ing|ping)?\b", re.IGNORECASE
    ),
}
"""Words that tell what limbs do, for limbs that nobody saw."""
_WORD = re.compile(r"[^\W\d_]+")


def merge_answer(rule_captions: Captions, answer: Answer) -> Captions:
    """The rules' captions followed by the sentences that do not contradict the events; `added` lists all with evidence."""
    kept: dict[str, list[str]] = {level: [] for level in LEVELS}
    statements: list[Statement] = []
    unseen = [part for part, lines in rule_captions.parts.items() if lines[0].endswith(f"{OUT_OF_VIEW}.")]
    present = {(level, line) for level in LEVELS for line in _lines(rule_captions, level)}
    for level in LEVELS:
        for text in (line for answered in answer.sentences.get(level, ()) for line in sentences_in(answered)):
            verdict, evidence = "rejected", _fault(text) or _says_unseen(text, level, unseen)
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


def _says_unseen(text: str, level: str, unseen: Sequence[str]) -> str:
    """Which unseen part a sentence is about; empty if about none."""
    if level in unseen:
        return f"the {level.replace('_', ' ')} was not seen"
    for limb, words in _WORDS_ABOUT.items():
        if f"left_{limb}" in unseen and f"right_{limb}" in unseen and (said := words.search(text)):
            return f"'{said.group()}': the {limb}s were not seen"
    return ""


def _fault(text: str) -> str:
    """Why a text is not a usable sentence regardless of its content; empty if it is usable."""
    if len(text) > _MAX_CHARACTERS:
        return f"it is longer than {_MAX_CHARACTERS} characters"
    if len(_WORD.findall(text)) < 2 or re.search(r"[<>{}\[\]\\]|https?:", text):
        return "it is no plain sentence"
    return ""
