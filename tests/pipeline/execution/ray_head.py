"""A Ray of one node on this machine for tests: `with ray_head(folder, environment) as address`."""

import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from pipeline import PROJECT_ROOT

_HEAD = """
import sys
from ray.cluster_utils import Cluster
cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 2, "include_dashboard": False})
print("address", cluster.address, flush=True)
sys.stdin.read()
cluster.shutdown()
"""


def environment_of(**settings: str) -> dict[str, str]:
    """This process's environment without Ray's settings, with others instead."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    return kept | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(PROJECT_ROOT), "RAY_USAGE_STATS_ENABLED": "0"} | settings


@contextmanager
def ray_head(environment: Mapping[str, str]) -> Iterator[str]:
    """`host:port` of a head node that runs with this environment; up to three attempts, as Ray may fail on a busy machine."""
    for attempt in range(3):
        process = subprocess.Popen(
            [sys.executable, "-c", _HEAD], env=environment, text=True,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        try:
            assert process.stdout is not None
            words = next((line.split() for line in process.stdout if line.startswith("address ")), None)
            if words:
                yield words[1]
                return
            assert attempt < 2, "Ray has not started"
        finally:
            process.communicate("", timeout=60)
