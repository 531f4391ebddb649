"""Training instances: completeness, spans inside the clip, and number and form of the wordings."""

import json
import re
import string
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from schemas.coverage import LEFT_LEG, all_seen
from schemas.records import (
    FPS,
    Camera,
    CaptionedMotion,
    Captions,
    Clip,
    Event,
    Footage,
    Instruction,
    InstructionInput,
    Motion,
    Provenance,
    ScoredMotion,
    Segment,
    Shot,
    Source,
    Track,
    Transcript,
    Video,
)
from schemas.sample import encode_sample_record, sample_problems
from schemas.skeleton import PARTS
from stages.base import apply
from stages.language.instructions.slots import (
    caption_slots,
    command_steps_of,
    length_slots,
    moment_slots,
    part_names,
    steps_of,
    timeline_of,
)
from stages.language.instructions.templates import LENGTH_ANSWERS, TEMPLATES
from stages.write_instructions import WriteInstructions, instruction_problems

CAPTION = {"caption", "clause", "command", "order"}
STEPS = {"steps", "commands"}
SLOTS = {
    "t2m": CAPTION, "t2m_seconds": CAPTION | {"seconds"}, "t2m_frames": CAPTION | {"frames"}, "parts2m": {"sentences"},
    "i2m_pose": CAPTION, "i2m_pose_seconds": CAPTION | {"seconds"}, "i2m_image": CAPTION,
    "i2m_image_seconds": CAPTION | {"seconds"},
    "m2t": set(), "m2length": set(), "m2parts": set(), "prediction": set(), "prediction_text": CAPTION,
    "prediction_seconds": {"seconds"}, "inbetween": set(), "inbetween_text": CAPTION, "i2pm": {"parts", "sentences"},
    "i2pm_seconds": {"parts", "sentences", "seconds"}, "p2t": {"parts"}, "i2lm": STEPS, "i2lm_timed": {"timeline"},
    "m2segments": set(), "m2moment": {"start", "end"},
}  # fmt: skip
FILMED = {"i2m_image", "i2m_image_seconds"}
JOINED = {"i2lm", "i2lm_timed", "m2segments", "m2moment"}
DESCRIPTIONS = (
    "A person walks forward.",
    "someone jumps twice",
    "Someone walks for about 1.5 metres. Meanwhile, the person swings both arms.",
    "  The man {slowly}  sits\ndown ",
    "John F. waves!",
)
"""Descriptions as rules, models and people may write them."""


def event(part: str, kind: str, text: str) -> Event:
    return Event(
        part=part, joint="pelvis", kind=kind, side="none", start_s=0.0, end_s=1.0, amount=1.0, speed=1.0, text=text
    )


def captions_of(*body: str) -> Captions:
    return Captions(body=body, parts={part: ("It moves.",) for part in PARTS}, events=(), writers={})


def captioned(
    number: int = 0, frames: int = 100, hidden: tuple[str, ...] = (), steps: tuple[str, ...] = ()
) -> CaptionedMotion:
    provenance = Provenance(
        source=Source(id="s", uri="s"),
        sha256=f"{number:064x}",
        person=0,
        start_s=0.0,
        end_s=frames / FPS,
        source_fps=30.0,
    )
    edges = [index * frames / FPS / max(1, len(steps)) for index in range(len(steps) + 1)]
    motion = Motion(
        provenance=provenance,
        segments=tuple(
            Segment(
                key=f"{index:024x}",
                provenance=provenance,
                start_s=first_s,
                end_s=last_s,
                from_s=0.0,
                captions=captions_of(step),
            )
            for index, (step, first_s, last_s) in enumerate(zip(steps, edges, edges[1:], strict=False))
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
        kind, text = ("wave", "waves") if arm else ("rest", "is out of view" if part in hidden else "stays still")
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


def footage(frames: int) -> Footage:
    """A filmed person; the video itself is never read."""
    video = Video(
        source=Source(id="s", uri="s"), sha256="0", width=64, height=48, fps=FPS, duration_s=frames / FPS, has_audio=False
    )  # fmt: skip
    boxes, keypoints = np.ones((frames, 4), np.float32), np.ones((frames, 17, 3), np.float32)
    shot = Shot(video=video, index=0, start_s=0.0, end_s=frames / FPS)
    track = Track(
        shot=shot, person=0, times_s=np.arange(frames) / FPS, boxes=boxes, keypoints=keypoints, models={}
    )  # fmt: skip
    camera = Camera(
        rotation=np.repeat(np.eye(3)[None], frames, 0), position=np.zeros((frames, 3)), intrinsics=np.ones(4)
    )  # fmt: skip
    clip = Clip(track=track, start_s=0.0, end_s=frames / FPS, boxes=boxes, keypoints=keypoints)
    return Footage(clip=clip, camera=camera)


def instances(record: CaptionedMotion, **config: object) -> tuple[Instruction, ...]:
    results, rejections = apply(WriteInstructions(WriteInstructions.Config(**config)), [record])
    assert not rejections, rejections
    return results[0].instructions


def test_there_are_enough_wordings_and_all_are_different() -> None:
    assert set(SLOTS) == set(TEMPLATES)
    every = [wording for wordings in TEMPLATES.values() for wording in wordings]
    assert len(every) >= 250
    assert all(len(wordings) >= 12 for wordings in TEMPLATES.values())
    assert len({wording.casefold() for wording in every}) == len(every)


@pytest.mark.parametrize("task", TEMPLATES)
def test_wordings_have_the_slots_of_their_task(task: str) -> None:
    for wording in TEMPLATES[task]:
        slots = {name for _, name, _, _ in string.Formatter().parse(wording) if name is not None}
        assert slots <= SLOTS[task], wording
        assert len(slots & (CAPTION | STEPS)) == bool(SLOTS[task] & (CAPTION | STEPS)), (
            wording
        )  # a description in one form
        assert slots - CAPTION - STEPS == SLOTS[task] - CAPTION - STEPS, wording
        # Slots of sentences end in a full stop, so only a new sentence may follow; mirroring must not change the wording.
        assert not re.search(
            r"\{(caption|command|commands|sentences|steps|timeline)\}[^ ]|\{clause\}(?![.,?;])", wording
        ), wording
        assert not re.search(r"\b(left|right|clockwise|counterclockwise)\b", wording, re.IGNORECASE), wording
        assert wording == wording.strip()


@pytest.mark.parametrize("task", TEMPLATES)
@pytest.mark.parametrize("description", DESCRIPTIONS)
def test_every_wording_is_well_formed_with_every_description(task: str, description: str) -> None:
    whole = caption_slots(description)
    step = Segment(
        key="0", provenance=captioned().scored.motion.provenance, start_s=0.0, end_s=2.5, from_s=0.0,
        captions=captions_of(description),
    )  # fmt: skip
    for parts in (("torso",), ("torso", "left_arm")):
        slots = whole | length_slots(47) | moment_slots(step)
        slots |= {"parts": part_names(parts), "sentences": " ".join([whole["caption"]] * len(parts))}
        slots |= {"steps": steps_of([step, step]), "timeline": timeline_of([step, step])}
        slots |= {"commands": commands} if (commands := command_steps_of([step, step])) else {}
        for wording in TEMPLATES[task]:
            if any(name not in slots for _, name, _, _ in string.Formatter().parse(wording) if name):
                continue
            text = wording.format(**slots)
            assert text[0].isupper(), text
            assert text[-1] in ".!?", text
            assert not re.search(r"[{}\n]|  |\.\.|\.,|!\.|,\.| [.,?!:;]|:\.", text), text
            assert not re.search(r"\b(\w+) \1\b", text, re.IGNORECASE), text


def test_names_keep_their_capital_and_give_no_clause() -> None:
    assert caption_slots("Maria walks.") == {"caption": "Maria walks."}
    assert caption_slots("A person walks.")["clause"] == "a person walks"
    assert "clause" not in caption_slots("A person walks. Then they stop.")


def test_enough_wordings_support_long_captions() -> None:
    for task, wordings in TEMPLATES.items():
        if "clause" in SLOTS[task]:
            assert sum("{caption}" in wording for wording in wordings) >= 6


def test_a_third_of_the_wordings_are_commands() -> None:
    for task, wordings in TEMPLATES.items():
        if SLOTS[task] & {"command", "commands"}:
            commands = [one for one in wordings if re.search(r"\{(commands?|order)\}", one)]
            assert len(commands) >= len(wordings) / 3, task


def test_every_task_has_valid_instances() -> None:
    record = captioned()
    found = instances(record)
    assert {one.task for one in found} == set(TEMPLATES) - FILMED - JOINED
    assert 18 <= len(found) <= 22
    assert len({(one.task, one.instruction) for one in found}) == len(found)
    for one in found:
        assert instruction_problems(one, 100) == []
        assert (one.start_s, one.end_s) == (0.0, 100 / FPS)


def test_spans_of_prediction_and_inbetweening() -> None:
    by_task = {one.task: one for one in instances(captioned())}
    prediction, between = by_task["prediction"], by_task["inbetween"]
    assert prediction.inputs.end_s == prediction.target.start_s == 20 / FPS
    assert prediction.target.end_s == 100 / FPS
    assert (between.target.start_s, between.target.end_s) == (25 / FPS, 75 / FPS)
    assert (between.inputs.start_s, between.inputs.end_s) == (0.0, 100 / FPS)


def test_parts_are_named_and_active_ones_come_first() -> None:
    found = instances(captioned())
    part_to_text = [one for one in found if one.task == "p2t"]
    assert part_to_text[0].parts == ("right_arm",)
    assert part_to_text[0].target.text == "The right arm moves."
    assert "right arm" in part_to_text[0].instruction
    single, pair = [one for one in found if one.task == "i2pm"]
    assert (len(single.parts), len(pair.parts)) == (1, 2)
    assert "The right arm moves." in single.instruction
    assert " and " in pair.instruction
    assert all(one.parts == tuple(PARTS) for one in found if one.task not in ("p2t", "i2pm", "i2pm_seconds"))


def test_poses_are_moments_and_images_need_footage() -> None:
    posed = [one for one in instances(captioned()) if one.inputs.kind == "pose"]
    assert {one.task for one in posed} == {"i2m_pose", "i2m_pose_seconds"}
    assert all(one.inputs == InstructionInput(kind="pose", start_s=0.0, end_s=0.0) for one in posed)
    assert not [one for one in instances(captioned()) if one.inputs.kind == "image"]
    filmed = replace(captioned().scored.motion, footage=footage(100))
    with_image = [
        one
        for one in instances(replace(captioned(), scored=ScoredMotion(motion=filmed, scores={})))
        if one.inputs.kind == "image"
    ]
    assert {one.task for one in with_image} == FILMED
    assert all(instruction_problems(one, 100) == [] for one in with_image)


def test_predictions_use_the_length_of_the_target() -> None:
    (one,) = instances(captioned(), instances={"prediction_seconds": 1})
    assert f"{one.target.end_s - one.target.start_s:.1f}" in one.instruction


def test_joined_motions_have_instances_with_steps() -> None:
    steps = ("A person walks.", "The person waves.", "Someone jumps")
    found = instances(captioned(frames=300, steps=steps))
    assert {one.task for one in found} == set(TEMPLATES) - FILMED - {"parts2m", "m2parts"}
    by_task = {one.task: one for one in found}
    described, ordered = "1. A person walks. 2. The person waves. 3. Someone jumps.", "1. Walk. 2. Wave. 3. Jump."
    assert all(described in one.instruction or ordered in one.instruction for one in found if one.task == "i2lm")
    every = {one.instruction for one in instances(captioned(frames=300, steps=steps), instances={"i2lm": 18})}
    assert "Please do this in order. 1. Walk. 2. Wave. 3. Jump." in every
    times = (
        "0.0 to 3.3 seconds: A person walks. 3.3 to 6.7 seconds: The person waves. 6.7 to 10.0 seconds: Someone jumps."
    )
    assert times in by_task["i2lm_timed"].instruction
    assert by_task["m2segments"].target.text == times
    moment = by_task["m2moment"]
    start = re.search(r"\d+\.\d", moment.instruction)
    assert start is not None
    assert moment.target.text == {"0.0": "A person walks.", "3.3": "The person waves."}.get(start[0], "Someone jumps.")
    assert all(instruction_problems(one, 300) == [] for one in found)


def test_parts_out_of_view_have_no_instances() -> None:
    hidden = ("left_leg", "right_leg", "left_arm")
    found = instances(captioned(hidden=hidden), instances={"p2t": 9, "i2pm": 9, "parts2m": 9})
    assert {part for one in found for part in one.parts} == set(PARTS) - set(hidden)


def test_descriptions_are_inserted_completely() -> None:
    for number in range(30):
        for one in instances(captioned(number), instances={"t2m": 2, "prediction_text": 1}):
            assert "{" not in one.instruction
            assert ".." not in one.instruction
            assert re.search(r"(?i)walks? forward|Someone walks for about 1.5 metres\. Meanwhile", one.instruction)


def test_wordings_are_used_evenly() -> None:
    counts: Counter[str] = Counter()
    for number in range(400):
        counts.update(one.instruction for one in instances(captioned(number), instances={"m2t": 1}))
    assert set(counts) == set(TEMPLATES["m2t"])
    assert min(counts.values()) > 0.4 * max(counts.values())


def test_instances_depend_only_on_the_motion() -> None:
    assert instances(captioned(5)) == instances(captioned(5))
    assert instances(captioned(5)) != instances(captioned(6))


@pytest.mark.parametrize("frames", [1, 2, 3, 4])
def test_very_short_clips_have_only_unsplit_tasks(frames: int) -> None:
    found = instances(captioned(frames=frames))
    assert {"t2m", "m2t"} <= {one.task for one in found}
    assert all(instruction_problems(one, frames) == [] for one in found)


def test_instances_survive_encoding() -> None:
    results, _ = apply(WriteInstructions(), [captioned()])
    sample = encode_sample_record(results[0], None, "digest")
    assert sample_problems(sample.key, sample.members, "mocap") == []
    instances_of = json.loads(sample.members["instructions.json"])["instances"]
    assert len({json.dumps(shape(one), sort_keys=True) for one in instances_of}) == 1
    broken = [{**instances_of[0], "inputs": {**instances_of[0]["inputs"], "kind": "image"}}]
    members = sample.members | {"instructions.json": json.dumps({"instances": broken}).encode()}
    assert sample_problems(sample.key, members, "mocap")


def shape(value: object) -> object:
    """The types of a JSON value."""
    if isinstance(value, dict):
        return {name: shape(one) for name, one in value.items()}
    return [shape(value[0])] if isinstance(value, list) else type(value).__name__


def test_invalid_instances_are_detected() -> None:
    (good,) = instances(captioned(), instances={"t2m": 1})
    broken = [
        replace(good, instruction="Show {caption}"),
        replace(good, parts=()),
        replace(good, parts=("tail",)),
        replace(good, target=InstructionInput(kind="motion", start_s=1.0, end_s=1.0)),
        replace(good, target=InstructionInput(kind="motion", start_s=0.0, end_s=9.0)),
        replace(good, target=InstructionInput(kind="none")),
        replace(good, target=InstructionInput(kind="text", text=" ")),
        replace(good, inputs=InstructionInput(kind="smell")),
        replace(good, inputs=InstructionInput(kind="pose", start_s=9.0, end_s=9.0)),
        replace(good, inputs=InstructionInput(kind="image", start_s=0.0, end_s=1.0)),
    ]
    assert all(instruction_problems(one, 100) for one in broken)


def test_unknown_tasks_are_rejected() -> None:
    with pytest.raises(ValueError, match="juggle"):
        WriteInstructions.Config(instances={"juggle": 1})


def test_answers_about_length_are_filled() -> None:
    texts = {one.target.text for n in range(40) for one in instances(captioned(n), instances={"m2length": 1})}
    assert len(texts) == len(LENGTH_ANSWERS)
    assert all("3.3" in text for text in texts)


def test_instructions_are_about_seen_parts_only() -> None:
    record = captioned()
    seen = all_seen(len(record.scored.motion.poses))
    seen[:, LEFT_LEG:] = 0
    motion = replace(record.scored.motion, seen=seen)
    upper = replace(record, scored=replace(record.scored, motion=motion))
    every = instances(upper)
    parts = {"torso", "left_arm", "right_arm"}
    assert all(one.parts and set(one.parts) <= parts for one in every)
    assert {one.parts for one in every if one.task == "t2m"} == {("torso", "left_arm", "right_arm")}
    assert not [one for one in every if one.task == "parts2m"]
    assert {one.parts[0] for one in instances(upper, instances={"p2t": 9})} == parts
    (told,) = instances(upper, instances={"m2parts": 1})
    assert "leg" not in told.target.text
    assert "arm" in told.target.text
