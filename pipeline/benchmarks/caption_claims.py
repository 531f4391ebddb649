"""humo bench captions --texts: what the rules claim about motion capture, against what people wrote about it.

A claim is an event of a kind that a text can rule out (see `human_texts`). It is false if no word about its take states or allows
its kind. The recall of a kind is the share of the takes whose texts state it that have an event of it.
"""

import os
import platform
import shlex
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.benchmarks.human_texts import JUDGED, Told, told_by
from schemas.devices import torch_threads
from schemas.errors import UsageError
from schemas.human_texts import Texts, read_texts
from schemas.ids import digest, source_id
from schemas.records import Event, Motion, ScoredMotion, Source
from stages.read_mocap import ReadMocap
from stages.training.lifter.motion_dataset import find_mocap
from stages.write_captions import WriteCaptions

HALVES = ("development", "held_back", "both")
GROUP_TAKES = 24
"""Most takes of a group in both halves together, so that walks do not outnumber everything else."""
DEFINITIONS = {
    "takes": f"one take a trial and recording, at most {GROUP_TAKES} of a group, those with the lowest hash of the trial's name; "
    "the next bit of the hash chooses the half",
    "claims": "events of kinds that a text can rule out: " + ", ".join(sorted(JUDGED)),
    "false": "claims of a kind that no word about the take states or allows",
    "recall": "share of the takes whose texts state a kind (or one of several) that have an event of it",
}
_MIN_TAKE_S = 0.5
"""Takes that ingestion would reject as too short are measured too."""
_SAME_RAD = 0.02
"""Mean difference of the poses, per axis, below which two takes of one length are the same recording."""
_MAX_LISTED = 60


@dataclass(frozen=True)
class ToldTake:
    """A take, what its texts say, and its motions."""

    name: str
    told: Told
    motions: tuple[Motion, ...]


def bench(*, mocap: str, texts: Sequence[str], half: str = "development") -> dict[str, Any]:
    """Claims, false claims by kind and group, and recall by kind (see DEFINITIONS).

    Raises UsageError for an unknown half, unreadable texts, and a folder without motion capture of which people wrote.
    """
    if half not in HALVES:
        raise UsageError(f"bench captions: --half {half}: choose {', '.join(HALVES[:-1])} or {HALVES[-1]}")
    if not mocap:
        raise UsageError(
            "bench captions: --texts without --mocap: name the folder of the motion capture that they are about"
        )
    takes = list(_read(mocap, read_texts(texts), half))
    if not takes:
        raise UsageError(
            f"--mocap {mocap}: no take whose trial or name has words of which the {half} half could be made"
        )
    start = time.perf_counter()
    with torch_threads(1):
        writer = WriteCaptions()
        writer.setup()
        written = {take.name: _events(take, writer) for take in takes}
    return {
        "command": shlex.join(["humo", *sys.argv[1:]]),
        "machine": f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores",
        "definitions": DEFINITIONS,
        "motions": Path(mocap).name,
        "half": half,
        "rules": next(iter(written.values()))[1],
        "minutes": sum(len(motion.trans) for take in takes for motion in take.motions) / 30 / 60,
        "caption_s": time.perf_counter() - start,
        **judged(takes, {name: events for name, (events, _) in written.items()}),
    }


def judged(takes: Sequence[ToldTake], events: Mapping[str, Sequence[Event]]) -> dict[str, Any]:
    """Claims and recall of captions by take's name."""
    claims: Counter[str] = Counter()
    false: Counter[str] = Counter()
    groups: dict[str, Counter[str]] = defaultdict(Counter)
    stated: dict[str, list[bool]] = defaultdict(list)
    listed = []
    for take in takes:
        kinds = [kind for kind in map(kind_of, events[take.name]) if kind in JUDGED]
        wrong = [kind for kind in kinds if kind in take.told.ruled_out]
        claims.update(kinds)
        false.update(wrong)
        groups[take.told.group].update({"takes": 1, "claims": len(kinds), "false": len(wrong)})
        if wrong:
            listed.append(
                f"{take.name} ({take.told.group}): {', '.join(f'{k} {n}' for k, n in Counter(wrong).items())}"
            )
        for alternatives in take.told.must:
            stated[" or ".join(sorted(alternatives))].append(bool(alternatives & set(kinds)))
    return {
        "takes": len(takes),
        "claims": claims.total(),
        "false": false.total(),
        "false_share": false.total() / max(1, claims.total()),
        "kinds": {kind: {"claims": number, "false": false[kind]} for kind, number in sorted(claims.items())},
        "groups": {group: dict(row) for group, row in sorted(groups.items())},
        "recall": {
            kind: {"takes": len(found), "recall": float(np.mean(found))} for kind, found in sorted(stated.items())
        },
        "wrong": listed[:_MAX_LISTED],
    }


def kind_of(event: Event) -> str:
    """An event's kind as texts name it: a sidestep to either side is one kind."""
    return "sidestep" if event.kind.startswith("sidestep") else event.kind


def _events(take: ToldTake, writer: WriteCaptions) -> tuple[list[Event], str]:
    """The events of all pieces of a take, and the rules that found them."""
    captions = [
        captioned.captions
        for motion in take.motions
        for captioned in writer.run(ScoredMotion(motion=motion, scores={}))
    ]
    return [event for one in captions for event in one.events], captions[0].writers["events"]


def chosen(files: Iterable[Path], texts: Texts) -> list[tuple[Path, Told]]:
    """One file for each trial with words of the vocabulary, in the order of the hash of the trial's name."""
    by_trial: dict[str, tuple[Path, Told]] = {}
    for path in sorted(files, key=lambda path: (path.stem != texts.trial_of(path.stem), str(path))):
        told = told_by(texts.of(path.stem))
        if told:
            by_trial.setdefault(texts.trial_of(path.stem), (path, told))
    return [by_trial[trial] for trial in sorted(by_trial, key=_hash)]


def in_half(trial: str, half: str) -> bool:
    """Whether a trial belongs to a half: the parity of its hash."""
    return half == "both" or (int(_hash(trial), 16) % 2 == 0) == (half == "development")


def _hash(trial: str) -> str:
    return digest("caption claims", trial, digits=12)


def _read(mocap: str, texts: Texts, half: str) -> Iterator[ToldTake]:
    """Takes of a half, without second copies of a recording; the group's limit holds for both halves together."""
    reader = ReadMocap(ReadMocap.Config(min_s=_MIN_TAKE_S))
    reader.setup()
    folder = Path(mocap)
    counts: Counter[str] = Counter()
    kept: list[tuple[Motion, ...]] = []
    for path, told in chosen([folder] if folder.is_file() else find_mocap(folder), texts):
        if counts[told.group] == GROUP_TAKES:
            continue
        results = reader.run(Source(id=source_id(str(path)), uri=str(path), kind="mocap"))
        motions = tuple(one for one in results if isinstance(one, Motion))
        if not motions or any(_same(motions, other) for other in kept):
            continue
        kept.append(motions)
        counts[told.group] += 1
        if in_half(texts.trial_of(path.stem), half):
            yield ToldTake(path.stem, told, motions)


def _same(one: Sequence[Motion], other: Sequence[Motion]) -> bool:
    """Whether two takes are one recording: equally long, with nearly equal poses."""
    if [len(motion.trans) for motion in one] != [len(motion.trans) for motion in other]:
        return False
    differences = [np.abs(a.poses[:, 3:] - b.poses[:, 3:]).mean() for a, b in zip(one, other, strict=True)]
    return float(np.mean(differences)) < _SAME_RAD


def bench_text(report: Mapping[str, Any]) -> str:
    """The results for a terminal."""
    recall = report["recall"]
    lines = [
        f"{report['motions']}, {report['half']}: {report['takes']} takes, {report['minutes']:.0f} minutes; {report['rules']}",
        f"claims {report['claims']}, false {report['false']} ({report['false_share']:.1%})",
        "",
        f"{'kind':16}{'claims':>8}{'false':>8}",
        *(f"{kind:16}{row['claims']:8}{row['false']:8}" for kind, row in report["kinds"].items()),
        "",
        f"{'texts about':16}{'takes':>8}{'claims':>8}{'false':>8}",
        *(
            f"{group:16}{row['takes']:8}{row['claims']:8}{row['false']:8}" for group, row in report["groups"].items()
        ),
        "",
        f"{'stated kind':32}{'takes':>8}{'recall':>8}",
        *(f"{kind:32}{row['takes']:8}{row['recall']:8.0%}" for kind, row in recall.items()),
    ]  # fmt: skip
    return "\n".join(lines)
