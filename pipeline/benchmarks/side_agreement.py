"""Left-right agreement of the whole chain: films of sided actions, through all stages to the captions."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.benchmarks.labelled_mocap import Expected, expected_of_action
from pipeline.benchmarks.recovery_films import SECONDS, video_stages
from schemas.body_model import BodyModel
from schemas.coverage import all_seen
from schemas.records import FPS, CaptionedMotion, Captions, ScoredMotion, Source
from schemas.rotations import matrix_to_axis_angle
from stages.base import Stage, apply
from stages.fit_smpl import FitSmpl
from stages.score_motion import ScoreMotion
from stages.synthesis.motions import ACTIONS, LabelledMotion, generate
from stages.synthesis.scenes import film_scene, make_scene
from stages.write_captions import WriteCaptions

_SEED = 800_000
"""Of motions, bodies, clothes, places and cameras; trainings use small seeds."""
SIDED = tuple(action for action in ACTIONS if action.endswith(("_left", "_right")))
"""Synthetic actions with a side: of a limb or a direction."""


@dataclass(frozen=True)
class CaptionedFilm:
    """A film and the captions of its clips; without captions if the stages yield no clip."""

    name: str
    expected: Expected
    """The expectation for its action."""
    captions: tuple[Captions, ...]
    """Of the recovered motions, one per clip."""
    target_captions: tuple[Captions, ...]
    """Of the ground-truth motion over the same times."""


def caption_films(count: int, folder: Path, body: BodyModel) -> Iterator[CaptionedFilm]:
    """`count` films of sided actions in turn, each of a different body in a different place with a static camera."""
    stages: list[Stage[Any, Any]] = [*video_stages(), FitSmpl(), ScoreMotion(), WriteCaptions()]
    for stage in stages[-3:]:
        stage.setup()
    for number in range(count):
        action = SIDED[number % len(SIDED)]
        name = f"{action}-{number:03d}"
        motion = generate(action, SECONDS, _SEED + number, body=body)
        scene = make_scene([motion], _SEED + number, body=body)
        path = film_scene(scene, folder / f"{name}.mp4", body=body).path
        records: list[Any] = [Source(id=name, uri=str(path))]
        for stage in stages:
            records, _ = apply(stage, records)
        path.unlink()
        captioned = [record for record in records if isinstance(record, CaptionedMotion)]
        targets, _ = apply(stages[-1], [_with_target_motion(record.scored, motion) for record in captioned])
        yield CaptionedFilm(
            name=name,
            expected=expected_of_action(action),
            captions=tuple(record.captions for record in captioned),
            target_captions=tuple(record.captions for record in targets),
        )


def _with_target_motion(scored: ScoredMotion, motion: LabelledMotion) -> ScoredMotion:
    """The recovered motion replaced by the ground truth."""
    recovered = scored.motion
    first = round(recovered.provenance.start_s * FPS)
    frames = slice(first, first + len(recovered.poses))
    poses = matrix_to_axis_angle(motion.rotations[frames]).numpy()
    target = replace(
        recovered,
        poses=poses,
        trans=motion.trans[frames].numpy(),
        betas=motion.betas.numpy(),
        joint_confidence=np.ones(poses.shape[:2], np.float32),
        seen=all_seen(len(poses)),
    )
    return replace(scored, motion=target)
