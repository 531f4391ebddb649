"""What the tests of several processes run in each of them; not a test itself.

    torchrun --nproc-per-node 2 distributed_run.py DATASET OUT
    python distributed_run.py DATASET OUT ray

Each rank makes a pass over the split, averaging gradients at every step as a training does, and writes what it saw.
"""

import json
import os
import sys
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel

from model.data import MotionLoader


def one_pass(dataset: str, out: str, *, rank: int, world_size: int, batch_size: int = 3) -> None:
    """A step of an optimiser for every batch, then two more after going on from the state in the middle."""
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
    rest = [[(sample.key, sample.extra) for sample in batch] for batch in resumed]
    found = {"seen": seen, "rest": rest, "steps": loader.steps_per_epoch, "state": states[0]}
    Path(out, f"rank-{rank}.json").write_text(json.dumps(found))


def ray_worker(options: dict[str, str]) -> None:
    """The pass as a worker of Ray Train makes it."""
    import ray.train

    context = ray.train.get_context()
    one_pass(options["dataset"], options["out"], rank=context.get_world_rank(), world_size=context.get_world_size())


def with_ray(dataset: str, out: str) -> None:
    """Ray of our own, two workers that share the cores."""
    import ray
    from ray.train import RunConfig, ScalingConfig
    from ray.train.torch import TorchTrainer

    for attempt in range(3):
        try:
            ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
            break
        except Exception:
            # Ray waits half a minute for its own processes, which is not enough on a crowded machine.
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
    """The pass as a process of torchrun makes it."""
    dist.init_process_group("gloo")
    one_pass(dataset, out, rank=int(os.environ["RANK"]), world_size=int(os.environ["WORLD_SIZE"]))
    dist.destroy_process_group()


if __name__ == "__main__":
    (with_ray if sys.argv[3:] == ["ray"] else with_torchrun)(sys.argv[1], sys.argv[2])
