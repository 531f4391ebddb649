"""What exceptions tell: which may pass by themselves, and where one came from, in a line that fits into a ledger."""

import errno
import re
import socket
import sys
import traceback
from collections.abc import Callable
from typing import Any, TypeVar

from tenacity import Retrying, retry_if_exception, stop_after_attempt, wait_exponential_jitter

Result = TypeVar("Result")

TRIES = 4
"""How often something is asked for that may only be out of reach for a while."""
FIRST_PAUSE_S = 1.0
"""Pause before the second try, seconds; it doubles from try to try, and up to as much again is added by chance."""
_MOST_CHARACTERS = 2000
_FRAMES = 6

_NUMBERS = frozenset(
    {
        errno.EHOSTDOWN, errno.EHOSTUNREACH, errno.ENETDOWN, errno.ENETRESET, errno.ENETUNREACH, errno.ESTALE,
        socket.EAI_AGAIN,
    }
)  # fmt: skip
"""Of network errors to which Python gives no class of their own; the last is a name server's `try again`."""
_CLASSES = {
    "aiohttp": {"ClientConnectionError", "ClientPayloadError"},
    "azure": {"ServiceRequestError", "ServiceResponseError"},
    "botocore": {"ConnectionError", "HTTPClientError", "IncompleteReadError"},
    "http": {"IncompleteRead"},
    "httpx": {"TransportError"},
    "requests": {"ChunkedEncodingError", "ConnectionError", "Timeout"},
    "urllib3": {"MaxRetryError", "ProtocolError", "TimeoutError"},
}
"""Library -> its classes of network errors, by name: the libraries of object stores are not installed everywhere."""
_STATUSES = frozenset({408, 425, 429, 500, 502, 503, 504})
"""HTTP statuses by which a store or a server says that it is busy or failing."""
_SPEAK_HTTP = frozenset({*_CLASSES, "gcsfs", "google", "urllib"})


def is_transient(error: BaseException) -> bool:
    """Whether an exception, or the one that it was raised from, is the network's or a remote store's: it may pass."""
    cause: BaseException | None = error
    for _ in range(5):
        if cause is None:
            return False
        if isinstance(cause, ConnectionError | TimeoutError) or getattr(cause, "errno", None) in _NUMBERS:
            return True
        names = [(kind.__module__.split(".")[0], kind.__name__) for kind in type(cause).__mro__]
        if any(name in _CLASSES.get(library, ()) for library, name in names):
            return True
        if any(library in _SPEAK_HTTP for library, _ in names) and _status(cause) in _STATUSES:
            return True
        cause = cause.__cause__
    return False


def persistent(function: Callable[..., Result], *arguments: Any) -> Result:
    """Call a function, again after a pause where it fails by something transient; raises what it raised last."""
    pause = wait_exponential_jitter(initial=FIRST_PAUSE_S, jitter=FIRST_PAUSE_S)
    again = Retrying(retry=retry_if_exception(is_transient), wait=pause, stop=stop_after_attempt(TRIES), reraise=True)
    return again(function, *arguments)


def describe(error: BaseException) -> str:
    """Class, message and the innermost places in the code, of bounded length: `ValueError: no (stages/a.py:12 in run)`."""
    places = [
        f"{short_path(frame.f_code.co_filename)}:{line} in {frame.f_code.co_name}"
        for frame, line in traceback.walk_tb(error.__traceback__)
    ]
    where = f" ({' < '.join(reversed(places[-_FRAMES:]))})"[:_MOST_CHARACTERS] if places else ""
    return f"{type(error).__name__}: {error}"[: _MOST_CHARACTERS - len(where)] + where


def short_paths(text: str) -> str:
    """A traceback's text with its files named as `short_path` does."""
    return re.sub(r'File "([^"]+)"', lambda match: f'File "{short_path(match[1])}"', text)


def short_path(path: str) -> str:
    """A file of code by its name below the folder that Python imports it from; by its bare name if it is in none.

    Compiled modules name theirs relative to where they were built; those stay as they are.
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
