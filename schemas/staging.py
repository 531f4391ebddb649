"""Source files as stages read them: local ones in place, remote ones from a copy on this node that is fetched once.

Copies of one job lie in a folder of its own, `ROOT/JOB/ADDRESS-SHA256.SUFFIX`, shared by the job's processes on a node: a
lock per address makes one of them fetch it while others wait. Processes hold a lock on their job's folder, so that the copies
of a job that was killed can be recognised and deleted.
"""

import atexit
import errno
import fcntl
import os
import re
import secrets
import shutil
import stat
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO

from schemas.addresses import path_part, public_form
from schemas.errors import HumoError, SourceError
from schemas.ids import digest
from schemas.network import AddressPolicy, RequestsConfig, folder_of, local_path
from schemas.storage import stream_sha256

_IN_USE = ".in-use"
_WAIT_S = 0.5


@dataclass(frozen=True, kw_only=True)
class Look:
    """What a source's file was when it was first read; later reads must find the same."""

    size: int
    mtime_ns: int
    """0 for a copy of a remote file."""
    sha256: str
    """Empty for a local file."""


@dataclass(frozen=True, kw_only=True)
class Copy:
    """The copy of a remote file on this node."""

    path: str
    size: int
    sha256: str


@dataclass(frozen=True, kw_only=True)
class Access:
    """What a job may read, and where its copies lie; the same in all its processes."""

    requests: RequestsConfig = field(default_factory=RequestsConfig)
    stores: tuple[str, ...] = field(default=(), repr=False)
    """Paths and addresses in the user's settings; see `AddressPolicy`."""
    job: str = field(default_factory=lambda: f"{os.getpid()}-{secrets.token_hex(6)}")
    """Name of the folder of its copies."""

    @property
    def root(self) -> Path:
        """Folder of all jobs of this user on this node."""
        configured = self.requests.staging_folder
        return Path(configured or Path(tempfile.gettempdir()) / f"humo-staging-{os.geteuid()}").expanduser().absolute()


class SourceFiles:
    """The files of the sources that this process works on.

    `ask` replaces fetching in a process that has no network: it is called with `copy` or `siblings` and an address and
    returns what that method returns.
    """

    def __init__(self, access: Access | None = None, ask: Callable[[str, str], Any] | None = None) -> None:
        self.access = access or Access()
        self.policy = AddressPolicy(self.access.requests, self.access.stores)
        self._ask = ask
        self._looks: dict[str, Look] | None = None
        self._copies: dict[str, Copy] = {}
        self._in_use: dict[str, int] = {}
        self._folder: Path | None = None
        self._lock = -1

    def begin(self, looks: dict[str, Look]) -> None:
        """Begin with another source. `looks` are those of other processes; new ones are added to it."""
        self.release()
        self._looks, self._copies = looks, {}

    def end(self) -> None:
        """End with the source: its file may change again, and its copy be deleted."""
        self.release()
        self._looks, self._copies = None, {}

    def release(self) -> None:
        """Allow the deletion of copies that this process has used."""
        for handle in self._in_use.values():
            os.close(handle)
        self._in_use = {}

    def find(self, uri: str) -> tuple[str, Look]:
        """Path of the file, or of its copy, and what it is now. Raises SourceError, FileNotFoundError, OSError; transient errors
        as `download`."""
        local = local_path(uri)
        if local is None:
            copy = self.copy(uri)
            return copy.path, Look(size=copy.size, mtime_ns=0, sha256=copy.sha256)
        self.policy.check(uri)
        known = (self._looks or {}).get(uri)
        if known is not None:
            self.check(uri, known)
        look = _look(local)
        if look.size > self.access.requests.max_bytes:
            raise SourceError(
                "source_too_large", f"{public_form(uri)}: bytes", look.size, self.access.requests.max_bytes
            )
        self._compare(uri, look)
        return local, look

    def check(self, uri: str, look: Look) -> None:
        """Raise SourceError if a local file is no longer what it was at this look."""
        local = local_path(uri)
        if local is not None:
            try:
                _check_same(uri, look, _look(local))
            except FileNotFoundError:
                raise SourceError(
                    "source_changed", f"{public_form(uri)}: it was deleted while it was processed"
                ) from None

    def sha256(self, uri: str) -> str:
        """Hash of the content. Raises as `find`."""
        path, look = self.find(uri)
        if look.sha256:
            return look.sha256
        with open(path, "rb") as file:
            return stream_sha256(file)

    def copy(self, uri: str) -> Copy:
        """The copy of a remote file, fetched if this node has none. Raises as `find`."""
        if uri not in self._copies:
            copy = self._ask("copy", uri) if self._ask else self._shared_copy(uri)
            self._compare(uri, Look(size=copy.size, mtime_ns=0, sha256=copy.sha256))
            self._copies[uri] = copy
        return self._copies[uri]

    def siblings(self, uri: str) -> list[str]:
        """Addresses of the files in a file's folder. Raises as `find`."""
        self.policy.check(uri)
        local = local_path(uri)
        if local is not None:
            return sorted(str(path) for path in Path(local).parent.iterdir())
        if self._ask:
            return self._ask("siblings", uri)
        from schemas.fetching import list_folder

        folder = folder_of(uri)
        return [f"{folder}/{name}" for name in list_folder(f"{folder}/", self.policy)]

    def peek(self, uri: str) -> str | BinaryIO:
        """The path of a local file, or a remote file of which only what is asked for is read, for a look at its header."""
        if local_path(uri) is not None:
            return self.find(uri)[0]
        from schemas.fetching import open_remote

        return open_remote(uri, self.policy)

    def forget(self, uri: str) -> None:
        """Delete the copy of a source that is done."""
        self.release()
        if self._folder is not None:
            for path in self._folder.glob(f"{_name(uri)}-*"):
                _delete_unused(path)

    def clean(self) -> None:
        """Delete the copies of jobs that have ended."""
        with suppress(FileNotFoundError):
            for folder in self.access.root.iterdir():
                _delete_if_unused(folder)

    def close(self) -> None:
        """Delete this job's copies unless another process of it is at work on this node."""
        self.release()
        folder, self._folder = self._folder, None
        if folder is not None:
            os.close(self._lock)
            _delete_if_unused(folder)

    def _compare(self, uri: str, look: Look) -> None:
        if self._looks is not None:
            _check_same(uri, self._looks.setdefault(uri, look), look)

    def _shared_copy(self, uri: str) -> Copy:
        self.policy.check(uri)
        folder, name = self._job_folder(), _name(uri)
        with _locked(folder / f".{name[:3]}.lock"):
            while uri not in self._in_use:
                found = next(folder.glob(f"{name}-*"), None) or self._fetch(uri, folder, name)
                with suppress(FileNotFoundError):
                    handle = os.open(found, os.O_RDONLY)
                    fcntl.flock(handle, fcntl.LOCK_SH)
                    if os.fstat(handle).st_nlink:
                        self._in_use[uri] = handle
                    else:  # deleted, to make room for another, before it was locked
                        os.close(handle)
            found = next(folder.glob(f"{name}-*"))
            os.utime(found)  # the least recently used is deleted first
        return Copy(path=str(found), size=found.stat().st_size, sha256=found.name.split("-")[1].split(".")[0])

    def _fetch(self, uri: str, folder: Path, name: str) -> Path:
        from schemas.fetching import Download, Limits, download  # its libraries take a while to import

        requests = self.access.requests
        partial = folder / f".{name}.partial"
        deadline_s = time.monotonic() + requests.max_s
        try:
            with partial.open("wb") as file:
                limits = Limits(max_bytes=min(requests.max_bytes, requests.staging_bytes), max_s=requests.max_s)

                def reserve(size: int) -> None:
                    self._make_room(folder, partial, size, deadline_s)

                into = Download(uri, file.write, limits, reserve)
                download(uri, self.policy, into)
                file.truncate(into.size)
            suffix = re.sub(r"[^.a-z0-9]", "", PurePosixPath(path_part(uri)).suffix.lower())
            return partial.rename(folder / f"{name}-{into.sha256}{suffix}")
        finally:
            partial.unlink(missing_ok=True)

    def _make_room(self, folder: Path, partial: Path, size: int, deadline_s: float) -> None:
        """Reserve `size` bytes for a copy in progress, after deleting copies that no process uses, the least recent first."""
        limit = self.access.requests.staging_bytes
        while True:
            with _locked(folder / ".room.lock"):
                others = {path: found for path in folder.iterdir() if path != partial and (found := _stat(path))}
                total = sum(found.st_size for found in others.values())
                for path in sorted(others, key=lambda one: others[one].st_mtime_ns):
                    if total + size > limit and not path.name.startswith(".") and _delete_unused(path):
                        total -= others[path].st_size
                if total + size <= limit:
                    os.truncate(partial, size)
                    return
            if time.monotonic() > deadline_s:
                raise TimeoutError(
                    f"{folder}: {total} bytes of copies are in use, {size} more exceed requests.staging_bytes ({limit}); raise it"
                )
            time.sleep(_WAIT_S)

    def _job_folder(self) -> Path:
        """This job's folder, made at first use."""
        while self._folder is None:
            root = self.access.root
            root.mkdir(mode=0o700, parents=True, exist_ok=True)
            if root.stat().st_uid != os.geteuid() or root.is_symlink():
                raise HumoError(f"{root}: belongs to another user; set requests.staging_folder")
            self.clean()
            folder = root / self.access.job
            folder.mkdir(mode=0o700, exist_ok=True)
            with suppress(FileNotFoundError):  # another process deleted the folder
                self._lock = os.open(folder / _IN_USE, os.O_CREAT | os.O_RDWR, 0o600)
                fcntl.flock(self._lock, fcntl.LOCK_SH)
                if os.fstat(self._lock).st_nlink:
                    self._folder = folder
                else:  # before it was locked
                    os.close(self._lock)
        return self._folder


def _look(path: str) -> Look:
    found = os.stat(path)
    if stat.S_ISDIR(found.st_mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), path)
    if not stat.S_ISREG(found.st_mode):
        raise SourceError("not_a_file", f"{path}: a device, pipe or socket, which may have no end; list files")
    return Look(size=found.st_size, mtime_ns=found.st_mtime_ns, sha256="")


def _check_same(uri: str, first: Look, now: Look) -> None:
    if first.size != now.size:
        raise SourceError("source_changed", f"{public_form(uri)}: bytes, while it was processed", now.size, first.size)
    if first != now:
        difference = "content" if first.sha256 else "time of modification"
        raise SourceError("source_changed", f"{public_form(uri)}: its {difference} changed while it was processed")


def _name(uri: str) -> str:
    return digest("source", uri, digits=32)


def _stat(path: Path) -> os.stat_result | None:
    try:
        return path.stat()
    except FileNotFoundError:
        return None


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    handle = os.open(path, os.O_CREAT | os.O_RDWR, 0o600)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def _delete_unused(path: Path) -> bool:
    """Delete a copy unless a process uses it."""
    try:
        handle = os.open(path, os.O_RDONLY)
    except FileNotFoundError:
        return True
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        path.unlink(missing_ok=True)
    except BlockingIOError:
        return False
    finally:
        os.close(handle)
    return True


def _delete_if_unused(folder: Path) -> None:
    """Delete a job's folder unless a process of the job is at work."""
    try:
        handle = os.open(folder / _IN_USE, os.O_RDWR)
    except FileNotFoundError:
        with suppress(OSError):
            folder.rmdir()
        return
    except NotADirectoryError:
        return
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        shutil.rmtree(folder, ignore_errors=True)
    except BlockingIOError:
        pass
    finally:
        os.close(handle)


_current: SourceFiles | None = None


def source_files() -> SourceFiles:
    """Those of this process: of its job, or with default limits where there is none."""
    global _current
    if _current is None:
        _current = SourceFiles()
        atexit.register(_current.close)
    return _current


@contextmanager
def use_source_files(files: SourceFiles) -> Iterator[SourceFiles]:
    """Make them this process's for a while, and close them at the end."""
    global _current
    previous, _current = _current, files
    try:
        yield files
    finally:
        _current = previous
        files.close()


@contextmanager
def source_file(uri: str) -> Iterator[str]:
    """The path to read a source's file from; at the end it must still be the same file. Raises as `SourceFiles.find`."""
    files = source_files()
    path, look = files.find(uri)
    try:
        yield path
    except Exception:
        files.check(uri, look)  # a file that was replaced while it was read looks damaged
        raise
    files.check(uri, look)


def read_source(uri: str, max_bytes: int) -> bytes:
    """All of a source's file. Raises SourceError if it is larger, and as `SourceFiles.find`."""
    with source_file(uri) as path, open(path, "rb") as file:
        size = os.fstat(file.fileno()).st_size
        if size > max_bytes:
            raise SourceError(
                "source_too_large", f"{public_form(uri)}: bytes of a file that is read as a whole", size, max_bytes
            )
        return file.read(size)  # `read(max_bytes)` would allocate that much at once
