"""A Ray cluster that requires a token and whose machines have humo's packages, but not humo: its code comes with the job."""

import json
import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest
import yaml
from mocap_files import body_motion, write_known_bvh

from pipeline import PROJECT_ROOT
from pipeline.dataset.verify import verify

TIMEOUT_S = 400
TOKEN = "f00d" * 16
CLUSTER = """
import sys
from ray.cluster_utils import Cluster
try:
    import pipeline
    sys.exit("humo is installed here")
except ImportError:
    pass
cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 2, "include_dashboard": False})
print(cluster.address, flush=True)
sys.stdin.read()
cluster.shutdown()
"""
JOB = """
import json, sys
import ray
from pipeline.chain.config import IngestConfig
from pipeline.execution.ray_engine import _start
from pipeline.job.ingest import ingest
from schemas.config import load_config

@ray.remote
def code():
    import pipeline, stages
    return [pipeline.__file__, stages.__file__]

config = load_config(sys.argv[1], IngestConfig)
_start(config)
print(json.dumps({"code": ray.get(code.remote()), "samples": ingest(config).samples}))
"""


def environment_without_humo(folder: Path) -> str:
    """An interpreter with all packages of this one except the project's own editable install."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True)
    packages = next(folder.glob("lib/python*/site-packages"))
    for entry in Path(sysconfig.get_path("purelib")).iterdir():
        if "humo" not in entry.name:
            (packages / entry.name).symlink_to(entry)
    return str(folder / "bin" / "python")


@pytest.mark.slow
def test_a_cluster_with_a_token_runs_the_code_that_the_job_brings(tmp_path: Path) -> None:
    python = environment_without_humo(tmp_path / "environment")
    shipped, elsewhere, takes = tmp_path / "shipped", tmp_path / "elsewhere", tmp_path / "takes"
    for folder in (elsewhere, takes):
        folder.mkdir()
    for package in ("schemas", "stages", "pipeline", "configs"):
        shutil.copytree(PROJECT_ROOT / package, shipped / package, ignore=shutil.ignore_patterns("__pycache__"))
    write_known_bvh(takes / "walk.bvh", body_motion("walk", 3.0, 0), "cmu_bvh")
    environment = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "RAY_ADDRESS")}
    environment |= {"OMP_NUM_THREADS": "1", "HOME": str(tmp_path), "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": TOKEN}

    for _ in range(3):  # Ray sometimes fails to start on a busy machine
        cluster = subprocess.Popen(
            [python, "-c", CLUSTER], cwd=elsewhere, env=environment, text=True,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        try:
            assert cluster.stdout is not None
            address = next((line.strip() for line in cluster.stdout if line[:1].isdigit()), "")
            job = tmp_path / "job.yaml"
            settings = {
                "sources": [{"kind": "mocap", "path": str(takes)}],
                "output": str(tmp_path / "data"),
                "engine": {"kind": "ray", "address": address, "require_token": True},
            }
            job.write_text(yaml.safe_dump(settings))
            done = subprocess.run(
                [python, "-c", JOB, str(job)], cwd=shipped, env=environment, capture_output=True, text=True,
                timeout=TIMEOUT_S, check=False,
            )  # fmt: skip
        finally:
            cluster.communicate("", timeout=60)
        if not done.returncode:
            break
    assert not done.returncode, done.stderr[-3000:]
    found = json.loads(next(line for line in done.stdout.splitlines() if line.startswith("{")))
    assert found["samples"] == 1
    report = verify(str(tmp_path / "data"))
    assert (report.samples, report.problems) == (1, [])
    assert "without a token" not in done.stderr
    assert TOKEN not in done.stdout + done.stderr
    for path in found["code"]:
        assert "_ray_pkg_" in path, f"{path} is not what the job brought"
