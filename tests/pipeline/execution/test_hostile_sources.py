"""Hostile addresses and files, read by a real worker process: a server beside the job must not get a single connection."""

import io
import os
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import av
import misbehaving
import numpy as np
import pytest
from file_server import FileServer, file_server
from hostile_files import HOSTILE, external_track, hls
from misbehaving import Limits
from videos import noise_video

from pipeline.chain.work_item import WorkItem
from pipeline.execution.isolated_worker import IsolatedWorker
from pipeline.execution.worker_limits import WorkerLimits
from schemas.containers import open_media
from schemas.network import RequestsConfig
from schemas.records import Rejection, Source, Video
from schemas.staging import Access, SourceFiles
from stages.base import Stage
from stages.read_mocap import ReadMocap
from stages.read_videos import ReadVideos
from stages.split_shots import SplitShots

NAMES = ["read_videos", "act", "split_shots", "read_mocap"]


class Act(Stage[Video, Video]):
    """Between two stages that read a video, do what its title says."""

    def run(self, record: Video) -> Iterator[Video]:
        if not isinstance(record, Video):
            yield record
            return
        path = Path(record.source.description)
        if record.source.title == "append":
            path.write_bytes(path.read_bytes() + b"more")
        if record.source.title == "touch":
            os.utime(path, ns=(0, 12345))
        if record.source.title == "delete":
            path.unlink()
        if record.source.title == "allocate":
            kept = []
            while True:
                kept.append(np.ones(1 << 24))
        if record.source.title == "send":
            socket.create_connection(("127.0.0.1", int(record.source.description)))
        if record.source.title == "lie":
            # What a decoder that was taken over could send: not data, but a call.
            os.write(_socket_of_worker(), b"\0\0\0\x1acposix\nsystem\n(S'false'\ntR.")
            time.sleep(60)
        yield record


def _socket_of_worker() -> int:
    sockets = [int(name) for name in os.listdir("/proc/self/fd") if _is_socket(name)]
    return min(sockets)


def _is_socket(name: str) -> bool:
    try:
        return os.readlink(f"/proc/self/fd/{name}").startswith("socket:")
    except OSError:
        return False


def chain() -> list[Stage]:
    return [ReadVideos(), Act(), SplitShots(), ReadMocap()]


@pytest.fixture(scope="module")
def canary() -> Iterator[FileServer]:
    """A service beside the job, which no manifest may lead to."""
    with file_server() as server:
        yield server


@pytest.fixture(scope="module")
def store() -> Iterator[FileServer]:
    """The store that the job's settings name."""
    with file_server() as server:
        yield server


@pytest.fixture(scope="module")
def worker(store: FileServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[IsolatedWorker]:
    requests = RequestsConfig(staging_folder=str(tmp_path_factory.mktemp("staging")))
    files = SourceFiles(Access(requests=requests, stores=(f"{store.url}/list.csv",)))
    limits = WorkerLimits(memory_bytes=1 << 30, cpu_s=20.0, file_bytes=1 << 30, open_files=1024, network=False)
    with IsolatedWorker(chain, NAMES, Limits(), limits=limits, files=files) as isolated_worker:
        yield isolated_worker
    files.close()
    assert not any((Path(requests.staging_folder)).iterdir())


def read(
    worker: IsolatedWorker, uri: Path | str, *, kind: str = "video", title: str = "", path: Path | str = ""
) -> WorkItem:
    return worker.advance(WorkItem.of(Source(id="one", uri=str(uri), kind=kind, title=title, description=str(path))))


def rejection(result: WorkItem) -> Rejection:
    assert result.records == []
    assert len(result.rejections) == 1
    return result.rejections[0]


def still_works(worker: IsolatedWorker, folder: Path) -> None:
    assert read(worker, noise_video(folder / "good.mp4")).records


@pytest.mark.parametrize("name", HOSTILE)
def test_files_that_refer_to_others(worker: IsolatedWorker, canary: FileServer, name: str, tmp_path: Path) -> None:
    path, before = tmp_path / name, canary.connections
    path.write_bytes(HOSTILE[name](tmp_path / "scratch.mp4", f"{canary.url}/secret.mp4"))
    assert rejection(read(worker, path)).stage == "read_videos"
    assert canary.connections == before == 0


def test_the_files_are_hostile(tmp_path: Path) -> None:
    """FFmpeg without limits reads the other file, and with them does not."""
    other = noise_video(tmp_path / "other.mp4")
    for name, content in (
        ("a.m3u8", hls(str(other))),
        ("a.mov", external_track(tmp_path / "scratch.mp4", str(other))),
    ):
        path = tmp_path / name
        path.write_bytes(content)
        with av.open(str(path), options={"enable_drefs": "1", "use_absolute_path": "1"}) as container:
            assert container.streams.video
            followed = _packets(container)
        try:
            with open_media(str(path)) as container:
                read_now = _packets(container)
        except av.FFmpegError:
            read_now = 0
        assert read_now < 2
        assert followed >= 60 or name == "a.m3u8"


def _packets(container: av.container.InputContainer) -> int:
    try:
        return sum(1 for packet in container.demux() if packet.size)
    except av.FFmpegError:
        return 0


ADDRESSES: dict[str, Callable[[str, int], str]] = {
    "loopback": lambda url, port: f"{url}/v.mp4",
    "a name of the loopback": lambda url, port: f"http://localhost:{port}/v.mp4",
    "decimal": lambda url, port: f"http://2130706433:{port}/v.mp4",
    "hexadecimal": lambda url, port: f"http://0x7f000001:{port}/v.mp4",
    "octal": lambda url, port: f"http://0177.0.0.1:{port}/v.mp4",
    "short": lambda url, port: f"http://127.1:{port}/v.mp4",
    "any": lambda url, port: f"http://0.0.0.0:{port}/v.mp4",
    "IPv6": lambda url, port: f"http://[::1]:{port}/v.mp4",
    "IPv4 in IPv6": lambda url, port: f"http://[::ffff:127.0.0.1]:{port}/v.mp4",
    "NAT64": lambda url, port: f"http://[64:ff9b::7f00:1]:{port}/v.mp4",
    "a user that looks like a host": lambda url, port: f"http://example.org:80@127.0.0.1:{port}/v.mp4",
    "concat": lambda url, port: f"concat:{url}/v.mp4|{url}/w.mp4",
    "subfile": lambda url, port: f"subfile,,start,0,end,0,,:{url}/v.mp4",
    "crypto": lambda url, port: f"crypto:{url}/v.mp4",
    "cache": lambda url, port: f"cache:{url}/v.mp4",
    "chain of file systems": lambda url, port: f"simplecache::{url}/v.mp4",
    "zip in HTTP": lambda url, port: f"zip://v.mp4::{url}/v.zip",
    "ftp": lambda url, port: f"ftp://127.0.0.1:{port}/v.mp4",
    "tcp": lambda url, port: f"tcp://127.0.0.1:{port}",
    "rtmp": lambda url, port: f"rtmp://127.0.0.1:{port}/v",
    "file with a host": lambda url, port: f"file://127.0.0.1:{port}/v.mp4",
}


@pytest.mark.parametrize("name", ADDRESSES)
def test_addresses_in_manifests(worker: IsolatedWorker, canary: FileServer, name: str) -> None:
    canary.files["/v.mp4"] = b"secret"
    found = rejection(read(worker, ADDRESSES[name](canary.url, canary.server_port)))
    assert found.reason in ("address_not_allowed", "unreadable", "missing")
    assert canary.connections == 0


@pytest.mark.parametrize("name", ["concat", "subfile", "crypto"])
def test_ffmpeg_reads_no_address_in_place_of_a_path(canary: FileServer, name: str) -> None:
    with pytest.raises(OSError, match="No such file"), open_media(ADDRESSES[name](canary.url, canary.server_port)):
        pass
    assert canary.connections == 0


@pytest.mark.parametrize(
    "address",
    [
        "169.254.169.254", "[fd00:ec2::254]", "10.0.0.1", "172.16.3.4", "192.168.1.1", "100.64.0.1", "[fe80::1]", "224.0.0.1",
        "[2002:7f00:1::]", "255.255.255.255",
    ],
)  # fmt: skip
def test_private_addresses_are_not_connected_to(
    worker: IsolatedWorker, address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    connected: list[object] = []

    def refuse(_: socket.socket, target: object) -> None:
        connected.append(target)
        raise ConnectionRefusedError("no connection is made here")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket.socket, "connect_ex", refuse)
    found = rejection(read(worker, f"http://{address}/latest/meta-data/"))
    assert found.reason == "address_not_allowed"
    assert connected == []


def test_a_name_that_resolves_to_a_private_address(
    worker: IsolatedWorker, canary: FileServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The address that is checked is the one that is connected to: a second answer of the name server changes nothing."""
    asked: list[str] = []
    resolve = socket.getaddrinfo

    def answer(host: str, port: int, *arguments: object, **options: object) -> object:
        if host != "videos.example":
            return resolve(host, port, *arguments, **options)  # type: ignore[arg-type]
        asked.append(host)
        public = (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("93.184.216.34", port))
        loopback = (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", port))
        return [public, loopback]

    monkeypatch.setattr(socket, "getaddrinfo", answer)
    found = rejection(read(worker, f"http://videos.example:{canary.server_port}/v.mp4"))
    assert (found.reason, asked) == ("address_not_allowed", ["videos.example"])
    assert "127.0.0.1" in found.detail
    assert canary.connections == 0


@pytest.mark.parametrize(
    "target", ["{canary}/v.mp4", "file:///etc/passwd", "ftp://127.0.0.1:{port}/v.mp4", "//localhost:{port}/v.mp4"]
)
def test_redirects_from_an_allowed_host(
    worker: IsolatedWorker, store: FileServer, canary: FileServer, target: str
) -> None:
    store.redirects["/moved.mp4"] = target.format(canary=canary.url, port=canary.server_port)
    assert rejection(read(worker, f"{store.url}/moved.mp4")).reason == "address_not_allowed"
    assert canary.connections == 0


def test_a_store_of_the_settings_is_read(worker: IsolatedWorker, store: FileServer, tmp_path: Path) -> None:
    content = noise_video(tmp_path / "v.mp4").read_bytes()
    store.files |= {"/v.mp4": content, "/deep/v.mp4": content}
    store.redirects["/moved.mp4"] = "/deep/v.mp4"
    store.requests.clear()
    store.bytes_sent = 0
    local, remote = read(worker, tmp_path / "v.mp4"), read(worker, f"{store.url}/v.mp4")
    assert remote.sha256 == local.sha256
    assert [(shot.start_s, shot.end_s) for shot in remote.records] == [
        (shot.start_s, shot.end_s) for shot in local.records
    ]
    assert store.requests == [("GET", "/v.mp4")]
    assert store.bytes_sent <= 1.1 * len(content)
    assert read(worker, f"{store.url}/moved.mp4").sha256 == local.sha256


@pytest.mark.parametrize("title", ["append", "touch", "delete"])
def test_a_file_that_changes_between_two_stages(worker: IsolatedWorker, title: str, tmp_path: Path) -> None:
    path = noise_video(tmp_path / "v.mp4")
    found = rejection(read(worker, path, title=title, path=path))
    assert (found.stage, found.reason) == ("split_shots", "source_changed")
    if title == "append":
        assert found.measured == found.limit + 4
    still_works(worker, tmp_path)


def test_a_stage_that_allocates_without_end_costs_its_source(worker: IsolatedWorker, tmp_path: Path) -> None:
    path = noise_video(tmp_path / "v.mp4")
    process_id = worker.process_id
    found = rejection(read(worker, path, title="allocate"))
    assert (found.stage, found.reason) == ("act", "out_of_memory")
    assert "MemoryError" in found.detail
    assert "faults.memory_limit_gib (1)" in found.detail
    still_works(worker, tmp_path)
    assert worker.process_id != process_id


def test_the_worker_has_no_network(worker: IsolatedWorker, canary: FileServer, tmp_path: Path) -> None:
    path = noise_video(tmp_path / "v.mp4")
    found = rejection(read(worker, path, title="send", path=str(canary.server_port)))
    assert (found.stage, found.reason) == ("act", "error")
    assert "PermissionError" in found.detail
    assert canary.connections == 0


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="needs /proc")
def test_what_the_worker_sends_is_not_run(worker: IsolatedWorker, tmp_path: Path) -> None:
    found = rejection(read(worker, noise_video(tmp_path / "v.mp4"), title="lie"))
    assert (found.stage, found.reason) == ("act", "worker_died")
    assert "posix.system" in found.detail
    still_works(worker, tmp_path)


def test_cpu_time_is_limited() -> None:
    limits = WorkerLimits(cpu_s=1.0, network=False)
    with IsolatedWorker(misbehaving.stages, ["split", "act", "last"], Limits(), limits=limits) as worker:
        result = worker.advance(WorkItem.of(Source(id="one", uri="nowhere", title="c_loop")))
    found = [one for one in result.rejections if one.stage == "act"]
    assert [(one.reason, one.limit) for one in found] == [("timed_out", 1.0)] * 2
    assert "SIGXCPU" in found[0].detail


def test_a_zip_bomb(worker: IsolatedWorker, tmp_path: Path) -> None:
    """Two members of four gigabytes each in a file of some hundred bytes, by its directory."""
    path, content = tmp_path / "bomb.npz", io.BytesIO()
    np.savez_compressed(content, poses=np.zeros((2, 72)), trans=np.zeros((2, 3)))
    raw = bytearray(content.getvalue())
    start, size = 0, 0xFFFFFFFE
    while (start := raw.find(b"PK\x01\x02", start)) >= 0:
        raw[start + 24 : start + 28] = size.to_bytes(4, "little")
        start += 4
    path.write_bytes(raw)
    found = rejection(read(worker, path, kind="mocap"))
    assert (found.stage, found.reason) == ("read_mocap", "archive_too_large"), found.detail
    assert found.detail == f"{path}: bytes after unpacking"
    assert found.measured == 2 * size > found.limit


def test_devices_and_folders(worker: IsolatedWorker, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.mp4")
    assert rejection(read(worker, tmp_path / "pipe.mp4")).reason == "not_a_file"
    assert rejection(read(worker, "/dev/zero")).reason == "not_a_file"
    assert rejection(read(worker, tmp_path)).reason == "unreadable"
