"""Files on disk or in a bucket through fsspec; publishing a file is atomic."""

import hashlib
import os
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO, Protocol, cast, runtime_checkable

import fsspec
from fsspec.implementations.local import LocalFileSystem

from schemas.addresses import public_form
from schemas.errors import HumoError

PARTIAL = ".partial"
"""Suffix of unfinished files on a disk."""


@runtime_checkable
class ByteFile(Protocol):
    """A readable, seekable file on a disk or in a bucket."""

    def read(self, size: int = -1, /) -> bytes: ...
    def seek(self, offset: int, whence: int = 0, /) -> int: ...
    def close(self) -> None: ...
    def __enter__(self) -> "ByteFile": ...
    def __exit__(self, *error: Any) -> None: ...


def open_file(uri: str) -> Any:
    """A file at any fsspec address, opened for reading; signs such as `[` and `*` in its name have no meaning.

    Raises OSError.
    """
    fs, path = fsspec.core.url_to_fs(uri)
    return fs.open(path, "rb")


class Storage:
    """A folder on any file system supported by fsspec, addressed by relative paths."""

    epoch = 0
    """Number of the lease that writes belong to (see `pipeline.dataset.fence`); 0 where they belong to none."""

    def __init__(self, root: str | Path) -> None:
        self.address = str(root)
        """What opens the folder; not for messages, as it may hold credentials."""
        self.uri = public_form(self.address)
        """What may be written and printed of the address."""
        try:
            self.fs, self.root = fsspec.core.url_to_fs(self.address)
        except (ImportError, ValueError) as error:
            raise HumoError(
                f"{self.uri}: cannot be reached ({error}); install that protocol's fsspec package"
            ) from None
        self.is_local = isinstance(self.fs, LocalFileSystem)

    def path(self, relative: str) -> str:
        """Path of a file below the root, as the file system expects it.

        Raises HumoError for a name that leads out of it: such names come from tables and descriptions that others wrote.
        """
        if relative.startswith("/") or ".." in relative.split("/"):
            raise HumoError(
                f"{self.uri}: {relative!r} leads out of it; do not use this dataset, its tables are altered"
            )
        return f"{self.root}/{relative}" if relative else self.root

    def exists(self, relative: str) -> bool:
        self.fs.invalidate_cache()  # other processes write here too
        return self.fs.exists(self.path(relative))

    def read_bytes(self, relative: str, start: int | None = None, end: int | None = None) -> bytes:
        """Content of a file, or its bytes from start up to end (exclusive)."""
        return self.fs.cat_file(self.path(relative), start=start, end=end)

    def read_many(self, relative: Sequence[str]) -> Iterator[bytes]:
        """Contents of files, in the given order; a bucket is read with one batch of concurrent requests."""
        if self.is_local or len(relative) < 2:
            yield from map(self.read_bytes, relative)
            return
        contents = self.fs.cat([self.path(one) for one in relative])
        yield from (contents[self.fs._strip_protocol(self.path(one))] for one in relative)

    def open(self, relative: str) -> "ByteFile":
        return cast(ByteFile, self.fs.open(self.path(relative), "rb"))

    def list(self, folder: str, suffix: str = "", *, hidden: bool = False) -> list[str]:
        """Sorted relative paths of the files below a folder that end in suffix; empty if there is no such folder. `hidden` lists
        only names that begin with a dot; otherwise those are left out."""
        self.fs.invalidate_cache()
        try:
            paths = self.fs.find(self.path(folder))
        except FileNotFoundError:
            return []
        start = len(self.root.rstrip("/")) + 1
        names = (path[start:] for path in paths)
        return sorted(
            name for name in names if name.endswith(suffix) and name.rsplit("/", 1)[-1].startswith(".") == hidden
        )

    def delete(self, relative: str) -> None:
        self.fs.rm_file(self.path(relative))

    def delete_all(self, relative: Sequence[str]) -> None:
        """Delete files; those that are gone already are passed over."""
        for one in relative:
            with suppress(FileNotFoundError):
                self.delete(one)

    def modified_s(self, relative: str) -> float:
        """Modification time, seconds since 1970; 0 where the store does not record it."""
        try:
            return self.fs.modified(self.path(relative)).timestamp()
        except NotImplementedError:
            # fsspec raises this for file systems without modification times.
            return 0.0

    def write_bytes(self, relative: str, content: bytes) -> None:
        """Publish a small file."""
        with self.publish(relative) as file:
            file.write(content)

    def create(self, relative: str, content: bytes) -> None:
        """Publish a small file unless one of that name exists; then it raises FileExistsError and changes nothing.

        Exactly one of several concurrent calls succeeds, on disks and on stores with conditional writes (S3, GCS, Azure);
        elsewhere this relies on the check just before the write.
        """
        path = self.path(relative)
        if self.is_local:
            with self._temporary(Path(path), content) as temporary:
                _link(temporary, Path(path))
            return
        if self.exists(relative):
            raise FileExistsError(path)
        self.create_directly(relative, content)

    def create_directly(self, relative: str, content: bytes) -> None:
        """`create` on a store, which relies on the store alone."""
        path = self.path(relative)
        try:
            self.fs.pipe_file(path, content, mode="create")
        except (NotImplementedError, TypeError):
            # Plugins that do not support fsspec's create mode raise these.
            self.fs.pipe_file(path, content)
        except OSError as error:
            # The error of a failed conditional write differs between stores.
            if self.exists(relative):
                raise FileExistsError(path) from error
            raise

    @contextmanager
    def publish(self, relative: str) -> Iterator[BinaryIO]:
        """A file to write that appears under its name, complete, when the block ends without an error.

        On a disk it is written to a temporary file, flushed and renamed; on an object store the upload is atomic.
        """
        path = self.path(relative)
        if not self.is_local:
            file = self.fs.open(path, "wb")
            try:
                yield cast(BinaryIO, file)
            except BaseException:
                file.discard()
                file.closed = True  # otherwise garbage collection would upload it
                raise
            file.close()
            return
        target = Path(path)
        with self._temporary(target) as temporary:
            with temporary.open("wb") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(target)
            _flush_folder(target.parent)

    @contextmanager
    def _temporary(self, target: Path, content: bytes | None = None) -> Iterator[Path]:
        """A hidden file in the staging folder, deleted at the end."""
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary = self._staging_folder(target) / f".{target.name}.{os.getpid()}-{threading.get_ident()}{PARTIAL}"
        try:
            if content is not None:
                with temporary.open("wb") as file:
                    file.write(content)
                    file.flush()
                    os.fsync(file.fileno())
            yield temporary
        finally:
            temporary.unlink(missing_ok=True)

    def _staging_folder(self, target: Path) -> Path:
        """Where a file is written before it gets its name on the same disk."""
        return target.parent

    def sha256(self, relative: str) -> str:
        with self.open(relative) as file:
            return stream_sha256(file)


def _link(temporary: Path, target: Path) -> None:
    """Publish a finished temporary file as target; raises FileExistsError if the target exists."""
    try:
        os.link(temporary, target)
    except FileExistsError:
        raise
    except OSError:  # a file system without hard links
        if target.exists():
            raise FileExistsError(target) from None
        temporary.replace(target)
    _flush_folder(target.parent)


def _flush_folder(folder: Path) -> None:
    """Flush the folder, so that a new name in it is durable."""
    if os.name == "posix":
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def stream_sha256(file: "ByteFile | BinaryIO") -> str:
    """Hex SHA-256 of a file opened for reading."""
    return hashlib.file_digest(cast(Any, file), "sha256").hexdigest()


def file_digest(path: Path) -> str:
    """Hex SHA-256 of a file."""
    with path.open("rb") as file:
        return stream_sha256(file)
