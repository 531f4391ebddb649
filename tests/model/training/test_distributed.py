"""Several processes on one dataset: torchrun and Ray Train, gradients averaged by Gloo; all end when one fails."""

import functools
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from model import checkpoints
from model.data.dataset import MotionDataset
from pipeline import PROJECT_ROOT

ENVIRONMENT = {
    **os.environ,
    "OMP_NUM_THREADS": "1",
    "RAY_USAGE_STATS_ENABLED": "0",
    "PYTHONPATH": f"{PROJECT_ROOT}{os.pathsep}{PROJECT_ROOT / 'tests' / 'model'}",
}
PROGRAM = str(Path(__file__).with_name("distributed_run.py"))
TRAINING = str(Path(__file__).with_name("distributed_training.py"))
TORCHRUN = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
TIMEOUT_S = 480
ENDED_S = 60
"""Within this all processes must have ended after one has failed."""


def _check(out: Path, dataset: str) -> None:
    """Equal steps, every sample once, and resuming yields exactly the remaining samples."""
    ranks = [json.loads((out / f"rank-{rank}.json").read_text()) for rank in range(2)]
    assert len(ranks[0]["seen"]) == len(ranks[1]["seen"]) == ranks[0]["steps"] == 2
    assert all(len(batch) == 3 for rank in ranks for batch in rank["seen"])
    own = [key for rank in ranks for batch in rank["seen"] for key, extra in batch if not extra]
    assert sorted(own) == sorted(sample.key for sample in MotionDataset(dataset))
    assert ranks[0]["state"] == ranks[1]["state"]
    assert all(rank["seen"][1:] == rank["rest"] for rank in ranks)


def test_torchrun(uneven_dataset: str, tmp_path: Path) -> None:
    done = _run([*TORCHRUN, PROGRAM, uneven_dataset, str(tmp_path)])
    assert done.returncode == 0, done.stderr[-3000:]
    _check(tmp_path, uneven_dataset)


def test_two_processes_have_the_losses_of_one(tmp_path: Path) -> None:
    """With a copy of the model each and with a half each, although one of them has all texts and most of the motion: means are over
    targets, not over processes."""
    program, out = str(Path(__file__).with_name("distributed_losses.py")), tmp_path / "losses.json"
    curves = []
    for command in ([program, str(out)], [*TORCHRUN, program, str(out)], [*TORCHRUN, program, str(out), "sharded"]):
        done = _run(command)
        assert done.returncode == 0, done.stderr[-3000:]
        curves.append(json.loads(out.read_text()))
    assert len(curves[0]) == 20
    assert curves[0][-1] < curves[0][0]
    assert curves[1] == pytest.approx(curves[0], abs=1e-4)
    assert curves[2] == pytest.approx(curves[0], abs=1e-4)


def test_a_split_model_trains_and_resumes_like_copies(uneven_dataset: str, tmp_path: Path) -> None:
    done = _run([*TORCHRUN, str(Path(__file__).with_name("sharded_training.py")), uneven_dataset, str(tmp_path)])
    assert done.returncode == 0, done.stderr[-3000:]
    assert f"resuming from {tmp_path / 'resumed' / 'step-00000002'}" in done.stdout
    names = ("copies/step-00000000", "copies/step-00000004", "split/step-00000004", "resumed/step-00000004")
    start, copies, split, resumed = (checkpoints.read_state(tmp_path / name) for name in names)
    moved = max((copies[name] - start[name]).abs().max() for name in copies)
    assert moved > 0.01
    for name, value in copies.items():
        assert torch.allclose(value, split[name], atol=1e-3 * moved), name
        # Motions are encoded in batches, whose sizes round differently.
        assert torch.allclose(split[name], resumed[name], atol=1e-4 * moved), name


@pytest.mark.slow
def test_ray_train(uneven_dataset: str, tmp_path: Path) -> None:
    """Two Ray Train workers on this machine."""
    _need_ray_train()
    done = _run([PROGRAM, uneven_dataset, str(tmp_path), "ray"])
    assert done.returncode == 0, done.stderr[-3000:]
    _check(tmp_path, uneven_dataset)


@pytest.mark.slow
@pytest.mark.parametrize("how", ["raise", "kill"])
def test_a_failing_rank_ends_all(uneven_dataset: str, tmp_path: Path, how: str) -> None:
    failed = _run([*TORCHRUN, TRAINING, uneven_dataset, str(tmp_path), how])
    assert failed.returncode
    _ended_soon(tmp_path)
    if how == "raise":
        assert "humo: sample 17: its frames are gone" in failed.stderr


def _ended_soon(output: Path) -> None:
    assert time.time() - float((output / "failed").read_text()) < ENDED_S
    assert checkpoints.newest_name(output) == "step-00000002"


@pytest.mark.slow
@pytest.mark.skipif(
    (os.cpu_count() or 1) < 4, reason="three trainings of two processes, one under Ray, need four cores"
)
def test_ray_train_and_torchrun_train_the_same(uneven_dataset: str, tmp_path: Path) -> None:
    """Also after a worker was killed and the same call was made again."""
    _need_ray_train()
    whole, resumed = tmp_path / "torchrun", tmp_path / "ray"
    done = _run([*TORCHRUN, TRAINING, uneven_dataset, str(whole)])
    assert done.returncode == 0, done.stderr[-3000:]
    failed = _run([TRAINING, uneven_dataset, str(resumed), "ray", "kill"])
    assert failed.returncode == 1, failed.stderr[-3000:]
    assert failed.stderr.strip().splitlines()[-1].startswith("humo: ")
    _ended_soon(resumed)
    done = _run([TRAINING, uneven_dataset, str(resumed), "ray"])
    assert done.returncode == 0, done.stderr[-3000:]
    assert "steps=4" in done.stdout
    states = [checkpoints.read_state(checkpoints.newest(output)) for output in (whole, resumed)]
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])


@functools.cache
def _need_ray_train() -> None:
    missing = _run(["-c", "import ray.train.torch"])
    if missing.returncode:
        pytest.skip(f"Ray Train cannot be imported here: {missing.stderr.strip().splitlines()[-1]}")


def _run(arguments: list[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *arguments], env=ENVIRONMENT, capture_output=True, text=True, timeout=TIMEOUT_S, check=False
    )
