"""The limits of a worker process, in processes of their own: they cannot be taken back."""

import subprocess
import sys
from pathlib import Path

import pytest
from file_server import file_server

from pipeline import PROJECT_ROOT

PROGRAM = """
import errno, os, socket, subprocess, sys, tempfile
from pipeline.execution import worker_limits
from pipeline.execution.worker_limits import WorkerLimits

port, hold = int(sys.argv[1]), sys.argv[2]
if hold == "audit hook":
    worker_limits._install_filter = lambda: False
if hold != "nothing":
    print(WorkerLimits(memory_bytes=64 << 20, file_bytes=1 << 20, open_files=64, network=False).apply())

def outcome(call, *arguments):
    try:
        call(*arguments)
        return "done"
    except OSError as error:
        return errno.errorcode[error.errno]
    except MemoryError:
        return "MemoryError"

def write():
    with tempfile.TemporaryFile() as file:
        file.write(bytes(2 << 20))

def open_many():
    files = [open(os.devnull) for _ in range(100)]

child = "import socket; socket.create_connection(('127.0.0.1', %d))" % port
print("connect", outcome(socket.create_connection, ("127.0.0.1", port)))
print("send", outcome(lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b"x", ("127.0.0.1", port))))
one, other = socket.socketpair()
print("beside", outcome(one.send, b"x"))
print("child", subprocess.run([sys.executable, "-c", child], stderr=subprocess.DEVNULL).returncode)
print("memory", outcome(bytearray, 128 << 20))
print("write", outcome(write))
print("open", outcome(open_many))
"""


def outcomes(hold: str) -> dict[str, str]:
    with file_server() as server:
        command = [sys.executable, "-c", PROGRAM, str(server.server_port), hold]
        done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=PROJECT_ROOT)
        # Its own look at the port, and that of its child.
        assert server.connections == {"nothing": 2, "audit hook": 1, "seccomp filter": 0}[hold]
    lines = done.stdout.splitlines()
    if hold != "nothing":
        assert lines.pop(0) == f"no network: {hold}"
    return dict(line.split() for line in lines)


def test_without_limits_all_is_possible() -> None:
    found = outcomes("nothing")
    assert found.pop("child") == "0"
    assert set(found.values()) == {"done"}


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere no limit counts memory like this")
@pytest.mark.parametrize("hold", ["seccomp filter", "audit hook"])
def test_limits_hold(hold: str) -> None:
    """A filter holds for children too; the hook only for Python code of the process itself."""
    if hold == "seccomp filter" and not Path("/proc/sys/kernel/seccomp").exists():
        pytest.skip("the kernel has no seccomp filters")
    assert outcomes(hold) == {
        "connect": "EACCES", "send": "EACCES", "beside": "done", "child": "1" if hold == "seccomp filter" else "0",
        "memory": "MemoryError", "write": "EFBIG", "open": "EMFILE",
    }  # fmt: skip
