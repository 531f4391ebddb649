"""A small job killed again and again at random moments, then completed: are its shards those of the undisturbed job?

    python -m pipeline.fault_injection.kill_jobs --runs 100 --seed 0

Each run is killed with SIGKILL one to three times, the main process alone: what it has started must end by itself. Half of the
moments are any between start and end; the others lie just after something appeared in the output (lease, part, ledger file,
shard, dataset.json), for commits and packing are short. Exit status 1 if any run's shards or catalogue differ.
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
"""Takes the project's Y up to AMASS' Z up."""
_MOST_KILLS = 3
_GLIMPSE_S = 0.005
_MARKS = ("lease.json", "parts/*.tar", "ledger/*.parquet", "shards/*/*.tar", "catalogue/*.parquet", DESCRIPTION)


def write_job(folder: Path, films: int, engine: str) -> dict[str, Any]:
    """Motion capture of generated motions as AMASS files, and a job over them and some films; returns its settings."""
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


def trial(runs: int, *, seed: int = 0, films: int = 0, engine: str = "inline", config: str = "") -> dict[str, Any]:
    """Kill and complete a job so many times; says how often what came of it was the same, and where it was killed.

    Raises HumoError where the undisturbed job fails.
    """
    chances = random.Random(seed)
    with tempfile.TemporaryDirectory() as work:
        home = Path(work)
        settings = json.loads(json.dumps(_loaded(config) if config else write_job(home, films, engine)))
        start = time.monotonic()
        _complete(_written(settings, home, "undisturbed"))
        whole_s = time.monotonic() - start
        truth = _content(home / "undisturbed")
        found: list[dict[str, Any]] = []
        for number in range(runs):
            job = _written(settings, home, f"run-{number}")
            moments = [
                _killed(job, home / f"run-{number}", whole_s, chances) for _ in range(chances.randint(1, _MOST_KILLS))
            ]
            _complete(job)
            output = home / f"run-{number}"
            same, problems = _content(output) == truth, verify(str(output)).problems
            found.append({"run": number, "killed": moments, "same": same, "problems": problems})
            print(
                f"run {number}: killed {', '.join(moments)}: {'same' if same else 'DIFFERS'} {problems or ''}",
                flush=True,
            )
            if same and not problems:
                shutil.rmtree(output)  # what was found whole need not fill the disk
    return {
        "runs": runs, "seed": seed, "undisturbed_s": round(whole_s, 2), "kills": sum(len(one["killed"]) for one in found),
        "same": sum(one["same"] for one in found), "verified": sum(not one["problems"] for one in found),
        "killed": dict(Counter(moment for one in found for moment in one["killed"]).most_common()),
        "odd": [one for one in found if not one["same"] or one["problems"]],
    }  # fmt: skip


def _loaded(config: str) -> dict[str, Any]:
    from pipeline.chain.config import IngestConfig

    return load_config(config, IngestConfig).model_dump(mode="json")


def _written(settings: dict[str, Any], home: Path, name: str) -> Path:
    path = home / f"{name}.json"
    path.write_text(json.dumps(settings | {"output": str(home / name)}))  # JSON is YAML
    return path


def _command(job: Path) -> list[str]:
    return [sys.executable, "-m", "pipeline.commands.main", "ingest", str(job), "--json"]


def _complete(job: Path) -> None:
    ended = subprocess.run(_command(job), capture_output=True, text=True)
    if ended.returncode:
        raise HumoError(f"{job.stem}: the job ended with {ended.returncode}: {ended.stderr[-2000:]}")


def _killed(job: Path, output: Path, whole_s: float, chances: random.Random) -> str:
    """Kill the job at one moment; says what was there by then."""
    process = subprocess.Popen(_command(job), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + chances.uniform(0.2, 1.1) * whole_s
    mark = chances.choice(_MARKS) if chances.random() < 0.5 else ""
    before, after = _glance(output), chances.uniform(0.0, 0.05)
    while process.poll() is None and (mark or time.monotonic() < deadline):
        time.sleep(_GLIMPSE_S)
        if mark and _glance(output).get(mark, ()) != before.get(mark, ()):
            time.sleep(after)
            break
    ended = process.poll() is not None
    process.send_signal(signal.SIGKILL)
    process.wait()
    return "after its end" if ended else _phase(output)


def _glance(output: Path) -> dict[str, tuple[str, ...]]:
    return {mark: tuple(sorted(str(path) for path in output.glob(mark))) for mark in _MARKS}


def _phase(output: Path) -> str:
    """How far the output had come."""
    there = [mark.partition("/")[0] for mark, paths in _glance(output).items() if paths]
    return f"with {there[-1]}" if there else "before its lease"


def _content(output: Path) -> dict[str, bytes]:
    """Bytes of the shards and the catalogue that count."""
    shards = [one.path for one in read_description(Storage(output)).shards]
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
        found = trial(options.pop("runs"), **options)
    except HumoError as error:
        return exit_status(error, "kill")
    print(json.dumps(found, indent=1))
    return 0 if found["same"] == found["verified"] == found["runs"] else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
