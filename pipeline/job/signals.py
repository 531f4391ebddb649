"""How a running job ends when it is told to: by Ctrl-C or SIGTERM, at once, with its lease given back and a sentence."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


class Stopped(BaseException):
    """Not an Exception: no stage may take it for its record's fault."""


@contextmanager
def stoppable() -> Iterator[None]:
    """Within it the first signal to end raises Stopped; another one ends the process as it always would."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    names = (signal.SIGINT, signal.SIGTERM)
    before = {name: signal.getsignal(name) for name in names}

    def stop(number: int, _: Any) -> None:
        for name, handler in before.items():
            signal.signal(name, handler)
        raise Stopped(
            f"stopped by {signal.Signals(number).name}; what was committed stays: run the same command again to go on"
        )

    for name in names:
        signal.signal(name, stop)
    try:
        yield
    finally:
        for name, handler in before.items():
            signal.signal(name, handler)
