"""Training instances: complete, inside the clip, and as many wordings as promised."""

import re
import string
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from schemas.records import (
    FPS,
    CaptionedMotion,
    Captions,
    Event,
    Given,
    Instruction,
    Motion,
    Provenance,
    ScoredMotion,
    Source,
    Transcript,
)
from schemas.sample import encode_sample_record, sample_problems
from schemas.skeleton import PARTS
from stages.base import apply
from stages.instructions.templates import LENGTH_ANSWERS, TEMPLATES
from stages.write_instructions import WriteInstructions, instruction_problems

SLOTS = {
    "t2m": {"caption", "clause"}, "t2m_seconds": {"caption", "clause", "seconds"}, "t2m_frames": {"caption", "clause", "frames"},
    "m2t": set(), "m2length": set(), "m2parts": set(), "prediction": set(), "prediction_text": {"caption", "clause"},
    "inbetween": set(), "inbetween_text": {"caption", "clause"}, "i2pm": {"parts", "sentences"}, "p2t": {"parts"},
}  # fmt: skip


def event(part: str, kind: str, text: str) -> Event:
    return Event(
        part=part, joint="pelvis", kind=kind, side="none", start_s=0.0, end_s=1.0, amount=1.0, speed=1.0, text=text
    )


def captioned(number: int = 0, frames: int = 100, unseen: tuple[str, ...] = ()) -> CaptionedMotion:
    motion = Motion(
        provenance=Provenance(
            source=Source(id="s", uri="s"),
            sha256=f"{number:064x}",
            person=0,
            start_s=0.0,
            end_s=frames / FPS,
            source_fps=30.0,
        ),
        footage=None,
        poses=np.zeros((frames, 24, 3), np.float32),
        trans=np.zeros((frames, 3), np.float32),
        betas=np.zeros(10, np.float32),
        contacts=np.zeros((frames, 4), np.uint8),
        joint_confidence=np.ones((frames, 24), np.float32),
        to_source=np.eye(4),
        body_model="b",
        models={},
    )
    events = [event("body", "walk", "walks forward")]
    for part in PARTS:
        arm = part == "right_arm"
        kind, text = ("wave", "waves") if arm else ("rest", "is out of view" if part in unseen else "stays still")
        events.append(event(part, kind, text))
    return CaptionedMotion(
        scored=ScoredMotion(motion=motion, scores={}),
        captions=Captions(
            body=(
                "A person walks forward.",
                "Someone walks for about 1.5 metres. Meanwhile, the person swings both arms.",
            ),
            parts={part: (f"The {part.replace('_', ' ')} moves.",) for part in PARTS},
            events=tuple(events),
            writers={"body": "test"},
        ),
        transcript=Transcript(),
    )


def instances(record: CaptionedMotion, **config: object) -> tuple[Instruction, ...]:
    results, rejections = apply(WriteInstructions(WriteInstructions.Config(**config)), [record])
    assert not rejections, rejections
    return results[0].instructions


def test_there_are_enough_wordings_and_all_are_different() -> None:
    assert set(SLOTS) == set(TEMPLATES)
    every = [wording for wordings in TEMPLATES.values() for wording in wordings]
    assert len(every) >= 100
    assert all(len(wordings) >= 12 for wordings in TEMPLATES.values())
    assert len({wording.casefold() for wording in every}) == len(every)


@pytest.mark.parametrize("task", TEMPLATES)
def test_wordings_have_the_slots_of_their_task(task: str) -> None:
    for wording in TEMPLATES[task]:
        slots = {name for _, name, _, _ in string.Formatter().parse(wording) if name is not None}
        assert slots <= SLOTS[task], wording
        described = {"caption", "clause"} & SLOTS[task]
        assert len(slots) == len(SLOTS[task]) - (1 if described else 0), wording
        # A caption ends its sentence, so nothing but a new one may follow; mirroring must not touch the wording itself.
        assert not re.search(r"\{(caption|sentences)\}[^ ]|\{clause\}(?![.,?;])", wording), wording
        assert not re.search(r"\b(left|right|clockwise|counterclockwise)\b", wording, re.IGNORECASE), wording
        assert wording == wording.strip()


def test_most_wordings_serve_long_captions_too() -> None:
    for task, wordings in TEMPLATES.items():
        if "clause" in SLOTS[task]:
            assert sum("{clause}" not in wording for wording in wordings) >= 6


def test_every_task_is_there_and_sound() -> None:
    record = captioned()
    found = instances(record)
    assert {one.task for one in found} == set(TEMPLATES)
    assert 10 <= len(found) <= 20
    assert len({(one.task, one.instruction) for one in found}) == len(found)
    for one in found:
        assert instruction_problems(one, 100) == []
        assert (one.start_s, one.end_s) == (0.0, 100 / FPS)


def test_spans_meet() -> None:
    by_task = {one.task: one for one in instances(captioned())}
    prediction, between = by_task["prediction"], by_task["inbetween"]
    assert prediction.inputs.end_s == prediction.target.start_s == 20 / FPS
    assert prediction.target.end_s == 100 / FPS
    assert (between.target.start_s, between.target.end_s) == (25 / FPS, 75 / FPS)
    assert (between.inputs.start_s, between.inputs.end_s) == (0.0, 100 / FPS)


def test_parts_are_named_and_busy_ones_come_first() -> None:
    found = instances(captioned())
    told = [one for one in found if one.task == "p2t"]
    assert told[0].parts == ("right_arm",)
    assert told[0].target.text == "The right arm moves."
    assert "right arm" in told[0].instruction
    single, pair = [one for one in found if one.task == "i2pm"]
    assert (len(single.parts), len(pair.parts)) == (1, 2)
    assert "The right arm moves." in single.instruction
    assert " and " in pair.instruction
    assert all(one.parts == tuple(PARTS) for one in found if one.task not in ("p2t", "i2pm"))


def test_parts_out_of_view_are_not_asked_for() -> None:
    unseen = ("left_leg", "right_leg", "left_arm")
    found = instances(captioned(unseen=unseen), instances={"p2t": 9, "i2pm": 9})
    assert {part for one in found for part in one.parts} == set(PARTS) - set(unseen)


def test_descriptions_stay_whole() -> None:
    for number in range(30):
        for one in instances(captioned(number), instances={"t2m": 2, "prediction_text": 1}):
            assert "{" not in one.instruction
            assert ".." not in one.instruction
            assert re.search(r"person walks forward|Someone walks for about 1.5 metres\. Meanwhile", one.instruction)


def test_wordings_are_used_evenly() -> None:
    used: Counter[str] = Counter()
    for number in range(400):
        used.update(one.instruction for one in instances(captioned(number), instances={"m2t": 1}))
    assert set(used) == set(TEMPLATES["m2t"])
    assert min(used.values()) > 0.4 * max(used.values())


def test_same_motion_same_instances() -> None:
    assert instances(captioned(5)) == instances(captioned(5))
    assert instances(captioned(5)) != instances(captioned(6))


@pytest.mark.parametrize("frames", [1, 2, 3, 4])
def test_clips_too_short_to_be_cut_keep_the_other_tasks(frames: int) -> None:
    found = instances(captioned(frames=frames))
    assert {"t2m", "m2t"} <= {one.task for one in found}
    assert all(instruction_problems(one, frames) == [] for one in found)


def test_instances_survive_encoding() -> None:
    results, _ = apply(WriteInstructions(), [captioned()])
    sample = encode_sample_record(results[0], None, "digest")
    assert sample_problems(sample.key, sample.members, "mocap") == []


def test_broken_instances_are_found() -> None:
    (good,) = instances(captioned(), instances={"t2m": 1})
    broken = [
        replace(good, instruction="Show {caption}"),
        replace(good, parts=()),
        replace(good, parts=("tail",)),
        replace(good, target=Given(kind="motion", start_s=1.0, end_s=1.0)),
        replace(good, target=Given(kind="motion", start_s=0.0, end_s=9.0)),
        replace(good, target=Given(kind="none")),
        replace(good, target=Given(kind="text", text=" ")),
    ]
    assert all(instruction_problems(one, 100) for one in broken)


def test_unknown_tasks_are_refused() -> None:
    with pytest.raises(ValueError, match="juggle"):
        WriteInstructions.Config(instances={"juggle": 1})


def test_answers_about_length_are_filled() -> None:
    texts = {one.target.text for n in range(40) for one in instances(captioned(n), instances={"m2length": 1})}
    assert len(texts) == len(LENGTH_ANSWERS)
    assert all("3.3" in text for text in texts)
