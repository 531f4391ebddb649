"""humo bench captions: what the rules say about motion capture whose file names tell what is done.

Motions are read as `humo ingest` reads them: on the body, at 30 frames a second, starting at the origin, long takes in equal
pieces. A take counts as right when everything that its name asks for is among the events of its pieces, nothing that the name
rules out is, and the sentences about the body name the arms that it names and no other.
"""

import os
import platform
import re
import shlex
import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch

from pipeline.benchmarks.labelled_mocap import Expected, expected_of, expected_of_action
from pipeline.benchmarks.side_agreement import told_films
from schemas.body_model import BodyModel
from schemas.devices import torch_threads
from schemas.errors import UsageError
from schemas.ids import digest, source_id
from schemas.kinematics import forward_kinematics
from schemas.records import CaptionedMotion, Captions, Motion, Provenance, ScoredMotion, Source
from schemas.rotations import axis_angle_to_matrix, matrix_to_axis_angle
from schemas.skeleton import CONTACT_POINTS, PARTS, SMPL_JOINTS, mirror_order, swap_sides
from stages.read_mocap import ReadMocap
from stages.synthesis.motions import ACTIONS, generate
from stages.training.lifter.evaluate import pick
from stages.training.lifter.motion_dataset import find_mocap
from stages.training.lifter.random_curves import normal, smooth_curves
from stages.write_captions import WriteCaptions
from stages.write_instructions import WriteInstructions

CLEAN, MIRRORED, NOISY = "as read", "mirrored", "as if recovered"
DEFINITIONS = {
    "right": "share of the takes of a group in which kinds, sides and arms are right",
    "kinds": "share in which every movement that the name asks for is an event, on the side that it names",
    "nothing_wrong": "share in which no event is of a kind that the name rules out",
    "arms": "share of the takes whose name says which arms act in which the body's sentences name these and no other",
    "mirrored_text": "share of motions whose mirror image gets the same text with left and right exchanged, letter by letter",
    "distinct_n": "different sequences of n words over all of them, sentences about the body",
    "distinct_sentences": "different sentences about the body over all of them",
    "parts_described": "share of parts in view of which more is told than that they rest",
    "sides": "share of the captioned films of sided actions that tell the right side: the arms that sentences about the body "
    "name, the legs that they or an event name, for turns and sidesteps the event; `exchanged`: the other side instead; "
    "`both`, `neither`: the rest",
    "sides_of_truth": "the same of the motions that were filmed, through the same rules: what there is to be kept",
    "sides_kept": "share of the films in which these are right whose captions are right",
    "noise_mm": "how far joints lie from where they were, relative to the pelvis, in motions as if recovered",
}
_SHORTEST_S = 0.5
"""Takes that ingestion would leave out as too short are measured too."""
_STUDIO_SEED, _STUDIO_SECONDS = 30_000, 4.0
_VERSIONS = ("torch", "numpy", "scipy")
_SHOWN = 40
_TURN_RAD = {
    "neck": 0.07, "head": 0.07, "collar": 0.035, "shoulder": 0.09, "elbow": 0.09, "wrist": 0.08, "hip": 0.035, "knee": 0.035,
}  # fmt: skip
"""Deviation of the rotation that is put on top of a joint's, radians; `_OTHER_RAD` for the others."""
_OTHER_RAD = 0.025
_LEAN_RAD, _DRIFT_M, _JERK_RAD, _JERK_M = (0.04, 0.04, 0.04), (0.03, 0.03, 0.05), 0.01, 0.005


@dataclass(frozen=True)
class Take:
    """A recording with what its name asks for, if it asks for anything, and the motions that it was cut into."""

    name: str
    expected: Expected | None
    motions: tuple[Motion, ...]


Change = Callable[[Motion], Motion]


def bench(*, mocap: str = "", clips: int = 0, videos: int = 0) -> dict[str, Any]:
    """Accuracy by group for motions as read, mirrored and as if recovered; diversity, lengths and speed (see DEFINITIONS).

    `mocap`: folder or file of motion capture; empty: made-up motions. `clips`: most takes, spread evenly over groups; 0: all.
    `videos`: films of sided actions that go through the whole chain besides.

    Raises UsageError for a folder without motion capture or a number below 0.
    """
    if min(clips, videos) < 0:
        raise UsageError(f"bench captions: --clips {clips} --videos {videos}: give numbers from 0 on; 0 clips are all")
    body = BodyModel.load()
    takes = list(_read(mocap, clips)) if mocap else list(_made_up(clips or 3 * len(ACTIONS), body))
    with torch_threads(1):
        writer, instructor = WriteCaptions(), WriteInstructions()
        writer.setup()
        instructor.setup()
        written, captions_s = _written(takes, writer)
        begin = time.perf_counter()
        instances = sum(len(one.instructions) for motion in written.values() for one in instructor.run(motion))
        instructions_s = time.perf_counter() - begin
        mirrored, _ = _written(takes, writer, mirrored_motion)
        noisy, _ = _written(takes, writer, lambda motion: as_if_recovered(motion, body))
    found = {CLEAN: written, MIRRORED: mirrored, NOISY: noisy}
    accuracy, wrong = {}, {}
    for setting, captioned in found.items():
        accuracy[setting], wrong[setting] = _accuracy(takes, captioned, mirror=setting == MIRRORED)
    films = {"films": _sides_in_films(videos, body)} if videos else {}
    captions = {key: one.captions for key, one in written.items()}
    same = [_swapped(captions[key]) == _sentences(one.captions) for key, one in mirrored.items()]
    motions = [motion for take in takes for motion in take.motions]
    return {
        "command": shlex.join(["humo", *sys.argv[1:]]),
        "machine": f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores",
        "versions": {name: version(name) for name in _VERSIONS} | {"python": platform.python_version()},
        "rules": next(iter(captions.values())).writers["body"],
        "body_model": body.id,
        "motions": f"motion capture, {Path(mocap).name}" if mocap else f"studio, seeds from {_STUDIO_SEED}",
        "definitions": DEFINITIONS,
        "takes": len(takes),
        "pieces": len(motions),
        "accuracy": accuracy,
        "wrong": wrong,
        **films,
        "mirrored_text": float(np.mean(same)),
        "noise_mm": float(np.mean([_moved_mm(motion, body) for motion in motions[:: max(1, len(motions) // 50)]])),
        "text": _text(list(captions.values())),
        "speed": {
            "captions_per_s": len(motions) / captions_s,
            "captions_and_instructions_per_s": len(motions) / (captions_s + instructions_s),
            "seconds_for_1000": 1000 * (captions_s + instructions_s) / len(motions),
            "instructions_per_motion": instances / len(motions),
            "threads": 1,
        },
    }


def _read(mocap: str, clips: int) -> Iterator[Take]:
    folder = Path(mocap)
    files = [folder] if folder.is_file() else find_mocap(folder)
    if not files:
        raise UsageError(f"--mocap {mocap}: holds no motion capture; name a folder or file with some")
    reader = ReadMocap(ReadMocap.Config(min_s=_SHORTEST_S))
    reader.setup()
    for path in pick(files, clips) if clips else files:
        results = reader.run(Source(id=source_id(str(path)), uri=str(path), kind="mocap"))
        motions = tuple(one for one in results if isinstance(one, Motion))
        if motions:
            yield Take(path.stem, expected_of(path.stem), motions)


def _made_up(count: int, body: BodyModel) -> Iterator[Take]:
    for number in range(count):
        action, seed = ACTIONS[number % len(ACTIONS)], _STUDIO_SEED + number // len(ACTIONS)
        made = generate(action, _STUDIO_SECONDS, seed, body=body)
        name = f"{action}-{seed}"
        origin = Provenance(
            source=Source(id=name, uri=name, kind="mocap"), sha256=digest(name, digits=64), person=0, start_s=0.0,
            end_s=_STUDIO_SECONDS, source_fps=made.fps,
        )  # fmt: skip
        motion = Motion(
            provenance=origin,
            footage=None,
            poses=matrix_to_axis_angle(made.rotations).numpy(),
            trans=made.trans.numpy(),
            betas=made.betas.numpy(),
            contacts=made.contacts.numpy().astype(np.uint8),
            joint_confidence=np.ones((len(made), len(SMPL_JOINTS)), np.float32),
            to_source=np.eye(4),
            body_model=body.id,
            models={},
        )
        yield Take(name, expected_of_action(action), (motion,))


def _written(
    takes: Sequence[Take], writer: WriteCaptions, change: Change = lambda motion: motion
) -> tuple[dict[str, CaptionedMotion], float]:
    """Captions by the motion's id, and the seconds that writing them took."""
    found: dict[str, CaptionedMotion] = {}
    seconds = 0.0
    for take in takes:
        for motion in take.motions:
            record = ScoredMotion(motion=change(motion), scores={})
            begin = time.perf_counter()
            (found[motion.id],) = writer.run(record)
            seconds += time.perf_counter() - begin
    return found, seconds


def mirrored_motion(motion: Motion) -> Motion:
    """Left and right exchanged; the id stays, so that the same wordings are drawn."""
    order = list(mirror_order(SMPL_JOINTS))
    return replace(
        motion,
        poses=motion.poses[:, order] * np.array([1.0, -1.0, -1.0], motion.poses.dtype),
        trans=motion.trans * np.array([-1.0, 1.0, 1.0], motion.trans.dtype),
        contacts=motion.contacts[:, list(mirror_order(CONTACT_POINTS))],
        joint_confidence=motion.joint_confidence[:, order],
    )


def as_if_recovered(motion: Motion, body: BodyModel) -> Motion:
    """With errors like those of a fit to a video: joints wander by some centimetres, the body leans, floats and sinks, and
    everything trembles a little. The motion's id is the seed."""
    generator = torch.Generator().manual_seed(int(digest("recovered", motion.id, digits=12), 16))
    frames = len(motion.trans)
    waves = max(2, round(frames / 20))
    deviation = torch.tensor([_TURN_RAD.get(name.split("_")[-1], _OTHER_RAD) for name in SMPL_JOINTS])
    turns = smooth_curves((len(SMPL_JOINTS), 3), frames, waves, generator).permute(2, 0, 1) * deviation[:, None]
    turns = turns + _JERK_RAD * normal((frames, len(SMPL_JOINTS), 3), generator)
    rotations = axis_angle_to_matrix(torch.from_numpy(motion.poses).float()) @ axis_angle_to_matrix(turns)
    lean = smooth_curves((3,), frames, waves, generator).T * torch.tensor(_LEAN_RAD)
    rotations[:, 0] = axis_angle_to_matrix(lean) @ rotations[:, 0]
    drift = smooth_curves((3,), frames, waves, generator).T * torch.tensor(_DRIFT_M)
    path = motion.trans + (drift + _JERK_M * normal((frames, 3), generator)).numpy()
    return replace(motion, poses=matrix_to_axis_angle(rotations).numpy(), trans=path.astype(np.float32))


def _moved_mm(motion: Motion, body: BodyModel) -> float:
    """Mean distance of the joints of a motion as if recovered from those that it has, relative to the pelvis."""
    rest = body.rest_joints(torch.from_numpy(np.asarray(motion.betas, np.float32)))
    places = []
    for one in (motion, as_if_recovered(motion, body)):
        turns = axis_angle_to_matrix(torch.from_numpy(np.asarray(one.poses, np.float32)))
        places.append(forward_kinematics(turns, rest, torch.zeros(len(turns), 3))[0])
    return 1000 * float((places[0] - places[1]).norm(dim=-1).mean())


def _accuracy(
    takes: Sequence[Take], captioned: Mapping[str, CaptionedMotion], *, mirror: bool
) -> tuple[dict[str, dict[str, float]], list[str]]:
    """Figures by group, and the first takes that are not right with what is amiss."""
    rows: dict[str, list[dict[str, float]]] = defaultdict(list)
    wrong = []
    for take in takes:
        if take.expected is None:
            continue
        expected = take.expected.mirrored() if mirror else take.expected
        row, amiss = _judge(expected, [captioned[motion.id].captions for motion in take.motions])
        rows[expected.group].append(row)
        if amiss:
            wrong.append(f"{take.name}: {'; '.join(amiss)}")
    figures = {}
    for group, members in sorted(rows.items()):
        names = dict.fromkeys(name for row in members for name in row)
        figures[group] = {"takes": float(len(members))} | {
            name: float(np.mean([row[name] for row in members if name in row])) for name in names
        }
    return figures, wrong[:_SHOWN]


def _judge(expected: Expected, pieces: Sequence[Captions]) -> tuple[dict[str, float], list[str]]:
    """One take: 1 or 0 by name of the figure, and in words what is amiss."""
    kinds = {
        kind for captions in pieces for event in captions.events for kind in _names(event.part, event.kind, event.side)
    }
    missing = [" or ".join(sorted(some)) for some in expected.kinds if not some & kinds]
    amiss = [f"no {kind}" for kind in missing] + [f"has {kind}" for kind in sorted(expected.never & kinds)]
    row = {"kinds": float(not missing), "nothing_wrong": float(not expected.never & kinds)}
    if expected.arms:
        named = arms_named(" ".join(sentence for captions in pieces for sentence in captions.body))
        row["arms"] = float(named == expected.arms)
        amiss += [] if named == expected.arms else [f"names {', '.join(sorted(named)) or 'no arm'}"]
    return {"right": float(not amiss), **row}, amiss


def _sides_in_films(count: int, body: BodyModel) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as work:
        found = list(told_films(count, Path(work), body))
    told = [(one, told_side(one.expected, one.captions)) for one in found if one.captions]
    of_truth = [told_side(one.expected, one.of_truth) for one, _ in told]

    def share(sides: Sequence[str], wanted: str) -> float:
        return sum(side == wanted for side in sides) / max(1, len(sides))

    sides = [side for _, side in told]
    return {
        "films": float(len(found)),
        "captioned": float(len(told)),
        "sides": share(sides, "right"),
        **{name: share(sides, name) for name in ("exchanged", "both", "neither")},
        "sides_of_truth": share(of_truth, "right"),
        "sides_kept": share([side for side, true in zip(sides, of_truth, strict=True) if true == "right"], "right"),
        "wrong": [f"{one.name}: {side}: {' '.join(one.captions[0].body[:1])}" for one, side in told if side != "right"],
    }


def told_side(expected: Expected, pieces: Sequence[Captions]) -> str:
    """Whether captions tell the side that is expected and no other (`right`), the other one (`exchanged`), both or neither."""
    sided, turned = (frozenset().union(*one.kinds) for one in (expected, expected.mirrored()))
    kinds = {kind for one in pieces for event in one.events for kind in _names(event.part, event.kind, event.side)}
    asked = {kind.split(":")[1] for kind in sided if ":" in kind}
    if asked:
        said = " ".join(sentence for one in pieces for sentence in one.body)
        if any(limb.endswith("_arm") for limb in asked):
            named = arms_named(said)
        else:
            named = legs_named(said) | {kind.split(":")[1] for kind in kinds & (sided | turned)}
        right, other = bool(named & asked), bool(named - asked)
    else:
        right, other = bool((sided - turned) & kinds), bool((turned - sided) & kinds)
    if right == other:
        return "both" if right else "neither"
    return "right" if right else "exchanged"


def _names(part: str, kind: str, side: str) -> tuple[str, ...]:
    """What an `Expected` may call an event."""
    if part != "body":
        return (f"{kind}:{part}",)
    return (kind, f"{kind}>{side}") if side in ("left", "right") else (kind,)


def arms_named(text: str) -> frozenset[str]:
    """The arms that sentences speak of."""
    return _limbs_named(text, "arm", "arms?|hands?|fists?|elbows?")


def legs_named(text: str) -> frozenset[str]:
    """The legs that sentences speak of."""
    return _limbs_named(text, "leg", "legs?|foot|feet|knees?")


def _limbs_named(text: str, limb: str, words: str) -> frozenset[str]:
    found = re.findall(rf"\b(left|right|both) (?:{words})\b", text)
    sides = {side for word in found for side in (("left", "right") if word == "both" else (word,))}
    return frozenset(f"{side}_{limb}" for side in sides)


def _sentences(captions: Captions) -> tuple[Any, ...]:
    return captions.body, dict(captions.parts), tuple(sorted(event.text for event in captions.events))


def _swapped(captions: Captions) -> tuple[Any, ...]:
    """The sentences of a motion's mirror image, if the rules know no left and right."""

    def swap(text: str) -> str:
        return re.sub(r"\b(left|right)\b", lambda side: "left" if side[0] == "right" else "right", text)

    body, parts, events = _sentences(captions)
    other = {swap_sides(part): tuple(map(swap, sentences)) for part, sentences in parts.items()}
    return tuple(map(swap, body)), other, tuple(sorted(map(swap, events)))


def _text(captions: Sequence[Captions]) -> dict[str, float]:
    body = [sentence for one in captions for sentence in one.body]
    words = [re.findall(r"[a-z0-9.]*[a-z0-9]", sentence.lower()) for sentence in body]
    distinct = {}
    for n in (1, 2, 3):
        grams = Counter(tuple(some[i : i + n]) for some in words for i in range(len(some) - n + 1))
        distinct[f"distinct_{n}"] = len(grams) / max(1, grams.total())
    rests = {(i, event.part) for i, one in enumerate(captions) for event in one.events if event.kind == "rest"}
    return {
        **distinct,
        "distinct_sentences": len(set(body)) / len(body),
        "different_words": float(len({word for some in words for word in some})),
        "words_short": _mean_words([one.body[0] for one in captions]),
        "words_long": _mean_words([one.body[-1] for one in captions]),
        "lengths_per_motion": len(body) / len(captions),
        "words_part": _mean_words([some[-1] for one in captions for some in one.parts.values()]),
        "events_per_motion": float(np.mean([len(one.events) for one in captions])),
        "parts_described": 1 - len(rests) / (len(captions) * len(PARTS)),
    }


def _mean_words(sentences: Sequence[str]) -> float:
    return float(np.mean([len(sentence.split()) for sentence in sentences]))


def bench_text(found: Mapping[str, Any]) -> str:
    """The figures for a terminal; what is wrong is in the JSON."""
    settings = list(found["accuracy"])
    lines = [
        f"{found['motions']}: {found['takes']} takes, {found['pieces']} motions; {found['rules']}; {found['machine']}",
        "",
    ]
    lines.append(f"{'takes right':28}{'takes':>7}" + "".join(f"{setting:>18}" for setting in settings))
    for group, row in found["accuracy"][CLEAN].items():
        shares = "".join(f"{found['accuracy'][setting][group]['right']:>18.1%}" for setting in settings)
        lines.append(f"{group:28}{row['takes']:7.0f}{shares}")
    if "films" in found:
        films = found["films"]
        lines += [
            "",
            f"sides in {films['captioned']:.0f} films: right {films['sides']:.1%}, exchanged {films['exchanged']:.1%}, both "
            f"{films['both']:.1%}, neither {films['neither']:.1%}; of the true motions right {films['sides_of_truth']:.1%}, kept "
            f"{films['sides_kept']:.1%}",
        ]
    text, speed = found["text"], found["speed"]
    return "\n".join(
        [
            *lines,
            "",
            f"mirrored text is the mirrored text: {found['mirrored_text']:.2%} of motions; as if recovered: joints "
            f"{found['noise_mm']:.0f} mm off",
            f"distinct 1-, 2-, 3-grams {text['distinct_1']:.4f}, {text['distinct_2']:.4f}, {text['distinct_3']:.4f}; distinct "
            f"sentences {text['distinct_sentences']:.1%}; {text['different_words']:.0f} different words",
            f"words: short {text['words_short']:.1f}, long {text['words_long']:.1f}, a part {text['words_part']:.1f}",
            f"events a motion {text['events_per_motion']:.1f}; parts not merely at rest {text['parts_described']:.1%}",
            f"motions/s on one thread: captions {speed['captions_per_s']:.1f}, captions and instructions "
            f"{speed['captions_and_instructions_per_s']:.1f} (1,000 in {speed['seconds_for_1000']:.0f} s)",
        ]
    )
