"""What a stage is, and how one is applied to records so that nothing is lost and one bad record stops nothing."""

import re
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from typing import Any, ClassVar, Generic, TypeVar, get_args, get_origin

from schemas.config import Config
from schemas.records import Record, Rejection, Source
from stages.failures import describe, is_transient, persistent

In = TypeVar("In", bound=Record)
Out = TypeVar("Out", bound=Record)


QUARANTINE_REASONS = frozenset({"error", "timed_out", "worker_died", "unreachable"})
"""Reasons of rejections that are failures, not judgements: what they befell is worth another try."""


class StageConfig(Config):
    """Base of a stage's settings."""


class Stage(ABC, Generic[In, Out]):
    """A verb: takes one kind of record, yields another (several, or none but a rejection).

    A subclass names its records in its base, `class CutClips(Stage[Track, Clip])`, its settings in an inner `Config`.
    Constructing a stage costs nothing; weights are loaded in `setup`, once a process.
    """

    Config: ClassVar[type[StageConfig]] = StageConfig
    config_digest: str = ""
    """Digest of the whole job's settings, set by the chain that the stage stands in."""
    name: ClassVar[str]
    takes: ClassVar[type]
    yields: ClassVar[type]

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        cls.name = re.sub(r"(?<!^)(?=[A-Z])", "_", cls.__name__).lower()
        for base in getattr(cls, "__orig_bases__", ()):
            if get_origin(base) is Stage:
                cls.takes, cls.yields = get_args(base)

    def __init__(self, config: StageConfig | None = None) -> None:
        self.config: Any = config if config is not None else self.Config()

    def setup(self) -> None:
        """Load what is heavy. Raises HumoError where something that the settings ask for is missing."""

    def remark(self) -> str:
        """What a dry run should tell about its settings, in a sentence; empty: nothing."""
        return ""

    @abstractmethod
    def run(self, record: In) -> Iterable[Out | Rejection]:
        """Everything that comes of one record."""

    def run_batch(self, records: Sequence[In]) -> list[list[Out | Rejection]]:
        """As `run` for several records, one list each; overridden where a batch is cheaper than its parts."""
        return [list(self.run(record)) for record in records]

    def reject(self, record: Record, reason: str, detail: str = "", **numbers: float) -> Rejection:
        """A rejection by this stage; `measured` and `limit` are its numbers."""
        return Rejection(id=record.id, stage=self.name, reason=reason, detail=detail, **numbers)

    def reject_unread(self, source: Source, error: OSError) -> Rejection:
        """A rejection of a source that could not be read: `missing` or `unreadable`. Raises the error again if it may pass."""
        if is_transient(error):
            raise error
        if isinstance(error, FileNotFoundError):
            return self.reject(source, "missing", f"{source.uri} is not there")
        return self.reject(source, "unreadable", f"{source.uri}: {error}")


def apply(stage: Stage[Any, Any], records: Sequence[Any]) -> tuple[list[Any], list[Rejection]]:
    """Results and rejections of a stage over records, in their order.

    An exception becomes the rejection of the record that raised it (after a batch has failed as a whole, its records
    are tried one by one, several times where a network or a store was out of reach); a record that yields nothing at all
    is rejected too, so every id that comes in goes out.
    """
    if not records:
        return [], []
    try:
        outcomes = stage.run_batch(records)
    except Exception:
        outcomes = [_run_alone(stage, record) for record in records]
    results: list[Any] = []
    rejections: list[Rejection] = []
    for record, outcome in zip(records, outcomes, strict=True):
        if not outcome:
            rejections.append(stage.reject(record, "nothing_came_of_it"))
        for item in outcome:
            (rejections if isinstance(item, Rejection) else results).append(item)
    return results, rejections


def _run_alone(stage: Stage[Any, Any], record: Any) -> list[Any]:
    try:
        return persistent(stage.run_batch, [record])[0]
    except Exception as error:
        return [stage.reject(record, "unreachable" if is_transient(error) else "error", describe(error))]
