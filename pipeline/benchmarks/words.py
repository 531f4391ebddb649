"""humo bench words: whether what a dataset says of real people is true, by labels of what an observer saw.

A label points at a person in a video: `video`, `at_s`, the `size` of the picture in pixels, and a point `x`, `y` inside the
person's box as shares of it. `must` holds lists of kinds of events of which one each has to be told, `never` kinds that must not
be told, `unseen` the parts that cannot be seen, and `keep` says that the person has to be in the data. Kinds are those of the
rules' events; PART:KIND names the part too.
"""

import json
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from schemas.dataset import iterate_samples
from schemas.errors import UsageError
from schemas.records import FPS
from schemas.sample import decode_npz
from schemas.skeleton import PARTS
from schemas.storage import Storage

DEFINITIONS = {
    "kept": "labels whose person is in the data at that time",
    "false": "kept labels of whose person something untrue is told: an event or a word of a kind under `never`, an event, a "
    "sentence or an instruction about a part that cannot be seen, or, where no leg can be seen, of what legs do",
    "missing": "labels without a kind under `must`, and those under `keep` whose person is not in the data",
    "movements": "events, except rest and standing, told of a kept label's person: silence is no truth",
}
_WORDS = {
    "stand": ("stand", "stays on the spot", "stays in place", "feet stay"),
    "bow": (" bow", "bends forward from the hips"),
    "squat": ("squat", "crouch"),
    "sit": (" sit", "seated"),
    "walk_backward": ("backward",),
    "sidestep_left": ("sidestep", "steps sideways"),
    "sidestep_right": ("sidestep", "steps sideways"),
    "walk": (" walk",),
    "run": (" run",),
    "jump": ("jump", "leap", "hop"),
    "lie": (" lie", " lying"),
    "crawl": ("crawl",),
}
"""Words that state a kind in a sentence about the body."""
_OF_LEGS = frozenset(
    {
        "stand",
        "bow",
        "squat",
        "sit",
        "walk",
        "walk_backward",
        "sidestep_left",
        "sidestep_right",
        "run",
        "jump",
        "kick",
        "step",
    }
)
"""Kinds that nobody can see without legs."""
_LEGS = frozenset({"left_leg", "right_leg"})
_HIDDEN = ("out of view", "not seen", "unseen", "hidden", "cannot be seen", "out of sight")
_QUIET = ("rest", "stand")
_SLACK_S = 0.05
"""Time before the start and after the end of a sample within which a label still belongs to it."""


@dataclass(frozen=True, kw_only=True)
class Label:
    """What an observer saw of a person."""

    video: str
    size: tuple[float, float]
    at_s: float
    x: float
    y: float
    must: tuple[frozenset[str], ...]
    never: frozenset[str]
    unseen: frozenset[str]
    keep: bool


@dataclass(frozen=True, kw_only=True)
class Told:
    """A sample's words: its events by part, and its sentences."""

    key: str
    uri: str
    start_s: float
    end_s: float
    boxes: np.ndarray
    events: tuple[tuple[str, str], ...]
    """Part and kind."""
    body: tuple[str, ...]
    parts: Mapping[str, tuple[str, ...]]
    instructions: tuple[tuple[str, frozenset[str]], ...]
    """Task and the parts that it is about."""


def bench(dataset: str, labels: str) -> dict[str, Any]:
    """Judge a dataset by the labels of a JSON file.

    Raises UsageError for a file that holds no labels, and HumoError for a folder that is no dataset.
    """
    wanted = read_labels(Path(labels))
    told: dict[str, list[Told]] = defaultdict(list)
    names = {label.video for label in wanted}
    for sample in _samples(dataset):
        for name in names:
            if name in sample.uri:
                told[name].append(sample)
    rows = [judge(label, told[label.video]) for label in wanted]
    kept = [row for row in rows if row["kept"]]
    return {
        "dataset": dataset,
        "definitions": DEFINITIONS,
        "labels": len(rows),
        "kept": len(kept),
        "false": sum(bool(row["false"]) for row in rows),
        "missing": sum(bool(row["missing"]) for row in rows),
        "movements": float(np.mean([row["movements"] for row in kept])) if kept else 0.0,
        "rows": rows,
    }


def read_labels(path: Path) -> list[Label]:
    """The labels under `labels` of a JSON file. Raises UsageError with the label that is not one, or the file."""
    try:
        rows = json.loads(path.read_text(encoding="utf-8"))["labels"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UsageError(f"{path}: {error}; give JSON with a list of `labels`") from error
    if not isinstance(rows, list) or not rows:
        raise UsageError(f"{path}: no labels under `labels`; list at least one")
    return [_label(path, number, row) for number, row in enumerate(rows)]


def _label(path: Path, number: int, row: Any) -> Label:
    try:
        width, height = row["size"]
        label = Label(
            video=str(row["video"]), size=(float(width), float(height)), at_s=float(row["at_s"]), x=float(row["x"]),
            y=float(row["y"]), must=tuple(frozenset(kinds) for kinds in row.get("must", ())),
            never=frozenset(row.get("never", ())), unseen=frozenset(row.get("unseen", ())), keep=bool(row.get("keep")),
        )  # fmt: skip
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise UsageError(f"{path}: label {number}: {error!r}; give video, size, at_s, x and y") from error
    if label.unseen - set(PARTS):
        raise UsageError(
            f"{path}: label {number}: unseen {sorted(label.unseen - set(PARTS))}; parts are {', '.join(PARTS)}"
        )
    return label


def _samples(dataset: str) -> Iterator[Told]:
    """The live samples with boxes: those from videos."""
    for _, key, members in iterate_samples(Storage(dataset)):
        if "keypoints.npz" not in members:
            continue
        meta, text = json.loads(members["meta.json"]), json.loads(members["text.json"])
        instances = json.loads(members["instructions.json"])["instances"]
        yield Told(
            key=key, uri=meta["uri"], start_s=meta["start_s"], end_s=meta["end_s"],
            boxes=decode_npz(members["keypoints.npz"])["boxes"],
            events=tuple((event["part"], event["kind"]) for event in text["rules"]), body=tuple(text["body"]),
            parts={part: tuple(sentences) for part, sentences in text["parts"].items()},
            instructions=tuple((one["task"], frozenset(one["parts"])) for one in instances),
        )  # fmt: skip


def judge(label: Label, samples: Sequence[Told]) -> dict[str, Any]:
    """What is false and what is missing of a label; among overlapping people the smallest box is meant."""
    row: dict[str, Any] = {
        "video": label.video,
        "at_s": label.at_s,
        "kept": False,
        "false": [],
        "missing": [],
        "movements": 0,
    }
    found = [(_area(box), sample.key, sample) for sample in samples if (box := _box_at(label, sample)) is not None]
    if not found:
        return row | {"missing": ["person"] if label.keep else []}
    sample = min(found, key=lambda one: one[:2])[2]
    return row | {
        "kept": True,
        "key": sample.key,
        "false": _untrue(label, sample),
        "missing": [" or ".join(sorted(kinds)) for kinds in label.must if not kinds & _names(sample)],
        "movements": sum(kind not in _QUIET for _, kind in sample.events),
        "told": sample.body[-1] if sample.body else "",
    }


def _box_at(label: Label, sample: Told) -> np.ndarray | None:
    """The person's box at the label's time, if the label's point lies in it."""
    at_s = label.at_s - sample.start_s
    if not len(sample.boxes) or not -_SLACK_S <= at_s <= sample.end_s - sample.start_s + _SLACK_S:
        return None
    left, top, right, bottom = box = sample.boxes[min(max(round(at_s * FPS), 0), len(sample.boxes) - 1)]
    x, y = label.x * label.size[0], label.y * label.size[1]
    return box if left <= x <= right and top <= y <= bottom else None


def _area(box: np.ndarray) -> float:
    return float((box[2] - box[0]) * (box[3] - box[1]))


def _names(sample: Told) -> set[str]:
    return {name for part, kind in sample.events for name in (kind, f"{part}:{kind}")}


def _untrue(label: Label, sample: Told) -> list[str]:
    said = " ".join(["", *sample.body]).lower()
    never = label.never | (_OF_LEGS if label.unseen >= _LEGS else frozenset())
    names = _names(sample)
    bad = {kind for kind in never if kind in names or any(words in said for words in _WORDS.get(kind, ()))}
    bad |= {f"{part}:{kind}" for part, kind in sample.events if part in label.unseen}
    bad |= {f"instruction:{task}" for task, parts in sample.instructions if parts and parts <= label.unseen}
    for part in label.unseen:
        if any(not any(words in sentence.lower() for words in _HIDDEN) for sentence in sample.parts.get(part, ())):
            bad.add(f"{part}:sentence")
    return sorted(bad)


def bench_text(report: Mapping[str, Any]) -> str:
    """A line for each label, and the totals."""
    lines = []
    for row in report["rows"]:
        verdict = f"FALSE {', '.join(row['false'])}" if row["false"] else "true" if row["kept"] else "not in the data"
        missing = f"; MISSING {', '.join(row['missing'])}" if row["missing"] else ""
        lines.append(f"{row['video']:36.36} {row['at_s']:6.1f} s  {verdict}{missing}")
        if row.get("told"):
            lines.append(f"{'':48}{row['told'][:110]}")
    lines.append(
        f"labels {report['labels']}, kept {report['kept']}, false {report['false']}, missing {report['missing']}, movements "
        f"{report['movements']:.1f}"
    )
    return "\n".join(lines)
