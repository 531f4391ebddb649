"""Runs a chain over sources: inline, in this process, or by Ray Data (see `ray_engine.py`). Both end every source in a commit."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from pipeline.bundles import Bundle, advance
from pipeline.commits import commit
from pipeline.config import IngestConfig
from schemas.records import Source
from schemas.storage import Storage
from stages.base import Stage


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What became of one source."""

    source_id: str
    samples: int
    reasons: dict[str, int]
    """`stage: reason` -> how many rejections."""
    passed: dict[str, tuple[int, int, int, float]]
    """Stage -> records in, out, rejections, seconds."""

    @classmethod
    def of(cls, bundle: Bundle) -> "Outcome":
        reasons: dict[str, int] = {}
        for one in bundle.rejections:
            name = f"{one.stage}: {one.reason}"
            reasons[name] = reasons.get(name, 0) + 1
        return cls(source_id=bundle.source.id, samples=len(bundle.samples), reasons=reasons, passed=bundle.passed)


Engine = Callable[[IngestConfig, Sequence[Stage[Any, Any]], Sequence[Source]], Iterator[Outcome]]


def run_inline(config: IngestConfig, chain: Sequence[Stage[Any, Any]], sources: Sequence[Source]) -> Iterator[Outcome]:
    """One source after another in this process; yields each after its commit."""
    storage = Storage(config.output)
    for stage in chain:
        stage.setup()
    waiting: list[Bundle] = []
    for number, source in enumerate(sources, start=1):
        waiting.append(advance(chain, Bundle.of(source)))
        if len(waiting) == config.sources_per_commit or number == len(sources):
            commit(storage, waiting, config.digest)
            yield from map(Outcome.of, waiting)
            waiting = []
