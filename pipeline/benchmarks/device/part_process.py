"""The process of a part: `python -m pipeline.benchmarks.device.part_process JOB` writes a JSON object for each figure.

Imports of a part's libraries stay inside its functions: a figure whose packages are missing is skipped with the reason, and so is
one that the device refuses or has too little memory for.
"""

import json
import os
import sys
import time
from collections.abc import Callable
from importlib import import_module
from typing import Any

from pipeline.execution.parent_death import fork_guarded

_FUNCTIONS = {
    "parity": "parity:measurements", "decoding": "decoding:measurements", "lifter": "lifting:measurements",
    "tracking": "tracking:measurements", "tokenizer": "training:tokenizer", "llm": "training:llm", "loader": "loading:measurements",
}  # fmt: skip
_MIN_FIGURE_S = 0.5
_SMALL_FIGURE_S = 2.0
"""Longest time for a figure at the sizes for a CPU, so that all of them fit into two minutes."""


def main(job: dict[str, Any]) -> None:
    """Measure what the part has and what is not `measured`, until the time `until` of the monotonic clock."""
    fork_guarded(job["parent"])
    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print is no figure
    import torch

    from pipeline.benchmarks.device.measure import Setting, release
    from pipeline.benchmarks.device.report import LATE, Figure
    from pipeline.benchmarks.device.stand_ins import install
    from schemas.offline import enforce_offline

    enforce_offline()
    stand_ins = install()
    if job["device"] == "cpu":
        torch.set_num_threads(1)  # as the stages have it: figures then depend less on what else runs
    module, name = _FUNCTIONS[job["part"]].split(":")
    make: Callable[[Setting], Any] = getattr(import_module(f"pipeline.benchmarks.device.{module}"), name)
    waiting = [one for one in make(Setting(job["device"], job["small"])) if one.name not in job["measured"]]
    while waiting:
        measurement = waiting.pop(0)
        left_s = job["until"] - time.monotonic()
        seconds = left_s * measurement.weight / (measurement.weight + sum(other.weight for other in waiting))
        if job["small"]:
            seconds = min(seconds, _SMALL_FIGURE_S)
        late = {"skipped": f"{max(0.0, left_s):.0f} {LATE}"}
        figure: Figure = late if seconds < _MIN_FIGURE_S else _try(measurement.measure, seconds)
        if stand_ins:
            figure["without"] = stand_ins
        print(json.dumps({"name": measurement.name, **figure}), file=out, flush=True)
        release(job["device"])
    out.close()
    os._exit(0)  # unloading libraries may take seconds; the folder for temporary files is the parent's


def _try(measure: Callable[[float], dict[str, Any]], seconds: float) -> dict[str, Any]:
    try:
        return measure(seconds)
    except ModuleNotFoundError as error:
        return {"skipped": f"not installed: {error.name}"}
    except Exception as error:
        reason = str(error).strip().splitlines() or [""]
        return {"skipped": f"{type(error).__name__}: {reason[0][:300]}"}


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
