"""A manifest that somebody else wrote: a server beside the job gets no request, and the good sources in it are done."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from file_server import FileServer, file_server
from hostile_files import HOSTILE
from mocap_files import body_motion, write_known_bvh
from videos import noise_video

from pipeline.chain.config import IngestConfig
from pipeline.job.ingest import ingest
from pipeline.planning.plan import make_plan
from schemas.config import parse_config
from schemas.ledger import read_ledger
from schemas.storage import Storage


@pytest.fixture
def canary() -> Iterator[FileServer]:
    with file_server() as server:
        yield server


@pytest.fixture
def store() -> Iterator[FileServer]:
    """The host of the manifest, which the settings name."""
    with file_server() as server:
        yield server


def job(store: FileServer, kind: str, rows: dict[str, str], output: Path) -> IngestConfig:
    """A job on a manifest with these ids and addresses."""
    content = "".join(json.dumps({"id": name, "uri": uri}) + "\n" for name, uri in rows.items())
    store.files[f"/{kind}.jsonl"] = content.encode()
    requests = {"staging_folder": str(output / "staging")}
    sources = [{"kind": kind, "path": f"{store.url}/{kind}.jsonl"}]
    settings = {"sources": sources, "output": str(output / "data"), "splits": {"train": 1.0}, "requests": requests}
    return parse_config(settings, IngestConfig, "job.yaml")


def test_a_job_requests_no_address_of_a_hostile_manifest(store: FileServer, canary: FileServer, tmp_path: Path) -> None:
    port = canary.server_port
    write_known_bvh(tmp_path / "take.bvh", body_motion("walk", 3.0), "cmu_bvh")
    store.files["/good.bvh"] = canary.files["/a.bvh"] = (tmp_path / "take.bvh").read_bytes()
    store.redirects |= {"/moved.bvh": f"{canary.url}/a.bvh", "/to-file.bvh": f"file://{tmp_path}/take.bvh"}
    buffers = [{"uri": f"{canary.url}/a.bin", "byteLength": 4}]
    store.files["/take.gltf"] = json.dumps({"asset": {"version": "2.0"}, "buffers": buffers}).encode()
    refused = {
        "loopback": f"{canary.url}/a.bvh",
        "name": f"http://localhost:{port}/a.bvh",
        "any": f"http://0.0.0.0:{port}/a.bvh",
        "ipv6": f"http://[::ffff:127.0.0.1]:{port}/a.bvh",
        "user": f"http://example.org@127.0.0.1:{port}/a.bvh",
        "redirect": f"{store.url}/moved.bvh",
        "redirect-to-a-file": f"{store.url}/to-file.bvh",
        "chain": f"simplecache::{canary.url}/a.bvh",
        "ftp": f"ftp://127.0.0.1:{port}/a.bvh",
    }
    rows = refused | {"gltf": f"{store.url}/take.gltf", "good": f"{store.url}/good.bvh"}
    config = job(store, "mocap", rows, tmp_path)
    report = ingest(config)
    assert canary.connections == 0
    assert report.samples == 1
    decided = read_ledger(Storage(config.output)).select(["source_id", "outcome", "reason"]).to_pylist()
    found = {row["source_id"]: (row["outcome"], row["reason"]) for row in decided}
    assert {name: found.pop(name) for name in refused} == dict.fromkeys(refused, ("rejected", "address_not_allowed"))
    assert found.pop("gltf")[0] == "rejected"
    assert found == {"good": ("accepted", "")}
    assert store.requests.count(("GET", "/good.bvh")) == 1
    assert not list((tmp_path / "staging").iterdir())


def test_a_plan_requests_no_address_of_a_hostile_manifest(
    store: FileServer, canary: FileServer, tmp_path: Path
) -> None:
    for name, make in HOSTILE.items():
        store.files[f"/{name}"] = make(tmp_path / "scratch.mp4", f"{canary.url}/secret.mp4")
    store.files["/good.mp4"] = noise_video(tmp_path / "good.mp4").read_bytes()
    store.redirects["/moved.mp4"] = f"{canary.url}/secret.mp4"
    rows = {name.replace(".", "-"): f"{store.url}/{name}" for name in [*HOSTILE, "good.mp4"]}
    rows |= {
        "loopback": f"{canary.url}/v.mp4",
        "moved": f"{store.url}/moved.mp4",
        "chain": f"simplecache::{canary.url}/v.mp4",
        "concat": f"concat:{canary.url}/v.mp4",
    }
    plan = make_plan(job(store, "video", rows, tmp_path))
    assert canary.connections == 0
    unreadable = plan["sources"]["probed_and_unreadable"]
    assert plan["sources"]["probed"] == len(rows)
    assert unreadable["address_not_allowed"] == 3
    assert unreadable["missing"] == 1, "a name beside the manifest"
    assert sum(unreadable.values()) >= len(rows) - 2, "all but the good one and the pictures inside external.mov"
