"""Runs a chain over sources: inline, one after another, or by Ray Data (see `ray_engine.py`). Both end every source in a commit."""

from collections.abc import Callable, Generator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from typing import Any

from pipeline.chain.config import IngestConfig
from pipeline.chain.stage_order import build_chain
from pipeline.chain.work_item import Bundle, advance
from pipeline.dataset.commits import commit
from pipeline.execution.isolated_worker import Build, Hand
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
    def of(cls, bundle: Bundle) -> "Outcome":
        reasons: dict[str, int] = {}
        for one in bundle.rejections:
            name = f"{one.stage}: {one.reason}"
            reasons[name] = reasons.get(name, 0) + 1
        failed = [one for one in bundle.rejections if one.reason in QUARANTINE_REASONS]
        return cls(
            source_id=bundle.source.id,
            samples=len(bundle.samples),
            reasons=reasons,
            failures={f"{one.stage}: {one.reason}": one.detail for one in failed},
            passed=bundle.passed,
        )


Engine = Callable[[IngestConfig, Sequence[Stage[Any, Any]], Sequence[Bundle]], Generator[Outcome]]


def chain_of(config: IngestConfig, bundles: Sequence[Bundle]) -> Build:
    """Makes the config's chain for these bundles' kinds of sources, in another process too."""
    kinds = {bundle.source.kind for bundle in bundles}
    return partial(build_chain, config.chain, config.stages, config.digest, kinds=kinds)


def run_inline(
    config: IngestConfig, chain: Sequence[Stage[Any, Any]], bundles: Sequence[Bundle], build: Build | None = None
) -> Generator[Outcome]:
    """One source after another; yields each after its commit.

    `build` makes the chain in a hand, where it is not the config's. Raises HumoError where a stage cannot be set up.
    """
    build = build or chain_of(config, bundles)
    storage = Storage(config.output)
    with ExitStack() as stack:
        if config.engine.isolate:
            take = stack.enter_context(Hand(build, [stage.name for stage in chain], config.faults)).advance
        else:
            for stage in chain:
                stage.setup()
            take = partial(advance, chain)
        for start in range(0, len(bundles), config.sources_per_commit):
            done = [take(bundle) for bundle in bundles[start : start + config.sources_per_commit]]
            commit(storage, done, config.digest)
            yield from map(Outcome.of, done)
