"""Runs a chain over sources: inline, one after another, or on Ray Data (`ray_engine.py`). Both commit every source."""

from collections.abc import Generator, Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from itertools import groupby
from typing import Any, Protocol

from pipeline.chain.config import IngestConfig
from pipeline.chain.stage_order import build_chain
from pipeline.chain.work_item import WorkItem, advance
from pipeline.dataset.commits import commit
from pipeline.execution.isolated_worker import ChainFactory, IsolatedWorker
from pipeline.execution.worker_limits import WorkerLimits
from schemas.staging import SourceFiles, use_source_files
from schemas.storage import Storage
from stages.base import QUARANTINE_REASONS, Stage


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """The result of one source."""

    source_id: str
    samples: int
    reasons: dict[str, int]
    """`stage: reason` -> number of rejections."""
    failures: dict[str, str]
    """`stage: reason` -> detail, of failures only."""
    stage_stats: dict[str, tuple[int, int, int, float]]
    """Stage -> records in, records out, rejections, seconds."""

    @classmethod
    def of(cls, work_item: WorkItem) -> "Outcome":
        reasons: dict[str, int] = {}
        for rejection in work_item.rejections:
            name = f"{rejection.stage}: {rejection.reason}"
            reasons[name] = reasons.get(name, 0) + 1
        failed = [rejection for rejection in work_item.rejections if rejection.reason in QUARANTINE_REASONS]
        return cls(
            source_id=work_item.source.id,
            samples=len(work_item.samples),
            reasons=reasons,
            failures={f"{rejection.stage}: {rejection.reason}": rejection.detail for rejection in failed},
            stage_stats=work_item.stage_stats,
        )


class Engine(Protocol):
    """Runs a chain over work items; `storage` is the output behind the fence of the job's lease."""

    def __call__(
        self,
        config: IngestConfig,
        chain: Sequence[Stage[Any, Any]],
        work_items: Sequence[WorkItem],
        *,
        storage: Storage | None = None,
    ) -> Generator[Outcome]: ...


def chain_factory(config: IngestConfig, work_items: Sequence[WorkItem]) -> ChainFactory:
    """A picklable function that builds the config's chain for the source kinds of these work items."""
    kinds = {work_item.source.kind for work_item in work_items}
    return partial(build_chain, config.chain, config.stages, config.digest, kinds=kinds)


_MAX_FILE_BYTES = 64 << 30
"""Largest file that a worker writes: films, and models that are converted at first use."""
_MAX_OPEN_FILES = 4096


def limits_of(config: IngestConfig, stages: Iterable[Stage[Any, Any]]) -> WorkerLimits:
    """The limits of a worker that runs these stages."""
    return WorkerLimits(
        memory_bytes=round(config.faults.memory_limit_gib * (1 << 30)),
        cpu_s=config.faults.cpu_limit_s,
        file_bytes=_MAX_FILE_BYTES,
        open_files=_MAX_OPEN_FILES,
        network=any(stage.needs_network for stage in stages),
    )


def run_inline(
    config: IngestConfig,
    chain: Sequence[Stage[Any, Any]],
    work_items: Sequence[WorkItem],
    build: ChainFactory | None = None,
    *,
    storage: Storage | None = None,
) -> Generator[Outcome]:
    """Run one source after another; yields each after its commit to `storage`, by default the config's output without a lease.

    `build` replaces the config's chain in the worker process. Raises HumoError where a stage cannot be set up.
    """
    build = build or chain_factory(config, work_items)
    storage = storage or Storage(config.output)
    with use_source_files(SourceFiles(config.access)) as files, ExitStack() as stack:
        files.clean()
        if config.engine.isolate:
            # A stage that needs the network has a process of its own: those that decode have none.
            workers = []
            for _, group in groupby(chain, key=lambda stage: stage.needs_network):
                stages = list(group)
                names = [stage.name for stage in stages]
                worker = IsolatedWorker(build, names, config.faults, limits=limits_of(config, stages), files=files)
                workers.append(stack.enter_context(worker))
            process = partial(_advance_through, workers)
        else:
            for stage in chain:
                stage.setup()
            process = partial(advance, chain)
        for start in range(0, len(work_items), config.sources_per_commit):
            done = [process(work_item) for work_item in work_items[start : start + config.sources_per_commit]]
            commit(storage, done, config.digest)
            forget_copies(files, done)
            yield from map(Outcome.of, done)


def _advance_through(workers: Sequence[IsolatedWorker], work_item: WorkItem) -> WorkItem:
    for worker in workers:
        work_item = worker.advance(work_item)
    return work_item


def forget_copies(files: SourceFiles, done: Iterable[WorkItem]) -> None:
    """Delete this node's copies of the files of sources that are committed."""
    for work_item in done:
        for location in {work_item.source.location, *work_item.looks}:
            files.forget(location)
