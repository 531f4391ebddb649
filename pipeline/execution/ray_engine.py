"""The only module that imports Ray: a chain as Ray Data operators, each a pool of actors that hold their stages' weights.

A row (`ray_rows`) holds the work items of some sources (paths and compressed bytes, never frames), of one source where stages are
expensive, and is a block of its own: the unit of a task, of recomputation when an actor or its node dies, and of queueing between
two pools. The last pool commits a source as soon as it is done. Adjacent stages with equal resources share a pool; pools scale with
their queues, and a pool whose results pile up gets backpressure.
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
from pathlib import Path
from typing import Any

import pyarrow as pa

from pipeline import PROJECT_ROOT
from pipeline.chain.config import IngestConfig, WorkerConfig
from pipeline.chain.work_item import WorkItem, advance
from pipeline.dataset.commits import commit
from pipeline.execution.engines import Outcome, chain_factory, forget_copies, limits_of
from pipeline.execution.isolated_worker import ChainFactory, IsolatedWorker
from pipeline.execution.metrics import Metrics, ray_metric
from pipeline.execution.ray_rows import committed_row, payloads, rows_of
from pipeline.execution.ray_shipping import shipping_excludes
from pipeline.execution.ray_token import authenticate_local_ray, authenticate_to, check_joined
from pipeline.execution.worker_limits import WorkerLimits
from schemas.errors import HumoError, UsageError
from schemas.offline import enforce_offline
from schemas.secrets import hide_secrets_in_output
from schemas.staging import Access, SourceFiles, use_source_files
from schemas.storage import Storage
from stages.base import Stage

_ROWS_PER_CHUNK = 256
"""Rows stored as one object until they are needed: a million sources are some thousand objects, not a million."""
_MAX_LIGHT_SOURCES = 16
"""Sources per task if all are light: Ray's overhead per task is some milliseconds of the one scheduling process."""
_POLL_S = 20.0
"""Interval between checks of the cluster's resources."""
_CLEAN_S = 60.0
"""Longest time to delete copies of sources on all nodes."""
_TASKS_PER_CPU = 4
"""Fewer sources per task where there are not enough for this many tasks per core: the last tasks should end at about the same
time."""

_log = logging.getLogger(__name__)


class _StageActor:
    """One actor: some adjacent stages of the chain and, in the last pool, the commit."""

    def __init__(
        self,
        config: IngestConfig,
        build: ChainFactory,
        names: list[str],
        is_last: bool,
        storage: Storage,
        limits: WorkerLimits,
        access: Access,
    ) -> None:
        enforce_offline()
        hide_secrets_in_output()
        from ray.util import metrics

        self.config, self.is_last, self.names, self.storage = config, is_last, names, storage
        self.metrics = Metrics(partial(ray_metric, metrics))
        self.files = SourceFiles(access)
        self.worker = (
            IsolatedWorker(build, names, config.faults, limits=limits, files=self.files)
            if config.engine.isolate
            else None
        )
        self.counted_restarts = 0
        self.stages = [] if self.worker else [stage for stage in build() if stage.name in names]
        for stage in self.stages:
            stage.setup()

    def __call__(self, batch: pa.Table) -> Iterator[pa.Table]:
        work_items = payloads(batch)
        size = self.config.sources_per_commit if self.is_last else len(work_items)
        for start in range(0, len(work_items), size):
            done = [self.advance(work_item) for work_item in work_items[start : start + size]]
            if not self.is_last:
                yield rows_of([done], self.names[-1])
                continue
            commit(self.storage, done, self.config.digest)
            forget_copies(self.files, done)
            for work_item in done:
                self.metrics.count(work_item)
            yield committed_row(done)

    def advance(self, work_item: WorkItem) -> WorkItem:
        if self.worker is None:
            with use_source_files(self.files):
                return advance(self.stages, work_item)
        work_item = self.worker.advance(work_item)
        self.metrics.count_restarts(self.names[0], self.worker.restarts - self.counted_restarts)
        self.counted_restarts = self.worker.restarts
        return work_item


def run_ray(
    config: IngestConfig,
    chain: Sequence[Stage[Any, Any]],
    work_items: Sequence[WorkItem],
    build: ChainFactory | None = None,
    *,
    storage: Storage | None = None,
) -> Generator[Outcome]:
    """Run on Ray, started here or joined; yields each source after its commit to `storage`, in no particular order.

    Workers commit under the lease of `storage`, by default to the config's output without a lease. `build` replaces the config's
    chain in the workers; see `IsolatedWorker`. Raises HumoError where no Ray can be joined, it is too small for `resources`, or a
    worker's stages cannot be set up.
    """
    enforce_offline()
    import ray

    if "://" not in config.output:  # the workers of a cluster have another current folder
        config = config.model_copy(update={"output": str(Path(config.output).expanduser().absolute())})
    build = build or chain_factory(config, work_items)
    access = config.access
    try:
        with nullcontext() if ray.is_initialized() else local_ray(config):
            yield from _run(config, chain, work_items, build, storage or Storage(config.output), access)
    finally:
        SourceFiles(access).clean()  # the processes of a local Ray have ended now


def pool_layout(
    config: IngestConfig, chain: Sequence[Stage[Any, Any]], available: Mapping[str, float]
) -> list[tuple[list[str], WorkerConfig]]:
    """(stages, resources) of each actor pool, on a cluster with these CPUs and GPUs.

    Pools of stages that the config does not list share what the listed ones leave, at most one core per worker; on an autoscaling
    cluster each of their workers has one core. Raises HumoError where the listed ones alone need more than is available and the
    cluster does not autoscale.
    """
    needs = [(stage.name, config.resources.get(stage.name), stage.needs_network) for stage in chain]
    groups = [
        ([name for name, _, _ in group], required) for (required, _), group in groupby(needs, key=lambda item: item[1:])
    ]
    if config.engine.grows:
        return [(names, worker or WorkerConfig()) for names, worker in groups]
    for resource in ("CPU", "GPU"):
        required = sum(getattr(worker, f"{resource.lower()}s") for _, worker in groups if worker)
        if required > available.get(resource, 0):
            raise HumoError(
                f"resources: one worker of each listed stage needs {required:g} {resource}s, Ray has "
                f"{available.get(resource, 0):g}; lower `resources`, join a larger cluster, or set engine.grows if the "
                "cluster autoscales"
            )
    unlisted = sum(worker is None for _, worker in groups)
    cpus_left = available.get("CPU", 0) - sum(worker.cpus for _, worker in groups if worker)
    cpus_each = min(1.0, max(0.05, cpus_left / unlisted)) if unlisted else 1.0
    return [(names, worker or WorkerConfig(cpus=cpus_each)) for names, worker in groups]


def max_pool_workers(config: IngestConfig, worker: WorkerConfig, available: Mapping[str, float]) -> int | None:
    """Maximum size of a pool; None where the cluster autoscales and the config sets no limit."""
    if config.engine.grows:
        return worker.workers or None
    fitting = max(1, int(available["CPU"] // worker.cpus))
    if worker.gpus:
        fitting = min(fitting, max(1, int(available["GPU"] // worker.gpus)))
    return min(worker.workers or fitting, fitting)


def sources_per_task(config: IngestConfig, work_items: Sequence[WorkItem], pool_count: int, cpus: float) -> int:
    """Sources per task. Videos and films one by one; motion capture several, so that Ray's overhead is small in comparison; and a
    whole commit where there is one pool only, as no other pool waits."""
    light = all(work_item.source.kind not in ("video", "studio") for work_item in work_items)
    even_share = max(1, math.ceil(len(work_items) / (_TASKS_PER_CPU * max(1.0, cpus))))
    return max(min(_MAX_LIGHT_SOURCES, even_share) if light else 1, config.sources_per_commit if pool_count == 1 else 1)


def _run(
    config: IngestConfig,
    chain: Sequence[Stage[Any, Any]],
    work_items: Sequence[WorkItem],
    build: ChainFactory,
    storage: Storage,
    access: Access,
) -> Iterator[Outcome]:
    import ray

    available = ray.cluster_resources()
    layout = pool_layout(config, chain, available)
    per_task = sources_per_task(config, work_items, len(layout), available.get("CPU", 1))
    context = ray.data.DataContext.get_current().copy()
    # After importing ray.data, which sets its own levels; errors are raised anyway, without Ray's traces.
    logging.getLogger("ray.data").setLevel(logging.CRITICAL)
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    context.target_max_block_size = 1  # every row is a block: one task, passed on as soon as it is done
    context.execution_no_progress_timeout_s = -1  # a long video may take longer; the workers enforce time limits
    with ray.data.DataContext.current(context):
        data: ray.data.Dataset = _input(work_items, per_task)
        for index, (names, worker) in enumerate(layout):
            is_last = index == len(layout) - 1
            max_workers = max_pool_workers(config, worker, available)
            # Ray Data restarts a dead actor without limit, on another node if its own is gone, and resubmits its unfinished
            # tasks; a commit that is written twice counts once.
            data = data.map_batches(
                _StageActor,
                fn_constructor_args=(
                    config,
                    build,
                    names,
                    is_last,
                    storage,
                    limits_of(config, [one for one in chain if one.name in names]),
                    access,
                ),
                batch_size=math.ceil(config.sources_per_commit / per_task) if is_last else 1,
                batch_format="pyarrow",
                compute=ray.data.ActorPoolStrategy(
                    min_size=1,
                    max_size=None if max_workers is None else min(max_workers, math.ceil(len(work_items) / per_task)),
                ),
                num_cpus=worker.cpus,
                num_gpus=worker.gpus,
            )
        delete_leftovers(access)
        try:
            with _warn_on_shortage(partial(shortage, layout, grows=config.engine.grows)):
                for table in data.iter_batches(batch_size=None, batch_format="pyarrow"):
                    yield from payloads(table)
        except ray.exceptions.RayError as error:
            raise _unwrap_error(error) from error
        finally:
            delete_leftovers(access)


def delete_leftovers(access: Access) -> None:
    """On every node, delete the copies of sources that jobs have left whose processes there have ended."""
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    clean = ray.remote(_clean)
    strategies = [NodeAffinitySchedulingStrategy(node["NodeID"], soft=False) for node in ray.nodes() if node["Alive"]]
    tasks = [clean.options(num_cpus=0, max_retries=0, scheduling_strategy=one).remote(access) for one in strategies]
    _, left = ray.wait(tasks, num_returns=len(tasks), timeout=_CLEAN_S)
    for task in left:
        ray.cancel(task, force=True)
    if left:
        _log.warning(
            "copies of sources may be left on %d of %d nodes; the next job deletes them", len(left), len(tasks)
        )


def _clean(access: Access) -> None:
    SourceFiles(access).clean()


def shortage(layout: Sequence[tuple[list[str], WorkerConfig]], available: Mapping[str, float], *, grows: bool) -> str:
    """Why a job cannot progress on a cluster that lost nodes or has not got them yet, and the remedy; empty if it can."""
    for kind in ("CPU", "GPU"):
        need = sum(getattr(worker, f"{kind.lower()}s") for _, worker in layout)
        if need > available.get(kind, 0) + 1e-6:
            remedy = (
                "it waits for the cluster to grow"
                if grows
                else "add nodes, or stop it and run it again on the remaining ones"
            )
            return (
                f"one worker of each pool needs {need:g} {kind}s and Ray has {available.get(kind, 0):g}: the job is stalled; "
                f"{remedy} (committed sources are kept)"
            )
    return ""


@contextmanager
def _warn_on_shortage(shortage_of: Callable[[Mapping[str, float]], str]) -> Iterator[None]:
    """Log a warning whenever the cluster's resources no longer suffice for the pools: Ray itself waits silently."""
    import ray

    done = threading.Event()

    def watch() -> None:
        reported = ""
        while not done.wait(_POLL_S):
            with suppress(ray.exceptions.RayError, ConnectionError):  # the job itself fails if Ray is gone
                current = shortage_of(ray.cluster_resources())
                if current and current != reported:
                    _log.warning("%s", current)
                reported = current

    watcher = threading.Thread(target=watch, name="resources", daemon=True)
    watcher.start()
    try:
        yield
    finally:
        done.set()
        watcher.join()


def _input(work_items: Sequence[WorkItem], per_task: int) -> Any:
    """Rows of work items, a task each: Ray's object store holds some hundred rows as one object until they are needed."""
    import ray

    tasks = [work_items[start : start + per_task] for start in range(0, len(work_items), per_task)]
    chunks = [rows_of(tasks[start : start + _ROWS_PER_CHUNK]) for start in range(0, len(tasks), _ROWS_PER_CHUNK)]
    # One at a time and without a reserved core: the pools may have taken all of them.
    return ray.data.from_arrow(chunks).map_batches(
        _single_rows, batch_size=None, batch_format="pyarrow", num_cpus=0, concurrency=1
    )


def _single_rows(chunk: pa.Table) -> Iterator[pa.Table]:
    for index in range(len(chunk)):
        yield chunk.take([index])  # a copy: a slice would keep the whole chunk


def plain_ray(config: IngestConfig, items: Sequence[Any], write: Callable[[Sequence[Any]], int]) -> Iterator[int]:
    """The baseline of `humo bench overhead`: Ray Data as in its documentation, `sources_per_commit` items per task. `write` takes a
    task's items and returns how many it has processed, which is yielded."""
    import ray

    size = config.sources_per_commit
    rows = [{"row": pickle.dumps(items[at : at + size])} for at in range(0, len(items), size)]
    data = ray.data.from_items(rows, override_num_blocks=len(rows)).map_batches(
        _BaselineActor,
        fn_constructor_args=(write,),
        batch_size=1,
        compute=ray.data.ActorPoolStrategy(min_size=1, max_size=max(1, int(ray.cluster_resources()["CPU"]))),
    )
    yield from (row["number"] for row in data.iter_rows())


class _BaselineActor:
    def __init__(self, write: Callable[[Sequence[Any]], int]) -> None:
        self.write = write

    def __call__(self, batch: dict[str, Any]) -> dict[str, list[int]]:
        return {"number": [self.write(pickle.loads(row)) for row in batch["row"]]}


@contextmanager
def local_ray(config: IngestConfig) -> Iterator[None]:
    """A Ray for several runs, started as `engine` specifies and shut down on exit."""
    enforce_offline()
    import ray

    _start(config)
    try:
        yield
    finally:
        ray.shutdown()


def _unwrap_error(error: BaseException) -> Exception:
    """The HumoError that a worker raised, or else one with Ray's message."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, HumoError):
            return cause
        cause = getattr(cause, "cause", None) or cause.__cause__
    # For an actor that did not start, Ray keeps only the text.
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    for cls in (UsageError, HumoError):
        name = f"{cls.__module__}.{cls.__name__}: "
        for line in lines:
            if line.startswith(name):
                return cls(line.removeprefix(name))
    return HumoError(f"Ray failed: {' '.join(lines)[-2000:]}; committed sources are kept, run it again to resume")


def _start(config: IngestConfig) -> None:
    import ray

    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")  # its warnings concern Ray's internals
    common: dict[str, Any] = {"log_to_driver": False, "logging_level": "error"}
    address = config.engine.address or os.environ.get("RAY_ADDRESS", "")
    if address:
        _join(config, address, common)
        return
    authenticate_local_ray(require_token=config.engine.require_token)
    _reread_settings()
    with _muted_stderr():
        # `local`, because the default joins another Ray on this machine.
        ray.init(address="local", num_cpus=config.engine.cpus or os.cpu_count(), include_dashboard=False, **common)


def _join(config: IngestConfig, address: str, common: dict[str, Any]) -> None:
    import ray

    authenticate_to(address)
    _reread_settings()
    # A submitted job gets its code from `ray job submit --working-dir` and must not upload it again.
    submitted = "RAY_JOB_CONFIG_JSON_ENV_VAR" in os.environ
    shipped = {} if submitted else {"working_dir": str(PROJECT_ROOT), "excludes": shipping_excludes(config)}
    try:
        ray.init(address=address, runtime_env=shipped, **common)
    except ray.exceptions.AuthenticationError as error:
        raise HumoError(
            f"engine.address: the Ray at {address} refuses this job: {' '.join(str(error).split())}"
        ) from None
    except (ConnectionError, TimeoutError) as error:
        raise HumoError(
            f"engine.address: no Ray at {address} that accepts this job ({error}); start one with `ray start --head`, or set "
            "RAY_AUTH_TOKEN to its token"
        ) from None
    try:
        joined = address if address.startswith("ray://") else ray.get_runtime_context().gcs_address
        check_joined(joined, require_token=config.engine.require_token)
    except HumoError:
        ray.shutdown()
        raise


def _reread_settings() -> None:
    """Let Ray see the environment of now instead of that of its import, as it does itself when it enables authentication."""
    from ray._raylet import Config  # type: ignore[attr-defined]  # compiled

    Config.initialize("")


@contextmanager
def _muted_stderr() -> Iterator[None]:
    """Suppress the startup output of Ray's native part; errors arrive as exceptions anyway."""
    sys.stderr.flush()
    original = os.dup(2)
    with open(os.devnull, "wb") as devnull:
        os.dup2(devnull.fileno(), 2)
    try:
        yield
    finally:
        sys.stderr.flush()
        os.dup2(original, 2)
        os.close(original)
