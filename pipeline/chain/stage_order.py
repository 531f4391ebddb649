"""The known stages, their order, and the check that each takes what the one before it yields."""

from collections import deque
from collections.abc import Iterable, Sequence
from importlib import import_module
from typing import Any

from pydantic import create_model

from pipeline.chain.routing import applies_to
from schemas.config import Config
from schemas.errors import UsageError
from schemas.records import Sample, Source
from stages.base import Stage

STAGES = {
    "read_videos": "ReadVideos",
    "transcribe": "Transcribe",
    "keep_human_text": "KeepHumanText",
    "split_shots": "SplitShots",
    "track_people": "TrackPeople",
    "cut_clips": "CutClips",
    "fit_smpl": "FitSmpl",
    "read_mocap": "ReadMocap",
    "film_studio": "FilmStudio",
    "score_motion": "ScoreMotion",
    "write_captions": "WriteCaptions",
    "score_pictures": "ScorePictures",
    "write_instructions": "WriteInstructions",
    "encode_clip": "EncodeClip",
}
"""Module in `stages/` -> its stage class, in execution order."""


def stage_class(name: str) -> type[Stage[Any, Any]]:
    """The stage class of a module name; raises UsageError for an unknown one."""
    if name not in STAGES:
        raise UsageError(f"chain: {name!r} is no stage; known stages: {', '.join(STAGES)}")
    return getattr(import_module(f"stages.{name}"), STAGES[name])


StageSettings: type[Config] = create_model(
    "StageSettings",
    __base__=Config,
    __doc__="Settings of the stages, by name.",
    **{name: (stage_class(name).Config, stage_class(name).Config()) for name in STAGES},
)  # type: ignore[call-overload]


def build_chain(
    names: Sequence[str], settings: Config, digest: str = "", *, kinds: Iterable[str] = ("video",)
) -> list[Stage[Any, Any]]:
    """The stages that sources of these kinds pass, checked before anything starts; loads no weights."""
    kinds = set(kinds)
    for name in names:
        stage_class(name)
    for kind in sorted(kinds):
        check_chain([stage_class(name) for name in names if applies_to(kind, name)], kind)
    included = [name for name in names if any(applies_to(kind, name) for kind in kinds)]
    chain = [stage_class(name)(getattr(settings, name)) for name in included]
    for stage in chain:
        stage.config_digest = digest
    return chain


def check_chain(classes: Sequence[type[Stage[Any, Any]]], source_kind: str = "video") -> None:
    """Raise UsageError where a stage does not take what the stage before it yields; names the stages that are missing."""
    if not classes:
        raise UsageError("chain: it is empty; leave `chain` out for the default one")
    current: type = Source
    producer = "the list of sources"
    for stage in classes:
        if stage.takes is not current:
            mismatch = f"{producer} yields {current.__name__}"
            remedy = _remedy(current, stage.takes, source_kind)
            raise UsageError(f"chain: {stage.name} takes {stage.takes.__name__}, {mismatch}: {remedy}")
        current, producer = stage.yields, stage.name
    if current is not Sample:
        raise UsageError(
            f"chain: it ends with {producer}, which yields {current.__name__}: {_remedy(current, Sample, source_kind)}"
        )


def _remedy(start: type, target: type, source_kind: str) -> str:
    missing = _path(start, target, source_kind)
    return f"put {', '.join(missing)} there" if missing else "change the order or leave `chain` out"


def _path(start: type, target: type, source_kind: str) -> list[str]:
    """Shortest sequence of stages from one record type to another, for a kind of source."""
    paths: dict[type, list[str]] = {start: []}
    queue = deque([start])
    while queue:
        current = queue.popleft()
        for name in STAGES:
            stage = stage_class(name)
            if applies_to(source_kind, name) and stage.takes is current and stage.yields not in paths:
                paths[stage.yields] = [*paths[current], name]
                queue.append(stage.yields)
    return paths.get(target, [])
