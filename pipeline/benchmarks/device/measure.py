"""How the parts measure: repeated work over a length of time, peak memory, and several worker processes on one device."""

import gc
import multiprocessing
import os
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing.synchronize import Barrier
from typing import Any

import torch

from pipeline.benchmarks.device.report import Figure
from pipeline.benchmarks.device.stand_ins import install

Work = Callable[[], int]
"""A piece of work; how much it was (frames, tokens, ...)."""
_SETUP_LIMIT_S = 120.0
"""Longest time that workers wait for one another to load."""
_MAX_WORKERS = 16
_worker_barrier: Barrier | None = None


@dataclass(frozen=True)
class Measurement:
    """A figure that a part can measure in about the seconds that it is given."""

    name: str
    measure: Callable[[float], Figure]
    weight: float = 1.0
    """When the time that is left to the part is shared out."""


@dataclass(frozen=True)
class Setting:
    """What a part is measured on."""

    device: str
    """cpu or cuda."""
    small: bool
    """Sizes for a CPU."""


def rate(work: Work, seconds: float, device: str) -> float:
    """Amount of work a second: once to warm up, then again and again until `seconds` have passed, at least once."""
    start = time.perf_counter()
    work()
    synchronise(device)
    warm_s = time.perf_counter() - start
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
    total, start = 0, time.perf_counter()
    while not total or time.perf_counter() - start < seconds - warm_s:
        total += work()
        synchronise(device)
    return total / (time.perf_counter() - start)


def synchronise(device: str) -> None:
    """Wait for the work that was given to the device."""
    if device == "cuda":
        torch.cuda.synchronize()


def peak(device: str) -> dict[str, float]:
    """Largest amount of memory in use on the device since the last `rate` began, GiB."""
    return {"peak_gib": torch.cuda.max_memory_allocated() / 2**30} if device == "cuda" else {}


def release(device: str) -> None:
    """Give up the memory of what is no longer used."""
    gc.collect()
    if device == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()


def worker_count(setting: Setting) -> int:
    """Workers that share the device: one a core, since each keeps one busy beside the device."""
    return 2 if setting.small else min(_MAX_WORKERS, max(2, os.cpu_count() or 2))


def rate_of_workers(
    workers: int, make: Callable[..., Work], arguments: tuple[Any, ...], seconds: float, device: str
) -> float:
    """Amount of work a second of several processes that share the device, as workers of a job do.

    `make` is a function of a module; each process calls it with the arguments, and all begin to work together.
    """
    context = multiprocessing.get_context("spawn")
    start = time.perf_counter()
    shared = (context.Barrier(workers),)
    with ProcessPoolExecutor(workers, mp_context=context, initializer=_begin_worker, initargs=shared) as pool:
        futures = [pool.submit(_work, make, arguments, start + seconds, device) for _ in range(workers)]
        return sum(future.result() for future in futures)


def _begin_worker(barrier: Barrier) -> None:
    global _worker_barrier
    install()
    torch.set_num_threads(1)
    _worker_barrier = barrier


def _work(make: Callable[..., Work], arguments: tuple[Any, ...], until: float, device: str) -> float:
    """The clock of `time.perf_counter` is the same in all processes of a Linux machine."""
    work = make(*arguments)
    work()
    synchronise(device)
    assert _worker_barrier is not None
    _worker_barrier.wait(_SETUP_LIMIT_S)
    return rate(work, max(2.0, until - time.perf_counter()), device)
