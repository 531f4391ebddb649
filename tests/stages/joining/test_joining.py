"""Long motions: seam search, smooth seams and captions of the joined motion."""

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch

from schemas.body_model import BodyModel
from schemas.records import FPS, Captions, Event, Motion, Provenance, Rejection, ScoredMotion, Segment, Source
from schemas.rotations import axis_angle_to_matrix, matrix_to_axis_angle
from schemas.sample import MotionArrays
from schemas.skeleton import PARTS
from stages.base import apply
from stages.caption_segments import CaptionSegments
from stages.join_clips import JoinClips
from stages.joining.blend import join
from stages.joining.clips import Opening, SampleClip, spdx_and
from stages.joining.measure import measure_seams
from stages.joining.pieces import Body, Piece
from stages.joining.seams import best_seam, entry_candidates, exit_candidates
from stages.joining.step_captions import describe_steps, steps
from stages.synthesis.motions import generate


@pytest.fixture(scope="module")
def body() -> Body:
    return Body(BodyModel.load())


@pytest.fixture(scope="module")
def motions(body: Body) -> list[MotionArrays]:
    """Two walks, a wave and a squat, all on the mean body."""
    motions = []
    for number, action in enumerate(("walk", "walk", "wave_left", "squat")):
        motion = generate(action, 3.0, number, body=body.model, betas=torch.zeros(10))
        arrays = {"poses": matrix_to_axis_angle(motion.rotations), "trans": motion.trans, "betas": motion.betas}
        motions.append(
            MotionArrays(
                **{name: value.numpy().astype(np.float32) for name, value in arrays.items()},
                contacts=motion.contacts.numpy().astype(np.uint8),
                joint_confidence=np.ones((len(motion), 24), np.float32),
            )
        )
    return motions


def captions(text: str, kind: str) -> Captions:
    event = Event(
        part="body", joint="pelvis", kind=kind, side="none", start_s=0.2, end_s=2.0, amount=1.0, speed=1.0, text=kind
    )  # fmt: skip
    parts = {part: (f"The {part.replace('_', ' ')} swings.",) for part in PARTS}
    return Captions(body=(text, f"{text} It takes a while."), parts=parts, events=(event,), writers={"body": "rules 2"})


def clip(
    motion: MotionArrays, number: int, body: Body, *, source: str = "", text: str = "A person walks."
) -> SampleClip:
    source = source or f"source-{number}"
    return SampleClip(
        key=f"{number:024x}",
        provenance=Provenance(
            source=Source(id=source, uri=f"{source}.bvh", licence=f"L{number % 2}", consent="given"),
            sha256=source,
            person=0,
            start_s=1.0,
            end_s=1.0 + len(motion.poses) / FPS,
            source_fps=120.0,
        ),
        motion=motion,
        captions=captions(text, "walk"),
        body_model=body.model.id,
        models={"read_mocap": "bvh"},
        body=body,
    )


def opening(clips: Sequence[SampleClip]) -> Opening:
    return Opening(source=Source(id="long-1", uri="data#1", kind="join"), first=clips[0], candidates=clips[1:])


def joined(clips: Sequence[SampleClip], **config: object) -> tuple[list[Motion], list[Rejection], JoinClips]:
    stage = JoinClips(JoinClips.Config(**{"min_s": 4.0, "max_s": 7.0, "max_cost_m": 1.0, **config}))
    stage.setup()
    return *apply(stage, [opening(clips)]), stage


def test_joining_the_two_parts_of_a_cut_motion_restores_it(body: Body, motions: list[MotionArrays]) -> None:
    whole = Piece.of(motions[0], body)
    start, rest = whole.between(0, 50), whole.between(45, len(whole)).transformed(0.8, np.array([2.0, -1.0]))
    seam = best_seam(exit_candidates(start, 48, 49), entry_candidates(rest, 4, 5))
    assert (seam.last, 45 + seam.first) == (48, 49)
    assert seam.yaw_rad == pytest.approx(-0.8, abs=1e-4)
    assert seam.cost_m < best_seam(exit_candidates(start, 48, 49), entry_candidates(rest, 0, 1)).cost_m
    again = join(start, rest, seam, 12)
    assert len(again) == len(whole)
    assert np.abs(again.joints - whole.joints).max() < 1e-4


@pytest.mark.parametrize(("first", "second"), [(0, 1), (1, 0), (2, 3)])
def test_seams_are_smooth(body: Body, motions: list[MotionArrays], first: int, second: int) -> None:
    one, other = Piece.of(motions[first], body), Piece.of(motions[second], body)
    seam = best_seam(exit_candidates(one, len(one) - 22, len(one)), entry_candidates(other, 0, 22))
    both = join(one, other, seam, 12)
    start = seam.last + 1
    assert len(both) == start + len(other) - seam.first
    report = measure_seams(both, [start], 15)
    assert report.seams.acceleration_mps2 < 1.5 * max(report.inside.acceleration_mps2, 1.0)
    assert report.seams.slide_mm < 1.0
    step = np.linalg.norm(np.diff(both.joints, axis=0), axis=-1)
    usual = np.linalg.norm(np.diff(one.joints, axis=0), axis=-1).max(0) + np.linalg.norm(
        np.diff(other.joints, axis=0), axis=-1
    ).max(0)
    assert (step[start - 13 : start + 13] < usual + 0.02).all()
    assert both.soles[..., 1].min() > -0.03
    # Frames far from the seam are unchanged.
    expected = other.transformed(seam.yaw_rad, seam.shift_m).joints[-1]
    if not (both.planted[start - 1] & both.planted[start]).any():
        np.testing.assert_allclose(both.joints[-1], expected, atol=2e-3)
    np.testing.assert_allclose(both.joints[0], one.joints[0], atol=2e-2)


def test_a_walk_does_not_join_a_standing_pose(body: Body, motions: list[MotionArrays]) -> None:
    walk, stand, squat = (Piece.of(motions[number], body) for number in (0, 2, 3))
    bad, good = (
        best_seam(exit_candidates(one, 68, 90), entry_candidates(stand, 0, 22)).cost_m for one in (walk, squat)
    )
    assert good < JoinClips.Config().max_cost_m < bad


def test_planted_feet_do_not_slide_across_a_seam(body: Body, motions: list[MotionArrays]) -> None:
    one, other = Piece.of(motions[2], body), Piece.of(motions[3], body)
    seam = best_seam(exit_candidates(one, len(one) - 22, len(one)), entry_candidates(other, 0, 22))
    # A wrong transform on purpose: 4 cm and 6 degrees of error.
    wrong = replace(seam, yaw_rad=seam.yaw_rad + 0.1, shift_m=seam.shift_m + np.array([0.04, 0.0]))
    both = join(one, other, wrong, 12)
    assert both.planted[seam.last : seam.last + 2].all()
    near = both.soles[seam.last - 15 : seam.last + 16][:, :, [0, 2]]
    assert np.linalg.norm(np.diff(near, axis=0), axis=-1).max() < 2e-3
    placed = other.transformed(wrong.yaw_rad, wrong.shift_m)
    unblended = np.concatenate([one.soles[: seam.last + 1], placed.soles[seam.first :]])
    assert np.linalg.norm(np.diff(unblended, axis=0), axis=-1).max() > 0.03


def test_paths_scale_with_leg_length(body: Body, motions: list[MotionArrays]) -> None:
    tall = np.zeros(10, np.float32)
    tall[0] = 1.5
    source, target = Piece.of(motions[0], body), Piece.of(motions[0], body, tall)
    scale = float((target.rest[1, 1] - target.rest[7, 1]) / (source.rest[1, 1] - source.rest[7, 1]))
    path_m, scaled_m = (np.linalg.norm((p.joints[-1] - p.joints[0])[0, [0, 2]]) for p in (source, target))
    assert scaled_m / path_m == pytest.approx(scale, rel=0.02)
    assert abs(scale - 1) > 0.01
    assert np.abs(target.soles[target.planted][:, 1]).max() < 0.03


def test_long_motions_respect_their_limits_and_record_their_clips(body: Body, motions: list[MotionArrays]) -> None:
    clips = [clip(motion, number, body) for number, motion in enumerate(motions)]
    ((motion,), rejections, stage) = joined(clips)
    assert not rejections
    assert 4.0 <= motion.seconds <= 7.0
    parts = motion.segments
    assert len(parts) >= 2
    assert (parts[0].start_s, parts[-1].end_s) == (0.0, pytest.approx(motion.seconds))
    assert all(one.end_s == other.start_s for one, other in pairwise(parts))
    assert len({one.key for one in parts}) == len(parts)
    assert motion.provenance.source.licence == spdx_and(one.provenance.source.licence for one in parts)
    assert motion.provenance.sha256 == clips[0].provenance.sha256
    assert motion.id not in {one.key for one in parts}
    assert motion.id in stage.reports
    np.testing.assert_allclose(motion.trans[0, [0, 2]], -body.model.rest_joints(torch.zeros(10))[0, [0, 2]], atol=1e-5)
    # Far from the seams, each segment is its clip's motion.
    second = parts[1]
    middle = round((second.start_s + second.end_s) / 2 * FPS)
    source = clips[int(second.key, 16)].motion
    source_middle = middle - round((second.start_s - second.from_s) * FPS)
    one, other = (
        axis_angle_to_matrix(torch.from_numpy(p)) for p in (motion.poses[middle, 16:], source.poses[source_middle, 16:])
    )
    assert float(matrix_to_axis_angle(one.mT @ other).norm(dim=-1).max()) < 0.02
    (again,) = joined(clips)[0]
    assert again.id == motion.id
    np.testing.assert_array_equal(again.poses, motion.poses)


def test_the_same_person_comes_first(body: Body, motions: list[MotionArrays]) -> None:
    clips = [
        clip(motion, number, body, source="a" if number in (0, 3) else "") for number, motion in enumerate(motions)
    ]
    ((motion,), _, _) = joined(clips)
    assert int(motion.segments[1].key, 16) == 3


def test_nothing_is_joined_without_matching_clips(body: Body, motions: list[MotionArrays]) -> None:
    clips = [clip(motion, number, body) for number, motion in enumerate(motions)]
    results, (rejection,), _ = joined(clips, max_cost_m=1e-4)
    assert not results
    assert (rejection.reason, rejection.limit) == ("too_little_fits", 4.0)
    with pytest.raises(ValueError, match="must not be larger"):
        JoinClips.Config(min_s=9.0, max_s=8.0)


def segments_of(*texts_and_kinds: tuple[str, str]) -> tuple[Segment, ...]:
    provenance = Provenance(
        source=Source(id="s", uri="s"), sha256="s", person=0, start_s=0.0, end_s=9.0, source_fps=30.0
    )
    return tuple(
        Segment(
            key=str(number), provenance=provenance, start_s=2.0 * number, end_s=2.0 * number + 2.0, from_s=0.5,
            captions=captions(text, kind),
        )
        for number, (text, kind) in enumerate(texts_and_kinds)
    )  # fmt: skip


def test_segments_are_captioned_in_sequence() -> None:
    captions = describe_steps(
        segments_of(("A person jumps.", "jump"), ("Someone waves.", "wave"), ("The man bows", "bow")), "seed"
    )
    text = captions.body[0]
    first, second, third = text.split(". ")[0], text.split(". ")[1], text[-12:]
    assert first == "A person jumps"
    assert second.endswith("the person waves")
    assert third == "The man bows"
    assert all(len(lines) == 1 for lines in captions.parts.values())
    assert captions.parts["left_arm"] == ("The left arm swings.",)
    assert captions.writers["body"] == "joined 1 of rules 2"
    assert [(event.kind, event.start_s, event.end_s) for event in captions.events] == [
        ("jump", 0.0, 1.5), ("wave", 2.0, 3.5), ("bow", 4.0, 5.5),
    ]  # fmt: skip


def test_continued_actions_are_one_step() -> None:
    segments = segments_of(
        ("A person walks.", "walk"), ("Someone walks on.", "walk"), ("A person jumps.", "jump"), ("He jumps.", "jump")
    )
    assert [(one.text, one.end_s) for one in steps(segments)] == [
        ("A person walks.", 4.0),
        ("A person jumps.", 6.0),
        ("He jumps.", 8.0),
    ]


def test_only_joined_motions_are_captioned_by_segments(body: Body, motions: list[MotionArrays]) -> None:
    ((motion,), _, _) = joined([clip(one, number, body) for number, one in enumerate(motions)])
    ((captioned,), _) = apply(CaptionSegments(), [ScoredMotion(motion=motion, scores={})])
    assert captioned.captions.body
    assert set(captioned.captions.parts) == set(PARTS)
    alone = ScoredMotion(motion=replace(motion, segments=()), scores={})
    assert apply(CaptionSegments(), [alone])[1][0].reason == "error"
