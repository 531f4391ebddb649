"""A job on a Ray of two nodes on this machine, some of whose processes are killed in the middle of it.

    python cluster_run.py JOB.yaml node     SIGKILL to a whole node: its raylet and all its workers
    python cluster_run.py JOB.yaml actor    SIGKILL to the actors alone

Prints one JSON object: how many sources had been committed and how many actors were killed. Exit status 75 where Ray itself
did not start: it gives its processes half a minute, which a crowded machine may need longer than.
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
"""Sources that are committed before."""


def descendants(pid: int) -> Iterator[tuple[int, str]]:
    """(process id, command line) of all processes below one."""
    for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
        line = Path(f"/proc/{child}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
        yield int(child), line
        yield from descendants(int(child))


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
    told = {"committed": 0, "killed": 0}

    def kill_in_the_middle(outcome: Outcome) -> None:
        told["committed"] += 1
        below = list(descendants(raylet)) if not told["killed"] and told["committed"] >= KILL_AFTER else []
        actors = [pid for pid, line in below if "MapWorker" in line]
        if not actors:
            return
        told.update(killed=len(actors), committed_then=told["committed"])
        for pid in [raylet, *(pid for pid, _ in below)] if victim == "node" else actors:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    ingest(load_config(job, IngestConfig, []), kill_in_the_middle)
    print(json.dumps(told))
    ray.shutdown()
    cluster.shutdown()


if __name__ == "__main__":
    main(*sys.argv[1:])
