"""humo bench ingest: the whole chain over videos, beside the tracking stage alone and the loop of ultralytics' documentation.

Also how much memory a job holds at its peak, by number of videos.
"""

import os
import platform
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from statistics import median
from typing import Any

import psutil
import yaml

from pipeline import PROJECT_ROOT
from pipeline.benchmarks.track import load_plain, render, run_plain, run_stage, whole_shot
from pipeline.chain.config import IngestConfig
from pipeline.chain.stage_order import build_chain
from pipeline.chain.work_item import WorkItem
from pipeline.execution.engines import Engine, Outcome, run_inline
from schemas.config import parse_config
from schemas.errors import HumoError, UsageError
from stages.list_sources import list_sources
from stages.track_people import TrackPeople

_LOOK_S = 0.1
"""Between two looks at the memory of a job."""


def bench(
    video: str = "", *, videos: int = 2, rounds: int = 3, ray: bool = True, memory: Sequence[int] = ()
) -> dict[str, Any]:
    """Frames a second of each, in turns in one run, medians of ratios by round; peaks of memory for numbers of videos.

    The videos are copies of one, told apart by a few bytes, so that none is taken for another. One more comes first,
    untimed: loading weights and warming up are left out, except from the jobs under Ray, whose time is that of the whole job
    with Ray's own start. Raises UsageError for numbers that make no benchmark.
    """
    if videos < 1 or rounds < 1 or any(count < 1 for count in memory) or list(memory) != sorted(set(memory)):
        raise UsageError("--videos and --rounds count from 1; --memory takes numbers that grow, such as 20,200")
    with tempfile.TemporaryDirectory() as work:
        path = Path(video) if video else Path(render(Path(work)))
        if not path.is_file():
            raise UsageError(f"--video {video}: there is no such file; give a video, or none for a rendered one")
        found = _measure_speed(path, Path(work), videos, rounds, ray)
        found["memory"] = [measure_memory(path, Path(work), count) for count in memory]
    return found | {"machine": f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores"}


def bench_text(found: dict[str, Any]) -> str:
    """The figures for a terminal."""
    lines = [
        f"{found['video']} times {found['videos']}: {found['frames']} frames, samples: {found['samples']}; {found['machine']}",
        f"{'':26}{'frames/s':>10}{'CPU s':>8}",
    ]
    for name, shown in _CONTESTANTS.items():
        if name in found["fps"]:
            lines.append(f"{shown:26}{found['fps'][name]:>10.2f}{found['cpu_s'][name]:>8.1f}")
    rounds = ", ".join(f"{ratio:.0%}" for ratio in found["of_tracking_rounds"])
    lines.append(
        f"the chain runs at {found['of_tracking']:.0%} of the speed of tracking alone (rounds: {rounds}), "
        f"{found['of_tracking_cpu']:.0%} by CPU time"
    )
    lines += [f"  {name:24}{seconds:>10.2f} s" for name, seconds in found["stage_s"].items()]
    lines += [f"{one['videos']} videos: {one['peak_mib']:.0f} MiB at the peak" for one in found["memory"]]
    return "\n".join(lines)


_CONTESTANTS = {
    "chain": "whole chain, inline",
    "tracking": "tracking stage alone",
    "plain": "plain model.track loop",
    "ray": "whole job under Ray",
}


def copies(path: Path, folder: Path, count: int) -> list[Path]:
    """So many copies of a video of different content: an empty box at its end, which players pass over, holds a number."""
    folder.mkdir(parents=True, exist_ok=True)
    content = path.read_bytes()
    made = []
    for number in range(count):
        target = folder / f"{number:06d}{path.suffix}"
        target.write_bytes(content + (16).to_bytes(4) + b"free" + number.to_bytes(8))
        made.append(target)
    return made


def measure_memory(path: Path, work: Path, count: int) -> dict[str, Any]:
    """Largest sum of resident memory over all processes of an inline job, MiB; pages that they share count for each."""
    folder = work / f"memory-{count}"
    copies(path, folder / "videos", count)
    job = folder / "job.yaml"
    job.write_text(yaml.safe_dump({"sources": [{"path": str(folder / "videos")}], "output": str(folder / "data")}))
    command = [sys.executable, "-m", "pipeline.commands.main", "ingest", str(job), "--json"]
    with (folder / "said").open("wb") as said:
        process = subprocess.Popen(command, cwd=PROJECT_ROOT, stdout=subprocess.DEVNULL, stderr=said)
        peak = 0
        while process.poll() is None:
            peak = max(peak, _resident(process.pid))
            time.sleep(_LOOK_S)
    if process.returncode:
        raise HumoError(f"the job over {count} videos failed: {(folder / 'said').read_text()[-500:]}")
    return {"videos": count, "peak_mib": round(peak / 2**20, 1)}


def _resident(pid: int) -> int:
    """Bytes of a process and all that it has started and that still runs."""
    try:
        processes = _family(psutil.Process(pid))
    except psutil.NoSuchProcess:
        return 0
    found = 0
    for one in processes:
        with suppress(psutil.Error):  # a process may end while it is looked at
            found += one.memory_info().rss
    return found


def _cpu_s() -> float:
    """Of this process and all that it has started and that still runs, user and system."""
    found = 0.0
    for one in _family(psutil.Process()):
        with suppress(psutil.Error):
            found += sum(one.cpu_times()[:2])
    return found


def _family(process: psutil.Process) -> list[psutil.Process]:
    return [process, *process.children(recursive=True)]


def _measure_speed(path: Path, work: Path, videos: int, rounds: int, ray: bool) -> dict[str, Any]:
    made = copies(path, work / "videos", videos + 1)
    shots = [whole_shot(str(one)) for one in made]
    stage, plain = TrackPeople(), load_plain()
    stage.setup()
    run_stage(stage, shots[0])
    run_plain(plain, str(made[0]), most=5)
    frames: Counter[str] = Counter()
    stage_s: Counter[str] = Counter()
    outcomes: list[Outcome] = []

    def tracking() -> tuple[float, float]:
        return _timed(lambda: [run_stage(stage, shot) for shot in shots[1:]])

    def loop() -> tuple[float, float]:
        frames.clear()
        return _timed(lambda: [frames.update(all=len(run_plain(plain, str(one)))) for one in made[1:]])

    def chain() -> tuple[float, float]:
        nonlocal outcomes
        seconds, cpu_s, outcomes = _run_job(run_inline, made, "inline")
        for outcome in outcomes[1:]:
            stage_s.update({name: passed[-1] for name, passed in outcome.passed.items()})
        return seconds, cpu_s

    def job_under_ray() -> tuple[float, float]:
        from pipeline.execution.ray_engine import run_ray

        seconds, cpu_s, _ = _run_job(run_ray, made[1:], "ray")
        return seconds, cpu_s

    contestants = {"plain": loop, "tracking": tracking, "chain": chain} | ({"ray": job_under_ray} if ray else {})
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in contestants}
    for _ in range(rounds):
        for name, run in contestants.items():
            times[name].append(run())
    ratios, cpu_ratios = (
        [alone[kind] / whole[kind] for alone, whole in zip(times["tracking"], times["chain"], strict=True)]
        for kind in (0, 1)
    )
    return {
        "video": path.name,
        "videos": videos,
        "frames": frames["all"],
        "samples": sum(outcome.samples for outcome in outcomes[1:]),
        "fps": {name: round(frames["all"] / median(wall for wall, _ in one), 2) for name, one in times.items()},
        "cpu_s": {name: round(median(cpu for _, cpu in one), 2) for name, one in times.items()},
        "of_tracking": round(median(ratios), 3),
        "of_tracking_rounds": [round(ratio, 3) for ratio in ratios],
        "of_tracking_cpu": round(median(cpu_ratios), 3),
        "stage_s": {name: round(seconds / rounds, 3) for name, seconds in stage_s.items()},
    }


def _timed(run: Callable[[], object]) -> tuple[float, float]:
    """Seconds, and CPU seconds of all processes."""
    start, cpu_start = time.perf_counter(), _cpu_s()
    run()
    return time.perf_counter() - start, _cpu_s() - cpu_start


def _run_job(engine: Engine, made: Sequence[Path], kind: str) -> tuple[float, float, list[Outcome]]:
    """Seconds and CPU seconds of a job, and what became of its videos; inline from its first commit on, else in all."""
    with tempfile.TemporaryDirectory() as output:
        settings = {"sources": [{"path": str(one)} for one in made], "output": output, "engine": {"kind": kind}}
        config = parse_config(settings, IngestConfig, "bench")
        chain = build_chain(config.chain, config.stages, config.digest)
        outcomes: list[Outcome] = []
        start, cpu_start = time.perf_counter(), _cpu_s()
        end, cpu_end = start, cpu_start
        for outcome in engine(config, chain, [WorkItem.of(source) for source in list_sources(config.sources)]):
            end, cpu_end = time.perf_counter(), _cpu_s()
            if kind == "inline" and not outcomes:
                start, cpu_start = end, cpu_end
            outcomes.append(outcome)
    return end - start, cpu_end - cpu_start, outcomes
