"""Limits of a worker process: memory, CPU time, sizes and numbers of files, and no network.

Memory is limited by RLIMIT_DATA, which counts what a process can write to; RLIMIT_AS would count the address space that CUDA
and the allocators reserve, too. Network access is refused by a seccomp filter where the kernel has one (Linux on x86-64 and
ARM64, also inside containers), whatever code runs in the process; elsewhere by an audit hook, which stops Python code only.
"""

import ctypes
import errno
import os
import platform
import resource
import socket
import struct
import sys
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_PR_SET_NO_NEW_PRIVS = 38
_SET_MODE_FILTER, _TSYNC = 1, 1
_SYSCALLS = {
    # audit architecture, and the numbers of seccomp, socket and the first that is none of this architecture
    "x86_64": (0xC000003E, 317, 41, 0x40000000),
    "aarch64": (0xC00000B7, 277, 198, 0xFFFFFFFF),
}
_IO_URING_SETUP = 425
"""A ring could open sockets without a call that the filter sees; the number is the same on both architectures."""
_LOAD, _JUMP_EQUAL, _JUMP_AT_LEAST, _RETURN = 0x20, 0x15, 0x35, 0x06
_ALLOW, _REFUSE = 0x7FFF0000, 0x00050000 | errno.EACCES
_AT_NUMBER, _AT_ARCHITECTURE, _AT_FIRST_ARGUMENT = 0, 4, 16
_NETWORK_EVENTS = frozenset(
    {"socket.connect", "socket.bind", "socket.sendto", "socket.sendmsg", "socket.getaddrinfo", "socket.gethostbyname"}
)


@dataclass(frozen=True, kw_only=True)
class WorkerLimits:
    """The limits of a worker process; 0: none."""

    memory_bytes: int = 0
    """Memory beyond what the process has once its stages are set up."""
    cpu_s: float = 0.0
    """CPU time of one source in one stage, summed over threads."""
    file_bytes: int = 0
    """Largest file that is written."""
    open_files: int = 0
    """Open files at a time."""
    network: bool = True
    """Whether the process may use the network."""

    def apply(self) -> str:
        """Apply the limits to this process, for good; returns what holds the network back."""
        if self.memory_bytes:
            _lower(resource.RLIMIT_DATA, _writable_bytes() + self.memory_bytes)
        if self.file_bytes:
            _lower(resource.RLIMIT_FSIZE, self.file_bytes)
        if self.open_files:
            _lower(resource.RLIMIT_NOFILE, self.open_files)
        return "network allowed" if self.network else _refuse_network()

    def begin_stage(self) -> None:
        """Start counting CPU time; the kernel ends the process with SIGXCPU at the limit."""
        if self.cpu_s:
            used = resource.getrusage(resource.RUSAGE_SELF)
            hard = resource.getrlimit(resource.RLIMIT_CPU)[1]
            limit = int(used.ru_utime + used.ru_stime + self.cpu_s) + 1
            resource.setrlimit(resource.RLIMIT_CPU, (limit if hard < 0 else min(limit, hard), hard))


def _lower(limit: int, value: int) -> None:
    """Lower a limit and its ceiling, so that nothing in this process can raise it again."""
    ceiling = resource.getrlimit(limit)[1]
    value = value if ceiling < 0 else min(value, ceiling)
    with suppress(ValueError, OSError):  # some systems do not know the limit, or count differently
        resource.setrlimit(limit, (value, value))


def _writable_bytes() -> int:
    with suppress(OSError):
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmData:"):
                return 1024 * int(line.split()[1])
    return 0


def _refuse_network() -> str:
    if sys.platform == "linux" and _install_filter():
        return "no network: seccomp filter"
    sys.addaudithook(_refuse_event)
    return "no network: audit hook"


def _install_filter() -> bool:
    """Refuse sockets other than local ones in all threads of this process and its children; False where that is not possible."""
    if platform.machine() not in _SYSCALLS:
        return False
    architecture, seccomp, socket_call, foreign = _SYSCALLS[platform.machine()]
    refuse, allow = 9, 8
    program = [
        (_LOAD, 0, 0, _AT_ARCHITECTURE),
        (_JUMP_EQUAL, 0, refuse - 2, architecture),
        (_LOAD, 0, 0, _AT_NUMBER),
        (_JUMP_AT_LEAST, refuse - 4, 0, foreign),
        (_JUMP_EQUAL, refuse - 5, 0, _IO_URING_SETUP),
        (_JUMP_EQUAL, 0, allow - 6, socket_call),
        (_LOAD, 0, 0, _AT_FIRST_ARGUMENT),
        (_JUMP_EQUAL, 0, 1, socket.AF_UNIX),
        (_RETURN, 0, 0, _ALLOW),
        (_RETURN, 0, 0, _REFUSE),
    ]
    code = ctypes.create_string_buffer(b"".join(struct.pack("=HBBI", *one) for one in program))
    header = struct.pack("@HxxxxxxP", len(program), ctypes.addressof(code))
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0:
        return False
    return libc.syscall(seccomp, _SET_MODE_FILTER, _TSYNC, ctypes.create_string_buffer(header)) == 0


def _refuse_event(event: str, arguments: tuple[Any, ...]) -> None:
    if event in _NETWORK_EVENTS and getattr(arguments[0], "family", None) != socket.AF_UNIX:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), "network of a worker process")
