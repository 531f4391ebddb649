"""Sentences that people wrote about takes of motion capture, by the take's name."""

import csv
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from schemas.errors import UsageError

_NOT_TEXT = ("id", "trial")
_COLLECTIONS = frozenset({"dataset", "train", "test", "humanoid", "take", "clip", "motion"})
"""Words of file names that say nothing of a motion."""


@dataclass(frozen=True)
class Sentence:
    """One sentence about a take, or about a span of it."""

    text: str
    source: str
    """Key under which a file has it, such as `kitml`; "" for none."""
    start_s: float = 0.0
    end_s: float = float("inf")


def name_words(take: str) -> str:
    """The words of a take's name that say what is done: `dataset-2_wave-left-hand_active_025` is "wave left hand active"."""
    words = re.split(r"[\W_]+", take.lower())
    return " ".join(word for word in words if word.isalpha() and word not in _COLLECTIONS)


@dataclass(frozen=True)
class Texts:
    """Sentences by trial, and the trials of takes that have other names."""

    by_trial: Mapping[str, tuple[Sentence, ...]]
    trials: Mapping[str, str]

    def trial_of(self, take: str) -> str:
        """The trial of a take; the take's own name if no file names its trial."""
        return self.trials.get(take, take)

    def sentences(self, take: str) -> tuple[Sentence, ...]:
        """The sentences about a take; empty if there are none."""
        return self.by_trial.get(self.trial_of(take), ())

    def of(self, take: str) -> tuple[str, ...]:
        """The texts about a take; the words of its own name if there are none."""
        return tuple(one.text for one in self.sentences(take)) or (take.replace("_", " "),)


def read_texts(paths: Sequence[str]) -> Texts:
    """Read files of three kinds: JSON of trials with their texts, JSON of takes with their `trial`, and tables of tabs with the
    columns `motion` and `description`.

    In JSON every string, at any depth, is a text, except under the keys `id` and `trial`. An object with `start_20fps` and
    `end_20fps` is about that span, in frames of 1/20 s. Raises UsageError for another file.
    """
    texts: dict[str, list[Sentence]] = {}
    trials: dict[str, str] = {}
    for path in map(Path, paths):
        try:
            content = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise UsageError(f"--texts {path}: {error}; name a readable JSON file or table of tabs") from error
        if path.suffix.lower() == ".tsv":
            for row in csv.DictReader(content.splitlines(), delimiter="\t"):
                if not row.get("motion") or row.get("description") is None:
                    raise UsageError(f"--texts {path}: a row without motion and description: {row}; name these columns")
                texts.setdefault(row["motion"], []).append(Sentence(row["description"], "description"))
            continue
        for name, value in _json_object(path, content).items():
            if isinstance(value, Mapping) and "trial" in value:
                trials[name] = str(value["trial"])
            else:
                texts.setdefault(name, []).extend(_sentences(value))
    return Texts({trial: _without_repeats(found) for trial, found in texts.items()}, trials)


def _json_object(path: Path, content: str) -> Mapping[str, Any]:
    try:
        value = json.loads(content)
    except json.JSONDecodeError as error:
        raise UsageError(f"--texts {path}: {error}; give JSON of trials with their texts") from error
    if not isinstance(value, Mapping):
        raise UsageError(f"--texts {path}: {type(value).__name__}, not an object of trials with their texts")
    return value


def _sentences(value: Any, source: str = "", span: tuple[float, float] = (0.0, float("inf"))) -> list[Sentence]:
    if isinstance(value, str):
        return [Sentence(value, source, *span)]
    if isinstance(value, Mapping):
        if isinstance(value.get("start_20fps"), int) and isinstance(value.get("end_20fps"), int):
            span = value["start_20fps"] / 20, value["end_20fps"] / 20
        return [
            sentence
            for key, one in value.items()
            if key not in _NOT_TEXT
            for sentence in _sentences(one, source or str(key), span)
        ]
    if isinstance(value, Sequence):
        return [sentence for one in value for sentence in _sentences(one, source, span)]
    return []


def _without_repeats(sentences: Sequence[Sentence]) -> tuple[Sentence, ...]:
    """The first sentence of each wording."""
    found: dict[str, Sentence] = {}
    for sentence in sentences:
        found.setdefault(sentence.text, sentence)
    return tuple(found.values())
