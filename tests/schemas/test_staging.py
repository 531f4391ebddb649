"""Copies of remote sources: fetched once per node, within limits, and deleted."""

import hashlib
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from file_server import FileServer, file_server

from schemas.errors import SourceError
from schemas.fetching import Limits
from schemas.network import RequestsConfig
from schemas.staging import Access, Look, SourceFiles, read_source, source_file, use_source_files

CONTENT = os.urandom(3_000_000)


@pytest.fixture
def server() -> Iterator[FileServer]:
    with file_server() as started:
        started.files["/v.mp4"] = CONTENT
        yield started


def access(server: FileServer, folder: Path, job: str = "job", **settings: object) -> Access:
    requests = RequestsConfig.model_validate({"staging_folder": str(folder), **settings})
    return Access(requests=requests, stores=(server.url,), job=job)


def copies(folder: Path) -> list[str]:
    return [path.name for path in folder.rglob("*") if path.is_file() and not path.name.startswith(".")]


def test_processes_of_a_node_share_one_copy(server: FileServer, tmp_path: Path) -> None:
    several = [SourceFiles(access(server, tmp_path)) for _ in range(6)]
    found = []
    threads = [
        threading.Thread(target=lambda one=one: found.append(one.copy(f"{server.url}/v.mp4"))) for one in several
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({one.path for one in found}) == 1
    assert found[0].sha256 == hashlib.sha256(CONTENT).hexdigest()
    assert Path(found[0].path).read_bytes() == CONTENT
    assert server.requests == [("GET", "/v.mp4")]
    assert server.bytes_sent == len(CONTENT)
    several[0].forget(f"{server.url}/v.mp4")
    assert len(copies(tmp_path)) == 1  # five others use it
    for one in several[1:]:
        one.release()
    several[0].forget(f"{server.url}/v.mp4")
    assert copies(tmp_path) == []
    for one in several:
        one.close()
    assert list(tmp_path.iterdir()) == []


def test_another_node_checks_the_hash(server: FileServer, tmp_path: Path) -> None:
    uri, looks = f"{server.url}/v.mp4", dict[str, Look]()
    first, second = (SourceFiles(access(server, tmp_path / node)) for node in "ab")
    first.begin(looks)
    first.copy(uri)
    second.begin(looks)
    assert second.copy(uri).sha256 == looks[uri].sha256
    second.forget(uri)
    server.files["/v.mp4"] = CONTENT[:-1] + bytes([CONTENT[-1] ^ 1])
    second.begin(looks)
    with pytest.raises(SourceError, match="content changed") as caught:
        second.copy(uri)
    assert caught.value.reason == "source_changed"


@pytest.mark.parametrize(
    ("settings", "reason", "limit"),
    [
        ({"max_bytes": 1_000_000}, "source_too_large", 1e6),
        ({"staging_bytes": 1_000_000}, "source_too_large", 1e6),
        ({"max_s": 1e-9}, "fetch_timed_out", 1e-9),
    ],
)
def test_limits(server: FileServer, tmp_path: Path, settings: dict[str, float], reason: str, limit: float) -> None:
    files = SourceFiles(access(server, tmp_path, **settings))
    with pytest.raises(SourceError) as caught:
        files.copy(f"{server.url}/v.mp4")
    assert (caught.value.reason, caught.value.limit) == (reason, limit)
    assert caught.value.measured > limit
    assert copies(tmp_path) == []
    assert not [path for path in tmp_path.rglob("*.partial")]
    files.close()


def test_an_answer_that_ends_early_is_transient(server: FileServer, tmp_path: Path) -> None:
    files = SourceFiles(access(server, tmp_path))
    server.broken_after = 1000
    with pytest.raises(ConnectionError):
        files.copy(f"{server.url}/v.mp4")
    assert copies(tmp_path) == []
    server.broken_after = -1
    assert files.copy(f"{server.url}/v.mp4").size == len(CONTENT)
    with pytest.raises(FileNotFoundError):
        files.copy(f"{server.url}/missing.mp4")
    server.signature = "asked for"
    with pytest.raises(OSError, match="HTTP status 403") as caught:
        files.copy(f"{server.url}/v.mp4?X-Amz-Signature=CANARY")
    assert not isinstance(caught.value, FileNotFoundError | ConnectionError)
    assert "CANARY" not in str(caught.value)


def test_a_folder_of_a_web_server(server: FileServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    links = [
        "one.amc",
        "one.asf?x=a/b",
        "/takes/two.asf#top",
        f"{server.url}/takes/th%20ree.asf",
        "../v.mp4",
        "deep/four.asf",
    ]
    links += ["http://10.0.0.1/takes/five.asf", "mailto:me", "http://[broken"]
    server.files["/takes/"] = "".join(f'<a class=x href="{one}">{one}</a><br>' for one in links).encode()
    files = SourceFiles(access(server, tmp_path))
    names = ["one.amc", "one.asf", "th%20ree.asf", "two.asf"]
    assert files.siblings(f"{server.url}/takes/one.amc") == [f"{server.url}/takes/{name}" for name in names]
    monkeypatch.setattr("schemas.fetching._LISTING", Limits(max_bytes=100, max_s=9.0))
    with pytest.raises(SourceError, match="takes/: bytes") as caught:
        files.siblings(f"{server.url}/takes/one.amc")
    assert (caught.value.reason, caught.value.limit) == ("source_too_large", 100)


def test_room_is_made_by_deleting_the_least_recent(server: FileServer, tmp_path: Path) -> None:
    for name in "abc":
        server.files[f"/{name}.mp4"] = CONTENT
    files = SourceFiles(access(server, tmp_path, staging_bytes=2 * len(CONTENT) + 1000, max_s=0.3))
    for name in "abc":
        files.begin({})
        files.copy(f"{server.url}/{name}.mp4")
    assert len(copies(tmp_path)) == 2
    files.begin({})
    files.copy(f"{server.url}/b.mp4")
    assert [path for _, path in server.requests] == ["/a.mp4", "/b.mp4", "/c.mp4"]
    other = SourceFiles(access(server, tmp_path, staging_bytes=len(CONTENT), max_s=0.3))
    with pytest.raises(TimeoutError, match=r"requests\.staging_bytes"):
        other.copy(f"{server.url}/a.mp4")  # b is in use
    files.release()
    other.copy(f"{server.url}/a.mp4")


def test_copies_of_a_killed_job_are_deleted(server: FileServer, tmp_path: Path) -> None:
    program = f"""
import os, signal
from schemas.network import RequestsConfig
from schemas.staging import Access, SourceFiles
access = Access(requests=RequestsConfig(staging_folder={str(tmp_path)!r}), stores=({server.url!r},), job="killed")
print(SourceFiles(access).copy("{server.url}/v.mp4").path, flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert Path(done.stdout.strip()).stat().st_size == len(CONTENT)
    running = SourceFiles(access(server, tmp_path, job="running"))
    path = running.copy(f"{server.url}/v.mp4").path
    SourceFiles(access(server, tmp_path, job="next")).clean()
    assert [Path(path)] == [one for one in tmp_path.rglob("*.mp4")]
    running.close()
    assert list(tmp_path.iterdir()) == []


def test_local_files(tmp_path: Path) -> None:
    path = tmp_path / "v.mp4"
    path.write_bytes(b"0123")
    with source_file(str(path)) as found:
        assert Path(found) == path
    with pytest.raises(SourceError, match="time of modification"), source_file(str(path)):
        os.utime(path, ns=(0, 1))
    # A file that was replaced looks damaged to its reader.
    with pytest.raises(SourceError, match="bytes, while it was processed") as caught, source_file(str(path)):
        _find_damage(path)
    assert (caught.value.reason, caught.value.measured, caught.value.limit) == ("source_changed", 2, 4)
    assert read_source(str(path), 2) == b"01"
    with pytest.raises(SourceError, match="read as a whole"):
        read_source(str(path), 1)
    with (
        use_source_files(SourceFiles(Access(requests=RequestsConfig(max_bytes=1)))),
        pytest.raises(SourceError) as caught,
    ):
        read_source(str(path), 9)
    assert (caught.value.reason, caught.value.measured, caught.value.limit) == ("source_too_large", 2, 1)


def _find_damage(path: Path) -> None:
    path.write_bytes(b"01")
    raise ValueError("damaged")
