"""humo bench ingest: the whole chain over videos, against the tracking stage alone and the loop of ultralytics' documentation.

Also the peak memory of a job, by number of videos.
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

_POLL_S = 0.1
"""Interval between memory measurements of a job."""


def bench(
    video: str = "", *, videos: int = 2, rounds: int = 3, ray: bool = True, memory: Sequence[int] = ()
) -> dict[str, Any]:
    """Frames per second of each, alternating in one run, medians of ratios by round; peak memory for numbers of videos.

    The videos are copies of one that differ in a few bytes, so that their content hashes differ. One more is processed first,
    untimed: loading weights and warming up are excluded, except for jobs under Ray, whose time is that of the whole job including
    Ray's start. Raises UsageError for invalid numbers.
    """
    if videos < 1 or rounds < 1 or any(count < 1 for count in memory) or list(memory) != sorted(set(memory)):
        raise UsageError("--videos and --rounds must be at least 1; --memory takes increasing numbers, such as 20,200")
    with tempfile.TemporaryDirectory() as temporary:
        path = Path(video) if video else Path(render(Path(temporary)))
        if not path.is_file():
            raise UsageError(f"--video {video}: no such file; give a video, or none to render one")
        report = _measure_speed(path, Path(temporary), videos, rounds, ray)
        report["memory"] = [measure_memory(path, Path(temporary), count) for count in memory]
    return report | {"machine": f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores"}


def bench_text(report: dict[str, Any]) -> str:
    """The results for a terminal."""
    lines = [
        f"{report['video']} times {report['videos']}: {report['frames']} frames, samples: {report['samples']}; {report['machine']}",
        f"{'':26}{'frames/s':>10}{'CPU s':>8}",
    ]
    for name, label in _LABELS.items():
        if name in report["fps"]:
            lines.append(f"{label:26}{report['fps'][name]:>10.2f}{report['cpu_s'][name]:>8.1f}")
    rounds = ", ".join(f"{ratio:.0%}" for ratio in report["of_tracking_rounds"])
    lines.append(
        f"the chain runs at {report['of_tracking']:.0%} of the speed of tracking alone (rounds: {rounds}), "
        f"{report['of_tracking_cpu']:.0%} by CPU time"
    )
    lines += [f"  {name:24}{seconds:>10.2f} s" for name, seconds in report["stage_s"].items()]
    lines += [
        f"{measured['videos']} videos: {measured['peak_mib']:.0f} MiB at the peak" for measured in report["memory"]
    ]
    return "\n".join(lines)


_LABELS = {
    "chain": "whole chain, inline",
    "tracking": "tracking stage alone",
    "plain": "plain model.track loop",
    "ray": "whole job under Ray",
}


def copies(path: Path, folder: Path, count: int) -> list[Path]:
    """`count` copies of a video with different content: a `free` box at the end, which players skip, holds a number."""
    folder.mkdir(parents=True, exist_ok=True)
    content = path.read_bytes()
    paths = []
    for number in range(count):
        target = folder / f"{number:06d}{path.suffix}"
        target.write_bytes(content + (16).to_bytes(4) + b"free" + number.to_bytes(8))
        paths.append(target)
    return paths


def measure_memory(path: Path, work: Path, count: int) -> dict[str, Any]:
    """Maximum sum of resident memory over all processes of an inline job, MiB; shared pages count for each process."""
    folder = work / f"memory-{count}"
    copies(path, folder / "videos", count)
    job = folder / "job.yaml"
    job.write_text(yaml.safe_dump({"sources": [{"path": str(folder / "videos")}], "output": str(folder / "data")}))
    command = [sys.executable, "-m", "pipeline.commands.main", "ingest", str(job), "--json"]
    with (folder / "stderr").open("wb") as stderr:
        process = subprocess.Popen(command, cwd=PROJECT_ROOT, stdout=subprocess.DEVNULL, stderr=stderr)
        peak = 0
        while process.poll() is None:
            peak = max(peak, _resident_bytes(process.pid))
            time.sleep(_POLL_S)
    if process.returncode:
        raise HumoError(f"the job over {count} videos failed: {(folder / 'stderr').read_text()[-500:]}")
    return {"videos": count, "peak_mib": round(peak / 2**20, 1)}


def _resident_bytes(pid: int) -> int:
    """Resident memory of a process and its running descendants."""
    try:
        processes = _process_tree(psutil.Process(pid))
    except psutil.NoSuchProcess:
        return 0
    total = 0
    for member in processes:
        with suppress(psutil.Error):  # a process may end meanwhile
            total += member.memory_info().rss
    return total


def _cpu_s() -> float:
    """User and system time of this process and its running descendants."""
    total = 0.0
    for member in _process_tree(psutil.Process()):
        with suppress(psutil.Error):
            total += sum(member.cpu_times()[:2])
    return total


def _process_tree(process: psutil.Process) -> list[psutil.Process]:
    return [process, *process.children(recursive=True)]


def _measure_speed(path: Path, work: Path, videos: int, rounds: int, ray: bool) -> dict[str, Any]:
    paths = copies(path, work / "videos", videos + 1)
    shots = [whole_shot(str(copy)) for copy in paths]
    stage, plain = TrackPeople(), load_plain()
    stage.setup()
    run_stage(stage, shots[0])
    run_plain(plain, str(paths[0]), max_frames=5)
    frames: Counter[str] = Counter()
    stage_s: Counter[str] = Counter()
    outcomes: list[Outcome] = []

    def tracking() -> tuple[float, float]:
        return _timed(lambda: [run_stage(stage, shot) for shot in shots[1:]])

    def plain_loop() -> tuple[float, float]:
        frames.clear()
        return _timed(lambda: [frames.update(all=len(run_plain(plain, str(copy)))) for copy in paths[1:]])

    def whole_chain() -> tuple[float, float]:
        nonlocal outcomes
        seconds, cpu_s, outcomes = _run_job(run_inline, paths, "inline")
        for outcome in outcomes[1:]:
            stage_s.update({name: stats[-1] for name, stats in outcome.stage_stats.items()})
        return seconds, cpu_s

    def job_under_ray() -> tuple[float, float]:
        from pipeline.execution.ray_engine import run_ray

        seconds, cpu_s, _ = _run_job(run_ray, paths[1:], "ray")
        return seconds, cpu_s

    candidates = {"plain": plain_loop, "tracking": tracking, "chain": whole_chain} | (
        {"ray": job_under_ray} if ray else {}
    )
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in candidates}
    for _ in range(rounds):
        for name, run in candidates.items():
            times[name].append(run())
    ratios, cpu_ratios = (
        [
            tracking_time[column] / chain_time[column]
            for tracking_time, chain_time in zip(times["tracking"], times["chain"], strict=True)
        ]
        for column in (0, 1)
    )
    return {
        "video": path.name,
        "videos": videos,
        "frames": frames["all"],
        "samples": sum(outcome.samples for outcome in outcomes[1:]),
        "fps": {name: round(frames["all"] / median(wall for wall, _ in runs), 2) for name, runs in times.items()},
        "cpu_s": {name: round(median(cpu for _, cpu in runs), 2) for name, runs in times.items()},
        "of_tracking": round(median(ratios), 3),
        "of_tracking_rounds": [round(ratio, 3) for ratio in ratios],
        "of_tracking_cpu": round(median(cpu_ratios), 3),
        "stage_s": {name: round(seconds / rounds, 3) for name, seconds in stage_s.items()},
    }


def _timed(run: Callable[[], object]) -> tuple[float, float]:
    """Wall-clock seconds, and CPU seconds of all processes."""
    start, cpu_start = time.perf_counter(), _cpu_s()
    run()
    return time.perf_counter() - start, _cpu_s() - cpu_start


def _run_job(engine: Engine, paths: Sequence[Path], kind: str) -> tuple[float, float, list[Outcome]]:
    """Wall-clock and CPU seconds of a job, and its outcomes; inline from the first commit on, else in total."""
    with tempfile.TemporaryDirectory() as output:
        settings = {"sources": [{"path": str(path)} for path in paths], "output": output, "engine": {"kind": kind}}
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
