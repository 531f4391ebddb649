"""Files on disk or in a bucket through fsspec; whatever is published appears whole or not at all."""

import hashlib
import os
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, Protocol, cast, runtime_checkable

import fsspec
from fsspec.implementations.local import LocalFileSystem

from schemas.errors import HumoError

PARTIAL = ".partial"
"""How names of unfinished files end on a disk."""


@runtime_checkable
class ByteFile(Protocol):
    """What can be read, on a disk or in a bucket."""

    def read(self, size: int = -1, /) -> bytes: ...
    def seek(self, offset: int, whence: int = 0, /) -> int: ...
    def close(self) -> None: ...
    def __enter__(self) -> "ByteFile": ...
    def __exit__(self, *error: Any) -> None: ...


class Storage:
    """A folder on any file system that fsspec reaches, addressed by relative paths."""

    def __init__(self, root: str | Path) -> None:
        self.uri = str(root)
        try:
            self.fs, self.root = fsspec.core.url_to_fs(self.uri)
        except (ImportError, ValueError) as error:
            raise HumoError(
                f"{self.uri}: cannot be reached ({error}); install that protocol's fsspec package"
            ) from None
        self.is_local = isinstance(self.fs, LocalFileSystem)

    def path(self, relative: str) -> str:
        """Address of a file below the root, in the file system's own terms."""
        return f"{self.root}/{relative}" if relative else self.root

    def exists(self, relative: str) -> bool:
        self.fs.invalidate_cache()  # others write here too
        return self.fs.exists(self.path(relative))

    def read_bytes(self, relative: str, start: int | None = None, end: int | None = None) -> bytes:
        """Content of a file, or its bytes from start up to end."""
        return self.fs.cat_file(self.path(relative), start=start, end=end)

    def read_many(self, relative: Sequence[str]) -> Iterator[bytes]:
        """Contents of some files, in their order; a bucket is asked for all of them at once."""
        if self.is_local or len(relative) < 2:
            yield from map(self.read_bytes, relative)
            return
        found = self.fs.cat([self.path(one) for one in relative])
        yield from (found[self.fs._strip_protocol(self.path(one))] for one in relative)

    def open(self, relative: str) -> "ByteFile":
        return cast(ByteFile, self.fs.open(self.path(relative), "rb"))

    def list(self, folder: str, suffix: str = "", *, hidden: bool = False) -> list[str]:
        """Relative paths of the files below a folder that end in suffix, sorted; none where there is no folder. Either those
        whose names begin with a dot, or the others."""
        self.fs.invalidate_cache()
        try:
            found = self.fs.find(self.path(folder))
        except FileNotFoundError:
            return []
        start = len(self.root.rstrip("/")) + 1
        names = (path[start:] for path in found)
        return sorted(
            name for name in names if name.endswith(suffix) and name.rsplit("/", 1)[-1].startswith(".") == hidden
        )

    def delete(self, relative: str) -> None:
        self.fs.rm_file(self.path(relative))

    def modified_s(self, relative: str) -> float:
        """When a file was written, seconds since 1970; 0 where the store does not tell."""
        try:
            return self.fs.modified(self.path(relative)).timestamp()
        except NotImplementedError:
            # Nothing unfinished of ours: so fsspec answers for a file system that keeps no times.
            return 0.0

    def write_bytes(self, relative: str, content: bytes) -> None:
        """Publish a small file at once."""
        with self.publish(relative) as file:
            file.write(content)

    def create(self, relative: str, content: bytes) -> None:
        """Publish a small file unless there is one of that name: FileExistsError then, and nothing is changed.

        Of several that try at once one succeeds, on disks and on stores that know conditional writes (S3, GCS, Azure); on
        others it rests on the check just before the write.
        """
        path = self.path(relative)
        if self.is_local:
            with self._aside(Path(path), content) as aside:
                _link(aside, Path(path))
            return
        if self.exists(relative):
            raise FileExistsError(path)
        try:
            self.fs.pipe_file(path, content, mode="create")
        except (NotImplementedError, TypeError):
            # Nothing unfinished of ours: so plugins answer that do not know fsspec's mode.
            self.fs.pipe_file(path, content)
        except OSError as error:
            # What a conditional write that lost is called differs between stores.
            if self.exists(relative):
                raise FileExistsError(path) from error
            raise

    @contextmanager
    def publish(self, relative: str) -> Iterator[BinaryIO]:
        """A file to write that appears under its name, complete, when the block ends without an error.

        On a disk it is written aside, flushed and renamed; on an object store the upload itself is atomic.
        """
        path = self.path(relative)
        if not self.is_local:
            file = self.fs.open(path, "wb")
            try:
                yield cast(BinaryIO, file)
            except BaseException:
                file.discard()
                file.closed = True  # or it would be uploaded after all when it is collected
                raise
            file.close()
            return
        target = Path(path)
        with self._aside(target) as aside:
            with aside.open("wb") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            aside.replace(target)
            _flush_folder(target.parent)

    @contextmanager
    def _aside(self, target: Path, content: bytes | None = None) -> Iterator[Path]:
        """A file beside the target, under a name that no listing shows; gone at the end."""
        target.parent.mkdir(parents=True, exist_ok=True)
        aside = target.with_name(f".{target.name}.{os.getpid()}-{threading.get_ident()}{PARTIAL}")
        try:
            if content is not None:
                with aside.open("wb") as file:
                    file.write(content)
                    file.flush()
                    os.fsync(file.fileno())
            yield aside
        finally:
            aside.unlink(missing_ok=True)

    def sha256(self, relative: str) -> str:
        with self.open(relative) as file:
            return stream_sha256(file)


def _link(aside: Path, target: Path) -> None:
    """The target is the finished file aside, unless it exists."""
    try:
        os.link(aside, target)
    except FileExistsError:
        raise
    except OSError:  # a file system without links
        if target.exists():
            raise FileExistsError(target) from None
        aside.replace(target)
    _flush_folder(target.parent)


def _flush_folder(folder: Path) -> None:
    """A name is as lasting as the folder that it was written into."""
    if os.name == "posix":
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def stream_sha256(file: "ByteFile | BinaryIO") -> str:
    """Hex SHA-256 of a file opened for reading."""
    return hashlib.file_digest(cast(Any, file), "sha256").hexdigest()
