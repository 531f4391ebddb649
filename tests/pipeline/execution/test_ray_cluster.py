"""Jobs on Ray clusters: nodes and actors that die during the job, pools, tasks and queues between pools."""

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
from pipeline.execution.ray_engine import _warn_on_shortage as warn_on_shortage
from pipeline.execution.ray_engine import max_pool_workers, pool_layout, run_ray, shortage, sources_per_task
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
def mocap_takes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("takes")
    for number in range(SOURCES):
        write_known_bvh(folder / f"take{number:02d}.bvh", body_motion("walk", 3.0, number), "cmu_bvh")
    return folder


@pytest.fixture(scope="module")
def expected(mocap_takes: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The shards of the same job, inline."""
    output = tmp_path_factory.mktemp("inline") / "data"
    ingest(parse_config(settings(mocap_takes, output, engine={"isolate": False}), IngestConfig, "job.yaml"))
    return shards(output)


def run_on_cluster(job: Path) -> dict[str, int]:
    """Up to three attempts, because Ray sometimes fails to start on a busy machine."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(PROJECT_ROOT)}
    command = [sys.executable, str(Path(__file__).with_name("cluster_run.py")), str(job)]
    for _ in range(3):
        process = subprocess.Popen(
            command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=PROJECT_ROOT
        )
        try:
            output, errors = process.communicate(timeout=TIMEOUT_S)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGINT)  # it shuts down its Ray itself
            raise
        if process.returncode != 75:
            break
    assert process.returncode == 0, errors[-3000:]
    return json.loads(next(line for line in output.splitlines() if line.startswith("{")))  # Ray prints there too


@pytest.mark.slow
def test_jobs_survive_dead_actors_and_nodes(mocap_takes: Path, expected: dict[str, bytes], tmp_path: Path) -> None:
    """SIGKILL to actors, then to a node, during a job: same shards, byte for byte."""
    job, output = tmp_path / "job.yaml", tmp_path / "data"
    engine = {"kind": "ray", "address": "joined before", "isolate": False}
    job.write_text(json.dumps(settings(mocap_takes, output, engine=engine, resources={"read_mocap": {"cpus": 0.5}})))
    report = run_on_cluster(job)
    assert 0 < report["actors_died_at"] < report["node_died_at"] < report["committed"] == SOURCES
    assert shards(output) == expected
    assert verify(str(output)).problems == []


def make_work_items(kind: str, number: int) -> list[WorkItem]:
    return [WorkItem.of(Source(id=f"s{index}", uri="u", kind=kind)) for index in range(number)]


def make_config(**more: object) -> IngestConfig:
    return parse_config({"sources": [{"path": "videos"}], "output": "out", **more}, IngestConfig, "job.yaml")


def test_tasks_hold_one_video_or_several_takes() -> None:
    single, eight = make_config(), make_config(sources_per_commit=8)
    assert sources_per_task(single, make_work_items("video", 10_000), 3, 64) == 1
    assert sources_per_task(single, make_work_items("video", 9) + make_work_items("mocap", 9_000), 3, 64) == 1
    assert sources_per_task(single, make_work_items("mocap", 10_000), 3, 64) == 16
    assert sources_per_task(single, make_work_items("mocap", 64), 3, 64) == 1, "all workers get some"
    assert sources_per_task(eight, make_work_items("video", 100), 3, 8) == 1
    assert sources_per_task(eight, make_work_items("video", 100), 1, 8) == 8, "a single pool takes a whole commit"


def test_pools_on_autoscaling_clusters() -> None:
    settings = {"track_people": {"cpus": 2, "gpus": 0.25, "workers": 32}}
    fixed, growing = make_config(resources=settings), make_config(resources=settings, engine={"grows": True})
    kinds = ("video",)
    chain = build_chain(fixed.chain, fixed.stages, kinds=kinds)
    with pytest.raises(HumoError, match=r"engine\.grows"):
        pool_layout(fixed, chain, {"CPU": 4})
    layout = pool_layout(growing, chain, {})
    assert [name for names, _ in layout for name in names] == [stage.name for stage in chain]
    named = next(worker for names, worker in layout if names == ["track_people"])
    other = next(worker for names, worker in layout if "track_people" not in names)
    assert max_pool_workers(growing, named, {}) == 32
    assert max_pool_workers(growing, other, {}) is None
    assert max_pool_workers(fixed, named, {"CPU": 64, "GPU": 2}) == 8, "as many as fit on two GPUs"


def test_a_shortage_of_resources_is_logged(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    import ray

    layout = [(["one"], WorkerConfig(cpus=2)), (["two"], WorkerConfig(cpus=1, gpus=1))]
    assert shortage(layout, {"CPU": 3, "GPU": 1}, grows=False) == ""
    assert "3 CPUs and Ray has 2" in shortage(layout, {"CPU": 2, "GPU": 1}, grows=False)
    assert "1 GPUs and Ray has 0" in shortage(layout, {"CPU": 3}, grows=False)
    assert "waits for the cluster to grow" in shortage(layout, {"CPU": 0}, grows=True)
    monkeypatch.setattr("pipeline.execution.ray_engine._POLL_S", 0.01)
    lost = itertools.chain([{"CPU": 4.0, "GPU": 1.0}, {"CPU": 2.0}], itertools.repeat({"CPU": 2.0}))
    monkeypatch.setattr(ray, "cluster_resources", lambda: next(lost))
    with warn_on_shortage(partial(shortage, layout, grows=False)):
        time.sleep(0.3)
    (message,) = (record.message for record in caplog.records)
    assert message.startswith("one worker of each pool needs 3 CPUs and Ray has 2")


@pytest.mark.slow
def test_a_fast_pool_waits_for_a_slow_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of 40 times 4 MB, the data between two pools stays within a store of 80 MB, regardless of the number of sources."""
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
    config = make_config(output=str(tmp_path / "data"), engine=engine, resources=resources)
    work_items = [
        replace(work_item, records=[replace(work_item.source, description=str(marks))])
        for work_item in make_work_items("video", 40)
    ]
    done = queued = 0
    try:
        for _ in run_ray(config, crowding.stages(), work_items, crowding.stages):
            done += 1
            queued = max(queued, len(list(marks.iterdir())) - done)
    finally:
        ray.shutdown()
    assert done == 40
    assert 0 < queued * crowding.RECORD_BYTES < 80_000_000


class TestKubernetes:
    """configs/rayjob.yaml, checked against the fields of KubeRay's API reference."""

    JOB_FIELDS = {
        "activeDeadlineSeconds", "backoffLimit", "clusterSelector", "entrypoint", "entrypointNumCpus", "entrypointNumGpus",
        "entrypointResources", "jobId", "metadata", "rayClusterSpec", "runtimeEnvYAML", "shutdownAfterJobFinishes",
        "submissionMode", "submitterConfig", "submitterPodTemplate", "suspend", "ttlSecondsAfterFinished",
    }  # fmt: skip
    CLUSTER_FIELDS = {
        "authOptions", "autoscalerOptions", "enableInTreeAutoscaling", "headGroupSpec", "rayVersion", "suspend", "workerGroupSpecs",
    }  # fmt: skip
    GROUP_FIELDS = {"groupName", "maxReplicas", "minReplicas", "numOfHosts", "rayStartParams", "replicas", "template"}
    AUTOSCALER_FIELDS = {
        "env", "envFrom", "idleTimeoutSeconds", "image", "resources", "securityContext", "upscalingMode", "version",
    }  # fmt: skip
    PRIVATE = ("10.0.0.0/8", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12", "192.168.0.0/16")

    @pytest.fixture
    def job(self) -> dict[str, Any]:
        return next(self.documents("RayJob"))

    @staticmethod
    def documents(kind: str) -> Iterator[dict[str, Any]]:
        text = (PROJECT_ROOT / "configs" / "rayjob.yaml").read_text()
        return (document for document in yaml.safe_load_all(text) if document["kind"] == kind)

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

    def test_ray_has_the_pinned_version(self, job: dict[str, Any]) -> None:
        version = job["spec"]["rayClusterSpec"]["rayVersion"]
        for path in ("lock.txt", "constraints.txt"):
            pins = re.findall(r"^ray==(\S+)", (PROJECT_ROOT / "requirements" / path).read_text(), re.MULTILINE)
            assert pins == [version]
        assert f'"ray[default]=={version}"' in (PROJECT_ROOT / "configs" / "Dockerfile").read_text()

    @staticmethod
    def pods(job: dict[str, Any]) -> list[dict[str, Any]]:
        """Templates of all pods: head, worker groups, submitter."""
        cluster = job["spec"]["rayClusterSpec"]
        groups = [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]
        return [*(group["template"] for group in groups), job["spec"]["submitterPodTemplate"]]

    def test_the_cluster_requires_a_token_and_so_does_the_job(self, job: dict[str, Any]) -> None:
        assert job["spec"]["rayClusterSpec"]["authOptions"] == {"mode": "token"}
        (config_map,) = self.documents("ConfigMap")
        config = parse_config(yaml.safe_load(config_map["data"]["job.yaml"]), IngestConfig, "job.yaml")
        assert config.engine.require_token

    def test_pods_have_no_privileges(self, job: dict[str, Any]) -> None:
        for template in self.pods(job):
            user = template["spec"]["securityContext"]
            assert user["runAsNonRoot"]
            assert user["runAsUser"] == user["runAsGroup"] == user["fsGroup"] == 10001
            assert user["seccompProfile"] == {"type": "RuntimeDefault"}
            assert not {"hostNetwork", "hostPID", "hostIPC"} & set(template["spec"])
            assert not [volume for volume in template["spec"].get("volumes", ()) if "hostPath" in volume]
            for container in template["spec"]["containers"]:
                assert container["resources"]["requests"] == container["resources"]["limits"]
        contexts = [container["securityContext"] for pod in self.pods(job) for container in pod["spec"]["containers"]]
        contexts.append(job["spec"]["rayClusterSpec"]["autoscalerOptions"]["securityContext"])
        for context in contexts:
            assert context == {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}
        assert [pod["spec"].get("automountServiceAccountToken", True) for pod in self.pods(job)] == [
            True,
            *[False] * 3,
        ], "the head's autoscaler alone needs an account"

    def test_network_policies_hold_for_all_pods_and_open_no_private_address(self, job: dict[str, Any]) -> None:
        policies = {policy["metadata"]["name"]: policy["spec"] for policy in self.documents("NetworkPolicy")}
        pods = {"matchLabels": {"app.kubernetes.io/name": "humo-ingest"}}
        for template in self.pods(job):
            assert template["metadata"]["labels"] == pods["matchLabels"]
        policy = policies["humo-ingest"]
        assert policy["podSelector"] == pods
        assert policy["policyTypes"] == ["Ingress", "Egress"]
        own, operator = policy["ingress"]
        assert own == {"from": [{"podSelector": pods}]}
        assert operator["ports"] == [{"protocol": "TCP", "port": 8265}]
        assert list(operator["from"][0]) == ["namespaceSelector"]
        (block,) = [to["ipBlock"] for rule in policy["egress"] for to in rule["to"] if "ipBlock" in to]
        assert set(self.PRIVATE) <= set(block["except"])
        head = policies["humo-ingest-autoscaler"]
        assert head["podSelector"]["matchLabels"]["ray.io/node-type"] == "head"
        assert head["policyTypes"] == ["Egress"]

    def test_images_are_pinned_by_digest_and_run_as_the_pods_user(self, job: dict[str, Any]) -> None:
        images = {container["image"] for pod in self.pods(job) for container in pod["spec"]["containers"]}
        assert images == {"REGISTRY/humo@sha256:DIGEST"}, "a placeholder that no registry accepts"
        lines = (PROJECT_ROOT / "configs" / "Dockerfile").read_text().splitlines()
        instructions = [line for line in lines if line and not line.startswith("#")]
        assert instructions[:2] == ["ARG PYTHON_DIGEST", "FROM python:3.11-slim@${PYTHON_DIGEST}"]
        assert instructions[-1] == "USER 10001:10001"

    def test_pods_use_one_image_and_declare_their_mounts(self, job: dict[str, Any]) -> None:
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

    def test_the_command_exists_and_its_job_fits_the_worker_groups(self, job: dict[str, Any]) -> None:
        program, *words = shlex.split(job["spec"]["entrypoint"])
        command, path = words
        assert program == "humo"
        assert CliRunner().invoke(app, [command, "--help"]).exit_code == 0
        (config_map,) = self.documents("ConfigMap")
        mount = "/etc/humo"
        config = parse_config(yaml.safe_load(config_map["data"][Path(path).name]), IngestConfig, path)
        assert str(Path(path).parent) == mount
        assert (config.engine.kind, config.engine.grows) == ("ray", True)
        groups = job["spec"]["rayClusterSpec"]["workerGroupSpecs"]
        limits = [
            (group["maxReplicas"], group["template"]["spec"]["containers"][0]["resources"]["limits"])
            for group in groups
        ]
        for worker in config.resources.values():
            fitting = [
                (max_replicas, limit) for max_replicas, limit in limits
                if worker.cpus <= float(limit["cpu"]) and worker.gpus <= float(limit.get("nvidia.com/gpu", 0))
            ]  # fmt: skip
            assert fitting, f"no group has room for {worker}"
        gpus = sum(max_replicas * float(limit.get("nvidia.com/gpu", 0)) for max_replicas, limit in limits)
        assert sum(worker.gpus * worker.workers for worker in config.resources.values()) <= gpus


def test_only_code_is_uploaded() -> None:
    """The folders of the repository that Ray uploads, according to .rayignore."""
    listed = (PROJECT_ROOT / ".rayignore").read_text().split()
    uploaded = {path.name for path in PROJECT_ROOT.iterdir() if path.is_dir()} - {line.strip("/") for line in listed}
    assert {"schemas", "stages", "pipeline", "configs"} <= uploaded
    assert not uploaded & {".git", ".venv", "data", "demo", "runs", "tests"}


def test_what_lies_beside_the_code_is_not_uploaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As Ray itself applies the patterns: videos, sources and outputs inside the folder stay; a setting's file is shipped."""
    from ray._private.runtime_env import packaging

    from pipeline.execution import ray_shipping

    wanted = ["schemas/ids.py", "stages/media/decoding.py", "configs/a.yaml", "weights/mine.pt", "pyproject.toml"]
    others = [
        "videos/a.mp4",
        "my films [1]/b.mov",
        "big.mp4",
        "data/out/x.tar",
        ".venv/lib/x.py",
        "tests/t.py",
        "stages/takes/c.mp4",
    ]
    for name in wanted + others:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")
    monkeypatch.setattr(ray_shipping, "PROJECT_ROOT", tmp_path)
    config = IngestConfig.model_validate(
        {
            "sources": [{"path": str(tmp_path / "my films [1]")}, {"path": str(tmp_path / "stages" / "takes")}],
            "output": str(tmp_path / "data" / "out"),
            "stages": {"track_people": {"weights": str(tmp_path / "weights" / "mine.pt")}},
        }
    )
    excludes = [packaging._get_excludes(tmp_path, ray_shipping.shipping_excludes(config))]
    uploaded: list[str] = []
    packaging._dir_travel(
        tmp_path, excludes, lambda path: uploaded.append(path.relative_to(tmp_path).as_posix()), include_gitignore=True
    )
    assert {name for name in uploaded if (tmp_path / name).is_file()} == set(wanted)


@pytest.mark.parametrize("name", ["cluster.yaml"])
def test_cluster_configs_are_valid(name: str) -> None:
    assert load_config(str(PROJECT_ROOT / "configs" / name), IngestConfig, []).engine.kind == "ray"


@pytest.mark.slow
def test_a_setup_error_is_reported_without_rays_traces(mocap_takes: Path, tmp_path: Path) -> None:
    """A missing file in a worker is reported as inline."""
    job = tmp_path / "job.yaml"
    stages = {"read_mocap": {"joint_map": str(tmp_path / "nowhere.yaml")}}
    job.write_text(json.dumps(settings(mocap_takes, tmp_path / "data", engine={"kind": "ray"}, stages=stages)))
    command = [sys.executable, "-m", "pipeline.commands.main", "ingest", str(job)]
    for _ in range(3):
        done = subprocess.run(command, cwd=PROJECT_ROOT, capture_output=True, text=True, timeout=TIMEOUT_S, check=False)
        if "nowhere.yaml" in done.stderr:
            break
    assert done.returncode == 2
    (line,) = done.stderr.strip().splitlines()
    assert line.startswith("humo: ")
    assert "nowhere.yaml" in line
