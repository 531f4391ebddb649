"""Classifies exceptions as transient or not, and describes one in a line of bounded length for the ledger."""

import errno
import re
import socket
import sys
import traceback
from collections.abc import Callable
from typing import Any, TypeVar

from tenacity import Retrying, retry_if_exception, stop_after_attempt, wait_exponential_jitter

from schemas.secrets import hide_secrets

Result = TypeVar("Result")

MAX_ATTEMPTS = 4
"""Maximum number of calls to something that is temporarily unreachable."""
INITIAL_BACKOFF_S = 1.0
"""Wait before the second attempt, seconds; it doubles with each attempt, and random jitter of up to this value is added."""
_MAX_CHARACTERS = 2000
_MAX_FRAMES = 6

_TRANSIENT_ERRNOS = frozenset(
    {
        errno.EHOSTDOWN, errno.EHOSTUNREACH, errno.ENETDOWN, errno.ENETRESET, errno.ENETUNREACH, errno.ESTALE,
        socket.EAI_AGAIN,
    }
)  # fmt: skip
"""Network errors without a Python exception class; the last is a name server's `try again`."""
_NETWORK_ERRORS = {
    "aiohttp": {"ClientConnectionError", "ClientPayloadError"},
    "azure": {"ServiceRequestError", "ServiceResponseError"},
    "botocore": {"ConnectionError", "HTTPClientError", "IncompleteReadError"},
    "http": {"IncompleteRead"},
    "httpx": {"TransportError"},
    "requests": {"ChunkedEncodingError", "ConnectionError", "Timeout"},
    "urllib3": {"MaxRetryError", "ProtocolError", "TimeoutError"},
}
"""Library -> names of its network error classes; by name, because object-store libraries are not always installed."""
_RETRYABLE_STATUSES = frozenset({408, 425, 429, 500, 502, 503, 504})
"""HTTP statuses of a busy or failing server."""
_OUT_OF_MEMORY = ("Insufficient memory", "can't allocate memory", "std::bad_alloc", "can't start new thread")
"""In messages of OpenCV, PyTorch, C++ libraries and Python."""
_HTTP_LIBRARIES = frozenset({*_NETWORK_ERRORS, "gcsfs", "google", "urllib"})


def is_transient(error: BaseException) -> bool:
    """Whether an exception, or one in its chain of causes, is a network or remote-store error that a retry may resolve."""
    cause: BaseException | None = error
    for _ in range(5):
        if cause is None:
            return False
        if isinstance(cause, ConnectionError | TimeoutError) or getattr(cause, "errno", None) in _TRANSIENT_ERRNOS:
            return True
        names = [(cls.__module__.split(".")[0], cls.__name__) for cls in type(cause).__mro__]
        if any(name in _NETWORK_ERRORS.get(library, ()) for library, name in names):
            return True
        if any(library in _HTTP_LIBRARIES for library, _ in names) and _status(cause) in _RETRYABLE_STATUSES:
            return True
        cause = cause.__cause__
    return False


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an exception, or one in its chain of causes, says that memory, or room for another thread, was refused."""
    cause: BaseException | None = error
    for _ in range(5):
        if cause is None:
            return False
        if isinstance(cause, MemoryError) or getattr(cause, "errno", None) == errno.ENOMEM:
            return True
        # Of PyTorch on a GPU; other libraries say it in words alone.
        if type(cause).__name__ == "OutOfMemoryError" or any(text in str(cause) for text in _OUT_OF_MEMORY):
            return True
        cause = cause.__cause__
    return False


def drop_frames(error: BaseException) -> None:
    """Clear the variables of the calls that an exception went through, and of its causes: it may live on in a reference cycle,
    and with it everything that they held."""
    seen: set[int] = set()
    pending: list[BaseException | None] = [error]
    while pending:
        one = pending.pop()
        if one is not None and id(one) not in seen:
            seen.add(id(one))
            traceback.clear_frames(one.__traceback__)
            pending += [one.__cause__, one.__context__]


def call_with_retries(function: Callable[..., Result], *arguments: Any) -> Result:
    """Call a function, with backoff and retries on transient errors; raises the last error."""
    wait = wait_exponential_jitter(initial=INITIAL_BACKOFF_S, jitter=INITIAL_BACKOFF_S)
    retrying = Retrying(
        retry=retry_if_exception(is_transient), wait=wait, stop=stop_after_attempt(MAX_ATTEMPTS), reraise=True
    )
    return retrying(function, *arguments)


def describe_error(error: BaseException) -> str:
    """Class, message and innermost frames, of bounded length: `ValueError: no (stages/a.py:12 in run)`."""
    locations = [
        f"{short_path(frame.f_code.co_filename)}:{line} in {frame.f_code.co_name}"
        for frame, line in traceback.walk_tb(error.__traceback__)
    ]
    location = f" ({' < '.join(reversed(locations[-_MAX_FRAMES:]))})"[:_MAX_CHARACTERS] if locations else ""
    text = hide_secrets(f"{type(error).__name__}: {error}")  # before it is cut: half a secret is harder to recognise
    return shortened(text, _MAX_CHARACTERS - len(location)) + location


def shortened(text: str, characters: int) -> str:
    """The beginning of a text, up to a space in its second half: a cut should not leave half a secret that nothing recognises."""
    if len(text) <= characters:
        return text
    words = text[:characters].rpartition(" ")[0]
    return words if 2 * len(words) > characters else text[:characters]


def short_paths(text: str) -> str:
    """A traceback's text with its file names shortened by `short_path`."""
    return re.sub(r'File "([^"]+)"', lambda match: f'File "{short_path(match[1])}"', text)


def short_path(path: str) -> str:
    """A source file's path relative to its entry in `sys.path`; its bare name if it is under none.

    Compiled modules report paths relative to their build directory; those are returned unchanged.
    """
    if not path.startswith("/"):
        return path
    roots = [f"{root.rstrip('/')}/" for root in sys.path if root and path.startswith(f"{root.rstrip('/')}/")]
    return path.removeprefix(max(roots, key=len)) if roots else path.rsplit("/", 1)[-1]


def _status(error: BaseException) -> int | None:
    response = getattr(error, "response", None)
    if isinstance(response, dict):  # botocore's
        return response.get("ResponseMetadata", {}).get("HTTPStatusCode")
    for holder in (error, response):
        for name in ("status", "status_code", "code"):
            value = getattr(holder, name, None)
            if isinstance(value, int | str) and str(value).isdigit():
                return int(value)
    return None
