"""Jobs on Ray clusters: nodes and actors that die in the middle, pools, tasks and what waits between them."""

import itertools
import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import crowding
import pytest
import yaml
from mocap_files import body_motion, write_known_bvh
from typer.testing import CliRunner

from pipeline import PROJECT_ROOT
from pipeline.chain.config import IngestConfig, WorkerConfig
from pipeline.chain.stage_order import build_chain
from pipeline.chain.work_item import WorkItem
from pipeline.commands.main import app
from pipeline.dataset.verify import verify
from pipeline.execution.ray_engine import _watched as watched
from pipeline.execution.ray_engine import most_workers, pools, run_ray, shortage, sources_per_task
from pipeline.job.ingest import ingest
from schemas.config import load_config, parse_config
from schemas.dataset import read_description
from schemas.errors import HumoError
from schemas.offline import enforce_offline
from schemas.records import Source
from schemas.storage import Storage

SOURCES = 12
TIMEOUT_S = 500


def settings(sources: Path, output: Path, **more: object) -> dict[str, object]:
    listed = [{"kind": "mocap", "path": str(sources), "licence": "CC0-1.0"}]
    return {"sources": listed, "output": str(output), "splits": {"train": 1.0}, **more}


def shards(dataset: Path) -> dict[str, bytes]:
    return {one.path: (dataset / one.path).read_bytes() for one in read_description(Storage(dataset)).shards}


@pytest.fixture(scope="module")
def takes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("takes")
    for number in range(SOURCES):
        write_known_bvh(folder / f"take{number:02d}.bvh", body_motion("walk", 3.0, number), "cmu_bvh")
    return folder


@pytest.fixture(scope="module")
def expected(takes: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The shards of the same job, inline."""
    output = tmp_path_factory.mktemp("inline") / "data"
    ingest(parse_config(settings(takes, output, engine={"isolate": False}), IngestConfig, "job.yaml"))
    return shards(output)


def run_on_cluster(job: Path, victim: str) -> dict[str, int]:
    """Up to three times, for Ray's own start fails now and then where the machine is crowded."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(PROJECT_ROOT)}
    command = [sys.executable, str(Path(__file__).with_name("cluster_run.py")), str(job), victim]
    for _ in range(3):
        process = subprocess.Popen(
            command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=PROJECT_ROOT
        )
        try:
            said, complained = process.communicate(timeout=TIMEOUT_S)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGINT)  # it ends its Ray itself
            raise
        if process.returncode != 75:
            break
    assert process.returncode == 0, complained[-3000:]
    return json.loads(next(line for line in said.splitlines() if line.startswith("{")))  # Ray speaks there too


@pytest.mark.slow
@pytest.mark.parametrize("victim", ["node", "actor"])
def test_jobs_outlive_what_dies(victim: str, takes: Path, expected: dict[str, bytes], tmp_path: Path) -> None:
    """SIGKILL to a node, or to actors alone, in the middle of a job: same shards, byte for byte."""
    job, output = tmp_path / "job.yaml", tmp_path / "data"
    engine = {"kind": "ray", "address": "joined before", "isolate": False}
    job.write_text(json.dumps(settings(takes, output, engine=engine, resources={"read_mocap": {"cpus": 0.5}})))
    told = run_on_cluster(job, victim)
    assert told["killed"] >= 1
    assert 0 < told["committed_then"] < told["committed"] == SOURCES
    assert shards(output) == expected
    assert verify(str(output)).problems == []


def bundles_of(kind: str, number: int) -> list[WorkItem]:
    return [WorkItem.of(Source(id=f"s{index}", uri="u", kind=kind)) for index in range(number)]


def config_of(**more: object) -> IngestConfig:
    return parse_config({"sources": [{"path": "videos"}], "output": "out", **more}, IngestConfig, "job.yaml")


def test_tasks_are_one_video_or_several_takes() -> None:
    single, eight = config_of(), config_of(sources_per_commit=8)
    assert sources_per_task(single, bundles_of("video", 10_000), 3, 64) == 1
    assert sources_per_task(single, bundles_of("video", 9) + bundles_of("mocap", 9_000), 3, 64) == 1
    assert sources_per_task(single, bundles_of("mocap", 10_000), 3, 64) == 16
    assert sources_per_task(single, bundles_of("mocap", 64), 3, 64) == 1, "all workers get some"
    assert sources_per_task(eight, bundles_of("video", 100), 3, 8) == 1
    assert sources_per_task(eight, bundles_of("video", 100), 1, 8) == 8, "a single pool takes a commit at once"


def test_pools_on_clusters_that_grow() -> None:
    settings = {"track_people": {"cpus": 2, "gpus": 0.25, "workers": 32}}
    fixed, growing = config_of(resources=settings), config_of(resources=settings, engine={"grows": True})
    kinds = ("video",)
    chain = build_chain(fixed.chain, fixed.stages, kinds=kinds)
    with pytest.raises(HumoError, match=r"engine\.grows"):
        pools(fixed, chain, {"CPU": 4})
    layout = pools(growing, chain, {})
    assert [name for names, _ in layout for name in names] == [stage.name for stage in chain]
    named = next(worker for names, worker in layout if names == ["track_people"])
    other = next(worker for names, worker in layout if "track_people" not in names)
    assert most_workers(growing, named, {}) == 32
    assert most_workers(growing, other, {}) is None
    assert most_workers(fixed, named, {"CPU": 64, "GPU": 2}) == 8, "as many as two GPUs have room for"


def test_a_cluster_that_lost_what_the_pools_need_is_told_of(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    import ray

    layout = [(["one"], WorkerConfig(cpus=2)), (["two"], WorkerConfig(cpus=1, gpus=1))]
    assert shortage(layout, {"CPU": 3, "GPU": 1}, grows=False) == ""
    assert "3 CPUs and Ray has 2" in shortage(layout, {"CPU": 2, "GPU": 1}, grows=False)
    assert "1 GPUs and Ray has 0" in shortage(layout, {"CPU": 3}, grows=False)
    assert "waits for the cluster to grow" in shortage(layout, {"CPU": 0}, grows=True)
    monkeypatch.setattr("pipeline.execution.ray_engine._LOOK_S", 0.01)
    lost = itertools.chain([{"CPU": 4.0, "GPU": 1.0}, {"CPU": 2.0}], itertools.repeat({"CPU": 2.0}))
    monkeypatch.setattr(ray, "cluster_resources", lambda: next(lost))
    with watched(partial(shortage, layout, grows=False)):
        time.sleep(0.3)
    (told,) = (record.message for record in caplog.records)
    assert told.startswith("one worker of each pool needs 3 CPUs and Ray has 2")


@pytest.mark.slow
def test_a_quick_pool_waits_for_a_slow_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of 40 times 4 MB, what lies between two pools stays within a store of 80 MB, however many sources come."""
    import ray

    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(Path(crowding.__file__).parent), str(PROJECT_ROOT)]))
    enforce_offline()
    for attempt in range(3):  # as in run_on_cluster
        try:
            ray.init(
                address="local", num_cpus=2, object_store_memory=80_000_000, include_dashboard=False,
                log_to_driver=False, logging_level="error",
            )  # fmt: skip
            break
        except Exception:
            if attempt == 2:
                raise
    marks = tmp_path / "marks"
    marks.mkdir()
    resources = {"read_videos": {"cpus": 0.5}, "track_people": {"cpus": 0.5, "workers": 1}}
    engine = {"kind": "ray", "isolate": False}
    config = config_of(output=str(tmp_path / "data"), engine=engine, resources=resources)
    work_items = [
        replace(work_item, records=[replace(work_item.source, description=str(marks))])
        for work_item in bundles_of("video", 40)
    ]
    done = waiting = 0
    try:
        for _ in run_ray(config, crowding.stages(), work_items, crowding.stages):
            done += 1
            waiting = max(waiting, len(list(marks.iterdir())) - done)
    finally:
        ray.shutdown()
    assert done == 40
    assert 0 < waiting * crowding.MADE_BYTES < 80_000_000


class TestKubernetes:
    """configs/rayjob.yaml, by the fields that KubeRay's API reference lists."""

    JOB_FIELDS = {
        "activeDeadlineSeconds", "backoffLimit", "clusterSelector", "entrypoint", "entrypointNumCpus", "entrypointNumGpus",
        "entrypointResources", "jobId", "metadata", "rayClusterSpec", "runtimeEnvYAML", "shutdownAfterJobFinishes",
        "submissionMode", "submitterConfig", "submitterPodTemplate", "suspend", "ttlSecondsAfterFinished",
    }  # fmt: skip
    CLUSTER_FIELDS = {
        "autoscalerOptions", "enableInTreeAutoscaling", "headGroupSpec", "rayVersion", "suspend", "workerGroupSpecs",
    }  # fmt: skip
    GROUP_FIELDS = {"groupName", "maxReplicas", "minReplicas", "numOfHosts", "rayStartParams", "replicas", "template"}
    AUTOSCALER_FIELDS = {"env", "envFrom", "idleTimeoutSeconds", "image", "resources", "upscalingMode", "version"}

    @pytest.fixture
    def job(self) -> dict[str, Any]:
        return next(self.documents("RayJob"))

    @staticmethod
    def documents(kind: str) -> Iterator[dict[str, Any]]:
        text = (PROJECT_ROOT / "configs" / "rayjob.yaml").read_text()
        return (found for found in yaml.safe_load_all(text) if found["kind"] == kind)

    def test_fields_exist(self, job: dict[str, Any]) -> None:
        spec, cluster = job["spec"], job["spec"]["rayClusterSpec"]
        assert job["apiVersion"] == "ray.io/v1"
        assert set(spec) <= self.JOB_FIELDS
        assert set(cluster) <= self.CLUSTER_FIELDS
        assert set(cluster["headGroupSpec"]) == {"rayStartParams", "template"}
        assert set(cluster["autoscalerOptions"]) <= self.AUTOSCALER_FIELDS
        for group in cluster["workerGroupSpecs"]:
            assert set(group) <= self.GROUP_FIELDS
            assert 0 <= group["minReplicas"] <= group["replicas"] <= group["maxReplicas"]
        options = yaml.safe_load(spec["runtimeEnvYAML"])
        assert all(isinstance(value, str) for value in options["env_vars"].values())
        assert all(isinstance(value, str) for value in cluster["headGroupSpec"]["rayStartParams"].values())

    def test_ray_is_the_one_that_is_pinned(self, job: dict[str, Any]) -> None:
        version = job["spec"]["rayClusterSpec"]["rayVersion"]
        for path in ("lock.txt", "constraints.txt"):
            pins = re.findall(r"^ray==(\S+)", (PROJECT_ROOT / "requirements" / path).read_text(), re.MULTILINE)
            assert pins == [version]
        assert f'"ray[default]=={version}"' in (PROJECT_ROOT / "configs" / "Dockerfile").read_text()

    def test_pods_are_alike_and_have_what_they_mount(self, job: dict[str, Any]) -> None:
        cluster = job["spec"]["rayClusterSpec"]
        pods = [group["template"]["spec"] for group in [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]]
        assert len({container["image"] for pod in pods for container in pod["containers"]}) == 1
        names = {config["metadata"]["name"] for config in self.documents("ConfigMap")}
        for pod in pods:
            volumes = {volume["name"]: volume for volume in pod["volumes"]}
            for container in pod["containers"]:
                assert {mount["name"] for mount in container["volumeMounts"]} == set(volumes)
                assert container["resources"]["requests"] == container["resources"]["limits"]
            assert volumes["job"]["configMap"]["name"] in names

    def test_the_command_exists_and_its_job_fits_the_groups(self, job: dict[str, Any]) -> None:
        program, *words = shlex.split(job["spec"]["entrypoint"])
        command, path = words
        assert program == "humo"
        assert CliRunner().invoke(app, [command, "--help"]).exit_code == 0
        (config,) = self.documents("ConfigMap")
        mount = "/etc/humo"
        made = parse_config(yaml.safe_load(config["data"][Path(path).name]), IngestConfig, path)
        assert str(Path(path).parent) == mount
        assert (made.engine.kind, made.engine.grows) == ("ray", True)
        groups = job["spec"]["rayClusterSpec"]["workerGroupSpecs"]
        limits = [
            (group["maxReplicas"], group["template"]["spec"]["containers"][0]["resources"]["limits"])
            for group in groups
        ]
        for worker in made.resources.values():
            fitting = [
                (most, limit) for most, limit in limits
                if worker.cpus <= float(limit["cpu"]) and worker.gpus <= float(limit.get("nvidia.com/gpu", 0))
            ]  # fmt: skip
            assert fitting, f"no group has room for {worker}"
        gpus = sum(most * float(limit.get("nvidia.com/gpu", 0)) for most, limit in limits)
        assert sum(worker.gpus * worker.workers for worker in made.resources.values()) <= gpus


def test_only_the_code_travels() -> None:
    """What Ray would pack of the repository, by the files that it reads for that."""
    listed = (PROJECT_ROOT / ".rayignore").read_text().split()
    kept = {path.name for path in PROJECT_ROOT.iterdir() if path.is_dir()} - {line.strip("/") for line in listed}
    assert {"schemas", "stages", "pipeline", "configs"} <= kept
    assert not kept & {".git", ".venv", "data", "demo", "runs", "tests"}


@pytest.mark.parametrize("name", ["cluster.yaml"])
def test_cluster_configs_are_valid(name: str) -> None:
    assert load_config(str(PROJECT_ROOT / "configs" / name), IngestConfig, []).engine.kind == "ray"


@pytest.mark.slow
def test_a_stage_that_cannot_be_set_up_says_so(takes: Path, tmp_path: Path) -> None:
    """What a worker cannot find is told as inline, without Ray's traces."""
    job = tmp_path / "job.yaml"
    stages = {"read_mocap": {"joint_map": str(tmp_path / "nowhere.yaml")}}
    job.write_text(json.dumps(settings(takes, tmp_path / "data", engine={"kind": "ray"}, stages=stages)))
    command = [sys.executable, "-m", "pipeline.commands.main", "ingest", str(job)]
    for _ in range(3):
        done = subprocess.run(command, cwd=PROJECT_ROOT, capture_output=True, text=True, timeout=TIMEOUT_S, check=False)
        if "nowhere.yaml" in done.stderr:
            break
    assert done.returncode == 2
    (line,) = done.stderr.strip().splitlines()
    assert line.startswith("humo: ")
    assert "nowhere.yaml" in line
