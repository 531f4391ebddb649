"""Training by Ray Train's workers on this machine: the only module that imports it.

Every worker calls the same function as a single process or torchrun does; it finds its rank in the environment, as under torchrun.
"""

import contextlib
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from typing import Any

from model import checkpoints
from model.training.config import Run
from model.training.loop import Result
from model.training.metrics import LOG, read_metrics
from model.training.run_files import RunFiles
from schemas.errors import HumoError, UsageError
from schemas.offline import enforce_offline

_JOIN_S = 300
"""Longest wait of the workers for one another when they start."""
_STARTS = 3
"""Attempts to start Ray: on a busy machine its processes may take longer than it waits for them."""


def train_with_ray(train: Callable[[Any], Result], config: Run, workers: int) -> Result:
    """Train with a number of workers of a Ray that is started for it, a GPU for each where there are as many.

    The batch size of `config` is that of each worker. If one fails, all are ended and none is started again; the same call resumes.
    Raises HumoError for what a worker raised, UsageError if Ray Train cannot be imported.
    """
    try:
        import ray
        from ray.train import FailureConfig, RunConfig, ScalingConfig
        from ray.train.torch import TorchConfig, TorchTrainer
        from ray.train.v2.api.exceptions import TrainingFailedError
    except ImportError as error:
        raise UsageError(f"--ray needs Ray Train ({error}); pip install 'ray[train]', or use torchrun") from None

    start_s = time.monotonic()
    with _local_ray(ray, workers) as gpus, tempfile.TemporaryDirectory(prefix="humo-ray-train-") as folder:
        trainer = TorchTrainer(
            _work,
            train_loop_config={"train": train, "config": config},
            torch_config=TorchConfig(timeout_s=_JOIN_S),
            scaling_config=ScalingConfig(
                num_workers=workers,
                use_gpu=gpus >= workers and config.device != "cpu",
                resources_per_worker={"CPU": 1, **({"GPU": 1} if gpus >= workers and config.device != "cpu" else {})},
            ),
            # Ray's own bookkeeping only: checkpoints are written to the run's output.
            run_config=RunConfig(storage_path=folder, failure_config=FailureConfig(max_failures=0)),
        )
        try:
            trainer.fit()
        except TrainingFailedError as error:
            raise _failure(error) from None
    rows = read_metrics(RunFiles(config.output, resumed=(LOG,)).folder / LOG)
    checkpoint = checkpoints.newest_name(config.output)
    return Result(
        checkpoint=f"{config.output.rstrip('/')}/{checkpoint}",
        steps=checkpoints.step_of(checkpoint),
        seconds=time.monotonic() - start_s,
        metrics={name: value for name, value in (rows[-1] if rows else {}).items() if name != "step"},
    )


def _work(options: dict[str, Any]) -> None:
    """What a worker does."""
    enforce_offline()
    options["train"](options["config"])


@contextlib.contextmanager
def _local_ray(ray: Any, workers: int) -> Iterator[float]:
    """A Ray of this machine; yields its number of GPUs."""
    cpus = max(workers, os.cpu_count() or 1)
    for attempt in range(_STARTS):
        try:
            # `local`, because the default joins another Ray on this machine.
            ray.init(address="local", num_cpus=cpus + 1, include_dashboard=False)
            break
        except Exception as error:  # Ray raises no narrower one where its own processes do not come up within 30 s
            ray.shutdown()
            if attempt + 1 == _STARTS:
                reason = " ".join(str(error).split())[:300]
                raise HumoError(
                    f"Ray cannot start here ({reason}); try again when the machine is less busy, or use torchrun"
                ) from None
    try:
        yield ray.cluster_resources().get("GPU", 0.0)
    finally:
        ray.shutdown()


def _failure(error: Exception) -> HumoError:
    """What a worker raised first."""
    failures = getattr(error, "worker_failures", {})
    causes = {rank: getattr(one, "_base_exc", one) for rank, one in sorted(failures.items())}
    for cause in causes.values():
        if isinstance(cause, HumoError):
            return type(cause)(str(cause))
    if causes:
        rank, cause = next(iter(causes.items()))
        return HumoError(f"worker {rank} failed: {type(cause).__name__}: {' '.join(str(cause).split())[:500]}")
    return HumoError(f"the training failed: {' '.join(str(error).split())[:500]}")
