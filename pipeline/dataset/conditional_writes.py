"""Conditional writes: what a store does only if a file has not changed, and a probe of which of them it has.

S3 compares ETags (`If-Match`, `If-None-Match`); other fsspec file systems have at most an exclusive creation. A local disk needs
none of this: `pipeline.dataset.fence` builds on atomic renames there.
"""

import contextlib
import secrets
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from dataclasses import dataclass

from schemas.storage import Storage

_CHANGED = (404, 409, 412)
"""HTTP statuses of a failed condition: the object is gone, another conditional write is in progress, its ETag differs."""


class ChangedError(OSError):
    """A file is not the one that the condition names, so it was left as it is."""


class LateError(OSError):
    """A request was not sent, because what was checked before it may no longer hold."""


_MAY_SEND: ContextVar[Callable[[], bool] | None] = ContextVar("may_send", default=None)
"""Asked right before a request that changes an object; fsspec's thread inherits it from the caller."""
_GUARDED = ("PutObject", "CompleteMultipartUpload", "DeleteObject", "DeleteObjects")
"""Requests of S3 that change an object."""


@dataclass(frozen=True, kw_only=True)
class Guarantees:
    """The conditional writes of a store."""

    create: bool
    """Exactly one of several concurrent creations succeeds."""
    replace: bool
    """A file is replaced only if it is the one that was read."""
    delete: bool
    """A file is deleted only if it is the one that was read."""

    def missing(self) -> str:
        """What the store lacks, for a message; empty if it keeps a job out that has lost its lease."""
        lacking = [name for name in ("create", "replace") if not getattr(self, name)]
        return " and ".join(
            {"create": "exclusive creation", "replace": "conditional replacement"}[one] for one in lacking
        )


def probe(storage: Storage) -> Guarantees:
    """Try every condition on a small file that is deleted again. Raises OSError if the store cannot be written to."""
    if storage.is_local:
        return Guarantees(create=True, replace=True, delete=True)
    name = f".probe-{secrets.token_hex(8)}"
    storage.create_directly(name, b"first")
    try:
        create = _refuses(lambda: storage.create_directly(name, b"second"))
        if not is_s3(storage):
            return Guarantees(create=create, replace=False, delete=False)
        before = revision(storage, name)
        storage.write_bytes(name, b"third")
        replaced = _refuses(lambda: replace(storage, name, b"fourth", before))
        deleted = _refuses(lambda: delete_unchanged(storage, name, before))
        return Guarantees(create=create, replace=replaced, delete=deleted)
    finally:
        with contextlib.suppress(FileNotFoundError):
            storage.delete(name)


@contextlib.contextmanager
def send_only_if(storage: Storage, may_send: Callable[[], bool]) -> Iterator[None]:
    """Within it every request of this thread that changes an object of S3 asks `may_send` after it is signed, right before it is
    sent, again for every retry, and raises LateError on False. A server refuses signatures that are older than 15 minutes."""
    if not is_s3(storage):
        yield
        return
    for name in _GUARDED:
        storage.fs.s3.meta.events.register(f"before-send.s3.{name}", _refuse_late, unique_id=f"humo-{name}")
    token = _MAY_SEND.set(may_send)
    try:
        yield
    finally:
        _MAY_SEND.reset(token)


def _refuse_late(**_: object) -> None:
    may_send = _MAY_SEND.get()
    if may_send is not None and not may_send():
        raise LateError("this job slept in the middle of a write, which was not sent; run the same command again")


def is_s3(storage: Storage) -> bool:
    """Whether the store is reached through s3fs, which passes conditions on."""
    protocols = storage.fs.protocol
    return "s3" in ((protocols,) if isinstance(protocols, str) else protocols)


def revision(storage: Storage, relative: str) -> str:
    """ETag of an object; empty if there is none."""
    bucket, key, _ = storage.fs.split_path(storage.path(relative))
    try:
        return str(storage.fs.call_s3("head_object", Bucket=bucket, Key=key)["ETag"])
    except FileNotFoundError:
        return ""


def replace(storage: Storage, relative: str, content: bytes, before: str) -> None:
    """Write an object if its ETag is `before`, or if it does not exist where `before` is empty; otherwise raises ChangedError."""
    bucket, key, _ = storage.fs.split_path(storage.path(relative))
    condition = {"IfMatch": before} if before else {"IfNoneMatch": "*"}
    with _changed_errors(relative):
        storage.fs.call_s3("put_object", Bucket=bucket, Key=key, Body=content, **condition)
    storage.fs.invalidate_cache()


def delete_unchanged(storage: Storage, relative: str, before: str) -> None:
    """Delete an object if its ETag is `before`; otherwise raises ChangedError."""
    bucket, key, _ = storage.fs.split_path(storage.path(relative))
    with _changed_errors(relative):
        storage.fs.call_s3("delete_object", Bucket=bucket, Key=key, IfMatch=before)
    storage.fs.invalidate_cache()


@contextlib.contextmanager
def _changed_errors(relative: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        response = getattr(error.__cause__, "response", None) or {}
        if response.get("ResponseMetadata", {}).get("HTTPStatusCode") in _CHANGED:
            raise ChangedError(f"{relative}: has changed since it was read") from error
        raise


def _refuses(write: Callable[[], None]) -> bool:
    """Whether the store refuses a write whose condition does not hold."""
    try:
        write()
    except (ChangedError, FileExistsError):
        return True
    return False
