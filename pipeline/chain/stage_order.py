"""Which stages there are, in which order they run, and whether each takes what the one before it yields."""

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
"""Module in `stages/` -> its stage, in the order in which they run."""


def stage_class(name: str) -> type[Stage[Any, Any]]:
    """A stage by the name of its module; raises UsageError for one that does not exist."""
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
    """The stages that sources of these kinds pass, checked before anything starts; no weights are loaded."""
    kinds = set(kinds)
    for name in names:
        stage_class(name)
    for kind in sorted(kinds):
        check_chain([stage_class(name) for name in names if applies_to(kind, name)], kind)
    passed = [name for name in names if any(applies_to(kind, name) for kind in kinds)]
    chain = [stage_class(name)(getattr(settings, name)) for name in passed]
    for stage in chain:
        stage.config_digest = digest
    return chain


def check_chain(classes: Sequence[type[Stage[Any, Any]]], source_kind: str = "video") -> None:
    """Raise UsageError where a stage does not take what comes before it, and say what belongs between."""
    if not classes:
        raise UsageError("chain: it is empty; leave `chain` out for the default one")
    have: type = Source
    giver = "the list of sources"
    for kind in classes:
        if kind.takes is not have:
            gives = f"{giver} yields {have.__name__}"
            remedy = _remedy(have, kind.takes, source_kind)
            raise UsageError(f"chain: {kind.name} takes {kind.takes.__name__}, {gives}: {remedy}")
        have, giver = kind.yields, kind.name
    if have is not Sample:
        raise UsageError(
            f"chain: it ends with {giver}, which yields {have.__name__}: {_remedy(have, Sample, source_kind)}"
        )


def _remedy(have: type, want: type, source_kind: str) -> str:
    between = _path(have, want, source_kind)
    return f"put {', '.join(between)} there" if between else "change the order or leave `chain` out"


def _path(have: type, want: type, source_kind: str) -> list[str]:
    """Fewest stages that lead from one kind of record to another, for sources of a kind."""
    reached: dict[type, list[str]] = {have: []}
    waiting = deque([have])
    while waiting:
        here = waiting.popleft()
        for name in STAGES:
            kind = stage_class(name)
            if applies_to(source_kind, name) and kind.takes is here and kind.yields not in reached:
                reached[kind.yields] = [*reached[here], name]
                waiting.append(kind.yields)
    return reached.get(want, [])
