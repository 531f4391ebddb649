"""A job on a Ray of two nodes on this machine whose processes are killed during the job: `python cluster_run.py JOB.yaml`.

First the actors of one node get SIGKILL, later that whole node, its raylet and all its workers. Prints one JSON object: the
number of committed sources in all and before each of both. Exit status 75 if Ray itself did not start: it gives its processes half
a minute, which can be too little on a busy machine.
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

ACTORS_DIE_AFTER, NODE_DIES_AFTER = 2, 5
"""Sources committed before."""


def descendants(pid: int) -> Iterator[tuple[int, str]]:
    """(process id, command line) of all descendants of a process."""
    for child_pid in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
        command_line = Path(f"/proc/{child_pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
        yield int(child_pid), command_line
        yield from descendants(int(child_pid))


def main(job: str) -> None:
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
    report = {"committed": 0}

    def kill(outcome: Outcome) -> None:
        report["committed"] += 1
        processes = list(descendants(raylet)) if "node_died_at" not in report else []
        actors = [pid for pid, command_line in processes if "MapWorker" in command_line]
        if "actors_died_at" not in report and report["committed"] >= ACTORS_DIE_AFTER and actors:
            victims, event = actors, "actors_died_at"
        elif "actors_died_at" in report and report["committed"] >= NODE_DIES_AFTER and processes:
            victims, event = [raylet, *(pid for pid, _ in processes)], "node_died_at"
        else:
            return
        report[event] = report["committed"]
        for pid in victims:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    ingest(load_config(job, IngestConfig, []), kill)
    print(json.dumps(report))
    ray.shutdown()
    cluster.shutdown()


if __name__ == "__main__":
    main(*sys.argv[1:])
