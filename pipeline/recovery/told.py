"""Whether left and right survive the whole chain: films of sided actions, through all stages to the captions."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pipeline.labelled_mocap import Expected, expected_of_action
from pipeline.recovery.films import SECONDS, video_stages
from schemas.body_model import BodyModel
from schemas.records import CaptionedMotion, Captions, Source
from stages.base import Stage, apply
from stages.fit_smpl import FitSmpl
from stages.score_motion import ScoreMotion
from stages.studio.motions import ACTIONS, generate
from stages.studio.scenes import film_scene, make_scene
from stages.write_captions import WriteCaptions

_SEED = 800_000
"""Of motions, bodies, clothes, places and cameras; trainings take small seeds."""
SIDED = tuple(action for action in ACTIONS if action.endswith(("_left", "_right")))
"""What the studio's people do with one side, or to it."""


def told_films(count: int, folder: Path, body: BodyModel) -> Iterator[tuple[str, Expected, list[Captions]]]:
    """`count` films of sided actions in turn, each on another body in another place before a camera that stands still: the
    film's name, what is done in it, and the captions of all clips that the stages made of it, none if they made none."""
    stages: list[Stage[Any, Any]] = [*video_stages(), FitSmpl(), ScoreMotion(), WriteCaptions()]
    for stage in stages[-3:]:
        stage.setup()
    for number in range(count):
        action = SIDED[number % len(SIDED)]
        name = f"{action}-{number:03d}"
        scene = make_scene([generate(action, SECONDS, _SEED + number, body=body)], _SEED + number, body=body)
        path = film_scene(scene, folder / f"{name}.mp4", body=body).path
        records: list[Any] = [Source(id=name, uri=str(path))]
        for stage in stages:
            records, _ = apply(stage, records)
        path.unlink()
        yield (
            name,
            expected_of_action(action),
            [one.captions for one in records if isinstance(one, CaptionedMotion)],
        )
