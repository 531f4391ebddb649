"""Files on disk or in a bucket through fsspec; whatever is published appears whole or not at all."""

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, cast

import fsspec
from fsspec.implementations.local import LocalFileSystem

from schemas.errors import HumoError


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
        return self.fs.exists(self.path(relative))

    def read_bytes(self, relative: str, start: int | None = None, end: int | None = None) -> bytes:
        """Content of a file, or its bytes from start up to end."""
        return self.fs.cat_file(self.path(relative), start=start, end=end)

    def open(self, relative: str) -> BinaryIO:
        return cast(BinaryIO, self.fs.open(self.path(relative), "rb"))

    def list(self, folder: str, suffix: str = "") -> list[str]:
        """Relative paths of the files below a folder that end in suffix, sorted; none where there is no folder."""
        try:
            found = self.fs.find(self.path(folder))
        except FileNotFoundError:
            return []
        start = len(self.root.rstrip("/")) + 1
        names = (path[start:] for path in found)
        return sorted(name for name in names if name.endswith(suffix) and not name.rsplit("/", 1)[-1].startswith("."))

    def delete(self, relative: str) -> None:
        self.fs.rm_file(self.path(relative))

    def write_bytes(self, relative: str, content: bytes) -> None:
        """Publish a small file at once."""
        with self.publish(relative) as file:
            file.write(content)

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
                raise
            file.close()
            return
        target = Path(path)
        target.parent.mkdir(parents=True, exist_ok=True)
        aside = target.with_name(f".{target.name}.{os.getpid()}.partial")
        try:
            with aside.open("wb") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            aside.replace(target)
        finally:
            aside.unlink(missing_ok=True)

    def sha256(self, relative: str) -> str:
        with self.open(relative) as file:
            return stream_sha256(file)


def stream_sha256(file: BinaryIO) -> str:
    """Hex SHA-256 of a file opened for reading."""
    return hashlib.file_digest(cast(Any, file), "sha256").hexdigest()
