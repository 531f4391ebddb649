"""humo bench captions: rule-based captions against motion capture whose file names describe the action.

Motions are read as by `humo ingest`: on the body, at 30 frames per second, starting at the origin, long takes in equal pieces. A
take counts as right if its pieces have every event that its name implies and none that the name rules out, and if the sentences
about the body name the expected arms and no others.
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
from pipeline.benchmarks.side_agreement import caption_films
from schemas.body_model import BodyModel
from schemas.coverage import mirror_seen
from schemas.devices import torch_threads
from schemas.errors import UsageError
from schemas.ids import digest, source_id
from schemas.kinematics import forward_kinematics
from schemas.records import CaptionedMotion, Captions, Motion, Provenance, ScoredMotion, Source
from schemas.rotations import axis_angle_to_matrix, matrix_to_axis_angle
from schemas.skeleton import CONTACT_POINTS, PARTS, SMPL_JOINTS, mirror_order, swap_sides
from stages.read_mocap import ReadMocap
from stages.synthesis.motions import ACTIONS, generate
from stages.training.lifter.evaluate import pick_evenly
from stages.training.lifter.motion_dataset import find_mocap
from stages.training.lifter.random_curves import normal, smooth_curves
from stages.write_captions import WriteCaptions
from stages.write_instructions import WriteInstructions

CLEAN, MIRRORED, NOISY = "as read", "mirrored", "as if recovered"
DEFINITIONS = {
    "right": "share of a group's takes in which kinds, sides and arms are right",
    "kinds": "share in which every movement that the name implies is an event, on the side that it names",
    "nothing_wrong": "share in which no event is of a kind that the name rules out",
    "arms": "share, of the takes whose name gives the arms, in which the body's sentences name these and no others",
    "mirrored_text": "share of motions whose mirror image gets exactly the same text with left and right exchanged",
    "distinct_n": "distinct n-grams over all n-grams, sentences about the body",
    "distinct_sentences": "distinct sentences about the body over all of them",
    "parts_described": "share of visible parts with an event other than rest",
    "sides": "share of the captioned films of sided actions that state the right side: the arms that sentences about the body "
    "name, the legs that they or an event name, for turns and sidesteps the event; `exchanged`: the other side instead; "
    "`both`, `neither`: the rest",
    "sides_of_truth": "the same for the captions of the ground-truth motions: an upper bound",
    "sides_kept": "share, of the films whose ground-truth captions are right, whose captions are right",
    "noise_mm": "mean error of joint positions, relative to the pelvis, in motions as if recovered",
}
_MIN_TAKE_S = 0.5
"""Takes that ingestion would reject as too short are measured too."""
_STUDIO_SEED, _STUDIO_SECONDS = 30_000, 4.0
_VERSIONS = ("torch", "numpy", "scipy")
_MAX_LISTED = 40
_ROTATION_NOISE_RAD = {
    "neck": 0.07, "head": 0.07, "collar": 0.035, "shoulder": 0.09, "elbow": 0.09, "wrist": 0.08, "hip": 0.035, "knee": 0.035,
}  # fmt: skip
"""Standard deviation of the rotation that is applied to a joint, radians; `_OTHER_ROTATION_NOISE_RAD` for the other joints."""
_OTHER_ROTATION_NOISE_RAD = 0.025
_LEAN_RAD, _DRIFT_M, _JITTER_RAD, _JITTER_M = (0.04, 0.04, 0.04), (0.03, 0.03, 0.05), 0.01, 0.005


@dataclass(frozen=True)
class Take:
    """A recording with the expectation from its name, if there is one, and its motions."""

    name: str
    expected: Expected | None
    motions: tuple[Motion, ...]


Transform = Callable[[Motion], Motion]


def bench(*, mocap: str = "", clips: int = 0, videos: int = 0) -> dict[str, Any]:
    """Accuracy by group for motions as read, mirrored and as if recovered; diversity, lengths and speed (see DEFINITIONS).

    `mocap`: folder or file of motion capture; empty: synthetic motions. `clips`: maximum number of takes, spread evenly over
    groups; 0: all. `videos`: number of films of sided actions that go through the whole chain.

    Raises UsageError for a folder without motion capture or a negative number.
    """
    if min(clips, videos) < 0:
        raise UsageError(
            f"bench captions: --clips {clips} --videos {videos}: give numbers of at least 0; 0 clips are all"
        )
    body = BodyModel.load()
    takes = list(_read(mocap, clips)) if mocap else list(_synthetic_takes(clips or 3 * len(ACTIONS), body))
    with torch_threads(1):
        writer, instructor = WriteCaptions(), WriteInstructions()
        writer.setup()
        instructor.setup()
        written, captions_s = _caption_takes(takes, writer)
        start = time.perf_counter()
        instances = sum(len(record.instructions) for motion in written.values() for record in instructor.run(motion))
        instructions_s = time.perf_counter() - start
        mirrored, _ = _caption_takes(takes, writer, mirrored_motion)
        noisy, _ = _caption_takes(takes, writer, lambda motion: add_recovery_noise(motion, body))
    captioned_by_setting = {CLEAN: written, MIRRORED: mirrored, NOISY: noisy}
    accuracy, wrong = {}, {}
    for setting, captioned in captioned_by_setting.items():
        accuracy[setting], wrong[setting] = _accuracy(takes, captioned, mirror=setting == MIRRORED)
    films = {"films": _sides_in_films(videos, body)} if videos else {}
    captions = {key: record.captions for key, record in written.items()}
    matching = [_swapped(captions[key]) == _sentences(record.captions) for key, record in mirrored.items()]
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
        "mirrored_text": float(np.mean(matching)),
        "noise_mm": float(np.mean([_noise_mm(motion, body) for motion in motions[:: max(1, len(motions) // 50)]])),
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
        raise UsageError(f"--mocap {mocap}: holds no motion capture; name a folder or file that does")
    reader = ReadMocap(ReadMocap.Config(min_s=_MIN_TAKE_S))
    reader.setup()
    for path in pick_evenly(files, clips) if clips else files:
        results = reader.run(Source(id=source_id(str(path)), uri=str(path), kind="mocap"))
        motions = tuple(one for one in results if isinstance(one, Motion))
        if motions:
            yield Take(path.stem, expected_of(path.stem), motions)


def _synthetic_takes(count: int, body: BodyModel) -> Iterator[Take]:
    for number in range(count):
        action, seed = ACTIONS[number % len(ACTIONS)], _STUDIO_SEED + number // len(ACTIONS)
        labelled = generate(action, _STUDIO_SECONDS, seed, body=body)
        name = f"{action}-{seed}"
        origin = Provenance(
            source=Source(id=name, uri=name, kind="mocap"), sha256=digest(name, digits=64), person=0, start_s=0.0,
            end_s=_STUDIO_SECONDS, source_fps=labelled.fps,
        )  # fmt: skip
        motion = Motion(
            provenance=origin,
            footage=None,
            poses=matrix_to_axis_angle(labelled.rotations).numpy(),
            trans=labelled.trans.numpy(),
            betas=labelled.betas.numpy(),
            contacts=labelled.contacts.numpy().astype(np.uint8),
            joint_confidence=np.ones((len(labelled), len(SMPL_JOINTS)), np.float32),
            to_source=np.eye(4),
            body_model=body.id,
            models={},
        )
        yield Take(name, expected_of_action(action), (motion,))


def _caption_takes(
    takes: Sequence[Take], writer: WriteCaptions, transform: Transform = lambda motion: motion
) -> tuple[dict[str, CaptionedMotion], float]:
    """Captions by motion id, and the seconds that writing them took."""
    captioned: dict[str, CaptionedMotion] = {}
    seconds = 0.0
    for take in takes:
        for motion in take.motions:
            record = ScoredMotion(motion=transform(motion), scores={})
            start = time.perf_counter()
            (captioned[motion.id],) = writer.run(record)
            seconds += time.perf_counter() - start
    return captioned, seconds


def mirrored_motion(motion: Motion) -> Motion:
    """Left and right exchanged; the id stays, so that the same wordings are drawn."""
    order = list(mirror_order(SMPL_JOINTS))
    return replace(
        motion,
        poses=motion.poses[:, order] * np.array([1.0, -1.0, -1.0], motion.poses.dtype),
        trans=motion.trans * np.array([-1.0, 1.0, 1.0], motion.trans.dtype),
        contacts=motion.contacts[:, list(mirror_order(CONTACT_POINTS))],
        joint_confidence=motion.joint_confidence[:, order],
        seen=mirror_seen(motion.seen),
    )


def add_recovery_noise(motion: Motion, body: BodyModel) -> Motion:
    """Add errors like those of a fit to a video: joints drift by some centimetres, the body leans, floats and sinks, with slight
    jitter. The motion's id is the seed."""
    generator = torch.Generator().manual_seed(int(digest("recovered", motion.id, digits=12), 16))
    frames = len(motion.trans)
    waves = max(2, round(frames / 20))
    deviation = torch.tensor(
        [_ROTATION_NOISE_RAD.get(name.split("_")[-1], _OTHER_ROTATION_NOISE_RAD) for name in SMPL_JOINTS]
    )
    rotation_noise = (
        smooth_curves((len(SMPL_JOINTS), 3), frames, waves, generator).permute(2, 0, 1) * deviation[:, None]
    )
    rotation_noise = rotation_noise + _JITTER_RAD * normal((frames, len(SMPL_JOINTS), 3), generator)
    rotations = axis_angle_to_matrix(torch.from_numpy(motion.poses).float()) @ axis_angle_to_matrix(rotation_noise)
    lean = smooth_curves((3,), frames, waves, generator).T * torch.tensor(_LEAN_RAD)
    rotations[:, 0] = axis_angle_to_matrix(lean) @ rotations[:, 0]
    drift = smooth_curves((3,), frames, waves, generator).T * torch.tensor(_DRIFT_M)
    trans = motion.trans + (drift + _JITTER_M * normal((frames, 3), generator)).numpy()
    return replace(motion, poses=matrix_to_axis_angle(rotations).numpy(), trans=trans.astype(np.float32))


def _noise_mm(motion: Motion, body: BodyModel) -> float:
    """Mean joint error of a motion as if recovered, relative to the pelvis."""
    rest = body.rest_joints(torch.from_numpy(np.asarray(motion.betas, np.float32)))
    positions = []
    for variant in (motion, add_recovery_noise(motion, body)):
        rotations = axis_angle_to_matrix(torch.from_numpy(np.asarray(variant.poses, np.float32)))
        positions.append(forward_kinematics(rotations, rest, torch.zeros(len(rotations), 3))[0])
    return 1000 * float((positions[0] - positions[1]).norm(dim=-1).mean())


def _accuracy(
    takes: Sequence[Take], captioned: Mapping[str, CaptionedMotion], *, mirror: bool
) -> tuple[dict[str, dict[str, float]], list[str]]:
    """Results by group, and the first takes that are not right with their problems."""
    rows: dict[str, list[dict[str, float]]] = defaultdict(list)
    wrong = []
    for take in takes:
        if take.expected is None:
            continue
        expected = take.expected.mirrored() if mirror else take.expected
        row, problems = _evaluate_take(expected, [captioned[motion.id].captions for motion in take.motions])
        rows[expected.group].append(row)
        if problems:
            wrong.append(f"{take.name}: {'; '.join(problems)}")
    averages = {}
    for group, members in sorted(rows.items()):
        names = dict.fromkeys(name for row in members for name in row)
        averages[group] = {"takes": float(len(members))} | {
            name: float(np.mean([row[name] for row in members if name in row])) for name in names
        }
    return averages, wrong[:_MAX_LISTED]


def _evaluate_take(expected: Expected, pieces: Sequence[Captions]) -> tuple[dict[str, float], list[str]]:
    """Results of one take: 1 or 0 by name, and its problems as text."""
    kinds = {
        kind
        for captions in pieces
        for event in captions.events
        for kind in event_names(event.part, event.kind, event.side)
    }
    missing = [" or ".join(sorted(alternatives)) for alternatives in expected.kinds if not alternatives & kinds]
    problems = [f"no {kind}" for kind in missing] + [f"has {kind}" for kind in sorted(expected.forbidden & kinds)]
    result = {"kinds": float(not missing), "nothing_wrong": float(not expected.forbidden & kinds)}
    if expected.arms:
        named = arms_named(" ".join(sentence for captions in pieces for sentence in captions.body))
        result["arms"] = float(named == expected.arms)
        problems += [] if named == expected.arms else [f"names {', '.join(sorted(named)) or 'no arm'}"]
    return {"right": float(not problems), **result}, problems


def _sides_in_films(count: int, body: BodyModel) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as work:
        films = list(caption_films(count, Path(work), body))
    captioned = [(film, stated_side(film.expected, film.captions)) for film in films if film.captions]
    target_sides = [stated_side(film.expected, film.target_captions) for film, _ in captioned]

    def share(sides: Sequence[str], wanted: str) -> float:
        return sum(side == wanted for side in sides) / max(1, len(sides))

    sides = [side for _, side in captioned]
    return {
        "films": float(len(films)),
        "captioned": float(len(captioned)),
        "sides": share(sides, "right"),
        **{name: share(sides, name) for name in ("exchanged", "both", "neither")},
        "sides_of_truth": share(target_sides, "right"),
        "sides_kept": share(
            [side for side, target in zip(sides, target_sides, strict=True) if target == "right"], "right"
        ),
        "wrong": [
            f"{film.name}: {side}: {' '.join(film.captions[0].body[:1])}" for film, side in captioned if side != "right"
        ],
    }


def stated_side(expected: Expected, pieces: Sequence[Captions]) -> str:
    """Whether captions state the expected side and no other (`right`), the other one (`exchanged`), both or neither."""
    expected_kinds = frozenset().union(*expected.kinds)
    mirrored_kinds = frozenset().union(*expected.mirrored().kinds)
    kinds = {
        kind
        for captions in pieces
        for event in captions.events
        for kind in event_names(event.part, event.kind, event.side)
    }
    expected_limbs = {kind.split(":")[1] for kind in expected_kinds if ":" in kind}
    if expected_limbs:
        sentences = " ".join(sentence for captions in pieces for sentence in captions.body)
        if any(limb.endswith("_arm") for limb in expected_limbs):
            named = arms_named(sentences)
        else:
            named = legs_named(sentences) | {kind.split(":")[1] for kind in kinds & (expected_kinds | mirrored_kinds)}
        states_expected, states_other = bool(named & expected_limbs), bool(named - expected_limbs)
    else:
        states_expected = bool((expected_kinds - mirrored_kinds) & kinds)
        states_other = bool((mirrored_kinds - expected_kinds) & kinds)
    if states_expected == states_other:
        return "both" if states_expected else "neither"
    return "right" if states_expected else "exchanged"


def event_names(part: str, kind: str, side: str) -> tuple[str, ...]:
    """The names by which an `Expected` can refer to an event."""
    if part != "body":
        return (f"{kind}:{part}",)
    return (kind, f"{kind}>{side}") if side in ("left", "right") else (kind,)


def arms_named(text: str) -> frozenset[str]:
    """The arms that sentences name."""
    return _limbs_named(text, "arm", "arms?|hands?|fists?|elbows?")


def legs_named(text: str) -> frozenset[str]:
    """The legs that sentences name."""
    return _limbs_named(text, "leg", "legs?|foot|feet|knees?")


def _limbs_named(text: str, limb: str, words: str) -> frozenset[str]:
    matches = re.findall(rf"\b(left|right|both) (?:{words})\b", text)
    sides = {side for word in matches for side in (("left", "right") if word == "both" else (word,))}
    return frozenset(f"{side}_{limb}" for side in sides)


def _sentences(captions: Captions) -> tuple[Any, ...]:
    return captions.body, dict(captions.parts), tuple(sorted(event.text for event in captions.events))


def _swapped(captions: Captions) -> tuple[Any, ...]:
    """Expected sentences of the mirrored motion: left and right exchanged."""

    def swap(text: str) -> str:
        return re.sub(r"\b(left|right)\b", lambda side: "left" if side[0] == "right" else "right", text)

    body, parts, events = _sentences(captions)
    other_parts = {swap_sides(part): tuple(map(swap, sentences)) for part, sentences in parts.items()}
    return tuple(map(swap, body)), other_parts, tuple(sorted(map(swap, events)))


def _text(captions: Sequence[Captions]) -> dict[str, float]:
    body = [sentence for caption in captions for sentence in caption.body]
    words = [re.findall(r"[a-z0-9.]*[a-z0-9]", sentence.lower()) for sentence in body]
    distinct = {}
    for n in (1, 2, 3):
        grams = Counter(
            tuple(sentence_words[i : i + n]) for sentence_words in words for i in range(len(sentence_words) - n + 1)
        )
        distinct[f"distinct_{n}"] = len(grams) / max(1, grams.total())
    rests = {(i, event.part) for i, caption in enumerate(captions) for event in caption.events if event.kind == "rest"}
    return {
        **distinct,
        "distinct_sentences": len(set(body)) / len(body),
        "different_words": float(len({word for sentence_words in words for word in sentence_words})),
        "words_short": _mean_words([caption.body[0] for caption in captions]),
        "words_long": _mean_words([caption.body[-1] for caption in captions]),
        "lengths_per_motion": len(body) / len(captions),
        "words_part": _mean_words(
            [sentence_words[-1] for caption in captions for sentence_words in caption.parts.values()]
        ),
        "events_per_motion": float(np.mean([len(caption.events) for caption in captions])),
        "parts_described": 1 - len(rests) / (len(captions) * len(PARTS)),
    }


def _mean_words(sentences: Sequence[str]) -> float:
    return float(np.mean([len(sentence.split()) for sentence in sentences]))


def bench_text(report: Mapping[str, Any]) -> str:
    """The results for a terminal; the problems are in the JSON."""
    settings = list(report["accuracy"])
    lines = [
        f"{report['motions']}: {report['takes']} takes, {report['pieces']} motions; {report['rules']}; {report['machine']}",
        "",
    ]
    lines.append(f"{'takes right':28}{'takes':>7}" + "".join(f"{setting:>18}" for setting in settings))
    for group, row in report["accuracy"][CLEAN].items():
        shares = "".join(f"{report['accuracy'][setting][group]['right']:>18.1%}" for setting in settings)
        lines.append(f"{group:28}{row['takes']:7.0f}{shares}")
    if "films" in report:
        films = report["films"]
        lines += [
            "",
            f"sides in {films['captioned']:.0f} films: right {films['sides']:.1%}, exchanged {films['exchanged']:.1%}, both "
            f"{films['both']:.1%}, neither {films['neither']:.1%}; of the ground-truth motions right "
            f"{films['sides_of_truth']:.1%}, kept {films['sides_kept']:.1%}",
        ]
    text, speed = report["text"], report["speed"]
    return "\n".join(
        [
            *lines,
            "",
            f"mirrored motions with mirrored text: {report['mirrored_text']:.2%} of motions; as if recovered: mean joint "
            f"error {report['noise_mm']:.0f} mm",
            f"distinct 1-, 2-, 3-grams {text['distinct_1']:.4f}, {text['distinct_2']:.4f}, {text['distinct_3']:.4f}; distinct "
            f"sentences {text['distinct_sentences']:.1%}; {text['different_words']:.0f} different words",
            f"words: short {text['words_short']:.1f}, long {text['words_long']:.1f}, a part {text['words_part']:.1f}",
            f"events a motion {text['events_per_motion']:.1f}; parts not merely at rest {text['parts_described']:.1%}",
            f"motions/s on one thread: captions {speed['captions_per_s']:.1f}, captions and instructions "
            f"{speed['captions_and_instructions_per_s']:.1f} (1,000 in {speed['seconds_for_1000']:.0f} s)",
        ]
    )
