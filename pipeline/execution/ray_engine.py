"""The only module that knows Ray: a chain as Ray Data operators, each a pool of actors that hold their stages' weights.

A row is some sources' work items (paths and compressed bytes, never frames), one source where work is heavy, and a block of its
own: that is what a task takes, what is redone when an actor or its node dies, and what waits between two pools. The last
pool commits a source the moment it is done. Neighbouring stages with equal resources share a pool; pools grow and shrink
with what waits for them, and a pool whose results pile up is held back.
"""

import logging
import math
import os
import pickle
import sys
import threading
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext, suppress
from functools import partial
from itertools import groupby
from typing import Any

from pipeline import PROJECT_ROOT
from pipeline.chain.config import IngestConfig, WorkerConfig
from pipeline.chain.work_item import WorkItem, advance
from pipeline.dataset.commits import commit
from pipeline.execution.engines import Outcome, chain_of
from pipeline.execution.isolated_worker import Build, IsolatedWorker
from pipeline.execution.metrics import Metrics, ray_meter
from schemas.errors import HumoError, UsageError
from schemas.offline import enforce_offline
from schemas.storage import Storage
from stages.base import Stage

_CHUNK = 256
"""Rows that wait as one object until they are wanted: a million sources are some thousand objects, not a million."""
_LIGHT = 16
"""Sources of a task where all are light: Ray's own work for a task is some milliseconds of the one process that plans."""
_LOOK_S = 20.0
"""Between two looks at what the cluster has."""
_TASKS_PER_CPU = 4
"""Fewer sources a task where there are not enough for so many tasks a core: the last ones should end together."""

_log = logging.getLogger(__name__)


class _Worker:
    """One actor: some neighbouring stages of the chain and, in the last pool, the commit."""

    def __init__(self, config: IngestConfig, build: Build, names: list[str], commits: bool) -> None:
        enforce_offline()
        from ray.util import metrics

        self.config, self.commits, self.first = config, commits, names[0]
        self.metrics = Metrics(partial(ray_meter, metrics))
        self.hand = IsolatedWorker(build, names, config.faults) if config.engine.isolate else None
        self.restarts = 0
        self.stages = [] if self.hand else [stage for stage in build() if stage.name in names]
        for stage in self.stages:
            stage.setup()

    def __call__(self, batch: dict[str, Any]) -> Iterator[dict[str, list[bytes]]]:
        work_items = [work_item for row in batch["row"] for work_item in pickle.loads(row)]
        size = self.config.sources_per_commit if self.commits else len(work_items)
        for start in range(0, len(work_items), size):
            done = [self.advance(work_item) for work_item in work_items[start : start + size]]
            if not self.commits:
                yield {"row": [pickle.dumps(done)]}
                continue
            commit(Storage(self.config.output), done, self.config.digest)
            for work_item in done:
                self.metrics.count(work_item)
            yield {"row": [pickle.dumps([Outcome.of(work_item) for work_item in done])]}

    def advance(self, work_item: WorkItem) -> WorkItem:
        if self.hand is None:
            return advance(self.stages, work_item)
        work_item = self.hand.advance(work_item)
        self.metrics.count_restarts(self.first, self.hand.restarts - self.restarts)
        self.restarts = self.hand.restarts
        return work_item


def run_ray(
    config: IngestConfig, chain: Sequence[Stage[Any, Any]], work_items: Sequence[WorkItem], build: Build | None = None
) -> Generator[Outcome]:
    """Run on Ray, started here or joined; yields each source after its commit, in no particular order.

    `build` makes the chain in the workers, where it is not the config's; see `IsolatedWorker`. Raises HumoError where no Ray can be
    joined, it is too small for `resources`, or a worker's stages cannot be set up.
    """
    enforce_offline()
    import ray

    build = build or chain_of(config, work_items)
    with nullcontext() if ray.is_initialized() else local_ray(config):
        yield from _run(config, chain, work_items, build)


def pools(
    config: IngestConfig, chain: Sequence[Stage[Any, Any]], have: Mapping[str, float]
) -> list[tuple[list[str], WorkerConfig]]:
    """(stages, resources) of each actor pool, on a cluster that has these CPUs and GPUs.

    Pools of stages that the config does not name share what the named ones leave, at most one core a worker; on a cluster
    that grows each worker of theirs has one. Raises HumoError where the named ones alone ask for more than there is and
    the cluster does not grow.
    """
    needs = [(stage.name, config.resources.get(stage.name)) for stage in chain]
    layout = [([name for name, _ in group], need) for need, group in groupby(needs, key=lambda pair: pair[1])]
    if config.engine.grows:
        return [(names, worker or WorkerConfig()) for names, worker in layout]
    for kind in ("CPU", "GPU"):
        need = sum(getattr(worker, f"{kind.lower()}s") for _, worker in layout if worker)
        if need > have.get(kind, 0):
            raise HumoError(
                f"resources: one worker of each named stage needs {need:g} {kind}s, Ray has {have.get(kind, 0):g}; "
                "lower `resources`, join a larger cluster, or set engine.grows if it adds nodes by itself"
            )
    unnamed = sum(worker is None for _, worker in layout)
    left = have.get("CPU", 0) - sum(worker.cpus for _, worker in layout if worker)
    share = min(1.0, max(0.05, left / unnamed)) if unnamed else 1.0
    return [(names, worker or WorkerConfig(cpus=share)) for names, worker in layout]


def most_workers(config: IngestConfig, worker: WorkerConfig, have: Mapping[str, float]) -> int | None:
    """Largest size of a pool; None where the cluster grows and nobody has said."""
    if config.engine.grows:
        return worker.workers or None
    room = max(1, int(have["CPU"] // worker.cpus))
    if worker.gpus:
        room = min(room, max(1, int(have["GPU"] // worker.gpus)))
    return min(worker.workers or room, room)


def sources_per_task(config: IngestConfig, work_items: Sequence[WorkItem], pool_count: int, cpus: float) -> int:
    """How many sources a worker takes at once. Videos and films one by one; motion capture several, so that Ray's own work
    is small beside theirs; and all of a commit where there is but one pool, which need not wait for the others."""
    light = all(work_item.source.kind not in ("video", "studio") for work_item in work_items)
    fair = max(1, math.ceil(len(work_items) / (_TASKS_PER_CPU * max(1.0, cpus))))
    return max(min(_LIGHT, fair) if light else 1, config.sources_per_commit if pool_count == 1 else 1)


def _run(
    config: IngestConfig, chain: Sequence[Stage[Any, Any]], work_items: Sequence[WorkItem], build: Build
) -> Iterator[Outcome]:
    import ray

    have = ray.cluster_resources()
    layout = pools(config, chain, have)
    per_task = sources_per_task(config, work_items, len(layout), have.get("CPU", 1))
    context = ray.data.DataContext.get_current().copy()
    # After ray.data is loaded, which sets levels of its own; an error is raised anyway, and without the traces.
    logging.getLogger("ray.data").setLevel(logging.CRITICAL)
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    context.target_max_block_size = 1  # every row is a block: a task, and passed on as soon as it is there
    context.execution_no_progress_timeout_s = -1  # a long video alone may take longer; time limits are the hands'
    with ray.data.DataContext.current(context):
        data: ray.data.Dataset = _input(work_items, per_task)
        for number, (names, worker) in enumerate(layout):
            last = number == len(layout) - 1
            most = most_workers(config, worker, have)
            # Ray Data starts a dead actor anew without end, on another node if its own is gone, and gives it again what it
            # had not finished; a commit written twice is one commit.
            data = data.map_batches(
                _Worker,
                fn_constructor_args=(config, build, names, last),
                batch_size=math.ceil(config.sources_per_commit / per_task) if last else 1,
                compute=ray.data.ActorPoolStrategy(
                    min_size=1, max_size=None if most is None else min(most, math.ceil(len(work_items) / per_task))
                ),
                num_cpus=worker.cpus,
                num_gpus=worker.gpus,
            )
        try:
            with _watched(partial(shortage, layout, grows=config.engine.grows)):
                for row in data.iter_rows():
                    yield from pickle.loads(row["row"])
        except ray.exceptions.RayError as error:
            raise _explained(error) from error


def shortage(layout: Sequence[tuple[list[str], WorkerConfig]], have: Mapping[str, float], *, grows: bool) -> str:
    """Why a job stands still on a cluster that has lost nodes, or not got them yet, and what helps; empty where it need not."""
    for kind in ("CPU", "GPU"):
        need = sum(getattr(worker, f"{kind.lower()}s") for _, worker in layout)
        if need > have.get(kind, 0) + 1e-6:
            remedy = (
                "it waits for the cluster to grow"
                if grows
                else "add nodes, or stop it and run it again on what is left"
            )
            return (
                f"one worker of each pool needs {need:g} {kind}s and Ray has {have.get(kind, 0):g}: the job stands still; "
                f"{remedy} (nothing that was committed is lost)"
            )
    return ""


@contextmanager
def _watched(what_is_short: Callable[[Mapping[str, float]], str]) -> Iterator[None]:
    """Say so, each time anew, when nodes have gone that the pools cannot do without: Ray itself waits in silence."""
    import ray

    done = threading.Event()

    def watch() -> None:
        said = ""
        while not done.wait(_LOOK_S):
            with suppress(ray.exceptions.RayError, ConnectionError):  # the job itself hears of a Ray that is gone
                found = what_is_short(ray.cluster_resources())
                if found and found != said:
                    _log.warning("%s", found)
                said = found

    watcher = threading.Thread(target=watch, name="resources", daemon=True)
    watcher.start()
    try:
        yield
    finally:
        done.set()
        watcher.join()


def _input(work_items: Sequence[WorkItem], per_task: int) -> Any:
    """Rows of work items, made where they are wanted: what lies in Ray is the list, once."""
    import ray

    step = per_task * _CHUNK
    chunks = [
        {
            "row": pickle.dumps(
                [work_items[at : at + per_task] for at in range(start, min(start + step, len(work_items)), per_task)]
            )
        }
        for start in range(0, len(work_items), step)
    ]
    data = ray.data.from_items(chunks, override_num_blocks=len(chunks))
    # One at a time and without a core of its own: the pools may have taken all of them.
    return data.flat_map(_rows, num_cpus=0, concurrency=1)


def _rows(chunk: dict[str, Any]) -> Iterator[dict[str, bytes]]:
    for work_items in pickle.loads(chunk["row"]):
        yield {"row": pickle.dumps(work_items)}


def plain_ray(config: IngestConfig, items: Sequence[Any], write: Callable[[Sequence[Any]], int]) -> Iterator[int]:
    """What `humo bench overhead` measures against: Ray Data as its documentation shows it, `sources_per_commit` items a
    task. `write` is given a task's items and says how many it has dealt with, which is yielded."""
    import ray

    size = config.sources_per_commit
    rows = [{"row": pickle.dumps(items[at : at + size])} for at in range(0, len(items), size)]
    data = ray.data.from_items(rows, override_num_blocks=len(rows)).map_batches(
        _PlainWorker,
        fn_constructor_args=(write,),
        batch_size=1,
        compute=ray.data.ActorPoolStrategy(min_size=1, max_size=max(1, int(ray.cluster_resources()["CPU"]))),
    )
    yield from (row["number"] for row in data.iter_rows())


class _PlainWorker:
    def __init__(self, write: Callable[[Sequence[Any]], int]) -> None:
        self.write = write

    def __call__(self, batch: dict[str, Any]) -> dict[str, list[int]]:
        return {"number": [self.write(pickle.loads(row)) for row in batch["row"]]}


@contextmanager
def local_ray(config: IngestConfig) -> Iterator[None]:
    """A Ray that several runs share, as `engine` says; ended at the end."""
    enforce_offline()
    import ray

    _start(config)
    try:
        yield
    finally:
        ray.shutdown()


def _explained(error: BaseException) -> Exception:
    """The HumoError that a worker raised, or all that is known."""
    inner: BaseException | None = error
    while inner is not None:
        if isinstance(inner, HumoError):
            return inner
        inner = getattr(inner, "cause", None) or inner.__cause__
    # Of an actor that did not start Ray keeps the words alone.
    said = [line.strip() for line in str(error).splitlines() if line.strip()]
    for kind in (UsageError, HumoError):
        name = f"{kind.__module__}.{kind.__name__}: "
        for line in said:
            if line.startswith(name):
                return kind(line.removeprefix(name))
    return HumoError(f"Ray gave up: {' '.join(said)[-2000:]}; what was committed stays, run it again to go on")


def _start(config: IngestConfig) -> None:
    import ray

    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")  # its warnings are about Ray's own upkeep
    common: dict[str, Any] = {"log_to_driver": False, "logging_level": "error"}
    logging.getLogger("ray._private.authentication").setLevel(logging.ERROR)
    address = config.engine.address or os.environ.get("RAY_ADDRESS", "")
    if address:
        # A submitted job has its code from `ray job submit --working-dir`, and must not bring it a second time.
        submitted = "RAY_JOB_CONFIG_JSON_ENV_VAR" in os.environ
        shipped = {} if submitted else {"working_dir": str(PROJECT_ROOT)}
        try:
            ray.init(address=address, runtime_env=shipped, **common)
        except (ConnectionError, TimeoutError) as error:
            raise HumoError(
                f"engine.address: no Ray at {address} ({error}); start one with `ray start --head`"
            ) from None
        return
    with _muted_stderr():
        # `local`, or another Ray on this machine would be joined.
        ray.init(address="local", num_cpus=config.engine.cpus or os.cpu_count(), include_dashboard=False, **common)


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
