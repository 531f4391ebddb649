"""A job on a Ray of two nodes on this machine, some of whose processes are killed during the job.

    python cluster_run.py JOB.yaml node     SIGKILL to a whole node: its raylet and all its workers
    python cluster_run.py JOB.yaml actor    SIGKILL to the actors alone

Prints one JSON object: the numbers of committed sources and of killed actors. Exit status 75 if Ray itself did not start: it gives
its processes half a minute, which can be too little on a busy machine.
"""

import json
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from pipeline.chain.config import IngestConfig
from pipeline.execution.engines import Outcome
from pipeline.job.ingest import ingest
from schemas.config import load_config
from schemas.offline import enforce_offline

KILL_AFTER = 2
"""Sources committed before the kill."""


def descendants(pid: int) -> Iterator[tuple[int, str]]:
    """(process id, command line) of all descendants of a process."""
    for child_pid in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
        command_line = Path(f"/proc/{child_pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
        yield int(child_pid), command_line
        yield from descendants(int(child_pid))


def main(job: str, victim: str) -> None:
    enforce_offline()
    os.environ["RAY_BACKEND_LOG_LEVEL"] = "fatal"
    import ray
    from ray.cluster_utils import Cluster

    try:
        cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 2, "include_dashboard": False})
        node = cluster.add_node(num_cpus=2)
        ray.init(address=cluster.address, log_to_driver=False, logging_level="error")
    except Exception as error:
        print(error, file=sys.stderr)
        sys.exit(75)
    raylet = node.all_processes["raylet"][0].process.pid
    report = {"committed": 0, "killed": 0}

    def kill_once(outcome: Outcome) -> None:
        report["committed"] += 1
        processes = list(descendants(raylet)) if not report["killed"] and report["committed"] >= KILL_AFTER else []
        actors = [pid for pid, command_line in processes if "MapWorker" in command_line]
        if not actors:
            return
        report.update(killed=len(actors), committed_then=report["committed"])
        for pid in [raylet, *(pid for pid, _ in processes)] if victim == "node" else actors:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    ingest(load_config(job, IngestConfig, []), kill_once)
    print(json.dumps(report))
    ray.shutdown()
    cluster.shutdown()


if __name__ == "__main__":
    main(*sys.argv[1:])
