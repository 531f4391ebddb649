"""Stopping a running job by Ctrl-C or SIGTERM: at once, with its lease released and a message."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


class Stopped(BaseException):
    """Not an Exception: no stage may treat it as an error of its record."""


@contextmanager
def stoppable() -> Iterator[None]:
    """Within it the first SIGINT or SIGTERM raises Stopped; a second one has its usual effect."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    numbers = (signal.SIGINT, signal.SIGTERM)
    previous = {name: signal.getsignal(name) for name in numbers}

    def stop(number: int, _: Any) -> None:
        for name, handler in previous.items():
            signal.signal(name, handler)
        raise Stopped(
            f"stopped by {signal.Signals(number).name}; committed sources are kept: run the same command again to resume"
        )

    for name in numbers:
        signal.signal(name, stop)
    try:
        yield
    finally:
        for name, handler in previous.items():
            signal.signal(name, handler)
