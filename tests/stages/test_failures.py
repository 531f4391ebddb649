import errno
import gc
import http.client
import socket
import sys
import urllib.error
import weakref
from collections.abc import Iterable
from email.message import Message
from itertools import pairwise
from pathlib import Path

import av
import cv2
import pytest
import requests
import torch
import urllib3

from schemas.records import Source
from schemas.staging import Access, SourceFiles, use_source_files
from stages import failures
from stages.base import QUARANTINE_REASONS, Stage, apply
from stages.failures import describe_error, is_out_of_memory, is_transient, short_path, short_paths
from stages.read_videos import ReadVideos


def http_error(status: int) -> urllib.error.HTTPError:
    return urllib.error.HTTPError("http://store", status, "said the store", Message(), None)


def store_error(name: str, **attributes: object) -> Exception:
    """An error with the class of botocore or aiohttp, which are not always installed."""
    library, _, kind = name.partition(".")
    error = type(kind, (Exception,), {"__module__": f"{library}.exceptions"})("from the store")
    vars(error).update(attributes)
    return error


TRANSIENT_ERRORS = [
    ConnectionResetError(errno.ECONNRESET, "reset by peer"),
    TimeoutError("timed out"),
    OSError(errno.ETIMEDOUT, "timed out"),
    OSError(errno.EHOSTUNREACH, "no route to host"),
    OSError(errno.ESTALE, "stale file handle"),
    socket.gaierror(socket.EAI_AGAIN, "temporary failure in name resolution"),
    av.error.ConnectionResetError(errno.ECONNRESET, "reset by peer"),
    http.client.IncompleteRead(b""),
    requests.ConnectionError("refused"),
    requests.Timeout("no answer"),
    urllib3.exceptions.ProtocolError("broken"),
    http_error(503),
    http_error(429),
    store_error("botocore.HTTPClientError"),
    store_error("botocore.ClientError", response={"ResponseMetadata": {"HTTPStatusCode": 503}}),
    store_error("aiohttp.ClientPayloadError"),
    store_error("gcsfs.HttpError", code=502),
]
PERMANENT_ERRORS = [
    ValueError("no good"),
    MemoryError(),
    FileNotFoundError(errno.ENOENT, "not there"),
    PermissionError(errno.EACCES, "not allowed"),
    OSError(errno.EIO, "input/output error"),
    OSError(errno.ENOSPC, "no space left"),
    socket.gaierror(socket.EAI_NONAME, "name not known"),
    av.error.InvalidDataError(1094995529, "invalid data"),
    http_error(404),
    http_error(403),
    store_error("botocore.ClientError", response={"ResponseMetadata": {"HTTPStatusCode": 404}}),
    store_error("ours.HttpError", code=502),
]


@pytest.mark.parametrize("error", TRANSIENT_ERRORS, ids=lambda error: f"{type(error).__name__}-{error}"[:40])
def test_transient_errors(error: Exception) -> None:
    assert is_transient(error)
    with pytest.raises(OSError, match="file system") as raised:
        raise OSError(errno.EIO, "as a file system puts it") from error
    assert is_transient(raised.value)


@pytest.mark.parametrize("error", PERMANENT_ERRORS, ids=lambda error: f"{type(error).__name__}-{error}"[:40])
def test_permanent_errors(error: Exception) -> None:
    assert not is_transient(error)


OUT_OF_MEMORY_ERRORS = [
    MemoryError(),
    OSError(errno.ENOMEM, "cannot allocate memory"),
    torch.OutOfMemoryError("CUDA out of memory"),
    RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"),
    RuntimeError("can't start new thread"),
    cv2.error("OpenCV(5) alloc.cpp:73: error: (-4:Insufficient memory) Failed to allocate 9 bytes"),
]


@pytest.mark.parametrize("error", OUT_OF_MEMORY_ERRORS, ids=lambda error: f"{type(error).__name__}-{error}"[:40])
def test_out_of_memory(error: Exception, waits: list[float]) -> None:
    _, [rejection] = apply(FailingStage([error] * 2), [SOURCE])
    assert (rejection.reason, waits) == ("out_of_memory", [])
    assert is_out_of_memory(error)
    assert "out_of_memory" in QUARANTINE_REASONS
    with pytest.raises(ValueError, match="as a reader puts it") as raised:
        raise ValueError("as a reader puts it") from error
    assert is_out_of_memory(raised.value)
    assert not any(is_out_of_memory(one) for one in (*TRANSIENT_ERRORS, ValueError(), OSError(errno.EAGAIN, "")))


class Held:
    """What a failing call holds."""


class HoldingStage(Stage[Source, Source]):
    """Fails with something in its hands."""

    def __init__(self) -> None:
        super().__init__()
        self.held: list[weakref.ref[Held]] = []
        self.left: list[int] = []

    def run(self, record: Source) -> list[Source]:
        self.left.append(sum(one() is not None for one in self.held))
        held = Held()
        self.held.append(weakref.ref(held))
        try:
            raise OSError("first")
        except OSError as error:
            raise ValueError("then") from error


def test_a_failed_call_keeps_nothing_alive() -> None:
    stage = HoldingStage()
    gc.disable()  # reference cycles are not collected in time where memory is short
    try:
        apply(stage, [SOURCE, SOURCE])
        assert stage.left == [0, 0, 0]
        assert [one() for one in stage.held] == [None] * 3
    finally:
        gc.enable()


class FailingStage(Stage[Source, Source]):
    """Raises the next of its errors on each attempt while any are left."""

    def __init__(self, errors: Iterable[Exception]) -> None:
        super().__init__()
        self.errors, self.attempts = [*errors], 0

    def run(self, record: Source) -> list[Source]:
        self.attempts += 1
        if self.errors:
            raise self.errors.pop(0)
        return [record]


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The waits between attempts, seconds; nothing sleeps."""
    slept: list[float] = []
    monkeypatch.setattr("tenacity.nap.time.sleep", slept.append)
    return slept


SOURCE = Source(id="one", uri="s3://nowhere/one.mp4")


def test_a_store_that_recovers_is_retried(waits: list[float]) -> None:
    stage = FailingStage([ConnectionResetError()] * failures.MAX_ATTEMPTS)  # the first is the whole batch's
    assert apply(stage, [SOURCE]) == ([SOURCE], [])
    assert len(waits) == failures.MAX_ATTEMPTS - 1
    assert all(later > earlier >= failures.INITIAL_BACKOFF_S for earlier, later in pairwise(waits))


def test_a_store_that_does_not_recover_is_unreachable(waits: list[float]) -> None:
    stage = FailingStage(ConnectionResetError(errno.ECONNRESET, "reset by peer") for _ in range(100))
    results, [rejection] = apply(stage, [SOURCE])
    assert results == []
    assert (rejection.id, rejection.stage, rejection.reason) == ("one", "failing_stage", "unreachable")
    assert rejection.detail.startswith("ConnectionResetError: [Errno")
    assert stage.attempts == 1 + failures.MAX_ATTEMPTS
    assert "unreachable" in QUARANTINE_REASONS


def test_permanent_errors_are_not_retried(waits: list[float]) -> None:
    stage = FailingStage(ValueError(f"no good, {number}") for number in range(100))
    _, [rejection] = apply(stage, [SOURCE])
    assert (rejection.reason, stage.attempts, waits) == ("error", 2, [])
    assert rejection.detail.startswith("ValueError: no good, 1 (")


def raise_at_depth(depth: int) -> None:
    if depth:
        raise_at_depth(depth - 1)
    raise ValueError("x" * 5000)


def test_descriptions_are_bounded_and_without_machine_paths() -> None:
    try:
        raise_at_depth(50)
    except ValueError as error:
        description = describe_error(error)
    assert len(description) == 2000
    assert description.startswith("ValueError: xxx")
    fails, calls = (
        f"test_failures.py:{raise_at_depth.__code__.co_firstlineno + line} in raise_at_depth" for line in (3, 2)
    )
    assert description.endswith(f" ({fails}{f' < {calls}' * 5})")
    assert str(Path(__file__).parent) not in description
    assert describe_error(ValueError("never raised")) == "ValueError: never raised"


def test_paths_are_relative_to_sys_path() -> None:
    root = next(folder for folder in sys.path if folder and Path(folder).is_dir())
    assert short_path(f"{root}/some/module.py") == "some/module.py"
    assert short_path("/not/on/the/path.py") == "path.py"
    assert short_path("av/streams.py") == "av/streams.py"
    dump = f'  File "{root}/some/module.py", line 3 in run'
    assert short_paths(dump) == '  File "some/module.py", line 3 in run'


def test_an_unreachable_source_is_not_missing(waits: list[float]) -> None:
    """Web file systems report a refused connection as a missing file."""
    refused = FileNotFoundError("http://store/one.mp4")
    refused.__cause__ = ConnectionRefusedError(errno.ECONNREFUSED, "refused")
    stage = FailingStage([])
    with pytest.raises(FileNotFoundError):
        stage.reject_unread(SOURCE, refused)
    reasons = [stage.reject_unread(SOURCE, error).reason for error in (FileNotFoundError(), PermissionError())]
    assert reasons == ["missing", "unreadable"]
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    source = Source(id="one", uri=f"http://127.0.0.1:{port}/one.mp4")
    with use_source_files(SourceFiles(Access(stores=(source.uri,)))):
        _, [rejection] = apply(ReadVideos(), [source])
    assert rejection.reason == "unreachable"
    assert len(waits) == failures.MAX_ATTEMPTS - 1
