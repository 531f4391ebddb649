"""Captions by rules for motions with known content."""

import re
from dataclasses import replace

import numpy as np
import pytest
import torch

from schemas.body_model import BodyModel
from schemas.records import (
    Camera,
    CaptionedMotion,
    Captions,
    Clip,
    Footage,
    Motion,
    Provenance,
    ScoredMotion,
    Shot,
    Source,
    Track,
    Transcript,
    Video,
    Word,
)
from schemas.rotations import axis_angle_to_matrix, matrix_to_axis_angle, yaw_matrix
from schemas.skeleton import PARTS, joint, swap_sides
from stages.base import apply
from stages.language.rules import phrases
from stages.language.rules.phrases import gerund
from stages.language.rules.rules import describe
from stages.language.rules.signals import hysteresis, oscillations, smooth_path, spans_of, sweeps, turning_points
from stages.language.rules.thresholds import Thresholds
from stages.synthesis.motions import ACTIONS, LabelledMotion, generate, mirror, sequence
from stages.training.lifter.random_curves import smooth_curves
from stages.write_captions import WriteCaptions

BODY = BodyModel.load()
EXPECTED = {
    "walk_turn": {"walk", "turn_{side}"}, "walk_wave": {"walk", "wave:{side}_arm"}, "turn": {"turn_{side}"},
    "side_step": {"sidestep_{side}"}, "wave": {"wave:{side}_arm"}, "raise": {"raise:{side}_arm", "lower:{side}_arm"},
    "reach": {"reach:{side}_arm"}, "punch": {"punch:{side}_arm"}, "kick": {"kick:{side}_leg"},
}  # fmt: skip
CONSPICUOUS = {"walk", "walk_backward", "run", "jump", "squat", "bow", "spin", "sit", "lie", "crawl", "get_up", "turn_left",
       "turn_right", "sidestep_left", "sidestep_right"}  # fmt: skip
DISTINCTIVE = {"wave", "punch", "kick", "circle"}


def captions_of(motion: LabelledMotion, seed: str = "s", confidence: np.ndarray | None = None) -> Captions:
    confidence = np.ones((len(motion), 24)) if confidence is None else confidence
    return describe(
        motion.rotations, motion.trans, BODY.rest_joints(motion.betas), confidence, Thresholds(), seed=seed
    )  # fmt: skip


def kinds(captions: Captions) -> set[str]:
    return {event.kind if event.part == "body" else f"{event.kind}:{event.part}" for event in captions.events}


def expected(action: str) -> set[str]:
    if action.endswith("_both"):
        doing = {"wave_both": ("wave",), "raise_both": ("raise", "lower")}[action]
        return {f"{kind}:{side}_arm" for kind in doing for side in ("left", "right")}
    stem, _, side = action.rpartition("_")
    if side in ("left", "right"):
        return {kind.format(side=side) for kind in EXPECTED[stem]}
    return {action}


def noisy(motion: LabelledMotion, seed: int, degrees: float = 2.0, metres: float = 0.01) -> LabelledMotion:
    """Errors as of a fit to video: smooth and per-frame noise on joint rotations (degrees) and root (metres)."""
    rng = np.random.default_rng(seed)
    slow = smooth_path(rng.normal(0, 3, (len(motion), 24, 3)), 8) + rng.normal(0, 0.5, (len(motion), 24, 3))
    turn = torch.from_numpy(np.radians(degrees) * slow).float()
    shift = torch.from_numpy(
        metres * (smooth_path(rng.normal(0, 3, (len(motion), 3)), 8) + rng.normal(0, 0.5, (len(motion), 3)))
    )
    return replace(
        motion, rotations=motion.rotations @ axis_angle_to_matrix(turn), trans=motion.trans + shift.to(torch.float32)
    )


def scored(action: str, seed: int = 0, seconds: float = 4.0, body_model: str | None = None) -> ScoredMotion:
    """A generated motion as a record, as if from motion capture."""
    generated = generate(action, seconds, seed, body=BODY)
    motion = Motion(
        provenance=Provenance(
            source=Source(id="studio", uri="studio"), sha256=f"{seed:064x}", person=0, start_s=0.0, end_s=seconds,
            source_fps=30.0,
        ),
        footage=None,
        poses=matrix_to_axis_angle(generated.rotations).numpy(),
        trans=generated.trans.numpy(),
        betas=generated.betas.numpy(),
        contacts=generated.contacts.numpy().astype(np.uint8),
        joint_confidence=np.ones((len(generated), 24), np.float32),
        to_source=np.eye(4),
        body_model=BODY.id if body_model is None else body_model,
        models={},
    )  # fmt: skip
    return ScoredMotion(motion=motion, scores={})


@pytest.mark.parametrize("action", ACTIONS)
@pytest.mark.parametrize("seed", [11, 12, 13])
def test_actions_are_recognised(action: str, seed: int) -> None:
    captions = captions_of(generate(action, 4.0, seed, body=BODY))
    found = kinds(captions)
    assert expected(action) <= found
    # And no conspicuous event that did not happen.
    expected_kinds = {kind.split(":")[0] for kind in expected(action)}
    assert {kind for kind in found if kind in CONSPICUOUS} <= expected_kinds
    assert {kind.split(":")[0] for kind in found if kind.split(":")[0] in DISTINCTIVE} <= expected_kinds


@pytest.mark.parametrize("action", ACTIONS)
def test_actions_are_recognised_in_a_noisy_fit(action: str) -> None:
    captions = captions_of(noisy(generate(action, 4.0, 21, body=BODY), 5))
    assert expected(action) <= kinds(captions)
    assert {kind for kind in kinds(captions) if kind in CONSPICUOUS} <= {
        kind.split(":")[0] for kind in expected(action)
    }


@pytest.mark.parametrize("action", ACTIONS)
def test_events_overlap_their_labels(action: str) -> None:
    motion = generate(action, 4.0, 4, body=BODY)
    captions = captions_of(motion)
    names = expected(action)
    for label in motion.labels:
        events = [e for e in captions.events if (e.kind if e.part == "body" else f"{e.kind}:{e.part}") in names]
        # The label of a raised arm spans raise, hold and lower; its events are the raise and the lower.
        inside = [e for e in events if e.end_s > label.start_s and e.start_s < label.end_s]
        assert inside, label
        first, last = min(e.start_s for e in inside), max(e.end_s for e in inside)
        shared = min(last, label.end_s) - max(first, label.start_s)
        assert shared > 0.5 * (label.end_s - label.start_s), (label, inside)


def swapped(text: str) -> str:
    other = {"left": "right", "right": "left"}
    return re.sub(r"\b(left|right)\b", lambda found: other[found.group()], text)


@pytest.mark.parametrize("action", ACTIONS)
@pytest.mark.parametrize("seed", ["a", "b", "c"])
def test_a_mirrored_motion_is_described_with_sides_exchanged(action: str, seed: str) -> None:
    motion = generate(action, 3.5, 7, body=BODY)
    original, mirrored = captions_of(motion, seed), captions_of(mirror(motion), seed)
    assert mirrored.body == tuple(swapped(sentence) for sentence in original.body)
    for part in PARTS:
        assert mirrored.parts[swap_sides(part)] == tuple(swapped(sentence) for sentence in original.parts[part])
    assert sorted(e.text for e in mirrored.events) == sorted(swapped(e.text) for e in original.events)


def test_captions_do_not_depend_on_position_and_heading() -> None:
    motion = sequence([("walk", 3), ("turn_left", 2.5), ("wave_right", 3)], 3, body=BODY)
    original = captions_of(motion)
    turn, offset = yaw_matrix(torch.tensor(2.3)), torch.tensor([4.0, 0.0, -7.0])
    rotations = motion.rotations.clone()
    rotations[:, 0] = turn @ rotations[:, 0]
    pelvis = BODY.rest_joints(motion.betas)[0]
    moved = replace(motion, rotations=rotations, trans=(motion.trans + pelvis) @ turn.T - pelvis + offset)
    assert captions_of(moved).body == original.body
    assert captions_of(moved).parts == original.parts


def test_a_sequence_is_described_in_order() -> None:
    captions = captions_of(sequence([("walk", 3), ("turn_left", 2.5), ("wave_right", 3)], 1, body=BODY))
    medium = captions.body[1]
    places = [medium.find(word) for word in ("forward", "left", "right hand")]
    places[0] = max(places[0], medium.find("walks"))
    assert -1 not in places
    assert places == sorted(places)


def lying(seconds: float = 3.0) -> LabelledMotion:
    still = generate("stand", seconds, 0, body=BODY)
    rotations = still.rotations.clone()
    back = axis_angle_to_matrix(torch.tensor([-np.pi / 2, 0.0, 0.0]))
    rotations[:, 0] = back @ rotations[:, 0]
    trans = (
        still.trans * torch.tensor([1.0, 0.0, 1.0]) + torch.tensor([0.0, 0.12, 0.0]) - BODY.rest_joints(still.betas)[0]
    )
    return replace(still, rotations=rotations, trans=trans)


def test_lying() -> None:
    captions = captions_of(lying())
    assert "lie" in kinds(captions)
    assert not kinds(captions) & (CONSPICUOUS - {"lie"})


def test_sitting_is_not_a_squat() -> None:
    still = generate("stand", 3.0, 0, body=BODY)
    rotations = still.rotations.clone()
    for side in ("left", "right"):
        rotations[:, joint(f"{side}_hip")] = axis_angle_to_matrix(torch.tensor([-1.5, 0.0, 0.0]))
        rotations[:, joint(f"{side}_knee")] = axis_angle_to_matrix(torch.tensor([1.5, 0.0, 0.0]))
    captions = captions_of(replace(still, rotations=rotations, trans=still.trans - torch.tensor([0.0, 0.42, 0.0])))
    assert "sit" in kinds(captions)
    assert not kinds(captions) & (CONSPICUOUS - {"sit"})


def test_spins_and_arm_circles_are_recognised() -> None:
    still = generate("stand", 3.0, 0, body=BODY)
    yaw = torch.linspace(0, 2 * np.pi, len(still))
    rotations = still.rotations.clone()
    rotations[:, 0] = yaw_matrix(yaw) @ rotations[:, 0]
    assert "spin" in kinds(captions_of(replace(still, rotations=rotations)))
    circling = still.rotations.clone()
    angle = torch.linspace(0, 6 * np.pi, len(still))
    turning = torch.stack([angle, torch.zeros_like(angle), torch.zeros_like(angle)], -1)
    level = axis_angle_to_matrix(torch.tensor([0.0, 0.0, -0.2]))
    hinged = axis_angle_to_matrix(torch.tensor([0.0, -1.0, 0.0]))
    circling[:, joint("left_shoulder")] = axis_angle_to_matrix(turning) @ level @ hinged
    assert "circle:left_arm" in kinds(captions_of(replace(still, rotations=circling)))


def test_hidden_legs_are_not_described() -> None:
    confidence = np.ones((120, 24))
    confidence[:, [joint(f"{side}_{name}") for side in ("left", "right") for name in ("knee", "ankle", "foot")]] = 0.05
    captions = captions_of(generate("squat", 4.0, 0, body=BODY), confidence=confidence)
    assert captions.parts["left_leg"] == ("The left leg is out of view.",)
    assert not {kind for kind in kinds(captions) if kind.endswith("_leg") and not kind.startswith("rest")}
    assert "squat" not in kinds(captions)


def all_sentences() -> list[str]:
    found = []
    for seed in range(3):
        for action in ACTIONS:
            captions = captions_of(generate(action, 3.0, seed, body=BODY), seed=f"{seed}")
            found += [*captions.body, *(s for part in PARTS for s in captions.parts[part])]
    return found


def test_sentences_are_well_formed() -> None:
    for sentence in all_sentences():
        assert re.fullmatch(r"[A-Z][a-z0-9 ,.]*\.", sentence) or ". " in sentence, sentence
        assert not re.search(r"\b(\w+) \1\b|  |\.\.|,,| [,.]|\{|\}|none", sentence), sentence


def test_every_wording_has_a_gerund() -> None:
    tables = [phrases.BODY, phrases.ARM, phrases.LEG, phrases.TORSO]
    for wording in (wording for table in tables for wordings in table.values() for wording in wordings):
        assert gerund(wording).split()[0].endswith("ing")


def test_the_stage_fills_every_level() -> None:
    results, rejections = apply(WriteCaptions(), [scored(action) for action in ACTIONS])
    assert not rejections
    for result in results:
        assert isinstance(result, CaptionedMotion)
        assert result.captions.body
        assert set(result.captions.parts) == set(PARTS)
        assert all(result.captions.parts.values())
        assert {event.part for event in result.captions.events} >= {*PARTS, "body"}
        for event in result.captions.events:
            assert event.text
            assert event.side in ("left", "right", "both", "none")
            assert 0 <= event.start_s < event.end_s <= result.scored.motion.seconds + 1e-6
            assert np.isfinite([event.amount, event.speed]).all()
        assert result.captions.writers == {
            "body": "rules 6",
            "parts": "rules 6",
            "events": "rules 6",
            "transcript": "none",
        }


def test_the_same_motion_gets_the_same_captions() -> None:
    first, second = (apply(WriteCaptions(), [scored("walk")])[0][0].captions for _ in range(2))
    assert first == second


def test_another_body_model_is_rejected() -> None:
    _, (rejection,) = apply(WriteCaptions(), [scored("walk", body_model="smpl-12345678")])
    assert "smpl-12345678" in rejection.detail


def test_words_spoken_during_the_clip_are_kept() -> None:
    record = scored("walk")
    words = tuple(Word(text=f" {n}", start_s=n, end_s=n + 0.5, probability=0.9) for n in (0.5, 2.5, 3.5, 9.0))
    video = Video(
        source=record.motion.provenance.source, sha256="", width=9, height=9, fps=30.0, duration_s=20.0, has_audio=True,
        transcript=Transcript(language="en", words=words), models={"transcribe": "listener 1"},
    )  # fmt: skip
    count = len(record.motion.poses)
    track = Track(
        shot=Shot(video=video, index=0, start_s=0.0, end_s=20.0), person=0, times_s=np.zeros(1), boxes=np.zeros((1, 4)),
        keypoints=np.zeros((1, 17, 3)), models={},
    )  # fmt: skip
    clip = Clip(track=track, start_s=2.0, end_s=6.0, boxes=np.zeros((count, 4)), keypoints=np.zeros((count, 17, 3)))
    camera = Camera(rotation=np.zeros((count, 3, 3)), position=np.zeros((count, 3)), intrinsics=np.ones(4))
    provenance = replace(record.motion.provenance, start_s=2.0, end_s=6.0)
    motion = replace(record.motion, footage=Footage(clip=clip, camera=camera), provenance=provenance)
    (result,) = WriteCaptions().run(replace(record, motion=motion))
    assert [(word.text, word.start_s) for word in result.transcript.words] == [(" 2.5", 0.5), (" 3.5", 1.5)]
    assert result.captions.writers["transcript"] == "listener 1"


@pytest.mark.parametrize("frames", [2, 5, 20])
def test_very_short_motions_get_captions(frames: int) -> None:
    motion = generate("walk", 2.0, 0, body=BODY)
    arrays = {name: getattr(motion, name)[:frames] for name in ("rotations", "trans", "contacts")}
    captions = captions_of(replace(motion, **arrays))
    assert captions.body
    assert all(captions.parts.values())


def test_signals() -> None:
    t = np.arange(90) / 30
    assert np.allclose(smooth_path(t, 3), t)
    assert spans_of(np.array([0, 1, 1, 0, 1, 0, 0, 1], bool), min_frames=2, max_gap=1) == [(1, 5)]
    assert hysteresis(np.array([0, 2, 5, 2, 0, 2, 0.0]), on=4, off=1) == [(1, 4)]
    wave = np.sin(2 * np.pi * t)
    assert turning_points(wave, 0.5) == pytest.approx([0, 7, 22, 37, 52, 67, 82, 89], abs=1)
    assert turning_points(np.zeros(5), 0.5) == [0, 4]
    (found,) = oscillations(wave, 0.5, 10, 20, 3)
    assert found[1] == pytest.approx(2, abs=0.05)
    (rise,) = sweeps(np.clip(t - 1, 0, 1), 0.5)
    assert rise[0] == pytest.approx(30, abs=3)
    assert rise[1] == pytest.approx(60, abs=3)


@pytest.mark.parametrize("action", ACTIONS)
def test_actions_are_recognised_in_a_drifting_fit(action: str) -> None:
    """Joint and height errors of some centimetres: a run is no jump, a kick is detected, a wave is no raise."""
    motion = generate(action, 4.0, 31, body=BODY)
    generator = torch.Generator().manual_seed(7)
    turns = 0.06 * smooth_curves((24, 3), len(motion), 6, generator).permute(2, 0, 1)
    drift = smooth_curves((3,), len(motion), 5, generator).T * torch.tensor([0.03, 0.03, 0.03])
    rotations = motion.rotations @ axis_angle_to_matrix(turns)
    found = kinds(captions_of(replace(motion, rotations=rotations, trans=motion.trans + drift)))
    assert expected(action) <= found
    assert found & CONSPICUOUS <= expected(action)


@pytest.mark.parametrize("height_m", [-0.15, 0.2])
def test_captions_do_not_depend_on_a_height_offset(height_m: float) -> None:
    motion = sequence([("jump", 3), ("squat", 3)], 2, body=BODY)
    moved = replace(motion, trans=motion.trans + torch.tensor([0.0, height_m, 0.0]))
    assert captions_of(moved).body == captions_of(motion).body


def tumbling(axis: tuple[float, float, float]) -> LabelledMotion:
    """A full rotation in the air about an axis of the body."""
    still = generate("stand", 3.0, 0, body=BODY)
    angle = 2 * np.pi * torch.linspace(-0.5, 1.5, len(still)).clamp(0, 1)
    rotations = still.rotations.clone()
    rotations[:, 0] = axis_angle_to_matrix(angle[:, None] * torch.tensor(axis)) @ rotations[:, 0]
    up = 0.5 * torch.sin(angle / 2)[:, None] * torch.tensor([0.0, 1.0, 0.0])
    return replace(still, rotations=rotations, trans=still.trans + up)


def test_flips_are_no_walk_and_no_bow() -> None:
    forwards, backwards = (captions_of(tumbling((sign, 0.0, 0.0))) for sign in (1.0, -1.0))
    for captions in (forwards, backwards):
        assert "flip" in kinds(captions)
        assert not kinds(captions) & {"walk", "walk_backward", "bow", "spin", "run"}
    assert any("backflip" in sentence or "flips backward" in sentence for sentence in backwards.body)
    assert not any("back" in sentence for sentence in forwards.body)


def test_a_raised_arm_is_described_with_its_position_and_lowering() -> None:
    body = captions_of(generate("raise_left", 4.0, 3, body=BODY)).body
    assert len(body) == 3
    assert len(body[0]) < len(body[1]) < len(body[2])
    assert re.search(r"high|above the head", body[1])
    assert re.search(r"and (then )?(lowers it|brings it)", body[1])
    assert "right" not in " ".join(body)


def test_slow_runs_and_fast_walks_are_separated_by_their_bounce() -> None:
    """Same path and speed; the pelvis is highest when the legs pass, or lowest."""
    walk = generate("walk", 4.0, 5, body=BODY)
    assert "walk" in kinds(captions_of(walk))
    assert "run" in kinds(captions_of(generate("run", 4.0, 5, body=BODY)))
    slowed = replace(walk, trans=walk.trans * torch.tensor([0.9, 1.0, 0.9]))
    assert "run" not in kinds(captions_of(slowed))
