"""The only module that knows Ray: a chain as Ray Data operators, each a pool of actors that hold their stages' weights.

A row is a whole bundle (paths and compressed bytes, never frames), so that the last pool can commit a source the moment it
is done. Neighbouring stages with equal resources share a pool.
"""

import logging
import os
import pickle
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import groupby
from pathlib import Path
from typing import Any

from pipeline.bundles import Bundle, advance
from pipeline.chain import build_chain
from pipeline.commits import commit
from pipeline.config import IngestConfig, WorkerConfig
from pipeline.engines import Outcome
from schemas.errors import HumoError
from schemas.offline import hold_still
from schemas.records import Source
from schemas.storage import Storage
from stages.base import Stage


class _Worker:
    """One actor: some neighbouring stages of the chain and, in the last pool, the commit."""

    def __init__(self, config: IngestConfig, kinds: set[str], names: list[str], commits: bool) -> None:
        hold_still()
        self.config, self.commits = config, commits
        chain = build_chain(config.chain, config.stages, config.digest, kinds=kinds)
        self.stages = [stage for stage in chain if stage.name in names]
        for stage in self.stages:
            stage.setup()

    def __call__(self, batch: dict[str, Any]) -> dict[str, list[bytes]]:
        bundles = [advance(self.stages, pickle.loads(row)) for row in batch["bundle"]]
        if not self.commits:
            return {"bundle": [pickle.dumps(bundle) for bundle in bundles]}
        commit(Storage(self.config.output), bundles, self.config.digest)
        return {"outcome": [pickle.dumps(Outcome.of(bundle)) for bundle in bundles]}


def run_ray(config: IngestConfig, chain: Sequence[Stage[Any, Any]], sources: Sequence[Source]) -> Iterator[Outcome]:
    """Run on Ray, started here or joined; yields each source after its commit, in no particular order."""
    hold_still()
    import ray

    started = not ray.is_initialized()
    if started:
        _start(config)
    try:
        yield from _run(config, chain, sources)
    finally:
        if started:
            ray.shutdown()


def pools(
    config: IngestConfig, chain: Sequence[Stage[Any, Any]], have: Mapping[str, float]
) -> list[tuple[list[str], WorkerConfig]]:
    """(stages, resources) of each actor pool, on a cluster that has these CPUs and GPUs.

    Pools of stages that the config does not name share what the named ones leave, at most one core a worker. Raises
    HumoError where the named ones alone ask for more than there is.
    """
    needs = [(stage.name, config.resources.get(stage.name)) for stage in chain]
    layout = [([name for name, _ in group], need) for need, group in groupby(needs, key=lambda pair: pair[1])]
    for kind in ("CPU", "GPU"):
        need = sum(getattr(worker, f"{kind.lower()}s") for _, worker in layout if worker)
        if need > have.get(kind, 0):
            raise HumoError(
                f"resources: one worker of each named stage needs {need:g} {kind}s, Ray has {have.get(kind, 0):g}; "
                "lower `resources` or join a larger cluster"
            )
    unnamed = sum(worker is None for _, worker in layout)
    left = have.get("CPU", 0) - sum(worker.cpus for _, worker in layout if worker)
    share = min(1.0, max(0.05, left / unnamed)) if unnamed else 1.0
    return [(names, worker or WorkerConfig(cpus=share)) for names, worker in layout]


def _run(config: IngestConfig, chain: Sequence[Stage[Any, Any]], sources: Sequence[Source]) -> Iterator[Outcome]:
    import ray

    have = ray.cluster_resources()
    layout = pools(config, chain, have)
    context = ray.data.DataContext.get_current()
    logging.getLogger("ray.data").setLevel(logging.ERROR)  # after ray.data is loaded, which sets levels of its own
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    kinds = {source.kind for source in sources}
    rows = [{"bundle": pickle.dumps(Bundle.of(source))} for source in sources]
    data: ray.data.Dataset = ray.data.from_items(rows, override_num_blocks=min(len(rows), 10_000))
    for number, (names, worker) in enumerate(layout):
        last = number == len(layout) - 1
        room = max(1, int(have["CPU"] // worker.cpus))
        if worker.gpus:
            room = min(room, max(1, int(have["GPU"] // worker.gpus)))
        most = min(worker.workers or room, room, len(rows))
        data = data.map_batches(
            _Worker,
            fn_constructor_args=(config, kinds, names, last),
            batch_size=config.sources_per_commit if last else 1,
            compute=ray.data.ActorPoolStrategy(min_size=1, max_size=most),
            num_cpus=worker.cpus,
            num_gpus=worker.gpus,
        )
    for row in data.iter_rows():
        yield pickle.loads(row["outcome"])


def _start(config: IngestConfig) -> None:
    import ray

    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")  # its warnings are about Ray's own upkeep
    common: dict[str, Any] = {"log_to_driver": False, "logging_level": "error"}
    logging.getLogger("ray._private.authentication").setLevel(logging.ERROR)
    if config.engine.address:
        root = Path(__file__).resolve().parents[1]
        shipped = {"working_dir": str(root), "excludes": [".venv", ".git", "demo", "runs", "build", "tests"]}
        try:
            ray.init(address=config.engine.address, runtime_env=shipped, **common)
        except (ConnectionError, TimeoutError) as error:
            raise HumoError(
                f"engine.address: no Ray at {config.engine.address} ({error}); start one with `ray start --head`"
            ) from None
        return
    with _muted_stderr():
        ray.init(num_cpus=config.engine.cpus or os.cpu_count(), include_dashboard=False, **common)


@contextmanager
def _muted_stderr() -> Iterator[None]:
    """Keeps what Ray's native part says at its start from the terminal; errors come as exceptions all the same."""
    sys.stderr.flush()
    kept = os.dup(2)
    with open(os.devnull, "wb") as nowhere:
        os.dup2(nowhere.fileno(), 2)
    try:
        yield
    finally:
        sys.stderr.flush()
        os.dup2(kept, 2)
        os.close(kept)
