"""Whether left and right survive the whole chain: films of sided actions, through all stages to the captions."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.benchmarks.labelled_mocap import Expected, expected_of_action
from pipeline.benchmarks.recovery_films import SECONDS, video_stages
from schemas.body_model import BodyModel
from schemas.records import FPS, CaptionedMotion, Captions, ScoredMotion, Source
from schemas.rotations import matrix_to_axis_angle
from stages.base import Stage, apply
from stages.fit_smpl import FitSmpl
from stages.score_motion import ScoreMotion
from stages.synthesis.motions import ACTIONS, LabelledMotion, generate
from stages.synthesis.scenes import film_scene, make_scene
from stages.write_captions import WriteCaptions

_SEED = 800_000
"""Of motions, bodies, clothes, places and cameras; trainings take small seeds."""
SIDED = tuple(action for action in ACTIONS if action.endswith(("_left", "_right")))
"""What the studio's people do with one side, or to it."""


@dataclass(frozen=True)
class Told:
    """A film, and what the stages say of its clips; nothing where they made none."""

    name: str
    expected: Expected
    """What is done in it."""
    captions: tuple[Captions, ...]
    """Of the recovered motions, a clip each."""
    of_truth: tuple[Captions, ...]
    """Of the true motion over the same times."""


def told_films(count: int, folder: Path, body: BodyModel) -> Iterator[Told]:
    """`count` films of sided actions in turn, each on another body in another place before a camera that stands still."""
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
        captioned = [one for one in records if isinstance(one, CaptionedMotion)]
        true, _ = apply(stages[-1], [_true(one.scored, motion) for one in captioned])
        yield Told(
            name=name,
            expected=expected_of_action(action),
            captions=tuple(one.captions for one in captioned),
            of_truth=tuple(one.captions for one in true),
        )


def _true(scored: ScoredMotion, motion: LabelledMotion) -> ScoredMotion:
    """The motion that was filmed in the place of the recovered one."""
    recovered = scored.motion
    first = round(recovered.provenance.start_s * FPS)
    frames = slice(first, first + len(recovered.poses))
    poses = matrix_to_axis_angle(motion.rotations[frames]).numpy()
    true = replace(
        recovered,
        poses=poses,
        trans=motion.trans[frames].numpy(),
        betas=motion.betas.numpy(),
        joint_confidence=np.ones(poses.shape[:2], np.float32),
    )
    return replace(scored, motion=true)
