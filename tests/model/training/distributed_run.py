"""Program that the multi-process tests run in each process; not a test itself.

    torchrun --nproc-per-node 2 distributed_run.py DATASET OUT
    python distributed_run.py DATASET OUT ray

Each rank iterates over the split once, averages gradients at every step like a training, and writes the samples that it got.
"""

import json
import os
import sys
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel

from model.data.loader import MotionLoader


def one_pass(dataset: str, out: str, *, rank: int, world_size: int, batch_size: int = 3) -> None:
    """A backward pass for every batch, then the remaining batches after resuming from the first state."""
    config = MotionLoader.Config(dataset=dataset, batch_size=batch_size, workers=1, epochs=1, shuffle_window=8)
    loader = MotionLoader(config, rank=rank, world_size=world_size)
    module = DistributedDataParallel(torch.nn.Linear(3, 1))
    seen: list[list[tuple[str, bool]]] = []
    states: list[dict[str, Any]] = []
    for batch in loader:
        module(torch.stack([torch.from_numpy(sample.motion.trans[0]) for sample in batch])).sum().backward()
        seen.append([(sample.key, sample.extra) for sample in batch])
        states.append(loader.state_dict())
    resumed = MotionLoader(config.model_copy(update={"workers": 0}), rank=rank, world_size=world_size)
    resumed.load_state_dict(states[0])
    remaining = [[(sample.key, sample.extra) for sample in batch] for batch in resumed]
    result = {"seen": seen, "rest": remaining, "steps": loader.steps_per_epoch, "state": states[0]}
    Path(out, f"rank-{rank}.json").write_text(json.dumps(result))


def ray_worker(options: dict[str, str]) -> None:
    """One pass in a Ray Train worker."""
    import ray.train

    context = ray.train.get_context()
    one_pass(options["dataset"], options["out"], rank=context.get_world_rank(), world_size=context.get_world_size())


def with_ray(dataset: str, out: str) -> None:
    """A local Ray with two workers."""
    import ray
    from ray.train import RunConfig, ScalingConfig
    from ray.train.torch import TorchTrainer

    for attempt in range(3):
        try:
            ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
            break
        except Exception:
            # Ray waits 30 s for its own processes, which is not enough on a loaded machine.
            if attempt == 2:
                raise
            ray.shutdown()
    trainer = TorchTrainer(
        ray_worker,
        train_loop_config={"dataset": dataset, "out": out},
        scaling_config=ScalingConfig(num_workers=2, resources_per_worker={"CPU": 0.5}),
        run_config=RunConfig(storage_path=out),
    )
    trainer.fit()
    ray.shutdown()


def with_torchrun(dataset: str, out: str) -> None:
    """One pass in a torchrun process."""
    dist.init_process_group("gloo")
    one_pass(dataset, out, rank=int(os.environ["RANK"]), world_size=int(os.environ["WORLD_SIZE"]))
    dist.destroy_process_group()


if __name__ == "__main__":
    (with_ray if sys.argv[3:] == ["ray"] else with_torchrun)(sys.argv[1], sys.argv[2])
