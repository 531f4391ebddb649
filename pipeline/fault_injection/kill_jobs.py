"""Kills a small job repeatedly at random moments, then completes it: its shards must equal those of an undisturbed job.

    python -m pipeline.fault_injection.kill_jobs --runs 100 --seed 0

Each run is killed with SIGKILL one to three times, the main process alone: its subprocesses must end by themselves. Half of the
moments are uniformly distributed over the job; the others are just after a file appears in the output (lease, part, ledger file,
shard, dataset.json), because commits and packing are short. Exit status 1 if any run's shards or catalogue differ.
"""

import argparse
import json
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.dataset.verify import verify
from schemas.body_model import BodyModel
from schemas.config import load_config
from schemas.dataset import DESCRIPTION, read_description
from schemas.errors import HumoError, exit_status
from schemas.rotations import matrix_to_axis_angle
from schemas.storage import Storage
from stages.synthesis.motions import generate

_ACTIONS = ("walk", "wave_left", "squat", "jump", "kick_right")
_Z_UP = np.array([[1.0, 0.0, 0.0], [0.0, 0.0, -1.0], [0.0, 1.0, 0.0]])
"""Rotates the project's Y up to AMASS' Z up."""
_MAX_KILLS = 3
_POLL_S = 0.005
_OUTPUT_PATTERNS = (
    "lease.json",
    "parts/*.tar",
    "ledger/*.parquet",
    "shards/*/*.tar",
    "catalogue/*.parquet",
    DESCRIPTION,
)


def write_job(folder: Path, films: int, engine: str) -> dict[str, Any]:
    """Generated motions as AMASS files, and a job over them and some films; returns its settings."""
    takes = folder / "takes"
    takes.mkdir(parents=True)
    body = BodyModel.load()
    for number, action in enumerate(_ACTIONS):
        motion = generate(action, 2.5, number, body=body)
        rotations = motion.rotations.numpy().copy()
        rotations[:, 0] = _Z_UP @ rotations[:, 0]
        poses = matrix_to_axis_angle(motion.rotations.new_tensor(rotations)).numpy().reshape(len(motion), 72)
        np.savez(takes / f"{action}.npz", poses=poses, trans=motion.trans.numpy() @ _Z_UP.T, mocap_framerate=motion.fps)
    sources: list[dict[str, Any]] = [{"kind": "mocap", "path": str(takes), "licence": "CC0-1.0"}]
    if films:
        sources.append({"kind": "studio", "path": "generated:walk", "count": films, "licence": "CC0-1.0"})
    return {
        "sources": sources, "sources_per_commit": 2, "splits": {"train": 0.6, "val": 0.4}, "engine": {"kind": engine},
        "stages": {"film_studio": {"seconds": 2.5}},
    }  # fmt: skip


def run_trials(runs: int, *, seed: int = 0, films: int = 0, engine: str = "inline", config: str = "") -> dict[str, Any]:
    """Kill and complete a job `runs` times; returns how often the result was the same, and at which points it was killed.

    Raises HumoError if the undisturbed job fails.
    """
    rng = random.Random(seed)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        settings = json.loads(json.dumps(_load_settings(config) if config else write_job(folder, films, engine)))
        start = time.monotonic()
        _run_to_end(_write_config(settings, folder, "undisturbed"))
        job_s = time.monotonic() - start
        expected = _content(folder / "undisturbed")
        results: list[dict[str, Any]] = []
        for number in range(runs):
            job = _write_config(settings, folder, f"run-{number}")
            kills = [
                _run_and_kill(job, folder / f"run-{number}", job_s, rng) for _ in range(rng.randint(1, _MAX_KILLS))
            ]
            _run_to_end(job)
            output = folder / f"run-{number}"
            same, problems = _content(output) == expected, verify(str(output)).problems
            results.append({"run": number, "killed": kills, "same": same, "problems": problems})
            print(
                f"run {number}: killed {', '.join(kills)}: {'same' if same else 'DIFFERS'} {problems or ''}",
                flush=True,
            )
            if same and not problems:
                shutil.rmtree(output)  # intact results need not fill the disk
    return {
        "runs": runs, "seed": seed, "undisturbed_s": round(job_s, 2), "kills": sum(len(result["killed"]) for result in results),
        "same": sum(result["same"] for result in results), "verified": sum(not result["problems"] for result in results),
        "killed": dict(Counter(moment for result in results for moment in result["killed"]).most_common()),
        "odd": [result for result in results if not result["same"] or result["problems"]],
    }  # fmt: skip


def _load_settings(config: str) -> dict[str, Any]:
    from pipeline.chain.config import IngestConfig

    return load_config(config, IngestConfig).model_dump(mode="json")


def _write_config(settings: dict[str, Any], home: Path, name: str) -> Path:
    path = home / f"{name}.json"
    path.write_text(json.dumps(settings | {"output": str(home / name)}))  # JSON is YAML
    return path


def _command(job: Path) -> list[str]:
    return [sys.executable, "-m", "pipeline.commands.main", "ingest", str(job), "--json"]


def _run_to_end(job: Path) -> None:
    result = subprocess.run(_command(job), capture_output=True, text=True)
    if result.returncode:
        raise HumoError(f"{job.stem}: the job ended with {result.returncode}: {result.stderr[-2000:]}")


def _run_and_kill(job: Path, output: Path, job_s: float, rng: random.Random) -> str:
    """Start the job and kill it at one moment; returns the phase it had reached."""
    process = subprocess.Popen(_command(job), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + rng.uniform(0.2, 1.1) * job_s
    pattern = rng.choice(_OUTPUT_PATTERNS) if rng.random() < 0.5 else ""
    before, delay_s = _existing_files(output), rng.uniform(0.0, 0.05)
    while process.poll() is None and (pattern or time.monotonic() < deadline):
        time.sleep(_POLL_S)
        if pattern and _existing_files(output).get(pattern, ()) != before.get(pattern, ()):
            time.sleep(delay_s)
            break
    had_ended = process.poll() is not None
    process.send_signal(signal.SIGKILL)
    process.wait()
    return "after its end" if had_ended else _phase(output)


def _existing_files(output: Path) -> dict[str, tuple[str, ...]]:
    return {pattern: tuple(sorted(str(path) for path in output.glob(pattern))) for pattern in _OUTPUT_PATTERNS}


def _phase(output: Path) -> str:
    """How far the output has progressed."""
    existing = [pattern.partition("/")[0] for pattern, paths in _existing_files(output).items() if paths]
    return f"with {existing[-1]}" if existing else "before its lease"


def _content(output: Path) -> dict[str, bytes]:
    """Bytes of the current shards and catalogue tables."""
    shards = [shard.path for shard in read_description(Storage(output)).shards]
    tables = [str(path.relative_to(output)) for path in sorted((output / "catalogue").glob("*.parquet"))]
    return {name: (output / name).read_bytes() for name in [*shards, *tables]}


def main(arguments: Sequence[str]) -> int:
    """The command; returns its exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m pipeline.fault_injection.kill_jobs", description=(__doc__ or "").partition("\n")[0]
    )
    parser.add_argument("--runs", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--films", type=int, default=0, help="films beside the motion capture; slower")
    parser.add_argument("--engine", choices=("inline", "ray"), default="inline")
    parser.add_argument("--config", default="", help="a job of your own instead; its output is not touched")
    options = vars(parser.parse_args(arguments))
    try:
        result = run_trials(options.pop("runs"), **options)
    except HumoError as error:
        return exit_status(error, "kill")
    print(json.dumps(result, indent=1))
    return 0 if result["same"] == result["verified"] == result["runs"] else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
