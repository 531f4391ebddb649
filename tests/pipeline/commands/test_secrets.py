"""Canaries in every part of a source's address and in columns of its manifest: no command writes or prints any of them."""

import io
import json
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from file_server import FileServer, serving
from mocap_files import body_motion, write_known_bvh
from videos import noise_video

from pipeline.chain.config import IngestConfig
from pipeline.commands import main as cli
from pipeline.job.ingest import ingest
from schemas.config import parse_config
from schemas.ledger import read_ledger
from schemas.storage import Storage
from stages import failures

USER, PASSWORD, SIGNATURE, FRAGMENT = "CANARYUSER", "CANARY/WORD", "CANARYSIG+x=", "CANARYFRAGMENT"
CANARIES = (b"CANARY", b"Q0FOQVJZ")
"""What every secret begins with, as it is and in base64."""
COLUMNS = {
    "authorization": "Bearer CANARY1", "cookie": "sid=CANARY2", "token": "CANARY3", "api_key": "CANARY4", "password": "CANARY5",
    "X-Amz-Security-Token": "CANARY6",
}  # fmt: skip


LOOPBACK = {"private_networks": ["127.0.0.1/32"]}
"""The manifests name a server on this machine."""


def leaks(content: bytes, name: str = "") -> Iterator[str]:
    """Where a canary stands in a file: in its bytes, and in what it holds in compressed form."""
    if any(canary in name.encode() + content for canary in CANARIES):
        yield name
    if name.endswith(".parquet"):
        yield from leaks(repr(pq.read_table(io.BytesIO(content)).to_pydict()).encode(), f"{name}, decoded")
    elif name.endswith(".npz"):
        with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
            yield from leaks(b"".join(arrays[one].tobytes() for one in arrays.files), f"{name}, arrays")
    elif name.endswith(".tar"):
        with tarfile.open(fileobj=io.BytesIO(content)) as tar:
            for entry in tar:
                file = tar.extractfile(entry)
                assert file is not None
                yield from leaks(file.read(), f"{name}/{entry.name}")


def leaks_below(folder: Path) -> list[str]:
    return [
        leak for path in sorted(folder.rglob("*")) if path.is_file() for leak in leaks(path.read_bytes(), str(path))
    ]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FileServer]:
    """Serves three takes of motion capture, a video without people and a file that is none."""
    folder = tmp_path_factory.mktemp("served")
    for number, action in enumerate(("walk", "wave_left", "walk")):
        write_known_bvh(folder / f"take{number}.bvh", body_motion(action, seconds=3.0, seed=number), "cmu_bvh")
    noise_video(folder / "noise.mp4")
    (folder / "broken.bvh").write_text("HIERARCHY\nROOT")
    (folder / "broken.mp4").write_bytes(b"no video")
    with serving(folder, user=USER, password=PASSWORD, signature=SIGNATURE) as running:
        yield running


def address(server: FileServer, name: str, signature: str = SIGNATURE) -> str:
    quoted = signature.replace("+", "%2B").replace("=", "%3D")
    where = f"127.0.0.1:{server.server_address[1]}/{name}"
    return f"http://{USER}:{PASSWORD.replace('/', '%2F')}@{where}?X-Amz-Signature={quoted}&other=CANARYOTHER#{FRAGMENT}"


def write_manifest(path: Path, addresses: dict[str, str]) -> Path:
    """Id ("" for none) -> address; with columns of headers and an address in the description."""
    rows = [
        {
            "uri": uri,
            "title": "a take",
            "description": f"from {uri}",
            **COLUMNS,
            **({"id": name} if not name.isdigit() else {}),
        }
        for name, uri in addresses.items()
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def command(*words: str, capfd: pytest.CaptureFixture[str], status: int = 0) -> str:
    """Run a command as the shell does, without its own process; returns what it printed, which holds no canary."""
    capfd.readouterr()
    code: Any = 0
    arguments, sys.argv = sys.argv, ["humo", *words]
    try:
        cli.main()
    except SystemExit as exit_:
        code = exit_.code
    except Exception:
        sys.excepthook(*sys.exc_info())  # as the interpreter does
        code = 1
    finally:
        sys.argv = arguments
    printed = "".join(capfd.readouterr())
    assert not list(leaks(printed.encode())), printed
    assert code == status, printed
    return printed


@pytest.fixture(scope="module")
def files(server: FileServer, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Manifests and a config that names them."""
    folder = tmp_path_factory.mktemp("job")
    takes = {"0": "take0.bvh", "1": "take1.bvh", "given": "take2.bvh", "gone": "gone.bvh", "broken": "broken.bvh"}
    mocap = {name: address(server, file) for name, file in takes.items()}
    mocap["forbidden"] = address(server, "take0.bvh", "CANARYWRONG")
    videos = {name: address(server, f"{name}.mp4") for name in ("noise", "broken-video")}
    manifests = {
        "mocap": write_manifest(folder / "mocap.jsonl", mocap), "video": write_manifest(folder / "video.jsonl", videos)
    }  # fmt: skip
    job = {
        "sources": [{"kind": kind, "path": str(path)} for kind, path in manifests.items()],
        "output": str(folder / "data"),
        "splits": {"train": 1.0},
        "engine": {"isolate": False},
        "requests": LOOPBACK,
    }
    (folder / "job.yaml").write_text(json.dumps(job))  # JSON is YAML
    return manifests | {"config": folder / "job.yaml", "data": folder / "data", "folder": folder}


@pytest.fixture(autouse=True)
def quick_retries(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(failures, "INITIAL_BACKOFF_S", 0.01)


def test_no_command_writes_or_prints_a_secret(
    files: dict[str, Path], server: FileServer, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    config, data = str(files["config"]), str(files["data"])
    command("plan", config, "--json", capfd=capfd)
    command("ingest", config, capfd=capfd)
    rows = read_ledger(Storage(data)).to_pylist()
    outcomes = {row["source_id"]: (row["outcome"], row["reason"]) for row in rows}
    assert outcomes["given"] == ("accepted", "")
    for name in ("gone", "forbidden", "broken", "noise", "broken-video"):
        assert outcomes[name][0] in ("rejected", "quarantined")
    assert sum(outcome == "accepted" for outcome, _ in outcomes.values()) == 3
    assert {row["uri"] for row in rows if row["source_id"] == "given"} == {
        f"http://127.0.0.1:{server.server_address[1]}/take2.bvh"
    }
    command("ingest", config, "--json", capfd=capfd)
    command("verify", data, capfd=capfd)
    command("waterfall", data, capfd=capfd)
    command("query", data, "SELECT * FROM ledger", "--json", capfd=capfd)
    command("query", data, "SELECT * FROM samples", "--json", capfd=capfd)
    command("stats", data, capfd=capfd)
    command("report", data, capfd=capfd)
    key = next(row["record_id"] for row in rows if row["outcome"] == "accepted")
    command("view", data, key, capfd=capfd)
    command("versions", data, "--json", capfd=capfd)
    command("dedupe", data, capfd=capfd)
    command("join", data, str(tmp_path / "long"), capfd=capfd)
    command("publish", data, str(tmp_path / "copy"), capfd=capfd)
    command("retry", data, "--json", capfd=capfd)
    command("retry", data, "--reason", outcomes["forbidden"][1], "--json", capfd=capfd)
    command("remove", data, "--source", "given", capfd=capfd)
    command("pack", data, "--redact", "--json", capfd=capfd)
    command("verify", data, capfd=capfd)
    assert leaks_below(files["data"]) == leaks_below(tmp_path) == []


def test_a_retry_takes_new_signatures_from_the_manifest(
    server: FileServer, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    manifest = write_manifest(tmp_path / "m.jsonl", {"0": address(server, "take0.bvh", "CANARYOLD")})
    job = {
        "sources": [{"kind": "mocap", "path": str(manifest)}],
        "output": str(tmp_path / "data"),
        "splits": {"train": 1.0},
        "requests": LOOPBACK,
    }
    config = tmp_path / "job.yaml"
    config.write_text(json.dumps(job | {"engine": {"isolate": False}}))
    command("ingest", str(config), capfd=capfd)
    (before,) = read_ledger(Storage(tmp_path / "data")).to_pylist()
    assert before["outcome"] != "accepted"
    write_manifest(manifest, {"0": address(server, "take0.bvh")})
    command("retry", str(tmp_path / "data"), "--reason", before["reason"], capfd=capfd)
    (after,) = read_ledger(Storage(tmp_path / "data")).to_pylist()
    assert (after["source_id"], after["outcome"]) == (before["source_id"], "accepted")
    assert "1 done before" in command("ingest", str(config), capfd=capfd)
    assert leaks_below(tmp_path / "data") == []


def test_credentials_in_settings_are_asked_for_again(
    server: FileServer, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    data, wrong = str(tmp_path / "data"), address(server, "take0.bvh", "CANARYOLD")
    job = {
        "sources": [{"kind": "mocap", "path": wrong}],
        "output": data,
        "splits": {"train": 1.0},
        "engine": {"isolate": False},
    }
    config = tmp_path / "job.yaml"
    config.write_text(json.dumps(job))
    command("ingest", str(config), capfd=capfd)
    reason = read_ledger(Storage(data)).column("reason").to_pylist()[0]
    text = command("retry", data, "--reason", reason, capfd=capfd, status=2)
    assert "sources.0.path had credentials, which are not recorded; give them again with" in text
    command("retry", data, "--reason", reason, "--set", f"sources.0.path={address(server, 'take0.bvh')}", capfd=capfd)
    assert read_ledger(Storage(data)).column("outcome").to_pylist() == ["accepted"]
    command(
        "ingest", str(config), "--set", "output=nowhere://CANARYUSER:CANARY@host/?token=CANARY", capfd=capfd, status=1
    )
    command("ingest", str(config), "--set", "api_key=CANARY", capfd=capfd, status=2)
    for words in (("verify",), ("report",), ("query", "SELECT 1"), ("publish", data)):
        name, *more = words
        command(name, f"memory://{USER}:CANARY@none/data", *more, capfd=capfd, status=1)
    assert leaks_below(tmp_path / "data") == []


@pytest.mark.parametrize("engine", [{"kind": "inline"}, {"kind": "ray", "cpus": 2}], ids=["inline", "ray"])
def test_engines_keep_secrets(engine: dict[str, Any], files: dict[str, Path], tmp_path: Path, capfd: Any) -> None:
    """In worker processes, and as Ray's actors."""
    settings = {
        "sources": [{"kind": "mocap", "path": str(files["mocap"])}],
        "output": str(tmp_path / "data"),
        "splits": {"train": 1.0},
        "engine": engine,
        "requests": LOOPBACK,
    }
    report = ingest(parse_config(settings, IngestConfig, "job.yaml"))
    assert report.samples == 3
    assert leaks_below(tmp_path) == []
    assert not list(leaks("".join(capfd.readouterr()).encode()))
