"""Runs a chain over sources: inline, one after another, or by Ray Data (see `ray_engine.py`). Both end every source in a commit."""

from collections.abc import Callable, Generator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from typing import Any

from pipeline.chain.config import IngestConfig
from pipeline.chain.stage_order import build_chain
from pipeline.chain.work_item import WorkItem, advance
from pipeline.dataset.commits import commit
from pipeline.execution.isolated_worker import Build, IsolatedWorker
from schemas.storage import Storage
from stages.base import QUARANTINE_REASONS, Stage


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What became of one source."""

    source_id: str
    samples: int
    reasons: dict[str, int]
    """`stage: reason` -> how many rejections."""
    failures: dict[str, str]
    """`stage: reason` of what failed -> in detail."""
    passed: dict[str, tuple[int, int, int, float]]
    """Stage -> records in, out, rejections, seconds."""

    @classmethod
    def of(cls, work_item: WorkItem) -> "Outcome":
        reasons: dict[str, int] = {}
        for one in work_item.rejections:
            name = f"{one.stage}: {one.reason}"
            reasons[name] = reasons.get(name, 0) + 1
        failed = [one for one in work_item.rejections if one.reason in QUARANTINE_REASONS]
        return cls(
            source_id=work_item.source.id,
            samples=len(work_item.samples),
            reasons=reasons,
            failures={f"{one.stage}: {one.reason}": one.detail for one in failed},
            passed=work_item.passed,
        )


Engine = Callable[[IngestConfig, Sequence[Stage[Any, Any]], Sequence[WorkItem]], Generator[Outcome]]


def chain_of(config: IngestConfig, work_items: Sequence[WorkItem]) -> Build:
    """Makes the config's chain for these work items' kinds of sources, in another process too."""
    kinds = {work_item.source.kind for work_item in work_items}
    return partial(build_chain, config.chain, config.stages, config.digest, kinds=kinds)


def run_inline(
    config: IngestConfig, chain: Sequence[Stage[Any, Any]], work_items: Sequence[WorkItem], build: Build | None = None
) -> Generator[Outcome]:
    """One source after another; yields each after its commit.

    `build` makes the chain in a hand, where it is not the config's. Raises HumoError where a stage cannot be set up.
    """
    build = build or chain_of(config, work_items)
    storage = Storage(config.output)
    with ExitStack() as stack:
        if config.engine.isolate:
            take = stack.enter_context(IsolatedWorker(build, [stage.name for stage in chain], config.faults)).advance
        else:
            for stage in chain:
                stage.setup()
            take = partial(advance, chain)
        for start in range(0, len(work_items), config.sources_per_commit):
            done = [take(work_item) for work_item in work_items[start : start + config.sources_per_commit]]
            commit(storage, done, config.digest)
            yield from map(Outcome.of, done)
