"""The stage interface, and its application to records: every record is accounted for, and a failing record does not stop the
others."""

import re
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from typing import Any, ClassVar, Generic, TypeVar, get_args, get_origin

from schemas.config import Config
from schemas.errors import SourceError
from schemas.records import Record, Rejection, Source
from stages.failures import call_with_retries, describe_error, drop_frames, is_out_of_memory, is_transient

In = TypeVar("In", bound=Record)
Out = TypeVar("Out", bound=Record)


OUT_OF_MEMORY = "out_of_memory"
"""Rejection reason of a record for which memory did not suffice."""
QUARANTINE_REASONS = frozenset({"error", "timed_out", "worker_died", "unreachable", OUT_OF_MEMORY})
"""Rejection reasons that are failures rather than judgements: the records are worth retrying."""


class StageConfig(Config):
    """Base class of a stage's settings."""


class Stage(ABC, Generic[In, Out]):
    """A processing step: takes one kind of record and yields zero or more of another kind, or rejections.

    A subclass names its record types in its base, `class CutClips(Stage[Track, Clip])`, and its settings in an inner `Config`.
    Construction is cheap; weights are loaded in `setup`, once per process.
    """

    Config: ClassVar[type[StageConfig]] = StageConfig
    config_digest: str = ""
    """Digest of the whole job's settings, set by the chain."""
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
        """Load weights and other heavy resources. Raises HumoError if something that the settings need is missing."""

    @property
    def needs_network(self) -> bool:
        """Whether `run` uses the network by itself; sources are fetched for it. A worker process without it has none."""
        return False

    def remark(self) -> str:
        """A sentence about the settings for the dry run; empty if there is nothing to report."""
        return ""

    @abstractmethod
    def run(self, record: In) -> Iterable[Out | Rejection]:
        """All results and rejections of one record."""

    def run_batch(self, records: Sequence[In]) -> list[list[Out | Rejection]]:
        """`run` for several records, one list each; overridden where batching is cheaper."""
        return [list(self.run(record)) for record in records]

    def reject(self, record: Record, reason: str, detail: str = "", **numbers: float) -> Rejection:
        """A rejection by this stage; `numbers` are `measured` and `limit`."""
        return Rejection(id=record.id, stage=self.name, reason=reason, detail=detail, **numbers)

    def reject_unread(self, source: Source, error: OSError) -> Rejection:
        """A rejection of an unreadable source: `missing` or `unreadable`. Re-raises a transient error."""
        if is_transient(error):
            raise error
        if isinstance(error, FileNotFoundError):
            return self.reject(source, "missing", f"{source.uri} is not there")
        return self.reject(source, "unreadable", f"{source.uri}: {error}")


def apply(stage: Stage[Any, Any], records: Sequence[Any]) -> tuple[list[Any], list[Rejection]]:
    """Results and rejections of a stage over records, in order.

    If a batch raises, its records are run one by one, with retries on transient errors; an exception then becomes the rejection of
    its record. A record without any result is rejected too, so every input id appears in the output.
    """
    if not records:
        return [], []
    outcomes = _run_together(stage, records)
    if outcomes is None:  # outside the handler: the error would keep what the batch has allocated
        outcomes = [_run_single(stage, record) for record in records]
    results: list[Any] = []
    rejections: list[Rejection] = []
    for record, outcome in zip(records, outcomes, strict=True):
        if not outcome:
            rejections.append(stage.reject(record, "nothing_came_of_it"))
        for item in outcome:
            (rejections if isinstance(item, Rejection) else results).append(item)
    return results, rejections


def _run_together(stage: Stage[Any, Any], records: Sequence[Any]) -> list[list[Any]] | None:
    """Outcomes of a batch; None if it raised and its records should be run one by one."""
    try:
        return stage.run_batch(records)
    except Exception as error:
        # A source that must not be read is not asked for again.
        decided = isinstance(error, SourceError) and len(records) == 1
        rejections = [[_rejected(stage, records[0], error)]] if decided else None
        drop_frames(error)
        return rejections


def _run_single(stage: Stage[Any, Any], record: Any) -> list[Any]:
    try:
        return call_with_retries(stage.run_batch, [record])[0]
    except Exception as error:
        rejection = _rejected(stage, record, error)
        drop_frames(error)
        return [rejection]


def _rejected(stage: Stage[Any, Any], record: Any, error: Exception) -> Rejection:
    if isinstance(error, SourceError):
        return stage.reject(record, error.reason, error.detail, measured=error.measured, limit=error.limit)
    reason = OUT_OF_MEMORY if is_out_of_memory(error) else "unreachable" if is_transient(error) else "error"
    return stage.reject(record, reason, describe_error(error))
